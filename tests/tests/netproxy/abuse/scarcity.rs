//! Everything at once, with next to no descriptors.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use e2e::lab::{Host, v4};
use e2e::servers::{self, TcpServer, UdpServer};
use e2e::traffic::{PAYLOAD, ask};
use e2e::wait;

use super::{all_is_over, obey, order, pour};
use crate::{FRONT, counters, tcp, udp};

/// How many descriptors a proxy may have.
const FEW: [&str; 3] = ["prlimit", "--nofile=64:64", "--"];
/// For how long.
const SPAN: Duration = Duration::from_secs(2);

/// Runs `clients` over and over, each on a thread of its own, until the time is up.
fn all_at_once(clients: &[&(dyn Fn() + Sync)]) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    client();
                }
            });
        }
        thread::sleep(SPAN);
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_proxy_short_of_descriptors_survives_every_kind_of_client() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), obey);
    let mut proxy = tcp(v4(FRONT), backend.addr).through(FEW).serve(&host);
    let before = proxy.descriptors();
    let connect = |what| {
        let client = host.connect(v4(FRONT)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        order(&client, what);
        client
    };
    let chat = || assert_eq!(ask(&mut connect(b'e'), PAYLOAD), PAYLOAD);
    let come_and_go = || servers::reset(host.connect(v4(FRONT)).unwrap());
    let download = || {
        let mut client = connect(b'd');
        let _ = client.read_exact(&mut vec![0; 1 << 20]);
        servers::reset(client);
    };
    let upload = || {
        let mut client = connect(b'u');
        client.write_all(&vec![0; 1 << 20]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
    };
    let cut = || _ = pour(&connect(b'U'), 0, usize::MAX);
    let stall = || {
        let client = connect(b'd');
        thread::sleep(Duration::from_millis(100));
        drop(client);
    };
    all_at_once(&[
        &chat,
        &chat,
        &chat,
        &chat,
        &come_and_go,
        &come_and_go,
        &download,
        &download,
        &download,
        &download,
        &upload,
        &upload,
        &upload,
        &upload,
        &cut,
        &cut,
        &stall,
        &stall,
        &stall,
        &stall,
        &stall,
        &stall,
    ]);
    all_is_over(&proxy, before);
    chat();
    assert_eq!(proxy.ended(), None);
    proxy.stop();
}

#[test]
fn clients_that_hold_all_descriptors_are_served_and_the_rest_waits_at_no_cost() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), obey);
    let proxy = tcp(v4(FRONT), backend.addr).through(FEW).serve(&host);
    let before = proxy.descriptors();
    // Some stand still in the middle of a transfer, and there are more than may come in.
    let mut clients: Vec<_> = (0..60).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    for (client, what) in clients.iter_mut().zip([b'd', b'e', b'u'].into_iter().cycle()) {
        order(client, what);
    }
    thread::sleep(Duration::from_millis(300));
    let load = proxy.load_over(Duration::from_millis(700));
    assert!(load < 0.2, "a load of {load} while it can do nothing");
    assert_eq!(ask(&mut clients[1], PAYLOAD), PAYLOAD);
    drop(clients);
    all_is_over(&proxy, before);
    proxy.stop();
}

#[test]
fn a_proxy_short_of_descriptors_survives_every_kind_of_datagram() {
    const SIZES: [usize; 4] = [0, 1, 1472, 65_507];
    let Some(host) = Host::new("host") else { return };
    let backend = UdpServer::echo(&host, v4(0));
    let start = udp(v4(FRONT), backend.addr).words(["--udp-timeout", "500ms"]);
    let mut proxy = start.through(FEW).serve(&host);
    let before = proxy.descriptors();
    let ask = |size: usize| {
        let client = host.udp(v4(0));
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        client.send_to(&vec![7; size], v4(FRONT)).unwrap();
        let mut echo = vec![0; 65_536];
        // Lost it may be, or meant for a client that had the port before; cut, grown or changed it may not be.
        if let Ok(n) = client.recv(&mut echo) {
            assert!(SIZES.contains(&n) && echo[..n].iter().all(|byte| *byte == 7), "{n} bytes");
        }
    };
    let [empty, tiny, packet, giant] = SIZES.map(|size| move || ask(size));
    let leave = || _ = host.udp(v4(0)).send_to(&[7], v4(FRONT)).unwrap();
    all_at_once(&[&tiny, &tiny, &empty, &packet, &packet, &giant, &leave, &leave]);
    wait::until("end of the flows", || counters(&proxy)["flows"]["open"] == 0);
    wait::until("descriptors given back", || proxy.descriptors() <= before + 4);
    let load = proxy.load_over(Duration::from_millis(300));
    assert!(load < 0.1, "a load of {load} with nothing to do");
    let late = host.udp(v4(0));
    assert_eq!(e2e::traffic::ask_udp(&late, v4(FRONT), PAYLOAD).0, PAYLOAD);
    assert_eq!(proxy.ended(), None);
    proxy.stop();
}
