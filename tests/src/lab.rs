//! Network namespaces as hosts, and the cables between them.
//!
//! A namespace belongs to the descriptor that a [`Host`] holds and to what runs inside; it has no name anywhere, so
//! nothing has to be removed. A socket belongs for life to the namespace it was made in: sockets are made on a
//! throw-away thread inside and used from anywhere. A thread that entered a namespace ends there.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Protocol, Socket, Type};

use crate::need::{self, SCTP};
use crate::proc::Proc;
use crate::wait::PATIENCE;

/// A host: a network namespace of its own with `lo` up. Clones are the same host.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: Arc<File>,
    name: String,
}

impl Host {
    /// A new host; `name` stands in messages only. `None` when this process may not make one, see [`need`].
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        need::root()?;
        let namespace = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let namespace = namespace.join().expect("the thread only makes a namespace");
        let host = Self {
            namespace: Arc::new(namespace.expect("root makes network namespaces")),
            name: name.to_owned(),
        };
        // Addresses are usable at once instead of after a second of duplicate detection.
        host.sysctl("net/ipv6/conf/default/accept_dad", "0");
        host.ip("link set lo up");
        Some(host)
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace as a path for `nsenter --net=…`, valid while this process holds the host.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()))
    }

    /// Runs `work` on a thread inside.
    ///
    /// # Panics
    /// When `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&*self.namespace, CloneFlags::CLONE_NEWNET).expect("root enters its own namespaces");
            work()
        };
        // A test skips and fails under its own name, and what it does in here is still that test.
        let name = thread::current().name().unwrap_or("test").to_owned();
        let result = thread::scope(|scope| {
            let thread = thread::Builder::new().name(name).spawn_scoped(scope, inside);
            thread.expect("a thread starts").join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a program inside; it is killed when the handle goes.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn spawn(&self, mut command: Command) -> Proc {
        self.enter(move || Proc::spawn(&mut command))
    }

    /// Runs a program inside to its end.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn output(&self, mut command: Command) -> Output {
        self.enter(move || command.output().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    /// Runs a program inside that must succeed.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn run(&self, program: &str, words: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(words);
        let output = self.output(command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {program} {words:?}: {said}", self.name);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs iproute2's `ip` with these words.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn ip(&self, words: &str) -> String {
        self.run("ip", &words.split_whitespace().collect::<Vec<_>>())
    }

    /// Sets a value below `/proc/sys` that belongs to this namespace.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{key}");
        let written = self.enter(|| std::fs::write(&path, value));
        written.unwrap_or_else(|e| panic!("{}: {path} = {value}: {e}", self.name));
    }

    /// Makes a bridge with these addresses (`10.0.0.1/24`), up.
    pub fn bridge(&self, name: &str, addresses: &[&str]) {
        self.ip(&format!("link add {name} type bridge"));
        self.address(name, addresses);
    }

    /// Gives an interface addresses and sets it up.
    pub fn address(&self, interface: &str, addresses: &[&str]) {
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            self.ip(&format!("addr add {address} dev {interface} {nodad}"));
        }
        self.ip(&format!("link set {interface} up"));
    }

    /// The kernel's number of an interface.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn index(&self, interface: &str) -> u32 {
        self.enter(|| nix::net::if_::if_nametoindex(interface)).expect("the interface exists")
    }

    /// The link-local address of an interface; it exists as soon as the interface and its peer are up.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn link_local(&self, interface: &str) -> Ipv6Addr {
        let lines = self.ip(&format!("-6 -o addr show dev {interface} scope link"));
        let address = lines.split_whitespace().skip_while(|word| *word != "inet6").nth(1);
        let address = address.and_then(|a| a.split('/').next()).and_then(|a| a.parse().ok());
        address.unwrap_or_else(|| panic!("{}: {interface} has no link-local address: {lines:?}", self.name))
    }

    /// Connects to `to`, with [`PATIENCE`] for this and for every later read and write.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.enter(|| {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    /// A listening TCP socket.
    ///
    /// # Panics
    /// When the address is taken or not the host's.
    #[must_use]
    pub fn listen(&self, at: SocketAddr) -> TcpListener {
        let bound = self.enter(|| TcpListener::bind(at));
        bound.unwrap_or_else(|e| panic!("{}: listen on {at}: {e}", self.name))
    }

    /// A UDP socket as dockerd hands it to a proxy: bound to `at`, on IPv6 for IPv6 alone.
    ///
    /// # Panics
    /// When the address is taken or not the host's.
    #[must_use]
    pub fn udp_listener(&self, at: SocketAddr) -> Socket {
        self.bound(Type::DGRAM, None, at)
    }

    /// A TCP socket as dockerd hands it to a proxy: listening at `at`, on IPv6 for IPv6 alone.
    ///
    /// # Panics
    /// When the address is taken or not the host's.
    #[must_use]
    pub fn tcp_listener(&self, at: SocketAddr) -> Socket {
        self.listening(Type::STREAM, None, at)
    }

    /// An SCTP socket (one-to-one style) bound to `at`.
    ///
    /// # Panics
    /// When the kernel has no SCTP, or the address is taken or not the host's.
    #[must_use]
    pub fn sctp(&self, at: SocketAddr) -> Socket {
        self.bound(Type::STREAM, Some(SCTP.into()), at)
    }

    /// An SCTP socket as dockerd hands it to a proxy: listening at `at`, on IPv6 for IPv6 alone.
    ///
    /// # Panics
    /// When the kernel has no SCTP, or the address is taken or not the host's.
    #[must_use]
    pub fn sctp_listener(&self, at: SocketAddr) -> Socket {
        self.listening(Type::STREAM, Some(SCTP.into()), at)
    }

    fn listening(&self, kind: Type, protocol: Option<Protocol>, at: SocketAddr) -> Socket {
        let socket = self.bound(kind, protocol, at);
        socket.listen(i32::MAX).unwrap_or_else(|e| panic!("{}: listen on {at}: {e}", self.name));
        socket
    }

    fn bound(&self, kind: Type, protocol: Option<Protocol>, at: SocketAddr) -> Socket {
        let bound = self.enter(|| {
            let socket = Socket::new(Domain::for_address(at), kind, protocol)?;
            if at.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            if kind == Type::STREAM {
                socket.set_reuse_address(true)?;
            }
            socket.bind(&at.into())?;
            Ok::<_, io::Error>(socket)
        });
        bound.unwrap_or_else(|e| panic!("{}: bind {at}: {e}", self.name))
    }

    /// A UDP socket bound to `at`, with [`PATIENCE`] for every read.
    ///
    /// # Panics
    /// When the address is taken or not the host's.
    #[must_use]
    pub fn udp(&self, at: SocketAddr) -> UdpSocket {
        let bound = self.enter(|| {
            let socket = UdpSocket::bind(at)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok::<_, io::Error>(socket)
        });
        bound.unwrap_or_else(|e| panic!("{}: bind UDP {at}: {e}", self.name))
    }
}

/// Lays a cable between two hosts: an interface on each, with addresses (`10.0.0.1/24`), up.
///
/// # Panics
/// When a name is taken or an address is none.
pub fn cable(one: (&Host, &str, &[&str]), other: (&Host, &str, &[&str])) {
    let (there, interface) = (other.0.path(), other.1);
    let there = there.display();
    one.0.ip(&format!("link add {} type veth peer name {interface} netns {there}", one.1));
    for (host, interface, addresses) in [one, other] {
        host.address(interface, addresses);
    }
}

/// Lays a cable from `host` to a port of `bridge` on `to`; the port is called `port`.
///
/// # Panics
/// When a name is taken or an address is none.
pub fn plug(host: (&Host, &str, &[&str]), to: &Host, bridge: &str, port: &str) {
    cable(host, (to, port, &[]));
    to.ip(&format!("link set {port} master {bridge}"));
}

/// `127.0.0.1:port`.
#[must_use]
pub fn v4(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// `[::1]:port`.
#[must_use]
pub fn v6(port: u16) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port).into()
}
