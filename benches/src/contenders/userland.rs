//! Proxies with docker-proxy's command line, started as dockerd 20.10 starts them: the proxy binds the port itself,
//! and tells on descriptor 3 when it serves. Newer ways to hand the socket over change nothing once it runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use command_fds::{CommandFdExt, FdMapping};

use super::{Contender, DOCKER_PROXY, Way};
use crate::launch;
use crate::loads::Protocol;
use crate::process::{Process, read_before};
use crate::topology::Topology;

/// Where Docker's packages, and Debian's, put it.
const DOCKER_PROXY_PLACES: [&str; 4] = [
    "/usr/libexec/docker/docker-proxy",
    "/usr/local/libexec/docker/docker-proxy",
    "/usr/bin/docker-proxy",
    "/usr/sbin/docker-proxy",
];
const STATUS_FD: i32 = 3;
/// What a proxy writes when it serves.
const SERVING: &[u8] = b"0\n";
/// As long as dockerd waits.
const PATIENCE: Duration = Duration::from_secs(16);
/// Idle proxies listen from here on, below the ephemeral ports.
const FIRST_IDLE_PORT: u16 = 5001;

/// One proxy program.
pub(super) struct Proxy {
    name: &'static str,
    program: PathBuf,
}

impl Proxy {
    pub(super) fn new(name: &'static str, program: PathBuf) -> anyhow::Result<Self> {
        ensure!(program.is_file(), "{name}: there is no {}; build it, or say where it is", program.display());
        Ok(Self { name, program })
    }

    pub(super) fn docker(program: Option<PathBuf>) -> anyhow::Result<Self> {
        let found = || DOCKER_PROXY_PLACES.iter().map(PathBuf::from).find(|path| path.is_file());
        let program = program.or_else(found).context(
            "docker-proxy is in none of its usual places: install docker.io, or use --docker-proxy PATH",
        )?;
        Self::new(DOCKER_PROXY, program)
    }

    fn serve(
        &self,
        topology: &Topology,
        protocol: Protocol,
        from: SocketAddr,
        to: SocketAddr,
    ) -> anyhow::Result<Process> {
        let (mut status, theirs) = std::io::pipe()?;
        let mut command = launch::command(&self.program);
        command
            .args(["-proto", protocol.name()])
            .args(["-host-ip", &from.ip().to_string(), "-host-port", &from.port().to_string()])
            .args(["-container-ip", &to.ip().to_string(), "-container-port", &to.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: STATUS_FD }])?;
        let process = Process::start(&topology.host, self.name, command)?;
        let mut said = Vec::new();
        let mut chunk = [0; 512];
        let deadline = Instant::now() + PATIENCE;
        loop {
            match read_before(&mut status, &mut chunk, deadline).with_context(|| self.name)? {
                0 => bail!("{} doesn't serve: {:?}", self.name, String::from_utf8_lossy(&said)),
                got => said.extend_from_slice(&chunk[..got]),
            }
            if said == SERVING {
                return Ok(process);
            }
        }
    }
}

impl Contender for Proxy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> anyhow::Result<String> {
        let path = self.program.display();
        Ok(match own_version(&self.program)?.or_else(|| package_version(&self.program)) {
            Some(version) => format!("{version} ({path})"),
            None => format!("{path}, version unknown"),
        })
    }

    fn start(&self, topology: &Topology, protocol: Protocol) -> anyhow::Result<Way> {
        let target = Topology::published_address();
        let process = self.serve(topology, protocol, target, Topology::backend_address())?;
        Ok(Way { target, processes: vec![process] })
    }

    fn start_idle(&self, topology: &Topology, count: u16) -> anyhow::Result<Option<Vec<Process>>> {
        let mut address = Topology::published_address();
        let processes = (FIRST_IDLE_PORT..).take(usize::from(count)).map(|port| {
            address.set_port(port);
            self.serve(topology, Protocol::Tcp, address, Topology::backend_address())
        });
        processes.collect::<anyhow::Result<_>>().map(Some)
    }
}

/// What `-version` says; Docker's proxy knows the flag from version 28 on.
fn own_version(program: &Path) -> anyhow::Result<Option<String>> {
    let output = Command::new(program)
        .arg("-version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't run {}", program.display()))?;
    Ok(output.status.success().then(|| first_line(&output.stdout)).flatten())
}

/// What Debian's package manager says.
fn package_version(program: &Path) -> Option<String> {
    let owner = Command::new("dpkg").arg("-S").arg(program).output().ok()?;
    let package = first_line(&owner.stdout)?.split(':').next()?.to_owned();
    let version = Command::new("dpkg-query").args(["-W", "-f", "${Version}", &package]).output().ok()?;
    first_line(&version.stdout).map(|version| format!("{package} {version}"))
}

fn first_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}
