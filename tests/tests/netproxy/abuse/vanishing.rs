//! Clients and backends that reset, or are killed, at every stage of a connection.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use e2e::lab::{self, Host, v4};
use e2e::need;
use e2e::servers::{self, Ending, TcpServer, read_to_ending};
use e2e::traffic::{PAYLOAD, ask, check_pattern, piece, send_pattern};
use e2e::wait;

use super::{WITH_THREADS, all_is_over, obey, order, pour};
use crate::{FRONT, counters, tcp};

/// Enough to make any direction bulk.
const BULK: usize = 1 << 20;

/// A connection and what to do with it.
type Stage = (&'static str, fn(TcpStream));

/// Where clients leave.
const STAGES: &[Stage] = &[
    ("after connecting", servers::reset),
    ("after a byte", |client| {
        order(&client, b'e');
        servers::reset(client);
    }),
    ("after a round trip", |mut client| {
        order(&client, b'e');
        assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
        servers::reset(client);
    }),
    ("within an upload", |mut client| {
        order(&client, b'u');
        send_pattern(&mut client, 0, 2 * BULK);
        servers::reset(client);
    }),
    ("within a download", |mut client| {
        order(&client, b'd');
        check_pattern(&mut client, 0, 2 * BULK);
        servers::reset(client);
    }),
    ("within a download nobody reads", |client| {
        order(&client, b'd');
        thread::sleep(Duration::from_millis(20));
        servers::reset(client);
    }),
    ("after a half-close", |client| {
        order(&client, b'e');
        client.shutdown(Shutdown::Write).unwrap();
        servers::reset(client);
    }),
    ("after a half-close, within a download", |mut client| {
        order(&client, b'd');
        client.shutdown(Shutdown::Write).unwrap();
        check_pattern(&mut client, 0, 2 * BULK);
        servers::reset(client);
    }),
    ("with the backend, after an upload", |client| {
        order(&client, b'U');
        pour(&client, 0, 2 * BULK);
        servers::reset(client);
    }),
    ("with the backend, after a download", |mut client| {
        order(&client, b'D');
        check_prefix(&mut client, 2 * BULK - 1000);
        servers::reset(client);
    }),
    ("after the backend, within an upload", |client| {
        order(&client, b'U');
        assert_cut(&client);
    }),
];

/// Reads what comes, at most `most` bytes: the pattern from 0 on. How many, and how it ended.
#[track_caller]
fn check_prefix(client: &mut TcpStream, most: usize) -> (usize, Ending) {
    let (mut got, mut buffer) = (0, vec![0; 64 << 10]);
    while got < most {
        let wanted = piece(0, got, most);
        let room = wanted.len().min(buffer.len());
        match client.read(&mut buffer[..room]) {
            Ok(0) => return (got, Ending::Closed),
            Ok(n) => {
                assert!(buffer[..n] == wanted[..n], "wrong bytes between {got} and {}", got + n);
                got += n;
            }
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return (got, Ending::Reset),
            Err(e) => panic!("after {got} bytes: {e}"),
        }
    }
    (got, Ending::Open)
}

/// Sends for as long as the peer takes it, which must end by a reset: after an end of stream it would be a broken pipe.
#[track_caller]
fn assert_cut(mut client: &TcpStream) {
    let mut sent = 0;
    let error = loop {
        match client.write(piece(0, sent, usize::MAX)) {
            Ok(n) => sent += n,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "after {sent} bytes");
}

#[test]
fn clients_that_leave_at_any_stage_leave_nothing_behind() {
    const ROUNDS: usize = 12;
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), obey);
    let proxy = tcp(v4(FRONT), backend.addr).words(WITH_THREADS).serve(&host);
    let before = proxy.descriptors();
    // One stage after the other, and then all of them at once.
    for (name, leave) in STAGES {
        leave(host.connect(v4(FRONT)).unwrap_or_else(|e| panic!("{name}: {e}")));
        wait::until(name, || counters(&proxy)["connections"]["open"] == 0);
    }
    all_is_over(&proxy, before);
    thread::scope(|scope| {
        for (_, leave) in STAGES {
            let host = &host;
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    leave(host.connect(v4(FRONT)).unwrap());
                }
            });
        }
    });
    all_is_over(&proxy, before);
    assert_eq!(counters(&proxy)["connections"]["total"], (ROUNDS + 1) * STAGES.len());
    let mut client = host.connect(v4(FRONT)).unwrap();
    order(&client, b'e');
    assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
}

#[test]
fn clients_that_leave_during_the_dial_leave_nothing_behind() {
    let (Some(host), Some(void)) = (Host::new("host"), Host::new("void")) else { return };
    lab::cable((&host, "eth0", &["10.0.0.1/24"]), (&void, "eth0", &[]));
    host.ip("neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
    let start = tcp(v4(FRONT), ([10, 0, 0, 9], 80).into()).words(["--connect-timeout", "60"]);
    let proxy = start.words(WITH_THREADS).serve(&host);
    let before = proxy.descriptors();
    let mut clients: Vec<_> = (0..100).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    for client in clients.iter_mut().step_by(2) {
        client.write_all(&vec![0; 100_000]).unwrap();
    }
    wait::until("dials", || counters(&proxy)["connections"]["open"] == 100);
    clients.into_iter().for_each(servers::reset);
    all_is_over(&proxy, before);
}

#[test]
fn a_download_whose_backend_resets_never_looks_complete() {
    const ROUNDS: usize = 100;
    let Some(host) = Host::new("host") else { return };
    let round = AtomicUsize::new(0);
    let backend = TcpServer::start(&host, v4(0), move |stream| {
        let round = round.fetch_add(1, Ordering::SeqCst);
        pour(&stream, 0, BULK + round * 10_007);
        servers::reset(stream);
    });
    let proxy = tcp(v4(FRONT), backend.addr).words(WITH_THREADS).serve(&host);
    let before = proxy.descriptors();
    for round in 0..ROUNDS {
        let Ok(mut client) = host.connect(v4(FRONT)) else { continue }; // it was reset as fast
        if round % 3 == 0 {
            let _ = client.shutdown(Shutdown::Write); // unless the reset was faster
        }
        let (got, ending) = check_prefix(&mut client, usize::MAX);
        assert_eq!(ending, Ending::Reset, "round {round}, after {got} bytes");
    }
    all_is_over(&proxy, before);
}

#[test]
fn an_upload_whose_backend_resets_never_looks_complete() {
    const ROUNDS: usize = 100;
    let Some(host) = Host::new("host") else { return };
    let checked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&checked);
    let backend = TcpServer::start(&host, v4(0), move |mut stream| {
        let some = BULK + count.load(Ordering::SeqCst) * 10_007;
        check_pattern(&mut stream, 0, some);
        count.fetch_add(1, Ordering::SeqCst);
        servers::reset(stream);
    });
    let proxy = tcp(v4(FRONT), backend.addr).words(WITH_THREADS).serve(&host);
    let before = proxy.descriptors();
    for _ in 0..ROUNDS {
        assert_cut(&host.connect(v4(FRONT)).unwrap());
    }
    assert_eq!(checked.load(Ordering::SeqCst), ROUNDS, "backends that got all of the pattern");
    all_is_over(&proxy, before);
}

/// Sends numbers of eight digits without end on each connection, in a process of its own, and reads nothing: so that
/// its death resets them.
const COUNTER: &str = r#"
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:9000", Listen => 9, ReuseAddr => 1) or die;
while (my $client = $listener->accept) {
    next if fork;
    my $n = 0;
    while (1) {
        my $some = join "", map { sprintf "%08d", $n++ } 1 .. 8192;
        my $at = 0;
        $at += syswrite($client, $some, length($some) - $at, $at) // exit while $at < length $some;
    }
}
"#;

#[test]
fn a_download_whose_backend_is_killed_never_looks_complete() {
    if need::program("perl").is_none() {
        return;
    }
    let Some(host) = Host::new("host") else { return };
    let proxy = tcp(v4(FRONT), v4(9000)).words(WITH_THREADS).serve(&host);
    let before = proxy.descriptors();
    for round in 0..10_usize {
        let mut command = Command::new("perl");
        command.args(["-e", COUNTER]);
        let backend = host.spawn(command);
        let connect = || {
            let mut client = host.connect(v4(FRONT)).ok()?;
            client.write_all(b"nobody reads this").ok()?;
            client.read_exact(&mut [0; 8]).ok()?;
            Some(client)
        };
        let mut clients: Vec<_> = (0..4).map(|_| wait::some("backend", wait::PATIENCE, connect)).collect();
        let mut text = vec![0; BULK * (1 + round % 3) - 8];
        clients[0].read_exact(&mut text).unwrap();
        drop(backend);
        for (number, mut client) in clients.into_iter().enumerate() {
            let (rest, ending) = read_to_ending(&mut client);
            assert_eq!(ending, Ending::Reset, "round {round}, client {number}, {} bytes", rest.len());
            let read = std::mem::take(&mut text).into_iter().chain(rest).collect::<Vec<_>>();
            for (digits, wanted) in read.chunks_exact(8).zip(1_u64..) {
                assert_eq!(digits, format!("{wanted:08}").as_bytes());
            }
        }
    }
    all_is_over(&proxy, before);
}
