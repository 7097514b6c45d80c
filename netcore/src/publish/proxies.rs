//! Starts userland proxies behind reserved sockets and keeps them there.
//!
//! One process serves one [`Reservation`]: a whole port range, on all its addresses. This process keeps the sockets too, so
//! a proxy that dies is replaced behind them: clients that arrive in between wait in the backlog. Proxies die with the
//! thread that started them.
//!
//! No runtime and no thread of its own: the owner calls [`Supervisor::tend`] when a child has ended (SIGCHLD) and at
//! [`Supervisor::next_deadline`].
//!
//! Not here: which sockets (`reserve`), moving bytes (the proxy).

use std::ffi::OsString;
use std::fmt;
use std::io::{self, PipeReader, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ports::PortRange;
use super::reservation::Reservation;
use crate::kernel::child;

/// How long a proxy may take to say that it serves, unless told otherwise; Docker's limit.
const START_TIMEOUT: Duration = Duration::from_secs(16);
/// A proxy that dies younger than this is kept waiting for longer and longer.
const YOUNG: Duration = Duration::from_secs(1);
/// The first wait. A single early death has none.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// From closing the status pipe unsaid to the end of the process: time enough for any that really is ending.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// More than any message a proxy sends before it gives up.
const LONGEST_MESSAGE: u64 = 64 * 1024;
/// What a proxy writes on descriptor 3 once it serves.
const READY: &[u8] = b"0\n";

/// The proxy program and the options that every process of it gets.
///
/// It is started through docker-proxy's command line and descriptors, so docker-proxy itself will do for single ports on
/// single addresses.
#[derive(Clone, Debug)]
pub struct ProxyCommand {
    executable: PathBuf,
    options: Vec<OsString>,
    start_timeout: Duration,
}

/// A running set of proxies. Dropping it kills them.
#[derive(Debug)]
pub struct Supervisor {
    command: ProxyCommand,
    proxies: Vec<Proxy>,
    stopping: bool,
}

#[derive(Debug)]
struct Proxy {
    reservation: Reservation,
    target: IpAddr,
    state: State,
    /// How often in a row it died young.
    young_deaths: u32,
}

#[derive(Debug)]
enum State {
    Alive {
        process: Process,
        since: Instant,
    },
    /// To be started again.
    Down {
        until: Instant,
    },
    /// Stopped because it was asked to.
    Over,
}

/// A child, and what it has said of itself.
#[derive(Debug)]
struct Process {
    child: Child,
    /// `None` once it has said that it serves.
    status: Option<PipeReader>,
    said: Vec<u8>,
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

/// Something that happened to a proxy. `Display` gives a line for the log.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProxyEvent {
    /// It ended without being asked to.
    Exited {
        /// The mapping it served.
        mapping: String,
        /// Its process id.
        pid: u32,
        /// How it ended.
        exit: ProxyExit,
        /// When the next one is started.
        pause: Duration,
    },
    /// Another one took its place.
    Replaced {
        /// The mapping it serves.
        mapping: String,
        /// Its process id.
        pid: u32,
    },
    /// Another one couldn't even be started.
    NotReplaced {
        /// The mapping it should have served.
        mapping: String,
        /// The reason.
        error: ProxyError,
        /// When that is tried again.
        pause: Duration,
    },
}

/// How a proxy ended.
#[derive(Debug)]
pub struct ProxyExit {
    status: ExitStatus,
    message: String,
}

/// Why a proxy doesn't serve, with Docker's texts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The process couldn't be made.
    #[error("failed to start userland proxy for port mapping {mapping}: {error}")]
    Spawn {
        /// The mapping.
        mapping: String,
        /// The system's reason.
        error: io::Error,
    },
    /// It said why it can't serve.
    #[error(
        "failed to start userland proxy for port mapping {mapping}: error starting userland proxy: {message}"
    )]
    Refused {
        /// The mapping.
        mapping: String,
        /// Its own words.
        message: String,
    },
    /// It ended without a word: not a proxy, or one that doesn't know our options.
    #[error(
        "failed to start userland proxy for port mapping {mapping}: {executable} {exit} before it was ready"
    )]
    Silent {
        /// The mapping.
        mapping: String,
        /// The program.
        executable: String,
        /// How it ended.
        exit: ProxyExit,
    },
    /// It said nothing for too long.
    #[error(
        "failed to start userland proxy for port mapping {mapping}: timed out starting the userland proxy"
    )]
    TimedOut {
        /// The mapping.
        mapping: String,
    },
    /// The caller's `interrupt` became readable.
    #[error("interrupted while starting userland proxies")]
    Interrupted,
}

impl ProxyCommand {
    /// The program at `executable`.
    pub const fn new(executable: PathBuf) -> Self {
        Self { executable, options: Vec::new(), start_timeout: START_TIMEOUT }
    }

    /// Adds an option of the proxy's own, behind those of docker-proxy.
    #[must_use]
    pub fn option(mut self, words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.options.extend(words.into_iter().map(Into::into));
        self
    }

    /// Sets how long a proxy may take until it serves, instead of 16 s.
    #[must_use]
    pub const fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = limit;
        self
    }

    /// In dockerd's order, each word on its own: host tools look for these in process lists.
    fn arguments(&self, reservation: &Reservation, target: IpAddr) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut flag = |name: &str, value: String| words.extend([name.into(), value.into()]);
        flag("-proto", reservation.proto().to_string());
        flag("-host-ip", first_address(reservation).to_string());
        flag("-host-port", reservation.host().to_string());
        flag("-container-ip", target.to_string());
        flag("-container-port", reservation.container().to_string());
        words.push("-use-listen-fd".into());
        let sockets = reservation.sockets().len();
        if u32::try_from(sockets) != Ok(reservation.host().count()) {
            words.extend(["--listen-fds".into(), sockets.to_string().into()]);
        }
        words.extend(self.options.iter().cloned());
        words
    }

    fn spawn(&self, reservation: &Reservation, target: IpAddr) -> io::Result<Process> {
        let (status, status_of_child) = io::pipe()?;
        fcntl(&status, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut command = Command::new(&self.executable);
        command.args(self.arguments(reservation, target)).stdin(Stdio::null()).stdout(Stdio::null());
        reservation.hear()?;
        let sockets: Vec<BorrowedFd<'_>> = reservation.sockets().collect();
        let child = child::spawn(command, status_of_child.as_fd(), &sockets)?;
        Ok(Process { child, status: Some(status), said: Vec::new() })
    }
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
            let process = all
                .command
                .spawn(&reservation, target)
                .map_err(|error| ProxyError::Spawn { mapping: mapping(&reservation, target), error })?;
            let state = State::Alive { process, since: Instant::now() };
            all.proxies.push(Proxy { reservation, target, state, young_deaths: 0 });
        }
        for proxy in &mut all.proxies {
            let name = proxy.mapping();
            if let State::Alive { process, since } = &mut proxy.state {
                process.wait_until_ready(
                    &all.command,
                    name,
                    *since + all.command.start_timeout,
                    interrupt,
                )?;
            }
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
            proxy.bury(&self.command, self.stopping, now, &mut events);
            proxy.revive(&self.command, now, &mut events);
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
            match &proxy.state {
                // It can't be gone: nobody but `tend` collects it, and there its state changes.
                State::Alive { process, .. } => drop(kill(process.nix_pid(), Signal::SIGINT)),
                State::Down { .. } | State::Over => proxy.state = State::Over,
            }
        }
    }

    /// Whether a requested stop is complete.
    pub fn is_over(&self) -> bool {
        self.proxies.iter().all(|proxy| matches!(proxy.state, State::Over))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for proxy in &mut self.proxies {
            if let State::Alive { process, .. } = &mut proxy.state {
                // Fails only if it has ended by itself, and then there is nothing to kill.
                let _ = process.child.kill();
            }
        }
        for proxy in &mut self.proxies {
            if let State::Alive { process, .. } = &mut proxy.state {
                let _ = process.child.wait();
            }
        }
    }
}

impl Proxy {
    fn mapping(&self) -> String {
        mapping(&self.reservation, self.target)
    }

    fn pid(&self) -> Option<u32> {
        match &self.state {
            State::Alive { process, .. } => Some(process.child.id()),
            State::Down { .. } | State::Over => None,
        }
    }

    fn deadline(&self, command: &ProxyCommand) -> Option<Instant> {
        match &self.state {
            State::Alive { process, since } => {
                process.status.as_ref().map(|_| *since + command.start_timeout)
            }
            State::Down { until } => Some(*until),
            State::Over => None,
        }
    }

    /// Notes the end of its process, and ends one that takes too long to start.
    fn bury(&mut self, command: &ProxyCommand, stopping: bool, now: Instant, events: &mut Vec<ProxyEvent>) {
        let State::Alive { process, since } = &mut self.state else { return };
        process.listen();
        let late = process.status.is_some() && now >= *since + command.start_timeout;
        if late {
            let _ = process.child.kill();
        }
        let ended = if late { process.child.wait().map(Some) } else { process.child.try_wait() };
        // An error here would mean that somebody else has collected our child; treat it as still there.
        let Ok(Some(status)) = ended else { return };
        if stopping {
            self.state = State::Over;
            return;
        }
        let (pid, age) = (process.child.id(), now.saturating_duration_since(*since));
        let exit = ProxyExit { status, message: process.last_words() };
        let pause = self.pause_after(age);
        self.state = State::Down { until: now + pause };
        events.push(ProxyEvent::Exited { mapping: self.mapping(), pid, exit, pause });
    }

    fn revive(&mut self, command: &ProxyCommand, now: Instant, events: &mut Vec<ProxyEvent>) {
        match &self.state {
            State::Down { until } if *until <= now => {}
            State::Down { .. } | State::Alive { .. } | State::Over => return,
        }
        match command.spawn(&self.reservation, self.target) {
            Ok(process) => {
                events.push(ProxyEvent::Replaced { mapping: self.mapping(), pid: process.child.id() });
                self.state = State::Alive { process, since: now };
            }
            Err(error) => {
                // The system is short of something: never worth trying again at once.
                let pause = self.pause_after(Duration::ZERO).max(FIRST_PAUSE);
                self.state = State::Down { until: now + pause };
                let mapping = self.mapping();
                let error = ProxyError::Spawn { mapping: mapping.clone(), error };
                events.push(ProxyEvent::NotReplaced { mapping, error, pause });
            }
        }
    }

    /// How long to wait before the next start, after a life of `age`.
    fn pause_after(&mut self, age: Duration) -> Duration {
        self.young_deaths = if age < YOUNG { self.young_deaths.saturating_add(1) } else { 0 };
        match self.young_deaths {
            0 | 1 => Duration::ZERO,
            more => FIRST_PAUSE.saturating_mul(1 << (more - 2).min(16)).min(LONGEST_PAUSE),
        }
    }
}

impl Process {
    fn nix_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id is a positive i32"))
    }

    /// Takes in what is on the status pipe. Returns true when no more will come.
    fn listen(&mut self) -> bool {
        let Some(status) = &mut self.status else { return true };
        let mut chunk = [0; 1024];
        let over = loop {
            match status.read(&mut chunk) {
                Ok(0) => break true,
                Ok(length) => self.said.extend(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
            if self.said.starts_with(READY) || self.said.len() as u64 > LONGEST_MESSAGE {
                break true;
            }
        };
        if self.said.starts_with(READY) {
            self.status = None;
        }
        over
    }

    /// What it said when it couldn't serve; nothing if it could.
    fn last_words(&self) -> String {
        if self.said.starts_with(READY) {
            return String::new();
        }
        let message = self.said.strip_prefix(b"1\n").unwrap_or(&self.said);
        String::from_utf8_lossy(message).trim().replace('\n', " ")
    }

    /// Lets a process that has closed its status pipe come to its end, and makes it if it doesn't.
    fn end_within(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        self.child.wait()
    }

    fn wait_until_ready(
        &mut self,
        command: &ProxyCommand,
        mapping: String,
        deadline: Instant,
        interrupt: BorrowedFd<'_>,
    ) -> Result<(), ProxyError> {
        while !self.listen() {
            let Some(status) = &self.status else { break };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ProxyError::TimedOut { mapping });
            }
            let mut ready =
                [PollFd::new(status.as_fd(), PollFlags::POLLIN), PollFd::new(interrupt, PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut ready, timeout) {
                Ok(_) if ready[1].any() == Some(true) => return Err(ProxyError::Interrupted),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(ProxyError::Spawn { mapping, error: error.into() }),
            }
        }
        if self.status.is_none() {
            return Ok(());
        }
        let message = self.last_words();
        if !message.is_empty() {
            return Err(ProxyError::Refused { mapping, message });
        }
        let status = self
            .end_within(CLOSING_TIME)
            .map_err(|error| ProxyError::Spawn { mapping: mapping.clone(), error })?;
        let exit = ProxyExit { status, message };
        Err(ProxyError::Silent { mapping, executable: command.executable.display().to_string(), exit })
    }
}

impl fmt::Display for ProxyEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { mapping, pid, exit, pause } => {
                write!(f, "userland proxy {pid} of {mapping} {exit}, starting another")?;
                if pause.is_zero() { Ok(()) } else { write!(f, " in {pause:?}") }
            }
            Self::Replaced { mapping, pid } => write!(f, "userland proxy {pid} now serves {mapping}"),
            Self::NotReplaced { error, pause, .. } => write!(f, "{error}, trying again in {pause:?}"),
        }
    }
}

impl fmt::Display for ProxyExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "exited with status {code}")?,
            (None, Some(number)) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "was killed by {signal}")?,
                Err(_) => write!(f, "was killed by signal {number}")?,
            },
            (None, None) => write!(f, "ended ({})", self.status)?,
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, " ({})", self.message) }
    }
}

/// `host:port:container:port/proto`, as Docker names mappings in messages.
fn mapping(reservation: &Reservation, target: IpAddr) -> String {
    format!(
        "{}:{}/{}",
        with_ports(first_address(reservation), reservation.host()),
        with_ports(target, reservation.container()),
        reservation.proto()
    )
}

fn first_address(reservation: &Reservation) -> IpAddr {
    *reservation.addresses().first().expect("the allocator refuses groups without an address")
}

fn with_ports(ip: IpAddr, ports: PortRange) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{ports}"),
        IpAddr::V6(ip) => format!("[{ip}]:{ports}"),
    }
}

#[cfg(test)]
mod tests;
