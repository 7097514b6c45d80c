//! Prefixes as numbers: both families are ranges of `u128`, so that choosing and comparing is written once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// Address family. Displays as Docker's messages say it: `IPv4`, `IPv6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family of a prefix.
    pub const fn of_net(net: IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// How many bits an address has: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// `0.0.0.0` or `::`.
    pub const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// The address with this number. The number must come from an address of the same family.
    pub(super) fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => {
                let number = u32::try_from(number).expect("numbers of IPv4 addresses have 32 bits");
                IpAddr::V4(Ipv4Addr::from_bits(number))
            }
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The address as a number.
pub(super) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// First and last address of a prefix as numbers.
pub(super) fn bounds(net: IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

/// Whether two prefixes have an address in common.
pub(super) fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// A prefix that can't be read. The wording is that of Go's `netip`, which Docker's command line shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("netip.ParsePrefix({text:?}): {problem}")]
pub struct BadPrefix {
    text: String,
    problem: String,
}

/// Reads `10.0.0.0/8` or `fd00::/64` as Docker does. Host bits are kept: refusing them is the next stage's matter.
///
/// # Errors
/// If the text is no prefix, in Go's words.
pub fn parse_prefix(text: &str) -> Result<IpNet, BadPrefix> {
    let bad = |problem: String| BadPrefix { text: text.to_owned(), problem };
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| bad("no '/'".to_owned()))?;
    if address.contains('%') {
        return Err(bad("IPv6 zones cannot be present in a prefix".to_owned()));
    }
    let address =
        IpAddr::from_str(address).map_err(|_| bad(format!("ParseAddr({address:?}): unable to parse IP")))?;
    let digits = bits.bytes().all(|b| b.is_ascii_digit()) && !bits.is_empty();
    if !digits || (bits.len() > 1 && bits.starts_with('0')) {
        return Err(bad(format!("bad bits after slash: {bits:?}")));
    }
    let out_of_range = || bad("prefix length out of range".to_owned());
    let bits = bits.parse().map_err(|_| out_of_range())?;
    IpNet::new(address, bits).map_err(|_| out_of_range())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_read_as_go_reads_them() {
        let cases = [
            ("10.0.0.0/8", Ok("10.0.0.0/8")),
            ("10.10.10.0/8", Ok("10.10.10.0/8")),
            ("fd00:0::/64", Ok("fd00::/64")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("x", Err("netip.ParsePrefix(\"x\"): no '/'")),
            ("10.0.0.0", Err("netip.ParsePrefix(\"10.0.0.0\"): no '/'")),
            ("x/8", Err("netip.ParsePrefix(\"x/8\"): ParseAddr(\"x\"): unable to parse IP")),
            ("10.0.0.0/33", Err("netip.ParsePrefix(\"10.0.0.0/33\"): prefix length out of range")),
            ("10.0.0.0/999", Err("netip.ParsePrefix(\"10.0.0.0/999\"): prefix length out of range")),
            ("fd00::/129", Err("netip.ParsePrefix(\"fd00::/129\"): prefix length out of range")),
            ("10.0.0.0/", Err("netip.ParsePrefix(\"10.0.0.0/\"): bad bits after slash: \"\"")),
            ("10.0.0.0/+8", Err("netip.ParsePrefix(\"10.0.0.0/+8\"): bad bits after slash: \"+8\"")),
            ("10.0.0.0/08", Err("netip.ParsePrefix(\"10.0.0.0/08\"): bad bits after slash: \"08\"")),
            (
                "fe80::%eth0/64",
                Err("netip.ParsePrefix(\"fe80::%eth0/64\"): IPv6 zones cannot be present in a prefix"),
            ),
        ];
        for (text, want) in cases {
            let got = parse_prefix(text).map(|net| net.to_string()).map_err(|e| e.to_string());
            assert_eq!(got, want.map(String::from).map_err(String::from), "{text:?}");
        }
    }

    #[test]
    fn overlap_is_symmetric_and_keeps_families_apart() {
        let cases = [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/16", "10.1.0.0/16", false),
            ("10.0.0.0/8", "10.0.0.0/8", true),
            ("0.0.0.0/0", "::/0", false),
            ("fd00::/48", "fd00:0:0:9::/64", true),
        ];
        for (one, other, want) in cases {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!((overlap(one, other), overlap(other, one)), (want, want), "{one} {other}");
        }
    }
}
