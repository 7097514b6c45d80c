//! What leads a sandbox's port 53 of 127.0.0.11 to its embedded server, as iptables has it. With nftables the same rules go
//! to the kernel without a tool, which a sandbox's start would wait for (`kernel::resolver`).
//!
//! Nothing listens on port 53 itself, so the sandbox may.

use std::fmt::Write;

use crate::names::resolv_conf::EMBEDDED;

use super::tools::{HostTools, ToolError, Tools};

/// Where the embedded server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamePorts {
    pub(crate) udp: u16,
    pub(crate) tcp: u16,
}

const CHAINS: [(&str, &str); 2] = [("OUTPUT", "PORTMAP_OUTPUT"), ("POSTROUTING", "PORTMAP_POSTROUTING")];

/// Loads the rules in the calling thread's network namespace, in the place of earlier ones.
pub(crate) fn load_iptables(ports: NamePorts) -> Result<(), ToolError> {
    let mut tools = HostTools;
    // A sandbox that starts has none, and then one process is enough.
    if restore(&mut tools, &first(ports)).is_ok() {
        return Ok(());
    }
    let saved = tools.run("iptables-save", &["-t", "nat"], "")?;
    restore(&mut tools, &again(ports, &saved))
}

/// Removes what [`load_iptables`] left.
pub(crate) fn remove_iptables() -> Result<(), ToolError> {
    let mut tools = HostTools;
    let saved = tools.run("iptables-save", &["-t", "nat"], "")?;
    let removal = removal(&saved);
    if removal.is_empty() { Ok(()) } else { restore(&mut tools, &removal) }
}

fn restore(tools: &mut HostTools, input: &str) -> Result<(), ToolError> {
    tools.run("iptables-restore", &["-w", "5", "--noflush"], input).map(drop)
}

/// Rules for where there are none of ours: refused as a whole if a chain is there.
fn first(ports: NamePorts) -> String {
    let mut text = "*nat\n".to_owned();
    for (_, chain) in CHAINS {
        line(&mut text, format_args!("-N {chain}"));
    }
    rules(&mut text, ports);
    for (from, chain) in CHAINS {
        line(&mut text, format_args!("-I {from} {}", jump(chain)));
    }
    text + "COMMIT\n"
}

/// Rules in the place of earlier ones. `saved` is what `iptables-save` says of the table.
fn again(ports: NamePorts, saved: &str) -> String {
    let mut text = "*nat\n".to_owned();
    for (_, chain) in CHAINS {
        line(&mut text, format_args!(":{chain} - [0:0]"));
    }
    rules(&mut text, ports);
    for (from, chain) in CHAINS.into_iter().filter(|(from, chain)| !jumps(saved, from, chain)) {
        line(&mut text, format_args!("-I {from} {}", jump(chain)));
    }
    text + "COMMIT\n"
}

/// Nothing if there is nothing of ours.
fn removal(saved: &str) -> String {
    let mut text = String::new();
    for (from, chain) in CHAINS {
        if jumps(saved, from, chain) {
            line(&mut text, format_args!("-D {from} {}", jump(chain)));
        }
        if saved.lines().any(|line| line.split_whitespace().next() == Some(&format!(":{chain}"))) {
            line(&mut text, format_args!("-F {chain}"));
            line(&mut text, format_args!("-X {chain}"));
        }
    }
    if text.is_empty() { text } else { format!("*nat\n{text}COMMIT\n") }
}

fn jump(chain: &str) -> String {
    format!("-d {EMBEDDED}/32 -j {chain}")
}

fn jumps(saved: &str, from: &str, chain: &str) -> bool {
    let rule = format!("-A {from} {}", jump(chain));
    saved.lines().any(|line| line.trim_end() == rule)
}

fn rules(text: &mut String, ports: NamePorts) {
    let [(_, output), (_, postrouting)] = CHAINS;
    let protocols = [("udp", ports.udp), ("tcp", ports.tcp)];
    for (proto, port) in protocols {
        let to = format!("-j DNAT --to-destination {EMBEDDED}:{port}");
        line(text, format_args!("-A {output} -d {EMBEDDED}/32 -p {proto} -m {proto} --dport 53 {to}"));
    }
    for (proto, port) in protocols {
        let to = "-j SNAT --to-source :53";
        line(
            text,
            format_args!("-A {postrouting} -s {EMBEDDED}/32 -p {proto} -m {proto} --sport {port} {to}"),
        );
    }
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = writeln!(text, "{words}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: NamePorts = NamePorts { udp: 40001, tcp: 40002 };
    const RULES: &str = "\
-A PORTMAP_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:40001
-A PORTMAP_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:40002
-A PORTMAP_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport 40001 -j SNAT --to-source :53
-A PORTMAP_POSTROUTING -s 127.0.0.11/32 -p tcp -m tcp --sport 40002 -j SNAT --to-source :53
";
    const OUTPUT: &str = "OUTPUT -d 127.0.0.11/32 -j PORTMAP_OUTPUT\n";
    const POSTROUTING: &str = "POSTROUTING -d 127.0.0.11/32 -j PORTMAP_POSTROUTING\n";

    #[test]
    fn the_first_rules_need_no_look_at_what_is_there() {
        let chains = "-N PORTMAP_OUTPUT\n-N PORTMAP_POSTROUTING\n";
        assert_eq!(first(PORTS), format!("*nat\n{chains}{RULES}-I {OUTPUT}-I {POSTROUTING}COMMIT\n"));
    }

    #[test]
    fn later_ones_take_the_place_of_the_earlier_and_double_no_jump() {
        let chains = ":PORTMAP_OUTPUT - [0:0]\n:PORTMAP_POSTROUTING - [0:0]\n";
        let with = |jumps: &str| format!("*nat\n{chains}{RULES}{jumps}COMMIT\n");
        assert_eq!(again(PORTS, &format!("-A {OUTPUT}-A {POSTROUTING}")), with(""));
        // Somebody removed one of them.
        assert_eq!(again(PORTS, &format!("-A {OUTPUT}")), with(&format!("-I {POSTROUTING}")));
        assert_eq!(again(PORTS, ""), with(&format!("-I {OUTPUT}-I {POSTROUTING}")));
    }

    #[test]
    fn a_removal_leaves_other_rules_alone() {
        assert_eq!(removal("*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -d 10.0.0.1/32 -j ACCEPT\nCOMMIT\n"), "");
        let saved = format!("*nat\n:PORTMAP_OUTPUT - [0:0]\n-A {OUTPUT}COMMIT\n");
        assert_eq!(
            removal(&saved),
            format!("*nat\n-D {OUTPUT}-F PORTMAP_OUTPUT\n-X PORTMAP_OUTPUT\nCOMMIT\n")
        );
    }
}
