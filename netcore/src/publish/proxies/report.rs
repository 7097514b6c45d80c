//! What is said of proxies: how they ended, why they don't serve. With Docker's texts where it has them.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::publish::ports::PortRange;
use crate::publish::reservation::Reservation;

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
    /// `None` for one that was started by an earlier daemon: only its parent is told.
    pub(super) status: Option<ExitStatus>,
    pub(super) message: String,
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

impl ProxyExit {
    /// Nobody knows how.
    pub(super) const fn unknown() -> Self {
        Self { status: None, message: String::new() }
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
        let code = self.status.and_then(|status| status.code());
        match (code, self.status.and_then(|status| status.signal())) {
            (Some(code), _) => write!(f, "exited with status {code}")?,
            (None, Some(number)) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "was killed by {signal}")?,
                Err(_) => write!(f, "was killed by signal {number}")?,
            },
            (None, None) => f.write_str("has ended")?,
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, " ({})", self.message) }
    }
}

/// `host:port:container:port/proto`, as Docker names mappings in messages.
pub(super) fn mapping(reservation: &Reservation, target: IpAddr) -> String {
    format!(
        "{}:{}/{}",
        with_ports(first_address(reservation), reservation.host()),
        with_ports(target, reservation.container()),
        reservation.proto()
    )
}

pub(super) fn first_address(reservation: &Reservation) -> IpAddr {
    *reservation.addresses().first().expect("the allocator refuses groups without an address")
}

fn with_ports(ip: IpAddr, ports: PortRange) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{ports}"),
        IpAddr::V6(ip) => format!("[{ip}]:{ports}"),
    }
}
