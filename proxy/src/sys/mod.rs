//! The few calls without a safe form in `nix` or `socket2`, each wrapped in a safe function.
#![allow(unsafe_code, reason = "the crate's only room for it")]

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use socket2::Socket;
use tokio::io::unix::AsyncFd;

use crate::control;

pub(crate) mod buffers;
pub(crate) mod datagram;
pub(crate) mod message;
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

/// Lets all threads allocate from one heap. glibc gives each thread an arena of its own otherwise, which keeps what it
/// once took; our threads hardly ever allocate at the same time.
pub(crate) fn one_heap() {
    // SAFETY: mallopt takes two numbers and changes the allocator's own settings alone; no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
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
