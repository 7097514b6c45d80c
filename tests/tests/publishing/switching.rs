//! A daemon that comes back with other flags: proxies or none, one firewall or the other, and none.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use e2e::lab::{Host, v4, v6};
use e2e::wait;

use super::lab::{IPTABLES, Lab, NFTABLES};
use super::ports::{
    HOST4, HOST6, answers, answers_udp, ask, ask_udp, inodes, named, proxies, sockets, traces,
};

/// The next daemon's flags, and whether it has proxies and rules.
struct Way {
    flags: &'static [&'static str],
    proxies: bool,
    rules: bool,
}

const WAYS: &[Way] = &[
    Way { flags: &["--userland-proxy=false", "--firewall-backend", NFTABLES], proxies: false, rules: true },
    Way { flags: &["--firewall-backend", NFTABLES], proxies: true, rules: true },
    Way { flags: &["--firewall-backend", IPTABLES], proxies: true, rules: true },
    Way { flags: &["--userland-proxy=false", "--firewall-backend", IPTABLES], proxies: false, rules: true },
    Way { flags: &["--userland-proxy=false", "--firewall-backend", NFTABLES], proxies: false, rules: true },
    Way { flags: &["--firewall-backend", IPTABLES], proxies: true, rules: true },
    Way { flags: &["--iptables=false"], proxies: true, rules: false },
    Way { flags: &["--firewall-backend", NFTABLES], proxies: true, rules: true },
];

#[track_caller]
fn works(lab: &Lab, way: &Way) {
    let flags = way.flags;
    let mut places: Vec<SocketAddr> = vec![v4(8080), (HOST4, 8080).into()];
    if way.proxies {
        // The kernel translates no [::1], and no IPv6 to IPv4.
        places.extend([v6(8080), (HOST6, 8080).into()]);
        assert_eq!(ask(&lab.neighbour, (HOST6, 8080)), "web", "{flags:?}");
    }
    for place in places {
        assert_eq!(ask(&lab.host, place), "web", "{flags:?} {place}");
    }
    assert_eq!(ask(&lab.neighbour, (HOST4, 8080)), "web", "{flags:?}");
    assert_eq!(ask(&lab.neighbour, (HOST4, 9050)), "fifty", "{flags:?}");
    assert_eq!(ask_udp(&lab.host, v4(5353)), "dns", "{flags:?}");
    assert_eq!(ask_udp(&lab.neighbour, (HOST4, 5353)), "dns", "{flags:?}");
    let count = if way.proxies { 3 } else { 0 };
    wait::until("as many proxies as there are mappings", || proxies(lab).len() == count);
}

/// Does `work`, and says whether nobody could take the port meanwhile.
fn stays_taken(host: &Host, work: impl FnOnce()) -> bool {
    let enough = AtomicBool::new(false);
    let try_to_take = || {
        while !enough.load(Ordering::SeqCst) {
            if TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).is_ok() {
                return false;
            }
        }
        true
    };
    thread::scope(|scope| {
        let thief = scope.spawn(|| host.enter(try_to_take));
        let done = catch_unwind(AssertUnwindSafe(work));
        enough.store(true, Ordering::SeqCst);
        let stayed = thief.join().unwrap();
        done.unwrap_or_else(|panic| resume_unwind(panic));
        stayed
    })
}

fn owned(flags: &[&str]) -> Vec<String> {
    flags.iter().map(|flag| (*flag).to_owned()).collect()
}

#[test]
fn ports_of_running_sandboxes_stay_over_every_change_of_the_daemons_flags() {
    let first = Way { flags: &["--firewall-backend", NFTABLES], proxies: true, rules: true };
    let Some(mut lab) = Lab::new(first.flags) else { return };
    let before = traces(&lab);
    let _web = named(&lab, "web", &["-p", "8080:80", "-p", "9000-9099:9000-9099", "-p", "5353:53/udp"]);
    let _fifty = answers(&lab, "web", 9050, "fifty");
    let _dns = answers_udp(&lab, "web", 53, "dns");
    works(&lab, &first);
    let mut had_proxies = true;
    for way in WAYS {
        let shown = lab.ok(&["port", "web"]);
        lab.end_daemon("-KILL");
        lab.flags = owned(way.flags);
        lab.start_daemon();
        works(&lab, way);
        let rules = lab.host.run("nft", &["list", "ruleset"]);
        assert_eq!(rules.contains("table inet portmap"), way.flags.contains(&NFTABLES), "{:?}", way.flags);
        let legacy = lab.host.run("iptables-save", &[]);
        // Who has no rules touches none.
        let is_there = way.flags.contains(&IPTABLES) || !way.rules;
        assert_eq!(legacy.contains("9000:9099"), is_there, "{:?} {legacy}", way.flags);
        let route_localnet = lab.host.run("cat", &["/proc/sys/net/ipv4/conf/portmap0/route_localnet"]);
        assert_eq!(route_localnet.trim(), if way.proxies { "0" } else { "1" }, "{:?}", way.flags);
        if way.proxies == had_proxies || way.proxies {
            assert_eq!(lab.ok(&["port", "web"]), shown);
        }
        had_proxies = way.proxies;
    }
    lab.ok(&["rm", "-f", "web"]);
    assert!(proxies(&lab).is_empty() && sockets(&lab).is_empty());
    // The tools of iptables leave empty chains of the kernel's own behind.
    let table = |traces: &str| traces[traces.find("table inet portmap").unwrap()..].to_owned();
    assert_eq!(table(&traces(&lab)), table(&before));
    let legacy = lab.host.run("iptables-save", &[]);
    assert!(!legacy.contains("PORTMAP"), "{legacy}");
}

#[test]
fn a_port_is_never_free_while_proxies_hold_it() {
    let Some(mut lab) = Lab::new(&["--firewall-backend", NFTABLES]) else { return };
    let _web = named(&lab, "web", &["-p", "8080:80"]);
    let held = inodes(&lab, 8080);
    for flags in [
        &["--firewall-backend", IPTABLES][..],
        &["--iptables=false"],
        &["--firewall-backend", NFTABLES],
        &["--firewall-backend", NFTABLES, "--userland-proxy=false"],
    ] {
        lab.end_daemon("-KILL");
        lab.flags = owned(flags);
        let host = lab.host.clone();
        assert!(stays_taken(&host, || lab.start_daemon()), "{flags:?}");
        assert_eq!(inodes(&lab, 8080), held, "{flags:?}: the same sockets");
        assert_eq!(ask(&lab.neighbour, (HOST4, 8080)), "web", "{flags:?}");
    }
    assert!(proxies(&lab).is_empty());
    assert_eq!(sockets(&lab), ["tcp 0.0.0.0:8080", "tcp [::]:8080"]);
}
