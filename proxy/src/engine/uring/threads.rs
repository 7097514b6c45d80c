//! Further threads, started when there is load, and which of them gets a connection.
//!
//! Load is open connections: below [`PER_THREAD`] on every thread, the next one stays where it was accepted, and no
//! thread is started. A connection stays on the thread it was given to. Connections are handed over through the rings
//! themselves (`IORING_OP_MSG_RING`): no lock, no further descriptor to wait for.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;

use super::reactor::{self, Reactor};
use super::shared::Shared;
use super::token::Token;
use crate::sys;

/// Connections on every thread before another thread is worth starting.
const PER_THREAD: usize = 4;

/// Threads that a hand-over can name.
const MOST: usize = u8::MAX as usize;

/// A thread that relays.
#[derive(Debug)]
struct Thread {
    ring: RawFd,
    open: Arc<AtomicUsize>,
}

/// The threads of a mapping. The main thread's share is counted in `here`.
#[derive(Debug)]
pub(super) struct Threads {
    here: Arc<AtomicUsize>,
    others: Vec<Thread>,
    most: usize,
    shared: Arc<Shared>,
}

impl Threads {
    /// No thread but this one, so far.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let most = shared.options.threads.get().min(MOST);
        Self { here: Arc::default(), others: Vec::new(), most, shared }
    }

    /// The count of this thread's connections.
    pub(super) fn here(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.here)
    }

    /// Gives a connection to the thread with the fewest; `reactor` is this thread's.
    pub(super) fn place(&mut self, client: OwnedFd, listener: u32, reactor: &mut Reactor) {
        if self.all_loaded()
            && self.others.len() + 1 < self.most
            && let Err(error) = self.start()
        {
            crate::log_error!(Accept, "no further thread: {}", crate::listen::reason(&error));
            self.most = self.others.len() + 1; // what can't be had now needn't be asked for every time
        }
        let here = self.here.load(Relaxed);
        let least = (0..).zip(&self.others).min_by_key(|(_, thread)| thread.open.load(Relaxed));
        match least.filter(|(_, thread)| here >= PER_THREAD && thread.open.load(Relaxed) < here) {
            Some((index, thread)) => {
                thread.open.fetch_add(1, Relaxed);
                let number = client.into_raw_fd();
                let descriptor = u32::try_from(number).unwrap_or(u32::MAX); // never negative: it was open
                let told = Token::Told { thread: index, listener, descriptor };
                reactor.ring.tell(thread.ring, Token::HandedOver(listener).encode(), number, told.encode());
            }
            None => self.keep(client, listener, reactor),
        }
    }

    /// Takes a connection back that could not be handed over.
    pub(super) fn take_back(&self, thread: u8, client: OwnedFd, listener: u32, reactor: &mut Reactor) {
        if let Some(thread) = self.others.get(usize::from(thread)) {
            thread.open.fetch_sub(1, Relaxed);
        }
        self.keep(client, listener, reactor);
    }

    /// Keeps a connection on this thread.
    pub(super) fn keep(&self, client: OwnedFd, listener: u32, reactor: &mut Reactor) {
        self.here.fetch_add(1, Relaxed);
        reactor.adopt(client, listener);
    }

    fn all_loaded(&self) -> bool {
        let counts = std::iter::once(&self.here).chain(self.others.iter().map(|thread| &thread.open));
        counts.into_iter().all(|open| open.load(Relaxed) >= PER_THREAD)
    }

    fn start(&mut self) -> io::Result<()> {
        let open: Arc<AtomicUsize> = Arc::default();
        let (shared, theirs) = (Arc::clone(&self.shared), Arc::clone(&open));
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            // The ring must be made on the thread that uses it.
            let reactor = reactor::ring().map(|ring| Reactor::new(ring, shared, theirs));
            let number = reactor.as_ref().map(|r| r.ring.number()).map_err(|e| io::Error::from(e.kind()));
            let _ = tell.send(number);
            if let Ok(reactor) = reactor {
                work(reactor);
            }
        })?;
        let ring = told.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        self.others.push(Thread { ring, open });
        Ok(())
    }
}

/// A further thread's loop. It ends with the process.
fn work(mut reactor: Reactor) {
    let mut completions = Vec::new();
    loop {
        let wait = reactor.wait();
        if let Err(error) = reactor.ring.enter(wait, &mut completions) {
            crate::log_error!(Relay, "waiting for sockets: {}", crate::listen::reason(&error));
            std::thread::sleep(super::TROUBLE);
        }
        for completion in completions.drain(..) {
            match Token::decode(completion.token) {
                Token::HandedOver(listener) => {
                    if let Some(client) = sys::handed_over(completion.result) {
                        reactor.adopt(client, listener);
                    }
                }
                Token::Connection { slot, event } => reactor.handle(slot, event, completion),
                _ => {}
            }
        }
        reactor.tend();
    }
}
