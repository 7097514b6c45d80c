//! Clients and backends that don't read, don't write, or write next to nothing.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::lab::{Host, v4};
use e2e::proxy::Running;
use e2e::servers::{self, TcpServer};
use e2e::traffic::{PAYLOAD, ask, check_pattern};
use e2e::wait;

use super::{WITH_THREADS, all_is_over, obey, order, pour};
use crate::{FRONT, counters, tcp};

/// What stalled connections may take of the proxy's own memory.
const MEMORY: u64 = 4 << 20;

/// Asks a few times over connections of their own.
#[track_caller]
fn others_are_served(host: &Host) {
    let started = Instant::now();
    for _ in 0..10 {
        let mut client = host.connect(v4(FRONT)).unwrap();
        order(&client, b'e');
        assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "10 requests took {:?}", started.elapsed());
}

/// Waits until the proxy moves nothing more in this direction.
#[track_caller]
fn stalled(proxy: &Running, direction: &str) {
    let mut last = (serde_json::Value::Null, Instant::now());
    wait::until("standstill", || {
        let bytes = counters(proxy)[direction]["bytes"].clone();
        if bytes != last.0 {
            last = (bytes, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(300)
    });
}

#[track_caller]
fn costs_next_to_nothing(proxy: &Running, before: u64) {
    let load = proxy.load_over(Duration::from_millis(500));
    assert!(load < 0.05, "a load of {load} for connections that stand still");
    let more = proxy.resident().saturating_sub(before);
    assert!(more < MEMORY, "{more} bytes of memory more");
}

#[test]
fn clients_that_never_read_stop_their_backends() {
    const CLIENTS: usize = 5;
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), obey);
    let proxy = tcp(v4(FRONT), backend.addr).words(WITH_THREADS).serve(&host);
    let descriptors = proxy.descriptors();
    others_are_served(&host);
    let before = proxy.resident();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    clients.iter().for_each(|client| order(client, b'd'));
    stalled(&proxy, "to_client");
    costs_next_to_nothing(&proxy, before);
    others_are_served(&host);
    // They had only been slow: nothing is missing. And gone they leave nothing behind.
    for client in &mut clients {
        check_pattern(client, 0, 24 << 20);
    }
    clients.into_iter().for_each(servers::reset);
    all_is_over(&proxy, descriptors);
}

#[test]
fn backends_that_never_read_stop_their_clients() {
    const CLIENTS: usize = 5;
    let Some(host) = Host::new("host") else { return };
    let go = Arc::new(AtomicBool::new(false));
    let read = Arc::clone(&go);
    let backend = TcpServer::start(&host, v4(0), move |mut stream| {
        let mut first = [0];
        if stream.read_exact(&mut first).is_ok() && first == [b'e'] {
            return servers::echo(stream);
        }
        wait::until("word to go on", || read.load(Ordering::SeqCst));
        check_pattern(&mut stream, 1, 24 << 20);
        servers::reset(stream);
    });
    let proxy = tcp(v4(FRONT), backend.addr).words(WITH_THREADS).serve(&host);
    let descriptors = proxy.descriptors();
    others_are_served(&host);
    let before = proxy.resident();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let client = host.connect(v4(FRONT)).unwrap();
            client.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
            scope.spawn(move || {
                order(&client, b'x');
                pour(&client, 1, usize::MAX);
            });
        }
        stalled(&proxy, "to_backend");
        costs_next_to_nothing(&proxy, before);
        others_are_served(&host);
        go.store(true, Ordering::SeqCst);
    });
    all_is_over(&proxy, descriptors);
}

#[test]
fn clients_that_never_write_cost_next_to_nothing() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), obey);
    let proxy = tcp(v4(FRONT), backend.addr).words(WITH_THREADS).serve(&host);
    let descriptors = proxy.descriptors();
    others_are_served(&host);
    let before = proxy.resident();
    let clients: Vec<_> = (0..200).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    wait::until("connections", || counters(&proxy)["connections"]["open"].as_u64() >= Some(200));
    costs_next_to_nothing(&proxy, before);
    others_are_served(&host);
    drop(clients);
    all_is_over(&proxy, descriptors);
}

#[test]
fn every_byte_of_a_trickle_is_passed_on_at_once() {
    const CONNECTIONS: usize = 50;
    const TICK: Duration = Duration::from_millis(20);
    const TICKS: u32 = 100;
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let proxy = tcp(v4(FRONT), backend.addr).words(WITH_THREADS).serve(&host);
    let mut clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    let (cpu, started) = (proxy.cpu_time(), Instant::now());
    let mut waits = Vec::new();
    for (tick, byte) in (1..=TICKS).zip((0..=u8::MAX).cycle()) {
        for client in &mut clients {
            client.write_all(&[byte]).unwrap();
        }
        let sent = Instant::now();
        for client in &mut clients {
            let mut echo = [0];
            client.read_exact(&mut echo).unwrap();
            assert_eq!(echo, [byte]);
            waits.push(sent.elapsed());
        }
        thread::sleep((TICK * tick).saturating_sub(started.elapsed()));
    }
    let load = (proxy.cpu_time() - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
    assert!(load < 0.5, "a load of {load} for {CONNECTIONS} bytes every {TICK:?}");
    // What held a byte back would do so every time; a busy machine only now and then.
    waits.sort_unstable();
    let (most, worst) = (waits[waits.len() * 95 / 100], waits[waits.len() - 1]);
    assert!(most < Duration::from_millis(100), "one echo in twenty took {most:?} or more");
    assert!(worst < Duration::from_secs(1), "an echo took {worst:?}");
}
