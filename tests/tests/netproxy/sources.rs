//! `--source-ips`: connections to one backend beyond the ports of one address.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::lab::{Host, cable, v4, v6};
use e2e::servers::{self, Ending, TcpServer, UdpServer, read_to_ending};
use e2e::traffic::{PAYLOAD, ask, ask_udp};
use e2e::wait;
use socket2::{Domain, Socket, Type};

use crate::{FRONT, counters, netproxy, tcp, udp};

const TWO: [&str; 2] = ["--source-ips", "127.0.0.2,127.0.0.3"];
/// Ten ports.
const TEN: &str = "40000 40009";

/// Where the backend's connections came from.
type Seen = Arc<Mutex<Vec<SocketAddr>>>;

/// Sends back what arrives, and keeps where from.
fn backend(host: &Host, at: SocketAddr) -> (TcpServer, Seen) {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let server = TcpServer::start(host, at, move |stream| {
        log.lock().unwrap().push(stream.peer_addr().unwrap());
        servers::echo(stream);
    });
    (server, seen)
}

fn counted(addresses: impl IntoIterator<Item = SocketAddr>) -> BTreeMap<String, usize> {
    addresses.into_iter().fold(BTreeMap::new(), |mut sum, from| {
        *sum.entry(from.ip().to_string()).or_default() += 1;
        sum
    })
}

/// A host with ten ports for its own connections, and a neighbour for the clients, who need ports too.
fn short_of_ports() -> Option<(Host, Host, IpAddr)> {
    let host = Host::new("host")?;
    let neighbour = Host::new("neighbour")?;
    cable((&host, "eth0", &["192.0.2.1/24"]), (&neighbour, "eth0", &["192.0.2.2/24"]));
    host.sysctl("net/ipv4/ip_local_port_range", TEN);
    Some((host, neighbour, [192, 0, 2, 1].into()))
}

#[track_caller]
fn served(host: &Host, at: SocketAddr) -> TcpStream {
    let mut client = host.connect(at).unwrap();
    assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
    client
}

#[test]
fn connections_leave_from_each_in_turn() {
    let Some(host) = Host::new("host") else { return };
    host.ip("addr add fd00::2/128 dev lo nodad");
    host.ip("addr add fd00::3/128 dev lo nodad");
    for (at, ips) in [(v4(0), ["127.0.0.2", "127.0.0.3"]), (v6(0), ["fd00::2", "fd00::3"])] {
        let (backend, seen) = backend(&host, at);
        let start = tcp(v4(FRONT), backend.addr).words(["--source-ips", &ips.join(",")]);
        let proxy = start.serve(&host);
        let _clients: Vec<_> = (0..10).map(|_| served(&host, v4(FRONT))).collect();
        let seen = seen.lock().unwrap().clone();
        assert_eq!(counted(seen.iter().copied()), BTreeMap::from(ips.map(|ip| (ip.to_owned(), 5))));
        assert!(seen.windows(2).all(|two| two[0].ip() != two[1].ip()), "in turn: {seen:?}");
        proxy.stop();
    }
}

#[test]
fn flows_leave_from_each_in_turn() {
    let Some(host) = Host::new("host") else { return };
    let backend = UdpServer::echo(&host, v4(0));
    let _proxy = udp(v4(FRONT), backend.addr).words(TWO).serve(&host);
    for _ in 0..2 {
        let client = host.udp(v4(0));
        for _ in 0..3 {
            assert_eq!(ask_udp(&client, v4(FRONT), PAYLOAD).0, PAYLOAD);
        }
    }
    let from = counted(backend.seen().iter().map(|datagram| datagram.from));
    assert_eq!(from, BTreeMap::from([("127.0.0.2".to_owned(), 3), ("127.0.0.3".to_owned(), 3)]));
}

#[test]
fn each_address_carries_as_many_connections_as_there_are_ports() {
    let Some((host, neighbour, ip)) = short_of_ports() else { return };
    let front = SocketAddr::new(ip, FRONT);
    let (backend, seen) = backend(&host, v4(9000));
    let mut proxy = tcp(front, backend.addr).words(TWO).serve(&host);
    let mut clients: Vec<_> = (0..20).map(|_| served(&neighbour, front)).collect();
    let from = counted(seen.lock().unwrap().iter().copied());
    assert_eq!(from, BTreeMap::from([("127.0.0.2".to_owned(), 10), ("127.0.0.3".to_owned(), 10)]));
    // The next waits for a port instead of being turned away, and gets the first that becomes free, of whichever
    // address. (A reset leaves no TIME_WAIT behind.)
    let waiting = neighbour.connect(front).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(backend.accepted(), 20);
    servers::reset(clients.remove(7));
    let mut admitted = waiting;
    assert_eq!(ask(&mut admitted, PAYLOAD), PAYLOAD);
    for client in &mut clients {
        assert_eq!(ask(client, PAYLOAD), PAYLOAD);
    }
    assert_eq!((proxy.ended(), &counters(&proxy)["connections"]["failed"]), (None, &0.into()));
}

#[test]
fn the_kernels_choice_ends_at_one_addresss_ports() {
    let Some((host, neighbour, ip)) = short_of_ports() else { return };
    let front = SocketAddr::new(ip, FRONT);
    let (backend, _seen) = backend(&host, v4(9000));
    let mut proxy = tcp(front, backend.addr).words(["--connect-timeout", "700ms"]).serve(&host);
    let mut clients: Vec<_> = (0..10).map(|_| served(&neighbour, front)).collect();
    // One too many: it waits as long as for a backend that doesn't answer, and is told what was missing.
    let mut eleventh = neighbour.connect(front).unwrap();
    assert_eq!(read_to_ending(&mut eleventh), (Vec::new(), Ending::Reset));
    assert_eq!((backend.accepted(), &counters(&proxy)["connections"]["failed"]), (10, &1.into()));
    let said = proxy.stderr();
    assert!(said.contains("can't reach 127.0.0.1:9000: cannot assign requested address"), "{said}");
    // The others go on, and so does the proxy.
    servers::reset(clients.remove(0));
    clients.push(served(&neighbour, front));
    for client in &mut clients {
        assert_eq!(ask(client, PAYLOAD), PAYLOAD);
    }
    assert_eq!(proxy.ended(), None);
}

#[test]
fn a_port_in_use_towards_one_target_is_free_towards_another() {
    let Some((host, neighbour, ip)) = short_of_ports() else { return };
    let _backends = [8000, 8001].map(|port| TcpServer::start(&host, v4(port), servers::echo));
    let words = format!(
        "-host-ip {ip} -host-port 7000-7001 -container-ip 127.0.0.1 -container-port 8000-8001 \
         --source-ips 127.0.0.2"
    );
    let proxy = netproxy(&words).serve(&host);
    let clients: Vec<_> = [7000, 7001]
        .iter()
        .flat_map(|&port| (0..10).map(move |_| SocketAddr::new(ip, port)))
        .map(|front| served(&neighbour, front))
        .collect();
    assert_eq!(counters(&proxy)["connections"]["open"], clients.len());
}

#[test]
fn a_flow_too_many_takes_the_place_of_the_one_idle_longest() {
    let Some((host, neighbour, ip)) = short_of_ports() else { return };
    let front = SocketAddr::new(ip, FRONT);
    let backend = UdpServer::echo(&host, v4(9000));
    let mut proxy = udp(front, backend.addr).words(TWO).serve(&host);
    let any = SocketAddr::from(([192, 0, 2, 2], 0));
    let clients: Vec<_> = (0..20).map(|_| neighbour.udp(any)).collect();
    for client in &clients {
        assert_eq!(ask_udp(client, front, PAYLOAD).0, PAYLOAD);
    }
    assert_eq!(counters(&proxy)["flows"]["open"], 20);
    let late = neighbour.udp(any);
    late.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // A datagram may be lost while the port changes hands.
    wait::until("flow for one more", || {
        late.send_to(PAYLOAD, front).unwrap();
        late.recv(&mut [0; 100]).is_ok()
    });
    assert_eq!(ask_udp(&clients[19], front, PAYLOAD).0, PAYLOAD);
    assert!(counters(&proxy)["flows"]["open"].as_u64().unwrap() <= 20);
    assert_eq!(proxy.ended(), None);
}

#[test]
fn an_address_that_goes_away_is_passed_over() {
    let Some(host) = Host::new("host") else { return };
    host.ip("addr add 198.51.100.1/32 dev lo");
    let (backend, seen) = backend(&host, v4(0));
    let start = tcp(v4(FRONT), backend.addr).words(["--source-ips", "198.51.100.1,127.0.0.2"]);
    let _proxy = start.serve(&host);
    host.ip("addr del 198.51.100.1/32 dev lo");
    for _ in 0..4 {
        served(&host, v4(FRONT));
    }
    let from = counted(seen.lock().unwrap().iter().copied());
    assert_eq!(from, BTreeMap::from([("127.0.0.2".to_owned(), 4)]));
}

#[test]
fn addresses_that_cannot_be_used_are_reported() {
    let Some(host) = Host::new("host") else { return };
    for (ips, complaint) in [
        (
            "127.0.0.2,198.51.100.1",
            "can't connect from -source-ips 198.51.100.1: cannot assign requested address",
        ),
        ("127.0.0.2,::1", "-source-ips ::1 can't reach -container-ip 127.0.0.1: IPv4 and IPv6 don't mix"),
    ] {
        for start in [tcp(v4(FRONT), v4(9)), udp(v4(FRONT), v4(9))] {
            let failed = start.words(["--source-ips", ips]).fail(&host);
            let want = format!("1\n{complaint}");
            assert_eq!((failed.code, failed.status.as_deref()), (1, Some(want.as_str())));
        }
    }
    // From the environment, which all of dockerd's proxies share, each takes those of its target's family.
    let (backend, seen) = backend(&host, v4(0));
    let start = tcp(v4(FRONT), backend.addr).variable("NETPROXY_SOURCE_IPS", "::1,127.0.0.5");
    let _proxy = start.serve(&host);
    served(&host, v4(FRONT));
    assert_eq!(seen.lock().unwrap()[0].ip().to_string(), "127.0.0.5");
}

#[test]
fn a_client_given_up_for_want_of_a_port_leaves_nothing_running() {
    let Some(host) = Host::new("host") else { return };
    host.sysctl("net/ipv4/ip_local_port_range", "40000 40001");
    let backend = TcpServer::start(&host, v4(9000), servers::echo);
    // Both ports towards the backend are taken, and stay so.
    let _taken: Vec<_> = (40_000..=40_001).map(|port| connect_from(&host, v4(port), backend.addr)).collect();
    let proxy = tcp(v4(FRONT), backend.addr).words(["--connect-timeout", "1800ms"]).serve(&host);
    let mut client = connect_from(&host, v4(20_000), v4(FRONT));
    assert_eq!(read_to_ending(&mut client).1, Ending::Reset);
    drop(client);
    std::thread::sleep(Duration::from_millis(2500)); // every timer of it has run
    let load = proxy.load_over(Duration::from_millis(500));
    assert!(load < 0.1, "a load of {load} without a connection");
}

/// A connection from a port of one's choice.
fn connect_from(host: &Host, from: SocketAddr, to: SocketAddr) -> TcpStream {
    host.enter(|| {
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, None).unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect(&to.into()).unwrap();
        TcpStream::from(socket)
    })
}
