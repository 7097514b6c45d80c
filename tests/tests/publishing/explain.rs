//! `portmap explain` on a host where something is in the way: it names what, and is right about whether the port answers.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use e2e::lab::{Host, v4, v6};
use e2e::wait;

use super::lab::{IPTABLES, Lab, NFTABLES, connects};

/// Where the neighbour finds the host.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// It is said to answer, and does.
#[track_caller]
fn answers(lab: &Lab, what: &str, client: &Host, to: impl Into<SocketAddr>) {
    let said = lab.ok(&["explain", what]);
    assert!(said.ends_with("It answers: nothing is in the way."), "{said}");
    assert!(connects(client, to.into()), "{said}");
}

/// It is said not to answer, for this reason.
#[track_caller]
fn explains(lab: &Lab, what: &str, why: &str) {
    let said = lab.portmap(&["explain", what]);
    assert_eq!(said.code, 1, "{what}: {said:?}");
    let step = said.stdout.lines().find(|line| line.trim_start().starts_with('✗'));
    assert!(step.is_some_and(|step| step.contains(why)), "{what}: {why:?} in {said:?}");
}

#[test]
fn what_is_in_the_way_is_found() {
    for backend in [NFTABLES, IPTABLES] {
        let Some(lab) = Lab::new(&["--firewall-backend", backend]) else { return };
        lab.serve("web", &["-p", "8080:80", "-p", "8081:81"]);
        let fine = || answers(&lab, "8080", &lab.neighbour, (HOST, 8080));
        fine();
        answers(&lab, "127.0.0.1:8080", &lab.host, v4(8080));
        answers(&lab, "[::1]:8080", &lab.host, v6(8080));

        explains(&lab, "8081", "nothing listens on 81/tcp in the sandbox; busybox (pid ");
        let inside = lab.sandbox("web");
        let own = inside.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 81)).unwrap());
        explains(&lab, "8081", "listens only on 127.0.0.1:81");
        drop(own);

        // Somebody else's rules.
        if backend == NFTABLES {
            let rules =
                "table inet mine { chain f { type filter hook forward priority -10; tcp dport 80 drop; }; }";
            lab.host.run("nft", &[rules]);
            explains(&lab, "8080", "tcp dport 80 drop (table inet mine, chain f)");
            lab.host.run("nft", &["delete table inet mine"]);
        } else {
            lab.host.run("iptables", &["-A", "PORTMAP-USER", "-p", "tcp", "--dport", "80", "-j", "DROP"]);
            explains(&lab, "8080", "chain PORTMAP-USER");
            lab.host.run("iptables", &["-F", "PORTMAP-USER"]);
        }
        fine();
        lab.host.sysctl("net/ipv4/ip_forward", "0");
        explains(&lab, "8080", "the host doesn't forward packets (net.ipv4.ip_forward is 0)");
        lab.host.sysctl("net/ipv4/ip_forward", "1");
        fine();

        // Ours, gone.
        match backend {
            NFTABLES => lab.host.run("nft", &["delete table inet portmap"]),
            _ => lab.host.run("iptables", &["-t", "nat", "-F"]),
        };
        explains(&lab, "8080", "portmap's rules for it are missing");
        let pid = std::fs::read_to_string(lab.home.path("run/portmap.pid")).unwrap();
        lab.home.run("kill", &["-HUP", pid.trim()]).ok();
        wait::until("rules", || connects(&lab.neighbour, (HOST, 8080).into()));
        fine();

        lab.ok(&["stop", "-t", "0", "web"]);
        explains(&lab, "8080", "web publishes it, but doesn't run");
        let mut command = lab.home.command("busybox");
        command.args(["httpd", "-f", "-p", "8080"]);
        let _foreign = lab.host.spawn(command);
        wait::until("the foreign listener", || connects(&lab.host, v4(8080)));
        let said = lab.ok(&["explain", "8080"]);
        assert!(said.contains("It is answered by busybox (pid "), "{said}");
    }
}

#[test]
fn a_port_of_one_family_is_none_of_the_other() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--ipv4=false", "--ipv6", "six"]);
    lab.serve("web", &["--net", "six", "-p", "8080:80"]);
    answers(&lab, "[::1]:8080", &lab.host, v6(8080));
    // The daemon's own socket for IPv6 isn't somebody who answers.
    explains(&lab, "127.0.0.1:8080", "web publishes it on IPv6 only, at ::, and not on IPv4");
    assert!(!connects(&lab.host, v4(8080)));
}

#[test]
fn in_routed_mode_the_hosts_port_is_named_as_none() {
    let Some(lab) = Lab::new(&[]) else { return };
    let routed = "com.docker.network.bridge.gateway_mode_ipv4=routed";
    lab.ok(&["network", "create", "-o", routed, "routed"]);
    lab.serve("web", &["--net", "routed", "-p", "8080:80"]);
    answers(&lab, "web", &lab.neighbour, lab.v4("web", "routed"));
    explains(&lab, "8080", "network routed is in routed mode and takes no port of the host's");
    assert!(!connects(&lab.neighbour, (HOST, 8080).into()));
}

#[test]
fn without_proxies_or_rules_less_answers() {
    let Some(mut lab) = Lab::new(&["--userland-proxy=false"]) else { return };
    lab.serve("web", &["-p", "8080:80"]);
    answers(&lab, "8080", &lab.neighbour, (HOST, 8080));
    answers(&lab, "127.0.0.1:8080", &lab.host, v4(8080));
    explains(&lab, "[::1]:8080", "web publishes it on IPv4 only");
    assert!(!connects(&lab.host, v6(8080)));

    lab.end_daemon("-TERM");
    lab.flags = vec!["--iptables=false".to_owned(), "--userland-proxy=false".to_owned()];
    // What was there before is touched by nobody.
    lab.host.run("nft", &["delete table inet portmap"]);
    lab.start_daemon();
    explains(&lab, "8080", "the daemon has neither rules (--iptables=false) nor proxies");
    assert!(!connects(&lab.neighbour, (HOST, 8080).into()));
}
