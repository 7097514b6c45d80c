//! Floods, and how fast answers are.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netcore::dns::Asked;
use netcore::firewall::Backend;

use crate::backends;
use crate::lab::Host;
use crate::world::{World, ask, client, query};

/// What nobody should notice of a neighbour.
const SOON: Duration = Duration::from_millis(100);

fn each_is_answered_soon(client: &UdpSocket) {
    let mut times: Vec<Duration> = (0..200)
        .map(|id| {
            let began = Instant::now();
            let reply = ask(client, &query(id, "web")).expect("a reply");
            assert_eq!(reply[..2], id.to_be_bytes());
            began.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[150] < SOON, "{times:?}");
}

#[test]
fn a_sandbox_that_floods_costs_its_neighbour_little() {
    backends::run(Backend::Nftables, |backend| {
        let world = World::new(backend);
        let neighbour = world.neighbour();
        // Nobody answers there, so each query waits.
        let silent = world.sandbox.enter(|| UdpSocket::bind("127.0.0.53:53")).expect("a socket");
        world.update(Asked::These(vec!["127.0.0.53".parse().expect("an address")]));
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            for name in ["web", "example.com"] {
                let (flood, ended) = (world.client(), &ended);
                scope.spawn(move || {
                    for id in (0..=u16::MAX).cycle() {
                        // No room is no reason to stop.
                        let _ = flood.send(&query(id, name));
                        if ended.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            thread::sleep(Duration::from_millis(300));
            each_is_answered_soon(&client(&neighbour));
            // Those that forward have their few as well.
            ended.store(true, Ordering::Relaxed);
        });
        drop(silent);
    });
}

#[test]
fn garbage_is_survived() {
    backends::run(Backend::Nftables, |backend| {
        let world = World::new(backend);
        let garbage = world.client();
        let mut state = 88_172_645_463_325_252_u64;
        for round in 0..5000_usize {
            let mut bytes: Vec<u8> = Vec::new();
            while bytes.len() < round % 600 {
                // Marsaglia's xorshift.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.extend(state.to_ne_bytes());
            }
            let mut message = query(1, "web");
            match round % 3 {
                0 => message = bytes,
                1 => message.extend(bytes),
                _ => message.truncate(round % message.len()),
            }
            garbage.send(&message).expect("it is sent");
        }
        // The last ones may have left no room for another datagram.
        assert!((0..5).any(|_| ask(&world.client(), &query(1, "web")).is_some()));
        each_is_answered_soon(&world.client());
        let mut stream = world.sandbox.enter(|| TcpStream::connect("127.0.0.11:53")).expect("it listens");
        // Whatever becomes of this connection, the next is served.
        let _ = stream.write_all(&[0x55; 100_000]);
        answered_over_tcp(&world);
    });
}

fn answered_over_tcp(world: &World) {
    let mut stream = world.sandbox.enter(|| TcpStream::connect("127.0.0.11:53")).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    let query = query(9, "web");
    stream.write_all(&[&[0, u8::try_from(query.len()).expect("short")], &query[..]].concat()).expect("sent");
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!(reply[2..], [0, 9]);
}

#[test]
fn a_connection_on_which_nothing_whole_comes_is_closed() {
    backends::run(Backend::Nftables, |backend| {
        let world = World::new(backend);
        let [mut silent, mut slow] = [(); 2]
            .map(|()| world.sandbox.enter(|| TcpStream::connect("127.0.0.11:53")).expect("it listens"));
        let began = Instant::now();
        slow.write_all(&[0, 200]).expect("it is sent");
        for stream in [&mut silent, &mut slow] {
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
            assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
        }
        assert!(began.elapsed() > Duration::from_secs(9), "there was time to ask");
    });
}

#[test]
fn a_thousand_connections_are_not_kept() {
    backends::run(Backend::Nftables, |backend| {
        let world = World::new(backend);
        let streams: Vec<TcpStream> = world.sandbox.enter(|| {
            (0..1000)
                .filter_map(|_| {
                    TcpStream::connect_timeout(&"127.0.0.11:53".parse().expect("one"), Duration::from_secs(2))
                        .ok()
                })
                .collect()
        });
        assert!(streams.len() > 900, "{} came about", streams.len());
        answered_over_tcp(&world);
        let open = streams.iter().filter(|stream| {
            stream.set_nonblocking(true).expect("a setting");
            let mut stream: &TcpStream = stream;
            matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        });
        let open = open.count();
        assert!(open <= 32, "{open} are open");
        each_is_answered_soon(&world.client());
    });
}

/// Measures; `cargo test --release -p netcore --test dns -- --ignored --nocapture measure`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    backends::run(Backend::Nftables, |backend| {
        let world = World::new(backend);
        for _ in 0..3 {
            for by in [Backend::Nftables, Backend::Iptables] {
                let fresh = Host::new();
                let began = Instant::now();
                drop(world.sockets_in(&fresh, by));
                println!("sockets and rules by {by}: {:?}", began.elapsed());
            }
            let (fresh, began) = (Host::new(), Instant::now());
            fresh.run(
                "nft -f -",
                "table ip portmap-dns { chain x { type nat hook output priority -100; }\n}\n",
            );
            println!("a table by nft: {:?}", began.elapsed());
        }
        world.serve(world.sockets(Some(backend)), Asked::These(vec![]));
        let cpu = cpu_time();
        let answers = throughput(&world, Duration::from_secs(3));
        let rate = |answers: f64, time: Duration| answers / time.as_secs_f64();
        println!(
            "most: {:.0} answers/s, {:.0} per second of the server's thread",
            rate(answers, Duration::from_secs(3)),
            rate(answers, cpu_time() - cpu)
        );
        let mut times = paced(&world, 10_000, Duration::from_secs(3));
        times.sort();
        let at = |part: usize| times[times.len() * part / 1000];
        println!(
            "at 10,000/s: {} answers, p50 {:?}, p99 {:?}, p99.9 {:?}",
            times.len(),
            at(500),
            at(990),
            at(999)
        );
    });
}

/// What the servers' thread has used, from the time that the scheduler keeps.
fn cpu_time() -> Duration {
    let tasks =
        std::fs::read_dir("/proc/self/task").expect("a list").map(|task| task.expect("a task").path());
    let named =
        |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "dns");
    let server = tasks.into_iter().find(named).expect("the servers' thread");
    let times = std::fs::read_to_string(server.join("schedstat")).expect("times");
    Duration::from_nanos(times.split(' ').next().expect("the first").parse().expect("a number"))
}

/// Keeps some queries on their way on one socket. How many are answered.
fn throughput(world: &World, time: Duration) -> f64 {
    let (client, message, mut reply) = (world.client(), query(1, "web"), [0; 512]);
    let (began, mut answered) = (Instant::now(), 0_u32);
    for _ in 0..64 {
        client.send(&message).expect("sent");
    }
    while began.elapsed() < time {
        for _ in 0..64 {
            client.recv(&mut reply).expect("a reply");
            client.send(&message).expect("sent");
        }
        answered += 64;
    }
    f64::from(answered)
}

/// How long each answer took, from when its query was sent. One thread answers, so answers come in the queries' order.
fn paced(world: &World, rate: u32, time: Duration) -> Vec<Duration> {
    let client = world.client();
    let receiver = client.try_clone().expect("a copy");
    let count = rate * u32::try_from(time.as_secs()).expect("a few seconds");
    let heard = thread::spawn(move || {
        let (mut all, mut reply) = (Vec::new(), [0; 512]);
        for number in 0..count {
            receiver.recv(&mut reply).expect("a reply");
            assert_eq!(reply[..2], number.to_be_bytes()[2..]);
            all.push(Instant::now());
        }
        all
    });
    let began = Instant::now();
    let due = |number: u32| began + Duration::from_secs(1) * number / rate;
    let mut sent = Vec::new();
    for number in 0..count {
        thread::sleep(due(number).saturating_duration_since(Instant::now()));
        let [.., high, low] = number.to_be_bytes();
        sent.push(Instant::now());
        client.send(&query(u16::from_be_bytes([high, low]), "web")).expect("it is sent");
    }
    let heard = heard.join().expect("it only listens");
    sent.into_iter().zip(heard).map(|(sent, heard)| heard - sent).collect()
}
