//! The host ports of all sandboxes, held for as long as they are published, and the proxies behind them.
//!
//! Unlike those of a [`Supervisor`](super::Supervisor), proxies here outlive this process: a port goes on being served
//! while the daemon is down. Each bears a mark in its environment (`mark`), by which the next keeper finds it and takes it
//! over, sockets included (`found`, `restore`).
//!
//! One thread (`watch`), started with the first proxy, waits for all of them at once and replaces what has ended. It never
//! waits for anything else: a new process is believed to start until its time is over.
//!
//! Order of a publication: [`reserve`](Keeper::reserve), the rules, [`serve`](Keeper::serve). Of its withdrawal:
//! [`withdraw`](Keeper::withdraw), the rules, [`release`](Keeper::release).
//!
//! Locks: `state` before `numbers`; both are held only for what doesn't wait for another process.

mod found;
pub(super) mod mark;
mod repoint;
mod restore;
mod state;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use self::mark::KeeperMark;
use self::state::State;
use super::allocator::Allocator;
use super::bindings::Group;
use super::ephemeral::EphemeralPorts;
use super::mapping::Mapping;
use super::program::{Knowledge, Takes};
use super::proxies::{self, Process, Proxy, ProxyCommand, ProxyError, wait_for_all};
use super::reservation::Reservation;
use super::reserve::{ReserveError, reserve};
use crate::kernel::child;
use crate::model::Publication;

/// How long a proxy may take to end once it is asked to.
const STOP_TIME: Duration = Duration::from_secs(2);

/// What a keeper is told once.
#[derive(Clone, Debug)]
pub struct KeeperSettings {
    /// Tells the proxies of this daemon, and of those before it, from others'. Without spaces.
    pub marker: String,
    /// The proxy program; `None` if sockets are only held (`--userland-proxy=false`).
    pub proxy: Option<PathBuf>,
}

/// The host ports of all sandboxes, and the proxies behind them. Dropping it closes the sockets and leaves the proxies
/// alone: the next keeper with the same marker takes them over.
///
/// A publication: [`Self::reserve`], the rules, [`Self::serve`]. Its withdrawal: [`Self::withdraw`], the rules,
/// [`Self::release`].
#[derive(Debug)]
pub struct Keeper(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    mark: KeeperMark,
    program: Option<Program>,
    numbers: Mutex<Allocator>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Program {
    command: ProxyCommand,
    knowledge: Knowledge,
}

impl Keeper {
    /// A keeper of nothing. No process and no thread is started until there is something to serve.
    pub fn new(settings: KeeperSettings) -> Self {
        let mark = KeeperMark::new(&settings.marker);
        let program = settings.proxy.map(|path| Program {
            command: ProxyCommand::new(path).kept_by(mark.clone()),
            knowledge: Knowledge::default(),
        });
        let numbers = Mutex::new(Allocator::new(EphemeralPorts::of_this_host()));
        Self(Arc::new(Shared { mark, program, numbers, state: Mutex::default() }))
    }

    /// Takes host ports. What arrives there is dropped until [`Self::serve`].
    ///
    /// # Errors
    /// The first thing that couldn't be had; nothing is taken then.
    pub fn reserve(&self, groups: &[Group]) -> Result<Vec<Reservation>, ReserveError> {
        reserve(&mut self.0.numbers(), groups)
    }

    /// Gives up ports that were never served.
    pub fn cancel(&self, reservations: Vec<Reservation>) {
        let mut numbers = self.0.numbers();
        for reservation in reservations {
            reservation.release(&mut numbers);
        }
    }

    /// Starts the proxies, side by side, and waits until all of them serve. Without a proxy program the ports are only
    /// kept from now on.
    ///
    /// # Errors
    /// If one of them fails or takes longer than 16 s. None of these ports is held then.
    pub fn serve(&self, mappings: Vec<(Reservation, Publication)>) -> Result<(), ProxyError> {
        let shared = &self.0;
        let mut started: Vec<(Publication, Vec<Proxy>)> = Vec::with_capacity(mappings.len());
        let mut outcome = Ok(());
        for (reservation, publication) in mappings {
            let (proxies, this) = shared.start(reservation, &publication, outcome.is_ok());
            outcome = outcome.and(this);
            started.push((publication, proxies));
        }
        if let (Ok(()), Some(program)) = (&outcome, &shared.program) {
            outcome = started.iter_mut().try_for_each(|(_, proxies)| wait_for_all(proxies, &program.command));
        }
        if outcome.is_ok() && shared.program.is_some() {
            outcome = watch::ensure(shared)
                .map_err(|error| ProxyError::Spawn { mapping: "the watcher".to_owned(), error });
        }
        if outcome.is_err() {
            for proxy in started.iter_mut().flat_map(|(_, proxies)| proxies) {
                proxy.kill();
            }
            let mut numbers = shared.numbers();
            for proxy in started.into_iter().flat_map(|(_, proxies)| proxies) {
                proxy.reservation.release(&mut numbers);
            }
            return outcome;
        }
        let mut state = shared.state();
        for (publication, proxies) in started {
            state.hold(publication, proxies);
        }
        state.wake();
        Ok(())
    }

    /// Ends the service of ports: nothing new is accepted, and their proxies are gone when this returns. The ports stay
    /// taken until [`Self::release`].
    pub fn withdraw(&self, publications: &[Publication]) {
        let ending: Vec<Process> = {
            let mut state = self.0.state();
            publications.iter().filter_map(Mapping::published).flat_map(|of| state.withdraw(&of)).collect()
        };
        for process in &ending {
            process.signal(Signal::SIGINT);
        }
        end_all(ending);
    }

    /// Gives up ports: closed first, their numbers last.
    pub fn release(&self, publications: &[Publication]) {
        self.withdraw(publications);
        let mut state = self.0.state();
        let mut numbers = self.0.numbers();
        for mapping in publications.iter().filter_map(Mapping::published) {
            if state.let_go(&mapping) {
                numbers.release(&mapping.addresses, mapping.proto, mapping.host);
            }
        }
    }

    /// Takes up again what an earlier keeper held: living proxies with their sockets, and else the ports anew. Proxies of
    /// ours that nobody wants any more are ended. What can't be had is returned with the reason, and tried again about
    /// every second until it is released.
    pub fn restore(&self, wanted: Vec<Publication>) -> Vec<(Publication, String)> {
        restore::all(&self.0, wanted)
    }

    /// What is held, each with the process ids of its proxies: usually one; `None` if there is none just now, or none is
    /// wanted.
    pub fn proxies(&self) -> Vec<(Publication, Option<u32>)> {
        self.0.state().statuses()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let watcher = {
            let mut state = self.0.state();
            state.closing = true;
            state.wake();
            state.watcher.take()
        };
        if let Some(watcher) = watcher {
            // It ends by itself; if it panicked, that was reported there.
            let _ = watcher.thread.join();
        }
    }
}

impl Shared {
    /// A thread that panicked leaves nothing half done here that the next step wouldn't meet anyway.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn numbers(&self) -> MutexGuard<'_, Allocator> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts as many proxies as a mapping takes. `really`: else the sockets are only taken along. What is given back
    /// has all of the reservation in any case.
    fn start(
        &self,
        reservation: Reservation,
        publication: &Publication,
        really: bool,
    ) -> (Vec<Proxy>, Result<(), ProxyError>) {
        let target = publication.target;
        let idle = |reservation| Proxy::new(reservation, target, proxies::State::Over);
        let Some(program) = self.program.as_ref().filter(|_| really) else {
            return (vec![idle(reservation)], Ok(()));
        };
        child::expect_ends();
        let takes = program.takes();
        let mut outcome = Ok(());
        let mut all = Vec::new();
        for part in divided(reservation, takes) {
            if outcome.is_err() {
                all.push(idle(part));
                continue;
            }
            let (proxy, this) = Proxy::start(&program.command, part, target, takes);
            all.push(proxy);
            outcome = this;
        }
        (all, outcome)
    }
}

impl Program {
    fn takes(&self) -> Takes {
        self.knowledge.of(self.command.executable())
    }
}

/// Into what a process of the program can serve.
fn divided(reservation: Reservation, takes: Takes) -> Vec<Reservation> {
    let one = reservation.addresses().len() == 1 && reservation.host().is_single();
    if takes == Takes::Many || one { vec![reservation] } else { reservation.split_all() }
}

/// Waits for the end of processes that were asked to, and insists when their time is over.
fn end_all(mut ending: Vec<Process>) {
    let deadline = Instant::now() + STOP_TIME;
    for process in &mut ending {
        match process.exit_by(deadline) {
            Ok(Some(_)) => {}
            Ok(None) => {
                tracing::warn!(pid = process.pid(), "userland proxy doesn't end, killing it");
                if let Err(error) = process.end() {
                    tracing::error!(pid = process.pid(), %error, "userland proxy can't be ended");
                }
            }
            Err(error) => tracing::error!(pid = process.pid(), %error, "cannot wait for a userland proxy"),
        }
    }
}

#[cfg(test)]
mod tests;
