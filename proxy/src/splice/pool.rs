//! The pipes themselves: made on demand, kept for the next connection that earns one.
//!
//! One pool per thread, so no locks. A pipe comes back only when it is empty: leftover bytes would reach a stranger.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};

/// What a pipe grows to when a stream has earned it; also `/proc/sys/fs/pipe-max-size`'s default.
const LARGE: i32 = 1024 * 1024;
/// Over its user's budget the kernel gives a pipe one or two pages (pipe(7)): copying is faster than that.
const LEAST: usize = 32 * 1024;
/// Idle pipes kept per thread. More would hold descriptors and pipe budget that somebody else could use.
const KEEP: usize = 4;

/// A pipe with nothing but our own bytes in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    held: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let capacity = granted(fcntl(&write, FcntlArg::F_GETPIPE_SZ)?);
        if capacity < LEAST {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(Self { read, write, capacity, held: 0 })
    }

    /// Bytes in the pipe, on their way.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Makes room for a long stream. The kernel may refuse (`EPERM` over the user's pipe budget): then it stays as
    /// it is, which is slower but right.
    pub fn grow(&mut self) {
        if let Ok(size) = fcntl(&self.write, FcntlArg::F_SETPIPE_SZ(LARGE)) {
            self.capacity = granted(size);
        }
    }

    /// Moves what `from` has, up to the pipe's size, into the pipe. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when `from` has nothing: call it only on an empty pipe, so that this is never about the pipe.
    pub fn fill(&mut self, from: BorrowedFd<'_>) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0, "filled while something is in it");
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let n = splice(from, None, self.write.as_fd(), None, self.capacity, flags)?;
        self.held += n;
        Ok(n)
    }

    /// Moves what the pipe holds on to `to`, as much as it takes.
    ///
    /// # Errors
    /// `WouldBlock` when `to` takes nothing now; anything else when it never will.
    pub fn drain(&mut self, to: BorrowedFd<'_>) -> io::Result<usize> {
        // Never SPLICE_F_MORE: it corks the socket, and the last message of a burst would wait 200 ms.
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let n = splice(self.read.as_fd(), None, to, None, self.held, flags)?;
        self.held -= n;
        Ok(n)
    }
}

fn granted(size: i32) -> usize {
    usize::try_from(size).unwrap_or(0).max(1)
}

/// A thread's idle pipes.
#[derive(Debug, Default)]
pub struct Pool {
    idle: Vec<Pipe>,
}

impl Pool {
    /// An idle pipe, or a new one.
    ///
    /// # Errors
    /// When descriptors, memory or the user's budget of pipe pages (`pipe-user-pages-soft`) are exhausted.
    pub fn take(&mut self) -> io::Result<Pipe> {
        self.idle.pop().map_or_else(Pipe::new, Ok)
    }

    /// Keeps `pipe` for the next stream, unless something is left in it or there are enough.
    pub fn put(&mut self, pipe: Pipe) {
        if pipe.held == 0 && self.idle.len() < KEEP {
            self.idle.push(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (a, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_cross_a_pipe_and_the_end_of_stream_shows() {
        let ((mut near, from), (to, mut far)) = (pair(), pair());
        from.set_nonblocking(true).unwrap();
        let mut pipe = Pool::default().take().unwrap();
        assert_eq!(pipe.fill(from.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        near.write_all(b"hello").unwrap();
        drop(near);
        assert_eq!(pipe.fill(from.as_fd()).unwrap(), 5);
        assert_eq!(pipe.held(), 5);
        assert_eq!(pipe.drain(to.as_fd()).unwrap(), 5);
        assert_eq!(pipe.fill(from.as_fd()).unwrap(), 0);
        drop(to);
        let mut got = String::new();
        far.read_to_string(&mut got).unwrap();
        assert_eq!(got, "hello");
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_not_reused() {
        let (mut near, from) = pair();
        near.write_all(b"secret").unwrap();
        let mut pool = Pool::default();
        let mut pipe = pool.take().unwrap();
        pipe.fill(from.as_fd()).unwrap();
        pool.put(pipe);
        assert!(pool.idle.is_empty());
        let empty = pool.take().unwrap();
        pool.put(empty);
        assert_eq!(pool.idle.len(), 1);
    }
}
