//! Sockets that belong together: a run of host ports on some addresses, held under this process's descriptors.
//!
//! Their order is part of the type: port by port, and for each port address by address. That is what lets a reservation be
//! split by address (another target, another spec) and by port (a proxy program that serves one socket).
//!
//! Not here: how the sockets are had (`reserve`), who serves them (`proxies`).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::allocator::Allocator;
use super::ports::{PortRange, Proto};
use super::reserve::ReserveError;
use super::socket;

/// Bound sockets, TCP and SCTP ones listening, for a run of host ports on some addresses.
///
/// Until a proxy is started they drop all that arrives. Dropping it closes the sockets; [`Reservation::release`] gives the
/// numbers back too.
#[derive(Debug)]
pub struct Reservation {
    proto: Proto,
    container: PortRange,
    host: PortRange,
    addresses: Vec<IpAddr>,
    /// The spec that each address comes from.
    specs: Vec<usize>,
    /// As many as [`places`] gives, in that order; or none, if somebody else holds them.
    sockets: Vec<OwnedFd>,
}

/// Every host address and port, in the order in which a reservation keeps its sockets.
pub(super) fn places(addresses: &[IpAddr], ports: PortRange) -> impl Iterator<Item = SocketAddr> {
    ports.iter().flat_map(move |port| addresses.iter().map(move |ip| SocketAddr::new(*ip, port)))
}

impl Reservation {
    /// `specs`: for each address one. `sockets`: one for each of [`places`], or none.
    pub(super) fn new(
        proto: Proto,
        (host, container): (PortRange, PortRange),
        addresses: Vec<IpAddr>,
        specs: Vec<usize>,
        sockets: Vec<OwnedFd>,
    ) -> Self {
        Self { proto, container, host, addresses, specs, sockets }
    }

    /// Protocol of all sockets.
    pub const fn proto(&self) -> Proto {
        self.proto
    }

    /// Container ports, first to first and last to last with [`Self::host`].
    pub const fn container(&self) -> PortRange {
        self.container
    }

    /// Bound host ports.
    pub const fn host(&self) -> PortRange {
        self.host
    }

    /// The addresses on which each port is bound.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// For each address the spec that wants it, as an index into what [`plan`](super::plan) was given.
    pub fn specs(&self) -> &[usize] {
        &self.specs
    }

    /// The sockets: port by port, and for each port in the order of [`Self::addresses`].
    pub fn sockets(&self) -> impl ExactSizeIterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// Closes the sockets and gives the numbers back, in this order.
    pub fn release(mut self, numbers: &mut Allocator) {
        self.close();
        numbers.release(&self.addresses, self.proto, self.host);
    }

    /// Closes the sockets. Others who hold duplicates keep the ports until they close theirs.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
    }

    /// With sockets that somebody else has bound: for each of [`places`] one, or none.
    pub(super) fn with(self, sockets: Vec<OwnedFd>) -> Self {
        Self { sockets, ..self }
    }

    /// The whole of it, and what is left behind has no address and no socket.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self::new(self.proto, (self.host, self.container), Vec::new(), Vec::new(), Vec::new());
        std::mem::replace(self, empty)
    }

    /// Has the sockets bound if they aren't. They drop what arrives then.
    pub(super) fn open(&mut self) -> Result<(), ReserveError> {
        if self.sockets.is_empty() {
            self.sockets = places(&self.addresses, self.host)
                .map(|at| socket::open(at, self.proto))
                .collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    /// Lets in what arrives.
    pub(super) fn hear(&self) -> io::Result<()> {
        self.sockets.iter().try_for_each(socket::hear)
    }

    /// Drops what arrives: all sockets it can be done for, and the first reason why not.
    pub(super) fn deafen(&self) -> io::Result<()> {
        self.sockets.iter().map(socket::deafen).fold(Ok(()), Result::and)
    }

    /// Those of its addresses that share what `kind` says of them, apart from the others. Numbers and sockets go along.
    pub(super) fn split_by<K: PartialEq>(self, kind: impl Fn(IpAddr, usize) -> K) -> Vec<(K, Self)> {
        let mut parts: Vec<(K, Self)> = Vec::new();
        let mut part_of = Vec::with_capacity(self.addresses.len());
        for (address, spec) in self.addresses.iter().zip(&self.specs) {
            let key = kind(*address, *spec);
            let at = parts.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
                parts.push((key, Self::new(self.proto, (self.host, self.container), vec![], vec![], vec![])));
                parts.len() - 1
            });
            parts[at].1.addresses.push(*address);
            parts[at].1.specs.push(*spec);
            part_of.push(at);
        }
        for (socket, at) in self.sockets.into_iter().zip(part_of.iter().cycle()) {
            parts[*at].1.sockets.push(socket);
        }
        parts
    }

    /// One for each socket.
    pub(super) fn split_all(self) -> Vec<Self> {
        let mut sockets = self.sockets.into_iter();
        let mut parts = Vec::new();
        for (host, container) in self.host.iter().zip(self.container.iter()) {
            for (address, spec) in self.addresses.iter().zip(&self.specs) {
                parts.push(Self {
                    proto: self.proto,
                    container: PortRange::single(container),
                    host: PortRange::single(host),
                    addresses: vec![*address],
                    specs: vec![*spec],
                    sockets: sockets.next().into_iter().collect(),
                });
            }
        }
        parts
    }

    /// Whether `next` is the following port of the same specs, on the same addresses.
    pub(super) fn continues_with(&self, next: &Self) -> bool {
        let follows = |a: PortRange, b: PortRange| a.last().checked_add(1) == Some(b.first());
        self.proto == next.proto
            && follows(self.host, next.host)
            && follows(self.container, next.container)
            && self.addresses == next.addresses
            && self.specs == next.specs
    }

    pub(super) fn append(&mut self, next: Self) {
        let join = |a: PortRange, b: PortRange| {
            PortRange::new(a.first(), b.last()).expect("`continues_with` says that b follows a")
        };
        self.host = join(self.host, next.host);
        self.container = join(self.container, next.container);
        self.sockets.extend(next.sockets);
    }
}
