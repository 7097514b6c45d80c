//! Debian's dockerd beside us: two hundred ports, and the time until a port answers.
//!
//! dockerd, its containerd, the shims and the containers live in a process-id and a mount namespace of their own, which
//! end when the pipe to their first process does: with this value, or with this process however suddenly.
//!
//! Not here: what we do in the same time (`ports`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::namespace::Namespace;
use crate::topology::ip;

/// How long dockerd may take to start.
const START: Duration = Duration::from_secs(60);
const IMAGE: &str = "busybox:local";
/// What it takes.
const PROGRAMS: [&str; 5] = ["dockerd", "docker", "busybox", "tar", "iptables"];

/// `$1` is the directory, `$2` the cgroup. Background processes of a shell have no stdin: only `cat` holds the pipe.
const INNER: &str = r#"
mount -t tmpfs tmpfs /run
dockerd --config-file "$1/daemon.json" >"$1/log" 2>&1 &
cat
exit
"#;
const OUTER: &str = r#"
unshare --mount --pid --fork --kill-child --mount-proc sh -c "$INNER" sh "$1"
tries=100
while [ $tries -gt 0 ] && [ -n "$(find /sys/fs/cgroup -type d -name "$2")" ]; do
    find /sys/fs/cgroup -depth -type d \( -path "*/$2" -o -path "*/$2/*" \) -exec rmdir {} + 2>/dev/null || sleep 0.05
    tries=$((tries - 1))
done
"#;

/// A running dockerd.
pub(super) struct Dockerd {
    shell: Child,
    pub(super) namespace: Namespace,
    directory: tempfile::TempDir,
}

impl Dockerd {
    /// `None`, with the reason on standard error, where there is none to be had.
    pub(super) fn start() -> anyhow::Result<Option<Self>> {
        let on_path = |name: &str| {
            let places = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&places)
                .chain([PathBuf::from("/usr/sbin")])
                .any(|place| place.join(name).is_file())
        };
        if let Some(missing) = PROGRAMS.iter().find(|name| !on_path(name)) {
            eprintln!("dockerd is not measured: there is no {missing}");
            return Ok(None);
        }
        let directory = tempfile::tempdir()?;
        let name = format!("portmap-bench-{}", std::process::id());
        std::fs::write(directory.path().join("daemon.json"), configuration(directory.path(), &name))?;
        let namespace = Namespace::new()?;
        let mut command = Command::new("sh");
        command.args(["-c", OUTER, "sh"]).arg(directory.path()).arg(&name).env("INNER", INNER);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let shell = namespace.run(move || {
            ip("link set lo up\n")?;
            Ok(command.spawn()?)
        })?;
        let mut dockerd = Self { shell, namespace, directory };
        let deadline = Instant::now() + START;
        while !dockerd.command(&["version"]).output()?.status.success() {
            let log = || std::fs::read_to_string(dockerd.directory.path().join("log")).unwrap_or_default();
            if let Some(status) = dockerd.shell.try_wait()? {
                bail!("dockerd has ended: {status}: {}", log());
            }
            ensure!(Instant::now() < deadline, "dockerd doesn't answer: {}", log());
            thread::sleep(Duration::from_millis(50));
        }
        dockerd.import()?;
        Ok(Some(dockerd))
    }

    /// `docker WORDS…`, against this one.
    pub(super) fn command(&self, words: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new("docker");
        let socket = format!("unix://{}", self.directory.path().join("docker.sock").display());
        command.env("DOCKER_HOST", socket).env("DOCKER_CONFIG", self.directory.path().join("client"));
        command.env_remove("DOCKER_CONTEXT").args(words.iter().map(AsRef::as_ref)).stdin(Stdio::null());
        command
    }

    /// How long that takes, in milliseconds.
    pub(super) fn timed(&self, words: &[impl AsRef<str>]) -> anyhow::Result<f64> {
        let mut command = self.command(words);
        let start = Instant::now();
        let output = command.output()?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(took)
    }

    /// `docker run` of the image, detached: its words.
    pub(super) fn run<'a>(name: &'a str, ports: &'a str, inside: &[&'a str]) -> Vec<&'a str> {
        [&["run", "-d", "--name", name, "-p", ports, IMAGE], inside].concat()
    }

    fn import(&self) -> anyhow::Result<()> {
        // Debian's busybox may need libraries: they come along.
        let script = r#"
            mkdir -p "$1/image/bin" && cd "$1/image" && busybox=$(command -v busybox) && cp "$busybox" bin/busybox
            for library in $(ldd "$busybox" 2>/dev/null | grep -o '/[^ ]*'); do
                mkdir -p ".${library%/*}" && cp "$library" ".$library"
            done
            ln -s busybox bin/sh && tar -cf ../image.tar .
        "#;
        let made = Command::new("sh").args(["-c", script, "sh"]).arg(self.directory.path()).output()?;
        ensure!(made.status.success(), "no image: {}", String::from_utf8_lossy(&made.stderr));
        let archive = self.directory.path().join("image.tar");
        self.timed(&["import", archive.to_str().context("a path that isn't text")?, IMAGE])?;
        Ok(())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // It ends when everything below it has.
        let _ = self.shell.wait();
    }
}

fn configuration(directory: &Path, cgroup: &str) -> String {
    serde_json::json!({
        "hosts": [format!("unix://{}", directory.join("docker.sock").display())],
        "data-root": directory.join("data"),
        "exec-root": directory.join("exec"),
        "pidfile": directory.join("pid"),
        "deprecated-key-path": directory.join("key.json"),
        // Works on every file system, also on one that is an overlay itself.
        "storage-driver": "vfs",
        "log-level": "warn",
        "cgroup-parent": format!("/{cgroup}"),
        // systemd can't be asked for cgroups from in here.
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
    })
    .to_string()
}
