//! Processes that a command leaves in its sandbox: they end with it.
//!
//! They are found in two ways, because each misses some: as descendants of whoever supervises the command, which as a
//! subreaper inherits orphans, and as processes in the command's mount namespace, which may have other parents (`exec`).
//! A descendant in the supervisor's own mount namespace isn't one: the command never was there.
//!
//! The first way doesn't tell the commands of one process apart: it is for a process that supervises one.
//!
//! A process is opened, looked at again and killed through the descriptor, so that none is hit that took over the number.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::kernel::enter;

/// What a command leaves behind.
#[derive(Debug)]
pub struct Leftovers {
    /// The sandbox's mount namespace; `None` if it couldn't be asked for.
    namespace: Option<Identity>,
    /// Keeps that namespace, and so its number, from going to somebody else.
    _kept: Option<File>,
    /// Our own.
    home: Option<Identity>,
}

/// Device and inode of a namespace: no other has the same as long as it lives.
type Identity = (u64, u64);

impl Leftovers {
    /// Of a command that runs, or has ended and wasn't waited for before it ran.
    pub fn of(command: u32) -> Self {
        let home = mount_namespace(std::process::id());
        // One that has ended has none any more; its descendants are still found.
        let kept = File::open(path(command)).ok();
        let namespace = kept.as_ref().and_then(|file| file.metadata().ok()).map(identity);
        Self { namespace: namespace.filter(|namespace| Some(*namespace) != home), _kept: kept, home }
    }

    /// Kills them, once the command has ended, and collects those that are children of this process. Returns how many are still there: call it again
    /// until there is none.
    pub fn kill(&self) -> usize {
        let mut found = BTreeSet::new();
        descendants(std::process::id(), &mut found);
        found.extend(everybody().filter(|pid| self.is_inside(*pid)));
        let here: Vec<u32> = found.into_iter().filter(|pid| self.kill_one(*pid)).collect();
        for pid in &here {
            if let Ok(pid) = i32::try_from(*pid) {
                let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            }
        }
        here.len()
    }

    fn kill_one(&self, pid: u32) -> bool {
        let Ok(process) = enter::open_process(pid) else { return false };
        let namespace = mount_namespace(pid);
        if namespace.is_none() || namespace == self.home {
            // It has ended, or isn't the command's.
            return false;
        }
        enter::kill(&process).is_ok()
    }

    fn is_inside(&self, pid: u32) -> bool {
        self.namespace.is_some() && mount_namespace(pid) == self.namespace
    }
}

/// Who is in a network namespace: where nobody is left who would have ended them.
///
/// Whoever has our own mount namespace only looks in, as an administrator does, and isn't meant.
#[derive(Debug)]
pub struct Inhabitants {
    namespace: Identity,
    /// Keeps the namespace, and so its number, from going to somebody else.
    _kept: File,
    home: Option<Identity>,
    spared: Vec<Guest>,
}

/// Another sandbox in the same namespace.
#[derive(Debug)]
struct Guest {
    namespace: Option<Identity>,
    supervisor: u32,
}

impl Inhabitants {
    /// Of the network namespace that a file is a handle of.
    ///
    /// # Errors
    /// If it can't be opened, or is our own.
    pub fn of(path: &Path) -> io::Result<Self> {
        let kept = File::open(path)?;
        let namespace = identity(kept.metadata()?);
        if enter::namespace_kind(&kept) != Some(libc::CLONE_NEWNET)
            || network_namespace(std::process::id()) == Some(namespace)
        {
            return Err(io::Error::other("not a network namespace of a sandbox"));
        }
        let home = mount_namespace(std::process::id());
        Ok(Self { namespace, _kept: kept, home, spared: Vec::new() })
    }

    /// What belongs to a command, or to who supervises it, stays.
    pub fn spare(&mut self, command: u32, supervisor: u32) {
        let namespace = mount_namespace(command).filter(|namespace| Some(*namespace) != self.home);
        self.spared.push(Guest { namespace, supervisor });
    }

    /// Kills them. Returns how many are still there: call it again until there is none.
    pub fn kill(&self) -> usize {
        let mut spared = BTreeSet::new();
        for guest in &self.spared {
            spared.insert(guest.supervisor);
            descendants(guest.supervisor, &mut spared);
        }
        let here = everybody().filter(|pid| network_namespace(*pid) == Some(self.namespace));
        here.filter(|pid| !spared.contains(pid) && self.kill_one(*pid)).count()
    }

    fn kill_one(&self, pid: u32) -> bool {
        let Ok(process) = enter::open_process(pid) else { return false };
        let mounts = mount_namespace(pid);
        let is_guest = || self.spared.iter().any(|guest| guest.namespace == mounts);
        // Only now is it sure that it is the one that was found. One that has ended has no namespaces any more.
        let is_here = network_namespace(pid) == Some(self.namespace);
        is_here && mounts.is_some() && mounts != self.home && !is_guest() && enter::kill(&process).is_ok()
    }
}

fn network_namespace(pid: u32) -> Option<Identity> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(identity)
}

fn mount_namespace(pid: u32) -> Option<Identity> {
    fs::metadata(path(pid)).ok().map(identity)
}

fn path(pid: u32) -> String {
    format!("/proc/{pid}/ns/mnt")
}

fn identity(metadata: Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Whether a process runs in another mount namespace than this one, as everything in a sandbox does.
pub fn is_apart(pid: u32) -> bool {
    mount_namespace(pid).is_some_and(|namespace| Some(namespace) != mount_namespace(std::process::id()))
}

fn everybody() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn descendants(of: u32, found: &mut BTreeSet<u32>) {
    let Ok(tasks) = fs::read_dir(format!("/proc/{of}/task")) else { return };
    for task in tasks.flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|word| word.parse().ok()) {
            if found.insert(child) {
                descendants(child, found);
            }
        }
    }
}
