//! Messages with control messages beside them (cmsg(3)), without an allocation per message.
//!
//! `nix` has the same in general form, and allocates for each message sent; the calls here are on the path of every
//! datagram. The layout of control messages is encoded and decoded as bytes.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockAddr;

use super::datagram;

/// Room for the control messages of one message.
const ROOM: usize = 128;
/// `sizeof(struct cmsghdr)`: a length of pointer size, a level, a type.
const HEADER: usize = size_of::<libc::cmsghdr>();
/// What the kernel aligns control messages to.
const ALIGN: usize = align_of::<libc::cmsghdr>();

/// The control messages of one message.
#[derive(Clone, Debug)]
#[repr(C, align(8))]
pub(crate) struct Control {
    bytes: [u8; ROOM],
    len: usize,
}

impl Control {
    /// None.
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; ROOM], len: 0 }
    }

    /// Adds one. What doesn't fit is left out: callers know what they add, and it is far less than there is room.
    pub(crate) fn push(&mut self, level: i32, kind: i32, payload: &[u8]) {
        let len = HEADER + payload.len();
        let end = self.len + len;
        debug_assert!(end <= ROOM, "too many control messages");
        let Some(place) = self.bytes.get_mut(self.len..end) else { return };
        place[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
        place[HEADER - 8..HEADER - 4].copy_from_slice(&level.to_ne_bytes());
        place[HEADER - 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        place[HEADER..].copy_from_slice(payload);
        self.len = end.next_multiple_of(ALIGN).min(ROOM);
    }

    /// All of them, as the kernel has them.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The payload of the control message of this level and type, of those in `control`.
pub(crate) fn find(control: &[u8], level: i32, kind: i32) -> Option<&[u8]> {
    let mut rest = control;
    while rest.len() >= HEADER {
        let len = usize::from_ne_bytes(rest.first_chunk().copied()?);
        let found = (word(rest, HEADER - 8)?, word(rest, HEADER - 4)?);
        if found == (level, kind) {
            return rest.get(HEADER..len);
        }
        rest = rest.get(len.max(HEADER).checked_next_multiple_of(ALIGN)?..)?;
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().copied().map(i32::from_ne_bytes)
}

/// What was received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) len: usize,
    pub(crate) flags: i32,
    /// Who sent it; `None` on a stream, and for a sender from no Internet address.
    pub(crate) from: Option<SocketAddr>,
    pub(crate) control: Control,
}

/// `recvmsg`.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let (mut control, mut name) = (Control::new(), [0_u8; datagram::NAME]);
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = datagram::NAME_LEN;
    header.msg_control = control.bytes.as_mut_ptr().cast();
    header.msg_controllen = ROOM;
    // SAFETY: every pointer in `header` is to a local that outlives the call, with its true length.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let len = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    control.len = header.msg_controllen.min(ROOM);
    let from = name.get(..header.msg_namelen as usize).and_then(datagram::address);
    Ok(Received { len, flags: header.msg_flags, from, control })
}

/// `sendmsg` of one message in pieces, to `to` or to whom the socket is connected to.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    pieces: &[IoSlice<'_>],
    to: Option<&SockAddr>,
    control: &Control,
) -> io::Result<()> {
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    // `IoSlice` is an iovec by its contract.
    header.msg_iov = pieces.as_ptr().cast_mut().cast();
    header.msg_iovlen = pieces.len();
    if let Some(to) = to {
        header.msg_name = to.as_ptr().cast_mut().cast();
        header.msg_namelen = to.len();
    }
    if control.len > 0 {
        header.msg_control = control.bytes.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: every pointer in `header` is to memory that outlives the call, and sendmsg only reads it.
    let n = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) };
    if n == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_pushed_is_found() {
        let mut control = Control::new();
        control.push(1, 2, &[7; 3]);
        control.push(3, 4, &[8; 20]);
        assert_eq!(find(control.bytes(), 1, 2), Some(&[7; 3][..]));
        assert_eq!(find(control.bytes(), 3, 4), Some(&[8; 20][..]));
        assert_eq!(find(control.bytes(), 1, 4), None);
        for cut in 0..control.bytes().len() {
            find(&control.bytes()[..cut], 3, 4); // whatever it finds, it must not panic
        }
        assert_eq!(find(&[0xff; 40], 1, 2), None);
    }

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = SockAddr::from(far.local_addr().unwrap());
        send(near.as_fd(), &[IoSlice::new(b"he"), IoSlice::new(b"llo")], Some(&to), &Control::new()).unwrap();
        let mut buffer = [0; 16];
        let got = receive(far.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..got.len], got.control.bytes()), (&b"hello"[..], &[][..]));
        assert_eq!(got.from, near.local_addr().ok());
        assert_eq!(receive(far.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
