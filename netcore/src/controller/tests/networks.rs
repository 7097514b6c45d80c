use super::lab::*;
use crate::controller::NetworkRequest;
use crate::ipam::SubnetSpec;
use crate::model::*;
use crate::plan::{Key, Object};

#[test]
fn predefined_networks_are_there_and_the_default_one_has_the_first_pool() {
    let lab = Lab::new();
    let controller = lab.open();
    let networks = controller.networks().unwrap();
    let drivers: Vec<_> = networks.iter().map(|net| (net.name.as_str(), net.driver.as_str())).collect();
    assert_eq!(drivers, [("bridge", "bridge"), ("host", "host"), ("none", "null")]);
    let subnet = &networks[0].subnets[0];
    assert_eq!(subnet.subnet.to_string(), "172.17.0.0/16");
    assert_eq!(subnet.gateway.unwrap().to_string(), "172.17.0.1");
    let options: Vec<_> = networks[0].options.values().map(String::as_str).collect();
    assert_eq!(options, ["true", "true", "true", "0.0.0.0", "portmap0", "1500"]);
    let state = lab.kernel.state();
    assert!(state.objects.contains_key(&Key::Bridge("portmap0".parse().unwrap())));
    assert_eq!(state.sysctls["net/ipv4/ip_forward"], "1");
    assert_eq!(state.sysctls["net/ipv6/conf/all/forwarding"], "0", "nobody uses IPv6");
    // It was us who turned forwarding on: nobody else is routed.
    assert!(state.drops_foreign());
}

#[test]
fn pools_are_chosen_in_order_beside_what_the_host_reaches() {
    let lab = Lab::new();
    lab.kernel.state().routes.push("172.18.5.0/24".parse().unwrap());
    let controller = lab.open();
    let subnet = |name| controller.create_network(named(name)).unwrap().subnets[0].subnet.to_string();
    assert_eq!(subnet("a"), "172.19.0.0/16");
    assert_eq!(subnet("b"), "172.20.0.0/16");
    controller.remove_network("a").unwrap();
    assert_eq!(subnet("c"), "172.19.0.0/16", "a freed block is used again at once");
}

#[test]
fn networks_that_cannot_be_are_refused_with_dockers_texts() {
    let lab = Lab::new();
    lab.kernel.state().links.insert(
        "wlan0".parse().unwrap(),
        crate::kernel::LinkFacts { bridge: false, addresses: vec![], mtu: 1500, alias: None },
    );
    let controller = lab.open();
    controller.create_network(with_subnet("taken", "10.1.0.0/16")).unwrap();
    controller.create_network(with_options("dev", &[(options::BRIDGE_NAME, "br-x")])).unwrap();
    let spec = |subnet: &str| SubnetSpec::new(subnet.parse().unwrap());
    let subnets = |name: &str, subnets: Vec<SubnetSpec>| NetworkRequest { subnets, ..named(name) };
    let gateway =
        |subnet: &str, gateway: &str| SubnetSpec { gateway: Some(gateway.parse().unwrap()), ..spec(subnet) };
    let aux = |name: &str, subnet: &str, ip: &str| SubnetSpec {
        auxiliary: [(name.to_owned(), ip.parse().unwrap())].into(),
        ..spec(subnet)
    };
    let driver = |name: &str, driver: &str| NetworkRequest { driver: driver.into(), ..named(name) };
    let cases = [
        (named(" "), 400, "invalid name: name is empty"),
        (named("bridge"), 403, "operation is not permitted on predefined bridge network "),
        (named("default"), 403, "operation is not permitted on predefined default network "),
        (named("taken"), 409, "network with name taken already exists"),
        (
            with_subnet("n", "10.10.10.0/8"),
            400,
            "invalid network config:\ninvalid subnet 10.10.10.0/8: it should be 10.0.0.0/8",
        ),
        (
            subnets(
                "n",
                vec![SubnetSpec {
                    range: Some("10.3.0.0/16".parse().unwrap()),
                    ..gateway("10.2.0.0/24", "10.4.0.1")
                }],
            ),
            400,
            "invalid network config:\n* invalid ip-range 10.3.0.0/16: CIDR block is bigger than its parent subnet 10.2.0.0/24\n* invalid ip-range 10.3.0.0/16: parent subnet 10.2.0.0/24 doesn't contain ip-range\n* invalid gateway 10.4.0.1: parent subnet 10.2.0.0/24 doesn't contain this address",
        ),
        (driver("n", "foo"), 404, "plugin \"foo\" not found"),
        (driver("n", "host"), 403, "only one instance of \"host\" network is allowed"),
        (driver("n", "null"), 403, "only one instance of \"null\" network is allowed"),
        (
            with_subnet("n", "10.1.2.0/24"),
            403,
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        (
            subnets("n", vec![gateway("10.2.0.0/24", "10.2.0.0")]),
            500,
            "failed to allocate gateway (10.2.0.0): Address already in use",
        ),
        (
            subnets("n", vec![aux("a", "10.2.0.0/24", "10.2.0.1")]),
            500,
            "failed to allocate secondary ip address (a:10.2.0.1): Address already in use",
        ),
        (
            subnets("n", vec![spec("10.2.0.0/24"), spec("10.3.0.0/24")]),
            403,
            "bridge driver doesn't support multiple subnets",
        ),
        (NetworkRequest { ipv4: Some(false), ..named("n") }, 400, "IPv4 or IPv6 must be enabled"),
        (
            NetworkRequest {
                internal: true,
                ..subnets("n", vec![aux(DEFAULT_GATEWAY_IPV4, "10.2.0.0/24", "10.2.0.9")])
            },
            400,
            "no gateway can be set on an internal bridge network",
        ),
        (
            with_options("n", &[(options::BRIDGE_NAME, "wlan0")]),
            400,
            "existing interface wlan0 is not a bridge",
        ),
        (
            with_options("n", &[(options::ENABLE_ICC, "maybe")]),
            400,
            "failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: parsing \"maybe\": invalid syntax)",
        ),
        (with_options("n", &[(options::DRIVER_MTU, "-1")]), 400, "invalid MTU number: -1"),
        (
            with_options("n", &[(options::GATEWAY_MODE_IPV4, "x")]),
            400,
            "failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: x (unknown gateway mode x)",
        ),
        (
            with_options("n", &[(options::GATEWAY_MODE_IPV6, "isolated")]),
            400,
            "gateway mode 'isolated' can only be used for an internal network",
        ),
        (
            with_options("n", &[(options::INHIBIT_IPV4, "maybe")]),
            400,
            "failed to parse com.docker.network.bridge.inhibit_ipv4 value: maybe (strconv.ParseBool: parsing \"maybe\": invalid syntax)",
        ),
        (
            with_options("n", &[("com.docker.network.container_iface_prefix", "a/b")]),
            400,
            "failed to parse com.docker.network.container_iface_prefix value: a/b (not the beginning of an interface name)",
        ),
        (
            with_options("n", &[(options::ENABLE_IPV6, "maybe")]),
            400,
            "driver-opt \"com.docker.network.enable_ipv6\" is not a valid bool",
        ),
    ];
    let before = lab.snapshot(&controller);
    for (request, status, want) in cases {
        assert_eq!(text(controller.create_network(request)), (status, want.to_owned()));
    }
    let (status, same) =
        text(controller.create_network(with_options("n", &[(options::BRIDGE_NAME, "br-x")])));
    assert!(status == 403 && same.ends_with("(br-x): networks have same bridge name"), "{same}");
    assert_eq!(lab.snapshot(&controller), before);
}

#[test]
fn networks_are_removed_unless_predefined_or_in_use() {
    let lab = Lab::new();
    let controller = lab.open();
    let before = lab.snapshot(&controller);
    let id = controller.create_network(named("net-a")).unwrap().id;
    assert_eq!(text(controller.remove_network("x")), (404, "network x not found".into()));
    assert_eq!(
        text(controller.remove_network("none")),
        (403, "none is a pre-defined network and cannot be removed".into())
    );
    let view = start(&controller, "web", "net-a");
    let endpoint = view.endpoints[0].id.short();
    let in_use = format!(
        "error while removing network: network net-a has active endpoints (name:\"web\" id:\"{endpoint}\")"
    );
    assert_eq!(text(controller.remove_network("net-a")), (403, in_use));
    assert_eq!(controller.prune_networks(|_| true).unwrap(), []);
    controller.sandbox_ended(view.sandbox.id, 0, None).unwrap();
    assert_eq!(controller.remove_network(&id.to_string()[..5]).unwrap().name.as_str(), "net-a");
    assert_eq!(
        text(controller.start_sandbox("web", me())),
        (404, "failed to set up container networking: network net-a not found".into())
    );
    controller.remove_sandbox("web").unwrap();
    controller.create_network(named("b")).unwrap();
    controller.create_network(named("c")).unwrap();
    let pruned = controller.prune_networks(|network| network.name.as_str() != "b").unwrap();
    assert_eq!(pruned.iter().map(|network| network.name.as_str()).collect::<Vec<_>>(), ["c"]);
    controller.remove_network("b").unwrap();
    assert_eq!(lab.snapshot(&controller), before);
}

#[test]
fn ipv6_and_the_options_of_the_daemon_reach_the_plan() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.default_options =
        [("bridge".to_owned(), [(options::DRIVER_MTU.to_owned(), "1400".to_owned())].into())].into();
    let controller = lab.try_open(config, BOOT).unwrap();
    let network = controller.create_network(NetworkRequest { ipv6: Some(true), ..named("six") }).unwrap();
    assert_eq!(network.options[options::DRIVER_MTU], "1400");
    assert!(network.subnets[1].subnet.to_string().starts_with("fd"), "{:?}", network.subnets);
    let state = lab.kernel.state();
    let device = format!("br-{}", network.id.short()).parse().unwrap();
    let Object::Bridge(bridge) = &state.objects[&Key::Bridge(device)] else { panic!("a bridge") };
    assert_eq!((bridge.addresses.len(), bridge.mtu, bridge.ipv6), (2, Some(1400), true));
    assert_eq!(state.sysctls["net/ipv6/conf/all/forwarding"], "1");
}

#[test]
fn an_existing_bridge_is_adopted_and_stays() {
    let lab = Lab::new();
    let link = crate::kernel::LinkFacts { bridge: true, addresses: vec![], mtu: 1500, alias: None };
    lab.kernel.state().links.insert("lan0".parse().unwrap(), link);
    let controller = lab.open();
    let network = controller.create_network(with_options("n", &[(options::BRIDGE_NAME, "lan0")])).unwrap();
    assert!(network.adopted);
    drop(controller);
    assert!(lab.open().network("n").unwrap().network.adopted);
}

#[test]
fn sandboxes_keep_their_gateway_where_the_bridge_has_no_address() {
    let lab = Lab::new();
    let controller = lab.open();
    let addresses = |name: &str, options: &[(&str, &str)], internal: bool| {
        let request = NetworkRequest {
            ipv6: Some(true),
            subnets: ["10.1.0.0/24", "fd00:1::/64"].map(|net| SubnetSpec::new(net.parse().unwrap())).into(),
            internal,
            ..with_options(name, options)
        };
        let id = controller.create_network(request).unwrap().id;
        let view = start(&controller, "web", name);
        let bridge = Key::Bridge(format!("br-{}", id.short()).parse().unwrap());
        let on_bridge = match &lab.kernel.state().objects[&bridge] {
            Object::Bridge(bridge) => (bridge.addresses.len(), bridge.ipv6),
            other => panic!("{other:?}"),
        };
        controller.sandbox_ended(view.sandbox.id, 0, None).unwrap();
        controller.remove_sandbox("web").unwrap();
        controller.remove_network(name).unwrap();
        let endpoint = &view.endpoints[0];
        assert_eq!(endpoint.ipv4.unwrap().to_string(), "10.1.0.2/24");
        (on_bridge, endpoint.gateway4.map(|ip| ip.to_string()), endpoint.gateway6.map(|ip| ip.to_string()))
    };
    let gateways = || (Some("10.1.0.1".to_owned()), Some("fd00:1::1".to_owned()));
    let cases = [
        (vec![], false, (2, true), gateways()),
        (vec![(options::INHIBIT_IPV4, "true")], false, (1, true), gateways()),
        (vec![(options::GATEWAY_MODE_IPV4, "routed")], false, (2, true), gateways()),
        (vec![(options::GATEWAY_MODE_IPV4, "isolated")], true, (1, true), (None, None)),
        (vec![(options::GATEWAY_MODE_IPV6, "isolated")], true, (1, false), (None, None)),
    ];
    for (options, internal, on_bridge, (gateway4, gateway6)) in cases {
        assert_eq!(addresses("n", &options, internal), (on_bridge, gateway4, gateway6), "{options:?}");
    }
}
