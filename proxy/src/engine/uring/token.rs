//! What a completion is about: the number that goes into the ring with an operation and comes back with its outcome.

use crate::tcp::Direction;

/// An operation, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Nobody waits for it: a cancellation.
    Nothing,
    /// A signal arrived.
    Signal,
    /// Somebody wants the counters, on this control socket.
    Control(u32),
    /// A connection was accepted on this listener.
    Accepted(u32),
    /// Connections wait on this listener.
    Waiting(u32),
    /// Another thread hands over a connection that was accepted on this listener.
    HandedOver(u32),
    /// What became of handing over the connection with this descriptor.
    Told { thread: u8, listener: u32, descriptor: u32 },
    /// Of the connection in this slot.
    Connection { slot: u32, event: Event },
    /// Datagrams on this listener.
    Datagrams(u32),
    /// Replies for the flow in this slot.
    Replies(u32),
}

/// What can happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The backend answered.
    Connected,
    /// Data, the end of a stream, or its breaking.
    Received(Direction),
    /// The receiver has room again.
    Writable(Direction),
    /// The source has something to splice.
    Readable(Direction),
    /// The source that had finished broke.
    Broke(Direction),
}

const KIND_BITS: u32 = 8;
/// Of the listener's number in `Told`, which shares its token with a descriptor and a thread.
const LISTENER_BITS: u32 = 16;

impl Token {
    /// The number for the ring.
    pub(super) fn encode(self) -> u64 {
        let (kind, low, high) = match self {
            Self::Nothing => (0, 0, 0),
            Self::Signal => (1, 0, 0),
            Self::Control(number) => (2, 0, number),
            Self::Accepted(listener) => (3, 0, listener),
            Self::Waiting(listener) => (4, 0, listener),
            Self::HandedOver(listener) => (5, 0, listener),
            Self::Told { thread, listener, descriptor } => {
                debug_assert!(listener < 1 << LISTENER_BITS, "more listeners than ports");
                (6, u32::from(thread) << LISTENER_BITS | listener, descriptor)
            }
            Self::Datagrams(listener) => (7, 0, listener),
            Self::Replies(slot) => (8, 0, slot),
            Self::Connection { slot, event } => (16 + event.number(), 0, slot),
        };
        u64::from(high) << 32 | u64::from(low) << KIND_BITS | kind
    }

    /// The token behind a number that came out of the ring.
    pub(super) fn decode(number: u64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the upper half, and the lower half's upper bits"
        )]
        let (high, low) = ((number >> 32) as u32, (number as u32) >> KIND_BITS);
        match number & 0xff {
            1 => Self::Signal,
            2 => Self::Control(high),
            3 => Self::Accepted(high),
            4 => Self::Waiting(high),
            5 => Self::HandedOver(high),
            #[expect(clippy::cast_possible_truncation, reason = "eight bits are left of 24")]
            6 => Self::Told {
                thread: (low >> LISTENER_BITS) as u8,
                listener: low & ((1 << LISTENER_BITS) - 1),
                descriptor: high,
            },
            7 => Self::Datagrams(high),
            8 => Self::Replies(high),
            kind => Event::from_number(kind.wrapping_sub(16))
                .map_or(Self::Nothing, |event| Self::Connection { slot: high, event }),
        }
    }
}

impl Event {
    fn number(self) -> u64 {
        let (event, direction) = match self {
            Self::Connected => return 0,
            Self::Received(direction) => (1, direction),
            Self::Writable(direction) => (3, direction),
            Self::Readable(direction) => (5, direction),
            Self::Broke(direction) => (7, direction),
        };
        event + u64::from(direction == Direction::Down)
    }

    fn from_number(number: u64) -> Option<Self> {
        let direction = if number % 2 == 1 { Direction::Up } else { Direction::Down };
        Some(match number {
            0 => Self::Connected,
            1 | 2 => Self::Received(direction),
            3 | 4 => Self::Writable(direction),
            5 | 6 => Self::Readable(direction),
            7 | 8 => Self::Broke(direction),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Down, Up};

    #[test]
    fn every_token_comes_back_as_it_went_in() {
        let mut tokens = vec![Token::Nothing, Token::Signal];
        for n in [0, 1, 65_535, u32::MAX] {
            tokens.extend([
                Token::Control(n),
                Token::Accepted(n),
                Token::Waiting(n),
                Token::HandedOver(n),
                Token::Told { thread: 0, listener: n & 0xffff, descriptor: n },
                Token::Told { thread: 255, listener: n & 0xffff, descriptor: n },
                Token::Datagrams(n),
                Token::Replies(n),
            ]);
            for direction in [Up, Down] {
                for event in [
                    Event::Connected,
                    Event::Received(direction),
                    Event::Writable(direction),
                    Event::Readable(direction),
                    Event::Broke(direction),
                ] {
                    tokens.push(Token::Connection { slot: n, event });
                }
            }
        }
        for token in tokens {
            assert_eq!(Token::decode(token.encode()), token);
        }
        assert_eq!(Token::decode(0xff), Token::Nothing);
    }
}
