//! Addresses: which subnet a network gets, and which address each endpoint.
//!
//! | question | type | texts |
//! |---|---|---|
//! | do the options fit together? | [`gather`], [`SubnetConfig`] | Docker's command line and daemon |
//! | which subnet? | [`DefaultPools`] | |
//! | which address? | [`AddressSet`] | |
//! | all of it behind one trait | [`Ipam`]: [`DefaultIpam`], [`NullIpam`] | [`IpamError`] |
//! | a network's pool, gateway and auxiliary addresses, or nothing | [`allocate_network`] | |
//!
//! Nothing here does I/O. [`DefaultIpam`] is a function of its state: the same requests in the same order give the same
//! answers, so it is asked inside the store's transaction. The state comes from the store's leases
//! ([`DefaultIpam::restore`]) and may be kept between transactions: a transaction that fails is undone by releasing
//! what it requested, or by going back to a clone, which costs in proportion to the runs of taken addresses.
//!
//! A remote manager does I/O and may answer late or never, so it is *not* asked inside a transaction. Its
//! implementation of [`Ipam`] blocks up to its own time-out on a thread where that is allowed, **before** the
//! transaction; the answers then enter the transaction as facts like any user's values. If the transaction fails, they
//! are released. That is why pool ids are opaque, why the default's answers are complete without a second question,
//! and why releasing what is already free is no error.
//!
//! ```
//! use netcore::ipam::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut ipam = DefaultIpam::new(DefaultPools::docker_local(42), DefaultPools::docker_global());
//! let request = PoolRequest::new(AddressSpace::Local, PoolChoice::Default(Family::V4));
//! let network = allocate_network(&mut ipam, &request, &Fixed::default())?;
//! let address = ipam.request_address(&network.pool.id, &AddressRequest::Any, &Options::new())?;
//! assert_eq!(network.gateway, Some("172.17.0.1/16".parse()?));
//! assert_eq!(address, Some("172.17.0.2/16".parse()?));
//! # Ok(()) }
//! ```

mod bitmap;
mod config;
mod default;
mod error;
mod network;
mod null;
mod pools;
mod prefix;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use bitmap::{AddressError, AddressSet};
pub use config::{BadConfig, BadPart, GatherError, SubnetConfig, SubnetSpec, gather};
pub use default::DefaultIpam;
pub use error::IpamError;
pub use network::{Fixed, NetworkPool, allocate_network, release_network};
pub use null::NullIpam;
pub use pools::{BadDefaultPool, DefaultPool, DefaultPools, reserved_prefixes};
pub use prefix::{BadPrefix, Family, parse_prefix};

/// What only the manager understands: `--ipam-opt` values, and for a remote one what it needs to know of an endpoint.
pub type Options = BTreeMap<String, String>;

/// An address manager. Object-safe, so that a network's manager is found by its name at run time.
pub trait Ipam: Send {
    /// Gives a subnet to a network.
    ///
    /// # Errors
    /// If the subnet is taken, or none can be chosen.
    fn request_pool(&mut self, request: &PoolRequest) -> Result<Pool, IpamError>;

    /// Takes a subnet back, with every address of it.
    ///
    /// # Errors
    /// If the id is unknown.
    fn release_pool(&mut self, pool: &PoolId) -> Result<(), IpamError>;

    /// Gives an address of a pool, with the prefix length of the subnet. `None` from managers that leave addresses to
    /// the network driver.
    ///
    /// # Errors
    /// If the address is taken or not of this pool, or none is free.
    fn request_address(
        &mut self,
        pool: &PoolId,
        request: &AddressRequest,
        options: &Options,
    ) -> Result<Option<IpNet>, IpamError>;

    /// Takes an address back; the next request may get it. An address that is free stays free.
    ///
    /// # Errors
    /// If the pool is unknown, or the address isn't of it.
    fn release_address(&mut self, pool: &PoolId, ip: IpAddr) -> Result<(), IpamError>;

    /// The counters of a pool, where the manager keeps some.
    fn status(&self, _pool: &PoolId) -> Option<PoolStatus> {
        None
    }
}

/// Where a subnet has to be unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressSpace {
    /// On this host.
    Local,
    /// On all hosts of a cluster.
    Global,
}

impl AddressSpace {
    /// Docker's name of it, which begins a [`PoolId`] of the default manager.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "LocalDefault",
            Self::Global => "GlobalDefault",
        }
    }
}

impl fmt::Display for AddressSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names a pool to the manager that gave it out; nobody else looks inside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolId(String);

impl PoolId {
    /// The id with this text: a remote manager's answer, or what the store has kept.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request for a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRequest {
    /// Where it has to be unique.
    pub space: AddressSpace,
    /// Which one.
    pub choice: PoolChoice,
    /// Prefixes that must not be chosen, see [`reserved_prefixes`]. They don't matter to an explicit subnet.
    pub reserved: Vec<IpNet>,
    /// For the manager.
    pub options: Options,
}

/// Which subnet is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolChoice {
    /// The manager's choice.
    Default(Family),
    /// The manager's choice, with this prefix length.
    Sized(Family, u8),
    /// This one.
    Explicit {
        /// The subnet.
        subnet: IpNet,
        /// The part of it that unasked-for addresses come from.
        range: Option<IpNet>,
    },
}

impl PoolRequest {
    /// A request without reserved prefixes and options.
    pub const fn new(space: AddressSpace, choice: PoolChoice) -> Self {
        Self { space, choice, reserved: Vec::new(), options: Options::new() }
    }
}

impl PoolChoice {
    /// What a checked subnet asks for: `0.0.0.0/24` is a size, `0.0.0.0/0` not even that.
    ///
    /// # Errors
    /// If there is a range, but no subnet that it could be part of.
    pub fn of(config: &SubnetConfig) -> Result<Self, IpamError> {
        let (subnet, range) = (config.subnet(), config.range());
        if !subnet.addr().is_unspecified() {
            return Ok(Self::Explicit { subnet, range });
        }
        match (range, subnet.prefix_len()) {
            (Some(_), _) => Err(IpamError::InvalidSubPool),
            (None, 0) => Ok(Self::Default(Family::of_net(subnet))),
            (None, length) => Ok(Self::Sized(Family::of_net(subnet), length)),
        }
    }
}

/// A subnet that was given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// How the manager calls it.
    pub id: PoolId,
    /// The subnet.
    pub subnet: IpNet,
    /// The gateway, if the manager has chosen it with the pool.
    pub gateway: Option<IpNet>,
}

/// Which address of a pool is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressRequest {
    /// The lowest free one of the pool's range.
    Any,
    /// This one, from anywhere in the subnet.
    Exactly(IpAddr),
    /// The network's gateway: this one, or the manager's choice.
    Gateway(Option<IpAddr>),
}

impl AddressRequest {
    /// The address, if it isn't the manager's choice.
    pub const fn exact(self) -> Option<IpAddr> {
        match self {
            Self::Any => None,
            Self::Exactly(ip) => Some(ip),
            Self::Gateway(ip) => ip,
        }
    }
}

/// Counters of a pool, as the API shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Taken addresses, the reserved ones included.
    pub in_use: u64,
    /// Free addresses in the range.
    pub dynamic_available: u64,
}

#[cfg(test)]
mod tests;
