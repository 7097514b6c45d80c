//! UDP: a receive per listening socket and per flow in the ring, and a plain call for each datagram sent on.
//!
//! Everything happens on the main thread. Datagrams arrive in the ring's buffers, up to a ring full at a time, and are
//! sent on from there: nothing is copied or allocated for one. What a full socket doesn't take is dropped and counted,
//! as a network would. Datagrams of one size that come in a row are sent on with one call ([`super::run`]), and so are
//! batches that the kernel hands us as such (GRO), which is asked for on sockets of our own alone.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt};
use slab::Slab;
use socket2::Socket;

use super::reactor::ENTRIES;
use super::run::{Run, Way};
use super::shared::Shared;
use super::token::Token;
use crate::listen::{Listener, reason};
use crate::sources::{first_unspent, is_spent};
use crate::sys::buffers::{Layout, Lease};
use crate::sys::datagram::{self, OVERHEAD};
use crate::sys::ring::{Completion, Ring};
use crate::udp::{FlowKey, FlowTable, connect, is_shortage, local_of, segment_of, send_all, send_on};
use crate::{limits, log_error};

/// The largest datagram there is: IPv6 without jumbograms carries up to 65,527 bytes of payload.
const LARGEST: usize = 65_535;
/// A buffer for each datagram of a batch. Only the pages that datagrams reach are ever memory.
const BUFFERS: Layout = Layout { count: 32, size: 68 * 1024, incremental: false };
const _: () = assert!(BUFFERS.size as usize >= OVERHEAD + LARGEST, "the largest datagram fits");

/// A listening socket.
struct Receiver {
    socket: Socket,
    target: SocketAddr,
}

/// A flow's end at the backend. The slot lives until the ring has let go of the socket.
struct Backend {
    /// Gone when the flow is over.
    socket: Option<UdpSocket>,
    key: FlowKey,
    serial: u64,
    /// The turn in which its receive went into the ring: perhaps not to the kernel yet.
    armed: u64,
    /// The flow has ended.
    over: bool,
}

/// The listeners and flows of a UDP mapping.
pub(super) struct Datagrams {
    receivers: Vec<Receiver>,
    flows: FlowTable<Instant, u32>,
    backends: Slab<Backend>,
    /// Slots and serial numbers of flows that are over, whose receives are still to be cancelled.
    ended: Vec<(u32, u64)>,
    run: Run,
    /// Counts batches of completions.
    turn: u64,
    now: Instant,
    /// Receives of listeners in the ring.
    in_flight: usize,
    closing: bool,
    shared: Arc<Shared>,
}

/// A ring for datagrams.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn ring() -> io::Result<Ring> {
    let mut ring = Ring::new(ENTRIES)?;
    ring.provide_buffers(BUFFERS, BUFFERS)?;
    Ok(ring)
}

impl Datagrams {
    /// To be served on a [`ring`].
    pub(super) fn new(listeners: Vec<Listener>, inherited: bool, shared: Arc<Shared>) -> Self {
        let options = &shared.options;
        // A flow takes a descriptor: never more flows than descriptors.
        let most = limits::descriptor_budget(listeners.len(), 1);
        let bound = options.udp_flows.min(most.try_into().unwrap_or(options.udp_flows));
        let receiver = |listener: Listener| {
            // Others may come to serve a socket that isn't ours, and not expect them.
            if !inherited {
                take_batches(&listener.socket);
            }
            Receiver { socket: listener.socket, target: listener.target }
        };
        Self {
            receivers: listeners.into_iter().map(receiver).collect(),
            flows: FlowTable::new(bound, options.udp_timeout),
            backends: Slab::new(),
            ended: Vec::new(),
            run: Run::new(),
            turn: 0,
            now: Instant::now(),
            in_flight: 0,
            closing: false,
            shared,
        }
    }

    /// Begins to receive, on all listeners.
    pub(super) fn open(&mut self, ring: &mut Ring) {
        for (number, receiver) in (0..).zip(&self.receivers) {
            ring.receive_datagrams(receiver.socket.as_fd(), Token::Datagrams(number).encode());
        }
        self.in_flight = self.receivers.len();
    }

    /// A new batch of completions begins.
    pub(super) fn begin_turn(&mut self) {
        self.turn += 1;
        if !self.receivers.is_empty() {
            self.now = Instant::now();
        }
    }

    /// A datagram of a client's.
    pub(super) fn received(&mut self, listener: u32, mut completion: Completion, ring: &mut Ring) {
        if let Some(lease) = ring.received(&mut completion) {
            self.forward(listener, lease, ring);
        } else if let Err(error) = completion.outcome()
            && !matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ECANCELED))
        {
            // Errors of earlier replies surface here too (udp(7)); none of them is the end.
            self.trouble(&format_args!("receiving on listener {listener}: {}", reason(&error)));
        }
        if completion.more() {
            return;
        }
        match self.receivers.get(listener as usize) {
            Some(receiver) if !self.closing => {
                ring.receive_datagrams(receiver.socket.as_fd(), Token::Datagrams(listener).encode());
            }
            _ => self.in_flight -= 1,
        }
    }

    /// A reply of the backend's.
    pub(super) fn replied(&mut self, slot: u32, mut completion: Completion, ring: &mut Ring) {
        let backend = self.backends.get(slot as usize).filter(|backend| !backend.over);
        match (ring.received(&mut completion), backend) {
            (Some(lease), Some(backend)) => {
                self.flows.touch(&backend.key, backend.serial, self.now);
                self.join(Way::ToClient(slot), lease, ring);
            }
            (Some(lease), None) => ring.give_back(lease),
            (None, Some(_)) => {
                if let Err(error) = completion.outcome()
                    && !matches!(
                        error.raw_os_error(),
                        Some(libc::ENOBUFS | libc::ECANCELED | libc::ECONNREFUSED)
                    )
                {
                    self.trouble(&format_args!("receiving from the backend: {}", reason(&error)));
                }
            }
            (None, None) => {}
        }
        if !completion.more() {
            if self.backends.get(slot as usize).is_some_and(|backend| !backend.over) {
                self.receive_replies(slot, ring);
            } else if self.backends.contains(slot as usize) {
                self.backends.remove(slot as usize);
            }
        }
    }

    /// Sends what is left of a turn, ends flows that have been idle for too long, and lets go of those that are over.
    pub(super) fn tend(&mut self, ring: &mut Ring) {
        self.end_run(ring);
        if !self.flows.is_empty() {
            let now = Instant::now();
            while let Some(slot) = self.flows.expire(now) {
                self.end(slot);
            }
        }
        if self.ended.is_empty() {
            return;
        }
        // A slot that was given back meanwhile is another flow's.
        let backends = &self.backends;
        self.ended.retain(|(slot, serial)| backends.get(*slot as usize).is_some_and(|b| b.serial == *serial));
        for (slot, _) in &self.ended {
            ring.cancel(Token::Replies(*slot).encode(), Token::Nothing.encode());
        }
        // Sockets that are still open belong to operations the kernel doesn't know of yet.
        if !ring.submit() {
            return;
        }
        for (slot, _) in self.ended.drain(..) {
            if let Some(backend) = self.backends.get_mut(slot as usize) {
                backend.socket = None;
            }
        }
    }

    /// When to tend next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.flows.next_expiry()
    }

    /// Receives from nobody any more. The listening sockets are closed as soon as the ring lets go of them.
    pub(super) fn close(&mut self, ring: &mut Ring) {
        for (number, _) in (0..).zip(&self.receivers) {
            ring.cancel(Token::Datagrams(number).encode(), Token::Nothing.encode());
        }
        self.closing = true;
    }

    /// Whether the ring has let go of all listeners.
    pub(super) fn is_closed(&self) -> bool {
        self.in_flight == 0
    }

    /// Sends a client's datagrams on, by its flow or by a new one.
    fn forward(&mut self, listener: u32, lease: Lease, ring: &mut Ring) {
        let datagram = datagram::parse(ring.bytes(&lease));
        let key = datagram.and_then(|datagram| {
            Some(FlowKey { listener, client: datagram.from?, local: local_of(datagram.control) })
        });
        let target = self.receivers.get(listener as usize).map(|receiver| receiver.target);
        let (Some(key), Some(target)) = (key, target) else { return ring.give_back(lease) };
        let slot = match self.flows.lookup(&key, self.now) {
            Some(slot) => *slot,
            None => {
                // The new flow may take the place of one whose datagrams wait.
                self.end_run(ring);
                match self.open_flow(key, target) {
                    Ok(slot) => {
                        self.receive_replies(slot, ring);
                        slot
                    }
                    Err(error) => {
                        self.trouble(&format_args!("datagram to {target} dropped: {}", reason(&error)));
                        return ring.give_back(lease);
                    }
                }
            }
        };
        self.join(Way::ToBackend(slot), lease, ring);
    }

    /// Puts a datagram on its way, together with those before it if it is their like.
    fn join(&mut self, way: Way, lease: Lease, ring: &mut Ring) {
        let Some(datagram) = datagram::parse(ring.bytes(&lease)) else { return ring.give_back(lease) };
        let (len, segment) = (datagram.payload.len(), segment_of(datagram.control));
        if !self.run.takes(way, len) || segment.is_some() {
            self.end_run(ring);
        }
        if segment.is_some() {
            // A batch already.
            self.send(way, &[IoSlice::new(datagram::payload(ring.bytes(&lease)))], segment);
            ring.give_back(lease);
        } else {
            self.run.add(way, len, lease);
        }
    }

    fn end_run(&mut self, ring: &mut Ring) {
        let mut run = std::mem::replace(&mut self.run, Run::new());
        run.end(ring, |way, pieces, size| self.send(way, pieces, size));
        self.run = run;
    }

    fn send(&self, way: Way, pieces: &[IoSlice<'_>], segment: Option<u16>) {
        let (Way::ToBackend(slot) | Way::ToClient(slot)) = way;
        let Some(Backend { socket: Some(socket), key, .. }) = self.backends.get(slot as usize) else {
            return;
        };
        let Some(receiver) = self.receivers.get(key.listener as usize) else { return };
        let counters = &self.shared.counters;
        // Whatever a datagram runs into (a full queue, a firewall, no route), the flow stays: the next may pass.
        let (sent, traffic, whither) = match way {
            Way::ToBackend(_) => (send_on(socket, pieces, segment), &counters.to_backend, receiver.target),
            Way::ToClient(_) => {
                let sent = send_all(&receiver.socket, pieces, key.client, key.local, segment);
                (sent, &counters.to_client, key.client)
            }
        };
        match sent {
            Ok(()) => traffic.datagrams(pieces.iter().map(|piece| piece.len()).sum(), segment),
            Err(error) => self.trouble(&format_args!("datagram to {whither} dropped: {}", reason(&error))),
        }
    }

    fn open_flow(&mut self, key: FlowKey, target: SocketAddr) -> io::Result<u32> {
        let shared = Arc::clone(&self.shared);
        let connect = || first_unspent(&shared.sources, |source| connect(target, source));
        let socket = match connect() {
            // The flow idle longest has a descriptor, which is free at once.
            Err(error) if is_shortage(&error) && self.evict() => connect(),
            // Its port is only when the ring has let go of the socket: for the next datagram.
            Err(error) if is_spent(&error) => {
                self.evict();
                Err(error)
            }
            result => result,
        }?;
        take_batches(&socket);
        let entry = self.backends.vacant_entry();
        let slot = u32::try_from(entry.key()).unwrap_or(u32::MAX); // fewer flows than descriptors
        let (serial, evicted) = self.flows.insert(key, self.now, |_| slot);
        entry.insert(Backend { socket: Some(socket), key, serial, armed: self.turn, over: false });
        self.shared.counters.flows.open.up();
        self.shared.counters.flows.total.add(1);
        if let Some(evicted) = evicted {
            self.shared.counters.flows.evicted.add(1);
            self.end(evicted);
        }
        Ok(slot)
    }

    /// Ends the flow idle longest, if that gives its descriptor back at once.
    fn evict(&mut self) -> bool {
        let oldest = self.flows.oldest().and_then(|slot| self.backends.get(*slot as usize));
        if oldest.is_none_or(|backend| backend.armed == self.turn) {
            return false;
        }
        if let Some(slot) = self.flows.evict() {
            self.shared.counters.flows.evicted.add(1);
            self.end(slot);
        }
        true
    }

    /// A flow that left the table is over.
    fn end(&mut self, slot: u32) {
        self.shared.counters.flows.open.down();
        let Some(backend) = self.backends.get_mut(slot as usize) else { return };
        backend.over = true;
        self.ended.push((slot, backend.serial));
        if backend.armed < self.turn {
            // The kernel holds the socket for the receive that is under way, not the number.
            backend.socket = None;
        }
    }

    fn receive_replies(&mut self, slot: u32, ring: &mut Ring) {
        if let Some(Backend { socket: Some(socket), armed, .. }) = self.backends.get_mut(slot as usize) {
            *armed = self.turn;
            ring.receive_datagrams(socket.as_fd(), Token::Replies(slot).encode());
        }
    }

    fn trouble(&self, what: &std::fmt::Arguments<'_>) {
        self.shared.counters.errors.add(1);
        log_error!(Datagram, "{what}");
    }
}

/// Lets the kernel hand us many datagrams of one size at once. Where it can't, they come one by one.
fn take_batches(socket: &impl AsFd) {
    let _ = setsockopt(&socket.as_fd(), sockopt::UdpGroSegment, &true);
}
