//! Plans: what must exist in the kernel, as plain data. No I/O.
//!
//! A [`Plan`] is what the facts ask for. [`Plan::change`] says what leads from one plan to another; carried out by the
//! kernel's rim, each [`Step`] looks at what is there and changes only what differs. Undo is no code of its own: it is the
//! way back to the plan of before.
//!
//! Not here: how facts become objects (`driver`), and the firewall, which compares by itself
//! ([`firewall::Facts`](crate::firewall::Facts)).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::model::{EndpointId, IfName, Mac, ProcessId};

/// Something in the kernel that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A setting of the host. It is not put back when nobody asks for it any more.
    Sysctl(Sysctl),
    /// A network's bridge.
    Bridge(Bridge),
    /// A sandbox's network namespace.
    Namespace(Namespace),
    /// An endpoint's pair of interfaces.
    Veth(Veth),
    /// A sandbox's way out.
    DefaultRoutes(DefaultRoutes),
}

/// A setting under `/proc/sys`; as an object of its own, in the host's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The path below `/proc/sys`, with slashes: `net/ipv4/ip_forward`.
    pub key: String,
    /// The text, without the line's end.
    pub value: String,
}

/// A network's bridge, with the network's own addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The device.
    pub name: IfName,
    /// Somebody else made it: it is used if it is there, and never removed.
    pub adopted: bool,
    /// Gateway addresses, each with the length of its subnet's prefix.
    pub addresses: Vec<IpNet>,
    /// Maximum size of a packet; `None` is the kernel's default.
    pub mtu: Option<u16>,
    /// Whether it may have IPv6 addresses at all.
    pub ipv6: bool,
    /// Whether the firewall must see what passes from port to port (`nf_call_iptables`, `nf_call_ip6tables`).
    pub filtered: bool,
    /// Whether packets of the host's loopback addresses may leave by it: its `route_localnet`, which is set either way,
    /// and off again when the network goes.
    pub route_localnet: bool,
}

/// A sandbox's network namespace, pinned by a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// The file.
    pub path: PathBuf,
    /// Somebody else made it: it must be there, and stays.
    pub adopted: bool,
    /// Who lives in it, if that is known: should the file be gone, it is his namespace that is pinned again.
    pub holder: Option<ProcessId>,
}

/// An endpoint's pair of interfaces: one on the bridge, one in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// Whose it is. The host's end carries it as its alias.
    pub endpoint: EndpointId,
    /// The bridge that the host's end is a port of.
    pub bridge: IfName,
    /// The host's end.
    pub host: IfName,
    /// The sandbox's namespace.
    pub namespace: PathBuf,
    /// The sandbox's end.
    pub name: IfName,
    /// Hardware address of the sandbox's end.
    pub mac: Mac,
    /// Addresses of the sandbox's end, each with the length of its subnet's prefix.
    pub addresses: Vec<IpNet>,
    /// Maximum size of a packet, on both ends; `None` is the kernel's default.
    pub mtu: Option<u16>,
    /// Whether the port sends back what came from it.
    pub hairpin: bool,
    /// Settings of the sandbox's end, in the sandbox's namespace.
    pub sysctls: Vec<Sysctl>,
}

/// Where a sandbox sends what isn't local. A family without one has no default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoutes {
    /// The sandbox's namespace.
    pub namespace: PathBuf,
    /// IPv4: the gateway, and the interface that leads to it.
    pub ipv4: Option<(Ipv4Addr, IfName)>,
    /// IPv6.
    pub ipv6: Option<(Ipv6Addr, IfName)>,
}

/// What an object is known by. The order is that of creation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// By its key.
    Sysctl(String),
    /// By the device.
    Bridge(IfName),
    /// By its file.
    Namespace(PathBuf),
    /// By the host's end.
    Veth(IfName),
    /// By the namespace.
    DefaultRoutes(PathBuf),
}

/// One change of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The object must be there, and be like this.
    Ensure(Object),
    /// The object must be gone.
    Remove(Object),
}

/// Objects that must exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan(BTreeMap<Key, Object>);

impl Object {
    /// What it is known by.
    pub fn key(&self) -> Key {
        match self {
            Self::Sysctl(sysctl) => Key::Sysctl(sysctl.key.clone()),
            Self::Bridge(bridge) => Key::Bridge(bridge.name.clone()),
            Self::Namespace(namespace) => Key::Namespace(namespace.path.clone()),
            Self::Veth(veth) => Key::Veth(veth.host.clone()),
            Self::DefaultRoutes(routes) => Key::DefaultRoutes(routes.namespace.clone()),
        }
    }
}

impl Plan {
    /// The objects, in the order of creation.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.0.values()
    }

    /// The pairs of interfaces among them.
    pub fn veths(&self) -> impl Iterator<Item = &Veth> {
        self.objects().filter_map(|object| if let Object::Veth(veth) = object { Some(veth) } else { None })
    }

    /// Adds an object. One that is known by the same key is replaced.
    pub fn add(&mut self, object: Object) {
        self.0.insert(object.key(), object);
    }

    /// The object of a key.
    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.0.get(key)
    }

    /// What leads from `self` to `to`: removals, the last made first, then what is new or different. Routes in a namespace
    /// that goes too aren't removed one by one.
    pub fn change(&self, to: &Self) -> Vec<Step> {
        let goes = |key: &Key| !to.0.contains_key(key);
        let goes_with_its_namespace = |object: &Object| match object {
            Object::DefaultRoutes(routes) => {
                let namespace = Key::Namespace(routes.namespace.clone());
                let made =
                    matches!(self.get(&namespace), Some(Object::Namespace(namespace)) if !namespace.adopted);
                made && goes(&namespace)
            }
            _ => false,
        };
        let gone = self.0.iter().rev().filter(|(key, object)| goes(key) && !goes_with_its_namespace(object));
        let new = to.0.iter().filter(|(key, object)| self.0.get(key) != Some(object));
        let removals = gone.map(|(_, object)| Step::Remove(object.clone()));
        removals.chain(new.map(|(_, object)| Step::Ensure(object.clone()))).collect()
    }

    /// Makes all of it true.
    pub fn ensure(&self) -> Vec<Step> {
        Self::default().change(self)
    }
}

impl Extend<Object> for Plan {
    fn extend<T: IntoIterator<Item = Object>>(&mut self, objects: T) {
        objects.into_iter().for_each(|object| self.add(object));
    }
}

impl FromIterator<Object> for Plan {
    fn from_iter<T: IntoIterator<Item = Object>>(objects: T) -> Self {
        let mut plan = Self::default();
        plan.extend(objects);
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(name: &str, mtu: Option<u16>) -> Object {
        let name = name.parse().unwrap();
        Object::Bridge(Bridge {
            name,
            adopted: false,
            addresses: vec![],
            mtu,
            ipv6: false,
            filtered: false,
            route_localnet: false,
        })
    }

    fn namespace(path: &str) -> Object {
        Object::Namespace(Namespace { path: path.into(), adopted: false, holder: None })
    }

    #[test]
    fn routes_go_with_a_namespace_of_ours_but_not_with_an_adopted_one() {
        let routes = |path: &str| {
            let ipv4 = Some((Ipv4Addr::new(10, 0, 0, 1), "eth0".parse().unwrap()));
            Object::DefaultRoutes(DefaultRoutes { namespace: path.into(), ipv4, ipv6: None })
        };
        let adopted = Object::Namespace(Namespace { path: "/a".into(), adopted: true, holder: None });
        let before: Plan =
            [namespace("/n"), routes("/n"), adopted.clone(), routes("/a")].into_iter().collect();
        let steps = before.change(&Plan::default());
        assert_eq!(steps, [routes("/a"), namespace("/n"), adopted].map(Step::Remove));
        let kept: Plan = [namespace("/n")].into_iter().collect();
        assert!(before.change(&kept).contains(&Step::Remove(routes("/n"))));
    }

    #[test]
    fn a_change_removes_the_last_first_and_touches_only_what_differs() {
        let sysctl = Object::Sysctl(Sysctl { key: "net/ipv4/ip_forward".into(), value: "1".into() });
        let before: Plan = [namespace("/n/1"), sysctl.clone(), bridge("br-a", None), bridge("br-b", None)]
            .into_iter()
            .collect();
        let after: Plan = [bridge("br-b", Some(1400)), namespace("/n/2"), sysctl].into_iter().collect();
        assert_eq!(
            before.change(&after),
            [
                Step::Remove(namespace("/n/1")),
                Step::Remove(bridge("br-a", None)),
                Step::Ensure(bridge("br-b", Some(1400))),
                Step::Ensure(namespace("/n/2")),
            ]
        );
        assert_eq!(before.change(&before), []);
        assert_eq!(before.ensure().len(), 4);
    }
}
