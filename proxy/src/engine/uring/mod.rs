//! The io_uring engine: one ring per thread, and plain calls where those are faster.
//!
//! The kernel tells of connections and data as they come (multishot accept and receive into a ring of provided buffers);
//! what arrived is sent on by a plain non-blocking `send`, and bulk by `splice`. Both need real descriptors, so there
//! are no direct ones. Sends through the ring would save their calls' entries, 1 % of the CPU time of 64 connections'
//! round trips (`perf record`: 98 % is the kernel's TCP), and no longer tell at once what the receiver took.
//!
//! A thread that waits costs nothing but its sleep in the ring: signals, counters and hand-overs between threads arrive
//! there as well.
//!
//! The main thread accepts, serves UDP and relays the first connections itself; [`threads`] starts further ones when there
//! is load.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::Job;
use crate::control;
use crate::limits;
use crate::mapping::Protocol;
use crate::sources::Sources;
use crate::sys::ring::{Completion, Ring, Wait};

mod connection;
mod front;
mod greeting;
mod half;
mod reactor;
mod run;
mod shared;
mod threads;
mod token;
mod udp;

use front::{Front, Rest};
use reactor::Reactor;
use shared::{Budget, Shared};
use threads::Threads;
use token::Token;
use udp::Datagrams;

/// What the counters call this engine.
pub(super) const NAME: &str = "uring";

/// How often a draining proxy looks whether it is done.
const DRAIN_CHECK: Duration = Duration::from_millis(10);
/// How long to wait for the ring to let go of the listeners: it takes microseconds.
const CLOSING: Duration = Duration::from_millis(200);
/// A ring that can't be waited on isn't asked again at once.
const TROUBLE: Duration = Duration::from_millis(100);

/// The main thread's ring, with its buffers: all that the kernel could refuse.
pub struct Prepared(Box<Ring>);

/// Makes a ring, if the kernel lets us: it may have no io_uring, an old one, or one that is forbidden here. Memory for it
/// may be short as well, and one that is closed gives its own back only later (`RLIMIT_MEMLOCK`): so what is had is kept.
///
/// # Errors
/// The kernel's reason.
pub(super) fn prepare(protocol: Protocol) -> io::Result<Prepared> {
    let ring = match protocol {
        Protocol::Udp => udp::ring(),
        Protocol::Tcp | Protocol::Sctp => reactor::ring(),
    }?;
    if ring.knows_all_operations()? {
        Ok(Prepared(Box::new(ring)))
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Serves `job` until a signal ends it.
pub(super) fn run(job: Job, prepared: Prepared, ready: impl FnOnce()) -> io::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    // Before there is another thread, which would get them.
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let (threads, protocol) = (job.serve.options.threads.get(), job.protocol());
    let inherited = job.serve.inherit.is_some();
    let shared = Arc::new(Shared {
        budget: Budget::new(limits::descriptor_budget(job.listeners.len(), threads)),
        counters: Arc::clone(&job.counters),
        targets: job.listeners.iter().map(|listener| listener.target).collect(),
        sources: Sources::new(&job.serve.options.source_ips),
        options: job.serve.options,
    });
    let threads = Threads::new(Arc::clone(&shared));
    let mut reactor = Reactor::new(*prepared.0, Arc::clone(&shared), threads.here());
    let (streams, datagrams) = match protocol {
        Protocol::Udp => (Vec::new(), job.listeners),
        Protocol::Tcp | Protocol::Sctp => (job.listeners, Vec::new()),
    };
    let mut main = Main {
        front: Front::new(streams, inherited, threads, Arc::clone(&shared)),
        datagrams: Datagrams::new(datagrams, inherited, Arc::clone(&shared)),
        control: job.control,
        deaf: Vec::new(),
        signals,
        ending: Ending::NotYet,
        shared,
    };
    main.open(&mut reactor);
    ready();
    main.serve(reactor)
}

/// How far a signal has brought us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    NotYet,
    /// Open connections may go on until then.
    Draining(Instant),
    Now,
}

/// What only the main thread has.
struct Main {
    front: Front,
    datagrams: Datagrams,
    control: Vec<control::Server>,
    /// Control sockets that somebody waits at, for want of a descriptor.
    deaf: Vec<u32>,
    signals: SignalFd,
    ending: Ending,
    shared: Arc<Shared>,
}

impl Main {
    fn open(&mut self, reactor: &mut Reactor) {
        reactor.ring.poll_all(self.signals.as_fd(), libc::POLLIN, Token::Signal.encode());
        for (number, server) in (0..).zip(&self.control) {
            reactor.ring.poll(server.as_fd(), libc::POLLIN, Token::Control(number).encode());
        }
        self.front.open(reactor);
        self.datagrams.open(&mut reactor.ring);
    }

    fn serve(mut self, mut reactor: Reactor) -> io::Result<()> {
        let mut completions = Vec::new();
        while !self.is_over() {
            let wait = self.wait(&reactor);
            reactor.ring.enter(wait, &mut completions)?;
            self.datagrams.begin_turn();
            for completion in completions.drain(..) {
                self.handle(completion, &mut reactor);
            }
            reactor.tend();
            self.front.tend(&mut reactor);
            self.datagrams.tend(&mut reactor.ring);
            for number in std::mem::take(&mut self.deaf) {
                self.answer(number, &mut reactor);
            }
        }
        // An operation holds its listener beyond the end of the process, for milliseconds in which the port is taken.
        self.front.close(Rest::Leave, &mut reactor);
        self.datagrams.close(&mut reactor.ring);
        let patience = Instant::now() + CLOSING;
        while !(self.front.is_closed() && self.datagrams.is_closed()) && Instant::now() < patience {
            reactor.ring.enter(Wait::AtMost(CLOSING), &mut completions)?;
            for completion in completions.drain(..) {
                self.handle(completion, &mut reactor);
            }
            self.datagrams.tend(&mut reactor.ring);
        }
        Ok(())
    }

    fn handle(&mut self, completion: Completion, reactor: &mut Reactor) {
        match Token::decode(completion.token) {
            Token::Connection { slot, event } => reactor.handle(slot, event, completion),
            Token::Accepted(listener) => self.front.accepted(listener, completion, reactor),
            Token::Waiting(listener) => self.front.waiting(listener, reactor),
            Token::Told { thread, listener, descriptor } => {
                if completion.result < 0
                    && let Ok(descriptor) = descriptor.try_into()
                {
                    self.front.taken_back(thread, listener, descriptor, reactor);
                }
            }
            Token::Control(number) => self.answer(number, reactor),
            Token::Signal => self.signalled(&completion, reactor),
            Token::Datagrams(listener) => self.datagrams.received(listener, completion, &mut reactor.ring),
            Token::Replies(slot) => self.datagrams.replied(slot, completion, &mut reactor.ring),
            Token::Nothing | Token::HandedOver(_) => {}
        }
    }

    /// Whether there is nothing left to do.
    fn is_over(&self) -> bool {
        match self.ending {
            Ending::NotYet => false,
            Ending::Draining(until) => {
                let done = self.front.is_closed() && self.shared.counters.connections.open.get() == 0;
                done || Instant::now() >= until
            }
            Ending::Now => true,
        }
    }

    fn wait(&self, reactor: &Reactor) -> Wait {
        let wait = reactor.wait();
        let drain = matches!(self.ending, Ending::Draining(_)).then_some(DRAIN_CHECK);
        let deaf = (!self.deaf.is_empty()).then_some(TROUBLE);
        let idle = self.datagrams.next().map(|at| at.saturating_duration_since(Instant::now()));
        match (wait, [drain, deaf, self.front.next(), idle].into_iter().flatten().min()) {
            (Wait::No, _) => Wait::No,
            (Wait::AtMost(time), Some(ours)) => Wait::AtMost(time.min(ours)),
            (Wait::Forever, Some(ours)) => Wait::AtMost(ours),
            (wait, None) => wait,
        }
    }

    fn answer(&mut self, number: u32, reactor: &mut Reactor) {
        let Some(server) = self.control.get(number as usize) else { return };
        loop {
            match server.answer(&self.shared.counters) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // No descriptor for the reader: it will wait, and so do we.
                Err(_) => return self.deaf.push(number),
            }
        }
        reactor.ring.poll(server.as_fd(), libc::POLLIN, Token::Control(number).encode());
    }

    /// The first signal may begin a drain; the next one ends it.
    fn signalled(&mut self, completion: &Completion, reactor: &mut Reactor) {
        while let Ok(Some(_)) = self.signals.read_signal() {
            let drain = self.shared.options.drain;
            self.ending = match self.ending {
                Ending::NotYet if !drain.is_zero() => Ending::Draining(Instant::now() + drain),
                Ending::NotYet | Ending::Draining(_) | Ending::Now => Ending::Now,
            };
            // Whoever else holds the listening sockets gets the new connections.
            let rest = if self.ending == Ending::Now { Rest::Leave } else { Rest::Serve };
            self.front.close(rest, reactor);
        }
        if !completion.more() {
            reactor.ring.poll_all(self.signals.as_fd(), libc::POLLIN, Token::Signal.encode());
        }
    }
}
