//! Endpoints: a pair of interfaces, one on the bridge, one in the sandbox.
//!
//! The pair is made in one request, the sandbox's end directly in its namespace, with its name and hardware address: it
//! never shows up anywhere else, and nothing has to be moved or renamed.

use std::fs::File;
use std::os::fd::AsRawFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoPortKind, InfoVeth, LinkAttribute, LinkMessage,
};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::bridge::gone;
use super::error::Refusal;
use super::host::Work;
use super::link::{Kind, Link};
use super::netlink::{Request, Socket};
use super::{HostKernel, KernelError, address, link, netns, sysctl};
use crate::model::options::IPV6_MINIMUM_MTU;
use crate::plan::Veth;

/// Which sandbox's end is the right one: none is known yet, or the other half of this host's end.
#[derive(Clone, Copy)]
enum Expected<'a> {
    JustMade,
    HalfOf(&'a Link),
}

/// Makes it be there, like this.
pub(super) fn ensure(kernel: &HostKernel, veth: &Veth) -> Result<(), KernelError> {
    let work = kernel.work(format!("veth {}", veth.host));
    let namespace = kernel.namespace(&work, &veth.namespace)?;
    let bridge = work
        .run("find the bridge of", || link::find(&mut kernel.socket(), &veth.bridge))?
        .filter(|link| link.kind == Kind::Bridge)
        .ok_or_else(|| KernelError::NoBridge { veth: veth.host.clone(), bridge: veth.bridge.clone() })?;
    if let Some(found) = work.run("find", || link::find(&mut kernel.socket(), &veth.host))? {
        if !is_ours(kernel, &found) {
            return Err(KernelError::Taken(veth.host.clone()));
        }
        if inside(&work, veth, &namespace, Expected::HalfOf(&found))? {
            return attach(&work, veth, &found, bridge.index);
        }
        // Left behind by something else: its other half is in another namespace, or has another name.
        work.run("remove a leftover of", || gone(kernel.socket().batch(vec![link::remove(found.index)])))?;
    }
    create(&work, veth, &namespace, bridge.index)?;
    let done = inside(&work, veth, &namespace, Expected::JustMade).map(drop);
    if done.is_err() {
        undo(kernel, veth);
    }
    done
}

/// Makes it be gone, if it is ours.
pub(super) fn remove(kernel: &HostKernel, veth: &Veth) -> Result<(), KernelError> {
    let work = kernel.work(format!("veth {}", veth.host));
    match work.run("find", || link::find(&mut kernel.socket(), &veth.host))? {
        Some(link) if is_ours(kernel, &link) => {
            work.run("remove", || gone(kernel.socket().batch(vec![link::remove(link.index)])))
        }
        _ => Ok(()),
    }
}

fn is_ours(kernel: &HostKernel, link: &Link) -> bool {
    let marked = link.alias.as_deref().is_some_and(|alias| alias.starts_with(&kernel.alias_prefix()));
    link.kind == Kind::Veth && marked
}

fn alias(kernel: &HostKernel, veth: &Veth) -> String {
    format!("{}{}", kernel.alias_prefix(), veth.endpoint)
}

fn create(work: &Work<'_>, veth: &Veth, namespace: &File, bridge: u32) -> Result<(), KernelError> {
    let kernel = work.kernel;
    let peer = LinkUnspec::new_with_name(veth.name.as_str())
        .address(veth.mac.octets().to_vec())
        .setns_by_fd(namespace.as_raw_fd());
    let host = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(veth.host.as_str())
        .controller(bridge)
        .up();
    let (peer, host) = match veth.mtu.map(u32::from) {
        Some(mtu) => (peer.mtu(mtu), host.mtu(mtu)),
        None => (peer, host),
    };
    let host = host.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
    // The kernel takes no alias for what it is about to make. In one batch, so that no crash comes in between; under the
    // name, which nobody else has: it is random, and was free a moment ago.
    let port = port(kernel, veth, LinkUnspec::new_with_name(veth.host.as_str()));
    let both = vec![Request::create(RouteNetlinkMessage::NewLink(host)), link::change(port)];
    match work.try_run("create", || kernel.socket().batch(both)) {
        Ok(()) => Ok(()),
        Err(refusal) if refusal.at > 0 => {
            undo(kernel, veth);
            Err(work.failed("configure", refusal))
        }
        Err(refusal) if refusal.is(Errno::EEXIST) => Err(taken(kernel, veth)),
        Err(refusal) if refusal.is(Errno::EXFULL) => {
            Err(KernelError::BridgeFull { veth: veth.host.clone(), bridge: veth.bridge.clone() })
        }
        Err(refusal) => Err(work.failed("create", refusal)),
    }
}

/// Which of the two names is taken.
fn taken(kernel: &HostKernel, veth: &Veth) -> KernelError {
    match link::find(&mut kernel.socket(), &veth.host) {
        Ok(Some(_)) => KernelError::Taken(veth.host.clone()),
        _ => KernelError::TakenInside { name: veth.name.clone(), namespace: veth.namespace.clone() },
    }
}

/// What the host's end is as a port of the bridge.
fn port(kernel: &HostKernel, veth: &Veth, to: LinkMessageBuilder<LinkUnspec>) -> LinkMessage {
    let settings = vec![InfoBridgePort::HairpinMode(veth.hairpin)];
    let message = to
        .alias(alias(kernel, veth))
        .set_port_kind(InfoPortKind::Bridge)
        .set_port_data(InfoPortData::BridgePort(settings));
    if !kernel.ipv6 || is_too_small(veth) {
        return message.build();
    }
    // A port needs no address of its own, and each would join multicast groups.
    let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    message.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none])).build()
}

/// Gives the host's end what it lacks.
fn attach(work: &Work<'_>, veth: &Veth, found: &Link, bridge: u32) -> Result<(), KernelError> {
    let kernel = work.kernel;
    let mut requests = Vec::new();
    let mut message = LinkUnspec::new_with_index(found.index);
    let mtu = veth.mtu.map(u32::from).filter(|mtu| *mtu != found.mtu);
    if let Some(mtu) = mtu {
        message = message.mtu(mtu);
    }
    let joins = found.master != Some(bridge);
    if joins {
        message = message.controller(bridge);
    }
    if mtu.is_some() || joins || !found.up {
        requests.push(link::change(message.up().build()));
    }
    if joins || found.hairpin != veth.hairpin || found.alias.as_deref() != Some(&alias(kernel, veth)) {
        requests.push(link::change(port(kernel, veth, LinkUnspec::new_with_index(found.index))));
    }
    if requests.is_empty() {
        return Ok(());
    }
    work.run("configure", || kernel.socket().batch(requests))
}

/// Gives the sandbox's end what it lacks. False: there is no such end.
fn inside(
    work: &Work<'_>,
    veth: &Veth,
    namespace: &File,
    expected: Expected<'_>,
) -> Result<bool, KernelError> {
    let configure = || -> Result<bool, KernelError> {
        let mut socket = work.run("enter the namespace of", Socket::open)?;
        let found = work.run("find the inner end of", || link::find(&mut socket, &veth.name))?;
        let link = match (found, expected) {
            (Some(link), Expected::JustMade) => link,
            (None, Expected::JustMade) => {
                return Err(work.failed("find the inner end of", Errno::ENODEV.into()));
            }
            (Some(link), Expected::HalfOf(host)) if are_a_pair(host, &link) => link,
            (_, Expected::HalfOf(_)) => return Ok(false),
        };
        let settings = work.kernel.procfs.get();
        let ipv6 = veth.addresses.iter().any(|net| net.addr().is_ipv6());
        if work.kernel.ipv6 && (ipv6 || !is_too_small(veth)) {
            let off = if ipv6 { "0" } else { "1" };
            let path = settings.setting(&format!("net/ipv6/conf/{}/disable_ipv6", veth.name));
            // No look before a first write.
            let set = match expected {
                Expected::JustMade => sysctl::write,
                Expected::HalfOf(_) => sysctl::ensure,
            };
            work.run("set IPv6 of", || path.map_or(Ok(()), |path| set(&path, off)))?;
        }
        for wanted in &veth.sysctls {
            let path =
                settings.setting(&wanted.key).ok_or_else(|| KernelError::BadSysctl(wanted.key.clone()))?;
            work.run("set sysctls of", || sysctl::ensure(&path, &wanted.value))?;
        }
        // Only now: with IPv6 turned off its addresses are gone.
        let addresses = match expected {
            Expected::JustMade => vec![],
            Expected::HalfOf(_) => {
                work.run("list the addresses of", || address::list(&mut socket, link.index))?
            }
        };
        let mut requests: Vec<Request> = inner_settings(veth, &link).into_iter().collect();
        requests.extend(address::change(link.index, &addresses, &veth.addresses));
        if !requests.is_empty() {
            work.run("configure the inner end of", || socket.batch(requests))?;
        }
        Ok(true)
    };
    let entered = netns::inside(namespace, configure);
    entered.map_err(|error| work.failed("enter the namespace of", error.into()))?
}

/// Whether the kernel takes IPv6 away from both ends, with all settings of it.
fn is_too_small(veth: &Veth) -> bool {
    veth.mtu.is_some_and(|mtu| mtu < IPV6_MINIMUM_MTU)
}

fn are_a_pair(host: &Link, inner: &Link) -> bool {
    inner.kind == Kind::Veth && host.peer == Some(inner.index) && inner.peer == Some(host.index)
}

fn inner_settings(veth: &Veth, link: &Link) -> Option<Request> {
    let mut message = LinkUnspec::new_with_index(link.index);
    let mtu = veth.mtu.map(u32::from).filter(|mtu| *mtu != link.mtu);
    if let Some(mtu) = mtu {
        message = message.mtu(mtu);
    }
    let other_mac = link.mac != veth.mac.octets();
    if other_mac {
        message = message.address(veth.mac.octets().to_vec());
    }
    (mtu.is_some() || other_mac || !link.up).then(|| link::change(message.up().build()))
}

fn undo(kernel: &HostKernel, veth: &Veth) {
    let mut socket = kernel.socket();
    let removed: Result<(), Refusal> = link::find(&mut socket, &veth.host).and_then(|found| {
        // Just made by us, with or without its alias.
        found.map_or(Ok(()), |link| gone(socket.batch(vec![link::remove(link.index)])))
    });
    if let Err(refusal) = removed {
        tracing::warn!(veth = %veth.host, error = %refusal.reason, "half-made veth left behind");
    }
}
