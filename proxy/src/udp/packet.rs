//! One datagram on a listening socket: who sent it, to which of our addresses, and replies from exactly there.
//!
//! Linux tells with `IP_PKTINFO` / `IPV6_PKTINFO` (ip(7), RFC 3542 section 6). For IPv4 `ipi_spec_dst` is taken, not
//! the header's destination `ipi_addr`: the latter is no source address for a broadcast or multicast datagram.
//!
//! Senders may hand many datagrams of one size to the kernel at once (GSO, udp(7)), and receivers may get them at once
//! (GRO): such a batch is passed on as one, too.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use super::flows::Local;
use crate::sys::message::{self, Control};

/// A received datagram's envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its length; may be 0.
    pub len: usize,
    /// Who sent it.
    pub client: SocketAddr,
    /// Where it was sent to; `None` on a socket that doesn't tell.
    pub local: Option<Local>,
    /// The size of each, where many of one size came as one batch.
    pub segment: Option<u16>,
}

/// Receives one datagram into `buffer`.
///
/// # Errors
/// `WouldBlock` when there is none; `InvalidData` for one from no Internet address.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let message = message::receive(socket.as_fd(), buffer)?;
    let from_nowhere = || io::Error::new(io::ErrorKind::InvalidData, "datagram from no Internet address");
    let client = message.from.ok_or_else(from_nowhere)?;
    // No control message, or one cut short, is no reason to drop the datagram: the kernel picks a source then.
    let control = message.control.bytes();
    Ok(Datagram { len: message.len, client, local: local_of(control), segment: segment_of(control) })
}

/// The address of ours that a datagram with these control messages was sent to.
pub(crate) fn local_of(control: &[u8]) -> Option<Local> {
    let local = if let Some(info) = message::find(control, libc::IPPROTO_IP, libc::IP_PKTINFO) {
        // struct in_pktinfo: interface, source, destination. The interface is left out: replies are routed like any
        // other packet of the host's.
        let source: [u8; 4] = info.get(4..)?.first_chunk().copied()?;
        Local { ip: Ipv4Addr::from(source).into(), interface: 0 }
    } else {
        // struct in6_pktinfo: destination, interface.
        let info = message::find(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)?;
        let ip = Ipv6Addr::from(info.first_chunk::<16>().copied()?);
        let interface = u32::from_ne_bytes(info.get(16..)?.first_chunk().copied()?);
        let link_local = ip.is_unicast_link_local() || ip.is_multicast();
        Local { ip: ip.into(), interface: if link_local { interface } else { 0 } }
    };
    // All zero: the datagram was queued before anybody asked for packet information.
    (!local.ip.is_unspecified() && !local.ip.is_multicast()).then_some(local)
}

/// The size of each of the datagrams that came as one batch (`UDP_GRO`, udp(7)); `None` for a single one.
pub(crate) fn segment_of(control: &[u8]) -> Option<u16> {
    let size = message::find(control, libc::SOL_UDP, libc::UDP_GRO)?.first_chunk().copied()?;
    u16::try_from(i32::from_ne_bytes(size)).ok()
}

/// Sends `payload` to `client`, from `local` where it is known.
///
/// # Errors
/// The kernel's; `WouldBlock` when the socket's buffer is full.
pub fn send(socket: &impl AsFd, payload: &[u8], client: SocketAddr, local: Option<Local>) -> io::Result<()> {
    send_all(socket, &[IoSlice::new(payload)], client, local, None)
}

/// The same for many datagrams of `segment` bytes; only the last one may be shorter.
pub(crate) fn send_all(
    socket: &impl AsFd,
    pieces: &[IoSlice<'_>],
    client: SocketAddr,
    local: Option<Local>,
    segment: Option<u16>,
) -> io::Result<()> {
    let mut control = Control::new();
    match local {
        Some(Local { ip: IpAddr::V4(ip), interface }) => {
            // struct in_pktinfo: interface, source, and the header's destination, which only a receiver is told.
            let mut info = [0; 12];
            info[..4].copy_from_slice(&interface.to_ne_bytes());
            info[4..8].copy_from_slice(&ip.octets());
            control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(Local { ip: IpAddr::V6(ip), interface }) => {
            // struct in6_pktinfo: source, interface.
            let mut info = [0; 20];
            info[..16].copy_from_slice(&ip.octets());
            info[16..].copy_from_slice(&interface.to_ne_bytes());
            control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    let (socket, client) = (socket.as_fd(), client.into());
    send_in_segments(pieces, &control, segment, |pieces, control| {
        message::send(socket, pieces, Some(&client), control)
    })
}

/// Sends `pieces` as one datagram, or as many of `segment` bytes: all at once, or one by one where the kernel can't cut
/// this many or this large ones. A piece holds whole datagrams. One by one, an error of one is no reason not to send the
/// others.
pub(super) fn send_in_segments(
    pieces: &[IoSlice<'_>],
    control: &Control,
    segment: Option<u16>,
    send: impl Fn(&[IoSlice<'_>], &Control) -> io::Result<()>,
) -> io::Result<()> {
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let Some(size) = segment.filter(|size| *size > 0 && usize::from(*size) < total) else {
        return send(pieces, control);
    };
    let mut cut = control.clone();
    cut.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    match send(pieces, &cut) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE)) => {
            let datagrams = pieces.iter().flat_map(|piece| piece.chunks(size.into()));
            let mut first = Ok(());
            for one in datagrams {
                let sent = send(&[IoSlice::new(one)], control);
                first = first.and(sent);
            }
            first
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{setsockopt, sockopt};
    use std::net::UdpSocket;

    #[test]
    fn a_reply_leaves_from_the_address_that_was_asked() {
        let ours = UdpSocket::bind("0.0.0.0:0").unwrap();
        setsockopt(&ours, sockopt::Ipv4PacketInfo, &true).unwrap();
        let port = ours.local_addr().unwrap().port();
        let theirs = UdpSocket::bind("127.0.0.1:0").unwrap();
        theirs.send_to(b"ping", ("127.0.0.9", port)).unwrap();
        let mut buffer = [0; 16];
        let got = receive(&ours, &mut buffer).unwrap();
        assert_eq!(got.local, Some(Local { ip: [127, 0, 0, 9].into(), interface: 0 }));
        assert_eq!((got.len, got.client), (4, theirs.local_addr().unwrap()));
        send(&ours, b"pong", got.client, got.local).unwrap();
        let (n, from) = theirs.recv_from(&mut buffer).unwrap();
        assert_eq!((n, from), (4, SocketAddr::from(([127, 0, 0, 9], port))));
    }

    #[test]
    fn an_ipv4_client_of_a_dual_stack_socket_is_answered_too() {
        let ours = UdpSocket::bind("[::]:0").unwrap();
        setsockopt(&ours, sockopt::Ipv6RecvPacketInfo, &true).unwrap();
        let port = ours.local_addr().unwrap().port();
        let theirs = UdpSocket::bind("127.0.0.1:0").unwrap();
        theirs.send_to(b"", ("127.0.0.7", port)).unwrap();
        let mut buffer = [0; 16];
        let got = receive(&ours, &mut buffer).unwrap();
        assert_eq!(got.len, 0);
        send(&ours, b"pong", got.client, got.local).unwrap();
        assert_eq!(theirs.recv_from(&mut buffer).unwrap().1, SocketAddr::from(([127, 0, 0, 7], port)));
    }

    #[test]
    fn a_socket_that_does_not_tell_is_answered_from_wherever() {
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let theirs = UdpSocket::bind("127.0.0.1:0").unwrap();
        theirs.send_to(b"ping", ours.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 16];
        let got = receive(&ours, &mut buffer).unwrap();
        assert_eq!(got.local, None);
        send(&ours, b"pong", got.client, got.local).unwrap();
        assert_eq!(theirs.recv_from(&mut buffer).unwrap().1, ours.local_addr().unwrap());
        assert_eq!(receive(&ours, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
