//! Links on user-defined networks: names that one sandbox alone knows there, looked up when it asks.

use e2e::nameserver::NameServer;
use e2e::wait;
use serde_json::{Value, json};

use super::lab::Lab;
use super::tools::{IDLE, LINKS, NAME_SERVER};

/// A host with `local_bridge`, and a name server that knows none of the names here.
fn with_network() -> Option<(Lab, NameServer)> {
    let lab = Lab::linking(&[])?;
    let upstream = NameServer::of_example(&lab.host, NAME_SERVER);
    lab.ok(&["network", "create", "--subnet", "172.22.0.0/16", "local_bridge"]);
    Some((lab, upstream))
}

/// The links of an endpoint as the API tells them.
#[track_caller]
fn links(lab: &Lab, name: &str, network: &str) -> Value {
    let all: Value =
        serde_json::from_str(&lab.api("GET", &format!("/containers/{name}/json"), "").1).unwrap();
    all["NetworkSettings"]["Networks"][network]["Links"].clone()
}

impl Lab {
    /// Waits until the libc in a sandbox finds these addresses for a name.
    #[track_caller]
    fn finds(&self, sandbox: &str, name: &str, want: &[&str]) {
        wait::until(&format!("{name} = {want:?} in {sandbox}"), || self.found(sandbox, name) == want);
    }
}

#[test]
fn the_courses_pings_are_answered() {
    let Some((lab, _upstream)) = with_network() else { return };
    lab.idle("provider", &["--net", "local_bridge"]);
    lab.idle("consumer", &["--link", "provider:giver", "--net", "local_bridge"]);
    for name in ["provider", "giver"] {
        let said = lab.ok(&["exec", "consumer", "busybox", "ping", "-q", "-c", "1", name]);
        assert!(said.starts_with(&format!("PING {name} (172.22.0.2): 56 data bytes\n")), "{said}");
        assert!(said.contains("1 packets transmitted, 1 packets received, 0% packet loss"), "{said}");
    }
}

#[test]
fn a_link_is_one_endpoints_and_nothing_but_a_name() {
    let Some((lab, _upstream)) = with_network() else { return };
    let id = lab.idle(
        "provider",
        &["--net", "local_bridge", "--net-alias", "app", "-h", "db1", "--expose", "80", "-e", "K=v"],
    );
    lab.idle("second", &["--net", "local_bridge", "--net-alias", "app"]);
    lab.ok(&["network", "create", "--subnet", "172.23.0.0/16", "elsewhere"]);
    lab.idle("far", &["--net", "elsewhere"]);
    let short = format!("{}:short", &id[..12]);
    let full = format!("{id}:full");
    let all = [
        "provider:giver",
        "provider:also",
        "app:apps",
        "db1:host",
        &short,
        &full,
        "far:away",
        "giver:chain",
        "provider:second",
        "consumer:me",
        "provider",
    ];
    let flags: Vec<&str> = all.iter().flat_map(|link| ["--link", link]).collect();
    lab.idle("consumer", &[&["--net", "local_bridge"], &flags[..]].concat());
    for (name, want) in [
        ("giver", &["172.22.0.2"][..]),
        ("also", &["172.22.0.2"]),
        ("GiVeR", &["172.22.0.2"]),
        ("giver.local_bridge", &["172.22.0.2"]),
        ("apps", &["172.22.0.2", "172.22.0.3"]),
        ("host", &["172.22.0.2"]),
        ("short", &["172.22.0.2"]),
        ("away", &[]),
        ("chain", &[]),
        // The alias hides the sandbox of that name.
        ("second", &["172.22.0.2"]),
        ("me", &["172.22.0.4"]),
        ("provider", &["172.22.0.2"]),
    ] {
        assert_eq!(lab.found("consumer", name), want, "{name}");
    }
    assert_eq!(lab.found_in("ahostsv6", "consumer", "giver").len(), 0);
    let pointer = lab.ok(&["exec", "consumer", "getent", "hosts", "172.22.0.2"]);
    assert_eq!(pointer.split_whitespace().last(), Some("provider.local_bridge"));
    // Nobody else knows them, and it knows them nowhere else.
    assert_eq!(lab.found("second", "second"), ["172.22.0.3"]);
    assert_eq!(lab.found("second", "giver"), [""; 0]);
    lab.ok(&["network", "connect", "elsewhere", "consumer"]);
    lab.ok(&["network", "connect", "elsewhere", "provider"]);
    assert_eq!(lab.found("consumer", "giver.elsewhere"), [""; 0]);
    assert_eq!(lab.found("consumer", "giver"), ["172.22.0.2"]);
    // No variables, no lines, no start order, no link of the host's.
    assert_eq!(lab.environment("consumer", "GIVER"), [""; 0]);
    assert_eq!(lab.hosts_of("consumer", "giver"), [""; 0]);
    assert_eq!(lab.inspect("consumer", LINKS), "[]");
    let shown = links(&lab, "consumer", "local_bridge");
    assert_eq!(shown.as_array().unwrap()[..2], [json!("provider:giver"), json!("provider:also")]);
    assert_eq!(shown.as_array().unwrap().len(), all.len());
    assert_eq!(links(&lab, "provider", "local_bridge"), Value::Null);
    assert_eq!(lab.portmap(&["inspect", "consumer/giver"]).code, 1, "no name of a container");
}

#[test]
fn a_link_follows_who_it_leads_to() {
    let Some((lab, _upstream)) = with_network() else { return };
    let on = ["--net", "local_bridge"];
    // Mutual, and to itself.
    lab.create("consumer", &["--net", "local_bridge", "--link", "provider:giver", "--link", "consumer:self"]);
    lab.ok(&["start", "consumer"]);
    lab.finds("consumer", "giver", &[]);
    lab.idle("provider", &["--net", "local_bridge", "--link", "consumer:taker"]);
    lab.finds("consumer", "giver", &["172.22.0.3"]);
    lab.finds("provider", "taker", &["172.22.0.2"]);
    lab.finds("consumer", "self", &["172.22.0.2"]);
    // Restarted with another address.
    lab.stop("provider");
    lab.finds("consumer", "giver", &[]);
    lab.idle("squatter", &on);
    lab.ok(&["start", "provider"]);
    lab.finds("consumer", "giver", &["172.22.0.4"]);
    // Replaced by another sandbox of the name.
    lab.ok(&["rm", "-f", "provider"]);
    lab.finds("consumer", "giver", &[]);
    lab.idle("provider", &[&on[..], &["--ip", "172.22.0.77"]].concat());
    lab.finds("consumer", "giver", &["172.22.0.77"]);
    // Gone from the network, and back.
    lab.ok(&["network", "disconnect", "local_bridge", "provider"]);
    lab.finds("consumer", "giver", &[]);
    lab.ok(&["network", "connect", "--ip", "172.22.0.78", "local_bridge", "provider"]);
    lab.finds("consumer", "giver", &["172.22.0.78"]);
    // Renamed: whom it led to when it was made is still meant.
    lab.idle("late", &["--net", "local_bridge", "--link", "provider:giver"]);
    lab.ok(&["rename", "provider", "p2"]);
    lab.finds("late", "giver", &["172.22.0.78"]);
    lab.finds("late", "p2", &["172.22.0.78"]);
}

#[test]
fn connect_adds_links_to_one_endpoint_at_once() {
    let Some((lab, _upstream)) = with_network() else { return };
    lab.ok(&["network", "create", "--subnet", "172.23.0.0/16", "other"]);
    lab.idle("provider", &["--net", "local_bridge"]);
    lab.ok(&["network", "connect", "other", "provider"]);
    lab.idle("consumer", &[]);
    let connect = ["network", "connect", "--link", "provider:giver", "--link", "provider:second"];
    lab.ok(&[&connect[..], &["local_bridge", "consumer"]].concat());
    for name in ["giver", "second", "provider"] {
        assert_eq!(lab.found("consumer", name), ["172.22.0.2"], "{name}");
    }
    assert_eq!(links(&lab, "consumer", "local_bridge"), json!(["provider:giver", "provider:second"]));
    // Another alias in another network, by Docker's command line.
    lab.home.docker(&["network", "connect", "--link", "provider:there", "other", "consumer"]).ok();
    assert_eq!(lab.found("consumer", "there"), ["172.23.0.2"]);
    assert_eq!(lab.found("consumer", "giver"), ["172.22.0.2"]);
    assert_eq!(lab.found("consumer", "there.local_bridge"), [""; 0]);
    lab.ok(&["network", "disconnect", "local_bridge", "consumer"]);
    assert_eq!(lab.found("consumer", "giver"), [""; 0]);
    assert_eq!(lab.found("consumer", "there"), ["172.23.0.2"]);
    // Connected again it is another endpoint, without them.
    lab.ok(&["network", "connect", "local_bridge", "consumer"]);
    assert_eq!(lab.found("consumer", "giver"), [""; 0]);
    assert_eq!(links(&lab, "consumer", "local_bridge"), Value::Null);
    // A stopped one knows them when it starts.
    lab.create("stopped", &["--net", "local_bridge"]);
    lab.ok(&["network", "disconnect", "local_bridge", "stopped"]);
    lab.ok(&[&connect[..], &["local_bridge", "stopped"]].concat());
    lab.ok(&["start", "stopped"]);
    assert_eq!(lab.found("stopped", "giver"), ["172.22.0.2"]);
    lab.ok(&["restart", "-t", "0", "stopped"]);
    assert_eq!(lab.found("stopped", "second"), ["172.22.0.2"]);
    // Not on the default bridge.
    let why = "links are only supported for user-defined networks";
    for said in [
        lab.portmap(&["network", "connect", "--link", "consumer:x", "bridge", "provider"]),
        lab.home.docker(&["network", "connect", "--link", "consumer:x", "bridge", "provider"]),
    ] {
        assert!(said.code == 1 && said.stderr.contains(why), "{said:?}");
    }
    assert_eq!(lab.inspect("provider", "{{len .NetworkSettings.Networks}}"), "2");
}

#[test]
fn each_network_of_a_start_has_its_own_links() {
    let Some((mut lab, _upstream)) = with_network() else { return };
    lab.ok(&["network", "create", "--subnet", "172.23.0.0/16", "other"]);
    lab.idle("provider", &["--net", "local_bridge", "--net", "other"]);
    let networks =
        ["--network", "name=local_bridge,link=provider:giver", "--network", "name=other,link=provider:there"];
    lab.idle("consumer", &networks);
    // A plain one is of the first network.
    lab.idle("plain", &["--net", "local_bridge", "--net", "other", "--link", "provider:giver"]);
    for _ in 0..2 {
        for (sandbox, name, want) in [
            ("consumer", "giver", &["172.22.0.2"][..]),
            ("consumer", "there", &["172.23.0.2"]),
            ("consumer", "giver.other", &[]),
            ("plain", "giver", &["172.22.0.2"]),
            ("plain", "giver.other", &[]),
        ] {
            assert_eq!(lab.found(sandbox, name), want, "{sandbox}: {name}");
        }
        assert_eq!(links(&lab, "consumer", "other"), json!(["provider:there"]));
        assert_eq!(links(&lab, "plain", "other"), Value::Null);
        lab.restart_daemon("-KILL");
    }
    let wrong = [&["run", "--net", "name=local_bridge,link=a:b:c"], &IDLE[..]].concat();
    assert!(lab.fails(&wrong).1.contains("bad format for links: a:b:c"));
}
