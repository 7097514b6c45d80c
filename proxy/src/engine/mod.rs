//! The engines: what waits for sockets and moves the bytes.
//!
//! An engine serves a [`Job`] until a signal ends it. Engines share everything that gives the bytes a meaning (`tcp`,
//! `udp`, `sctp`, `splice`) and differ only in how they wait and in which calls move data, so the same tests hold for
//! each. Choosing one is [`run`]'s business and nobody else's.
//!
//! `portable` is epoll through tokio: it runs wherever Linux does.

use std::io;
use std::sync::Arc;

use crate::control;
use crate::counters::Counters;
use crate::flags::Serve;
use crate::listen::Listener;
use crate::mapping::Protocol;

mod portable;

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

/// The name of the engine that [`run`] will use.
#[must_use]
pub fn name() -> &'static str {
    portable::NAME
}

/// Serves until SIGINT or SIGTERM. `ready` is called once signals are handled and every socket is served.
///
/// # Errors
/// When the engine can't be set up; nothing is served then.
pub fn run(job: Job, ready: impl FnOnce()) -> io::Result<()> {
    portable::run(job, ready)
}
