//! `--icc=false`: a link opens what its provider exposes, to its consumer, and nothing else; and that follows both of them.

use super::lab::{Lab, NFTABLES, Sandbox};
use super::scenarios::apart;
use super::witness::{LOST, Place, Proto, Witness};
use e2e::wait::{self, PATIENCE};

/// All rules there are, by whichever backend.
fn rules(lab: &Lab) -> String {
    if lab.flags.iter().any(|flag| flag == NFTABLES) {
        lab.host.run("nft", &["list", "ruleset"])
    } else {
        lab.host.run("iptables-save", &[]) + &lab.host.run("ip6tables-save", &[])
    }
}

/// The rules that say an address.
fn rules_of<'a>(rules: &'a str, address: &str) -> Vec<&'a str> {
    let says = |line: &&str| line.split([' ', '/', ',']).any(|word| word == address) && line.contains("3306");
    rules.lines().filter(says).collect()
}

/// Checks that each of some ports is open, or that it isn't, all at once.
#[track_caller]
fn check(from: &Sandbox, to: std::net::IpAddr, ports: &[(Proto, u16)], open: bool) {
    let patience = if open { PATIENCE } else { LOST };
    let ask = |(proto, port): (Proto, u16)| {
        let answered = from.ask_for(patience, proto, (to, port).into()).is_some();
        (answered != open).then(|| format!("{port}/{proto}"))
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = ports.iter().map(|port| scope.spawn(|| ask(*port))).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{wrong:?} of {to}: should be {}", if open { "open" } else { "closed" });
}

#[test]
fn exactly_the_exposed_ports_are_open_to_exactly_the_consumer() {
    use Proto::{Tcp, Udp};
    apart(|lab| {
        let expose =
            ["--expose", "3306", "--expose", "53/udp", "--expose", "8000-8002", "-p", "127.0.0.1:9000:90"];
        lab.idle("mysql_db", &expose);
        lab.idle("blog", &["--link", "mysql_db:my_link"]);
        lab.idle("stranger", &[]);
        let [provider, blog, stranger] = ["mysql_db", "blog", "stranger"].map(|name| lab.sandbox(name));
        let ports = [53, 90, 3306, 3307, 7999, 8000, 8001, 8002, 8003, 9000];
        let _servers = [&provider, &blog].map(|sandbox| ports.map(|port| Witness::at(sandbox, port)));
        let open = [(Tcp, 3306), (Udp, 53), (Tcp, 8000), (Tcp, 8001), (Tcp, 8002), (Tcp, 90)];
        let all: Vec<(Proto, u16)> = ports.iter().flat_map(|port| [(Tcp, *port), (Udp, *port)]).collect();
        let closed: Vec<(Proto, u16)> = all.iter().filter(|port| !open.contains(port)).copied().collect();
        let [at, back] = ["mysql_db", "blog"].map(|name| lab.address(name, "bridge", "IPAddress"));
        check(&blog, at, &open, true);
        check(&blog, at, &closed, false);
        check(&stranger, at, &all, false);
        // Not the other way round: neither by what the consumer doesn't expose nor from an open port.
        check(&provider, back, &all, false);
        let reply = provider.enter(|| {
            let socket = std::net::UdpSocket::bind((at, 54)).unwrap();
            socket.set_read_timeout(Some(LOST)).unwrap();
            socket.send_to(b"who am I?", (back, 53)).unwrap();
            socket.recv(&mut [0; 64]).is_ok()
        });
        assert!(!reply);
        assert!(!blog.pings(at, 1));
        assert!(!provider.pings(back, 1));
    });
}

#[test]
fn the_opening_follows_its_provider_and_never_stays_behind() {
    apart(|lab| {
        lab.database("mysql_db", &["--expose", "3306"]);
        lab.idle("blog", &["--link", "mysql_db:my_link"]);
        let consumer = lab.ip("blog");
        assert!(lab.reaches("blog", "my_link", 3306));
        let pristine = rules(lab);
        assert_ne!(rules_of(&pristine, &consumer), [""; 0], "{pristine}");
        // The same address again.
        lab.ok(&["restart", "-t", "0", "mysql_db"]);
        lab.serves("mysql_db");
        assert!(lab.reaches("blog", "my_link", 3306));
        // While it is down nothing is open: whoever gets the address is a stranger.
        let old = lab.ip("mysql_db");
        lab.stop("mysql_db");
        assert_eq!(rules_of(&rules(lab), &consumer), [""; 0]);
        lab.database("newcomer", &["--expose", "3306"]);
        assert_eq!(lab.ip("newcomer"), old);
        assert!(lab.is_cut_off("blog", &old, 3306));
        // It is back elsewhere.
        lab.ok(&["start", "mysql_db"]);
        lab.serves("mysql_db");
        let new = lab.ip("mysql_db");
        assert_ne!(new, old);
        assert!(lab.reaches("blog", "my_link", 3306));
        assert!(lab.is_cut_off("blog", "my_link", 3307));
        assert!(lab.is_cut_off("blog", &old, 3306));
        assert_eq!(rules_of(&rules(lab), &old), [""; 0]);
        // Off the default network, and back on it.
        lab.ok(&["network", "disconnect", "bridge", "mysql_db"]);
        assert_eq!(rules_of(&rules(lab), &consumer), [""; 0]);
        lab.ok(&["network", "connect", "bridge", "mysql_db"]);
        assert!(lab.reaches("blog", "my_link", 3306));
        lab.ok(&["rm", "-f", "mysql_db"]);
        assert_eq!(rules_of(&rules(lab), &consumer), [""; 0]);
    });
}

#[test]
fn the_opening_goes_with_its_consumer_and_with_its_link() {
    apart(|lab| {
        lab.database("mysql_db", &["--expose", "3306"]);
        lab.idle("other", &["--link", "mysql_db:x"]);
        lab.idle("blog", &["--link", "mysql_db:my_link", "--link", "mysql_db:second"]);
        let [provider, consumer] = ["mysql_db", "blog"].map(|name| lab.ip(name));
        // One of two links to the same: the other one is enough.
        lab.ok(&["rm", "--link", "/blog/second"]);
        assert!(lab.reaches("blog", "my_link", 3306));
        lab.ok(&["rm", "--link", "/blog/my_link"]);
        assert!(lab.is_cut_off("blog", &provider, 3306));
        assert_eq!(rules_of(&rules(lab), &consumer), [""; 0]);
        assert!(lab.reaches("other", "x", 3306), "somebody else's link");
        // Stopped: who gets its address is a stranger.
        let consumer = lab.ip("other");
        lab.stop("other");
        lab.idle("newcomer", &[]);
        assert_eq!(lab.ip("newcomer"), consumer);
        assert!(lab.is_cut_off("newcomer", &provider, 3306));
        assert_eq!(rules_of(&rules(lab), &consumer), [""; 0]);
        lab.ok(&["start", "other"]);
        assert!(lab.reaches("other", "x", 3306));
        assert!(lab.is_cut_off("newcomer", &provider, 3306));
        let consumer = lab.ip("other");
        lab.ok(&["rm", "-f", "other"]);
        assert_eq!(rules_of(&rules(lab), &consumer), [""; 0]);
    });
}

#[test]
fn openings_outlive_the_daemon_and_are_put_back() {
    apart(|lab| {
        lab.database("mysql_db", &["--expose", "3306"]);
        lab.idle("blog", &["--link", "mysql_db:my_link"]);
        let consumer = lab.ip("blog");
        let before: Vec<String> = rules_of(&rules(lab), &consumer).into_iter().map(str::to_owned).collect();
        assert_ne!(before, [""; 0]);
        let as_before = |lab: &Lab| {
            wait::until("the rules as before", || rules_of(&rules(lab), &consumer) == before);
            assert!(lab.reaches("blog", "my_link", 3306));
            assert!(lab.is_cut_off("blog", "my_link", 3307));
        };
        for signal in ["-TERM", "-KILL"] {
            lab.end_daemon(signal);
            assert_eq!(
                rules_of(&rules(lab), &consumer),
                before,
                "{signal}: nobody is there, and all goes on"
            );
            lab.start_daemon();
            as_before(lab);
        }
        let pid = std::fs::read_to_string(lab.home.path("run/portmap.pid")).unwrap();
        lab.home.run("kill", &["-HUP", pid.trim()]).ok();
        as_before(lab);
        // Somebody has thrown everything away meanwhile.
        lab.end_daemon("-KILL");
        if lab.flags.iter().any(|flag| flag == NFTABLES) {
            lab.host.run("nft", &["flush", "ruleset"]);
        } else {
            lab.host.run("iptables", &["-F"]);
        }
        lab.start_daemon();
        as_before(lab);
    });
}

#[test]
fn openings_have_both_families() {
    use Proto::{Tcp, Udp};
    apart(|lab| {
        lab.end_daemon("-TERM");
        lab.flags.extend(["--ipv6", "--fixed-cidr-v6", "fd00:17::/64"].map(str::to_owned));
        lab.start_daemon();
        lab.idle("mysql_db", &["--expose", "3306"]);
        lab.idle("blog", &["--link", "mysql_db:my_link"]);
        lab.idle("stranger", &[]);
        let [provider, blog, stranger] = ["mysql_db", "blog", "stranger"].map(|name| lab.sandbox(name));
        let _server = Witness::at(&provider, 3306);
        for field in ["IPAddress", "GlobalIPv6Address"] {
            let at = lab.address("mysql_db", "bridge", field);
            check(&blog, at, &[(Tcp, 3306)], true);
            check(&blog, at, &[(Udp, 3306)], false);
            check(&stranger, at, &[(Tcp, 3306), (Udp, 3306)], false);
        }
    });
}

#[test]
fn nothing_is_written_where_nothing_has_to_be_opened() {
    for flags in
        [&["--firewall-backend", "nftables"][..], &["--firewall-backend", "iptables"], &["--iptables=false"]]
    {
        let Some(lab) = Lab::linking(flags) else { return };
        lab.database("mysql_db", &["--expose", "3306"]);
        lab.idle("blog", &[]);
        let before = rules(&lab);
        lab.ok(&["rm", "-f", "blog"]);
        lab.idle("blog", &["--link", "mysql_db:my_link"]);
        assert_eq!(rules_of(&rules(&lab), &lab.ip("blog")), [""; 0], "{flags:?}");
        assert_eq!(rules(&lab).lines().count(), before.lines().count(), "{flags:?}");
        assert!(lab.reaches("blog", "my_link", 3306) && lab.reaches("blog", "my_link", 3307), "{flags:?}");
    }
}
