//! Datagrams of one size on their way to one place, sent with one call.
//!
//! A sender that has many datagrams to say says them in a row. Sent on one by one, each of them takes its own way through
//! the kernel; as one batch (`UDP_SEGMENT`, udp(7)) they take it together and are cut apart at its end. A run lasts no
//! longer than the completions at hand, so nothing waits for it.

use std::io::IoSlice;

use crate::sys::buffers::Lease;
use crate::sys::datagram::payload;
use crate::sys::ring::Ring;

/// What the kernel cuts at once (`UDP_MAX_SEGMENTS`; newer kernels take more).
const MOST: usize = 64;
/// The largest IPv4 payload: what the kernel takes at once.
const LARGEST: usize = 65_507;

/// Where datagrams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the backend, by the flow in this slot.
    ToBackend(u32),
    /// To the client of the flow in this slot.
    ToClient(u32),
}

/// Datagrams that wait for their like.
#[derive(Debug)]
pub(super) struct Run {
    way: Way,
    /// Of each, but perhaps the last.
    size: usize,
    /// The last one was shorter: no more can follow.
    complete: bool,
    datagrams: Vec<Lease>,
}

impl Run {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { way: Way::ToBackend(0), size: 0, complete: true, datagrams: Vec::new() }
    }

    /// Whether a datagram of `len` bytes may join.
    pub(super) fn takes(&self, way: Way, len: usize) -> bool {
        self.datagrams.is_empty()
            || (self.way == way
                && !self.complete
                && (1..=self.size).contains(&len)
                && self.datagrams.len() < MOST
                && (self.datagrams.len() + 1) * self.size <= LARGEST)
    }

    /// Lets a datagram of `len` bytes join; `takes` said that it may.
    pub(super) fn add(&mut self, way: Way, len: usize, datagram: Lease) {
        if self.datagrams.is_empty() {
            (self.way, self.size, self.complete) = (way, len, false);
        }
        self.complete |= len < self.size;
        self.datagrams.push(datagram);
    }

    /// Ends the run: `send` gets the way, the datagrams, and their size where there are several.
    pub(super) fn end(&mut self, ring: &mut Ring, send: impl FnOnce(Way, &[IoSlice<'_>], Option<u16>)) {
        if self.datagrams.is_empty() {
            return;
        }
        let mut pieces = [IoSlice::new(&[]); MOST];
        for (piece, datagram) in pieces.iter_mut().zip(&self.datagrams) {
            *piece = IoSlice::new(payload(ring.bytes(datagram)));
        }
        let size = if self.datagrams.len() > 1 { u16::try_from(self.size).ok() } else { None };
        send(self.way, &pieces[..self.datagrams.len()], size);
        for datagram in self.datagrams.drain(..) {
            ring.give_back(datagram);
        }
    }
}
