//! Telling whoever started us how it went: docker-proxy's protocol on fd 3.
//!
//! `0\n` in one write, then the descriptor closes: ready. `1\n` and a message: failed. The reader takes two bytes at
//! once and hangs up after `0\n`, so nothing may be written in pieces before it, and nothing at all after it.
//!
//! A proxy started by hand has no such pipe; then [`Status::open`] is `None` and the caller speaks on stderr instead.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};

use crate::sys;

/// Where dockerd put the pipe's writing end.
const STATUS_FD: i32 = 3;

/// The writing end of the status pipe.
#[derive(Debug)]
pub struct Status(File);

impl Status {
    /// Takes fd 3 over when it is a pipe or a socket that can be written; anything else there (a terminal's leftovers,
    /// an open file, nothing) is left alone.
    #[must_use]
    pub fn open() -> Option<Self> {
        let fd = sys::inherited(STATUS_FD)?;
        if is_writable_pipe(&fd) {
            Some(Self(File::from(fd)))
        } else {
            std::mem::forget(fd); // somebody else's descriptor: not ours to close
            None
        }
    }

    /// Says that every socket is served and signals are handled.
    ///
    /// A reader that has gone away is no reason to stop: the ports are bound and whoever bound them may still want
    /// them served.
    pub fn ready(mut self) {
        let _ = self.0.write_all(b"0\n");
    }

    /// Says why nothing is served.
    pub fn failed(mut self, message: &str) {
        let _ = self.0.write_all(format!("1\n{message}").as_bytes());
    }
}

fn is_writable_pipe(fd: &OwnedFd) -> bool {
    let Ok(stat) = fstat(fd) else { return false };
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let Ok(flags) = fcntl(fd, FcntlArg::F_GETFL) else { return false };
    let access = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE;
    (kind == SFlag::S_IFIFO || kind == SFlag::S_IFSOCK) && access != OFlag::O_RDONLY
}
