//! Networks as they are stored.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ipam::PoolId;

use super::election::Family;
use super::id::NetworkId;
use super::name::NetworkName;
use super::options::{BridgeOptions, OptionError};
use super::time::Timestamp;

/// Name of an auxiliary address that becomes the default gateway of the network's sandboxes (IPv4).
pub const DEFAULT_GATEWAY_IPV4: &str = "DefaultGatewayIPv4";
/// The same for IPv6.
pub const DEFAULT_GATEWAY_IPV6: &str = "DefaultGatewayIPv6";

/// A set of endpoints that reach each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Identifies it.
    pub id: NetworkId,
    /// Unique on this host.
    pub name: NetworkName,
    /// The driver that makes it: `bridge`, `host`, `null`, `overlay`, or the name of a remote one.
    pub driver: String,
    /// How far it reaches.
    pub scope: Scope,
    /// When it was created.
    pub created: Timestamp,
    /// Who gives out addresses.
    #[serde(default)]
    pub ipam: Ipam,
    /// Its address blocks, IPv4 first.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// Without a way out.
    #[serde(default)]
    pub internal: bool,
    /// Whether endpoints get IPv4 addresses.
    pub ipv4: bool,
    /// Whether endpoints get IPv6 addresses.
    pub ipv6: bool,
    /// `-o`, as given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// `--label`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its device was there before it, and stays when it goes.
    #[serde(default)]
    pub adopted: bool,
}

/// How far a network reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// This host.
    #[default]
    Local,
    /// Every host of a cluster.
    Global,
}

/// Who gives out a network's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    /// `default`, or the name of a remote one.
    pub driver: String,
    /// `--ipam-opt`, as given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// One address block of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The block, without host bits.
    pub subnet: IpNet,
    /// Where dynamic addresses come from; `None` is the whole block.
    #[serde(default)]
    pub range: Option<IpNet>,
    /// The address of the network's own end.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Addresses that nobody gets, by name.
    #[serde(default)]
    pub aux: BTreeMap<String, IpAddr>,
    /// What the address manager calls the block; `None` on one it knows nothing of.
    #[serde(default)]
    pub pool: Option<PoolId>,
}

impl Default for Ipam {
    fn default() -> Self {
        Self { driver: "default".to_owned(), options: BTreeMap::new() }
    }
}

impl Scope {
    /// The word of the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Global => "global",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Subnet {
    /// A block and nothing else.
    pub const fn new(subnet: IpNet) -> Self {
        Self { subnet, range: None, gateway: None, aux: BTreeMap::new(), pool: None }
    }

    /// The family of its addresses.
    pub const fn family(&self) -> Family {
        match self.subnet {
            IpNet::V4(_) => Family::V4,
            IpNet::V6(_) => Family::V6,
        }
    }

    /// Where sandboxes send what isn't local: the auxiliary address of a certain name, or else the gateway.
    pub fn default_gateway(&self) -> Option<IpAddr> {
        let name = match self.family() {
            Family::V4 => DEFAULT_GATEWAY_IPV4,
            Family::V6 => DEFAULT_GATEWAY_IPV6,
        };
        self.aux.get(name).copied().or(self.gateway)
    }
}

impl Network {
    /// What its options mean to the bridge driver.
    ///
    /// # Errors
    /// If a value doesn't parse; not for a network that was checked when it was created.
    pub fn bridge_options(&self) -> Result<BridgeOptions, OptionError> {
        BridgeOptions::parse(&self.options)
    }

    /// Whether it exists without having been created.
    pub fn is_predefined(&self) -> bool {
        self.name.is_reserved()
    }

    /// Where its sandboxes send what isn't local; nowhere from an internal network.
    pub fn default_gateway(&self, family: Family) -> Option<IpAddr> {
        let subnet = self.subnets.iter().find(|subnet| subnet.family() == family)?;
        if self.internal { None } else { subnet.default_gateway() }
    }

    /// The block that holds `address`.
    pub fn subnet_of(&self, address: IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.subnet.contains(&address))
    }
}
