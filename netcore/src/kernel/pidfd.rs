//! Processes by descriptor, which unlike a number never means another process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::model::ProcessId;

/// A process that is watched. Its descriptor is readable once the process has ended.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// The process that has this number now, and what else identifies it.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(pid: u32) -> io::Result<(Self, ProcessId)> {
        let handle = Self::of_number(pid)?;
        let start_ticks = start_ticks(pid)?;
        // Only now is it sure that both were asked of the same process.
        if handle.has_ended() {
            return Err(Errno::ESRCH.into());
        }
        Ok((handle, ProcessId { pid, start_ticks }))
    }

    /// A process that was seen before.
    ///
    /// # Errors
    /// If it has ended, whoever has its number now.
    pub fn find(process: ProcessId) -> io::Result<Self> {
        let (handle, now) = Self::open(process.pid)?;
        if now == process { Ok(handle) } else { Err(Errno::ESRCH.into()) }
    }

    /// Sends a signal, by its number.
    ///
    /// # Errors
    /// If the process has ended, or there is no such signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let (info, flags) = (std::ptr::null::<libc::siginfo_t>(), 0_u32);
        // SAFETY: the descriptor is open for as long as `self`; a null siginfo is the documented form of kill(2).
        let sent =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, info, flags) };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// A duplicate of one of its descriptors, by the number it has there. Closed when the program is replaced.
    ///
    /// # Errors
    /// If it has ended or has no such descriptor, if this process may not trace it, or on Linux before 5.6.
    pub(crate) fn duplicate(&self, number: u32) -> io::Result<OwnedFd> {
        let flags = 0_u32;
        // SAFETY: the descriptor is open for as long as `self`; pidfd_getfd takes integers only and touches no memory.
        let got = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), number, flags) };
        let raw = RawFd::try_from(got).ok().filter(|raw| *raw >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just made this descriptor, close-on-exec, so nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    }

    /// The process that has this number now. Surely meant is only a child that isn't collected yet.
    pub(crate) fn of_number(pid: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(Errno::ESRCH)?;
        // SAFETY: pidfd_open takes two integers and touches no memory.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let raw =
            RawFd::try_from(opened).ok().filter(|raw| *raw >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just made this descriptor, close-on-exec, so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// When a process was started, in clock ticks since boot.
fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; the state behind it is field 3, the start time field 22.
    let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    field.and_then(|ticks| ticks.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_found_again_until_it_ends() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (handle, process) = PidFd::open(child.id()).unwrap();
        assert!(!handle.has_ended());
        assert!(PidFd::find(process).is_ok());
        let other = ProcessId { start_ticks: process.start_ticks + 1, ..process };
        assert_eq!(PidFd::find(other).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert!(handle.signal(1_000).is_err());
        handle.signal(libc::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(handle.has_ended());
        assert!(handle.signal(libc::SIGKILL).is_err());
        assert!(PidFd::open(0).is_err());
    }
}
