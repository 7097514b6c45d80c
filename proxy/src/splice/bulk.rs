//! When a direction proves to be bulk, and when it stops being so. Pure.
//!
//! Moving a byte through a pipe takes two calls and page references instead of two copies: a loss for messages, a win
//! for streams. Reads tell which it is: a stream's reads come back large one after the other.

/// Bytes in large reads in a row that make a direction bulk.
const PROMOTE_AFTER: usize = 128 * 1024;
/// A transfer smaller than this is a sign of messages.
const SMALL: usize = 4 * 1024;
/// Small transfers in a row that end bulk.
const DEMOTE_AFTER: u8 = 16;
/// Bytes moved through a pipe of the default size before a large one is worth its allocation.
const GROW_AFTER: u64 = 1024 * 1024;

/// What a transfer says about its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on as before.
    Stay,
    /// Move by `splice` from now on.
    Promote,
    /// The stream goes on and on: a larger pipe pays.
    Grow,
    /// Move by copy from now on.
    Demote,
}

/// One direction's history: three words, whatever happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bulk {
    large_run: usize,
    small_run: u8,
    spliced: u64,
}

impl Bulk {
    /// A read at least this large is a sign of a stream.
    pub const LARGE: usize = 16 * 1024;

    /// A read of `n` bytes by copy.
    pub fn copied(&mut self, n: usize) -> Verdict {
        if n < Self::LARGE {
            self.large_run = 0;
            return Verdict::Stay;
        }
        self.filled(n)
    }

    /// A read of `n` bytes by copy that could not have been larger.
    pub fn filled(&mut self, n: usize) -> Verdict {
        self.large_run += n;
        if self.large_run < PROMOTE_AFTER {
            return Verdict::Stay;
        }
        *self = Self::default();
        Verdict::Promote
    }

    /// A transfer of `n` bytes from a socket into the pipe.
    pub fn spliced(&mut self, n: usize) -> Verdict {
        let before = self.spliced;
        self.spliced += n as u64;
        if n >= SMALL {
            self.small_run = 0;
        } else {
            self.small_run += 1;
            if self.small_run >= DEMOTE_AFTER {
                *self = Self::default();
                return Verdict::Demote;
            }
        }
        if before < GROW_AFTER && self.spliced >= GROW_AFTER { Verdict::Grow } else { Verdict::Stay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_never_earn_a_pipe() {
        let mut bulk = Bulk::default();
        for n in [100, 15_000, 1].repeat(1000) {
            assert_eq!(bulk.copied(n), Verdict::Stay);
        }
        // A burst now and then is not a stream either.
        for n in [60_000, 60_000, 100].repeat(1000) {
            assert_eq!(bulk.copied(n), Verdict::Stay);
        }
    }

    #[test]
    fn a_stream_is_promoted_and_later_gets_a_large_pipe_once() {
        let mut bulk = Bulk::default();
        assert_eq!(bulk.copied(65_536), Verdict::Stay);
        assert_eq!(bulk.copied(65_536), Verdict::Promote);
        let verdicts: Vec<_> = (0..100).map(|_| bulk.spliced(65_536)).collect();
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Grow).count(), 1);
        assert_eq!(verdicts[15], Verdict::Grow);
        assert!(!verdicts.contains(&Verdict::Demote));
    }

    #[test]
    fn small_buffers_filled_in_a_row_are_a_stream_too() {
        let mut bulk = Bulk::default();
        let verdicts: Vec<_> = (0..32).map(|_| bulk.filled(4096)).collect();
        assert_eq!(verdicts.iter().position(|v| *v == Verdict::Promote), Some(31));
        bulk.filled(4096);
        bulk.copied(100);
        assert_eq!((0..31).map(|_| bulk.filled(4096)).find(|v| *v == Verdict::Promote), None);
    }

    #[test]
    fn a_stream_that_turns_chatty_is_demoted() {
        let mut bulk = Bulk::default();
        for _ in 1..DEMOTE_AFTER {
            assert_eq!(bulk.spliced(10), Verdict::Stay);
        }
        assert_eq!(bulk.spliced(65_536), Verdict::Stay); // one large transfer starts the count anew
        for _ in 1..DEMOTE_AFTER {
            assert_eq!(bulk.spliced(10), Verdict::Stay);
        }
        assert_eq!(bulk.spliced(10), Verdict::Demote);
    }
}
