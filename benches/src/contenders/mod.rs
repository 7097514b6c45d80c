//! Who is compared: the ways from a client on the host to the backend.
//!
//! One file is one kind of way, one line in `choose` and in `NAMES` is one contender. Not here: when each has its
//! turn (`rounds`).

mod direct;
mod userland;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use nix::unistd::Pid;

use crate::loads::Protocol;
use crate::process::Process;
use crate::topology::Topology;

pub(crate) const DIRECT: &str = "direct";
pub(crate) const DOCKER_PROXY: &str = "docker-proxy";
pub(crate) const NETPROXY: &str = "netproxy";
/// In the order of a report's columns.
pub(crate) const NAMES: [&str; 3] = [DIRECT, DOCKER_PROXY, NETPROXY];

/// A way from a client on the host to the backend.
pub(crate) trait Contender {
    fn name(&self) -> &'static str;

    /// What exactly takes part, for the report.
    fn version(&self) -> anyhow::Result<String>;

    /// Sets the way up in `topology`, ready to be used.
    fn start(&self, topology: &Topology, protocol: Protocol) -> anyhow::Result<Way>;

    /// Starts `count` more or less idle instances on ports of their own, if instances are processes.
    fn start_idle(&self, topology: &Topology, count: u16) -> anyhow::Result<Option<Vec<Process>>>;
}

/// A way that is set up; dropping it takes it down.
pub(crate) struct Way {
    /// Where the client goes.
    pub(crate) target: SocketAddr,
    /// The processes that the traffic passes through.
    pub(crate) processes: Vec<Process>,
}

impl Way {
    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.processes.iter().map(Process::pid).collect()
    }
}

/// Where the contenders' programs are.
pub(crate) struct Binaries {
    /// None: where Docker's packages put it.
    pub(crate) docker_proxy: Option<PathBuf>,
    pub(crate) netproxy: PathBuf,
}

/// The contenders with these names, in the order of `NAMES`.
pub(crate) fn choose(names: &[String], binaries: &Binaries) -> anyhow::Result<Vec<Box<dyn Contender>>> {
    if let Some(name) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        bail!("there is no contender {name:?}: choose from {}", NAMES.join(", "));
    }
    let mut chosen: Vec<Box<dyn Contender>> = Vec::new();
    for name in NAMES.into_iter().filter(|name| names.iter().any(|one| one == name)) {
        chosen.push(match name {
            DOCKER_PROXY => Box::new(userland::Proxy::docker(binaries.docker_proxy.clone())?),
            NETPROXY => Box::new(userland::Proxy::new(NETPROXY, binaries.netproxy.clone())?),
            _ => Box::new(direct::Direct),
        });
    }
    Ok(chosen)
}
