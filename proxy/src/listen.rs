//! The listening sockets of a mapping: opened here, or inherited from whoever bound them.
//!
//! An inherited socket is taken as it is: never bound or listened on again, dual-stack or not, and its real type is
//! asked of the kernel instead of trusted from the command line. Only what serving needs is set on it: non-blocking
//! mode (shared with the other holders of the socket, as docker-proxy does), and packet information on UDP.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use crate::flags::Serve;
use crate::mapping::{BadMapping, Mapping, Protocol};
use crate::sys;

/// The first inherited socket's number in docker-proxy's contract.
const LISTEN_FD: i32 = 4;

/// The kernel cuts it down to `net.core.somaxconn`.
const BACKLOG: i32 = i32::MAX;

/// `IPPROTO_SCTP` (RFC 9260, IANA protocol number).
pub const IPPROTO_SCTP: i32 = 132;

/// A bound socket and where its traffic goes.
#[derive(Debug)]
pub struct Listener {
    /// Non-blocking; for TCP and SCTP listening.
    pub socket: Socket,
    /// The address it is bound to.
    pub local: SocketAddr,
    /// The address behind it.
    pub target: SocketAddr,
}

/// Why a socket can't be served. The texts are docker-proxy's where it has one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Binding failed.
    #[error("failed to listen on {addr}: {}{hint}", reason(.source))]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What to do about it, where we know.
        hint: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel has no such protocol.
    #[error("failed to listen on {addr}: this kernel has no {protocol} ({})", reason(.source))]
    NoProtocol {
        /// The address asked for.
        addr: SocketAddr,
        /// The protocol asked for.
        protocol: Protocol,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Nothing is open at the number.
    #[error("no socket on fd {0}: -use-listen-fd needs one there")]
    Missing(i32),
    /// Not a socket of the mapping's protocol.
    #[error("unexpected socket type for listener fd: {found} on fd {fd}, -proto says {protocol}")]
    WrongType {
        /// The descriptor.
        fd: i32,
        /// What is there.
        found: String,
        /// What was asked for.
        protocol: Protocol,
    },
    /// A stream socket that nobody called `listen` on.
    #[error("socket on fd {0} is bound but not listening")]
    NotListening(i32),
    /// Not one of the mapping's ports.
    #[error("socket on fd {fd} is bound to {local}, outside -host-port {ports}")]
    OutsideRange {
        /// The descriptor.
        fd: i32,
        /// Its address.
        local: SocketAddr,
        /// The mapping's ports.
        ports: crate::mapping::Ports,
    },
    /// Not one of this host's.
    #[error("can't connect from -source-ips {ip}: {}", reason(.source))]
    Source {
        /// The address.
        ip: IpAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Setting or asking for an option failed.
    #[error("failed to setsockopt({option}): {}", reason(.source))]
    Option {
        /// Its name.
        option: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Any other refusal of the kernel's.
    #[error(transparent)]
    Os(#[from] io::Error),
}

/// The error as docker-proxy words it: lower case, without Rust's number.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |errno| {
            let text = nix::errno::Errno::from_raw(errno).desc();
            match text.chars().next() {
                // "I/O error" keeps its capital.
                Some(first) if !text.starts_with("I/O") => {
                    format!("{}{}", first.to_lowercase(), &text[first.len_utf8()..])
                }
                _ => text.to_owned(),
            }
        },
    )
}

/// The mapping's sockets, in no particular order.
///
/// # Errors
/// The first socket that can't be served; those opened before it are closed again.
pub fn listeners(serve: &Serve) -> Result<Vec<Listener>, ListenError> {
    let mapping = &serve.mapping;
    match serve.inherit {
        Some(n) => {
            (0..n).map(|i| inherit(LISTEN_FD + i32::try_from(i).unwrap_or(i32::MAX), mapping)).collect()
        }
        None => mapping
            .host_ports
            .iter()
            .enumerate()
            .map(|(i, port)| {
                open(SocketAddr::new(mapping.host_ip, port), mapping.target(i), mapping.protocol)
            })
            .collect(),
    }
}

fn open(addr: SocketAddr, target: SocketAddr, protocol: Protocol) -> Result<Listener, ListenError> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (Type::STREAM, None),
        Protocol::Udp => (Type::DGRAM, None),
        Protocol::Sctp => (Type::STREAM, Some(IPPROTO_SCTP.into())),
    };
    let socket = Socket::new(Domain::for_address(addr), kind, number).map_err(|source| {
        match source.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT | libc::EAFNOSUPPORT) => {
                ListenError::NoProtocol { addr, protocol, source }
            }
            _ => ListenError::Bind { addr, hint: String::new(), source },
        }
    })?;
    if addr.is_ipv6() {
        socket.set_only_v6(true).map_err(option("IPV6_V6ONLY"))?;
    }
    if protocol == Protocol::Tcp {
        // A port just given up has connections in TIME_WAIT; not on UDP, where it would let two share a port.
        socket.set_reuse_address(true).map_err(option("SO_REUSEADDR"))?;
    }
    let bound = socket.bind(&addr.into()).and_then(|()| match protocol {
        Protocol::Tcp | Protocol::Sctp => socket.listen(BACKLOG),
        Protocol::Udp => Ok(()),
    });
    bound.map_err(|source| ListenError::Bind { addr, hint: bind_hint(addr.port(), &source), source })?;
    prepare(socket, target, protocol)
}

/// Ports below this need a capability; the kernel's own default where it doesn't tell.
fn bind_hint(port: u16, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024_u16);
    if port < first { format!(" (ports below {first} need CAP_NET_BIND_SERVICE)") } else { String::new() }
}

fn inherit(fd: i32, mapping: &Mapping) -> Result<Listener, ListenError> {
    let socket = Socket::from(sys::inherited(fd).ok_or(ListenError::Missing(fd))?);
    let protocol = mapping.protocol;
    let found = kind(&socket);
    if found != protocol.name() {
        std::mem::forget(socket); // somebody else's descriptor: not ours to close
        return Err(ListenError::WrongType { fd, found, protocol });
    }
    if protocol != Protocol::Udp && !socket.is_listener()? {
        return Err(ListenError::NotListening(fd));
    }
    let local = local_addr(&socket)?;
    let index = mapping.index_of(local.port()).ok_or(ListenError::OutsideRange {
        fd,
        local,
        ports: mapping.host_ports,
    })?;
    prepare(socket, mapping.target(index), protocol)
}

/// What the kernel says a descriptor is, in the words of the command line.
fn kind(socket: &Socket) -> String {
    let (Ok(domain), Ok(kind)) = (socket.domain(), socket.r#type()) else { return "not a socket".to_owned() };
    let protocol = socket.protocol().ok().flatten().map(i32::from);
    match (domain, kind, protocol) {
        (Domain::UNIX, ..) => "unix".to_owned(),
        (Domain::IPV4 | Domain::IPV6, Type::STREAM, Some(IPPROTO_SCTP)) => "sctp".to_owned(),
        (Domain::IPV4 | Domain::IPV6, Type::STREAM, _) => "tcp".to_owned(),
        (Domain::IPV4 | Domain::IPV6, Type::DGRAM, _) => "udp".to_owned(),
        _ => format!("family {}, type {}", i32::from(domain), i32::from(kind)),
    }
}

fn prepare(socket: Socket, target: SocketAddr, protocol: Protocol) -> Result<Listener, ListenError> {
    socket.set_nonblocking(true)?;
    match protocol {
        // Accepted sockets inherit these from their listener: two calls here instead of five per connection.
        Protocol::Tcp => tcp_options(&SockRef::from(&socket))?,
        Protocol::Udp => {
            ask_for_packet_info(&socket)?;
            make_room(&socket);
        }
        Protocol::Sctp => {}
    }
    let local = local_addr(&socket)?;
    Ok(Listener { socket, local, target })
}

/// What both legs of a TCP connection get: no waiting for more bytes, and [`keep_alive`].
///
/// # Errors
/// When the kernel refuses one of the options.
pub fn tcp_options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    keep_alive(socket)
}

/// Keepalive as Go's runtime sets it, so that a peer that vanished is noticed.
///
/// # Errors
/// When the kernel refuses one of the options.
pub fn keep_alive(socket: &SockRef<'_>) -> io::Result<()> {
    const EVERY: Duration = Duration::from_secs(15);
    const PROBES: u32 = 9;
    let keepalive = TcpKeepalive::new().with_time(EVERY).with_interval(EVERY).with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

/// Lets `socket` connect from `source`. Its port is chosen by `connect`, which knows the target and so may take one
/// that is in use towards another; `bind` would have to find one that nobody uses at all.
///
/// # Errors
/// The kernel's: `source` is no address of this host's.
pub fn connect_from(socket: &SockRef<'_>, source: IpAddr) -> io::Result<()> {
    // Kernels before 4.2 haven't got it: they run out of ports earlier, and work otherwise.
    let _ = setsockopt(&socket.as_fd(), sockopt::IpBindAddressNoPort, &true);
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// Checks that each of `-source-ips` is an address of this host's.
///
/// # Errors
/// For the first that isn't.
pub fn check_sources(ips: &[IpAddr]) -> Result<(), ListenError> {
    ips.iter().try_for_each(|&ip| {
        // Without a port, so that a host short of them is no obstacle.
        let socket = Socket::new(Domain::for_address(SocketAddr::new(ip, 0)), Type::STREAM, None);
        let bound = socket.and_then(|socket| connect_from(&SockRef::from(&socket), ip));
        bound.map_err(|source| ListenError::Source { ip, source })
    })
}

/// A socket to reach `target` with: non-blocking, not yet connected, without keepalive.
///
/// # Errors
/// When the kernel refuses.
pub fn stream_socket(target: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), None)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Refuses a mapping from all of this host's addresses to one of them at the same port: every connection would come
/// straight back. Loopback needs no look at the host, see [`Mapping::new`].
///
/// # Errors
/// [`BadMapping::Loop`].
pub fn check_loop(mapping: &Mapping) -> Result<(), BadMapping> {
    let (host, target) = (mapping.host_ip, mapping.target_ip);
    let reaches = host.is_unspecified() && host.is_ipv4() == target.is_ipv4();
    if reaches && mapping.host_ports == mapping.target_ports && UdpSocket::bind((target, 0)).is_ok() {
        return Err(BadMapping::Loop(mapping.target(0)));
    }
    Ok(())
}

/// Bytes of datagrams that may wait for us. The kernel's default holds some 270 small ones: a burst of a few clients.
const QUEUE: usize = 4 * 1024 * 1024;

/// Lets a burst wait in the socket instead of losing it. Beyond `net.core.rmem_max` that takes `CAP_NET_ADMIN`: without
/// it the queue grows as far as anybody's may.
pub(crate) fn make_room(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &QUEUE).is_err() {
        let _ = socket.set_recv_buffer_size(QUEUE); // cut down by the kernel, never refused
    }
}

/// Datagrams then tell which of our addresses they were sent to, which is where the reply must come from.
fn ask_for_packet_info(socket: &Socket) -> Result<(), ListenError> {
    let set = |option, result: nix::Result<()>| {
        result.map_err(|errno| ListenError::Option { option, source: errno.into() })
    };
    if socket.domain()? == Domain::IPV6 {
        set("IPV6_RECVPKTINFO", setsockopt(&socket.as_fd(), sockopt::Ipv6RecvPacketInfo, &true))
    } else {
        set("IP_PKTINFO", setsockopt(&socket.as_fd(), sockopt::Ipv4PacketInfo, &true))
    }
}

fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

fn option(option: &'static str) -> impl Fn(io::Error) -> ListenError {
    move |source| ListenError::Option { option, source }
}
