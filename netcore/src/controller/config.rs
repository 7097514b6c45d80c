//! What a controller is told once, when it is opened: the daemon's flags, typed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};

use super::ControllerError;
use crate::firewall::{BackendChoice, PacketMark};
use crate::ipam::DefaultPool;
use crate::model::IfName;
use crate::names::resolv_conf::{DnsOptions, HOST_FILE};

/// The default network's device, unless another one is named.
pub const DEFAULT_BRIDGE: &str = "portmap0";

/// For how long an answer about a sandbox may be kept, unless somebody chooses: not so long that it outlives the sandbox's
/// address by much. Docker's is 600.
const DNS_TTL: u32 = 5;

/// What a controller is told when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What outlives a reboot: the facts, the logs of sandboxes. `--data-root`.
    pub data_root: PathBuf,
    /// What doesn't: namespaces, files of running sandboxes. `--exec-root`.
    pub exec_root: PathBuf,
    /// The network `bridge`.
    pub default_bridge: DefaultBridge,
    /// Whether this host may be made a router. `--ip-forward`.
    pub ip_forward: bool,
    /// Whether rules may be touched. `--iptables`.
    pub iptables: bool,
    /// With what. `--firewall-backend`.
    pub firewall_backend: BackendChoice,
    /// Where subnets come from that nobody chose; empty for Docker's pools. `--default-address-pool`.
    pub default_pools: Vec<DefaultPool>,
    /// Options of new networks by driver, where the network has none of that key. `--default-network-opt`.
    pub default_options: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether a proxy stands behind each published port. `--userland-proxy`.
    pub userland_proxy: bool,
    /// The proxy program. `--userland-proxy-path`.
    pub userland_proxy_path: PathBuf,
    /// Whether containers may be reached by their own addresses from outside. `--allow-direct-routing`.
    pub allow_direct_routing: bool,
    /// Packets that bear this mark may enter any network that isn't internal. `--bridge-accept-fwmark`.
    pub accept_mark: Option<PacketMark>,
    /// What sandboxes get that have no such options of their own. `--dns`, `--dns-search`, `--dns-opt`.
    pub dns: DnsOptions,
    /// For how long an answer of the embedded server may be kept, in seconds. `--dns-ttl`.
    pub dns_ttl: u32,
    /// The file that stands for the host's `/etc/resolv.conf`, if it isn't the host's own. `--resolv-conf`.
    pub resolv_conf: Option<PathBuf>,
    /// What `host-gateway` stands for; empty for the default network's gateways. `--host-gateway-ip`.
    pub host_gateways: Vec<IpAddr>,
    /// Whether a link on the default network copies the provider's variables. `--link-env`.
    pub link_env: bool,
}

/// The network `bridge`: flags that stand for the options of other networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultBridge {
    /// `--bridge`.
    pub device: BridgeDevice,
    /// `--bip`: the bridge's address, and by its prefix the subnet.
    pub address: Option<Ipv4Net>,
    /// `--bip6`.
    pub address6: Option<Ipv6Net>,
    /// `--fixed-cidr`: where sandboxes get their addresses from.
    pub range: Option<Ipv4Net>,
    /// `--fixed-cidr-v6`.
    pub range6: Option<Ipv6Net>,
    /// `--default-gateway`, if it isn't the bridge.
    pub gateway: Option<Ipv4Addr>,
    /// `--default-gateway-v6`.
    pub gateway6: Option<Ipv6Addr>,
    /// `--icc`.
    pub icc: bool,
    /// `--ip-masq`.
    pub masquerade: bool,
    /// `--ip`: the host address of published ports that name none.
    pub host_binding: IpAddr,
    /// `--mtu`.
    pub mtu: u16,
    /// `--ipv6`.
    pub ipv6: bool,
}

/// `--bridge`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BridgeDevice {
    /// A bridge of our own, [`DEFAULT_BRIDGE`].
    #[default]
    Own,
    /// One that somebody made; it must be there.
    Adopted(IfName),
    /// There is no network `bridge`.
    None,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_root: PathBuf::from("/var/lib/portmap"),
            exec_root: PathBuf::from("/run/portmap"),
            default_bridge: DefaultBridge::default(),
            ip_forward: true,
            iptables: true,
            firewall_backend: BackendChoice::Auto,
            default_pools: Vec::new(),
            default_options: BTreeMap::new(),
            userland_proxy: true,
            userland_proxy_path: PathBuf::from("netproxy"),
            allow_direct_routing: false,
            accept_mark: None,
            dns: DnsOptions::default(),
            dns_ttl: DNS_TTL,
            resolv_conf: None,
            host_gateways: Vec::new(),
            link_env: true,
        }
    }
}

impl Default for DefaultBridge {
    fn default() -> Self {
        Self {
            device: BridgeDevice::Own,
            address: None,
            address6: None,
            range: None,
            range6: None,
            gateway: None,
            gateway6: None,
            icc: true,
            masquerade: true,
            host_binding: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            mtu: 1500,
            ipv6: false,
        }
    }
}

impl Config {
    /// Refuses flags that can't be had together.
    pub(super) fn check(&self) -> Result<(), ControllerError> {
        let bridge = &self.default_bridge;
        let named = bridge.device != BridgeDevice::Own;
        if named && (bridge.address.is_some() || bridge.address6.is_some()) {
            return Err(ControllerError::BridgeAndAddress);
        }
        if !self.iptables && !bridge.icc {
            return Err(ControllerError::IccNeedsRules);
        }
        Ok(())
    }

    /// Which rules there may be.
    pub(super) const fn backend(&self) -> BackendChoice {
        if self.iptables { self.firewall_backend } else { BackendChoice::None }
    }

    /// The file that stands for the host's resolv.conf.
    pub(super) fn host_resolv_conf(&self) -> PathBuf {
        self.resolv_conf.clone().unwrap_or_else(|| HOST_FILE.into())
    }

    /// Whether rules are touched at all.
    pub(super) fn has_rules(&self) -> bool {
        self.backend() != BackendChoice::None
    }
}
