//! Which names there are on which network, and what a sandbox sees of them.
//!
//! A name is looked up in the networks of who asks, in the order in which they would provide the default route; the first
//! that knows it answers, whatever the family of its addresses. Letters' cases don't matter.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Candidate, EndpointId, NetworkId, SandboxId, compare};

/// The names on all networks that have an embedded server.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    networks: HashMap<NetworkId, Zone>,
}

/// An endpoint as its network knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whose it is.
    pub sandbox: SandboxId,
    /// What it answers to, as [`names`] makes them. The first is what its address is called.
    pub names: Vec<String>,
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

/// What a sandbox sees: its networks, best first, and its own names for others.
#[derive(Clone, Debug, Default)]
pub struct View {
    networks: Vec<Seen>,
}

/// One of a sandbox's networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The network.
    pub network: NetworkId,
    /// Its name.
    pub name: String,
    /// `--gw-priority`.
    pub gw_priority: i32,
    /// Whether it is `--internal`.
    pub internal: bool,
    /// Whether the endpoint has an IPv4 gateway.
    pub gateway4: bool,
    /// Whether the endpoint has an IPv6 gateway.
    pub gateway6: bool,
    /// `--link`; of two with one alias the last counts.
    pub links: Vec<Link>,
}

/// A name for others that only this sandbox knows, and only on this network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The name.
    pub alias: String,
    /// What it stands for: a name on the network, whoever has it at the time.
    pub target: String,
    /// Who had that for a name of its own when the link was made. It is followed while it is on the network, whatever it
    /// is called by then.
    pub sandbox: Option<SandboxId>,
}

/// The addresses behind a name. Either list may be empty; a name with neither is known all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// IPv4.
    pub v4: Vec<Ipv4Addr>,
    /// IPv6.
    pub v6: Vec<Ipv6Addr>,
}

#[derive(Clone, Debug, Default)]
struct Zone {
    members: HashMap<EndpointId, Member>,
    /// By name in small letters, in the order in which they joined.
    names: HashMap<Box<[u8]>, Vec<EndpointId>>,
    addresses: HashMap<IpAddr, Vec<EndpointId>>,
    sandboxes: HashMap<SandboxId, EndpointId>,
}

#[derive(Clone, Debug)]
struct Seen {
    network: NetworkId,
    name: String,
    /// The name in small letters.
    suffix: Vec<u8>,
    /// By alias in small letters.
    links: HashMap<Vec<u8>, Link>,
}

/// What a sandbox answers to on one network, in order and without duplicates: its name, the aliases that it has there,
/// the short id, the hostname.
pub fn names(name: &str, aliases: &[String], id: &SandboxId, hostname: &str) -> Vec<String> {
    let short = id.short();
    let all = [name].into_iter().chain(aliases.iter().map(String::as_str)).chain([&*short, hostname]);
    let mut names: Vec<String> = Vec::new();
    for name in all.filter(|name| !name.is_empty()) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

impl Zones {
    /// An endpoint becomes active, or is called something else.
    pub fn join(&mut self, network: NetworkId, endpoint: EndpointId, member: Member) {
        self.leave(&network, &endpoint);
        self.networks.entry(network).or_default().insert(endpoint, member);
    }

    /// An endpoint isn't active any more. Nothing happens if it wasn't.
    pub fn leave(&mut self, network: &NetworkId, endpoint: &EndpointId) {
        let Some(zone) = self.networks.get_mut(network) else { return };
        zone.remove(endpoint);
        if zone.members.is_empty() {
            self.networks.remove(network);
        }
    }

    /// The addresses behind a name, as the view's sandbox sees it. `name` is a domain name's labels with dots between
    /// them; one dot at the end is ignored.
    pub fn find(&self, view: &View, name: &[u8]) -> Option<Found> {
        let name = name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase();
        let dots = (0..name.len()).rev().filter(|at| name[*at] == b'.');
        // The whole text anywhere, or else a name, a dot, and the network to look in.
        let candidates =
            [(&name[..], None)].into_iter().chain(dots.map(|at| (&name[..at], Some(&name[at + 1..]))));
        candidates.filter(|(name, _)| !name.is_empty()).find_map(|(name, network)| {
            let seen = || view.networks.iter().filter(|seen| network.is_none_or(|name| name == seen.suffix));
            let linked = |seen: &Seen| self.zone(seen)?.linked(seen.links.get(name)?);
            let registered = |seen: &Seen| match seen.links.contains_key(name) {
                // The alias hides the sandbox of that name, also while what it stands for isn't there.
                true => None,
                false => self.zone(seen)?.named(name),
            };
            seen().find_map(linked).or_else(|| seen().find_map(registered))
        })
    }

    /// What an address is called: the names of who has it, best first, and of the network.
    pub fn reverse<'a>(&'a self, view: &'a View, address: IpAddr) -> Option<(&'a [String], &'a str)> {
        view.networks.iter().find_map(|seen| {
            let zone = self.zone(seen)?;
            let member = zone.members.get(zone.addresses.get(&address)?.first()?)?;
            Some((&member.names[..], &seen.name[..]))
        })
    }

    fn zone(&self, seen: &Seen) -> Option<&Zone> {
        self.networks.get(&seen.network)
    }
}

impl View {
    /// The view of a sandbox on these networks.
    pub fn new(mut attachments: Vec<Attachment>) -> Self {
        attachments.sort_by(|a, b| compare(&a.candidate(), &b.candidate()));
        let networks = attachments.into_iter().map(|attachment| Seen {
            network: attachment.network,
            suffix: attachment.name.to_ascii_lowercase().into_bytes(),
            name: attachment.name,
            links: attachment.links.into_iter().map(|link| (key(&link.alias), link)).collect(),
        });
        Self { networks: networks.collect() }
    }
}

impl Attachment {
    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            network: &self.name,
            gw_priority: self.gw_priority,
            helper: false,
            internal: self.internal,
            gateway4: self.gateway4,
            gateway6: self.gateway6,
        }
    }
}

impl Zone {
    fn insert(&mut self, endpoint: EndpointId, member: Member) {
        for key in member.keys() {
            self.names.entry(key.into()).or_default().push(endpoint);
        }
        for address in member.addresses() {
            self.addresses.entry(address).or_default().push(endpoint);
        }
        self.sandboxes.insert(member.sandbox, endpoint);
        self.members.insert(endpoint, member);
    }

    fn remove(&mut self, endpoint: &EndpointId) {
        let Some(member) = self.members.remove(endpoint) else { return };
        for key in member.keys() {
            forget(&mut self.names, key.into(), endpoint);
        }
        for address in member.addresses() {
            forget(&mut self.addresses, address, endpoint);
        }
        if self.sandboxes.get(&member.sandbox) == Some(endpoint) {
            self.sandboxes.remove(&member.sandbox);
        }
    }

    fn linked(&self, link: &Link) -> Option<Found> {
        let followed = link.sandbox.and_then(|sandbox| self.sandboxes.get(&sandbox));
        followed.map_or_else(|| self.named(&key(&link.target)), |endpoint| Some(self.addresses([endpoint])))
    }

    fn named(&self, key: &[u8]) -> Option<Found> {
        self.names.get(key).map(|endpoints| self.addresses(endpoints))
    }

    fn addresses<'a>(&self, endpoints: impl IntoIterator<Item = &'a EndpointId>) -> Found {
        let mut found = Found::default();
        for member in endpoints.into_iter().filter_map(|endpoint| self.members.get(endpoint)) {
            found.v4.extend(member.v4);
            found.v6.extend(member.v6);
        }
        found
    }
}

impl Member {
    fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = self.names.iter().map(|name| key(name)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::from).into_iter().chain(self.v6.map(IpAddr::from))
    }
}

fn key(name: &str) -> Vec<u8> {
    name.to_ascii_lowercase().into_bytes()
}

fn forget<K: Eq + std::hash::Hash>(table: &mut HashMap<K, Vec<EndpointId>>, key: K, endpoint: &EndpointId) {
    if let std::collections::hash_map::Entry::Occupied(mut entry) = table.entry(key) {
        entry.get_mut().retain(|other| other != endpoint);
        if entry.get().is_empty() {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests;
