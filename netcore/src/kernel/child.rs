//! Starts a child with descriptors at fixed numbers, tied to the life of this process or free of it.
//!
//! Descriptors are moved into place between fork and exec. Sorting them first makes that safe without spare numbers: the
//! lowest goes to the lowest place, and none stands below its place, so no step overwrites one that is still needed.
//! That matters for ranges of thousands of sockets under a small descriptor limit.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;

use nix::fcntl::{FcntlArg, fcntl};

/// Where the child finds its status pipe.
const STATUS_FD: RawFd = 3;
/// Where the child finds its first socket.
const FIRST_SOCKET_FD: RawFd = 4;

/// Undoes an ignored SIGCHLD, which a process inherits from whoever started it: the kernel would collect our children
/// itself, without a signal and without their exit status. A handler of the process's own stays.
pub(crate) fn expect_ends() {
    let (chld, mut now) = (libc::SIGCHLD, std::mem::MaybeUninit::<libc::sigaction>::uninit());
    // SAFETY: a null new action changes nothing, and the old one is written to memory of its own size.
    if unsafe { libc::sigaction(chld, ptr::null(), now.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: the successful call above filled it.
    if unsafe { now.assume_init() }.sa_sigaction == libc::SIG_IGN {
        // SAFETY: the default action runs no code of ours.
        unsafe { libc::signal(chld, libc::SIG_DFL) };
    }
}

/// How long a child may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// As long as the calling **thread**: call from one that lives as long as the children shall.
    Ours,
    /// As long as it likes, in a session of its own, where no terminal of ours reaches it.
    ItsOwn,
}

/// Starts `command` with `status` on descriptor 3 and `sockets`, in no particular order, on 4 and up.
///
/// Of other descriptors it gets 0, 1 and 2 only, also where we were started with more ourselves. It gets an empty signal mask, a process group of its own, and, if its life is [`Life::Ours`], SIGTERM when the
/// calling thread ends.
///
/// Whether the program could be executed at all is known only from `status`: with many sockets the channel on which the
/// standard library reports that may be overwritten.
pub(crate) fn spawn(
    mut command: Command,
    status: BorrowedFd<'_>,
    sockets: &[BorrowedFd<'_>],
    life: Life,
) -> io::Result<Child> {
    let mut moved: Vec<OwnedFd> = Vec::new();
    let mut sources: Vec<RawFd> = Vec::with_capacity(sockets.len());
    for socket in sockets {
        let raw = socket.as_raw_fd();
        if raw < FIRST_SOCKET_FD {
            let copy = socket_above(*socket)?;
            sources.push(copy.as_raw_fd());
            moved.push(copy);
        } else {
            sources.push(raw);
        }
    }
    sources.sort_unstable();
    let behind_sockets = RawFd::try_from(sources.len())
        .ok()
        .and_then(|count| count.checked_add(FIRST_SOCKET_FD))
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let (status, parent) = (status.as_raw_fd(), std::process::id());
    if life == Life::Ours {
        command.process_group(0);
    }
    let arrange = move || {
        match life {
            Life::Ours => end_with_parent(parent)?,
            Life::ItsOwn => new_session()?,
        }
        unblock_signals()?;
        let status = duplicate_at_least(status, behind_sockets)?;
        for (source, place) in sources.iter().zip(FIRST_SOCKET_FD..) {
            put(*source, place)?;
        }
        keep_none_from(behind_sockets);
        put(status, STATUS_FD)
    };
    // SAFETY: between fork and exec `arrange` only makes async-signal-safe system calls (prctl, getppid, setsid,
    // sigprocmask, fcntl, dup2, close_range) and reads memory that was filled before; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(arrange) };
    command.spawn()
}

fn socket_above(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let raw = fcntl(socket.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(FIRST_SOCKET_FD))?;
    // SAFETY: fcntl has just made this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Asks for SIGTERM when the parent ends; fails if it has ended already.
fn end_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) })?;
    // SAFETY: getppid has no preconditions.
    let now = unsafe { libc::getppid() };
    if u32::try_from(now) == Ok(parent) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

/// Leaves the session, and with it the process group.
fn new_session() -> io::Result<()> {
    // SAFETY: setsid has no preconditions; a new child leads no group, which is all that could make it fail.
    check(unsafe { libc::setsid() })
}

/// A blocked signal stays blocked across exec, and the child must hear SIGINT and SIGTERM.
fn unblock_signals() -> io::Result<()> {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset fills the set it is given, sigprocmask reads it; the old mask isn't asked for.
    check(unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut())
    })
}

fn duplicate_at_least(from: RawFd, lowest: RawFd) -> io::Result<RawFd> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory; a closed descriptor is an error, not a hazard.
    let copy = unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, lowest) };
    check(copy)?;
    Ok(copy)
}

/// Has exec close all others. Before Linux 5.11 it closes those that say so themselves, which are all but inherited ones.
fn keep_none_from(lowest: RawFd) {
    // SAFETY: close_range takes integers only and touches no memory. What it marks stays open until exec.
    unsafe { libc::syscall(libc::SYS_close_range, lowest, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Makes `place` a descriptor that survives exec and refers to what `source` does.
fn put(source: RawFd, place: RawFd) -> io::Result<()> {
    if source == place {
        // SAFETY: fcntl with F_SETFD touches no memory.
        return check(unsafe { libc::fcntl(place, libc::F_SETFD, 0) });
    }
    // SAFETY: this is the child, whose descriptors between 3 and the last place nobody uses before exec.
    check(unsafe { libc::dup2(source, place) })
}

fn check(outcome: libc::c_int) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
