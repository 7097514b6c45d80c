//! Docker's own address manager: default pools, and an [`AddressSet`] for every subnet in use.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::bitmap::AddressSet;
use super::pools::DefaultPools;
use super::prefix::{Family, overlap};
use super::{
    AddressRequest, AddressSpace, Ipam, IpamError, Options, Pool, PoolChoice, PoolId, PoolRequest, PoolStatus,
};

/// The built-in manager, `default`. Ids are Docker's: `LocalDefault/10.9.0.0/24`, and `/10.9.0.128/25` behind it with a
/// range, so an id from the store is all it takes to restore a pool.
#[derive(Clone, Debug)]
pub struct DefaultIpam {
    local: DefaultPools,
    global: DefaultPools,
    pools: BTreeMap<PoolId, InUse>,
}

#[derive(Clone, Debug)]
struct InUse {
    space: AddressSpace,
    range: Option<IpNet>,
    addresses: AddressSet,
}

impl DefaultIpam {
    /// A manager that has given nothing out.
    pub const fn new(local: DefaultPools, global: DefaultPools) -> Self {
        Self { local, global, pools: BTreeMap::new() }
    }

    /// Puts back a pool it has given out, with the addresses that are taken: the gateway, the auxiliary ones and those
    /// of endpoints.
    ///
    /// # Errors
    /// If the id isn't one of its own, the subnet overlaps another one's, or an address can't be taken.
    pub fn restore(&mut self, id: &PoolId, taken: impl IntoIterator<Item = IpAddr>) -> Result<(), IpamError> {
        let (space, subnet, range) = parse_id(id).ok_or_else(|| IpamError::BadPoolId(id.to_string()))?;
        if self.subnets(space).any(|other| overlap(other, subnet)) {
            return Err(IpamError::Overlap);
        }
        let addresses = AddressSet::with_taken(subnet, taken)
            .map_err(|(_, error)| IpamError::of(error, Family::of_net(subnet)))?;
        self.pools.insert(id.clone(), InUse { space, range, addresses });
        Ok(())
    }

    /// The addresses of a pool.
    pub fn addresses(&self, pool: &PoolId) -> Option<&AddressSet> {
        self.pools.get(pool).map(|pool| &pool.addresses)
    }

    /// The subnets in use.
    pub fn subnets(&self, space: AddressSpace) -> impl Iterator<Item = IpNet> {
        self.pools.values().filter(move |pool| pool.space == space).map(|pool| pool.addresses.subnet())
    }

    fn choose(&self, request: &PoolRequest, family: Family, size: Option<u8>) -> Result<IpNet, IpamError> {
        let pools = match request.space {
            AddressSpace::Local => &self.local,
            AddressSpace::Global => &self.global,
        };
        let blocked = self.subnets(request.space).chain(request.reserved.iter().copied());
        pools.choose(family, size, blocked)
    }

    fn pool(&mut self, id: &PoolId) -> Result<&mut InUse, IpamError> {
        self.pools.get_mut(id).ok_or_else(|| IpamError::UnknownPool(id.to_string()))
    }
}

impl Ipam for DefaultIpam {
    /// Unlike Docker's, a subnet with a range is checked against other networks too.
    fn request_pool(&mut self, request: &PoolRequest) -> Result<Pool, IpamError> {
        let (subnet, range) = match request.choice {
            PoolChoice::Default(family) => (self.choose(request, family, None)?, None),
            PoolChoice::Sized(family, size) => (self.choose(request, family, Some(size))?, None),
            PoolChoice::Explicit { subnet, range } => (subnet.trunc(), range.map(|range| range.trunc())),
        };
        if range.is_some_and(|range| !subnet.contains(&range)) {
            return Err(IpamError::InvalidSubPool);
        }
        let id = PoolId::new(match range {
            Some(range) => format!("{}/{subnet}/{range}", request.space),
            None => format!("{}/{subnet}", request.space),
        });
        self.restore(&id, [])?;
        Ok(Pool { id, subnet, gateway: None })
    }

    fn release_pool(&mut self, pool: &PoolId) -> Result<(), IpamError> {
        self.pools.remove(pool).map(drop).ok_or_else(|| IpamError::UnknownPool(pool.to_string()))
    }

    fn request_address(
        &mut self,
        pool: &PoolId,
        request: &AddressRequest,
        _options: &Options,
    ) -> Result<Option<IpNet>, IpamError> {
        let InUse { range, addresses, .. } = self.pool(pool)?;
        let subnet = addresses.subnet();
        let ip = match request.exact() {
            Some(ip) => addresses.take(ip).map(|()| ip),
            None => addresses.allocate(*range),
        };
        let ip = ip.map_err(|error| IpamError::of(error, Family::of_net(subnet)))?;
        Ok(Some(IpNet::new(ip, subnet.prefix_len()).expect("ip and subnet are of one family")))
    }

    fn release_address(&mut self, pool: &PoolId, ip: IpAddr) -> Result<(), IpamError> {
        let addresses = &mut self.pool(pool)?.addresses;
        let family = Family::of_net(addresses.subnet());
        addresses.release(ip).map(drop).map_err(|error| IpamError::of(error, family))
    }

    fn status(&self, pool: &PoolId) -> Option<PoolStatus> {
        let InUse { range, addresses, .. } = self.pools.get(pool)?;
        let shown = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
        Some(PoolStatus {
            in_use: shown(addresses.in_use()),
            dynamic_available: shown(addresses.available(*range)),
        })
    }
}

/// Space, subnet and range of an id.
fn parse_id(id: &PoolId) -> Option<(AddressSpace, IpNet, Option<IpNet>)> {
    let parts: Vec<&str> = id.as_str().split('/').collect();
    let space = [AddressSpace::Local, AddressSpace::Global].into_iter().find(|s| s.name() == parts[0])?;
    let net = |ip: &str, length: &str| format!("{ip}/{length}").parse::<IpNet>().ok().map(|net| net.trunc());
    match parts[1..] {
        [ip, length] => Some((space, net(ip, length)?, None)),
        [ip, length, from, range] => Some((space, net(ip, length)?, Some(net(from, range)?))),
        _ => None,
    }
}
