//! What can go wrong when pools and addresses are asked for. Texts are Docker's.

use std::net::IpAddr;

use super::bitmap::AddressError;
use super::prefix::Family;

/// Why an address manager refused. Where Docker has a text, `Display` is that text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    /// No default pool can be cut into blocks of the requested size.
    #[error("invalid address pool")]
    InvalidPool,
    /// A range without a subnet, or one that isn't part of its subnet.
    #[error("invalid address subpool")]
    InvalidSubPool,
    /// Every block of the default pools is taken or reserved.
    #[error("all predefined address pools have been fully subnetted")]
    AllSubnetted,
    /// The subnet shares addresses with another network's.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    Overlap,
    /// No pool has this id.
    #[error("cannot find address pool for poolID:{0}")]
    UnknownPool(String),
    /// The id isn't one that this driver gives out.
    #[error("invalid pool id: {0}")]
    BadPoolId(String),
    /// Somebody has the address, or nobody may have it.
    #[error("Address already in use")]
    InUse,
    /// The address isn't part of the pool.
    #[error("requested address is out of range")]
    OutOfRange,
    /// The pool, or its range, has no free address.
    #[error("no available addresses on this pool")]
    Exhausted(Family),
    /// The same, told of the network: see [`on_network`](Self::on_network).
    #[error("no available {family} addresses on this network's address pools: {name} ({id})")]
    NetworkExhausted {
        /// Which addresses ran out.
        family: Family,
        /// The network's name.
        name: String,
        /// The network's full id.
        id: String,
    },
    /// The gateway's address can't be had.
    #[error("failed to allocate gateway ({}): {cause}", asked.map_or_else(String::new, |ip| ip.to_string()))]
    Gateway {
        /// The address the user asked for.
        asked: Option<IpAddr>,
        /// Why.
        cause: Box<Self>,
    },
    /// An auxiliary address can't be had.
    #[error("failed to allocate secondary ip address ({name}:{ip}): {cause}")]
    Auxiliary {
        /// Its name.
        name: String,
        /// The address.
        ip: IpAddr,
        /// Why.
        cause: Box<Self>,
    },
    /// The manager gave no address although one is needed.
    #[error("no address returned")]
    NoAddress,
    /// The null manager was asked for something.
    #[error("null ipam driver does not handle specific address pool requests")]
    NullPool,
    /// A manager's own words: what a plugin answered, or why it didn't.
    #[error("{0}")]
    Driver(String),
}

impl IpamError {
    /// An endpoint's refusal as Docker tells it: a pool without addresses is named by its network.
    #[must_use]
    pub fn on_network(self, name: &str, id: &str) -> Self {
        match self {
            Self::Exhausted(family) => {
                Self::NetworkExhausted { family, name: name.to_owned(), id: id.to_owned() }
            }
            other => other,
        }
    }

    /// An [`AddressError`] of a pool of this family.
    pub(super) const fn of(error: AddressError, family: Family) -> Self {
        match error {
            AddressError::InUse => Self::InUse,
            AddressError::OutOfRange => Self::OutOfRange,
            AddressError::Exhausted => Self::Exhausted(family),
        }
    }
}
