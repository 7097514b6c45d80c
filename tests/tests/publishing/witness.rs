//! A server in a sandbox that tells clients the address it sees them under, and clients that ask it.

use std::fmt::{self, Debug};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use e2e::lab::Host;
use e2e::servers::{TcpServer, UdpServer, witness};
use e2e::wait::PATIENCE;
use socket2::{Domain, Protocol, Socket, Type};

use super::lab::{IPTABLES, Lab, NFTABLES, Sandbox};

/// How long an answer may take until its question, or it, counts as lost.
pub(crate) const LOST: Duration = Duration::from_millis(700);
/// How long a client of UDP waits before it asks again.
const AGAIN: Duration = Duration::from_millis(200);

/// What is sent for no answer's sake.
const SENT: &[u8] = b"let me in";

/// What a question goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proto {
    Tcp,
    Udp,
}

pub(crate) const PROTOS: [Proto; 2] = [Proto::Tcp, Proto::Udp];

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Answers on one port of a stack, by TCP and UDP, over both families.
#[derive(Debug)]
pub(crate) struct Witness {
    _tcp: Vec<TcpServer>,
    udp: Vec<UdpServer>,
}

impl Witness {
    #[track_caller]
    pub(crate) fn at(sandbox: &Sandbox, port: u16) -> Self {
        sandbox.enter(|| Self::here(&[Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()], port))
    }

    /// On these addresses of the calling thread's stack.
    #[track_caller]
    pub(crate) fn here(addresses: &[IpAddr], port: u16) -> Self {
        let at = |address: &IpAddr| SocketAddr::from((*address, port));
        let tcp = addresses.iter().map(|a| TcpServer::with(bound(Type::STREAM, at(a)).into(), witness));
        let udp = addresses.iter().map(|a| UdpServer::witness(bound(Type::DGRAM, at(a)).into()));
        Self { _tcp: tcp.collect(), udp: udp.collect() }
    }

    /// How many datagrams have arrived that somebody just [sent](Place::send). What was sent before a question has gone its
    /// way before that is answered.
    pub(crate) fn sent(&self) -> usize {
        self.udp.iter().flat_map(UdpServer::seen).filter(|datagram| datagram.bytes == SENT).count()
    }
}

/// Makes a network with both families and these flags: `10.N.0.0/24` and `fd00:N::/64`.
pub(crate) fn create(lab: &Lab, name: &str, number: u8, flags: &[&str]) {
    let subnets = [format!("10.{number}.0.0/24"), format!("fd00:{number}::/64")];
    let words = ["network", "create", "--ipv6", "--subnet", &subnets[0], "--subnet", &subnets[1]];
    lab.ok(&[&words, flags, &[name]].concat());
}

/// Starts a sandbox that only waits.
#[track_caller]
pub(crate) fn idle(lab: &Lab, name: &str, flags: &[&str]) {
    lab.ok(&[&["run", "-d", "--name", name], flags, &["--", "sleep", "infinity"]].concat());
}

/// Starts a sandbox with a witness on ports 80 and 81. Port 80 is published as `port`, by TCP and UDP.
#[track_caller]
pub(crate) fn witnessed(lab: &Lab, name: &str, port: &str, flags: &[&str]) -> [Witness; 2] {
    let (tcp, udp) = (format!("{port}:80"), format!("{port}:80/udp"));
    idle(lab, name, &[flags, &["-p", &tcp, "-p", &udp]].concat());
    let sandbox = lab.sandbox(name);
    [80, 81].map(|port| Witness::at(&sandbox, port))
}

/// Runs a test with each backend and these other flags of the daemon's, each on a host of its own.
pub(crate) fn with_both(flags: &[&str], test: impl Fn(&Lab) + Sync) {
    with_each(&[flags], test);
}

/// The same with each of these sets of flags. Side by side: much of a test is waiting for what must not come.
pub(crate) fn with_each(sets: &[&[&str]], test: impl Fn(&Lab) + Sync) {
    let backends = [NFTABLES, IPTABLES].map(|backend| ["--firewall-backend", backend]);
    let all =
        backends.iter().flat_map(|backend| sets.iter().map(move |flags| [&backend[..], flags].concat()));
    side_by_side(all, |flags| {
        if let Some(lab) = Lab::new(&flags) {
            test(&lab);
        }
    });
}

/// Does the same with each of these at once, and fails as the first of them that fails.
pub(crate) fn side_by_side<T: Send + Debug>(each: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) {
    // A test skips and fails under its own name.
    let name = thread::current().name().unwrap_or("test").to_owned();
    let ends: Vec<_> = thread::scope(|scope| {
        let start = |one: T| {
            let (work, words) = (&work, format!("{one:?}"));
            let thread = thread::Builder::new().name(name.clone()).spawn_scoped(scope, move || work(one));
            (words, thread.unwrap())
        };
        let threads: Vec<_> = each.into_iter().map(start).collect();
        threads.into_iter().map(|(words, thread)| (words, thread.join())).collect()
    });
    for (words, end) in ends {
        if let Err(panic) = end {
            eprintln!("that was with {words}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Each of some addresses by each protocol.
pub(crate) fn by_each<T: Copy>(to: impl IntoIterator<Item = T>) -> Vec<(T, Proto)> {
    to.into_iter().flat_map(|to| PROTOS.map(|proto| (to, proto))).collect()
}

/// For its own family alone: a client's address shall not be seen in a mapped form.
#[track_caller]
fn bound(kind: Type, at: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(at), kind, None::<Protocol>).unwrap();
    if at.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.bind(&at.into()).unwrap_or_else(|e| panic!("{at}: {e}"));
    if kind == Type::STREAM {
        socket.listen(64).unwrap();
    }
    socket
}

/// Somewhere to ask from.
pub(crate) trait Place: Sync {
    /// Runs `work` on a throw-away thread there.
    fn there<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T;

    /// The address under which a witness sees who asks from here; `None` if there is no answer for so long.
    fn ask_for(&self, patience: Duration, proto: Proto, to: SocketAddr) -> Option<IpAddr> {
        self.there(|| match proto {
            Proto::Tcp => ask_tcp(to, patience),
            Proto::Udp => ask_udp(to, patience),
        })
    }

    /// The same, where there must be an answer.
    #[track_caller]
    fn ask(&self, proto: Proto, to: SocketAddr) -> IpAddr {
        self.ask_for(PATIENCE, proto, to).unwrap_or_else(|| panic!("no answer from {to}/{proto}"))
    }

    /// Whether a ping is answered within so many seconds.
    fn pings(&self, to: IpAddr, seconds: u32) -> bool {
        let (to, seconds) = (to.to_string(), seconds.to_string());
        let ping =
            || Command::new("busybox").args(["ping", "-c", "1", "-W", &seconds, &to]).output().unwrap();
        self.there(ping).status.success()
    }

    /// Sends ten datagrams, from this address or any, that nobody has to answer.
    fn send(&self, from: Option<IpAddr>, to: SocketAddr) {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        self.there(|| {
            let socket = UdpSocket::bind((from.unwrap_or(any), 0)).unwrap();
            for _ in 0..10 {
                socket.send_to(SENT, to).unwrap();
            }
        });
    }

    /// Whether a question, or the answer to it, is lost or refused.
    fn is_cut_off(&self, proto: Proto, to: SocketAddr) -> bool {
        self.ask_for(LOST, proto, to).is_none()
    }
}

impl Place for Host {
    fn there<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.enter(work)
    }
}

impl Place for Sandbox {
    fn there<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.enter(work)
    }
}

fn ask_tcp(to: SocketAddr, patience: Duration) -> Option<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    // A proxy whose target is out of reach has accepted the connection nevertheless.
    (!answer.is_empty()).then(|| answer.parse().unwrap())
}

fn ask_udp(to: SocketAddr, patience: Duration) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    // Connected: answers from another address than the one that was asked don't count.
    socket.connect(to).ok()?;
    socket.set_read_timeout(Some(AGAIN)).unwrap();
    let (end, mut answer) = (Instant::now() + patience, [0; 64]);
    while Instant::now() < end {
        socket.send(b"who am I?").ok()?;
        match socket.recv(&mut answer) {
            Ok(length) => return Some(std::str::from_utf8(&answer[..length]).unwrap().parse().unwrap()),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    None
}
