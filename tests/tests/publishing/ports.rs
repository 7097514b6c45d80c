//! What tests of ports ask: who answers where, and which sockets, rules and processes there are.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::lab::Host;
use e2e::servers::{TcpServer, UdpServer};
use e2e::wait::{self, PATIENCE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lab::Lab;

/// Our proxy's name among the processes.
pub(crate) const PROXY: &str = "netproxy";

/// The host's addresses on the cable to its neighbour.
pub(crate) const HOST4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const HOST6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xff, 0, 0, 0, 0, 0, 1));

/// What no test waits for longer than, where nothing is to come.
const SILENCE: Duration = Duration::from_millis(700);

/// Starts a sandbox that only waits.
#[track_caller]
pub(crate) fn idle(lab: &Lab, name: &str, flags: &[&str]) {
    lab.ok(&[&["run", "-d", "--name", name], flags, &["--", "sleep", "infinity"]].concat());
}

/// Answers every connection to a port of a sandbox with a word, on all its addresses, until the handle goes.
#[track_caller]
pub(crate) fn answers(lab: &Lab, sandbox: &str, port: u16, word: &'static str) -> TcpServer {
    let listener = lab.sandbox(sandbox).enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
    TcpServer::with(listener, move |mut stream| {
        let _ = io::Write::write_all(&mut stream, word.as_bytes());
    })
}

/// A sandbox that only waits, and somebody inside who answers on port 80 with its name.
#[track_caller]
pub(crate) fn named(lab: &Lab, name: &'static str, flags: &[&str]) -> TcpServer {
    idle(lab, name, flags);
    answers(lab, name, 80, name)
}

/// Answers every datagram to a port of a sandbox with a word, on its IPv4 addresses, until the handle goes.
#[track_caller]
pub(crate) fn answers_udp(lab: &Lab, sandbox: &str, port: u16, word: &'static str) -> UdpServer {
    let socket = lab.sandbox(sandbox).enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    UdpServer::with(socket, Arc::new(move |_| vec![word.as_bytes().to_vec()]))
}

/// What is said to who connects.
pub(crate) fn asked(from: &Host, to: SocketAddr) -> io::Result<String> {
    let mut stream = from.connect(to)?;
    let mut word = String::new();
    stream.read_to_string(&mut word)?;
    Ok(word)
}

/// The same, where there must be an answer.
#[track_caller]
pub(crate) fn ask(from: &Host, to: impl Into<SocketAddr>) -> String {
    let to = to.into();
    asked(from, to).unwrap_or_else(|e| panic!("{} asks {to}: {e}", from.name()))
}

/// The answer to a datagram, sent again until there is one.
#[track_caller]
pub(crate) fn ask_udp(from: &Host, to: impl Into<SocketAddr>) -> String {
    let to = to.into();
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = from.udp((any, 0).into());
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    wait::some(&format!("answer of {to}"), PATIENCE, || told(&socket, to))
}

/// What comes back for one more datagram, before the socket's time-out.
pub(crate) fn told(socket: &UdpSocket, to: SocketAddr) -> Option<String> {
    let mut buffer = [0; 64];
    let _ = socket.send_to(b"?", to);
    let (count, from) = socket.recv_from(&mut buffer).ok()?;
    assert_eq!(from, to, "the answer comes from where the question went");
    Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// Whether the kernel refuses a connection at once, as it does where nobody listens.
pub(crate) fn refuses(from: &Host, to: impl Into<SocketAddr>) -> bool {
    let to = to.into();
    let outcome = from.enter(|| TcpStream::connect_timeout(&to, SILENCE));
    outcome.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// The places that somebody listens at or is bound to on the host: `tcp 0.0.0.0:8080`.
pub(crate) fn sockets(lab: &Lab) -> Vec<String> {
    let listed = lab.host.run("ss", &["-Hlntu"]);
    let place = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!("{} {}", words[0], words[4])
    };
    let mut places: Vec<String> = listed.lines().map(place).collect();
    places.sort();
    places
}

/// The kernel's numbers of the TCP sockets that listen on a port of the host.
pub(crate) fn inodes(lab: &Lab, port: u16) -> Vec<String> {
    let listed = lab.host.run("ss", &["-Hlnte", &format!("sport = :{port}")]);
    let mut numbers: Vec<String> =
        listed.split_whitespace().filter_map(|word| word.strip_prefix("ino:")).map(str::to_owned).collect();
    numbers.sort();
    numbers
}

/// The proxies.
pub(crate) fn proxies(lab: &Lab) -> Vec<u32> {
    lab.home.processes(PROXY)
}

/// The only proxy.
#[track_caller]
pub(crate) fn proxy(lab: &Lab) -> u32 {
    let all = proxies(lab);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

/// Sends a signal to a process that [`Home::processes`](e2e::daemon::Home::processes) found.
pub(crate) fn send(signal: Signal, pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Kills a process and waits for its end: a ring may still accept while its process dies, and what it accepted dies too.
pub(crate) fn kill_now(pid: u32) {
    send(Signal::SIGKILL, pid);
    let stat = format!("/proc/{pid}/stat");
    let is_over = || std::fs::read_to_string(&stat).map_or(true, |line| line.contains(") Z "));
    wait::until("end of the process", is_over);
}

/// Everything that ports which never came about, or are gone, might have left on the host.
pub(crate) fn traces(lab: &Lab) -> String {
    let links = lab.host.ip("-brief link");
    // Their names say everything; their state may follow a moment later.
    let mut links: Vec<&str> = links.lines().filter_map(|line| line.split_whitespace().next()).collect();
    links.sort_unstable();
    [
        links.join(" "),
        lab.host.run("nft", &["-s", "list", "ruleset"]),
        sockets(lab).join("\n"),
        format!("{:?}", proxies(lab)),
        lab.ok(&["ps", "-q"]),
    ]
    .join("\n")
}

/// Waits until the host is as it was.
#[track_caller]
pub(crate) fn nothing_is_left(lab: &Lab, before: &str) {
    let end = Instant::now() + PATIENCE;
    while traces(lab) != before {
        assert!(Instant::now() < end, "left:\n{}\n-- where there was\n{before}", traces(lab));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where a sandbox's ports are published, as `portmap port` tells it.
#[track_caller]
pub(crate) fn shown(lab: &Lab, sandbox: &str) -> Vec<String> {
    lab.ok(&["port", sandbox]).lines().map(str::to_owned).collect()
}

/// The host port that a port of a sandbox is published on, the same on all addresses.
#[track_caller]
pub(crate) fn host_port(lab: &Lab, sandbox: &str, port: &str) -> u16 {
    let lines = lab.ok(&["port", sandbox, port]);
    let mut ports: Vec<u16> =
        lines.lines().map(|line| line.rsplit_once(':').unwrap().1.parse().unwrap()).collect();
    ports.dedup();
    assert_eq!(ports.len(), 1, "{sandbox} {port}: {lines}");
    ports[0]
}
