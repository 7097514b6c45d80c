//! What publishing means for one endpoint: which host addresses lead to which of its addresses, and which need no host
//! port because the network is routed.
//!
//! Pure. A family is natted or routed as the network's options for the family of the *target* say: an IPv6 host address
//! that a proxy leads to an IPv4 target goes the IPv4 way.
//!
//! Not here: what a spec without an address gets, order and groups (`bindings`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::allocator::addresses_conflict;
use super::bindings::{BindingError, Group, HostDefaults, host_addresses, plan_on};
use super::expose::ExposeSpec;
use super::ports::{PortRange, Proto, UnknownProto};
use super::portset::PortSet;
use super::reservation::Reservation;
use super::spec::{HostPorts, PublishSpec};
use crate::model::{GatewayMode, PortsConfig, Publication};

const PORT_IGNORED: &str = "Host port ignored, because NAT is disabled";
const ONLY_BY_PROXY: &str =
    "Cannot map from IPv6 to an IPv4-only container because the userland proxy is disabled";
const DEFAULT_ONLY_BY_PROXY: &str = "Cannot map from default host binding address to an IPv4-only container because the \
                                     userland proxy is disabled";

/// An endpoint that ports lead to, and what its network and its host make of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its IPv4 address, if IPv4 host addresses are to lead to it.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address, if IPv6 host addresses are to lead to it.
    pub v6: Option<Ipv6Addr>,
    /// Whether another endpoint of the sandbox is what IPv6 host addresses lead to: then they don't lead to `v4`.
    pub v6_elsewhere: bool,
    /// The network's gateway mode for IPv4.
    pub mode4: GatewayMode,
    /// The network's gateway mode for IPv6.
    pub mode6: GatewayMode,
    /// What a spec without a host address gets. `0.0.0.0` means every address, of both families.
    pub default_address: IpAddr,
    /// Whether the host can listen on IPv6: see [`host_listens_on_ipv6`](super::host_listens_on_ipv6).
    pub host_ipv6: bool,
    /// Whether a proxy stands behind each port.
    pub proxy: bool,
}

/// What is to be done for some specs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// What has to be bound.
    pub groups: Vec<Group>,
    /// What needs no binding.
    pub routed: Vec<Publication>,
    /// What isn't done as it was asked for, in Docker's words: for the log.
    pub warnings: Vec<String>,
}

/// What one host address comes to.
enum Way {
    /// The host's port leads there.
    Host,
    /// The sandbox is reached at this address itself.
    Routed(IpAddr),
    /// Nowhere.
    None,
}

/// All specs of a sandbox: `-p`, and with `-P` one for each run of exposed ports that no `-p` names.
///
/// # Errors
/// With `-P`, if a port of another protocol than ours is exposed.
pub fn wanted(ports: &PortsConfig) -> Result<Vec<PublishSpec>, UnknownProto> {
    let mut specs = ports.publish.clone();
    if !ports.publish_all {
        return Ok(specs);
    }
    let mut open: [(Proto, PortSet); 3] =
        [Proto::Tcp, Proto::Udp, Proto::Sctp].map(|proto| (proto, PortSet::new()));
    let protos: Vec<Proto> =
        ports.expose.iter().map(|expose| expose.proto().publishable()).collect::<Result<_, _>>()?;
    for (proto, set) in &mut open {
        for (expose, _) in ports.expose.iter().zip(&protos).filter(|(_, of)| *of == proto) {
            set.insert(ExposeSpec::ports(expose));
        }
        for spec in ports.publish.iter().filter(|spec| spec.proto() == *proto) {
            set.remove(spec.container());
        }
        specs.extend(set.runs().map(|run| PublishSpec::ephemeral(run, *proto)));
    }
    Ok(specs)
}

/// Works out what `specs` mean for an endpoint.
///
/// # Errors
/// If a spec uses port 0 where there is none, or two specs want the same host port.
pub fn plan_for(specs: &[PublishSpec], to: &Destination) -> Result<Planned, BindingError> {
    let mut planned = Planned::default();
    let defaults = HostDefaults { address: to.default_address, ipv6: to.host_ipv6 };
    let mut bound = Vec::with_capacity(specs.len());
    for spec in specs {
        let mut here = Vec::new();
        for address in host_addresses(spec.host_ip(), &defaults) {
            match to.way(address, spec, &mut planned.warnings) {
                Way::Host => here.push(address),
                Way::Routed(target) => planned.routed.push(Publication {
                    spec: *spec,
                    proto: spec.proto(),
                    container: spec.container(),
                    host: None,
                    addresses: vec![unspecified(address)],
                    target,
                }),
                Way::None => {}
            }
        }
        bound.push(here);
    }
    planned.groups = plan_on(specs, &bound)?;
    planned.routed.sort_by_key(|one| (one.container, one.proto, one.addresses[0]));
    Ok(planned)
}

/// What was reserved for `specs`, apart by spec and target: the specs and the destination are those it was planned with.
/// Addresses that lead nowhere, of which a plan has none, are given up.
pub fn publications(
    reservations: Vec<Reservation>,
    specs: &[PublishSpec],
    to: &Destination,
) -> Vec<(Reservation, Publication)> {
    let split = |reservation: Reservation| {
        reservation.split_by(|address, spec| (specs.get(spec).copied(), to.target(address)))
    };
    reservations
        .into_iter()
        .flat_map(split)
        .filter_map(|((spec, target), reservation)| {
            let publication = Publication {
                spec: spec?,
                proto: reservation.proto(),
                container: reservation.container(),
                host: Some(reservation.host()),
                addresses: reservation.addresses().to_vec(),
                target: target?,
            };
            Some((reservation, publication))
        })
        .collect()
}

impl Planned {
    /// Without what stands already. Where a spec stands on some of its addresses only, the others get the same port.
    #[must_use]
    pub fn without(mut self, standing: &[Publication], specs: &[PublishSpec]) -> Self {
        let mut by_spec: HashMap<PublishSpec, Vec<&Publication>> = HashMap::new();
        for publication in standing {
            by_spec.entry(publication.spec).or_default().push(publication);
        }
        let rest = |group: Group| {
            let container = group.container();
            group.without(|address, spec| {
                // What stands stays, also where the default address has become another one since.
                let is_here = |p: &Publication| p.addresses.iter().any(|ip| addresses_conflict(*ip, address));
                let of_spec = specs.get(spec).and_then(|spec| by_spec.get(spec)).into_iter().flatten();
                of_spec.filter(|p| is_here(p)).find_map(|p| host_of(p, container))
            })
        };
        self.groups = self.groups.into_iter().filter_map(rest).collect();
        self
    }
}

/// The host's ports for some of the ports of a publication.
fn host_of(publication: &Publication, container: PortRange) -> Option<PortRange> {
    let all = publication.container;
    let first = container.first().checked_sub(all.first())?.checked_add(publication.host?.first())?;
    let last = first.checked_add(container.last() - container.first())?;
    (container.last() <= all.last()).then(|| PortRange::new(first, last).ok())?
}

impl Destination {
    /// Where a host address leads.
    fn target(&self, host: IpAddr) -> Option<IpAddr> {
        let v4 = self.v4.map(IpAddr::V4);
        match host {
            IpAddr::V4(_) => v4,
            IpAddr::V6(_) if self.v6.is_none() && !self.v6_elsewhere => v4,
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    /// What a publication becomes whose host addresses lead here from now on: one for each target, and none for addresses
    /// that lead nowhere.
    pub fn repoint(&self, publication: &Publication) -> Vec<Publication> {
        let mut now: Vec<Publication> = Vec::new();
        for address in &publication.addresses {
            // Where a spec's address leads isn't asked again: it was warned of when it was published.
            let Some(target) = self.target(*address).filter(|target| self.is_by_host(*address, *target))
            else {
                continue;
            };
            match now.iter_mut().find(|other| other.target == target) {
                Some(other) => other.addresses.push(*address),
                None => now.push(Publication { addresses: vec![*address], target, ..publication.clone() }),
            }
        }
        now
    }

    /// Whether a port of the host is what leads there.
    const fn is_by_host(&self, host: IpAddr, target: IpAddr) -> bool {
        match if target.is_ipv4() { self.mode4 } else { self.mode6 } {
            GatewayMode::Nat | GatewayMode::NatUnprotected => {
                self.proxy || host.is_ipv4() == target.is_ipv4()
            }
            GatewayMode::Routed | GatewayMode::Isolated => false,
        }
    }

    fn way(&self, host: IpAddr, spec: &PublishSpec, warnings: &mut Vec<String>) -> Way {
        let Some(target) = self.target(host) else { return Way::None };
        let crosses = host.is_ipv4() != target.is_ipv4();
        match if target.is_ipv4() { self.mode4 } else { self.mode6 } {
            GatewayMode::Nat | GatewayMode::NatUnprotected if crosses && !self.proxy => {
                if spec.host_ip().is_some() {
                    warnings.push(ONLY_BY_PROXY.to_owned());
                } else if !self.default_address.to_canonical().is_ipv4() {
                    warnings.push(DEFAULT_ONLY_BY_PROXY.to_owned());
                }
                Way::None
            }
            GatewayMode::Nat | GatewayMode::NatUnprotected => Way::Host,
            // What the target's own family doesn't have isn't reached by way of another one.
            GatewayMode::Routed if crosses => Way::None,
            GatewayMode::Routed => {
                if spec.host_ip().is_some() && !host.is_unspecified() {
                    let all = if host.is_ipv4() { "0.0.0.0" } else { "[::]" };
                    warnings.push(format!("Using address {all} because NAT is disabled"));
                }
                let port_given = match spec.host() {
                    HostPorts::Ephemeral => false,
                    HostPorts::Aligned(ports) | HostPorts::OneOf(ports) => ports != PortRange::single(0),
                };
                if port_given {
                    warnings.push(PORT_IGNORED.to_owned());
                }
                Way::Routed(target)
            }
            GatewayMode::Isolated => Way::None,
        }
    }
}

const fn unspecified(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests;
