//! The default network as the daemon's flags have it.

use super::lab::*;
use crate::controller::{BridgeDevice, Config, DefaultBridge};
use crate::kernel::LinkFacts;
use crate::model::*;
use crate::plan::Key;

fn with(lab: &Lab, set: impl FnOnce(&mut DefaultBridge)) -> Config {
    let mut config = lab.config();
    set(&mut config.default_bridge);
    config
}

fn bridge(lab: &Lab, config: Config) -> Network {
    lab.try_open(config, BOOT).unwrap().network("bridge").unwrap().network
}

#[test]
fn the_network_stays_the_same_while_the_flags_say_so() {
    let lab = Lab::new();
    let first = bridge(&lab, lab.config());
    assert_eq!(bridge(&lab, lab.config()), first);
    let mtu = bridge(&lab, with(&lab, |bridge| bridge.mtu = 1400));
    assert_ne!(mtu.id, first.id);
    assert_eq!(mtu.options[options::DRIVER_MTU], "1400");
    let bip = bridge(&lab, with(&lab, |bridge| bridge.address = Some("10.5.0.9/24".parse().unwrap())));
    assert_eq!(bip.subnets[0].subnet.to_string(), "10.5.0.0/24");
    assert_eq!(bip.subnets[0].gateway.unwrap().to_string(), "10.5.0.9");
    let range = bridge(
        &lab,
        with(&lab, |bridge| {
            bridge.address = Some("10.5.0.9/24".parse().unwrap());
            bridge.range = Some("10.5.0.64/26".parse().unwrap());
            bridge.gateway = Some("10.5.0.254".parse().unwrap());
        }),
    );
    assert_eq!(range.default_gateway(Family::V4).unwrap().to_string(), "10.5.0.254");
    assert_eq!(range.subnets[0].range.unwrap().to_string(), "10.5.0.64/26");
}

#[test]
fn flags_that_cannot_be_are_refused() {
    let lab = Lab::new();
    let bip = |bridge: &mut DefaultBridge| bridge.address = Some("10.5.0.1/24".parse().unwrap());
    let cases: [(Config, &str); 6] = [
        (
            with(&lab, |bridge| {
                bip(bridge);
                bridge.device = BridgeDevice::Adopted("lan0".parse().unwrap());
            }),
            "You specified -b & --bip, mutually exclusive options. Please specify only one",
        ),
        (
            Config { iptables: false, ..with(&lab, |bridge| bridge.icc = false) },
            "You specified --iptables=false with --icc=false. ICC=false uses iptables to function. Please set --icc or --iptables to true",
        ),
        (
            with(&lab, |bridge| bridge.device = BridgeDevice::Adopted("lan0".parse().unwrap())),
            "bridge lan0 does not exist: make it first, or leave --bridge away",
        ),
        (
            with(&lab, |bridge| {
                bip(bridge);
                bridge.gateway = Some("10.6.0.1".parse().unwrap());
            }),
            "default gateway ip must be part of the network",
        ),
        (
            with(&lab, |bridge| {
                bip(bridge);
                bridge.range = Some("10.6.0.0/24".parse().unwrap());
            }),
            "range 10.6.0.0/24 of the default bridge is not part of its subnet 10.5.0.0/24",
        ),
        (with(&lab, |bridge| bridge.range = Some("10.0.0.0/8".parse().unwrap())), ""),
    ];
    for (config, want) in cases {
        match lab.try_open(config, BOOT) {
            Ok(_) => assert_eq!(want, ""),
            Err(error) => assert_eq!(error.to_string(), want),
        }
    }
}

#[test]
fn without_a_default_network_there_is_loopback_only() {
    let lab = Lab::new();
    drop(lab.open());
    let controller = lab.try_open(with(&lab, |bridge| bridge.device = BridgeDevice::None), BOOT).unwrap();
    assert_eq!(text(controller.network("bridge")), (404, "network bridge not found".into()));
    assert!(!lab.kernel.state().objects.contains_key(&Key::Bridge("portmap0".parse().unwrap())));
    let view = start(&controller, "web", "bridge");
    assert_eq!((view.endpoints.len(), view.endpoints[0].ipv4), (1, None));
    assert_eq!(controller.network("none").unwrap().endpoints.len(), 1);
}

#[test]
fn an_adopted_bridge_keeps_its_address_and_itself() {
    let lab = Lab::new();
    let link = LinkFacts {
        bridge: true,
        addresses: vec!["10.7.0.1/24".parse().unwrap(), "fd00:7::1/64".parse().unwrap()],
        mtu: 1500,
        alias: None,
    };
    lab.kernel.state().links.insert("lan0".parse().unwrap(), link);
    let config = || {
        with(&lab, |bridge| {
            bridge.device = BridgeDevice::Adopted("lan0".parse().unwrap());
            bridge.ipv6 = true;
        })
    };
    let network = bridge(&lab, config());
    assert!(network.adopted);
    let subnets: Vec<_> =
        network.subnets.iter().map(|s| (s.subnet.to_string(), s.gateway.unwrap())).collect();
    assert_eq!(subnets[0], ("10.7.0.0/24".into(), "10.7.0.1".parse().unwrap()));
    assert_eq!(subnets[1], ("fd00:7::/64".into(), "fd00:7::1".parse().unwrap()));
    assert_eq!(bridge(&lab, config()).id, network.id);
}

#[test]
fn changed_flags_wait_until_nobody_runs() {
    let lab = Lab::new();
    let controller = lab.open();
    let first = controller.network("bridge").unwrap().network;
    let id = start(&controller, "web", "bridge").sandbox.id;
    drop(controller);
    let changed = || with(&lab, |bridge| bridge.icc = false);
    let controller = lab.try_open(changed(), BOOT).unwrap();
    assert_eq!(controller.network("bridge").unwrap().network, first);
    controller.sandbox_ended(id, 0, None).unwrap();
    drop(controller);
    assert_ne!(bridge(&lab, changed()).id, first.id);
}

#[test]
fn without_iptables_no_rule_is_touched_and_nothing_masqueraded() {
    let lab = Lab::new();
    let network = bridge(&lab, Config { iptables: false, ip_forward: false, ..lab.config() });
    assert_eq!(network.options[options::ENABLE_IP_MASQUERADE], "false");
    let state = lab.kernel.state();
    assert!(state.rules.is_empty());
    assert_eq!(state.sysctls["net/ipv4/ip_forward"], "0");
}
