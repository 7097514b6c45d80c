//! How many descriptors there are, and how many connections that allows.
//!
//! Running out of descriptors between `accept` and `connect` would mean dropping a client that was already let in. So
//! descriptors are counted before they are taken: when none are left, clients wait in the kernel's backlog instead.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors for everything but traffic: stdio, runtime, signals, control, log, and a few we were born with.
const OWN: u64 = 24;
/// Descriptors per thread: its runtime's, and its idle pipes.
const PER_THREAD: u64 = 12;
/// A budget below this would serve nobody; the kernel's refusals then keep order instead.
const LEAST: u64 = 8;

/// Lifts the soft limit to the hard one. Refusal changes nothing but how many connections fit.
pub fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// How many descriptors traffic may use.
#[must_use]
pub fn descriptor_budget(listeners: usize, threads: usize) -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    budget(limit, listeners as u64, threads as u64)
}

fn budget(limit: u64, listeners: u64, threads: u64) -> usize {
    let left = limit.saturating_sub(OWN + listeners + threads * PER_THREAD).max(LEAST);
    usize::try_from(left.min(u64::from(u32::MAX))).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_for_traffic() {
        assert_eq!(budget(1024, 1, 2), 1024 - 24 - 1 - 24);
        assert_eq!(budget(64, 1, 2), 15);
        assert_eq!(budget(1024, 1000, 2), 8);
        assert_eq!(budget(u64::MAX, 1, 2), u32::MAX as usize);
    }
}
