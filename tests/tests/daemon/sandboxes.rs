//! Sandboxes as the daemon sees them: their ends, what is done to them at once, and what they cost it.

use std::fs;
use std::time::Duration;

use e2e::daemon::Home;
use e2e::proc::Proc;
use e2e::{bin, need, wait};

use super::home;

/// A number of seconds that nobody else sleeps.
fn odd_time(test: u32) -> String {
    format!("{}.{test}", 20_000 + std::process::id())
}

/// Processes of this home that have the word in their command line, and aren't ours.
fn running(home: &Home, word: &str) -> usize {
    let script = format!(
        "for f in /proc/[0-9]*/cmdline; do tr '\\0' '\\n' <$f 2>/dev/null | sed 2q | paste -sd' '; done | grep -cx 'sleep {word}'"
    );
    home.run("sh", &["-c", &script]).stdout.parse().expect("a number")
}

/// The supervisor of a sandbox's command.
fn supervisor(home: &Home, sandbox: &str) -> String {
    let command = home.portmap(&["inspect", "-f", "{{.State.Pid}}", sandbox]).ok();
    home.run("awk", &["{print $4}", &format!("/proc/{command}/stat")]).ok()
}

fn run(home: &Home, words: &[&str]) -> Proc {
    let mut command = home.command(bin::portmap());
    command.args(words);
    home.host().spawn(command)
}

#[test]
fn what_nobody_supervises_any_more_ends_but_not_who_shares_the_stack() {
    let Some(home) = home() else { return };
    let daemon = home.daemon(&[]);
    let time = odd_time(1);
    let script = format!("setsid sleep {time} & sleep {time} & sleep {time}");
    home.portmap(&["run", "-d", "--name", "web", "sh", "-c", &script]).ok();
    wait::until("background commands", || running(&home, &time) == 3);
    let guest = odd_time(2);
    home.portmap(&["run", "-d", "--name", "guest", "--net", "container:web", "sleep", &guest]).ok();
    home.portmap(&["exec", "-d", "guest", "sleep", &guest]).ok();
    home.portmap(&["run", "-d", "--name", "other", "sleep", &guest]).ok();
    home.run("kill", &["-9", &supervisor(&home, "web")]).ok();
    let status = |name: &str| home.portmap(&["inspect", "-f", "{{.State.Status}}", name]).ok();
    wait::until("end of the sandbox", || status("web") == "exited");
    assert_eq!((running(&home, &time), running(&home, &guest)), (0, 3), "{}", daemon.stderr());
    assert_eq!((status("guest"), status("other")), ("running".to_owned(), "running".to_owned()));
    home.portmap(&["rm", "-f", "guest"]).ok();

    // The same while there is no daemon.
    home.portmap(&["start", "web"]).ok();
    wait::until("background commands", || running(&home, &time) == 3);
    let supervisor = supervisor(&home, "web");
    home.kill_daemon();
    home.run("kill", &["-9", &supervisor]).ok();
    let _second = home.daemon(&[]);
    wait::until("end of what is left", || running(&home, &time) == 0);
    assert_eq!((status("web"), running(&home, &guest)), ("exited".to_owned(), 1));
}

#[test]
fn a_restart_keeps_what_is_to_be_removed_at_its_end() {
    let Some(home) = home() else { return };
    let _daemon = home.daemon(&[]);
    home.portmap(&["run", "-d", "--rm", "--name", "web", "sleep", "1000"]).ok();
    let inspect = |what: &str| home.portmap(&["inspect", "-f", what, "web"]);
    let before = inspect("{{.Id}} {{.State.Pid}}").ok();
    assert_eq!(home.portmap(&["restart", "-t", "0", "web"]).ok(), "web");
    let after = inspect("{{.Id}} {{.State.Pid}}").ok();
    let id = |said: &str| said.split(' ').next().map(str::to_owned);
    assert!(before != after && id(&before) == id(&after), "{before} {after}");
    home.portmap(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(inspect("{{.Id}}").code, 1);
}

#[test]
fn a_stop_goes_on_when_who_asked_for_it_leaves() {
    let Some(home) = home() else { return };
    let _daemon = home.daemon(&[]);
    home.portmap(&["run", "-d", "--name", "deaf", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
        .ok();
    let mut stop = run(&home, &["stop", "-t", "2", "deaf"]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(stop.ended().is_none());
    drop(stop);
    wait::until("end of the sandbox", || {
        home.portmap(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "deaf"]).ok() == "exited 137"
    });
}

#[test]
fn everything_at_once_leaves_a_sandbox_in_one_piece() {
    let Some(home) = home() else { return };
    let daemon = home.daemon(&[]);
    for round in 0..6 {
        home.portmap(&["create", "--name", "web", "sleep", "1000"]).ok();
        let words: [&[&str]; 9] = [
            &["start", "web"],
            &["start", "web"],
            &["stop", "-t", "0", "web"],
            &["exec", "web", "true"],
            &["network", "disconnect", "bridge", "web"],
            &["restart", "-t", "0", "web"],
            &["rename", "web", "bew"],
            &["rename", "bew", "web"],
            &["rm", "-f", "web"],
        ];
        let all: Vec<Proc> =
            words[..if round % 2 == 0 { 9 } else { 8 }].iter().map(|words| run(&home, words)).collect();
        for mut one in all {
            let code = one.wait().code();
            assert!(code.is_some_and(|code| code < 128), "{code:?} {}", one.stderr());
            assert!(!one.stderr().contains("panicked"), "{}", one.stderr());
        }
        home.portmap(&["rm", "-f", "web", "bew"]);
        assert_eq!(home.portmap(&["ps", "-a", "-q"]).ok(), "", "{}", daemon.stderr());
        assert_eq!(home.run("ip", &["-br", "link", "show", "master", "portmap0"]).stdout, "");
        let left = fs::read_dir(home.seen(home.path("run/netns").to_str().expect("plain")));
        assert_eq!(left.map_or(0, Iterator::count), 0);
    }
    let said = daemon.stderr();
    assert!(!said.contains("ERROR") && !said.contains("panicked"), "{said}");
    // Addresses were given back.
    home.portmap(&["run", "-d", "--name", "web", "sleep", "1000"]).ok();
    let address = "{{.NetworkSettings.IPAddress}}";
    assert_eq!(home.portmap(&["inspect", "-f", address, "web"]).ok(), "172.17.0.2");
}

#[test]
fn many_runs_leave_nothing_in_the_daemon() {
    let Some(home) = home() else { return };
    let _daemon = home.daemon(&[]);
    let pid = fs::read_to_string(home.path("run/portmap.pid")).expect("a daemon runs");
    let facts = || {
        let script = format!(
            "ls /proc/{0}/fd | wc -l; ls /proc/{0}/task | wc -l; grep -c ' Z ' /proc/[0-9]*/stat -h | grep -c 1",
            pid.trim()
        );
        home.run("sh", &["-c", &script]).stdout
    };
    // The second one has an address that is announced, by a thread that stays.
    home.portmap(&["run", "--rm", "true"]).ok();
    home.portmap(&["run", "--rm", "true"]).ok();
    // Idle threads stay for two seconds, and so long do announcements take.
    std::thread::sleep(Duration::from_millis(3500));
    let before = facts();
    for _ in 0..12 {
        let some: Vec<Proc> = (0..5).map(|_| run(&home, &["run", "--rm", "true"])).collect();
        for mut one in some {
            assert_eq!(one.code(), 0, "{}", one.stderr());
        }
    }
    wait::until("as many descriptors, threads and zombies as before", || facts() == before);
}

#[test]
fn ps_finds_by_order_and_network() {
    let Some(home) = home() else { return };
    let _daemon = home.daemon(&[]);
    home.portmap(&["network", "create", "front"]).ok();
    for (name, network) in [("one", "bridge"), ("two", "front"), ("three", "none")] {
        home.portmap(&["run", "-d", "--name", name, "--net", network, "sleep", "1000"]).ok();
    }
    let front = home.portmap(&["network", "inspect", "-f", "{{.Id}}", "front"]).ok();
    let cases: [(&[&str], &str); 7] = [
        (&["before=two"], "one"),
        (&["since=two"], "three"),
        (&["since=one", "before=three"], "two"),
        (&["network=front"], "two"),
        (&[&format!("network={}", &front[..12])], "two"),
        (&["network=front", "network=none"], "three two"),
        (&["network=nowhere"], ""),
    ];
    for (filters, want) in cases {
        let filters: Vec<&str> = filters.iter().flat_map(|filter| ["-f", *filter]).collect();
        let words = [&["ps", "--format", "{{.Names}}"], &filters[..]].concat();
        assert_eq!(home.portmap(&words).ok().replace('\n', " "), want, "{filters:?}");
        if need::program("docker").is_some() {
            assert_eq!(home.docker(&words).ok().replace('\n', " "), want, "{filters:?}");
        }
    }
    assert_eq!(home.portmap(&["ps", "-f", "before=nobody"]).code, 1);
}

#[test]
fn a_log_is_followed_until_its_sandbox_is_removed() {
    let Some(home) = home() else { return };
    let _daemon = home.daemon(&[]);
    home.portmap(&["run", "-d", "--name", "web", "sh", "-c", "echo one; sleep 1000"]).ok();
    let mut logs = run(&home, &["logs", "-f", "web"]);
    wait::until("first line", || logs.stdout() == "one\n");
    home.portmap(&["rm", "-f", "web"]).ok();
    assert_eq!((logs.code(), logs.stderr().as_str()), (0, ""));
    let gone = home.portmap(&["logs", "web"]);
    assert_eq!((gone.code, gone.stderr.as_str()), (1, "Error response from daemon: No such container: web"));
}

#[test]
fn options_of_new_networks_have_defaults() {
    let Some(home) = home() else { return };
    let _daemon = home.daemon(&["--default-network-opt", "bridge=com.docker.network.driver.mtu=1290"]);
    home.portmap(&["network", "create", "front"]).ok();
    home.portmap(&["network", "create", "-o", "com.docker.network.driver.mtu=1300", "back"]).ok();
    let mtu = |network: &str| {
        home.portmap(&["run", "--rm", "--net", network, "ip", "-o", "link", "show", "eth0"]).ok()
    };
    for (network, want) in [("front", "mtu 1290"), ("back", "mtu 1300"), ("bridge", "mtu 1500")] {
        let said = mtu(network);
        assert!(said.contains(want), "{network}: {said}");
    }
    let shown = home.portmap(&["network", "inspect", "-f", "{{json .Options}}", "front", "bridge"]).ok();
    let (front, bridge) = shown.split_once('\n').expect("two lines");
    assert!(front.contains("1290") && !bridge.contains("1290"), "{shown}");
}

#[test]
fn a_start_right_after_an_end_is_watched() {
    let Some(home) = home() else { return };
    let daemon = home.daemon(&[]);
    let flag = home.path("flag");
    let script = format!("test -e {} && exec sleep 1000", flag.display());
    home.portmap(&["create", "--name", "web", "sh", "-c", &script]).ok();
    // Each starts it again as soon as it is allowed to, whoever ended it.
    let portmap = bin::portmap();
    let again = format!("for i in 1 2 3 4 5 6 7 8 9 10; do {} start -a web; done", portmap.display());
    let all: Vec<Proc> = (0..3)
        .map(|_| {
            let mut command = home.command("sh");
            command.args(["-c", &again]);
            home.host().spawn(command)
        })
        .collect();
    for mut one in all {
        let _ = one.wait();
    }
    fs::write(&flag, "").expect("our own folder");
    home.portmap(&["start", "web"]).ok();
    let state = || home.portmap(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web"]).ok();
    assert!(state().starts_with("running"), "{}", daemon.stderr());
    home.portmap(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(state(), "exited 143");
}
