//! How many queries of each sandbox may wait for others at once.
//!
//! Each sandbox has a few for certain; what it has beyond that comes out of one pool for all, and never more than a limit:
//! so one whose queries nobody answers takes nothing from the others that they can't do without.

use std::cell::Cell;
use std::rc::Rc;

/// What any sandbox may have at most. Docker's 1,024 would be a fortune in sockets.
const MOST: usize = 256;
/// What each can have whatever the others do.
const SURE: usize = 8;

/// What all sandboxes have beyond what is sure.
#[derive(Debug)]
pub(super) struct Pool(Cell<usize>);

/// One sandbox's share.
#[derive(Debug)]
pub(super) struct Share {
    pool: Rc<Pool>,
    taken: Cell<usize>,
}

/// Leave for one query to wait.
#[derive(Debug)]
pub(super) struct Permit(Rc<Share>);

impl Pool {
    pub(super) fn new(size: usize) -> Rc<Self> {
        Rc::new(Self(Cell::new(size)))
    }
}

impl Share {
    pub(super) fn of(pool: &Rc<Pool>) -> Rc<Self> {
        Rc::new(Self { pool: Rc::clone(pool), taken: Cell::new(0) })
    }

    pub(super) fn take(self: &Rc<Self>) -> Option<Permit> {
        let taken = self.taken.get();
        if taken >= MOST {
            return None;
        }
        if taken >= SURE {
            self.pool.0.set(self.pool.0.get().checked_sub(1)?);
        }
        self.taken.set(taken + 1);
        Some(Permit(Rc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Share { pool, taken } = &*self.0;
        taken.set(taken.get() - 1);
        if taken.get() >= SURE {
            pool.0.set(pool.0.get() + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(share: &Rc<Share>) -> Vec<Permit> {
        std::iter::from_fn(|| share.take()).collect()
    }

    #[test]
    fn a_greedy_sandbox_leaves_each_other_its_few() {
        let pool = Pool::new(2 * MOST);
        let greedy: Vec<_> = (0..4).map(|_| take_all(&Share::of(&pool))).collect();
        assert_eq!((greedy[0].len(), greedy[1].len()), (MOST, MOST));
        assert_eq!(greedy[2].len(), 2 * SURE + SURE, "the rest of the pool");
        assert_eq!(greedy[3].len(), SURE);
        let modest = Share::of(&pool);
        assert_eq!(take_all(&modest).len(), SURE);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let pool = Pool::new(5);
        let share = Share::of(&pool);
        for _ in 0..3 {
            let mut permits = take_all(&share);
            assert_eq!(permits.len(), SURE + 5);
            permits.truncate(SURE + 2);
            assert_eq!(pool.0.get(), 3);
        }
        assert_eq!((pool.0.get(), share.taken.get()), (5, 0));
    }
}
