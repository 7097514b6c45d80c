//! The rules that lead port 53 of 127.0.0.11 to the embedded server, as one nftables transaction over netlink. `nft` would do
//! the same, but each sandbox's start would wait for the process.
//!
//! The messages are written here: netlink-packet-netfilter knows neither batches nor nat.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{
    NLA_F_NESTED, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_ERROR,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::firewall::resolver::NamePorts;
use crate::names::resolv_conf::EMBEDDED;

const TABLE: &str = "portmap-dns";
const DNAT: &str = "dns-dnat";
const SNAT: &str = "dns-snat";

/// In seconds. The kernel answers while it is being told.
const LIMIT: i64 = 20;
const HEADER: usize = 16;

// linux/netfilter/nfnetlink.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u16 = 10;
// linux/netfilter/nf_tables.h
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const FAMILY_IP: u8 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const META_L4PROTO: u32 = 16;
/// Registers: what is compared and an address; a port.
const REGISTER: u32 = 1;
const PORT_REGISTER: u32 = 2;
// Where a header has what.
const SOURCE_ADDRESS: u32 = 12;
const DESTINATION_ADDRESS: u32 = 16;
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;

const CHANGE: u16 = NLM_F_REQUEST | NLM_F_ACK;
const CREATE: u16 = CHANGE | NLM_F_CREATE;
const APPEND: u16 = CREATE | NLM_F_APPEND;

/// Loads the rules in the calling thread's namespace, in the place of earlier ones; says whether there were any.
///
/// Those aren't deleted on suspicion: the kernel would have this wait until no packet is under way in any rule set, some
/// 15 ms, even if there was nothing to delete.
pub(super) fn load(ports: NamePorts) -> io::Result<bool> {
    let mut first = Batch::new();
    first.add(NEW_TABLE, CREATE | NLM_F_EXCL, &[text(1, TABLE)]);
    first.add_rules(ports);
    match first.commit() {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            let mut again = Batch::new();
            again.remove_table();
            again.add(NEW_TABLE, CREATE, &[text(1, TABLE)]);
            again.add_rules(ports);
            again.commit().map(|()| true)
        }
        outcome => outcome.map(|()| false),
    }
}
/// Removes them, if they are there; says whether they were.
pub(super) fn remove() -> io::Result<bool> {
    let there = is_there(GET_TABLE, &[text(1, TABLE)])?;
    if there {
        let mut batch = Batch::new();
        batch.remove_table();
        batch.commit()?;
    }
    Ok(there)
}

/// Whether there is a chain of ours that the newer iptables made, which keeps its rules in nftables.
pub(super) fn has_iptables_chain() -> io::Result<bool> {
    is_there(GET_CHAIN, &[text(1, "nat"), text(3, "PORTMAP_OUTPUT")])
}

fn is_there(kind: u16, attributes: &[Vec<u8>]) -> io::Result<bool> {
    let mut bytes = Vec::new();
    let head = Head { kind: NFTABLES << 8 | kind, flags: NLM_F_REQUEST, sequence: 1 };
    message(&mut bytes, head, FAMILY_IP, 0, &attributes.concat());
    match exchange(&bytes, 1) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        answer => answer.map(|()| true),
    }
}

/// Changes that are made all or none.
struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
}

struct Head {
    kind: u16,
    flags: u16,
    sequence: u32,
}

impl Batch {
    fn new() -> Self {
        let mut bytes = Vec::new();
        message(&mut bytes, Head { kind: BATCH_BEGIN, flags: NLM_F_REQUEST, sequence: 0 }, 0, NFTABLES, &[]);
        Self { bytes, sequence: 0 }
    }

    fn add(&mut self, kind: u16, flags: u16, attributes: &[Vec<u8>]) {
        self.sequence += 1;
        let head = Head { kind: NFTABLES << 8 | kind, flags, sequence: self.sequence };
        message(&mut self.bytes, head, FAMILY_IP, 0, &attributes.concat());
    }

    /// Only what is there can be deleted, so it is made first.
    fn remove_table(&mut self) {
        self.add(NEW_TABLE, CREATE, &[text(1, TABLE)]);
        self.add(DELETE_TABLE, CHANGE, &[text(1, TABLE)]);
    }

    fn add_chain(&mut self, name: &str, hook: u32, priority: i32) {
        let hook = nest(4, &[number(1, hook), attribute(2, &priority.to_be_bytes())]);
        self.add(NEW_CHAIN, CREATE, &[text(1, TABLE), text(3, name), hook, text(7, "nat")]);
    }

    fn add_rule(&mut self, chain: &str, expressions: &[Vec<u8>]) {
        self.add(NEW_RULE, APPEND, &[text(1, TABLE), text(2, chain), nest(4, expressions)]);
    }

    fn add_rules(&mut self, ports: NamePorts) {
        self.add_chain(DNAT, HOOK_OUTPUT, -100);
        self.add_chain(SNAT, HOOK_POSTROUTING, 100);
        let protocols = [(libc::IPPROTO_UDP, ports.udp), (libc::IPPROTO_TCP, ports.tcp)];
        let protocols = protocols.map(|(number, port)| (u8::try_from(number).unwrap_or_default(), port));
        for (proto, port) in protocols {
            self.add_rule(
                DNAT,
                &[
                    header(NETWORK_HEADER, DESTINATION_ADDRESS, &EMBEDDED.octets()),
                    protocol(proto),
                    header(TRANSPORT_HEADER, DESTINATION_PORT, &53_u16.to_be_bytes()),
                    counter(),
                    immediate(REGISTER, &EMBEDDED.octets()),
                    immediate(PORT_REGISTER, &port.to_be_bytes()),
                    nat(1, true),
                ],
            );
        }
        for (proto, port) in protocols {
            self.add_rule(
                SNAT,
                &[
                    header(NETWORK_HEADER, SOURCE_ADDRESS, &EMBEDDED.octets()),
                    protocol(proto),
                    header(TRANSPORT_HEADER, SOURCE_PORT, &port.to_be_bytes()),
                    counter(),
                    immediate(PORT_REGISTER, &53_u16.to_be_bytes()),
                    nat(0, false),
                ],
            );
        }
    }

    /// The calls to `add` are each acknowledged; the frame around them only if it is refused.
    fn commit(mut self) -> io::Result<()> {
        let end = Head { kind: BATCH_END, flags: NLM_F_REQUEST, sequence: self.sequence + 1 };
        message(&mut self.bytes, end, 0, NFTABLES, &[]);
        exchange(&self.bytes, self.sequence)
    }
}

/// Sends everything at once and waits for so many answers. The first refusal is the result.
fn exchange(bytes: &[u8], answers: u32) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(LIMIT, 0))?;
    socket.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
    let mut buffer = vec![0; 64 << 10];
    let mut waiting = answers;
    while waiting > 0 {
        let length = match recv(socket.as_fd().as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(nix::errno::Errno::EINTR) => continue,
            received => received?,
        };
        let mut rest = &buffer[..length];
        while let Some(header) = rest.first_chunk::<HEADER>() {
            let [a, b, c, d, kind_low, kind_high, ..] = *header;
            let whole = u32::from_ne_bytes([a, b, c, d]) as usize;
            let whole = rest.get(HEADER..whole).ok_or(io::ErrorKind::InvalidData)?.len() + HEADER;
            if u16::from_ne_bytes([kind_low, kind_high]) == NLMSG_ERROR {
                let code = rest[HEADER..whole].first_chunk::<4>().ok_or(io::ErrorKind::InvalidData)?;
                match i32::from_ne_bytes(*code) {
                    0 => {}
                    code => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
                }
            }
            waiting = waiting.saturating_sub(1);
            rest = rest.get(whole.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Ok(())
}

fn message(bytes: &mut Vec<u8>, head: Head, family: u8, resource: u16, attributes: &[u8]) {
    let length = u32::try_from(HEADER + 4 + attributes.len()).expect("a few attributes are short");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(head.kind.to_ne_bytes());
    bytes.extend(head.flags.to_ne_bytes());
    bytes.extend(head.sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("an attribute of a rule is short");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nest(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, &attributes.concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn expression(name: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    nest(1, &[text(1, name), nest(2, attributes)])
}

fn value(kind: u16, value: &[u8]) -> Vec<u8> {
    nest(kind, &[attribute(1, value)])
}

fn equals(wanted: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, 0), value(3, wanted)])
}

/// What a header has at `offset` is what is wanted.
fn header(base: u32, offset: u32, wanted: &[u8]) -> Vec<u8> {
    let length = u32::try_from(wanted.len()).expect("an address or a port");
    let load = [number(1, REGISTER), number(2, base), number(3, offset), number(4, length)];
    [expression("payload", &load), equals(wanted)].concat()
}

fn protocol(wanted: u8) -> Vec<u8> {
    [expression("meta", &[number(1, REGISTER), number(2, META_L4PROTO)]), equals(&[wanted])].concat()
}

fn counter() -> Vec<u8> {
    expression("counter", &[attribute(1, &[0; 8]), attribute(2, &[0; 8])])
}

fn immediate(register: u32, data: &[u8]) -> Vec<u8> {
    expression("immediate", &[number(1, register), value(2, data)])
}

/// To the registers' address and port, or to the port alone.
fn nat(kind: u32, address: bool) -> Vec<u8> {
    let mut attributes = vec![number(1, kind), number(2, u32::from(FAMILY_IP))];
    attributes.extend(address.then(|| number(3, REGISTER)));
    attributes.push(number(5, PORT_REGISTER));
    expression("nat", &attributes)
}
