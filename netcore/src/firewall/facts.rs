//! What the rules follow from: networks, and whether this host routes for others. Plain data, already validated.
//!
//! The gateway's address is not among the facts: whether a packet is for the host itself is asked of the routing table,
//! which knows every address of the host, also when the gateway of a network is a container.
//!
//! Not here: rules (`nftables`, `iptables`); ports, which publishing adds.

use std::collections::BTreeMap;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::IfName;

/// How packets get from outside to a network's containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GatewayMode {
    /// Only through the host's address. The containers' own addresses can't be reached from outside.
    #[default]
    Nat,
    /// The same, but what leaves keeps its address: the outside has routes for the answers.
    Routed,
}

/// What becomes of packets this host forwards between interfaces that are none of ours, in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Foreign {
    /// It is somebody else's business: forwarding was on before us.
    #[default]
    Leave,
    /// It is dropped: we turned forwarding on, for our networks only.
    Drop,
}

/// A mark that packets may bear: `VALUE[/MASK]`, each decimal, `0x` hexadecimal or `0` octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketMark {
    /// What the masked bits are.
    pub value: u32,
    /// The bits that count.
    pub mask: u32,
}

/// Not a mark.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid firewall mark {0:?}: VALUE or VALUE/MASK, of 32 bits each, is needed")]
pub struct BadMark(pub String);

impl FromStr for PacketMark {
    type Err = BadMark;

    fn from_str(text: &str) -> Result<Self, BadMark> {
        let number = |text: &str| match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8).ok(),
            None => text.parse().ok(),
        };
        let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
        let mask = mask.map_or(Some(u32::MAX), number);
        match (number(value), mask) {
            (Some(value), Some(mask)) => Ok(Self { value, mask }),
            _ => Err(BadMark(text.to_owned())),
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A bridge network as the firewall sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeNetwork {
    /// The bridge.
    pub bridge: IfName,
    /// IPv4 subnets.
    pub ipv4: Vec<Ipv4Net>,
    /// IPv6 subnets.
    pub ipv6: Vec<Ipv6Net>,
    /// Whether what leaves gets the host's address, because nobody outside knows the way back to a container's.
    pub masquerade: bool,
    /// Whether containers of the network may talk to each other.
    pub icc: bool,
    /// Whether the network has no outside at all.
    pub internal: bool,
    /// How the outside reaches the containers over IPv4.
    pub gateway_mode4: GatewayMode,
    /// The same for IPv6.
    pub gateway_mode6: GatewayMode,
}

impl BridgeNetwork {
    /// A network with Docker's defaults and without subnets.
    pub const fn new(bridge: IfName) -> Self {
        Self {
            bridge,
            ipv4: Vec::new(),
            ipv6: Vec::new(),
            masquerade: true,
            icc: true,
            internal: false,
            gateway_mode4: GatewayMode::Nat,
            gateway_mode6: GatewayMode::Nat,
        }
    }

    /// Its subnets of one family, without host bits.
    pub(super) fn subnets(&self, family: Family) -> Vec<IpNet> {
        match family {
            Family::V4 => self.ipv4.iter().map(|net| IpNet::V4(net.trunc())).collect(),
            Family::V6 => self.ipv6.iter().map(|net| IpNet::V6(net.trunc())).collect(),
        }
    }

    /// Whether its traffic leaves under another address.
    pub(super) const fn is_masqueraded(&self, family: Family) -> bool {
        let mode = match family {
            Family::V4 => self.gateway_mode4,
            Family::V6 => self.gateway_mode6,
        };
        self.masquerade && !self.internal && matches!(mode, GatewayMode::Nat)
    }
}

/// Everything that the rules follow from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    networks: BTreeMap<IfName, BridgeNetwork>,
    foreign_v4: Foreign,
    foreign_v6: Foreign,
}

/// Why no rules can follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// A bridge has one network.
    #[error("bridge {0} is used by two networks")]
    SameBridge(IfName),
    /// An address would belong to two networks.
    #[error("subnet {subnet} of bridge {bridge} overlaps with {other} of bridge {other_bridge}")]
    Overlap {
        /// A subnet.
        subnet: IpNet,
        /// Its bridge.
        bridge: IfName,
        /// Another one.
        other: IpNet,
        /// Its bridge.
        other_bridge: IfName,
    },
}

impl Facts {
    /// Facts of this host.
    ///
    /// # Errors
    /// If two networks share a bridge or an address.
    pub fn new(
        networks: impl IntoIterator<Item = BridgeNetwork>,
        foreign_v4: Foreign,
        foreign_v6: Foreign,
    ) -> Result<Self, FactsError> {
        let mut by_bridge = BTreeMap::new();
        for network in networks {
            if let Some(twice) = by_bridge.insert(network.bridge.clone(), network) {
                return Err(FactsError::SameBridge(twice.bridge));
            }
        }
        for family in [Family::V4, Family::V6] {
            refuse_overlap(&by_bridge, family)?;
        }
        Ok(Self { networks: by_bridge, foreign_v4, foreign_v6 })
    }

    /// The networks, by the names of their bridges.
    pub fn networks(&self) -> impl Iterator<Item = &BridgeNetwork> {
        self.networks.values()
    }

    /// The networks that `other` lacks, or has differently.
    pub(super) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a BridgeNetwork> {
        self.networks().filter(|network| other.networks.get(&network.bridge) != Some(network))
    }

    /// What becomes of traffic that isn't ours.
    pub const fn foreign(&self, family: Family) -> Foreign {
        match family {
            Family::V4 => self.foreign_v4,
            Family::V6 => self.foreign_v6,
        }
    }

    /// Whether no rule is needed.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.foreign_v4 == Foreign::Leave && self.foreign_v6 == Foreign::Leave
    }

    /// Bridges whose own traffic the rules must see: they need `nf_call_iptables` and `nf_call_ip6tables` (or the
    /// sysctls `net.bridge.bridge-nf-call-*`), or `icc` off has no effect.
    pub fn filters_bridged(&self) -> impl Iterator<Item = &IfName> {
        self.networks.values().filter(|network| !network.icc).map(|network| &network.bridge)
    }

    pub(super) fn needs(&self, family: Family) -> bool {
        self.foreign(family) == Foreign::Drop
            || self.networks.values().any(|network| !network.subnets(family).is_empty())
    }
}

/// Sorted by first address, a subnet that overlaps any other overlaps its neighbour: two subnets either nest or are
/// apart.
fn refuse_overlap(networks: &BTreeMap<IfName, BridgeNetwork>, family: Family) -> Result<(), FactsError> {
    let mut all: Vec<(IpNet, &IfName)> = networks
        .values()
        .flat_map(|network| network.subnets(family).into_iter().map(|subnet| (subnet, &network.bridge)))
        .collect();
    all.sort_unstable_by_key(|(subnet, bridge)| (subnet.network(), subnet.prefix_len(), *bridge));
    for pair in all.windows(2) {
        let [(other, other_bridge), (subnet, bridge)] = pair else { continue };
        if other.contains(subnet) {
            return Err(FactsError::Overlap {
                subnet: *subnet,
                bridge: (*bridge).clone(),
                other: *other,
                other_bridge: (*other_bridge).clone(),
            });
        }
    }
    Ok(())
}
