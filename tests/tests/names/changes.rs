//! Names while sandboxes live: what a command changes is so for the next query.

use std::process::Command;
use std::time::{Duration, Instant};

use e2e::nameserver::NameServer;

use super::tools::{HOST, Names, U};

const NOBODY: &str = "NXDOMAIN";

fn two_networks() -> Option<(Names, NameServer)> {
    let names = Names::new(HOST, &[])?;
    let upstream = NameServer::of_example(&names.host, U);
    names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    names.ok(&["network", "create", "--subnet", "10.20.0.0/24", "two"]);
    Some((names, upstream))
}

#[test]
fn aliases_belong_to_one_network() {
    let Some((names, _upstream)) = two_networks() else { return };
    names.idle("web", &["--net", "one", "--net-alias", "www", "--net-alias", "a.b"]);
    names.idle("first", &["--net", "one"]);
    names.idle("second", &["--net", "two"]);
    names.ok(&["network", "connect", "--alias", "shop", "two", "web"]);
    let cases = [
        ("first", "www", "NOERROR 10.10.0.2"),
        ("first", "a.b", "NOERROR 10.10.0.2"),
        ("first", "a.b.one", "NOERROR 10.10.0.2"),
        ("first", "shop", NOBODY),
        ("second", "shop", "NOERROR 10.20.0.3"),
        ("second", "shop.two", "NOERROR 10.20.0.3"),
        ("second", "web", "NOERROR 10.20.0.3"),
        ("second", "www", NOBODY),
        ("second", "shop.one", NOBODY),
        ("web", "www", "NOERROR 10.10.0.2"),
        ("web", "shop", "NOERROR 10.20.0.3"),
    ];
    for (who, name, want) in cases {
        assert_eq!(names.asks(who, name), want, "{name} from {who}");
    }
    let shown = |network: &str, field: &str| {
        names.ok(&[
            "inspect",
            "-f",
            &format!("{{{{json (index .NetworkSettings.Networks {network:?}).{field}}}}}"),
            "web",
        ])
    };
    let id = names.ok(&["inspect", "-f", "{{.Id}}", "web"]);
    assert_eq!(shown("one", "Aliases"), r#"["www","a.b"]"#);
    assert_eq!(shown("two", "DNSNames"), format!(r#"["web","shop","{}"]"#, &id[..12]));
    names.ok(&["network", "disconnect", "two", "web"]);
    assert_eq!(names.asks("second", "shop"), NOBODY);
    assert_eq!(names.asks("second", "web"), NOBODY);
    assert_eq!(names.asks("first", "www"), "NOERROR 10.10.0.2");
    // Again, under another name and at another address.
    names.ok(&["network", "connect", "--alias", "bazaar", "--ip", "10.20.0.77", "two", "web"]);
    assert_eq!(names.asks("second", "bazaar"), "NOERROR 10.20.0.77");
    assert_eq!(names.asks("second", "shop"), NOBODY);
}

#[test]
fn a_rename_is_known_at_once_on_all_networks() {
    let Some((names, _upstream)) = two_networks() else { return };
    names.idle("web", &["--net", "one", "-h", "box"]);
    names.ok(&["network", "connect", "two", "web"]);
    names.idle("first", &["--net", "one"]);
    names.idle("second", &["--net", "two"]);
    names.ok(&["rename", "web", "shop"]);
    for (who, address) in [("first", "10.10.0.2"), ("second", "10.20.0.2"), ("shop", "10.10.0.2")] {
        let found = format!("NOERROR {address}");
        assert_eq!(names.asks(who, "shop"), found, "{who}");
        assert_eq!(names.asks(who, "box"), found, "{who}");
        assert_eq!(names.asks(who, "web"), NOBODY, "{who}");
    }
    assert_eq!(names.asks("second", "-x 10.20.0.2"), "NOERROR shop.two.");
    // The name is free for another.
    names.idle("web", &["--net", "one"]);
    assert_eq!(names.asks("first", "web"), "NOERROR 10.10.0.4");
}

#[test]
fn a_name_is_whoevers_it_is_now() {
    let Some((names, _upstream)) = two_networks() else { return };
    names.idle("consumer", &["--net", "one"]);
    for last in 3..6 {
        let address = format!("10.10.0.{last}");
        names.idle("web", &["--net", "one", "--ip", &address]);
        assert_eq!(names.asks("consumer", "web"), format!("NOERROR {address}"));
        names.ok(&["rm", "-f", "web"]);
        assert_eq!(names.asks("consumer", "web"), NOBODY);
    }
    // One that ends by itself is no different.
    names.ok(&["run", "--name", "brief", "--net", "one", "--", "true"]);
    names.comes_to("consumer", "brief", NOBODY);
    // One that was only made isn't there yet.
    names.ok(&["create", "--name", "later", "--net", "one", "--", "sleep", "infinity"]);
    assert_eq!(names.asks("consumer", "later"), NOBODY);
    names.ok(&["start", "later"]);
    assert_eq!(names.asks("consumer", "later"), "NOERROR 10.10.0.3");
    let generated = names.ok(&["run", "-d", "--net", "one", "--", "sleep", "infinity"]);
    let name = names.ok(&["inspect", "-f", "{{.Name}}", &generated]);
    assert_eq!(names.asks("consumer", name.trim_start_matches('/')), "NOERROR 10.10.0.4");
}

#[test]
fn the_course_s_consumer_pings_its_giver() {
    let Some((names, _upstream)) = two_networks() else { return };
    names.ok(&["network", "create", "--subnet", "172.22.0.0/16", "local_bridge"]);
    names.idle("provider", &["--net", "local_bridge"]);
    for (name, want) in [
        ("provider", "PING provider (172.22.0.2): 56 data bytes"),
        ("giver", "PING giver (172.22.0.2): 56 data bytes"),
    ] {
        let flags =
            ["run", "--rm", "--name", "consumer", "--link", "provider:giver", "--net", "local_bridge"];
        let said = names.ok(&[&flags[..], &["--", "busybox", "ping", "-q", "-c", "1", name]].concat());
        assert_eq!(said.lines().next(), Some(want));
        assert!(said.contains("1 packets transmitted, 1 packets received, 0% packet loss"), "{said}");
    }
}

#[test]
fn names_come_back_with_the_daemon() {
    let Some((mut names, upstream)) = two_networks() else { return };
    names.idle("web", &["--net", "one", "--net-alias", "www"]);
    names.idle("plain", &[]);
    names.ok(&["network", "connect", "one", "plain"]);
    names.idle("consumer", &["--net", "one", "--link", "web:giver"]);
    names.idle("own", &["--net", "two", "--dns", U, "--dns-opt", "ndots:1"]);
    for end in ["-KILL", "-TERM"] {
        names.end_daemon(end);
        names.start_daemon();
        for who in ["web", "plain", "consumer"] {
            assert_eq!(names.asks(who, "www"), "NOERROR 10.10.0.2", "{who} after {end}");
            assert_eq!(names.asks(who, "plain +tcp"), "NOERROR 10.10.0.3", "{who} after {end}");
            assert_eq!(names.asks(who, "example.com"), "NOERROR 93.184.216.34", "{who} after {end}");
        }
        assert_eq!(names.asks("consumer", "giver"), "NOERROR 10.10.0.2", "after {end}");
        assert_eq!(names.asks("own", "nosuch"), "NOERROR", "after {end}");
        assert_eq!(names.libc("own", "ahostsv4", "example.com"), ["93.184.216.34"]);
    }
    assert!(upstream.count("example.com") > 0);
    names.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(names.asks("consumer", "www"), NOBODY);
}

#[test]
fn a_daemon_that_is_killed_over_a_query_leaves_no_trouble() {
    let Some(mut names) = Names::new(HOST, &[]) else { return };
    let upstream = NameServer::start(&names.host, U, |_| e2e::nameserver::Answer::Silence);
    names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    names.idle("web", &["--net", "one"]);
    let mut dig = Command::new("nsenter");
    let stack = names.ok(&["inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "web"]);
    let net = format!("--net={}", names.home.seen(&stack).display());
    dig.args([&net, "dig", "@127.0.0.11", "+tries=1", "+time=8", "out.example"]);
    let mut asking = names.host.spawn(dig);
    upstream.wait_for("out.example");
    names.end_daemon("-KILL");
    names.start_daemon();
    assert_eq!(names.asks("web", "web"), "NOERROR 10.10.0.2");
    // Nobody answers for the daemon that is gone; who asked is told, or gives up.
    let began = Instant::now();
    asking.wait_for(Duration::from_secs(15));
    assert!(began.elapsed() < Duration::from_secs(15), "{}", asking.stdout());
    assert!(!asking.stdout().contains("status: NOERROR"), "{}", asking.stdout());
}
