//! The network `bridge`, as the daemon's flags have it.
//!
//! It stays the same network, with the same id, as long as the flags describe what it is. It can't change under sandboxes
//! that run: then it stays as it was, and the flags count from the next start without any.

use std::net::IpAddr;

use ipnet::IpNet;

use super::config::{BridgeDevice, DEFAULT_BRIDGE};
use super::error::ControllerError;
use super::networks::checked;
use super::{Inner, Result};
use crate::driver::DriverError;
use crate::ipam::{SubnetConfig, SubnetSpec};
use crate::model::options::{BRIDGE_NAME, DRIVER_MTU, ENABLE_ICC, ENABLE_IP_MASQUERADE, HOST_BINDING_IPV4};
use crate::model::{
    DEFAULT_GATEWAY_IPV4, DEFAULT_GATEWAY_IPV6, Family, IfName, Network, NetworkName, Predefined,
};
use crate::store::StoreError;

const IS_DEFAULT: &str = "com.docker.network.bridge.default_bridge";

/// What the flags say about one family.
struct Flags {
    /// `--bip`.
    address: Option<IpNet>,
    /// `--fixed-cidr`.
    range: Option<IpNet>,
    /// `--default-gateway`.
    gateway: Option<IpAddr>,
}

impl Inner {
    /// Makes the network `bridge` what the flags ask for.
    pub(super) fn default_bridge(&self) -> Result<()> {
        let name = NetworkName::from(Predefined::Bridge);
        let (present, endpoints) = self.store.read(move |tx| -> Result<_, StoreError> {
            let present = tx.network_named(&name)?;
            let id = present.as_ref().map(|network| network.id);
            let endpoints = id.map(|id| tx.endpoints_of_network(id)).transpose()?.unwrap_or_default();
            Ok((present, endpoints))
        })?;
        let wanted = self.wanted_bridge(present.as_ref())?;
        let same = match (&present, &wanted) {
            (None, None) => true,
            (Some(present), Some((network, subnets))) => is_as_wanted(present, network, subnets),
            _ => false,
        };
        if same {
            return Ok(());
        }
        if let Some(present) = &present {
            if !endpoints.is_empty() {
                tracing::warn!(
                    sandboxes = endpoints.len(),
                    "the flags of the default bridge have changed: they will not take effect while sandboxes run on it"
                );
                return Ok(());
            }
            self.drop_network(present.id)?;
        }
        match wanted {
            Some((network, subnets)) => self.add_network(network, &subnets).map(drop),
            None => Ok(()),
        }
    }

    /// The network the flags ask for, and its subnets; none that somebody has yet to choose.
    fn wanted_bridge(&self, present: Option<&Network>) -> Result<Option<(Network, Vec<SubnetConfig>)>> {
        let flags = &self.config.default_bridge;
        let own = || DEFAULT_BRIDGE.parse::<IfName>();
        let (device, adopted) = match &flags.device {
            BridgeDevice::None => return Ok(None),
            BridgeDevice::Own => (own()?, false),
            BridgeDevice::Adopted(name) => (name.clone(), true),
        };
        let link = self.kernel.link(&device)?;
        match &link {
            None if adopted => return Err(ControllerError::NoBridge(device.to_string())),
            Some(link) if !link.bridge => return Err(DriverError::NotABridge(device).into()),
            _ => {}
        }
        let mut network = self.predefined_network(Predefined::Bridge)?;
        network.ipv6 = flags.ipv6;
        network.adopted = adopted;
        let masquerade = flags.masquerade && self.config.has_rules();
        network.options = [
            (IS_DEFAULT, "true".to_owned()),
            (ENABLE_ICC, flags.icc.to_string()),
            (ENABLE_IP_MASQUERADE, masquerade.to_string()),
            (HOST_BINDING_IPV4, flags.host_binding.to_string()),
            (BRIDGE_NAME, device.to_string()),
            (DRIVER_MTU, flags.mtu.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let on_device = link.map(|link| link.addresses).unwrap_or_default();
        let known =
            present.filter(|present| present.options.get(BRIDGE_NAME) == network.options.get(BRIDGE_NAME));
        let mut subnets = Vec::new();
        let families = [
            (
                Family::V4,
                true,
                Flags {
                    address: flags.address.map(IpNet::V4),
                    range: flags.range.map(IpNet::V4),
                    gateway: flags.gateway.map(IpAddr::V4),
                },
            ),
            (
                Family::V6,
                flags.ipv6,
                Flags {
                    address: flags.address6.map(IpNet::V6),
                    range: flags.range6.map(IpNet::V6),
                    gateway: flags.gateway6.map(IpAddr::V6),
                },
            ),
        ];
        for (family, _, flags) in families.into_iter().filter(|(_, on, _)| *on) {
            let known = known.and_then(|known| known.subnets.iter().find(|s| s.family() == family));
            let known = known.and_then(|known| IpNet::new(known.gateway?, known.subnet.prefix_len()).ok());
            let candidates: Vec<IpNet> = on_device
                .iter()
                .copied()
                .filter(|net| net.addr().is_ipv4() == (family == Family::V4))
                .chain(known)
                .collect();
            if let Some(spec) = subnet(&flags, &candidates, adopted)? {
                subnets.push(checked(spec)?);
            }
        }
        Ok(Some((network, subnets)))
    }
}

/// The subnet that flags and what is on the device make; `None` if they leave it to the default pools.
fn subnet(flags: &Flags, on_device: &[IpNet], adopted: bool) -> Result<Option<SubnetSpec>> {
    let range = flags.range.map(|range| range.trunc());
    let holds = |net: &&IpNet| range.is_none_or(|range| net.contains(&range));
    // An address on a device of our own that contradicts the flags is one of earlier flags.
    let usable = on_device.iter().find(holds).or_else(|| on_device.first().filter(|_| adopted));
    let mut spec = match (flags.address.or_else(|| usable.copied()), range) {
        (Some(address), range) => {
            SubnetSpec { range, gateway: Some(address.addr()), ..SubnetSpec::new(address.trunc()) }
        }
        (None, Some(range)) => SubnetSpec { range: Some(range), ..SubnetSpec::new(range) },
        (None, None) => match flags.gateway {
            Some(_) => return Err(ControllerError::GatewayOutside),
            None => return Ok(None),
        },
    };
    if let Some(range) = spec.range.filter(|range| !spec.subnet.contains(range)) {
        return Err(ControllerError::RangeOutside { range, subnet: spec.subnet });
    }
    if let Some(gateway) = flags.gateway.filter(|gateway| spec.gateway != Some(*gateway)) {
        if !spec.subnet.contains(&gateway) {
            return Err(ControllerError::GatewayOutside);
        }
        let name = if gateway.is_ipv4() { DEFAULT_GATEWAY_IPV4 } else { DEFAULT_GATEWAY_IPV6 };
        spec.auxiliary.insert(name.to_owned(), gateway);
    }
    Ok(Some(spec))
}

/// Whether a network is what is wanted. What the flags leave open, it may have chosen.
fn is_as_wanted(present: &Network, wanted: &Network, subnets: &[SubnetConfig]) -> bool {
    let families = 1 + usize::from(wanted.ipv6);
    let fits = |subnet: &SubnetConfig| {
        present.subnets.iter().any(|has| {
            has.subnet == subnet.subnet()
                && has.range == subnet.range()
                && subnet.gateway().is_none_or(|gateway| has.gateway == Some(gateway))
                && has.aux == *subnet.auxiliary()
        })
    };
    present.options == wanted.options
        && present.ipv6 == wanted.ipv6
        && present.adopted == wanted.adopted
        && present.subnets.len() == families
        && subnets.iter().all(fits)
}
