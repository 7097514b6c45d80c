//! Rules as text for `nft -f -`: the table `inet portmap`.
//!
//! The rules are always the same; networks are elements of sets, so that the way of a packet doesn't get longer with
//! each network, and a change costs what changed. One call of nft is one transaction: old or new, nothing between.
//!
//! An `accept` here only ends our own chain: the host's other tables have their say too, and a `drop` of theirs is
//! final, as ours is. An administrator's own rules go into a table of his own.
//!
//! Needs nft 1.0 and Linux 5.6 (sets of an interface and an address range).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::facts::{Facts, Family, Foreign};

/// Removes the table, whether it is there or not.
const REMOVE: &str = "add table inet portmap\ndelete table inet portmap\n";

/// Before anything else: packets for a container's address that come by another way than its bridge.
///
/// At -150 connections are tracked, but no address is translated yet: so answers pass (also those to networks without
/// masquerading), and packets for a published port still carry the host's address.
const GUARD: &str = "	chain guard {
		type filter hook prerouting priority -150; policy accept;
		ct state established,related accept
		ip daddr @subnets4 iifname . ip daddr != @home4 fib daddr type != local counter drop comment \"direct access\"
		ip6 daddr @subnets6 iifname . ip6 daddr != @home6 fib daddr type != local counter drop comment \"direct access\"
	}
";

/// In this order: a verdict on the same network's traffic; no way around the fence of an internal network, not even for
/// connections older than it; answers; nothing else enters; the rest may leave.
const FORWARD: &str = "	chain forward {
		type filter hook forward priority 0; policy accept;
		iifname . oifname vmap @inside
		iifname @internal counter drop comment \"internal network: egress\"
		oifname @internal counter drop comment \"internal network: ingress\"
		ct state established,related accept
		oifname @networks counter drop comment \"unpublished port\"
		iifname @networks counter accept comment \"outgoing\"
";

/// Nobody outside knows the way to a container's address. What stays on its bridge keeps it.
const POSTROUTING: &str = "	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		ip saddr @masquerade4 oifname . ip saddr != @home4 counter masquerade
		ip6 saddr @masquerade6 oifname . ip6 saddr != @home6 counter masquerade
	}
";

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Set {
    /// Bridge and bridge again → what becomes of traffic within the network.
    Inside,
    /// Bridges of internal networks.
    Internal,
    /// All bridges.
    Networks,
    /// All subnets.
    Subnets(V),
    /// Each subnet with the bridge that it is at home on.
    Home(V),
    /// Subnets that leave under the host's address.
    Masquerade(V),
}

/// [`Family`], with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum V {
    Four,
    Six,
}

type Elements = BTreeMap<Set, BTreeSet<String>>;

const SETS: [Set; 9] = [
    Set::Inside,
    Set::Internal,
    Set::Networks,
    Set::Subnets(V::Four),
    Set::Subnets(V::Six),
    Set::Home(V::Four),
    Set::Home(V::Six),
    Set::Masquerade(V::Four),
    Set::Masquerade(V::Six),
];

impl V {
    const fn type_name(self) -> &'static str {
        match self {
            Self::Four => "ipv4_addr",
            Self::Six => "ipv6_addr",
        }
    }
}

impl Set {
    const fn name(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Internal => "internal",
            Self::Networks => "networks",
            Self::Subnets(V::Four) => "subnets4",
            Self::Subnets(V::Six) => "subnets6",
            Self::Home(V::Four) => "home4",
            Self::Home(V::Six) => "home6",
            Self::Masquerade(V::Four) => "masquerade4",
            Self::Masquerade(V::Six) => "masquerade6",
        }
    }

    fn declaration(self) -> String {
        let name = self.name();
        match self {
            Self::Inside => format!("\tmap {name} {{\n\t\ttype ifname . ifname : verdict\n\t}}\n"),
            Self::Internal | Self::Networks => format!("\tset {name} {{\n\t\ttype ifname\n\t}}\n"),
            Self::Subnets(v) | Self::Masquerade(v) => {
                format!("\tset {name} {{\n\t\ttype {}\n\t\tflags interval\n\t}}\n", v.type_name())
            }
            Self::Home(v) => {
                format!("\tset {name} {{\n\t\ttype ifname . {}\n\t\tflags interval\n\t}}\n", v.type_name())
            }
        }
    }
}

/// The transaction after which the table is what `facts` ask for, whatever it was before. Without a need for rules there
/// is no table.
pub fn replace(facts: &Facts) -> String {
    if facts.is_empty() {
        return remove();
    }
    let mut text = String::from(REMOVE);
    text.push_str("table inet portmap {\n");
    for set in SETS {
        text.push_str(&set.declaration());
    }
    text.push_str(GUARD);
    text.push_str(FORWARD);
    for (family, word) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        if facts.foreign(family) == Foreign::Drop {
            // Answers have passed above. Whoever wants this host to route more turns forwarding on himself.
            let _ = writeln!(text, "\t\tmeta nfproto {word} counter drop comment \"not ours\"");
        }
    }
    text.push_str("\t}\n");
    text.push_str(POSTROUTING);
    text.push_str("}\n");
    write_elements(&mut text, "add", &elements(facts));
    text
}

/// The transaction that turns the table of `before` into that of `after`; empty if there is nothing to do.
///
/// It fails, and changes nothing, if the table isn't what `before` asks for; [`replace`] is right then.
pub fn change(before: &Facts, after: &Facts) -> String {
    let same_rules =
        [Family::V4, Family::V6].iter().all(|family| before.foreign(*family) == after.foreign(*family));
    if before == after {
        return String::new();
    }
    if !same_rules || before.is_empty() || after.is_empty() {
        return replace(after);
    }
    let (old, new) = (elements(before), elements(after));
    let mut text = String::new();
    write_elements(&mut text, "delete", &minus(&old, &new));
    write_elements(&mut text, "add", &minus(&new, &old));
    text
}

/// The transaction that leaves nothing, whatever there was.
pub fn remove() -> String {
    REMOVE.to_owned()
}

fn elements(facts: &Facts) -> Elements {
    let mut all = Elements::new();
    let mut add = |set: Set, element: String| all.entry(set).or_default().insert(element);
    for network in facts.networks() {
        // Safe within quotes: that is what `IfName` is for.
        let bridge = format!("\"{}\"", network.bridge);
        let verdict = if network.icc { "accept" } else { "drop" };
        add(Set::Inside, format!("{bridge} . {bridge} : {verdict}"));
        add(Set::Networks, bridge.clone());
        if network.internal {
            add(Set::Internal, bridge.clone());
        }
        for (family, v) in [(Family::V4, V::Four), (Family::V6, V::Six)] {
            for subnet in network.subnets(family) {
                add(Set::Subnets(v), subnet.to_string());
                add(Set::Home(v), format!("{bridge} . {subnet}"));
                if network.is_masqueraded(family) {
                    add(Set::Masquerade(v), subnet.to_string());
                }
            }
        }
    }
    all
}

/// What `all` has and `others` hasn't.
fn minus(all: &Elements, others: &Elements) -> Elements {
    let none = BTreeSet::new();
    all.iter()
        .map(|(set, mine)| (*set, mine.difference(others.get(set).unwrap_or(&none)).cloned().collect()))
        .collect()
}

fn write_elements(text: &mut String, verb: &str, elements: &Elements) {
    for (set, elements) in elements.iter().filter(|(_, elements)| !elements.is_empty()) {
        let list: Vec<&str> = elements.iter().map(String::as_str).collect();
        let _ = writeln!(text, "{verb} element inet portmap {} {{ {} }}", set.name(), list.join(", "));
    }
}
