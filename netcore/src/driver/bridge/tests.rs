//! Golden files of plans, and what the driver refuses. `UPDATE_GOLDEN=1` rewrites the files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::ipam::SubnetSpec;
use crate::model::{EndpointSettings, Ipam, Scope, Subnet, Timestamp, options};

const HOST: HostSettings = HostSettings { ip_forward: true, userland_proxy: true };

fn network(set: impl FnOnce(&mut Network)) -> Network {
    let mut network = Network {
        id: "20d412d86f5f".repeat(6)[..64].parse().unwrap(),
        name: "n".parse().unwrap(),
        driver: "bridge".into(),
        scope: Scope::Local,
        created: Timestamp::from_nanos(0),
        ipam: Ipam::default(),
        subnets: vec![Subnet {
            gateway: Some("10.1.0.1".parse().unwrap()),
            ..Subnet::new("10.1.0.0/24".parse().unwrap())
        }],
        internal: false,
        ipv4: true,
        ipv6: false,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        adopted: false,
    };
    set(&mut network);
    network
}

fn option(network: &mut Network, key: &str, value: &str) {
    network.options.insert(key.to_owned(), value.to_owned());
}

fn endpoint() -> Endpoint {
    Endpoint {
        id: "93b31d2208a6".repeat(6)[..64].parse().unwrap(),
        network: network(|_| {}).id,
        sandbox: None,
        name: "web".into(),
        ipv4: Some("10.1.0.2/24".parse().unwrap()),
        ipv6: Some("fd00:1::2/64".parse().unwrap()),
        gateway4: Some("10.1.0.1".parse().unwrap()),
        gateway6: None,
        mac: Some("02:42:0a:01:00:02".parse().unwrap()),
        ifname: Some("eth0".parse().unwrap()),
        host_ifname: Some("veth0123abc".parse().unwrap()),
        settings: EndpointSettings {
            link_local: vec!["169.254.7.7".parse().unwrap()],
            ..EndpointSettings::default()
        },
        publications: Vec::new(),
    }
}

/// The plan, an object a line, and the firewall's facts.
fn shown(network: &Network, host: HostSettings) -> String {
    let mut objects = Bridge.network_objects(network, host);
    objects.extend(Bridge.endpoint_objects(network, &endpoint(), Path::new("/netns/x"), host));
    let plan: plan::Plan = objects.into_iter().collect();
    let mut text: String = plan.objects().map(line).collect();
    let rules = Bridge.firewall(network).unwrap();
    let BridgeNetwork { bridge, ipv4, ipv6, masquerade, icc, internal, .. } = &rules;
    writeln!(text, "rules {bridge} {ipv4:?} {ipv6:?} masquerade={masquerade} icc={icc} internal={internal}")
        .unwrap();
    let modes = (rules.gateway_mode4, rules.gateway_mode6);
    writeln!(text, "  {modes:?} trusted={:?} source={:?} {:?}", rules.trusted, rules.source4, rules.source6)
        .unwrap();
    text
}

fn line(object: &Object) -> String {
    match object {
        Object::Sysctl(sysctl) => format!("sysctl {}={}\n", sysctl.key, sysctl.value),
        Object::Bridge(bridge) => format!(
            "bridge {} {:?} mtu={:?} adopted={} ipv6={} filtered={} route_localnet={}\n",
            bridge.name,
            bridge.addresses,
            bridge.mtu,
            bridge.adopted,
            bridge.ipv6,
            bridge.filtered,
            bridge.route_localnet
        ),
        Object::Veth(veth) => format!(
            "veth {}@{} {}@{} {} {:?} mtu={:?} hairpin={}\n",
            veth.host,
            veth.bridge,
            veth.name,
            veth.namespace.display(),
            veth.mac,
            veth.addresses,
            veth.mtu,
            veth.hairpin
        ),
        other => panic!("no driver plans {other:?}"),
    }
}

fn check(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/driver/bridge/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, got).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(want == got, "{name} differs (UPDATE_GOLDEN=1 accepts)\n- want\n{want}\n- got\n{got}");
}

#[test]
fn plans_are_as_reviewed() {
    let six = |network: &mut Network| {
        network.ipv6 = true;
        network.subnets.push(Subnet {
            gateway: Some("fd00:1::1".parse().unwrap()),
            ..Subnet::new("fd00:1::/64".parse().unwrap())
        });
    };
    let options = |network: &mut Network| {
        option(network, options::BRIDGE_NAME, "br-test");
        option(network, options::ENABLE_ICC, "false");
        option(network, options::ENABLE_IP_MASQUERADE, "false");
        option(network, options::MTU, "1400");
        option(network, options::GATEWAY_MODE_IPV4, "nat-unprotected");
        option(network, options::GATEWAY_MODE_IPV6, "routed");
        option(network, options::TRUSTED_HOST_INTERFACES, "wg0");
        option(network, options::HOST_IPV4, "198.51.100.9");
        network.adopted = true;
    };
    check("plain.txt", &shown(&network(|_| {}), HOST));
    check("ipv6.txt", &shown(&network(six), HOST));
    check("internal.txt", &shown(&network(|network| network.internal = true), HOST));
    check(
        "options.txt",
        &shown(&network(options), HostSettings { ip_forward: false, userland_proxy: false }),
    );
}

#[test]
fn interfaces_are_called_as_the_option_says() {
    assert_eq!(Bridge.interface_prefix(&network(|_| {})).as_deref(), Some("eth"));
    let named = |prefix: &str| network(|network| option(network, CONTAINER_IFACE_PREFIX, prefix));
    assert_eq!(Bridge.interface_prefix(&named("net")).as_deref(), Some("net"));
    for prefix in ["a/b", "sixteen-letters-"] {
        let error = Bridge.check(&named(prefix), &[]).unwrap_err();
        assert!(matches!(error, DriverError::Prefix { .. }), "{error}");
    }
    assert_eq!(Bridge.check(&named(""), &[]), Ok(()));
}

#[test]
fn networks_are_refused_beside_what_they_conflict_with() {
    let one = network(|_| {});
    let other = |set: fn(&mut Network)| {
        network(|network| {
            network.id = "30".repeat(32).parse().unwrap();
            set(network);
        })
    };
    let what = |network: &Network| Bridge.check_beside(network, &one).map_err(|error| error.to_string());
    let apart = other(|network| network.subnets[0].subnet = "10.2.0.0/24".parse().unwrap());
    assert_eq!(what(&apart), Ok(()));
    let overlapping = what(&other(|_| {})).unwrap_err();
    let ids = format!(
        "cannot create network {} (br-303030303030): conflicts with network {} (br-20d412d86f5f)",
        "30".repeat(32),
        one.id
    );
    assert_eq!(overlapping, format!("{ids}: networks have overlapping IPv4"));
    let two = |network: &mut Network| network.subnets.push(Subnet::new("10.3.0.0/24".parse().unwrap()));
    let subnets = network(two).subnets.into_iter().map(|subnet| SubnetSpec::new(subnet.subnet)).collect();
    let subnets = SubnetConfig::check(subnets).unwrap();
    assert_eq!(Bridge.check(&one, &subnets), Err(DriverError::MultipleSubnets));
}
