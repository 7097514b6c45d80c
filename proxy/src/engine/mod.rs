//! The engines: what waits for sockets and moves the bytes.
//!
//! An engine serves a [`Job`] until a signal ends it. Engines share everything that gives the bytes a meaning (`tcp`,
//! `udp`, `sctp`, `splice`) and differ only in how they wait and in which calls move data, so the same tests hold for
//! each. Choosing one is [`choose`]'s business and nobody else's.
//!
//! `uring` is io_uring; `portable` is epoll through tokio, which runs wherever Linux does.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use crate::control;
use crate::counters::Counters;
use crate::flags::Serve;
use crate::listen::{Listener, reason};
use crate::log_error;
use crate::mapping::Protocol;
use crate::tcp::DialFailure;
use crate::tcp::proxy_protocol::Rejection;

mod placing;
mod portable;
mod uring;

/// Everything an engine needs, opened and checked.
#[derive(Debug)]
pub struct Job {
    /// The command line's wishes.
    pub serve: Serve,
    /// Bound sockets and their targets.
    pub listeners: Vec<Listener>,
    /// Who may read the counters.
    pub control: Vec<control::Server>,
    /// Counted into by the engine.
    pub counters: Arc<Counters>,
}

impl Job {
    fn protocol(&self) -> Protocol {
        self.serve.mapping.protocol
    }
}

/// What the command line may say of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// io_uring where the kernel lets us, else portable.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Portable,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "portable" => Ok(Self::Portable),
            _ => Err("not auto, uring or portable".to_owned()),
        }
    }
}

/// An engine that works here.
pub enum Engine {
    /// io_uring, with the ring that was had: another one might not be.
    Uring(uring::Prepared),
    /// epoll.
    Portable,
}

impl Engine {
    /// What the counters call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uring(_) => uring::NAME,
            Self::Portable => portable::NAME,
        }
    }

    /// Serves until SIGINT or SIGTERM. `ready` is called once signals are handled and every socket is served.
    ///
    /// # Errors
    /// When the engine can't be set up; nothing is served then.
    pub fn run(self, job: Job, ready: impl FnOnce()) -> io::Result<()> {
        match self {
            Self::Uring(prepared) => uring::run(job, prepared, ready),
            Self::Portable => portable::run(job, ready),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why the engine asked for can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoEngine {
    /// Containers' seccomp profiles and `kernel.io_uring_disabled` forbid it; kernels before 6.1 lack parts.
    #[error("--engine uring: this kernel gives us no io_uring ({}): say auto or portable", reason(.0))]
    Uring(#[source] io::Error),
    /// SCTP is served by the portable engine alone.
    #[error("--engine uring: it doesn't serve {0}: say auto or portable")]
    Protocol(Protocol),
}

/// The engine for a mapping. Where io_uring was left to us and can't be had, a notice says why.
///
/// # Errors
/// When io_uring was asked for and can't be had.
pub fn choose(serve: &Serve) -> Result<Engine, NoEngine> {
    let (choice, protocol) = (serve.options.engine, serve.mapping.protocol);
    match (choice, protocol) {
        (Choice::Portable, _) | (Choice::Auto, Protocol::Sctp) => Ok(Engine::Portable),
        (Choice::Uring, Protocol::Sctp) => Err(NoEngine::Protocol(protocol)),
        (Choice::Uring, _) => uring::prepare(protocol).map(Engine::Uring).map_err(NoEngine::Uring),
        (Choice::Auto, _) => Ok(match uring::prepare(protocol) {
            Ok(prepared) => Engine::Uring(prepared),
            Err(error) => {
                log_error!(Notice, "no io_uring ({}): the portable engine serves", reason(&error));
                Engine::Portable
            }
        }),
    }
}

/// Counts and says why a client was not listened to.
fn rejected(rejection: &Rejection, counters: &Counters) {
    counters.connections.rejected.add(1);
    if rejection.why.is_worth_a_line() {
        log_error!(Reject, "{rejection}");
    }
}

/// Counts and says why a client was turned away.
fn turned_away(failure: &DialFailure, counters: &Counters) {
    match failure {
        DialFailure::Refused(_) => counters.connections.refused.add(1),
        DialFailure::ClientLeft(_) => return,
        DialFailure::TimedOut(..) | DialFailure::Failed { .. } => counters.connections.failed.add(1),
    }
    log_error!(Dial, "{failure}");
}
