//! What all contenders with a program of their own need: finding it, starting it, knowing when it serves.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::Programs;
use crate::loads::Protocol;
use crate::process::Process;
use crate::topology::Topology;

/// Where servers are, whether or not the caller's PATH says so.
const SYSTEM: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// As long as dockerd waits for a proxy.
pub(super) const PATIENCE: Duration = Duration::from_secs(16);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Idle proxies listen from here on, below the ephemeral ports.
const FIRST_IDLE_PORT: u16 = 5001;

/// The program with this name; `package` of Debian's brings it.
pub(super) fn find(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(std::env::split_paths(SYSTEM))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("there is no {name}: install {package}"))
}

/// What Debian's package manager says, with what else there is to know.
pub(super) fn version(program: &Path, settings: &str) -> String {
    let version =
        package_version(program).unwrap_or_else(|| format!("{}, version unknown", program.display()));
    format!("{version}; {settings}")
}

pub(super) fn package_version(program: &Path) -> Option<String> {
    let owner = Command::new("dpkg").arg("-S").arg(program).output().ok()?;
    let package = first_line(&owner.stdout)?.split(':').next()?.to_owned();
    let version = Command::new("dpkg-query").args(["-W", "-f", "${Version}", &package]).output().ok()?;
    first_line(&version.stdout).map(|version| format!("{package} {version}"))
}

pub(super) fn first_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

/// One thread or worker for each, as an administrator sets it.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Ports for `count` idle listeners.
pub(super) fn idle_ports(count: u16) -> Vec<u16> {
    (FIRST_IDLE_PORT..).take(usize::from(count)).collect()
}

/// How to start a program that keeps to itself: one that tells nobody when it serves.
pub(super) struct Start<'a> {
    pub(super) name: &'a str,
    pub(super) protocol: Protocol,
    /// The ports it will listen on.
    pub(super) ports: &'a [u16],
    /// Whether processes of its own carry the traffic. Those are counted with it, and end with it.
    pub(super) forks: Forks,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Forks {
    Never,
    /// So many before it serves.
    Workers(usize),
    /// One for each connection.
    Connections,
}

/// A directory for a program's configuration and complaints. Neither is needed any more once the program serves, so
/// nothing stays on disk, however the bench ends.
pub(super) struct Scratch(TempDir);

impl Scratch {
    pub(super) fn new() -> anyhow::Result<Self> {
        TempDir::with_prefix("bench-").map(Self).context("can't make a temporary directory")
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file for the program to read.
    pub(super) fn file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.path().join(name);
        fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))?;
        Ok(path)
    }

    /// Starts the program and waits until it listens on every port.
    pub(super) fn start(
        self,
        topology: &Topology,
        how: &Start<'_>,
        mut command: Command,
    ) -> anyhow::Result<Programs> {
        let complaints = self.0.path().join("complaints");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&complaints)?);
        let mut process = Process::start(&topology.host, how.name, command)?;
        let served = serves(topology, how, &mut process);
        if let Err(error) = served {
            let said = fs::read_to_string(&complaints).unwrap_or_default();
            // Where there are several, the last one is why it gave up.
            return Err(match said.lines().rfind(|line| !line.trim().is_empty()) {
                Some(line) => error.context(line.trim().to_owned()),
                None => error,
            });
        }
        let mut programs = Programs::none();
        match how.forks {
            Forks::Never => programs.push(process),
            Forks::Workers(_) | Forks::Connections => programs.push_sealed(process)?,
        }
        Ok(programs)
    }
}

fn serves(topology: &Topology, how: &Start<'_>, process: &mut Process) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let workers = if let Forks::Workers(workers) = how.forks { workers } else { 0 };
    loop {
        process.expect_alive()?;
        let listening = listening_ports(topology, how.protocol)?;
        // What is sealed has a process of ours around it.
        if how.ports.iter().all(|port| listening.contains(port))
            && (workers == 0 || crate::usage::tree(process.pid()).len() >= workers + 2)
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} doesn't listen", how.name);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Looks from outside: a connection to try it out would already be load, on the backend too.
fn listening_ports(topology: &Topology, protocol: Protocol) -> anyhow::Result<BTreeSet<u16>> {
    topology.host.run(move || {
        // Not /proc/net, which is the main thread's.
        let path = format!("/proc/thread-self/net/{}", protocol.name());
        let sockets = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
        Ok(parse_listening(&sockets))
    })
}

/// TCP sockets in LISTEN and UDP sockets without a peer, from the kernel's table.
fn parse_listening(table: &str) -> BTreeSet<u16> {
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        let port = local.rsplit_once(':')?.1;
        matches!(state, "0A" | "07").then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_told_from_others() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n   \
            1: 0100007F:1F91 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 2 1\n   \
            2: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 3 1\n";
        assert_eq!(parse_listening(table), BTreeSet::from([53, 8080]));
        assert_eq!(parse_listening(""), BTreeSet::new());
    }
}
