//! Chooses host ports: the book of what this process has given away, per address and protocol.
//!
//! A wildcard address stands for every address of its family, so `0.0.0.0` needs a port to be free on all known IPv4
//! addresses, and an IPv4 address needs it to be free on `0.0.0.0` too. The families don't touch each other.
//!
//! A search begins behind the port found last, so that a port just released isn't handed to somebody else at once.
//! Pure and in memory: whether the kernel agrees is found out by binding (`reserve`).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use super::ephemeral::EphemeralPorts;
use super::ports::{BadPortRange, PortRange, Proto};
use super::portset::PortSet;

/// The book of used ports.
pub struct Allocator {
    ephemeral: EphemeralPorts,
    used: HashMap<(IpAddr, Proto), PortSet>,
    /// The port found last in each range.
    last: HashMap<(IpAddr, Proto, PortRange), u16>,
}

/// Which host port is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortRequest {
    /// Any of the ephemeral range that isn't reserved.
    Ephemeral,
    /// This one.
    Exact(u16),
    /// Any of these.
    OneOf(PortRange),
}

/// Why no port could be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// The port that was asked for is taken.
    #[error("Bind for {ip}:{port} failed: port is already allocated")]
    Taken {
        /// The requested address it is taken on.
        ip: IpAddr,
        /// The port.
        port: u16,
    },
    /// Every port of the range is taken.
    #[error("all ports are allocated")]
    Exhausted,
    /// Nothing says where.
    #[error("no IP addresses specified")]
    NoAddress,
}

impl PortRequest {
    /// A request by its two ends: 0 and 0 is an ephemeral port, equal ends are that port.
    ///
    /// # Errors
    /// If only one end is 0 or the range runs backwards.
    pub fn between(first: u16, last: u16) -> Result<Self, BadPortRange> {
        let range = PortRange::new(first, last)?;
        match (first, last) {
            (0, 0) => Ok(Self::Ephemeral),
            (0, _) => Err(BadPortRange { first, last }),
            _ if range.is_single() => Ok(Self::Exact(first)),
            _ => Ok(Self::OneOf(range)),
        }
    }
}

impl Allocator {
    /// An empty book.
    pub fn new(ephemeral: EphemeralPorts) -> Self {
        Self { ephemeral, used: HashMap::new(), last: HashMap::new() }
    }

    /// Looks whether the administrator has changed what ephemeral ports there are. What is given away stays so.
    pub fn refresh(&mut self) {
        self.ephemeral.refresh();
    }

    /// Takes one port, the same on every address.
    ///
    /// # Errors
    /// If the exact port, or every candidate, is taken.
    pub fn allocate(
        &mut self,
        addresses: &[IpAddr],
        proto: Proto,
        request: PortRequest,
    ) -> Result<u16, AllocateError> {
        let range = match request {
            PortRequest::Exact(port) => {
                return self.claim(addresses, proto, PortRange::single(port)).map(|()| port);
            }
            PortRequest::OneOf(range) => range,
            PortRequest::Ephemeral => self.ephemeral.range(),
        };
        let first_address = *addresses.first().ok_or(AllocateError::NoAddress)?;
        let mut blocked = PortSet::new();
        for address in addresses {
            self.for_each_conflict(*address, proto, |used| blocked.unite(used));
        }
        if request == PortRequest::Ephemeral {
            blocked.unite(self.ephemeral.reserved());
        }
        let cursor = self.last.get(&(first_address, proto, range)).copied().unwrap_or_else(|| range.last());
        let behind = cursor.checked_add(1).and_then(|next| PortRange::new(next, range.last()).ok());
        let port = behind
            .and_then(|ports| blocked.first_missing(ports))
            .or_else(|| blocked.first_missing(range))
            .ok_or(AllocateError::Exhausted)?;
        for address in addresses {
            self.last.insert((*address, proto, range), port);
        }
        self.mark(addresses, proto, PortRange::single(port));
        Ok(port)
    }

    /// Takes all of `ports` on every address, or nothing.
    ///
    /// # Errors
    /// If any of them is taken; the error names the lowest.
    pub fn claim(
        &mut self,
        addresses: &[IpAddr],
        proto: Proto,
        ports: PortRange,
    ) -> Result<(), AllocateError> {
        if addresses.is_empty() {
            return Err(AllocateError::NoAddress);
        }
        for ip in addresses {
            let mut taken: Option<u16> = None;
            self.for_each_conflict(*ip, proto, |used| {
                taken = taken.into_iter().chain(used.first_in(ports)).min();
            });
            if let Some(port) = taken {
                return Err(AllocateError::Taken { ip: *ip, port });
            }
        }
        self.mark(addresses, proto, ports);
        Ok(())
    }

    /// Gives ports back. Ports that aren't taken stay free.
    pub fn release(&mut self, addresses: &[IpAddr], proto: Proto, ports: PortRange) {
        for address in addresses {
            if let Some(used) = self.used.get_mut(&(*address, proto)) {
                used.remove(ports);
                if used.is_empty() {
                    self.used.remove(&(*address, proto));
                }
            }
        }
    }

    fn mark(&mut self, addresses: &[IpAddr], proto: Proto, ports: PortRange) {
        for address in addresses {
            self.used.entry((*address, proto)).or_insert_with(PortSet::new).insert(ports);
        }
    }

    /// The used ports that a request for `address` must keep clear of.
    fn for_each_conflict(&self, address: IpAddr, proto: Proto, mut visit: impl FnMut(&PortSet)) {
        for ((other, _), used) in self.used.iter().filter(|((_, of), _)| *of == proto) {
            if addresses_conflict(address, *other) {
                visit(used);
            }
        }
    }
}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator").field("ephemeral", &self.ephemeral).finish_non_exhaustive()
    }
}

/// Whether one port can't be bound on both: the same address, or a wildcard and its own family.
pub(super) fn addresses_conflict(one: IpAddr, other: IpAddr) -> bool {
    one == other || (one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified()))
}

#[cfg(test)]
mod tests;
