//! UDP flows: how long they live, and how many there may be.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use e2e::lab::{Host, v4};
use e2e::servers::UdpServer;
use e2e::traffic::{PAYLOAD, ask_udp, receive};
use e2e::wait;
use nix::sys::signal::Signal;

use crate::{FRONT, counters, netproxy, udp};

/// Sends a datagram through the proxy and returns the flow's address as the backend sees it.
#[track_caller]
fn flow_of(client: &UdpSocket, backend: &UdpServer) -> SocketAddr {
    assert_eq!(ask_udp(client, v4(FRONT), PAYLOAD).0, PAYLOAD);
    backend.seen().last().unwrap().from
}

#[test]
fn replies_alone_keep_a_flow_alive() {
    let Some(host) = Host::new("host") else { return };
    let backend = UdpServer::echo(&host, v4(0));
    let _proxy = udp(v4(FRONT), backend.addr).words(["--udp-timeout", "1"]).serve(&host);
    let client = host.udp(v4(0));
    let flow = flow_of(&client, &backend);
    let started = Instant::now();
    for number in 1..10_u32 {
        std::thread::sleep((Duration::from_millis(250) * number).saturating_sub(started.elapsed()));
        backend.send(b"still here", flow);
        assert_eq!(receive(&client).0, b"still here");
    }
    assert_eq!(flow_of(&client, &backend), flow);
}

#[test]
fn an_idle_flow_lives_as_long_as_it_is_told_to() {
    let Some(host) = Host::new("host") else { return };
    let backend = UdpServer::echo(&host, v4(0));
    let proxy = udp(v4(FRONT), backend.addr).words(["--udp-timeout", "800ms"]).serve(&host);
    let started = Instant::now();
    flow_of(&host.udp(v4(0)), &backend);
    assert_eq!(counters(&proxy)["flows"]["open"], 1);
    wait::until("end of the flow", || counters(&proxy)["flows"]["open"] == 0);
    let lived = started.elapsed();
    assert!((800..2500).contains(&lived.as_millis()), "{lived:?} instead of 0.8 s");
}

#[test]
fn a_full_table_drops_the_flow_idle_longest() {
    let Some(host) = Host::new("host") else { return };
    let backend = UdpServer::echo(&host, v4(0));
    let proxy = udp(v4(FRONT), backend.addr).words(["--udp-flows", "4"]).serve(&host);
    let clients: Vec<_> = (0..5).map(|_| host.udp(v4(0))).collect();
    let flows: Vec<_> = clients[..4].iter().map(|client| flow_of(client, &backend)).collect();
    // The first is oldest but not idle longest any more.
    assert_eq!(flow_of(&clients[0], &backend), flows[0]);
    flow_of(&clients[4], &backend);
    assert_eq!(counters(&proxy)["flows"], serde_json::json!({"open": 4, "total": 5, "evicted": 1}));
    for kept in [0, 2, 3] {
        assert_eq!(flow_of(&clients[kept], &backend), flows[kept], "client {kept}");
    }
    assert_ne!(flow_of(&clients[1], &backend), flows[1]);
}

#[test]
fn a_thousand_clients_need_no_more_descriptors_than_the_table_has_room() {
    let Some(host) = Host::new("host") else { return };
    let backend = UdpServer::echo(&host, v4(0));
    let proxy = udp(v4(FRONT), backend.addr).words(["--udp-flows", "32"]).serve(&host);
    let before = proxy.descriptors();
    for _ in 0..1000 {
        assert_eq!(ask_udp(&host.udp(v4(0)), v4(FRONT), PAYLOAD).0, PAYLOAD);
    }
    let after = proxy.descriptors();
    assert!(after <= before + 33, "{before} descriptors before, {after} after");
    let flows = counters(&proxy)["flows"].clone();
    let number = |name: &str| flows[name].as_u64().unwrap();
    assert_eq!((number("open"), number("evicted")), (32, number("total") - 32));
    // The kernel may give a client the port of one before, and with it its flow.
    assert!((900..=1000).contains(&number("total")), "{flows}");
    proxy.stop();
}

#[test]
fn flows_that_end_and_begin_in_one_moment_are_not_mixed_up() {
    // The flow of `old` is evicted and, in the same moment, hears its last: its place must not be torn away from
    // whoever gets it next.
    let Some(host) = Host::new("host") else { return };
    let (first, second) = (UdpServer::silent(&host, v4(9000)), UdpServer::silent(&host, v4(9001)));
    let ports = "-host-ip 127.0.0.1 -host-port 25587-25588 -container-ip 127.0.0.1 -container-port 9000-9001";
    let proxy = netproxy(&format!("-proto udp {ports} --udp-flows 3")).serve(&host);
    let client = || host.udp(v4(0));
    let (old, others, one, two) = (client(), [client(), client()], client(), client());
    for client in [&old, &others[0], &others[1]] {
        client.send_to(b"hello", v4(FRONT)).unwrap();
    }
    let of_old = first.wait_for(3)[0].from;
    proxy.signal(Signal::SIGSTOP);
    one.send_to(b"one", v4(FRONT)).unwrap();
    first.send(b"", of_old);
    two.send_to(b"two", v4(FRONT + 1)).unwrap();
    proxy.signal(Signal::SIGCONT);
    let _ = first.wait_for(4);
    for count in 1..=4 {
        let _ = second.wait_for(count);
        two.send_to(b"two again", v4(FRONT + 1)).unwrap();
    }
    let flow = second.wait_for(5)[4].from;
    // New clients push out others, and none of their replies goes astray.
    for _ in 0..2 {
        client().send_to(b"more", v4(FRONT)).unwrap();
    }
    let _ = first.wait_for(6);
    second.send(b"for two", flow);
    assert_eq!(receive(&two).0, b"for two");
    proxy.stop();
}
