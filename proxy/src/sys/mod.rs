//! The few calls without a safe form in `nix` or `socket2`, one `unsafe` block each.
#![allow(unsafe_code, reason = "the crate's only room for it: each block wraps one call")]

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use socket2::Socket;
use tokio::io::unix::AsyncFd;

use crate::control;

pub(crate) mod buffers;
pub(crate) mod ring;

/// Takes over a descriptor that the parent process put at `number`, or `None` when nothing is open there.
///
/// Call it once per number, before anything else in this process opens descriptors.
pub(crate) fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD reads no memory of this process and is defined for any number, open or not.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
    // SAFETY: the descriptor is open, and by this function's rule nobody else in the process owns it: it was there
    // before `main` and each number is asked for once.
    open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Accepts one connection, non-blocking and close-on-exec from the start.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null address pointers are the documented way to not ask for the peer's address.
    let fd =
        unsafe { libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: accept4 just returned this descriptor, so it is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The descriptor that a completed accept, or another thread, handed over; `None` for an error's number.
///
/// Call it once for each such completion.
pub(crate) fn handed_over(result: i32) -> Option<OwnedFd> {
    // SAFETY: a completed accept makes a descriptor that nobody else knows of, and a hand-over gives up its sender's
    // claim to one; by this function's rule it is claimed once.
    (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) })
}

/// Types that own one descriptor from their making to their drop and never exchange it.
pub(crate) trait OwnsDescriptor: AsRawFd {}
impl OwnsDescriptor for Socket {}
impl OwnsDescriptor for UdpSocket {}
impl OwnsDescriptor for control::Server {}

/// Lets the current runtime wait for a descriptor.
pub(crate) fn watch<T: OwnsDescriptor>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the descriptor stays open and the same while `AsyncFd` holds its owner; see `OwnsDescriptor`.
    unsafe { AsyncFd::register(owner) }.map_err(Into::into)
}

/// Sets a socket option that no library names.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer and the length describe `value`, which the kernel only reads during the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A received message's length, flags, and control messages.
#[derive(Debug)]
pub(crate) struct WithControl {
    pub(crate) len: usize,
    pub(crate) flags: i32,
    control: ControlBuffer,
    control_len: usize,
}

/// Aligned as `struct cmsghdr` wants it.
#[derive(Debug)]
#[repr(C, align(8))]
struct ControlBuffer([u8; 128]);

/// `sizeof(struct cmsghdr)`: a length of pointer size, a level, a type.
const HEADER: usize = size_of::<libc::cmsghdr>();

impl WithControl {
    /// The payload of the control message of this level and type.
    pub(crate) fn control(&self, level: i32, kind: i32) -> Option<&[u8]> {
        let mut rest = &self.control.0[..self.control_len];
        while rest.len() >= HEADER {
            let len = usize::from_ne_bytes(rest[..8].try_into().ok()?);
            let found = (
                i32::from_ne_bytes(rest[8..12].try_into().ok()?),
                i32::from_ne_bytes(rest[12..16].try_into().ok()?),
            );
            if found == (level, kind) {
                return rest.get(HEADER..len);
            }
            rest = rest.get(len.max(HEADER).next_multiple_of(8)..)?;
        }
        None
    }
}

/// `recvmsg` with room for a few control messages.
pub(crate) fn receive_with_control(socket: RawFd, buffer: &mut [u8]) -> io::Result<WithControl> {
    let mut control = ControlBuffer([0; 128]);
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    // SAFETY: every pointer in `header` is to a local that outlives the call, with its true length.
    let n = unsafe { libc::recvmsg(socket, &raw mut header, libc::MSG_DONTWAIT) };
    let len = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    Ok(WithControl { len, flags: header.msg_flags, control, control_len: header.msg_controllen.min(128) })
}

/// `sendmsg` with one control message of at most 64 bytes.
pub(crate) fn send_with_control(
    socket: RawFd,
    message: &[u8],
    level: i32,
    kind: i32,
    payload: &[u8],
) -> io::Result<()> {
    let mut control = ControlBuffer([0; 128]);
    let len = HEADER + payload.len();
    control.0[..8].copy_from_slice(&len.to_ne_bytes());
    control.0[8..12].copy_from_slice(&level.to_ne_bytes());
    control.0[12..16].copy_from_slice(&kind.to_ne_bytes());
    control.0[HEADER..len].copy_from_slice(payload);
    let mut slice = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = len.next_multiple_of(8);
    // SAFETY: every pointer in `header` is to memory that outlives the call, and sendmsg only reads it.
    let n = unsafe { libc::sendmsg(socket, &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if n == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
