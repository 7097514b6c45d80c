//! A host with two bridge networks and a neighbour, out of network namespaces that vanish with their last user.
//!
//! A thread that entered a namespace ends there.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use netcore::firewall::{Backend, Facts, Firewall};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns, unshare};

/// How long a packet may take until it counts as dropped. A first SYN is sent again after a second.
const LOST: Duration = Duration::from_millis(1200);

/// A network namespace.
pub(crate) struct Host(File);

/// ```text
/// a1 a2      b1 b2
///  br-a       br-b        172.20.0.0/24 fd00:20::/64, 172.21.0.0/24 fd00:21::/64
///       host  ── out      192.0.2.1, .2; fd00:ff::1, ::2; `out` knows the way to the containers
/// ```
pub(crate) struct Lab {
    pub(crate) host: Host,
    pub(crate) out: Host,
    pub(crate) a1: Host,
    pub(crate) a2: Host,
    pub(crate) b1: Host,
}

impl Host {
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let made = made.join().expect("the thread only makes a namespace");
        let host = Self(made.expect("root makes network namespaces"));
        host.sysctl("net/ipv6/conf/default/accept_dad", "0");
        host.ip("link set lo up");
        host
    }

    /// The namespace that is pinned there.
    #[allow(dead_code, reason = "not every test binary has pinned ones")]
    pub(crate) fn at(path: &Path) -> Self {
        Self(File::open(path).expect("a pinned namespace"))
    }

    /// A path to the namespace, as long as this lives.
    #[allow(dead_code, reason = "not every test binary hands one on")]
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Runs `work` on a throw-away thread inside.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("root enters its own namespaces");
            work()
        };
        let result = thread::scope(|scope| scope.spawn(inside).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a program that must succeed.
    pub(crate) fn run(&self, words: &str, input: &str) -> String {
        let mut words = words.split_whitespace();
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.enter(|| {
            let mut child = command.spawn().expect("the program is installed");
            child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads its input");
            child.wait_with_output().expect("it ends")
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}\n{input}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn ip(&self, words: &str) {
        self.run(&format!("ip {words}"), "");
    }

    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{key}");
        self.enter(|| std::fs::write(&path, value)).unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    fn address(&self, interface: &str, v4: &str, v6: &str) {
        self.ip(&format!("addr add {v4} dev {interface}"));
        self.ip(&format!("addr add {v6} dev {interface} nodad"));
        self.ip(&format!("link set {interface} up"));
    }

    fn cable(&self, interface: &str, to: &Self, there: &str) {
        let path = to.path();
        self.ip(&format!("link add {interface} type veth peer name {there} netns {}", path.display()));
    }

    pub(crate) fn container(&self, bridge: &str, net: u8, number: u8) -> Self {
        let (container, port) = (Self::new(), format!("p{net}-{number}"));
        container.cable("eth0", self, &port);
        container.address("eth0", &format!("172.{net}.0.{number}/24"), &format!("fd00:{net}::{number}/64"));
        self.ip(&format!("link set {port} master {bridge} up"));
        container.ip(&format!("route add default via 172.{net}.0.1"));
        container.ip(&format!("route add default via fd00:{net}::1"));
        container
    }

    /// A connection to `at`, an address of `to`, if it comes about: both its ends.
    pub(crate) fn connect(&self, to: &Self, at: &str) -> Option<(TcpStream, TcpStream)> {
        let at: IpAddr = at.parse().expect("an address");
        let listener = to.enter(|| TcpListener::bind((at, 0))).expect("the address is its own");
        let at = listener.local_addr().expect("a bound socket");
        let client = self.enter(|| TcpStream::connect_timeout(&at, LOST)).ok()?;
        let (server, _) = listener.accept().expect("the connection stands");
        for end in [&client, &server] {
            end.set_read_timeout(Some(LOST)).expect("a socket has a time-out");
        }
        Some((client, server))
    }

    /// The address under which `to` sees this host's connection to its address `at`; empty if there is no way.
    pub(crate) fn seen(&self, to: &Self, at: &str) -> String {
        let ends = self.connect(to, at);
        ends.map(|(_, server)| server.peer_addr().expect("connected").ip().to_string()).unwrap_or_default()
    }

    pub(crate) fn reaches(&self, to: &Self, at: &str) -> bool {
        !self.seen(to, at).is_empty()
    }

    /// The address under which a server of `to` at `listens` sees this host's TCP connection to `at`, one of another host's
    /// addresses that should lead there; empty if it doesn't.
    #[allow(dead_code, reason = "not every test binary has published ports")]
    pub(crate) fn dial(&self, at: &str, to: &Self, listens: &str) -> String {
        let (at, listens): (SocketAddr, SocketAddr) = (address(at), address(listens));
        let server = to.enter(|| TcpListener::bind(listens)).expect("the address is free there");
        let Some(_client) = self.enter(|| TcpStream::connect_timeout(&at, LOST)).ok() else {
            return String::new();
        };
        // The connection stands; if it is this server's, it is in its backlog, or will be with the last acknowledgement.
        let mut ready = [PollFd::new(server.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ready, 500_u16);
        server.set_nonblocking(true).expect("a socket doesn't wait");
        server.accept().map(|(_, peer)| peer.ip().to_string()).unwrap_or_default()
    }

    /// The same with a datagram, whose answer must come back.
    #[allow(dead_code, reason = "not every test binary has published ports")]
    pub(crate) fn ask(&self, at: &str, to: &Self, listens: &str) -> String {
        let Some((client, server, peer)) = self.send(at, to, listens) else { return String::new() };
        to.enter(|| server.send_to(b"!", peer)).expect("the client's address can be sent to");
        // Connected: only from where the question went.
        client.recv(&mut [0]).map(|_| peer.ip().to_string()).unwrap_or_default()
    }

    /// Whether a datagram comes through, answered or not.
    #[allow(dead_code, reason = "not every test binary has published ports")]
    pub(crate) fn hits(&self, at: &str, to: &Self, listens: &str) -> bool {
        self.send(at, to, listens).is_some()
    }

    /// Sends a datagram to `at`. If it comes to `listens`: the client, the server, and where that one saw it come from.
    fn send(&self, at: &str, to: &Self, listens: &str) -> Option<(UdpSocket, UdpSocket, SocketAddr)> {
        let (at, listens): (SocketAddr, SocketAddr) = (address(at), address(listens));
        let server = to.enter(|| UdpSocket::bind(listens)).expect("the address is free there");
        let any: IpAddr = if at.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let client = self.enter(|| UdpSocket::bind((any, 0))).expect("a socket");
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(LOST)).expect("a socket has a time-out");
        }
        self.enter(|| client.connect(at).and_then(|()| client.send(b"?"))).ok()?;
        let (_, peer) = server.recv_from(&mut [0]).ok()?;
        Some((client, server, peer))
    }

    /// Whether a ping is answered.
    #[allow(dead_code, reason = "not every test binary pings")]
    pub(crate) fn pings(&self, at: &str) -> bool {
        let mut ping = Command::new("busybox");
        ping.args(["ping", "-c", "1", "-W", "1", at]).stdout(Stdio::null()).stderr(Stdio::null());
        self.enter(|| ping.status()).expect("busybox is installed").success()
    }

    /// What is loaded, without counters.
    pub(crate) fn rules(&self, backend: Backend) -> String {
        match backend {
            Backend::Nftables => self.run("nft -s list ruleset", ""),
            Backend::Iptables => {
                let saved = ["iptables-save", "ip6tables-save"].map(|save| self.run(save, ""));
                let lines =
                    saved.iter().flat_map(|saved| saved.lines()).filter(|line| !line.starts_with('#'));
                lines.map(|line| line.split(" [").next().unwrap_or_default().to_owned() + "\n").collect()
            }
        }
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        let (host, out) = (Host::new(), Host::new());
        for (bridge, net) in [("br-a", 20), ("br-b", 21)] {
            host.ip(&format!("link add {bridge} type bridge"));
            host.address(bridge, &format!("172.{net}.0.1/24"), &format!("fd00:{net}::1/64"));
        }
        host.cable("up0", &out, "eth0");
        host.address("up0", "192.0.2.1/24", "fd00:ff::1/64");
        out.address("eth0", "192.0.2.2/24", "fd00:ff::2/64");
        out.ip("route add 172.20.0.0/15 via 192.0.2.1");
        out.ip("route add fd00:20::/31 via fd00:ff::1");
        host.sysctl("net/ipv4/ip_forward", "1");
        host.sysctl("net/ipv6/conf/all/forwarding", "1");
        if Path::new("/proc/sys/net/bridge").exists() {
            host.sysctl("net/bridge/bridge-nf-call-iptables", "0");
            host.sysctl("net/bridge/bridge-nf-call-ip6tables", "0");
        }
        let [a1, a2] = [2, 3].map(|number| host.container("br-a", 20, number));
        let b1 = host.container("br-b", 21, 2);
        Self { host, out, a1, a2, b1 }
    }

    /// Loads the rules as a caller should: with bridged packets shown to them where they need it.
    pub(crate) fn apply(&self, firewall: &mut Firewall, facts: &Facts) {
        for bridge in facts.filters_bridged() {
            self.host.ip(&format!("link set {bridge} type bridge nf_call_iptables 1 nf_call_ip6tables 1"));
        }
        self.host.enter(|| firewall.apply(facts)).expect("the rules load");
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// Whether a test with this backend can run: root, and the backend's tools.
pub(crate) fn ready(backend: Backend) -> Option<()> {
    if !nix::unistd::geteuid().is_root() {
        return missing("needs root for network namespaces");
    }
    let tools: &[&str] = match backend {
        Backend::Nftables => &["nft", "ip"],
        Backend::Iptables => &["iptables-save", "ip6tables-save", "ip"],
    };
    for tool in tools {
        let found = Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            return missing(&format!("no {tool} installed"));
        }
    }
    Some(())
}

/// Skips the calling test, or fails it where skipping isn't allowed.
pub(crate) fn missing(why: &str) -> Option<()> {
    let thread = thread::current();
    let test = thread.name().unwrap_or("test");
    let required = std::env::var_os("E2E_REQUIRED").is_some_and(|value| value == "1");
    assert!(!required, "{test}: {why}, and E2E_REQUIRED=1 allows no skipping");
    // Not by eprintln!: the test harness would swallow it in a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIP {test}: {why}");
    None
}
