//! One direction of a connection between two events: what is on its way, and how it is moved.
//!
//! Messages arrive in the ring's buffers and are sent on at once, by a plain non-blocking call: its result tells right
//! away whether the receiver had room, so backpressure is exact and a buffer never leaves the hands of the one event
//! that brought it. What doesn't fit is copied into `pending`, and the source is no longer read once that holds
//! [`ENOUGH`]. A direction that proves to be bulk moves by `splice` through a pipe instead, in turns, as its sockets
//! become ready; not by `IORING_OP_SPLICE`, which the kernel always hands to a worker thread.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, send};

use crate::counters::Traffic;
use crate::splice::{Bulk, Pipe, Pool, Verdict};

use super::shared::Shared;

/// Bytes waiting for a receiver that are reason enough to stop reading. What the kernel has received until the stop
/// takes effect comes on top: at most all the buffers of the ring.
pub(super) const ENOUGH: usize = 64 * 1024;
/// Descriptors of a pipe.
const PIPE: u32 = 2;
/// Fills of a pipe before other connections get a turn.
const TURN: u32 = 1;

/// Why a turn of splicing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// The source has nothing.
    Drained,
    /// The receiver has no room.
    Blocked,
    /// The turn is over and there may be more.
    Busy,
    /// The source's end of stream, all of it passed on.
    Ended,
    /// It turned chatty: no pipe any more.
    Demoted,
    /// Reading failed.
    SourceBroke,
    /// Writing failed.
    ReceiverBroke,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Half {
    /// Received, not yet taken by the receiver.
    pending: Vec<u8>,
    /// How much of `pending` the receiver took.
    taken: usize,
    pipe: Option<Box<Pipe>>,
    bulk: Bulk,
    /// Splicing stops once the pipe is empty.
    demoted: bool,
    /// The source's end of stream was seen.
    pub(super) ended: bool,
    /// A receive is under way in the ring.
    pub(super) receiving: bool,
    /// It was asked to stop.
    pub(super) stopping: bool,
    /// We wait for room at the receiver.
    pub(super) awaiting_room: bool,
    /// We wait for data to splice.
    pub(super) awaiting_data: bool,
}

impl Half {
    /// Bytes on their way by copy.
    pub(super) fn backlog(&self) -> usize {
        self.pending.len() - self.taken
    }

    /// Whether it moves through a pipe, or is about to.
    pub(super) fn has_pipe(&self) -> bool {
        self.pipe.is_some()
    }

    /// Whether a receive should be under way.
    pub(super) fn wants_to_receive(&self) -> bool {
        !self.ended && self.pipe.is_none() && self.backlog() < ENOUGH
    }

    /// Keeps bytes for later.
    pub(super) fn keep(&mut self, data: &[u8]) {
        self.pending.extend_from_slice(data);
    }

    /// Passes `data` on, or keeps what the receiver doesn't take.
    ///
    /// # Errors
    /// When the receiver takes no more, ever.
    pub(super) fn pass_on(&mut self, data: &[u8], to: BorrowedFd<'_>, traffic: &Traffic) -> io::Result<()> {
        if self.backlog() > 0 || self.awaiting_room {
            self.keep(data);
            return Ok(());
        }
        let sent = send_now(to, data)?;
        traffic.bytes.add(sent as u64);
        if sent < data.len() {
            self.keep(&data[sent..]);
        }
        Ok(())
    }

    /// Sends what waits. `true` when nothing is left.
    ///
    /// # Errors
    /// When the receiver takes no more, ever.
    pub(super) fn flush(&mut self, to: BorrowedFd<'_>, traffic: &Traffic) -> io::Result<bool> {
        while self.backlog() > 0 {
            let sent = send_now(to, &self.pending[self.taken..])?;
            if sent == 0 {
                return Ok(false);
            }
            self.taken += sent;
            traffic.bytes.add(sent as u64);
        }
        // An idle connection holds no buffer.
        (self.pending, self.taken) = (Vec::new(), 0);
        Ok(true)
    }

    /// Weighs a receive of `n` bytes; takes a pipe when they are bulk. `cut` tells that there was no room for more.
    pub(super) fn weigh(&mut self, n: usize, cut: bool, pipes: &mut Pool, shared: &Shared) {
        if self.pipe.is_some() || (cut && n < Bulk::LARGE) {
            return;
        }
        if self.bulk.copied(n) == Verdict::Promote && shared.budget.try_take(PIPE) {
            match pipes.take() {
                Ok(pipe) => self.pipe = Some(Box::new(pipe)),
                // Copying is slower, but right.
                Err(_) => shared.budget.give_back(PIPE),
            }
        }
    }

    /// Splices until a socket has no more to give or to take, or its turn is over.
    pub(super) fn pump(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        traffic: &Traffic,
        pipes: &mut Pool,
        shared: &Shared,
    ) -> Pumped {
        let Some(pipe) = &mut self.pipe else { return Pumped::Demoted };
        let mut fills = 0;
        let outcome = loop {
            while pipe.held() > 0 {
                match pipe.drain(to) {
                    Ok(n) => traffic.bytes.add(n as u64),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Pumped::Blocked,
                    Err(_) => break,
                }
            }
            if pipe.held() > 0 {
                break Pumped::ReceiverBroke;
            }
            if self.ended {
                break Pumped::Ended;
            }
            if self.demoted {
                break Pumped::Demoted;
            }
            if fills == TURN {
                return Pumped::Busy;
            }
            fills += 1;
            match pipe.fill(from) {
                Ok(0) => self.ended = true,
                Ok(n) => match self.bulk.spliced(n) {
                    Verdict::Grow => pipe.grow(),
                    Verdict::Demote => self.demoted = true,
                    Verdict::Stay | Verdict::Promote => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Pumped::Drained,
                Err(_) => break Pumped::SourceBroke,
            }
        };
        self.demoted = false;
        self.release(pipes, shared);
        outcome
    }

    /// Gives the pipe back.
    pub(super) fn release(&mut self, pipes: &mut Pool, shared: &Shared) {
        if let Some(pipe) = self.pipe.take() {
            pipes.put(*pipe);
            shared.budget.give_back(PIPE);
        }
    }
}

/// Sends all of `data`, which fits into any new socket's buffer.
pub(super) fn send_all(to: BorrowedFd<'_>, data: &[u8]) -> io::Result<()> {
    if send_now(to, data)? == data.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Sends what the socket takes at once; `Ok(0)` when it takes nothing now.
fn send_now(to: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    match send(to.as_raw_fd(), data, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
        Ok(sent) => Ok(sent),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
