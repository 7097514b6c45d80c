//! Who may work on what at the same time.
//!
//! An operation takes all that it needs at once and nothing later, so that nobody waits for somebody who waits for him.
//! What an operation changes it takes for itself; what must merely stay as it is, it shares: hundreds of sandboxes start
//! on one network side by side, but not while the network is made or removed. Nobody is overtaken by somebody who would
//! be in his way.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::model::{IfName, NetworkId, SandboxId};

/// What can be taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// Everything: shared by every operation, but the one that goes over everything.
    All,
    /// A network.
    Network(NetworkId),
    /// A sandbox.
    Sandbox(SandboxId),
    /// A network's device.
    Device(IfName),
    /// A namespace that somebody else made.
    Namespace(PathBuf),
}

/// With whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    /// With others who share it.
    Shared,
    /// With nobody.
    Alone,
}

/// What an operation takes.
pub(super) type Wanted = BTreeMap<Key, Access>;

/// All that is taken, and who waits.
#[derive(Debug, Default)]
pub(super) struct Locks(Arc<All>);

#[derive(Debug, Default)]
struct All {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: HashMap<Key, Taken>,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Wanted>,
    arrivals: u64,
}

#[derive(Debug, Default)]
struct Taken {
    sharers: usize,
    alone: bool,
}

/// Gives back what was taken. It may go to another thread.
#[derive(Debug)]
pub(super) struct Guard {
    locks: Arc<All>,
    wanted: Wanted,
}

impl Locks {
    /// Waits until all of it can be had. [`Key::All`] is shared unless it is asked for.
    pub(super) fn take(&self, mut wanted: Wanted) -> Guard {
        wanted.entry(Key::All).or_insert(Access::Shared);
        let mut state = self.0.state();
        let turn = state.arrivals;
        state.arrivals += 1;
        if !state.may_go(turn, &wanted) {
            state.waiting.insert(turn, wanted.clone());
            while !state.may_go(turn, &wanted) {
                state = self.0.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.waiting.remove(&turn);
        }
        for (key, access) in &wanted {
            let entry = state.taken.entry(key.clone()).or_default();
            match access {
                Access::Shared => entry.sharers += 1,
                Access::Alone => entry.alone = true,
            }
        }
        Guard { locks: Arc::clone(&self.0), wanted }
    }
}

impl All {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether nothing is in the way of somebody: neither what is taken, nor what somebody wants who came earlier. Who is
    /// first in no one's way always goes, and nobody waits for somebody who came later: so everybody's turn comes.
    fn may_go(&self, turn: u64, wanted: &Wanted) -> bool {
        let free = wanted.iter().all(|(key, access)| match (self.taken.get(key), access) {
            (None, _) => true,
            (Some(held), Access::Shared) => !held.alone,
            (Some(held), Access::Alone) => !held.alone && held.sharers == 0,
        });
        free && self.waiting.range(..turn).all(|(_, earlier)| go_together(earlier, wanted))
    }
}

fn go_together(one: &Wanted, other: &Wanted) -> bool {
    one.iter().all(|(key, access)| match other.get(key) {
        None => true,
        Some(theirs) => *access == Access::Shared && *theirs == Access::Shared,
    })
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.locks.state();
        for (key, access) in &self.wanted {
            let Some(entry) = state.taken.get_mut(key) else { continue };
            match access {
                Access::Shared => entry.sharers -= 1,
                Access::Alone => entry.alone = false,
            }
            if !entry.alone && entry.sharers == 0 {
                state.taken.remove(key);
            }
        }
        drop(state);
        self.locks.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn key(n: u8) -> Key {
        Key::Network(NetworkId::from_random([n; 32]))
    }

    #[test]
    fn sharers_go_together_and_who_is_alone_is_alone() {
        let locks = Locks::default();
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let both = || {
            let _a = locks.take([(key(1), Access::Shared)].into());
            let _b = thread::scope(|s| {
                s.spawn(|| drop(locks.take([(key(1), Access::Shared), (key(2), Access::Alone)].into())))
                    .join()
            });
        };
        both();
        thread::scope(|scope| {
            for turn in 0..32u8 {
                let (locks, inside, most) = (&locks, &inside, &most);
                scope.spawn(move || {
                    // Pairs in either order of their numbers.
                    let _guard = locks
                        .take([(key(turn % 3), Access::Alone), (key((turn + 1) % 3), Access::Alone)].into());
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(1));
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 1, "any two of three pairs have one in common");
        assert!(locks.0.state().taken.is_empty());
    }

    #[test]
    fn one_who_goes_over_everything_is_not_overtaken() {
        let locks = Locks::default();
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            let first = locks.take([(key(1), Access::Shared)].into());
            scope.spawn(|| {
                let _all = locks.take([(Key::All, Access::Alone)].into());
                done.fetch_add(1, Ordering::SeqCst);
            });
            while locks.0.state().waiting.is_empty() {
                thread::yield_now();
            }
            scope.spawn(|| {
                let _later = locks.take([(key(1), Access::Shared)].into());
                assert_eq!(done.load(Ordering::SeqCst), 1);
            });
            // As each operation: it wants something for itself that nobody has.
            scope.spawn(|| {
                let _later = locks.take([(key(2), Access::Alone)].into());
                assert_eq!(done.load(Ordering::SeqCst), 1);
            });
            thread::sleep(Duration::from_millis(20));
            drop(first);
        });
        assert!(locks.0.state().taken.is_empty());
    }
}
