//! Sandboxes' own addresses are out of reach unless somebody opens them: what opens them, and how far.

use std::net::{IpAddr, SocketAddr};

use super::lab::{Lab, NFTABLES};
use super::witness::{
    PROTOS, Place, Proto, Witness, by_each, create, idle, side_by_side, with_both, with_each, witnessed,
};

/// A server's addresses, with the port that its witness is at.
fn addresses(lab: &Lab, server: &str, network: &str) -> [SocketAddr; 2] {
    [lab.v4(server, network), lab.v6(server, network)]
}

const fn on(mut at: SocketAddr, port: u16) -> SocketAddr {
    at.set_port(port);
    at
}

/// The neighbour reaches the published port of a server at its own address, and nothing else of it.
fn published_alone(lab: &Lab, server: [SocketAddr; 2]) {
    for (to, me) in server.into_iter().zip(["192.0.2.2", "fd00:ff::2"]) {
        for proto in PROTOS {
            assert_eq!(lab.neighbour.ask(proto, to).to_string(), me, "{to}/{proto}");
        }
    }
    out_of_reach(lab, server.map(|to| on(to, 81)));
}

/// The neighbour reaches neither these nor, by a ping, who has them.
fn out_of_reach(lab: &Lab, servers: impl IntoIterator<Item = SocketAddr>) {
    let asked = |to: SocketAddr| [(to, Some(Proto::Tcp)), (to, Some(Proto::Udp)), (to, None)];
    side_by_side(servers.into_iter().flat_map(asked), |(to, proto)| match proto {
        Some(proto) => assert!(lab.neighbour.is_cut_off(proto, to), "{to}/{proto}"),
        None => assert!(!lab.neighbour.pings(to.ip(), 1), "{to}"),
    });
}

#[test]
fn a_trusted_interface_leads_to_published_ports() {
    with_both(&[], |lab| {
        create(lab, "one", 1, &["-o", "com.docker.network.bridge.trusted_host_interfaces=nowhere:out"]);
        create(lab, "two", 2, &["-o", "com.docker.network.bridge.trusted_host_interfaces=lo"]);
        let _one = witnessed(lab, "first", "8001", &["--net", "one"]);
        let _two = witnessed(lab, "second", "8002", &["--net", "two"]);
        published_alone(lab, addresses(lab, "first", "one"));
        out_of_reach(lab, addresses(lab, "second", "two"));
        // Not from another network, which is no such interface.
        idle(lab, "stranger", &["--net", "two"]);
        assert!(lab.sandbox("stranger").is_cut_off(Proto::Tcp, lab.v4("first", "one")));
    });
}

#[test]
fn direct_routing_is_allowed_to_published_ports() {
    with_both(&["--allow-direct-routing"], |lab| {
        create(lab, "one", 1, &[]);
        let _witnesses = witnessed(lab, "server", "8001", &["--net", "one"]);
        published_alone(lab, addresses(lab, "server", "one"));
    });
}

#[test]
fn a_mark_opens_what_the_interface_may_reach() {
    with_both(&["--bridge-accept-fwmark=2/3"], |lab| {
        let trusted = ["-o", "com.docker.network.bridge.trusted_host_interfaces=out"];
        create(lab, "one", 1, &trusted);
        create(lab, "two", 2, &[]);
        create(lab, "inside", 3, &["--internal", "-o", trusted[1]]);
        let servers = ["one", "two", "inside"].map(|network| {
            let name = format!("on-{network}");
            idle(lab, &name, &["--net", network]);
            (Witness::at(&lab.sandbox(&name), 80), addresses(lab, &name, network))
        });
        out_of_reach(lab, servers.iter().flat_map(|(_, server)| *server));
        let marks = "table inet marks { chain pre { type filter hook prerouting priority raw; iifname \"out\" meta mark set 0xe; }; }";
        lab.host.run("nft", &[marks]);
        for to in servers[0].1 {
            for proto in PROTOS {
                lab.neighbour.ask(proto, to);
            }
            assert!(lab.neighbour.pings(to.ip(), 10), "{to}");
        }
        // A mark makes no interface a trusted one, and nobody opens an internal network.
        out_of_reach(lab, servers[1..].iter().flat_map(|(_, server)| *server));
    });
}

#[test]
fn a_source_address_of_the_networks_own_is_no_key() {
    with_both(&[], |lab| {
        create(lab, "one", 1, &[]);
        let [witness, other] =
            witnessed(lab, "server", "8001", &["--net", "one", "--ip", "10.1.0.5", "--ip6", "fd00:1::5"]);
        // A sandbox's, and the host's on the network.
        for (server, sources) in
            [("10.1.0.5", ["10.1.0.77", "10.1.0.1"]), ("fd00:1::5", ["fd00:1::77", "fd00:1::1"])]
        {
            let server: IpAddr = server.parse().unwrap();
            let (length, nodad) = if server.is_ipv4() { (32, "") } else { (128, "nodad") };
            for source in sources {
                lab.neighbour.ip(&format!("address add {source}/{length} dev in {nodad}"));
                for port in [80, 81] {
                    lab.neighbour.send(Some(source.parse().unwrap()), (server, port).into());
                }
            }
            lab.host.ask(Proto::Udp, (server, 80).into());
            lab.host.ask(Proto::Udp, (server, 81).into());
        }
        assert_eq!((witness.sent(), other.sent()), (0, 0));
    });
}

#[test]
fn datagrams_to_a_sandbox_arrive_only_where_routing_is_allowed() {
    let routed = ["-o", "com.docker.network.bridge.gateway_mode_ipv4=routed"];
    for (flags, options, arrive) in
        [(&["--allow-direct-routing"][..], &[][..], 10), (&[], &routed, 10), (&[], &[], 0)]
    {
        with_both(flags, |lab| {
            create(lab, "one", 1, options);
            let [witness, _] = witnessed(lab, "server", "8001", &["--net", "one"]);
            let to = lab.v4("server", "one");
            lab.neighbour.send(None, to);
            lab.host.ask(Proto::Udp, to);
            assert_eq!(witness.sent(), arrive, "{flags:?} {options:?}");
        });
    }
}

#[test]
fn without_icc_peers_meet_at_the_hosts_ports_alone() {
    with_each(&[&["--userland-proxy=true"], &["--userland-proxy=false"]], |lab| {
        create(lab, "quiet", 1, &["-o", "com.docker.network.bridge.enable_icc=false"]);
        let _witnesses = witnessed(lab, "server", "8001", &["--net", "quiet"]);
        idle(lab, "client", &["--net", "quiet"]);
        let client = lab.sandbox("client");
        side_by_side(by_each(addresses(lab, "server", "quiet")), |(server, proto)| {
            assert!(client.is_cut_off(proto, server), "{server}/{proto}");
        });
        for (host, gateway) in [("192.0.2.1:8001", "10.1.0.1"), ("[fd00:ff::1]:8001", "fd00:1::1")] {
            for proto in PROTOS {
                assert_eq!(client.ask(proto, host.parse().unwrap()).to_string(), gateway, "{host}/{proto}");
            }
        }
    });
}

#[test]
fn without_rules_every_port_is_open_to_who_knows_the_way() {
    // What the other tests take for an attack works where nothing is to stop it: they would notice.
    let Some(lab) = Lab::new(&["--firewall-backend", NFTABLES, "--iptables=false"]) else { return };
    create(&lab, "one", 1, &[]);
    let _witnesses = witnessed(&lab, "server", "8001", &["--net", "one"]);
    lab.host.sysctl("net/ipv4/ip_forward", "1");
    lab.host.sysctl("net/ipv6/conf/all/forwarding", "1");
    for to in addresses(&lab, "server", "one") {
        for proto in PROTOS {
            lab.neighbour.ask(proto, to);
            lab.neighbour.ask(proto, on(to, 81));
        }
        assert!(lab.neighbour.pings(to.ip(), 10));
    }
}
