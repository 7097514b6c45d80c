//! Sockets that drop what arrives.
//!
//! One program, loaded once, stands on all of them: the kernel translates a program of its own for each socket in some
//! microseconds and two pages, which is too much for thousands of ports. Where programs can't be loaded (without
//! privileges, mostly), each socket has its own after all.

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use socket2::{SockFilter, SockRef};

/// `BPF_PROG_LOAD` of `linux/bpf.h`.
const LOAD: libc::c_long = 5;
/// `BPF_PROG_TYPE_SOCKET_FILTER`.
const SOCKET_FILTER: u32 = 1;
/// In the extended language: `r0 = 0; exit`. How many bytes of a packet are kept: none.
const DROP_ALL: [u64; 2] = [0xb7_u64.to_le(), 0x95_u64.to_le()];
/// The same in the classic one: `ret 0`.
const DROP_ALL_CLASSIC: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

/// The beginning of `union bpf_attr`; what is left out is zero for the kernel.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    first: u64,
    license: u64,
}

/// Has a socket drop everything that arrives.
///
/// # Errors
/// If its filter is locked, or the kernel has no memory for one.
pub(crate) fn deafen(socket: BorrowedFd<'_>) -> io::Result<()> {
    static PROGRAM: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| load().ok());
    if let Some(program) = program
        && attach(socket, program.as_raw_fd()).is_ok()
    {
        return Ok(());
    }
    SockRef::from(&socket).attach_filter(&DROP_ALL_CLASSIC)
}

fn load() -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let wanted = Load {
        kind: SOCKET_FILTER,
        instructions: u32::try_from(DROP_ALL.len()).expect("two instructions"),
        first: DROP_ALL.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    // SAFETY: the pointer and the size describe `wanted`, whose own pointers lead to constants; the kernel only reads them.
    let program = unsafe { libc::syscall(libc::SYS_bpf, LOAD, &raw const wanted, size_of::<Load>()) };
    let program = RawFd::try_from(program).map_err(io::Error::other)?;
    if program < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made this descriptor (closed at exec, as all of its kind), so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

fn attach(socket: BorrowedFd<'_>, program: RawFd) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of_val(&program)).expect("four bytes");
    // SAFETY: the descriptor is open for the call because it is borrowed; the pointer and the size describe `program`,
    // which lives until the call returns, and the kernel only reads it.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const program).cast(),
            size,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    /// Whether a datagram comes through.
    fn hears(socket: &UdpSocket) -> bool {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket.recv(&mut [0; 1]).is_ok()
    }

    #[test]
    fn a_deaf_socket_hears_nothing_until_its_filter_is_taken_off() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(hears(&socket));
        deafen(socket.as_fd()).unwrap();
        assert!(!hears(&socket));
        deafen(socket.as_fd()).unwrap();
        assert!(!hears(&socket));
        SockRef::from(&socket).detach_filter().unwrap();
        assert!(hears(&socket));
    }

    #[test]
    fn what_the_kernel_takes_is_one_program_for_all_sockets() {
        let Ok(program) = load() else {
            eprintln!("not run: programs can't be loaded here");
            return;
        };
        for _ in 0..2 {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            attach(socket.as_fd(), program.as_raw_fd()).unwrap();
            assert!(!hears(&socket));
        }
    }
}
