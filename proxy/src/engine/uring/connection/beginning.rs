//! How a connection begins: the PROXY protocol's header where one is due, and the dial, until the backend has answered.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::{SockAddr, SockRef};

use super::super::greeting::{Beginning, Heard};
use super::super::half::send_all;
use super::super::token::Event;
use super::{Connection, Context, Phase, Wish};
use crate::engine::{rejected, turned_away};
use crate::listen;
use crate::sources::is_spent;
use crate::sys::ring::Completion;
use crate::tcp::proxy_protocol::Rejection;
use crate::tcp::{DialFailure, Direction, Finish, is_passing};

/// How long to wait for descriptors or ports before dialling again: at first, and when that didn't help. Each try for a
/// port looks at all of them.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Connection {
    /// Starts everything: the header or the dial, and listening to the client.
    pub(in crate::engine::uring) fn open(&mut self, cx: &mut Context<'_>) -> Wish {
        let wish = match Beginning::of(self.client.as_fd(), &cx.shared.options) {
            Beginning::Dial(header) => {
                self.header = header;
                self.dial(cx)
            }
            Beginning::Listen(greeting) => {
                self.greeting = Some(greeting);
                self.phase = Phase::Greeting;
                Wish::Nothing
            }
            Beginning::Over => {
                self.finish(Finish::Reset, cx);
                Wish::Nothing
            }
        };
        self.receive(Direction::Up, cx);
        self.wish_or(wish)
    }

    /// Dials the backend, from the next address in turn. It is called again after a [`Wish::Retry`].
    pub(in crate::engine::uring) fn dial(&mut self, cx: &mut Context<'_>) -> Wish {
        if self.phase != Phase::Dialling || self.backend.is_some() {
            return Wish::Nothing;
        }
        loop {
            match self.dial_once(cx) {
                Ok(()) => return Wish::Nothing,
                Err(error) if is_spent(&error) && !self.untried.is_empty() => {}
                Err(error) => return self.undialled(error, cx),
            }
        }
    }

    fn dial_once(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let target = self.target(cx);
        let socket = listen::stream_socket(target)?;
        let sources = &cx.shared.sources;
        if !sources.is_empty() {
            if self.untried.is_empty() {
                self.untried = sources.turn().collect();
                self.untried.reverse();
            }
            if let Some(Some(source)) = self.untried.pop() {
                listen::connect_from(&SockRef::from(&socket), source)?;
            }
        }
        cx.ring.connect(socket.as_fd(), SockAddr::from(target), self.token(Event::Connected));
        self.in_flight += 1;
        self.backend = Some(socket.into());
        Ok(())
    }

    /// An attempt to dial failed: for now, or for good.
    fn undialled(&mut self, error: io::Error, cx: &mut Context<'_>) -> Wish {
        if is_passing(&error) {
            self.shortage = Some(error);
            let pause = self.pause;
            self.pause = (pause * 2).min(LONGEST_PAUSE);
            return Wish::Retry(pause);
        }
        self.turn_away(&DialFailure::from_connect(self.target(cx), error), cx)
    }

    /// The time-out is over.
    pub(in crate::engine::uring) fn give_up(&mut self, cx: &mut Context<'_>) -> Wish {
        let patience = cx.shared.options.connect_timeout;
        if let Some(greeting) = &self.greeting {
            let rejection = greeting.late(patience);
            return self.reject(&rejection, cx);
        }
        let target = self.target(cx);
        // A shortage until the end is the reason, not the backend's silence.
        let failure = match self.shortage.take() {
            Some(source) if self.backend.is_none() => DialFailure::Failed { target, source },
            _ => DialFailure::TimedOut(target, patience),
        };
        self.turn_away(&failure, cx)
    }

    pub(super) fn connected(&mut self, completion: Completion, cx: &mut Context<'_>) -> Wish {
        if self.phase != Phase::Dialling {
            return self.wish_or(Wish::Nothing);
        }
        if let Err(error) = completion.outcome() {
            self.backend = None;
            let wish = if is_spent(&error) && !self.untried.is_empty() {
                self.dial(cx)
            } else {
                self.undialled(error, cx)
            };
            return self.wish_or(wish);
        }
        self.phase = Phase::Relaying;
        self.untried = Vec::new();
        let header = std::mem::take(&mut self.header);
        if !header.is_empty()
            && let Some(backend) = &self.backend
            && send_all(backend.as_fd(), &header).is_err()
        {
            self.finish(Finish::Reset, cx);
            return self.wish_or(Wish::Nothing);
        }
        let down = self.advance(Direction::Down, cx);
        let up = self.advance(Direction::Up, cx);
        self.wish_or(if up == Wish::Nothing { down } else { up })
    }

    /// A piece of a trusted client's stream, until its header is complete; nothing for its end.
    pub(super) fn hear(&mut self, piece: &[u8], cx: &mut Context<'_>) -> Wish {
        let Some(greeting) = &mut self.greeting else { return Wish::Nothing };
        let heard = if piece.is_empty() {
            Heard::Rejected(greeting.ended())
        } else {
            greeting.hear(piece, &cx.shared.options)
        };
        match heard {
            Heard::More => Wish::Nothing,
            Heard::All { len, header } => {
                self.up.keep(&piece[len..]);
                (self.greeting, self.header) = (None, header);
                (self.phase, self.begun) = (Phase::Dialling, Instant::now());
                Wish::Renewal
            }
            Heard::Rejected(rejection) => self.reject(&rejection, cx),
        }
    }

    fn turn_away(&mut self, failure: &DialFailure, cx: &mut Context<'_>) -> Wish {
        turned_away(failure, &cx.shared.counters);
        self.finish(Finish::Reset, cx);
        self.wish_or(Wish::Nothing)
    }

    fn reject(&mut self, rejection: &Rejection, cx: &mut Context<'_>) -> Wish {
        rejected(rejection, &cx.shared.counters);
        self.finish(Finish::Reset, cx);
        self.wish_or(Wish::Nothing)
    }
}
