//! Who is compared: the ways from a client on the host to the backend.
//!
//! One file is one kind of way, one line in `find` and in `NAMES` is one contender. All are set up for the same task,
//! one published port in front of one backend, and as somebody who means them well would. Not here: when each has its
//! turn (`rounds`), and who is left out because it doesn't work on this machine (`line_up`).

mod direct;
mod dnat;
mod haproxy;
mod nginx;
mod program;
mod socat;
mod tokio_splice;
mod userland;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use nix::unistd::Pid;

use crate::loads::Protocol;
use crate::process::Process;
use crate::topology::Topology;
use crate::usage;

pub(crate) const DIRECT: &str = "direct";
pub(crate) const DNAT: &str = "dnat";
pub(crate) const DOCKER_PROXY: &str = "docker-proxy";
pub(crate) const HAPROXY: &str = "haproxy";
pub(crate) const NGINX: &str = "nginx";
pub(crate) const SOCAT: &str = "socat";
pub(crate) const TOKIO_SPLICE: &str = "tokio-splice";
pub(crate) const NETPROXY: &str = "netproxy";
pub(crate) const PORTABLE: &str = "netproxy-portable";
pub(crate) const URING: &str = "netproxy-uring";
/// In the order of a report's columns.
pub(crate) const NAMES: [&str; 10] =
    [DIRECT, DNAT, DOCKER_PROXY, HAPROXY, NGINX, SOCAT, TOKIO_SPLICE, NETPROXY, PORTABLE, URING];
/// Those without processes of their own.
pub(crate) const KERNEL: [&str; 2] = [DIRECT, DNAT];

/// Who takes part unless told otherwise: all but `netproxy`, which is one of its two engines again.
pub(crate) fn usual() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().filter(|name| *name != NETPROXY)
}

/// A way from a client on the host to the backend.
pub(crate) trait Contender {
    fn name(&self) -> &'static str;

    /// What exactly takes part, for the report.
    fn version(&self) -> anyhow::Result<String>;

    /// Whether it is made for this protocol and so many connections at a time.
    fn carries(&self, _protocol: Protocol, _connections: usize) -> bool {
        true
    }

    /// How many files it has open for each connection, which limits how many it can hold.
    fn files_per_connection(&self) -> u64 {
        2
    }

    /// Sets the way up in `topology`, ready to be used.
    fn start(&self, topology: &Topology, protocol: Protocol) -> anyhow::Result<Way>;

    /// Publishes `count` TCP ports that nobody uses, if that takes processes: one for each port where the program is
    /// made so, otherwise one for all.
    fn start_idle(&self, topology: &Topology, count: u16) -> anyhow::Result<Option<Programs>>;
}

/// A way that is set up; dropping it takes it down.
pub(crate) struct Way {
    /// Where the client goes.
    pub(crate) target: SocketAddr,
    /// What the traffic passes through.
    pub(crate) programs: Programs,
}

/// Running programs of one contender; dropping it ends them.
pub(crate) struct Programs {
    processes: Vec<Process>,
    roots: Vec<Pid>,
}

impl Programs {
    pub(crate) fn none() -> Self {
        Self { processes: Vec::new(), roots: Vec::new() }
    }

    fn of(process: Process) -> Self {
        let mut programs = Self::none();
        programs.push(process);
        programs
    }

    fn push(&mut self, process: Process) {
        self.roots.push(process.pid());
        self.processes.push(process);
    }

    /// For `launch::sealed_command`, where the program is the child of the process started.
    fn push_sealed(&mut self, process: Process) -> anyhow::Result<()> {
        let inside = usage::children(process.pid());
        self.roots.push(*inside.first().context("a program ended as soon as it served")?);
        self.processes.push(process);
        Ok(())
    }

    fn join(&mut self, other: Self) {
        self.roots.extend(other.roots);
        self.processes.extend(other.processes);
    }

    /// The programs themselves; what they have forked is below them.
    pub(crate) fn roots(&self) -> &[Pid] {
        &self.roots
    }

    /// Fails if one has ended.
    pub(crate) fn expect_alive(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::expect_alive)
    }
}

/// Where the contenders' programs are.
pub(crate) struct Binaries {
    /// None: where Docker's packages put it.
    pub(crate) docker_proxy: Option<PathBuf>,
    pub(crate) netproxy: PathBuf,
}

/// The contender with this name; an error if its program is missing.
pub(crate) fn find(name: &str, binaries: &Binaries) -> anyhow::Result<Box<dyn Contender>> {
    let netproxy =
        |name, flags: &[&'static str]| userland::Proxy::new(name, binaries.netproxy.clone(), flags);
    Ok(match name {
        DIRECT => Box::new(direct::Direct),
        DNAT => Box::new(dnat::Dnat::new()?),
        DOCKER_PROXY => Box::new(userland::Proxy::docker(binaries.docker_proxy.clone())?),
        HAPROXY => Box::new(haproxy::HaProxy::new()?),
        NGINX => Box::new(nginx::Nginx::new()?),
        SOCAT => Box::new(socat::Socat::new()?),
        TOKIO_SPLICE => Box::new(tokio_splice::TokioSplice),
        NETPROXY => Box::new(netproxy(NETPROXY, &[])?),
        PORTABLE => Box::new(netproxy(PORTABLE, &["--engine", "portable"])?),
        URING => Box::new(netproxy(URING, &["--engine", "uring"])?),
        _ => bail!("there is no contender {name:?}: choose from {}", NAMES.join(", ")),
    })
}
