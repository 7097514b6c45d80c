//! A flow's own socket, connected to the backend.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use super::packet::send_in_segments;
use crate::sys::message::{self, Control};

/// Pending port-unreachable errors that one datagram clears away before it is given up.
const REFUSALS: usize = 3;

/// A non-blocking socket connected to `target`, from `source` or from wherever the kernel likes.
///
/// # Errors
/// The kernel's; see [`is_shortage`] and [`crate::sources::is_spent`].
pub fn connect(target: SocketAddr, source: Option<IpAddr>) -> io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A UDP port is one flow's alone, whatever the target: nothing is gained by choosing it late.
    let socket = UdpSocket::bind((source.unwrap_or(any), 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(target)?;
    Ok(socket)
}

/// Whether descriptors or memory are short: another flow's end would help.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Sends one datagram, or many of `segment` bytes, to the backend. Earlier datagrams' port-unreachable errors come back
/// from `send` instead of its own result and nothing is sent (udp(7)): then it is sent again.
///
/// # Errors
/// The kernel's; of many datagrams the first error, and the others are sent all the same.
pub fn send_on(backend: &UdpSocket, pieces: &[IoSlice<'_>], segment: Option<u16>) -> io::Result<()> {
    send_in_segments(pieces, &Control::new(), segment, |pieces, control| {
        let mut refusals = 0;
        loop {
            match message::send(backend.as_fd(), pieces, None, control) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && refusals < REFUSALS => {
                    refusals += 1;
                }
                result => return result,
            }
        }
    })
}
