//! Many sandboxes, and one that asks for more than its share.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::nameserver::{Answer, NameServer, example};

use super::lab::Sandbox;
use super::tools::{HOST, Names, U};

const AT_ONCE: usize = 20;
const ALL: usize = 100;
/// In milliseconds: what an answer may take while somebody else floods. A core is shared with the flood and other tests.
const BEARABLE: u128 = 1000;
/// What a flood may cost, in KiB.
const MEMORY: u64 = 64 << 10;

fn called(number: usize) -> String {
    format!("n{number}")
}

fn start(names: &Names, numbers: std::ops::Range<usize>) {
    thread::scope(|scope| {
        for number in numbers {
            scope.spawn(move || names.idle(&called(number), &["--net", "one", "--net-alias", "crowd"]));
        }
    });
}

#[test]
fn sandboxes_that_start_at_once_all_find_each_other() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    start(&names, 0..AT_ONCE);
    let addresses: Vec<String> =
        (0..AT_ONCE).map(|number| names.address(&called(number), "one", "IPAddress").to_string()).collect();
    let asked: Vec<String> = (0..AT_ONCE).map(called).collect();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    for who in &asked {
        let found = names.ok(&[&["exec", who, "dig", "+short", "+tries=1"], &asked[..]].concat());
        assert_eq!(found.lines().collect::<Vec<_>>(), addresses, "{who}");
    }
    for from in (AT_ONCE..ALL).step_by(AT_ONCE) {
        start(&names, from..from + AT_ONCE);
    }
    // More than fit a datagram of the oldest size.
    let cut = names.dig("n0", "crowd +noedns +ignore");
    assert_eq!((cut.answers.len(), cut.is_cut()), (30, true), "{cut:?}");
    assert!(cut.size <= 512, "{cut:?}");
    let retried = names.dig("n0", "crowd +noedns");
    assert_eq!((retried.answers.len(), retried.is_cut(), retried.tcp), (ALL, false, true));
    let large = names.dig("n0", "crowd +notcp +ignore +bufsize=4096");
    assert_eq!((large.answers.len(), large.is_cut(), large.tcp), (ALL, false, false));
    let small = names.dig("n0", "crowd +notcp +ignore +bufsize=100");
    assert_eq!((small.answers.len(), small.is_cut()), (30, true), "no less than without");
    let over = names.dig("n0", "crowd +tcp");
    assert_eq!((over.answers.len(), over.is_cut()), (ALL, false));
    assert_eq!(names.libc("n0", "ahostsv4", "crowd").len(), ALL);
    // Which thirty differs, so each has its share.
    let seen = |dig: super::tools::Dig| dig.data().into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_ne!(seen(cut), seen(names.dig("n0", "crowd +noedns +ignore")));
    names.ok(&["rm", "-f", "n5"]);
    assert_eq!(names.dig("n0", "crowd +tcp").answers.len(), ALL - 1);
}

/// A query for the address of a name of one label.
fn query(id: u16, name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    let header = [id, 0x0100, 1, 0, 0, 0].into_iter().flat_map(u16::to_be_bytes);
    header.chain([length]).chain(name.bytes()).chain(*b"\0\0\x01\0\x01").collect()
}

fn socket(sandbox: &Sandbox) -> UdpSocket {
    sandbox.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(SocketAddr::from(([127, 0, 0, 11], 53))).unwrap();
        socket
    })
}

/// What the daemon holds, in KiB.
fn memory(names: &Names) -> u64 {
    let pid = std::fs::read_to_string(names.home.path("run/portmap.pid")).unwrap();
    let status = format!("/proc/{}/status", pid.trim());
    names.home.run("awk", &["/^VmRSS:/ { print $2 }", &status]).ok().parse().unwrap()
}

#[test]
fn a_flood_from_one_sandbox_is_its_own_affair() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    let upstream = NameServer::start(&names.host, U, |asked| match asked.name.as_str() {
        "example.com" => example(asked),
        _ => Answer::Silence,
    });
    names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    names.idle("greedy", &["--net", "one"]);
    names.idle("modest", &["--net", "one"]);
    let (greedy, modest) = (names.sandbox("greedy"), names.sandbox("modest"));
    let before = memory(&names);
    let (over, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    let slowest = thread::scope(|scope| {
        // One asks for what is known and reads nothing; one for what nobody answers.
        for local in [true, false] {
            let flooding = socket(&greedy);
            let (over, sent) = (&over, &sent);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    let name = if local { "modest".to_owned() } else { format!("x{number}") };
                    let _ = flooding.send(&query(number.to_le_bytes()[0].into(), &name));
                }
            });
        }
        e2e::wait::until("the flood", || sent.load(Ordering::Relaxed) > 10_000);
        let asking = socket(&modest);
        asking.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut slowest = Duration::ZERO;
        let mut buffer = [0; 512];
        let answered = (0..200).all(|id| {
            let began = Instant::now();
            asking.send(&query(id, "greedy")).unwrap();
            let count = asking.recv(&mut buffer).unwrap_or(0);
            slowest = slowest.max(began.elapsed());
            buffer[..count].starts_with(&id.to_be_bytes()) && buffer[..count].ends_with(&[10, 10, 0, 2])
        });
        let forwarded = names.dig("modest", "example.com +tries=1");
        over.store(true, Ordering::Relaxed);
        assert!(answered, "{buffer:x?}");
        assert_eq!(forwarded.brief(), "NOERROR 93.184.216.34");
        slowest
    });
    assert!(slowest.as_millis() < BEARABLE, "{slowest:?}");
    assert!(upstream.asked().len() > 8, "the flood got there");
    let grown = memory(&names).saturating_sub(before);
    assert!(grown < MEMORY, "{before} KiB grew by {grown} KiB");
    // And who flooded can ask again.
    names.comes_to("greedy", "modest", "NOERROR 10.10.0.3");
    names.comes_to("greedy", "example.com", "NOERROR 93.184.216.34");
}

#[test]
fn networks_that_come_and_go_at_once_leave_the_file_as_it_should_be() {
    const NETWORKS: usize = 6;
    let Some(names) = Names::new(HOST, &[]) else { return };
    names.idle("web", &["-h", "web"]);
    let before = names.file("web", "/etc/hosts");
    for number in 0..NETWORKS {
        names.ok(&["network", "create", "--subnet", &format!("10.{number}.0.0/24"), &called(number)]);
    }
    let each = |verb: &str| {
        thread::scope(|scope| {
            for number in 0..NETWORKS {
                let names = &names;
                scope.spawn(move || names.ok(&["network", verb, &called(number), "web"]));
            }
        });
        names.file("web", "/etc/hosts")
    };
    for _ in 0..2 {
        let mut own: Vec<String> =
            each("connect").strip_prefix(&before).unwrap().lines().map(str::to_owned).collect();
        own.sort();
        assert_eq!(own, (0..NETWORKS).map(|number| format!("10.{number}.0.2\tweb")).collect::<Vec<_>>());
        for number in 0..NETWORKS {
            assert_eq!(
                names.asks("web", &format!("web.{}", called(number))),
                format!("NOERROR 10.{number}.0.2")
            );
        }
        assert_eq!(each("disconnect"), before);
    }
}

#[test]
fn more_queries_than_may_wait_are_refused_at_once() {
    const ASKED: u16 = 400;
    const MAY_WAIT: usize = 256;
    let Some(names) = Names::new(HOST, &[]) else { return };
    let _upstream = NameServer::start(&names.host, U, |_| Answer::Silence);
    names.ok(&["network", "create", "one"]);
    names.idle("greedy", &["--net", "one"]);
    let asking = socket(&names.sandbox("greedy"));
    asking.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    for id in 0..ASKED {
        asking.send(&query(id, &format!("x{id}"))).unwrap();
    }
    let mut buffer = [0; 512];
    let codes: Vec<u8> = (0..ASKED)
        .map(|_| {
            let count = asking.recv(&mut buffer).unwrap();
            assert!(count > 3);
            buffer[3] & 0xf
        })
        .collect();
    let (refused, failed): (Vec<u8>, Vec<u8>) = codes.iter().partition(|code| **code == 5);
    assert_eq!((refused.len(), failed), (usize::from(ASKED) - MAY_WAIT, vec![2; MAY_WAIT]));
    assert!(codes[..refused.len()].iter().all(|code| *code == 5), "at once");
}
