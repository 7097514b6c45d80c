//! The daemon under test: in a network namespace and with directories of its own, killed when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::namespace::Namespace;
use crate::topology::ip;

/// Longer than any start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Daemon {
    portmap: PathBuf,
    socket: String,
    process: std::process::Child,
    /// In memory, as `/run` is.
    exec_root: tempfile::TempDir,
    root: tempfile::TempDir,
    namespace: Namespace,
}

impl Daemon {
    /// With these flags beside those that keep it apart.
    pub(crate) fn start(bin_dir: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let portmap = bin_dir.join("portmap");
        ensure!(portmap.is_file(), "there is no {}: build it, or give --bin-dir", portmap.display());
        let root = tempfile::tempdir()?;
        let memory = Path::new("/dev/shm");
        let exec_root = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        let namespace = Namespace::new()?;
        let socket = format!("unix://{}", root.path().join("portmap.sock").display());
        let mut command = Command::new(&portmap);
        command
            .args(["daemon", "--log-level", "warn", "-H", &socket])
            .arg("--data-root")
            .arg(root.path().join("data"))
            .arg("--exec-root")
            .arg(exec_root.path())
            .args(flags)
            .stdin(Stdio::null());
        let process = namespace.run(move || {
            ip("link set lo up\n")?;
            Ok(command.spawn()?)
        })?;
        let mut daemon = Self { portmap, socket, process, exec_root, root, namespace };
        daemon.await_socket()?;
        Ok(daemon)
    }

    fn await_socket(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let socket = self.root.path().join("portmap.sock");
        while !socket.exists() {
            if let Some(status) = self.process.try_wait()? {
                bail!("it ended: {status}");
            }
            ensure!(Instant::now() < deadline, "it makes no socket");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Where it lives.
    pub(crate) const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where a sandbox lives.
    pub(crate) fn namespace_of(&self, sandbox: &str) -> anyhow::Result<PathBuf> {
        let (_, path) = self.timed(&["inspect", "-f", "{{.NetworkSettings.SandboxKey}}", sandbox])?;
        Ok(PathBuf::from(path.trim()))
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// `portmap WORDS…`, to be run against this daemon.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.portmap);
        command.env("PORTMAP_HOST", &self.socket).args(words).stdin(Stdio::null());
        command
    }

    /// How long `portmap WORDS…` takes, and what it says.
    pub(crate) fn timed(&self, words: &[&str]) -> anyhow::Result<(f64, String)> {
        self.timed_command(self.command(words))
    }

    /// The same for any command, started where the daemon lives.
    pub(crate) fn timed_command(&self, mut command: Command) -> anyhow::Result<(f64, String)> {
        self.namespace.run(move || {
            let start = Instant::now();
            let output = command.output()?;
            let took = start.elapsed().as_secs_f64() * 1e3;
            Ok((took, said(&command, output)?))
        })
    }

    /// Several commands at once. What each says, in their order.
    pub(crate) fn at_once(&self, commands: Vec<Command>) -> anyhow::Result<Vec<String>> {
        self.namespace.run(move || {
            let start = |mut command: Command| -> anyhow::Result<_> {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
                let child = command.spawn()?;
                Ok((command, child))
            };
            let children: Vec<_> = commands.into_iter().map(start).collect::<anyhow::Result<_>>()?;
            let end =
                |(command, child): (Command, std::process::Child)| said(&command, child.wait_with_output()?);
            children.into_iter().map(end).collect()
        })
    }

    /// Names of the links where the daemon lives.
    pub(crate) fn links(&self) -> anyhow::Result<Vec<String>> {
        let mut ip = Command::new("ip");
        ip.args(["-brief", "link"]);
        let (_, list) = self.timed_command(ip)?;
        let name = |line: &str| line.split([' ', '@']).next().unwrap_or_default().to_owned();
        Ok(list.lines().map(name).collect())
    }

    /// How many namespaces are pinned.
    pub(crate) fn pins(&self) -> usize {
        std::fs::read_dir(self.exec_root.path().join("netns")).map_or(0, Iterator::count)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Sandboxes outlive a daemon, so they go first. All of this fails only for what has gone already.
        let ids = self.timed(&["ps", "-aq"]).map(|(_, ids)| ids).unwrap_or_default();
        let mut rm = vec!["rm", "-f"];
        rm.extend(ids.lines());
        if rm.len() > 2 {
            let _ = self.timed(&rm);
        }
        let _ = kill(self.pid(), Signal::SIGTERM);
        let _ = self.process.wait();
        // What is still pinned would keep the directory from being removed.
        for pin in std::fs::read_dir(self.exec_root.path().join("netns")).into_iter().flatten().flatten() {
            let _ = Command::new("umount").arg("-l").arg(pin.path()).status();
        }
        let _ = Command::new("umount").arg("-l").arg(self.exec_root.path().join("netns")).output();
    }
}

fn said(command: &Command, output: Output) -> anyhow::Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, errors.trim());
    String::from_utf8(output.stdout).context("it says no text")
}
