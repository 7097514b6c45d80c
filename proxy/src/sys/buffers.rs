//! Memory that the kernel receives into: a ring of provided buffers (io_uring_register_buf_ring(3)).
//!
//! One ring serves all sockets of a thread: the kernel takes a buffer when data is there, and gets it back when the data
//! was passed on, so a connection that waits holds none. Where the kernel consumes buffers incrementally
//! (`IOU_PBUF_RING_INC`, since 6.12) small messages share one; a buffer comes back when all of it was used.
//!
//! The pages are mapped, not touched: what was never received into takes no memory.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// How the buffers of a ring are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// A power of two (the kernel's rule), at most 32,768.
    pub(crate) count: u16,
    /// Bytes in each.
    pub(crate) size: u32,
    /// Whether the kernel may fill a buffer piece by piece.
    pub(crate) incremental: bool,
}

/// Bytes the kernel has put into a buffer. It must be given back, or the buffer is lost to the ring.
#[derive(Debug)]
#[must_use = "a lease that isn't given back is a buffer lost"]
pub(crate) struct Lease {
    buffer: u16,
    start: u32,
    len: u32,
    /// Nothing more will come in this buffer.
    last: bool,
    /// It reaches the buffer's end, which may have cut what was there to receive.
    full: bool,
}

impl Lease {
    /// How many bytes.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the buffer's end may have cut what was there to receive.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }
}

/// The buffers, and the queue through which the kernel gets them.
#[derive(Debug)]
pub(crate) struct BufferRing {
    queue: NonNull<BufRingEntry>,
    data: NonNull<u8>,
    layout: Layout,
    /// Where the kernel goes on in each buffer.
    used: Box<[u32]>,
    /// How many buffers were handed over so far, as the kernel counts: modulo 2^16.
    tail: u16,
}

impl BufferRing {
    /// Maps the memory and fills the queue; the kernel isn't told yet.
    pub(crate) fn new(layout: Layout) -> io::Result<Self> {
        let data = map(layout.data_bytes())?;
        let queue = match map(layout.queue_bytes()) {
            Ok(queue) => queue.cast(),
            Err(error) => {
                unmap(data, layout.data_bytes());
                return Err(error);
            }
        };
        let mut ring = Self { queue, data, layout, used: vec![0; usize::from(layout.count)].into(), tail: 0 };
        for buffer in 0..layout.count {
            ring.hand_over(buffer);
        }
        Ok(ring)
    }

    /// Whether messages share a buffer.
    pub(crate) fn is_incremental(&self) -> bool {
        self.layout.incremental
    }

    /// Where the queue is, and how many buffers it holds; for registering it.
    pub(crate) fn registration(&self) -> (u64, u16) {
        (self.queue.as_ptr() as u64, self.layout.count)
    }

    /// The kernel says that it put `len` bytes into `buffer` and whether more will follow there.
    pub(crate) fn received(&mut self, buffer: u16, len: u32, more: bool) -> Lease {
        let used = &mut self.used[usize::from(buffer)];
        let start = *used;
        let last = !(self.layout.incremental && more);
        *used = if last { 0 } else { start + len };
        // The kernel never writes past a buffer's end; a number that says so must not let us read there.
        let len = len.min(self.layout.size.saturating_sub(start));
        Lease { buffer, start, len, last, full: start + len == self.layout.size }
    }

    /// The bytes of a lease.
    pub(crate) fn bytes(&self, lease: &Lease) -> &[u8] {
        let offset = usize::from(lease.buffer) * self.layout.size as usize + lease.start as usize;
        debug_assert!(offset + lease.len() <= self.layout.data_bytes(), "a lease beyond the buffers");
        // SAFETY: `received` checked that the lease lies within its buffer, hence within the mapping, which lives as
        // long as `self`. The kernel wrote these bytes before it told us and writes no others into them before the
        // buffer is handed over again, which takes the lease.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr().add(offset), lease.len()) }
    }

    /// The bytes were passed on.
    pub(crate) fn give_back(&mut self, lease: Lease) {
        if lease.last {
            self.hand_over(lease.buffer);
        }
    }

    fn hand_over(&mut self, buffer: u16) {
        let slot = usize::from(self.tail & (self.layout.count - 1));
        let offset = usize::from(buffer) * self.layout.size as usize;
        // SAFETY: `slot` is below the queue's length, and the mapping is large enough for that many entries, aligned
        // to a page. The kernel reads an entry, and writes it where it consumes buffers incrementally, only between
        // the tail that announces it and its last use; this one is not announced yet.
        let entry = unsafe { &mut *self.queue.as_ptr().add(slot) };
        entry.set_addr(self.data.as_ptr() as u64 + offset as u64);
        entry.set_len(self.layout.size);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the queue is mapped and initialised (zeroed by the kernel), and its first entry holds the tail.
        let tail = unsafe { BufRingEntry::tail(self.queue.as_ptr()) };
        // SAFETY: the tail is two aligned bytes within the mapping, shared with the kernel and written by us alone.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // Its owner has closed the io_uring before: nobody receives into it any more.
        unmap(self.data, self.layout.data_bytes());
        unmap(self.queue.cast(), self.layout.queue_bytes());
    }
}

impl Layout {
    fn data_bytes(self) -> usize {
        usize::from(self.count) * self.size as usize
    }

    fn queue_bytes(self) -> usize {
        usize::from(self.count) * size_of::<BufRingEntry>()
    }
}

fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let bytes = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping wherever the kernel likes replaces nothing.
    let mapping = unsafe { mmap_anonymous(None, bytes, access, flags) }?;
    Ok(mapping.cast())
}

fn unmap(address: NonNull<u8>, bytes: usize) {
    // SAFETY: only called for a mapping of ours with its own length, by its owner, once.
    let _ = unsafe { munmap(address.cast(), bytes) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incremental_buffer_is_read_piece_by_piece() {
        let mut ring = BufferRing::new(Layout { count: 2, size: 4096, incremental: true }).unwrap();
        let first = ring.received(1, 100, true);
        let second = ring.received(1, 50, true);
        assert_eq!((first.start, second.start), (0, 100));
        assert_eq!(ring.bytes(&second).as_ptr() as usize - ring.bytes(&first).as_ptr() as usize, 100);
        let tail = ring.tail;
        ring.give_back(first);
        ring.give_back(second);
        assert_eq!(ring.tail, tail, "the kernel still has the rest of it");
        let last = ring.received(1, 4096 - 150, false);
        assert!(last.is_full());
        ring.give_back(last);
        assert_eq!(ring.tail, tail + 1);
        let again = ring.received(1, 10, true);
        assert!(again.start == 0 && !again.is_full());
        ring.give_back(again);
    }

    #[test]
    fn a_whole_buffer_goes_back_at_once() {
        let mut ring = BufferRing::new(Layout { count: 4, size: 4096, incremental: false }).unwrap();
        assert_eq!(ring.tail, 4);
        let lease = ring.received(3, 9, false);
        assert_eq!(ring.bytes(&lease), [0; 9]);
        ring.give_back(lease);
        assert_eq!(ring.tail, 5);
    }

    #[test]
    fn a_length_that_cannot_be_is_cut() {
        let mut ring = BufferRing::new(Layout { count: 1, size: 4096, incremental: false }).unwrap();
        let lease = ring.received(0, 1 << 30, false);
        assert_eq!(lease.len(), 4096);
        ring.give_back(lease);
    }
}
