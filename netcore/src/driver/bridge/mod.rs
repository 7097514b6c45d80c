//! A bridge on this host, with a pair of interfaces for each endpoint.

use std::path::Path;

use ipnet::IpNet;

use super::{Driver, DriverError, HostSettings, overlap};
use crate::firewall::{self, BridgeNetwork};
use crate::ipam::SubnetConfig;
use crate::model::options::IPV6_MINIMUM_MTU;
use crate::model::{
    BridgeOptions, DEFAULT_GATEWAY_IPV4, DEFAULT_GATEWAY_IPV6, Endpoint, Family, GatewayMode, IfName,
    Network, Subnet,
};
use crate::plan::{self, Object, Sysctl, Veth};

/// What interfaces in sandboxes begin with.
const CONTAINER_IFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
const DEFAULT_PREFIX: &str = "eth";
/// Prefix lengths of link-local addresses that somebody asks for.
const LINK_LOCAL: (u8, u8) = (16, 64);

/// The driver `bridge`.
#[derive(Clone, Copy, Debug)]
pub struct Bridge;

impl Driver for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn check(&self, network: &Network, subnets: &[SubnetConfig]) -> Result<(), DriverError> {
        let options = network.bridge_options()?;
        if !network.internal
            && [options.gateway_mode4, options.gateway_mode6].contains(&GatewayMode::Isolated)
        {
            return Err(DriverError::Isolated);
        }
        if let Some(prefix) = network.options.get(CONTAINER_IFACE_PREFIX)
            && !prefix.is_empty()
            && format!("{prefix}0").parse::<IfName>().is_err()
        {
            return Err(DriverError::Prefix { key: CONTAINER_IFACE_PREFIX, value: prefix.clone() });
        }
        if !network.ipv4 && !network.ipv6 {
            return Err(DriverError::NoFamily);
        }
        if let Some(mtu) = options.mtu.filter(|mtu| network.ipv6 && *mtu < IPV6_MINIMUM_MTU) {
            return Err(DriverError::SmallForIpv6(mtu));
        }
        let four = subnets.iter().filter(|subnet| matches!(subnet.subnet(), IpNet::V4(_))).count();
        if four > 1 || subnets.len() - four > 1 {
            return Err(DriverError::MultipleSubnets);
        }
        let chosen = |subnet: &SubnetConfig| {
            let auxiliary = subnet.auxiliary();
            [DEFAULT_GATEWAY_IPV4, DEFAULT_GATEWAY_IPV6].iter().any(|name| auxiliary.contains_key(*name))
        };
        if network.internal && subnets.iter().any(chosen) {
            return Err(DriverError::InternalGateway);
        }
        Ok(())
    }

    fn check_beside(&self, network: &Network, other: &Network) -> Result<(), DriverError> {
        let (device, other_device) = (device(network), device(other));
        let common = |v4: bool| {
            let of = |network: &Network| -> Vec<IpNet> {
                let nets = network.subnets.iter().map(|subnet| subnet.subnet);
                nets.filter(|net| matches!(net, IpNet::V4(_)) == v4).collect()
            };
            let others = of(other);
            of(network).iter().any(|one| others.iter().any(|two| overlap(one, two)))
        };
        let what = if device == other_device {
            "same bridge name"
        } else if common(true) {
            "overlapping IPv4"
        } else if common(false) {
            "overlapping IPv6"
        } else {
            return Ok(());
        };
        let devices = Box::new((device, other_device));
        Err(DriverError::Conflict { id: network.id, other: other.id, devices, what })
    }

    fn device(&self, network: &Network) -> Option<IfName> {
        Some(device(network))
    }

    fn interface_prefix(&self, network: &Network) -> Option<String> {
        let given = network.options.get(CONTAINER_IFACE_PREFIX).filter(|prefix| !prefix.is_empty());
        Some(given.map_or(DEFAULT_PREFIX, String::as_str).to_owned())
    }

    fn network_objects(&self, network: &Network, host: HostSettings) -> Vec<Object> {
        let options = options(network);
        let isolated4 = options.gateway_mode4 == GatewayMode::Isolated;
        let isolated6 = options.gateway_mode6 == GatewayMode::Isolated;
        let is_on_bridge = |subnet: &&Subnet| match subnet.family() {
            Family::V4 => !options.inhibit_ipv4 && !isolated4,
            Family::V6 => !isolated6,
        };
        let addresses = network
            .subnets
            .iter()
            .filter(is_on_bridge)
            .filter_map(|subnet| IpNet::new(subnet.gateway?, subnet.subnet.prefix_len()).ok())
            .collect();
        let bridge = plan::Bridge {
            name: device(network),
            adopted: network.adopted,
            addresses,
            mtu: options.mtu,
            ipv6: network.ipv6 && !isolated6,
            filtered: !options.icc,
            // A process of the host that calls its loopback address reaches the sandbox itself.
            route_localnet: !host.userland_proxy && !network.internal,
        };
        let mut objects = vec![Object::Bridge(bridge)];
        // Nothing is routed to or from an internal network.
        if host.ip_forward && !network.internal {
            objects.extend(forwarding(network).into_iter().map(Object::Sysctl));
        }
        objects
    }

    fn endpoint_objects(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        namespace: &Path,
        host: HostSettings,
    ) -> Vec<Object> {
        let (Some(name), Some(outside), Some(mac)) = (&endpoint.ifname, &endpoint.host_ifname, endpoint.mac)
        else {
            return Vec::new();
        };
        let options = options(network);
        let own = endpoint.ipv4.map(IpNet::V4).into_iter().chain(endpoint.ipv6.map(IpNet::V6));
        let link_local = endpoint.settings.link_local.iter().filter_map(|ip| {
            let length = if ip.is_ipv4() { LINK_LOCAL.0 } else { LINK_LOCAL.1 };
            IpNet::new(*ip, length).ok()
        });
        vec![Object::Veth(Veth {
            endpoint: endpoint.id,
            bridge: device(network),
            host: outside.clone(),
            namespace: namespace.to_owned(),
            name: name.clone(),
            mac,
            addresses: own.chain(link_local).collect(),
            mtu: options.mtu,
            hairpin: !host.userland_proxy,
            sysctls: endpoint.settings.interface_sysctls(name).unwrap_or_default(),
        })]
    }

    fn firewall(&self, network: &Network) -> Option<BridgeNetwork> {
        let options = options(network);
        let mut facts = BridgeNetwork::new(device(network));
        for subnet in &network.subnets {
            match subnet.subnet {
                IpNet::V4(net) => facts.ipv4.push(net),
                IpNet::V6(net) => facts.ipv6.push(net),
            }
        }
        (facts.masquerade, facts.icc, facts.internal) = (options.masquerade, options.icc, network.internal);
        let mode = |mode| match mode {
            GatewayMode::Routed => firewall::GatewayMode::Routed,
            GatewayMode::NatUnprotected => firewall::GatewayMode::NatUnprotected,
            // An isolated network is internal.
            GatewayMode::Nat | GatewayMode::Isolated => firewall::GatewayMode::Nat,
        };
        facts.gateway_mode4 = mode(options.gateway_mode4);
        facts.gateway_mode6 = mode(options.gateway_mode6);
        facts.trusted = options.trusted_interfaces;
        (facts.source4, facts.source6) = (options.host_ipv4, options.host_ipv6);
        Some(facts)
    }
}

/// The sysctls that make this host a router for a network's families.
pub(crate) fn forwarding(network: &Network) -> Vec<Sysctl> {
    let keys = [
        (Family::V4, "net/ipv4/ip_forward"),
        (Family::V6, "net/ipv6/conf/default/forwarding"),
        (Family::V6, "net/ipv6/conf/all/forwarding"),
    ];
    let used = |family| match family {
        Family::V4 => network.ipv4,
        Family::V6 => network.ipv6,
    };
    let set = |key: &str| Sysctl { key: key.to_owned(), value: "1".to_owned() };
    keys.into_iter().filter(|(family, _)| used(*family)).map(|(_, key)| set(key)).collect()
}

/// The network's bridge.
pub(crate) fn device(network: &Network) -> IfName {
    let made_up = || {
        let name = format!("br-{}", network.id.short());
        name.parse().expect("br- and 12 hex digits are 15 bytes that interface names may have")
    };
    options(network).name.unwrap_or_else(made_up)
}

/// The options of a network that was checked when it was created. What an older version let pass counts as not given.
pub(crate) fn options(network: &Network) -> BridgeOptions {
    network.bridge_options().unwrap_or_default()
}

#[cfg(test)]
mod tests;
