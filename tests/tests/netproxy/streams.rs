//! Many bytes and hard ends: nothing lost, nothing leaked, nothing spinning.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use e2e::lab::{self, Host, v4};
use e2e::servers::{self, Ending, TcpServer, read_to_ending};
use e2e::traffic::{PAYLOAD, ask, check_pattern, send_pattern};
use e2e::wait;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{FRONT, counters, tcp};

/// Descriptors that pipes kept for the next bulk transfer may hold.
const POOLED: usize = 64;

/// Sends and checks at once.
fn exchange(mut stream: TcpStream, (out, back): (usize, usize), bytes: usize) {
    let mut writing = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            send_pattern(&mut writing, out, bytes);
            writing.shutdown(Shutdown::Write).unwrap();
        });
        check_pattern(&mut stream, back, bytes);
        assert_eq!(read_to_ending(&mut stream), (Vec::new(), Ending::Closed));
    });
}

#[test]
fn big_streams_cross_unharmed() {
    /// Each way, on each of two connections: 256 MiB in all.
    const BYTES: usize = 64 << 20;
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), |stream| exchange(stream, (2, 1), BYTES));
    let proxy = tcp(v4(FRONT), backend.addr).serve(&host);
    let before = proxy.descriptors();
    let clients = [host.connect(v4(FRONT)).unwrap(), host.connect(v4(FRONT)).unwrap()];
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| exchange(client, (1, 2), BYTES));
        }
    });
    wait::until("end of the connections", || counters(&proxy)["connections"]["open"] == 0);
    let stats = counters(&proxy);
    assert_eq!(stats["to_backend"]["bytes"], 2 * BYTES);
    assert_eq!(stats["to_client"]["bytes"], 2 * BYTES);
    assert_eq!(stats["errors"], 0);
    wait::until("descriptors given back", || proxy.descriptors() <= before + POOLED);
    assert!(proxy.resident() < 64 << 20, "{} bytes of memory", proxy.resident());
}

#[test]
fn streams_that_change_their_pace_cross_unharmed() {
    // From a few bytes to bulk and back, over and over: copying and splicing take turns.
    const BULK: usize = 1 << 20;
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let _proxy = tcp(v4(FRONT), backend.addr).serve(&host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    for round in 0..10 {
        for _ in 0..20 {
            assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
        }
        let mut writing = client.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || send_pattern(&mut writing, round, BULK + round));
            check_pattern(&mut client, round, BULK + round);
        });
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::Closed));
}

#[test]
fn a_blocked_connection_blocks_no_other() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let _proxy = tcp(v4(FRONT), backend.addr).serve(&host);
    let mut blocked = host.connect(v4(FRONT)).unwrap();
    blocked.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    // It writes and never reads its echo.
    while blocked.write(&[0; 64 << 10]).is_ok() {}
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "20 requests took {:?}", started.elapsed());
}

#[test]
fn every_kind_of_end_gives_its_descriptors_back() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::half_close_echo);
    let proxy = tcp(v4(FRONT), backend.addr).serve(&host);
    let resetting = TcpServer::start(&host, v4(0), servers::reset);
    let to_reset = tcp(v4(FRONT + 1), resetting.addr).serve(&host);
    let to_nobody = tcp(v4(FRONT + 2), v4(9)).serve(&host);
    let proxies = [&proxy, &to_reset, &to_nobody];
    let before = proxies.map(|proxy| proxy.descriptors());
    for round in 0..300 {
        let mut client = host.connect(v4(FRONT)).unwrap();
        match round % 4 {
            0 => drop(client),
            1 => servers::reset(client),
            2 => {
                let _ = client.write_all(&vec![0; 1 << 20]);
                servers::reset(client);
            }
            _ => {
                client.write_all(PAYLOAD).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_to_ending(&mut client), (PAYLOAD.to_vec(), Ending::Closed));
            }
        }
        for port in [FRONT + 1, FRONT + 2] {
            if let Ok(mut client) = host.connect(v4(port)) {
                assert_eq!(read_to_ending(&mut client).1, Ending::Reset, "port {port}");
            }
        }
    }
    for (proxy, before) in proxies.iter().zip(before) {
        wait::until("end of the connections", || counters(proxy)["connections"]["open"] == 0);
        wait::until("descriptors given back", || proxy.descriptors() <= before + POOLED);
        assert_eq!(counters(proxy)["connections"]["total"], 300);
        assert!(proxy.load_over(Duration::from_millis(200)) < 0.2, "it must not spin afterwards");
    }
}

#[test]
fn idle_connections_cost_no_time() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let proxy = tcp(v4(FRONT), backend.addr).serve(&host);
    let mut clients: Vec<_> = (0..200).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    for client in &mut clients {
        assert_eq!(ask(client, PAYLOAD), PAYLOAD);
    }
    // Half-closed ones as well, one way and the other.
    for client in clients.iter().step_by(3) {
        client.shutdown(Shutdown::Read).unwrap();
    }
    let load = proxy.load_over(Duration::from_secs(1));
    assert!(load < 0.03, "a load of {load} with nothing to do");
}

/// A host whose neighbour at the returned address never answers.
fn black_hole(host: &Host) -> Option<(Host, SocketAddr)> {
    let void = Host::new("void")?;
    lab::cable((host, "eth0", &["10.0.0.1/24"]), (&void, "eth0", &[]));
    host.ip("neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
    Some((void, ([10, 0, 0, 9], 80).into()))
}

#[test]
fn a_client_that_resets_is_not_dialled_for_any_longer() {
    let Some(host) = Host::new("host") else { return };
    let Some((_void, target)) = black_hole(&host) else { return };
    let proxy = tcp(v4(FRONT), target).words(["--connect-timeout", "60"]).serve(&host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    client.write_all(PAYLOAD).unwrap();
    wait::until("dial", || counters(&proxy)["connections"]["open"] == 1);
    servers::reset(client);
    wait::until("end of the dial", || counters(&proxy)["connections"]["open"] == 0);
}

#[test]
fn a_dial_under_way_holds_nobody_up() {
    let Some(host) = Host::new("host") else { return };
    let Some((_void, target)) = black_hole(&host) else { return };
    let mut proxy = tcp(v4(FRONT), target).words(["--connect-timeout", "1"]).serve(&host);
    let started = Instant::now();
    let clients: Vec<_> = (0..100).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    for mut client in clients {
        assert_eq!(read_to_ending(&mut client).1, Ending::Reset);
    }
    // All were given up side by side.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    wait::until("failures counted", || counters(&proxy)["connections"]["failed"] == 100);
    assert_eq!(proxy.ended(), None);
}

#[test]
fn a_client_that_vanishes_after_its_half_close_is_noticed() {
    // It has sent its end of stream and waits for an answer; then it is killed, which resets the connection. A backend
    // talking to it directly would be told; so must one behind the proxy.
    let Some(host) = Host::new("host") else { return };
    let (told, tell) = mpsc::channel();
    let backend = TcpServer::start(&host, v4(0), move |mut stream| {
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0, "the half-close");
        told.send("half-close").unwrap();
        let mut wanted = [PollFd::new(stream.as_fd(), PollFlags::empty())];
        poll(&mut wanted, PollTimeout::try_from(5000).unwrap()).unwrap();
        let hung_up = wanted[0].revents().is_some_and(|e| e.contains(PollFlags::POLLHUP));
        told.send(if hung_up { "gone" } else { "still there" }).unwrap();
    });
    let proxy = tcp(v4(FRONT), backend.addr).serve(&host);
    let client = host.connect(v4(FRONT)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(tell.recv_timeout(wait::PATIENCE).unwrap(), "half-close");
    servers::reset(client);
    assert_eq!(tell.recv_timeout(wait::PATIENCE).unwrap(), "gone");
    wait::until("end of the connection", || counters(&proxy)["connections"]["open"] == 0);
}

#[test]
fn a_backend_that_vanishes_after_its_half_close_is_noticed() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), |stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        let mut wanted = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        poll(&mut wanted, PollTimeout::NONE).unwrap();
        servers::reset(stream);
    });
    let proxy = tcp(v4(FRONT), backend.addr).serve(&host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::Closed));
    client.write_all(b"x").unwrap();
    let hung_up = || {
        let mut wanted = [PollFd::new(client.as_fd(), PollFlags::empty())];
        poll(&mut wanted, PollTimeout::ZERO).unwrap();
        wanted[0].revents().is_some_and(|e| e.contains(PollFlags::POLLHUP))
    };
    wait::until("reset", hung_up);
    wait::until("end of the connection", || counters(&proxy)["connections"]["open"] == 0);
}

#[test]
fn a_receiver_that_said_its_last_word_and_does_not_read_costs_no_time() {
    // The kernel tells of its end of stream whenever it is asked for room.
    let Some(host) = Host::new("host") else { return };
    let endless = TcpServer::start(&host, v4(0), |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
        while stream.write_all(&[0; 64 << 10]).is_ok() {}
    });
    let curt = TcpServer::start(&host, v4(0), |stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        thread::sleep(Duration::from_secs(3)); // and doesn't read, for as long as the test looks
    });
    let down = tcp(v4(FRONT), endless.addr).serve(&host);
    let up = tcp(v4(FRONT + 1), curt.addr).serve(&host);
    let deaf = host.connect(v4(FRONT)).unwrap();
    deaf.shutdown(Shutdown::Write).unwrap();
    let mut talker = host.connect(v4(FRONT + 1)).unwrap();
    assert_eq!(talker.read(&mut [0]).unwrap(), 0);
    talker.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while talker.write(&[0; 64 << 10]).is_ok() {}
    thread::sleep(Duration::from_millis(300));
    for (proxy, which) in [(&down, "download"), (&up, "upload")] {
        let load = proxy.load_over(Duration::from_millis(500));
        assert!(load < 0.1, "a load of {load} with a blocked {which}");
    }
}

#[test]
fn an_urgent_byte_holds_nothing_up() {
    // `splice` stops at it for good (tcp(7)); the byte itself is not passed on, as docker-proxy doesn't.
    const BULK: usize = 8 << 20;
    let Some(host) = Host::new("host") else { return };
    let (told, tell) = mpsc::channel();
    let backend = TcpServer::start(&host, v4(0), move |mut stream| {
        check_pattern(&mut stream, 0, BULK);
        check_pattern(&mut stream, 5, 100_000);
        told.send(()).unwrap();
    });
    let proxy = tcp(v4(FRONT), backend.addr).serve(&host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    send_pattern(&mut client, 0, BULK);
    thread::sleep(Duration::from_millis(100)); // all of it has gone through
    SockRef::from(&client).send_out_of_band(b"!").unwrap();
    send_pattern(&mut client, 5, 100_000);
    tell.recv_timeout(wait::PATIENCE).expect("what follows the urgent byte arrives");
    assert!(proxy.load_over(Duration::from_millis(300)) < 0.1, "it must not spin afterwards");
}

#[test]
fn a_receiver_that_takes_little_at_a_time_costs_no_memory() {
    // Too few descriptors for a pipe, so all of it is copied.
    const BYTES: usize = 32 << 20;
    let Some(host) = Host::new("host") else { return };
    host.sysctl("net/ipv4/tcp_wmem", "4096 16384 131072");
    let backend =
        TcpServer::start(&host, v4(0), |mut stream| while stream.write_all(&[7; 64 << 10]).is_ok() {});
    let start = tcp(v4(FRONT), backend.addr).words(["--threads", "1"]);
    let proxy = start.through(["prlimit", "--nofile=40:40", "--"]).serve(&host);
    let mut client = host.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(32 << 10).unwrap();
        socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        socket.connect(&v4(FRONT).into()).unwrap();
        TcpStream::from(socket)
    });
    let (mut buffer, mut got, mut before) = ([0; 4096], 0, None);
    while got < BYTES {
        got += client.read(&mut buffer).unwrap();
        if got > BYTES / 4 {
            before = before.or_else(|| Some(proxy.resident()));
        }
        if got % (64 << 10) < 4096 {
            thread::sleep(Duration::from_micros(500));
        }
    }
    let grown = proxy.resident().saturating_sub(before.unwrap());
    assert!(grown < 4 << 20, "{grown} bytes more for {} bytes relayed", BYTES - BYTES / 4);
}

#[test]
fn bulk_goes_through_pipes_and_messages_do_not() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let proxy = tcp(v4(FRONT), backend.addr).serve(&host);
    let before = proxy.pipe_ends();
    let mut client = host.connect(v4(FRONT)).unwrap();
    for _ in 0..1000 {
        assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
    }
    assert_eq!(proxy.pipe_ends(), before, "messages are copied");
    let mut writing = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || send_pattern(&mut writing, 0, 16 << 20));
        check_pattern(&mut client, 0, 16 << 20);
    });
    let pipes = proxy.pipe_ends() - before;
    assert!((2..=4).contains(&pipes), "a pipe has two ends, and there are two directions: {pipes}");
}

#[test]
fn threads_come_with_load_and_not_before() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let several = tcp(v4(FRONT), backend.addr).words(["--threads", "3"]).serve(&host);
    let single = tcp(v4(FRONT + 1), backend.addr).words(["--threads", "1"]).serve(&host);
    assert_eq!((several.threads(), single.threads()), (1, 1), "nobody is there yet");
    let connect = |count: usize, port: u16| -> Vec<TcpStream> {
        let client = |_| {
            let mut client = host.connect(v4(port)).unwrap();
            assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
            client
        };
        (0..count).map(client).collect()
    };
    let mut few = connect(3, FRONT);
    assert_eq!(several.threads(), 1, "three connections are no load");
    let (mut many, mut one) = (connect(40, FRONT), connect(40, FRONT + 1));
    assert_eq!((several.threads(), single.threads()), (3, 1));
    for client in few.iter_mut().chain(&mut many).chain(&mut one) {
        assert_eq!(ask(client, PAYLOAD), PAYLOAD);
    }
}
