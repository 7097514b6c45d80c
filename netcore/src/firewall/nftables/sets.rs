//! The sets and maps of the table, and their elements.
//!
//! Exact ports are in hash tables; ranges are in interval sets, one element for each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use super::super::facts::{BridgeNetwork, Facts, Family, GatewayMode};
use super::super::ports::{LinkPort, OpenPort, PortRule, Translation};
use crate::publish::PortRange;

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    /// Bridge and bridge again → what becomes of traffic within the network.
    Inside,
    /// Bridges of internal networks.
    Internal,
    /// All bridges.
    Networks,
    /// Each subnet with the bridge that it is at home on.
    Home(Family),
    /// Subnets that nobody reaches directly, …
    Guarded(Family),
    /// … but who comes by one of these interfaces.
    Entry(Family),
    /// Subnets that leave under the host's address.
    Masquerade(Family),
    /// Subnets that leave under an address that was chosen → that.
    Source(Family),
    /// Bridges that more than open ports of is reached → what.
    Modes(Family),
    /// Bridge and key of a translation that doesn't apply to packets from there.
    Own(Family, Key),
    /// Ports of the host → where they lead.
    Dnat(Family, Key),
    /// Ports of containers that may be reached: one each, or ranges.
    Open(Family, bool),
    /// The same, of one container from another.
    Link(Family, bool),
}

/// By what a packet to the host is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Whether its address matters.
    exact: bool,
    /// Whether it is a range of ports.
    range: bool,
}

/// Elements by their sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elements(BTreeMap<Set, BTreeSet<String>>);

impl Key {
    /// In the order in which they are asked.
    const ALL: [Self; 4] = [
        Self { exact: true, range: false },
        Self { exact: false, range: false },
        Self { exact: true, range: true },
        Self { exact: false, range: true },
    ];

    const fn name(self) -> &'static str {
        match (self.exact, self.range) {
            (true, false) => "",
            (false, false) => "_any",
            (true, true) => "_range",
            (false, true) => "_any_range",
        }
    }
}

impl Set {
    /// All there are.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [Self::Inside, Self::Internal, Self::Networks].into_iter().chain(Family::BOTH.into_iter().flat_map(
            |family| {
                let networks =
                    [Self::Home, Self::Guarded, Self::Entry, Self::Masquerade, Self::Source, Self::Modes]
                        .map(|set| set(family));
                let own = Key::ALL.map(|key| Self::Own(family, key));
                let dnat = Key::ALL.map(|key| Self::Dnat(family, key));
                let open = [false, true].map(|range| Self::Open(family, range));
                let link = [false, true].map(|range| Self::Link(family, range));
                networks.into_iter().chain(own).chain(dnat).chain(open).chain(link)
            },
        ))
    }

    fn name(self) -> String {
        let of = |name: &str, family| match family {
            Family::V4 => format!("{name}4"),
            Family::V6 => format!("{name}6"),
        };
        match self {
            Self::Inside => "inside".to_owned(),
            Self::Internal => "internal".to_owned(),
            Self::Networks => "networks".to_owned(),
            Self::Home(family) => of("home", family),
            Self::Guarded(family) => of("guarded", family),
            Self::Entry(family) => of("entry", family),
            Self::Masquerade(family) => of("masquerade", family),
            Self::Source(family) => of("source", family),
            Self::Modes(family) => of("modes", family),
            Self::Own(family, key) => of(&format!("own{}", key.name()), family),
            Self::Dnat(family, key) => of(&format!("dnat{}", key.name()), family),
            Self::Open(family, range) => of(if range { "open_range" } else { "open" }, family),
            Self::Link(family, range) => of(if range { "link_range" } else { "link" }, family),
        }
    }

    /// Its type, whether it is a map, and whether its elements may be intervals.
    fn kind(self) -> (String, bool, bool) {
        let address = |family| match family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        let port = |key: Key, family| {
            let address = if key.exact { format!("{} . ", address(family)) } else { String::new() };
            format!("{address}inet_proto . inet_service")
        };
        match self {
            Self::Inside => ("ifname . ifname : verdict".to_owned(), true, false),
            Self::Internal | Self::Networks => ("ifname".to_owned(), false, false),
            Self::Home(family) | Self::Entry(family) => {
                (format!("ifname . {}", address(family)), false, true)
            }
            Self::Guarded(family) | Self::Masquerade(family) => (address(family).to_owned(), false, true),
            Self::Source(family) => (format!("{0} : {0}", address(family)), true, true),
            Self::Modes(_) => ("ifname : verdict".to_owned(), true, false),
            Self::Own(family, key) => (format!("ifname . {}", port(key, family)), false, key.range),
            Self::Dnat(family, key) => {
                // In a range, the port stays.
                let to = if key.range { "" } else { " . inet_service" };
                (format!("{} : {}{to}", port(key, family), address(family)), true, key.range)
            }
            Self::Open(family, range) => {
                (format!("{} . inet_proto . inet_service", address(family)), false, range)
            }
            Self::Link(family, range) => {
                (format!("{0} . {0} . inet_proto . inet_service", address(family)), false, range)
            }
        }
    }

    /// As it stands in the table.
    pub(super) fn declaration(self) -> String {
        let (kind, is_map, intervals) = self.kind();
        let word = if is_map { "map" } else { "set" };
        let flags = if intervals { "\t\tflags interval\n" } else { "" };
        format!("\t{word} {} {{\n\t\ttype {kind}\n{flags}\t}}\n", self.name())
    }
}

impl Elements {
    /// Adds what these networks of `facts` ask for.
    pub(super) fn add_networks<'a>(
        &mut self,
        facts: &Facts,
        networks: impl Iterator<Item = &'a BridgeNetwork>,
    ) {
        for network in networks {
            // Safe within quotes: that is what `IfName` is for.
            let bridge = format!("\"{}\"", network.bridge);
            let verdict = match (network.icc, network.internal) {
                (true, _) => "accept",
                (false, true) => "drop",
                (false, false) => "goto apart",
            };
            self.add(Set::Inside, format!("{bridge} . {bridge} : {verdict}"));
            self.add(Set::Networks, bridge.clone());
            if network.internal {
                self.add(Set::Internal, bridge);
            }
            for family in Family::BOTH {
                self.add_family(facts, network, family);
            }
        }
    }

    fn add_family(&mut self, facts: &Facts, network: &BridgeNetwork, family: Family) {
        let bridge = &network.bridge;
        let subnets = network.subnets(family);
        for subnet in &subnets {
            self.add(Set::Home(family), format!("\"{bridge}\" . {subnet}"));
            if facts.guards(network, family) {
                self.add(Set::Guarded(family), subnet.to_string());
                let trusted = network.trusted.iter().filter(|_| !network.internal);
                for interface in trusted.chain([bridge]) {
                    self.add(Set::Entry(family), format!("\"{interface}\" . {subnet}"));
                }
            }
            if network.is_masqueraded(family) {
                match network.source(family) {
                    Some(source) => self.add(Set::Source(family), format!("{subnet} : {source}")),
                    None => self.add(Set::Masquerade(family), subnet.to_string()),
                }
            }
        }
        let mode = match network.mode(family) {
            _ if network.internal || subnets.is_empty() => return,
            GatewayMode::Nat => return,
            GatewayMode::NatUnprotected => "accept",
            GatewayMode::Routed => "jump ping",
        };
        self.add(Set::Modes(family), format!("\"{bridge}\" : {mode}"));
    }

    /// Adds what these rules ask for.
    pub(super) fn add_ports<'a>(&mut self, rules: impl IntoIterator<Item = &'a PortRule<'a>>) {
        for rule in rules {
            match rule {
                PortRule::Translate(translation) => self.add_translation(translation),
                PortRule::Open(OpenPort { target, proto, ports }) => {
                    let set = Set::Open(Family::of(*target), !ports.is_single());
                    self.add(set, format!("{target} . {proto} . {ports}"));
                }
                PortRule::Link(LinkPort { from, to, proto, ports }) => {
                    let set = Set::Link(Family::of(*to), !ports.is_single());
                    self.add(set, format!("{from} . {to} . {proto} . {ports}"));
                }
            }
        }
    }

    fn add_translation(&mut self, translation: &Translation<'_>) {
        let Translation { proto, host, target, container, .. } = *translation;
        let family = Family::of(target);
        let exact = translation.host_ip.is_some();
        let address = translation.host_ip.map_or_else(String::new, |ip: IpAddr| format!("{ip} . "));
        let key = |ports: PortRange| format!("{address}{proto} . {ports}");
        if let Some(bridge) = translation.except {
            let set = Set::Own(family, Key { exact, range: !host.is_single() });
            self.add(set, format!("\"{bridge}\" . {}", key(host)));
        }
        if host == container && !host.is_single() {
            self.add(Set::Dnat(family, Key { exact, range: true }), format!("{} : {target}", key(host)));
            return;
        }
        // The kernel has no way to shift a range.
        let set = Set::Dnat(family, Key { exact, range: false });
        for (from, to) in host.iter().zip(container.iter()) {
            self.add(set, format!("{} : {target} . {to}", key(PortRange::single(from))));
        }
    }

    fn add(&mut self, set: Set, element: String) {
        self.0.entry(set).or_default().insert(element);
    }

    /// What `others` hasn't.
    pub(super) fn minus(&self, others: &Self) -> Self {
        let none = BTreeSet::new();
        let rest = |(set, mine): (&Set, &BTreeSet<String>)| {
            (*set, mine.difference(others.0.get(set).unwrap_or(&none)).cloned().collect())
        };
        Self(self.0.iter().map(rest).collect())
    }

    /// A command for each set.
    pub(super) fn write(&self, text: &mut String, verb: &str) {
        for (set, elements) in self.0.iter().filter(|(_, elements)| !elements.is_empty()) {
            let list: Vec<&str> = elements.iter().map(String::as_str).collect();
            let _ = writeln!(text, "{verb} element inet portmap {} {{ {} }}", set.name(), list.join(", "));
        }
    }
}
