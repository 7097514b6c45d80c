//! Routes: a sandbox's default routes, and the host's on-link ones.
//!
//! Of the routes in a namespace only those are ours that look as if we had made them: default, static, in the main table,
//! with the metric that the kernel gives where none is asked for. An adopted namespace keeps its others.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;

use super::error::Refusal;
use super::host::Work;
use super::link::Kind;
use super::netlink::{Request, Socket};
use super::netns::{self, Found};
use super::{HostKernel, KernelError, link};
use crate::model::IfName;
use crate::plan::DefaultRoutes;

/// The metric that IPv6 routes get of the kernel; IPv4's is 0.
const METRIC_V6: u32 = 1024;

/// A default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Default {
    gateway: IpAddr,
    interface: u32,
}

/// Makes them be these.
pub(super) fn ensure(kernel: &HostKernel, routes: &DefaultRoutes) -> Result<(), KernelError> {
    let work = kernel.work(format!("default routes of {}", routes.namespace.display()));
    let namespace = kernel.namespace(&work, &routes.namespace)?;
    change(&work, &namespace, routes)
}

/// Makes ours be gone.
pub(super) fn remove(kernel: &HostKernel, routes: &DefaultRoutes) -> Result<(), KernelError> {
    let work = kernel.work(format!("default routes of {}", routes.namespace.display()));
    match work.run("find", || netns::find(&routes.namespace))? {
        Found::Namespace(file) => {
            let none = DefaultRoutes { ipv4: None, ipv6: None, ..routes.clone() };
            change(&work, &file, &none)
        }
        _ => Ok(()),
    }
}

/// Subnets that are reached without a gateway, other than over bridges with the alias.
pub(super) fn on_link(socket: &mut Socket, alias: &str) -> Result<Vec<IpNet>, Refusal> {
    let ours = |link: &link::Link| link.alias.as_deref().is_some_and(|text| text.starts_with(alias));
    let bridges: Vec<u32> = link::list(socket)?
        .into_iter()
        .filter(|link| link.kind == Kind::Bridge && ours(link))
        .map(|link| link.index)
        .collect();
    let mut nets = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for route in list(socket, family)? {
            let (mut to, mut direct) = (None, true);
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Destination(address) => to = ip(address),
                    RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                        direct = false;
                    }
                    RouteAttribute::Oif(index) if bridges.contains(index) => direct = false,
                    _ => {}
                }
            }
            let length = route.header.destination_prefix_length;
            let net = to.filter(|_| direct).and_then(|to| IpNet::new(to, length).ok());
            // Each interface has the same IPv6 link-local subnet: nothing can overlap it.
            let everywhere =
                |net: &IpNet| matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local());
            nets.extend(net.filter(|net| !everywhere(net)));
        }
    }
    nets.sort_unstable();
    nets.dedup();
    Ok(nets)
}

fn change(work: &Work<'_>, namespace: &File, routes: &DefaultRoutes) -> Result<(), KernelError> {
    let inside = || -> Result<(), KernelError> {
        let mut socket = work.run("enter the namespace of the", Socket::open)?;
        let mut wanted = Vec::new();
        let ipv4 = routes.ipv4.as_ref().map(|(gateway, name)| (IpAddr::V4(*gateway), name));
        let ipv6 = routes.ipv6.as_ref().map(|(gateway, name)| (IpAddr::V6(*gateway), name));
        for (gateway, name) in ipv4.into_iter().chain(ipv6) {
            let interface = work.run("find the interface of the", || index(&mut socket, name))?;
            wanted.push(Default { gateway, interface });
        }
        let before = work.run("list the", || defaults(&mut socket))?;
        if let Err(error) = lead(work, &mut socket, &before, &wanted) {
            undo(&mut socket, &before);
            return Err(error);
        }
        Ok(())
    };
    let entered = netns::inside(namespace, inside);
    entered.map_err(|error| work.failed("enter the namespace of the", error.into()))?
}

fn index(socket: &mut Socket, name: &IfName) -> Result<u32, Refusal> {
    let found = link::find(socket, name)?;
    found
        .map(|link| link.index)
        .ok_or_else(|| Refusal { said: Some(format!("no interface {name}")), ..Refusal::from(Errno::ENODEV) })
}

/// New ones first, in the place of those of before: no moment without a default route.
fn lead(work: &Work<'_>, socket: &mut Socket, from: &[Default], to: &[Default]) -> Result<(), KernelError> {
    let new: Vec<Request> = to.iter().filter(|route| !from.contains(route)).map(Default::replacing).collect();
    if !new.is_empty() {
        work.run("set the", || socket.batch(new))?;
    }
    for old in from.iter().filter(|route| !to.contains(route)) {
        work.run("remove one of the", || old.remove(socket))?;
    }
    Ok(())
}

fn undo(socket: &mut Socket, before: &[Default]) {
    let restored = defaults(socket).and_then(|now| {
        let missing: Vec<Request> =
            before.iter().filter(|route| !now.contains(route)).map(Default::replacing).collect();
        if !missing.is_empty() {
            socket.batch(missing)?;
        }
        now.iter().filter(|route| !before.contains(route)).try_for_each(|route| route.remove(socket))
    });
    if let Err(refusal) = restored {
        tracing::warn!(error = %refusal.reason, "default routes are neither the old nor the new ones");
    }
}

impl Default {
    fn message(&self) -> RouteMessage {
        match self.gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .output_interface(self.interface)
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
                .gateway(gateway)
                .output_interface(self.interface)
                .priority(METRIC_V6)
                .build(),
        }
    }

    fn replacing(&self) -> Request {
        Request::replace(RouteNetlinkMessage::NewRoute(self.message()))
    }

    /// Gone already, or replaced, is as good.
    fn remove(self, socket: &mut Socket) -> Result<(), Refusal> {
        match socket.batch(vec![Request::change(RouteNetlinkMessage::DelRoute(self.message()))]) {
            Err(refusal) if refusal.is(Errno::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }
}

/// Our default routes.
fn defaults(socket: &mut Socket) -> Result<Vec<Default>, Refusal> {
    let mut found = Vec::new();
    for (family, metric) in [(AddressFamily::Inet, 0), (AddressFamily::Inet6, METRIC_V6)] {
        for route in list(socket, family)? {
            if route.header.destination_prefix_length != 0 || route.header.protocol != RouteProtocol::Static {
                continue;
            }
            let (mut gateway, mut interface, mut priority) = (None, None, 0);
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Gateway(address) => gateway = ip(address),
                    RouteAttribute::Oif(index) => interface = Some(*index),
                    RouteAttribute::Priority(number) => priority = *number,
                    _ => {}
                }
            }
            if let (Some(gateway), Some(interface), true) = (gateway, interface, priority == metric) {
                found.push(Default { gateway, interface });
            }
        }
    }
    Ok(found)
}

/// The main table's unicast routes.
fn list(socket: &mut Socket, family: AddressFamily) -> Result<Vec<RouteMessage>, Refusal> {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    question.header.table = RouteHeader::RT_TABLE_MAIN;
    let all = match socket.dump(&RouteNetlinkMessage::GetRoute(question)) {
        // A kernel without that family, or, with strict checking, a namespace without that table.
        Err(refusal)
            if [Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT, Errno::ENOENT].iter().any(|e| refusal.is(*e)) =>
        {
            return Ok(vec![]);
        }
        outcome => outcome?,
    };
    Ok(all
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route)
                if route.header.table == RouteHeader::RT_TABLE_MAIN
                    && route.header.kind == RouteType::Unicast =>
            {
                Some(route)
            }
            _ => None,
        })
        .collect())
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
