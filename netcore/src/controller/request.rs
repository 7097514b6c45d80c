//! What the operations take and give: requests as the API has them, already parsed, and views of what there is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::ipam::{PoolStatus, SubnetSpec};
use crate::model::{
    Endpoint, EndpointSettings, Ipam, LinkSpec, Mac, Network, NetworkMode, PortsConfig, ProcessConfig,
    Running, Sandbox, SandboxName,
};
use crate::names::hosts::ExtraHost;
use crate::names::resolv_conf::DnsOptions;

/// `network create`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Its name.
    pub name: String,
    /// `--driver`; empty for `bridge`.
    pub driver: String,
    /// `--ipv4`; `None` leaves it to the options and the default, which is on.
    pub ipv4: Option<bool>,
    /// `--ipv6`; `None` leaves it to the options and the default, which is off.
    pub ipv6: Option<bool>,
    /// `--ipam-driver` and `--ipam-opt`.
    pub ipam: Ipam,
    /// `--subnet`, `--ip-range`, `--gateway`, `--aux-address`.
    pub subnets: Vec<SubnetSpec>,
    /// `--internal`.
    pub internal: bool,
    /// `-o`.
    pub options: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
}

/// `create`: a sandbox that is to be. Names of networks are as given, and looked up when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxConfigRequest {
    /// `--name`; without it one is made up.
    pub name: Option<String>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--domainname`.
    pub domainname: Option<String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--network`, the first one.
    pub mode: NetworkMode,
    /// `--mac-address`, which belongs to the network of `mode`.
    pub mac: Option<Mac>,
    /// `--netns`.
    pub netns: Option<PathBuf>,
    /// What is wanted on each network. The one of `mode` needs no entry.
    pub networks: BTreeMap<String, EndpointSettings>,
    /// `-p`, `--expose`, `-P`.
    pub ports: PortsConfig,
    /// `--dns`, `--dns-search`, `--dns-opt`.
    pub dns: DnsOptions,
    /// `--add-host`.
    pub extra_hosts: Vec<ExtraHost>,
    /// `--link` on the default network; on others the endpoint's settings have them.
    pub links: Vec<LinkSpec>,
    /// What runs in it.
    pub process: ProcessConfig,
    /// `--rm`.
    pub auto_remove: bool,
}

/// A network and who is on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkView {
    /// The network.
    pub network: Network,
    /// Its endpoints, by name.
    pub endpoints: Vec<Endpoint>,
    /// The counters of each of its subnets.
    pub pools: Vec<(IpNet, PoolStatus)>,
}

/// A sandbox and the networks it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxView {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// Its endpoints, in the order in which their networks count.
    pub endpoints: Vec<Endpoint>,
    /// Its links on the default network, in the order in which they were given.
    pub links: Vec<LinkView>,
}

/// A link on the default network, as its two ends are called now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// The sandbox it leads to.
    pub provider: SandboxName,
    /// What that one is called by who has the link.
    pub alias: String,
}

/// A sandbox that was started: what its command needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// The handle of its network namespace; none in the host's stack.
    pub netns: Option<PathBuf>,
    /// Its hostname.
    pub hostname: String,
    /// Its domain name, or nothing.
    pub domainname: String,
    /// What is to be seen under `/etc`.
    pub files: Files,
    /// What its links put into its environment, as `NAME=value`. What was asked for by `-e` wins over it.
    pub link_env: Vec<String>,
    /// The sandbox whose stack it shares, as that one runs.
    pub target: Option<(Sandbox, Running)>,
}

/// Files to be mounted over those of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// `/etc/hostname`.
    pub hostname: PathBuf,
    /// `/etc/resolv.conf`; without one the host's is left.
    pub resolv_conf: Option<PathBuf>,
}

/// What became of a sandbox whose command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether it is gone.
    pub auto_removed: bool,
}
