//! What survives whom: ports without the daemon, the next daemon, sandboxes that end unseen, and a machine that restarts.

use std::net::{Ipv6Addr, TcpListener};
use std::time::Duration;

use e2e::lab::{v4, v6};
use e2e::servers::{self, TcpServer};
use e2e::{traffic, wait};
use nix::sys::signal::Signal;

use super::lab::{IPTABLES, Lab, NFTABLES};
use super::ports::{
    HOST4, HOST6, answers, answers_udp, ask, ask_udp, idle, inodes, kill_now, named, nothing_is_left,
    proxies, proxy, refuses, send, shown, sockets, traces,
};

#[test]
fn ports_go_on_without_the_daemon_and_the_next_one_takes_them_over() {
    for backend in [NFTABLES, IPTABLES] {
        let Some(mut lab) = Lab::new(&["--firewall-backend", backend]) else { return };
        let before = traces(&lab);
        let _web = named(&lab, "web", &["-p", "8080:80", "-p", "9000-9099:9000-9099", "-p", "5353:53/udp"]);
        let _dns = answers_udp(&lab, "web", 53, "dns");
        let works = |lab: &Lab| {
            for place in [v4(8080), v6(8080), (HOST4, 8080).into(), (HOST6, 8080).into()] {
                assert_eq!(ask(&lab.host, place), "web", "{place}");
            }
            for address in [HOST4, HOST6] {
                assert_eq!(ask(&lab.neighbour, (address, 8080)), "web", "{address}");
            }
            assert_eq!(ask_udp(&lab.host, v4(5353)), "dns");
            assert_eq!(ask_udp(&lab.neighbour, (HOST4, 5353)), "dns");
        };
        works(&lab);
        let held = |lab: &Lab| (proxies(lab), inodes(lab, 8080), sockets(lab), shown(lab, "web"));
        let first = held(&lab);
        assert_eq!(first.0.len(), 3);
        for _ in 0..2 {
            lab.end_daemon("-KILL");
            works(&lab);
            assert_eq!((proxies(&lab), sockets(&lab)), (first.0.clone(), first.2.clone()));
            lab.start_daemon();
            works(&lab);
            assert_eq!(held(&lab), first, "the same processes and sockets");
        }
        // They are its own now: replaced when they die, behind the same sockets, and ended with the sandbox.
        for pid in &first.0 {
            kill_now(*pid);
        }
        works(&lab);
        assert_eq!(held(&lab).1, first.1);
        let (_, said) = lab.fails(&["run", "-p", "127.0.0.1:9050:80", "--", "true"]);
        assert!(said.ends_with("Bind for 127.0.0.1:9050 failed: port is already allocated"), "{said}");
        lab.ok(&["rm", "-f", "web"]);
        nothing_is_left(&lab, &before);
        named(&lab, "web", &["-p", "8080:80"]);
    }
}

#[test]
fn open_connections_go_on_without_the_daemon_and_with_the_next_one() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    idle(&lab, "web", &["-p", "8080:80"]);
    let listener = lab.sandbox("web").enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).unwrap());
    let _echo = TcpServer::with(listener, servers::echo);
    let near = lab.host.connect(v4(8080)).unwrap();
    let far = lab.neighbour.connect((HOST4, 8080).into()).unwrap();
    let mut both = [near, far];
    let mut talk = |when: &str| {
        for stream in &mut both {
            assert_eq!(traffic::ask(stream, b"still there?"), b"still there?", "{when}");
        }
    };
    talk("at first");
    lab.end_daemon("-KILL");
    talk("without a daemon");
    lab.start_daemon();
    talk("with the next one");
    lab.ok(&["publish", "web", "-p", "8081:80", "-p", "9000-9050:90-140"]);
    lab.ok(&["unpublish", "web", "-p", "8081:80"]);
    talk("after changes of other ports");
}

#[test]
fn a_daemon_that_dies_amid_a_change_leaves_all_of_it_or_nothing() {
    const SPEC: &str = "9000-9019:9000-9019";
    let Some(mut lab) = Lab::new(&[]) else { return };
    idle(&lab, "web", &["-p", "8080:80"]);
    let _web = answers(&lab, "web", 9010, "web");
    let mut is_published = false;
    for delay in [2, 5, 8, 12, 18, 25, 40] {
        let verb = if is_published { "unpublish" } else { "publish" };
        let mut command = lab.home.command(e2e::bin::portmap());
        command.args([verb, "web", "-p", SPEC]);
        let mut change = lab.host.spawn(command);
        // Whatever it has come to by then.
        std::thread::sleep(Duration::from_millis(delay));
        lab.end_daemon("-KILL");
        change.wait();
        // Who came too late for that daemon has started another one.
        if lab.home.listens() {
            lab.home.kill_daemon();
        }
        // A tool that was just being started may hold the lock a moment longer.
        let lock = lab.home.path("run/portmap.pid");
        let lock = lock.to_str().unwrap();
        wait::until("end of the daemon", || lab.home.run("flock", &["-n", lock, "true"]).code == 0);
        lab.start_daemon();
        let lines = shown(&lab, "web").len();
        assert!(lines == 2 || lines == 2 + 2 * 20, "{verb} after {delay} ms: {lines} lines");
        is_published = lines > 2;
        let (count, bound) = if is_published { (2, 2 + 2 * 20) } else { (1, 2) };
        let is_whole = || proxies(&lab).len() == count && sockets(&lab).len() == bound;
        wait::until("what is told to be so", is_whole);
        if is_published {
            assert_eq!(ask(&lab.host, v4(9010)), "web", "{verb} after {delay} ms");
            assert_eq!(ask(&lab.neighbour, (HOST4, 9010)), "web", "{verb} after {delay} ms");
        } else {
            assert!(refuses(&lab.neighbour, (HOST4, 9010)), "{verb} after {delay} ms");
        }
    }
}

#[test]
fn a_proxy_that_died_meanwhile_is_started_again() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    let _web = named(&lab, "web", &["-p", "8080:80", "-p", "8081:80"]);
    let bound = sockets(&lab);
    lab.end_daemon("-KILL");
    kill_now(proxies(&lab)[0]);
    assert_eq!(ask(&lab.neighbour, (HOST4, 8080)), "web", "the rules need no process");
    lab.start_daemon();
    for port in [8080, 8081] {
        assert_eq!(ask(&lab.host, v4(port)), "web");
    }
    assert_eq!(sockets(&lab), bound);
    assert_eq!(proxies(&lab).len(), 2);
}

#[test]
fn a_port_that_somebody_took_meanwhile_is_had_again_when_it_is_free() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    let _web = named(&lab, "web", &["-p", "8080:80", "-p", "8081:80"]);
    lab.end_daemon("-KILL");
    proxies(&lab).into_iter().for_each(kill_now);
    wait::until("free ports", || sockets(&lab).is_empty());
    let thief = lab.host.tcp_listener("127.0.0.1:8080".parse().unwrap());
    lab.start_daemon();
    assert_eq!(ask(&lab.host, v4(8081)), "web", "the others work");
    assert_eq!(ask(&lab.neighbour, (HOST4, 8080)), "web", "and so do the rules");
    assert_eq!(shown(&lab, "web").len(), 4);
    drop(thief);
    let is_back = || proxies(&lab).len() == 2 && ask_if_open(&lab) == Some("web".to_owned());
    wait::until("the port to be back", is_back);
}

fn ask_if_open(lab: &Lab) -> Option<String> {
    super::ports::asked(&lab.host, v4(8080)).ok()
}

#[test]
fn of_a_sandbox_that_ended_meanwhile_nothing_is_left() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    let before = traces(&lab);
    idle(&lab, "web", &["-p", "8080:80", "-p", "8000-8010:8000-8010/udp"]);
    lab.ok(&["run", "-d", "--name", "gone", "--rm", "-p", "8081:80", "--", "sleep", "infinity"]);
    let supervisors: Vec<String> = ["web", "gone"]
        .iter()
        .map(|name| {
            let pid = lab.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
            lab.home.run("awk", &["/^PPid:/ { print $2 }", &format!("/proc/{pid}/status")]).ok()
        })
        .collect();
    lab.end_daemon("-KILL");
    for supervisor in supervisors {
        lab.home.run("kill", &["-KILL", &supervisor]).ok();
    }
    lab.start_daemon();
    nothing_is_left(&lab, &before);
    assert!(refuses(&lab.host, v4(8080)) && refuses(&lab.neighbour, (HOST4, 8080)));
    lab.ok(&["start", "web"]);
    assert_eq!(sockets(&lab).len(), 2 + 2 * 11);
}

#[test]
fn a_killed_supervisor_takes_the_ports_along() {
    let Some(lab) = Lab::new(&[]) else { return };
    let before = traces(&lab);
    idle(&lab, "web", &["-p", "8080:80", "-p", "5353:53/udp"]);
    let pid = lab.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    lab.home.run("kill", &["-KILL", &pid]).ok();
    nothing_is_left(&lab, &before);
    // A proxy that hangs is no reason to keep the port either.
    idle(&lab, "next", &["-p", "8080:80"]);
    send(Signal::SIGSTOP, proxy(&lab));
    lab.ok(&["rm", "-f", "next"]);
    assert_eq!(traces(&lab), before);
}

/// Makes the machine look as if it had started anew, for the next daemon.
fn another_boot(lab: &Lab) {
    let boot = lab.home.path("boot_id");
    std::fs::write(&boot, "01234567-89ab-4cde-8f01-23456789abcd\n").unwrap();
    lab.home.run("mount", &["--bind", boot.to_str().unwrap(), "/proc/sys/kernel/random/boot_id"]).ok();
}

#[test]
fn after_a_reboot_no_port_is_believed_to_be_taken() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    idle(&lab, "web", &["-p", "8080:80", "-p", "80"]);
    let network = lab.ok(&["network", "ls", "--no-trunc"]);
    lab.end_daemon("-KILL");
    // The machine loses power: its processes, links, rules and run-time files go.
    lab.home.run("sh", &["-c", "kill -KILL -1 || true"]);
    for link in lab.host.ip("-brief link").lines().filter_map(|line| line.split([' ', '@']).next()) {
        if link.starts_with("veth") || link == "portmap0" {
            lab.host.ip(&format!("link delete {link}"));
        }
    }
    lab.host.run("nft", &["flush", "ruleset"]);
    let run = lab.home.path("run");
    lab.home.run("sh", &["-c", &format!("umount {0}/netns/*; rm -rf {0}/*", run.display())]);
    another_boot(&lab);
    lab.start_daemon();
    assert_eq!(lab.ok(&["network", "ls", "--no-trunc"]), network);
    assert_eq!(lab.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web"]), "exited 255");
    assert_eq!(lab.ok(&["port", "web"]), "");
    assert!(sockets(&lab).is_empty() && proxies(&lab).is_empty());
    let rules = lab.host.run("nft", &["list", "ruleset"]);
    assert!(!rules.contains("8080"), "{rules}");
    let _other = named(&lab, "other", &["-p", "8080:80"]);
    assert_eq!(ask(&lab.neighbour, (HOST4, 8080)), "other");
    lab.ok(&["rm", "-f", "other"]);
    lab.ok(&["start", "web"]);
    assert_eq!(shown(&lab, "web").len(), 4);
}

#[test]
fn proxies_of_another_boot_are_nobodys() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    idle(&lab, "web", &["-p", "8080:80"]);
    lab.end_daemon("-KILL");
    assert_eq!(proxies(&lab).len(), 1);
    // As if a data root was carried to another machine, where the same process ids mean others.
    another_boot(&lab);
    lab.start_daemon();
    wait::until("the proxy to go", || proxies(&lab).is_empty() && sockets(&lab).is_empty());
    assert!(!lab.host.ip("-brief link").contains("veth"));
    assert!(!lab.host.run("nft", &["list", "ruleset"]).contains("8080"));
    lab.ok(&["start", "web"]);
    assert_eq!(sockets(&lab).len(), 2);
}
