//! One TCP connection: what each of its events leads to.
//!
//! A connection is received from as soon as it is accepted: what the client says while the backend is still being
//! dialled is kept, and a client that resets meanwhile is noticed. It owns its two sockets until no operation on them is
//! left in the ring; only then are they closed, so that no operation ever meets another socket of the same number.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::{SockAddr, SockRef};

use super::half::{ENOUGH, Half, Pumped};
use super::shared::Shared;
use super::token::{Event, Token};
use crate::counters::Traffic;
use crate::engine::turned_away;
use crate::splice::Pool;
use crate::sys::ring::{Completion, Ring};
use crate::tcp::{DialFailure, Direction, Ends, Finish, is_passing};
use crate::{listen, log_error};

/// What poll(2) says of a stream that is gone both ways.
const BROKEN: u32 = (libc::POLLERR | libc::POLLHUP).cast_unsigned() as u32;

/// What events act upon.
pub(super) struct Context<'a> {
    pub(super) ring: &'a mut Ring,
    pub(super) pipes: &'a mut Pool,
    pub(super) shared: &'a Shared,
}

/// What the connection asks of its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing but further events.
    Nothing,
    /// Another turn soon: there is more to splice.
    Turn,
    /// To be dialled again in a moment.
    Retry,
    /// Its end: nothing of it is left in the ring.
    Removal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Dialling,
    Relaying,
    /// Only operations to wait for are left.
    Over,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    client: OwnedFd,
    backend: Option<OwnedFd>,
    slot: u32,
    /// Which of the mapping's listeners accepted it.
    listener: u32,
    phase: Phase,
    /// Operations in the ring that will still complete.
    in_flight: u32,
    up: Half,
    down: Half,
    ends: Ends,
    born: Instant,
    kept_alive: bool,
}

impl Connection {
    pub(super) fn new(client: OwnedFd, listener: u32, slot: u32, born: Instant) -> Box<Self> {
        Box::new(Self {
            client,
            backend: None,
            slot,
            listener,
            phase: Phase::Dialling,
            in_flight: 0,
            up: Half::default(),
            down: Half::default(),
            ends: Ends::default(),
            born,
            kept_alive: false,
        })
    }

    pub(super) fn born(&self) -> Instant {
        self.born
    }

    pub(super) fn is_dialling(&self) -> bool {
        self.phase == Phase::Dialling
    }

    /// Starts everything: the dial, and listening to the client.
    pub(super) fn open(&mut self, cx: &mut Context<'_>) -> Wish {
        let wish = self.dial(cx);
        self.receive(Direction::Up, cx);
        self.wish_or(wish)
    }

    /// Dials the backend. It is called again after a [`Wish::Retry`].
    pub(super) fn dial(&mut self, cx: &mut Context<'_>) -> Wish {
        if self.phase != Phase::Dialling || self.backend.is_some() {
            return Wish::Nothing;
        }
        let target = cx.shared.targets[self.listener as usize];
        match listen::stream_socket(target) {
            Ok(socket) => {
                let token = self.token(Event::Connected);
                cx.ring.connect(socket.as_fd(), SockAddr::from(target), token);
                self.in_flight += 1;
                self.backend = Some(socket.into());
                Wish::Nothing
            }
            Err(error) if is_passing(&error) => Wish::Retry,
            Err(error) => self.turn_away(&DialFailure::from_connect(target, error), cx),
        }
    }

    /// The connect time-out is over.
    pub(super) fn give_up(&mut self, cx: &mut Context<'_>) -> Wish {
        if self.phase != Phase::Dialling {
            return Wish::Nothing;
        }
        let target = cx.shared.targets[self.listener as usize];
        self.turn_away(&DialFailure::TimedOut(target, cx.shared.options.connect_timeout), cx)
    }

    /// Makes a connection that lasts notice a backend that vanished. Not at birth: most don't live for so long, and
    /// it takes four calls.
    pub(super) fn keep_alive(&mut self, now: Instant, age: Duration) {
        if let (false, Some(backend)) = (self.kept_alive, &self.backend)
            && now.duration_since(self.born) >= age
        {
            self.kept_alive = true;
            let _ = listen::keep_alive(&SockRef::from(backend)); // one that is gone needs none
        }
    }

    /// Whether [`Connection::keep_alive`] has something left to do.
    pub(super) fn needs_keeping_alive(&self) -> bool {
        !self.kept_alive
    }

    /// Carries an event out.
    pub(super) fn handle(&mut self, event: Event, completion: Completion, cx: &mut Context<'_>) -> Wish {
        if !completion.more() {
            self.in_flight -= 1;
        }
        match event {
            Event::Connected => return self.connected(completion, cx),
            Event::Received(direction) => self.received(direction, completion, cx),
            Event::Writable(direction) => self.half(direction).awaiting_room = false,
            Event::Readable(direction) => self.half(direction).awaiting_data = false,
            Event::Broke(direction) => self.watch_result(direction, completion, cx),
        }
        match event {
            Event::Received(direction) | Event::Writable(direction) | Event::Readable(direction) => {
                let wish = self.advance(direction, cx);
                self.wish_or(wish)
            }
            Event::Connected | Event::Broke(_) => self.wish_or(Wish::Nothing),
        }
    }

    /// Another turn of both directions.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>) -> Wish {
        let up = self.advance(Direction::Up, cx);
        let down = self.advance(Direction::Down, cx);
        self.wish_or(if up == Wish::Nothing { down } else { up })
    }

    fn connected(&mut self, completion: Completion, cx: &mut Context<'_>) -> Wish {
        if self.phase != Phase::Dialling {
            return self.wish_or(Wish::Nothing);
        }
        if let Err(error) = completion.outcome() {
            self.backend = None;
            if is_passing(&error) {
                return Wish::Retry;
            }
            let target = cx.shared.targets[self.listener as usize];
            let wish = self.turn_away(&DialFailure::from_connect(target, error), cx);
            return self.wish_or(wish);
        }
        self.phase = Phase::Relaying;
        let down = self.advance(Direction::Down, cx);
        let up = self.advance(Direction::Up, cx);
        self.wish_or(if up == Wish::Nothing { down } else { up })
    }

    fn received(&mut self, direction: Direction, completion: Completion, cx: &mut Context<'_>) {
        let lease = cx.ring.received(&completion);
        if !completion.more() {
            let half = self.half(direction);
            (half.receiving, half.stopping) = (false, false);
        }
        match completion.outcome() {
            Ok(0) => self.half(direction).ended = true,
            Ok(_) => {
                if let Some(lease) = &lease
                    && self.phase != Phase::Over
                    && self.ends.is_open(direction)
                {
                    let (data, cut) = (cx.ring.bytes(lease), lease.is_last());
                    if self.phase == Phase::Dialling {
                        self.half(direction).keep(data);
                    } else if let Some((half, _, to)) = self.way(direction) {
                        let passed = half.pass_on(data, to, traffic(cx.shared, direction));
                        half.weigh(data.len(), cut, cx.pipes, cx.shared);
                        if passed.is_err() {
                            self.receiver_broke(direction, cx);
                        }
                    }
                }
            }
            // Out of buffers: by now they are back. Cancelled: `advance` knows what for.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ECANCELED)) => {}
            Err(error) => self.source_broke(direction, &error, cx),
        }
        if let Some(lease) = lease {
            cx.ring.give_back(lease);
        }
    }

    /// Does for a direction whatever can be done now.
    fn advance(&mut self, direction: Direction, cx: &mut Context<'_>) -> Wish {
        if self.phase == Phase::Over || !self.ends.is_open(direction) {
            return Wish::Nothing;
        }
        if self.phase == Phase::Dialling || self.half(direction).awaiting_room {
            self.hold_back(direction, cx);
            return Wish::Nothing;
        }
        if !self.flush(direction, cx) {
            return Wish::Nothing;
        }
        let half = self.half(direction);
        if half.has_pipe() {
            return self.splice(direction, cx);
        }
        if half.ended {
            self.delivered(direction, cx);
        } else {
            self.receive(direction, cx);
        }
        Wish::Nothing
    }

    /// Sends what waits. Whether nothing is left and the direction goes on.
    fn flush(&mut self, direction: Direction, cx: &mut Context<'_>) -> bool {
        let Some((half, _, to)) = self.way(direction) else { return false };
        if half.backlog() == 0 {
            return true;
        }
        match half.flush(to, traffic(cx.shared, direction)) {
            Ok(true) => true,
            Ok(false) => {
                self.await_room(direction, cx);
                self.hold_back(direction, cx);
                false
            }
            Err(_) => {
                self.receiver_broke(direction, cx);
                false
            }
        }
    }

    /// A turn of splicing, unless something is still being received by copy: bytes stay in order.
    fn splice(&mut self, direction: Direction, cx: &mut Context<'_>) -> Wish {
        if self.half(direction).receiving {
            self.hold_back(direction, cx);
            return Wish::Nothing;
        }
        let Some((half, from, to)) = self.way(direction) else { return Wish::Nothing };
        if half.awaiting_data {
            return Wish::Nothing;
        }
        match half.pump(from, to, traffic(cx.shared, direction), cx.pipes, cx.shared) {
            Pumped::Drained => self.await_data(direction, cx),
            Pumped::Blocked => self.await_room(direction, cx),
            Pumped::Busy => return Wish::Turn,
            Pumped::Ended => self.delivered(direction, cx),
            Pumped::Demoted => self.receive(direction, cx),
            Pumped::SourceBroke => self.finish(Finish::Reset, cx),
            Pumped::ReceiverBroke => self.receiver_broke(direction, cx),
        }
        Wish::Nothing
    }

    /// Receives, unless it is being done or isn't wanted.
    fn receive(&mut self, direction: Direction, cx: &mut Context<'_>) {
        let token = self.token(Event::Received(direction));
        if self.phase == Phase::Over {
            return;
        }
        let half = self.half(direction);
        if half.receiving || !half.wants_to_receive() {
            return;
        }
        half.receiving = true;
        if let Some(from) = self.source(direction) {
            cx.ring.receive_all(from, token);
            self.in_flight += 1;
        }
    }

    /// Receives, or stops receiving, as the backlog asks for.
    fn hold_back(&mut self, direction: Direction, cx: &mut Context<'_>) {
        let token = self.token(Event::Received(direction));
        let half = self.half(direction);
        if !half.receiving {
            self.receive(direction, cx);
        } else if !half.stopping && (half.backlog() >= ENOUGH || half.has_pipe()) {
            half.stopping = true;
            cx.ring.cancel(token, Token::Nothing.encode());
        }
    }

    fn await_room(&mut self, direction: Direction, cx: &mut Context<'_>) {
        let token = self.token(Event::Writable(direction));
        if let Some((half, _, to)) = self.way(direction) {
            half.awaiting_room = true;
            cx.ring.poll(to, libc::POLLOUT, token);
            self.in_flight += 1;
        }
    }

    fn await_data(&mut self, direction: Direction, cx: &mut Context<'_>) {
        let token = self.token(Event::Readable(direction));
        if let Some((half, from, _)) = self.way(direction) {
            half.awaiting_data = true;
            cx.ring.poll(from, libc::POLLIN | libc::POLLRDHUP, token);
            self.in_flight += 1;
        }
    }

    /// The end of a stream was reached, and all before it passed on: passes it on too.
    fn delivered(&mut self, direction: Direction, cx: &mut Context<'_>) {
        self.ends.delivered(direction);
        if let Some(finish) = self.ends.finish() {
            // The last end of stream needs no call of its own: closing sends it.
            return self.finish(finish, cx);
        }
        if let Some((_, _, to)) = self.way(direction)
            && SockRef::from(&to).shutdown(std::net::Shutdown::Write).is_err()
        {
            self.ends.receiver_broke(direction);
        }
        // Nobody reads this source any more, and it may yet reset.
        if let Some(finished) = self.ends.half_closed() {
            self.watch(finished, cx);
        }
    }

    /// Over and over, because the kernel tells of the end of stream as well, asked or not: at once, and then never
    /// again.
    fn watch(&mut self, finished: Direction, cx: &mut Context<'_>) {
        let token = self.token(Event::Broke(finished));
        if let Some(source) = self.source(finished) {
            cx.ring.poll_all(source, 0, token);
            self.in_flight += 1;
        }
    }

    fn watch_result(&mut self, finished: Direction, completion: Completion, cx: &mut Context<'_>) {
        if self.phase != Phase::Relaying {
            return;
        }
        let broke = completion.outcome().is_ok_and(|events| events & BROKEN != 0);
        if broke {
            self.finish(Finish::Reset, cx);
        } else if !completion.more() {
            self.watch(finished, cx);
        }
    }

    fn source_broke(&mut self, direction: Direction, error: &io::Error, cx: &mut Context<'_>) {
        if self.phase == Phase::Dialling && direction == Direction::Up {
            let target = cx.shared.targets[self.listener as usize];
            log_error!(Dial, "{}", DialFailure::ClientLeft(target));
        } else if error.kind() == io::ErrorKind::OutOfMemory {
            cx.shared.counters.errors.add(1);
        }
        self.finish(Finish::Reset, cx);
    }

    fn receiver_broke(&mut self, direction: Direction, cx: &mut Context<'_>) {
        self.ends.receiver_broke(direction);
        self.half(direction).release(cx.pipes, cx.shared);
        if let Some(finish) = self.ends.finish() {
            return self.finish(finish, cx);
        }
        // What the source still says is for nobody.
        let token = self.token(Event::Received(direction));
        let half = self.half(direction);
        if half.receiving && !half.stopping {
            half.stopping = true;
            cx.ring.cancel(token, Token::Nothing.encode());
        }
    }

    fn turn_away(&mut self, failure: &DialFailure, cx: &mut Context<'_>) -> Wish {
        turned_away(failure, &cx.shared.counters);
        self.finish(Finish::Reset, cx);
        self.wish_or(Wish::Nothing)
    }

    /// Nothing is moved any more. The sockets are closed when the ring has let go of them.
    fn finish(&mut self, finish: Finish, cx: &mut Context<'_>) {
        if self.phase == Phase::Over {
            return;
        }
        self.phase = Phase::Over;
        self.up.release(cx.pipes, cx.shared);
        self.down.release(cx.pipes, cx.shared);
        for socket in
            [Some(self.client.as_fd()), self.backend.as_ref().map(AsFd::as_fd)].into_iter().flatten()
        {
            if finish == Finish::Reset {
                // The peer must not take what it got for all there was. A socket that is gone needs no reset.
                let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            }
            if self.in_flight > 0 {
                cx.ring.cancel_all(socket, Token::Nothing.encode());
            }
        }
    }

    fn wish_or(&self, wish: Wish) -> Wish {
        if self.phase != Phase::Over {
            wish
        } else if self.in_flight == 0 {
            Wish::Removal
        } else {
            Wish::Nothing
        }
    }

    fn token(&self, event: Event) -> u64 {
        Token::Connection { slot: self.slot, event }.encode()
    }

    fn half(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    fn source(&self, direction: Direction) -> Option<BorrowedFd<'_>> {
        match direction {
            Direction::Up => Some(self.client.as_fd()),
            Direction::Down => self.backend.as_ref().map(AsFd::as_fd),
        }
    }

    /// A direction with its source and its receiver, once there are both.
    fn way(&mut self, direction: Direction) -> Option<(&mut Half, BorrowedFd<'_>, BorrowedFd<'_>)> {
        let (client, backend) = (self.client.as_fd(), self.backend.as_ref()?.as_fd());
        Some(match direction {
            Direction::Up => (&mut self.up, client, backend),
            Direction::Down => (&mut self.down, backend, client),
        })
    }
}

fn traffic(shared: &Shared, direction: Direction) -> &Traffic {
    match direction {
        Direction::Up => &shared.counters.to_backend,
        Direction::Down => &shared.counters.to_client,
    }
}
