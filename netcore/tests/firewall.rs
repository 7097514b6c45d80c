//! The firewall against a real kernel, with each backend: who reaches whom, and what is loaded.
//!
//! What is dropped is checked only where the same way was open before the rules.

#[path = "lab/backends.rs"]
mod backends;
mod lab;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use backends::{a, b, firewall, with_each_backend};
use lab::{Host, Lab, missing, ready};
use netcore::firewall::{
    Backend, BackendChoice, BridgeNetwork, EndpointLinks, Facts, Firewall, Foreign, HostFacts, LinkPort,
    nftables,
};
use netcore::model::EndpointId;
use netcore::publish::{PortRange, Proto};

const A1: &str = "172.20.0.2";
const A2: &str = "172.20.0.3";
const B1: &str = "172.21.0.2";
const OUT: &str = "192.0.2.2";
const A1_V6: &str = "fd00:20::2";
const A2_V6: &str = "fd00:20::3";
const B1_V6: &str = "fd00:21::2";
const OUT_V6: &str = "fd00:ff::2";

with_each_backend! {
    containers_leave_under_the_hosts_address
    without_masquerade_they_keep_their_own_and_get_answers
    networks_are_isolated_from_each_other
    neighbours_do_not_reach_containers
    nobody_elses_accept_opens_a_containers_address
    icc_off_parts_the_containers_of_a_network
    a_link_opens_its_ports_to_one_container_and_in_one_direction
    an_internal_network_has_no_outside
    becoming_internal_cuts_old_connections
    old_connections_outlive_a_change
    a_host_that_routes_for_us_only_drops_the_rest
    applying_again_changes_nothing
    a_change_ends_where_a_fresh_start_does
    removing_leaves_nothing_of_ours
    the_other_backends_rules_go
    only_the_callers_namespace_is_touched
}

fn facts(networks: impl IntoIterator<Item = BridgeNetwork>) -> Facts {
    Facts::new(networks, [], HostFacts::default()).expect("networks that fit together")
}

fn closed(networks: impl IntoIterator<Item = BridgeNetwork>) -> Facts {
    let host = HostFacts { foreign_v4: Foreign::Drop, foreign_v6: Foreign::Drop, ..HostFacts::default() };
    Facts::new(networks, [], host).expect("networks that fit together")
}

fn containers_leave_under_the_hosts_address(backend: Backend) {
    let lab = Lab::new();
    assert_eq!((lab.a1.seen(&lab.out, OUT), lab.a1.seen(&lab.out, OUT_V6)), (A1.into(), A1_V6.into()));
    lab.apply(&mut firewall(backend), &closed([a(), b()]));
    for container in [&lab.a1, &lab.b1] {
        assert_eq!(container.seen(&lab.out, OUT), "192.0.2.1");
        assert_eq!(container.seen(&lab.out, OUT_V6), "fd00:ff::1");
    }
    assert_eq!(lab.a1.seen(&lab.a2, A2), A1, "what stays on the bridge keeps its address");
}

fn without_masquerade_they_keep_their_own_and_get_answers(backend: Backend) {
    let lab = Lab::new();
    let mut plain = a();
    plain.masquerade = false;
    lab.apply(&mut firewall(backend), &closed([plain, b()]));
    assert_eq!(lab.a1.seen(&lab.out, OUT), A1);
    assert_eq!(lab.a1.seen(&lab.out, OUT_V6), A1_V6);
    assert!(!lab.out.reaches(&lab.a1, A1), "only answers come in");
}

fn networks_are_isolated_from_each_other(backend: Backend) {
    let lab = Lab::new();
    let crossings = || {
        [
            lab.a1.reaches(&lab.b1, B1),
            lab.a1.reaches(&lab.b1, B1_V6),
            lab.b1.reaches(&lab.a1, A1),
            lab.b1.reaches(&lab.a1, A1_V6),
        ]
    };
    assert_eq!(crossings(), [true; 4]);
    lab.apply(&mut firewall(backend), &facts([a(), b()]));
    assert_eq!(crossings(), [false; 4]);
    assert!(lab.a1.reaches(&lab.a2, A2) && lab.a1.reaches(&lab.a2, A2_V6));
    assert!(lab.host.reaches(&lab.b1, B1) && lab.host.reaches(&lab.b1, B1_V6));
    assert!(lab.a1.reaches(&lab.host, "172.20.0.1") && lab.a1.reaches(&lab.host, "fd00:20::1"));
}

fn neighbours_do_not_reach_containers(backend: Backend) {
    let lab = Lab::new();
    let entries = || [lab.out.reaches(&lab.a1, A1), lab.out.reaches(&lab.a1, A1_V6)];
    assert_eq!(entries(), [true; 2]);
    lab.apply(&mut firewall(backend), &facts([a(), b()]));
    assert_eq!(entries(), [false; 2]);
    assert!(lab.out.reaches(&lab.host, "192.0.2.1") && lab.out.reaches(&lab.host, "fd00:ff::1"));
    assert!(lab.host.reaches(&lab.a1, A1) && lab.host.reaches(&lab.a1, A1_V6));
}

fn nobody_elses_accept_opens_a_containers_address(backend: Backend) {
    let lab = Lab::new();
    lab.apply(&mut firewall(backend), &facts([a(), b()]));
    match backend {
        // No accept of another table's can undo a drop: as if ours let it pass.
        Backend::Nftables => drop(lab.host.run("nft flush chain inet portmap forward", "")),
        Backend::Iptables => {
            lab.host.run("iptables -A PORTMAP-USER -j ACCEPT", "");
            lab.host.run("ip6tables -A PORTMAP-USER -j ACCEPT", "");
        }
    }
    assert!(!lab.out.reaches(&lab.a1, A1) && !lab.out.reaches(&lab.a1, A1_V6));
    assert!(!lab.b1.reaches(&lab.a1, A1) && !lab.b1.reaches(&lab.a1, A1_V6));
    assert!(lab.a1.reaches(&lab.out, OUT) && lab.a1.reaches(&lab.out, OUT_V6));
    assert!(lab.a1.reaches(&lab.host, "172.21.0.1"), "the gateway of another network is the host");
}

fn icc_off_parts_the_containers_of_a_network(backend: Backend) {
    if !Path::new("/proc/sys/net/bridge").exists() && missing("no br_netfilter in this kernel").is_none() {
        return;
    }
    let lab = Lab::new();
    let inside = || [lab.a1.reaches(&lab.a2, A2), lab.a1.reaches(&lab.a2, A2_V6)];
    let mut apart = a();
    apart.icc = false;
    assert_eq!(inside(), [true; 2]);
    let mut firewall = firewall(backend);
    lab.apply(&mut firewall, &closed([apart, b()]));
    assert_eq!(inside(), [false; 2]);
    assert_eq!(lab.a1.seen(&lab.out, OUT), "192.0.2.1");
    assert_eq!(lab.a1.seen(&lab.out, OUT_V6), "fd00:ff::1");
    assert!(lab.host.reaches(&lab.a1, A1) && lab.host.reaches(&lab.a1, A1_V6));
    // With the bridge still filtered: accepted, and under their own addresses.
    lab.apply(&mut firewall, &closed([a(), b()]));
    assert_eq!((lab.a1.seen(&lab.a2, A2), lab.a1.seen(&lab.a2, A2_V6)), (A1.into(), A1_V6.into()));
}

/// Ports of a1 that a2 may reach: one and a range, of each protocol and family.
fn links_of_a2() -> Arc<EndpointLinks> {
    let ranges = [(80, 80), (8000, 8009)].map(|(first, last)| PortRange::new(first, last).expect("a range"));
    let mut ports = Vec::new();
    for (from, to) in [(A2, A1), (A2_V6, A1_V6)] {
        let (from, to) = (from.parse().expect("an address"), to.parse().expect("an address"));
        let of = |proto| ranges.map(|ports| LinkPort { from, to, proto, ports });
        ports.extend([Proto::Tcp, Proto::Udp].into_iter().flat_map(of));
    }
    Arc::new(EndpointLinks { bridge: "br-a".parse().expect("a name"), ports })
}

fn a_link_opens_its_ports_to_one_container_and_in_one_direction(backend: Backend) {
    if !Path::new("/proc/sys/net/bridge").exists() && missing("no br_netfilter in this kernel").is_none() {
        return;
    }
    let lab = Lab::new();
    let unlinked = lab.host.container("br-a", 20, 4);
    // Who of a1's neighbours, and of its own, gets through by TCP and by datagrams that are answered.
    let through = |client: &Host, server: &Host, at: &str| {
        [!client.dial(at, server, at).is_empty(), !client.ask(at, server, at).is_empty()]
    };
    let open = ["172.20.0.2:80", "172.20.0.2:8009", "[fd00:20::2]:80", "[fd00:20::2]:8000"];
    let reached = |client: &Host| open.map(|at| through(client, &lab.a1, at));
    let closed = closed([parted(), b()]);
    let linked = closed.with_links([(EndpointId::from_random([1; 32]), Some(links_of_a2()))]);
    let mut firewall = firewall(backend);
    lab.apply(&mut firewall, &closed);
    assert_eq!(reached(&lab.a2), [[false; 2]; 4]);
    lab.apply(&mut firewall, &linked);
    assert_eq!(reached(&lab.a2), [[true; 2]; 4]);
    assert_eq!(reached(&unlinked), [[false; 2]; 4]);
    for at in ["172.20.0.2:81", "172.20.0.2:7999", "172.20.0.2:8010", "[fd00:20::2]:81"] {
        assert_eq!(through(&lab.a2, &lab.a1, at), [false; 2], "{at}");
    }
    for at in ["172.20.0.3:80", "[fd00:20::3]:80"] {
        assert_eq!(through(&lab.a1, &lab.a2, at), [false; 2], "the other way, {at}");
    }
    assert!(!lab.a2.pings(A1));
    // The same from nothing.
    firewall.forget();
    lab.apply(&mut firewall, &linked);
    assert_eq!((reached(&lab.a2), reached(&unlinked)), ([[true; 2]; 4], [[false; 2]; 4]));
    let (mut client, mut server) = {
        let at = "172.20.0.2:8005";
        let listener = lab.a1.enter(|| std::net::TcpListener::bind(at)).expect("the address is its own");
        let client = lab.a2.enter(|| std::net::TcpStream::connect(at)).expect("the link is open");
        let (server, _) = listener.accept().expect("the connection stands");
        server.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("a time-out");
        (client, server)
    };
    client.write_all(b"x").expect("the socket takes it");
    assert_eq!(server.read(&mut [0]).expect("the byte comes"), 1);
    lab.apply(&mut firewall, &closed);
    assert_eq!(reached(&lab.a2), [[false; 2]; 4]);
    client.write_all(b"x").expect("the socket takes it");
    assert!(server.read(&mut [0]).is_err(), "a byte came through, though the link is gone");
}

fn an_internal_network_has_no_outside(backend: Backend) {
    let lab = Lab::new();
    let mut fenced = a();
    fenced.internal = true;
    lab.apply(&mut firewall(backend), &facts([fenced, b()]));
    assert!(!lab.a1.reaches(&lab.out, OUT) && !lab.a1.reaches(&lab.out, OUT_V6));
    assert!(!lab.out.reaches(&lab.a1, A1) && !lab.out.reaches(&lab.a1, A1_V6));
    assert!(!lab.a1.reaches(&lab.b1, B1) && !lab.b1.reaches(&lab.a1, A1));
    assert!(lab.a1.reaches(&lab.a2, A2) && lab.a1.reaches(&lab.a2, A2_V6));
    assert!(lab.host.reaches(&lab.a1, A1) && lab.a1.reaches(&lab.host, "172.20.0.1"));
    assert!(lab.b1.reaches(&lab.out, OUT));
}

fn becoming_internal_cuts_old_connections(backend: Backend) {
    let lab = Lab::new();
    let mut firewall = firewall(backend);
    lab.apply(&mut firewall, &facts([a(), b()]));
    let (mut client, mut server) = lab.a1.connect(&lab.out, OUT).expect("the way out is open");
    let mut fenced = a();
    fenced.internal = true;
    lab.apply(&mut firewall, &facts([fenced, b()]));
    client.write_all(b"x").expect("the socket takes it");
    assert!(server.read(&mut [0]).is_err(), "a byte came through");
}

fn old_connections_outlive_a_change(backend: Backend) {
    let lab = Lab::new();
    let mut firewall = firewall(backend);
    lab.apply(&mut firewall, &closed([a()]));
    let (mut client, mut server) = lab.a1.connect(&lab.out, OUT).expect("the way out is open");
    lab.apply(&mut firewall, &closed([a(), b()]));
    firewall.forget();
    lab.apply(&mut firewall, &closed([a(), b()]));
    client.write_all(b"x").expect("the socket takes it");
    assert_eq!(server.read(&mut [0]).expect("the byte comes"), 1);
    server.write_all(b"y").expect("the socket takes it");
    assert_eq!(client.read(&mut [0]).expect("the answer comes"), 1);
}

fn a_host_that_routes_for_us_only_drops_the_rest(backend: Backend) {
    let lab = Lab::new();
    let mut firewall = firewall(backend);
    let foreign = || [lab.b1.reaches(&lab.out, OUT), lab.b1.reaches(&lab.out, OUT_V6)];
    lab.apply(&mut firewall, &facts([a()]));
    assert_eq!(foreign(), [true; 2]);
    lab.apply(&mut firewall, &closed([a()]));
    assert_eq!(foreign(), [false; 2]);
    assert!(lab.a1.reaches(&lab.out, OUT));
    lab.apply(&mut firewall, &facts([a()]));
    assert_eq!(foreign(), [true; 2], "opened again");
}

/// Each differs from the one before in another way.
fn history() -> Vec<Facts> {
    let mut changed = a();
    (changed.icc, changed.masquerade) = (false, false);
    let mut internal = b();
    internal.internal = true;
    let mut wide = a();
    wide.ipv4 = vec!["172.20.0.0/16".parse().expect("a subnet")];
    wide.ipv6.clear();
    let mut moved = a();
    moved.bridge = "br-c".parse().expect("a name");
    vec![
        facts([a()]),
        facts([a(), b()]),
        facts([parted(), b()]).with_links([(EndpointId::from_random([1; 32]), Some(links_of_a2()))]),
        facts([changed, b()]),
        facts([a(), internal]),
        facts([wide]),
        facts([moved]),
        closed([a()]),
        closed([]),
        closed([a(), b()]),
        facts([]),
        facts([b()]),
    ]
}

/// A network whose containers are kept apart.
fn parted() -> BridgeNetwork {
    BridgeNetwork { icc: false, ..a() }
}

fn applying_again_changes_nothing(backend: Backend) {
    let host = Host::new();
    for facts in history() {
        let mut firewall = firewall(backend);
        host.enter(|| firewall.apply(&facts)).expect("the rules load");
        let once = host.rules(backend);
        host.enter(|| firewall.apply(&facts)).expect("the rules load");
        assert_eq!(host.rules(backend), once);
        firewall.forget();
        host.enter(|| firewall.apply(&facts)).expect("the rules load");
        assert_eq!(host.rules(backend), once);
    }
}

fn a_change_ends_where_a_fresh_start_does(backend: Backend) {
    let (old, mut changing) = (Host::new(), firewall(backend));
    let mut before = Facts::default();
    for facts in history() {
        old.enter(|| changing.apply(&facts)).expect("the rules load");
        let fresh = Host::new();
        fresh.enter(|| firewall(backend).apply(&facts)).expect("the rules load");
        if backend == Backend::Iptables && facts.is_empty() {
            // Empty tables stay behind.
            let left = old.rules(backend);
            assert!(!left.contains("PORTMAP") && !left.contains("DROP"), "{left}");
        } else {
            assert_eq!(old.rules(backend), fresh.rules(backend), "{before:?} → {facts:?}");
        }
        if backend == Backend::Nftables {
            // And without the way out that `apply` has when a change doesn't fit.
            let steps = Host::new();
            steps.run("nft -f -", &nftables::replace(&before));
            steps.run("nft -f -", &nftables::change(&before, &facts));
            assert_eq!(steps.rules(backend), fresh.rules(backend), "{before:?} → {facts:?}");
        }
        before = facts;
    }
}

fn removing_leaves_nothing_of_ours(backend: Backend) {
    let lab = Lab::new();
    let iptables = backend == Backend::Iptables;
    let mut firewall = firewall(backend);
    if iptables {
        lab.host.run("iptables -A FORWARD -s 198.51.100.1 -j DROP", "");
    } else {
        lab.host.run("nft -f -", "add table inet theirs\n");
    }
    lab.apply(&mut firewall, &closed([a(), b()]));
    if iptables {
        lab.host.run("iptables -A PORTMAP-USER -s 198.51.100.7 -j DROP", "");
        firewall.forget();
        lab.apply(&mut firewall, &closed([a()]));
    }
    lab.host.enter(|| firewall.remove()).expect("the rules go");
    let left = lab.host.rules(backend);
    if iptables {
        let ours: Vec<&str> = left.lines().filter(|line| line.contains("PORTMAP")).collect();
        assert_eq!(ours, [":PORTMAP-USER -", "-A PORTMAP-USER -s 198.51.100.7/32 -j DROP"]);
        assert!(left.contains("-A FORWARD -s 198.51.100.1/32 -j DROP"), "{left}");
        assert_eq!(left.matches(":FORWARD ACCEPT").count(), left.matches(":FORWARD").count(), "{left}");
    } else {
        assert!(!left.contains("portmap") && left.contains("theirs"), "{left}");
    }
    assert_eq!(lab.a1.seen(&lab.out, OUT), A1, "forwarded as before us");
    lab.host.enter(|| firewall.remove()).expect("nothing to remove is no error");
    assert_eq!(lab.host.rules(backend), left);
}

fn the_other_backends_rules_go(backend: Backend) {
    let other = match backend {
        Backend::Nftables => Backend::Iptables,
        Backend::Iptables => Backend::Nftables,
    };
    if ready(other).is_none() {
        return;
    }
    let lab = Lab::new();
    lab.apply(&mut firewall(other), &closed([a(), b()]));
    lab.apply(&mut firewall(backend), &closed([a(), b()]));
    let left = lab.host.rules(other);
    match other {
        Backend::Nftables => assert!(!left.contains("table inet portmap"), "{left}"),
        Backend::Iptables => assert!(!left.contains("PORTMAP"), "{left}"),
    }
    assert_eq!(lab.a1.seen(&lab.out, OUT), "192.0.2.1");
}

fn only_the_callers_namespace_is_touched(backend: Backend) {
    let (one, other) = (Host::new(), Host::new());
    let mut firewall = firewall(backend);
    one.enter(|| firewall.apply(&facts([a()]))).expect("the rules load");
    assert!(one.rules(backend).contains("br-a"));
    assert!(!other.rules(backend).contains("br-a"));
}

#[test]
fn auto_is_nftables_unless_iptables_drops_by_policy() {
    if ready(Backend::Nftables).is_none() || ready(Backend::Iptables).is_none() {
        return;
    }
    let host = Host::new();
    let chosen = || host.enter(|| Firewall::new(BackendChoice::Auto).backend()).expect("both work");
    assert_eq!(chosen(), Some(Backend::Nftables));
    assert!(!host.rules(Backend::Nftables).contains("portmap"), "asking changes nothing");
    host.run("iptables -P FORWARD DROP", "");
    assert_eq!(chosen(), Some(Backend::Iptables));
}

#[test]
fn a_policy_that_was_never_ours_stays() {
    if ready(Backend::Nftables).is_none() || ready(Backend::Iptables).is_none() {
        return;
    }
    let host = Host::new();
    host.run("iptables -P FORWARD DROP", "");
    host.enter(|| firewall(Backend::Nftables).apply(&closed([a()]))).expect("the rules load");
    assert!(host.rules(Backend::Iptables).contains(":FORWARD DROP"));
}
