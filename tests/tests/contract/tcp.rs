//! TCP: bytes and their end, in both directions and both families; targets that refuse, vanish or reset.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use e2e::contract::{Difference, Subject};
use e2e::lab::{self, Host, v4, v6};
use e2e::servers::{self, Ending, TcpServer, read_to_ending};
use e2e::traffic::{PAYLOAD, ask, check_pattern, send_pattern};
use e2e::wait;
use socket2::SockRef;

e2e::contract! {
    every: [
        bytes_come_back,
        bytes_come_back_over_ipv6,
        an_ipv6_listener_reaches_an_ipv4_target,
        an_ipv4_listener_reaches_an_ipv6_target,
        a_wildcard_answers_on_every_address,
        the_client_may_finish_first,
        the_backend_may_finish_first,
        early_data_is_not_lost,
        many_connections_at_once,
        bulk_in_both_directions_at_once,
        a_slow_reader_holds_the_sender_back,
        a_slow_client_holds_the_backend_back,
        a_refusal_resets_the_client,
        an_unreachable_target_resets_the_client,
        the_next_connection_finds_the_target_again,
        a_target_that_never_answers_is_given_up,
        a_reset_by_the_backend_reaches_the_client,
        a_reset_by_the_client_reaches_the_backend,
        a_reset_stops_a_stream_under_way,
        both_legs_are_watched_for_vanished_peers,
    ],
    binding: [],
}

/// Where the proxy listens.
const FRONT: u16 = 25_587;

fn bytes_come_back(subject: &Subject, host: &Host) {
    let backend = TcpServer::start(host, v4(0), servers::echo);
    let proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
    proxy.stop();
}

fn bytes_come_back_over_ipv6(subject: &Subject, host: &Host) {
    let backend = TcpServer::start(host, v6(0), servers::echo);
    let _proxy = subject.tcp(host, v6(FRONT), backend.addr).serve(host);
    assert_eq!(ask(&mut host.connect(v6(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
}

fn an_ipv6_listener_reaches_an_ipv4_target(subject: &Subject, host: &Host) {
    let backend = TcpServer::start(host, v4(0), servers::echo);
    let _proxy = subject.tcp(host, v6(FRONT), backend.addr).serve(host);
    assert_eq!(ask(&mut host.connect(v6(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
}

fn an_ipv4_listener_reaches_an_ipv6_target(subject: &Subject, host: &Host) {
    let backend = TcpServer::start(host, v6(0), servers::echo);
    let _proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
}

fn a_wildcard_answers_on_every_address(subject: &Subject, host: &Host) {
    let Some(neighbour) = Host::new("neighbour") else { return };
    lab::cable(
        (host, "eth0", &["10.0.0.1/24", "fd00::1/64"]),
        (&neighbour, "eth0", &["10.0.0.2/24", "fd00::2/64"]),
    );
    let backend = TcpServer::start(host, v4(0), servers::echo);
    let four = subject.tcp(host, ([0; 4], FRONT).into(), backend.addr).serve(host);
    assert!(host.connect(v6(FRONT)).is_err(), "0.0.0.0 is IPv4 alone");
    let six = subject.tcp(host, ([0_u16; 8], FRONT).into(), backend.addr).serve(host);
    for address in ["10.0.0.1", "[fd00::1]"] {
        let address: SocketAddr = format!("{address}:{FRONT}").parse().unwrap();
        assert_eq!(ask(&mut neighbour.connect(address).unwrap(), PAYLOAD), PAYLOAD, "{address}");
    }
    for address in [v4(FRONT), v6(FRONT)] {
        assert_eq!(ask(&mut host.connect(address).unwrap(), PAYLOAD), PAYLOAD, "{address}");
    }
    six.stop();
    four.stop();
}

fn the_client_may_finish_first(subject: &Subject, host: &Host) {
    let backend = TcpServer::start(host, v4(0), servers::half_close_echo);
    let _proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    client.write_all(PAYLOAD).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_ending(&mut client), (PAYLOAD.to_vec(), Ending::Closed));
}

fn the_backend_may_finish_first(subject: &Subject, host: &Host) {
    let (heard, hear) = mpsc::channel();
    let backend = TcpServer::start(host, v4(0), move |mut stream| {
        stream.write_all(b"greeting").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        heard.send(stream.read_to_end(&mut all).map(|_| all)).unwrap();
    });
    let _proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    assert_eq!(read_to_ending(&mut client), (b"greeting".to_vec(), Ending::Closed));
    // More than any buffer holds: the direction that is left must really run.
    thread::scope(|scope| {
        scope.spawn(|| {
            send_pattern(&mut client, 0, 4 << 20);
            client.shutdown(Shutdown::Write).unwrap();
        });
    });
    let all = hear.recv_timeout(wait::PATIENCE).unwrap().unwrap();
    assert_eq!(all.len(), 4 << 20);
}

fn early_data_is_not_lost(subject: &Subject, host: &Host) {
    // Sent, and even ended, before the proxy has a connection to the backend.
    let backend = TcpServer::start(host, v4(0), servers::half_close_echo);
    let proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    proxy.signal(nix::sys::signal::Signal::SIGSTOP);
    let mut client = host.connect(v4(FRONT)).unwrap();
    client.write_all(PAYLOAD).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    proxy.signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(read_to_ending(&mut client), (PAYLOAD.to_vec(), Ending::Closed));
}

fn many_connections_at_once(subject: &Subject, host: &Host) {
    let backend = TcpServer::start(host, v4(0), servers::echo);
    let _proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    let mut clients: Vec<TcpStream> = (0..100).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        write!(client, "client {number:03}").unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate().rev() {
        let mut answer = [0; 10];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("client {number:03}"));
    }
    assert_eq!(backend.accepted(), 100);
}

fn bulk_in_both_directions_at_once(subject: &Subject, host: &Host) {
    const BYTES: usize = 24 << 20;
    let backend = TcpServer::start(host, v4(0), |mut stream| {
        let mut writing = stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || send_pattern(&mut writing, 7, BYTES));
            check_pattern(&mut stream, 0, BYTES);
        });
    });
    let _proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    let mut writing = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            send_pattern(&mut writing, 0, BYTES);
            writing.shutdown(Shutdown::Write).unwrap();
        });
        check_pattern(&mut client, 7, BYTES);
        assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::Closed));
    });
}

/// Fills a connection until nothing has gone in for half a second, and returns how much did.
fn fill(stream: &mut TcpStream) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    let block = [b'x'; 64 << 10];
    loop {
        match stream.write(&block) {
            Ok(count) => sent += count,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return sent,
            Err(e) => panic!("after {sent} bytes: {e}"),
        }
        // Far above what four socket buffers and a pipe may hold.
        assert!(sent < 64 << 20, "nothing holds the sender back");
    }
}

fn a_slow_reader_holds_the_sender_back(subject: &Subject, host: &Host) {
    let backend = TcpServer::start(host, v4(0), servers::silent);
    let proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    let before = proxy.resident();
    fill(&mut host.connect(v4(FRONT)).unwrap());
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes of memory for one blocked connection");
    assert!(proxy.load_over(Duration::from_millis(500)) < 0.2, "it must not spin meanwhile");
}

fn a_slow_client_holds_the_backend_back(subject: &Subject, host: &Host) {
    let (filled, full) = mpsc::channel();
    let backend =
        TcpServer::start(host, v4(0), move |mut stream| filled.send((fill(&mut stream), stream)).unwrap());
    let _proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    let (sent, stream) = full.recv_timeout(wait::PATIENCE).unwrap();
    drop(stream);
    // Nothing of it is lost, though its sender closed long ago.
    let (got, ending) = read_to_ending(&mut client);
    assert_eq!((got.len(), ending), (sent, Ending::Closed));
}

/// What a client sees that couldn't be connected through.
#[track_caller]
fn turned_away(subject: &Subject, host: &Host) {
    let polite = subject.has(Difference::PoliteRefusal);
    let ending = if polite { Ending::Closed } else { Ending::Reset };
    match host.connect(v4(FRONT)) {
        Ok(mut client) => assert_eq!(read_to_ending(&mut client), (Vec::new(), ending)),
        // The reset may be faster than the last steps of connecting.
        Err(e) => assert!(e.kind() == ErrorKind::ConnectionReset && !polite, "connecting: {e}"),
    }
}

fn a_refusal_resets_the_client(subject: &Subject, host: &Host) {
    let proxy = subject.tcp(host, v4(FRONT), v4(9000)).serve(host);
    for _ in 0..10 {
        turned_away(subject, host);
    }
    proxy.stop();
}

fn an_unreachable_target_resets_the_client(subject: &Subject, host: &Host) {
    host.ip("route add unreachable 192.0.2.0/24");
    let proxy = subject.tcp(host, v4(FRONT), ([192, 0, 2, 1], 80).into()).serve(host);
    turned_away(subject, host);
    proxy.stop();
}

fn the_next_connection_finds_the_target_again(subject: &Subject, host: &Host) {
    let proxy = subject.tcp(host, v4(FRONT), v4(9000)).serve(host);
    for _ in 0..3 {
        turned_away(subject, host);
        let _backend = TcpServer::start(host, v4(9000), servers::echo);
        assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
    }
    proxy.stop();
}

/// An address that swallows what is sent to it: its neighbour entry leads to nobody.
fn black_hole(host: &Host) -> Option<(Host, SocketAddr)> {
    let void = Host::new("void")?;
    lab::cable((host, "eth0", &["10.0.0.1/24"]), (&void, "eth0", &[]));
    host.ip("neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
    Some((void, ([10, 0, 0, 9], 80).into()))
}

fn a_target_that_never_answers_is_given_up(subject: &Subject, host: &Host) {
    let Some((_void, target)) = black_hole(host) else { return };
    let proxy = subject.tcp(host, v4(FRONT), target).variable("NETPROXY_CONNECT_TIMEOUT", "1").serve(host);
    let started = Instant::now();
    let mut client = host.connect(v4(FRONT)).unwrap();
    client.write_all(PAYLOAD).unwrap();
    if subject.has(Difference::NoConnectTimeout) {
        client.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
        assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::Open));
    } else {
        assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::Reset));
        let took = started.elapsed();
        assert!((900..4000).contains(&took.as_millis()), "given up after {took:?} instead of 1 s");
    }
    proxy.stop();
}

fn a_reset_by_the_backend_reaches_the_client(subject: &Subject, host: &Host) {
    const BYTES: usize = 1 << 20;
    let backend = TcpServer::start(host, v4(0), |mut stream| {
        send_pattern(&mut stream, 0, BYTES);
        let mut all_arrived = [0];
        stream.read_exact(&mut all_arrived).unwrap();
        servers::reset(stream);
    });
    let _proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    check_pattern(&mut client, 0, BYTES);
    client.write_all(b"k").unwrap();
    assert_eq!(read_to_ending(&mut client), (Vec::new(), ending_of_reset(subject)));
}

fn a_reset_by_the_client_reaches_the_backend(subject: &Subject, host: &Host) {
    let (ended, end) = mpsc::channel();
    let backend = TcpServer::start(host, v4(0), move |mut stream| {
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&hello).unwrap();
        ended.send(read_to_ending(&mut stream)).unwrap();
    });
    let _proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    assert_eq!(ask(&mut client, b"hello"), b"hello");
    servers::reset(client);
    let seen = end.recv_timeout(wait::PATIENCE).unwrap();
    assert_eq!(seen, (Vec::new(), ending_of_reset(subject)));
}

fn ending_of_reset(subject: &Subject) -> Ending {
    if subject.has(Difference::ResetBecomesEnd) { Ending::Closed } else { Ending::Reset }
}

fn a_reset_stops_a_stream_under_way(subject: &Subject, host: &Host) {
    // The backend sends without end; the client leaves with a reset: nobody may go on for nobody.
    let (stopped, stop) = mpsc::channel();
    let backend = TcpServer::start(host, v4(0), move |mut stream| {
        let block = [0; 64 << 10];
        while stream.write_all(&block).is_ok() {}
        stopped.send(()).unwrap();
    });
    let proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    let before = proxy.descriptors();
    let mut client = host.connect(v4(FRONT)).unwrap();
    client.read_exact(&mut vec![0; 4 << 20]).unwrap();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    stop.recv_timeout(wait::PATIENCE).unwrap();
    // Its pipes may stay for the next connection.
    wait::until("end of its sockets", || proxy.descriptors() <= before + 8);
    assert!(proxy.load_over(Duration::from_millis(300)) < 0.2, "it must not spin afterwards");
}

fn both_legs_are_watched_for_vanished_peers(subject: &Subject, host: &Host) {
    let backend = TcpServer::start(host, v4(9000), servers::echo);
    let _proxy = subject.tcp(host, v4(FRONT), backend.addr).serve(host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
    // A timer of its own is what keepalive looks like: 15 s after the last word, like Go's.
    let legs: &[&str] = if subject.has(Difference::WatchesClientsOnly) {
        assert!(!host.run("ss", &["-Htno", "dport", "=", ":9000"]).contains("keepalive"));
        &["sport = :25587"]
    } else {
        &["sport = :25587", "dport = :9000"]
    };
    for leg in legs {
        wait::until("keepalive timer", || {
            let line = host.run("ss", &["-Htno", "state", "established", leg]);
            line.contains("timer:(keepalive,") && line.contains("sec,0)")
        });
    }
}
