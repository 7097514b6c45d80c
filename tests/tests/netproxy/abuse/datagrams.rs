//! Datagrams of every size, in a row and mixed: each arrives as it was sent, however many travel together.
//!
//! A proxy may send datagrams of one size as one batch that the kernel cuts apart (`UDP_SEGMENT`, udp(7)). What waits for
//! a proxy that was stopped arrives there all at once, so that it does.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;

use e2e::lab::{self, Host, v4};
use e2e::proxy::Running;
use e2e::servers::UdpServer;
use e2e::traffic::{ask_udp, pattern, receive};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::{FRONT, counters, udp};

/// Runs of one size: how long, and how many.
type Row = &'static [(usize, usize)];

/// Rows that fit into the buffer of a socket nobody has enlarged.
const ROWS: &[Row] = &[
    &[(1200, 70)],
    &[(1200, 10), (300, 1), (1200, 10), (1199, 2), (1201, 3)],
    &[(100, 5), (1400, 5), (100, 5), (1400, 1), (99, 1), (98, 2), (1, 1)],
    &[(0, 3), (1, 2), (0, 1), (1400, 3), (0, 1), (1400, 2), (7, 1)],
    &[(1, 150)],
    // What fits into a packet of Ethernet, and what doesn't.
    &[(1472, 3), (1473, 3), (1472, 3), (2000, 5), (999, 1), (4000, 3), (10, 2)],
];

/// Larger ones.
const LONG_ROWS: &[Row] = &[
    &[(1472, 200), (5, 1), (1472, 64), (1472, 64), (1471, 1)],
    &[(65_507, 2), (1, 2), (65_507, 1), (0, 1), (30_000, 7), (32_753, 3), (9000, 20)],
    &[(512, 65), (513, 65), (512, 63), (100, 1), (512, 129)],
];

/// The sizes in a row.
fn sizes(row: Row) -> Vec<usize> {
    row.iter().flat_map(|(size, count)| vec![*size; *count]).collect()
}

/// What the `number`th datagram says.
fn says(number: usize, size: usize) -> Vec<u8> {
    pattern(number * 1009, size)
}

/// A socket with room for all that is sent here.
fn roomy(host: &Host, at: SocketAddr) -> UdpSocket {
    let socket = host.udp(at);
    setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).unwrap();
    socket
}

/// A proxy between two hosts, with Ethernet's packets on one side or on both.
struct Way {
    client: Host,
    front: SocketAddr,
    proxy: Running,
    backend: UdpServer,
    /// What lives as long.
    _hosts: [Host; 2],
}

impl Way {
    /// With the backend across a cable, and the client as well or on the proxy's own host.
    fn new(near: bool, echo: bool) -> Option<Self> {
        let (host, far, client) = (Host::new("host")?, Host::new("far")?, Host::new("client")?);
        lab::cable((&host, "eth0", &["10.0.0.1/24"]), (&far, "eth0", &["10.0.0.2/24"]));
        lab::cable((&host, "eth1", &["10.0.1.1/24"]), (&client, "eth0", &["10.0.1.2/24"]));
        let (client, front) =
            if near { (host.clone(), v4(FRONT)) } else { (client, ([10, 0, 1, 1], FRONT).into()) };
        let socket = roomy(&far, ([10, 0, 0, 2], 9000).into());
        let backend =
            UdpServer::with(socket, Arc::new(move |bytes| if echo { vec![bytes.to_vec()] } else { vec![] }));
        let listener = host.udp_listener(front);
        setsockopt(&listener, sockopt::RcvBufForce, &(32 << 20)).unwrap();
        let proxy = udp(front, backend.addr).word("-use-listen-fd").socket(listener).serve(&host);
        Some(Self { client, front, proxy, backend, _hosts: [host, far] })
    }

    /// A client's socket.
    fn socket(&self) -> UdpSocket {
        roomy(&self.client, if self.front.ip().is_loopback() { v4(0) } else { ([10, 0, 1, 2], 0).into() })
    }

    /// Lets `send` happen while the proxy is stopped.
    fn stopped(&self, send: impl FnOnce()) {
        self.proxy.signal(Signal::SIGSTOP);
        send();
        self.proxy.signal(Signal::SIGCONT);
    }
}

/// The backend must have got these, in this order, from the `before`th datagram on.
#[track_caller]
fn check_arrivals(backend: &UdpServer, before: usize, wanted: &[usize], what: &str) {
    let seen = backend.wait_for(before + wanted.len());
    let got: Vec<_> = seen[before..].iter().map(|datagram| datagram.bytes.len()).collect();
    assert_eq!(got, wanted, "{what}");
    for (number, (datagram, size)) in seen[before..].iter().zip(wanted).enumerate() {
        assert!(datagram.bytes == says(number, *size), "{what}: datagram {number} of {size} bytes");
    }
}

/// The client must get these, in this order.
#[track_caller]
fn check_client(client: &UdpSocket, wanted: &[usize], what: &str) {
    for (number, size) in wanted.iter().enumerate() {
        let got = receive(client).0;
        assert_eq!(got.len(), *size, "{what}: datagram {number}");
        assert!(got == says(number, *size), "{what}: datagram {number} of {size} bytes");
    }
}

#[test]
fn datagrams_of_all_sizes_at_once_come_back_as_they_were() {
    for near in [true, false] {
        let Some(way) = Way::new(near, true) else { return };
        thread::scope(|scope| {
            for number in 0..6_usize {
                let way = &way;
                scope.spawn(move || {
                    let client = way.socket();
                    let all = [1472, 0, 1, 65_507, 1400, 1473, 512, 9000, 0, 64, 30_000];
                    for (trip, size) in (0..120_usize).zip(all.into_iter().cycle().skip(number)) {
                        let question = pattern(number * 100 + trip, size);
                        let (answer, from) = ask_udp(&client, way.front, &question);
                        assert!(answer == question, "client {number}: {} bytes of {size}", answer.len());
                        assert_eq!(from, way.front);
                    }
                });
            }
        });
        let stats = counters(&way.proxy);
        assert_eq!(
            (&stats["to_backend"]["packets"], &stats["to_client"]["packets"]),
            (&720.into(), &720.into())
        );
        assert_eq!(stats["errors"], 0);
    }
}

#[test]
fn rows_of_a_client_reach_the_backend_one_by_one() {
    for near in [true, false] {
        let Some(way) = Way::new(near, false) else { return };
        let client = way.socket();
        let (mut before, mut bytes) = (0, 0);
        for row in ROWS.iter().chain(LONG_ROWS) {
            let sizes = sizes(row);
            way.stopped(|| {
                for (number, size) in sizes.iter().enumerate() {
                    client.send_to(&says(number, *size), way.front).unwrap();
                }
            });
            check_arrivals(&way.backend, before, &sizes, &format!("near: {near}, {row:?}"));
            before += sizes.len();
            bytes += sizes.iter().sum::<usize>();
        }
        let stats = counters(&way.proxy);
        assert_eq!(stats["to_backend"], serde_json::json!({"bytes": bytes, "packets": before}));
        assert_eq!((&stats["errors"], &stats["flows"]["open"]), (&0.into(), &1.into()));
    }
}

#[test]
fn rows_of_the_backend_reach_the_client_one_by_one() {
    for near in [true, false] {
        let Some(way) = Way::new(near, false) else { return };
        let client = way.socket();
        client.send_to(b"open", way.front).unwrap();
        let flow = way.backend.wait_for(1)[0].from;
        for row in ROWS {
            let sizes = sizes(row);
            way.stopped(|| {
                for (number, size) in sizes.iter().enumerate() {
                    way.backend.send(&says(number, *size), flow);
                }
            });
            check_client(&client, &sizes, &format!("near: {near}, {row:?}"));
        }
        assert_eq!(counters(&way.proxy)["errors"], 0);
    }
}

#[test]
fn rows_of_several_clients_are_not_mixed_up() {
    let Some(way) = Way::new(false, true) else { return };
    let clients: Vec<_> = (0..4).map(|_| way.socket()).collect();
    for stride in [1, 2, 7] {
        // Each in a row of its own, then in turns: `stride` of one, `stride` of the next.
        let sizes: Vec<usize> = (0..56).map(|number| if number % 9 == 8 { 200 } else { 1000 }).collect();
        way.stopped(|| {
            for numbers in (0..sizes.len()).collect::<Vec<_>>().chunks(stride) {
                for client in &clients {
                    for number in numbers {
                        client.send_to(&says(*number, sizes[*number]), way.front).unwrap();
                    }
                }
            }
        });
        for client in &clients {
            check_client(client, &sizes, &format!("stride {stride}"));
        }
    }
    assert_eq!(counters(&way.proxy)["flows"]["open"], clients.len());
}

/// Batches: the size of each datagram, and of all together.
const BATCHES: &[(usize, usize)] = &[
    (1000, 30_500),
    (1472, 1472 * 40),
    (1472, 1472 * 40 + 1),
    (1, 60),
    (700, 699),
    (700, 701),
    (1400, 63_000),
];

/// How the kernel cuts a batch.
fn cut((size, total): (usize, usize)) -> Vec<usize> {
    (0..total).step_by(size).map(|at| size.min(total - at)).collect()
}

/// The datagrams of a batch in one piece.
fn batch(batch: (usize, usize)) -> Vec<u8> {
    cut(batch).iter().enumerate().flat_map(|(number, size)| says(number, *size)).collect()
}

fn send_in_batches(socket: &UdpSocket, size: usize) {
    setsockopt(socket, sockopt::UdpGsoSegment, &i32::try_from(size).unwrap()).unwrap();
}

#[test]
fn batches_of_a_client_are_cut_where_it_said() {
    for near in [true, false] {
        let Some(way) = Way::new(near, false) else { return };
        let client = way.socket();
        let mut before = 0;
        // On its own host a client's datagrams may be larger than what the way to the backend takes.
        let large: &[_] = if near { &[(4000, 40_100), (1473, 30_000), (20_000, 60_000)] } else { &[] };
        for one in BATCHES.iter().chain(large) {
            send_in_batches(&client, one.0);
            client.send_to(&batch(*one), way.front).unwrap();
            let wanted = cut(*one);
            check_arrivals(&way.backend, before, &wanted, &format!("near: {near}, {one:?}"));
            before += wanted.len();
        }
        let stats = counters(&way.proxy);
        assert_eq!((&stats["to_backend"]["packets"], &stats["errors"]), (&before.into(), &0.into()));
    }
}

#[test]
fn batches_of_the_backend_are_cut_where_it_said() {
    for near in [true, false] {
        let Some(way) = Way::new(near, false) else { return };
        let client = way.socket();
        client.send_to(b"open", way.front).unwrap();
        let flow = way.backend.wait_for(1)[0].from;
        let mut packets = 0;
        for one in BATCHES {
            way.backend.send_in_batches(one.0);
            way.stopped(|| way.backend.send(&batch(*one), flow));
            let wanted = cut(*one);
            check_client(&client, &wanted, &format!("near: {near}, {one:?}"));
            packets += wanted.len();
        }
        let stats = counters(&way.proxy);
        assert_eq!((&stats["to_client"]["packets"], &stats["errors"]), (&packets.into(), &0.into()));
    }
}

#[test]
fn a_socket_that_another_engine_left_is_served_as_well() {
    // The daemon keeps the socket, and a proxy may have asked it for batches that the next one didn't ask for.
    let Some(host) = Host::new("host") else { return };
    let backend = UdpServer::with(roomy(&host, v4(0)), Arc::new(|_| vec![]));
    let listener = host.udp_listener(v4(FRONT));
    let start = || {
        let socket = listener.try_clone().unwrap();
        udp(v4(FRONT), backend.addr).word("-use-listen-fd").socket(socket)
    };
    let mut seen = 0;
    for engine in ["auto", "portable", "auto"] {
        let proxy = start().words(["--engine", engine]).serve(&host);
        let client = roomy(&host, v4(0));
        let mut packets = 0;
        for one in BATCHES {
            send_in_batches(&client, one.0);
            client.send_to(&batch(*one), v4(FRONT)).unwrap();
            let wanted = cut(*one);
            check_arrivals(&backend, seen, &wanted, &format!("{engine}, {one:?}"));
            seen += wanted.len();
            packets += wanted.len();
        }
        assert_eq!(counters(&proxy)["to_backend"]["packets"], packets, "{engine}");
        proxy.stop();
    }
}
