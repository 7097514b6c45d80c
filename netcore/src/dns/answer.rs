//! What a query from a sandbox is answered with.
//!
//! A name that the sandbox sees is answered here whatever is asked of it, so that no local name leaves the host and no
//! stranger's NXDOMAIN takes away an address. What it doesn't see is for others, as the query came.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use super::query::{Forward, Refusal, Transport};
use super::reverse;
use super::zone::{Found, View, Zones};

/// What a sandbox's answers depend on, beside names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For how long an answer may be kept, in seconds.
    pub ttl: u32,
    /// Whether the sandbox's `ndots` was chosen by somebody: an unknown name without a dot is then none that others know.
    pub ndots_given: bool,
    /// Whether the sandbox's loopback has `::1`.
    pub ipv6: bool,
}

/// What to do about a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send this.
    Reply(Vec<u8>),
    /// Ask others.
    Forward(Box<Forward>),
    /// Say nothing.
    Drop,
}

impl Default for Settings {
    /// Docker's TTL.
    fn default() -> Self {
        Self { ttl: 600, ndots_given: false, ipv6: true }
    }
}

/// Decides about the bytes that came from the view's sandbox. `random` orders the addresses, and must differ from query
/// to query.
pub fn answer(
    bytes: &[u8],
    transport: Transport,
    zones: &Zones,
    view: &View,
    settings: &Settings,
    random: u64,
) -> Verdict {
    let query = match Forward::read(bytes, transport) {
        Ok(query) => query,
        Err(Refusal::Silence) => return Verdict::Drop,
        Err(Refusal::Reply(reply)) => return Verdict::Reply(reply),
    };
    let Some(known) = look_up(query.name(), zones, view, settings) else {
        let address = matches!(query.question.query_type(), RecordType::A | RecordType::AAAA);
        return if settings.ndots_given && address && query.name().iter().count() == 1 {
            Verdict::Reply(query.reply(ResponseCode::NoError, &[]))
        } else {
            Verdict::Forward(Box::new(query))
        };
    };
    if !matches!(query.question.query_class(), DNSClass::IN | DNSClass::ANY) {
        return Verdict::Reply(query.reply(ResponseCode::Refused, &[]));
    }
    let most = query.most_addresses();
    let data: Vec<RData> = match (query.question.query_type(), known) {
        (RecordType::A, Known::Addresses(found)) => {
            shuffled(found.v4, most, random).map(|ip| RData::A(A(ip))).collect()
        }
        (RecordType::AAAA, Known::Addresses(found)) => {
            shuffled(found.v6, most, random).map(|ip| RData::AAAA(AAAA(ip))).collect()
        }
        (RecordType::PTR, Known::Address(name)) => {
            name.into_iter().map(|name| RData::PTR(PTR(name))).collect()
        }
        _ => Vec::new(),
    };
    let records: Vec<(u32, RData)> = data.into_iter().map(|data| (settings.ttl, data)).collect();
    Verdict::Reply(query.reply(ResponseCode::NoError, &records))
}

enum Known {
    Addresses(Found),
    /// What the address is called, if a reply can have any of its names.
    Address(Option<Name>),
}

fn look_up(name: &Name, zones: &Zones, view: &View, settings: &Settings) -> Option<Known> {
    if let Some(address) = reverse::address(name)
        && let Some((names, network)) = zones.reverse(view, address)
    {
        return Some(Known::Address(reverse::full_name(names, network)));
    }
    // A dot inside a label would read as two labels.
    if name.is_root() || name.iter().any(|label| label.contains(&b'.')) {
        return None;
    }
    let text = name.iter().collect::<Vec<_>>().join(&b'.');
    let found = zones.find(view, &text).or_else(|| localhost(name, settings));
    found.map(Known::Addresses)
}

/// RFC 6761, section 6.3: neither `localhost` nor what is below it is for others to know.
fn localhost(name: &Name, settings: &Settings) -> Option<Found> {
    let local = name.iter().next_back().is_some_and(|label| label.eq_ignore_ascii_case(b"localhost"));
    let v6 = if settings.ipv6 { vec![Ipv6Addr::LOCALHOST] } else { Vec::new() };
    local.then(|| Found { v4: vec![Ipv4Addr::LOCALHOST], v6 })
}

/// At most one more than `most` of the addresses, in an order that depends on `random`: the one too many makes the reply
/// say that it isn't all.
fn shuffled<T>(mut addresses: Vec<T>, most: usize, mut random: u64) -> impl Iterator<Item = T> {
    let count = addresses.len().min(most + 1);
    for at in 0..count {
        let left = u64::try_from(addresses.len() - at).unwrap_or(u64::MAX);
        random = next(random);
        let chosen = usize::try_from(random % left).unwrap_or(0);
        addresses.swap(at, at + chosen);
    }
    addresses.into_iter().take(count)
}

/// Steele's SplitMix64: one number out of another, good enough to spread load.
pub(super) const fn next(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
