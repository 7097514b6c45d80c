//! The PROXY protocol, versions 1 and 2 (HAProxy's specification, `doc/proxy-protocol.txt`): a header in front of a
//! TCP stream that says whose stream it is. Pure.
//!
//! Encoding never fails: a socket's two addresses are of one family, and where a header's aren't, the IPv4 one is
//! written as an IPv4-mapped IPv6 address. Parsing decides as early as it can: bytes that can't become a header are
//! refused before the rest of one has arrived, and nothing behind the header is ever touched.
//!
//! Not here: whom to believe (`cidr`), and how long to wait (the engine, with the connect time-out).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

/// Version 2 starts with these bytes, and no other protocol does.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;
/// Version 1 starts with this.
const WORD: &[u8; 6] = b"PROXY ";
/// No line of version 1 is longer, its end included.
const LONGEST_LINE: usize = 107;
/// What may follow version 2's addresses (certificates' names and the like) without being refused.
const LONGEST_EXTRAS: usize = 4096;
/// The longest addresses: two Unix socket paths.
const LONGEST_ADDRESSES: usize = 216;

/// Which header to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Both ends of a connection, as its client sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client's.
    pub source: SocketAddr,
    /// The one it connected to.
    pub destination: SocketAddr,
}

impl Addresses {
    /// Those of an accepted socket (`getpeername` and `getsockname`). A dual-stack listener's IPv4 clients show as
    /// IPv4-mapped; here they are IPv4 again.
    #[must_use]
    pub fn of_socket(peer: SocketAddr, local: SocketAddr) -> Self {
        Self { source: unmapped(peer), destination: unmapped(local) }
    }

    /// Both in one family.
    fn pair(self) -> Pair {
        match (self.source, self.destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => Pair::V4(source, destination),
            (source, destination) => Pair::V6(v6(source), v6(destination)),
        }
    }
}

enum Pair {
    V4(SocketAddrV4, SocketAddrV4),
    V6(SocketAddrV6, SocketAddrV6),
}

fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn v6(addr: SocketAddr) -> SocketAddrV6 {
    match addr {
        SocketAddr::V4(addr) => SocketAddrV6::new(addr.ip().to_ipv6_mapped(), addr.port(), 0, 0),
        SocketAddr::V6(addr) => addr,
    }
}

/// The header to send before anything else.
#[must_use]
pub fn encode(version: Version, addresses: &Addresses) -> Vec<u8> {
    match version {
        Version::V1 => encode_line(addresses.pair()).into_bytes(),
        Version::V2 => encode_binary(addresses.pair()),
    }
}

fn encode_line(pair: Pair) -> String {
    match pair {
        Pair::V4(s, d) => format!("PROXY TCP4 {} {} {} {}\r\n", s.ip(), d.ip(), s.port(), d.port()),
        Pair::V6(s, d) => {
            format!("PROXY TCP6 {} {} {} {}\r\n", in_hex(s.ip()), in_hex(d.ip()), s.port(), d.port())
        }
    }
}

/// The specification knows no dots in an IPv6 address.
fn in_hex(ip: &Ipv6Addr) -> Cow<'static, str> {
    match (ip.to_ipv4_mapped(), ip.segments()) {
        (Some(_), [.., high, low]) => format!("::ffff:{high:x}:{low:x}").into(),
        (None, _) => ip.to_string().into(),
    }
}

fn encode_binary(pair: Pair) -> Vec<u8> {
    const VERSION_2_PROXY: u8 = 0x21;
    let mut header = Vec::with_capacity(FIXED + 36);
    header.extend(SIGNATURE);
    header.push(VERSION_2_PROXY);
    let (source, destination) = match pair {
        Pair::V4(s, d) => {
            header.extend([TCP4, 0, 12]);
            header.extend(s.ip().octets().into_iter().chain(d.ip().octets()));
            (s.port(), d.port())
        }
        Pair::V6(s, d) => {
            header.extend([TCP6, 0, 36]);
            header.extend(s.ip().octets().into_iter().chain(d.ip().octets()));
            (s.port(), d.port())
        }
    };
    header.extend(source.to_be_bytes().into_iter().chain(destination.to_be_bytes()));
    header
}

/// What the first bytes of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Incomplete,
    /// A header of `len` bytes; what follows is the client's.
    Done {
        /// Its length.
        len: usize,
        /// What it says; `None` when it leaves the socket's own addresses standing (`UNKNOWN`, `LOCAL`, or a protocol
        /// other than TCP).
        addresses: Option<Addresses>,
    },
    /// No header, however it goes on.
    Bad(Malformed),
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Something else, most likely the client's own protocol.
    #[error("no PROXY protocol header")]
    Missing,
    /// A line of version 1 that isn't as specified.
    #[error("malformed line of the PROXY protocol")]
    Line,
    /// No end of line where one must have been.
    #[error("line of the PROXY protocol beyond 107 bytes")]
    LongLine,
    /// The 13th byte of version 2.
    #[error("PROXY protocol version and command {0:#04x}")]
    Command(u8),
    /// The 14th byte of version 2.
    #[error("PROXY protocol address family {0:#04x}")]
    Family(u8),
    /// Too short for its addresses.
    #[error("PROXY protocol header too short for its addresses")]
    Short,
    /// More than anybody needs.
    #[error("PROXY protocol header of {0} bytes")]
    Long(usize),
}

/// Looks for a header of either version at the start of `bytes`.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let result = match bytes.first() {
        None => return Parsed::Incomplete,
        Some(b'P') => parse_line(bytes),
        Some(_) => parse_binary(bytes),
    };
    match result {
        Ok(Some((len, addresses))) => Parsed::Done { len, addresses },
        Ok(None) => Parsed::Incomplete,
        Err(bad) => Parsed::Bad(bad),
    }
}

/// A header's length and what it says, or `None` while it is incomplete.
type Found = Result<Option<(usize, Option<Addresses>)>, Malformed>;

/// Whether `bytes` start with `prefix`, as far as they go.
fn may_start_with(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(a, b)| a == b)
}

fn parse_line(bytes: &[u8]) -> Found {
    if !may_start_with(bytes, WORD) {
        return Err(Malformed::Missing);
    }
    let within = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        return if within.len() < LONGEST_LINE { Ok(None) } else { Err(Malformed::LongLine) };
    };
    let addresses = match &within[WORD.len()..end] {
        // Anything may follow it, and is to be ignored.
        [b'U', b'N', b'K', b'N', b'O', b'W', b'N'] | [b'U', b'N', b'K', b'N', b'O', b'W', b'N', b' ', ..] => {
            None
        }
        words => Some(line_addresses(words).ok_or(Malformed::Line)?),
    };
    Ok(Some((end + 2, addresses)))
}

/// `TCP4 192.0.2.1 198.51.100.1 56324 443`, single spaces, canonical numbers.
fn line_addresses(words: &[u8]) -> Option<Addresses> {
    let text = std::str::from_utf8(words).ok()?;
    let mut words = text.split(' ');
    let mut next = || words.next();
    let (family, source, destination) = (next()?, next()?, next()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if next().is_some() {
        return None;
    }
    let ip = |word: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(Into::into),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(Into::into),
            _ => None,
        }
    };
    Some(Addresses {
        source: SocketAddr::new(ip(source)?, source_port),
        destination: SocketAddr::new(ip(destination)?, destination_port),
    })
}

/// Digits without a leading zero.
fn port(word: &str) -> Option<u16> {
    let canonical = word == "0" || !word.starts_with(['0', '+']);
    canonical.then(|| word.parse().ok()).flatten()
}

/// TCP over IPv4, as version 2 writes it.
const TCP4: u8 = 0x11;
/// TCP over IPv6.
const TCP6: u8 = 0x21;

fn parse_binary(bytes: &[u8]) -> Found {
    if !may_start_with(bytes, SIGNATURE) {
        return Err(Malformed::Missing);
    }
    let is_local = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(&other) => return Err(Malformed::Command(other)),
    };
    let needed = match bytes.get(13) {
        None => return Ok(None),
        Some(_) if is_local => 0,
        Some(&TCP4) => 12,
        Some(&TCP6) => 36,
        // Unknown, datagrams, Unix sockets: specified, but nothing that a TCP connection could have as its addresses.
        Some(0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30..=0x32) => 0,
        Some(&other) => return Err(Malformed::Family(other)),
    };
    let (Some(&family), Some(&[high, low])) = (bytes.get(13), bytes.get(14..FIXED)) else { return Ok(None) };
    let body_len = usize::from(u16::from_be_bytes([high, low]));
    if body_len < needed {
        return Err(Malformed::Short);
    }
    if body_len > LONGEST_ADDRESSES + LONGEST_EXTRAS {
        return Err(Malformed::Long(FIXED + body_len));
    }
    let len = FIXED + body_len;
    let Some(body) = bytes.get(FIXED..len) else { return Ok(None) };
    let addresses = match family {
        _ if is_local => None,
        TCP4 => binary_addresses::<4>(body),
        TCP6 => binary_addresses::<16>(body),
        _ => None,
    };
    Ok(Some((len, addresses)))
}

/// Two addresses of `N` bytes, then two ports.
fn binary_addresses<const N: usize>(body: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, _) = rest.split_first_chunk::<2>()?;
    Some(Addresses {
        source: SocketAddr::new((*source).into(), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new((*destination).into(), u16::from_be_bytes(*destination_port)),
    })
}

/// A header that arrives in pieces. Holds the pieces, never more than the longest header, and no byte behind it.
#[derive(Debug, Default)]
pub struct Incoming {
    held: Vec<u8>,
}

impl Incoming {
    /// Looks at the next piece of the stream. After [`Parsed::Incomplete`] all of it is taken; in [`Parsed::Done`]
    /// `len` counts what of *this* piece belongs to the header, and the rest is the client's.
    pub fn feed(&mut self, piece: &[u8]) -> Parsed {
        if self.held.is_empty() {
            let parsed = parse(piece);
            if parsed == Parsed::Incomplete {
                self.held.extend_from_slice(piece);
            }
            return parsed;
        }
        let before = self.held.len();
        self.held.extend_from_slice(piece);
        match parse(&self.held) {
            // A header ends in its last piece: without it, it was incomplete.
            Parsed::Done { len, addresses } => Parsed::Done { len: len.saturating_sub(before), addresses },
            other => other,
        }
    }

    /// How many bytes of an incomplete header have come.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

/// A client that was to begin with a header and didn't.
#[derive(Debug, thiserror::Error)]
#[error("{client} was reset: {why}")]
pub struct Rejection {
    /// Who it was.
    pub client: SocketAddr,
    /// What it did.
    pub why: Why,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Its first bytes are no header.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It ended first.
    #[error("it ended after {0} bytes of a PROXY protocol header")]
    Ended(usize),
    /// It took too long.
    #[error("no complete PROXY protocol header within {0:?}")]
    Late(Duration),
}

impl Why {
    /// Whether it deserves a line: a connection without a single byte is how load balancers see whether we live.
    #[must_use]
    pub fn is_worth_a_line(self) -> bool {
        self != Self::Ended(0)
    }
}

#[cfg(test)]
mod tests;
