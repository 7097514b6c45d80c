//! Rules as text for `iptables-restore --noflush` and `ip6tables-restore --noflush`.
//!
//! All of ours are in chains `PORTMAP-…`, refilled as a whole; in the built-in chains we only have jumps to them. Which of
//! these exist already can't be said in the input, so [`Present`] is read first. Each table is one transaction.
//!
//! `PORTMAP-USER` is the administrator's: run before ours, made if it is missing, never emptied. An `accept` here is
//! final, so it names our bridges always.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::facts::{Facts, Family, Foreign};

const USER: &str = "PORTMAP-USER";
const OURS: &str = "PORTMAP-";

/// Table, built-in chain, and the chains it jumps to, in order. The protective ones first.
const PLACES: [(&str, &str, &[&str]); 3] = [
    ("mangle", "PREROUTING", &["PORTMAP-GUARD"]),
    ("filter", "FORWARD", &[USER, "PORTMAP-FORWARD"]),
    ("nat", "POSTROUTING", &["PORTMAP-POSTROUTING"]),
];

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
    for (table, builtin, targets) in PLACES {
        let none = Table::default();
        let old = present.tables.get(table).unwrap_or(&none);
        let _ = writeln!(text, "*{table}");
        if builtin == "FORWARD" && facts.foreign(family) == Foreign::Drop {
            // A policy rather than a rule: whoever wants this host to route more can add his own rules.
            text.push_str(":FORWARD DROP [0:0]\n");
        } else if builtin == "FORWARD" && old.was_closed_by(was, family) {
            text.push_str(":FORWARD ACCEPT [0:0]\n");
        }
        for chain in targets {
            // Declaring a chain empties it.
            if *chain != USER || !old.chains.contains(USER) {
                let _ = writeln!(text, ":{chain} - [0:0]");
            }
        }
        write_jumps(&mut text, old, builtin, targets);
        match table {
            "mangle" => guard(&mut text, facts, family),
            "filter" => forward(&mut text, facts),
            _ => postrouting(&mut text, facts, family),
        }
        let stale = old.chains.iter().map(String::as_str).filter(|chain| !targets.contains(chain));
        drop_chains(&mut text, stale.filter(|chain| *chain != USER));
        text.push_str("COMMIT\n");
    }
    text
}

/// The input that removes what `present` has; empty if there is nothing.
///
/// `PORTMAP-USER` stays if it has rules. A policy that `facts` (those last applied) made `DROP` becomes `ACCEPT` again:
/// forwarding should be off by then.
pub fn remove(facts: &Facts, family: Family, present: &Present) -> String {
    let mut text = String::new();
    for (table, _, _) in PLACES.iter().rev() {
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
fn write_jumps(text: &mut String, old: &Table, builtin: &str, targets: &[&str]) {
    let wanted: Vec<(usize, String)> =
        targets.iter().enumerate().map(|(at, target)| (at + 1, format!("{builtin} -j {target}"))).collect();
    if old.jumps == wanted {
        return;
    }
    for (_, jump) in &old.jumps {
        let _ = writeln!(text, "-D {jump}");
    }
    for (place, target) in targets.iter().enumerate() {
        let _ = writeln!(text, "-I {builtin} {} -j {target}", place + 1);
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

/// Before anything else: packets for a container's address that come by another way than its bridge. In mangle, where
/// connections are tracked already and no address is translated yet: answers pass, also those to networks without
/// masquerading, and packets for a published port still carry the host's address.
fn guard(text: &mut String, facts: &Facts, family: Family) {
    text.push_str("-A PORTMAP-GUARD -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN\n");
    for network in facts.networks() {
        for subnet in network.subnets(family) {
            let _ = writeln!(
                text,
                "-A PORTMAP-GUARD -d {subnet} ! -i {} -m addrtype ! --dst-type LOCAL -j DROP",
                network.bridge
            );
        }
    }
}

/// In stages over all networks, so that none's accept comes before another's drop.
fn forward(text: &mut String, facts: &Facts) {
    let mut rule = |words: String| {
        let _ = writeln!(text, "-A PORTMAP-FORWARD {words}");
    };
    // The same network's traffic. In IPv6, this lets neighbours find each other on a filtered bridge.
    for network in facts.networks() {
        let (bridge, verdict) = (&network.bridge, if network.icc { "ACCEPT" } else { "DROP" });
        rule(format!("-i {bridge} -o {bridge} -j {verdict}"));
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
    // Nothing else enters, from outside or from another network.
    for network in open() {
        rule(format!("-o {} -j DROP", network.bridge));
    }
    // The rest may leave, even if the host's policy is to drop.
    for network in open() {
        rule(format!("-i {} -j ACCEPT", network.bridge));
    }
}

/// Nobody outside knows the way to a container's address. What stays on its bridge keeps it.
fn postrouting(text: &mut String, facts: &Facts, family: Family) {
    for network in facts.networks().filter(|network| network.is_masqueraded(family)) {
        for subnet in network.subnets(family) {
            let _ =
                writeln!(text, "-A PORTMAP-POSTROUTING -s {subnet} ! -o {} -j MASQUERADE", network.bridge);
        }
    }
}
