//! Interfaces as route netlink shows them.
//!
//! One is looked up by its name, never by listing: what that costs grows with the number of interfaces.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, State,
};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::error::Refusal;
use super::netlink::{Request, Socket};
use crate::model::IfName;

/// An interface.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) alias: Option<String>,
    pub(super) mtu: u32,
    pub(super) mac: Vec<u8>,
    pub(super) up: bool,
    /// The group that it was put in.
    pub(super) group: u32,
    /// The bridge it is a port of.
    pub(super) master: Option<u32>,
    /// A veth's other end, by its number in its own namespace.
    pub(super) peer: Option<u32>,
    /// Whether the bridge sends back to it what came from it.
    pub(super) hairpin: bool,
    /// Whether packets don't pass it yet, or no longer: it isn't operational, or a port that its bridge has disabled.
    pub(super) is_down: bool,
    /// A bridge's `nf_call_iptables` and `nf_call_ip6tables`; `None` where the kernel doesn't say.
    pub(super) filtered: [Option<bool>; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    Bridge,
    Veth,
    #[default]
    Other,
}

/// The interface of that name.
pub(super) fn find(socket: &mut Socket, name: &IfName) -> Result<Option<Link>, Refusal> {
    let question = without_counters(LinkUnspec::new_with_name(name.as_str()));
    match socket.get(RouteNetlinkMessage::GetLink(question)) {
        Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(read(message))),
        Ok(_) => Ok(None),
        Err(refusal) if refusal.is(Errno::ENODEV) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// All interfaces.
pub(super) fn list(socket: &mut Socket) -> Result<Vec<Link>, Refusal> {
    let all = socket.dump(&RouteNetlinkMessage::GetLink(without_counters(LinkUnspec::new_with_index(0))))?;
    Ok(all
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(read(link)),
            _ => None,
        })
        .collect())
}

/// Removes an interface; a veth's other end goes with it.
pub(super) fn remove(index: u32) -> Request {
    Request::change(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build()))
}

/// Changes an interface. Not `RTM_SETLINK`, which silently ignores what belongs to a kind of interface.
pub(super) fn change(message: LinkMessage) -> Request {
    Request::change(RouteNetlinkMessage::NewLink(message))
}

fn without_counters(question: LinkMessageBuilder<LinkUnspec>) -> LinkMessage {
    question.append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])).build()
}

fn read(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::Address(address) => link.mac = address,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::OperState(state) => {
                // A bridge on which nothing ever changed is of unknown state, and works.
                link.is_down |= matches!(state, State::Down | State::LowerLayerDown | State::NotPresent);
            }
            LinkAttribute::Link(index) => link.peer = Some(index),
            LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|info| read_info(&mut link, info)),
            _ => {}
        }
    }
    link
}

fn read_info(link: &mut Link, info: LinkInfo) {
    match info {
        LinkInfo::Kind(InfoKind::Bridge) => link.kind = Kind::Bridge,
        LinkInfo::Kind(InfoKind::Veth) => link.kind = Kind::Veth,
        LinkInfo::Data(InfoData::Bridge(settings)) => {
            for setting in settings {
                match setting {
                    InfoBridge::NfCallIpTables(on) => link.filtered[0] = Some(on),
                    InfoBridge::NfCallIp6Tables(on) => link.filtered[1] = Some(on),
                    _ => {}
                }
            }
        }
        LinkInfo::PortData(InfoPortData::BridgePort(settings)) => {
            link.hairpin = settings.contains(&InfoBridgePort::HairpinMode(true));
            link.is_down |= settings.contains(&InfoBridgePort::State(BridgePortState::Disabled));
        }
        _ => {}
    }
}
