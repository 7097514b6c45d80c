//! How many descriptors there are, and how many connections that allows.
//!
//! Running out of descriptors between `accept` and `connect` would mean dropping a client that was already let in. So
//! descriptors are counted before they are taken: when none are left, clients wait in the kernel's backlog instead.

use std::num::NonZeroUsize;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::sys;

/// Descriptors for everything but traffic: stdio, runtime, signals, control, log, and a few we were born with.
const OWN: u64 = 24;
/// Descriptors per thread: its runtime's, and its idle pipes.
const PER_THREAD: u64 = 12;
/// Threads together may take one in this many.
const THREADS_SHARE: u64 = 4;
/// A budget below this would serve nobody; the kernel's refusals then keep order instead.
const LEAST: u64 = 8;

/// Descriptors left, below which none goes into a pipe: a stream can do without, a client can't.
pub const FOR_CLIENTS: u32 = 64;

/// Lifts the soft limit to the hard one. Refusal changes nothing but how many connections fit.
pub fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Keeps memory small: one heap for all threads. Call it before there are any.
pub fn share_the_heap() {
    sys::one_heap();
}

/// Refuses to serve with too few descriptors to serve anybody.
///
/// # Errors
/// When the limit leaves next to nothing beside `listeners`.
pub fn check(listeners: usize) -> Result<(), TooFewFiles> {
    let (limit, needed) = (open_files(), OWN + LEAST / 2 + listeners as u64);
    if limit < needed { Err(TooFewFiles { limit, needed }) } else { Ok(()) }
}

/// The limit of open files is too low.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of {limit} open files leaves none for clients: raise it to {needed} or more (ulimit -n)")]
pub struct TooFewFiles {
    limit: u64,
    needed: u64,
}

/// How many of `wanted` threads leave most of the descriptors to traffic.
#[must_use]
pub fn affordable_threads(wanted: NonZeroUsize) -> NonZeroUsize {
    affordable(open_files(), wanted)
}

fn affordable(limit: u64, wanted: NonZeroUsize) -> NonZeroUsize {
    let most = usize::try_from(limit / THREADS_SHARE / PER_THREAD).unwrap_or(usize::MAX);
    NonZeroUsize::new(most).map_or(NonZeroUsize::MIN, |most| most.min(wanted))
}

fn open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

/// How many descriptors traffic may use.
#[must_use]
pub fn descriptor_budget(listeners: usize, threads: usize) -> usize {
    budget(open_files(), listeners as u64, threads as u64)
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

    #[test]
    fn threads_leave_most_to_traffic() {
        let affordable = |limit, wanted| affordable(limit, NonZeroUsize::new(wanted).unwrap()).get();
        assert_eq!(affordable(1024, 64), 21);
        assert_eq!(affordable(1024, 2), 2);
        assert_eq!(affordable(20, 64), 1);
        assert_eq!(affordable(u64::MAX, 64), 64);
    }
}
