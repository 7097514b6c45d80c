//! Proxies with docker-proxy's command line, started as dockerd 20.10 starts them: the proxy binds the port itself,
//! and tells on descriptor 3 when it serves. Newer ways to hand the socket over change nothing once it runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use command_fds::{CommandFdExt, FdMapping};

use super::program::{self, PATIENCE, first_line, package_version};
use super::{Contender, DOCKER_PROXY, Programs, Way};
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

/// One proxy program.
pub(super) struct Proxy {
    name: &'static str,
    program: PathBuf,
    /// Beyond docker-proxy's own.
    flags: Vec<&'static str>,
    files_per_connection: u64,
}

impl Proxy {
    pub(super) fn new(name: &'static str, program: PathBuf, flags: &[&'static str]) -> anyhow::Result<Self> {
        ensure!(program.is_file(), "there is no {}; build it, or say where it is", program.display());
        Ok(Self { name, program, flags: flags.to_vec(), files_per_connection: 2 })
    }

    pub(super) fn docker(program: Option<PathBuf>) -> anyhow::Result<Self> {
        let found = || DOCKER_PROXY_PLACES.iter().map(PathBuf::from).find(|path| path.is_file());
        let program = program.or_else(found).context(
            "docker-proxy is in none of its usual places: install docker.io, or use --docker-proxy PATH",
        )?;
        // Go splices, with a pipe for each direction that is there before there is anything to move.
        Ok(Self { files_per_connection: 6, ..Self::new(DOCKER_PROXY, program, &[])? })
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
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: STATUS_FD }])?;
        let mut process = Process::start(&topology.host, self.name, command)?;
        let mut said = Vec::new();
        let mut chunk = [0; 512];
        let deadline = Instant::now() + PATIENCE;
        loop {
            match read_before(&mut status, &mut chunk, deadline).with_context(|| self.name)? {
                0 if said.is_empty() => bail!("{} ended without a word: {}", self.name, process.end()?),
                0 => bail!("{} doesn't serve: {}", self.name, String::from_utf8_lossy(&said).trim()),
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
        let version = own_version(&self.program)?.or_else(|| package_version(&self.program));
        let version = version.unwrap_or_else(|| "version unknown".to_owned());
        let flags: String = self.flags.iter().map(|word| format!(" {word}")).collect();
        Ok(format!("{version} ({path}{flags})"))
    }

    fn files_per_connection(&self) -> u64 {
        self.files_per_connection
    }

    fn start(&self, topology: &Topology, protocol: Protocol) -> anyhow::Result<Way> {
        let target = Topology::published_address();
        let process = self.serve(topology, protocol, target, Topology::backend_address())?;
        Ok(Way { target, programs: Programs::of(process) })
    }

    fn start_idle(&self, topology: &Topology, count: u16) -> anyhow::Result<Option<Programs>> {
        let mut programs = Programs::none();
        let mut address = Topology::published_address();
        for port in program::idle_ports(count) {
            address.set_port(port);
            programs.push(self.serve(topology, Protocol::Tcp, address, Topology::backend_address())?);
        }
        Ok(Some(programs))
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
