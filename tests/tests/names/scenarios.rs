//! Who is found under which name by whom: Docker's rules, and where ours are better on purpose.
//!
//! `provider` and `second` share the alias `app` on `local_bridge`; `second` is also `cache` on the dual-stack `dual`. Who
//! asks is `consumer`, on `local_bridge` alone; `legacy` is on the default bridge.

use std::collections::BTreeSet;

use e2e::nameserver::{self, NameServer};

use super::tools::{HOST, Names, U};

const NAMED: &str = "NOERROR 172.22.0.2";
const SECOND: &str = "NOERROR 172.22.0.3";
const BOTH: &str = "NOERROR 172.22.0.2 172.22.0.3";
const EMPTY: &str = "NOERROR";
/// What the host's name server says of everything but `example.com`: the query got there.
const FORWARDED: &str = "NXDOMAIN";

/// The sandboxes, and the name server of the host's.
fn cast(flags: &[&str]) -> Option<(Names, NameServer, String)> {
    let names = Names::new(HOST, flags)?;
    let upstream = NameServer::of_example(&names.host, U);
    names.ok(&["network", "create", "--subnet", "172.22.0.0/16", "local_bridge"]);
    let dual = ["--ipv6", "--subnet", "172.23.0.0/16", "--subnet", "fd5a:1:2:3::/64", "dual"];
    names.ok(&[&["network", "create"], &dual[..]].concat());
    let local = &["--net", "local_bridge"];
    let id = names.idle("provider", &[local, &["--net-alias", "app"][..]].concat());
    names.idle("second", &[local, &["-h", "shop", "--net-alias", "app"][..]].concat());
    names.ok(&["network", "connect", "--alias", "cache", "dual", "second"]);
    names.idle("consumer", &[local, &["--link", "provider:giver", "--net-alias", "db.prod"][..]].concat());
    Some((names, upstream, id))
}

#[track_caller]
fn check(names: &Names, upstream: &NameServer, sandbox: &str, cases: &[(&str, &str)]) {
    for (words, want) in cases {
        let before = upstream.asked().len();
        assert_eq!(names.asks(sandbox, words), *want, "{words} from {sandbox}");
        let forwarded = upstream.asked().len() > before;
        assert_eq!(forwarded, *want == FORWARDED, "{words} from {sandbox}: {:?}", upstream.asked());
    }
}

#[test]
fn names_aliases_ids_and_hostnames_are_found_on_the_own_network() {
    let Some((names, upstream, id)) = cast(&[]) else { return };
    let (short, some) = (&id[..12], &id[..4]);
    check(
        &names,
        &upstream,
        "consumer",
        &[
            ("provider A", NAMED),
            ("provider. A", NAMED),
            ("PROVIDER A", NAMED),
            ("app A", BOTH),
            (&format!("{short} A"), NAMED),
            (&format!("{some} A"), FORWARDED),
            ("shop A", SECOND),
            ("provider.local_bridge A", NAMED),
            ("app.local_bridge A", BOTH),
            ("provider.LOCAL_BRIDGE A", NAMED),
            ("giver A", NAMED),
            ("Giver A", NAMED),
            ("giver.local_bridge A", NAMED),
            ("provider AAAA", EMPTY),
            ("cache A", FORWARDED),
            ("second.dual A", FORWARDED),
            ("provider MX", EMPTY),
            ("provider TXT", EMPTY),
            ("provider ANY", EMPTY),
            ("provider HTTPS", EMPTY),
            ("_http._tcp.provider SRV", FORWARDED),
            ("consumer A", "NOERROR 172.22.0.4"),
            ("localhost A", "NOERROR 127.0.0.1"),
            ("localhost AAAA", "NOERROR ::1"),
            ("db.prod A", "NOERROR 172.22.0.4"),
            ("provider A +tcp", NAMED),
            ("app A +tcp", BOTH),
            ("nosuch A", FORWARDED),
        ],
    );
    check(&names, &upstream, "second", &[("giver A", FORWARDED)]);
    let reply = names.dig("consumer", "PROVIDER A");
    assert_eq!((reply.answers[0].owner.as_str(), reply.answers[0].ttl), ("PROVIDER.", 5));
    assert_eq!((reply.flags.as_str(), reply.edns), ("qr rd ra", false));
    assert_eq!(names.dig("consumer", "provider A +norec").flags, "qr ra");
    assert!(names.dig("consumer", "provider A +tcp").tcp);
    // The libc inside finds the same.
    assert_eq!(names.libc("consumer", "ahostsv4", "app"), ["172.22.0.2", "172.22.0.3"]);
    assert_eq!(names.libc("consumer", "ahostsv4", "giver"), ["172.22.0.2"]);
    assert_eq!(names.libc("consumer", "ahostsv4", "example.com"), ["93.184.216.34"]);
    assert_eq!(names.libc("consumer", "ahosts", "nosuch"), [""; 0]);
    // A label has 63 characters at most: the full id is no name.
    assert_eq!(names.libc("consumer", "ahosts", &id), [""; 0]);
    assert_eq!(
        names.ok(&["exec", "consumer", "getent", "hosts", "172.22.0.2"]).split_whitespace().last(),
        Some("provider.local_bridge")
    );
}

#[test]
fn who_joins_another_network_sees_what_is_on_it() {
    let Some((names, upstream, _)) = cast(&[]) else { return };
    let before: &[(&str, &str)] = &[
        ("-x 172.22.0.2", "NOERROR provider.local_bridge."),
        ("-x 172.22.0.4", "NOERROR consumer.local_bridge."),
        ("2.0.22.172.IN-ADDR.ARPA PTR", "NOERROR provider.local_bridge."),
        ("-x 172.22.0.1", FORWARDED),
        ("-x 8.8.8.8", FORWARDED),
        ("-x 172.23.0.2", FORWARDED),
        ("-x fd5a:1:2:3::2", FORWARDED),
        ("second A", SECOND),
        ("second AAAA", EMPTY),
    ];
    check(&names, &upstream, "consumer", before);
    names.ok(&["network", "connect", "dual", "consumer"]);
    let nibbles = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.A.5.D.F.Ip6.ArPa";
    let after: &[(&str, &str)] = &[
        ("second.dual A", "NOERROR 172.23.0.2"),
        ("cache A", "NOERROR 172.23.0.2"),
        ("cache AAAA", "NOERROR fd5a:1:2:3::2"),
        // The network that has a gateway in both families comes first, and answers alone.
        ("second A", "NOERROR 172.23.0.2"),
        ("second AAAA", "NOERROR fd5a:1:2:3::2"),
        ("second.local_bridge A", SECOND),
        ("app A", BOTH),
        ("-x 172.23.0.2", "NOERROR second.dual."),
        ("-x fd5a:1:2:3::2", "NOERROR second.dual."),
        (&format!("{nibbles} PTR"), "NOERROR second.dual."),
        ("-x 172.22.0.3", "NOERROR second.local_bridge."),
        // The link is one of the other network's.
        ("giver A", NAMED),
        ("giver.dual A", FORWARDED),
    ];
    check(&names, &upstream, "consumer", after);
    assert_eq!(names.libc("consumer", "ahostsv6", "cache"), ["fd5a:1:2:3::2"]);
    names.ok(&["network", "disconnect", "dual", "consumer"]);
    check(&names, &upstream, "consumer", &[("cache A", FORWARDED), ("second A", SECOND)]);
}

#[test]
fn addresses_of_an_alias_come_in_varying_order() {
    let Some((names, _upstream, _)) = cast(&["--dns-ttl", "600"]) else { return };
    let asks = "app A ".repeat(20);
    let words: Vec<&str> = asks.split_whitespace().collect();
    let said = names.ok(&[&["exec", "consumer", "dig", "+short"], &words[..]].concat());
    let addresses: Vec<&str> = said.lines().collect();
    let orders: BTreeSet<&[&str]> = addresses.chunks(2).collect();
    assert_eq!(
        (addresses.len(), orders.len()),
        (40, 2),
        "twenty in one order by chance: one in 500,000; {said}"
    );
    assert_eq!(names.dig("consumer", "app A").answers[0].ttl, 600);
}

#[test]
fn names_come_and_go_with_their_sandboxes() {
    let Some((names, upstream, _)) = cast(&[]) else { return };
    names.idle("legacy", &[]);
    names.idle("side", &["--net", "container:consumer"]);
    check(&names, &upstream, "consumer", &[("legacy A", FORWARDED), ("second A", SECOND)]);
    check(&names, &upstream, "side", &[("provider A", NAMED), ("giver A", NAMED)]);
    assert!(!names.file("legacy", "/etc/resolv.conf").contains("127.0.0.11"));
    check(&names, &upstream, "legacy", &[("provider A", FORWARDED)]);
    // Paused: its processes stand still, its addresses don't.
    let pid = names.ok(&["inspect", "-f", "{{.State.Pid}}", "second"]);
    names.home.run("kill", &["-STOP", &pid]).ok();
    check(&names, &upstream, "consumer", &[("second A", SECOND)]);
    names.home.run("kill", &["-CONT", &pid]).ok();
    names.ok(&["stop", "-t", "0", "second"]);
    check(&names, &upstream, "consumer", &[("second A", FORWARDED), ("shop A", FORWARDED), ("app A", NAMED)]);
    names.ok(&["start", "second"]);
    check(&names, &upstream, "consumer", &[("second A", SECOND), ("shop A", SECOND), ("app A", BOTH)]);
    names.ok(&["rename", "provider", "p2"]);
    let renamed = [("provider A", FORWARDED), ("p2 A", NAMED), ("app A", BOTH), ("giver A", NAMED)];
    check(&names, &upstream, "consumer", &renamed);
    check(&names, &upstream, "consumer", &[("-x 172.22.0.2", "NOERROR p2.local_bridge.")]);
    names.ok(&["rm", "-f", "second"]);
    check(&names, &upstream, "consumer", &[("second A", FORWARDED), ("app A", NAMED)]);
}

#[test]
fn what_is_forwarded_goes_as_it_came_and_comes_back_as_it_is() {
    let Some((names, upstream, _)) = cast(&[]) else { return };
    let reply = names.dig("consumer", "Example.COM A");
    assert_eq!(reply.brief(), "NOERROR 93.184.216.34");
    assert_eq!((reply.answers[0].ttl, reply.answers[0].owner.as_str()), (nameserver::TTL, "Example.COM."));
    let asked = upstream.asked().pop().unwrap();
    assert_eq!((asked.name.as_str(), asked.tcp), ("Example.COM", false));
    assert!(asked.edns.is_some(), "as dig has it");
    names.dig("consumer", "example.com A +noedns");
    assert_eq!(upstream.asked().pop().unwrap().edns, None);
    assert!(names.dig("consumer", "example.com A +tcp").tcp);
    assert!(upstream.asked().pop().unwrap().tcp);
    assert_eq!(names.dig("consumer", "nosuch A").status, "NXDOMAIN");
}

#[test]
fn whoever_chose_ndots_gets_no_answer_for_single_labels_that_nobody_has() {
    let Some((names, upstream, _)) = cast(&[]) else { return };
    names.idle("strict", &["--net", "local_bridge", "--dns-opt", "ndots:1"]);
    check(
        &names,
        &upstream,
        "strict",
        &[
            ("nosuch A", EMPTY),
            ("nosuch AAAA", EMPTY),
            ("nosuch MX", FORWARDED),
            ("no.such A", FORWARDED),
            ("provider A", NAMED),
        ],
    );
}

#[test]
fn the_search_list_is_the_libcs_affair() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    let upstream = NameServer::start(&names.host, U, |asked| match asked.name.as_str() {
        "skut.example.com" => nameserver::Answer::Data(vec![nameserver::a("192.0.2.77")]),
        _ => nameserver::example(asked),
    });
    names.ok(&["network", "create", "one"]);
    names.idle("consumer", &["--net", "one", "--dns-search", "example.com"]);
    assert_eq!(names.libc("consumer", "ahostsv4", "skut"), ["192.0.2.77"]);
    let asked: Vec<String> = upstream.asked().into_iter().map(|asked| asked.name).collect();
    assert_eq!(asked, ["skut", "skut.example.com"]);
}

#[test]
fn sandboxes_without_a_user_defined_network_have_no_embedded_server() {
    let Some((names, _upstream, _)) = cast(&[]) else { return };
    for flags in [&["--net", "host"][..], &["--net", "bridge"], &["--net", "none"]] {
        names.idle("other", flags);
        assert!(!names.file("other", "/etc/resolv.conf").contains("127.0.0.11"), "{flags:?}");
        let words = ["exec", "other", "dig", "+tries=1", "+time=1", "@127.0.0.11", "provider"];
        assert_ne!(names.portmap(&words).code, 0, "{flags:?}");
        names.ok(&["rm", "-f", "other"]);
    }
    // What the host asks itself.
    names.idle("other", &["--net", "host"]);
    assert_eq!(names.asks("other", "example.com A"), "NOERROR 93.184.216.34");
    assert_eq!(names.asks("other", "provider A"), FORWARDED);
}
