//! One datagram on a listening socket: who sent it, to which of our addresses, and replies from exactly there.
//!
//! Linux tells with `IP_PKTINFO` / `IPV6_PKTINFO` (ip(7), RFC 3542 section 6). For IPv4 `ipi_spec_dst` is taken, not
//! the header's destination `ipi_addr`: the latter is no source address for a broadcast or multicast datagram.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
};

use super::flows::Local;

/// A received datagram's envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its length; may be 0.
    pub len: usize,
    /// Who sent it.
    pub client: SocketAddr,
    /// Where it was sent to; `None` on a socket that doesn't tell.
    pub local: Option<Local>,
}

/// Receives one datagram into `buffer`.
///
/// # Errors
/// `WouldBlock` when there is none; `InvalidData` for one from no Internet address.
#[expect(clippy::ptr_arg, reason = "nix takes the control buffer as a Vec, for its capacity")]
pub fn receive(socket: &impl AsFd, buffer: &mut [u8], control: &mut Vec<u8>) -> io::Result<Datagram> {
    let mut slices = [IoSliceMut::new(buffer)];
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(control), MsgFlags::MSG_DONTWAIT)?;
    let client = message
        .address
        .as_ref()
        .and_then(to_std)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "datagram from no Internet address"))?;
    // No control message, or one cut short, is no reason to drop the datagram: the kernel picks a source then.
    let local = message.cmsgs().ok().and_then(|mut all| all.find_map(|one| to_local(&one)));
    Ok(Datagram { len: message.bytes, client, local })
}

/// Room for the control messages that [`receive`] asks for.
#[must_use]
pub fn control_buffer() -> Vec<u8> {
    nix::cmsg_space!(libc::in6_pktinfo)
}

/// Sends `payload` to `client`, from `local` where it is known.
///
/// # Errors
/// The kernel's; `WouldBlock` when the socket's buffer is full.
pub fn send(socket: &impl AsFd, payload: &[u8], client: SocketAddr, local: Option<Local>) -> io::Result<()> {
    let slices = [IoSlice::new(payload)];
    let fd = socket.as_fd().as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT;
    let (v4, v6);
    let source = match local {
        Some(Local { ip: IpAddr::V4(ip), interface }) => {
            v4 = libc::in_pktinfo {
                ipi_ifindex: interface.cast_signed(),
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            Some(ControlMessage::Ipv4PacketInfo(&v4))
        }
        Some(Local { ip: IpAddr::V6(ip), interface }) => {
            v6 = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
                ipi6_ifindex: interface,
            };
            Some(ControlMessage::Ipv6PacketInfo(&v6))
        }
        None => None,
    };
    match client {
        SocketAddr::V4(to) => sendmsg(fd, &slices, source.as_slice(), flags, Some(&SockaddrIn::from(to))),
        SocketAddr::V6(to) => sendmsg(fd, &slices, source.as_slice(), flags, Some(&SockaddrIn6::from(to))),
    }?;
    Ok(())
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into())
}

fn to_local(message: &ControlMessageOwned) -> Option<Local> {
    let local = match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            // The interface is left out: replies are routed like any other packet of the host's.
            Local { ip: Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into(), interface: 0 }
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            let link_local = ip.is_unicast_link_local() || ip.is_multicast();
            Local { ip: ip.into(), interface: if link_local { info.ipi6_ifindex } else { 0 } }
        }
        _ => return None,
    };
    // All zero: the datagram was queued before anybody asked for packet information.
    (!local.ip.is_unspecified() && !local.ip.is_multicast()).then_some(local)
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
        let (mut buffer, mut control) = ([0; 16], control_buffer());
        let got = receive(&ours, &mut buffer, &mut control).unwrap();
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
        let (mut buffer, mut control) = ([0; 16], control_buffer());
        let got = receive(&ours, &mut buffer, &mut control).unwrap();
        assert_eq!(got.len, 0);
        send(&ours, b"pong", got.client, got.local).unwrap();
        assert_eq!(theirs.recv_from(&mut buffer).unwrap().1, SocketAddr::from(([127, 0, 0, 7], port)));
    }

    #[test]
    fn a_socket_that_does_not_tell_is_answered_from_wherever() {
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let theirs = UdpSocket::bind("127.0.0.1:0").unwrap();
        theirs.send_to(b"ping", ours.local_addr().unwrap()).unwrap();
        let (mut buffer, mut control) = ([0; 16], control_buffer());
        let got = receive(&ours, &mut buffer, &mut control).unwrap();
        assert_eq!(got.local, None);
        send(&ours, b"pong", got.client, got.local).unwrap();
        assert_eq!(theirs.recv_from(&mut buffer).unwrap().1, ours.local_addr().unwrap());
        assert_eq!(receive(&ours, &mut buffer, &mut control).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
