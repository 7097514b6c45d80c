//! What a user says about a network's addresses, from single options to checked subnets.
//!
//! Two stages, as in Docker: the command line sorts its lists into one [`SubnetSpec`] per subnet ([`gather`]), the
//! daemon checks each ([`SubnetConfig::check`]) and reports everything that is wrong at once. Only the second stage
//! makes the type that [`allocate_network`](super::allocate_network) takes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::prefix::{Family, bounds, overlap};

/// One subnet as the user describes it: `--subnet`, `--ip-range`, `--gateway`, `--aux-address`. Unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetSpec {
    /// The subnet; `0.0.0.0/24` and `::/96` ask for one of that size out of the default pools.
    pub subnet: IpNet,
    /// Where addresses come from that nobody asked for by number.
    pub range: Option<IpNet>,
    /// The gateway's address; without it the lowest free one.
    pub gateway: Option<IpAddr>,
    /// Addresses that no endpoint may get, by name.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// One subnet whose parts fit together: no host bits, the range, gateway and auxiliary addresses inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetConfig(SubnetSpec);

/// What is wrong with single subnets; all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid network config:\n{}", listed(.0))]
pub struct BadConfig(Vec<BadPart>);

/// One thing that is wrong with a subnet. Texts are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPart {
    /// The subnet has host bits.
    #[error("invalid subnet {0}: it should be {masked}", masked = .0.trunc())]
    SubnetHostBits(IpNet),
    /// The range has host bits.
    #[error("invalid ip-range {0}: it should be {masked}", masked = .0.trunc())]
    RangeHostBits(IpNet),
    /// The range is of the other family.
    #[error("invalid ip-range {range}: parent subnet is an {family} block")]
    RangeFamily {
        /// The range.
        range: IpNet,
        /// The subnet's family.
        family: Family,
    },
    /// The range is larger than the subnet.
    #[error("invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}")]
    RangeTooBig {
        /// The range.
        range: IpNet,
        /// The subnet.
        subnet: IpNet,
    },
    /// The range is somewhere else.
    #[error("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range")]
    RangeElsewhere {
        /// The range.
        range: IpNet,
        /// The subnet.
        subnet: IpNet,
    },
    /// An address is of the other family.
    #[error("invalid {what}: parent subnet is an {family} block")]
    AddressFamily {
        /// `gateway G` or `auxiliary address NAME`.
        what: String,
        /// The subnet's family.
        family: Family,
    },
    /// An address is outside the subnet.
    #[error("invalid {what}: parent subnet {subnet} doesn't contain this address")]
    AddressElsewhere {
        /// `gateway G` or `auxiliary address NAME`.
        what: String,
        /// The subnet.
        subnet: IpNet,
    },
}

/// Options that don't fit together on the command line. Texts are those of Docker's command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatherError {
    /// Fewer subnets than ranges or gateways.
    #[error("every ip-range or gateway must have a corresponding subnet")]
    TooFewSubnets,
    /// Two subnets of one command share addresses.
    #[error("multiple overlapping subnet configuration is not supported")]
    Overlap,
    /// Two ranges are in one subnet.
    #[error("cannot configure multiple ranges ({0}, {1}) on the same subnet ({2})")]
    TwoRanges(IpNet, IpNet, IpNet),
    /// Two gateways are in one subnet.
    #[error("cannot configure multiple gateways ({0}, {1}) for the same subnet ({2})")]
    TwoGateways(IpAddr, IpAddr, IpNet),
    /// A range is in no subnet.
    #[error("no matching subnet for range {0}")]
    NoSubnetForRange(IpNet),
    /// A gateway is in no subnet.
    #[error("no matching subnet for gateway {0}")]
    NoSubnetForGateway(IpAddr),
    /// An auxiliary address is in no subnet.
    #[error("no matching subnet for aux-address {0}")]
    NoSubnetForAuxiliary(IpAddr),
}

impl SubnetSpec {
    /// Just a subnet.
    pub const fn new(subnet: IpNet) -> Self {
        Self { subnet, range: None, gateway: None, auxiliary: BTreeMap::new() }
    }
}

/// Sorts the lists of one command into subnets, in the order of `subnets`. A range belongs to the subnet that has its
/// first address.
///
/// # Errors
/// If something belongs to no subnet, or twice the same thing to one, or subnets overlap.
pub fn gather(
    subnets: &[IpNet],
    ranges: &[IpNet],
    gateways: &[IpAddr],
    auxiliary: &BTreeMap<String, IpAddr>,
) -> Result<Vec<SubnetSpec>, GatherError> {
    if subnets.len() < ranges.len().max(gateways.len()) {
        return Err(GatherError::TooFewSubnets);
    }
    let mut specs: Vec<SubnetSpec> = Vec::with_capacity(subnets.len());
    for subnet in subnets {
        if specs.iter().any(|other| overlap(other.subnet, *subnet)) {
            return Err(GatherError::Overlap);
        }
        specs.push(SubnetSpec::new(*subnet));
    }
    for range in ranges {
        let spec = holding(&mut specs, range.addr()).ok_or(GatherError::NoSubnetForRange(*range))?;
        if let Some(other) = spec.range.replace(*range) {
            return Err(GatherError::TwoRanges(*range, other, spec.subnet));
        }
    }
    for gateway in gateways {
        let spec = holding(&mut specs, *gateway).ok_or(GatherError::NoSubnetForGateway(*gateway))?;
        if let Some(other) = spec.gateway.replace(*gateway) {
            return Err(GatherError::TwoGateways(*gateway, other, spec.subnet));
        }
    }
    for (name, ip) in auxiliary {
        let spec = holding(&mut specs, *ip).ok_or(GatherError::NoSubnetForAuxiliary(*ip))?;
        spec.auxiliary.insert(name.clone(), *ip);
    }
    Ok(specs)
}

impl SubnetConfig {
    /// Checks every subnet by itself.
    ///
    /// # Errors
    /// Everything that is wrong, in order.
    pub fn check(specs: Vec<SubnetSpec>) -> Result<Vec<Self>, BadConfig> {
        let problems: Vec<_> = specs.iter().flat_map(problems).collect();
        if problems.is_empty() { Ok(specs.into_iter().map(Self).collect()) } else { Err(BadConfig(problems)) }
    }

    /// The subnet, or `0.0.0.0` or `::` with a length.
    pub const fn subnet(&self) -> IpNet {
        self.0.subnet
    }

    /// The range inside the subnet.
    pub const fn range(&self) -> Option<IpNet> {
        self.0.range
    }

    /// The gateway.
    pub const fn gateway(&self) -> Option<IpAddr> {
        self.0.gateway
    }

    /// The auxiliary addresses by name.
    pub const fn auxiliary(&self) -> &BTreeMap<String, IpAddr> {
        &self.0.auxiliary
    }
}

impl BadConfig {
    /// What is wrong, one by one.
    pub fn parts(&self) -> &[BadPart] {
        &self.0
    }
}

/// The subnet that `ip` is in.
fn holding(specs: &mut [SubnetSpec], ip: IpAddr) -> Option<&mut SubnetSpec> {
    specs.iter_mut().find(|spec| spec.subnet.contains(&ip))
}

fn problems(spec: &SubnetSpec) -> Vec<BadPart> {
    let SubnetSpec { subnet, range, gateway, auxiliary } = spec;
    let mut found = Vec::new();
    if *subnet != subnet.trunc() {
        found.push(BadPart::SubnetHostBits(*subnet));
    }
    if let Some(range) = range {
        range_problems(*range, *subnet, &mut found);
    }
    let gateway = gateway.map(|ip| (format!("gateway {ip}"), ip));
    let auxiliary = auxiliary.iter().map(|(name, ip)| (format!("auxiliary address {name}"), *ip));
    let misplaced = gateway.into_iter().chain(auxiliary);
    found.extend(misplaced.filter_map(|(what, ip)| address_problem(what, ip, *subnet)));
    found
}

fn range_problems(range: IpNet, subnet: IpNet, found: &mut Vec<BadPart>) {
    let family = Family::of_net(subnet);
    if Family::of_net(range) != family {
        found.push(BadPart::RangeFamily { range, family });
        return;
    }
    if range.prefix_len() < subnet.prefix_len() {
        found.push(BadPart::RangeTooBig { range, subnet });
    }
    if range != range.trunc() {
        found.push(BadPart::RangeHostBits(range));
    }
    if !overlap(range, subnet) {
        found.push(BadPart::RangeElsewhere { range, subnet });
    }
}

fn address_problem(what: String, ip: IpAddr, subnet: IpNet) -> Option<BadPart> {
    let family = Family::of_net(subnet);
    let (first, last) = bounds(subnet);
    if Family::of(ip) != family {
        Some(BadPart::AddressFamily { what, family })
    } else if !(first..=last).contains(&super::prefix::number(ip)) {
        Some(BadPart::AddressElsewhere { what, subnet })
    } else {
        None
    }
}

/// One error bare, several as a list; lines that go on are indented.
fn listed(parts: &[BadPart]) -> String {
    if let [only] = parts {
        return only.to_string();
    }
    let mut text = String::new();
    for part in parts {
        let separator = if text.is_empty() { "" } else { "\n" };
        // Writing into a String can't fail.
        let _ = write!(text, "{separator}* {}", part.to_string().replace('\n', "\n\t"));
    }
    text
}

#[cfg(test)]
mod tests;
