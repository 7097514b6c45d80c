//! Ends that let open connections finish.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::TcpStream;
use std::time::{Duration, Instant};

use e2e::lab::{Host, v4};
use e2e::proxy::Running;
use e2e::servers::{self, TcpServer};
use e2e::traffic::{PAYLOAD, ask};
use e2e::wait;
use nix::sys::signal::Signal;

use crate::{FRONT, tcp};

/// A proxy that drains for `seconds`, with one connection open, after a first SIGTERM.
fn draining(host: &Host, backend: &TcpServer, seconds: &str) -> (Running, TcpStream) {
    let proxy = tcp(v4(FRONT), backend.addr).words(["--drain", seconds]).serve(host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
    proxy.signal(Signal::SIGTERM);
    wait::until("end of listening", || host.connect(v4(FRONT)).is_err());
    (proxy, client)
}

#[test]
fn open_connections_finish_before_the_end() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let (mut proxy, mut client) = draining(&host, &backend, "30");
    for _ in 0..3 {
        assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
    }
    assert_eq!(proxy.ended(), None);
    drop(client);
    assert_eq!(proxy.wait_for(Duration::from_secs(2)).code(), Some(0));
}

#[test]
fn draining_ends_in_time() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let started = Instant::now();
    let (mut proxy, mut client) = draining(&host, &backend, "1");
    assert_eq!(proxy.code(), 0);
    let took = started.elapsed();
    assert!((900..4000).contains(&took.as_millis()), "drained for {took:?} instead of 1 s");
    assert_ne!(servers::read_to_ending(&mut client).1, servers::Ending::Open);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut proxy, _client) = draining(&host, &backend, "60");
        proxy.signal(signal);
        assert_eq!(proxy.wait_for(Duration::from_secs(1)).code(), Some(0));
    }
}

#[test]
fn without_connections_there_is_nothing_to_wait_for() {
    let Some(host) = Host::new("host") else { return };
    // From the environment too: dockerd hands its own on.
    let start = tcp(v4(FRONT), v4(9000)).variable("NETPROXY_DRAIN", "60");
    start.serve(&host).stop();
}

#[test]
fn a_successor_takes_new_connections_while_the_old_proxy_drains() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let listener = host.tcp_listener(v4(FRONT));
    let start = || {
        let start = tcp(v4(FRONT), backend.addr).words(["-use-listen-fd", "--drain", "30"]);
        start.socket(listener.try_clone().unwrap()).serve(&host)
    };
    let mut old = start();
    let mut client = host.connect(v4(FRONT)).unwrap();
    assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
    let new = start();
    old.signal(Signal::SIGTERM);
    for _ in 0..20 {
        assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
        assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
    }
    drop(client);
    assert_eq!(old.code(), 0);
    new.stop();
}
