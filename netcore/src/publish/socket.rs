//! One host socket: opened, bound, and deaf until somebody serves it.
//!
//! A BPF program that accepts nothing stands on each from before it is bound: what arrives is dropped, not refused,
//! so that a client tries again and ends up with whoever serves by then. SCTP takes it only once it is bound. Some kernels
//! keep such programs for the privileged; then what arrives waits in the socket's queue.
//!
//! TCP gets `SO_REUSEADDR`, so that connections in TIME_WAIT don't keep a port from its next user. UDP must not: two
//! sockets could then share a port. IPv6 sockets never take IPv4 traffic; UDP sockets tell the address a datagram was sent
//! to, for the reply to come from there.

use std::fs;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::ports::Proto;
use super::reserve::ReserveError;
use crate::kernel::{deaf, sctp};

const UNPRIVILEGED_FILE: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// Whether the host can listen on IPv6 at all, asked on `[::1]` as Docker does.
pub fn host_listens_on_ipv6() -> bool {
    open(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), Proto::Tcp).is_ok()
}

/// Makes a socket drop all that arrives. Established connections of a listening one go on.
pub(super) fn deafen(socket: &impl AsFd) -> io::Result<()> {
    deaf::deafen(socket.as_fd())
}

/// Undoes [`deafen`]; nothing if there is nothing to undo.
pub(super) fn hear(socket: &impl AsFd) -> io::Result<()> {
    match SockRef::from(&socket.as_fd()).detach_filter() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// One bound socket, listening if its protocol does, that drops what arrives.
pub(super) fn open(address: SocketAddr, proto: Proto) -> Result<OwnedFd, ReserveError> {
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
    let deafen = || match deafen(&socket) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        done => done.map_err(|error| failed("set drop packets filter", error)),
    };
    if proto == Proto::Tcp {
        socket.set_reuse_address(true).map_err(|error| failed("setsockopt(SO_REUSEADDR)", error))?;
    }
    if proto != Proto::Sctp {
        deafen()?;
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
    if proto == Proto::Sctp {
        deafen()?;
    }
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
pub(super) fn lower(errno: Errno) -> String {
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
