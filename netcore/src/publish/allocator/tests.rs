//! Docker's allocator scenarios, and a comparison with a naive book that looks at every port one by one.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const E: u16 = 40_000;
const LAST: u16 = 40_009;

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn book(reserved: &str) -> Allocator {
    let mut ephemeral = EphemeralPorts::new(range(E, LAST));
    ephemeral.reserve(reserved).unwrap();
    Allocator::new(ephemeral)
}

#[test]
fn ephemeral_ports_go_round_and_end_in_exhaustion() {
    let mut book = book("");
    let any = [ip("0.0.0.0")];
    for port in E..=LAST {
        assert_eq!(book.allocate(&any, Proto::Tcp, PortRequest::Ephemeral), Ok(port));
    }
    let full = book.allocate(&any, Proto::Tcp, PortRequest::Ephemeral).unwrap_err();
    assert_eq!(full.to_string(), "all ports are allocated");
    assert_eq!(book.allocate(&any, Proto::Udp, PortRequest::Ephemeral), Ok(E));

    book.release(&any, Proto::Tcp, PortRange::single(E + 5));
    assert_eq!(book.allocate(&any, Proto::Tcp, PortRequest::Ephemeral), Ok(E + 5));
    book.release(&any, Proto::Tcp, PortRange::single(E + 5));
    assert_eq!(book.allocate(&any, Proto::Tcp, PortRequest::Ephemeral), Ok(E + 5), "the cursor's own port");
}

#[test]
fn a_released_port_is_not_handed_out_again_at_once() {
    let mut book = book("");
    let any = [ip("0.0.0.0")];
    assert_eq!(book.allocate(&any, Proto::Tcp, PortRequest::Ephemeral), Ok(E));
    book.release(&any, Proto::Tcp, PortRange::single(E));
    assert_eq!(book.allocate(&any, Proto::Tcp, PortRequest::Ephemeral), Ok(E + 1));
}

#[test]
fn a_port_is_taken_per_address() {
    let mut book = book("");
    let exact = PortRequest::Exact(80);
    assert_eq!(book.allocate(&[ip("192.168.0.1")], Proto::Tcp, exact), Ok(80));
    assert_eq!(book.allocate(&[ip("192.168.0.2")], Proto::Tcp, exact), Ok(80));
    let error = book.allocate(&[ip("192.168.0.2")], Proto::Tcp, exact).unwrap_err();
    assert_eq!(error.to_string(), "Bind for 192.168.0.2:80 failed: port is already allocated");
    assert_eq!(book.allocate(&[ip("192.168.0.2")], Proto::Udp, exact), Ok(80));
}

#[test]
fn the_wildcard_conflicts_with_every_address_of_its_family() {
    let mut book = book("");
    book.allocate(&[ip("192.168.0.1")], Proto::Tcp, PortRequest::Exact(80)).unwrap();
    let error = book.allocate(&[ip("0.0.0.0")], Proto::Tcp, PortRequest::Exact(80)).unwrap_err();
    assert_eq!(error.to_string(), "Bind for 0.0.0.0:80 failed: port is already allocated");
    assert_eq!(book.allocate(&[ip("::")], Proto::Tcp, PortRequest::Exact(80)), Ok(80));
    assert!(book.allocate(&[ip("::1")], Proto::Tcp, PortRequest::Exact(80)).is_err());
}

#[test]
fn ephemeral_ports_keep_clear_of_exact_ones() {
    let mut book = book("");
    book.allocate(&[ip("0.0.0.0")], Proto::Tcp, PortRequest::Exact(E)).unwrap();
    assert_eq!(book.allocate(&[ip("0.0.0.0")], Proto::Tcp, PortRequest::Ephemeral), Ok(E + 1));
}

#[test]
fn a_wildcard_keeps_clear_of_an_ephemeral_port_on_one_address() {
    let mut book = book("");
    assert_eq!(book.allocate(&[ip("127.0.0.1")], Proto::Tcp, PortRequest::Ephemeral), Ok(E));
    assert_eq!(book.allocate(&[ip("0.0.0.0")], Proto::Tcp, PortRequest::Ephemeral), Ok(E + 1));
}

#[test]
fn requests_with_bad_ends_are_refused() {
    for (first, last) in [(0, 8082), (8081, 0), (8081, 8080)] {
        let error = PortRequest::between(first, last).unwrap_err();
        assert_eq!(error.to_string(), format!("invalid port range: {first}-{last}"));
    }
    assert_eq!(PortRequest::between(0, 0), Ok(PortRequest::Ephemeral));
    assert_eq!(PortRequest::between(80, 80), Ok(PortRequest::Exact(80)));
    assert_eq!(PortRequest::between(80, 81), Ok(PortRequest::OneOf(range(80, 81))));
}

#[test]
fn a_range_gives_each_of_its_ports_once() {
    let mut book = book("");
    let any = [ip("0.0.0.0")];
    let request = PortRequest::OneOf(range(8081, 8082));
    assert_eq!(book.allocate(&any, Proto::Tcp, request), Ok(8081));
    assert_eq!(book.allocate(&any, Proto::Tcp, request), Ok(8082));
    assert_eq!(book.allocate(&any, Proto::Tcp, request), Err(AllocateError::Exhausted));
}

#[test]
fn a_range_up_to_the_last_port_there_is_wraps() {
    let mut book = book("");
    let any = [ip("0.0.0.0")];
    let request = PortRequest::OneOf(range(65_534, 65_535));
    assert_eq!(book.allocate(&any, Proto::Tcp, request), Ok(65_534));
    assert_eq!(book.allocate(&any, Proto::Tcp, request), Ok(65_535));
    book.release(&any, Proto::Tcp, PortRange::single(65_534));
    assert_eq!(book.allocate(&any, Proto::Tcp, request), Ok(65_534));
}

#[test]
fn all_addresses_of_a_request_are_taken_or_none() {
    let mut book = book("");
    let both = [ip("127.0.0.1"), ip("::")];
    let exact = PortRequest::Exact(10_000);
    assert_eq!(book.allocate(&both, Proto::Tcp, exact), Ok(10_000));
    assert!(book.allocate(&both, Proto::Tcp, exact).is_err());
    book.release(&both[..1], Proto::Tcp, PortRange::single(10_000));
    let error = book.allocate(&both, Proto::Tcp, exact).unwrap_err();
    assert_eq!(error.to_string(), "Bind for :::10000 failed: port is already allocated");
    assert_eq!(book.allocate(&both[..1], Proto::Tcp, exact), Ok(10_000), "the failed request kept nothing");
    book.release(&both, Proto::Tcp, PortRange::single(10_000));
    assert_eq!(book.allocate(&both, Proto::Tcp, exact), Ok(10_000));
}

#[test]
fn reserved_ports_are_skipped_for_ephemeral_requests_only() {
    let any = [ip("0.0.0.0")];
    assert_eq!(book("40000-40001").allocate(&any, Proto::Tcp, PortRequest::Ephemeral), Ok(E + 2));
    assert_eq!(book("40000").allocate(&any, Proto::Tcp, PortRequest::Exact(E)), Ok(E));
    let request = PortRequest::OneOf(range(E, E + 4));
    assert_eq!(book("40000").allocate(&any, Proto::Tcp, request), Ok(E));
    let none = book("40000-40009").allocate(&any, Proto::Tcp, PortRequest::Ephemeral);
    assert_eq!(none, Err(AllocateError::Exhausted));
}

#[test]
fn a_block_of_ports_is_taken_as_a_whole() {
    let mut book = book("");
    let any = [ip("0.0.0.0"), ip("::")];
    book.allocate(&any[..1], Proto::Tcp, PortRequest::Exact(7500)).unwrap();
    let error = book.claim(&any, Proto::Tcp, range(7000, 7999)).unwrap_err();
    assert_eq!(error, AllocateError::Taken { ip: any[0], port: 7500 });
    book.claim(&any, Proto::Tcp, range(7501, 7999)).unwrap();
    assert!(book.allocate(&any[1..], Proto::Tcp, PortRequest::Exact(7999)).is_err());
    book.release(&any, Proto::Tcp, range(7501, 7999));
    assert!(book.claim(&any, Proto::Tcp, range(7501, 7999)).is_ok());
    assert_eq!(
        book.claim(&[], Proto::Tcp, range(1, 2)).unwrap_err().to_string(),
        "no IP addresses specified"
    );
}

/// The rules again, told port by port.
#[derive(Default)]
struct Naive {
    used: HashSet<(IpAddr, Proto, u16)>,
    last: HashMap<(IpAddr, Proto, PortRange), u16>,
}

impl Naive {
    fn free(&self, addresses: &[IpAddr], proto: Proto, port: u16) -> bool {
        let conflicts = |ip: &IpAddr| {
            self.used.iter().any(|(other, p, taken)| {
                *p == proto
                    && *taken == port
                    && other.is_ipv4() == ip.is_ipv4()
                    && (other == ip || other.is_unspecified() || ip.is_unspecified())
            })
        };
        !addresses.iter().any(conflicts)
    }

    fn take(&mut self, addresses: &[IpAddr], proto: Proto, ports: PortRange) {
        self.used.extend(addresses.iter().flat_map(|ip| ports.iter().map(move |port| (*ip, proto, port))));
    }

    fn allocate(&mut self, addresses: &[IpAddr], proto: Proto, request: PortRequest) -> Option<u16> {
        let range = match request {
            PortRequest::Exact(port) => range(port, port),
            PortRequest::OneOf(ports) => ports,
            PortRequest::Ephemeral => range(E, LAST),
        };
        let start = self.last.get(&(addresses[0], proto, range)).copied().unwrap_or_else(|| range.last());
        let round = range.iter().filter(|p| *p > start).chain(range.iter().filter(|p| *p <= start));
        let reserved = |port| request == PortRequest::Ephemeral && (E + 3..=E + 4).contains(&port);
        let port = round.into_iter().find(|p| !reserved(*p) && self.free(addresses, proto, *p))?;
        if !matches!(request, PortRequest::Exact(_)) {
            self.last.extend(addresses.iter().map(|ip| ((*ip, proto, range), port)));
        }
        self.take(addresses, proto, PortRange::single(port));
        Some(port)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(Vec<IpAddr>, Proto, PortRequest),
    Claim(Vec<IpAddr>, Proto, PortRange),
    Release(Vec<IpAddr>, Proto, PortRange),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let addresses = proptest::sample::subsequence(
        ["0.0.0.0", "127.0.0.1", "10.0.0.1", "::", "::1"].map(ip).to_vec(),
        1..=3,
    )
    .prop_shuffle();
    let proto = prop_oneof![Just(Proto::Tcp), Just(Proto::Udp)];
    let ports = (E - 2..=LAST + 2, 0_u16..5).prop_map(|(first, more)| range(first, first + more));
    let request = prop_oneof![
        Just(PortRequest::Ephemeral),
        (E - 2..=LAST + 2).prop_map(PortRequest::Exact),
        Just(PortRequest::OneOf(range(E - 2, E + 2))),
        ports.clone().prop_map(|ports| PortRequest::between(ports.first(), ports.last()).unwrap()),
    ];
    let step = prop_oneof![
        4 => (addresses.clone(), proto.clone(), request).prop_map(|(a, p, r)| Step::Allocate(a, p, r)),
        1 => (addresses.clone(), proto.clone(), ports.clone()).prop_map(|(a, p, r)| Step::Claim(a, p, r)),
        2 => (addresses, proto, ports).prop_map(|(a, p, r)| Step::Release(a, p, r)),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn it_decides_as_the_naive_book_does(steps in steps()) {
        let (mut book, mut naive) = (book("40003-40004"), Naive::default());
        for step in steps {
            match step.clone() {
                Step::Allocate(addresses, proto, request) => {
                    let got = book.allocate(&addresses, proto, request);
                    prop_assert_eq!(got.ok(), naive.allocate(&addresses, proto, request), "{:?}", step);
                }
                Step::Claim(addresses, proto, ports) => {
                    let free = ports.iter().all(|port| naive.free(&addresses, proto, port));
                    prop_assert_eq!(book.claim(&addresses, proto, ports).is_ok(), free, "{:?}", step);
                    if free {
                        naive.take(&addresses, proto, ports);
                    }
                }
                Step::Release(addresses, proto, ports) => {
                    book.release(&addresses, proto, ports);
                    naive.used.retain(|(ip, p, port)| {
                        !(addresses.contains(ip) && *p == proto && ports.contains(*port))
                    });
                }
            }
        }
    }
}
