//! `/etc/resolv.conf` of a sandbox, made out of the host's, and which servers the embedded one asks.
//!
//! On a user-defined network the file names the embedded server alone, and what would have stood there is what that one
//! asks. Elsewhere the servers stand in the file itself, without those a sandbox can't reach.
//!
//! Not here: reading and writing files, and watching the host's.

mod options;
mod text;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use options::{BadDnsOption, DnsOptions, parse_search, parse_server};
pub use text::{ResolvConf, TooLong};

/// The host's file.
pub const HOST_FILE: &str = "/etc/resolv.conf";
/// What systemd-resolved asks, where the host's file names only its stub.
pub const RESOLVED_FILE: &str = "/run/systemd/resolve/resolv.conf";
/// Where sandboxes on user-defined networks find the embedded server.
pub const EMBEDDED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const RESOLVED_STUB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const PUBLIC4: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];
const PUBLIC6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888),
    Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844),
];

/// A server as a file names it: an address, and for a link-local one perhaps an interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Nameserver {
    /// The address.
    pub ip: IpAddr,
    /// What follows the `%`: an interface's name or number.
    pub zone: Option<String>,
}

/// A text that is no server's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} isn't an IP address")]
pub struct BadNameserver(pub String);

/// From which network namespace a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// The host's: the host's file named it, or nobody named any.
    Host,
    /// The sandbox's: `--dns`.
    Sandbox,
}

/// A server that the embedded one asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Upstream {
    /// The server.
    pub server: Nameserver,
    /// From where.
    pub origin: Origin,
}

/// Which rules a sandbox's file follows: those of the network that it was created on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The host's stack.
    Host,
    /// The default bridge, or no network.
    Legacy {
        /// Whether the network has IPv6.
        ipv6: bool,
    },
    /// A user-defined network, with the embedded server.
    Embedded {
        /// Whether the network has IPv6.
        ipv6: bool,
    },
}

/// What becomes of the host's file for one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The sandbox's file.
    pub text: String,
    /// What the embedded server asks, best first; empty where there is none.
    pub upstreams: Vec<Upstream>,
    /// Whether `ndots` came from the host or an option. Then the embedded server answers an unknown single label
    /// itself, because the libc inside tries the search list first.
    pub ndots_given: bool,
}

/// When a sandbox's copy may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It starts.
    Start,
    /// A network is connected to it while it runs.
    Connect,
}

/// Which of the host's files counts, given what [`HOST_FILE`] says.
pub fn source(kind: Kind, host: &ResolvConf) -> &'static Path {
    let stub = matches!(&host.nameservers[..], [only] if only.ip == RESOLVED_STUB);
    Path::new(if stub && matches!(kind, Kind::Legacy { .. }) { RESOLVED_FILE } else { HOST_FILE })
}

/// A sandbox's file. `host` is what `path` says, or nothing if there is no such file; `dns` wins over it, kind by kind.
pub fn generate(host: &ResolvConf, path: &Path, dns: &DnsOptions, kind: Kind) -> Generated {
    let mut draft = text::Draft::new(host, dns);
    let mut upstreams = Vec::new();
    match kind {
        Kind::Host => {}
        Kind::Legacy { ipv6 } => {
            if dns.servers.is_empty() {
                draft.servers.retain(|server| !is_loopback(server.ip) && (ipv6 || server.ip.is_ipv4()));
                draft.fill_in(ipv6);
            }
        }
        Kind::Embedded { ipv6 } => {
            if dns.servers.is_empty() {
                draft.fill_in(ipv6);
            }
            upstreams = if dns.servers.is_empty() {
                host_upstreams(host, ipv6)
            } else {
                given_upstreams(dns.servers.iter().copied())
            };
            draft.servers = vec![Nameserver::from(IpAddr::from(EMBEDDED))];
            draft.settle_ndots();
        }
    }
    let ndots_given = matches!(draft.ndots, Some(text::Ndots::Host | text::Ndots::Override));
    Generated { text: draft.write(path, kind, &upstreams, &host.invalid), upstreams, ndots_given }
}

/// What the embedded server asks for a sandbox without `--dns`: the servers of the host's file, or else public ones.
pub fn host_upstreams(host: &ResolvConf, ipv6: bool) -> Vec<Upstream> {
    let servers = if host.nameservers.is_empty() { public_servers(ipv6) } else { host.nameservers.clone() };
    servers.into_iter().map(|server| Upstream { server, origin: Origin::Host }).collect()
}

/// What it asks for one with `--dns`: these.
pub fn given_upstreams(servers: impl IntoIterator<Item = IpAddr>) -> Vec<Upstream> {
    let upstream = |ip| Upstream { server: Nameserver::from(ip), origin: Origin::Sandbox };
    servers.into_iter().map(upstream).collect()
}

/// What is kept beside a file that was written: `sha256:` and 64 hex digits, without a line's end.
pub fn digest(file: &[u8]) -> String {
    let hex: String = Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Whether somebody edited the file since `written` was its digest. No digest: nothing is known of it, so it counts as
/// edited.
pub fn is_edited(file: &[u8], written: Option<&str>) -> bool {
    written.is_none_or(|written| written.trim_end() != digest(file))
}

/// Whether a sandbox's copy is to be written anew. A start always does, and edits are lost; a copy in use is left alone,
/// unless the sandbox joins a network.
pub const fn is_due(moment: Moment, edited: bool) -> bool {
    match moment {
        Moment::Start => true,
        Moment::Connect => !edited,
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// The servers for who knows none.
fn public_servers(ipv6: bool) -> Vec<Nameserver> {
    let v6 = PUBLIC6.into_iter().filter(|_| ipv6).map(IpAddr::from);
    PUBLIC4.into_iter().map(IpAddr::from).chain(v6).map(Nameserver::from).collect()
}

impl From<IpAddr> for Nameserver {
    fn from(ip: IpAddr) -> Self {
        Self { ip, zone: None }
    }
}

impl FromStr for Nameserver {
    type Err = BadNameserver;

    fn from_str(text: &str) -> Result<Self, BadNameserver> {
        let bad = || BadNameserver(text.to_owned());
        let Some((ip, zone)) = text.split_once('%') else {
            return text.parse().map(|ip| Self { ip, zone: None }).map_err(|_| bad());
        };
        let ip: Ipv6Addr = ip.parse().map_err(|_| bad())?;
        let fits = !zone.is_empty() && zone.chars().all(|c| c.is_ascii_graphic());
        if fits { Ok(Self { ip: ip.into(), zone: Some(zone.to_owned()) }) } else { Err(bad()) }
    }
}

impl fmt::Display for Nameserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ip)?;
        self.zone.as_ref().map_or(Ok(()), |zone| write!(f, "%{zone}"))
    }
}

impl TryFrom<String> for Nameserver {
    type Error = BadNameserver;

    fn try_from(text: String) -> Result<Self, BadNameserver> {
        text.parse()
    }
}

impl From<Nameserver> for String {
    fn from(server: Nameserver) -> Self {
        server.to_string()
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Host => write!(f, "host({})", self.server),
            Origin::Sandbox => write!(f, "{}", self.server),
        }
    }
}

#[cfg(test)]
mod tests;
