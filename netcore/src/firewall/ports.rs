//! Ports of endpoints, and the rules they ask for, whatever the backend.
//!
//! | rule | what for |
//! |---|---|
//! | [`PortRule::Translate`] | packets to a port of the host go to the container |
//! | [`PortRule::Open`] | packets to a port of the container may enter its network |
//! | [`PortRule::Link`] | a container may reach a port of another one on its network, whose containers are kept apart |
//!
//! Keys of one kind never overlap: host ports because they were bound, container ports because they are joined here. So
//! a backend may keep them in sets in which an element has no order.
//!
//! Not here: how a rule is written (`nftables`, `iptables`); which ports are published (`publish`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::facts::Family;
use crate::model::{IfName, Publication};
use crate::publish::{PortRange, Proto};

/// Ports of the host that lead to a container: first to first and last to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// On both sides.
    pub proto: Proto,
    /// The host's address; the unspecified one stands for all of its family. Of the target's family.
    pub host_ip: IpAddr,
    /// The host's ports.
    pub host: PortRange,
    /// The container's address.
    pub target: IpAddr,
    /// The container's ports, as many.
    pub container: PortRange,
}

/// Ports of a container that may be reached without the host's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenPort {
    /// The container's address.
    pub target: IpAddr,
    /// Its protocol.
    pub proto: Proto,
    /// Its ports.
    pub ports: PortRange,
}

/// Ports of another container that may be reached from an endpoint on the same network, though its containers are kept
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkPort {
    /// The endpoint's own address.
    pub from: IpAddr,
    /// The other one's, of the same family.
    pub to: IpAddr,
    /// Its protocol.
    pub proto: Proto,
    /// Its ports.
    pub ports: PortRange,
}

/// What an endpoint's links open. Where containers aren't kept apart, that is nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointLinks {
    /// The bridge of its network.
    pub bridge: IfName,
    /// The ports.
    pub ports: Vec<LinkPort>,
}

/// What is published of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPorts {
    /// The bridge of its network.
    pub bridge: IfName,
    /// Host ports that lead to it. A mapping's target is open by itself.
    pub mappings: Vec<Mapping>,
    /// Further ports that are open.
    pub open: Vec<OpenPort>,
}

impl EndpointPorts {
    /// What `publications` ask of the firewall; `None` if that is nothing. Between families there is no translation: such
    /// addresses are served by a proxy alone.
    pub fn of(bridge: IfName, publications: &[Publication]) -> Option<Self> {
        let mut ports = Self { bridge, mappings: Vec::new(), open: Vec::new() };
        for publication in publications {
            let Publication { proto, container, target, .. } = *publication;
            let Some(host) = publication.host else {
                ports.open.push(OpenPort { target, proto, ports: container });
                continue;
            };
            let same_family = |ip: &&IpAddr| Family::of(**ip) == Family::of(target);
            let mapping = |ip: &IpAddr| Mapping { proto, host_ip: *ip, host, target, container };
            ports.mappings.extend(publication.addresses.iter().filter(same_family).map(mapping));
        }
        (!ports.mappings.is_empty() || !ports.open.is_empty()).then_some(ports)
    }

    /// Adds the rules that these ports ask for.
    pub(super) fn add_rules<'a>(&'a self, proxy: bool, rules: &mut BTreeSet<PortRule<'a>>) {
        let except = proxy.then_some(&self.bridge);
        for mapping in self.mappings.iter().filter(|mapping| mapping.is_translated(proxy)) {
            let Mapping { proto, host_ip, host, target, container } = *mapping;
            let host_ip = (!host_ip.is_unspecified()).then_some(host_ip);
            rules.insert(PortRule::Translate(Translation {
                proto,
                host_ip,
                host,
                target,
                container,
                except,
            }));
        }
        let targets = self.mappings.iter().map(|mapping| (mapping.target, mapping.proto, mapping.container));
        let open = self.open.iter().map(|open| (open.target, open.proto, open.ports));
        let mut ranges: BTreeMap<(IpAddr, Proto), Vec<PortRange>> = BTreeMap::new();
        for (target, proto, ports) in targets.chain(open) {
            ranges.entry((target, proto)).or_default().push(ports);
        }
        for ((target, proto), ranges) in ranges {
            let open = |ports| PortRule::Open(OpenPort { target, proto, ports });
            rules.extend(joined(ranges).into_iter().map(open));
        }
    }
}

impl EndpointLinks {
    /// Adds the rules that these links ask for. What leads from one family to another leads nowhere.
    pub(super) fn add_rules(&self, rules: &mut BTreeSet<PortRule<'_>>) {
        let mut ranges: BTreeMap<(IpAddr, IpAddr, Proto), Vec<PortRange>> = BTreeMap::new();
        for LinkPort { from, to, proto, ports } in &self.ports {
            if Family::of(*from) == Family::of(*to) {
                ranges.entry((*from, *to, *proto)).or_default().push(*ports);
            }
        }
        for ((from, to, proto), ranges) in ranges {
            let link = |ports| PortRule::Link(LinkPort { from, to, proto, ports });
            rules.extend(joined(ranges).into_iter().map(link));
        }
    }
}

impl Mapping {
    /// Loopback addresses are left to the proxy. Without one, IPv4's are translated; IPv6 has no way to do that.
    fn is_translated(&self, proxy: bool) -> bool {
        Family::of(self.host_ip) == Family::of(self.target)
            && match self.host_ip {
                IpAddr::V4(ip) => !proxy || !ip.is_loopback(),
                IpAddr::V6(ip) => !ip.is_loopback(),
            }
    }
}

/// One rule of an endpoint's ports or links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PortRule<'a> {
    /// Packets to a port of the host.
    Translate(Translation<'a>),
    /// Packets to a port of the container.
    Open(OpenPort),
    /// Packets from one container to a port of another.
    Link(LinkPort),
}

/// What packets to a port of the host become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Translation<'a> {
    pub(super) proto: Proto,
    /// `None` is any address of the host.
    pub(super) host_ip: Option<IpAddr>,
    pub(super) host: PortRange,
    pub(super) target: IpAddr,
    pub(super) container: PortRange,
    /// Packets that come from there are left alone.
    pub(super) except: Option<&'a IfName>,
}

/// The same ports, in ranges that don't overlap, ascending.
fn joined(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut all: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match all.last_mut() {
            Some(last) if range.first() <= last.last() => {
                *last = PortRange::new(last.first(), last.last().max(range.last())).unwrap_or(*last);
            }
            _ => all.push(range),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> PortRange {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        PortRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
    }

    #[test]
    fn ranges_that_overlap_are_joined_and_neighbours_are_not() {
        let cases = [
            ("80 80", "80"),
            ("90 80", "80 90"),
            ("80-89 90-99", "80-89 90-99"),
            ("85-95 80-89 1-2", "1-2 80-95"),
            ("80-99 85 99-100", "80-100"),
            ("1-65535 80", "1-65535"),
        ];
        for (given, want) in cases {
            let got: Vec<String> =
                joined(given.split(' ').map(range).collect()).iter().map(ToString::to_string).collect();
            assert_eq!(got.join(" "), want, "{given}");
        }
    }
}
