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

#[test]
fn after_a_reboot_nothing_stale_is_believed() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "--label", "a=b", "one"]);
    lab.ok(&["run", "-d", "--name", "web", "--net", "one", "--ip", "10.10.0.5", "--", "sleep", "infinity"]);
    lab.ok(&["run", "-d", "--name", "gone", "--rm", "--net", "one", "--", "sleep", "infinity"]);
    lab.ok(&["create", "--name", "new", "--net", "one", "--", "sleep", "infinity"]);
    let networks = lab.ok(&["network", "ls", "--no-trunc"]);
    lab.end_daemon("-KILL");
    // The machine loses power: its processes, links, rules and run-time files go. The numbers of processes come again.
    lab.home.run("sh", &["-c", "kill -KILL -1 || true"]);
    for link in lab.host.ip("-brief link").lines().filter_map(|line| line.split([' ', '@']).next()) {
        if link.starts_with("br-") || link.starts_with("veth") || link == "portmap0" {
            lab.host.ip(&format!("link delete {link}"));
        }
    }
    lab.host.run("nft", &["flush", "ruleset"]);
    lab.host.sysctl("net/ipv4/ip_forward", "0");
    let run = lab.home.path("run");
    lab.home.run("sh", &["-c", &format!("umount {0}/netns/*; rm -rf {0}/*", run.display())]);
    let boot = lab.home.path("boot_id");
    std::fs::write(&boot, "01234567-89ab-4cde-8f01-23456789abcd\n").unwrap();
    lab.home.run("mount", &["--bind", boot.to_str().unwrap(), "/proc/sys/kernel/random/boot_id"]).ok();
    lab.start_daemon();

    assert_eq!(lab.ok(&["network", "ls", "--no-trunc"]), networks, "networks persist");
    assert!(lab.host.ip("-4 address").contains("10.10.0.1/24"), "and are there again");
    assert_eq!(lab.ok(&["ps", "-q"]), "");
    assert_eq!(lab.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web"]), "exited 255");
    assert_eq!(lab.ok(&["inspect", "-f", "{{.State.Status}}", "new"]), "created");
    assert_eq!(lab.portmap(&["inspect", "gone"]).code, 1, "--rm is kept");
    assert_eq!(lab.ok(&["network", "inspect", "-f", "{{len .Containers}}", "one"]), "0");
    assert_eq!(lab.ok(&["inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "web"]), "");
    assert!(!lab.host.ip("-brief link").contains("veth"));
    // Their addresses are free, and what is to be forwarded is again.
    lab.ok(&["start", "new", "web"]);
    assert_eq!(lab.address("new", "one", "IPAddress").to_string(), "10.10.0.2");
    assert_eq!(lab.address("web", "one", "IPAddress").to_string(), "10.10.0.5");
    let listener = lab.neighbour.listen("192.0.2.2:7".parse().unwrap());
    assert!(lab.sandbox("web").connects(listener.local_addr().unwrap()));
}

#[test]
fn what_survived_a_change_of_the_boot_id_is_nobodys_either() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    lab.ok(&["run", "-d", "--name", "web", "--", "sleep", "infinity"]);
    lab.end_daemon("-KILL");
    // As if a data root was carried to another machine, where the same process ids mean others.
    let boot = lab.home.path("boot_id");
    std::fs::write(&boot, "01234567-89ab-4cde-8f01-23456789abcd\n").unwrap();
    lab.home.run("mount", &["--bind", boot.to_str().unwrap(), "/proc/sys/kernel/random/boot_id"]).ok();
    lab.start_daemon();
    assert_eq!(lab.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web"]), "exited 255");
    assert!(!lab.host.ip("-brief link").contains("veth"), "its interface is removed");
    lab.ok(&["start", "web"]);
    assert_eq!(lab.address("web", "bridge", "IPAddress").to_string(), "172.17.0.2");
    assert_eq!(lab.ok(&["exec", "web", "echo", "hello"]), "hello");
}
