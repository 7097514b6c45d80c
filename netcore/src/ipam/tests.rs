//! Stories of networks, told to the default manager.

use proptest::prelude::*;

use super::*;

fn ipam() -> DefaultIpam {
    DefaultIpam::new(DefaultPools::docker_local(0), DefaultPools::docker_global())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn explicit(subnet: &str, range: Option<&str>) -> PoolRequest {
    let range = range.map(|range| range.parse().unwrap());
    PoolRequest::new(AddressSpace::Local, PoolChoice::Explicit { subnet: subnet.parse().unwrap(), range })
}

fn gateway(text: &str) -> Fixed {
    Fixed { gateway: Some(ip(text)), ..Fixed::default() }
}

fn next(ipam: &mut DefaultIpam, pool: &PoolId) -> Result<String, String> {
    let got = ipam.request_address(pool, &AddressRequest::Any, &Options::new());
    got.map(|net| net.unwrap().to_string()).map_err(|e| e.to_string())
}

#[test]
fn gateways_and_first_addresses() {
    let cases = [
        ("172.28.0.0/16", None, "172.28.0.1/16", Ok("172.28.0.2/16")),
        ("172.28.0.0/16", Some("172.28.5.0/24"), "172.28.5.0/16", Ok("172.28.5.1/16")),
        ("10.0.0.0/31", None, "10.0.0.0/31", Ok("10.0.0.1/31")),
        ("10.0.0.0/32", None, "10.0.0.0/32", Err("no available addresses on this pool")),
        ("fd00::/64", None, "fd00::1/64", Ok("fd00::2/64")),
    ];
    for (subnet, range, gateway, first) in cases {
        let mut ipam = ipam();
        let got = allocate_network(&mut ipam, &explicit(subnet, range), &Fixed::default()).unwrap();
        assert_eq!(got.gateway.unwrap().to_string(), gateway, "{subnet}");
        let want = first.map(String::from).map_err(String::from);
        assert_eq!(next(&mut ipam, &got.pool.id), want, "{subnet}");
    }
}

#[test]
fn overlaps_are_refused_with_a_range_too_but_not_across_spaces() {
    let mut ipam = ipam();
    ipam.request_pool(&explicit("10.9.0.0/16", Some("10.9.1.0/24"))).unwrap();
    for (subnet, range) in
        [("10.9.0.0/16", None), ("10.9.0.0/16", Some("10.9.2.0/24")), ("10.0.0.0/8", Some("10.3.0.0/16"))]
    {
        let error = ipam.request_pool(&explicit(subnet, range)).unwrap_err();
        let want = "invalid pool request: Pool overlaps with other one on this address space";
        assert_eq!(error.to_string(), want);
    }
    let mut global = explicit("10.9.0.0/16", None);
    global.space = AddressSpace::Global;
    assert_eq!(ipam.request_pool(&global).unwrap().id.as_str(), "GlobalDefault/10.9.0.0/16");
}

#[test]
fn a_failed_network_leaves_nothing() {
    let mut ipam = ipam();
    let auxiliary = |name: &str, address| Fixed {
        gateway: None,
        auxiliary: BTreeMap::from([(name.to_owned(), ip(address))]),
    };
    let cases = [
        (gateway("10.0.0.255"), "failed to allocate gateway (10.0.0.255): Address already in use"),
        (gateway("10.0.0.0"), "failed to allocate gateway (10.0.0.0): Address already in use"),
        (
            auxiliary("r", "10.0.0.1"),
            "failed to allocate secondary ip address (r:10.0.0.1): Address already in use",
        ),
    ];
    for (fixed, want) in cases {
        let error = allocate_network(&mut ipam, &explicit("10.0.0.0/24", None), &fixed).unwrap_err();
        assert_eq!(error.to_string(), want);
        assert_eq!(ipam.subnets(AddressSpace::Local).count(), 0);
    }
}

#[test]
fn endpoints_get_the_lowest_the_asked_for_and_the_released_address() {
    let mut ipam = ipam();
    let request = explicit("10.0.0.0/29", Some("10.0.0.4/30"));
    let id = allocate_network(&mut ipam, &request, &gateway("10.0.0.1")).unwrap().pool.id;
    assert_eq!(next(&mut ipam, &id), Ok("10.0.0.4/29".into()));
    assert_eq!(next(&mut ipam, &id), Ok("10.0.0.5/29".into()));
    ipam.release_address(&id, ip("10.0.0.4")).unwrap();
    assert_eq!(next(&mut ipam, &id), Ok("10.0.0.4/29".into()));
    let asked = [
        ("10.0.0.2", "ok"),
        ("10.0.0.2", "Address already in use"),
        ("10.0.0.1", "Address already in use"),
        ("10.0.0.9", "requested address is out of range"),
    ];
    for (address, want) in asked {
        let got = ipam.request_address(&id, &AddressRequest::Exactly(ip(address)), &Options::new());
        assert_eq!(got.map_or_else(|e| e.to_string(), |_| "ok".into()), want, "{address}");
    }
    assert_eq!(next(&mut ipam, &id), Ok("10.0.0.6/29".into()));
    assert_eq!(
        IpamError::Exhausted(Family::V4).on_network("n", "4f").to_string(),
        "no available IPv4 addresses on this network's address pools: n (4f)"
    );
    assert_eq!(ipam.status(&id), Some(PoolStatus { in_use: 7, dynamic_available: 0 }));
    let mut back = self::ipam();
    back.restore(&id, ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"].map(ip)).unwrap();
    assert_eq!(back.addresses(&id), ipam.addresses(&id));
}

#[test]
fn unspecified_subnets_ask_for_a_size() {
    let cases = [
        ("0.0.0.0/24", Ok(PoolChoice::Sized(Family::V4, 24))),
        ("::/96", Ok(PoolChoice::Sized(Family::V6, 96))),
        ("0.0.0.0/0", Ok(PoolChoice::Default(Family::V4))),
    ];
    for (subnet, want) in cases {
        let config = SubnetConfig::check(vec![SubnetSpec::new(subnet.parse().unwrap())]).unwrap();
        assert_eq!(PoolChoice::of(&config[0]), want);
    }
}

#[test]
fn the_null_manager_has_one_pool_without_addresses() {
    let request = PoolRequest::new(AddressSpace::Local, PoolChoice::Default(Family::V4));
    let got = allocate_network(&mut NullIpam, &request, &Fixed::default()).unwrap();
    assert_eq!((got.pool.subnet.to_string().as_str(), got.gateway), ("0.0.0.0/0", None));
    assert_eq!(NullIpam.request_pool(&explicit("10.0.0.0/8", None)), Err(IpamError::NullPool));
}

proptest! {
    #[test]
    fn pools_never_overlap(steps in proptest::collection::vec((0..3_u8, any::<u16>(), 12..28_u8), 1..40)) {
        let mut ipam = ipam();
        let mut held: Vec<Pool> = Vec::new();
        for (what, at, length) in steps {
            let choice = match what {
                0 => PoolChoice::Sized(Family::V4, length),
                1 => PoolChoice::Explicit {
                    subnet: IpNet::new(std::net::Ipv4Addr::from_bits(0xac10_0000 + (u32::from(at) << 4)).into(), length).unwrap(),
                    range: None,
                },
                _ if held.is_empty() => continue,
                _ => {
                    let gone = held.swap_remove(usize::from(at) % held.len());
                    prop_assert_eq!(ipam.release_pool(&gone.id), Ok(()));
                    continue;
                }
            };
            if let Ok(pool) = ipam.request_pool(&PoolRequest::new(AddressSpace::Local, choice)) {
                prop_assert!(!held.iter().any(|other| prefix::overlap(other.subnet, pool.subnet)));
                held.push(pool);
            }
        }
    }
}
