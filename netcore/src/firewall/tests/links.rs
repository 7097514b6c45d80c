//! Rules of links.

use super::*;

fn opens(from: &str, to: &str, proto: Proto, ports: PortRange) -> LinkPort {
    LinkPort { from: from.parse().unwrap(), to: to.parse().unwrap(), proto, ports }
}

/// The endpoint's links, on this bridge.
fn links(bridge: &str, ports: &[LinkPort]) -> Option<Arc<EndpointLinks>> {
    Some(Arc::new(EndpointLinks { bridge: bridge.parse().unwrap(), ports: ports.to_vec() }))
}

/// A network whose containers are kept apart, but for links of two of them; links on one that isn't, and on one that is
/// internal, open nothing.
fn linked() -> Facts {
    let mut apart = one();
    apart.icc = false;
    apart.ipv6.push("fd00:1::/64".parse().unwrap());
    let mut internal = network("br-i", "198.51.100.0/24");
    (internal.icc, internal.internal) = (false, true);
    let port = |from, to| opens(from, to, Proto::Tcp, range(80, 80));
    let first = [
        port("172.17.0.3", "172.17.0.2"),
        opens("172.17.0.3", "172.17.0.2", Proto::Udp, range(53, 54)),
        opens("172.17.0.3", "172.17.0.2", Proto::Tcp, range(79, 81)),
        port("fd00:1::3", "fd00:1::2"),
        opens("fd00:1::3", "fd00:1::2", Proto::Sctp, range(9, 11)),
        port("172.17.0.3", "fd00:1::2"), // leads nowhere
    ];
    let second = [port("172.17.0.4", "172.17.0.2")];
    Facts::new([apart, internal, network_of_two()], [], HostFacts::default()).unwrap().with_links([
        (id(1), links("br-a", &first)),
        (id(2), links("br-a", &second)),
        (id(3), links("br-b", &[port("192.0.2.3", "192.0.2.2")])),
        (id(4), links("br-i", &[port("198.51.100.3", "198.51.100.2")])),
        (id(5), links("br-none", &[port("203.0.113.3", "203.0.113.2")])),
    ])
}

#[test]
fn rules_of_links_are_as_reviewed() {
    let before = linked();
    check("links.nft", &nftables::replace(&before));
    check("links.v4", &fresh(&before, Family::V4));
    check("links.v6", &fresh(&before, Family::V6));
    // One gone, one at another address, one that opens nothing where it is.
    let port = opens("172.17.0.3", "172.17.0.9", Proto::Tcp, range(80, 80));
    let elsewhere = links("br-b", &[opens("192.0.2.9", "192.0.2.2", Proto::Tcp, range(80, 80))]);
    let after = before.with_links([(id(1), links("br-a", &[port])), (id(2), None), (id(3), elsewhere)]);
    check("links_change.nft", &nftables::change(&before, &after));
    check("links_change.v4", &iptables::change(&before, &after, Family::V4));
    check("links_change.v6", &iptables::change(&before, &after, Family::V6));
}

#[test]
fn a_network_that_is_no_longer_apart_needs_no_links() {
    let before = linked();
    let mut open = one();
    open.ipv6.push("fd00:1::/64".parse().unwrap());
    let after = Facts::new([open], [], HostFacts::default()).unwrap();
    let after = after.with_links(before.links().map(|(id, links)| (id, Some(Arc::clone(links)))));
    let change = nftables::change(&before, &after);
    assert!(change.contains("delete element inet portmap link4"), "{change}");
    let back = nftables::change(&after, &before);
    assert!(back.contains("add element inet portmap link4"), "{back}");
    assert!(!nftables::replace(&after).contains("element inet portmap link"));
}

#[test]
fn a_link_more_costs_a_link_beside_10_000() {
    let single = |port| opens("172.17.0.3", "172.17.0.2", Proto::Tcp, range(port, port));
    let many = (1..=10_000_u16).map(|number| {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        (EndpointId::from_random(bytes), links("br-a", &[single(number)]))
    });
    let mut apart = one();
    apart.icc = false;
    let before = Facts::new([apart], [], HostFacts::default()).unwrap().with_links(many);
    let after = before.with_links([(id(9), links("br-a", &[single(20_000)]))]);
    for (from, to) in [(&before, &after), (&after, &before)] {
        let texts = [nftables::change(from, to), iptables::change(from, to, Family::V4)];
        assert!(texts.iter().all(|text| !text.is_empty() && text.len() < 200), "{texts:?}");
        assert_eq!(iptables::change(from, to, Family::V6), "");
    }
}
