//! Drivers: what a network's facts ask of the kernel and of the firewall. Pure.
//!
//! | driver | its networks |
//! |---|---|
//! | [`bridge`] | a bridge on this host, a veth pair for each endpoint |
//! | [`host`] | the host's own stack: nothing is made |
//! | [`null`] | none: nothing is made but the sandbox's namespace |
//!
//! A driver checks a network before there is one, and turns facts into [objects](crate::plan::Object). It neither keeps
//! state nor does I/O: what it must know of the host comes in as [`HostSettings`] or is in the facts.
//!
//! Not here: addresses (`ipam`), the sandbox's namespace and default route, which belong to no single network
//! (`controller`).

pub mod bridge;
pub mod host;
pub mod null;

use std::path::Path;

use ipnet::IpNet;

use crate::controller::Class;
use crate::firewall::BridgeNetwork;
use crate::ipam::SubnetConfig;
use crate::model::options::IPV6_MINIMUM_MTU;
use crate::model::{Endpoint, IfName, Network, NetworkId, OptionError};
use crate::plan::Object;

/// What the daemon's flags say that plans depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// Whether this host may be made a router.
    pub ip_forward: bool,
    /// Whether a proxy stands behind each published port. Without one, a sandbox that calls its own published port gets
    /// its packets back through the port they came from.
    pub userland_proxy: bool,
}

/// A kind of network.
pub trait Driver: Send + Sync {
    /// Its name, as `--driver` has it.
    fn name(&self) -> &'static str;

    /// Whether there is one network of it and no other.
    fn is_single(&self) -> bool {
        false
    }

    /// Whether its networks have subnets, and its endpoints addresses.
    fn has_addresses(&self) -> bool {
        true
    }

    /// Refuses a network that can't be. Its subnets aren't known yet: `subnets` is what was asked for.
    ///
    /// # Errors
    /// The first thing that is wrong.
    fn check(&self, network: &Network, subnets: &[SubnetConfig]) -> Result<(), DriverError>;

    /// Refuses a network beside another one of this driver.
    ///
    /// # Errors
    /// If they can't both be.
    fn check_beside(&self, _network: &Network, _other: &Network) -> Result<(), DriverError> {
        Ok(())
    }

    /// The device of the host that is the network; if it is there before the network, it is adopted.
    fn device(&self, _network: &Network) -> Option<IfName> {
        None
    }

    /// What the interfaces of its endpoints begin with, before their number; `None` if there are no interfaces.
    fn interface_prefix(&self, _network: &Network) -> Option<String> {
        None
    }

    /// What the network itself needs.
    fn network_objects(&self, _network: &Network, _host: HostSettings) -> Vec<Object> {
        Vec::new()
    }

    /// What an endpoint needs whose sandbox has the namespace of this path.
    fn endpoint_objects(
        &self,
        _network: &Network,
        _endpoint: &Endpoint,
        _namespace: &Path,
        _host: HostSettings,
    ) -> Vec<Object> {
        Vec::new()
    }

    /// What the firewall must know of the network.
    fn firewall(&self, _network: &Network) -> Option<BridgeNetwork> {
        None
    }
}

/// Why a driver refuses a network. Texts are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// Packets that IPv6 doesn't fit in.
    #[error("invalid MTU number: {0}: IPv6 needs {IPV6_MINIMUM_MTU} at least")]
    SmallForIpv6(u16),
    /// No driver has this name.
    #[error("plugin {0:?} not found")]
    Unknown(String),
    /// There is one of its networks already.
    #[error("only one instance of \"{0}\" network is allowed")]
    Single(&'static str),
    /// An option doesn't parse.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// No interface could be called so.
    #[error("failed to parse {key} value: {value} (not the beginning of an interface name)")]
    Prefix {
        /// The option.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// Two subnets of one family.
    #[error("bridge driver doesn't support multiple subnets")]
    MultipleSubnets,
    /// Neither IPv4 nor IPv6.
    #[error("IPv4 or IPv6 must be enabled")]
    NoFamily,
    /// A default gateway on a network without a way out.
    #[error("no gateway can be set on an internal bridge network")]
    InternalGateway,
    /// A way out, and a mode that has none.
    #[error("gateway mode 'isolated' can only be used for an internal network")]
    Isolated,
    /// Two networks on one device, or with one address.
    #[error(
        "cannot create network {id} ({}): conflicts with network {other} ({}): networks have {what}",
        devices.0,
        devices.1
    )]
    Conflict {
        /// The network that is to be.
        id: NetworkId,
        /// The network that is.
        other: NetworkId,
        /// Their devices.
        devices: Box<(IfName, IfName)>,
        /// What they have in common.
        what: &'static str,
    },
    /// The device exists and is something else.
    #[error("existing interface {0} is not a bridge")]
    NotABridge(IfName),
}

impl DriverError {
    /// Whose fault it is.
    pub const fn class(&self) -> Class {
        match self {
            Self::Unknown(_) => Class::NotFound,
            Self::Single(_) | Self::MultipleSubnets | Self::Conflict { .. } => Class::Forbidden,
            Self::Option(_)
            | Self::Prefix { .. }
            | Self::NoFamily
            | Self::SmallForIpv6(_)
            | Self::InternalGateway
            | Self::Isolated
            | Self::NotABridge(_) => Class::Invalid,
        }
    }
}

/// The driver of this name.
///
/// # Errors
/// If there is none.
pub fn named(name: &str) -> Result<&'static dyn Driver, DriverError> {
    let drivers: [&'static dyn Driver; 3] = [&bridge::Bridge, &host::Host, &null::Null];
    drivers
        .into_iter()
        .find(|driver| driver.name() == name)
        .ok_or_else(|| DriverError::Unknown(name.to_owned()))
}

/// Whether two prefixes have an address in common.
fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_found_by_name() {
        for name in ["bridge", "host", "null"] {
            assert_eq!(named(name).unwrap().name(), name);
        }
        let error = named("x").map(Driver::name).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.class()), ("plugin \"x\" not found", Class::NotFound));
    }
}
