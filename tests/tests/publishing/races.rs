//! Several at once who want the same port: exactly one gets it.

use std::thread;

use super::lab::Lab;
use super::ports::{answers, ask, idle, proxies, sockets};

const ALLOCATED: &str = "Bind for 0.0.0.0:8080 failed: port is already allocated";

/// Runs these commands at once: their status and what they complain about.
fn at_once(lab: &Lab, commands: &[Vec<&str>]) -> Vec<(i32, String)> {
    let run = |words: &Vec<&str>| {
        let said = lab.portmap(words);
        (said.code, said.stderr)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = commands.iter().map(|words| scope.spawn(move || run(words))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The place of the only one that succeeded.
#[track_caller]
fn winner(outcomes: &[(i32, String)]) -> usize {
    let won: Vec<usize> = (0..outcomes.len()).filter(|n| outcomes[*n].0 == 0).collect();
    assert_eq!(won.len(), 1, "{outcomes:?}");
    for (code, said) in outcomes.iter().filter(|(code, _)| *code != 0) {
        let first = said.lines().next().unwrap_or_default();
        assert!(*code == 1 && first.ends_with(ALLOCATED), "{said}");
    }
    won[0]
}

#[test]
fn of_two_starts_for_one_port_exactly_one_wins() {
    let Some(lab) = Lab::new(&[]) else { return };
    let names = ["one", "two", "three"];
    for name in names {
        lab.ok(&[
            "create",
            "--name",
            name,
            "-p",
            "8080:80",
            "-p",
            "9000-9050:90-140",
            "--",
            "sleep",
            "infinity",
        ]);
    }
    for _ in 0..5 {
        let starts: Vec<_> = names.iter().map(|name| vec!["start", *name]).collect();
        let won = names[winner(&at_once(&lab, &starts))];
        assert_eq!(lab.ok(&["ps", "--format", "{{.Names}}"]), won);
        assert_eq!(sockets(&lab).len(), 2 * 52);
        let server = answers(&lab, won, 80, "won");
        assert_eq!(ask(&lab.host, e2e::lab::v4(8080)), "won");
        drop(server);
        lab.ok(&["stop", "-t", "0", won]);
        assert!(sockets(&lab).is_empty() && proxies(&lab).is_empty());
    }
}

#[test]
fn of_two_publications_of_one_port_exactly_one_wins() {
    let Some(lab) = Lab::new(&[]) else { return };
    let names = ["one", "two", "three"];
    names.iter().for_each(|name| idle(&lab, name, &[]));
    let rules = lab.host.run("nft", &["-s", "list", "ruleset"]);
    for _ in 0..6 {
        let publish = |name| vec!["publish", name, "-p", "8081-8090:81-90", "-p", "8080:80"];
        let all: Vec<_> = names.into_iter().map(publish).collect();
        let won = names[winner_of_range(&at_once(&lab, &all))];
        assert_eq!(lab.ok(&["port", won]).lines().count(), 22);
        // Nobody else is in the way of who has it, nor in the way of who comes next.
        let handover = at_once(&lab, &[vec!["unpublish", won, "-p", "8081-8090:81-90", "-p", "8080:80"]]);
        assert_eq!(handover[0].0, 0, "{handover:?}");
        assert!(sockets(&lab).is_empty() && proxies(&lab).is_empty());
        assert_eq!(lab.host.run("nft", &["-s", "list", "ruleset"]), rules);
    }
}

/// As [`winner`], where any of the ports may be the one that is named.
#[track_caller]
fn winner_of_range(outcomes: &[(i32, String)]) -> usize {
    let plain: Vec<_> = outcomes
        .iter()
        .map(|(code, said)| {
            let named = said.split("Bind for 0.0.0.0:").nth(1).and_then(|rest| rest.split(' ').next());
            (*code, named.map_or_else(|| said.clone(), |port| said.replace(port, "8080")))
        })
        .collect();
    winner(&plain)
}

#[test]
fn different_ports_do_not_wait_for_each_other_and_all_succeed() {
    const CROWD: usize = 12;
    let Some(lab) = Lab::new(&[]) else { return };
    let names: Vec<String> = (0..CROWD).map(|n| format!("box{n}")).collect();
    let specs: Vec<String> = (0..CROWD).map(|n| format!("{}:80", 8000 + n)).collect();
    let runs: Vec<Vec<&str>> = names
        .iter()
        .zip(&specs)
        .map(|(name, spec)| {
            vec![
                "run",
                "-d",
                "--name",
                name,
                "-p",
                spec,
                "-p",
                "81",
                "-p",
                "9000-9100:82",
                "--",
                "sleep",
                "infinity",
            ]
        })
        .collect();
    for (code, said) in at_once(&lab, &runs) {
        assert_eq!(code, 0, "{said}");
    }
    assert_eq!(sockets(&lab).len(), CROWD * 6);
    let removals: Vec<Vec<&str>> = names.iter().map(|name| vec!["rm", "-f", name]).collect();
    for (code, said) in at_once(&lab, &removals) {
        assert_eq!(code, 0, "{said}");
    }
    assert!(sockets(&lab).is_empty() && proxies(&lab).is_empty());
}
