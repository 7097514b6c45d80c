//! A mount namespace that is made while there is something else to wait for.
//!
//! Copying the table of mounts takes time in proportion to its length, and each sandbox of this host adds to it: 1.5 ms
//! with 500 of them, which is a sixth of a start.

use std::io;
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};

use crate::kernel::enter::{self, Step};

/// A mount namespace for a command, in the making.
#[derive(Debug)]
pub struct Mounts(io::Result<JoinHandle<io::Result<(OwnedFd, OwnedFd)>>>);

impl Mounts {
    /// Begins to copy the namespace of the calling thread.
    pub fn prepare() -> Self {
        Self(thread::Builder::new().name("mounts".to_owned()).spawn(enter::copy_mounts))
    }

    /// How a command gets in; `None` if the copy failed: then the command makes one itself, and tells why it can't.
    pub(super) fn steps(self) -> Option<[Step; 2]> {
        let (namespace, root) = self.0.ok()?.join().ok()?.ok()?;
        Some([Step::Join(namespace, libc::CLONE_NEWNS), Step::Root(root)])
    }
}
