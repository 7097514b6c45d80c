//! One proxy process: what it says of itself, whether it lives, how it is ended.
//!
//! It is a child of ours, or one that an earlier daemon left behind: such a one has an end but no exit status for us.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::report::{ProxyError, ProxyExit};
use crate::kernel::PidFd;

/// From closing the status pipe unsaid to the end of the process: time enough for any that really is ending.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// More than any message a proxy sends before it gives up.
const LONGEST_MESSAGE: u64 = 64 * 1024;
/// What a proxy writes on descriptor 3 once it serves.
const READY: &[u8] = b"0\n";

/// A process, and what it has said of itself.
#[derive(Debug)]
pub(in crate::publish) struct Process {
    kind: Kind,
    /// `None` once it has said that it serves.
    status: Option<PipeReader>,
    said: Vec<u8>,
}

#[derive(Debug)]
enum Kind {
    /// With a descriptor once one was asked for and had.
    Child(Child, Option<PidFd>),
    Adopted(u32, PidFd),
}

impl Process {
    pub(super) fn child(child: Child, status: PipeReader) -> Self {
        Self { kind: Kind::Child(child, None), status: Some(status), said: Vec::new() }
    }

    /// One that was found serving.
    pub(in crate::publish) fn adopted(pid: u32, handle: PidFd) -> Self {
        Self { kind: Kind::Adopted(pid, handle), status: None, said: READY.to_vec() }
    }

    pub(in crate::publish) fn pid(&self) -> u32 {
        match &self.kind {
            Kind::Child(child, _) => child.id(),
            Kind::Adopted(pid, _) => *pid,
        }
    }

    pub(in crate::publish) const fn is_adopted(&self) -> bool {
        matches!(self.kind, Kind::Adopted(..))
    }

    /// The process as a descriptor, if there are descriptors to be had.
    pub(in crate::publish) fn handle(&mut self) -> Option<&PidFd> {
        match &mut self.kind {
            Kind::Child(child, handle) => {
                if handle.is_none() {
                    // It isn't collected yet, so the number is still its own.
                    *handle = PidFd::of_number(child.id()).ok();
                }
                handle.as_ref()
            }
            Kind::Adopted(_, handle) => Some(handle),
        }
    }

    /// Sends a signal. It can't meet a stranger: a child's number is its own until it is collected.
    pub(in crate::publish) fn signal(&self, signal: Signal) {
        // Fails only if it has ended, and then there is nobody to tell.
        let _ = match &self.kind {
            Kind::Child(child, _) => i32::try_from(child.id())
                .map_err(io::Error::other)
                .and_then(|pid| Ok(kill(Pid::from_raw(pid), signal)?)),
            Kind::Adopted(_, handle) => handle.signal(signal as i32),
        };
    }

    /// Whether it hasn't said yet that it serves.
    pub(super) const fn is_starting(&self) -> bool {
        self.status.is_some()
    }

    pub(super) fn has_served(&self) -> bool {
        self.said.starts_with(READY)
    }

    /// Its exit, once it has ended; a child is collected by that.
    pub(in crate::publish) fn try_exit(&mut self) -> io::Result<Option<ProxyExit>> {
        let status = match &mut self.kind {
            Kind::Child(child, _) => match child.try_wait()? {
                Some(status) => Some(status),
                None => return Ok(None),
            },
            Kind::Adopted(_, handle) if handle.has_ended() => None,
            Kind::Adopted(..) => return Ok(None),
        };
        Ok(Some(self.exit(status)))
    }

    fn exit(&mut self, status: Option<ExitStatus>) -> ProxyExit {
        self.listen();
        ProxyExit { status, message: self.last_words() }
    }

    /// Ends it at once and collects it. One that isn't our child is given a second for that.
    pub(in crate::publish) fn end(&mut self) -> io::Result<ProxyExit> {
        self.signal(Signal::SIGKILL);
        if let Kind::Child(child, _) = &mut self.kind {
            let status = child.wait()?;
            return Ok(self.exit(Some(status)));
        }
        self.exit_by(Instant::now() + CLOSING_TIME)?.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// Waits for its end until a point in time.
    pub(in crate::publish) fn exit_by(&mut self, deadline: Instant) -> io::Result<Option<ProxyExit>> {
        loop {
            let exit = self.try_exit()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if exit.is_some() || left.is_zero() {
                return Ok(exit);
            }
            match self.handle() {
                Some(handle) => {
                    let mut ready = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
                    // Rounded up, or the last millisecond would be spent spinning. An error is met again above.
                    let left =
                        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
                    let _ = poll(&mut ready, left);
                }
                None => std::thread::sleep(left.min(Duration::from_millis(5))),
            }
        }
    }

    /// Takes in what is on the status pipe. Returns true when no more will come.
    pub(super) fn listen(&mut self) -> bool {
        let Some(status) = &mut self.status else { return true };
        let mut chunk = [0; 1024];
        let over = loop {
            match status.read(&mut chunk) {
                Ok(0) => break true,
                Ok(length) => self.said.extend(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
            if self.said.starts_with(READY) || self.said.len() as u64 > LONGEST_MESSAGE {
                break true;
            }
        };
        if self.said.starts_with(READY) {
            self.status = None;
        }
        over
    }

    /// What it said when it couldn't serve; nothing if it could.
    fn last_words(&self) -> String {
        if self.has_served() {
            return String::new();
        }
        let message = self.said.strip_prefix(b"1\n").unwrap_or(&self.said);
        String::from_utf8_lossy(message).trim().replace('\n', " ")
    }

    /// Waits until it says that it serves. `interrupt`: gives up when that becomes readable.
    pub(super) fn wait_until_ready(
        &mut self,
        executable: &str,
        mapping: String,
        deadline: Instant,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> Result<(), ProxyError> {
        while !self.listen() {
            let Some(status) = &self.status else { break };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ProxyError::TimedOut { mapping });
            }
            let mut ready: Vec<PollFd<'_>> = [Some(status.as_fd()), interrupt]
                .into_iter()
                .flatten()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut ready, timeout) {
                Ok(_) if ready.get(1).is_some_and(|fd| fd.any() == Some(true)) => {
                    return Err(ProxyError::Interrupted);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(ProxyError::Spawn { mapping, error: error.into() }),
            }
        }
        if self.status.is_none() {
            return Ok(());
        }
        let message = self.last_words();
        if !message.is_empty() {
            return Err(ProxyError::Refused { mapping, message });
        }
        let exit = match self.exit_by(Instant::now() + CLOSING_TIME) {
            Ok(Some(exit)) => Ok(exit),
            Ok(None) => self.end(),
            Err(error) => Err(error),
        };
        let exit = exit.map_err(|error| ProxyError::Spawn { mapping: mapping.clone(), error })?;
        Err(ProxyError::Silent { mapping, executable: executable.to_owned(), exit })
    }
}
