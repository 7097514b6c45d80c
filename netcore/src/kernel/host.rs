//! The kernel of this host, in the network namespace in which it was opened.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::KernelError;
use super::error::Refusal;
use super::netlink::Socket;
use super::netns;

/// The kernel of this host. It acts in the network namespace of the thread that made it, whichever thread uses it.
pub struct HostKernel {
    /// The namespace.
    home: File,
    marker: String,
    /// Whether this kernel has IPv6 at all.
    pub(super) ipv6: bool,
    socket: Mutex<Socket>,
    gate: Option<Gate>,
}

type Gate = Box<dyn Fn(&Operation<'_>) -> io::Result<()> + Send + Sync>;

/// One thing that is about to be done: what a test can make fail.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What: `create`.
    pub verb: &'static str,
    /// To what: `bridge br-x`.
    pub object: &'a str,
}

/// An object being worked on: what its operations are called when they fail.
pub(super) struct Work<'a> {
    pub(super) kernel: &'a HostKernel,
    object: String,
}

impl HostKernel {
    /// Acts in the network namespace of the calling thread. What it makes bears the marker, which tells it from what other
    /// instances make.
    ///
    /// # Errors
    /// If the kernel can't be talked to.
    pub fn new(marker: String) -> Result<Self, KernelError> {
        let open = || -> io::Result<Self> {
            Ok(Self {
                home: netns::current()?,
                marker,
                ipv6: Path::new("/proc/sys/net/ipv6").exists(),
                socket: Mutex::new(Socket::open()?),
                gate: None,
            })
        };
        open().map_err(|error| Refusal::from(error).about("open", "the kernel's network"))
    }

    /// As [`new`](Self::new), with something asked before each single operation: its error is what happens instead.
    ///
    /// # Errors
    /// If the kernel can't be talked to.
    #[doc(hidden)]
    pub fn with_gate(
        marker: String,
        gate: impl Fn(&Operation<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self, KernelError> {
        Ok(Self { gate: Some(Box::new(gate)), ..Self::new(marker)? })
    }

    pub(super) fn work(&self, object: String) -> Work<'_> {
        Work { kernel: self, object }
    }

    /// The socket of the host's namespace.
    pub(super) fn socket(&self) -> MutexGuard<'_, Socket> {
        // After a panic it is as good as new: answers to earlier requests are told by their numbers.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in the host's namespace, for what the kernel does in that of the calling thread.
    pub(super) fn at_home<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let (home, here) = (self.home.metadata()?, netns::current()?.metadata()?);
        if (home.dev(), home.ino()) == (here.dev(), here.ino()) {
            return Ok(work());
        }
        netns::inside(&self.home, work)
    }

    /// What begins the alias of what is ours.
    pub(super) fn alias_prefix(&self) -> String {
        alias_prefix(&self.marker)
    }
}

/// What begins the alias of what bears a marker.
pub(super) fn alias_prefix(marker: &str) -> String {
    format!("portmap:{marker}:")
}

impl Work<'_> {
    /// Does one thing, or says why not.
    pub(super) fn run<T, E: Into<Refusal>>(
        &self,
        verb: &'static str,
        operation: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, KernelError> {
        self.try_run(verb, operation).map_err(|refusal| refusal.about(verb, &self.object))
    }

    /// As `run`, for callers that make something of the error.
    pub(super) fn try_run<T, E: Into<Refusal>>(
        &self,
        verb: &'static str,
        operation: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Refusal> {
        if let Some(gate) = &self.kernel.gate {
            gate(&Operation { verb, object: &self.object })?;
        }
        operation().map_err(E::into)
    }

    pub(super) fn failed(&self, verb: &'static str, refusal: Refusal) -> KernelError {
        refusal.about(verb, &self.object)
    }
}
