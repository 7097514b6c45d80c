//! Crowds, and what is missing: no disk, a newer store, a second daemon.

use std::collections::BTreeSet;

use e2e::daemon::Home;
use e2e::lab::Host;
use e2e::proc::Proc;
use e2e::{bin, need, wait};

use super::lab::{Lab, connects};

#[test]
fn a_crowd_gets_an_address_each_and_leaves_nothing() {
    const CROWD: usize = 30;
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--subnet", "10.10.0.0/26", "one"]);
    let go = lab.home.path("go");
    // Each holds its address until all have one.
    let script = format!("ip -4 -o address show eth0; until [ -e {} ]; do sleep 0.1; done", go.display());
    let mut all: Vec<Proc> = (0..CROWD)
        .map(|_| {
            let mut command = lab.home.command(bin::portmap());
            command.args(["run", "--rm", "--net", "one", "--", "sh", "-c", &script]);
            lab.host.spawn(command)
        })
        .collect();
    let up = || all.iter().filter(|one| one.stdout().contains(" inet ")).count() == CROWD;
    wait::some("a crowd that is up", 3 * wait::PATIENCE, || up().then_some(()));
    std::fs::write(&go, "").unwrap();
    let mut addresses = BTreeSet::new();
    for one in &mut all {
        assert_eq!(one.code(), 0, "{}", one.stderr());
        let said = one.stdout();
        let address = said.split_whitespace().skip_while(|word| *word != "inet").nth(1).unwrap().to_owned();
        assert!(addresses.insert(address), "given twice: {said}");
    }
    let wanted: BTreeSet<String> = (2..).take(CROWD).map(|n| format!("10.10.0.{n}/26")).collect();
    assert_eq!(addresses, wanted, "the lowest ones");
    assert_eq!(lab.ok(&["ps", "-aq"]), "");
    let clean = || !lab.host.ip("-brief link").contains("veth");
    wait::until("the last interface to go", clean);
    let left = lab.home.run("find", &[lab.home.path("run").to_str().unwrap(), "-mindepth", "2"]).ok();
    assert_eq!(left, "", "namespaces or files");
    lab.ok(&["run", "-d", "--name", "next", "--net", "one", "--", "sleep", "infinity"]);
    assert_eq!(lab.address("next", "one", "IPAddress").to_string(), "10.10.0.2");
}

#[test]
fn a_full_disk_refuses_and_changes_nothing() {
    let Some(host) = Host::new("host") else { return };
    let Some(home) = Home::new(&host) else { return };
    let data = home.path("data");
    let data = data.to_str().unwrap();
    home.run("mkdir", &[data]).ok();
    home.run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", data]).ok();
    let _daemon = home.daemon(&[]);
    home.portmap(&["network", "create", "--subnet", "10.10.0.0/24", "one"]).ok();
    home.portmap(&["create", "--name", "alpha", "--net", "one", "--", "sleep", "infinity"]).ok();
    let fill = format!("{data}/fill");
    assert_ne!(home.run("dd", &["if=/dev/zero", &format!("of={fill}"), "bs=4k"]).code, 0);
    let traces = || {
        [
            host.ip("-brief link"),
            host.run("nft", &["list", "ruleset"]),
            home.portmap(&["network", "ls", "--no-trunc"]).ok(),
            home.portmap(&["ps", "-aq"]).ok(),
            home.run("find", &[home.path("run").to_str().unwrap(), "-mindepth", "2"]).ok(),
        ]
        .join("\n")
    };
    let before = traces();
    for (words, code) in [
        (&["network", "create", "two"][..], 1),
        (&["network", "rm", "one"], 1),
        (&["run", "--rm", "--net", "one", "--", "true"], 125),
        (&["create", "--", "true"], 125),
        (&["start", "alpha"], 1),
        (&["network", "connect", "bridge", "alpha"], 1),
        (&["rename", "alpha", "omega"], 1),
    ] {
        let said = home.portmap(words);
        assert_eq!(said.code, code, "{words:?}: {said:?}");
        assert!(
            said.stderr.to_lowercase().contains("no space left") || said.stderr.contains("no space is left"),
            "{said:?}"
        );
        assert_eq!(traces(), before, "{words:?}");
    }
    home.run("rm", &[&fill]).ok();
    home.portmap(&["start", "alpha"]).ok();
    home.portmap(&["rm", "-f", "alpha"]).ok();
    home.portmap(&["network", "rm", "one"]).ok();
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "one"]);
    lab.end_daemon("-TERM");
    let path = lab.home.path("data/portmap.db");
    let mut store = std::fs::read(&path).unwrap();
    let version = store[60..64].to_owned(); // SQLite's user_version
    store[60..64].copy_from_slice(&[0, 0, 3, 231]);
    std::fs::write(&path, &store).unwrap();
    let links = lab.host.ip("-brief link");
    let (status, said) = lab.fails(&["network", "ls"]);
    assert_eq!(status, 1);
    assert!(said.contains("has schema version 999, and this portmap knows versions up to"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), store);
    assert_eq!(lab.host.ip("-brief link"), links);
    store[60..64].copy_from_slice(&version);
    std::fs::write(&path, &store).unwrap();
    lab.start_daemon();
    assert_eq!(lab.ok(&["network", "ls", "-f", "type=custom", "--format", "{{.Name}}"]), "one");
}

#[test]
fn daemons_on_two_hosts_know_nothing_of_each_other() {
    let (Some(one), Some(other)) = (Lab::new(&[]), Lab::new(&[])) else { return };
    for lab in [&one, &other] {
        // The same names, subnets and addresses.
        lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
        lab.serve("web", &["--net", "one", "--ip", "10.10.0.5"]);
    }
    assert_ne!(
        one.ok(&["network", "inspect", "-f", "{{.Id}}", "one"]),
        other.ok(&["network", "inspect", "-f", "{{.Id}}", "one"])
    );
    one.ok(&["rm", "-f", "web"]);
    let to = "10.10.0.5:80".parse().unwrap();
    assert!(!connects(&one.host, to));
    assert!(connects(&other.host, to));
    one.ok(&["network", "rm", "one"]);
    assert_eq!(other.ok(&["ps", "-q"]).lines().count(), 1);
    // Who is told of the other's socket talks to the other.
    let url = other.home.url();
    assert_eq!(one.ok(&["-H", &url, "ps", "--format", "{{.Names}}"]), "web");
    assert_eq!(one.ok(&["ps", "-aq"]), "");
}

/// A home whose processes can't run these tools.
fn home_without(host: &Host, tools: &[&str]) -> Option<Home> {
    let home = Home::new(host)?;
    for tool in tools {
        let path = std::fs::canonicalize(need::program(tool)?).unwrap();
        home.run("mount", &["--bind", "/dev/null", path.to_str().unwrap()]).ok();
    }
    Some(home)
}

#[test]
fn one_kind_of_firewall_is_enough_and_none_is_refused() {
    const LEGACY: [&str; 4] = ["iptables", "iptables-save", "iptables-restore", "ip6tables-restore"];
    for missing in [&["nft"][..], &LEGACY] {
        let Some(host) = Host::new("host") else { return };
        let Some(home) = home_without(&host, missing) else { return };
        let _daemon = home.daemon(&[]);
        home.portmap(&["run", "--rm", "--", "true"]).ok();
    }
    let Some(host) = Host::new("host") else { return };
    let all = [&["nft"][..], &LEGACY].concat();
    let Some(home) = home_without(&host, &all) else { return };
    let mut refused = host.spawn(home.daemon_command(&[]));
    assert_eq!(refused.code(), 1);
    let last = refused.stderr().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("nft") || last.contains("iptables"), "{last}");
    assert_eq!(host.ip("-brief link").lines().count(), 1, "nothing is left of a network without its rules");
    // Who wants no rules needs no tools.
    let _daemon = home.daemon(&["--iptables=false"]);
    home.portmap(&["run", "--rm", "--", "true"]).ok();
}

#[test]
fn what_the_host_forbids_is_said_once_and_leaves_nothing() {
    let Some(host) = Host::new("host") else { return };
    let Some(home) = Home::new(&host) else { return };
    home.run("mount", &["--bind", "/proc/sys", "/proc/sys"]).ok();
    home.run("mount", &["-o", "remount,bind,ro", "/proc/sys"]).ok();
    let mut refused = host.spawn(home.daemon_command(&[]));
    assert_eq!(refused.code(), 1);
    let said = refused.stderr();
    assert!(said.contains("cannot set sysctl net/ipv4/ip_forward: Read-only file system"), "{said}");
    assert_eq!(host.ip("-brief link").lines().count(), 1);
    assert!(!host.run("nft", &["list", "ruleset"]).contains("portmap0"));
}
