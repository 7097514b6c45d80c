//! The addresses of one pool: which are taken, and which is the lowest free one.
//!
//! Taken addresses are kept as maximal runs, sorted by their first address. Two runs never touch, so the address behind
//! a run is free: the lowest free address of a range is found by looking up one run, however many addresses it has.
//! Every operation is O(log runs); a pool that fills from below is one run, whether it is a /24, a /8 or an IPv6 /64.
//! The worst case, every second address taken, costs some 40 bytes for each, less than the row of its lease. A bitmap
//! would be smaller there, but in an IPv6 pool it needs a tree above it and a second one to skip what is full.
//!
//! What nobody may have is taken from the start and can't be released: in IPv4 the network and broadcast address
//! (not in a /31 or /32), in IPv6 the subnet-router anycast address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::prefix::{Family, bounds, number};

/// In an IPv6 range of 2^64 addresses or more, only the lower 2^63 are given out unasked.
const DYNAMIC_LIMIT: u128 = 1 << 63;

/// The addresses of one subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSet {
    subnet: IpNet,
    used: Runs,
}

/// Why an address can't be had. Texts are Docker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Somebody has it, or nobody may.
    #[error("Address already in use")]
    InUse,
    /// It isn't part of the subnet.
    #[error("requested address is out of range")]
    OutOfRange,
    /// Every address of the range is taken.
    #[error("no available addresses on this pool")]
    Exhausted,
}

impl AddressSet {
    /// A set in which only the reserved addresses of `subnet` are taken. Host bits are dropped.
    pub fn new(subnet: IpNet) -> Self {
        let subnet = subnet.trunc();
        let mut used = Runs::default();
        for reserved in reserved(subnet).into_iter().flatten() {
            used.insert(reserved);
        }
        Self { subnet, used }
    }

    /// A set in which `taken` are taken besides: how the store's leases become a set again.
    ///
    /// # Errors
    /// If an address is outside the subnet, reserved, or there twice: the leases contradict each other.
    pub fn with_taken(
        subnet: IpNet,
        taken: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Self, (IpAddr, AddressError)> {
        let mut set = Self::new(subnet);
        for ip in taken {
            set.take(ip).map_err(|error| (ip, error))?;
        }
        Ok(set)
    }

    /// Takes the lowest free address, of `range` if there is one.
    ///
    /// # Errors
    /// If none is free, or the range has nothing in common with the subnet.
    pub fn allocate(&mut self, range: Option<IpNet>) -> Result<IpAddr, AddressError> {
        let (first, last) = self.span(range).ok_or(AddressError::Exhausted)?;
        let wide = Family::of_net(self.subnet) == Family::V6 && last - first >= u128::from(u64::MAX);
        let last = if wide { first + (DYNAMIC_LIMIT - 1) } else { last };
        let found = self.used.first_missing(first).filter(|found| *found <= last);
        let found = found.ok_or(AddressError::Exhausted)?;
        self.used.insert(found);
        Ok(Family::of_net(self.subnet).address(found))
    }

    /// Takes `ip`.
    ///
    /// # Errors
    /// If it is taken, reserved or outside the subnet.
    pub fn take(&mut self, ip: IpAddr) -> Result<(), AddressError> {
        if !self.subnet.contains(&ip) {
            return Err(AddressError::OutOfRange);
        }
        if self.used.insert(number(ip)) { Ok(()) } else { Err(AddressError::InUse) }
    }

    /// Gives `ip` back; whether it had been taken. Reserved addresses stay reserved.
    ///
    /// # Errors
    /// If it is outside the subnet.
    pub fn release(&mut self, ip: IpAddr) -> Result<bool, AddressError> {
        if !self.subnet.contains(&ip) {
            return Err(AddressError::OutOfRange);
        }
        let number = number(ip);
        Ok(!reserved(self.subnet).contains(&Some(number)) && self.used.remove(number))
    }

    /// The subnet, without host bits.
    pub const fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// Whether `ip` is taken or reserved.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.subnet.contains(&ip) && self.used.contains(number(ip))
    }

    /// How many addresses are taken, the reserved ones included (Docker's `IPsInUse`).
    pub const fn in_use(&self) -> u128 {
        self.used.len
    }

    /// How many addresses of `range`, or of the subnet, are free (Docker's `DynamicIPsAvailable`). Costs time in
    /// proportion to the runs.
    pub fn available(&self, range: Option<IpNet>) -> u128 {
        self.span(range).map_or(0, |(first, last)| {
            (last - first).saturating_add(1).saturating_sub(self.used.count(first, last))
        })
    }

    /// What is taken or reserved, as maximal runs in ascending order: the set in few words, for a log or a picture.
    pub fn runs(&self) -> impl Iterator<Item = RangeInclusive<IpAddr>> {
        let family = Family::of_net(self.subnet);
        self.used.runs.iter().map(move |(first, last)| family.address(*first)..=family.address(*last))
    }

    /// The addresses that both the subnet and `range` have.
    fn span(&self, range: Option<IpNet>) -> Option<(u128, u128)> {
        let (first, last) = bounds(self.subnet);
        let Some(range) = range else { return Some((first, last)) };
        let (from, upto) = bounds(range);
        let both = (first.max(from), last.min(upto));
        (Family::of_net(range) == Family::of_net(self.subnet) && both.0 <= both.1).then_some(both)
    }
}

/// What nobody may have in `subnet`.
fn reserved(subnet: IpNet) -> [Option<u128>; 2] {
    let (first, last) = bounds(subnet);
    match Family::of_net(subnet) {
        Family::V4 if last - first > 1 => [Some(first), Some(last)],
        Family::V4 => [None, None],
        // RFC 4291 section 2.6.1. RFC 6164 lifts it for the two ends of a /127, Docker doesn't; but a /128 would
        // have no address at all, and then the gateway would have none, as in an IPv4 /32.
        Family::V6 => [(last > first).then_some(first), None],
    }
}

/// A set of numbers as maximal runs: first to last, and no two runs touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Runs {
    runs: BTreeMap<u128, u128>,
    len: u128,
}

impl Runs {
    /// Whether `number` is new.
    fn insert(&mut self, number: u128) -> bool {
        let below = self.run_from(number);
        if below.is_some_and(|(_, last)| last >= number) {
            return false;
        }
        let first = match below {
            Some((first, last)) if last + 1 == number => first,
            _ => number,
        };
        let above = number.checked_add(1).and_then(|next| self.runs.remove(&next));
        self.runs.insert(first, above.unwrap_or(number));
        self.len += 1;
        true
    }

    /// Whether `number` was there.
    fn remove(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.run_from(number).filter(|(_, last)| *last >= number) else {
            return false;
        };
        if first == number {
            self.runs.remove(&first);
        } else {
            self.runs.insert(first, number - 1);
        }
        if number < last {
            self.runs.insert(number + 1, last);
        }
        self.len -= 1;
        true
    }

    fn contains(&self, number: u128) -> bool {
        self.run_from(number).is_some_and(|(_, last)| last >= number)
    }

    /// Lowest number from `from` on that isn't in the set.
    fn first_missing(&self, from: u128) -> Option<u128> {
        match self.run_from(from) {
            Some((_, last)) if last >= from => last.checked_add(1),
            _ => Some(from),
        }
    }

    /// How many numbers of `first` to `last` are in the set.
    fn count(&self, first: u128, last: u128) -> u128 {
        let start = self.run_from(first).map_or(first, |(start, _)| start);
        let runs = self.runs.range(start..=last).filter(|(_, end)| **end >= first);
        runs.map(|(start, end)| *end.min(&last) - *start.max(&first) + 1).sum()
    }

    /// The last run that begins at or below `number`.
    fn run_from(&self, number: u128) -> Option<(u128, u128)> {
        self.runs.range(..=number).next_back().map(|(first, last)| (*first, *last))
    }
}

#[cfg(test)]
mod tests;
