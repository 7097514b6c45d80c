//! The words of port publishing: protocols and port ranges.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Transport protocol of a published port. Ordered by IP protocol number, which is the order ports are taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP, protocol 6.
    Tcp,
    /// UDP, protocol 17.
    Udp,
    /// SCTP, protocol 132.
    Sctp,
}

/// A protocol word that names none of [`Proto`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown protocol")]
pub struct UnknownProto;

impl Proto {
    /// The word used on command lines and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Accepts any case, as Docker does.
impl FromStr for Proto {
    type Err = UnknownProto;

    fn from_str(word: &str) -> Result<Self, UnknownProto> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|proto| word.eq_ignore_ascii_case(proto.name()))
            .ok_or(UnknownProto)
    }
}

/// One port or an ascending run of ports. Port 0 may appear: the grammar allows it, later stages don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "(u16, u16)", try_from = "(u16, u16)")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// A range that runs backwards, or one whose numbers can't be host ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid port range: {first}-{last}")]
pub struct BadPortRange {
    /// The lower end as it was given.
    pub first: u16,
    /// The upper end as it was given.
    pub last: u16,
}

impl PortRange {
    /// The ports `first` to `last`, both included.
    ///
    /// # Errors
    /// If `last` is below `first`.
    pub const fn new(first: u16, last: u16) -> Result<Self, BadPortRange> {
        if last < first { Err(BadPortRange { first, last }) } else { Ok(Self { first, last }) }
    }

    /// Just `port`.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports: 1 to 65,536.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Whether this is one port only.
    pub const fn is_single(self) -> bool {
        self.first == self.last
    }

    /// Whether `port` is inside.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// The ports both have.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last)).ok()
    }

    /// Every port, ascending.
    pub const fn iter(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// As it is stored: both ends.
impl TryFrom<(u16, u16)> for PortRange {
    type Error = BadPortRange;

    fn try_from((first, last): (u16, u16)) -> Result<Self, BadPortRange> {
        Self::new(first, last)
    }
}

impl From<PortRange> for (u16, u16) {
    fn from(range: PortRange) -> Self {
        (range.first, range.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_read_in_any_case_and_print_in_lower_case() {
        for (word, want) in [("tcp", Proto::Tcp), ("UDP", Proto::Udp), ("Sctp", Proto::Sctp)] {
            assert_eq!(word.parse(), Ok(want));
            assert_eq!(want.to_string(), word.to_lowercase());
        }
        for word in ["", "ncp", "tcp/udp", " tcp"] {
            let error = word.parse::<Proto>().unwrap_err();
            assert_eq!(error.to_string(), "unknown protocol", "{word:?}");
        }
    }

    #[test]
    fn a_range_knows_its_ports() {
        let range = PortRange::new(80, 82).unwrap();
        assert_eq!((range.count(), range.is_single(), range.to_string()), (3, false, "80-82".into()));
        assert_eq!(range.iter().collect::<Vec<_>>(), [80, 81, 82]);
        assert!(range.contains(80) && range.contains(82) && !range.contains(83));
        assert_eq!(range.intersection(PortRange::new(82, 90).unwrap()), Some(PortRange::single(82)));
        assert_eq!(range.intersection(PortRange::new(83, 90).unwrap()), None);
        assert_eq!(PortRange::new(0, u16::MAX).unwrap().count(), 65_536);
        assert_eq!(PortRange::single(7).to_string(), "7");
        assert_eq!(PortRange::new(82, 80).unwrap_err().to_string(), "invalid port range: 82-80");
    }
}
