//! Starts one proxy process: command line, descriptors, environment.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::process::Process;
use super::report::first_address;
use crate::kernel::child::{self, Life};
use crate::publish::keeper::mark::KeeperMark;
use crate::publish::mapping::Mapping;
use crate::publish::program::Takes;
use crate::publish::reservation::Reservation;

/// How long a proxy may take to say that it serves, unless told otherwise; Docker's limit.
const START_TIMEOUT: Duration = Duration::from_secs(16);

/// The proxy program and the options that every process of it gets.
///
/// It is started through docker-proxy's command line and descriptors, so docker-proxy itself will do for single ports on
/// single addresses.
#[derive(Clone, Debug)]
pub struct ProxyCommand {
    executable: PathBuf,
    options: Vec<OsString>,
    pub(super) start_timeout: Duration,
    keeper: Option<KeeperMark>,
}

impl ProxyCommand {
    /// The program at `executable`.
    pub const fn new(executable: PathBuf) -> Self {
        Self { executable, options: Vec::new(), start_timeout: START_TIMEOUT, keeper: None }
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

    /// Has the processes outlive this one, marked so that they are found again.
    pub(in crate::publish) fn kept_by(mut self, keeper: KeeperMark) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// The program.
    pub(in crate::publish) fn executable(&self) -> &Path {
        &self.executable
    }

    /// In dockerd's order, each word on its own: host tools look for these in process lists.
    pub(super) fn arguments(&self, reservation: &Reservation, target: IpAddr, takes: Takes) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut flag = |name: &str, value: String| words.extend([name.into(), value.into()]);
        flag("-proto", reservation.proto().to_string());
        flag("-host-ip", first_address(reservation).to_string());
        flag("-host-port", reservation.host().to_string());
        flag("-container-ip", target.to_string());
        flag("-container-port", reservation.container().to_string());
        let sockets = reservation.sockets().len();
        if takes != Takes::Nothing {
            words.push("-use-listen-fd".into());
        }
        if takes == Takes::Many && u32::try_from(sockets) != Ok(reservation.host().count()) {
            words.extend(["--listen-fds".into(), sockets.to_string().into()]);
        }
        words.extend(self.options.iter().cloned());
        words
    }

    /// Starts a process for sockets that are open, and lets in what arrives there. One that binds its port itself finds
    /// them closed.
    pub(super) fn spawn(
        &self,
        reservation: &mut Reservation,
        target: IpAddr,
        takes: Takes,
    ) -> io::Result<Process> {
        let (status, status_of_child) = io::pipe()?;
        fcntl(&status, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut command = Command::new(&self.executable);
        command.args(self.arguments(reservation, target, takes)).stdin(Stdio::null()).stdout(Stdio::null());
        let life = match &self.keeper {
            Some(keeper) => {
                keeper.mark(&mut command, &Mapping::reserved(reservation, target));
                Life::ItsOwn
            }
            None => Life::Ours,
        };
        if takes == Takes::Nothing {
            reservation.close();
        } else {
            reservation.hear()?;
        }
        let sockets: Vec<BorrowedFd<'_>> = reservation.sockets().collect();
        let child = child::spawn(command, status_of_child.as_fd(), &sockets, life).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.executable.display()))
        })?;
        Ok(Process::child(child, status))
    }
}
