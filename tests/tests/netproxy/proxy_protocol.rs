//! `--proxy-protocol` and `--accept-proxy-protocol`: the backend learns who the client is, and nobody else may say so.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use e2e::lab::{Host, v4, v6};
use e2e::need;
use e2e::proc::Proc;
use e2e::proxy::Start;
use e2e::servers::{self, Ending, TcpServer, read_to_ending};
use e2e::traffic::{PAYLOAD, ask, check_pattern, send_pattern};
use e2e::wait::{self, PATIENCE};

use crate::{FRONT, counters, netproxy, tcp, udp};

/// Every local client must begin with a header.
const TRUST: [&str; 2] = ["--accept-proxy-protocol", "127.0.0.0/8,::1"];
/// An address that is nobody's here.
const FAR: &str = "198.51.100.7:4711";
const FAR_FRONT: &str = "203.0.113.9:443";
const FAR_6: &str = "[2001:db8::7]:4711";
const FAR_FRONT_6: &str = "[2001:db8::9]:443";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The header that says `from` connected to `to`, put together by hand.
fn header(version: &str, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    match version {
        "v1" => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let (ip, port) = (from.ip(), from.port());
            format!("PROXY {family} {ip} {} {port} {}\r\n", to.ip(), to.port()).into_bytes()
        }
        _ => {
            let octets = |addr: SocketAddr| match addr.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let body = [octets(from), octets(to)].concat();
            let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
            v2(0x21, if from.is_ipv4() { 0x11 } else { 0x21 }, &[body, ports].concat())
        }
    }
}

/// A header of version 2.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &len, body].concat()
}

/// Sends this and a half-close, and returns everything the backend got, which must be [`servers::half_close_echo`].
#[track_caller]
fn delivered(mut client: TcpStream, bytes: &[u8]) -> String {
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (got, ending) = read_to_ending(&mut client);
    assert_eq!(ending, Ending::Closed);
    readable(&got)
}

/// For messages that a person can compare.
fn readable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[track_caller]
fn connect_from(host: &Host, to: SocketAddr) -> (TcpStream, SocketAddr) {
    let client = host.connect(to).unwrap();
    let from = client.local_addr().unwrap();
    (client, from)
}

#[test]
fn the_backend_is_told_who_the_client_is() {
    let Some(host) = Host::new("host") else { return };
    let mut ports = FRONT..;
    for backend_at in [v4(0), v6(0)] {
        let backend = TcpServer::start(&host, backend_at, servers::half_close_echo);
        for version in ["v1", "v2"] {
            for at in [v4(0), v6(0)] {
                let at = SocketAddr::new(at.ip(), ports.next().unwrap());
                let proxy = tcp(at, backend.addr).words(["--proxy-protocol", version]).serve(&host);
                let (client, from) = connect_from(&host, at);
                let want = [header(version, from, at).as_slice(), PAYLOAD].concat();
                assert_eq!(delivered(client, PAYLOAD), readable(&want), "{version} {at} -> {backend_at}");
                // The header is no payload.
                assert_eq!(counters(&proxy)["to_backend"]["bytes"], PAYLOAD.len());
                proxy.stop();
            }
        }
    }
}

#[test]
fn the_address_told_is_the_one_the_client_connected_to() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::half_close_echo);
    let any = SocketAddr::from(([0, 0, 0, 0], FRONT));
    let _proxy = tcp(any, backend.addr).variable("NETPROXY_PROXY_PROTOCOL", "v1").serve(&host);
    let to = SocketAddr::from(([127, 1, 2, 3], FRONT));
    let (client, from) = connect_from(&host, to);
    assert_eq!(delivered(client, b""), readable(&header("v1", from, to)));
}

#[test]
fn ipv4_clients_of_a_dual_stack_socket_are_ipv4_clients() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::half_close_echo);
    let any = addr(&format!("[::]:{FRONT}"));
    let start = tcp(any, backend.addr).words(["--proxy-protocol", "v2"]).word("-use-listen-fd");
    let _proxy = start.socket(host.listen(any)).serve(&host);
    for to in [v4(FRONT), v6(FRONT)] {
        let (client, from) = connect_from(&host, to);
        assert_eq!(delivered(client, b""), readable(&header("v2", from, to)));
    }
}

#[test]
fn the_header_waits_for_no_byte_of_the_clients() {
    let Some(host) = Host::new("host") else { return };
    let (told, tell) = mpsc::channel();
    let backend = TcpServer::start(&host, v4(0), move |mut stream| {
        let mut header = [0; 28];
        stream.read_exact(&mut header).unwrap();
        told.send(header.to_vec()).unwrap();
        stream.write_all(b"220 ready\r\n").unwrap();
    });
    let _proxy = tcp(v4(FRONT), backend.addr).words(["--proxy-protocol", "v2"]).serve(&host);
    let (mut client, from) = connect_from(&host, v4(FRONT));
    assert_eq!(tell.recv_timeout(PATIENCE).unwrap(), header("v2", from, v4(FRONT)));
    assert_eq!(read_to_ending(&mut client), (b"220 ready\r\n".to_vec(), Ending::Closed));
}

#[test]
fn clients_that_leave_at_once_leave_a_whole_header_or_nothing() {
    let Some(host) = Host::new("host") else { return };
    let (told, tell) = mpsc::channel();
    let backend = TcpServer::start(&host, v4(0), move |mut stream| {
        let _ = told.send(read_to_ending(&mut stream).0);
    });
    let proxy = tcp(v4(FRONT), backend.addr).words(["--proxy-protocol", "v1"]).serve(&host);
    for _ in 0..50 {
        let (client, from) = connect_from(&host, v4(FRONT));
        drop(client);
        assert_eq!(readable(&tell.recv_timeout(PATIENCE).unwrap()), readable(&header("v1", from, v4(FRONT))));
    }
    for _ in 0..50 {
        let mut client = host.connect(v4(FRONT)).unwrap();
        client.write_all(PAYLOAD).unwrap();
        servers::reset(client);
    }
    wait::until("end of the connections", || counters(&proxy)["connections"]["open"] == 0);
    drop(backend);
    for got in tell.try_iter() {
        assert!(got.is_empty() || got.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "), "{}", readable(&got));
    }
    proxy.stop();
}

#[test]
fn a_backend_that_refuses_is_still_a_refusal() {
    let Some(host) = Host::new("host") else { return };
    let proxy = tcp(v4(FRONT), v4(9)).words(["--proxy-protocol", "v2"]).words(TRUST).serve(&host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    client.write_all(&v2(0x20, 0, &[])).unwrap();
    assert_eq!(read_to_ending(&mut client).1, Ending::Reset);
    let resetting = TcpServer::start(&host, v4(9), servers::reset);
    let mut client = host.connect(v4(FRONT)).unwrap();
    client.write_all(&v2(0x20, 0, &[])).unwrap();
    assert_eq!(read_to_ending(&mut client).1, Ending::Reset);
    drop(resetting);
    // A reset may be fast enough to be the dial's.
    let expected =
        |failed| serde_json::json!({"open": 0, "total": 2, "refused": 1, "failed": failed, "rejected": 0});
    wait::until("one refusal", || {
        let connections = &counters(&proxy)["connections"];
        *connections == expected(0) || *connections == expected(1)
    });
}

#[test]
fn big_streams_follow_a_header_unharmed() {
    const BYTES: usize = 20 << 20;
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), |mut stream| {
        let mut first = vec![0; header("v2", addr(FAR_6), addr(FAR_FRONT_6)).len()];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(readable(&first), readable(&header("v2", addr(FAR_6), addr(FAR_FRONT_6))));
        check_pattern(&mut stream, 1, BYTES);
        send_pattern(&mut stream, 2, BYTES);
    });
    let proxy = tcp(v4(FRONT), backend.addr).words(["--proxy-protocol", "v2"]).words(TRUST).serve(&host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    client.write_all(&header("v1", addr(FAR_6), addr(FAR_FRONT_6))).unwrap();
    send_pattern(&mut client, 1, BYTES);
    check_pattern(&mut client, 2, BYTES);
    assert_eq!(counters(&proxy)["to_backend"]["bytes"], BYTES);
}

/// Source and destination that a header tells; `None` leaves the connection's own standing.
type Told = Option<(&'static str, &'static str)>;

/// Headers a trusted client may begin with, and what the backend is then told.
fn good_headers() -> Vec<(Vec<u8>, Told)> {
    let (four, six) = ((FAR, FAR_FRONT), (FAR_6, FAR_FRONT_6));
    let of = |version, (from, to)| header(version, addr(from), addr(to));
    let extras = [&of("v2", four)[16..], &[0xEE; 4096]].concat();
    vec![
        (of("v1", four), Some(four)),
        (of("v1", six), Some(six)),
        (of("v2", four), Some(four)),
        (of("v2", six), Some(six)),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN what else is said counts for nothing\r\n".to_vec(), None),
        (v2(0x20, 0, &[]), None),
        (v2(0x20, 0x11, &[1; 12]), None),
        (v2(0x21, 0x31, &[b'/'; 216]), None),
        (v2(0x21, 0x11, &extras), Some(four)),
    ]
}

#[test]
fn a_trusted_clients_header_is_taken_off_and_passed_on() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::half_close_echo);
    let mut ports = FRONT..;
    for at in [v4(0), v6(0)] {
        for out in ["", "v1", "v2"] {
            let at = SocketAddr::new(at.ip(), ports.next().unwrap());
            let out_words = if out.is_empty() { Vec::new() } else { vec!["--proxy-protocol", out] };
            let proxy = tcp(at, backend.addr).words(TRUST).words(out_words).serve(&host);
            for (sent, told) in good_headers() {
                let (client, from) = connect_from(&host, at);
                let (source, destination) = told.map_or((from, at), |(s, d)| (addr(s), addr(d)));
                let first = if out.is_empty() { Vec::new() } else { header(out, source, destination) };
                // In one segment with what follows it.
                let got = delivered(client, &[sent.as_slice(), PAYLOAD].concat());
                let want = readable(&[first.as_slice(), PAYLOAD].concat());
                assert_eq!(got, want, "{at} {out:?} {}", readable(&sent[..sent.len().min(60)]));
            }
            assert_eq!(counters(&proxy)["connections"]["rejected"], 0);
            proxy.stop();
        }
    }
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::half_close_echo);
    let _proxy = tcp(v4(FRONT), backend.addr).words(TRUST).serve(&host);
    thread::scope(|scope| {
        for (sent, _) in good_headers().into_iter().filter(|(sent, _)| sent.len() < 300) {
            let host = &host;
            scope.spawn(move || {
                let mut client = host.connect(v4(FRONT)).unwrap();
                for byte in &sent {
                    client.write_all(&[*byte]).unwrap();
                    thread::sleep(Duration::from_millis(2));
                }
                assert_eq!(delivered(client, PAYLOAD), readable(PAYLOAD));
            });
        }
    });
}

#[test]
fn what_looks_like_a_second_header_is_the_clients() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::half_close_echo);
    let _proxy = tcp(v4(FRONT), backend.addr).words(TRUST).serve(&host);
    let one = header("v1", addr(FAR), addr(FAR_FRONT));
    let got = delivered(host.connect(v4(FRONT)).unwrap(), &[one.clone(), one.clone()].concat());
    assert_eq!(got, readable(&one));
}

#[test]
fn a_trusted_client_without_a_proper_header_is_reset() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let proxy = tcp(v4(FRONT), backend.addr).words(TRUST).words(["--proxy-protocol", "v1"]).serve(&host);
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    let cases: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x16\x03\x01".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n".to_vec(),
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
        endless.into_bytes(),
        v2(0x31, 0x11, &[0; 12]),
        v2(0x2F, 0x11, &[0; 12]),
        v2(0x21, 0x51, &[0; 12]),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x11, &[0; 40_000]),
    ];
    for (number, bytes) in (1..).zip(&cases) {
        let mut client = host.connect(v4(FRONT)).unwrap();
        let _ = client.write_all(bytes); // it may be reset in the middle
        let shown = readable(&bytes[..bytes.len().min(40)]);
        assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::Reset), "{shown}");
        wait::until("rejection counted", || counters(&proxy)["connections"]["rejected"] == number);
    }
    // Those that end within it, or before it.
    for (number, bytes) in (cases.len() + 1..).zip([&b"PROXY TCP4 1.2.3.4"[..], &[]]) {
        let mut client = host.connect(v4(FRONT)).unwrap();
        client.write_all(bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::Reset), "{}", readable(bytes));
        wait::until("rejection counted", || counters(&proxy)["connections"]["rejected"] == number);
    }
    assert_eq!(backend.accepted(), 0, "none of them is the backend's business");
    assert_eq!(counters(&proxy)["errors"], 0);
    let said = proxy.stderr();
    assert!(said.contains("127.0.0.1:") && said.contains("no PROXY protocol header"), "{said}");
    assert!(said.lines().count() < 6, "a line for each: {said}");
    // And it goes on.
    let mut client = host.connect(v4(FRONT)).unwrap();
    client.write_all(&v2(0x20, 0, &[])).unwrap();
    let mut first = vec![0; header("v1", client.local_addr().unwrap(), v4(FRONT)).len()];
    client.read_exact(&mut first).unwrap();
    assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
}

#[test]
fn silent_clients_are_given_up_and_cost_nothing_meanwhile() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let start = tcp(v4(FRONT), backend.addr).words(TRUST).words(["--connect-timeout", "1500ms"]);
    let proxy = start.serve(&host);
    let before = proxy.descriptors();
    let started = Instant::now();
    let mut clients: Vec<_> = (0..60).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    for (client, bytes) in clients.iter_mut().zip([&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0"].iter().cycle()) {
        client.write_all(bytes).unwrap();
    }
    // Others are served meanwhile, and nothing spins.
    let mut other = host.connect(v4(FRONT)).unwrap();
    other.write_all(&v2(0x20, 0, &[])).unwrap();
    assert_eq!(ask(&mut other, PAYLOAD), PAYLOAD);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let load = proxy.load_over(Duration::from_millis(300));
    assert!(load < 0.1, "a load of {load} while waiting");
    for client in &mut clients {
        assert_eq!(read_to_ending(client), (Vec::new(), Ending::Reset));
    }
    let waited = started.elapsed();
    assert!((1500..5000).contains(&waited.as_millis()), "{waited:?} instead of 1.5 s");
    assert_eq!(ask(&mut other, PAYLOAD), PAYLOAD);
    wait::until("rejections counted", || counters(&proxy)["connections"]["rejected"] == clients.len());
    // But for those of the other, and of threads started meanwhile.
    wait::until("descriptors given back", || proxy.descriptors() <= before + 20);
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn nobody_else_may_say_who_he_is() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::half_close_echo);
    let words = ["--accept-proxy-protocol", "10.0.0.0/8,127.0.0.2,2001:db8::/32", "--proxy-protocol", "v1"];
    let _proxy = tcp(v4(FRONT), backend.addr).words(words).serve(&host);
    let lie = header("v2", addr(FAR), addr(FAR_FRONT));
    for bytes in [&lie[..], PAYLOAD] {
        let (client, from) = connect_from(&host, v4(FRONT));
        let want = [header("v1", from, v4(FRONT)).as_slice(), bytes].concat();
        assert_eq!(delivered(client, bytes), readable(&want));
    }
}

#[test]
fn it_goes_through_two_proxies() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v6(0), servers::half_close_echo);
    let inner = v6(FRONT + 1);
    let _inner = tcp(inner, backend.addr).words(TRUST).words(["--proxy-protocol", "v1"]).serve(&host);
    let _outer = tcp(v4(FRONT), inner).words(["--proxy-protocol", "v2"]).serve(&host);
    let (client, from) = connect_from(&host, v4(FRONT));
    let want = [header("v1", from, v4(FRONT)).as_slice(), PAYLOAD].concat();
    assert_eq!(delivered(client, PAYLOAD), readable(&want));
}

#[test]
fn datagrams_have_no_header() {
    let Some(host) = Host::new("host") else { return };
    let sctp = "-proto sctp -host-ip 127.0.0.1 -host-port 7 -container-ip 127.0.0.1 -container-port 9";
    let starts: [(&str, &dyn Fn() -> Start); 2] =
        [("udp", &|| udp(v4(FRONT), v4(9))), ("sctp", &|| netproxy(sctp))];
    for (protocol, start) in starts {
        for (option, value) in [("proxy-protocol", "v1"), ("accept-proxy-protocol", "::/0")] {
            let failed = start().words([&format!("--{option}"), value]).fail(&host);
            let complaint = format!("1\n-{option} needs -proto tcp, not {protocol}");
            assert_eq!((failed.code, failed.status.as_deref()), (1, Some(complaint.as_str())));
        }
    }
    // An environment is the same for all of dockerd's proxies.
    let start = udp(v4(FRONT), v4(9)).variable("NETPROXY_PROXY_PROTOCOL", "v1");
    start.variable("NETPROXY_ACCEPT_PROXY_PROTOCOL", "::/0").serve(&host).stop();
}

/// A running HAProxy with these sections, once it answers at `at`.
#[track_caller]
fn haproxy(host: &Host, sections: &str, at: SocketAddr) -> Option<(Proc, tempfile::NamedTempFile)> {
    let program = need::program("haproxy")?;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let defaults = "defaults\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n";
    writeln!(file, "global\n nbthread 1\n{defaults}{sections}").unwrap();
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(file.path());
    let mut running = host.spawn(command);
    wait::until("haproxy", || {
        assert_eq!(running.ended(), None, "{}{}", running.stdout(), running.stderr());
        host.connect(at).is_ok()
    });
    Some((running, file))
}

#[test]
fn haproxy_understands_our_header() {
    let Some(host) = Host::new("host") else { return };
    let at = v4(9000);
    let answer = "lf-string \"%[src] %[src_port] %[dst] %[dst_port]\"";
    let sections = format!(
        "frontend web\n mode http\n bind {at} accept-proxy\n \
         http-request return status 200 content-type text/plain {answer}\n"
    );
    let Some(_haproxy) = haproxy(&host, &sections, at) else { return };
    let mut ports = FRONT..;
    for version in ["v1", "v2"] {
        for ip in [v4(0).ip(), v6(0).ip()] {
            let front = SocketAddr::new(ip, ports.next().unwrap());
            let _proxy = tcp(front, at).words(["--proxy-protocol", version]).serve(&host);
            let (mut client, from) = connect_from(&host, front);
            client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let answer = String::from_utf8(read_to_ending(&mut client).0).unwrap();
            let want = format!("{} {} {} {}", from.ip(), from.port(), front.ip(), front.port());
            assert!(answer.ends_with(&format!("\r\n\r\n{want}")), "{version} {front}: {answer:?}");
        }
    }
}

#[test]
fn we_understand_haproxys_header() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::half_close_echo);
    let proxy = tcp(v4(FRONT), backend.addr).words(TRUST).words(["--proxy-protocol", "v1"]).serve(&host);
    let fronts = ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"];
    for (at, how) in (9000..).map(v4).zip(fronts) {
        let six = v6(at.port());
        let sections = format!(
            "listen front\n mode tcp\n bind {at}\n bind {six}\n unique-id-format %ci:%cp\n \
             server netproxy {} {how} check inter 200\n",
            v4(FRONT)
        );
        let Some(_haproxy) = haproxy(&host, &sections, at) else { return };
        for front in [at, six] {
            let (client, from) = connect_from(&host, front);
            let want = [header("v1", from, front).as_slice(), PAYLOAD].concat();
            assert_eq!(delivered(client, PAYLOAD), readable(&want), "{how} {front}");
        }
        // Its health checks announce themselves as its own.
        let before = counters(&proxy)["connections"]["total"].as_u64().unwrap();
        wait::until("health check", || {
            counters(&proxy)["connections"]["total"].as_u64().unwrap() > before + 2
        });
    }
    // Checks that were cut off when HAProxy was stopped may be among them.
    let rejected = counters(&proxy)["connections"]["rejected"].as_u64().unwrap();
    assert!(rejected <= 3, "{rejected} rejected: {}", proxy.stderr());
}
