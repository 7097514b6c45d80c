//! Accepting: from the kernel's backlog to a thread, whatever the shortage.
//!
//! While descriptors are plenty, each listener of our own has one accept in the ring that brings every connection. Not
//! so inherited ones: a process that is killed may still accept in its ring, and what others could have served dies with
//! it. There, and when descriptors run low, a connection is accepted only when its descriptors are there, the client's and the backend's: until then it
//! waits in the backlog, where nothing is lost. If the kernel runs short all the same, accepting pauses, longer each
//! time up to a second, and goes on. Nothing here ever ends a listener.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::reactor::{Reactor, SOCKETS};
use super::shared::Shared;
use super::threads::Threads;
use super::token::Token;
use crate::listen::{Listener, reason};
use crate::log_error;
use crate::sys::{self, ring::Completion};
use crate::tcp::is_the_clients;

/// Descriptors left that are plenty: twice what the backlogs of a few listeners can bring in a burst.
const PLENTY: i64 = 16 * 1024;
/// Connections accepted in a row before others get a turn, when each has to be asked for.
const BURST: usize = 64;
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often to look for descriptors given back by other threads.
const STARVED: Duration = Duration::from_millis(5);

/// How a listener stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Every connection is accepted as it comes.
    Accepting,
    /// The same, but it was asked to stop.
    Stopping,
    /// We are told when connections wait.
    Watching,
    /// Connections wait, for descriptors.
    Starved,
    /// Until then.
    Pausing(Instant),
    /// The ring is about to let go of it.
    Closing,
}

/// What becomes of connections that wait when a listener is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// They are served. The kernel may have woken us for one, and us alone, before we stopped accepting: another holder
    /// of the socket would learn of it only with the next.
    Serve,
    /// They are left to whoever else holds the socket.
    Leave,
}

struct Door {
    /// Gone when it was closed.
    socket: Option<Socket>,
    state: State,
    pause: Duration,
}

/// The listeners of a mapping and the threads behind them.
pub(super) struct Front {
    doors: Vec<Door>,
    threads: Threads,
    shared: Arc<Shared>,
    /// How many are starved or pausing.
    waiting: usize,
    /// Operations on listeners in the ring.
    in_flight: usize,
    /// No more are begun.
    closing: Option<Rest>,
    /// Others hold the listening sockets too.
    inherited: bool,
}

impl Front {
    pub(super) fn new(
        listeners: Vec<Listener>,
        inherited: bool,
        threads: Threads,
        shared: Arc<Shared>,
    ) -> Self {
        let door = |listener: Listener| Door {
            socket: Some(listener.socket),
            state: State::Starved,
            pause: SHORTEST_PAUSE,
        };
        Self {
            doors: listeners.into_iter().map(door).collect(),
            threads,
            shared,
            waiting: 0,
            in_flight: 0,
            inherited,
            closing: None,
        }
    }

    /// Begins to accept, on all of them.
    pub(super) fn open(&mut self, reactor: &mut Reactor) {
        for number in 0..self.doors.len() {
            self.doors[number].state = self.begin(number, reactor);
        }
    }

    /// The outcome of an accept.
    pub(super) fn accepted(&mut self, listener: u32, completion: Completion, reactor: &mut Reactor) {
        self.in_flight -= usize::from(!completion.more());
        let outcome = match completion.outcome() {
            Ok(_) => {
                self.shared.budget.take(SOCKETS);
                self.admit(completion.result, listener, reactor);
                Ok(())
            }
            Err(error) => Err(error),
        };
        let number = listener as usize;
        let Some(door) = self.doors.get_mut(number) else { return };
        if outcome.is_ok() {
            door.pause = SHORTEST_PAUSE;
        }
        if completion.more() {
            if door.state == State::Accepting && self.shared.budget.left() < PLENTY {
                door.state = State::Stopping;
                reactor.ring.cancel(Token::Accepted(listener).encode(), Token::Nothing.encode());
            }
            return;
        }
        let state = match outcome {
            _ if door.state == State::Closing => return self.leave(number, reactor),
            Err(error) if error.raw_os_error() != Some(libc::ECANCELED) && !is_the_clients(&error) => {
                self.pause(number, &error)
            }
            _ => self.begin(number, reactor),
        };
        self.doors[number].state = state;
    }

    /// Connections wait on a listener that is being watched.
    pub(super) fn waiting(&mut self, listener: u32, reactor: &mut Reactor) {
        self.in_flight -= 1;
        let number = listener as usize;
        if self.closing.is_some() {
            self.leave(number, reactor);
        } else if number < self.doors.len() {
            self.doors[number].state = self.accept_some(number, reactor);
        }
    }

    /// Goes on where descriptors were short.
    pub(super) fn tend(&mut self, reactor: &mut Reactor) {
        if self.waiting == 0 {
            return;
        }
        let now = Instant::now();
        for number in 0..self.doors.len() {
            match self.doors[number].state {
                State::Pausing(until) if until > now => continue,
                State::Starved | State::Pausing(_) => {}
                State::Accepting | State::Stopping | State::Watching | State::Closing => continue,
            }
            if self.shared.budget.left() >= i64::from(SOCKETS) {
                self.waiting -= 1;
                self.doors[number].state = self.accept_some(number, reactor);
            }
        }
    }

    /// When to tend next at the latest.
    pub(super) fn next(&self) -> Option<Duration> {
        (self.waiting > 0).then_some(STARVED)
    }

    /// Closes the listening sockets, as soon as the ring lets go of them. What was accepted before is served.
    pub(super) fn close(&mut self, rest: Rest, reactor: &mut Reactor) {
        if self.closing.replace(rest).is_some() {
            return;
        }
        for number in 0..self.doors.len() {
            let listener = u32::try_from(number).unwrap_or(u32::MAX); // fewer listeners than ports
            // By what was asked for: to find it by its socket, the kernel would look through all that is under way, for
            // each listener again.
            let operation = match std::mem::replace(&mut self.doors[number].state, State::Closing) {
                State::Accepting | State::Stopping => Token::Accepted(listener),
                State::Watching => Token::Waiting(listener),
                // Nothing of it is in the ring.
                State::Starved | State::Pausing(_) | State::Closing => {
                    self.leave(number, reactor);
                    continue;
                }
            };
            reactor.ring.cancel(operation.encode(), Token::Nothing.encode());
        }
        self.waiting = 0;
    }

    /// The ring has let go of a listener that is to be closed.
    fn leave(&mut self, number: usize, reactor: &mut Reactor) {
        let Some(socket) = self.doors[number].socket.take() else { return };
        let listener = u32::try_from(number).unwrap_or(u32::MAX); // fewer listeners than ports
        while self.closing == Some(Rest::Serve) && self.shared.budget.try_take(SOCKETS) {
            let Ok(client) = sys::accept(socket.as_fd()) else {
                self.shared.budget.give_back(SOCKETS);
                break;
            };
            self.count();
            self.threads.place(client, listener, reactor);
        }
    }

    /// Whether the ring has let go of all listeners. Until then the ports are taken, even if this process ends.
    pub(super) fn is_closed(&self) -> bool {
        self.closing.is_some() && self.in_flight == 0
    }

    /// A connection could not be handed over after all: it stays here.
    pub(super) fn taken_back(&self, thread: u8, listener: u32, descriptor: i32, reactor: &mut Reactor) {
        if let Some(client) = sys::handed_over(descriptor) {
            self.threads.take_back(thread, client, listener, reactor);
        }
    }

    fn begin(&mut self, number: usize, reactor: &mut Reactor) -> State {
        let listener = u32::try_from(number).unwrap_or(u32::MAX); // fewer listeners than ports
        let Some(socket) = &self.doors[number].socket else { return State::Closing };
        let socket = socket.as_fd();
        self.in_flight += 1;
        if !self.inherited && self.shared.budget.left() >= PLENTY {
            reactor.ring.accept_all(socket, Token::Accepted(listener).encode());
            State::Accepting
        } else {
            reactor.ring.poll(socket, libc::POLLIN, Token::Waiting(listener).encode());
            State::Watching
        }
    }

    fn accept_some(&mut self, number: usize, reactor: &mut Reactor) -> State {
        let listener = u32::try_from(number).unwrap_or(u32::MAX); // fewer listeners than ports
        for _ in 0..BURST {
            let Some(socket) = &self.doors[number].socket else { return State::Closing };
            if !self.shared.budget.try_take(SOCKETS) {
                self.waiting += 1;
                return State::Starved;
            }
            match sys::accept(socket.as_fd()) {
                Ok(client) => {
                    self.doors[number].pause = SHORTEST_PAUSE;
                    self.count();
                    self.threads.place(client, listener, reactor);
                }
                Err(error) => {
                    self.shared.budget.give_back(SOCKETS);
                    if error.kind() == io::ErrorKind::WouldBlock {
                        break;
                    }
                    if !is_the_clients(&error) {
                        return self.pause(number, &error);
                    }
                }
            }
        }
        // After a full burst the poll completes at once, behind what others have to do.
        self.begin(number, reactor)
    }

    fn admit(&mut self, descriptor: i32, listener: u32, reactor: &mut Reactor) {
        if let Some(client) = sys::handed_over(descriptor) {
            self.count();
            self.threads.place(client, listener, reactor);
        }
    }

    fn count(&self) {
        self.shared.counters.connections.open.up();
        self.shared.counters.connections.total.add(1);
    }

    fn pause(&mut self, number: usize, error: &io::Error) -> State {
        self.shared.counters.errors.add(1);
        let door = &mut self.doors[number];
        let pause = door.pause;
        log_error!(Accept, "can't accept, trying again in {pause:?}: {}", reason(error));
        door.pause = (pause * 2).min(LONGEST_PAUSE);
        self.waiting += 1;
        State::Pausing(Instant::now() + pause)
    }
}
