//! Docker's lists, requests for a size, and choosing against a naive search.

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn all(pools: &DefaultPools, family: Family) -> Vec<IpNet> {
    let mut taken = Vec::new();
    while let Ok(next) = pools.choose(family, None, taken.iter().copied()) {
        taken.push(next);
    }
    taken
}

#[test]
fn dockers_local_and_global_pools_in_order() {
    let want = (17..=31).map(|n| net(&format!("172.{n}.0.0/16")));
    let want: Vec<_> = want.chain((0..16).map(|n| net(&format!("192.168.{}.0/20", n * 16)))).collect();
    assert_eq!(want.len(), 31);
    assert_eq!(all(&DefaultPools::docker_local(0), Family::V4), want);
    let global = DefaultPools::docker_global();
    assert_eq!(global.choose(Family::V4, None, [net("10.0.0.0/24")]), Ok(net("10.0.1.0/24")));
    assert_eq!(global.choose(Family::V6, None, []), Err(IpamError::InvalidPool));
    let v6 = DefaultPools::docker_local(0xffff_ff12_3456_789a);
    assert_eq!(v6.choose(Family::V6, None, []), Ok(net("fd12:3456:789a::/64")));
    assert_eq!(v6.choose(Family::V6, None, [net("fd12:3456:789a::/64")]), Ok(net("fd12:3456:789a:1::/64")));
}

#[test]
fn a_requested_size_is_cut_from_the_first_pool_that_is_large_enough() {
    let pools = DefaultPools::docker_local(0);
    let cases = [
        (Family::V4, 24, Ok("172.17.0.0/24")),
        (Family::V4, 14, Ok("172.20.0.0/14")),
        (Family::V4, 32, Ok("172.17.0.0/32")),
        (Family::V4, 13, Err("invalid address pool")),
        (Family::V4, 33, Err("invalid address pool")),
        (Family::V6, 96, Ok("fd00::/96")),
        (Family::V6, 40, Err("invalid address pool")),
    ];
    for (family, size, want) in cases {
        let got = pools.choose(family, Some(size), []).map_err(|e| e.to_string());
        assert_eq!(got, want.map(net).map_err(String::from), "/{size}");
    }
}

#[test]
fn what_the_host_uses_is_passed_over() {
    let routes = ["172.18.5.0/24", "0.0.0.0/0", "0.0.0.0/1", "fd00::/8"].map(net);
    let servers = ["172.17.0.53", "fd00::53"].map(|ip| ip.parse().unwrap());
    let reserved = reserved_prefixes(&servers, &routes);
    assert_eq!(reserved, ["172.17.0.53/32", "fd00::53/128", "172.18.5.0/24"].map(net));
    let got = DefaultPools::docker_local(0).choose(Family::V4, None, reserved);
    assert_eq!(got, Ok(net("172.19.0.0/16")));
    let all = DefaultPools::docker_local(0).choose(Family::V4, None, [net("0.0.0.0/0")]);
    assert_eq!(all.unwrap_err().to_string(), "all predefined address pools have been fully subnetted");
}

#[test]
fn options_of_default_address_pool() {
    let cases = [
        ("base=10.10.0.0/16,size=24", Ok("base=10.10.0.0/16,size=24")),
        ("Size=64,BASE=fd00::1/48", Ok("base=fd00::/48,size=64")),
        ("base=10.10.0.0/16", Err("a default address pool needs both, base=PREFIX and size=BITS")),
        ("base=10.10.0.0/16,size=0", Err("a default address pool needs both, base=PREFIX and size=BITS")),
        ("base", Err("invalid field 'base' must be a key=value pair")),
        ("bits=3", Err("unexpected key 'bits' in 'bits=3'")),
        ("base=x", Err("invalid base prefix \"x\": netip.ParsePrefix(\"x\"): no '/'")),
        ("size=x", Err("invalid size value \"x\": must be an integer")),
        (
            "base=10.0.0.0/16,size=8",
            Err("10.0.0.0/16 has a smaller prefix (/16) than the target size of that pool (/8)"),
        ),
        ("base=10.0.0.0/16,size=33", Err("size 33 of 10.0.0.0/16: an IPv4 prefix has at most 32 bits")),
    ];
    for (text, want) in cases {
        let got = text.parse::<DefaultPool>().map(|p| p.to_string()).map_err(|e| e.to_string());
        assert_eq!(got, want.map(String::from).map_err(String::from), "{text:?}");
    }
}

#[test]
fn a_list_is_sorted_and_freed_of_overlaps() {
    let list = ["base=10.2.0.0/16,size=24", "base=10.1.0.0/16,size=24", "base=10.2.4.0/24,size=26"];
    let pools = DefaultPools::new(list.map(|text| text.parse().unwrap()));
    assert_eq!(pools.iter().map(|p| p.base()).collect::<Vec<_>>(), ["10.1.0.0/16", "10.2.0.0/16"].map(net));
    let with = pools.or_ipv6(DefaultPool::unique_local(7));
    assert_eq!(with.choose(Family::V6, None, []), Ok(net("fd00:0:7::/64")));
    let last: DefaultPool = "base=255.255.255.0/24,size=24".parse().unwrap();
    assert_eq!(all(&DefaultPools::new([last]), Family::V4), [net("255.255.255.0/24")]);
}

proptest! {
    #[test]
    fn the_lowest_free_block_is_chosen(
        size in 24..29_u8,
        blocked in proptest::collection::vec((0..1024_u32, 23..33_u8), 0..12),
    ) {
        let blocked: Vec<_> = blocked.into_iter()
            .map(|(host, length)| {
                let ip = Ipv4Addr::from_bits(0x0a00_0000 - 128 + host);
                IpNet::V4(Ipv4Net::new(ip, length).unwrap()).trunc()
            })
            .collect();
        let base = net("10.0.0.0/23");
        let pools = DefaultPools::new([DefaultPool::new(base, size).unwrap()]);
        let mut blocks = base.subnets(size).unwrap();
        let lowest = blocks.find(|block| !blocked.iter().any(|net| overlap(*net, *block)));
        prop_assert_eq!(pools.choose(Family::V4, None, blocked).ok(), lowest);
    }
}
