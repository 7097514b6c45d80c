//! How a keeper's proxies are known: two variables in their environment.
//!
//! `PORTMAP_PROXY` says whose and what: the daemon's marker and the mapping. `PORTMAP_KEEPER` says which keeper started it,
//! so that one never takes its own for somebody's leftovers.

use std::fmt::Write;
use std::fs;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::stat::{SFlag, fstat};

use crate::publish::mapping::Mapping;

const PROXY: &str = "PORTMAP_PROXY";
const KEEPER: &str = "PORTMAP_KEEPER";

/// What the proxies of one keeper bear.
#[derive(Clone, Debug)]
pub(in crate::publish) struct KeeperMark {
    marker: String,
    keeper: String,
}

impl KeeperMark {
    /// Another one each time.
    pub(super) fn new(marker: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut keeper = format!("{}-{}", std::process::id(), since.as_nanos());
        // Writing to a string can't fail.
        let _ = write!(keeper, "-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { marker: marker.to_owned(), keeper }
    }

    /// Prepares a proxy that outlives us: marked, and holding nothing of ours that somebody waits for.
    pub(in crate::publish) fn mark(&self, command: &mut Command, mapping: &Mapping) {
        command.env(PROXY, format!("{} {mapping}", self.marker)).env(KEEPER, &self.keeper);
        // Its ports go at once when they are withdrawn, and the rules with them.
        command.env_remove("NETPROXY_DRAIN");
        command.current_dir("/");
        // Whoever reads our words from a pipe would wait for the last proxy to end.
        let pipe = fstat(std::io::stderr().as_fd()).map_or(true, |of| {
            SFlag::from_bits_truncate(of.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFIFO
        });
        if pipe {
            command.stderr(Stdio::null());
        }
    }

    /// What a process of one of our predecessors serves; `None` if it isn't one.
    pub(super) fn of_predecessor(&self, pid: u32) -> Option<Mapping> {
        self.recognise(&fs::read(format!("/proc/{pid}/environ")).ok()?)
    }

    fn recognise(&self, environment: &[u8]) -> Option<Mapping> {
        let value = |name: &str| {
            environment
                .split(|byte| *byte == 0)
                .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
                .and_then(|value| std::str::from_utf8(value).ok())
        };
        let (marker, mapping) = value(PROXY)?.split_once(' ')?;
        if marker != self.marker || value(KEEPER) == Some(&self.keeper) {
            return None;
        }
        mapping.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_predecessors_are_recognised() {
        let (old, new) = (KeeperMark::new("m1"), KeeperMark::new("m1"));
        let environment = |marker: &str, keeper: &str| {
            format!("A=1\0PORTMAP_PROXY={marker} tcp :: 80 ::1 80\0PORTMAP_KEEPER={keeper}\0").into_bytes()
        };
        let known = |marker: &str, keeper: &str| new.recognise(&environment(marker, keeper)).is_some();
        assert!(known("m1", &old.keeper) && known("m1", ""));
        assert!(!known("m1", &new.keeper), "one's own");
        assert!(!known("m2", &old.keeper) && !known("m", &old.keeper), "somebody else's");
        assert!(new.recognise(b"PORTMAP_PROXY=m1 nonsense\0").is_none());
        assert!(new.recognise(b"").is_none());
    }
}
