//! What one proxy serves, as a value and as the text by which a later daemon knows it again.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::ports::{PortRange, Proto};
use super::reservation::{Reservation, places};
use crate::model::Publication;

/// Host ports on some addresses, and where they lead. `Display` gives `tcp 0.0.0.0,:: 8080 172.17.0.2 80`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mapping {
    pub(super) proto: Proto,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) host: PortRange,
    pub(super) target: IpAddr,
    pub(super) container: PortRange,
}

/// A text that is no mapping.
#[derive(Debug)]
pub(super) struct NoMapping;

impl Mapping {
    /// `None` if no host port leads there.
    pub(super) fn published(publication: &Publication) -> Option<Self> {
        let Publication { proto, container, host, addresses, target, .. } = publication;
        let host = (*host)?;
        let (proto, target, container) = (*proto, *target, *container);
        Some(Self { proto, addresses: addresses.clone(), host, target, container })
    }

    pub(super) fn reserved(reservation: &Reservation, target: IpAddr) -> Self {
        Self {
            proto: reservation.proto(),
            addresses: reservation.addresses().to_vec(),
            host: reservation.host(),
            target,
            container: reservation.container(),
        }
    }

    /// A reservation for this, without sockets.
    pub(super) fn unbound(&self) -> Reservation {
        let specs = vec![0; self.addresses.len()];
        Reservation::new(self.proto, (self.host, self.container), self.addresses.clone(), specs, Vec::new())
    }

    /// Its host addresses and ports, in the order of a reservation's sockets.
    pub(super) fn places(&self) -> impl Iterator<Item = SocketAddr> {
        places(&self.addresses, self.host)
    }

    /// Whether all it does is also done by `whole`.
    pub(super) fn is_part_of(&self, whole: &Self) -> bool {
        let shift = |of: &Self| i32::from(of.container.first()) - i32::from(of.host.first());
        self.proto == whole.proto
            && self.target == whole.target
            && shift(self) == shift(whole)
            && self.host.count() == self.container.count()
            && self.host.intersection(whole.host) == Some(self.host)
            && self.addresses.iter().all(|address| whole.addresses.contains(address))
    }

    /// Whether both want a port on one and the same address.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.proto == other.proto
            && self.host.intersection(other.host).is_some()
            && self.addresses.iter().any(|address| other.addresses.contains(address))
    }

    /// What of it remains when `parts` are done already.
    pub(super) fn without(&self, parts: &[Self]) -> Vec<Self> {
        if parts.is_empty() {
            return vec![self.clone()];
        }
        let mut rest = Vec::new();
        for address in &self.addresses {
            let mut taken: Vec<PortRange> =
                parts.iter().filter(|part| part.addresses.contains(address)).map(|part| part.host).collect();
            taken.sort_unstable();
            let mut next = u32::from(self.host.first());
            let mut gap = |upto: u32, next: u32| {
                let ports = (u16::try_from(next), u16::try_from(upto));
                if let (Ok(first), Ok(last)) = ports
                    && let Ok(host) = PortRange::new(first, last)
                {
                    rest.push(self.only(*address, host));
                }
            };
            for ports in taken {
                if let Some(before) = u32::from(ports.first()).checked_sub(1) {
                    gap(before, next);
                }
                next = u32::from(ports.last()) + 1;
            }
            gap(u32::from(self.host.last()), next);
        }
        rest
    }

    /// `host` is within its own host ports.
    fn only(&self, address: IpAddr, host: PortRange) -> Self {
        let inside = |port: u16| self.container.first().saturating_add(port - self.host.first());
        let container = PortRange::new(inside(host.first()), inside(host.last())).unwrap_or(self.container);
        Self { addresses: vec![address], host, container, ..self.clone() }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.proto)?;
        for (at, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if at == 0 { "" } else { "," })?;
        }
        write!(f, " {} {} {}", self.host, self.target, self.container)
    }
}

impl FromStr for Mapping {
    type Err = NoMapping;

    fn from_str(text: &str) -> Result<Self, NoMapping> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(NoMapping);
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let port = |text: &str| text.parse().map_err(|_| NoMapping);
            PortRange::new(port(first)?, port(last)?).map_err(|_| NoMapping)
        };
        let address = |text: &str| text.parse().map_err(|_| NoMapping);
        let parsed = Self {
            proto: word()?.parse().map_err(|_| NoMapping)?,
            addresses: word()?.split(',').map(address).collect::<Result<_, _>>()?,
            host: range(word()?)?,
            target: address(word()?)?,
            container: range(word()?)?,
        };
        if words.next().is_none() { Ok(parsed) } else { Err(NoMapping) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(text: &str) -> Mapping {
        text.parse().unwrap()
    }

    #[test]
    fn the_text_is_read_back_as_it_was() {
        for text in ["tcp 0.0.0.0,:: 8080 172.17.0.2 80", "udp 127.0.0.1 1-65535 fd00::2 1-65535"] {
            assert_eq!(mapping(text).to_string(), text);
        }
        for text in
            ["", "tcp", "tcp 1.2.3.4 80 1.2.3.4 80 ", "tcp 1.2.3.4 9-8 1.2.3.4 80", "x 1.2.3.4 8 ::1 8"]
        {
            assert!(text.parse::<Mapping>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_does_nothing_that_the_whole_does_not() {
        let whole = mapping("tcp 0.0.0.0,:: 8000-8009 172.17.0.2 80-89");
        for part in
            ["tcp :: 8003 172.17.0.2 83", "tcp 0.0.0.0 8008-8009 172.17.0.2 88-89", &whole.to_string()]
        {
            assert!(mapping(part).is_part_of(&whole), "{part}");
        }
        for other in [
            "udp :: 8003 172.17.0.2 83",
            "tcp :: 8003 172.17.0.2 84",
            "tcp :: 8003 172.17.0.3 83",
            "tcp ::1 8003 172.17.0.2 83",
            "tcp :: 8009-8010 172.17.0.2 89-90",
        ] {
            assert!(!mapping(other).is_part_of(&whole), "{other}");
        }
    }

    #[test]
    fn what_is_not_done_yet_remains() {
        let whole = mapping("tcp 0.0.0.0,:: 8000-8003 172.17.0.2 80-83");
        let rest = |parts: &[&str]| {
            let parts: Vec<_> = parts.iter().map(|text| mapping(text)).collect();
            whole.without(&parts).iter().map(Mapping::to_string).collect::<Vec<_>>()
        };
        assert_eq!(rest(&[]), [whole.to_string()]);
        assert!(rest(&[&whole.to_string()]).is_empty());
        assert_eq!(
            rest(&["tcp 0.0.0.0 8003 172.17.0.2 83", "tcp :: 8001 172.17.0.2 81"]),
            [
                "tcp 0.0.0.0 8000-8002 172.17.0.2 80-82",
                "tcp :: 8000 172.17.0.2 80",
                "tcp :: 8002-8003 172.17.0.2 82-83",
            ]
        );
    }
}
