//! Published ports against a real kernel, with each backend: who reaches a port of the host, under which address the
//! container sees him, and what stays closed.
//!
//! No proxy runs here: where one would be asked, a server of the host stands in for it.

#[path = "lab/backends.rs"]
mod backends;
mod lab;

use std::sync::Arc;

use backends::{a, b, firewall, with_each_backend};
use lab::{Host, Lab, missing};
use netcore::firewall::{
    Backend, BridgeNetwork, EndpointPorts, Facts, Family, Foreign, GatewayMode, HostFacts, Mapping, OpenPort,
    iptables, nftables,
};
use netcore::model::EndpointId;
use netcore::publish::PortRange;

const A1: &str = "172.20.0.2";
const A1_V6: &str = "fd00:20::2";
/// The host's address outside.
const UP: &str = "192.0.2.1";
const UP_V6: &str = "[fd00:ff::1]";

with_each_backend! {
    clients_keep_their_address_and_reach_the_container
    ranges_lead_where_they_should
    a_port_of_one_address_is_one_of_no_other
    clients_on_the_same_network_are_left_to_the_proxy
    link_local_clients_are_not_translated
    without_a_proxy_the_network_itself_and_loopback_are_translated
    loopback_addresses_are_nobody_elses
    with_icc_off_only_published_ports_are_reached
    an_internal_network_reaches_no_published_port
    nat_lets_nobody_in_directly
    unprotected_lets_everything_in
    routed_lets_open_ports_and_icmp_in
    direct_routing_opens_published_ports_alone
    a_trusted_interface_may_name_containers_and_a_mark_opens_any_port
    a_chosen_source_address_is_used
    a_withdrawn_port_leads_nowhere
    changes_end_where_a_fresh_start_does
    a_change_beside_other_ports_is_one_transaction_that_loads
}

fn id(number: u8) -> EndpointId {
    EndpointId::from_random([number; 32])
}

fn range(text: &str) -> PortRange {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    PortRange::new(first.parse().expect("a port"), last.parse().expect("a port")).expect("a range")
}

/// As `8080>80/tcp`, from an address of the host to one of a container.
fn mapping(host_ip: &str, ports: &str, target: &str) -> Mapping {
    let (ports, proto) = ports.split_once('/').unwrap_or((ports, "tcp"));
    let (host, container) = ports.split_once('>').unwrap_or((ports, ports));
    Mapping {
        proto: proto.parse().expect("a protocol"),
        host_ip: host_ip.parse().expect("an address"),
        host: range(host),
        target: target.parse().expect("an address"),
        container: range(container),
    }
}

/// Ports of a1, on all addresses of both families.
fn of_a1(ports: &[&str]) -> Arc<EndpointPorts> {
    let both = |ports: &&str| [mapping("0.0.0.0", ports, A1), mapping("::", ports, A1_V6)];
    let mappings = ports.iter().flat_map(both).collect();
    Arc::new(EndpointPorts { bridge: "br-a".parse().expect("a name"), mappings, open: Vec::new() })
}

fn facts(network_a: BridgeNetwork, ports: Arc<EndpointPorts>, host: HostFacts) -> Facts {
    Facts::new([network_a, b()], [(id(1), ports)], host).expect("networks that fit together")
}

fn with_proxy(network_a: BridgeNetwork, ports: &[&str]) -> Facts {
    facts(network_a, of_a1(ports), HostFacts::default())
}

const WITHOUT_PROXY: fn() -> HostFacts = || HostFacts { userland_proxy: false, ..HostFacts::default() };

/// `host:port` and where it leads, in both families.
fn both(port: u16, container: u16) -> [(String, String); 2] {
    [
        (format!("{UP}:{port}"), format!("{A1}:{container}")),
        (format!("{UP_V6}:{port}"), format!("[{A1_V6}]:{container}")),
    ]
}

/// How a1 sees a client's TCP connection and its datagram, in IPv4 and in IPv6.
fn seen(lab: &Lab, client: &Host, port: u16, container: u16) -> [[String; 2]; 2] {
    both(port, container).map(|(at, to)| [client.dial(&at, &lab.a1, &to), client.ask(&at, &lab.a1, &to)])
}

fn clients_keep_their_address_and_reach_the_container(backend: Backend) {
    let lab = Lab::new();
    lab.apply(&mut firewall(backend), &with_proxy(a(), &["8080>80/tcp", "8080>80/udp"]));
    assert_eq!(seen(&lab, &lab.out, 8080, 80), [["192.0.2.2"; 2], ["fd00:ff::2"; 2]]);
    assert_eq!(seen(&lab, &lab.host, 8080, 80), [["192.0.2.1"; 2], ["fd00:ff::1"; 2]], "the host itself");
    // Containers of another network leave theirs under the host's address, as to anywhere else.
    assert_eq!(seen(&lab, &lab.b1, 8080, 80), [["172.20.0.1"; 2], ["fd00:20::1"; 2]]);
    assert_eq!(lab.b1.dial("172.21.0.1:8080", &lab.a1, "172.20.0.2:80"), "172.20.0.1", "by its own gateway");
    assert_eq!(lab.b1.dial("[fd00:21::1]:8080", &lab.a1, "[fd00:20::2]:80"), "fd00:20::1");
    assert_eq!(lab.out.dial("192.0.2.1:8081", &lab.a1, "172.20.0.2:81"), "", "not published");
}

fn ranges_lead_where_they_should(backend: Backend) {
    let lab = Lab::new();
    let ports = ["20000-20099", "8000-8009>80-89", "53-62/udp", "500-509>600-609/udp"];
    lab.apply(&mut firewall(backend), &with_proxy(a(), &ports));
    for (port, container) in [(20000, 20000), (20099, 20099), (8000, 80), (8003, 83), (8009, 89)] {
        for (at, to) in both(port, container) {
            assert!(!lab.out.dial(&at, &lab.a1, &to).is_empty(), "{at} → {to}");
        }
    }
    for (port, container) in [(53, 53), (62, 62), (500, 600), (509, 609)] {
        for (at, to) in both(port, container) {
            assert!(!lab.out.ask(&at, &lab.a1, &to).is_empty(), "{at} → {to}");
        }
    }
    assert_eq!(lab.out.dial("192.0.2.1:20100", &lab.a1, "172.20.0.2:20100"), "");
}

fn a_port_of_one_address_is_one_of_no_other(backend: Backend) {
    let lab = Lab::new();
    lab.host.ip("addr add 192.0.2.9/24 dev up0");
    let mut ports = EndpointPorts::clone(&of_a1(&[]));
    ports.mappings.push(mapping("192.0.2.9", "8080>80", A1));
    ports.mappings.push(mapping("192.0.2.9", "9000-9009", A1));
    lab.apply(&mut firewall(backend), &facts(a(), Arc::new(ports), HostFacts::default()));
    assert_eq!(lab.out.dial("192.0.2.9:8080", &lab.a1, "172.20.0.2:80"), "192.0.2.2");
    assert_eq!(lab.out.dial("192.0.2.9:9005", &lab.a1, "172.20.0.2:9005"), "192.0.2.2");
    assert_eq!(lab.out.dial("192.0.2.1:8080", &lab.a1, "172.20.0.2:80"), "");
    assert_eq!(lab.out.dial("192.0.2.1:8080", &lab.host, "0.0.0.0:8080"), "192.0.2.2", "that is the host's");
}

fn clients_on_the_same_network_are_left_to_the_proxy(backend: Backend) {
    let lab = Lab::new();
    lab.apply(&mut firewall(backend), &with_proxy(a(), &["8080>80", "9000-9009"]));
    for port in [8080, 9005] {
        let (four, six) = (format!("{UP}:{port}"), format!("{UP_V6}:{port}"));
        for client in [&lab.a1, &lab.a2] {
            assert!(client.dial(&four, &lab.host, &format!("0.0.0.0:{port}")).starts_with("172.20.0."));
            assert!(client.dial(&six, &lab.host, &format!("[::]:{port}")).starts_with("fd00:20::"));
        }
    }
    for at in ["127.0.0.1:8080", "[::1]:8080"] {
        assert!(!lab.host.dial(at, &lab.host, at).is_empty(), "{at}");
    }
    assert_eq!(lab.out.dial("192.0.2.1:8080", &lab.host, "0.0.0.0:8080"), "", "that is the container's");
}

/// A container couldn't answer them.
fn link_local_clients_are_not_translated(backend: Backend) {
    let lab = Lab::new();
    lab.host.ip("addr add fe80::77/64 dev up0 nodad");
    lab.out.ip("addr add fe80::78/64 dev eth0 nodad");
    let shown = lab.out.run("ip -o link show eth0", "");
    let at = format!("[fe80::77%{}]:8080", shown.split(':').next().expect("the interface's number"));
    for host in [HostFacts::default(), WITHOUT_PROXY()] {
        lab.apply(&mut firewall(backend), &facts(a(), of_a1(&["8080>80"]), host));
        assert!(lab.out.dial(&at, &lab.host, "[::]:8080").starts_with("fe80::"), "{host:?}");
    }
}

fn without_a_proxy_the_network_itself_and_loopback_are_translated(backend: Backend) {
    let lab = Lab::new();
    lab.host.sysctl("net/ipv4/conf/br-a/route_localnet", "1");
    let ports = of_a1(&["8080>80/tcp", "8080>80/udp"]);
    lab.apply(&mut firewall(backend), &facts(a(), ports, WITHOUT_PROXY()));
    for client in [&lab.a2, &lab.a1] {
        assert_eq!(seen(&lab, client, 8080, 80), [["172.20.0.1"; 2], ["fd00:20::1"; 2]]);
    }
    assert_eq!(lab.host.dial("127.0.0.1:8080", &lab.a1, "172.20.0.2:80"), "172.20.0.1");
    assert_eq!(lab.host.ask("127.0.0.1:8080", &lab.a1, "172.20.0.2:80"), "172.20.0.1");
    assert!(!lab.host.dial("[::1]:8080", &lab.host, "[::1]:8080").is_empty(), "::1 leads nowhere else");
    // Nobody else's address is hidden by that.
    assert_eq!(seen(&lab, &lab.out, 8080, 80), [["192.0.2.2"; 2], ["fd00:ff::2"; 2]]);
    assert_eq!(seen(&lab, &lab.host, 8080, 80), [["192.0.2.1"; 2], ["fd00:ff::1"; 2]]);
}

fn loopback_addresses_are_nobody_elses(backend: Backend) {
    let lab = Lab::new();
    // The way to the host's loopback addresses, from outside and from a container.
    for (neighbour, gateway) in [(&lab.out, UP), (&lab.a2, "172.20.0.1")] {
        neighbour.ip("addr flush dev lo");
        neighbour.ip(&format!("route add 127.0.0.0/8 via {gateway}"));
        neighbour.sysctl("net/ipv4/conf/eth0/route_localnet", "1");
    }
    for interface in ["up0", "br-a"] {
        lab.host.sysctl(&format!("net/ipv4/conf/{interface}/route_localnet"), "1");
    }
    let mut ports = EndpointPorts::clone(&of_a1(&[]));
    ports.mappings.push(mapping("127.0.0.2", "5000/udp", A1));
    let ports = Arc::new(ports);
    for neighbour in [&lab.out, &lab.a2] {
        assert!(!neighbour.ask("127.0.0.2:5000", &lab.host, "127.0.0.2:5000").is_empty());
    }
    for host in [HostFacts::default(), WITHOUT_PROXY()] {
        lab.apply(&mut firewall(backend), &facts(a(), Arc::clone(&ports), host));
        for neighbour in [&lab.out, &lab.a2] {
            assert!(!neighbour.hits("127.0.0.2:5000", &lab.a1, "172.20.0.2:5000"), "{host:?}");
            assert!(!neighbour.hits("127.0.0.2:5000", &lab.host, "127.0.0.2:5000"), "{host:?}");
        }
    }
    assert_eq!(lab.host.ask("127.0.0.2:5000", &lab.a1, "172.20.0.2:5000"), "172.20.0.1");
}

fn with_icc_off_only_published_ports_are_reached(backend: Backend) {
    if !std::path::Path::new("/proc/sys/net/bridge").exists()
        && missing("no br_netfilter in this kernel").is_none()
    {
        return;
    }
    let lab = Lab::new();
    let mut apart = a();
    apart.icc = false;
    let mut ports = EndpointPorts::clone(&of_a1(&["8080>80/tcp", "8080>80/udp"]));
    // Of one family: in the other there is no way.
    ports.mappings.retain(|mapping| mapping.host_ip.is_ipv4());
    lab.apply(&mut firewall(backend), &facts(apart, Arc::new(ports), WITHOUT_PROXY()));
    assert_eq!(lab.a2.dial("192.0.2.1:8080", &lab.a1, "172.20.0.2:80"), "172.20.0.1");
    assert_eq!(lab.a2.ask("192.0.2.1:8080", &lab.a1, "172.20.0.2:80"), "172.20.0.1");
    assert_eq!(lab.a2.dial("172.20.0.2:80", &lab.a1, "172.20.0.2:80"), "", "not directly");
    assert!(!lab.a2.hits("172.20.0.2:80", &lab.a1, "172.20.0.2:80"), "not directly");
    assert_eq!(lab.a2.dial("[fd00:ff::1]:8080", &lab.a1, "[fd00:20::2]:80"), "");
    // Somebody else's translation opens nothing that isn't published.
    lab.host.run(
        "nft -f -",
        "table ip theirs { chain c { type nat hook prerouting priority -90; udp dport 7 dnat to 172.20.0.2; }; }",
    );
    assert!(!lab.a2.hits("192.0.2.1:7", &lab.a1, "172.20.0.2:7"));
    assert_eq!(lab.out.dial("192.0.2.1:8080", &lab.a1, "172.20.0.2:80"), "192.0.2.2");
}

fn an_internal_network_reaches_no_published_port(backend: Backend) {
    let lab = Lab::new();
    let mut internal = b();
    internal.internal = true;
    for host in [HostFacts::default(), WITHOUT_PROXY()] {
        let facts =
            Facts::new([a(), internal.clone()], [(id(1), of_a1(&["8080>80/tcp", "8080>80/udp"]))], host);
        lab.apply(&mut firewall(backend), &facts.expect("networks that fit together"));
        for at in ["172.21.0.1:8080", "192.0.2.1:8080", "172.20.0.1:8080"] {
            assert_eq!(lab.b1.dial(at, &lab.a1, "172.20.0.2:80"), "", "{at} {host:?}");
            assert!(!lab.b1.hits(at, &lab.a1, "172.20.0.2:80"), "{at} {host:?}");
        }
        assert_eq!(lab.b1.dial("[fd00:21::1]:8080", &lab.a1, "[fd00:20::2]:80"), "", "{host:?}");
    }
    assert_eq!(lab.out.dial("192.0.2.1:8080", &lab.a1, "172.20.0.2:80"), "192.0.2.2");
}

/// What the neighbour gets of a1 without the host's address: the published port 80, port 81, a ping, in each family.
fn direct(lab: &Lab) -> [[bool; 3]; 2] {
    [(A1.to_owned(), A1), (format!("[{A1_V6}]"), A1_V6)].map(|(at, ip)| {
        let dial = |port: u16| {
            let at = format!("{at}:{port}");
            !lab.out.dial(&at, &lab.a1, &at).is_empty()
        };
        [dial(80), dial(81), lab.out.pings(ip)]
    })
}

fn in_mode(mode: GatewayMode) -> BridgeNetwork {
    BridgeNetwork { gateway_mode4: mode, gateway_mode6: mode, ..a() }
}

fn nat_lets_nobody_in_directly(backend: Backend) {
    let lab = Lab::new();
    assert_eq!(direct(&lab), [[true; 3]; 2]);
    lab.apply(&mut firewall(backend), &with_proxy(a(), &["8080>80"]));
    assert_eq!(direct(&lab), [[false; 3]; 2]);
    assert_eq!(lab.b1.dial("172.20.0.2:80", &lab.a1, "172.20.0.2:80"), "", "nor another network");
}

fn unprotected_lets_everything_in(backend: Backend) {
    let lab = Lab::new();
    let mut firewall = firewall(backend);
    let closed = HostFacts { foreign_v4: Foreign::Drop, foreign_v6: Foreign::Drop, ..HostFacts::default() };
    lab.apply(&mut firewall, &facts(in_mode(GatewayMode::NatUnprotected), of_a1(&["8080>80"]), closed));
    assert_eq!(direct(&lab), [[true; 3]; 2]);
    assert!(!lab.b1.dial("172.20.0.2:81", &lab.a1, "172.20.0.2:81").is_empty(), "another network too");
    assert_eq!(lab.out.dial("192.0.2.1:8080", &lab.a1, "172.20.0.2:80"), "192.0.2.2", "and published ports");
    assert_eq!(lab.a1.seen(&lab.out, "192.0.2.2"), "192.0.2.1", "what leaves has the host's address");
    // One family alone.
    let four = BridgeNetwork { gateway_mode4: GatewayMode::NatUnprotected, ..a() };
    lab.apply(&mut firewall, &facts(four, of_a1(&["8080>80"]), closed));
    assert_eq!(direct(&lab), [[true; 3], [false; 3]]);
}

fn routed_lets_open_ports_and_icmp_in(backend: Backend) {
    let lab = Lab::new();
    let mut ports = EndpointPorts::clone(&of_a1(&[]));
    for target in [A1, A1_V6] {
        let mapping = mapping("0.0.0.0", "80", target);
        ports.open.push(OpenPort { target: mapping.target, proto: mapping.proto, ports: mapping.container });
    }
    let ports = Arc::new(ports);
    let facts = facts(in_mode(GatewayMode::Routed), ports, HostFacts::default());
    lab.apply(&mut firewall(backend), &facts);
    assert_eq!(direct(&lab), [[true, false, true]; 2]);
    assert_eq!(lab.b1.dial("172.20.0.2:80", &lab.a1, "172.20.0.2:80"), "172.20.0.1", "another network too");
    assert_eq!(lab.a1.seen(&lab.out, "192.0.2.2"), A1, "what leaves keeps its address");
    assert!(!lab.a1.reaches(&lab.b1, "172.21.0.2"), "from routed into nat there is no way");
}

fn direct_routing_opens_published_ports_alone(backend: Backend) {
    let lab = Lab::new();
    let host = HostFacts { allow_direct_routing: true, ..HostFacts::default() };
    lab.apply(&mut firewall(backend), &facts(a(), of_a1(&["8080>80"]), host));
    assert_eq!(direct(&lab), [[true, false, false]; 2]);
}

fn a_trusted_interface_may_name_containers_and_a_mark_opens_any_port(backend: Backend) {
    let lab = Lab::new();
    let trusting = BridgeNetwork { trusted: vec!["up0".parse().expect("a name")], ..a() };
    let mark = |host_mark: &str| HostFacts {
        accept_mark: Some(host_mark.parse().expect("a mark")),
        ..HostFacts::default()
    };
    let mut firewall = firewall(backend);
    lab.apply(&mut firewall, &facts(trusting.clone(), of_a1(&["8080>80"]), mark("2/3")));
    assert_eq!(direct(&lab), [[true, false, false]; 2]);
    lab.host.run(
        "nft -f -",
        "table inet theirs { chain c { type filter hook prerouting priority raw; meta mark set 0xe; }; }",
    );
    assert_eq!(direct(&lab), [[true; 3]; 2]);
    assert_eq!(lab.a1.seen(&lab.out, "192.0.2.2"), "192.0.2.1", "what leaves there has the host's address");
    lab.apply(&mut firewall, &facts(trusting.clone(), of_a1(&["8080>80"]), mark("1/3")));
    assert_eq!(direct(&lab), [[true, false, false]; 2], "another mark");
    // Nothing opens an internal network.
    let internal = BridgeNetwork { internal: true, ..trusting };
    lab.apply(&mut firewall, &facts(internal, of_a1(&["8080>80"]), mark("2/3")));
    assert_eq!(direct(&lab), [[false; 3]; 2]);
    assert_eq!(lab.out.dial("192.0.2.1:8080", &lab.a1, "172.20.0.2:80"), "");
}

fn a_chosen_source_address_is_used(backend: Backend) {
    let lab = Lab::new();
    lab.host.ip("addr add 192.0.2.9/24 dev up0");
    lab.host.ip("addr add fd00:ff::9/64 dev up0 nodad");
    let chosen = BridgeNetwork {
        source4: Some("192.0.2.9".parse().expect("an address")),
        source6: Some("fd00:ff::9".parse().expect("an address")),
        ..a()
    };
    lab.apply(&mut firewall(backend), &with_proxy(chosen, &[]));
    assert_eq!(lab.a1.seen(&lab.out, "192.0.2.2"), "192.0.2.9");
    assert_eq!(lab.a1.seen(&lab.out, "fd00:ff::2"), "fd00:ff::9");
    assert_eq!(lab.b1.seen(&lab.out, "192.0.2.2"), "192.0.2.1", "another network's is its own");
    assert_eq!(lab.a1.seen(&lab.a2, "172.20.0.3"), A1, "what stays keeps its address");
}

fn a_withdrawn_port_leads_nowhere(backend: Backend) {
    let lab = Lab::new();
    let mut firewall = firewall(backend);
    let published = with_proxy(a(), &["8080>80", "9000-9009", "7000-7009>8000-8009"]);
    lab.apply(&mut firewall, &published);
    let leads = || {
        [(8080, 80), (9005, 9005), (7005, 8005)].map(|(port, container)| {
            both(port, container).map(|(at, to)| !lab.out.dial(&at, &lab.a1, &to).is_empty())
        })
    };
    assert_eq!(leads(), [[true; 2]; 3]);
    lab.apply(&mut firewall, &published.with_ports([(id(1), Some(of_a1(&["9000-9009"])))]));
    assert_eq!(leads(), [[false; 2], [true; 2], [false; 2]]);
    lab.apply(&mut firewall, &published.with_ports([(id(1), None)]));
    assert_eq!(leads(), [[false; 2]; 3]);
    assert_eq!(lab.out.dial("192.0.2.1:8080", &lab.host, "0.0.0.0:8080"), "192.0.2.2", "the host's again");
}

/// Each differs from the one before in another way.
fn history() -> Vec<Facts> {
    let start = with_proxy(a(), &["8080>80", "8000-8009>80-89", "9000-9099", "53/udp"]);
    let wider = of_a1(&["8080>81", "8000-8009>70-79", "9000-9199", "53/udp", "53>54/tcp"]);
    let more = start.with_ports([(id(1), Some(wider))]);
    let moved = Arc::new(EndpointPorts {
        bridge: "br-b".parse().expect("a name"),
        mappings: vec![mapping("0.0.0.0", "8080>80", "172.21.0.2")],
        open: Vec::new(),
    });
    let two = more.with_ports([(id(1), None), (id(2), Some(moved))]);
    let again = |network_a: BridgeNetwork, host: HostFacts| {
        let ports = two.ports().map(|(id, ports)| (id, Arc::clone(ports)));
        let networks = [network_a, BridgeNetwork { internal: true, ..b() }];
        Facts::new(networks, ports, host).expect("networks that fit together")
    };
    let direct = HostFacts { allow_direct_routing: true, ..WITHOUT_PROXY() };
    let mut all = vec![start.clone(), more, two.clone(), again(a(), HostFacts::default()), two.clone()];
    all.extend([again(in_mode(GatewayMode::Routed), direct), start.with_ports([(id(1), None)]), start]);
    all
}

/// The rules, those of ports in an order of their own: there it means nothing.
fn settled(host: &Host, backend: Backend) -> Vec<String> {
    let mut lines: Vec<String> = host.rules(backend).lines().map(str::to_owned).collect();
    let of_ports = |line: &str| ["-A PORTMAP-DNAT", "-A PORTMAP-OPEN"].iter().any(|c| line.starts_with(c));
    for run in lines.chunk_by_mut(|one, other| of_ports(one) && of_ports(other)) {
        run.sort_unstable();
    }
    lines
}

fn changes_end_where_a_fresh_start_does(backend: Backend) {
    let (old, mut changing) = (Host::new(), firewall(backend));
    let mut before = Facts::default();
    for facts in history() {
        old.enter(|| changing.apply(&facts)).expect("the rules load");
        let fresh = Host::new();
        fresh.enter(|| firewall(backend).apply(&facts)).expect("the rules load");
        assert_eq!(settled(&old, backend), settled(&fresh, backend), "{before:?} → {facts:?}");
        if backend == Backend::Nftables {
            // And without the way out that `apply` has when a change doesn't fit.
            let steps = Host::new();
            steps.run("nft -f -", &nftables::replace(&before));
            steps.run("nft -f -", &nftables::change(&before, &facts));
            assert_eq!(settled(&steps, backend), settled(&fresh, backend), "{before:?} → {facts:?}");
        }
        before = facts;
    }
}

fn a_change_beside_other_ports_is_one_transaction_that_loads(backend: Backend) {
    let host = Host::new();
    let ports: Vec<String> = (1..=500).map(|port| format!("{port}>80")).collect();
    let many: Vec<&str> = ports.iter().map(String::as_str).collect();
    let before = with_proxy(a(), &many);
    let mut firewall = firewall(backend);
    host.enter(|| firewall.apply(&before)).expect("the rules load");
    let after = before.with_ports([(id(2), Some(of_a1(&["8080>90", "9000-9009"])))]);
    host.enter(|| firewall.apply(&after)).expect("the change loads");
    let fresh = Host::new();
    fresh.enter(|| self::firewall(backend).apply(&after)).expect("the rules load");
    assert_eq!(settled(&host, backend), settled(&fresh, backend));
    if backend == Backend::Iptables {
        // Without the way out that `apply` has when a change doesn't fit.
        let steps = Host::new();
        steps.enter(|| self::firewall(backend).apply(&before)).expect("the rules load");
        for (program, family) in [("iptables-restore", Family::V4), ("ip6tables-restore", Family::V6)] {
            let change = iptables::change(&before, &after, family);
            steps.run(&format!("{program} --noflush"), &change);
        }
        assert_eq!(settled(&steps, backend), settled(&fresh, backend));
    }
    host.enter(|| firewall.apply(&before)).expect("the change loads");
    let fresh = Host::new();
    fresh.enter(|| self::firewall(backend).apply(&before)).expect("the rules load");
    assert_eq!(settled(&host, backend), settled(&fresh, backend));
}
