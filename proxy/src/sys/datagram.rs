//! What a multishot `recvmsg` leaves in a buffer: a header, the sender's address, control messages, and the payload
//! (io_uring_prep_recvmsg_multishot(3)). Pure, but for the template that asks for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// `struct io_uring_recvmsg_out`: the lengths of the name, the control messages and the payload, and flags.
const HEADER: usize = 16;
/// `struct sockaddr_in6`, the larger of the two.
pub(super) const NAME_LEN: libc::socklen_t = 28;
pub(super) const NAME: usize = NAME_LEN as usize;
/// A `struct in6_pktinfo` and the size of a batch's datagrams, each with its header.
const CONTROL: usize = 64;
/// All that comes before the payload.
pub(crate) const OVERHEAD: usize = HEADER + NAME + CONTROL;

/// A datagram in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    /// Who sent it; `None` for one from no Internet address.
    pub(crate) from: Option<SocketAddr>,
    /// Its control messages.
    pub(crate) control: &'a [u8],
    /// What it says.
    pub(crate) payload: &'a [u8],
}

/// Asks the kernel to leave this much room.
pub(super) fn template() -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths. The kernel reads the two lengths alone.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_namelen = NAME_LEN;
    header.msg_controllen = CONTROL;
    header
}

/// Reads a buffer. `None` when it is shorter than the kernel ever makes it.
pub(crate) fn parse(buffer: &[u8]) -> Option<Datagram<'_>> {
    let length = |at: usize| Some(u32::from_ne_bytes(buffer.get(at..)?.first_chunk().copied()?) as usize);
    let (name, control) = (length(0)?.min(NAME), length(4)?.min(CONTROL));
    let rest = buffer.get(HEADER..)?;
    let payload = rest.get(NAME + CONTROL..)?;
    Some(Datagram { from: address(rest.get(..name)?), control: rest.get(NAME..NAME + control)?, payload })
}

/// What a datagram in a buffer says.
pub(crate) fn payload(buffer: &[u8]) -> &[u8] {
    buffer.get(OVERHEAD..).unwrap_or_default()
}

/// A `struct sockaddr_in` or `struct sockaddr_in6`.
pub(super) fn address(name: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(name.get(2..)?.first_chunk().copied()?);
    match i32::from(u16::from_ne_bytes(name.first_chunk().copied()?)) {
        libc::AF_INET => {
            let ip: [u8; 4] = name.get(4..)?.first_chunk().copied()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port))
        }
        libc::AF_INET6 => {
            let flow = u32::from_be_bytes(name.get(4..)?.first_chunk().copied()?);
            let ip: [u8; 16] = name.get(8..)?.first_chunk().copied()?;
            let scope = u32::from_ne_bytes(name.get(24..)?.first_chunk().copied()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockAddr;

    fn buffer(from: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let name = SockAddr::from(from);
        // SAFETY: the bytes of an initialised address, of its own length.
        let bytes = unsafe { std::slice::from_raw_parts(name.as_ptr().cast::<u8>(), name.len() as usize) };
        let mut buffer = vec![0; OVERHEAD];
        buffer[..4].copy_from_slice(&name.len().to_ne_bytes());
        buffer[4..8].copy_from_slice(&8_u32.to_ne_bytes());
        buffer[HEADER..HEADER + bytes.len()].copy_from_slice(bytes);
        buffer[HEADER + NAME..HEADER + NAME + 8].copy_from_slice(b"controls");
        buffer.extend_from_slice(payload);
        buffer
    }

    #[test]
    fn senders_of_both_families_are_read() {
        for from in ["192.0.2.7:53", "[2001:db8::7]:53", "[fe80::1%3]:5353"] {
            let from: SocketAddr = from.parse().unwrap();
            let buffer = buffer(from, b"hello");
            let want = Datagram { from: Some(from), control: b"controls", payload: b"hello" };
            assert_eq!(parse(&buffer), Some(want));
        }
        assert_eq!(parse(&buffer("192.0.2.7:53".parse().unwrap(), b"")).unwrap().payload, b"");
    }

    #[test]
    fn what_is_cut_short_is_no_datagram_and_no_panic() {
        let whole = buffer("[2001:db8::7]:53".parse().unwrap(), b"");
        for cut in 0..OVERHEAD {
            assert_eq!(parse(&whole[..cut]), None);
        }
        let mut strange = whole;
        strange[..8].fill(0xff);
        assert!(parse(&strange).is_some());
        strange[HEADER] = 0xee; // no family we know
        assert_eq!(parse(&strange).unwrap().from, None);
    }
}
