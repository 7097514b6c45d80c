//! SCTP socket options that no safe crate has.

use std::io;
use std::mem::size_of_val;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Offers peers as many outgoing streams as the protocol has, so that the socket never is what limits them.
pub(crate) fn offer_all_streams(socket: BorrowedFd<'_>) -> io::Result<()> {
    let init = libc::sctp_initmsg {
        sinit_num_ostreams: u16::MAX,
        sinit_max_instreams: 0,
        sinit_max_attempts: 0,
        sinit_max_init_timeo: 0,
    };
    let size = libc::socklen_t::try_from(size_of_val(&init)).expect("four u16 are eight bytes");
    // SAFETY: the descriptor is open for the call because it is borrowed; the pointer and the size describe `init`,
    // which lives until the call returns, and the kernel only reads it.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_SCTP,
            libc::SCTP_INITMSG,
            (&raw const init).cast(),
            size,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
