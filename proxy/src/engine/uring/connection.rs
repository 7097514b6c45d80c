//! One TCP connection: what each of its events leads to.
//!
//! How it begins, up to the backend's answer, is [`beginning`]'s.
//!
//! A connection is received from as soon as it is accepted: what the client says while the backend is still being
//! dialled is kept, and a client that resets meanwhile is noticed. It owns its two sockets until no operation on them is
//! left in the ring; only then are they closed, so that no operation ever meets another socket of the same number.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::greeting::Greeting;
use super::half::{ENOUGH, Half, Pumped, Room};
use super::shared::Shared;
use super::token::{Event, Token};
use crate::counters::Traffic;
use crate::log_error;
use crate::splice::Pool;
use crate::sys::buffers::Lease;
use crate::sys::ring::{Completion, Ring};
use crate::tcp::{DialFailure, Direction, Ends, Finish};

mod beginning;

use beginning::PAUSE;

/// What poll(2) says of a stream that is gone both ways.
const BROKEN: u32 = (libc::POLLERR | libc::POLLHUP).cast_unsigned() as u32;

/// What it says of one that takes more.
const ROOM: u32 = libc::POLLOUT.cast_unsigned() as u32;

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
    /// To be dialled again after this long.
    Retry(Duration),
    /// The connect time-out to begin anew.
    Renewal,
    /// Its end: nothing of it is left in the ring.
    Removal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A trusted client has to say who it speaks for.
    Greeting,
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
    /// When its current phase began, for time-outs.
    begun: Instant,
    kept_alive: bool,
    /// Another turn is due.
    turning: bool,
    /// What a trusted client has said so far.
    greeting: Option<Box<Greeting>>,
    /// What the backend gets first.
    header: Vec<u8>,
    /// Addresses that this attempt hasn't tried to dial from yet, the next one last.
    untried: Vec<Option<IpAddr>>,
    /// Why the last attempt has to be repeated, and after how long.
    shortage: Option<io::Error>,
    pause: Duration,
}

impl Connection {
    pub(super) fn new(client: OwnedFd, listener: u32, slot: u32, now: Instant) -> Box<Self> {
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
            begun: now,
            kept_alive: false,
            turning: false,
            greeting: None,
            header: Vec::new(),
            untried: Vec::new(),
            shortage: None,
            pause: PAUSE,
        })
    }

    /// When its time-out began to run.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Whether its time-out runs.
    pub(super) fn is_beginning(&self) -> bool {
        matches!(self.phase, Phase::Greeting | Phase::Dialling)
    }

    /// Makes a connection that lasts notice a backend that vanished. Not at birth: most don't live for so long, and
    /// it takes four calls.
    pub(super) fn keep_alive(&mut self, now: Instant, age: Duration) {
        if let (Phase::Relaying, false, Some(backend)) = (self.phase, self.kept_alive, &self.backend)
            && now.duration_since(self.begun) >= age
        {
            self.kept_alive = true;
            let _ = crate::listen::keep_alive(&SockRef::from(backend)); // one that is gone needs none
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
        let wish = match event {
            Event::Connected => return self.connected(completion, cx),
            Event::Received(direction) => self.received(direction, completion, cx),
            Event::Writable(direction) => self.told_of_room(direction, &completion, cx),
            Event::Readable(direction) => {
                let half = self.half(direction);
                (half.awaiting_data, half.told_of_data) = (false, completion.result >= 0);
                self.advance(direction, cx)
            }
            Event::Broke(direction) => {
                self.watch_result(direction, completion, cx);
                Wish::Nothing
            }
        };
        self.wish_or(wish)
    }

    /// Another turn of both directions, unless it was another connection in the same slot that asked for one.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>) -> Wish {
        if !std::mem::take(&mut self.turning) {
            return Wish::Nothing;
        }
        let up = self.advance(Direction::Up, cx);
        let down = self.advance(Direction::Down, cx);
        self.wish_or(if up == Wish::Nothing { down } else { up })
    }

    fn received(&mut self, direction: Direction, mut completion: Completion, cx: &mut Context<'_>) -> Wish {
        if !completion.more() {
            let half = self.half(direction);
            (half.receiving, half.stopping) = (false, false);
        }
        let lease = cx.ring.received(&mut completion);
        let mut wish = Wish::Nothing;
        match (completion.outcome(), self.phase) {
            (_, Phase::Over) => {}
            // Out of buffers: by now they are back. Cancelled: `advance` knows what for.
            (Err(error), _) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ECANCELED)) => {}
            (Err(_) | Ok(0), Phase::Greeting) => wish = self.hear(&[], cx),
            (Err(error), _) => self.source_broke(direction, &error, cx),
            (Ok(0), _) => self.half(direction).ended = true,
            (Ok(_), phase) => {
                if let Some(lease) = &lease {
                    match phase {
                        // A copy of one header, so that the ring is free meanwhile.
                        Phase::Greeting => {
                            let piece = cx.ring.bytes(lease).to_vec();
                            wish = self.hear(&piece, cx);
                        }
                        Phase::Dialling => self.half(direction).keep(cx.ring.bytes(lease)),
                        Phase::Relaying | Phase::Over => self.pass_on(direction, lease, cx),
                    }
                }
            }
        }
        if let Some(lease) = lease {
            cx.ring.give_back(lease);
        }
        // After the header the client is listened to as before.
        match (wish, self.advance(direction, cx)) {
            (Wish::Nothing, advanced) => advanced,
            (wish, _) => wish,
        }
    }

    fn pass_on(&mut self, direction: Direction, lease: &Lease, cx: &mut Context<'_>) {
        if !self.ends.is_open(direction) {
            return;
        }
        let Some((half, _, to)) = self.way(direction) else { return };
        let data = cx.ring.bytes(lease);
        let passed = half.pass_on(data, to, traffic(cx.shared, direction));
        let room = match (lease.is_full(), cx.ring.buffers_are_shared()) {
            (false, _) => Room::Ample,
            (true, true) => Room::Cut,
            (true, false) => Room::Filled,
        };
        half.weigh(data.len(), room, cx.pipes, cx.shared);
        if passed.is_err() {
            self.receiver_broke(direction, cx);
        }
    }

    /// Does for a direction whatever can be done now.
    fn advance(&mut self, direction: Direction, cx: &mut Context<'_>) -> Wish {
        if self.phase == Phase::Over || !self.ends.is_open(direction) {
            return Wish::Nothing;
        }
        if self.is_beginning() || self.half(direction).awaiting_room {
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
            Pumped::Busy if std::mem::replace(&mut self.turning, true) => {}
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
        let Some(from) = self.source(direction) else { return };
        cx.ring.receive_all(from, token);
        self.in_flight += 1;
        self.half(direction).receiving = true;
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
            if self.phase == Phase::Dialling {
                // It may yet reset, and until the backend answers nobody reads it.
                self.watch(direction, cx);
            }
        }
    }

    /// Waits for the receiver to have room. The ring tells of it over and over, since it would tell of a receiver that
    /// has said its last word as well, asked or not: once like this, but each time anew if it were asked each time.
    fn await_room(&mut self, direction: Direction, cx: &mut Context<'_>) {
        let token = self.token(Event::Writable(direction));
        let Some((half, _, to)) = self.way(direction) else { return };
        half.awaiting_room = true;
        if !std::mem::replace(&mut half.watching_room, true) {
            cx.ring.poll_all(to, libc::POLLOUT, token);
            self.in_flight += 1;
        }
    }

    fn told_of_room(&mut self, direction: Direction, completion: &Completion, cx: &mut Context<'_>) -> Wish {
        let has_room = completion.outcome().map_or(true, |events| events & (ROOM | BROKEN) != 0);
        let over = self.phase == Phase::Over;
        let half = self.half(direction);
        half.watching_room &= completion.more();
        if !half.awaiting_room || over {
            return Wish::Nothing;
        }
        if has_room {
            half.awaiting_room = false;
            return self.advance(direction, cx);
        }
        self.await_room(direction, cx);
        Wish::Nothing
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

    fn watch_result(&mut self, watched: Direction, completion: Completion, cx: &mut Context<'_>) {
        let unread = match self.phase {
            Phase::Dialling => true,
            Phase::Relaying => self.ends.half_closed() == Some(watched),
            Phase::Greeting | Phase::Over => false,
        };
        if !unread {
            return; // reading tells
        }
        let broke = completion.outcome().is_ok_and(|events| events & BROKEN != 0);
        if broke {
            self.source_broke(watched, &io::ErrorKind::ConnectionReset.into(), cx);
        } else if !completion.more() {
            self.watch(watched, cx);
        }
    }

    fn source_broke(&mut self, direction: Direction, error: &io::Error, cx: &mut Context<'_>) {
        if self.phase == Phase::Dialling && direction == Direction::Up {
            let target = self.target(cx);
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

    /// Nothing is moved any more. The sockets are closed when the ring has let go of them.
    fn finish(&mut self, finish: Finish, cx: &mut Context<'_>) {
        if self.phase == Phase::Over {
            return;
        }
        self.phase = Phase::Over;
        self.up.release(cx.pipes, cx.shared);
        self.down.release(cx.pipes, cx.shared);
        let sides = [
            (Direction::Down, Some(self.client.as_fd())),
            (Direction::Up, self.backend.as_ref().map(AsFd::as_fd)),
        ];
        for (received, socket) in sides {
            let Some(socket) = socket else { continue };
            if finish.resets_receiver(received) {
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

    fn target(&self, cx: &Context<'_>) -> SocketAddr {
        cx.shared.targets[self.listener as usize]
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
