//! Sandboxes and endpoints as they are stored.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::ipam::PoolId;

use super::id::{EndpointId, NetworkId, SandboxId};
use super::mac::Mac;
use super::mode::{NetworkMode, TargetState};
use super::name::{IfName, SandboxName};
use super::time::Timestamp;

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
    /// `--gw-priority`.
    pub gw_priority: i32,
    /// `--driver-opt`.
    pub driver_opts: BTreeMap<String, String>,
}

/// `--link name[:alias]`: a name for another sandbox that only this one knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LinkSpec {
    /// The other sandbox, by name or id.
    pub target: String,
    /// The name for it.
    pub alias: String,
}

/// Why a `--link` was refused: Docker's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nothing was given.
    #[error("empty string specified for links")]
    Empty,
    /// More than two parts, or an empty one.
    #[error("bad format for links: {0}")]
    Format(String),
}

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

impl FromStr for LinkSpec {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let (target, alias) = match text.split_once(':') {
            None => (text, text),
            Some(parts) => parts,
        };
        if text.is_empty() {
            return Err(LinkError::Empty);
        }
        if target.is_empty() || alias.is_empty() || alias.contains(':') {
            return Err(LinkError::Format(text.to_owned()));
        }
        Ok(Self { target: target.to_owned(), alias: alias.to_owned() })
    }
}

impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.target, self.alias)
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

impl TryFrom<String> for LinkSpec {
    type Error = LinkError;

    fn try_from(text: String) -> Result<Self, LinkError> {
        text.parse()
    }
}

impl From<LinkSpec> for String {
    fn from(link: LinkSpec) -> Self {
        link.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_parse() {
        let cases = [
            ("db", Ok("db:db")),
            ("db:database", Ok("db:database")),
            ("", Err("empty string specified for links")),
            ("a:b:c", Err("bad format for links: a:b:c")),
            (":b", Err("bad format for links: :b")),
            ("a:", Err("bad format for links: a:")),
        ];
        for (text, want) in cases {
            let got = text.parse::<LinkSpec>().map(|link| link.to_string()).map_err(|e| e.to_string());
            assert_eq!(got, want.map(str::to_owned).map_err(str::to_owned), "{text:?}");
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
