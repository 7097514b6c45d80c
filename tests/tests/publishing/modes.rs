//! What the gateway mode of a network opens, and to whom: one table for all of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use e2e::lab::Host;
use e2e::wait::PATIENCE;

use super::lab::{IPTABLES, Lab, NFTABLES, Sandbox};
use super::witness::{
    LOST, PROTOS, Place, Proto, Witness, by_each, create, idle, side_by_side, with_both, witnessed,
};

/// Where a client is. Remote hosts and other networks have a route to every sandbox's address.
#[derive(Clone, Copy, Debug)]
enum From {
    Remote,
    OtherNetwork,
    /// On another network, which is routed.
    OtherRouted,
    SameNetwork,
    Host,
}

/// What it tries to reach.
#[derive(Clone, Copy, Debug)]
enum What {
    /// The port of the host's that is published.
    HostPort,
    /// The same port of the host's address on the client's own network.
    OwnGateway,
    /// The sandbox's own address and the port in it that is published.
    Published,
    /// Another port of the sandbox's.
    Unpublished,
    /// The sandbox, by a ping.
    Ping,
}

/// The order of columns in the table: names of networks, their flags, the port that is published.
const MODES: [(&str, &[&str], &str); 4] = [
    ("nat", &[], "8001"),
    ("nat-unprotected", &[], "8002"),
    ("routed", &[], "8003"),
    ("internal", &["--internal"], "8004"),
];

/// Over both families, by TCP and UDP, with each backend, whatever becomes of forwarded packets by default.
#[rustfmt::skip]
const TABLE: &[(From, What, [bool; 4])] = &[
    //                                        nat    unprotected  routed  internal
    (From::Remote,       What::HostPort,    [true,  true,        false,  false]),
    (From::Remote,       What::Published,   [false, true,        true,   false]),
    (From::Remote,       What::Unpublished, [false, true,        false,  false]),
    (From::Remote,       What::Ping,        [false, true,        true,   false]),
    (From::OtherNetwork, What::HostPort,    [true,  true,        false,  false]),
    (From::OtherNetwork, What::OwnGateway,  [true,  true,        false,  false]),
    (From::OtherNetwork, What::Published,   [false, true,        true,   false]),
    (From::OtherNetwork, What::Unpublished, [false, true,        false,  false]),
    (From::OtherNetwork, What::Ping,        [false, true,        true,   false]),
    (From::OtherRouted,  What::HostPort,    [true,  true,        false,  false]),
    (From::OtherRouted,  What::OwnGateway,  [true,  true,        false,  false]),
    (From::OtherRouted,  What::Published,   [false, true,        true,   false]),
    (From::OtherRouted,  What::Unpublished, [false, true,        false,  false]),
    (From::OtherRouted,  What::Ping,        [false, true,        true,   false]),
    (From::SameNetwork,  What::HostPort,    [true,  true,        false,  false]),
    (From::SameNetwork,  What::Published,   [true,  true,        true,   true ]),
    (From::SameNetwork,  What::Unpublished, [true,  true,        true,   true ]),
    (From::Host,         What::HostPort,    [true,  true,        false,  false]),
    (From::Host,         What::Published,   [true,  true,        true,   true ]),
    (From::Host,         What::Unpublished, [true,  true,        true,   true ]),
    (From::Host,         What::Ping,        [true,  true,        true,   true ]),
];

/// A network of one mode: a server on it, and a neighbour of the server's.
#[derive(Debug)]
struct Network {
    mode: usize,
    addresses: [IpAddr; 2],
    neighbour: Sandbox,
    _witnesses: [Witness; 2],
}

impl Network {
    fn new(lab: &Lab, mode: usize) -> Self {
        let (name, flags, port) = MODES[mode];
        let number = u8::try_from(mode).unwrap() + 1;
        let options = options(name);
        let options = ["-o", &options[0], "-o", &options[1]];
        let is_mode = flags.is_empty();
        create(lab, name, number, if is_mode { &options } else { flags });
        let (server, neighbour) = (format!("server-{mode}"), format!("neighbour-{mode}"));
        let witnesses = witnessed(lab, &server, port, &["--net", name]);
        idle(lab, &neighbour, &["--net", name]);
        let addresses = [lab.v4(&server, name).ip(), lab.v6(&server, name).ip()];
        Self { mode, addresses, neighbour: lab.sandbox(&neighbour), _witnesses: witnesses }
    }

    /// Whether a client there gets an answer; who is to get one may wait for it longer.
    fn answers(
        &self,
        client: &impl Place,
        gateway: &str,
        what: What,
        (family, proto): (usize, Proto),
        hoped: bool,
    ) -> bool {
        let server = self.addresses[family];
        let published: u16 = MODES[self.mode].2.parse().unwrap();
        let to = match what {
            What::HostPort => SocketAddr::new(HOST[family].parse().unwrap(), published),
            What::OwnGateway => SocketAddr::new(gateway.parse().unwrap(), published),
            What::Published => SocketAddr::new(server, 80),
            What::Unpublished => SocketAddr::new(server, 81),
            What::Ping => return client.pings(server, if hoped { 10 } else { 1 }),
        };
        client.ask_for(if hoped { PATIENCE } else { LOST }, proto, to).is_some()
    }
}

/// The host's addresses on its cable.
const HOST: [&str; 2] = ["192.0.2.1", "fd00:ff::1"];

/// What makes a network one of this mode.
fn options(mode: &str) -> [String; 2] {
    ["ipv4", "ipv6"].map(|family| format!("com.docker.network.bridge.gateway_mode_{family}={mode}"))
}

fn check(flags: &[&str], prepare: impl FnOnce(&Host)) {
    let Some(lab) = Lab::prepared(flags, prepare) else { return };
    let networks = [0, 1, 2, 3].map(|mode| Network::new(&lab, mode));
    let strangers = [("nat", "stranger", 9), ("routed", "routed-stranger", 8)].map(|(mode, name, number)| {
        let options = options(mode);
        create(&lab, name, number, &["-o", &options[0], "-o", &options[1]]);
        idle(&lab, name, &["--net", name]);
        (lab.sandbox(name), [format!("10.{number}.0.1"), format!("fd00:{number}::1")])
    });
    let ask = |from: From, what: What, network: &Network, family: usize, proto: Proto, hoped: bool| match from
    {
        From::Remote => network.answers(&lab.neighbour, HOST[family], what, (family, proto), hoped),
        From::OtherNetwork => {
            network.answers(&strangers[0].0, &strangers[0].1[family], what, (family, proto), hoped)
        }
        From::OtherRouted => {
            network.answers(&strangers[1].0, &strangers[1].1[family], what, (family, proto), hoped)
        }
        From::SameNetwork => network.answers(&network.neighbour, HOST[family], what, (family, proto), hoped),
        From::Host => network.answers(&lab.host, HOST[family], what, (family, proto), hoped),
    };
    // A ping is the same by either protocol, which does no harm.
    let cells = TABLE.iter().flat_map(|(from, what, answers)| {
        let networks = networks.iter().zip(*answers);
        networks.flat_map(move |(network, hoped)| {
            by_each([0, 1]).into_iter().map(move |by| (*from, *what, network, by, hoped))
        })
    });
    let wrong = Mutex::new(Vec::new());
    side_by_side(cells, |(from, what, network, (family, proto), hoped)| {
        if ask(from, what, network, family, proto, hoped) != hoped {
            let (mode, family) = (MODES[network.mode].0, [4, 6][family]);
            let words = format!("{mode} v{family} {proto}: {what:?} from {from:?}: not {hoped}");
            wrong.lock().unwrap().push(words);
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{flags:?}:\n{}", wrong.join("\n"));
}

/// The administrator forwards everything.
fn forwards(host: &Host) {
    host.sysctl("net/ipv4/ip_forward", "1");
    host.sysctl("net/ipv6/conf/all/forwarding", "1");
    host.sysctl("net/ipv6/conf/default/forwarding", "1");
}

/// The administrator forwards nothing but what rules allow.
fn drops(host: &Host) {
    forwards(host);
    for program in ["iptables", "ip6tables"] {
        host.run(program, &["-P", "FORWARD", "DROP"]);
    }
}

#[test]
fn by_nftables_and_proxies_where_all_is_forwarded() {
    check(&["--firewall-backend", NFTABLES], forwards);
}

#[test]
fn by_nftables_alone_where_nothing_is_forwarded_but_for_us() {
    check(&["--firewall-backend", NFTABLES, "--userland-proxy=false"], |_| ());
}

#[test]
fn by_iptables_alone_where_all_is_forwarded() {
    check(&["--firewall-backend", IPTABLES, "--userland-proxy=false"], forwards);
}

#[test]
fn by_iptables_and_proxies_where_forwarded_packets_are_dropped() {
    check(&["--firewall-backend", IPTABLES], drops);
}

#[test]
fn a_drop_rule_of_the_administrators_comes_after_ours() {
    let reject = |host: &Host| {
        for program in ["iptables", "ip6tables"] {
            host.run(program, &["-A", "FORWARD", "-j", "DROP"]);
        }
    };
    let flags = ["--firewall-backend", IPTABLES, "--userland-proxy=false"];
    let Some(lab) = Lab::prepared(&flags, reject) else { return };
    create(&lab, "one", 1, &[]);
    let _witnesses = witnessed(&lab, "server", "8080", &["--net", "one"]);
    idle(&lab, "client", &["--net", "one"]);
    for to in ["192.0.2.1:8080", "[fd00:ff::1]:8080"] {
        for proto in PROTOS {
            lab.sandbox("client").ask(proto, to.parse().unwrap());
        }
    }
}

#[test]
fn what_the_administrator_drops_first_stays_dropped() {
    with_both(&[], |lab| {
        let _witnesses = witnessed(lab, "server", "8080", &[]);
        let (to, loopback) = ("192.0.2.1:8080".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
        for proto in PROTOS {
            lab.neighbour.ask(proto, to);
        }
        if lab.host.run("nft", &["list", "tables"]).contains("inet portmap") {
            let rules = "table inet mine { chain f { type filter hook forward priority -10; iifname \"out\" th dport 80 drop; }; }";
            lab.host.run("nft", &[rules]);
        } else {
            for proto in ["tcp", "udp"] {
                lab.host.run(
                    "iptables",
                    &["-A", "PORTMAP-USER", "-i", "out", "-p", proto, "--dport", "80", "-j", "DROP"],
                );
            }
        }
        // Whoever adds networks and ports doesn't touch it.
        lab.ok(&["network", "create", "another"]);
        lab.ok(&["publish", "server", "-p", "8081:81"]);
        for proto in PROTOS {
            assert!(lab.neighbour.is_cut_off(proto, to));
            lab.host.ask(proto, loopback);
        }
        lab.neighbour.ask(Proto::Tcp, "192.0.2.1:8081".parse().unwrap());
    });
}

#[test]
fn ports_on_an_internal_network_wait_for_a_way_out() {
    with_both(&[], |lab| {
        lab.ok(&["network", "create", "--internal", "--subnet", "10.10.0.0/24", "inside"]);
        let _witnesses = witnessed(lab, "server", "8080", &["--net", "inside"]);
        let to = "192.0.2.1:8080".parse().unwrap();
        let loopback = "127.0.0.1:8080".parse().unwrap();
        side_by_side(PROTOS, |proto| {
            assert!(lab.host.is_cut_off(proto, loopback) && lab.neighbour.is_cut_off(proto, to));
        });
        assert_eq!(lab.ok(&["port", "server"]), "");
        lab.ok(&["network", "connect", "bridge", "server"]);
        for proto in PROTOS {
            lab.host.ask(proto, loopback);
            assert_eq!(lab.neighbour.ask(proto, to).to_string(), "192.0.2.2");
        }
    });
}

#[test]
fn an_internal_network_has_no_way_out_by_other_networks_ports() {
    with_both(&[], |lab| {
        create(lab, "inside", 1, &["--internal"]);
        create(lab, "other", 2, &[]);
        let [witness, _other] = witnessed(lab, "server", "8080", &["--net", "other"]);
        idle(lab, "client", &["--net", "inside"]);
        let client = lab.sandbox("client");
        let ways = [("10.1.0.1", "192.0.2.1"), ("fd00:1::1", "fd00:ff::1")];
        let ways = ways.map(|(gateway, host)| [gateway, host].map(|a| a.parse::<IpAddr>().unwrap()));
        for [gateway, host] in ways {
            lab.neighbour.ask(Proto::Tcp, (host, 8080).into());
            assert!(client.pings(gateway, 10), "{gateway}");
            client.ip(&format!("route add default via {gateway}"));
        }
        side_by_side(by_each(ways.into_iter().flatten()), |(to, proto)| {
            assert!(client.is_cut_off(proto, (to, 8080).into()), "{to}/{proto}");
        });
        // Nor is there a way that only answers don't find back.
        for [gateway, host] in ways {
            client.send(None, (gateway, 8080).into());
            client.send(None, (host, 8080).into());
            lab.neighbour.ask(Proto::Udp, (host, 8080).into());
        }
        assert_eq!(witness.sent(), 0);
    });
}

#[test]
fn on_a_nat_and_a_routed_network_each_address_is_what_its_network_is() {
    with_both(&[], |lab| {
        let routed = options("routed");
        create(lab, "nat", 1, &[]);
        create(lab, "routed", 2, &["-o", &routed[0], "-o", &routed[1]]);
        let _witnesses =
            witnessed(lab, "server", "8080", &["--net", "name=nat,gw-priority=1", "--net", "routed"]);
        for host in ["192.0.2.1:8080", "[fd00:ff::1]:8080"] {
            lab.neighbour.ask(Proto::Tcp, host.parse().unwrap());
        }
        // By TCP: the server's datagrams would leave by its gateway, and under its address there.
        for to in [lab.v4("server", "routed"), lab.v6("server", "routed")] {
            lab.neighbour.ask(Proto::Tcp, to);
        }
        side_by_side(by_each([lab.v4("server", "nat"), lab.v6("server", "nat")]), |(to, proto)| {
            assert!(lab.neighbour.is_cut_off(proto, to), "{to}/{proto}");
        });
    });
}
