//! What persists: networks and stopped sandboxes; running ones while the daemon is away; and nothing after a reboot.

use super::lab::{Lab, connects};

/// Who looks after a process: its parent.
fn parent(lab: &Lab, pid: &str) -> String {
    lab.home.run("awk", &["/^PPid:/ { print $2 }", &format!("/proc/{pid}/status")]).ok()
}

#[test]
fn a_host_has_one_daemon() {
    let Some(lab) = Lab::new(&[]) else { return };
    let other = e2e::daemon::Home::new(&lab.host).unwrap();
    let before = lab.host.run("nft", &["list", "ruleset"]);
    let mut second = lab.host.spawn(other.daemon_command(&[]));
    assert_eq!(second.code(), 1);
    let words = "has the networks of this host: stop it, or start this one in a network namespace of its own";
    assert!(second.stderr().contains(words), "{}", second.stderr());
    assert_eq!(lab.host.run("nft", &["list", "ruleset"]), before);
}

#[test]
fn sandboxes_go_on_without_the_daemon_and_the_next_one_takes_over() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    lab.serve("web", &["--net", "one"]);
    lab.ok(&["run", "-d", "--name", "other", "--net", "one", "--", "sleep", "infinity"]);
    let to = lab.v4("web", "one");
    lab.end_daemon("-KILL");
    assert!(connects(&lab.host, to), "nobody looks after it, and it serves");
    lab.start_daemon();
    assert!(connects(&lab.host, to));
    assert_eq!(lab.ok(&["ps", "-q"]).lines().count(), 2);
    assert_eq!(lab.ok(&["exec", "web", "echo", "hello"]), "hello");
    // The new one knows what is taken and watches what runs.
    lab.ok(&["run", "-d", "--name", "third", "--net", "one", "--", "sleep", "infinity"]);
    assert_eq!(lab.v4("third", "one").ip().to_string(), "10.10.0.4");
    lab.ok(&["stop", "-t", "1", "other"]);
    assert_eq!(lab.ok(&["inspect", "-f", "{{.State.Status}}", "other"]), "exited");
    assert_eq!(lab.ok(&["ps", "-q"]).lines().count(), 2);
}

#[test]
fn what_ended_while_the_daemon_was_away_is_noticed() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    lab.ok(&["run", "-d", "--name", "web", "--", "sleep", "infinity"]);
    let supervisor = parent(&lab, &lab.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]));
    lab.end_daemon("-KILL");
    // Nobody is left who would call a daemon.
    lab.home.run("kill", &["-KILL", &supervisor]).ok();
    lab.start_daemon();
    let ended = || lab.ok(&["inspect", "-f", "{{.State.Status}}", "web"]) == "exited";
    e2e::wait::until("the daemon to notice", ended);
    assert!(!lab.host.ip("-brief link").contains("veth"));
}

#[test]
fn a_killed_supervisor_takes_its_sandbox_along() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["run", "-d", "--name", "web", "--", "sleep", "infinity"]);
    let pid = lab.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    lab.home.run("kill", &["-KILL", &parent(&lab, &pid)]).ok();
    let ended = || lab.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web"]) == "exited 137";
    e2e::wait::until("the daemon to clean up", ended);
    // Dead, if not yet collected by whoever inherited it.
    let stat = lab.home.run("cat", &[&format!("/proc/{pid}/stat")]).stdout;
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    assert!(!lab.host.ip("-brief link").contains("veth"));
    let none = lab.ok(&["network", "inspect", "-f", "{{len .Containers}}", "bridge"]);
    assert_eq!(none, "0");
}

#[test]
fn stopped_sandboxes_and_networks_persist_and_start_again() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--label", "a=b", "one"]);
    lab.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--net",
        "one",
        "-e",
        "GREETING=hello",
        "--",
        "sh",
        "-c",
        "echo $GREETING; sleep infinity",
    ]);
    lab.ok(&["stop", "-t", "1", "web"]);
    let network = lab.ok(&["network", "inspect", "one"]);
    lab.end_daemon("-TERM");
    assert!(!lab.host.ip("-brief link").contains("veth"));
    lab.start_daemon();
    assert_eq!(lab.ok(&["network", "inspect", "one"]), network);
    assert_eq!(lab.ok(&["ps", "-q"]), "");
    lab.ok(&["start", "web"]);
    let greeted = || lab.ok(&["logs", "web"]) == "hello\nhello";
    e2e::wait::until("the second greeting", greeted);
    lab.ok(&["restart", "-t", "1", "web"]);
    assert_eq!(lab.ok(&["inspect", "-f", "{{.State.Running}}", "web"]), "true");
}

#[test]
fn the_kernels_state_is_made_again_from_the_facts() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    let id = lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    lab.ok(&["run", "-d", "--name", "gone", "--net", "one", "--", "sleep", "infinity"]);
    lab.ok(&["stop", "-t", "1", "gone"]);
    lab.end_daemon("-KILL");
    // What a reboot does to the kernel, or an administrator in a hurry.
    let bridge = format!("br-{}", &id[..12]);
    lab.host.ip(&format!("link del {bridge}"));
    lab.host.run("nft", &["flush", "ruleset"]);
    lab.start_daemon();
    assert!(lab.host.ip("-4 address").contains("10.10.0.1/24"));
    assert!(lab.host.run("nft", &["list", "tables"]).contains("portmap"));
    lab.serve("web", &["--net", "one"]);
    assert!(connects(&lab.host, lab.v4("web", "one")));
    assert!(!connects(&lab.neighbour, lab.v4("web", "one")));
}
