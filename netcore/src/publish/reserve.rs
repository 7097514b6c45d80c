//! Opens the sockets of planned groups: what the kernel grants is taken, everything else is only a wish.
//!
//! All or nothing: if one socket of one group can't be had, all are closed again and all numbers given back. A group that
//! may choose its port tries every candidate before it gives up, however many of them other processes hold.
//!
//! Not here: the single socket (`socket`), what is done with them together (`reservation`).

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::allocator::{AllocateError, Allocator, PortRequest};
use super::bindings::Group;
use super::ports::{PortRange, Proto};
use super::reservation::{Reservation, places};
use super::socket;
use super::spec::HostPorts;
use crate::kernel::holder_of;

/// How long a port that was given up may be held by a child of ours that isn't its program yet: until then, it has copies
/// of all our sockets.
const LINGERING: Duration = Duration::from_millis(100);
/// Between two looks at that.
const PAUSE: Duration = Duration::from_millis(2);

/// Why sockets couldn't be had, with Docker's text where it has one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// This process has given the port away before, or nothing is left of the range.
    #[error(transparent)]
    Number(#[from] AllocateError),
    /// The kernel refused the address or port.
    #[error("failed to bind host port {address}/{proto}: {}{advice}", socket::lower(*.errno))]
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
    #[error("failed to {step} for {address}/{proto}: {}{advice}", socket::lower(*.errno))]
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
    #[error("failed to listen on {proto} socket {address}: {}", socket::lower(*.errno))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// On which protocol.
        proto: Proto,
        /// Its reason.
        errno: Errno,
    },
}

impl ReserveError {
    /// Says who has the port, where that can be seen. Not asked for each port of a choice: all processes are looked at.
    fn naming_the_holder(mut self) -> Self {
        if let Self::Bind { address, proto, errno: Errno::EADDRINUSE, advice } = &mut self
            && advice.is_empty()
            && let Some(holder) = holder_of(*proto, *address)
        {
            *advice = format!(" (by {}, process {})", holder.name, holder.pid);
        }
        self
    }

    /// Whether somebody has the port.
    const fn is_about_holder(&self) -> bool {
        matches!(
            self,
            Self::Bind { errno: Errno::EADDRINUSE, .. } | Self::Listen { errno: Errno::EADDRINUSE, .. }
        )
    }

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
    if groups.iter().any(|group| group.host() == HostPorts::Ephemeral) {
        numbers.refresh();
    }
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
                return Err(error.naming_the_holder());
            }
        }
    }
    Ok(done)
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
    let patience = Instant::now() + LINGERING;
    let opened = loop {
        match open_all(group, ports) {
            Err(error) if error.is_about_holder() && Instant::now() < patience => thread::sleep(PAUSE),
            opened => break opened,
        }
    };
    match opened {
        Ok(sockets) => Ok(reservation(group, ports, sockets)),
        Err(error) => {
            numbers.release(group.addresses(), group.proto(), ports);
            Err(error)
        }
    }
}

fn reservation(group: &Group, host: PortRange, sockets: Vec<OwnedFd>) -> Reservation {
    let (addresses, specs) = (group.addresses().to_vec(), group.specs().to_vec());
    Reservation::new(group.proto(), (host, group.container()), addresses, specs, sockets)
}

fn open_all(group: &Group, ports: PortRange) -> Result<Vec<OwnedFd>, ReserveError> {
    places(group.addresses(), ports).map(|address| socket::open(address, group.proto())).collect()
}

#[cfg(test)]
mod tests;
