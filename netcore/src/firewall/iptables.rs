//! Rules as text for `iptables-restore --noflush` and `ip6tables-restore --noflush`.
//!
//! All of ours are in chains `PORTMAP-…`, refilled as a whole; in the built-in chains we only have jumps to them. Which of
//! these exist already can't be said in the input, so [`Present`] is read first. Each table is one transaction.
//!
//! Ports have chains of their own in which the order means nothing: a change of ports is a few rules added and removed.
//! The way of a new connection's first packet gets longer with each port, which only nftables avoids.
//!
//! `PORTMAP-USER` is the administrator's: run before ours, made if it is missing, never emptied. An `accept` here is
//! final, so it names our bridges always.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::facts::{Facts, Family, Foreign, GatewayMode};
use super::ports::{LinkPort, OpenPort, PortRule, Translation};
use crate::publish::PortRange;

const USER: &str = "PORTMAP-USER";
const OURS: &str = "PORTMAP-";

const DNAT: &str = "PORTMAP-DNAT";
const OPEN: &str = "PORTMAP-OPEN";
const APART: &str = "PORTMAP-APART";
const LINK: &str = "PORTMAP-LINK";

/// A table, in it the built-in chains with the chains they jump to, in order, and further chains of ours.
struct Place {
    table: &'static str,
    jumps: &'static [(&'static str, &'static [&'static str])],
    further: &'static [&'static str],
}

/// As many rules may go one by one.
const FEW: usize = 20;
/// The protective ones first.
const PLACES: [Place; 3] = [
    Place { table: "mangle", jumps: &[("PREROUTING", &["PORTMAP-GUARD"])], further: &[] },
    Place {
        table: "filter",
        jumps: &[("FORWARD", &[USER, "PORTMAP-FORWARD"])],
        further: &[APART, LINK, OPEN],
    },
    Place {
        table: "nat",
        jumps: &[
            ("PREROUTING", &["PORTMAP-PREROUTING"]),
            ("OUTPUT", &["PORTMAP-OUTPUT"]),
            ("POSTROUTING", &["PORTMAP-POSTROUTING"]),
        ],
        further: &[DNAT],
    },
];

impl Place {
    fn chains(&self) -> impl Iterator<Item = &'static str> + Clone {
        let (jumps, further) = (self.jumps, self.further);
        jumps.iter().flat_map(|(_, targets)| *targets).chain(further).copied()
    }
}

/// What the host has of ours, out of the output of `iptables-save`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    tables: BTreeMap<String, Table>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table {
    /// Chains `PORTMAP-…`.
    chains: BTreeSet<String>,
    /// Jumps to them from other chains, as `CHAIN -j PORTMAP-…`, each with its place in its chain.
    jumps: Vec<(usize, String)>,
    user_has_rules: bool,
    forward_drops: bool,
}

impl Present {
    /// Reads the output of `iptables-save` or `ip6tables-save`. What isn't ours is passed over.
    pub fn parse(saved: &str) -> Self {
        let mut tables: BTreeMap<String, Table> = BTreeMap::new();
        let mut name = String::new();
        let mut lengths: BTreeMap<&str, usize> = BTreeMap::new();
        for line in saved.lines() {
            if let Some(table) = line.strip_prefix('*') {
                name = table.trim().to_owned();
                lengths.clear();
                continue;
            }
            if line.starts_with('#') || line == "COMMIT" {
                continue;
            }
            let table = tables.entry(name.clone()).or_default();
            if let Some(chain) = line.strip_prefix(':') {
                let chain_name = chain.split(' ').next().unwrap_or_default();
                if is_ours(chain_name) {
                    table.chains.insert(chain_name.to_owned());
                }
                table.forward_drops |= chain.starts_with("FORWARD DROP");
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let chain = rule.split(' ').next().unwrap_or_default();
                let place = lengths.entry(chain).or_insert(0);
                *place += 1;
                table.user_has_rules |= chain == USER;
                let to_ours = rule.rsplit_once(" -j ").is_some_and(|(_, target)| is_ours(target));
                if !is_ours(chain) && to_ours {
                    table.jumps.push((*place, rule.to_owned()));
                }
            }
        }
        Self { tables }
    }

    /// Whether the built-in chain FORWARD drops what no rule accepts. With another backend than this one our networks
    /// would then be cut off.
    pub fn forward_drops(&self) -> bool {
        self.tables.get("filter").is_some_and(|table| table.forward_drops)
    }

    /// Whether there is anything of ours, other than what the administrator put into his chain.
    pub fn is_empty(&self) -> bool {
        self.tables.values().all(|table| {
            table.jumps.is_empty() && table.chains.iter().all(|chain| chain == USER && table.user_has_rules)
        })
    }
}

impl Table {
    /// Whether the policy `DROP` is ours. Where no chain is ours, it never was.
    fn was_closed_by(&self, facts: &Facts, family: Family) -> bool {
        facts.foreign(family) == Foreign::Drop && self.forward_drops && !self.jumps.is_empty()
    }
}

/// A chain's name is at most 28 bytes of what needs no quoting; anything else can't be ours.
fn is_ours(name: &str) -> bool {
    name.starts_with(OURS)
        && name.len() <= 28
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// The input after which the rules of one family are what `facts` ask for, whatever `present` is.
///
/// `was` are the facts applied before, or the default: only a policy that they closed is opened again.
pub fn replace(was: &Facts, facts: &Facts, family: Family, present: &Present) -> String {
    if facts.is_empty() {
        return remove(was, family, present);
    }
    let mut text = String::new();
    for place in PLACES {
        let none = Table::default();
        let old = present.tables.get(place.table).unwrap_or(&none);
        let _ = writeln!(text, "*{}", place.table);
        if place.table == "filter" && facts.foreign(family) == Foreign::Drop {
            // A policy rather than a rule: whoever wants this host to route more can add his own rules.
            text.push_str(":FORWARD DROP [0:0]\n");
        } else if place.table == "filter" && old.was_closed_by(was, family) {
            text.push_str(":FORWARD ACCEPT [0:0]\n");
        }
        for chain in place.chains() {
            // Declaring a chain empties it.
            if chain != USER || !old.chains.contains(USER) {
                let _ = writeln!(text, ":{chain} - [0:0]");
            }
        }
        write_jumps(&mut text, old, place.jumps);
        let ports = facts.port_rules();
        let mut ports = ports.iter().filter(|rule| family_of(rule) == family);
        match place.table {
            "mangle" => guard(&mut text, facts, family),
            "filter" => {
                forward(&mut text, facts, family);
                ports.filter(|rule| is_filter(rule)).for_each(|rule| write_port(&mut text, "-A", rule));
            }
            _ => {
                nat(&mut text, facts, family);
                ports
                    .by_ref()
                    .filter(|rule| !is_filter(rule))
                    .for_each(|rule| write_port(&mut text, "-A", rule));
            }
        }
        let stale = old.chains.iter().map(String::as_str);
        let stale = stale.filter(|chain| *chain != USER && !place.chains().any(|ours| ours == *chain));
        drop_chains(&mut text, stale);
        text.push_str("COMMIT\n");
    }
    text
}

/// Whether [`change`] is less work than [`replace`]. Each rule that goes is looked for from its chain's beginning: 60 ms
/// among ten thousand, all of which are written anew in a second.
pub fn is_small(before: &Facts, after: &Facts) -> bool {
    before.port_change(after).gone.len() <= FEW
}

/// The input that turns the rules of `before` into those of `after`, which differ in ports at most; empty if there is
/// nothing to do. It fails if the rules aren't what `before` asks for; [`replace`] is right then.
///
/// What is translated is open all the while.
pub fn change(before: &Facts, after: &Facts, family: Family) -> String {
    let ports = before.port_change(after);
    let here = |rule: &&PortRule<'_>| family_of(rule) == family;
    let (gone, new) = (ports.gone.iter().filter(here), ports.new.iter().filter(here));
    let mut text = String::new();
    let mut table = |name: &str, rules: &[(&str, &PortRule<'_>)]| {
        if !rules.is_empty() {
            let _ = writeln!(text, "*{name}");
            rules.iter().for_each(|(verb, rule)| write_port(&mut text, verb, rule));
            text.push_str("COMMIT\n");
        }
    };
    let (open, translate): (Vec<_>, Vec<_>) =
        new.map(|rule| ("-A", rule)).partition(|(_, rule)| is_filter(rule));
    let (close, leave): (Vec<_>, Vec<_>) =
        gone.map(|rule| ("-D", rule)).partition(|(_, rule)| is_filter(rule));
    table("filter", &open);
    table("nat", &[leave, translate].concat());
    table("filter", &close);
    text
}

/// The input that removes what `present` has; empty if there is nothing.
///
/// `PORTMAP-USER` stays if it has rules. A policy that `facts` (those last applied) made `DROP` becomes `ACCEPT` again:
/// forwarding should be off by then.
pub fn remove(facts: &Facts, family: Family, present: &Present) -> String {
    let mut text = String::new();
    for Place { table, .. } in PLACES.iter().rev() {
        let Some(old) = present.tables.get(*table) else { continue };
        if old.jumps.is_empty() && old.chains.is_empty() {
            continue;
        }
        let _ = writeln!(text, "*{table}");
        if *table == "filter" && old.was_closed_by(facts, family) {
            text.push_str(":FORWARD ACCEPT [0:0]\n");
        }
        for (_, jump) in &old.jumps {
            let _ = writeln!(text, "-D {jump}");
        }
        let gone = old.chains.iter().map(String::as_str);
        drop_chains(&mut text, gone.filter(|chain| *chain != USER || !old.user_has_rules));
        text.push_str("COMMIT\n");
    }
    text
}

/// Ours come first in a built-in chain, before anybody's rules could accept. What is in place stays.
fn write_jumps(text: &mut String, old: &Table, jumps: &[(&str, &[&str])]) {
    let of = |builtin: &str, jump: &str| jump.split(' ').next() == Some(builtin);
    let in_place = |builtin: &str, targets: &[&str]| {
        let old = old.jumps.iter().filter(|(_, jump)| of(builtin, jump));
        let wanted =
            targets.iter().enumerate().map(|(at, target)| (at + 1, format!("{builtin} -j {target}")));
        old.cloned().eq(wanted)
    };
    let stays =
        |jump: &str| jumps.iter().any(|(builtin, targets)| of(builtin, jump) && in_place(builtin, targets));
    for (_, jump) in old.jumps.iter().filter(|(_, jump)| !stays(jump)) {
        let _ = writeln!(text, "-D {jump}");
    }
    for (builtin, targets) in jumps.iter().filter(|(builtin, targets)| !in_place(builtin, targets)) {
        for (place, target) in targets.iter().enumerate() {
            let _ = writeln!(text, "-I {builtin} {} -j {target}", place + 1);
        }
    }
}

fn drop_chains<'a>(text: &mut String, chains: impl Iterator<Item = &'a str> + Clone) {
    for chain in chains.clone() {
        let _ = writeln!(text, "-F {chain}");
    }
    for chain in chains {
        let _ = writeln!(text, "-X {chain}");
    }
}

/// Before anything else: packets for a loopback address that come from elsewhere, which translation would let in; and
/// packets for a container's address that come by another way than its bridge. In mangle, where connections are tracked
/// already and no address is translated yet: answers pass, also those to networks without masquerading, and packets for
/// a published port still carry the host's address.
fn guard(text: &mut String, facts: &Facts, family: Family) {
    if family == Family::V4 {
        text.push_str("-A PORTMAP-GUARD -d 127.0.0.0/8 ! -i lo -j DROP\n");
    }
    text.push_str("-A PORTMAP-GUARD -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN\n");
    for network in facts.networks().filter(|network| facts.guards(network, family)) {
        for subnet in network.subnets(family) {
            for interface in network.trusted.iter().filter(|_| !network.internal) {
                let _ = writeln!(text, "-A PORTMAP-GUARD -d {subnet} -i {interface} -j RETURN");
            }
            let _ = writeln!(
                text,
                "-A PORTMAP-GUARD -d {subnet} ! -i {} -m addrtype ! --dst-type LOCAL -j DROP",
                network.bridge
            );
        }
    }
}

/// In stages over all networks, so that none's accept comes before another's drop.
fn forward(text: &mut String, facts: &Facts, family: Family) {
    let marked = facts.host().accept_mark.map(|mark| {
        let (value, mask) = (mark.value, mark.mask);
        format!("-m mark --mark {value:#x}/{mask:#x} -j ACCEPT")
    });
    let mut rule = |words: String| {
        let _ = writeln!(text, "-A PORTMAP-FORWARD {words}");
    };
    // The same network's traffic. In IPv6, this lets neighbours find each other on a filtered bridge.
    for network in facts.networks() {
        let verdict = match (network.icc, network.internal) {
            (true, _) => "ACCEPT",
            (false, true) => "DROP",
            (false, false) => APART,
        };
        rule(format!("-i {0} -o {0} -j {verdict}", network.bridge));
    }
    // No way around the fence of an internal network, not even for connections older than it.
    for network in facts.networks().filter(|network| network.internal) {
        rule(format!("-i {} -j DROP", network.bridge));
        rule(format!("-o {} -j DROP", network.bridge));
    }
    let open = || facts.networks().filter(|network| !network.internal);
    // Answers.
    for network in open() {
        rule(format!("-o {} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", network.bridge));
    }
    // What enters, from outside or from another network.
    let icmp = match family {
        Family::V4 => "icmp",
        Family::V6 => "ipv6-icmp",
    };
    for network in open() {
        let bridge = &network.bridge;
        if let Some(marked) = &marked {
            rule(format!("-o {bridge} {marked}"));
        }
        match network.mode(family) {
            _ if network.subnets(family).is_empty() => {}
            GatewayMode::Nat => {}
            GatewayMode::NatUnprotected => rule(format!("-o {bridge} -j ACCEPT")),
            GatewayMode::Routed => rule(format!("-o {bridge} -p {icmp} -j ACCEPT")),
        }
        rule(format!("-o {bridge} -j {OPEN}"));
    }
    // Nothing else does.
    for network in open() {
        rule(format!("-o {} -j DROP", network.bridge));
    }
    // The rest may leave, even if the host's policy is to drop.
    for network in open() {
        rule(format!("-i {} -j ACCEPT", network.bridge));
    }
    // Within a network whose containers are kept apart: answers, what a link opens, what IPv6 finds neighbours by, and what
    // came to one of them through a port of the host.
    if let Some(marked) = marked {
        let _ = writeln!(text, "-A {APART} {marked}");
    }
    let _ = writeln!(text, "-A {APART} -m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY -j ACCEPT");
    let _ = writeln!(text, "-A {APART} -j {LINK}");
    if family == Family::V6 {
        for kind in ["neighbour-solicitation", "neighbour-advertisement"] {
            let _ = writeln!(text, "-A {APART} -p ipv6-icmp --icmpv6-type {kind} -j ACCEPT");
        }
    }
    let _ = writeln!(text, "-A {APART} -m conntrack ! --ctstate DNAT -j DROP");
    let _ = writeln!(text, "-A {APART} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    let _ = writeln!(text, "-A {APART} -j {OPEN}\n-A {APART} -j DROP");
}

fn nat(text: &mut String, facts: &Facts, family: Family) {
    let proxy = facts.host().userland_proxy;
    // Packets to the host itself. Those of its own processes to a loopback address are a proxy's, if there is one; IPv6
    // has no way to route them, nor answers to a link-local address of another link.
    let (from, to) = match family {
        Family::V4 if proxy => ("", "! -d 127.0.0.0/8 "),
        Family::V4 => ("", ""),
        Family::V6 => ("! -s fe80::/10 ", "! -d ::1/128 "),
    };
    let _ = writeln!(text, "-A PORTMAP-PREROUTING {from}-m addrtype --dst-type LOCAL -j {DNAT}");
    let _ = writeln!(text, "-A PORTMAP-OUTPUT {from}{to}-m addrtype --dst-type LOCAL -j {DNAT}");
    let mut rule = |words: String| {
        let _ = writeln!(text, "-A PORTMAP-POSTROUTING {words}");
    };
    // Without a proxy: a container can't answer a loopback address, and its answer to a neighbour on its network, or to
    // itself, wouldn't come back this way.
    for network in facts.networks().filter(|network| !proxy && !network.internal) {
        let bridge = &network.bridge;
        if family == Family::V4 {
            rule(format!("-s 127.0.0.0/8 -o {bridge} -j MASQUERADE"));
        }
        for subnet in network.subnets(family) {
            rule(format!("-s {subnet} -o {bridge} -m conntrack --ctstate DNAT -j MASQUERADE"));
        }
    }
    // Nobody outside knows the way to a container's address. What stays on its bridge keeps it.
    for network in facts.networks().filter(|network| network.is_masqueraded(family)) {
        let source = match network.source(family) {
            Some(source) => format!("SNAT --to-source {source}"),
            None => "MASQUERADE".to_owned(),
        };
        for subnet in network.subnets(family) {
            rule(format!("-s {subnet} ! -o {} -j {source}", network.bridge));
        }
    }
}

/// Whether it lets something pass, rather than leading it elsewhere.
const fn is_filter(rule: &PortRule<'_>) -> bool {
    matches!(rule, PortRule::Open(_) | PortRule::Link(_))
}

const fn family_of(rule: &PortRule<'_>) -> Family {
    match rule {
        PortRule::Translate(Translation { target, .. })
        | PortRule::Open(OpenPort { target, .. })
        | PortRule::Link(LinkPort { to: target, .. }) => Family::of(*target),
    }
}

/// One rule, whatever the length of a range.
fn write_port(text: &mut String, verb: &str, rule: &PortRule<'_>) {
    let ports = |range: PortRange, between: char| match range.is_single() {
        true => range.first().to_string(),
        false => format!("{}{between}{}", range.first(), range.last()),
    };
    let _ = match rule {
        PortRule::Open(OpenPort { target, proto, ports: open }) => {
            writeln!(text, "{verb} {OPEN} -d {target} -p {proto} --dport {} -j ACCEPT", ports(*open, ':'))
        }
        PortRule::Link(LinkPort { from, to, proto, ports: open }) => {
            let open = ports(*open, ':');
            writeln!(text, "{verb} {LINK} -s {from} -d {to} -p {proto} --dport {open} -j ACCEPT")
        }
        PortRule::Translate(Translation { proto, host_ip, host, target, container, except }) => {
            let address = host_ip.map_or_else(String::new, |ip| format!("-d {ip} "));
            let except = except.map_or_else(String::new, |bridge| format!("! -i {bridge} "));
            // The port stays, or is shifted by as much as the ranges are apart.
            let to = match (host == container, host.is_single()) {
                (true, _) => String::new(),
                (false, true) => format!(":{}", container.first()),
                (false, false) => format!(":{}/{}", ports(*container, '-'), host.first()),
            };
            let target = match target {
                std::net::IpAddr::V6(target) if !to.is_empty() => format!("[{target}]"),
                target => target.to_string(),
            };
            let host = ports(*host, ':');
            writeln!(
                text,
                "{verb} {DNAT} {address}{except}-p {proto} --dport {host} -j DNAT --to-destination {target}{to}"
            )
        }
    };
}
