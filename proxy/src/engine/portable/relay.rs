//! Relays one TCP connection: moves bytes both ways until both directions have ended.
//!
//! A direction copies through a buffer of the thread's until [`Bulk`] finds it worth a pipe, then moves by `splice`
//! until it turns chatty again. While it waits it owns no buffer: what a socket didn't take is kept in `pending`, and
//! nothing more is read until that is gone, so a slow reader stops its writer.
//!
//! A pipe is emptied before it is filled again, so `EAGAIN` from a fill always means that the socket has nothing.
//!
//! A reset shows when reading; a side whose end of stream was passed on is no longer read, so that one is watched for
//! errors while the opposite direction goes on.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;

use super::Shared;
use crate::counters::Traffic;
use crate::limits::FOR_CLIENTS;
use crate::splice::{Bulk, Pipe, Pool, Verdict};
use crate::tcp::{Direction, Ends, Finish};

/// One read by copy. Large enough that a stream shows itself, small enough to stay in the cache.
const BUFFER: usize = 64 * 1024;
/// Descriptors of a pipe.
const PIPE: u32 = 2;

thread_local! {
    /// Connections of a thread take turns, and none keeps anything in here between two turns.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
    static PIPES: RefCell<Pool> = RefCell::default();
}

/// Relays until both directions have ended, and tells how to close.
pub(super) async fn relay(client: &mut TcpStream, backend: &mut TcpStream, shared: &Arc<Shared>) -> Finish {
    let ((client, to_client), (backend, to_backend)) = (client.split(), backend.split());
    let (from_client, from_backend) = (to_client.as_ref(), to_backend.as_ref());
    let up = Half::new(client, to_backend.as_ref());
    let down = Half::new(backend, to_client.as_ref());
    let mut relay = Relay { up, down, ends: Ends::default(), half_closed: None, shared };
    let source = match (&mut relay).await {
        Step::Finished(finish) => return finish,
        Step::HalfClosed(Direction::Up) => from_client,
        Step::HalfClosed(Direction::Down) => from_backend,
    };
    tokio::select! {
        biased;
        step = relay => match step {
            Step::Finished(finish) => finish,
            // The second end finishes the relay.
            Step::HalfClosed(_) => Finish::Close,
        },
        _ = source.ready(Interest::ERROR) => Finish::Reset,
    }
}

/// Moves bytes until there is something to tell.
#[derive(Debug)]
struct Relay<'a> {
    up: Half<'a>,
    down: Half<'a>,
    ends: Ends,
    /// The direction that ended first, once that was told.
    half_closed: Option<Direction>,
    shared: &'a Arc<Shared>,
}

/// What a relay came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The end of stream was passed on one way; told once, and the other way goes on.
    HalfClosed(Direction),
    /// Nothing is left to move.
    Finished(Finish),
}

/// One direction between two turns.
#[derive(Debug)]
struct Half<'a> {
    from: ReadHalf<'a>,
    to: &'a TcpStream,
    /// Copied, not yet taken by the receiver.
    pending: Vec<u8>,
    /// How much of `pending` the receiver took.
    taken: usize,
    pipe: Option<LentPipe>,
    /// Back to copying once the pipe is empty.
    leave_pipe: bool,
    bulk: Bulk,
    ended: bool,
}

/// Why a direction stopped.
enum Stop {
    /// All was passed on up to the source's end of stream.
    Delivered,
    /// Reading failed: the source was reset.
    SourceBroke,
    /// Writing failed: the receiver takes no more.
    ReceiverBroke,
}

impl Future for Relay<'_> {
    type Output = Step;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Step> {
        let Self { up, down, ends, half_closed, shared } = self.get_mut();
        let counters = &shared.counters;
        for (direction, half, traffic) in
            [(Direction::Up, up, &counters.to_backend), (Direction::Down, down, &counters.to_client)]
        {
            if ends.is_open(direction)
                && let Poll::Ready(stop) = half.pump(cx, shared, traffic)
                && let Some(finish) = note(ends, direction, stop, half.to)
            {
                return Poll::Ready(Step::Finished(finish));
            }
        }
        if half_closed.is_none()
            && let Some(direction) = ends.half_closed()
        {
            *half_closed = Some(direction);
            return Poll::Ready(Step::HalfClosed(direction));
        }
        Poll::Pending
    }
}

fn note(ends: &mut Ends, direction: Direction, stop: Stop, receiver: &TcpStream) -> Option<Finish> {
    match stop {
        Stop::SourceBroke => return Some(Finish::Reset),
        Stop::ReceiverBroke => ends.receiver_broke(direction),
        Stop::Delivered => ends.delivered(direction),
    }
    let finish = ends.finish();
    // The last end of stream needs no call of its own: closing sends it.
    if matches!(stop, Stop::Delivered)
        && finish.is_none()
        && SockRef::from(receiver).shutdown(std::net::Shutdown::Write).is_err()
    {
        ends.receiver_broke(direction);
    }
    finish
}

impl<'a> Half<'a> {
    fn new(from: ReadHalf<'a>, to: &'a TcpStream) -> Self {
        Self {
            from,
            to,
            pending: Vec::new(),
            taken: 0,
            pipe: None,
            leave_pipe: false,
            bulk: Bulk::default(),
            ended: false,
        }
    }

    /// Moves what can be moved now.
    fn pump(&mut self, cx: &mut Context<'_>, shared: &Arc<Shared>, traffic: &Traffic) -> Poll<Stop> {
        let to = self.to;
        loop {
            // First what was taken from the source already.
            if self.taken < self.pending.len() {
                match ready!(write_pending(cx, to, &self.pending[self.taken..])) {
                    Ok(n) => {
                        self.taken += n;
                        traffic.bytes.add(n as u64);
                    }
                    Err(_) => return Poll::Ready(Stop::ReceiverBroke),
                }
                continue;
            }
            if !self.pending.is_empty() {
                (self.pending, self.taken) = (Vec::new(), 0);
            }
            if let Some(lent) = self.pipe.as_mut().filter(|lent| lent.pipe.held() > 0) {
                match ready!(drain(cx, to, &mut lent.pipe)) {
                    Ok(n) => traffic.bytes.add(n as u64),
                    Err(_) => return Poll::Ready(Stop::ReceiverBroke),
                }
                continue;
            }
            if (self.leave_pipe || self.ended)
                && let Some(lent) = self.pipe.take()
            {
                lent.give_back();
                self.leave_pipe = false;
            }
            if self.ended {
                return Poll::Ready(Stop::Delivered);
            }
            let read = match &mut self.pipe {
                Some(lent) => {
                    let from = self.from.as_ref();
                    match ready!(fill(cx, from, &mut lent.pipe)) {
                        Ok(Filled::Bytes(n)) => Ok(n),
                        Ok(Filled::NotBySplice) => {
                            self.leave_pipe = true;
                            match self.copy_at_once(traffic) {
                                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                                result => result,
                            }
                        }
                        Err(error) => Err(error),
                    }
                }
                None => ready!(self.copy(cx, traffic)),
            };
            match read {
                Ok(0) => self.ended = true,
                Ok(n) => self.weigh(n, shared),
                Err(_) => return Poll::Ready(Stop::SourceBroke),
            }
        }
    }

    /// One read into the thread's buffer, handed on at once. What the receiver doesn't take becomes `pending`; a
    /// failed write too, so that the loop meets the error again where it is handled.
    fn copy(&mut self, cx: &mut Context<'_>, traffic: &Traffic) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            // Not `try_read`: `poll_read` takes a read that didn't fill the buffer for the last one there is, which
            // saves a call that would only say so.
            ready!(Pin::new(&mut self.from).poll_read(cx, &mut buffer))?;
            Poll::Ready(Ok(self.hand_on(buffer.filled(), traffic)))
        })
    }

    /// The same without waiting, whatever the runtime thinks of the source.
    fn copy_at_once(&mut self, traffic: &Traffic) -> io::Result<usize> {
        SCRATCH.with_borrow_mut(|scratch| {
            let n = recv(self.from.as_ref().as_raw_fd(), scratch, MsgFlags::MSG_DONTWAIT)?;
            Ok(self.hand_on(&scratch[..n], traffic))
        })
    }

    fn hand_on(&mut self, data: &[u8], traffic: &Traffic) -> usize {
        let sent = if data.is_empty() { 0 } else { self.to.try_write(data).unwrap_or(0) };
        traffic.bytes.add(sent as u64);
        if sent < data.len() {
            self.pending = data[sent..].to_vec();
        }
        data.len()
    }

    /// Changes between copy and splice as the traffic asks for.
    fn weigh(&mut self, n: usize, shared: &Arc<Shared>) {
        let Some(lent) = &mut self.pipe else {
            if self.bulk.copied(n) == Verdict::Promote {
                self.pipe = LentPipe::take(shared);
            }
            return;
        };
        match self.bulk.spliced(n) {
            Verdict::Grow => lent.pipe.grow(),
            Verdict::Demote => self.leave_pipe = true, // once it is empty
            Verdict::Stay | Verdict::Promote => {}
        }
    }
}

/// A pipe from the thread's pool, and its share of the descriptors. Dropped, the pipe is closed.
#[derive(Debug)]
struct LentPipe {
    pipe: Pipe,
    share: PipeShare,
}

#[derive(Debug)]
struct PipeShare(Arc<Shared>);

impl LentPipe {
    /// `None` when descriptors are short: copying is slower, but turning a client away is worse.
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        if shared.descriptors.available_permits() < (PIPE + FOR_CLIENTS) as usize {
            return None;
        }
        shared.descriptors.try_acquire_many(PIPE).ok()?.forget();
        let share = PipeShare(Arc::clone(shared));
        let pipe = PIPES.with_borrow_mut(Pool::take).ok()?;
        Some(Self { pipe, share })
    }

    /// Back to the pool, for the next stream.
    fn give_back(self) {
        PIPES.with_borrow_mut(|pool| pool.put(self.pipe));
        drop(self.share);
    }
}

impl Drop for PipeShare {
    fn drop(&mut self) {
        self.0.descriptors.add_permits(PIPE as usize);
    }
}

/// Writes when the receiver has room.
fn write_pending(cx: &mut Context<'_>, to: &TcpStream, data: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(to.poll_write_ready(cx))?;
        match to.try_write(data) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Empties the pipe into the receiver when it has room.
fn drain(cx: &mut Context<'_>, to: &TcpStream, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
    loop {
        ready!(to.poll_write_ready(cx))?;
        match to.try_io(Interest::WRITABLE, || pipe.drain(to.as_fd())) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// What a filled pipe means.
enum Filled {
    /// So much came.
    Bytes(usize),
    /// The source has something, but `splice` stops at it: an urgent byte, which a read skips (tcp(7)).
    NotBySplice,
}

/// Fills the empty pipe when the source has something.
fn fill(cx: &mut Context<'_>, from: &TcpStream, pipe: &mut Pipe) -> Poll<io::Result<Filled>> {
    let mut in_vain = false;
    loop {
        ready!(from.poll_read_ready(cx))?;
        let filled = from.try_io(Interest::READABLE, || match pipe.fill(from.as_fd()) {
            // More may have come just now; twice in a row it is an urgent byte.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if has_data(from)? {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
            result => result.map(Some),
        });
        match filled {
            Ok(Some(n)) => return Poll::Ready(Ok(Filled::Bytes(n))),
            Ok(None) if in_vain => return Poll::Ready(Ok(Filled::NotBySplice)),
            Ok(None) => in_vain = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Whether a read would bring something. A reset is told once, here as well: to lose it would make an end of it.
fn has_data(socket: &TcpStream) -> io::Result<bool> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(socket.as_raw_fd(), &mut [0], flags) {
        Ok(n) => Ok(n > 0),
        Err(nix::errno::Errno::EAGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
