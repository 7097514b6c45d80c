//! The rules of one pool, and the set against a naive model.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn set(subnet: &str) -> AddressSet {
    AddressSet::new(subnet.parse().unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn capacity_and_first_addresses_are_dockers() {
    // Subnet, gateway (the first address given), first container, containers that fit.
    let cases = [
        ("10.0.0.0/24", "10.0.0.1", Some("10.0.0.2"), 253),
        ("10.0.0.0/30", "10.0.0.1", Some("10.0.0.2"), 1),
        ("10.0.0.0/31", "10.0.0.0", Some("10.0.0.1"), 1),
        ("10.0.0.0/32", "10.0.0.0", None, 0),
        ("255.255.255.0/24", "255.255.255.1", Some("255.255.255.2"), 253),
        ("fd00::/120", "fd00::1", Some("fd00::2"), 254),
        ("fd00::/64", "fd00::1", Some("fd00::2"), (1 << 64) - 2),
        ("ffff::ffff:ffff:ffff:fffe/127", "ffff::ffff:ffff:ffff:ffff", None, 0),
    ];
    for (subnet, gateway, first, capacity) in cases {
        let mut set = set(subnet);
        assert_eq!(set.allocate(None), Ok(ip(gateway)), "{subnet}");
        assert_eq!(set.available(None), capacity, "{subnet}");
        assert_eq!(set.allocate(None).ok(), first.map(ip), "{subnet}");
    }
}

#[test]
fn wide_ipv6_gives_only_its_lower_half_unasked() {
    for subnet in ["fd00::/64", "fd00::/48", "::/0"] {
        let mut set = set(subnet);
        let first = number(set.subnet().network());
        let last = first + (1 << 63) - 1;
        set.used.runs = BTreeMap::from([(first, last - 1)]);
        assert_eq!(set.allocate(None), Ok(Family::V6.address(last)), "{subnet}");
        assert_eq!(set.allocate(None), Err(AddressError::Exhausted), "{subnet}");
        assert_eq!(set.take(Family::V6.address(last + 1)), Ok(()), "{subnet}");
    }
}

#[test]
fn single_addresses_are_taken_and_released() {
    let mut set = set("10.0.0.0/24");
    for taken in ["10.0.0.0", "10.0.0.255"] {
        assert_eq!(set.take(ip(taken)), Err(AddressError::InUse));
        assert_eq!(set.release(ip(taken)), Ok(false));
        assert!(set.contains(ip(taken)));
    }
    for outside in ["10.0.1.0", "9.255.255.255", "fd00::1"] {
        assert_eq!(set.take(ip(outside)), Err(AddressError::OutOfRange));
        assert_eq!(set.release(ip(outside)), Err(AddressError::OutOfRange));
        assert!(!set.contains(ip(outside)));
    }
    assert_eq!(set.take(ip("10.0.0.9")), Ok(()));
    assert_eq!(set.take(ip("10.0.0.9")), Err(AddressError::InUse));
    assert_eq!(set.release(ip("10.0.0.9")), Ok(true));
    assert_eq!(set.release(ip("10.0.0.9")), Ok(false));
}

#[test]
fn a_range_begins_at_its_first_address_and_ends_at_its_last() {
    let mut set = set("172.28.0.0/16");
    let range = Some("172.28.5.0/30".parse().unwrap());
    let got: Vec<_> = std::iter::from_fn(|| set.allocate(range).ok()).collect();
    assert_eq!(got, ["172.28.5.0", "172.28.5.1", "172.28.5.2", "172.28.5.3"].map(ip));
    assert_eq!(set.allocate(Some("10.0.0.0/8".parse().unwrap())), Err(AddressError::Exhausted));
    assert_eq!((set.in_use(), set.available(range)), (6, 0));
}

#[test]
fn a_set_comes_back_from_its_addresses() {
    let subnet = "10.0.0.0/24".parse().unwrap();
    let set = AddressSet::with_taken(subnet, ["10.0.0.2", "10.0.0.1", "10.0.0.7"].map(ip)).unwrap();
    let runs: Vec<_> = set.runs().map(|run| format!("{}-{}", run.start(), run.end())).collect();
    assert_eq!(runs, ["10.0.0.0-10.0.0.2", "10.0.0.7-10.0.0.7", "10.0.0.255-10.0.0.255"]);
    let twice = AddressSet::with_taken(subnet, ["10.0.0.2", "10.0.0.2"].map(ip));
    assert_eq!(twice, Err((ip("10.0.0.2"), AddressError::InUse)));
}

#[test]
fn a_whole_slash_16_and_a_million_of_a_slash_8_in_order() {
    let mut sixteen = set("172.17.0.0/16");
    let base = number(ip("172.17.0.0"));
    for host in 1..65_535 {
        assert_eq!(sixteen.allocate(None), Ok(Family::V4.address(base + host)));
    }
    assert_eq!(sixteen.allocate(None), Err(AddressError::Exhausted));
    assert_eq!(sixteen.runs().count(), 1);

    let mut eight = set("10.0.0.0/8");
    let base = number(ip("10.0.0.0"));
    for host in 1..=1_000_000 {
        assert_eq!(eight.allocate(None), Ok(Family::V4.address(base + host)));
    }
    assert_eq!(eight.release(ip("10.0.0.5")), Ok(true));
    assert_eq!(eight.allocate(None), Ok(ip("10.0.0.5")));
    assert_eq!((eight.in_use(), eight.runs().count()), (1_000_002, 2));
}

proptest! {
    #[test]
    fn it_agrees_with_a_naive_model(
        steps in proptest::collection::vec((0..4_u8, 0..64_u128), 1..200),
        v6 in any::<bool>(),
    ) {
        let mut set = set(if v6 { "fd00::/122" } else { "10.0.0.0/26" });
        let (first, last) = bounds(set.subnet());
        let family = Family::of_net(set.subnet());
        let reserved: BTreeSet<_> = reserved(set.subnet()).into_iter().flatten().collect();
        let range = IpNet::new(family.address(first + 16), family.bits() - 4).unwrap();
        let mut model = reserved.clone();
        for (what, host) in steps {
            let wanted = family.address(first + host);
            match what {
                0 | 1 => {
                    let span = if what == 0 { (first, last) } else { bounds(range) };
                    let lowest = (span.0..=span.1).find(|n| !model.contains(n));
                    let got = set.allocate((what == 1).then_some(range)).ok();
                    prop_assert_eq!(got, lowest.map(|n| family.address(n)));
                    model.extend(lowest);
                }
                2 => prop_assert_eq!(set.take(wanted).is_ok(), model.insert(first + host)),
                _ => {
                    let held = !reserved.contains(&(first + host)) && model.remove(&(first + host));
                    prop_assert_eq!(set.release(wanted), Ok(held));
                }
            }
            prop_assert_eq!(set.in_use(), model.len() as u128);
            prop_assert_eq!(set.available(Some(range)), 16 - model.range(first + 16..first + 32).count() as u128);
            let ends: Vec<_> = set.used.runs.iter().collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 + 1 < *pair[1].0), "runs are apart");
        }
        let leases = model.difference(&reserved).map(|n| family.address(*n));
        prop_assert_eq!(AddressSet::with_taken(set.subnet(), leases), Ok(set));
    }
}
