//! Addresses as names under `in-addr.arpa` and `ip6.arpa`, and names as a reply has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// The address that a name stands for in a reverse lookup; none if it is some other name, or a whole subnet's.
pub(super) fn address(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&[u8]> = name.iter().collect();
    let (kind, labels) =
        labels.split_last().filter(|(top, _)| top.eq_ignore_ascii_case(b"arpa"))?.1.split_last()?;
    if kind.eq_ignore_ascii_case(b"in-addr") {
        let mut octets: [u8; 4] =
            labels.iter().map(|label| octet(label)).collect::<Option<Vec<_>>>()?.try_into().ok()?;
        octets.reverse();
        Some(Ipv4Addr::from(octets).into())
    } else if kind.eq_ignore_ascii_case(b"ip6") {
        let nibbles: [u8; 32] =
            labels.iter().map(|label| nibble(label)).collect::<Option<Vec<_>>>()?.try_into().ok()?;
        let bits = nibbles.iter().rev().fold(0, |bits: u128, nibble| bits << 4 | u128::from(*nibble));
        Some(Ipv6Addr::from(bits).into())
    } else {
        None
    }
}

/// The first of a sandbox's names that a reply can have, in its network: either may be too long for one.
pub(super) fn full_name(names: &[String], network: &str) -> Option<Name> {
    let full =
        |name: &String| Name::from_labels(name.split('.').chain(network.split('.')).map(str::as_bytes)).ok();
    names.iter().find_map(full)
}

fn octet(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let canonical = text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

fn nibble(label: &[u8]) -> Option<u8> {
    let [digit] = label else { return None };
    u8::try_from(char::from(*digit).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_labels(text.split('.').map(str::as_bytes)).unwrap()
    }

    #[test]
    fn only_whole_addresses_count() {
        let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.A.5.d.F.iP6.Arpa";
        let cases = [
            ("2.0.22.172.in-addr.arpa", Some("172.22.0.2")),
            ("2.0.22.172.IN-ADDR.ARPA", Some("172.22.0.2")),
            (six, Some("fd5a:1:2:3::2")),
            ("0.22.172.in-addr.arpa", None),
            ("1.2.0.22.172.in-addr.arpa", None),
            ("02.0.22.172.in-addr.arpa", None),
            ("256.0.22.172.in-addr.arpa", None),
            ("+2.0.22.172.in-addr.arpa", None),
            ("x.0.22.172.in-addr.arpa", None),
            ("2.0.22.172.in-addr.arpa.local", None),
            ("2.0.22.172.arpa", None),
            ("arpa", None),
            ("in-addr.arpa", None),
            (&six[2..], None),
            (&six.replacen('2', "g", 1), None),
            (&six.replacen('2', "22", 1), None),
        ];
        for (text, want) in cases {
            assert_eq!(address(&name(text)).map(|ip| ip.to_string()).as_deref(), want, "{text}");
        }
        assert_eq!(address(&Name::root()), None);
    }

    #[test]
    fn a_name_that_no_reply_can_have_gives_way_to_the_next() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let long = "x".repeat(64);
        let full =
            |list: &[&str], network: &str| full_name(&names(list), network).map(|name| name.to_string());
        assert_eq!(full(&["db.prod", "id"], "net.a").as_deref(), Some("db.prod.net.a."));
        assert_eq!(full(&[&long, "a..b", "id"], "net").as_deref(), Some("id.net."));
        assert_eq!(full(&["a"], &long), None);
        assert_eq!(full(&["a"], ""), None);
    }

    proptest! {
        #[test]
        fn every_address_has_a_name(ip: IpAddr) {
            let text = match ip {
                IpAddr::V4(ip) => {
                    let [a, b, c, d] = ip.octets();
                    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
                }
                IpAddr::V6(ip) => {
                    let digits = format!("{:032x}", u128::from(ip));
                    digits.chars().rev().map(|digit| format!("{digit}.")).collect::<String>() + "ip6.arpa"
                }
            };
            prop_assert_eq!(address(&name(&text)), Some(ip));
        }
    }
}
