//! Bridges of networks.
//!
//! A bridge that we make has our alias, and all of it is ours: it gets exactly the addresses it should have, and goes when
//! nobody needs it. A bridge without our alias is somebody else's, whatever the plan thinks: it gets what it lacks and
//! keeps what it has.
//!
//! The kernel takes no alias for a bridge that it is about to make, but an interface group. Ours begins in one that nobody
//! else would choose, until it has its alias: so what a crash in between leaves is known for ours.

use std::path::Path;
use std::process::{Command, Stdio};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute};
use nix::errno::Errno;
use rtnetlink::{LinkBridge, LinkMessageBuilder};

use super::error::Refusal;
use super::host::Work;
use super::link::{Kind, Link};
use super::netlink::Request;
use super::{HostKernel, KernelError, address, link};
use crate::model::options::IPV6_MINIMUM_MTU;
use crate::plan::Bridge;

/// What br_netfilter brings into each namespace.
const BRIDGE_NETFILTER: &str = "/proc/sys/net/bridge";

/// Makes it be there, like this.
pub(super) fn ensure(kernel: &HostKernel, bridge: &Bridge) -> Result<(), KernelError> {
    let work = kernel.work(format!("bridge {}", bridge.name));
    let found = work.run("find", || link::find(&mut kernel.socket(), &bridge.name))?;
    match found {
        Some(link) if link.kind != Kind::Bridge => Err(KernelError::NotABridge(bridge.name.clone())),
        Some(link) => adjust(&work, bridge, &link, is_half_made(kernel, &link)),
        None => create(&work, bridge),
    }
}

/// Makes it be gone, if it is ours.
pub(super) fn remove(kernel: &HostKernel, bridge: &Bridge) -> Result<(), KernelError> {
    let work = kernel.work(format!("bridge {}", bridge.name));
    match work.run("find", || link::find(&mut kernel.socket(), &bridge.name))? {
        // What is somebody else's stays, but not as a way to the host's loopback addresses.
        Some(link) if bridge.adopted && bridge.route_localnet && link.kind == Kind::Bridge => {
            kernel.set(&work, &route_localnet(bridge), "0")
        }
        Some(link) if !bridge.adopted && link.kind == Kind::Bridge && is_ours(kernel, &link) => {
            work.run("remove", || gone(kernel.socket().batch(vec![link::remove(link.index)])))
        }
        _ => Ok(()),
    }
}

/// That it was gone already is as good.
pub(super) fn gone(outcome: Result<(), Refusal>) -> Result<(), Refusal> {
    match outcome {
        Err(refusal) if refusal.is(Errno::ENODEV) => Ok(()),
        outcome => outcome,
    }
}

fn is_ours(kernel: &HostKernel, link: &Link) -> bool {
    match link.alias.as_deref() {
        Some(alias) => alias.starts_with(&kernel.alias_prefix()),
        None => is_half_made(kernel, link),
    }
}

/// Whether it is one of ours that hasn't got its alias yet.
pub(super) fn is_half_made(kernel: &HostKernel, link: &Link) -> bool {
    let unmarked = link.kind == Kind::Bridge && link.alias.is_none();
    unmarked && link.group == first_group(&kernel.alias_prefix(), &link.name)
}

/// The group of a bridge until it has its alias: a number out of that (FNV-1a), but not 0, in which everything is.
fn first_group(prefix: &str, name: &str) -> u32 {
    let bytes = prefix.bytes().chain(name.bytes());
    bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)) | 1
}

fn create(work: &Work<'_>, bridge: &Bridge) -> Result<(), KernelError> {
    let kernel = work.kernel;
    let group = first_group(&kernel.alias_prefix(), bridge.name.as_str());
    let message =
        LinkBridge::new(bridge.name.as_str()).append_extra_attribute(LinkAttribute::Group(group)).build();
    let request = Request::create(RouteNetlinkMessage::NewLink(message));
    work.run("create", || kernel.socket().batch(vec![request]))?;
    // The alias follows under the number of what was made here: under its name it could hit what somebody else made.
    let mut made = None;
    let done = work.run("find", || link::find(&mut kernel.socket(), &bridge.name)).and_then(|link| {
        let link = made.insert(link.ok_or_else(|| work.failed("find", Errno::ENODEV.into()))?);
        adjust(work, bridge, link, true)
    });
    if done.is_err() {
        let found =
            made.map_or_else(|| link::find(&mut kernel.socket(), &bridge.name), |link| Ok(Some(link)));
        if let Ok(Some(link)) = found {
            let _ = kernel.socket().batch(vec![link::remove(link.index)]);
        }
    }
    done
}

fn adjust(work: &Work<'_>, bridge: &Bridge, link: &Link, fresh: bool) -> Result<(), KernelError> {
    let kernel = work.kernel;
    let ours = fresh || !bridge.adopted && is_ours(kernel, link);
    // One that is as small as a port of it has no IPv6 any more, nor settings of it.
    let too_small = !bridge.ipv6 && link.mtu < u32::from(IPV6_MINIMUM_MTU);
    if kernel.ipv6 && (ours || bridge.ipv6) && !too_small {
        // Before addresses: with IPv6 off it takes none.
        let conf = format!("net/ipv6/conf/{}", bridge.name);
        kernel.set(work, &format!("{conf}/disable_ipv6"), if bridge.ipv6 { "0" } else { "1" })?;
        if ours {
            kernel.set(work, &format!("{conf}/accept_ra"), "0")?;
        }
    }
    kernel.set(work, &route_localnet(bridge), if bridge.route_localnet { "1" } else { "0" })?;
    if bridge.filtered && !kernel.at_home_run(work, "filter", has_bridge_netfilter)? {
        return Err(KernelError::NoBridgeNetfilter(bridge.name.clone()));
    }
    let mut requests: Vec<Request> = settings(kernel, bridge, link, ours, fresh).into_iter().collect();
    let present = if fresh {
        vec![]
    } else {
        work.run("list the addresses of", || address::list(&mut kernel.socket(), link.index))?
    };
    let mut wanted = bridge.addresses.clone();
    if !ours {
        wanted.extend(&present);
    }
    requests.extend(address::change(link.index, &present, &wanted));
    if requests.is_empty() {
        return Ok(());
    }
    work.run("configure", || kernel.socket().batch(requests))
}

fn route_localnet(bridge: &Bridge) -> String {
    format!("net/ipv4/conf/{}/route_localnet", bridge.name)
}

/// What differs of the device itself.
fn settings(kernel: &HostKernel, bridge: &Bridge, link: &Link, ours: bool, fresh: bool) -> Option<Request> {
    let mut message =
        LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge).index(link.index);
    let mut differs = false;
    if fresh {
        // Its own random address, set: one that isn't set follows the ports.
        message = message
            .alias(format!("{}{}", kernel.alias_prefix(), bridge.name))
            .address(link.mac.clone())
            .append_extra_attribute(LinkAttribute::Group(0));
        differs = true;
    }
    if let Some(mtu) = bridge.mtu.map(u32::from).filter(|mtu| *mtu != link.mtu) {
        message = message.mtu(mtu);
        differs = true;
    }
    let filter = |present: Option<bool>| {
        bridge.filtered && present != Some(true) || ours && !bridge.filtered && present == Some(true)
    };
    if filter(link.filtered[0]) || filter(link.filtered[1]) {
        message = message.nf_call_iptables(bridge.filtered).nf_call_ip6tables(bridge.filtered);
        differs = true;
    }
    if !link.up {
        message = message.up();
        differs = true;
    }
    differs.then(|| link::change(message.build()))
}

/// Whether br_netfilter is there, now that it was asked for. It isn't where it is neither built in nor installed.
fn has_bridge_netfilter() -> bool {
    let there = || Path::new(BRIDGE_NETFILTER).exists();
    if there() {
        return true;
    }
    let mut modprobe = Command::new("/sbin/modprobe");
    modprobe.args(["-q", "br_netfilter"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    modprobe.status().is_ok_and(|status| status.success()) && there()
}
