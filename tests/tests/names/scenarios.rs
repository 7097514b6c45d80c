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
