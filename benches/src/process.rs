//! Child processes: born in a namespace, read with a deadline, killed when dropped.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::namespace::Namespace;

/// A child that doesn't outlive this value.
pub(crate) struct Process {
    name: String,
    child: Child,
    unread: Vec<u8>,
}

impl Process {
    /// Starts `command` inside `namespace`. Descriptors mapped into the command are closed on our side.
    pub(crate) fn start(namespace: &Namespace, name: &str, mut command: Command) -> anyhow::Result<Self> {
        let child =
            namespace.run(move || Ok(command.spawn()?)).with_context(|| format!("can't start {name}"))?;
        Ok(Self { name: name.to_owned(), child, unread: Vec::new() })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Fails if the process has ended.
    pub(crate) fn expect_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended by itself: {status}", self.name),
            None => Ok(()),
        }
    }

    /// How the process ended; for one that has just closed what it should have written to, so this doesn't wait long.
    pub(crate) fn end(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Sends a line to the process's standard input, which must be piped.
    pub(crate) fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("its standard input is not piped")?;
        writeln!(stdin, "{line}").with_context(|| format!("can't tell {} {line:?}", self.name))
    }

    /// The next line of the process's standard output, which must be piped.
    pub(crate) fn line(&mut self, patience: Duration) -> anyhow::Result<String> {
        let stdout = self.child.stdout.as_mut().context("its standard output is not piped")?;
        let deadline = Instant::now() + patience;
        let mut chunk = [0; 4096];
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let rest = self.unread.split_off(end + 1);
                let line = std::mem::replace(&mut self.unread, rest);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            match read_before(stdout, &mut chunk, deadline)
                .with_context(|| format!("no answer from {}", self.name))?
            {
                0 => bail!("{} ended without an answer", self.name),
                got => self.unread.extend_from_slice(&chunk[..got]),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command whose output and input are ours, as `Process::tell` and `Process::line` want it.
pub(crate) fn piped(mut command: Command) -> Command {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// `read` that gives up at `deadline`.
pub(crate) fn read_before(
    source: &mut (impl Read + AsFd),
    into: &mut [u8],
    deadline: Instant,
) -> anyhow::Result<usize> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Whole milliseconds, rounded up so that the last wait isn't a busy loop.
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let ready = poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], timeout);
        match ready {
            Ok(0) | Err(Errno::EINTR) if Instant::now() >= deadline => bail!("timed out"),
            Ok(0) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => match source.read(into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                got => return Ok(got?),
            },
        }
    }
}

/// How many files a process of ours, and so a proxy, may have open.
pub(crate) fn open_files() -> nix::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// Enough for ten thousand connections through a proxy that needs six descriptors for each.
const OPEN_FILES: u64 = 200_000;

/// Proxies inherit our limit, and should be stopped by what they are, not by it. Services usually have more; a user
/// without privileges has to do with what there is.
pub(crate) fn raise_open_files() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.max(OPEN_FILES);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
}
