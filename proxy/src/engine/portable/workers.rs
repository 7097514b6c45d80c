//! Further threads, each with a runtime of its own, and the way to them.
//!
//! Not here: which of them gets a connection (`placing`).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Shared;
use super::accept::{Accepted, converse};
use crate::engine::placing::{Open, Places};

/// The threads of a mapping, each known by where it takes connections from.
#[derive(Debug)]
pub(super) struct Workers {
    places: Places<UnboundedSender<Accepted>>,
    shared: Arc<Shared>,
}

/// Counts a connection on its thread for as long as it lives.
#[derive(Debug)]
pub(super) struct Seat(Open);

impl Seat {
    fn on(thread: &Open) -> Self {
        thread.fetch_add(1, Relaxed);
        Self(Arc::clone(thread))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Workers {
    /// No thread but this one, so far.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { places: Places::new(shared.options.threads.get()), shared }
    }

    /// Gives a connection to the thread with the fewest.
    pub(super) fn place(&mut self, socket: OwnedFd, accepted: impl FnOnce(OwnedFd, Seat) -> Accepted) {
        let shared = &self.shared;
        let chosen = self.places.choose(|| start(Arc::clone(shared)));
        match chosen.and_then(|number| self.places.other(number)) {
            Some((connections, open)) => {
                // A thread that is gone gives the connection back by dropping it: the client sees it closed.
                let _ = connections.send(accepted(socket, Seat::on(open)));
            }
            None => {
                let accepted = accepted(socket, Seat::on(self.places.here()));
                tokio::spawn(converse(accepted, Arc::clone(&self.shared)));
            }
        }
    }
}

fn start(shared: Arc<Shared>) -> io::Result<(UnboundedSender<Accepted>, Open)> {
    let (connections, receive) = unbounded_channel();
    let runtime = super::runtime()?;
    std::thread::Builder::new()
        .name("relay".to_owned())
        .spawn(move || runtime.block_on(work(receive, shared)))?;
    Ok((connections, Open::default()))
}

async fn work(mut receive: UnboundedReceiver<Accepted>, shared: Arc<Shared>) {
    while let Some(accepted) = receive.recv().await {
        tokio::spawn(converse(accepted, Arc::clone(&shared)));
    }
    // The acceptors have ended, but connections may be draining: `main` ends the process.
    std::future::pending::<()>().await;
}
