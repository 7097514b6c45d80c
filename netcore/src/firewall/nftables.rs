//! Rules as text for `nft -f -`: the table `inet portmap`.
//!
//! The rules are always the same; networks and ports are elements of sets, so that the way of a packet doesn't get longer
//! with each, and a change costs what changed. One call of nft is one transaction: old or new, nothing between.
//!
//! An `accept` here only ends our own chain: the host's other tables have their say too, and a `drop` of theirs is
//! final, as ours is. An administrator's own rules go into a table of his own; with a priority below 0 in the forward
//! hook, below -150 in prerouting, they come before ours.
//!
//! Needs nft 1.0 and Linux 5.6 (sets of an interface and an address range).
//!
//! Not here: which sets there are and what is in them (`sets`).

mod sets;

use std::fmt::Write;

use super::facts::{Facts, Family, Foreign};
use sets::{Elements, Set};

/// Removes the table, whether it is there or not.
const REMOVE: &str = "add table inet portmap\ndelete table inet portmap\n";

/// Before anything else: packets for a loopback address that come from elsewhere, which translation would let in; and
/// packets for a container's address that come by another way than its bridge.
///
/// At -150 connections are tracked, but no address is translated yet: so answers pass (also those to networks without
/// masquerading), and packets for a published port still carry the host's address.
const GUARD: &str = "	chain guard {
		type filter hook prerouting priority -150; policy accept;
		ip daddr 127.0.0.0/8 iifname != \"lo\" counter drop comment \"remote loopback\"
		ct state established,related accept
		ip daddr @guarded4 iifname . ip daddr != @entry4 fib daddr type != local counter drop comment \"direct access\"
		ip6 daddr @guarded6 iifname . ip6 daddr != @entry6 fib daddr type != local counter drop comment \"direct access\"
	}
";

/// Packets to the host itself. Those of its own processes to a loopback address are a proxy's, if there is one; IPv6 has
/// no way to route them.
const PREROUTING: &str = "	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		meta nfproto ipv4 fib daddr type local jump published4
		meta nfproto ipv6 ip6 saddr != fe80::/10 fib daddr type local jump published6
	}
";

/// An exact address comes before any.
const PUBLISHED: &str = "		dnat $ip to $ip daddr . meta l4proto . th dport map @dnat$v
		dnat $ip to meta l4proto . th dport map @dnat_any$v
		dnat $ip to $ip daddr . meta l4proto . th dport map @dnat_range$v
		dnat $ip to meta l4proto . th dport map @dnat_any_range$v
	}
";

/// Clients on the target's own network: their answers wouldn't come back this way. They are a proxy's.
const OWN: &str = "		iifname . $ip daddr . meta l4proto . th dport @own$v return
		iifname . meta l4proto . th dport @own_any$v return
		iifname . $ip daddr . meta l4proto . th dport @own_range$v return
		iifname . meta l4proto . th dport @own_any_range$v return
";

/// In this order: a verdict on the same network's traffic; no way around the fence of an internal network, not even for
/// connections older than it; answers; what enters a network; the rest may leave.
const FORWARD: &str = "	chain forward {
		type filter hook forward priority 0; policy accept;
		iifname . oifname vmap @inside
		iifname @internal counter drop comment \"internal network: egress\"
		oifname @internal counter drop comment \"internal network: ingress\"
		ct state established,related accept
		oifname @networks goto enter
		iifname @networks counter accept comment \"outgoing\"
";

/// What isn't published stays outside, unless the network's mode lets it in.
const ENTER: &str = "		meta nfproto ipv4 oifname vmap @modes4
		meta nfproto ipv6 oifname vmap @modes6
		jump open
		counter drop comment \"unpublished port\"
	}
";

/// Within a network whose containers are kept apart: answers, what a link opens, and what came to one of them through a
/// port of the host. The first packets of anything else never pass, so there are no answers to it. In IPv6, neighbours find
/// each other by packets that come here.
const APART: &str = "		ct direction reply ct state established,related accept
		ip saddr . ip daddr . meta l4proto . th dport @link4 accept
		ip saddr . ip daddr . meta l4proto . th dport @link_range4 accept
		ip6 saddr . ip6 daddr . meta l4proto . th dport @link6 accept
		ip6 saddr . ip6 daddr . meta l4proto . th dport @link_range6 accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		ct status dnat ct state established,related accept
		ct status dnat jump open
		counter drop comment \"icc off\"
	}
";

const OPEN: &str = "	chain ping {
		meta l4proto { icmp, ipv6-icmp } counter accept comment \"routed\"
	}
	chain open {
		ip daddr . meta l4proto . th dport @open4 accept
		ip daddr . meta l4proto . th dport @open_range4 accept
		ip6 daddr . meta l4proto . th dport @open6 accept
		ip6 daddr . meta l4proto . th dport @open_range6 accept
	}
";

/// Without a proxy: a container can't answer a loopback address, and its answer to a neighbour on its network, or to
/// itself, wouldn't come back this way.
const HAIRPIN: &str = "		ip saddr 127.0.0.0/8 oifname @networks counter masquerade comment \"from loopback\"
		oifname . ip saddr @home4 ct status dnat counter masquerade comment \"own network\"
		oifname . ip6 saddr @home6 ct status dnat counter masquerade comment \"own network\"
";

/// Nobody outside knows the way to a container's address. What stays on its bridge keeps it.
const POSTROUTING: &str = "		oifname . ip saddr != @home4 snat ip to ip saddr map @source4
		oifname . ip6 saddr != @home6 snat ip6 to ip6 saddr map @source6
		ip saddr @masquerade4 oifname . ip saddr != @home4 counter masquerade
		ip6 saddr @masquerade6 oifname . ip6 saddr != @home6 counter masquerade
	}
";

/// The transaction after which the table is what `facts` ask for, whatever it was before. Without a need for rules there
/// is no table.
pub fn replace(facts: &Facts) -> String {
    if facts.is_empty() {
        return remove();
    }
    let mut text = String::from(REMOVE);
    text.push_str("table inet portmap {\n");
    for set in Set::all() {
        text.push_str(&set.declaration());
    }
    text.push_str(GUARD);
    write_published(&mut text, facts);
    write_forward(&mut text, facts);
    text.push_str("\tchain postrouting {\n\t\ttype nat hook postrouting priority 100; policy accept;\n");
    if !facts.host().userland_proxy {
        text.push_str(HAIRPIN);
    }
    text.push_str(POSTROUTING);
    text.push_str("}\n");
    let mut all = Elements::default();
    all.add_networks(facts, facts.networks());
    all.add_ports(&facts.port_rules());
    all.write(&mut text, "add");
    text
}

/// The transaction that turns the table of `before` into that of `after`; empty if there is nothing to do.
///
/// It fails, and changes nothing, if the table isn't what `before` asks for; [`replace`] is right then.
pub fn change(before: &Facts, after: &Facts) -> String {
    if before == after {
        return String::new();
    }
    if before.host() != after.host() || before.is_empty() || after.is_empty() {
        return replace(after);
    }
    // Of networks and endpoints that stay as they are nothing is written, so that a change costs what changed.
    let (mut gone, mut new) = (Elements::default(), Elements::default());
    gone.add_networks(before, before.without(after));
    new.add_networks(after, after.without(before));
    let (mut gone, mut new) = (gone.minus(&new), new.minus(&gone));
    let ports = before.port_change(after);
    gone.add_ports(&ports.gone);
    new.add_ports(&ports.new);
    let mut text = String::new();
    gone.write(&mut text, "delete");
    new.write(&mut text, "add");
    text
}

/// The transaction that leaves nothing, whatever there was.
pub fn remove() -> String {
    REMOVE.to_owned()
}

fn write_published(text: &mut String, facts: &Facts) {
    let proxy = facts.host().userland_proxy;
    text.push_str(PREROUTING);
    text.push_str("\tchain output {\n\t\ttype nat hook output priority -100; policy accept;\n");
    if proxy {
        text.push_str("\t\tip daddr 127.0.0.0/8 return\n");
    }
    text.push_str("\t\tip6 daddr ::1 return\n");
    text.push_str("\t\tmeta nfproto ipv4 fib daddr type local jump published4\n");
    text.push_str("\t\tmeta nfproto ipv6 ip6 saddr != fe80::/10 fib daddr type local jump published6\n\t}\n");
    let own = if proxy { OWN } else { "" };
    for (version, ip) in [("4", "ip"), ("6", "ip6")] {
        let rules = format!("\tchain published$v {{\n{own}{PUBLISHED}");
        text.push_str(&rules.replace("$v", version).replace("$ip", ip));
    }
}

fn write_forward(text: &mut String, facts: &Facts) {
    text.push_str(FORWARD);
    for (family, word) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        if facts.foreign(family) == Foreign::Drop {
            // Answers have passed above. Whoever wants this host to route more turns forwarding on himself.
            let _ = writeln!(text, "\t\tmeta nfproto {word} counter drop comment \"not ours\"");
        }
    }
    text.push_str("\t}\n");
    let marked = facts.host().accept_mark.map_or_else(String::new, |mark| {
        let (mask, value) = (mark.mask, mark.value);
        format!("\t\tmeta mark and {mask:#010x} == {value:#010x} counter accept comment \"marked\"\n")
    });
    let _ = write!(text, "\tchain enter {{\n{marked}{ENTER}\tchain apart {{\n{marked}{APART}{OPEN}");
}
