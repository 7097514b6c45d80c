//! The grammar of `-p`/`--publish` for containers, with Docker's order of checks and Docker's texts.
//!
//! ```text
//! [[host-ip]:[host-ports]: | [host-ports]:]ctr-ports[/[proto]]
//! target=PORTS[,published=PORTS][,protocol=WORD]
//! ```
//!
//! The long form is rewritten to the short one and parsed as that, so it can say exactly as much. A range whose two
//! sides have equal lengths stays one range: 65,535 ports are one value, and [`PublishSpec::bindings`] walks them.
//!
//! Not here: what a missing address means, port 0 on either side (`bindings`), the form services use.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ports::{PortRange, Proto};

/// One `-p` value: which container ports are offered where.
///
/// `Display` prints the short form, which parses to the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PublishSpec {
    host_ip: Option<IpAddr>,
    host: HostPorts,
    container: PortRange,
    proto: Proto,
}

/// The host side of a [`PublishSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostPorts {
    /// Any free port of the ephemeral range, for each container port one.
    Ephemeral,
    /// As many ports as the container side has: first to first, last to last.
    Aligned(PortRange),
    /// One free port out of these, for a single container port.
    OneOf(PortRange),
}

/// One container port of a [`PublishSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortBinding {
    /// Port in the container.
    pub container: u16,
    /// Protocol on both sides.
    pub proto: Proto,
    /// Host address as it was given; `None` leaves it to the host's defaults.
    pub host_ip: Option<IpAddr>,
    /// Port on the host.
    pub host: HostPort,
}

/// The host side of a [`PortBinding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostPort {
    /// Any free port of the ephemeral range.
    Ephemeral,
    /// This port and no other.
    Exact(u16),
    /// Any free port out of these.
    OneOf(PortRange),
}

/// Why a `-p` value was refused, with Docker's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Nothing names a container port.
    #[error("no port specified: {0}<empty>")]
    NoPort(String),
    /// The word behind the slash is no protocol.
    #[error("invalid proto: {0}")]
    Proto(String),
    /// The host address opens with a bracket that isn't closed properly.
    #[error("invalid IP address {text}: address {text}:: {reason}")]
    Brackets {
        /// The address part.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The host address is none.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// The container side is no port or range.
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    /// The host side is no port or range.
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    /// The two sides differ in length, and the container side isn't a single port.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Lengths {
        /// The container side as it was given.
        container: String,
        /// The host side as it was given.
        host: String,
    },
    /// Long form: a part that isn't `name=value`.
    #[error("invalid publish opts format (should be name=value but got '{0}')")]
    NameValue(String),
}

impl PublishSpec {
    /// These container ports, each on a port of the host's choice.
    pub const fn ephemeral(container: PortRange, proto: Proto) -> Self {
        Self { host_ip: None, host: HostPorts::Ephemeral, container, proto }
    }

    /// Host address as it was given: an IPv4-mapped IPv6 address is still one here.
    pub const fn host_ip(&self) -> Option<IpAddr> {
        self.host_ip
    }

    /// The host side.
    pub const fn host(&self) -> HostPorts {
        self.host
    }

    /// The container side.
    pub const fn container(&self) -> PortRange {
        self.container
    }

    /// Protocol on both sides.
    pub const fn proto(&self) -> Proto {
        self.proto
    }

    /// Port by port what is published, in ascending order. A host port 0 is an ephemeral one.
    pub fn bindings(self) -> impl Iterator<Item = PortBinding> {
        self.container.iter().map(move |container| {
            let host = match self.host {
                HostPorts::Ephemeral => HostPort::Ephemeral,
                HostPorts::OneOf(range) => HostPort::OneOf(range),
                HostPorts::Aligned(range) => match range.first() + (container - self.container.first()) {
                    0 => HostPort::Ephemeral,
                    port => HostPort::Exact(port),
                },
            };
            PortBinding { container, proto: self.proto, host_ip: self.host_ip, host }
        })
    }

    fn parse_short(text: &str) -> Result<Self, SpecError> {
        let (address, host, container) = split_parts(text);
        let (container, word) = container.split_once('/').unwrap_or((container, ""));
        if container.is_empty() {
            return Err(SpecError::NoPort(text.to_owned()));
        }
        let proto = match word {
            "" => Proto::Tcp,
            word => word.parse().map_err(|_| SpecError::Proto(word.to_owned()))?,
        };
        let host_ip = parse_address(address)?;
        let ports = parse_range(container).ok_or_else(|| SpecError::ContainerPort(container.to_owned()))?;
        let host = match host {
            "" => HostPorts::Ephemeral,
            host => {
                let range = parse_range(host).ok_or_else(|| SpecError::HostPort(host.to_owned()))?;
                host_side(range, ports).ok_or_else(|| SpecError::Lengths {
                    container: container.to_owned(),
                    host: host.to_owned(),
                })?
            }
        };
        Ok(Self { host_ip, host, container: ports, proto })
    }
}

impl FromStr for PublishSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        if text.contains('=') { Self::parse_short(&long_to_short(text)?) } else { Self::parse_short(text) }
    }
}

impl fmt::Display for PublishSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            None => {}
        }
        match self.host {
            HostPorts::Aligned(range) | HostPorts::OneOf(range) => write!(f, "{range}:")?,
            HostPorts::Ephemeral if self.host_ip.is_some() => f.write_str(":")?,
            HostPorts::Ephemeral => {}
        }
        match self.proto {
            Proto::Tcp => write!(f, "{}", self.container),
            proto => write!(f, "{}/{proto}", self.container),
        }
    }
}

/// What a host range means beside the container's; `None` if the lengths don't fit.
fn host_side(host: PortRange, container: PortRange) -> Option<HostPorts> {
    if host == PortRange::single(0) && container.is_single() {
        return Some(HostPorts::Ephemeral);
    }
    if host.count() == container.count() {
        return Some(HostPorts::Aligned(host));
    }
    container.is_single().then_some(HostPorts::OneOf(host))
}

/// Address, host ports, container ports. Splitting at every colon is what lets an address go without brackets.
fn split_parts(text: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = text.rsplit_once(':') else { return ("", "", text) };
    let Some((address, host)) = rest.rsplit_once(':') else { return ("", rest, container) };
    (address, host, container)
}

/// An empty address, bare or in brackets, is none.
fn parse_address(text: &str) -> Result<Option<IpAddr>, SpecError> {
    let bare = if text.starts_with('[') {
        unbracket(text).map_err(|reason| SpecError::Brackets { text: text.to_owned(), reason })?
    } else {
        text
    };
    if bare.is_empty() {
        return Ok(None);
    }
    bare.parse().map(Some).map_err(|_| SpecError::Address(bare.to_owned()))
}

/// Takes the brackets off. The reasons are those of Go's address splitter, which Docker prints.
fn unbracket(text: &str) -> Result<&str, &'static str> {
    let inside = text.strip_prefix('[').unwrap_or(text);
    let Some((bare, behind)) = inside.split_once(']') else { return Err("missing ']' in address") };
    if behind.starts_with(':') {
        Err("too many colons in address")
    } else if !behind.is_empty() {
        Err("missing port in address")
    } else if bare.contains('[') {
        Err("unexpected '[' in address")
    } else {
        Ok(bare)
    }
}

/// `u16` reads exactly the numbers Docker does: decimal, leading zeros and one plus sign allowed.
fn parse_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    PortRange::new(first.parse().ok()?, last.parse().ok()?).ok()
}

/// Keys nobody knows are skipped, as in Docker; of a key given twice the last counts.
fn long_to_short(text: &str) -> Result<String, SpecError> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for part in text.split(',') {
        match part.split_once('=') {
            None | Some(("", _)) => return Err(SpecError::NameValue(part.to_owned())),
            Some(("target", value)) => target = value,
            Some(("published", value)) => published = value,
            Some(("protocol", value)) => protocol = value,
            Some(_) => {}
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

impl TryFrom<String> for PublishSpec {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<PublishSpec> for String {
    fn from(spec: PublishSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests;
