//! Ports published on the host's loopback are the host's alone, whatever others route there.

use std::net::{IpAddr, SocketAddr};

use e2e::lab::Host;

use super::lab::{Lab, NFTABLES};
use super::witness::{PROTOS, Place, Proto, Witness, by_each, idle, side_by_side, with_each};

/// Addresses in 127.0.0.0/8 that a port is published on.
const PUBLISHED: [&str; 2] = ["127.0.0.1:5000", "127.0.0.2:5000"];

/// A source address that no packet from a wire should have.
const SPOOFED: &str = "127.0.0.9";

/// Starts a server whose port is published on loopback addresses.
fn serve(lab: &Lab) -> Witness {
    lab.ok(&["network", "create", "--subnet", "10.1.0.0/24", "one"]);
    let ports = PUBLISHED.map(|at| [format!("{at}:80"), format!("{at}:80/udp")]);
    let mut flags = vec!["--net", "one"];
    flags.extend(ports.iter().flatten().flat_map(|port| ["-p", port.as_str()]));
    idle(lab, "server", &flags);
    Witness::at(&lab.sandbox("server"), 80)
}

/// Gives up a loopback of one's own: what is sent to 127.0.0.0/8 goes to `gateway`.
fn covet(ip: impl Fn(&str), sysctl: impl Fn(&str), gateway: &str, interface: &str) {
    ip("address del 127.0.0.1/8 dev lo");
    ip(&format!("address add {SPOOFED}/32 dev {interface}"));
    sysctl("net/ipv4/conf/all/route_localnet");
    ip(&format!("route add 127.0.0.0/8 via {gateway} dev {interface}"));
}

/// The neighbour on the cable does, and the host's administrator has opened the door.
fn covet_from_outside(lab: &Lab) {
    let neighbour: &Host = &lab.neighbour;
    let ip = |words: &str| drop(neighbour.ip(words));
    covet(ip, |key| neighbour.sysctl(key, "1"), "192.0.2.1", "in");
    lab.host.sysctl("net/ipv4/conf/out/route_localnet", "1");
}

/// Nobody there is answered, or heard, under its own address or a spoofed one.
fn unheard(place: &impl Place, who: &str, witness: &Witness, lab: &Lab) {
    let spoofed: IpAddr = SPOOFED.parse().unwrap();
    let published = PUBLISHED.map(|to| to.parse::<SocketAddr>().unwrap());
    side_by_side(by_each(published), |(to, proto)| {
        assert!(place.is_cut_off(proto, to), "{who} reaches {to}/{proto}");
    });
    for to in published {
        place.send(None, to);
        place.send(Some(spoofed), to);
        lab.host.ask(Proto::Udp, to);
        assert_eq!(witness.sent(), 0, "{who} is heard at {to}");
    }
}

#[test]
fn neighbours_and_sandboxes_do_not_reach_the_hosts_loopback() {
    with_each(&[&["--userland-proxy=true"], &["--userland-proxy=false"]], |lab| {
        let witness = serve(lab);
        for to in PUBLISHED {
            for proto in PROTOS {
                let seen = lab.host.ask(proto, to.parse().unwrap());
                assert_eq!(seen.to_string(), "10.1.0.1", "{to}/{proto}");
            }
        }
        covet_from_outside(lab);
        unheard(&lab.neighbour, "a neighbour", &witness, lab);

        lab.ok(&["network", "create", "--subnet", "10.2.0.0/24", "two"]);
        let own = lab.host.enter(|| Witness::here(&["127.0.0.1".parse().unwrap()], 6000));
        for (name, network, gateway) in [("mate", "one", "10.1.0.1"), ("stranger", "two", "10.2.0.1")] {
            idle(lab, name, &["--net", network]);
            let sandbox = lab.sandbox(name);
            let sysctl =
                |key: &str| sandbox.enter(|| std::fs::write(format!("/proc/sys/{key}"), "1").unwrap());
            covet(|words| drop(sandbox.ip(words)), sysctl, gateway, "eth0");
            unheard(&sandbox, name, &witness, lab);
            // Nor what the host keeps to itself without our help.
            sandbox.send(None, "127.0.0.1:6000".parse().unwrap());
            assert!(sandbox.is_cut_off(Proto::Tcp, "127.0.0.1:6000".parse().unwrap()), "{name}");
        }
        lab.host.ask(Proto::Udp, "127.0.0.1:6000".parse().unwrap());
        assert_eq!(own.sent(), 0);
    });
}

#[test]
fn without_rules_a_neighbour_does() {
    // The attack above is one: where nothing is to stop it, it succeeds.
    let Some(lab) = Lab::new(&["--firewall-backend", NFTABLES, "--iptables=false"]) else { return };
    let witness = serve(&lab);
    covet_from_outside(&lab);
    for to in PUBLISHED.map(|to| to.parse().unwrap()) {
        for proto in PROTOS {
            lab.neighbour.ask(proto, to);
        }
        let before = witness.sent();
        lab.neighbour.send(Some(SPOOFED.parse().unwrap()), to);
        e2e::wait::until("spoofed datagrams", || witness.sent() == before + 10);
    }
}
