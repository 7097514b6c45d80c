//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::AddressMessageBuilder;

use super::error::Refusal;
use super::netlink::{Request, Socket};

/// An interface's addresses, without the IPv6 link-local ones that the kernel gives it.
pub(super) fn list(socket: &mut Socket, index: u32) -> Result<Vec<IpNet>, Refusal> {
    let mut question = AddressMessage::default();
    question.header.index = index;
    let all = socket.dump(&RouteNetlinkMessage::GetAddress(question))?;
    let addresses = all.into_iter().filter_map(|message| match message {
        // A kernel without strict checking lists those of all interfaces.
        RouteNetlinkMessage::NewAddress(message) if message.header.index == index => read(&message),
        _ => None,
    });
    Ok(addresses.filter(|net| !is_link_local(net)).collect())
}

/// What leads from one set of addresses to another.
///
/// IPv6 addresses don't wait for duplicates to answer: they come out of our own books, and whoever starts in a sandbox
/// wants to bind them.
pub(super) fn change(index: u32, from: &[IpNet], to: &[IpNet]) -> Vec<Request> {
    let gone: Vec<&IpNet> = from.iter().filter(|net| !to.contains(net)).collect();
    // With an IPv4 subnet's first address its others go, too: none of those that stay is sure to be there afterwards.
    let shaken = gone.iter().any(|net| net.addr().is_ipv4());
    let new = to.iter().filter(|net| !from.contains(net) || shaken && net.addr().is_ipv4());
    // The last first: with a subnet's first address gone, its others might be before they are asked to.
    let removals = gone.iter().rev().map(|net| RouteNetlinkMessage::DelAddress(message(index, net)));
    let additions = new.map(|net| RouteNetlinkMessage::NewAddress(message(index, net)));
    removals.map(Request::change).chain(additions.map(Request::replace)).collect()
}

fn message(index: u32, net: &IpNet) -> AddressMessage {
    match net {
        IpNet::V4(net) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => {
            let mut message = AddressMessageBuilder::<std::net::Ipv6Addr>::new()
                .index(index)
                .address(net.addr(), net.prefix_len())
                .build();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message
        }
    }
}

/// The local address. On a point-to-point interface the other attribute is the far end's.
fn read(message: &AddressMessage) -> Option<IpNet> {
    let (mut local, mut other): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            _ => {}
        }
    }
    IpNet::new(local.or(other)?, message.header.prefix_len).ok()
}

fn is_link_local(net: &IpNet) -> bool {
    matches!(net.addr(), IpAddr::V6(address) if address.is_unicast_link_local())
}
