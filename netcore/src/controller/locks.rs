//! Who may work on what at the same time.
//!
//! An operation takes all that it needs at once and nothing later, so that nobody waits for somebody who waits for him.
//! What an operation changes it takes for itself; what must merely stay as it is, it shares: hundreds of sandboxes start
//! on one network side by side, but not while the network is made or removed. Who wants something for himself is not
//! overtaken by others who share it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::model::{NetworkId, SandboxId};

/// What can be taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// Everything: shared by every operation, but the one that goes over everything.
    All,
    /// A network.
    Network(NetworkId),
    /// A sandbox.
    Sandbox(SandboxId),
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

/// All that is taken.
#[derive(Debug, Default)]
pub(super) struct Locks(Arc<All>);

#[derive(Debug, Default)]
struct All {
    taken: Mutex<HashMap<Key, Taken>>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    sharers: usize,
    alone: bool,
    /// How many wait to have it alone.
    waiting: usize,
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
        let mut taken = self.0.taken();
        if !free(&taken, &wanted) {
            count_waiting(&mut taken, &wanted, |waiting| *waiting += 1);
            while !free_for_waiter(&taken, &wanted) {
                taken = self.0.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
            }
            count_waiting(&mut taken, &wanted, |waiting| *waiting -= 1);
        }
        for (key, access) in &wanted {
            let entry = taken.entry(key.clone()).or_default();
            match access {
                Access::Shared => entry.sharers += 1,
                Access::Alone => entry.alone = true,
            }
        }
        Guard { locks: Arc::clone(&self.0), wanted }
    }
}

impl All {
    fn taken(&self) -> MutexGuard<'_, HashMap<Key, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nothing is in the way of somebody who has just come.
fn free(taken: &HashMap<Key, Taken>, wanted: &Wanted) -> bool {
    wanted.iter().all(|(key, access)| match (taken.get(key), access) {
        (None, _) => true,
        (Some(held), Access::Shared) => !held.alone && held.waiting == 0,
        (Some(held), Access::Alone) => !held.alone && held.sharers == 0,
    })
}

/// The same for somebody who waits. Who waits to have one thing alone mustn't be kept from another that he shares by a
/// third who waits for that: of those who wait, each that finds nothing taken may go on.
fn free_for_waiter(taken: &HashMap<Key, Taken>, wanted: &Wanted) -> bool {
    let alone = wanted.values().any(|access| *access == Access::Alone);
    wanted.iter().all(|(key, access)| match (taken.get(key), access) {
        (None, _) => true,
        (Some(held), Access::Shared) => !held.alone && (alone || held.waiting == 0),
        (Some(held), Access::Alone) => !held.alone && held.sharers == 0,
    })
}

fn count_waiting(taken: &mut HashMap<Key, Taken>, wanted: &Wanted, count: impl Fn(&mut usize)) {
    for (key, access) in wanted {
        if *access == Access::Alone {
            count(&mut taken.entry(key.clone()).or_default().waiting);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut taken = self.locks.taken();
        for (key, access) in &self.wanted {
            let Some(entry) = taken.get_mut(key) else { continue };
            match access {
                Access::Shared => entry.sharers -= 1,
                Access::Alone => entry.alone = false,
            }
            if !entry.alone && entry.sharers == 0 && entry.waiting == 0 {
                taken.remove(key);
            }
        }
        drop(taken);
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
        assert!(locks.0.taken().is_empty());
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
            while locks.0.taken().get(&Key::All).is_none_or(|all| all.waiting == 0) {
                thread::yield_now();
            }
            scope.spawn(|| {
                let _later = locks.take([(key(1), Access::Shared)].into());
                assert_eq!(done.load(Ordering::SeqCst), 1);
            });
            drop(first);
        });
        assert!(locks.0.taken().is_empty());
    }
}
