//! Many clients at once: more than buffers, more than a backlog, all changing their pace.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use e2e::lab::{Host, v4};
use e2e::proc;
use e2e::servers::{self, Ending, TcpServer, read_to_ending};
use e2e::traffic::{PAYLOAD, ask, check_pattern, pattern, send_pattern};
use e2e::wait::{self, PATIENCE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use socket2::{Domain, SockRef, Socket, Type};

use super::{WITH_THREADS, all_is_over};
use crate::{FRONT, counters, tcp};

/// Begins so many connections to the proxy without waiting for one of them.
fn begin(host: &Host, count: usize) -> Vec<Socket> {
    host.enter(|| {
        let begin = |_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&v4(FRONT).into()); // it is in progress
            socket
        };
        (0..count).map(begin).collect()
    })
}

/// Waits until it is connected.
#[track_caller]
fn connected(socket: Socket) -> TcpStream {
    let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut wanted, patience).unwrap(), 1, "not connected within {PATIENCE:?}");
    assert_eq!(socket.take_error().unwrap().map(|e| e.to_string()), None);
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

#[test]
fn ten_thousand_at_once_are_all_served() {
    const CLIENTS: u64 = 10_000;
    /// Those that stay: a process may not have enough descriptors for both ends of more.
    const STAYING: u64 = 9_000;
    let Some(host) = Host::new("host") else { return };
    proc::raise_open_files();
    host.sysctl("net/core/somaxconn", "20000");
    host.sysctl("net/ipv4/ip_local_port_range", "2048 65000");
    // Connections are short at the backend, so that their ends there, in this process, need no descriptors.
    let backend = TcpServer::with(host.tcp_listener(v4(1000)).into(), |mut stream| {
        let mut question = [0; 8];
        if stream.read_exact(&mut question).is_ok() {
            let _ = stream.write_all(&question);
        }
    });
    let mut proxy = tcp(v4(FRONT), backend.addr).words(WITH_THREADS).serve(&host);
    let (memory, descriptors) = (proxy.resident(), proxy.descriptors());
    let mut clients: Vec<_> = begin(&host, 10_000).into_iter().map(connected).collect();
    for (client, number) in clients.iter_mut().zip(0_u64..) {
        client.write_all(&number.to_ne_bytes()).unwrap();
    }
    let mut staying = Vec::new();
    for (mut client, number) in clients.into_iter().zip(0_u64..) {
        let mut answer = [0; 8];
        client.read_exact(&mut answer).unwrap_or_else(|e| panic!("client {number}: {e}"));
        assert_eq!(u64::from_ne_bytes(answer), number);
        if number < STAYING {
            staying.push(client);
        }
    }
    wait::until("those that left", || counters(&proxy)["connections"]["open"].as_u64() <= Some(STAYING));
    let each = proxy.resident().saturating_sub(memory) / STAYING;
    assert!(each < 4096, "{each} bytes of memory for each of {STAYING} idle connections");
    let load = proxy.load_over(Duration::from_millis(300));
    assert!(load < 0.05, "a load of {load} with {STAYING} idle connections");
    let stats = counters(&proxy);
    assert_eq!((&stats["connections"]["total"], &stats["errors"]), (&CLIENTS.into(), &0.into()), "{stats}");
    drop(staying);
    all_is_over(&proxy, descriptors);
    assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), &[7; 8]), [7; 8]);
    assert_eq!(proxy.ended(), None);
}

#[test]
fn more_bytes_at_once_than_buffers_arrive_in_order() {
    /// Of every connection, each way: 25 MiB together, where a thread receives into a quarter of one.
    const BYTES: usize = 64 << 10;
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let proxy = tcp(v4(FRONT), backend.addr).words(WITH_THREADS).serve(&host);
    let (memory, descriptors) = (proxy.resident(), proxy.descriptors());
    let mut clients: Vec<_> = (0..400).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    for client in &mut clients {
        SockRef::from(&*client).set_send_buffer_size(4 * BYTES).unwrap();
        assert_eq!(ask(client, PAYLOAD), PAYLOAD);
    }
    for round in 0..3 {
        proxy.signal(Signal::SIGSTOP);
        for (number, client) in clients.iter_mut().enumerate() {
            send_pattern(client, number * 1009 + round, BYTES);
        }
        proxy.signal(Signal::SIGCONT);
        for (number, client) in clients.iter_mut().enumerate() {
            check_pattern(client, number * 1009 + round, BYTES);
        }
    }
    // Buffers that were all taken come back.
    for client in &mut clients {
        assert_eq!(ask(client, PAYLOAD), PAYLOAD);
    }
    drop(clients);
    all_is_over(&proxy, descriptors);
    let more = proxy.resident().saturating_sub(memory);
    assert!(more < 16 << 20, "{more} bytes of memory kept");
}

#[test]
fn messages_that_wait_for_a_stopped_proxy_arrive_in_order() {
    // The same with small ones, which share buffers: some are used up, others half full, when it runs out.
    const MESSAGES: usize = 200;
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let proxy = tcp(v4(FRONT), backend.addr).words(WITH_THREADS).serve(&host);
    let mut clients: Vec<_> = (0..50).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    for client in &mut clients {
        assert_eq!(ask(client, PAYLOAD), PAYLOAD);
    }
    proxy.signal(Signal::SIGSTOP);
    let sizes = |number: usize| (0..MESSAGES).map(move |message| 1 + (number * 31 + message * 17) % 700);
    for message in 0..MESSAGES {
        for (number, client) in clients.iter_mut().enumerate() {
            let before: usize = sizes(number).take(message).sum();
            let size = sizes(number).nth(message).unwrap();
            client.write_all(&pattern(number + before, size)).unwrap();
        }
    }
    proxy.signal(Signal::SIGCONT);
    for (number, client) in clients.iter_mut().enumerate() {
        check_pattern(client, number, sizes(number).sum());
    }
}

#[test]
fn many_streams_that_change_their_pace_cross_unharmed() {
    const ROUNDS: usize = 6;
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let proxy = tcp(v4(FRONT), backend.addr).words(WITH_THREADS).serve(&host);
    let descriptors = proxy.descriptors();
    thread::scope(|scope| {
        for number in 0..24 {
            let host = &host;
            scope.spawn(move || change_pace(host, number, ROUNDS));
        }
    });
    assert_eq!(counters(&proxy)["errors"], 0);
    all_is_over(&proxy, descriptors);
}

/// Round trips and bulk in turns, in another rhythm for each number.
fn change_pace(host: &Host, number: usize, rounds: usize) {
    let mut client = host.connect(v4(FRONT)).unwrap();
    for round in 0..rounds {
        for trip in 0..10 + (number + round) % 20 {
            let size = 1 + (trip * 977 + number) % 5000;
            let question = pattern(trip + number, size);
            assert_eq!(ask(&mut client, &question), question);
        }
        let (seed, bytes) = (number * 10 + round, (300 << 10) + number * 12_345 + round);
        let mut writing = client.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || send_pattern(&mut writing, seed, bytes));
            check_pattern(&mut client, seed, bytes);
        });
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::Closed));
}
