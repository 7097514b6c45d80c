//! Starts userland proxies behind reserved sockets and keeps them there.
//!
//! One process serves one [`Reservation`]: a whole port range, on all its addresses. This process keeps the sockets too, so
//! a proxy that dies is replaced behind them: clients that arrive in between wait in the backlog. Proxies die with the
//! thread that started them.
//!
//! No runtime and no thread of its own: the owner calls [`Supervisor::tend`] when a child has ended (SIGCHLD) and at
//! [`Supervisor::next_deadline`].
//!
//! Proxies that outlive this process are the [`Keeper`](super::Keeper)'s; it shares what a single one is.
//!
//! Not here: which sockets (`reserve`), moving bytes (the proxy).

mod command;
mod process;
mod proxy;
mod report;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

pub use self::command::ProxyCommand;
pub(super) use self::process::Process;
pub(super) use self::proxy::{Proxy, State};
pub use self::report::{ProxyError, ProxyEvent, ProxyExit};
use super::program::Takes;
use super::reservation::Reservation;
use crate::kernel::child;

/// A running set of proxies. Dropping it kills them.
#[derive(Debug)]
pub struct Supervisor {
    command: ProxyCommand,
    proxies: Vec<Proxy>,
    stopping: bool,
}

/// A mapping and who serves it.
#[derive(Clone, Copy, Debug)]
pub struct ProxyStatus<'a> {
    /// Host side and container ports.
    pub reservation: &'a Reservation,
    /// Address of the container side.
    pub target: IpAddr,
    /// Process id, unless the proxy is just being replaced.
    pub pid: Option<u32>,
}

impl Supervisor {
    /// Starts a proxy for each reservation, all side by side, and waits until all of them serve.
    ///
    /// The calling thread must outlive the supervisor: the kernel ends the proxies with it. If this process ignores
    /// SIGCHLD, it no longer does: nothing would tell that a proxy has ended.
    ///
    /// # Errors
    /// If one of them fails, takes too long, or `interrupt` becomes readable; none runs then, and the sockets are
    /// closed.
    pub fn start(
        command: ProxyCommand,
        mappings: Vec<(Reservation, IpAddr)>,
        interrupt: BorrowedFd<'_>,
    ) -> Result<Self, ProxyError> {
        child::expect_ends();
        let mut all = Self { command, proxies: Vec::with_capacity(mappings.len()), stopping: false };
        for (reservation, target) in mappings {
            let (proxy, outcome) = Proxy::start(&all.command, reservation, target, Takes::Many);
            outcome?;
            all.proxies.push(proxy);
        }
        for proxy in &mut all.proxies {
            proxy.wait_until_ready(&all.command, Some(interrupt))?;
        }
        Ok(all)
    }

    /// The mappings and who serves them.
    pub fn statuses(&self) -> impl Iterator<Item = ProxyStatus<'_>> {
        self.proxies.iter().map(|proxy| ProxyStatus {
            reservation: &proxy.reservation,
            target: proxy.target,
            pid: proxy.pid(),
        })
    }

    /// Looks after all proxies: takes note of those that have ended, and replaces them unless a stop was requested.
    pub fn tend(&mut self, now: Instant) -> Vec<ProxyEvent> {
        let mut events = Vec::new();
        for proxy in &mut self.proxies {
            events.extend(proxy.bury(&self.command, self.stopping, now));
            events.extend(proxy.revive(&self.command, Takes::Many, now));
        }
        events
    }

    /// When [`Self::tend`] has something to do even if no child ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.proxies.iter().filter_map(|proxy| proxy.deadline(&self.command)).min()
    }

    /// Asks every proxy to end, and closes this process's copies of the sockets. [`Self::tend`] notes who obeys.
    pub fn request_stop(&mut self) {
        self.stopping = true;
        for proxy in &mut self.proxies {
            proxy.reservation.close();
            proxy.interrupt();
        }
    }

    /// Whether a requested stop is complete.
    pub fn is_over(&self) -> bool {
        self.proxies.iter().all(|proxy| matches!(proxy.state, State::Over))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for proxy in &self.proxies {
            if let State::Alive { process, .. } = &proxy.state {
                process.signal(nix::sys::signal::Signal::SIGKILL);
            }
        }
        self.proxies.iter_mut().for_each(Proxy::kill);
    }
}

/// Waits until all of them serve.
pub(super) fn wait_for_all(proxies: &mut [Proxy], command: &ProxyCommand) -> Result<(), ProxyError> {
    proxies.iter_mut().try_for_each(|proxy| proxy.wait_until_ready(command, None))
}

#[cfg(test)]
mod tests;
