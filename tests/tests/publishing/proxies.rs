//! The proxies behind the ports: how many, what becomes of one that dies, and Docker's own in our place.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use e2e::lab::{v4, v6};
use e2e::wait::{self, PATIENCE};
use nix::sys::signal::Signal;

use super::lab::Lab;
use super::ports::{
    HOST4, answers, answers_udp, ask, ask_udp, idle, inodes, kill_now, named, proxies, proxy, send, sockets,
};

const DOCKERS: &str = "docker-proxy";

#[test]
fn a_killed_proxy_is_back_at_once_behind_the_same_socket() {
    let Some(lab) = Lab::new(&[]) else { return };
    let _web = named(&lab, "web", &["-p", "8080:80"]);
    let sockets = inodes(&lab, 8080);
    assert_eq!(sockets.len(), 2, "one for each family");
    let mut gaps = Vec::new();
    for _ in 0..3 {
        let pid = proxy(&lab);
        assert_eq!(ask(&lab.host, v4(8080)), "web");
        // Stopped, it accepts nobody: these clients are in the backlog when it dies.
        send(Signal::SIGSTOP, pid);
        let waiting: Vec<TcpStream> =
            [v4(8080), v6(8080), v4(8080)].iter().map(|to| lab.host.connect(*to).unwrap()).collect();
        let died = Instant::now();
        kill_now(pid);
        for mut client in waiting {
            let mut word = String::new();
            client.read_to_string(&mut word).unwrap();
            assert_eq!(word, "web", "who waited is served");
        }
        gaps.push(died.elapsed());
        assert_ne!(proxy(&lab), pid);
        assert_eq!(inodes(&lab, 8080), sockets, "the same sockets");
        // One that dies young again and again would be kept waiting.
        grow_up(died);
    }
    let best = gaps.iter().min().unwrap();
    assert!(*best < Duration::from_millis(200), "{gaps:?}");
}

/// Until a proxy started at about `since` counts as one that works.
fn grow_up(since: Instant) {
    let youth = Duration::from_millis(1100);
    std::thread::sleep(youth.saturating_sub(since.elapsed()));
}

#[test]
fn proxies_that_die_young_come_back_too() {
    let Some(lab) = Lab::new(&[]) else { return };
    let _web = named(&lab, "web", &["-p", "8080:80", "-p", "8081:80"]);
    let _dns = answers_udp(&lab, "web", 53, "dns");
    lab.ok(&["publish", "web", "-p", "127.0.0.1:5353:53/udp"]);
    for _ in 0..3 {
        for pid in proxies(&lab) {
            kill_now(pid);
        }
        let end = Instant::now() + PATIENCE;
        for port in [8080, 8081] {
            assert_eq!(ask(&lab.host, v4(port)), "web");
            assert_eq!(ask(&lab.host, v6(port)), "web");
        }
        assert_eq!(ask_udp(&lab.host, v4(5353)), "dns");
        assert!(Instant::now() < end);
    }
    wait::until("three proxies", || proxies(&lab).len() == 3);
}

#[test]
fn thousands_of_ports_in_a_range_are_one_process() {
    const RANGE: &str = "20000-23999:20000-23999";
    let Some(lab) = Lab::new(&[]) else { return };
    idle(&lab, "web", &["-p", RANGE, "-p", "20000-20999:20000-20999/udp"]);
    assert_eq!(proxies(&lab).len(), 2, "one for each protocol");
    assert_eq!(sockets(&lab).len(), 2 * 5000);
    let first = answers(&lab, "web", 20000, "first");
    let last = answers(&lab, "web", 23999, "last");
    let _udp = answers_udp(&lab, "web", 20999, "datagram");
    assert_eq!(ask(&lab.host, v4(20000)), "first");
    assert_eq!(ask(&lab.host, v6(23999)), "last");
    assert_eq!(ask(&lab.neighbour, (HOST4, 23999)), "last");
    assert_eq!(ask_udp(&lab.host, v4(20999)), "datagram");
    assert_eq!(ask_udp(&lab.neighbour, (HOST4, 20999)), "datagram");
    assert_eq!((first.accepted(), last.accepted()), (1, 2));
    let rules = lab.host.run("nft", &["list", "ruleset"]);
    assert!(rules.contains("20000-23999") && !rules.contains("20001"), "an interval, no ports");
    let lines = lab.ok(&["port", "web"]);
    assert_eq!(lines.lines().count(), 2 * 5000);
    assert!(lab.ok(&["ps", "--format", "{{.Ports}}"]).contains("0.0.0.0:20000-23999->20000-23999/tcp"));
    let pid = proxies(&lab)[0];
    kill_now(pid);
    wait::until("another one", || proxies(&lab).len() == 2);
    assert_eq!(ask(&lab.host, v4(20000)), "first");
    lab.ok(&["unpublish", "web", "-p", RANGE]);
    assert_eq!((proxies(&lab).len(), sockets(&lab).len()), (1, 2 * 1000));
    lab.ok(&["rm", "-f", "web"]);
    assert!(proxies(&lab).is_empty() && sockets(&lab).is_empty());
}

#[test]
fn a_proxy_that_will_not_end_does_not_keep_the_port() {
    let Some(lab) = Lab::new(&[]) else { return };
    let _web = named(&lab, "web", &["-p", "8080:80"]);
    let pid = proxy(&lab);
    send(Signal::SIGSTOP, pid);
    lab.ok(&["unpublish", "web", "-p", "8080:80"]);
    assert!(proxies(&lab).is_empty() && sockets(&lab).is_empty());
    lab.ok(&["publish", "web", "-p", "8080:80"]);
    assert_eq!(ask(&lab.host, v4(8080)), "web");
}

#[test]
fn dockers_old_proxy_does_as_well() {
    let Some(path) = e2e::need::docker_proxy() else { return };
    let Some(mut lab) = Lab::new(&["--userland-proxy-path", path.to_str().unwrap()]) else { return };
    let _web = named(&lab, "web", &["-p", "8080:80", "-p", "9000-9004:90-94", "-p", "5353:53/udp"]);
    let _range = answers(&lab, "web", 94, "ninety-four");
    let _dns = answers_udp(&lab, "web", 53, "dns");
    let all = |lab: &Lab| lab.home.processes(DOCKERS);
    let works = |lab: &Lab| {
        assert_eq!(ask(&lab.host, v4(8080)), "web");
        assert_eq!(ask(&lab.host, v6(8080)), "web");
        assert_eq!(ask(&lab.host, v4(9004)), "ninety-four");
        assert_eq!(ask_udp(&lab.host, v4(5353)), "dns");
        assert_eq!(ask(&lab.neighbour, (HOST4, 9004)), "ninety-four");
        assert_eq!(ask_udp(&lab.neighbour, (HOST4, 5353)), "dns");
    };
    works(&lab);
    assert_eq!(all(&lab).len(), 2 * 7, "it serves one socket each");
    let before = sockets(&lab);
    // It dies with its socket: whoever comes meanwhile is refused, but it is back.
    for pid in all(&lab) {
        kill_now(pid);
    }
    wait::until("as many again", || all(&lab).len() == 2 * 7 && sockets(&lab) == before);
    works(&lab);
    // The next daemon takes them over as they are.
    let pids = all(&lab);
    lab.end_daemon("-KILL");
    works(&lab);
    lab.start_daemon();
    works(&lab);
    assert_eq!(all(&lab), pids);
    kill_now(pids[0]);
    wait::until("another one", || all(&lab).len() == 2 * 7 && sockets(&lab) == before);
    // A taken port is nobody else's problem.
    let (_, said) = lab.fails(&["run", "-p", "8080:80", "--", "true"]);
    assert!(said.ends_with("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{said}");
    lab.ok(&["rm", "-f", "web"]);
    assert!(all(&lab).is_empty() && sockets(&lab).is_empty());
}
