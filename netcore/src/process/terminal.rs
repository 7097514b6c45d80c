//! A pseudo-terminal for a command that nobody sits in front of.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};

/// A terminal's two ends.
#[derive(Debug)]
pub struct Terminal {
    /// Ours: what the command writes is read here.
    pub master: OwnedFd,
    slave: OwnedFd,
}

impl Terminal {
    /// A terminal of 80 columns and 24 lines.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None)?;
        for end in [&master, &slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        Ok(Self { master, slave })
    }

    /// stdin, stdout and stderr of the command, and our end. When the command and its children are gone, reading from our
    /// end fails.
    ///
    /// # Errors
    /// The kernel's.
    pub fn into_parts(self) -> io::Result<([Stdio; 3], OwnedFd)> {
        let (stdin, stdout) = (self.slave.try_clone()?, self.slave.try_clone()?);
        Ok(([stdin.into(), stdout.into(), self.slave.into()], self.master))
    }
}
