//! A range of ports, and several sockets, in one process.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::lab::{Host, v4, v6};
use e2e::servers::{TcpServer, UdpServer, read_to_ending};
use e2e::traffic::ask_udp;

use crate::netproxy;

/// Offsets into a range of a thousand that are tried: the ends, their neighbours and the middle.
const SAMPLES: [u16; 5] = [0, 1, 500, 998, 999];

/// Servers that say which port they are, at 8000 and so on.
fn backends(host: &Host) -> Vec<TcpServer> {
    let serve = |offset| {
        TcpServer::start(host, v4(8000 + offset), move |mut stream| {
            let _ = std::io::Write::write_all(&mut stream, format!("port {}", 8000 + offset).as_bytes());
        })
    };
    SAMPLES.into_iter().map(serve).collect()
}

#[track_caller]
fn leads_to(host: &Host, at: SocketAddr, port: u16) {
    let said = read_to_ending(&mut host.connect(at).unwrap_or_else(|e| panic!("{at}: {e}"))).0;
    assert_eq!(String::from_utf8_lossy(&said), format!("port {port}"), "at {at}");
}

#[test]
fn a_thousand_tcp_ports_in_one_process() {
    let Some(host) = Host::new("host") else { return };
    let _backends = backends(&host);
    let words = "-host-ip 127.0.0.1 -host-port 7000-7999 -container-ip 127.0.0.1 -container-port 8000-8999";
    let started = Instant::now();
    let proxy = netproxy(words).serve(&host);
    assert!(started.elapsed() < Duration::from_secs(3), "started in {:?}", started.elapsed());
    assert_eq!(
        host.run("ss", &["-Hltn", "sport", ">=", ":7000", "and", "sport", "<=", ":7999"]).lines().count(),
        1000
    );
    for offset in SAMPLES {
        leads_to(&host, v4(7000 + offset), 8000 + offset);
    }
    assert!(proxy.resident() < 64 << 20, "{} bytes for a thousand ports", proxy.resident());
    assert!(proxy.load_over(Duration::from_millis(500)) < 0.1, "idle, it must not work");
    proxy.stop();
    assert_eq!(host.run("ss", &["-Hltn", "sport", ">=", ":7000", "and", "sport", "<=", ":7999"]), "");
}

#[test]
fn a_thousand_udp_ports_in_one_process() {
    let Some(host) = Host::new("host") else { return };
    let backends: Vec<_> = SAMPLES.iter().map(|offset| UdpServer::echo(&host, v4(8000 + offset))).collect();
    let words = "-proto udp -host-ip 127.0.0.1 -host-port 7000-7999 -container-ip 127.0.0.1 -container-port 8000-8999";
    let proxy = netproxy(words).serve(&host);
    // One client, one source port: each port of the proxy has flows of its own.
    let client = host.udp(v4(0));
    for (offset, backend) in SAMPLES.iter().zip(&backends) {
        let to = v4(7000 + offset);
        let payload = format!("to {to}");
        assert_eq!(ask_udp(&client, to, payload.as_bytes()), (payload.clone().into_bytes(), to));
        assert_eq!(backend.wait_for(1)[0].bytes, payload.as_bytes());
    }
    proxy.stop();
}

#[test]
fn bad_ranges_are_reported() {
    let Some(host) = Host::new("host") else { return };
    for (ports, message) in [
        (
            "-host-port 7000-7009 -container-port 80",
            "-host-port 7000-7009 and -container-port 80 differ in length",
        ),
        (
            "-host-port 80 -container-port 7000-7009",
            "-host-port 80 and -container-port 7000-7009 differ in length",
        ),
        (
            "-host-port 7009-7000 -container-port 7000-7009",
            "invalid -host-port 7009-7000: the range descends",
        ),
        ("-host-port 0-9 -container-port 7000-7009", "invalid -host-port 0-9: a range can't start at port 0"),
        (
            "-host-port 65530-65539 -container-port 7000-7009",
            "invalid -host-port 65539: ports go from 0 to 65535",
        ),
    ] {
        let failed = netproxy(&format!("-container-ip 192.0.2.1 {ports}")).fail(&host);
        assert_eq!((failed.code, failed.status), (1, Some(format!("1\n{message}"))), "{ports}");
    }
    let failed = netproxy("-host-port 7000- -container-port 7000").fail(&host);
    assert_eq!((failed.code, failed.status.as_deref()), (2, Some("")));
}

#[test]
fn one_occupied_port_fails_the_range_and_frees_the_others() {
    let Some(host) = Host::new("host") else { return };
    let _occupied = host.listen(v4(7005));
    let words = "-host-ip 127.0.0.1 -host-port 7000-7009 -container-ip 192.0.2.1 -container-port 8000-8009";
    let failed = netproxy(words).fail(&host);
    let message = "1\nfailed to listen on 127.0.0.1:7005: address already in use";
    assert_eq!((failed.code, failed.status.as_deref()), (1, Some(message)));
    for port in (7000..7005).chain(7006..7010) {
        drop(host.listen(v4(port)));
    }
}

#[test]
fn a_range_beyond_the_descriptors_is_reported() {
    let Some(host) = Host::new("host") else { return };
    let words = "-host-ip 127.0.0.1 -host-port 7000-7999 -container-ip 192.0.2.1 -container-port 8000-8999";
    let failed = netproxy(words).through(["prlimit", "--nofile=64:64", "--"]).fail(&host);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    let status = failed.status.unwrap_or_default();
    assert!(status.starts_with("1\n") && status.contains("too many open files"), "{status:?}");
}

#[test]
fn handed_sockets_are_told_apart_by_their_ports() {
    let Some(host) = Host::new("host") else { return };
    let _backends = backends(&host);
    let words = "-host-port 7000-7999 -container-ip 127.0.0.1 -container-port 8000-8999 -use-listen-fd";
    let sockets = [v6(7500), v4(7999), v4(7500), v6(7000)];
    let start = netproxy(words).words(["--listen-fds", "4"]);
    let start = sockets.iter().fold(start, |start, at| start.socket(host.tcp_listener(*at)));
    let proxy = start.serve(&host);
    for at in sockets {
        leads_to(&host, at, at.port() + 1000);
    }
    proxy.stop();
}

#[test]
fn a_handed_range_has_a_socket_for_each_port() {
    let Some(host) = Host::new("host") else { return };
    let _backends = backends(&host);
    let words = "-host-port 7000-7001 -container-ip 127.0.0.1 -container-port 8000-8001 -use-listen-fd";
    let start = netproxy(words).socket(host.tcp_listener(v4(7001))).socket(host.tcp_listener(v4(7000)));
    let proxy = start.serve(&host);
    leads_to(&host, v4(7000), 8000);
    leads_to(&host, v4(7001), 8001);
    proxy.stop();
}

#[test]
fn handed_sockets_that_do_not_fit_are_reported() {
    let Some(host) = Host::new("host") else { return };
    let words = "-host-port 7000-7001 -container-ip 127.0.0.1 -container-port 8000-8001 -use-listen-fd";
    for (sockets, more, reason) in [
        (vec![7000], "", "fd 5"),
        (vec![7000, 7001], "--listen-fds 3", "fd 6"),
        (vec![7000, 7002], "", "outside -host-port 7000-7001"),
    ] {
        let start = netproxy(&format!("{words} {more}"));
        let start = sockets.iter().fold(start, |start, port| start.socket(host.tcp_listener(v4(*port))));
        let failed = start.fail(&host);
        let status = failed.status.unwrap_or_default();
        assert!(failed.code == 1 && status.starts_with("1\n") && status.contains(reason), "{status:?}");
    }
    let failed = netproxy("-host-port 7000 -container-port 8000 --listen-fds 1").fail(&host);
    assert!(
        failed.status.is_some_and(|status| status.starts_with("1\n") && status.contains("-use-listen-fd"))
    );
    let failed = netproxy(&format!("{words} --listen-fds 0")).fail(&host);
    assert_eq!((failed.code, failed.status.as_deref()), (2, Some("")));
}
