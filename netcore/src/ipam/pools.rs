//! Chooses subnets: the lists a host cuts networks from, and the lowest block of them that is free.
//!
//! Pure: which subnets are taken, what the host's routes and name servers occupy, and the seed of its IPv6 prefix are
//! arguments.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::IpamError;
use super::prefix::{BadPrefix, Family, bounds, overlap, parse_prefix};

/// A prefix that is cut into subnets of one size, `--default-address-pool base=10.10.0.0/16,size=24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DefaultPool {
    base: IpNet,
    size: u8,
}

/// A `--default-address-pool` that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadDefaultPool {
    /// A part isn't `key=value`.
    #[error("invalid field '{0}' must be a key=value pair")]
    Field(String),
    /// The key is neither `base` nor `size`.
    #[error("unexpected key '{key}' in '{field}'")]
    Key {
        /// The key, in lower case.
        key: String,
        /// The part it stands in.
        field: String,
    },
    /// `base` isn't a prefix.
    #[error("invalid base prefix {0:?}: {1}")]
    Base(String, BadPrefix),
    /// `size` isn't a number.
    #[error("invalid size value {0:?}: must be an integer")]
    Size(String),
    /// `base` or `size` is missing or 0.
    #[error("a default address pool needs both, base=PREFIX and size=BITS")]
    Incomplete,
    /// The subnets would be larger than what they are cut from.
    #[error("{base} has a smaller prefix (/{}) than the target size of that pool (/{size})", base.prefix_len())]
    LargerThanBase {
        /// What is to be cut.
        base: IpNet,
        /// Into what.
        size: u8,
    },
    /// No prefix of this family is that long.
    #[error("size {size} of {base}: an {} prefix has at most {} bits", Family::of_net(*base), base.max_prefix_len())]
    LongerThanAddress {
        /// What is to be cut.
        base: IpNet,
        /// Into what.
        size: u8,
    },
}

impl DefaultPool {
    /// Subnets of `size` bits out of `base`, whose host bits are dropped.
    ///
    /// # Errors
    /// If `size` is 0, shorter than the base's length or longer than an address.
    pub fn new(base: IpNet, size: u8) -> Result<Self, BadDefaultPool> {
        if size == 0 {
            Err(BadDefaultPool::Incomplete)
        } else if base.prefix_len() > size {
            Err(BadDefaultPool::LargerThanBase { base, size })
        } else if size > base.max_prefix_len() {
            Err(BadDefaultPool::LongerThanAddress { base, size })
        } else {
            Ok(Self { base: base.trunc(), size })
        }
    }

    /// The IPv6 pool of a host: a unique local /48 (RFC 4193), cut into /64s. The lower 40 bits of `seed` make it
    /// unique; they should come from a hash of something that the host keeps, or its networks move at each start.
    pub fn unique_local(seed: u64) -> Self {
        let global_id = u128::from(seed & ((1 << 40) - 1));
        let address = Ipv6Addr::from_bits((0xfd << 120) | (global_id << 80));
        Self { base: IpNet::V6(net6(address, 48)), size: 64 }
    }

    /// What is cut.
    pub const fn base(&self) -> IpNet {
        self.base
    }

    /// The prefix length of the subnets.
    pub const fn size(&self) -> u8 {
        self.size
    }
}

impl fmt::Display for DefaultPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "base={},size={}", self.base, self.size)
    }
}

/// Reads `base=PREFIX,size=BITS`. Keys may come in any order and case.
impl FromStr for DefaultPool {
    type Err = BadDefaultPool;

    fn from_str(text: &str) -> Result<Self, BadDefaultPool> {
        let (mut base, mut size) = (None, None);
        for field in text.split(',') {
            let (key, value) =
                field.split_once('=').ok_or_else(|| BadDefaultPool::Field(field.to_owned()))?;
            match key.to_lowercase().as_str() {
                "base" => {
                    let prefix = parse_prefix(value);
                    base = Some(prefix.map_err(|cause| BadDefaultPool::Base(value.to_owned(), cause))?);
                }
                "size" => {
                    let number = value.parse().map_err(|_| BadDefaultPool::Size(value.to_owned()))?;
                    size = Some(number);
                }
                key => return Err(BadDefaultPool::Key { key: key.to_owned(), field: field.to_owned() }),
            }
        }
        match (base, size) {
            (Some(base), Some(size)) => Self::new(base, size),
            _ => Err(BadDefaultPool::Incomplete),
        }
    }
}

/// The pools of one address space, of both families, lowest first. No two overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultPools(Vec<DefaultPool>);

impl DefaultPools {
    /// As Docker reads a list of `--default-address-pool`: sorted, and of two that overlap the larger one counts.
    pub fn new(pools: impl IntoIterator<Item = DefaultPool>) -> Self {
        let mut pools: Vec<_> = pools.into_iter().collect();
        pools.sort_by_key(|pool| (pool.base.network(), pool.base.prefix_len()));
        let mut apart: Vec<DefaultPool> = Vec::with_capacity(pools.len());
        for pool in pools {
            if !apart.last().is_some_and(|last| overlap(last.base, pool.base)) {
                apart.push(pool);
            }
        }
        Self(apart)
    }

    /// Docker's local pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in /20s, and the host's own IPv6
    /// prefix. The blocks of 172.16.0.0/12 are as large as Docker's, which matters to requests for a /14 or /15.
    pub fn docker_local(ula_seed: u64) -> Self {
        let slices = [(17, 16), (18, 16), (19, 16), (20, 14), (24, 14), (28, 14)].map(|(second, length)| {
            DefaultPool { base: IpNet::V4(net4(Ipv4Addr::new(172, second, 0, 0), length)), size: 16 }
        });
        let last = DefaultPool { base: IpNet::V4(net4(Ipv4Addr::new(192, 168, 0, 0), 16)), size: 20 };
        Self::new(slices.into_iter().chain([last, DefaultPool::unique_local(ula_seed)]))
    }

    /// Docker's global pools: 10.0.0.0/8 in /24s.
    pub fn docker_global() -> Self {
        Self(vec![DefaultPool { base: IpNet::V4(net4(Ipv4Addr::new(10, 0, 0, 0), 8)), size: 24 }])
    }

    /// These pools with `pool` for IPv6, unless they have some already: an explicit list without IPv6 keeps the
    /// host's own prefix.
    pub fn or_ipv6(self, pool: DefaultPool) -> Self {
        let has = |family| self.0.iter().any(|pool| Family::of_net(pool.base) == family);
        if has(Family::V6) { self } else { Self::new(self.0.into_iter().chain([pool])) }
    }

    /// The pools, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = &DefaultPool> {
        self.0.iter()
    }

    /// The lowest block that overlaps nothing of `blocked`: the subnets in use and the prefixes reserved. `size` cuts
    /// every pool that is large enough into blocks of that many bits instead of its own.
    ///
    /// # Errors
    /// If no pool can be cut into such blocks, or no block is free.
    pub fn choose(
        &self,
        family: Family,
        size: Option<u8>,
        blocked: impl IntoIterator<Item = IpNet>,
    ) -> Result<IpNet, IpamError> {
        let mut blocked: Vec<_> =
            blocked.into_iter().filter(|net| Family::of_net(*net) == family).map(bounds).collect();
        blocked.sort_unstable();
        let mut pools = self
            .0
            .iter()
            .filter(|pool| Family::of_net(pool.base) == family)
            .filter_map(|pool| match size {
                Some(size) => DefaultPool::new(pool.base, size).ok(),
                None => Some(*pool),
            })
            .peekable();
        if pools.peek().is_none() {
            return Err(IpamError::InvalidPool);
        }
        pools.find_map(|pool| first_free_block(pool, &blocked)).ok_or(IpamError::AllSubnetted)
    }
}

/// What a host's own network keeps pools from being chosen: its name servers, and the IPv4 prefixes it reaches without
/// a gateway. A route to everything is no reason, or a host whose default route is a tunnel would have no pool left.
pub fn reserved_prefixes(name_servers: &[IpAddr], on_link_routes: &[IpNet]) -> Vec<IpNet> {
    let servers = name_servers.iter().map(|ip| IpNet::from(ip.to_canonical()));
    let routes = on_link_routes
        .iter()
        .filter(|net| Family::of_net(**net) == Family::V4 && !net.network().is_unspecified());
    servers.chain(routes.map(IpNet::trunc)).collect()
}

/// The lowest block of a pool beside `blocked`, which is sorted by first address and may overlap itself. One walk over
/// `blocked`: a block that collides makes the next candidate begin behind what it collided with.
fn first_free_block(pool: DefaultPool, blocked: &[(u128, u128)]) -> Option<IpNet> {
    let family = Family::of_net(pool.base);
    let (mut candidate, end) = bounds(pool.base);
    let host_mask = u128::MAX.checked_shr(128 - u32::from(family.bits() - pool.size)).unwrap_or(0);
    for (first, last) in blocked {
        if *first > candidate | host_mask {
            break;
        }
        if *last >= candidate {
            candidate = (last | host_mask).checked_add(1)?;
            if candidate > end {
                return None;
            }
        }
    }
    Some(IpNet::new(family.address(candidate), pool.size).expect("DefaultPool checked the size"))
}

/// For prefixes written down above.
fn net4(address: Ipv4Addr, length: u8) -> Ipv4Net {
    Ipv4Net::new(address, length).expect("the length is a constant up to 32")
}

/// For prefixes written down above.
fn net6(address: Ipv6Addr, length: u8) -> Ipv6Net {
    Ipv6Net::new(address, length).expect("the length is a constant up to 128")
}

#[cfg(test)]
mod tests;
