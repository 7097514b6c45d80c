//! More clients than descriptors.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use e2e::contract::{Difference, Subject};
use e2e::lab::{Host, v4};
use e2e::proc;
use e2e::servers::{self, TcpServer, UdpServer};
use e2e::traffic::{PAYLOAD, ask, ask_udp};
use e2e::wait;

e2e::contract! {
    every: [
        a_thousand_clients_too_many_are_survived,
        more_udp_clients_than_descriptors_are_survived,
    ],
    binding: [],
}

/// Where the proxy listens.
const FRONT: u16 = 25_587;

/// How many descriptors it may have.
const LIMIT: &str = "--nofile=64:64";

fn a_thousand_clients_too_many_are_survived(subject: &Subject, host: &Host) {
    proc::raise_open_files();
    host.sysctl("net/core/somaxconn", "4096");
    let backend = TcpServer::start(host, v4(0), servers::echo);
    let mut proxy = subject.tcp(host, v4(FRONT), backend.addr).through(["prlimit", LIMIT, "--"]).serve(host);
    let mut clients: Vec<TcpStream> = Vec::new();
    for _ in 0..1_064 {
        match host.connect(v4(FRONT)) {
            Ok(mut client) => {
                let _ = client.write_all(PAYLOAD);
                clients.push(client);
            }
            Err(e) => {
                assert!(subject.has(Difference::DiesOfDescriptors), "client {}: {e}", clients.len());
                break;
            }
        }
    }
    if subject.has(Difference::DiesOfDescriptors) {
        assert_eq!(proxy.code(), 0, "it says nothing is wrong, even");
        return;
    }
    let load = proxy.load_over(Duration::from_secs(1));
    assert!(load < 0.3, "a load of {load} while it can do nothing");
    // As those that were let in leave, each of the others has its turn; nobody is turned away.
    for (number, mut client) in clients.into_iter().enumerate() {
        let mut answer = vec![0; PAYLOAD.len()];
        let read = std::io::Read::read_exact(&mut client, &mut answer);
        read.unwrap_or_else(|e| panic!("client {number}: {e}"));
        assert_eq!(answer, PAYLOAD);
    }
    assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
    proxy.stop();
}

fn more_udp_clients_than_descriptors_are_survived(subject: &Subject, host: &Host) {
    let backend = UdpServer::echo(host, v4(0));
    let start = subject.udp(host, v4(FRONT), backend.addr).variable("NETPROXY_UDP_TIMEOUT", "1");
    let proxy = start.through(["prlimit", LIMIT, "--"]).serve(host);
    let clients: Vec<_> = (0..200).map(|_| host.udp(v4(0))).collect();
    for client in &clients {
        client.send_to(PAYLOAD, v4(FRONT)).unwrap();
    }
    if subject.is_ours() {
        // Datagrams may be lost; service may not.
        let load = proxy.load_over(Duration::from_secs(1));
        assert!(load < 0.3, "a load of {load} while it can do nothing");
        let late = host.udp(v4(0));
        late.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        wait::until("answer for a late client", || {
            late.send_to(PAYLOAD, v4(FRONT)).unwrap();
            late.recv(&mut [0; 100]).is_ok()
        });
    } else {
        // Its flows last 90 s: those that have one are served on.
        assert_eq!(ask_udp(&clients[0], v4(FRONT), PAYLOAD).0, PAYLOAD);
    }
    proxy.stop();
}
