//! Which engine serves: the one asked for, or the one this kernel allows, and never none.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};

use e2e::lab::{Host, v4};
use e2e::need;
use e2e::proxy::{Running, Start};
use e2e::servers::{self, Ending, TcpServer, UdpServer};
use e2e::traffic::{PAYLOAD, ask, ask_udp, check_pattern, send_pattern};
use e2e::wait;
use serde_json::Value;

use crate::{FRONT, counters, tcp, udp};

/// A page of memory, as the kernel accounts it.
const PAGE: u32 = 4096;

/// What `--stats` says of the engine.
fn named(stats: &Value) -> &str {
    stats["engine"].as_str().unwrap()
}

/// A user that nobody else is: rings are accounted to users, as locked memory.
struct User(String);

impl User {
    fn new() -> Self {
        static USERS: AtomicU32 = AtomicU32::new(0);
        let base = 1_000_000_000 + std::process::id() % 1_000_000 * 1_000;
        Self((base + USERS.fetch_add(1, Ordering::Relaxed)).to_string())
    }

    /// The words in front of a program that runs as this user. The capability lets it read its file wherever that is.
    fn words(&self) -> [&str; 11] {
        let as_user = ["setpriv", "--reuid", &self.0, "--regid", &self.0, "--clear-groups"];
        let reading = ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override", "--"];
        let mut words = [""; 11];
        words[..6].copy_from_slice(&as_user);
        words[6..].copy_from_slice(&reading);
        words
    }

    /// `start` as this user, who may lock so many pages.
    fn with_locked(&self, pages: u32, start: Start) -> Start {
        let limit = format!("--memlock={}", pages * PAGE);
        start.through(self.words().into_iter().chain(["prlimit", &limit, "--"]))
    }

    /// From now on a proxy of this user's may lock nothing more.
    fn lock_no_more(&self, host: &Host, proxy: &Running) {
        let pid = proxy.pid().to_string();
        let words: Vec<&str> =
            self.words().into_iter().chain(["prlimit", "--pid", &pid, "--memlock=0"]).collect();
        host.run(words[0], &words[1..]);
    }
}

/// `start` on a kernel that gives it no ring.
fn without_ring(start: Start) -> Start {
    User::new().with_locked(0, start)
}

#[test]
fn the_counters_name_the_engine_in_use() {
    let Some(host) = Host::new("host") else { return };
    let wanted = std::env::var("NETPROXY_ENGINE").unwrap_or_default();
    for start in [tcp(v4(FRONT), v4(9000)), udp(v4(FRONT), v4(9000))] {
        let proxy = start.serve(&host);
        let stats = counters(&proxy);
        match wanted.as_str() {
            "" | "auto" if need::is_required() => assert_eq!(named(&stats), "uring"),
            "" | "auto" => assert!(matches!(named(&stats), "uring" | "portable"), "{stats}"),
            wanted => assert_eq!(named(&stats), wanted),
        }
        proxy.stop();
    }
}

#[test]
fn the_engine_asked_for_is_the_one_that_serves() {
    let Some(host) = Host::new("host") else { return };
    let engines = if need::is_required() { &["portable", "uring"][..] } else { &["portable"] };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    for engine in engines {
        let others = [
            tcp(v4(FRONT), backend.addr).words(["--engine", engine]).variable("NETPROXY_ENGINE", "nonsense"),
            tcp(v4(FRONT), backend.addr).variable("NETPROXY_ENGINE", engine),
        ];
        for start in others {
            let proxy = start.serve(&host);
            assert_eq!(named(&counters(&proxy)), *engine);
            assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
            assert_eq!(proxy.stderr(), "");
            proxy.stop();
        }
    }
}

#[test]
fn an_engine_that_does_not_exist_is_a_wrong_word() {
    let Some(host) = Host::new("host") else { return };
    let failed = tcp(v4(FRONT), v4(9000)).words(["--engine", "nonsense"]).fail(&host);
    assert_eq!((failed.code, failed.status.as_deref()), (2, Some("")));
    let (complaint, usage) = failed.stderr.split_once('\n').unwrap();
    let wanted = "netproxy: invalid value \"nonsense\" for flag -engine: not auto, uring or portable";
    assert_eq!(complaint, wanted);
    assert!(usage.starts_with("Usage: netproxy ") && usage.contains("-engine NAME"), "{usage}");
}

#[test]
fn a_ring_asked_for_and_refused_is_an_error() {
    let Some(host) = Host::new("host") else { return };
    let complaint = "--engine uring: this kernel gives us no io_uring (out of memory): say auto or portable";
    for start in [tcp, udp] {
        let start = || without_ring(start(v4(FRONT), v4(9000)).words(["--engine", "uring"]));
        let failed = start().fail(&host);
        assert_eq!((failed.code, failed.status.unwrap()), (1, format!("1\n{complaint}")));
        let failed = start().without_status().fail(&host);
        assert_eq!((failed.code, failed.stderr), (1, format!("netproxy: {complaint}\n")));
    }
}

#[test]
fn without_a_ring_the_portable_engine_serves_and_says_so_once() {
    let Some(host) = Host::new("host") else { return };
    let log = tempfile::NamedTempFile::new().unwrap();
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    // The log file is the test's, not the user's that the proxy runs as: it may write it by its capability.
    let words = ["--engine", "auto", "--log-file", log.path().to_str().unwrap()];
    let proxy = without_ring(tcp(v4(FRONT), backend.addr).words(words)).serve(&host);
    assert_eq!(named(&counters(&proxy)), "portable");
    assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
    let notice = "no io_uring (out of memory): the portable engine serves";
    assert_eq!(proxy.stderr(), format!("netproxy: {notice}\n"));
    let logged = std::fs::read_to_string(log.path()).unwrap();
    assert!(logged.lines().count() == 1 && logged.trim_end().ends_with(notice), "{logged:?}");
    proxy.stop();
}

#[test]
fn a_ring_refused_halfway_is_as_good_as_refused() {
    // From too little for anything to enough for everything, page by page, the kernel refuses the ring, then its
    // buffers, then the ring of the second thread. It must serve with any, all of its clients.
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let udp_backend = UdpServer::echo(&host, v4(0));
    let mut engines = Vec::new();
    for pages in 0..24 {
        let start = tcp(v4(FRONT), backend.addr).words(["--engine", "auto", "--threads", "2"]);
        let mut proxy = User::new().with_locked(pages, start).spawn(&host);
        assert_eq!(proxy.status(), "0\n", "{pages} pages");
        let mut clients: Vec<_> = (0..10).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.write_all(PAYLOAD).unwrap();
            let mut answer = [0; PAYLOAD.len()];
            let read = client.read_exact(&mut answer);
            read.unwrap_or_else(|e| panic!("{pages} pages, client {number}: {e}: {}", proxy.stderr()));
            assert_eq!(&answer, PAYLOAD);
        }
        engines.push(named(&counters(&proxy)).to_owned());
        proxy.stop();

        let start = udp(v4(FRONT), udp_backend.addr).words(["--engine", "auto"]);
        let mut proxy = User::new().with_locked(pages, start).spawn(&host);
        assert_eq!(proxy.status(), "0\n", "{pages} pages");
        assert_eq!(ask_udp(&host.udp(v4(0)), v4(FRONT), PAYLOAD).0, PAYLOAD, "{pages} pages");
        proxy.stop();
    }
    // More memory never makes it worse.
    assert!(engines.is_sorted(), "{engines:?}");
    assert_eq!(engines[0], "portable");
    if need::is_required() {
        assert_eq!(engines.last().unwrap(), "uring");
    }
}

#[test]
fn memory_that_somebody_else_took_meanwhile_turns_no_client_away() {
    // The limit is the user's, for all of its processes: what the ring needs for its first client may be gone when
    // that comes. Here the limit sinks instead.
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let start = tcp(v4(FRONT), backend.addr).words(["--threads", "2"]);
    let user = User::new();
    let proxy = user.with_locked(64, start).serve(&host);
    user.lock_no_more(&host, &proxy);
    let mut clients = Vec::new();
    for number in 0..10 {
        let mut client = host.connect(v4(FRONT)).unwrap();
        let mut answer = [0; PAYLOAD.len()];
        let asked = client.write_all(PAYLOAD).and_then(|()| client.read_exact(&mut answer));
        asked.unwrap_or_else(|e| panic!("client {number}: {e}: {}", proxy.stderr()));
        clients.push(client);
    }
    drop(clients);
    wait::until("end of the connections", || counters(&proxy)["connections"]["open"] == 0);
    let mut late = host.connect(v4(FRONT)).unwrap();
    late.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(servers::read_to_ending(&mut late), (Vec::new(), Ending::Closed));
    proxy.stop();
}

#[test]
fn more_streams_than_pipes_cross_unharmed() {
    // A user without rights has 16,384 pages of pipes (pipe-user-pages-soft): 64 pipes of full size. Who comes later
    // gets small ones or none.
    const STREAMS: usize = 90;
    const BYTES: usize = 3 << 20;
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), |mut stream| {
        check_pattern(&mut stream, 0, BYTES);
        stream.write_all(b"half").unwrap();
        check_pattern(&mut stream, 3, BYTES);
        stream.write_all(b"done").unwrap();
    });
    let user = User::new();
    let proxy = tcp(v4(FRONT), backend.addr).through(user.words()).serve(&host);
    let mut clients: Vec<TcpStream> = (0..STREAMS).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    for (seed, word) in [(0, b"half"), (3, b"done")] {
        // Each keeps its pipe while the others get theirs.
        for client in &mut clients {
            send_pattern(client, seed, BYTES);
            let mut said = [0; 4];
            client.read_exact(&mut said).unwrap();
            assert_eq!(&said, word);
        }
    }
    assert_eq!(counters(&proxy)["to_backend"]["bytes"], 2 * STREAMS * BYTES);
}
