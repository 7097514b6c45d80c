//! Who uses a port: sockets as `/proc/…/net` lists them, and the processes that hold them.
//!
//! A listing is of one network namespace. The processes are looked for by the descriptors of all of them, which is slow on
//! a busy host: only for messages to people.
//!
//! The lists don't say whether a socket of IPv6's wildcard takes IPv4, too. What asks whether a port is taken counts it for
//! both, as it is by default.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::KernelError;
use super::error::Refusal;
use super::netns::{self, Found};
use crate::publish::Proto;

/// The state of a listening TCP socket: `TCP_LISTEN`.
const LISTENING: u8 = 10;
/// The state of a UDP socket that is connected to nobody: `TCP_CLOSE`.
const UNCONNECTED: u8 = 7;

/// Whose sockets.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// Those in the calling thread's network namespace.
    Here,
    /// Those in the namespace of a process.
    Process(u32),
    /// Those in a pinned namespace.
    Pinned(&'a Path),
}

/// A socket that is bound to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundSocket {
    /// Its protocol.
    pub proto: Proto,
    /// Its own end.
    pub local: SocketAddr,
    /// Whether it waits for anybody: a listening one, or an unconnected one of UDP's.
    pub listens: bool,
    /// Its number, which [`holder`] knows. 0 for one that no process holds any more.
    pub inode: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number, as the caller sees it.
    pub pid: u32,
    /// The name of its program: the first 15 bytes.
    pub name: String,
}

/// All sockets that wait for anybody, in order.
///
/// # Errors
/// If they can't be listed: no such process or namespace, or no right to enter it.
pub fn listeners(place: Place<'_>) -> Result<Vec<BoundSocket>, KernelError> {
    let mut all = sockets(place)?;
    all.retain(|socket| socket.listens);
    Ok(all)
}

/// All sockets that have a port, in order.
///
/// # Errors
/// As [`listeners`].
pub fn sockets(place: Place<'_>) -> Result<Vec<BoundSocket>, KernelError> {
    let listed = match place {
        Place::Here => read(Path::new("/proc/thread-self/net")),
        Place::Process(pid) => read(&PathBuf::from(format!("/proc/{pid}/net"))),
        Place::Pinned(path) => match netns::find(path) {
            Ok(Found::Namespace(there)) => {
                netns::inside(&there, || read(Path::new("/proc/thread-self/net"))).flatten()
            }
            Ok(_) => return Err(KernelError::NotANamespace(path.to_owned())),
            Err(error) => Err(error),
        },
    };
    listed.map_err(|error| Refusal::from(error).about("list", "sockets"))
}

/// A process that holds a socket: of several, the one with the lowest number, which is mostly the parent of the others.
/// `None` if there is none that the caller may look at.
pub fn holder(inode: u64) -> Option<Holder> {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let holds = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors.into_iter().any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == wanted))
    };
    let pid = pids.into_iter().find(holds)?;
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(Holder { pid, name: String::from_utf8_lossy(name.trim_ascii_end()).into_owned() })
}

/// Who keeps others from binding this address and port, in the calling thread's network namespace. `None` if nobody does,
/// or nobody whom the caller may look at.
pub fn holder_of(proto: Proto, at: SocketAddr) -> Option<Holder> {
    let mut all = sockets(Place::Here).ok()?;
    all.retain(|socket| socket.inode != 0 && socket.stands_in_the_way_of(proto, at));
    // What waits for anybody is more to the point than one end of a connection.
    all.sort_by_key(|socket| !socket.listens);
    all.into_iter().find_map(|socket| holder(socket.inode))
}

impl BoundSocket {
    /// Whether somebody else can't bind this address and port.
    pub fn stands_in_the_way_of(&self, proto: Proto, at: SocketAddr) -> bool {
        self.proto == proto && self.local.port() == at.port() && overlap(self.local.ip(), at.ip())
    }
}

/// Whether two sockets of one port with these addresses are in each other's way.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let any = |address: IpAddr, of: IpAddr| {
        address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) || address.is_unspecified() && of.is_ipv4()
    };
    let (one, other) = (one.to_canonical(), other.to_canonical());
    one == other || any(one, other) || any(other, one)
}

fn read(net: &Path) -> io::Result<Vec<BoundSocket>> {
    let mut all = Vec::new();
    let lists = [("tcp", Proto::Tcp), ("tcp6", Proto::Tcp), ("udp", Proto::Udp), ("udp6", Proto::Udp)];
    for (name, proto) in lists {
        match fs::read_to_string(net.join(name)) {
            Ok(text) => all.extend(text.lines().filter_map(|line| internet(proto, line))),
            // A kernel without IPv6; IPv4's list of TCP is always there.
            Err(error) if error.kind() == ErrorKind::NotFound && name != "tcp" => {}
            Err(error) => return Err(error),
        }
    }
    match fs::read_to_string(net.join("sctp/eps")) {
        Ok(text) => all.extend(text.lines().flat_map(sctp)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    all.retain(|socket| socket.local.port() != 0);
    all.sort_unstable();
    Ok(all)
}

/// A line of `tcp`, `tcp6`, `udp` or `udp6`; `None` for their first.
fn internet(proto: Proto, line: &str) -> Option<BoundSocket> {
    let mut fields = line.split_ascii_whitespace();
    let local = hexadecimal(fields.nth(1)?)?;
    let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    let waits = if proto == Proto::Tcp { LISTENING } else { UNCONNECTED };
    Some(BoundSocket { proto, local, listens: state == waits, inode })
}

/// The endpoints of a line of SCTP's `eps`: one per address. Each of them takes associations, or is about to.
fn sctp(line: &str) -> Vec<BoundSocket> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, _, _, _, _, port, _, inode, addresses @ ..] = &fields[..] else { return Vec::new() };
    let (Ok(port), Ok(inode)) = (port.parse(), inode.parse()) else { return Vec::new() };
    let socket = |address: &IpAddr| BoundSocket {
        proto: Proto::Sctp,
        local: SocketAddr::new(*address, port),
        listens: true,
        inode,
    };
    let addresses: Vec<IpAddr> = addresses.iter().filter_map(|address| address.parse().ok()).collect();
    addresses.iter().map(socket).collect()
}

/// `0100007F:1F90`: words of four bytes in the host's order, then the port.
fn hexadecimal(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, quarter) in bytes.chunks_exact_mut(4).enumerate() {
                quarter.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn shown(socket: BoundSocket) -> String {
        let how = if socket.listens { "waits" } else { "is connected" };
        format!("{} {} {how} {}", socket.proto, socket.local, socket.inode)
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_lists_are_read() {
        let tail =
            "00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        let cases = [
            (
                Proto::Tcp,
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid",
                None,
            ),
            (Proto::Tcp, "   0: 0100007F:1F90 00000000:0000 0A", Some("tcp 127.0.0.1:8080 waits 4711")),
            (
                Proto::Tcp,
                "   1: 0100007F:1F90 0200007F:9999 01",
                Some("tcp 127.0.0.1:8080 is connected 4711"),
            ),
            (Proto::Udp, "  99: 00000000:0035 00000000:0000 07", Some("udp 0.0.0.0:53 waits 4711")),
            (
                Proto::Tcp,
                "   0: B80D01200000000000000000010000FF:0050 00000000000000000000000000000000:0000 0A",
                Some("tcp [2001:db8::ff00:1]:80 waits 4711"),
            ),
            (Proto::Tcp, "   0: 010000:1F90 00000000:0000 0A", None),
            (Proto::Tcp, "   0: é00007F:1F90 00000000:0000 0A", None),
            (Proto::Tcp, "", None),
        ];
        for (proto, line, want) in cases {
            let got = internet(proto, &format!("{line} {tail}")).map(shown);
            assert_eq!(got.as_deref(), want, "{line}");
        }
        let line =
            "0000 0000 2   10  29   9900     0 4712 127.0.0.1 0000:0000:0000:0000:0000:0000:0000:0001 ";
        let got: Vec<String> = sctp(line).into_iter().map(shown).collect();
        assert_eq!(got, ["sctp 127.0.0.1:9900 waits 4712", "sctp [::1]:9900 waits 4712"]);
        assert_eq!(sctp(" ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS"), []);
    }

    #[test]
    fn sockets_stand_in_each_others_way_as_in_the_kernel() {
        let cases = [
            ("0.0.0.0", "127.0.0.1", true),
            ("127.0.0.1", "0.0.0.0", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("::", "127.0.0.1", true),
            ("127.0.0.1", "::", true),
            ("::", "::1", true),
            ("0.0.0.0", "::1", false),
            ("::1", "0.0.0.0", false),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
        ];
        for (one, other, want) in cases {
            assert_eq!(overlap(one.parse().unwrap(), other.parse().unwrap()), want, "{one} {other}");
        }
    }

    #[test]
    fn whoever_holds_a_port_is_found_by_it() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        let found = listeners(Place::Here).unwrap();
        let listener = found.iter().find(|socket| socket.stands_in_the_way_of(Proto::Tcp, at)).unwrap();
        assert_eq!(listener.local, at);
        assert!(listeners(Place::Process(std::process::id())).unwrap().contains(listener));
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        let me = Holder { pid: std::process::id(), name: name.trim_end().to_owned() };
        // Children of other tests hold copies for a moment, and have higher numbers.
        assert_eq!(holder(listener.inode), Some(me.clone()));
        assert_eq!(holder_of(Proto::Tcp, (Ipv4Addr::UNSPECIFIED, at.port()).into()), Some(me.clone()));

        let udp = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
        assert_eq!(holder_of(Proto::Udp, udp.local_addr().unwrap()), Some(me.clone()));

        let client = TcpStream::connect(at).unwrap();
        assert_eq!(
            holder_of(Proto::Tcp, client.local_addr().unwrap()),
            Some(me),
            "an outgoing connection's end"
        );
        let end = client.local_addr().unwrap();
        assert!(!listeners(Place::Here).unwrap().iter().any(|socket| socket.local == end));
        assert_eq!(holder(0), None);
        assert!(listeners(Place::Process(0)).is_err());
        assert!(listeners(Place::Pinned(Path::new("/nowhere"))).is_err());
    }
}
