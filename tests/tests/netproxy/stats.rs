//! `--stats`: numbers that agree with what was sent, and errors that say what is wrong.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::net::TcpListener;
use std::process::Command;

use e2e::bin;
use e2e::lab::{Host, v4};
use e2e::need;
use e2e::proc::Proc;
use e2e::servers::{self, Ending, TcpServer, UdpServer, read_to_ending};
use e2e::traffic::{PAYLOAD, ask, ask_udp, check_pattern, send_pattern};
use e2e::wait;
use serde_json::{Value, json};

use crate::{FRONT, counters, netproxy, tcp, udp};

/// Asks from the machine's own network namespace, as an administrator would.
#[track_caller]
fn said(words: &[&str]) -> (i32, String, String) {
    let mut asking = Proc::spawn(Command::new(bin::netproxy()).args(words));
    (asking.code(), asking.stdout(), asking.stderr())
}

/// The counters of a process id or socket.
#[track_caller]
pub(crate) fn of(whom: &str) -> Value {
    let (code, stdout, stderr) = said(&["--stats", whom]);
    assert_eq!(code, 0, "--stats {whom}: {stderr}");
    assert_eq!(stdout.lines().count(), 1, "one line: {stdout}");
    serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("--stats {whom}: {e}: {stdout}"))
}

#[test]
fn tcp_is_counted() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(9000), servers::echo);
    let proxy = tcp(v4(FRONT), backend.addr).serve(&host);
    let mut clients: Vec<_> = (0..3).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    for client in &mut clients {
        assert_eq!(ask(client, PAYLOAD), PAYLOAD);
    }
    let stats = counters(&proxy);
    assert_eq!(stats["pid"], proxy.pid());
    assert_eq!(
        (&stats["protocol"], &stats["host"], &stats["target"]),
        (&json!("tcp"), &json!("127.0.0.1:25587"), &json!("127.0.0.1:9000"))
    );
    assert!(stats["engine"].is_string() && stats["uptime_seconds"].is_u64(), "{stats}");
    assert_eq!(
        stats["connections"],
        json!({"open": 3, "total": 3, "refused": 0, "failed": 0, "rejected": 0})
    );
    assert_eq!(stats["to_backend"], json!({"bytes": 3 * PAYLOAD.len()}));
    assert_eq!(stats["to_client"], json!({"bytes": 3 * PAYLOAD.len()}));
    assert_eq!(stats["errors"], 0);
    assert!(stats.get("flows").is_none());
    clients.clear();
    wait::until("closed connections", || counters(&proxy)["connections"]["open"] == 0);

    drop(backend);
    for _ in 0..2 {
        if let Ok(mut client) = host.connect(v4(FRONT)) {
            assert_eq!(read_to_ending(&mut client).1, Ending::Reset);
        }
    }
    let expected = json!({"open": 0, "total": 5, "refused": 2, "failed": 0, "rejected": 0});
    wait::until("two refusals", || counters(&proxy)["connections"] == expected);
    proxy.stop();
}

#[test]
fn a_stream_is_counted_to_the_byte() {
    const BYTES: usize = 20 << 20;
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), |mut stream| {
        check_pattern(&mut stream, 0, BYTES);
        send_pattern(&mut stream, 1, BYTES / 2);
    });
    let proxy = tcp(v4(FRONT), backend.addr).serve(&host);
    let mut client = host.connect(v4(FRONT)).unwrap();
    send_pattern(&mut client, 0, BYTES);
    check_pattern(&mut client, 1, BYTES / 2);
    let stats = counters(&proxy);
    assert_eq!(stats["to_backend"]["bytes"], BYTES);
    assert_eq!(stats["to_client"]["bytes"], BYTES / 2);
}

#[test]
fn unreachable_targets_are_counted_as_failures() {
    let Some(host) = Host::new("host") else { return };
    host.ip("route add unreachable 192.0.2.0/24");
    let proxy = tcp(v4(FRONT), ([192, 0, 2, 1], 80).into()).serve(&host);
    if let Ok(mut client) = host.connect(v4(FRONT)) {
        assert_eq!(read_to_ending(&mut client).1, Ending::Reset);
    }
    let expected = json!({"open": 0, "total": 1, "refused": 0, "failed": 1, "rejected": 0});
    wait::until("failure", || counters(&proxy)["connections"] == expected);
}

#[test]
fn udp_is_counted() {
    let Some(host) = Host::new("host") else { return };
    let backend = UdpServer::echo(&host, v4(9000));
    let proxy = udp(v4(FRONT), backend.addr).serve(&host);
    let clients = [host.udp(v4(0)), host.udp(v4(0))];
    for client in &clients {
        for size in [0, 1, 1000] {
            assert_eq!(ask_udp(client, v4(FRONT), &vec![0; size]).0.len(), size);
        }
    }
    let stats = counters(&proxy);
    assert_eq!(stats["protocol"], "udp");
    assert_eq!(stats["flows"], json!({"open": 2, "total": 2, "evicted": 0}));
    assert_eq!(stats["to_backend"], json!({"bytes": 2002, "packets": 6}));
    assert_eq!(stats["to_client"], json!({"bytes": 2002, "packets": 6}));
    assert_eq!(stats["errors"], 0);
    assert!(stats.get("connections").is_none());
}

#[test]
fn a_range_is_counted_as_one() {
    let Some(host) = Host::new("host") else { return };
    let _backends = [8000, 8001].map(|port| TcpServer::start(&host, v4(port), servers::echo));
    let words = "-host-ip 127.0.0.1 -host-port 7000-7001 -container-ip 127.0.0.1 -container-port 8000-8001";
    let proxy = netproxy(words).serve(&host);
    for port in [7000, 7001] {
        assert_eq!(ask(&mut host.connect(v4(port)).unwrap(), PAYLOAD), PAYLOAD);
    }
    let stats = counters(&proxy);
    assert_eq!(
        (&stats["host"], &stats["target"]),
        (&json!("127.0.0.1:7000-7001"), &json!("127.0.0.1:8000-8001"))
    );
    assert_eq!(stats["to_backend"]["bytes"], 2 * PAYLOAD.len());
}

#[test]
fn a_socket_in_the_file_system_answers_too() {
    let Some(host) = Host::new("host") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let path = path.to_str().unwrap();
    let start = || tcp(v4(FRONT), v4(9000)).words(["--control-socket", path]);
    let mut killed = start().serve(&host);
    assert_eq!(of(path), of(&killed.pid().to_string()));
    // A living proxy's socket isn't taken away; a dead one's is.
    let failed = tcp(v4(FRONT + 1), v4(9000)).words(["--control-socket", path]).fail(&host);
    assert_eq!(failed.code, 1);
    let status = failed.status.unwrap();
    assert!(status.contains(path) && status.contains("address already in use"), "{status}");
    // An environment is that of many proxies: they serve all the same, or each has a socket of its own.
    let own = folder.path().join("%p");
    for path in [path, own.to_str().unwrap()] {
        let mut other = tcp(v4(FRONT + 1), v4(9000)).variable("NETPROXY_CONTROL_SOCKET", path).serve(&host);
        let pid = other.pid();
        assert_eq!(of(&pid.to_string())["pid"], pid);
        if path.ends_with("%p") {
            assert_eq!(of(&path.replace("%p", &pid.to_string()))["pid"], pid);
        }
        other.signal(nix::sys::signal::Signal::SIGINT);
        assert_eq!(other.code(), 0);
    }
    killed.signal(nix::sys::signal::Signal::SIGKILL);
    killed.wait();
    // What its ring was doing with the listener ends a moment after the process.
    wait::until("the port", || host.enter(|| TcpListener::bind(v4(FRONT))).is_ok());
    let proxy = start().serve(&host);
    assert_eq!(of(path)["pid"], proxy.pid());
    proxy.stop();
    assert!(!folder.path().join("control").exists(), "the socket is left behind");
}

#[test]
fn who_asks_for_nothing_is_told_so() {
    let asked = |whom: &str| {
        let (code, stdout, stderr) = said(&["--stats", whom]);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 1), "{whom}: {stderr}");
        stderr
    };
    // Process ids end at 2^22.
    assert_eq!(asked("4194305"), "netproxy: no process 4194305\n");
    let sleeper = Proc::spawn(Command::new("sleep").arg("60"));
    let pid = sleeper.pid();
    assert!(asked(&pid.to_string()).contains(&format!("process {pid} is not a netproxy")));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nothing");
    assert!(asked(path.to_str().unwrap()).contains("no such file or directory"));
    assert!(asked(&"x".repeat(200)).contains('x'));
    let (code, _, stderr) = said(&["--stats"]);
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn a_proxy_in_another_namespace_that_is_none_of_ours_is_told_apart() {
    let (Some(host), Some(other)) = (Host::new("host"), need::docker_proxy()) else { return };
    let other = e2e::proxy::Start::mapping(other, "tcp", v4(FRONT), v4(9000)).serve(&host);
    let (code, _, stderr) = said(&["--stats", &other.pid().to_string()]);
    assert!(code == 1 && stderr.contains("is not a netproxy"), "{stderr}");
}

#[test]
fn readers_that_never_read_hold_nothing_up() {
    let Some(host) = Host::new("host") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let proxy = tcp(v4(FRONT), backend.addr).words(["--control-socket", path.to_str().unwrap()]).serve(&host);
    let before = proxy.descriptors();
    let idle: Vec<_> = (0..50).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
    assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
    assert_eq!(of(path.to_str().unwrap())["pid"], proxy.pid());
    wait::until("descriptors given back", || proxy.descriptors() <= before + 4);
    drop(idle);
}
