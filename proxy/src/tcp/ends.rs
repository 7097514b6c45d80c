//! How a relayed connection ends. Pure.
//!
//! - End of stream on one side becomes `shutdown(SHUT_WR)` on the other; the opposite direction goes on.
//! - A reset seen while reading ends everything at once: both sides are reset, so that a cut transfer never looks
//!   complete.
//! - A failed write ends that direction only. The receiver that no longer listens may have answered before it left (a
//!   server that refuses an upload half-way), so the opposite direction is read to its end; then both are reset. Only a
//!   receiver that had ended its answer before it broke is reset alone, and its answer closed like any other.

/// One of the two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the backend.
    Up,
    /// From the backend to the client.
    Down,
}

impl Direction {
    fn opposite(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// How to close both sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// All was delivered: close.
    Close,
    /// Something broke: reset both sides.
    Reset,
    /// The receiver of this direction broke after all it had to say was delivered: reset it, close the other side.
    ResetReceiver(Direction),
}

impl Finish {
    /// Whether the side that this direction moves bytes to is reset.
    #[must_use]
    pub fn resets_receiver(self, direction: Direction) -> bool {
        match self {
            Self::Close => false,
            Self::Reset => true,
            Self::ResetReceiver(broken) => broken == direction,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The end of stream was passed on.
    Done,
    /// The receiver takes no more.
    Broken,
}

/// The state of both directions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    up: State,
    down: State,
    /// The receiver that broke had ended its own stream before. One that breaks first looks as if it ended, too: the
    /// kernel tells of a reset once.
    answered: bool,
}

impl Ends {
    /// Whether this direction still moves bytes.
    #[must_use]
    pub fn is_open(&self, direction: Direction) -> bool {
        *self.peek(direction) == State::Open
    }

    /// The source's end of stream was passed on.
    pub fn delivered(&mut self, direction: Direction) {
        *self.at(direction) = State::Done;
    }

    /// The receiver refused to take more.
    pub fn receiver_broke(&mut self, direction: Direction) {
        self.answered = *self.peek(direction.opposite()) == State::Done;
        *self.at(direction) = State::Broken;
    }

    /// How to finish, once neither direction moves bytes any more.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        match (self.up, self.down) {
            (State::Open, _) | (_, State::Open) => None,
            (State::Done, State::Done) => Some(Finish::Close),
            (State::Broken, State::Done) if self.answered => Some(Finish::ResetReceiver(Direction::Up)),
            (State::Done, State::Broken) if self.answered => Some(Finish::ResetReceiver(Direction::Down)),
            (State::Broken, _) | (_, State::Broken) => Some(Finish::Reset),
        }
    }

    /// The direction that delivered its end of stream while the other still moves bytes. Its source may yet reset, and
    /// nobody reads it any more.
    #[must_use]
    pub fn half_closed(&self) -> Option<Direction> {
        match (self.up, self.down) {
            (State::Done, State::Open) => Some(Direction::Up),
            (State::Open, State::Done) => Some(Direction::Down),
            _ => None,
        }
    }

    fn peek(&self, direction: Direction) -> &State {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    fn at(&mut self, direction: Direction) -> &mut State {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Down, Up};

    #[test]
    fn half_close_leaves_the_other_direction_open() {
        for (first, second) in [(Up, Down), (Down, Up)] {
            let mut ends = Ends::default();
            ends.delivered(first);
            assert!(!ends.is_open(first) && ends.is_open(second));
            assert_eq!((ends.finish(), ends.half_closed()), (None, Some(first)));
            ends.delivered(second);
            assert_eq!(ends.half_closed(), None);
            assert_eq!(ends.finish(), Some(Finish::Close));
        }
    }

    #[test]
    fn a_receiver_that_left_is_still_heard_out_and_then_reset() {
        for (broken, other) in [(Up, Down), (Down, Up)] {
            let mut ends = Ends::default();
            ends.receiver_broke(broken);
            assert!(ends.is_open(other));
            assert_eq!(ends.finish(), None);
            ends.delivered(other);
            assert_eq!(ends.finish(), Some(Finish::Reset));
        }
    }

    #[test]
    fn a_receiver_that_had_answered_before_it_left_is_reset_alone() {
        for (broken, other) in [(Up, Down), (Down, Up)] {
            let mut ends = Ends::default();
            ends.delivered(other);
            ends.receiver_broke(broken);
            let finish = ends.finish().unwrap();
            assert_eq!(finish, Finish::ResetReceiver(broken));
            assert!(finish.resets_receiver(broken) && !finish.resets_receiver(other));
        }
    }
}
