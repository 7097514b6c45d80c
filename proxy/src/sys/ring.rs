//! An io_uring of one thread: operations in, completions out, and whatever memory the kernel needs in between.
//!
//! Safe to use because no operation names memory of the caller's: data is received into buffers that the ring owns, as
//! it does the one message header; addresses are copied by the kernel when an operation is submitted
//! (`IORING_FEAT_SUBMIT_STABLE`) and kept until then. A descriptor must stay open until the operation on it has been
//! submitted; the caller keeps it open until the completion, since a number closed too early could already mean another
//! socket.
//!
//! Task work is deferred to [`Ring::enter`]: between two calls nothing happens behind our back.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode};
use socket2::SockAddr;

use super::buffers::{BufferRing, Layout, Lease};
use super::datagram;

/// The buffer group of a ring; there is one.
const GROUP: u16 = 0;

/// What became of an operation. There is one of each, since it may carry a buffer or a descriptor.
#[derive(Debug)]
pub(crate) struct Completion {
    /// The number it was submitted with.
    pub(crate) token: u64,
    /// Not negative: its result. Negative: minus the error number.
    pub(crate) result: i32,
    flags: u32,
    buffer: Option<u16>,
}

impl Completion {
    /// The result as the library's functions give it.
    pub(crate) fn outcome(&self) -> io::Result<u32> {
        u32::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }

    /// Whether further completions of the same operation will follow.
    pub(crate) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }
}

/// How long [`Ring::enter`] may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all: there is other work.
    No,
    /// Until something completes.
    Forever,
    /// The same, but not for longer than this.
    AtMost(Duration),
}

/// The ring. It stays on the thread that made it.
pub(crate) struct Ring {
    // Dropped first: the kernel then lets go of the memory below.
    uring: IoUring,
    buffers: Option<BufferRing>,
    /// Addresses that the kernel hasn't copied yet.
    #[expect(clippy::vec_box, reason = "the kernel has their addresses while this vector grows")]
    addresses: Vec<Box<SockAddr>>,
    reaped: Vec<Completion>,
    /// How much room received datagrams are to leave for addresses and control messages; the kernel reads nothing else
    /// of it.
    datagrams: Box<libc::msghdr>,
}

impl Ring {
    /// A ring with room for `entries` operations between two calls of [`Ring::enter`].
    ///
    /// # Errors
    /// When the kernel has no io_uring, forbids it, or lacks what the engine rests on: `IORING_SETUP_DEFER_TASKRUN`
    /// (6.1), which came after multishot accept and receive (5.19, 6.0) and provided buffer rings (5.19).
    pub(crate) fn new(entries: u32) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(entries * 4)
            .dontfork()
            .build(entries)?;
        let params = uring.params();
        if !(params.is_feature_nodrop() && params.is_feature_submit_stable() && params.is_feature_ext_arg()) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self {
            uring,
            buffers: None,
            addresses: Vec::new(),
            reaped: Vec::new(),
            datagrams: Box::new(datagram::template()),
        })
    }

    /// Whether the kernel knows every operation that the engine uses.
    ///
    /// # Errors
    /// When it can't even be asked.
    pub(crate) fn knows_all_operations(&self) -> io::Result<bool> {
        let mut probe = Probe::new();
        self.uring.submitter().register_probe(&mut probe)?;
        let needed = [
            opcode::Accept::CODE,
            opcode::Connect::CODE,
            opcode::Recv::CODE,
            opcode::RecvMsg::CODE,
            opcode::PollAdd::CODE,
            opcode::AsyncCancel::CODE,
            opcode::MsgRingData::CODE,
        ];
        Ok(needed.into_iter().all(|code| probe.is_supported(code)))
    }

    /// Gives the ring buffers to receive into, once. A kernel that can't consume buffers incrementally gets them of
    /// `otherwise`'s layout.
    ///
    /// # Errors
    /// When memory is short, or the kernel refuses.
    pub(crate) fn provide_buffers(&mut self, wanted: Layout, otherwise: Layout) -> io::Result<()> {
        if self.buffers.is_none() {
            self.buffers = Some(self.register(wanted).or_else(|_| self.register(otherwise))?);
        }
        Ok(())
    }

    fn register(&self, layout: Layout) -> io::Result<BufferRing> {
        /// `IOU_PBUF_RING_INC` (linux/io_uring.h).
        const INCREMENTAL: u16 = 2;
        let buffers = BufferRing::new(layout)?;
        let flags = if layout.incremental { INCREMENTAL } else { 0 };
        let (address, count) = buffers.registration();
        // SAFETY: the queue is mapped with room for `count` entries and outlives the ring, which is dropped before
        // it; on an error nothing was registered.
        unsafe { self.uring.submitter().register_buf_ring_with_flags(address, count, GROUP, flags) }?;
        Ok(buffers)
    }

    /// The descriptor that [`Ring::tell`] of another thread's ring wants.
    pub(crate) fn number(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// Accepts every connection that comes, a completion each.
    pub(crate) fn accept_all(&mut self, listener: BorrowedFd<'_>, token: u64) {
        self.push(opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).flags(ACCEPTED).build(), token);
    }

    /// Connects a socket.
    pub(crate) fn connect(&mut self, socket: BorrowedFd<'_>, to: SockAddr, token: u64) {
        self.addresses.push(Box::new(to));
        if let Some(to) = self.addresses.last() {
            let connect = opcode::Connect::new(Fd(socket.as_raw_fd()), to.as_ptr().cast(), to.len());
            self.push(connect.build(), token);
        }
    }

    /// Receives whatever comes, into the ring's buffers, a completion each.
    pub(crate) fn receive_all(&mut self, socket: BorrowedFd<'_>, token: u64) {
        self.push(opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).build(), token);
    }

    /// Receives whatever datagrams come, with their senders and control messages, a completion each. What lies in the
    /// buffers is described at [`super::datagram`].
    pub(crate) fn receive_datagrams(&mut self, socket: BorrowedFd<'_>, token: u64) {
        let header: *const libc::msghdr = &raw const *self.datagrams;
        self.push(opcode::RecvMsgMulti::new(Fd(socket.as_raw_fd()), header, GROUP).build(), token);
    }

    /// Waits for one of `events` (poll(2)), errors or a hang-up.
    pub(crate) fn poll(&mut self, fd: BorrowedFd<'_>, events: i16, token: u64) {
        let events = u32::from(events.cast_unsigned());
        self.push(opcode::PollAdd::new(Fd(fd.as_raw_fd()), events).build(), token);
    }

    /// The same over and over.
    pub(crate) fn poll_all(&mut self, fd: BorrowedFd<'_>, events: i16, token: u64) {
        let events = u32::from(events.cast_unsigned());
        self.push(opcode::PollAdd::new(Fd(fd.as_raw_fd()), events).multi(true).build(), token);
    }

    /// Cancels the operation submitted with `operation`; its own completion tells when it is over.
    pub(crate) fn cancel(&mut self, operation: u64, token: u64) {
        self.push(opcode::AsyncCancel::new(operation).build(), token);
    }

    /// Cancels all operations on a descriptor.
    pub(crate) fn cancel_all(&mut self, fd: BorrowedFd<'_>, token: u64) {
        let all = CancelBuilder::fd(Fd(fd.as_raw_fd())).all();
        self.push(opcode::AsyncCancel2::new(all).build(), token);
    }

    /// Makes a completion with this token and result appear in another thread's ring.
    pub(crate) fn tell(&mut self, ring: RawFd, their_token: u64, result: i32, token: u64) {
        self.push(opcode::MsgRingData::new(Fd(ring), result, their_token, None).build(), token);
    }

    /// The buffer that a receive's completion brought, once. `None` where it brought none: the end of a stream, an error.
    pub(crate) fn received(&mut self, completion: &mut Completion) -> Option<Lease> {
        let buffer = completion.buffer.take()?;
        let len = u32::try_from(completion.result).unwrap_or(0);
        let more = cqueue::buffer_more(completion.flags);
        Some(self.buffers.as_mut()?.received(buffer, len, more))
    }

    /// The bytes of a lease.
    pub(crate) fn bytes(&self, lease: &Lease) -> &[u8] {
        self.buffers.as_ref().map_or(&[], |buffers| buffers.bytes(lease))
    }

    /// The bytes were passed on.
    pub(crate) fn give_back(&mut self, lease: Lease) {
        if let Some(buffers) = &mut self.buffers {
            buffers.give_back(lease);
        }
    }

    /// Submits everything now. What completes meanwhile is left for the next [`Ring::enter`]. Whether nothing is left:
    /// where memory is short, some may be.
    pub(crate) fn submit(&mut self) -> bool {
        const TRIES: u32 = 100;
        for _ in 0..TRIES {
            if self.uring.submission().is_empty() {
                return true;
            }
            match self.uring.submit() {
                Ok(_) => {}
                Err(error) if is_passing(&error) => self.make_room(),
                Err(_) => break,
            }
        }
        self.uring.submission().is_empty()
    }

    /// Whether small messages share a buffer.
    pub(crate) fn buffers_are_shared(&self) -> bool {
        self.buffers.as_ref().is_some_and(BufferRing::is_incremental)
    }

    /// Submits everything and fetches what has completed into `completions`, which is emptied first.
    ///
    /// # Errors
    /// When the kernel refuses for good. A signal or a lack of memory is none: the next call goes on.
    pub(crate) fn enter(&mut self, wait: Wait, completions: &mut Vec<Completion>) -> io::Result<()> {
        completions.clear();
        std::mem::swap(&mut self.reaped, completions);
        self.reap_into(completions);
        let wait = if completions.is_empty() { wait } else { Wait::No };
        let submitted = match wait {
            Wait::No => self.uring.submitter().submit(),
            Wait::Forever => self.uring.submitter().submit_and_wait(1),
            Wait::AtMost(time) => {
                let time = Timespec::from(time);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        match submitted {
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        if self.uring.submission().is_empty() {
            self.addresses.clear();
        }
        self.reap_into(completions);
        Ok(())
    }

    /// Takes completions out of the kernel's queue: it may refuse operations while that is full.
    fn make_room(&mut self) {
        let mut reaped = std::mem::take(&mut self.reaped);
        self.reap_into(&mut reaped);
        self.reaped = reaped;
    }

    fn reap_into(&mut self, completions: &mut Vec<Completion>) {
        completions.extend(self.uring.completion().map(|entry| Completion {
            token: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
            buffer: cqueue::buffer_select(entry.flags()),
        }));
    }

    /// # Panics
    /// When the kernel takes no operations any more: nothing could be served then, and a proxy that ends is replaced.
    fn push(&mut self, entry: Entry, token: u64) {
        let entry = entry.user_data(token);
        loop {
            // SAFETY: by this type's construction an entry names no memory but what the ring owns and what outlives it
            // (its buffers, the message header), and addresses kept until the kernel has copied them.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: the kernel takes what is there. If it can't because completions pile up, they are taken first.
            match self.uring.submit() {
                Ok(_) => {}
                Err(error) if is_passing(&error) => self.make_room(),
                Err(error) => panic!("io_uring takes no operations any more: {error}"),
            }
        }
    }
}

/// How accepted sockets are to be.
const ACCEPTED: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// Errors of io_uring_enter(2) after which everything is as before: the time is up, a signal, memory, completions that
/// must be taken first.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};

    const LAYOUT: Layout = Layout { count: 4, size: 4096, incremental: true };
    const OTHERWISE: Layout = Layout { incremental: false, ..LAYOUT };

    fn until(ring: &mut Ring, mut done: impl FnMut(&mut Ring, &mut Completion) -> bool) {
        let mut completions = Vec::new();
        for _ in 0..1000 {
            ring.enter(Wait::AtMost(Duration::from_millis(10)), &mut completions).unwrap();
            for mut completion in completions.drain(..) {
                if done(ring, &mut completion) {
                    return;
                }
            }
        }
        panic!("waited in vain");
    }

    /// Where a kernel or a sandbox has no io_uring there is nothing to test: the engine isn't chosen.
    fn ring() -> Option<Ring> {
        Ring::new(8).ok()
    }

    #[test]
    fn a_stream_is_accepted_received_and_its_end_seen() {
        let Some(mut ring) = ring() else { return };
        assert!(ring.knows_all_operations().unwrap());
        ring.provide_buffers(LAYOUT, OTHERWISE).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ring.accept_all(listener.as_fd(), 1);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut accepted = None;
        until(&mut ring, |_, c| {
            // SAFETY: the completion of an accept hands a new descriptor over, to nobody but us.
            accepted = Some(unsafe { OwnedFd::from_raw_fd(c.result) });
            c.token == 1 && c.more()
        });
        let accepted = accepted.unwrap();
        ring.receive_all(accepted.as_fd(), 2);
        client.write_all(&[7; 10_000]).unwrap();
        drop(client);
        let mut got = 0;
        until(&mut ring, |ring, c| {
            assert_eq!(c.token, 2);
            if let Some(lease) = ring.received(c) {
                assert!(ring.bytes(&lease).iter().all(|byte| *byte == 7));
                got += lease.len();
                ring.give_back(lease);
            } else if c.result == -libc::ENOBUFS {
                ring.receive_all(accepted.as_fd(), 2);
            }
            c.result == 0
        });
        assert_eq!(got, 10_000);
    }

    #[test]
    fn more_operations_than_the_queue_holds_are_all_carried_out() {
        let Some(mut ring) = ring() else { return };
        let (_near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        for token in 0..1000 {
            ring.poll(far.as_fd(), libc::POLLOUT, token);
        }
        let mut seen = std::collections::BTreeSet::new();
        until(&mut ring, |_, c| {
            seen.insert(c.token);
            seen.len() == 1000
        });
    }

    #[test]
    fn a_cancelled_operation_says_so() {
        let Some(mut ring) = ring() else { return };
        let (_near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        ring.poll(far.as_fd(), libc::POLLIN, 1);
        ring.cancel(1, 9);
        until(&mut ring, |_, c| c.token == 1 && c.result == -libc::ECANCELED);
        ring.poll_all(far.as_fd(), libc::POLLIN, 2);
        ring.cancel_all(far.as_fd(), 9);
        until(&mut ring, |_, c| c.token == 2 && c.result == -libc::ECANCELED && !c.more());
    }

    #[test]
    fn waiting_ends_when_the_time_is_up() {
        let Some(mut ring) = ring() else { return };
        let mut completions = Vec::new();
        ring.enter(Wait::AtMost(Duration::from_millis(1)), &mut completions).unwrap();
        assert!(completions.is_empty());
    }
}
