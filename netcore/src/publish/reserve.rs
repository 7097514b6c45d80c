//! Opens the sockets of planned groups: what the kernel grants is taken, everything else is only a wish.
//!
//! All or nothing: if one socket of one group can't be had, all are closed again and all numbers given back. A group that
//! may choose its port tries every candidate before it gives up, however many of them other processes hold.
//!
//! TCP gets `SO_REUSEADDR`, so that connections in TIME_WAIT don't keep a port from its next user. UDP must not: two
//! sockets could then share a port. IPv6 sockets never take IPv4 traffic; UDP sockets tell the address a datagram was sent
//! to, for the reply to come from there.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::allocator::{AllocateError, Allocator, PortRequest};
use super::bindings::Group;
use super::ports::{PortRange, Proto};
use super::spec::HostPorts;
use crate::kernel::sctp;

const UNPRIVILEGED_FILE: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// Bound sockets, TCP and SCTP ones listening, for a run of host ports on some addresses.
///
/// Dropping it closes the sockets; [`Reservation::release`] gives the numbers back too.
#[derive(Debug)]
pub struct Reservation {
    proto: Proto,
    container: PortRange,
    host: PortRange,
    addresses: Vec<IpAddr>,
    specs: Vec<usize>,
    sockets: Vec<OwnedFd>,
}

/// Why sockets couldn't be had, with Docker's text where it has one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// This process has given the port away before, or nothing is left of the range.
    #[error(transparent)]
    Number(#[from] AllocateError),
    /// The kernel refused the address or port.
    #[error("failed to bind host port {address}/{proto}: {}{advice}", lower(*.errno))]
    Bind {
        /// Where.
        address: SocketAddr,
        /// On which protocol.
        proto: Proto,
        /// Its reason.
        errno: Errno,
        /// What can be done about it, or nothing.
        advice: String,
    },
    /// The kernel refused the socket or one of its options.
    #[error("failed to {step} for {address}/{proto}: {}{advice}", lower(*.errno))]
    Socket {
        /// What was attempted.
        step: &'static str,
        /// For which address.
        address: SocketAddr,
        /// On which protocol.
        proto: Proto,
        /// Its reason.
        errno: Errno,
        /// What can be done about it, or nothing.
        advice: String,
    },
    /// The kernel refused to listen on a bound socket.
    #[error("failed to listen on {proto} socket {address}: {}", lower(*.errno))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// On which protocol.
        proto: Proto,
        /// Its reason.
        errno: Errno,
    },
}

impl Reservation {
    /// Protocol of all sockets.
    pub const fn proto(&self) -> Proto {
        self.proto
    }

    /// Container ports, first to first and last to last with [`Self::host`].
    pub const fn container(&self) -> PortRange {
        self.container
    }

    /// Bound host ports.
    pub const fn host(&self) -> PortRange {
        self.host
    }

    /// The addresses on which each port is bound.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The sockets: one per address and port, in no particular order.
    pub fn sockets(&self) -> impl ExactSizeIterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// Closes the sockets and gives the numbers back, in this order.
    pub fn release(mut self, numbers: &mut Allocator) {
        self.close();
        numbers.release(&self.addresses, self.proto, self.host);
    }

    /// Closes the sockets. Others who hold duplicates keep the ports until they close theirs.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
    }

    /// Whether `next` is the following port of the same specs, on the same addresses.
    fn continues_with(&self, next: &Self) -> bool {
        let follows = |a: PortRange, b: PortRange| a.last().checked_add(1) == Some(b.first());
        self.proto == next.proto
            && follows(self.host, next.host)
            && follows(self.container, next.container)
            && self.addresses == next.addresses
            && self.specs == next.specs
    }

    fn append(&mut self, next: Self) {
        let join = |a: PortRange, b: PortRange| {
            PortRange::new(a.first(), b.last()).expect("`continues_with` says that b follows a")
        };
        self.host = join(self.host, next.host);
        self.container = join(self.container, next.container);
        self.sockets.extend(next.sockets);
    }
}

impl ReserveError {
    /// Whether another port of the same addresses may do better.
    fn concerns_this_port_only(&self) -> bool {
        match self {
            Self::Bind { errno, .. } => matches!(errno, Errno::EADDRINUSE | Errno::EACCES),
            Self::Listen { errno, .. } => *errno == Errno::EADDRINUSE,
            Self::Number(_) | Self::Socket { .. } => false,
        }
    }
}

/// Binds everything in `groups`. Ports of one spec that came out in a row are one reservation.
///
/// # Errors
/// The first thing that couldn't be had; nothing stays bound or allocated then. If a choice of ports failed, that is
/// about the last port tried.
pub fn reserve(numbers: &mut Allocator, groups: &[Group]) -> Result<Vec<Reservation>, ReserveError> {
    let mut done: Vec<Reservation> = Vec::new();
    for group in groups {
        match reserve_group(numbers, group) {
            Ok(reservation) => {
                match done.iter_mut().rev().find(|earlier| earlier.continues_with(&reservation)) {
                    Some(earlier) => earlier.append(reservation),
                    None => done.push(reservation),
                }
            }
            Err(error) => {
                for reservation in done {
                    reservation.release(numbers);
                }
                return Err(error);
            }
        }
    }
    Ok(done)
}

/// Whether the host can listen on IPv6 at all, asked on `[::1]` as Docker does.
pub fn host_listens_on_ipv6() -> bool {
    open(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), Proto::Tcp).is_ok()
}

fn reserve_group(numbers: &mut Allocator, group: &Group) -> Result<Reservation, ReserveError> {
    let request = match group.host() {
        HostPorts::Aligned(ports) => return reserve_exactly(numbers, group, ports),
        HostPorts::OneOf(ports) => PortRequest::OneOf(ports),
        HostPorts::Ephemeral => PortRequest::Ephemeral,
    };
    // Numbers that didn't work stay allocated during the search, which makes the allocator come to an end.
    let mut failed = Vec::new();
    let mut last_error = None;
    let found = loop {
        let port = match numbers.allocate(group.addresses(), group.proto(), request) {
            Ok(port) => PortRange::single(port),
            Err(AllocateError::Exhausted) if last_error.is_some() => break None,
            Err(error) => {
                last_error = Some(error.into());
                break None;
            }
        };
        match open_all(group, port) {
            Ok(sockets) => break Some((port, sockets)),
            Err(error) => {
                failed.push(port);
                let over = !error.concerns_this_port_only();
                last_error = Some(error);
                if over {
                    break None;
                }
            }
        }
    };
    for port in failed {
        numbers.release(group.addresses(), group.proto(), port);
    }
    match (found, last_error) {
        (Some((port, sockets)), _) => Ok(reservation(group, port, sockets)),
        (None, Some(error)) => Err(error),
        (None, None) => Err(AllocateError::Exhausted.into()),
    }
}

fn reserve_exactly(
    numbers: &mut Allocator,
    group: &Group,
    ports: PortRange,
) -> Result<Reservation, ReserveError> {
    numbers.claim(group.addresses(), group.proto(), ports)?;
    match open_all(group, ports) {
        Ok(sockets) => Ok(reservation(group, ports, sockets)),
        Err(error) => {
            numbers.release(group.addresses(), group.proto(), ports);
            Err(error)
        }
    }
}

fn reservation(group: &Group, host: PortRange, sockets: Vec<OwnedFd>) -> Reservation {
    Reservation {
        proto: group.proto(),
        container: group.container(),
        host,
        addresses: group.addresses().to_vec(),
        specs: group.specs().to_vec(),
        sockets,
    }
}

fn open_all(group: &Group, ports: PortRange) -> Result<Vec<OwnedFd>, ReserveError> {
    ports
        .iter()
        .flat_map(|port| group.addresses().iter().map(move |ip| SocketAddr::new(*ip, port)))
        .map(|address| open(address, group.proto()))
        .collect()
}

/// One bound socket, listening if its protocol does.
fn open(address: SocketAddr, proto: Proto) -> Result<OwnedFd, ReserveError> {
    let (kind, protocol) = match proto {
        Proto::Tcp => (Type::STREAM, Protocol::TCP),
        Proto::Udp => (Type::DGRAM, Protocol::UDP),
        Proto::Sctp => (Type::STREAM, Protocol::SCTP),
    };
    let failed = |step, error: io::Error| {
        let errno = errno(&error);
        ReserveError::Socket { step, address, proto, errno, advice: socket_advice(errno, proto) }
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))
        .map_err(|error| failed("create socket", error))?;
    if proto == Proto::Tcp {
        socket.set_reuse_address(true).map_err(|error| failed("setsockopt(SO_REUSEADDR)", error))?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(|error| failed("setsockopt(IPV6_V6ONLY)", error))?;
    }
    match (proto, address) {
        (Proto::Udp, SocketAddr::V4(_)) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)
            .map_err(|errno| failed("setsockopt(IP_PKTINFO)", errno.into()))?,
        (Proto::Udp, SocketAddr::V6(_)) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)
            .map_err(|errno| failed("setsockopt(IPV6_RECVPKTINFO)", errno.into()))?,
        (Proto::Sctp, _) => sctp::offer_all_streams(socket.as_fd())
            .map_err(|error| failed("setsockopt(SCTP_INITMSG)", error))?,
        (Proto::Tcp, _) => {}
    }
    socket.bind(&address.into()).map_err(|error| {
        let errno = errno(&error);
        ReserveError::Bind { address, proto, errno, advice: bind_advice(errno, address) }
    })?;
    if proto != Proto::Udp {
        // -1 is more than net.core.somaxconn allows, and so means just that.
        socket.listen(-1).map_err(|error| ReserveError::Listen { address, proto, errno: errno(&error) })?;
    }
    Ok(socket.into())
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// Error texts as Go prints them, and so Docker: the C library's, beginning in lower case.
fn lower(errno: Errno) -> String {
    let text = errno.desc();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn socket_advice(errno: Errno, proto: Proto) -> String {
    match errno {
        Errno::EPROTONOSUPPORT if proto == Proto::Sctp => " (this kernel has no SCTP)".to_owned(),
        Errno::EMFILE => " (each port and address takes one: raise the limit with `ulimit -n`)".to_owned(),
        _ => String::new(),
    }
}

fn bind_advice(errno: Errno, address: SocketAddr) -> String {
    match (errno, address) {
        (Errno::EACCES, _) => {
            let first_free = fs::read_to_string(UNPRIVILEGED_FILE)
                .ok()
                .and_then(|text| text.trim().parse::<u16>().ok())
                .unwrap_or(1024);
            if address.port() < first_free {
                return format!(" (ports below {first_free} need CAP_NET_BIND_SERVICE or root)");
            }
            String::new()
        }
        (Errno::EINVAL, SocketAddr::V6(address)) if address.ip().is_unicast_link_local() => {
            " (a link-local address says nothing without its interface, which -p can't name: publish on [::] instead)"
                .to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
