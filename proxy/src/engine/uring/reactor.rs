//! A thread's connections: which there are, when they need something without an event, and their end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use slab::Slab;

use super::connection::{Connection, Context, Wish};
use super::shared::Shared;
use super::token::Event;
use crate::splice::Pool;
use crate::sys::buffers::Layout;
use crate::sys::ring::{Completion, Ring, Wait};

/// Descriptors of a connection: the client's and the backend's.
pub(super) const SOCKETS: u32 = 2;
/// Operations between two calls of the kernel. More are taken in several goes.
pub(super) const ENTRIES: u32 = 128;
/// What connections are received into: 256 KiB, of which no page is memory before something was received into it.
const BUFFERS: Layout = Layout { count: 8, size: 32 * 1024, incremental: true };
/// The same where the kernel gives a whole buffer to each message.
const WHOLE_BUFFERS: Layout = Layout { count: 64, size: 4096, incremental: false };
/// The age at which a connection gets keepalive, and how often we look.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// The connections of a thread, on its ring.
pub(super) struct Reactor {
    pub(super) ring: Ring,
    pub(super) shared: Arc<Shared>,
    /// How many connections there are, for others to see.
    open: Arc<AtomicUsize>,
    connections: Slab<Box<Connection>>,
    pipes: Pool,
    /// Headers and dials under way, the oldest first. Most are over when they come up.
    dials: VecDeque<(Instant, usize)>,
    /// Dials to be tried again, the first one on top.
    retries: BinaryHeap<Reverse<(Instant, usize, Instant)>>,
    /// Connections that asked for another turn.
    turns: Vec<usize>,
    /// When to look for connections that have become old enough for keepalive.
    keep_alive: Option<Instant>,
}

/// A ring for connections. It has its buffers from the start: they take memory only when something is received, but when
/// a client is there it is too late to be refused them.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn ring() -> io::Result<Ring> {
    let mut ring = Ring::new(ENTRIES)?;
    ring.provide_buffers(BUFFERS, WHOLE_BUFFERS)?;
    Ok(ring)
}

impl Reactor {
    /// On a [`ring`].
    pub(super) fn new(ring: Ring, shared: Arc<Shared>, open: Arc<AtomicUsize>) -> Self {
        Self {
            ring,
            shared,
            open,
            connections: Slab::new(),
            pipes: Pool::default(),
            dials: VecDeque::new(),
            retries: BinaryHeap::new(),
            turns: Vec::new(),
            keep_alive: None,
        }
    }

    /// Takes a connection on, whose descriptors are counted already.
    pub(super) fn adopt(&mut self, client: OwnedFd, listener: u32) {
        let now = Instant::now();
        let entry = self.connections.vacant_entry();
        let number = entry.key();
        let slot = u32::try_from(number).unwrap_or(u32::MAX); // fewer connections than descriptors
        entry.insert(Connection::new(client, listener, slot, now));
        self.dials.push_back((now, number));
        self.keep_alive.get_or_insert(now + KEEP_ALIVE);
        self.act(number, Connection::open);
    }

    /// Carries out what happened to a connection.
    pub(super) fn handle(&mut self, slot: u32, event: Event, completion: Completion) {
        self.act(slot as usize, |connection, cx| connection.handle(event, completion, cx));
    }

    /// Does what is due without an event.
    pub(super) fn tend(&mut self) {
        for number in std::mem::take(&mut self.turns) {
            self.act(number, Connection::turn);
        }
        if self.dials.is_empty() && self.keep_alive.is_none() && self.retries.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.retries.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            if let Some(Reverse((_, number, begun))) = self.retries.pop()
                && self.is_beginning(number, begun)
            {
                self.act(number, Connection::dial);
            }
        }
        let patience = self.shared.options.connect_timeout;
        while let Some((begun, number)) = self.dials.front().copied() {
            let beginning = self.is_beginning(number, begun);
            if beginning && now < begun + patience {
                break;
            }
            self.dials.pop_front();
            if beginning {
                self.act(number, Connection::give_up);
            }
        }
        if self.keep_alive.is_some_and(|at| at <= now) {
            for (_, connection) in &mut self.connections {
                connection.keep_alive(now, KEEP_ALIVE);
            }
            let young = self.connections.iter().any(|(_, connection)| connection.needs_keeping_alive());
            self.keep_alive = young.then(|| now + KEEP_ALIVE);
        }
    }

    /// How long the thread may sleep.
    pub(super) fn wait(&self) -> Wait {
        if !self.turns.is_empty() {
            return Wait::No;
        }
        let dial = self.dials.front().map(|(begun, _)| *begun + self.shared.options.connect_timeout);
        let retry = self.retries.peek().map(|Reverse((at, ..))| *at);
        let next = [dial, retry, self.keep_alive].into_iter().flatten().min();
        next.map_or(Wait::Forever, |at| Wait::AtMost(at.saturating_duration_since(Instant::now())))
    }

    fn is_beginning(&self, number: usize, begun: Instant) -> bool {
        self.connections.get(number).is_some_and(|c| c.begun() == begun && c.is_beginning())
    }

    fn act(&mut self, number: usize, event: impl FnOnce(&mut Connection, &mut Context<'_>) -> Wish) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        let mut cx = Context { ring: &mut self.ring, pipes: &mut self.pipes, shared: &self.shared };
        match event(connection, &mut cx) {
            Wish::Nothing => {}
            Wish::Turn => self.turns.push(number),
            Wish::Retry(pause) => {
                self.retries.push(Reverse((Instant::now() + pause, number, connection.begun())));
            }
            Wish::Renewal => {
                self.dials.push_back((connection.begun(), number));
                self.act(number, Connection::dial);
            }
            Wish::Removal => {
                drop(self.connections.remove(number));
                self.forget();
            }
        }
    }

    /// A connection less.
    fn forget(&self) {
        self.shared.budget.give_back(SOCKETS);
        self.shared.counters.connections.open.down();
        self.open.fetch_sub(1, Relaxed);
    }
}
