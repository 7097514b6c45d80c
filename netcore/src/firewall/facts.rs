//! What the rules follow from: networks, ports and links of their endpoints, and this host. Plain data, already validated.
//!
//! Facts share what they have in common: a copy with one more port costs as much as there are endpoints, not ports.
//!
//! The gateway's address is not among the facts: whether a packet is for the host itself is asked of the routing table,
//! which knows every address of the host, also when the gateway of a network is a container.
//!
//! Not here: rules (`nftables`, `iptables`); what ports and links ask of them (`ports`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::ports::{EndpointLinks, EndpointPorts, PortRule};
use crate::model::{EndpointId, IfName};

/// How packets get from outside to a network's containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GatewayMode {
    /// Only through the host's address. The containers' own addresses can't be reached from outside.
    #[default]
    Nat,
    /// As [`Self::Nat`], but the containers' own addresses can be reached too, on every port.
    NatUnprotected,
    /// Under their own addresses, in both directions: the outside has routes to them. Open ports and ICMP enter.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    pub(super) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
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
    /// Interfaces whose packets may name a container's address even so, as those of a VPN.
    pub trusted: Vec<IfName>,
    /// The address under which IPv4 leaves; `None` is that of the interface by which it does.
    pub source4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub source6: Option<Ipv6Addr>,
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
            trusted: Vec::new(),
            source4: None,
            source6: None,
        }
    }

    /// Its subnets of one family, without host bits.
    pub(super) fn subnets(&self, family: Family) -> Vec<IpNet> {
        match family {
            Family::V4 => self.ipv4.iter().map(|net| IpNet::V4(net.trunc())).collect(),
            Family::V6 => self.ipv6.iter().map(|net| IpNet::V6(net.trunc())).collect(),
        }
    }

    pub(super) const fn mode(&self, family: Family) -> GatewayMode {
        match family {
            Family::V4 => self.gateway_mode4,
            Family::V6 => self.gateway_mode6,
        }
    }

    /// Whether its traffic leaves under another address.
    pub(super) const fn is_masqueraded(&self, family: Family) -> bool {
        self.masquerade && !self.internal && !matches!(self.mode(family), GatewayMode::Routed)
    }

    /// The address under which its traffic leaves, if it was chosen.
    pub(super) fn source(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.source4.map(IpAddr::V4),
            Family::V6 => self.source6.map(IpAddr::V6),
        }
    }
}

/// What the rules follow from besides networks and their ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// What becomes of IPv4 that isn't ours.
    pub foreign_v4: Foreign,
    /// What becomes of IPv6 that isn't ours.
    pub foreign_v6: Foreign,
    /// Whether a proxy listens on published ports: it is left what comes from the loopback interface and from the
    /// target's own network.
    pub userland_proxy: bool,
    /// Packets that bear this mark may enter any network that isn't internal.
    pub accept_mark: Option<PacketMark>,
    /// Whether packets from outside may name a container's address, in [`GatewayMode::Nat`] too. Only open ports are
    /// reached by that.
    pub allow_direct_routing: bool,
}

impl Default for HostFacts {
    fn default() -> Self {
        Self {
            foreign_v4: Foreign::Leave,
            foreign_v6: Foreign::Leave,
            userland_proxy: true,
            accept_mark: None,
            allow_direct_routing: false,
        }
    }
}

/// Everything that the rules follow from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    networks: Arc<BTreeMap<IfName, BridgeNetwork>>,
    ports: Arc<BTreeMap<EndpointId, Arc<EndpointPorts>>>,
    links: Arc<BTreeMap<EndpointId, Arc<EndpointLinks>>>,
    host: HostFacts,
}

/// Port rules that have to go and those that have to come, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortChange<'a> {
    pub(super) gone: Vec<PortRule<'a>>,
    pub(super) new: Vec<PortRule<'a>>,
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
    /// Facts of this host. Ports of endpoints on a bridge that is no network's, or an internal one's, ask for nothing.
    ///
    /// # Errors
    /// If two networks share a bridge or an address.
    pub fn new(
        networks: impl IntoIterator<Item = BridgeNetwork>,
        ports: impl IntoIterator<Item = (EndpointId, Arc<EndpointPorts>)>,
        host: HostFacts,
    ) -> Result<Self, FactsError> {
        let mut by_bridge = BTreeMap::new();
        for network in networks {
            if let Some(twice) = by_bridge.insert(network.bridge.clone(), network) {
                return Err(FactsError::SameBridge(twice.bridge));
            }
        }
        for family in Family::BOTH {
            refuse_overlap(&by_bridge, family)?;
        }
        let ports = ports.into_iter().collect();
        Ok(Self { networks: Arc::new(by_bridge), ports: Arc::new(ports), links: Arc::default(), host })
    }

    /// The same facts with other ports of some endpoints: `None` takes an endpoint's ports away.
    #[must_use]
    pub fn with_ports(
        &self,
        changes: impl IntoIterator<Item = (EndpointId, Option<Arc<EndpointPorts>>)>,
    ) -> Self {
        let mut facts = self.clone();
        let ports = Arc::make_mut(&mut facts.ports);
        for (id, changed) in changes {
            match changed {
                Some(changed) => ports.insert(id, changed),
                None => ports.remove(&id),
            };
        }
        facts
    }

    /// The same facts with other links of some endpoints: `None` takes an endpoint's links away.
    #[must_use]
    pub fn with_links(
        &self,
        changes: impl IntoIterator<Item = (EndpointId, Option<Arc<EndpointLinks>>)>,
    ) -> Self {
        let mut facts = self.clone();
        let links = Arc::make_mut(&mut facts.links);
        for (id, changed) in changes {
            match changed {
                Some(changed) => links.insert(id, changed),
                None => links.remove(&id),
            };
        }
        facts
    }

    /// The networks, by the names of their bridges.
    pub fn networks(&self) -> impl Iterator<Item = &BridgeNetwork> {
        self.networks.values()
    }

    /// The endpoints with ports, and these.
    pub fn ports(&self) -> impl Iterator<Item = (EndpointId, &Arc<EndpointPorts>)> {
        self.ports.iter().map(|(id, ports)| (*id, ports))
    }

    /// The endpoints with links, and these.
    pub fn links(&self) -> impl Iterator<Item = (EndpointId, &Arc<EndpointLinks>)> {
        self.links.iter().map(|(id, links)| (*id, links))
    }

    /// What the host itself adds.
    pub const fn host(&self) -> &HostFacts {
        &self.host
    }

    /// Whether `other` differs in ports and links at most.
    pub(super) fn has_networks_and_host_of(&self, other: &Self) -> bool {
        self.host == other.host && self.networks == other.networks
    }

    /// The networks that `other` lacks, or has differently.
    pub(super) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a BridgeNetwork> {
        self.networks().filter(|network| other.networks.get(&network.bridge) != Some(network))
    }

    /// What all ports and links ask for.
    pub(super) fn port_rules(&self) -> BTreeSet<PortRule<'_>> {
        let mut rules = BTreeSet::new();
        self.ports.values().for_each(|ports| self.add_port_rules(ports, &mut rules));
        self.links.values().for_each(|links| self.add_link_rules(links, &mut rules));
        rules
    }

    /// What has to change of the port rules to get from `self` to `after`, which has the same host facts. Endpoints that
    /// are the same in both, on networks that are, aren't looked into.
    pub(super) fn port_change<'a>(&'a self, after: &'a Self) -> PortChange<'a> {
        let are_same = Arc::ptr_eq(&self.ports, &after.ports) && Arc::ptr_eq(&self.links, &after.links);
        if are_same && Arc::ptr_eq(&self.networks, &after.networks) {
            return PortChange::default();
        }
        let both = self.without(after).chain(after.without(self));
        let moved: BTreeSet<&IfName> = both.map(|network| &network.bridge).collect();
        let is_moved = |bridge: &IfName| moved.contains(bridge);
        let (mut old, mut new) = (BTreeSet::new(), BTreeSet::new());
        for (one, other, rules) in [(self, after, &mut old), (after, self, &mut new)] {
            let ports = differing(&one.ports, &other.ports, |ports| is_moved(&ports.bridge));
            ports.for_each(|ports| one.add_port_rules(ports, rules));
            let links = differing(&one.links, &other.links, |links| is_moved(&links.bridge));
            links.for_each(|links| one.add_link_rules(links, rules));
        }
        let minus = |one: &BTreeSet<PortRule<'a>>, other| one.difference(other).copied().collect();
        PortChange { gone: minus(&old, &new), new: minus(&new, &old) }
    }

    fn add_port_rules<'a>(&self, ports: &'a EndpointPorts, rules: &mut BTreeSet<PortRule<'a>>) {
        if self.networks.get(&ports.bridge).is_some_and(|network| !network.internal) {
            ports.add_rules(self.host.userland_proxy, rules);
        }
    }

    fn add_link_rules<'a>(&self, links: &'a EndpointLinks, rules: &mut BTreeSet<PortRule<'a>>) {
        if self.networks.get(&links.bridge).is_some_and(|network| !network.icc && !network.internal) {
            links.add_rules(rules);
        }
    }

    /// Whether a subnet's addresses may be named only by packets that come from its bridge, or a trusted interface.
    pub(super) fn guards(&self, network: &BridgeNetwork, family: Family) -> bool {
        let open = self.host.allow_direct_routing || !matches!(network.mode(family), GatewayMode::Nat);
        network.internal || !open
    }

    /// What becomes of traffic that isn't ours.
    pub const fn foreign(&self, family: Family) -> Foreign {
        match family {
            Family::V4 => self.host.foreign_v4,
            Family::V6 => self.host.foreign_v6,
        }
    }

    /// Whether no rule is needed.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && Family::BOTH.iter().all(|family| self.foreign(*family) == Foreign::Leave)
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

/// What `one` has of endpoints that `other` lacks or has differently, or that are moved.
fn differing<'a, T: PartialEq>(
    one: &'a BTreeMap<EndpointId, Arc<T>>,
    other: &'a BTreeMap<EndpointId, Arc<T>>,
    is_moved: impl Fn(&T) -> bool,
) -> impl Iterator<Item = &'a Arc<T>> {
    let is_same = move |id: &EndpointId, mine: &Arc<T>| {
        other.get(id).is_some_and(|theirs| Arc::ptr_eq(mine, theirs) || mine == theirs) && !is_moved(mine)
    };
    one.iter().filter(move |(id, mine)| !is_same(id, mine)).map(|(_, mine)| mine)
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
