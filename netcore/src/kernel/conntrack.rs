//! Connection tracking: makes the kernel forget flows, so that their next packet meets the firewall's rules of today.
//!
//! Address translation is decided by a flow's first packet only. Where a UDP client keeps its port, its flow would go on as
//! it began for as long as it sends: past a port published since, or to a sandbox whose port is no longer published.
//!
//! A flow is recognised by where its first packet went, before any translation: the *host's* address and port. Two flows
//! to other places may share the sandbox's port, and one to this place never shows it.
//!
//! The kernel is asked for one protocol at a time, and, where all that is looked for shares them, one family, port and
//! address; kernels before 5.8 ignore such a filter, and what comes is compared here anyway. Each flow is deleted by
//! its full tuple and number. A deletion without a tuple would empty the whole table: none is ever sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable, Nla};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;

use super::KernelError;
use super::error::Refusal;
use super::netlink::{Request, Socket};
use crate::publish::{PortRange, Proto};

/// What an error is about.
const OBJECT: &str = "tracked connections";
/// Deletions that are sent at once. Their answers must fit into the socket's buffer, some 200 kB in the kernel's counting.
const BATCH: usize = 64;
/// Asks for flows: `IPCTNL_MSG_CT_GET`.
const GET: u8 = 1;
/// The tuple of a flow's first packet: `CTA_TUPLE_ORIG`.
const ORIGINAL: u16 = 1;
/// What says of a flow's tuple which parts of it a listing is filtered by: `CTA_FILTER` in `nfnetlink_conntrack.h`.
const FILTER: u16 = 25;
/// The filter's part about the tuple of the first packet: `CTA_FILTER_ORIG_FLAGS`.
const FILTER_ORIGINAL: u16 = 1;
/// An attribute that holds others.
const NESTED: u16 = 1 << 15;
/// Filter by destination address: `CTA_FILTER_F_CTA_IP_DST` in `nf_internals.h`.
const BY_ADDRESS: u32 = 1 << 1;
/// Filter by protocol: `CTA_FILTER_F_CTA_PROTO_NUM`.
const BY_PROTOCOL: u32 = 1 << 3;
/// Filter by destination port: `CTA_FILTER_F_CTA_PROTO_DST_PORT`.
const BY_PORT: u32 = 1 << 5;
/// A flow's number: `CTA_ID`.
const ID: u16 = 12;
/// The zone in which its tuple is unique: `CTA_ZONE`.
const ZONE: u16 = 18;

/// Which flows to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Protocol.
    pub proto: Proto,
    /// Where the first packet went. The unspecified address stands for all addresses of its family that are the host's,
    /// and for those that were translated: a flow that only passes through to a port of that number elsewhere is spared.
    pub host_ip: IpAddr,
    /// To which ports of it.
    pub host: PortRange,
    /// Only flows that are answered from this address: the sandbox's, after translation.
    pub target: Option<IpAddr>,
}

/// Makes the kernel forget flows in the calling thread's network namespace; returns how many. Where it tracks none, there
/// are none.
///
/// # Errors
/// If it won't list or delete them. Then some of them may be gone.
pub fn forget_flows(flows: &[Flow]) -> Result<usize, KernelError> {
    if flows.is_empty() {
        return Ok(0);
    }
    let mut socket = match Socket::<NetfilterMessage>::open() {
        Ok(socket) => socket,
        Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => return Ok(0),
        Err(error) => return Err(Refusal::from(error).about("list", OBJECT)),
    };
    let local = local_addresses().map_err(|errno| Refusal::from(errno).about("list", "addresses"))?;
    let mut forgotten = 0;
    for question in questions(flows) {
        let found = question.ask(&mut socket, &local).map_err(|refusal| refusal.about("list", OBJECT))?;
        let mut deletions = found.into_iter().map(|seen| Request::change(seen.deletion()));
        loop {
            let batch: Vec<_> = deletions.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let sent = batch.len();
            let refused = socket.outcomes(batch).map_err(|refusal| refusal.about("forget", OBJECT))?;
            forgotten += sent - refused.len();
            // One that ended by itself meanwhile is as good.
            if let Some(refusal) = refused.into_iter().find(|refusal| !refusal.is(Errno::ENOENT)) {
                return Err(refusal.about("forget", OBJECT));
            }
        }
    }
    Ok(forgotten)
}

/// One listing, and what of it is meant.
struct Question<'a> {
    family: NetfilterProtoFamily,
    proto: Proto,
    /// The port they have in common.
    port: Option<u16>,
    /// The address they have in common.
    address: Option<IpAddr>,
    flows: Vec<&'a Flow>,
}

/// A listing per protocol. Each walks the whole table, so that one for each family, let alone flow, would cost more than
/// what it spares.
fn questions(flows: &[Flow]) -> Vec<Question<'_>> {
    let mut grouped: BTreeMap<Proto, Vec<&Flow>> = BTreeMap::new();
    for flow in flows {
        grouped.entry(flow.proto).or_default().push(flow);
    }
    grouped.into_iter().map(|(proto, flows)| Question::new(proto, flows)).collect()
}

impl<'a> Question<'a> {
    fn new(proto: Proto, flows: Vec<&'a Flow>) -> Self {
        let family = match common(&flows, |flow| Some(flow.host_ip.is_ipv6())) {
            Some(true) => NetfilterProtoFamily::IPv6,
            Some(false) => NetfilterProtoFamily::IPv4,
            None => NetfilterProtoFamily::Unspec,
        };
        let (port, address) = (common(&flows, Flow::port), common(&flows, Flow::address));
        Self { family, proto, port, address, flows }
    }

    fn ask(
        &self,
        socket: &mut Socket<NetfilterMessage>,
        local: &BTreeSet<IpAddr>,
    ) -> Result<Vec<Seen>, Refusal> {
        let mut found = Vec::new();
        let mut keep = |message: NetfilterMessage| {
            let seen = Seen::read(message);
            found.extend(seen.filter(|seen| self.flows.iter().any(|flow| flow.is(seen, local))));
        };
        match socket.visit(self.message(true), &mut keep) {
            Err(refusal) if refusal.is(Errno::EINVAL) || refusal.is(Errno::EOPNOTSUPP) => {}
            outcome => return outcome.map(|_| found),
        }
        match socket.visit(self.message(false), &mut keep) {
            // Netfilter is there, but nothing in it that tracks connections.
            Err(refusal) if refusal.is(Errno::EINVAL) => Ok(Vec::new()),
            outcome => outcome.map(|_| found),
        }
    }

    fn message(&self, filtered: bool) -> NetfilterMessage {
        if !filtered {
            return message(self.family, ConntrackMessage::Get(Vec::new()));
        }
        let mut by = BY_PROTOCOL;
        let mut proto = vec![ProtoTuple::Protocol(number(self.proto))];
        let mut tuple = Vec::new();
        if let Some(port) = self.port {
            by |= BY_PORT;
            proto.push(ProtoTuple::DestinationPort(port));
        }
        if let Some(address @ IpAddr::V4(_)) = self.address {
            // Not IPv6's: there kernels to this day (6.18) pass over exactly the address that is asked for.
            by |= BY_ADDRESS;
            tuple.push(Tuple::Ip(vec![IPTuple::DestinationAddress(address)]));
        }
        tuple.push(Tuple::Proto(proto));
        // As plain attributes: those of conntrack's own kind know no filter, and would drop its flag that says it is nested.
        let by = DefaultNla::new(FILTER_ORIGINAL, by.to_ne_bytes().to_vec());
        let attributes = vec![
            DefaultNla::new(ORIGINAL | NESTED, bytes(&tuple[..])),
            DefaultNla::new(FILTER | NESTED, bytes(&[by][..])),
        ];
        message(self.family, ConntrackMessage::Other { message_type: GET, attributes })
    }
}

/// A flow the kernel told of.
struct Seen {
    family: NetfilterProtoFamily,
    proto: Protocol,
    to: IpAddr,
    port: u16,
    answered_from: IpAddr,
    tuple: Vec<Tuple>,
    /// Number and zone, as they came.
    identity: Vec<DefaultNla>,
}

impl Seen {
    /// `None` if a part is missing without which it can't be told from others.
    fn read(message: NetfilterMessage) -> Option<Self> {
        let family = message.header.family;
        let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else {
            return None;
        };
        let (mut original, mut reply, mut identity) = (None, None, Vec::new());
        for attribute in attributes {
            match attribute {
                ConntrackAttribute::CtaTupleOrig(tuple) => original = Some(tuple),
                ConntrackAttribute::CtaTupleReply(tuple) => reply = Some(tuple),
                ConntrackAttribute::Other(nla) if matches!(nla.kind(), ID | ZONE) => identity.push(nla),
                _ => {}
            }
        }
        let (tuple, reply) = (original?, reply?);
        let answered_from = addresses(&reply).find_map(|address| match address {
            IPTuple::SourceAddress(address) => Some(*address),
            _ => None,
        })?;
        let to = addresses(&tuple).find_map(|address| match address {
            IPTuple::DestinationAddress(address) => Some(*address),
            _ => None,
        })?;
        let proto = ports(&tuple).find_map(|part| match part {
            ProtoTuple::Protocol(number) => Some(*number),
            _ => None,
        })?;
        let port = ports(&tuple).find_map(|part| match part {
            ProtoTuple::DestinationPort(number) => Some(*number),
            _ => None,
        })?;
        Some(Self { family, proto, to, port, answered_from, tuple, identity })
    }

    fn deletion(self) -> NetfilterMessage {
        let identity = self.identity.into_iter().map(ConntrackAttribute::Other);
        let attributes = [ConntrackAttribute::CtaTupleOrig(self.tuple)].into_iter().chain(identity);
        message(self.family, ConntrackMessage::Delete(attributes.collect()))
    }
}

impl Flow {
    fn port(&self) -> Option<u16> {
        self.host.is_single().then(|| self.host.first())
    }

    fn address(&self) -> Option<IpAddr> {
        (!self.host_ip.is_unspecified()).then_some(self.host_ip)
    }

    fn is(&self, seen: &Seen, local: &BTreeSet<IpAddr>) -> bool {
        let ours = || seen.to.is_loopback() || local.contains(&seen.to) || seen.answered_from != seen.to;
        seen.proto == number(self.proto)
            && self.host.contains(seen.port)
            && self.host_ip.is_ipv6() == seen.to.is_ipv6()
            && self.target.is_none_or(|target| seen.answered_from == target)
            && if self.host_ip.is_unspecified() { ours() } else { self.host_ip == seen.to }
    }
}

/// What all flows have, if they have the same.
fn common<T: PartialEq>(flows: &[&Flow], part: impl Fn(&Flow) -> Option<T>) -> Option<T> {
    let first = part(flows.first()?)?;
    flows.iter().all(|flow| part(flow).as_ref() == Some(&first)).then_some(first)
}

fn bytes(attribute: impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

fn message(family: NetfilterProtoFamily, inner: ConntrackMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

fn addresses(tuple: &[Tuple]) -> impl Iterator<Item = &IPTuple> {
    tuple.iter().flat_map(|tuple| if let Tuple::Ip(parts) = tuple { &parts[..] } else { &[] })
}

fn ports(tuple: &[Tuple]) -> impl Iterator<Item = &ProtoTuple> {
    tuple.iter().flat_map(|tuple| if let Tuple::Proto(parts) = tuple { &parts[..] } else { &[] })
}

const fn number(proto: Proto) -> Protocol {
    match proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
        Proto::Sctp => Protocol::Sctp,
    }
}

/// The addresses of the host's interfaces, in the calling thread's namespace.
fn local_addresses() -> Result<BTreeSet<IpAddr>, Errno> {
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|socket| IpAddr::V4(socket.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|socket| IpAddr::V6(socket.ip())))
    };
    Ok(getifaddrs()?.filter_map(|interface| interface.address.and_then(address)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(proto: Proto, host_ip: &str, first: u16, last: u16) -> Flow {
        let host = PortRange::new(first, last).unwrap();
        Flow { proto, host_ip: host_ip.parse().unwrap(), host, target: None }
    }

    #[test]
    fn what_flows_have_in_common_is_left_to_the_kernel() {
        let asked = |flows: &[Flow]| {
            let question = |q: &Question<'_>| (u8::from(q.family), q.proto, q.port, q.address, q.flows.len());
            questions(flows).iter().map(question).collect::<Vec<_>>()
        };
        let [any, one, far] = ["0.0.0.0", "127.0.0.1", "127.0.0.2"];
        let local = Some(one.parse().unwrap());
        assert_eq!(asked(&[]), []);
        assert_eq!(asked(&[flow(Proto::Udp, any, 53, 53)]), [(2, Proto::Udp, Some(53), None, 1)]);
        assert_eq!(asked(&[flow(Proto::Udp, one, 53, 54)]), [(2, Proto::Udp, None, local, 1)]);
        assert_eq!(
            asked(&[flow(Proto::Udp, one, 53, 53), flow(Proto::Udp, far, 53, 53)]),
            [(2, Proto::Udp, Some(53), None, 2)]
        );
        assert_eq!(
            asked(&[flow(Proto::Udp, one, 53, 53), flow(Proto::Udp, one, 54, 54)]),
            [(2, Proto::Udp, None, local, 2)]
        );
        assert_eq!(
            asked(&[
                flow(Proto::Udp, "::", 53, 53),
                flow(Proto::Tcp, one, 1, 9),
                flow(Proto::Udp, any, 53, 53)
            ]),
            [(2, Proto::Tcp, None, local, 1), (0, Proto::Udp, Some(53), None, 2)]
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_question_is_filtered_as_the_kernel_wants_it() {
        let flows = [flow(Proto::Udp, "127.0.0.1", 53, 53)];
        let message = questions(&flows)[0].message(true);
        let mut written = vec![0; netlink_packet_core::NetlinkSerializable::buffer_len(&message)];
        netlink_packet_core::NetlinkSerializable::serialize(&message, &mut written);
        let ip = [&[12, 0, 1, 0x80][..], &[8, 0, 2, 0, 127, 0, 0, 1]].concat();
        let proto = [&[20, 0, 2, 0x80][..], &[5, 0, 1, 0, 17, 0, 0, 0], &[6, 0, 3, 0, 0, 53, 0, 0]].concat();
        let filter = [&[12, 0, 25, 0x80][..], &[8, 0, 1, 0], &[0b10_1010, 0, 0, 0]].concat();
        assert_eq!(written, [&[2, 0, 0, 0, 36, 0, 1, 0x80][..], &ip, &proto, &filter].concat());
    }

    #[test]
    fn only_what_was_meant_for_the_hosts_port_is_forgotten() {
        let local = BTreeSet::from(["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()]);
        let seen = |proto, to: &str, port, from: &str| Seen {
            family: NetfilterProtoFamily::IPv4,
            proto,
            to: to.parse().unwrap(),
            port,
            answered_from: from.parse().unwrap(),
            tuple: Vec::new(),
            identity: Vec::new(),
        };
        let any = flow(Proto::Udp, "0.0.0.0", 5000, 5009);
        let exact = flow(Proto::Udp, "192.0.2.1", 5000, 5000);
        let to_a = Flow { target: Some("172.20.0.2".parse().unwrap()), ..any };
        let any_v6 = flow(Proto::Udp, "::", 5000, 5000);
        let mapped = |to: &str| seen(Protocol::Udp, to, 5000, "172.20.0.2");
        let plain = |to: &str| seen(Protocol::Udp, to, 5000, to);
        let cases = [
            ("translated", mapped("192.0.2.1"), [true, true, true, false]),
            ("translated, of an address that is gone", mapped("192.0.2.99"), [true, false, true, false]),
            ("to a process of the host's", plain("192.0.2.1"), [true, true, false, false]),
            ("on loopback", plain("127.0.0.2"), [true, false, false, false]),
            ("passing through", plain("198.51.100.1"), [false, false, false, false]),
            ("to another port", seen(Protocol::Udp, "192.0.2.1", 80, "172.20.0.2"), [false; 4]),
            ("of another protocol", seen(Protocol::Tcp, "192.0.2.1", 5000, "172.20.0.2"), [false; 4]),
            (
                "of a range's end",
                seen(Protocol::Udp, "192.0.2.1", 5009, "172.20.0.3"),
                [true, false, false, false],
            ),
            ("of IPv6", seen(Protocol::Udp, "fd00::1", 5000, "fd00::1"), [false, false, false, true]),
        ];
        for (name, seen, want) in cases {
            let got = [any, exact, to_a, any_v6].map(|flow| flow.is(&seen, &local));
            assert_eq!(got, want, "{name}");
        }
    }
}
