//! Tracked connections that are forgotten, and those that are spared.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use netcore::firewall::Backend;
use netcore::kernel::{Flow, forget_flows};
use netcore::publish::{PortRange, Proto};

use crate::lab::{Host, Lab, ready};

const TARGETS: [&str; 2] = ["172.20.0.2", "fd00:20::2"];
const HOST: [&str; 2] = ["192.0.2.1", "fd00:ff::1"];
const ANY: [&str; 2] = ["0.0.0.0", "::"];

/// What makes the host track connections at all.
const TRACKING: &str = "add table inet t\nadd chain inet t pre { type nat hook prerouting priority -100; }
    add rule inet t pre ct state invalid counter\n";

#[test]
fn a_flow_that_began_before_the_port_was_published_turns_to_the_sandbox() {
    let Some(lab) = lab() else { return };
    for (family, host) in HOST.into_iter().enumerate() {
        let [before, after] = [bind(&lab.host, host, 5000), bind(&lab.a1, TARGETS[family], 80)];
        let client = bind(&lab.out, ANY[family], 0);
        assert!(sent(&client, host, 5000, &before));
        publish(&lab, family, 5000, 80);
        assert!(sent(&client, host, 5000, &before), "the flow goes on as it began");

        assert_eq!(forget(&lab, &[flow(ANY[family], 5000, 5000)]), 1);
        assert!(sent(&client, host, 5000, &after), "{host}");
        assert_eq!(forget(&lab, &[flow(ANY[family], 5000, 5000)]), 1, "the translated one is found, too");
        assert_eq!(forget(&lab, &[flow(ANY[family], 5000, 5000)]), 0);
    }
}

#[test]
fn a_flow_is_told_by_the_hosts_port_and_not_by_the_sandboxs() {
    let Some(lab) = lab() else { return };
    for (family, host) in HOST.into_iter().enumerate() {
        publish(&lab, family, 5000, 80);
        publish(&lab, family, 6000, 80);
        let inside = bind(&lab.a1, TARGETS[family], 80);
        let direct = bind(&lab.a1, TARGETS[family], 5000);
        let client = bind(&lab.out, ANY[family], 0);
        assert!(sent(&client, host, 5000, &inside) && sent(&client, host, 6000, &inside));
        assert!(sent(&client, TARGETS[family], 5000, &direct), "the neighbour knows the way");

        assert_eq!(forget(&lab, &[flow(ANY[family], 80, 80)]), 0);
        assert_eq!(forget(&lab, &[Flow { proto: Proto::Tcp, ..flow(ANY[family], 5000, 5000) }]), 0);
        assert_eq!(forget(&lab, &[flow(ANY[1 - family], 5000, 5000)]), 0);
        let elsewhere =
            Flow { target: Some(HOST[family].parse().expect("an address")), ..flow(ANY[family], 5000, 5000) };
        assert_eq!(forget(&lab, &[elsewhere]), 0);
        let there = Flow { target: Some(TARGETS[family].parse().expect("an address")), ..elsewhere };
        assert_eq!(forget(&lab, &[there, flow(ANY[family], 7000, 7000)]), 1);
        let left = flows(&lab.host);
        assert!(
            left.contains("dport=6000") && left.contains(&format!("{} sport", spelled(TARGETS[family]))),
            "{left}"
        );
        assert_eq!(forget(&lab, &[flow(host, 5000, 6000)]), 1);
        assert_eq!(forget(&lab, &[flow(TARGETS[family], 5000, 6000)]), 1, "named, it is meant");
    }
}

#[test]
fn all_flows_of_a_range_go_and_nothing_beside_it() {
    let Some(lab) = lab() else { return };
    let client = bind(&lab.out, ANY[0], 0);
    let server = bind(&lab.host, HOST[0], 9999);
    assert!(sent(&client, HOST[0], 9999, &server));
    for port in 5000..5300 {
        // Nobody listens there; an answer that says so is an error of the next call.
        while client.send_to(b"x", (HOST[0], port)).is_err() {}
    }
    assert_eq!(forget(&lab, &[flow(ANY[0], 5000, 5099), flow(HOST[0], 5100, 5298)]), 299);
    let left = flows(&lab.host);
    assert!(left.contains("dport=9999") && left.contains("dport=5299"), "{left}");
    assert_eq!(left.lines().count(), 2, "{left}");
}

#[test]
fn where_nothing_is_tracked_nothing_is_forgotten() {
    if ready(Backend::Nftables).is_some() {
        let host = Host::new();
        assert_eq!(host.enter(|| forget_flows(&[flow(ANY[0], 1, 65_535), flow(ANY[1], 53, 53)])).unwrap(), 0);
        assert_eq!(host.enter(|| forget_flows(&[])).unwrap(), 0);
    }
}

fn lab() -> Option<Lab> {
    ready(Backend::Nftables)?;
    let lab = Lab::new();
    lab.host.run("nft -f -", TRACKING);
    Some(lab)
}

fn publish(lab: &Lab, family: usize, host: u16, container: u16) {
    let (l3, target) = (["ip", "ip6"][family], bracketed(TARGETS[family]));
    let rule = format!("udp dport {host} dnat {l3} to {target}:{container}");
    lab.host.run(
        "nft -f -",
        &format!(
            "add rule inet t pre fib daddr type local {rule}
"
        ),
    );
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// As /proc spells it: IPv6 in full.
fn spelled(address: &str) -> String {
    match address.parse().expect("an address") {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|part| format!("{part:04x}")).join(":"),
    }
}

fn flow(host_ip: &str, first: u16, last: u16) -> Flow {
    let host = PortRange::new(first, last).expect("a range");
    Flow { proto: Proto::Udp, host_ip: host_ip.parse().expect("an address"), host, target: None }
}

fn forget(lab: &Lab, flows: &[Flow]) -> usize {
    lab.host.enter(|| forget_flows(flows)).expect("the kernel forgets")
}

/// The UDP flows it tracks.
fn flows(host: &Host) -> String {
    let all = host.enter(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack"));
    let all = all.expect("this kernel lists them");
    all.lines().filter(|line| line.contains(" udp ")).map(|line| line.to_owned() + "\n").collect()
}

fn bind(host: &Host, address: &str, port: u16) -> UdpSocket {
    let address: IpAddr = address.parse().expect("an address");
    let socket = host.enter(|| UdpSocket::bind(SocketAddr::new(address, port))).expect("a free port");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket has a time-out");
    socket
}

/// Whether what is sent there arrives in this socket.
fn sent(client: &UdpSocket, to: &str, port: u16, server: &UdpSocket) -> bool {
    client.send_to(b"x", (to, port)).expect("there is a way");
    match server.recv(&mut [0; 8]) {
        Ok(length) => length == 1,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(error) => panic!("{error}"),
    }
}
