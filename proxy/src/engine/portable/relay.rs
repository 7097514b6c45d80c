//! Relays one TCP connection: a future that owns both sockets and moves bytes both ways.
//!
//! A direction copies through a buffer of the thread's until [`Bulk`] finds it worth a pipe, then moves by `splice`
//! until it turns chatty again. While it waits it owns no buffer: what a socket didn't take is kept in `pending`, and
//! nothing more is read until that is gone, so a slow reader stops its writer.
//!
//! A pipe is emptied before it is filled again, so `EAGAIN` from a fill always means that the socket has nothing.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::Shared;
use crate::counters::Traffic;
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

/// Both sockets until they are done; then the sockets again, and how to close them.
#[derive(Debug)]
pub(super) struct Relay {
    sockets: Option<(TcpStream, TcpStream)>,
    up: Half,
    down: Half,
    ends: Ends,
    shared: Arc<Shared>,
}

/// One direction between two turns.
#[derive(Debug, Default)]
struct Half {
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

impl Relay {
    pub(super) fn new(client: TcpStream, backend: TcpStream, shared: Arc<Shared>) -> Self {
        let (up, down) = (Half::default(), Half::default());
        Self { sockets: Some((client, backend)), up, down, ends: Ends::default(), shared }
    }
}

impl Future for Relay {
    type Output = (TcpStream, TcpStream, Finish);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { sockets, up, down, ends, shared } = self.get_mut();
        let Some((client, backend)) = sockets else { return Poll::Pending }; // polled after its end
        let mut finish = None;
        if ends.is_open(Direction::Up)
            && let Poll::Ready(stop) = up.pump(cx, client, backend, shared, &shared.counters.to_backend)
        {
            finish = note(ends, Direction::Up, stop, backend);
        }
        if finish.is_none()
            && ends.is_open(Direction::Down)
            && let Poll::Ready(stop) = down.pump(cx, backend, client, shared, &shared.counters.to_client)
        {
            finish = note(ends, Direction::Down, stop, client);
        }
        match (finish, sockets.take()) {
            (Some(finish), Some((client, backend))) => Poll::Ready((client, backend, finish)),
            (_, both) => {
                *sockets = both;
                Poll::Pending
            }
        }
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

impl Half {
    /// Moves what can be moved now.
    fn pump(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &TcpStream,
        shared: &Arc<Shared>,
        traffic: &Traffic,
    ) -> Poll<Stop> {
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
                Some(lent) => ready!(fill(cx, from, &mut lent.pipe)),
                None => ready!(self.copy(cx, from, to, traffic)),
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
    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &TcpStream,
        traffic: &Traffic,
    ) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
            let data = buffer.filled();
            let sent = if data.is_empty() { 0 } else { to.try_write(data).unwrap_or(0) };
            traffic.bytes.add(sent as u64);
            if sent < data.len() {
                self.pending = data[sent..].to_vec();
            }
            Poll::Ready(Ok(data.len()))
        })
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

/// Fills the empty pipe when the source has something.
fn fill(cx: &mut Context<'_>, from: &TcpStream, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
    loop {
        ready!(from.poll_read_ready(cx))?;
        match from.try_io(Interest::READABLE, || pipe.fill(from.as_fd())) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}
