//! Further threads, each with a ring of its own, and the way to them.
//!
//! Connections are handed over through the rings themselves (`IORING_OP_MSG_RING`): no lock, no further descriptor to wait
//! for.
//!
//! Not here: which of them gets a connection (`placing`).

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;

use super::reactor::{self, Reactor};
use super::shared::Shared;
use super::token::Token;
use crate::engine::placing::{Open, Places};
use crate::sys;

/// Threads that a hand-over can name.
const MOST: usize = u8::MAX as usize;

/// The threads of a mapping, each known by its ring.
#[derive(Debug)]
pub(super) struct Threads {
    places: Places<RawFd>,
    shared: Arc<Shared>,
}

impl Threads {
    /// No thread but this one, so far.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { places: Places::new(shared.options.threads.get().min(MOST)), shared }
    }

    /// The count of this thread's connections.
    pub(super) fn here(&self) -> Open {
        Arc::clone(self.places.here())
    }

    /// Gives a connection to the thread with the fewest; `reactor` is this thread's.
    pub(super) fn place(&mut self, client: OwnedFd, listener: u32, reactor: &mut Reactor) {
        let shared = &self.shared;
        let chosen = self.places.choose(|| start(Arc::clone(shared)));
        let named = chosen.and_then(|number| Some((u8::try_from(number).ok()?, self.places.other(number)?)));
        match named {
            Some((thread, (ring, open))) => {
                open.fetch_add(1, Relaxed);
                let number = client.into_raw_fd();
                let descriptor = u32::try_from(number).unwrap_or(u32::MAX); // never negative: it was open
                let told = Token::Told { thread, listener, descriptor };
                reactor.ring.tell(*ring, Token::HandedOver(listener).encode(), number, told.encode());
            }
            None => self.keep(client, listener, reactor),
        }
    }

    /// Takes a connection back that could not be handed over.
    pub(super) fn take_back(&self, thread: u8, client: OwnedFd, listener: u32, reactor: &mut Reactor) {
        if let Some((_, open)) = self.places.other(usize::from(thread)) {
            open.fetch_sub(1, Relaxed);
        }
        self.keep(client, listener, reactor);
    }

    /// Keeps a connection on this thread.
    pub(super) fn keep(&self, client: OwnedFd, listener: u32, reactor: &mut Reactor) {
        self.places.here().fetch_add(1, Relaxed);
        reactor.adopt(client, listener);
    }
}

fn start(shared: Arc<Shared>) -> io::Result<(RawFd, Open)> {
    let open = Open::default();
    let theirs = Arc::clone(&open);
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
    Ok((ring, open))
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
