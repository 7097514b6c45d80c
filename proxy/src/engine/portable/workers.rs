//! Further threads, started when there is load, and which of them gets a connection.
//!
//! Load is open connections: below [`PER_THREAD`] on every thread, the next one stays where it was accepted, and no
//! thread is started. A connection stays on the thread it was given to.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Shared;
use super::accept::{Accepted, converse};

/// Connections on every thread before another thread is worth starting.
const PER_THREAD: usize = 4;

/// A thread that relays.
#[derive(Debug)]
struct Worker {
    connections: UnboundedSender<Accepted>,
    open: Arc<AtomicUsize>,
}

/// The threads of a mapping. The main thread's share is counted in `here`.
#[derive(Debug)]
pub(super) struct Workers {
    here: Arc<AtomicUsize>,
    others: Vec<Worker>,
    most: usize,
    shared: Arc<Shared>,
}

/// Counts a connection on its thread for as long as it lives.
#[derive(Debug)]
pub(super) struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn on(thread: &Arc<AtomicUsize>) -> Self {
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
        let most = shared.options.threads.get();
        Self { here: Arc::default(), others: Vec::new(), most, shared }
    }

    /// Gives a connection to the thread with the fewest.
    pub(super) fn place(&mut self, socket: OwnedFd, accepted: impl FnOnce(OwnedFd, Seat) -> Accepted) {
        if self.all_loaded()
            && self.others.len() + 1 < self.most
            && let Err(error) = self.start()
        {
            crate::log_error!(Accept, "no further thread: {}", crate::listen::reason(&error));
            self.most = self.others.len() + 1; // what can't be had now needn't be asked for every time
        }
        let here = self.here.load(Relaxed);
        let least = self.others.iter().min_by_key(|w| w.open.load(Relaxed));
        match least.filter(|w| here >= PER_THREAD && w.open.load(Relaxed) < here) {
            Some(worker) => {
                // A thread that is gone gives the connection back by dropping it: the client sees it closed.
                let _ = worker.connections.send(accepted(socket, Seat::on(&worker.open)));
            }
            None => {
                let accepted = accepted(socket, Seat::on(&self.here));
                tokio::spawn(converse(accepted, Arc::clone(&self.shared)));
            }
        }
    }

    fn all_loaded(&self) -> bool {
        let counts = std::iter::once(&self.here).chain(self.others.iter().map(|w| &w.open));
        counts.into_iter().all(|open| open.load(Relaxed) >= PER_THREAD)
    }

    fn start(&mut self) -> io::Result<()> {
        let (connections, receive) = unbounded_channel();
        let runtime = super::runtime()?;
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || runtime.block_on(work(receive, shared)))?;
        self.others.push(Worker { connections, open: Arc::default() });
        Ok(())
    }
}

async fn work(mut receive: UnboundedReceiver<Accepted>, shared: Arc<Shared>) {
    while let Some(accepted) = receive.recv().await {
        tokio::spawn(converse(accepted, Arc::clone(&shared)));
    }
    // The acceptors have ended, but connections may be draining: `main` ends the process.
    std::future::pending::<()>().await;
}
