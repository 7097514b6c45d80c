//! Sockets that a service manager opened for us: systemd's socket activation.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first of them, by sd_listen_fds(3).
const FIRST: RawFd = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The sockets that `LISTEN_PID` and `LISTEN_FDS` announce to this process, once; none to a second caller.
///
/// Call it first of all: what opens descriptors before might stand where an announced one is missing.
pub fn inherited_sockets() -> Vec<OwnedFd> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) || TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok()).unwrap_or(0);
    (FIRST..FIRST.saturating_add(count)).map_while(take).collect()
}

fn take(raw: RawFd) -> Option<OwnedFd> {
    // SAFETY: only looked at: a closed descriptor makes fcntl fail, and then the borrow ends unused.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(raw) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: it is open, and the variables that name our own process id give it to us; `TAKEN` makes that happen once.
    Some(unsafe { OwnedFd::from_raw_fd(raw) })
}
