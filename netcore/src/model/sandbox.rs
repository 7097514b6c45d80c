//! Sandboxes and endpoints as they are stored.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::ipam::PoolId;
use crate::names::hosts::ExtraHost;
use crate::names::resolv_conf::DnsOptions;
use crate::plan::Sysctl;

use super::id::{EndpointId, NetworkId, SandboxId};
use super::link::LinkSpec;
use super::mac::Mac;
use super::mode::{NetworkMode, TargetState};
use super::name::{IfName, SandboxName};
use super::publication::{PortsConfig, Publication};
use super::time::Timestamp;

/// Settings of the interface in the sandbox, with `IFNAME` in the place of its name.
const ENDPOINT_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// One network stack and who lives in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Identifies it.
    pub id: SandboxId,
    /// When it was created.
    pub created: Timestamp,
    /// What was asked for.
    #[serde(flatten)]
    pub config: SandboxConfig,
    /// What became of it.
    pub state: SandboxState,
}

/// What was asked for when a sandbox was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Unique on this host.
    pub name: SandboxName,
    /// `--hostname`; `None` is the short id, or in a shared stack the hostname of whom it is shared with.
    #[serde(default)]
    pub hostname: Option<String>,
    /// `--domainname`, or what followed the first dot of the hostname.
    #[serde(default)]
    pub domainname: Option<String>,
    /// `--label`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whose stack it has.
    #[serde(default)]
    pub mode: NetworkMode,
    /// A namespace somebody else made, to be adopted.
    #[serde(default)]
    pub netns: Option<PathBuf>,
    /// The networks it is connected to when it starts, by the name or id that was given.
    #[serde(default)]
    pub networks: BTreeMap<String, EndpointSettings>,
    /// Its ports.
    #[serde(default)]
    pub ports: PortsConfig,
    /// `--dns`, `--dns-search`, `--dns-opt`.
    #[serde(default)]
    pub dns: DnsOptions,
    /// `--add-host`.
    #[serde(default)]
    pub extra_hosts: Vec<ExtraHost>,
    /// What runs in it.
    #[serde(default)]
    pub process: ProcessConfig,
    /// `--rm`: it is removed when its process ends.
    #[serde(default)]
    pub auto_remove: bool,
}

/// What runs in a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessConfig {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `NAME=value`, added to the environment of whoever starts it.
    pub env: Vec<String>,
    /// The directory it starts in.
    pub directory: Option<PathBuf>,
    /// Whether it gets a terminal of its own when it runs detached.
    pub terminal: bool,
}

/// What was asked for on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSettings {
    /// Further names on this network.
    pub aliases: Vec<String>,
    /// `--ip`.
    pub ip: Option<Ipv4Addr>,
    /// `--ip6`.
    pub ip6: Option<Ipv6Addr>,
    /// `--link-local-ip`.
    pub link_local: Vec<IpAddr>,
    /// `--mac-address`.
    pub mac: Option<Mac>,
    /// `--link`.
    pub links: Vec<LinkSpec>,
    /// Who had a link's target for its name when the link was made, by alias. It is followed if it is renamed.
    pub link_targets: BTreeMap<String, SandboxId>,
    /// `--gw-priority`.
    pub gw_priority: i32,
    /// `--driver-opt`.
    pub driver_opts: BTreeMap<String, String>,
}

/// A setting that isn't one of an interface: Docker's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unrecognised network interface sysctl '{0}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
)]
pub struct BadSysctl(pub String);

/// Where a sandbox is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "status")]
pub enum SandboxState {
    /// Never started.
    Created,
    /// Its process runs.
    Running(Running),
    /// Its process ended.
    Exited(Exited),
}

/// A running sandbox. A process is known by three things, because numbers are used again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The process.
    pub pid: u32,
    /// When the kernel started it, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
    /// The boot in which that was.
    pub boot: BootId,
    /// When it was started.
    pub started: Timestamp,
    /// The namespace's handle; none in the host's stack.
    #[serde(default)]
    pub netns: Option<PathBuf>,
    /// Who started the process and reports its end, while it isn't the process itself.
    #[serde(default)]
    pub supervisor: Option<ProcessId>,
    /// Whether it has an embedded server: since it was on a user-defined network first.
    #[serde(default)]
    pub resolver: bool,
}

/// A process, known by more than its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When the kernel started it, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// A sandbox that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Exit code, or 128 and the signal.
    pub code: i32,
    /// When it was started, if it got that far.
    #[serde(default)]
    pub started: Option<Timestamp>,
    /// When it ended, or its end was noticed.
    pub finished: Timestamp,
    /// Why it failed to start.
    #[serde(default)]
    pub error: Option<String>,
}

/// One boot of this host: the text of `/proc/sys/kernel/random/boot_id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct BootId(String);

/// A text that is no boot id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid boot id {0:?}")]
pub struct BadBootId(pub String);

/// Where a sandbox meets a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Identifies it.
    pub id: EndpointId,
    /// Its network.
    pub network: NetworkId,
    /// Its sandbox; none on an endpoint that was made for somebody else.
    #[serde(default)]
    pub sandbox: Option<SandboxId>,
    /// The sandbox's name. Unique in the network.
    pub name: String,
    /// Its IPv4 address and the length of the subnet's prefix.
    #[serde(default)]
    pub ipv4: Option<Ipv4Net>,
    /// Its IPv6 address and the length of the subnet's prefix.
    #[serde(default)]
    pub ipv6: Option<Ipv6Net>,
    /// Where it would send what isn't local.
    #[serde(default)]
    pub gateway4: Option<Ipv4Addr>,
    /// The same for IPv6.
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    /// Its hardware address; none where the kernel chose it, or there is no interface.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The interface in the sandbox.
    #[serde(default)]
    pub ifname: Option<IfName>,
    /// The interface's other end on the host.
    #[serde(default)]
    pub host_ifname: Option<IfName>,
    /// What was asked for.
    #[serde(default)]
    pub settings: EndpointSettings,
    /// Its published ports.
    #[serde(default)]
    pub publications: Vec<Publication>,
}

/// An address that is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The pool it was taken from.
    pub pool: PoolId,
    /// The address.
    pub address: IpAddr,
    /// Who has it; none for a gateway or an auxiliary address.
    #[serde(default)]
    pub endpoint: Option<EndpointId>,
}

impl EndpointSettings {
    /// What is asked for of the interface, once it is called `name`.
    ///
    /// # Errors
    /// The first setting that isn't one of an interface.
    pub fn interface_sysctls(&self, name: &IfName) -> Result<Vec<Sysctl>, BadSysctl> {
        let given = self.driver_opts.get(ENDPOINT_SYSCTLS).into_iter();
        given.flat_map(|list| list.split(',')).map(|text| interface_sysctl(text, name)).collect()
    }
}

/// `net.ipv4.conf.IFNAME.log_martians=1`. The name may be in small letters: Docker's command line makes it so.
fn interface_sysctl(text: &str, name: &IfName) -> Result<Sysctl, BadSysctl> {
    let bad = || BadSysctl(text.to_owned());
    let (key, value) = text.split_once('=').ok_or_else(bad)?;
    let plain = |part: &str| !part.is_empty() && !part.contains('/');
    match key.split('.').collect::<Vec<_>>()[..] {
        ["net", family @ ("ipv4" | "ipv6" | "mpls"), kind, "IFNAME" | "ifname", setting]
            if plain(kind) && plain(setting) =>
        {
            Ok(Sysctl { key: format!("net/{family}/{kind}/{name}/{setting}"), value: value.to_owned() })
        }
        _ => Err(bad()),
    }
}

impl SandboxState {
    /// The word of the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running(_) => "running",
            Self::Exited(_) => "exited",
        }
    }

    /// What a `container:` dependant may expect. A process of another boot doesn't run, whatever the record says.
    pub fn as_target(&self, now: &BootId) -> TargetState {
        match self {
            Self::Created => TargetState::Created,
            Self::Running(running) if running.boot == *now => TargetState::Running,
            Self::Running(_) | Self::Exited(_) => TargetState::Exited,
        }
    }
}

impl Sandbox {
    /// The hostname: what was asked for, or the short id.
    pub fn hostname(&self) -> String {
        self.config.hostname.clone().unwrap_or_else(|| self.id.short())
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BootId {
    /// The text, without the line's end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BootId {
    type Err = BadBootId;

    fn from_str(text: &str) -> Result<Self, BadBootId> {
        let id = text.trim_end();
        let fits = id.len() == 36
            && id.bytes().enumerate().all(|(at, c)| match at {
                8 | 13 | 18 | 23 => c == b'-',
                _ => c.is_ascii_digit() || (b'a'..=b'f').contains(&c),
            });
        if fits { Ok(Self(id.to_owned())) } else { Err(BadBootId(text.to_owned())) }
    }
}

impl TryFrom<String> for BootId {
    type Error = BadBootId;

    fn try_from(text: String) -> Result<Self, BadBootId> {
        text.parse()
    }
}

impl From<BootId> for String {
    fn from(id: BootId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_an_interface_are_told_from_others() {
        let parse = |text: &str| {
            let driver_opts = [(ENDPOINT_SYSCTLS.to_owned(), text.to_owned())].into();
            let settings = EndpointSettings { driver_opts, ..EndpointSettings::default() };
            let sysctls = settings.interface_sysctls(&"eth7".parse().unwrap())?;
            Ok::<_, BadSysctl>(sysctls.iter().map(|s| format!("{}={}", s.key, s.value)).collect::<Vec<_>>())
        };
        let two = parse("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.accept_ra=2").unwrap();
        assert_eq!(two, ["net/ipv4/conf/eth7/log_martians=1", "net/ipv6/conf/eth7/accept_ra=2"]);
        for bad in [
            "",
            "net.ipv4.conf.eth0.log_martians=1",
            "net.core.conf.IFNAME.x=1",
            "net.ipv4.conf.IFNAME.x",
            "net.ipv4.ip_forward=1",
            "kernel.ipv4.conf.IFNAME.x=1",
            "net.ipv4.conf.IFNAME.x.y=1",
            "net.ipv4.conf/../all.IFNAME.x=1",
            "net.ipv4.conf.IFNAME./../../../../x=1",
        ] {
            assert_eq!(parse(bad).unwrap_err().0, bad);
        }
    }

    #[test]
    fn a_process_of_another_boot_is_not_believed() {
        let boot: BootId = "0b7c1a9e-2f43-4c58-9d6e-1a2b3c4d5e6f\n".parse().unwrap();
        let other: BootId = "ffffffff-2f43-4c58-9d6e-1a2b3c4d5e6f".parse().unwrap();
        let started = Timestamp::from_nanos(1);
        let state = SandboxState::Running(Running {
            pid: 7,
            start_ticks: 9,
            boot: boot.clone(),
            started,
            netns: None,
            supervisor: None,
            resolver: false,
        });
        assert_eq!(state.as_target(&boot), TargetState::Running);
        assert_eq!(state.as_target(&other), TargetState::Exited);
        for bad in
            ["", "0b7c1a9e", "0B7c1a9e-2f43-4c58-9d6e-1a2b3c4d5e6f", "0b7c1a9e+2f43-4c58-9d6e-1a2b3c4d5e6f"]
        {
            assert_eq!(bad.parse::<BootId>(), Err(BadBootId(bad.to_owned())));
        }
    }
}
