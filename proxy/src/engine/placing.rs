//! Which thread gets a connection, and when another thread is worth starting.
//!
//! Load is open connections: below [`PER_THREAD`] on every thread, the next one stays where it was accepted, and no
//! thread is started. A connection stays on the thread it was given to.
//!
//! Not here: what a thread is, and how a connection gets there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Connections on every thread before another thread is worth starting.
const PER_THREAD: usize = 4;

/// How many connections a thread has open; who gives it one counts up, who ends one counts down.
pub(super) type Open = Arc<AtomicUsize>;

/// The threads of a mapping: the one that accepts, and further ones that a `T` leads to.
#[derive(Debug)]
pub(super) struct Places<T> {
    here: Open,
    others: Vec<(T, Open)>,
    most: usize,
}

impl<T> Places<T> {
    /// No thread but this one, so far; `most` in all.
    pub(super) fn new(most: usize) -> Self {
        Self { here: Open::default(), others: Vec::new(), most }
    }

    /// The count of this thread.
    pub(super) const fn here(&self) -> &Open {
        &self.here
    }

    /// A further thread by its number.
    pub(super) fn other(&self, number: usize) -> Option<&(T, Open)> {
        self.others.get(number)
    }

    /// The number of the further thread that the next connection goes to; none if it stays here. If all are loaded and
    /// there may be more, `start` makes another one.
    pub(super) fn choose(&mut self, start: impl FnOnce() -> io::Result<(T, Open)>) -> Option<usize> {
        if self.all_loaded() && self.others.len() + 1 < self.most {
            match start() {
                Ok(thread) => self.others.push(thread),
                Err(error) => {
                    crate::log_error!(Accept, "no further thread: {}", crate::listen::reason(&error));
                    self.most = self.others.len() + 1; // what can't be had now needn't be asked for every time
                }
            }
        }
        let here = self.here.load(Relaxed);
        let (number, open) = self
            .others
            .iter()
            .map(|(_, open)| open.load(Relaxed))
            .enumerate()
            .min_by_key(|(_, open)| *open)?;
        (here >= PER_THREAD && open < here).then_some(number)
    }

    fn all_loaded(&self) -> bool {
        let counts = std::iter::once(&self.here).chain(self.others.iter().map(|(_, open)| open));
        counts.into_iter().all(|open| open.load(Relaxed) >= PER_THREAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(places: &mut Places<()>) -> Option<usize> {
        let chosen = places.choose(|| Ok(((), Open::default())));
        let open = chosen.map_or(&places.here, |number| &places.others[number].1);
        open.fetch_add(1, Relaxed);
        chosen
    }

    #[test]
    fn a_thread_starts_when_all_are_loaded_and_the_least_loaded_gets_it() {
        let mut places = Places::new(2);
        let chosen: Vec<_> = (0..10).map(|_| place(&mut places)).collect();
        let here = None;
        let there = Some(0);
        assert_eq!(chosen, [here, here, here, here, there, there, there, there, here, there]);
        places.others[0].1.fetch_sub(5, Relaxed);
        assert_eq!(place(&mut places), there);
    }

    #[test]
    fn what_cannot_be_started_is_not_asked_for_again() {
        let mut places = Places::<()>::new(8);
        places.here.fetch_add(PER_THREAD, Relaxed);
        let mut asked = 0;
        for _ in 0..3 {
            let chosen = places.choose(|| {
                asked += 1;
                Err(io::ErrorKind::OutOfMemory.into())
            });
            assert_eq!(chosen, None);
        }
        assert_eq!(asked, 1);
    }
}
