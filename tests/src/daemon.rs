//! `portmap daemon` on a host of its own, with roots of its own, and the commands that talk to it.
//!
//! All of them live in one mount and process-id namespace, whose first process the test holds: when the test ends, however
//! suddenly, the kernel ends the others, and what they mounted is gone. Nothing of the machine's own is used.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output};

use tempfile::TempDir;

use crate::lab::Host;
use crate::proc::Proc;
use crate::{bin, need, wait};

/// Roots, a socket, and whatever daemon uses them at the moment.
#[derive(Debug)]
pub struct Home {
    host: Host,
    // Before the folder: what runs in it ends first.
    first: Proc,
    inside: u32,
    folder: TempDir,
}

/// What a command wrote, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; minus the signal if one ended it.
    pub code: i32,
    /// Without the last line's end.
    pub stdout: String,
    /// Without the last line's end.
    pub stderr: String,
}

impl Home {
    /// New roots on a host. `None` where namespaces can't be made.
    ///
    /// # Panics
    /// When the namespaces can't be made though we are root.
    #[must_use]
    pub fn new(host: &Host) -> Option<Self> {
        need::root()?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "infinity"]);
        let first = host.spawn(command);
        let children = format!("/proc/{0}/task/{0}/children", first.pid());
        let inside = wait::some("first process", wait::PATIENCE, || {
            let pid: u32 = std::fs::read_to_string(&children).ok()?.trim().parse().ok()?;
            // Before that it still is unshare itself, without a /proc of its own.
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name.trim() == "sleep").then_some(pid)
        });
        let folder = tempfile::Builder::new().prefix("portmap-e2e-").tempdir().expect("a temporary folder");
        // Those who may not use the daemon shall at least see its socket.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), mode).expect("our own folder");
        std::fs::write(folder.path().join("daemon.json"), "{}").expect("our own folder");
        Some(Self { host: host.clone(), first, inside, folder })
    }

    /// The host it is on.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// A path below the roots' folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as the daemon sees it, for who isn't in its mount namespace.
    #[must_use]
    pub fn seen(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.inside))
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("run/portmap.sock")
    }

    /// The socket as `-H` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A program in the namespaces, with the environment that leads to the daemon.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.inside.to_string(), "--mount", "--pid", "--"]).arg(program);
        command
            .env("PORTMAP_HOST", self.url())
            .env("DOCKER_HOST", self.url())
            .env("PORTMAP_DATA_ROOT", self.path("data"))
            .env("PORTMAP_EXEC_ROOT", self.path("run"))
            .env("DOCKER_CONFIG", self.path("docker"));
        command
    }

    /// `portmap daemon` with our roots and these flags, not started yet.
    #[must_use]
    pub fn daemon_command(&self, flags: &[&str]) -> Command {
        let mut command = self.command(bin::portmap());
        command.arg("daemon").args(["--host", &self.url()]);
        command.arg("--data-root").arg(self.path("data")).arg("--exec-root").arg(self.path("run"));
        command.arg("--config-file").arg(self.path("daemon.json")).args(flags);
        command
    }

    /// A daemon that listens. It ends, without its sandboxes, when the handle goes.
    ///
    /// # Panics
    /// When it doesn't come to listen.
    #[must_use]
    pub fn daemon(&self, flags: &[&str]) -> Proc {
        let mut daemon = self.host.spawn(self.daemon_command(flags));
        wait::until("daemon that listens", || {
            assert!(daemon.ended().is_none(), "the daemon has left: {}", daemon.stderr());
            self.listens()
        });
        daemon
    }

    /// Whether somebody answers on the socket.
    #[must_use]
    pub fn listens(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
    }

    /// Kills whatever daemon has these roots, as `kill -9` does, and waits for its end.
    ///
    /// # Panics
    /// When there is none.
    pub fn kill_daemon(&self) {
        let pidfile = self.path("run/portmap.pid");
        let pid = std::fs::read_to_string(&pidfile).expect("a daemon runs");
        let killed = self.run("kill", &["-9", pid.trim()]);
        assert_eq!(killed.code, 0, "{killed:?}");
        // The lock is the last thing that the kernel takes from it.
        let pidfile = pidfile.to_str().expect("plain");
        wait::until("end of the daemon", || self.run("flock", &["-n", pidfile, "true"]).code == 0);
    }

    /// The processes around the daemon that are called so, by the ids that this process knows them under. Those that are
    /// dead but not collected don't count.
    ///
    /// # Panics
    /// When the namespace is gone.
    #[must_use]
    pub fn processes(&self, name: &str) -> Vec<u32> {
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = namespace(self.inside).expect("its first process lives");
        let is_called = |pid: u32| {
            // The name in parentheses may hold anything; the state follows.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains(&format!(" ({name}) ")) && !stat.contains(") Z ")
        };
        let all = std::fs::read_dir("/proc").expect("/proc is there").flatten();
        let mut pids: Vec<u32> = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        pids.retain(|pid| is_called(*pid) && namespace(*pid).as_ref() == Some(&ours));
        pids.sort_unstable();
        pids
    }

    /// Runs `portmap` to its end.
    pub fn portmap(&self, words: &[&str]) -> Said {
        self.said(self.command(bin::portmap()), words)
    }

    /// Runs the docker CLI to its end.
    pub fn docker(&self, words: &[&str]) -> Said {
        self.said(self.command("docker"), words)
    }

    /// Runs any program to its end.
    pub fn run(&self, program: &str, words: &[&str]) -> Said {
        self.said(self.command(program), words)
    }

    fn said(&self, mut command: Command, words: &[&str]) -> Said {
        command.args(words);
        Said::of(self.host.output(command))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // The namespaces and all in them; the folder can only be removed afterwards.
        self.first.signal(nix::sys::signal::Signal::SIGKILL);
        let _ = self.first.wait();
    }
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        Self { code: code(output.status), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What it wrote, if it succeeded.
    ///
    /// # Panics
    /// When it failed, with what it said.
    #[track_caller]
    #[allow(clippy::must_use_candidate, reason = "that it succeeds is often all one wants")]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| -signal)).unwrap_or(i32::MIN)
}
