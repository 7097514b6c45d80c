//! Who reaches a published port from where, by what, and under which address the server in the sandbox sees it: every
//! combination, against one table.
//!
//! A host with a daemon serves all cells of its kind: three networks with a server and a neighbour each, two other
//! networks, and a remote host. Cells are asked side by side: many wait for an answer that doesn't come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;

use e2e::lab::Host;
use e2e::need;
use e2e::wait::PATIENCE;

use super::lab::{IPTABLES, Lab, NFTABLES, Sandbox};
use super::witness::{LOST, PROTOS, Place, Proto, Witness, idle};

use Answer::{Client, Gateway, Nobody};
use Families::{Dual, V4, V6};
use Family::{Four, Six};

/// What a network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Families {
    V4,
    V6,
    Dual,
}

/// What a client dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Four,
    Six,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// On the host, dialling 127.0.0.1 or [::1]. All others dial the host's address on its cable.
    Loopback,
    Host,
    SameNetwork,
    /// Whatever leaves this one does so under the host's address, as in Docker.
    OtherNetwork,
    /// This one doesn't masquerade.
    OpenNetwork,
    Remote,
    TheSandboxItself,
}

/// The order of columns in the table.
const COLUMNS: [From; 7] = [
    From::Loopback,
    From::Host,
    From::SameNetwork,
    From::OtherNetwork,
    From::OpenNetwork,
    From::Remote,
    From::TheSandboxItself,
];

/// Whom the server sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The client's own address.
    Client,
    /// The host's address on the server's network, because a proxy asks or because it must be masqueraded.
    Gateway,
    /// It sees nobody.
    Nobody,
}

/// How ports are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Rules, and a proxy for what they can't do.
    RulesAndProxy,
    /// `--userland-proxy=false`.
    Rules,
    /// `--iptables=false`.
    Proxy,
}

type Row = (Families, Family, [Answer; 7]);

/// What is expected, by TCP as by UDP and with nftables as with iptables.
#[rustfmt::skip]
const fn table(way: Way) -> [Row; 6] {
    match way {
        Way::RulesAndProxy => [
            //            loopback host     same net other n. open n.  remote   itself
            (V4,   Four, [Gateway, Client,  Gateway, Gateway, Client,  Client,  Gateway]),
            // Nobody on a network without IPv6 can dial it; for all others the proxy translates.
            (V4,   Six,  [Gateway, Gateway, Nobody,  Gateway, Gateway, Gateway, Nobody ]),
            // Nothing leads from IPv4 to IPv6.
            (V6,   Four, [Nobody,  Nobody,  Nobody,  Nobody,  Nobody,  Nobody,  Nobody ]),
            (V6,   Six,  [Gateway, Client,  Gateway, Gateway, Client,  Client,  Gateway]),
            (Dual, Four, [Gateway, Client,  Gateway, Gateway, Client,  Client,  Gateway]),
            (Dual, Six,  [Gateway, Client,  Gateway, Gateway, Client,  Client,  Gateway]),
        ],
        Way::Rules => [
            (V4,   Four, [Gateway, Client,  Gateway, Gateway, Client,  Client,  Gateway]),
            // Rules don't translate from IPv6 to IPv4.
            (V4,   Six,  [Nobody,  Nobody,  Nobody,  Nobody,  Nobody,  Nobody,  Nobody ]),
            (V6,   Four, [Nobody,  Nobody,  Nobody,  Nobody,  Nobody,  Nobody,  Nobody ]),
            // The kernel routes nothing from [::1] elsewhere.
            (V6,   Six,  [Nobody,  Client,  Gateway, Gateway, Client,  Client,  Gateway]),
            (Dual, Four, [Gateway, Client,  Gateway, Gateway, Client,  Client,  Gateway]),
            (Dual, Six,  [Nobody,  Client,  Gateway, Gateway, Client,  Client,  Gateway]),
        ],
        Way::Proxy => [
            (V4,   Four, [Gateway, Gateway, Gateway, Gateway, Gateway, Gateway, Gateway]),
            (V4,   Six,  [Gateway, Gateway, Nobody,  Gateway, Gateway, Gateway, Nobody ]),
            (V6,   Four, [Nobody,  Nobody,  Nobody,  Nobody,  Nobody,  Nobody,  Nobody ]),
            (V6,   Six,  [Gateway, Gateway, Gateway, Gateway, Gateway, Gateway, Gateway]),
            (Dual, Four, [Gateway, Gateway, Gateway, Gateway, Gateway, Gateway, Gateway]),
            (Dual, Six,  [Gateway, Gateway, Gateway, Gateway, Gateway, Gateway, Gateway]),
        ],
    }
}

/// A network with a server and a neighbour of the server's.
struct Network {
    families: Families,
    port: u16,
    server: Sandbox,
    neighbour: Sandbox,
    _witness: Witness,
}

impl Families {
    const fn name(self) -> &'static str {
        match self {
            V4 => "v4",
            V6 => "v6",
            Dual => "dual",
        }
    }

    /// Flags of `network create`, and the port that is published.
    const fn plan(self) -> (&'static [&'static str], u16) {
        match self {
            V4 => (&["--subnet", "10.4.0.0/24"], 8004),
            V6 => (&["--ipv4=false", "--ipv6", "--subnet", "fd00:6::/64"], 8006),
            Dual => (&["--ipv6", "--subnet", "10.46.0.0/24", "--subnet", "fd00:46::/64"], 8046),
        }
    }

    /// The host's address on the network, of the family by which what was dialled comes to the server.
    fn gateway(self, dialled: Family) -> IpAddr {
        let address = match (self, dialled) {
            (V4, _) => "10.4.0.1",
            (V6, _) => "fd00:6::1",
            (Dual, Four) => "10.46.0.1",
            (Dual, Six) => "fd00:46::1",
        };
        address.parse().unwrap()
    }
}

impl Network {
    fn new(lab: &Lab, families: Families) -> Self {
        let (name, (flags, port)) = (families.name(), families.plan());
        let (server, neighbour) = (format!("server-{name}"), format!("neighbour-{name}"));
        lab.ok(&[&["network", "create"], flags, &[name]].concat());
        let (tcp, udp) = (format!("{port}:80"), format!("{port}:80/udp"));
        idle(lab, &server, &["--net", name, "-p", &tcp, "-p", &udp]);
        idle(lab, &neighbour, &["--net", name]);
        let (server, neighbour) = (lab.sandbox(&server), lab.sandbox(&neighbour));
        let witness = Witness::at(&server, 80);
        Self { families, port, server, neighbour, _witness: witness }
    }
}

/// Sandboxes on other networks.
struct Strangers {
    masqueraded: Sandbox,
    open: Sandbox,
}

/// The addresses of the one whose network doesn't masquerade.
const OPEN: [&str; 2] = ["10.8.0.9", "fd00:8::9"];

impl Strangers {
    fn new(lab: &Lab) -> Self {
        let create = |name, subnets: [&str; 2], option: &str| {
            let subnets = ["--subnet", subnets[0], "--subnet", subnets[1]];
            lab.ok(&[&["network", "create", "--ipv6", "-o", option], &subnets[..], &[name]].concat());
        };
        let masquerade = |on: bool| format!("com.docker.network.bridge.enable_ip_masquerade={on}");
        create("other", ["10.9.0.0/24", "fd00:9::/64"], &masquerade(true));
        create("open", ["10.8.0.0/24", "fd00:8::/64"], &masquerade(false));
        idle(lab, "masqueraded", &["--net", "other"]);
        idle(lab, "open", &["--net", "open", "--ip", OPEN[0], "--ip6", OPEN[1]]);
        Self { masqueraded: lab.sandbox("masqueraded"), open: lab.sandbox("open") }
    }
}

/// One combination: what was asked, what was to be seen and what was.
struct Cell {
    words: String,
    want: Option<IpAddr>,
    got: Option<IpAddr>,
}

fn check(way: Way, backend: &str) {
    let flag = match way {
        Way::RulesAndProxy => "--userland-proxy=true",
        Way::Rules => "--userland-proxy=false",
        Way::Proxy => "--iptables=false",
    };
    check_by(&PROTOS, way, &["--firewall-backend", backend, flag]);
}

fn check_by(protos: &[Proto], way: Way, flags: &[&str]) {
    let Some(lab) = Lab::new(flags) else { return };
    let networks = [V4, V6, Dual].map(|families| Network::new(&lab, families));
    let strangers = Strangers::new(&lab);

    let cells = thread::scope(|scope| {
        let mut asked = Vec::new();
        for (families, dialled, answers) in table(way) {
            let network = networks.iter().find(|network| network.families == families).unwrap();
            for (from, answer) in COLUMNS.into_iter().zip(answers) {
                for proto in protos.iter().copied() {
                    let (lab, strangers) = (&lab, &strangers);
                    asked.push(
                        scope.spawn(move || ask(lab, network, strangers, (dialled, from, proto), answer)),
                    );
                }
            }
        }
        asked.into_iter().map(|cell| cell.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(cells.len(), 6 * COLUMNS.len() * protos.len());
    let wrong = cells.iter().filter(|cell| cell.got != cell.want);
    let wrong: Vec<String> =
        wrong.map(|cell| format!("{}: want {:?}, got {:?}", cell.words, cell.want, cell.got)).collect();
    assert!(wrong.is_empty(), "{flags:?}:\n{}", wrong.join("\n"));
}

fn ask(
    lab: &Lab,
    network: &Network,
    strangers: &Strangers,
    (dialled, from, proto): (Family, From, Proto),
    answer: Answer,
) -> Cell {
    let host: IpAddr = match (from, dialled) {
        (From::Loopback, Four) => Ipv4Addr::LOCALHOST.into(),
        (From::Loopback, Six) => Ipv6Addr::LOCALHOST.into(),
        (_, Four) => "192.0.2.1".parse().unwrap(),
        (_, Six) => "fd00:ff::1".parse().unwrap(),
    };
    let want = match answer {
        Client => Some(client(from, dialled, host)),
        Gateway => Some(network.families.gateway(dialled)),
        Nobody => None,
    };
    // Whoever is to answer gets all the time it needs on a busy machine.
    let patience = if want.is_some() { PATIENCE } else { LOST };
    let to = SocketAddr::from((host, network.port));
    let got = match from {
        From::Loopback | From::Host => Place::ask_for(&lab.host, patience, proto, to),
        From::Remote => Host::ask_for(&lab.neighbour, patience, proto, to),
        From::SameNetwork => network.neighbour.ask_for(patience, proto, to),
        From::OtherNetwork => strangers.masqueraded.ask_for(patience, proto, to),
        From::OpenNetwork => strangers.open.ask_for(patience, proto, to),
        From::TheSandboxItself => network.server.ask_for(patience, proto, to),
    };
    Cell { words: format!("{:?} network, {to}/{proto} from {from:?}", network.families), want, got }
}

/// The address that a client has of its own.
fn client(from: From, dialled: Family, host: IpAddr) -> IpAddr {
    let address = match (from, dialled) {
        // Who asks an address of the host's from the host does it under the same one.
        (From::Host, _) => return host,
        (From::Remote, Four) => "192.0.2.2",
        (From::Remote, Six) => "fd00:ff::2",
        (From::OpenNetwork, Four) => OPEN[0],
        (From::OpenNetwork, Six) => OPEN[1],
        _ => panic!("no server is expected to see {from:?} as it is"),
    };
    address.parse().unwrap()
}

#[test]
fn rules_and_proxy_with_nftables() {
    check(Way::RulesAndProxy, NFTABLES);
}

#[test]
fn rules_and_proxy_with_iptables() {
    check(Way::RulesAndProxy, IPTABLES);
}

#[test]
fn rules_alone_with_nftables() {
    check(Way::Rules, NFTABLES);
}

#[test]
fn rules_alone_with_iptables() {
    check(Way::Rules, IPTABLES);
}

#[test]
fn the_proxy_alone_beside_nftables() {
    check(Way::Proxy, NFTABLES);
}

#[test]
fn the_proxy_alone_beside_iptables() {
    check(Way::Proxy, IPTABLES);
}

#[test]
fn docker_proxy_in_place_of_ours() {
    if let Some(program) = need::docker_proxy() {
        // By TCP: the replies of some versions leave from whichever address the kernel likes.
        let path = program.to_str().unwrap();
        check_by(&[Proto::Tcp], Way::RulesAndProxy, &["--userland-proxy-path", path]);
        check_by(&[Proto::Tcp], Way::Proxy, &["--userland-proxy-path", path, "--iptables=false"]);
    }
}
