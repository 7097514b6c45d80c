//! Docker's documented inputs as a table, and properties over generated ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// `container/proto <- address:port`, one per container port; `*` is no address, `eph` an ephemeral port.
fn meaning(text: &str) -> Result<String, String> {
    let spec: PublishSpec = text.parse().map_err(|e: SpecError| e.to_string())?;
    let line = |b: PortBinding| {
        let ip = match b.host_ip {
            None => "*".to_owned(),
            Some(IpAddr::V4(ip)) => ip.to_string(),
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        };
        let port = match b.host {
            HostPort::Ephemeral => "eph".to_owned(),
            HostPort::Exact(port) => port.to_string(),
            HostPort::OneOf(range) => format!("one of {range}"),
        };
        format!("{}/{} <- {ip}:{port}", b.container, b.proto)
    };
    Ok(spec.bindings().map(line).collect::<Vec<_>>().join(", "))
}

#[test]
fn accepted_values_mean_what_docker_makes_of_them() {
    let cases = [
        ("80", "80/tcp <- *:eph"),
        ("80/udp", "80/udp <- *:eph"),
        ("80/SCTP", "80/sctp <- *:eph"),
        ("80/", "80/tcp <- *:eph"),
        ("8080:80", "80/tcp <- *:8080"),
        (":80", "80/tcp <- *:eph"),
        ("::80", "80/tcp <- *:eph"),
        ("127.0.0.1::80", "80/tcp <- 127.0.0.1:eph"),
        ("127.0.0.1:8080:80/udp", "80/udp <- 127.0.0.1:8080"),
        ("0.0.0.0:8080:80", "80/tcp <- 0.0.0.0:8080"),
        ("[::]:8080:80", "80/tcp <- [::]:8080"),
        ("[::1]:8080:80", "80/tcp <- [::1]:8080"),
        ("::1:8080:80", "80/tcp <- [::1]:8080"),
        ("::::80", "80/tcp <- [::]:eph"),
        ("2001:db8::1::80", "80/tcp <- [2001:db8::1]:eph"),
        ("[2001:db8::1]::80", "80/tcp <- [2001:db8::1]:eph"),
        ("[127.0.0.1]:8080:80", "80/tcp <- 127.0.0.1:8080"),
        ("::ffff:127.0.0.1:8080:80", "80/tcp <- [::ffff:127.0.0.1]:8080"),
        ("[]:8080:80", "80/tcp <- *:8080"),
        ("8000-8002:80-82", "80/tcp <- *:8000, 81/tcp <- *:8001, 82/tcp <- *:8002"),
        ("8000-8002:80", "80/tcp <- *:one of 8000-8002"),
        ("8000-8000:80", "80/tcp <- *:8000"),
        ("8000-8002:80-80", "80/tcp <- *:one of 8000-8002"),
        ("80-82", "80/tcp <- *:eph, 81/tcp <- *:eph, 82/tcp <- *:eph"),
        ("0:80", "80/tcp <- *:eph"),
        ("0-1:80-81", "80/tcp <- *:eph, 81/tcp <- *:1"),
        ("0123", "123/tcp <- *:eph"),
        ("+80:80", "80/tcp <- *:80"),
        ("80:0", "0/tcp <- *:80"),
        ("0-5:80", "80/tcp <- *:one of 0-5"),
        ("target=80,published=8080", "80/tcp <- *:8080"),
        ("target=80,published=127.0.0.1:8080", "80/tcp <- 127.0.0.1:8080"),
        ("target=80", "80/tcp <- *:eph"),
        (
            "target=80-82,published=8080-8082,protocol=UDP",
            "80/udp <- *:8080, 81/udp <- *:8081, 82/udp <- *:8082",
        ),
        ("target=80,mode=host", "80/tcp <- *:eph"),
        ("target=79,target=80", "80/tcp <- *:eph"),
    ];
    for (input, want) in cases {
        assert_eq!(meaning(input), Ok(want.to_owned()), "input {input:?}");
    }
}

#[test]
fn refused_values_get_dockers_text() {
    let cases = [
        ("8000-8001:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8000-8001"),
        ("8000:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000"),
        ("", "no port specified: <empty>"),
        (":", "no port specified: :<empty>"),
        ("8080:", "no port specified: 8080:<empty>"),
        ("8080:/tcp", "no port specified: 8080:/tcp<empty>"),
        ("0.0.0.0:1234-1235:/tcp", "no port specified: 0.0.0.0:1234-1235:/tcp<empty>"),
        ("/tcp", "no port specified: /tcp<empty>"),
        ("80/xyz", "invalid proto: xyz"),
        ("80/XYZ", "invalid proto: XYZ"),
        ("80/tcp/udp", "invalid proto: tcp/udp"),
        ("tcp", "invalid containerPort: tcp"),
        ("80-", "invalid containerPort: 80-"),
        ("-80", "invalid containerPort: -80"),
        ("90-80", "invalid containerPort: 90-80"),
        ("65536", "invalid containerPort: 65536"),
        ("0x50", "invalid containerPort: 0x50"),
        (" 80", "invalid containerPort:  80"),
        ("80 ", "invalid containerPort: 80 "),
        ("8_0", "invalid containerPort: 8_0"),
        ("++80", "invalid containerPort: ++80"),
        ("٨٠", "invalid containerPort: ٨٠"),
        ("80-81-82", "invalid containerPort: 80-81-82"),
        ("192.168.1.100", "invalid containerPort: 192.168.1.100"),
        ("9090-9089:80", "invalid hostPort: 9090-9089"),
        ("9090-:80", "invalid hostPort: 9090-"),
        ("-9090:80", "invalid hostPort: -9090"),
        ("99999:80", "invalid hostPort: 99999"),
        ("8080:65536", "invalid containerPort: 65536"),
        ("localhost:8080:80", "invalid IP address: localhost"),
        ("127.0.0.01:80:80", "invalid IP address: 127.0.0.01"),
        ("fe80::1%eth0:80:80", "invalid IP address: fe80::1%eth0"),
        ("[fe80::1%eth0]:80:80", "invalid IP address: fe80::1%eth0"),
        ("1:2:3:4:5", "invalid IP address: 1:2:3"),
        ("[::1:80:80", "invalid IP address [::1: address [::1:: missing ']' in address"),
        ("[::1]x:80:80", "invalid IP address [::1]x: address [::1]x:: missing port in address"),
        ("[::1]:7:80:80", "invalid IP address [::1]:7: address [::1]:7:: too many colons in address"),
        ("[[::1]:80:80", "invalid IP address [[::1]: address [[::1]:: unexpected '[' in address"),
        ("80:80/tcp,81:81", "invalid IP address: 80"),
        ("192.168.1.100:-1:-1", "invalid containerPort: -1"),
        ("published=8080", "no port specified: 8080:/tcp<empty>"),
        ("Target=80", "no port specified: :/tcp<empty>"),
        (
            "published=1500,target:444",
            "invalid publish opts format (should be name=value but got 'target:444')",
        ),
        ("target=80,published", "invalid publish opts format (should be name=value but got 'published')"),
        ("=80", "invalid publish opts format (should be name=value but got '=80')"),
        ("target=80,", "invalid publish opts format (should be name=value but got '')"),
    ];
    for (input, want) in cases {
        assert_eq!(meaning(input), Err(want.to_owned()), "input {input:?}");
    }
}

#[test]
fn the_checks_run_in_dockers_order() {
    // Each value is wrong in two ways; the earlier check wins.
    let cases = [
        ("nowhere:1-2:/xyz", "no port specified: nowhere:1-2:/xyz<empty>"),
        ("[::1:x:y/xyz", "invalid proto: xyz"),
        ("[::1:x:y", "invalid IP address [::1: address [::1:: missing ']' in address"),
        ("nowhere:x:y", "invalid IP address: nowhere"),
        ("127.0.0.1:x:y", "invalid containerPort: y"),
        ("127.0.0.1:x:80-81", "invalid hostPort: x"),
    ];
    for (input, want) in cases {
        assert_eq!(meaning(input), Err(want.to_owned()), "input {input:?}");
    }
}

#[test]
fn all_ports_of_a_protocol_are_one_value() {
    let spec: PublishSpec = "1-65535:1-65535/tcp".parse().unwrap();
    assert_eq!(spec.host(), HostPorts::Aligned(PortRange::new(1, 65_535).unwrap()));
    assert_eq!(spec.bindings().count(), 65_535);
    assert!(spec.bindings().all(|b| b.host == HostPort::Exact(b.container)));
    let spec: PublishSpec = "0-65535".parse().unwrap();
    assert_eq!(spec.bindings().count(), 65_536);
}

#[test]
fn printing_gives_the_short_form() {
    let cases = [
        ("80", "80"),
        ("0:0080/", "80"),
        ("::1::80/UDP", "[::1]::80/udp"),
        ("[127.0.0.1]:8080:80", "127.0.0.1:8080:80"),
        ("target=80-82,published=8080-8082,protocol=UDP", "8080-8082:80-82/udp"),
        ("8000-8002:80-80", "8000-8002:80"),
        ("8000-8000:80", "8000:80"),
    ];
    for (input, want) in cases {
        assert_eq!(input.parse::<PublishSpec>().unwrap().to_string(), want, "input {input:?}");
    }
}

/// The parts of a value before they become text.
#[derive(Clone, Debug)]
struct Parts {
    ip: Option<IpAddr>,
    host: Option<(u16, u16)>,
    container: (u16, u16),
    proto: Option<Proto>,
    /// Brackets, case, long form: none of them changes the meaning.
    dress: [bool; 3],
}

impl Parts {
    fn text(&self) -> String {
        let [bracket, upper, long] = self.dress;
        let range = |(first, last): (u16, u16)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        let host = self.host.map(range).unwrap_or_default();
        let before = match self.ip {
            Some(ip) if bracket => format!("[{ip}]:{host}"),
            Some(ip) => format!("{ip}:{host}"),
            None => host.clone(),
        };
        let word = self.proto.map(|p| if upper { p.name().to_uppercase() } else { p.name().to_owned() });
        let container = range(self.container);
        match word {
            Some(word) if long => format!("published={before},protocol={word},target={container}"),
            None if long => format!("target={container},published={before}"),
            Some(word) => format!("{before}:{container}/{word}"),
            None => format!("{before}:{container}"),
        }
    }

    fn want(&self) -> PublishSpec {
        let range = |(first, last)| PortRange::new(first, last).unwrap();
        let container = range(self.container);
        let host = match self.host.map(range) {
            None => HostPorts::Ephemeral,
            Some(host) if host.last() == 0 && container.is_single() => HostPorts::Ephemeral,
            Some(host) if host.count() == container.count() => HostPorts::Aligned(host),
            Some(host) => HostPorts::OneOf(host),
        };
        PublishSpec { host_ip: self.ip, host, container, proto: self.proto.unwrap_or(Proto::Tcp) }
    }
}

fn parts() -> impl Strategy<Value = Parts> {
    let ip = prop_oneof![
        Just(None),
        any::<[u8; 4]>().prop_map(|octets| Some(IpAddr::V4(Ipv4Addr::from(octets)))),
        any::<[u16; 8]>().prop_map(|groups| Some(IpAddr::V6(Ipv6Addr::from(groups)))),
        prop_oneof![Just("::"), Just("::1"), Just("fe80::1"), Just("::ffff:10.0.0.1")]
            .prop_map(|text| Some(text.parse().unwrap())),
    ];
    let range =
        (any::<u16>(), 0_u16..40).prop_map(|(first, more)| (first, first.saturating_add(more))).boxed();
    // Equal lengths, a choice for a single port, or nothing: the three shapes that are legal.
    let ports = prop_oneof![
        (any::<u16>(), any::<u16>(), 0_u16..40).prop_map(|(host, container, more)| {
            let more = more.min(u16::MAX - host).min(u16::MAX - container);
            (Some((host, host + more)), (container, container + more))
        }),
        (range.clone(), any::<u16>()).prop_map(|(host, port)| (Some(host), (port, port))),
        range.prop_map(|container| (None, container)),
    ];
    let proto =
        prop_oneof![Just(None), Just(Some(Proto::Tcp)), Just(Some(Proto::Udp)), Just(Some(Proto::Sctp))];
    (ip, ports, proto, any::<[bool; 3]>()).prop_map(|(ip, (host, container), proto, dress)| Parts {
        ip,
        host,
        container,
        proto,
        dress,
    })
}

proptest! {
    #[test]
    fn generated_values_parse_to_what_they_were_made_from(parts in parts()) {
        prop_assert_eq!(parts.text().parse::<PublishSpec>(), Ok(parts.want()), "text {:?}", parts.text());
    }

    #[test]
    fn what_is_printed_parses_to_the_same(parts in parts()) {
        let spec = parts.want();
        let printed = spec.to_string();
        prop_assert_eq!(printed.parse::<PublishSpec>(), Ok(spec), "printed {:?}", printed);
    }

    #[test]
    fn no_text_panics_and_accepted_text_survives_printing(text in "\\PC*") {
        if let Ok(spec) = text.parse::<PublishSpec>() {
            prop_assert_eq!(spec.to_string().parse::<PublishSpec>(), Ok(spec));
        }
    }

    #[test]
    fn text_of_the_grammars_own_signs_never_panics(text in "[0-9a-f:.,=+/\\[\\]%tcpudsrgel -]{0,40}") {
        if let Ok(spec) = text.parse::<PublishSpec>() {
            prop_assert_eq!(spec.to_string().parse::<PublishSpec>(), Ok(spec));
        }
    }
}
