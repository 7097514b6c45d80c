//! Tests that each backend has to pass, and the networks of the lab as the firewall knows them.

use netcore::firewall::{Backend, BackendChoice, BridgeNetwork, Firewall};

use crate::lab::ready;

/// Each test once with nftables and once with iptables.
macro_rules! with_each_backend {
    ($($name:ident)*) => {
        mod nftables_backend {
            $(#[test] fn $name() { super::backends::run(netcore::firewall::Backend::Nftables, super::$name); })*
        }
        mod iptables_backend {
            $(#[test] fn $name() { super::backends::run(netcore::firewall::Backend::Iptables, super::$name); })*
        }
    };
}

pub(crate) use with_each_backend;

pub(crate) fn run(backend: Backend, test: fn(Backend)) {
    if ready(backend).is_some() {
        test(backend);
    }
}

pub(crate) fn firewall(backend: Backend) -> Firewall {
    Firewall::new(match backend {
        Backend::Nftables => BackendChoice::Nftables,
        Backend::Iptables => BackendChoice::Iptables,
    })
}

pub(crate) fn network(bridge: &str, number: u8) -> BridgeNetwork {
    let mut network = BridgeNetwork::new(bridge.parse().expect("a name"));
    network.ipv4.push(format!("172.{number}.0.0/24").parse().expect("a subnet"));
    network.ipv6.push(format!("fd00:{number}::/64").parse().expect("a subnet"));
    network
}

pub(crate) fn a() -> BridgeNetwork {
    network("br-a", 20)
}

pub(crate) fn b() -> BridgeNetwork {
    network("br-b", 21)
}
