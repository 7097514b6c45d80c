//! What is forwarded where: an address, a range of ports and a protocol on either side.
//!
//! Pure values. Spelling them on a command line is `flags`' job, making sockets of them `listen`'s.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The transport protocols docker-proxy forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Byte streams with half-close.
    Tcp,
    /// Datagrams, grouped into flows.
    Udp,
    /// One-to-one style SCTP associations.
    Sctp,
}

impl Protocol {
    /// The name used on the command line and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = BadMapping;

    /// Exact lower-case names only, as docker-proxy has it.
    fn from_str(s: &str) -> Result<Self, BadMapping> {
        match s {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            other => Err(BadMapping::Protocol(other.to_owned())),
        }
    }
}

/// An ascending range of ports; a single port is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Port 0: whichever the socket has.
    pub const NONE: Self = Self { first: 0, last: 0 };

    /// `first..=last`, or `None` when they descend.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The lowest port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// How many ports: 1 to 65,536.
    #[must_use]
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// The ports, ascending.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// One mapping: every host port has exactly one target port, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// What is spoken on both sides.
    pub protocol: Protocol,
    /// The address listened on; informational when the socket is inherited.
    pub host_ip: IpAddr,
    /// The ports listened on; informational when a single socket is inherited.
    pub host_ports: Ports,
    /// Where connections and datagrams go.
    pub target_ip: IpAddr,
    /// As many ports as `host_ports`.
    pub target_ports: Ports,
}

impl Mapping {
    /// Checks what can be checked without a socket.
    ///
    /// # Errors
    /// When the ranges differ in length, the target has no port, or the target is the listening address itself.
    pub fn new(
        protocol: Protocol,
        host: (IpAddr, Ports),
        target: (IpAddr, Ports),
    ) -> Result<Self, BadMapping> {
        let (host_ip, host_ports) = (host.0.to_canonical(), host.1);
        let (target_ip, target_ports) = (target.0.to_canonical(), target.1);
        if host_ports.count() != target_ports.count() {
            return Err(BadMapping::Lengths { host: host_ports, target: target_ports });
        }
        if target_ports.first() == 0 {
            return Err(BadMapping::NoTargetPort);
        }
        let mapping = Self { protocol, host_ip, host_ports, target_ip, target_ports };
        if mapping.feeds_itself() {
            return Err(BadMapping::Loop(mapping.target(0)));
        }
        Ok(mapping)
    }

    /// The target of the host port at `index` in the range.
    ///
    /// # Panics
    /// When `index` is not below `host_ports.count()`.
    #[must_use]
    pub fn target(&self, index: usize) -> SocketAddr {
        assert!(index < self.target_ports.count(), "index {index} is outside {}", self.target_ports);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "index is below the range's length, at most 65,536"
        )]
        SocketAddr::new(self.target_ip, self.target_ports.first() + index as u16)
    }

    /// The index of the port `host_port`; a mapping of one port takes any number, since the caller that hands a
    /// socket over need not have said which port it bound.
    #[must_use]
    pub fn index_of(&self, host_port: u16) -> Option<usize> {
        if self.host_ports.count() == 1 {
            return Some(0);
        }
        let index = usize::from(host_port.checked_sub(self.host_ports.first())?);
        (index < self.host_ports.count()).then_some(index)
    }

    /// The listening side in words: `0.0.0.0:7000-7999`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}:{}", Bracketed(self.host_ip), self.host_ports)
    }

    /// The target side in words.
    #[must_use]
    pub fn behind(&self) -> String {
        format!("{}:{}", Bracketed(self.target_ip), self.target_ports)
    }

    /// A target that is the listener's own address would hand every connection back to us until descriptors run out.
    fn feeds_itself(&self) -> bool {
        let same_host = self.host_ip == self.target_ip
            || (self.host_ip.is_unspecified() && self.target_ip.is_loopback())
            || (self.host_ip.is_loopback() && self.target_ip.is_unspecified());
        let same_family = self.host_ip.is_ipv4() == self.target_ip.is_ipv4();
        same_host && same_family && self.host_ports == self.target_ports && self.host_ports.first() != 0
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.host(), self.behind())
    }
}

/// An address as it stands before `:port`.
struct Bracketed(IpAddr);

impl fmt::Display for Bracketed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => write!(f, "{ip}"),
            IpAddr::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

/// Why a mapping can't be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadMapping {
    /// Docker's text for a protocol nobody forwards.
    #[error("unsupported protocol {0}")]
    Protocol(String),
    /// A range must map one to one.
    #[error("-host-port {host} and -container-port {target} differ in length")]
    Lengths {
        /// What was asked for on the host.
        host: Ports,
        /// What was asked for behind it.
        target: Ports,
    },
    /// docker-proxy notices this at the first connection only.
    #[error("no target port: give -container-port a port between 1 and 65535")]
    NoTargetPort,
    /// Every connection would come straight back.
    #[error("{0} is the listening address itself: every connection would be forwarded back to this proxy")]
    Loop(SocketAddr),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(first: u16, last: u16) -> Ports {
        Ports::new(first, last).unwrap()
    }

    fn mapping(host: &str, hp: Ports, target: &str, tp: Ports) -> Result<Mapping, BadMapping> {
        Mapping::new(Protocol::Tcp, (host.parse().unwrap(), hp), (target.parse().unwrap(), tp))
    }

    #[test]
    fn a_range_maps_one_to_one() {
        let m = mapping("0.0.0.0", ports(7000, 7002), "10.0.0.2", ports(80, 82)).unwrap();
        assert_eq!(m.target(2), "10.0.0.2:82".parse().unwrap());
        assert_eq!(m.index_of(7001), Some(1));
        assert_eq!(m.index_of(7003), None);
        assert_eq!(m.index_of(6999), None);
        assert_eq!(m.to_string(), "tcp 0.0.0.0:7000-7002 -> 10.0.0.2:80-82");
    }

    #[test]
    fn one_port_takes_whatever_port_the_inherited_socket_has() {
        let m = mapping("127.0.0.1", ports(0, 0), "::1", ports(80, 80)).unwrap();
        assert_eq!(m.index_of(43210), Some(0));
        assert_eq!(m.to_string(), "tcp 127.0.0.1:0 -> [::1]:80");
    }

    #[test]
    fn bad_mappings_are_refused() {
        let lengths = mapping("0.0.0.0", ports(1, 2), "10.0.0.2", ports(80, 80)).unwrap_err();
        assert_eq!(lengths.to_string(), "-host-port 1-2 and -container-port 80 differ in length");
        assert_eq!(
            mapping("0.0.0.0", ports(1, 1), "10.0.0.2", ports(0, 0)).unwrap_err(),
            BadMapping::NoTargetPort
        );
        assert!(Ports::new(2, 1).is_none());
    }

    #[test]
    fn a_proxy_does_not_feed_itself() {
        for (host, target) in [
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("0.0.0.0", "0.0.0.0"),
            ("::", "::1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
        ] {
            let looped = mapping(host, ports(80, 80), target, ports(80, 80));
            assert!(matches!(looped, Err(BadMapping::Loop(_))), "{host} -> {target}: {looped:?}");
        }
        for (host, target) in [("0.0.0.0", "10.0.0.2"), ("127.0.0.1", "127.0.0.2"), ("::1", "127.0.0.1")] {
            assert!(mapping(host, ports(80, 80), target, ports(80, 80)).is_ok(), "{host} -> {target}");
        }
        assert!(mapping("127.0.0.1", ports(80, 80), "127.0.0.1", ports(81, 81)).is_ok());
    }
}
