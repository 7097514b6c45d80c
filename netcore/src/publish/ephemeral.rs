//! Which ports may be handed out when nobody asks for a particular one.
//!
//! The kernel's own ephemeral range, without the ports its administrator reserved. Parsing is pure;
//! [`EphemeralPorts::of_this_host`] and [`EphemeralPorts::refresh`] read `/proc`.

use std::fmt;
use std::fs;

use super::ports::PortRange;
use super::portset::PortSet;

const RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED_FILE: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// What Docker falls back to when the kernel doesn't tell: the range IANA set aside.
const FALLBACK: (u16, u16) = (49_153, 65_535);

/// The ephemeral range and the ports in it that stay untouched.
#[derive(Clone)]
pub struct EphemeralPorts {
    range: PortRange,
    reserved: PortSet,
    /// What the kernel said, if this comes from there.
    source: Option<Source>,
}

/// The texts of the two files.
#[derive(Clone, PartialEq, Eq)]
struct Source {
    range: String,
    reserved: String,
}

/// Why a reserved-ports list was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReservedListError {
    /// An entry, or one side of it, is no port.
    #[error("invalid port \"{0}\"")]
    Port(String),
    /// A range that runs backwards.
    #[error("invalid port range \"{0}\"")]
    Range(String),
}

impl EphemeralPorts {
    /// All of `range`, nothing reserved.
    pub fn new(range: PortRange) -> Self {
        Self { range, reserved: PortSet::new(), source: None }
    }

    /// Reads the texts of `ip_local_port_range` (two numbers) and `ip_local_reserved_ports` (`N` and `N-M`, commas
    /// between). A range that can't be read is replaced by 49153–65535; a reserved list that can't is ignored as a
    /// whole, since half of it would protect the wrong ports.
    pub fn parse(range: &str, reserved: &str) -> Self {
        let mut ports = Self::new(parse_range(range).unwrap_or_else(fallback));
        // An unreadable list counts as an empty one: see above.
        let _ = ports.reserve(reserved);
        ports
    }

    /// What this network namespace's kernel says.
    pub fn of_this_host() -> Self {
        Self::of(Source::read())
    }

    /// Asks the kernel again, if this comes from there.
    pub fn refresh(&mut self) {
        let Some(known) = &self.source else { return };
        let now = Source::read();
        if *known != now {
            *self = Self::of(now);
        }
    }

    fn of(source: Source) -> Self {
        Self { source: Some(source.clone()), ..Self::parse(&source.range, &source.reserved) }
    }

    /// Adds the ports of a reserved list. Those outside the range don't matter and are dropped.
    ///
    /// # Errors
    /// If any entry is wrong; nothing is reserved then.
    pub fn reserve(&mut self, list: &str) -> Result<(), ReservedListError> {
        let mut found = Vec::new();
        for entry in list.trim().split(',').filter(|entry| !entry.is_empty()) {
            let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
            let port = |text: &str| text.parse::<u16>().map_err(|_| ReservedListError::Port(text.to_owned()));
            let ports = PortRange::new(port(first)?, port(last)?)
                .map_err(|_| ReservedListError::Range(entry.to_owned()))?;
            found.extend(ports.intersection(self.range));
        }
        for ports in found {
            self.reserved.insert(ports);
        }
        Ok(())
    }

    /// The whole range, reserved ports included.
    pub const fn range(&self) -> PortRange {
        self.range
    }

    pub(super) const fn reserved(&self) -> &PortSet {
        &self.reserved
    }
}

impl Source {
    /// A file that can't be read is an empty one.
    fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self { range: read(RANGE_FILE), reserved: read(RESERVED_FILE) }
    }
}

impl fmt::Debug for EphemeralPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EphemeralPorts").field("range", &self.range).finish_non_exhaustive()
    }
}

fn parse_range(text: &str) -> Option<PortRange> {
    let mut numbers = text.split_whitespace();
    let (first, last) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    PortRange::new(first, last).ok().filter(|range| range.first() > 0 && numbers.next().is_none())
}

fn fallback() -> PortRange {
    PortRange::new(FALLBACK.0, FALLBACK.1).expect("the fallback ascends")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved(ports: &EphemeralPorts) -> Vec<u16> {
        (0..=u16::MAX).filter(|port| ports.reserved.contains(*port)).collect()
    }

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).unwrap()
    }

    #[test]
    fn the_kernels_range_is_read_and_nonsense_falls_back() {
        assert_eq!(EphemeralPorts::parse("32768\t60999\n", "").range(), range(32_768, 60_999));
        for text in ["", "\n", "32768", "60999 32768", "0 100", "1 70000", "1 2 3", "a b"] {
            assert_eq!(EphemeralPorts::parse(text, "").range(), range(49_153, 65_535), "text {text:?}");
        }
    }

    #[test]
    fn a_reserved_list_is_clamped_to_the_range() {
        let mut ports = EphemeralPorts::new(range(1, 65_535));
        ports.reserve("8080,30000-30001,9148\n").unwrap();
        assert_eq!(reserved(&ports), [8080, 9148, 30_000, 30_001]);
        let ports = EphemeralPorts::parse("30000 40000", "29998-30001");
        assert_eq!(reserved(&ports), [30_000, 30_001]);
    }

    #[test]
    fn only_what_comes_from_the_kernel_is_read_again() {
        let mut own = EphemeralPorts::new(range(1, 2));
        own.refresh();
        assert_eq!(own.range(), range(1, 2));
        let stale = Source { range: "1 2".into(), reserved: "1".into() };
        let mut kernels = EphemeralPorts::of(stale);
        assert_eq!(reserved(&kernels), [1]);
        kernels.refresh();
        assert_eq!(kernels.range(), EphemeralPorts::of_this_host().range());
    }

    #[test]
    fn one_bad_entry_spoils_the_whole_list() {
        let cases = [
            ("abc", "invalid port \"abc\""),
            ("65536", "invalid port \"65536\""),
            ("30000-", "invalid port \"\""),
            ("8080,30002-30000", "invalid port range \"30002-30000\""),
        ];
        for (list, want) in cases {
            let mut ports = EphemeralPorts::new(range(1, 65_535));
            assert_eq!(ports.reserve(list).unwrap_err().to_string(), want, "list {list:?}");
            assert_eq!(reserved(&ports), [0_u16; 0], "list {list:?}");
            assert_eq!(reserved(&EphemeralPorts::parse("1 65535", list)), [0_u16; 0], "list {list:?}");
        }
        assert_eq!(reserved(&EphemeralPorts::parse("1 65535", "\n")), [0_u16; 0]);
    }
}
