//! The portable engine: epoll through tokio, one current-thread runtime per thread.
//!
//! The main thread accepts, serves UDP, and relays the first connections itself; [`workers`] start further threads when
//! there is load. Every thread has a runtime of its own, so a connection never moves and nothing is stolen.
//!
//! `poll`-shaped code instead of `async` in [`relay`]: both directions of a connection are one task that owns no buffer
//! while it waits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::Job;
use crate::control;
use crate::counters::Counters;
use crate::flags::Options;
use crate::limits;
use crate::mapping::Protocol;
use crate::sources::Sources;
use crate::sys::watch;

mod accept;
mod dial;
mod greet;
mod relay;
mod sctp;
mod udp;
mod workers;

/// What the counters call this engine.
pub(super) const NAME: &str = "portable";

/// How often a draining proxy looks whether it is done.
const DRAIN_CHECK: Duration = Duration::from_millis(10);

/// What every task of a mapping needs.
#[derive(Debug)]
struct Shared {
    options: Options,
    protocol: Protocol,
    counters: Arc<Counters>,
    /// Where connections and flows to the backend leave from.
    sources: Sources,
    /// Descriptors that traffic may still take; see [`limits`].
    descriptors: Semaphore,
}

/// Serves `job` until a signal ends it.
pub(super) fn run(job: Job, ready: impl FnOnce()) -> io::Result<()> {
    let runtime = runtime()?;
    let threads = job.serve.options.threads.get();
    let shared = Arc::new(Shared {
        protocol: job.protocol(),
        descriptors: Semaphore::new(limits::descriptor_budget(job.listeners.len(), threads)),
        counters: Arc::clone(&job.counters),
        sources: Sources::new(&job.serve.options.source_ips),
        options: job.serve.options,
    });
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        for server in job.control {
            tokio::spawn(answer_readers(watch(server)?, Arc::clone(&shared.counters)));
        }
        let (close, closed) = tokio::sync::watch::channel(());
        let serving: Vec<JoinHandle<()>> = match shared.protocol {
            Protocol::Udp => udp::serve(job.listeners, &shared)?,
            Protocol::Tcp | Protocol::Sctp => accept::serve(job.listeners, &closed, &shared)?,
        };
        ready();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if !shared.options.drain.is_zero() {
            // Closes the listening sockets: whoever else holds them gets the new connections.
            drop(close);
            if shared.protocol == Protocol::Udp {
                serving.iter().for_each(JoinHandle::abort);
            }
            for listener in serving {
                let _ = listener.await; // aborted or done
            }
            tokio::select! {
                () = drained(&shared) => {}
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        Ok(())
    })
}

/// A thread's runtime: readiness and timers, no thread pool.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build()
}

async fn drained(shared: &Shared) {
    let over = Instant::now() + shared.options.drain;
    let all_closed = async {
        while shared.counters.connections.open.get() > 0 {
            sleep(DRAIN_CHECK).await;
        }
    };
    let _ = timeout_at(over, all_closed).await; // time is up: the rest is cut
}

async fn answer_readers(server: AsyncFd<control::Server>, counters: Arc<Counters>) {
    // An error here means the runtime is going away.
    while let Ok(mut guard) = server.readable().await {
        match guard.try_io(|server| server.get_ref().answer(&counters)) {
            Ok(Ok(())) | Err(_) => {}
            // No descriptor for the reader: it will wait, and so do we.
            Ok(Err(_)) => sleep(DRAIN_CHECK).await,
        }
    }
}
