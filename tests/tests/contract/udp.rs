//! UDP: datagrams of every size, flows, the address that answers, refusals.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::contract::{Difference, Subject};
use e2e::lab::{self, Host, v4, v6};
use e2e::servers::UdpServer;
use e2e::traffic::{PAYLOAD, ask_udp, receive};

e2e::contract! {
    every: [
        datagrams_come_back,
        datagrams_come_back_over_ipv6,
        families_can_be_crossed,
        every_client_has_a_flow_of_its_own,
        a_flow_carries_replies_without_requests,
        a_client_that_left_harms_nobody,
        refusals_lose_no_later_datagram,
        a_flow_outlives_a_restart_of_the_backend,
        a_busy_flow_keeps_its_port,
        an_idle_flow_ends,
        the_address_asked_is_the_address_that_answers,
        the_address_asked_is_the_address_that_answers_over_ipv6,
        a_broadcast_is_answered_from_an_own_address,
        link_local_clients_are_told_apart_by_their_link,
        empty_datagrams_pass,
        the_largest_datagrams_pass,
        an_undeliverable_reply_does_not_end_the_flow,
    ],
    binding: [],
}

/// Where the proxy listens.
const FRONT: u16 = 25_587;

#[track_caller]
fn echoes(client: &UdpSocket, to: SocketAddr, payload: &[u8]) {
    let (answer, from) = ask_udp(client, to, payload);
    assert!(answer == payload, "{} of {} bytes, or other ones", answer.len(), payload.len());
    assert_eq!(from, to);
}

/// Whether anything comes within `time`.
fn hears(client: &UdpSocket, time: Duration) -> bool {
    client.set_read_timeout(Some(time)).unwrap();
    client.recv_from(&mut [0; 100]).is_ok()
}

fn datagrams_come_back(subject: &Subject, host: &Host) {
    let backend = UdpServer::echo(host, v4(0));
    let proxy = subject.udp(host, v4(FRONT), backend.addr).serve(host);
    let client = host.udp(v4(0));
    for size in [71, 1, 1_472, 1_473, 9_000, 65_000] {
        echoes(&client, v4(FRONT), &vec![b'x'; size]);
    }
    proxy.stop();
}

fn datagrams_come_back_over_ipv6(subject: &Subject, host: &Host) {
    let backend = UdpServer::echo(host, v6(0));
    let _proxy = subject.udp(host, v6(FRONT), backend.addr).serve(host);
    echoes(&host.udp(v6(0)), v6(FRONT), PAYLOAD);
}

fn families_can_be_crossed(subject: &Subject, host: &Host) {
    let (four, six) = (UdpServer::echo(host, v4(0)), UdpServer::echo(host, v6(0)));
    let _to_four = subject.udp(host, v6(FRONT), four.addr).serve(host);
    let _to_six = subject.udp(host, v4(FRONT), six.addr).serve(host);
    echoes(&host.udp(v6(0)), v6(FRONT), PAYLOAD);
    echoes(&host.udp(v4(0)), v4(FRONT), PAYLOAD);
}

fn every_client_has_a_flow_of_its_own(subject: &Subject, host: &Host) {
    let backend = UdpServer::echo(host, v4(0));
    let _proxy = subject.udp(host, v4(FRONT), backend.addr).serve(host);
    let clients: Vec<UdpSocket> = (0..100).map(|_| host.udp(v4(0))).collect();
    for round in 0..2 {
        for (number, client) in clients.iter().enumerate() {
            client.send_to(format!("{round} {number}").as_bytes(), v4(FRONT)).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            assert_eq!(receive(client), (format!("{round} {number}").into_bytes(), v4(FRONT)));
        }
    }
    let flows: BTreeSet<_> = backend.wait_for(200).into_iter().map(|d| d.from).collect();
    assert_eq!(flows.len(), 100, "one source port for each client");
}

fn a_flow_carries_replies_without_requests(subject: &Subject, host: &Host) {
    let backend = UdpServer::start(
        host,
        v4(0),
        Arc::new(|b: &[u8]| vec![b.to_vec(), b"more".to_vec(), b"yet".to_vec()]),
    );
    let _proxy = subject.udp(host, v4(FRONT), backend.addr).serve(host);
    let client = host.udp(v4(0));
    echoes(&client, v4(FRONT), PAYLOAD);
    assert_eq!(receive(&client), (b"more".to_vec(), v4(FRONT)));
    assert_eq!(receive(&client), (b"yet".to_vec(), v4(FRONT)));
    backend.send(b"unasked", backend.wait_for(1)[0].from);
    assert_eq!(receive(&client), (b"unasked".to_vec(), v4(FRONT)));
}

fn a_client_that_left_harms_nobody(subject: &Subject, host: &Host) {
    let backend = UdpServer::echo(host, v4(0));
    let proxy = subject.udp(host, v4(FRONT), backend.addr).serve(host);
    let (gone, stays) = (host.udp(v4(0)), host.udp(v4(0)));
    echoes(&gone, v4(FRONT), PAYLOAD);
    echoes(&stays, v4(FRONT), PAYLOAD);
    drop(gone);
    let flow = backend.wait_for(1)[0].from;
    for _ in 0..5 {
        backend.send(b"anybody there?", flow);
    }
    echoes(&stays, v4(FRONT), PAYLOAD);
    echoes(&host.udp(v4(0)), v4(FRONT), PAYLOAD);
    proxy.stop();
}

fn refusals_lose_no_later_datagram(subject: &Subject, host: &Host) {
    let proxy = subject.udp(host, v4(FRONT), v4(9000)).serve(host);
    let client = host.udp(v4(0));
    for _ in 0..2 {
        client.send_to(PAYLOAD, v4(FRONT)).unwrap();
        assert!(!hears(&client, Duration::from_millis(50)));
    }
    let _backend = UdpServer::echo(host, v4(9000));
    client.set_read_timeout(Some(e2e::wait::PATIENCE)).unwrap();
    echoes(&client, v4(FRONT), PAYLOAD);
    proxy.stop();
}

fn a_flow_outlives_a_restart_of_the_backend(subject: &Subject, host: &Host) {
    let _proxy = subject.udp(host, v4(FRONT), v4(9000)).serve(host);
    let client = host.udp(v4(0));
    let before = UdpServer::echo(host, v4(9000));
    echoes(&client, v4(FRONT), PAYLOAD);
    let flow = before.wait_for(1)[0].from;
    drop(before);
    client.send_to(b"lost", v4(FRONT)).unwrap();
    assert!(!hears(&client, Duration::from_millis(50)));
    let after = UdpServer::echo(host, v4(9000));
    client.set_read_timeout(Some(e2e::wait::PATIENCE)).unwrap();
    echoes(&client, v4(FRONT), PAYLOAD);
    let kept = after.wait_for(1)[0].from == flow;
    assert_eq!(kept, !subject.has(Difference::ForgetsFlowOnRefusal));
}

fn a_busy_flow_keeps_its_port(subject: &Subject, host: &Host) {
    // With a time-out of 1 s for a backend that never answers; docker-proxy's is 90 s whatever one says.
    let backend = UdpServer::silent(host, v4(0));
    let start = subject.udp(host, v4(FRONT), backend.addr).variable("NETPROXY_UDP_TIMEOUT", "1");
    let _proxy = start.serve(host);
    let client = host.udp(v4(0));
    let next = |number: u32| {
        let due = Duration::from_millis(100) * number;
        move |started: Instant| std::thread::sleep(due.saturating_sub(started.elapsed()))
    };
    let started = Instant::now();
    for number in 0..15 {
        next(number)(started);
        client.send_to(PAYLOAD, v4(FRONT)).unwrap();
    }
    let flows: BTreeSet<_> = backend.wait_for(15).into_iter().map(|d| d.from).collect();
    assert_eq!(flows.len(), 1, "{flows:?}");
}

fn an_idle_flow_ends(subject: &Subject, host: &Host) {
    let backend = UdpServer::silent(host, v4(0));
    let start = subject.udp(host, v4(FRONT), backend.addr).variable("NETPROXY_UDP_TIMEOUT", "1");
    let proxy = start.serve(host);
    let idle = proxy.descriptors();
    let client = host.udp(v4(0));
    client.send_to(PAYLOAD, v4(FRONT)).unwrap();
    let first = backend.wait_for(1)[0].from;
    // Twice the time-out, as the contract has it.
    std::thread::sleep(Duration::from_secs(2));
    let kept = proxy.descriptors() - idle;
    client.send_to(PAYLOAD, v4(FRONT)).unwrap();
    let second = backend.wait_for(2)[1].from;
    if subject.is_ours() {
        assert_ne!(first, second);
        assert_eq!(kept, 0, "descriptors of the flow that ended");
    } else {
        assert_eq!(first, second, "90 s haven't passed");
    }
}

/// One client socket asks two addresses of the host, in turn, and hears from each.
fn asks_two_addresses(subject: &Subject, host: &Host, any: SocketAddr, asked: [SocketAddr; 2]) {
    let Some(neighbour) = Host::new("neighbour") else { return };
    lab::cable(
        (host, "eth0", &["10.0.0.1/24", "10.0.0.3/24", "fd00::1/64", "fd00::3/64"]),
        (&neighbour, "eth0", &["10.0.0.2/24", "fd00::2/64"]),
    );
    let backend = UdpServer::echo(host, v4(0));
    let _proxy = subject.udp(host, any, backend.addr).serve(host);
    let client = neighbour.udp(SocketAddr::new(any.ip(), 0));
    if subject.has(Difference::ReplyFromAnyAddress) {
        let from: Vec<_> = asked.iter().map(|to| ask_udp(&client, *to, PAYLOAD).1).collect();
        assert_eq!(from[0], from[1], "the kernel picks the same address for both");
        return;
    }
    for _ in 0..3 {
        for to in asked {
            echoes(&client, to, PAYLOAD);
        }
    }
    // And when a flow speaks unasked, from the address that its first datagram went to.
    let seen = backend.wait_for(6);
    for (flow, to) in [(seen[0].from, asked[0]), (seen[1].from, asked[1])] {
        backend.send(b"unasked", flow);
        assert_eq!(receive(&client), (b"unasked".to_vec(), to));
    }
}

fn the_address_asked_is_the_address_that_answers(subject: &Subject, host: &Host) {
    let asked = [([10, 0, 0, 3], FRONT).into(), ([10, 0, 0, 1], FRONT).into()];
    asks_two_addresses(subject, host, ([0; 4], FRONT).into(), asked);
}

fn the_address_asked_is_the_address_that_answers_over_ipv6(subject: &Subject, host: &Host) {
    let asked = ["[fd00::1]:25587", "[fd00::3]:25587"].map(|address| address.parse().unwrap());
    asks_two_addresses(subject, host, ([0_u16; 8], FRONT).into(), asked);
}

fn a_broadcast_is_answered_from_an_own_address(subject: &Subject, host: &Host) {
    let Some(neighbour) = Host::new("neighbour") else { return };
    lab::cable((host, "eth0", &["10.0.0.1/24"]), (&neighbour, "eth0", &["10.0.0.2/24"]));
    let backend = UdpServer::echo(host, v4(0));
    let _proxy = subject.udp(host, ([0; 4], FRONT).into(), backend.addr).serve(host);
    let client = neighbour.udp(([10, 0, 0, 2], 0).into());
    client.set_broadcast(true).unwrap();
    neighbour.ip("route add 255.255.255.255 dev eth0");
    for all in [[10, 0, 0, 255], [255; 4]] {
        let answer = ask_udp(&client, (all, FRONT).into(), PAYLOAD);
        assert_eq!(answer, (PAYLOAD.to_vec(), ([10, 0, 0, 1], FRONT).into()), "{all:?}");
    }
}

fn link_local_clients_are_told_apart_by_their_link(subject: &Subject, host: &Host) {
    let (Some(left), Some(right)) = (Host::new("left"), Host::new("right")) else { return };
    lab::cable((host, "eth0", &["fe80::1/64"]), (&left, "eth0", &["fe80::2/64"]));
    lab::cable((host, "eth1", &["fe80::1/64"]), (&right, "eth0", &["fe80::2/64"]));
    let backend = UdpServer::echo(host, v4(0));
    let _proxy = subject.udp(host, ([0_u16; 8], FRONT).into(), backend.addr).serve(host);
    let link = |last: u16, port: u16, host: &Host| -> SocketAddr {
        let ip = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last);
        SocketAddrV6::new(ip, port, 0, host.index("eth0")).into()
    };
    let clients = [&left, &right].map(|host| (host.udp(link(2, 5000, host)), link(1, FRONT, host)));
    let (first, second) = (&clients[0], &clients[1]);
    if subject.has(Difference::ConfusesLinks) {
        ask_udp(&first.0, first.1, b"from the left");
        second.0.send_to(b"from the right", second.1).unwrap();
        assert_eq!(receive(&first.0).0, b"from the right");
        return;
    }
    echoes(&first.0, first.1, b"from the left");
    echoes(&second.0, second.1, b"from the right");
    for (client, to) in &clients {
        echoes(client, *to, PAYLOAD);
    }
}

fn empty_datagrams_pass(subject: &Subject, host: &Host) {
    let backend = UdpServer::start(
        host,
        v4(0),
        Arc::new(|bytes: &[u8]| vec![if bytes.is_empty() { b"empty".to_vec() } else { Vec::new() }]),
    );
    let _proxy = subject.udp(host, v4(FRONT), backend.addr).serve(host);
    let client = host.udp(v4(0));
    client.send_to(b"", v4(FRONT)).unwrap();
    if subject.has(Difference::LosesEmptyDatagrams) {
        assert!(!hears(&client, Duration::from_millis(300)));
        return;
    }
    assert_eq!(receive(&client).0, b"empty");
    client.send_to(b"not empty", v4(FRONT)).unwrap();
    assert_eq!(receive(&client).0, b"");
}

fn the_largest_datagrams_pass(subject: &Subject, host: &Host) {
    const LARGEST_V4: usize = 65_507;
    const LARGEST_V6: usize = 65_527;
    let (four, six) = (UdpServer::echo(host, v4(0)), UdpServer::echo(host, v6(0)));
    let _to_four = subject.udp(host, v4(FRONT), four.addr).serve(host);
    let _to_six = subject.udp(host, v6(FRONT), six.addr).serve(host);
    let payload: Vec<u8> = (0..LARGEST_V6).map(|n| n.to_le_bytes()[0]).collect();
    echoes(&host.udp(v4(0)), v4(FRONT), &payload[..LARGEST_V4]);
    let client = host.udp(v6(0));
    if subject.has(Difference::CutsLargestDatagrams) {
        assert_eq!(ask_udp(&client, v6(FRONT), &payload).0.len(), LARGEST_V4);
    } else {
        echoes(&client, v6(FRONT), &payload);
        echoes(&client, v6(FRONT), &payload[..LARGEST_V6 - 1]);
    }
    echoes(&client, v6(FRONT), &payload[..LARGEST_V4]);
}

fn an_undeliverable_reply_does_not_end_the_flow(subject: &Subject, host: &Host) {
    let Some(neighbour) = Host::new("neighbour") else { return };
    lab::cable((host, "eth0", &["10.0.0.1/24"]), (&neighbour, "eth0", &["10.0.0.2/24"]));
    let backend = UdpServer::echo(host, v4(0));
    let to = ([10, 0, 0, 1], FRONT).into();
    let _proxy = subject.udp(host, to, backend.addr).serve(host);
    let client = neighbour.udp(([10, 0, 0, 2], 0).into());
    echoes(&client, to, PAYLOAD);
    let flow = backend.wait_for(1)[0].from;
    host.ip("route add unreachable 10.0.0.2/32");
    backend.send(b"undeliverable", flow);
    assert!(!hears(&client, Duration::from_millis(100)));
    host.ip("route del unreachable 10.0.0.2/32");
    client.set_read_timeout(Some(e2e::wait::PATIENCE)).unwrap();
    echoes(&client, to, PAYLOAD);
    let kept = backend.wait_for(2)[1].from == flow;
    assert_eq!(kept, !subject.has(Difference::ForgetsFlowOnSendError));
}
