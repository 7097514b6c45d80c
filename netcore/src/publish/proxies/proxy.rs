//! A mapping and the process that serves it: replaced when it has ended, ever more slowly if it can't live.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::command::ProxyCommand;
use super::process::Process;
use super::report::{ProxyError, ProxyEvent, mapping};
use crate::publish::program::Takes;
use crate::publish::reservation::Reservation;

/// A proxy that dies younger than this is kept waiting for longer and longer.
const YOUNG: Duration = Duration::from_secs(1);
/// The first wait. A single early death has none.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest for one that did serve: somebody kills it, and clients wait for the next.
const LONGEST_PAUSE_OF_SERVERS: Duration = Duration::from_millis(100);

/// What one process serves, and the process.
#[derive(Debug)]
pub(in crate::publish) struct Proxy {
    pub(in crate::publish) reservation: Reservation,
    pub(in crate::publish) target: IpAddr,
    pub(in crate::publish) state: State,
    /// How often in a row it died young.
    young_deaths: u32,
}

#[derive(Debug)]
pub(in crate::publish) enum State {
    Alive {
        process: Process,
        /// `None`: longer than anybody here remembers.
        since: Option<Instant>,
    },
    /// To be started again.
    Down { until: Instant },
    /// Not to be started: it was asked to stop, or never wanted.
    Over,
}

impl Proxy {
    pub(in crate::publish) const fn new(reservation: Reservation, target: IpAddr, state: State) -> Self {
        Self { reservation, target, state, young_deaths: 0 }
    }

    /// One whose process is started right now; over if it can't be. The sockets are bound if they aren't.
    pub(in crate::publish) fn start(
        command: &ProxyCommand,
        mut reservation: Reservation,
        target: IpAddr,
        takes: Takes,
    ) -> (Self, Result<(), ProxyError>) {
        match spawn(command, &mut reservation, target, takes) {
            Ok(process) => {
                let state = State::Alive { process, since: Some(Instant::now()) };
                (Self::new(reservation, target, state), Ok(()))
            }
            Err(error) => {
                let error = ProxyError::Spawn { mapping: mapping(&reservation, target), error };
                (Self::new(reservation, target, State::Over), Err(error))
            }
        }
    }

    pub(in crate::publish) fn mapping(&self) -> String {
        mapping(&self.reservation, self.target)
    }

    pub(in crate::publish) fn pid(&self) -> Option<u32> {
        match &self.state {
            State::Alive { process, .. } => Some(process.pid()),
            State::Down { .. } | State::Over => None,
        }
    }

    /// When it has something to do even if its process doesn't end.
    pub(in crate::publish) fn deadline(&self, command: &ProxyCommand) -> Option<Instant> {
        match &self.state {
            State::Alive { process, since: Some(since) } if process.is_starting() => {
                Some(*since + command.start_timeout)
            }
            State::Down { until } => Some(*until),
            State::Alive { .. } | State::Over => None,
        }
    }

    /// Waits until it serves. `interrupt`: gives up when that becomes readable.
    pub(super) fn wait_until_ready(
        &mut self,
        command: &ProxyCommand,
        interrupt: Option<std::os::fd::BorrowedFd<'_>>,
    ) -> Result<(), ProxyError> {
        let name = self.mapping();
        let State::Alive { process, since: Some(since) } = &mut self.state else { return Ok(()) };
        let executable = command.executable().display().to_string();
        process.wait_until_ready(&executable, name, *since + command.start_timeout, interrupt)
    }

    /// Takes note of the end of its process, and ends one that takes too long to start.
    pub(in crate::publish) fn bury(
        &mut self,
        command: &ProxyCommand,
        stopping: bool,
        now: Instant,
    ) -> Option<ProxyEvent> {
        let State::Alive { process, since } = &mut self.state else { return None };
        process.listen();
        let late = process.is_starting() && since.is_some_and(|since| now >= since + command.start_timeout);
        let ended = if late { process.end().map(Some) } else { process.try_exit() };
        // An error here would mean that somebody else has collected our child: it is gone all the same.
        let exit = match ended {
            Ok(None) => return None,
            Ok(Some(exit)) => exit,
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => super::ProxyExit::unknown(),
            Err(_) => return None,
        };
        let (pid, served) = (process.pid(), process.has_served());
        let age = since.map_or(Duration::MAX, |since| now.saturating_duration_since(since));
        if stopping {
            self.state = State::Over;
            return None;
        }
        let pause = self.pause_after(age, served);
        self.state = State::Down { until: now + pause };
        Some(ProxyEvent::Exited { mapping: self.mapping(), pid, exit, pause })
    }

    /// Whether it is time for [`Self::revive`].
    pub(in crate::publish) fn is_due(&self, now: Instant) -> bool {
        matches!(&self.state, State::Down { until } if *until <= now)
    }

    /// Starts its next process, if it is time for that.
    pub(in crate::publish) fn revive(
        &mut self,
        command: &ProxyCommand,
        takes: Takes,
        now: Instant,
    ) -> Option<ProxyEvent> {
        if !self.is_due(now) {
            return None;
        }
        Some(match spawn(command, &mut self.reservation, self.target, takes) {
            Ok(process) => {
                let pid = process.pid();
                self.state = State::Alive { process, since: Some(now) };
                ProxyEvent::Replaced { mapping: self.mapping(), pid }
            }
            Err(error) => {
                // The system is short of something: never worth trying again at once.
                let pause = self.pause_after(Duration::ZERO, false).max(FIRST_PAUSE);
                self.state = State::Down { until: now + pause };
                let mapping = self.mapping();
                let error = ProxyError::Spawn { mapping: mapping.clone(), error };
                ProxyEvent::NotReplaced { mapping, error, pause }
            }
        })
    }

    /// Ends its process at once.
    pub(in crate::publish) fn kill(&mut self) {
        if let State::Alive { process, .. } = &mut self.state {
            // What doesn't end by that can't be ended.
            let _ = process.end();
        }
        self.state = State::Over;
    }

    /// Asks its process to end.
    pub(super) fn interrupt(&mut self) {
        match &self.state {
            State::Alive { process, .. } => process.signal(Signal::SIGINT),
            State::Down { .. } | State::Over => self.state = State::Over,
        }
    }

    /// How long to wait before the next start, after a life of `age`.
    fn pause_after(&mut self, age: Duration, served: bool) -> Duration {
        self.young_deaths = if age < YOUNG { self.young_deaths.saturating_add(1) } else { 0 };
        let longest = if served { LONGEST_PAUSE_OF_SERVERS } else { LONGEST_PAUSE };
        match self.young_deaths {
            0 | 1 => Duration::ZERO,
            more => FIRST_PAUSE.saturating_mul(1 << (more - 2).min(16)).min(longest),
        }
    }
}

fn spawn(
    command: &ProxyCommand,
    reservation: &mut Reservation,
    target: IpAddr,
    takes: Takes,
) -> io::Result<Process> {
    if takes != Takes::Nothing {
        reservation.open().map_err(io::Error::other)?;
    }
    command.spawn(reservation, target, takes)
}
