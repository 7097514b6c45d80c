//! Rules of others as `iptables-save` and `ip6tables-save` list them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::own::range;
use super::{Chain, Fits, Hook, Obstacle, Packet, Rule, Table, Verdict};

/// What drops a packet. Our own chains let pass what is published: whether they are complete is another question.
pub(in crate::daemon::explain) fn obstacles(
    listing: &str,
    command: &str,
    packet: &Packet<'_>,
) -> Vec<Obstacle> {
    let (tables, chain): (&[&str], _) = match packet.hook {
        Hook::Prerouting => (&["raw", "mangle"], "PREROUTING"),
        Hook::Input => (&["mangle", "filter"], "INPUT"),
        Hook::Forward => (&["mangle", "filter"], "FORWARD"),
    };
    let parsed = parse(listing, command, packet);
    tables.iter().filter_map(|table| parsed.get(*table)).flat_map(|table| table.obstacles(chain)).collect()
}

fn parse(listing: &str, command: &str, packet: &Packet<'_>) -> BTreeMap<String, Table> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let mut current = String::new();
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix('*') {
            current = name.to_owned();
            let named = format!("{name} of {command}");
            tables.insert(current.clone(), Table { name: named, ..Table::default() });
            continue;
        }
        let Some(table) = tables.get_mut(&current) else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let (name, policy) = (words.next().unwrap_or_default(), words.next());
            let policy = policy.filter(|policy| *policy == "DROP").map(|_| format!("-P {name} DROP"));
            table.chains.insert(name.to_owned(), Chain { policy, ..Chain::default() });
        } else if let Some(rule) = line.strip_prefix("-A ")
            && let Some((chain, text)) = rule.split_once(' ')
            && let Some(chain) = table.chains.get_mut(chain)
        {
            chain.rules.push(rule_of(line, text, packet));
        }
    }
    for table in tables.values_mut() {
        let names: Vec<String> = table.chains.keys().cloned().collect();
        for rule in table.chains.values_mut().flat_map(|chain| &mut chain.rules) {
            // A target that is no chain changes or counts the packet, and lets it go on.
            if let Verdict::Jump(to) | Verdict::Goto(to) = &rule.verdict {
                match to.as_str() {
                    "PORTMAP-FORWARD" => rule.verdict = Verdict::Accept,
                    "PORTMAP-USER" => {}
                    to if to.starts_with("PORTMAP-") || !names.iter().any(|name| name == to) => {
                        rule.verdict = Verdict::Next;
                    }
                    _ => {}
                }
            }
        }
        // What it accepts is what is published; the rest isn't asked about.
        for rule in table.chains.values_mut().flat_map(|chain| &mut chain.rules) {
            if rule.text.contains("-j PORTMAP-FORWARD") && packet.hook == Hook::Forward {
                rule.fits = Fits::Yes;
            }
        }
    }
    tables
}

fn rule_of(line: &str, text: &str, packet: &Packet<'_>) -> Rule {
    let words = split(text);
    let mut rest = words.iter().map(String::as_str).peekable();
    let (mut fits, mut verdict, mut negated) = (Fits::Yes, Verdict::Next, false);
    while let Some(word) = rest.next() {
        let mut value = || rest.next().unwrap_or_default();
        let one = match word {
            "!" => {
                negated = true;
                continue;
            }
            // Which extension the next options are of, what is said of the rule, and how a target does it.
            "-m" | "--comment" | "--reject-with" => {
                value();
                continue;
            }
            "-j" => {
                verdict = target(value());
                continue;
            }
            "-g" => {
                verdict = Verdict::Goto(value().to_owned());
                continue;
            }
            "-p" => {
                let proto = value();
                Fits::from(proto == "all" || proto.parse() == Ok(packet.proto))
            }
            "-d" => {
                let net = network(value());
                net.map_or(Fits::Maybe, |net| packet.goes_to(|to| net.contains(&to)))
            }
            "-i" => packet.comes_by(value()),
            "-o" => packet.leaves_by(value()),
            "--dport" => port(value(), packet.port),
            "--dports" => any(value(), |text| port(text, packet.port)),
            "--ctorigdstport" => port(value(), packet.first_port),
            "--ctstate" | "--state" => any(value(), |state| packet.is_in_state(state)),
            "--dst-type" => any(value(), |kind| match kind {
                "LOCAL" => Fits::from(packet.hook != Hook::Forward),
                "UNICAST" => Fits::from(packet.hook == Hook::Forward),
                _ => Fits::No,
            }),
            // Of options that aren't known here not even it is known whether they have a value.
            _ => Fits::Maybe,
        };
        fits = fits.min(one.negated_if(negated));
        negated = false;
    }
    Rule { fits, verdict, text: line.to_owned() }
}

fn target(name: &str) -> Verdict {
    match name {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        chain => Verdict::Jump(chain.to_owned()),
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn port(text: &str, port: u16) -> Fits {
    range(text).map_or(Fits::Maybe, |ports| Fits::from(ports.contains(port)))
}

fn any(list: &str, fits: impl Fn(&str) -> Fits) -> Fits {
    list.split(',').map(fits).max().unwrap_or(Fits::No)
}

/// Words, of which some are in quotes.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use netcore::publish::Proto;

    use super::*;

    fn check(rules: &str) -> Vec<(bool, String)> {
        let listing = format!(
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:PORTMAP-USER - [0:0]\n:PORTMAP-FORWARD - [0:0]\n{rules}\nCOMMIT\n"
        );
        let packet = Packet {
            hook: Hook::Forward,
            proto: Proto::Tcp,
            to: Some("172.17.0.2".parse().unwrap()),
            is_ipv6: false,
            port: 80,
            first_port: 8080,
            is_translated: true,
            by: None,
            bridge: "br-x",
        };
        obstacles(&listing, "iptables", &packet)
            .into_iter()
            .map(|found| (found.is_certain, found.rule))
            .collect()
    }

    #[test]
    fn what_drops_the_packet_is_found() {
        let certain = [
            "-A FORWARD -j DROP",
            "-A FORWARD -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable",
            "-A FORWARD -d 172.17.0.0/16 -o br-x -j DROP",
            "-A FORWARD -o br-+ -m comment --comment \"no -j ACCEPT here\" -j DROP",
            "-A FORWARD -m conntrack --ctstate NEW --ctorigdstport 8080 -j DROP",
            "-A FORWARD ! -i lo ! -o eth0 -j DROP",
            "-A FORWARD -p tcp -m multiport --dports 22,80:90 -j DROP",
            "-A FORWARD -p all -j DROP",
        ];
        for rule in certain {
            assert_eq!(check(rule), [(true, rule.to_owned())], "{rule}");
        }
        let possible = [
            "-A FORWARD -s 192.0.2.0/24 -j DROP",
            "-A FORWARD -i eth0 -j DROP",
            "-A FORWARD -m limit --limit 5/min -j DROP",
            "-A FORWARD ! -s 10.0.0.0/8 -o br-x -j DROP",
        ];
        for rule in possible {
            assert_eq!(check(rule), [(false, rule.to_owned())], "{rule}");
        }
        let others = [
            "-A FORWARD -p udp -j DROP",
            "-A FORWARD -p tcp -m tcp --dport 443 -j DROP",
            "-A FORWARD -o eth0 -j DROP",
            "-A FORWARD -i lo -j DROP",
            "-A FORWARD -i br-x -j DROP",
            "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
            "-A FORWARD -m conntrack ! --ctstate DNAT -j DROP",
            "-A FORWARD -m addrtype --dst-type LOCAL -j DROP",
            "-A INPUT -j DROP",
            "-A FORWARD -j LOG",
            "",
        ];
        for rule in others {
            assert_eq!(check(rule), [], "{rule}");
        }
    }

    #[test]
    fn rules_are_followed_in_their_order() {
        let user = "-A FORWARD -j PORTMAP-USER\n-A FORWARD -j PORTMAP-FORWARD\n-A PORTMAP-USER";
        assert_eq!(
            check(&format!("{user} -o br-x -j DROP")),
            [(true, "-A PORTMAP-USER -o br-x -j DROP".to_owned())]
        );
        assert_eq!(check(&format!("{user} -j RETURN\n-A PORTMAP-USER -j DROP")), []);
        assert_eq!(check(&format!("{user} -j ACCEPT\n-A FORWARD -j DROP")), []);
        assert_eq!(
            check("-A FORWARD -j PORTMAP-FORWARD\n-A FORWARD -j DROP"),
            [],
            "what comes behind ours isn't reached"
        );
        // Somebody else's accept that only some packets meet makes the drop behind it less than sure.
        let some = check("-A FORWARD -i eth0 -j ACCEPT\n-A FORWARD -j DROP");
        assert_eq!(some, [(false, "-A FORWARD -j DROP".to_owned())]);
        // A drop that only some packets meet leaves the next one sure.
        let both = check("-A FORWARD -i eth0 -j DROP\n-A FORWARD -j DROP");
        assert_eq!(both.iter().map(|(is_certain, _)| *is_certain).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_policy_drops_what_no_rule_lets_pass() {
        let packet = Packet {
            hook: Hook::Forward,
            proto: Proto::Udp,
            to: None,
            is_ipv6: false,
            port: 53,
            first_port: 53,
            is_translated: true,
            by: None,
            bridge: "br-x",
        };
        let found = obstacles("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n", "iptables", &packet);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].place.as_str(), found[0].rule.as_str()),
            ("table filter of iptables, chain FORWARD", "-P FORWARD DROP")
        );
        let circle = "*filter\n:FORWARD ACCEPT [0:0]\n:A - [0:0]\n-A FORWARD -j A\n-A A -j A\nCOMMIT\n";
        assert_eq!(obstacles(circle, "iptables", &packet), []);
    }
}
