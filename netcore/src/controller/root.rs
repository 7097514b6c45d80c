//! Directories of a daemon, and the lock that keeps a second one away from them.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::Result;
use super::config::Config;
use super::error::{ControllerError, file};
use super::request::Files;
use crate::model::SandboxId;

/// Nobody but root and its group has business with the facts; names and logs may be secrets.
const DATA_MODE: u32 = 0o710;
/// Users find the socket and the namespaces here.
const EXEC_MODE: u32 = 0o755;

/// How long the data root may be in use still: by a daemon that is ending, or by a child of its that hasn't yet become
/// another program, and has all that its parent had.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where everything is.
#[derive(Debug)]
pub(super) struct Root {
    data: PathBuf,
    exec: PathBuf,
    /// Held for as long as this is.
    _lock: File,
}

impl Root {
    /// Makes the directories and locks the data root.
    pub(super) fn open(config: &Config) -> Result<Self> {
        make_dir(&config.data_root, DATA_MODE)?;
        make_dir(&config.exec_root, EXEC_MODE)?;
        let absolute = |path: &Path| fs::canonicalize(path).map_err(file("find", path));
        let (data, exec) = (absolute(&config.data_root)?, absolute(&config.exec_root)?);
        let lock = lock(&data)?;
        let root = Self { data, exec, _lock: lock };
        make_dir(&root.data.join("sandboxes"), DATA_MODE)?;
        make_dir(&root.exec.join("sandboxes"), EXEC_MODE)?;
        make_dir(&root.namespaces(), EXEC_MODE)?;
        Ok(root)
    }

    /// The data root.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// The facts.
    pub(super) fn database(&self) -> PathBuf {
        self.data.join("portmap.db")
    }

    /// Which families' forwarding we have turned on in this boot.
    pub(super) fn forwarding(&self) -> PathBuf {
        self.exec.join("forwarding")
    }

    /// Where namespaces are pinned.
    pub(super) fn namespaces(&self) -> PathBuf {
        self.exec.join("netns")
    }

    /// The pin of a sandbox's namespace.
    pub(super) fn namespace(&self, sandbox: SandboxId) -> PathBuf {
        self.namespaces().join(sandbox.short())
    }

    /// What a sandbox keeps from one run to the next: its log.
    pub(super) fn kept(&self, sandbox: SandboxId) -> PathBuf {
        self.data.join("sandboxes").join(sandbox.to_string())
    }

    /// Files of a running sandbox.
    pub(super) fn run(&self, sandbox: SandboxId) -> PathBuf {
        self.exec.join("sandboxes").join(sandbox.to_string())
    }

    /// What a sandbox sees under `/etc`.
    pub(super) fn files(&self, sandbox: SandboxId) -> Files {
        let run = self.run(sandbox);
        Files {
            hosts: run.join("hosts"),
            hostname: run.join("hostname"),
            resolv_conf: Some(run.join("resolv.conf")),
        }
    }

    /// What was written last to a sandbox's hosts file of its links.
    pub(super) fn link_lines(&self, sandbox: SandboxId) -> PathBuf {
        self.run(sandbox).join("hosts.links")
    }

    /// What was written last to a sandbox's resolv.conf, as a digest.
    pub(super) fn resolv_conf_digest(&self, sandbox: SandboxId) -> PathBuf {
        self.run(sandbox).join("resolv.conf.hash")
    }

    pub(super) fn make_kept(&self, sandbox: SandboxId) -> Result<()> {
        make_dir(&self.kept(sandbox), DATA_MODE)
    }

    pub(super) fn make_run(&self, sandbox: SandboxId) -> Result<()> {
        make_dir(&self.run(sandbox), EXEC_MODE)
    }

    /// Whose directories there are of those that outlive a run.
    pub(super) fn all_kept(&self) -> Vec<SandboxId> {
        let entries = fs::read_dir(self.data.join("sandboxes")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Directories of runs that may be over.
    pub(super) fn runs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.exec.join("sandboxes"));
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }
}

/// One daemon for one data root: two would undo each other's work.
fn lock(data: &Path) -> Result<File> {
    let path = data.join("portmap.lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = open.map_err(file("open", &path))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(PATIENCE / 50),
            Err(TryLockError::WouldBlock) => return Err(ControllerError::Locked(data.to_owned())),
            Err(TryLockError::Error(error)) => return Err(file("lock", &path)(error)),
        }
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(file("make directory", path))
}

/// Removes a directory with all that is in it. A failure is only logged: nothing depends on it.
pub(super) fn remove_dir(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a directory can't be removed");
        }
        _ => {}
    }
}

/// Replaces a file: there is always the old one or the new one.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    write(&new, text)?;
    fs::rename(&new, path).map_err(file("write", path))
}

/// Writes a file in place: it may be mounted somewhere.
/// Not emptied first: on a full disk it would stay empty.
pub(super) fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    let text = text.as_ref();
    let open = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let written = open.and_then(|mut file| {
        file.write_all(text)?;
        file.set_len(text.len() as u64)
    });
    written.map_err(file("write", path))
}
