//! Tables, by the scenarios of Docker's own tests; the sockets are on loopback.

use super::super::allocator::Allocator;
use super::super::ephemeral::EphemeralPorts;
use super::super::reserve::reserve;
use super::*;

fn dual() -> Destination {
    Destination {
        v4: Some(Ipv4Addr::new(172, 19, 0, 2)),
        v6: Some("fdf8::2".parse().unwrap()),
        v6_elsewhere: false,
        mode4: GatewayMode::Nat,
        mode6: GatewayMode::Nat,
        default_address: Ipv4Addr::UNSPECIFIED.into(),
        host_ipv6: true,
        proxy: true,
    }
}

fn v4_only() -> Destination {
    Destination { v6: None, ..dual() }
}

fn specs(texts: &[&str]) -> Vec<PublishSpec> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Groups, then what is routed, then warnings.
fn told(texts: &[&str], to: &Destination) -> Vec<String> {
    let planned = plan_for(&specs(texts), to).unwrap();
    let list = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ");
    let groups = planned.groups.iter().map(|group| {
        let host = match group.host() {
            HostPorts::Ephemeral => "eph".to_owned(),
            HostPorts::Aligned(range) => range.to_string(),
            HostPorts::OneOf(range) => format!("one of {range}"),
        };
        format!("{}/{} <- {} on {}", group.container(), group.proto(), host, list(group.addresses()))
    });
    let routed = planned.routed.iter().map(|one| {
        assert_eq!(one.host, None);
        format!("{}/{} routed {} to {}", one.container, one.proto, list(&one.addresses), one.target)
    });
    groups.chain(routed).chain(planned.warnings.iter().cloned()).collect()
}

#[test]
fn families_and_modes_decide_where_a_port_appears() {
    let routed4 = |to: Destination| Destination { mode4: GatewayMode::Routed, ..to };
    let routed6 = |to: Destination| Destination { mode6: GatewayMode::Routed, ..to };
    let default = |address: &str, to: Destination| Destination { default_address: ip(address), ..to };
    let no_proxy = |to: Destination| Destination { proxy: false, ..to };
    let cases: Vec<(&str, &[&str], Destination, &[&str])> = vec![
        ("M1", &["22", "80"], dual(), &["22/tcp <- eph on 0.0.0.0 ::", "80/tcp <- eph on 0.0.0.0 ::"]),
        ("M2", &["8080:80"], dual(), &["80/tcp <- 8080 on 0.0.0.0 ::"]),
        (
            "M2, unprotected",
            &["8080:80"],
            Destination { mode4: GatewayMode::NatUnprotected, ..dual() },
            &["80/tcp <- 8080 on 0.0.0.0 ::"],
        ),
        ("M8", &["::ffff:127.0.0.1:8080:80"], dual(), &["80/tcp <- 8080 on 127.0.0.1"]),
        ("M9", &["0.0.0.0::80", "[::]::80"], v4_only(), &["80/tcp <- eph on 0.0.0.0 ::"]),
        ("M10", &["80"], Destination { v6_elsewhere: true, ..v4_only() }, &["80/tcp <- eph on 0.0.0.0"]),
        ("M11", &["80"], no_proxy(v4_only()), &["80/tcp <- eph on 0.0.0.0"]),
        ("M12", &["[::1]:8080:80"], no_proxy(v4_only()), &[ONLY_BY_PROXY]),
        ("M12, default", &["8080:80"], default("::1", no_proxy(v4_only())), &[DEFAULT_ONLY_BY_PROXY]),
        ("M13", &["80"], default("127.0.0.1", dual()), &["80/tcp <- eph on 127.0.0.1"]),
        ("M13, mapped", &["80"], default("::ffff:127.0.0.1", dual()), &["80/tcp <- eph on 127.0.0.1"]),
        ("M13, all IPv6", &["80"], default("::", dual()), &["80/tcp <- eph on ::"]),
        ("M13, one IPv6", &["80"], default("::1", dual()), &["80/tcp <- eph on ::1"]),
        (
            "M15",
            &["22", "80"],
            routed6(dual()),
            &[
                "22/tcp <- eph on 0.0.0.0",
                "80/tcp <- eph on 0.0.0.0",
                "22/tcp routed :: to fdf8::2",
                "80/tcp routed :: to fdf8::2",
            ],
        ),
        ("M16", &["22"], routed6(default("::1", dual())), &["22/tcp routed :: to fdf8::2"]),
        ("M17", &["22"], routed4(dual()), &["22/tcp <- eph on ::", "22/tcp routed 0.0.0.0 to 172.19.0.2"]),
        (
            "M18",
            &["127.0.0.1::80", "[::1]::80"],
            routed4(routed6(dual())),
            &[
                "80/tcp routed 0.0.0.0 to 172.19.0.2",
                "80/tcp routed :: to fdf8::2",
                "Using address 0.0.0.0 because NAT is disabled",
                "Using address [::] because NAT is disabled",
            ],
        ),
        (
            "M19",
            &["0.0.0.0:2222:22"],
            routed4(routed6(dual())),
            &["22/tcp routed 0.0.0.0 to 172.19.0.2", PORT_IGNORED],
        ),
        (
            "no IPv6 on the host",
            &["80"],
            Destination { host_ipv6: false, ..dual() },
            &["80/tcp <- eph on 0.0.0.0"],
        ),
        ("IPv6 only", &["80"], Destination { v4: None, ..dual() }, &["80/tcp <- eph on ::"]),
        ("IPv6 only, IPv4 asked", &["1.2.3.4::80"], Destination { v4: None, ..dual() }, &[]),
        ("routed, crossing", &["[::]:1:1"], routed4(v4_only()), &[]),
        (
            "isolated",
            &["8080:80"],
            Destination { mode4: GatewayMode::Isolated, mode6: GatewayMode::Isolated, ..dual() },
            &[],
        ),
    ];
    for (name, texts, to, want) in cases {
        assert_eq!(told(texts, &to), want, "{name}");
    }
}

#[test]
fn a_bad_spec_is_refused_even_where_it_leads_nowhere() {
    let to = Destination { mode4: GatewayMode::Routed, ..v4_only() };
    let error = plan_for(&specs(&["0-65535"]), &to).unwrap_err();
    assert_eq!(error.to_string(), "invalid port specification: \"0/tcp\"");
}

#[test]
fn what_was_reserved_comes_apart_by_spec_and_target() {
    let texts = ["127.0.0.1::80", "[::1]::80", "127.0.0.2::80"];
    let to = dual();
    let specs = specs(&texts);
    let mut numbers = Allocator::new(EphemeralPorts::of_this_host());
    let bound = |to: &Destination, numbers: &mut Allocator| {
        let planned = plan_for(&specs, to).unwrap();
        let one = reserve(numbers, &planned.groups).unwrap();
        assert_eq!(one.len(), 1, "one number for all");
        publications(one, &specs, to)
    };
    let got = bound(&to, &mut numbers);
    let mut seen: Vec<_> = got
        .iter()
        .map(|(reservation, one)| {
            assert_eq!((reservation.addresses(), reservation.sockets().len()), (&one.addresses[..], 1));
            assert_eq!(one.host, Some(got[0].0.host()));
            (one.spec.to_string(), one.target)
        })
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            ("127.0.0.1::80".to_owned(), ip("172.19.0.2")),
            ("127.0.0.2::80".to_owned(), ip("172.19.0.2")),
            ("[::1]::80".to_owned(), ip("fdf8::2")),
        ]
    );
    // One spec on both families, both to the only target there is, is one publication.
    let wildcard: Vec<PublishSpec> = vec!["0:80".parse().unwrap()];
    let planned = plan_for(&wildcard, &v4_only()).unwrap();
    let got = publications(reserve(&mut numbers, &planned.groups).unwrap(), &wildcard, &v4_only());
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].1.addresses, [ip("0.0.0.0"), ip("::")]);
    // And two where each has its own.
    let planned = plan_for(&wildcard, &to).unwrap();
    let got = publications(reserve(&mut numbers, &planned.groups).unwrap(), &wildcard, &to);
    assert_eq!(got.iter().map(|(_, one)| one.target).collect::<Vec<_>>(), [ip("172.19.0.2"), ip("fdf8::2")]);
}

#[test]
fn what_stands_is_planned_no_more_and_the_rest_gets_its_port() {
    let specs = specs(&["8000-8001:80-81", "90", "127.0.0.1:9000:91"]);
    let stands = |spec: usize, container: (u16, u16), host: (u16, u16), address| Publication {
        spec: specs[spec],
        proto: Proto::Tcp,
        container: PortRange::new(container.0, container.1).unwrap(),
        host: PortRange::new(host.0, host.1).ok(),
        addresses: vec![ip(address)],
        target: ip("172.19.0.2"),
    };
    let left = |standing: &[Publication]| -> Vec<String> {
        let planned = plan_for(&specs, &dual()).unwrap().without(standing, &specs);
        let line =
            |group: &Group| format!("{:?} {:?} {}", group.addresses(), group.host(), group.container());
        planned.groups.iter().map(line).collect()
    };
    let all = left(&[]);
    assert_eq!(all.len(), 3);
    let [first, ephemeral, one] = [
        stands(0, (80, 81), (8000, 8001), "0.0.0.0"),
        stands(1, (90, 90), (40_000, 40_000), "0.0.0.0"),
        stands(2, (91, 91), (9000, 9000), "127.0.0.1"),
    ];
    let aligned = |first, last| HostPorts::Aligned(PortRange::new(first, last).unwrap());
    assert_eq!(
        left(&[first.clone(), ephemeral.clone(), one]),
        [format!("[::] {:?} 80-81", aligned(8000, 8001)), format!("[::] {:?} 90", aligned(40_000, 40_000)),]
    );
    // One that stands on one address of a family has that family.
    let elsewhere = Publication { addresses: vec![ip("127.0.0.1"), ip("::1")], ..first };
    assert_eq!(left(&[elsewhere, ephemeral]).len(), 2);
}

#[test]
fn publishing_all_leaves_alone_what_is_published() {
    let ports = |publish: &[&str], expose: &[&str], publish_all| PortsConfig {
        publish: specs(publish),
        expose: expose.iter().map(|text| text.parse().unwrap()).collect(),
        publish_all,
    };
    let told = |ports: &PortsConfig| -> Result<Vec<String>, String> {
        let specs = wanted(ports).map_err(|error| error.to_string())?;
        Ok(specs.iter().map(PublishSpec::to_string).collect())
    };
    let cases: [(PortsConfig, &[&str]); 5] = [
        (ports(&["8080:80"], &["81"], false), &["8080:80"]),
        (ports(&["8080:80"], &["80", "81"], true), &["8080:80", "81"]),
        (ports(&[], &["3000-3003", "3002-3004", "53/udp"], true), &["3000-3004", "53/udp"]),
        (ports(&["127.0.0.1::3001"], &["3000-3003"], true), &["127.0.0.1::3001", "3000", "3002-3003"]),
        (ports(&["80/udp"], &["80"], true), &["80/udp", "80"]),
    ];
    for (ports, want) in cases {
        assert_eq!(told(&ports), Ok(want.iter().map(|text| (*text).to_owned()).collect()), "{ports:?}");
    }
    assert_eq!(told(&ports(&[], &["8080/ncp"], true)), Err("unknown protocol".to_owned()));
    assert_eq!(told(&ports(&[], &["8080/ncp"], false)), Ok(vec![]));
}
