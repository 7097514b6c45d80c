//! Rules of others as `nft -j list ruleset` lists them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netcore::publish::PortRange;
use serde_json::Value;

use super::{Chain, Fits, Hook, Obstacle, Packet, Rule, Table, Verdict};

/// Names of the tables in which iptables-nft keeps its rules: those are read as iptables has them.
const OF_IPTABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// What drops a packet, in tables that are neither ours nor those of iptables.
pub(in crate::daemon::explain) fn obstacles(
    listing: &str,
    packet: &Packet<'_>,
) -> Result<Vec<Obstacle>, String> {
    let parsed: Value =
        serde_json::from_str(listing).map_err(|error| format!("nft's listing isn't JSON: {error}"))?;
    let objects: Vec<&Value> = parsed["nftables"].as_array().into_iter().flatten().collect();
    let sets = sets(&objects);
    let mut tables: BTreeMap<(String, String), (Table, Vec<String>)> = BTreeMap::new();
    for object in &objects {
        let Some(chain) = object.get("chain") else { continue };
        let Some(key) = key(chain, packet) else { continue };
        let (table, bases) = tables.entry(key.clone()).or_insert_with(|| {
            (Table { name: format!("{} {}", key.0, key.1), ..Table::default() }, Vec::new())
        });
        let name = text(chain, "name");
        if chain["type"] == "filter" && chain["hook"] == hook(packet.hook) {
            bases.push(name.clone());
        }
        let policy = (chain["policy"] == "drop").then(|| "policy drop".to_owned());
        table.chains.insert(name, Chain { policy, ..Chain::default() });
    }
    for object in &objects {
        let Some(rule) = object.get("rule") else { continue };
        let Some(key) = key(rule, packet) else { continue };
        let chain = tables.get_mut(&key).and_then(|(table, _)| table.chains.get_mut(&text(rule, "chain")));
        let (Some(chain), Some(expressions)) = (chain, rule["expr"].as_array()) else { continue };
        chain.rules.push(rule_of(expressions, &key, &sets, packet));
    }
    Ok(tables
        .values()
        .flat_map(|(table, bases)| bases.iter().flat_map(|chain| table.obstacles(chain)))
        .collect())
}

type Sets<'a> = BTreeMap<(String, String, String), &'a Value>;

fn sets<'a>(objects: &[&'a Value]) -> Sets<'a> {
    let of = |object: &&'a Value| {
        let set = object.get("set")?;
        Some(((text(set, "family"), text(set, "table"), text(set, "name")), set.get("elem")?))
    };
    objects.iter().filter_map(of).collect()
}

/// Family and name of the table of a chain or rule that the packet may come to.
fn key(object: &Value, packet: &Packet<'_>) -> Option<(String, String)> {
    let (family, table) = (text(object, "family"), text(object, "table"));
    let is_its_family = match family.as_str() {
        "inet" => true,
        "ip" => !packet.is_ipv6,
        "ip6" => packet.is_ipv6,
        _ => false,
    };
    let is_ours = family == "inet" && table == "portmap";
    let is_of_iptables = family != "inet" && OF_IPTABLES.contains(&table.as_str());
    (is_its_family && !is_ours && !is_of_iptables).then_some((family, table))
}

const fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
    }
}

fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

fn rule_of(expressions: &[Value], key: &(String, String), sets: &Sets<'_>, packet: &Packet<'_>) -> Rule {
    let (mut fits, mut verdict, mut words) = (Fits::Yes, Verdict::Next, Vec::new());
    for expression in expressions {
        let Some((name, value)) = expression.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        match name.as_str() {
            "match" => {
                fits = fits.min(matches(value, key, sets, packet));
                words.push(shown(value));
            }
            "accept" => verdict = Verdict::Accept,
            "drop" | "reject" => verdict = Verdict::Drop,
            "return" => verdict = Verdict::Return,
            "jump" => verdict = Verdict::Jump(text(value, "target")),
            "goto" => verdict = Verdict::Goto(text(value, "target")),
            "counter" | "log" | "comment" | "mangle" | "notrack" | "ct helper" => continue,
            // What isn't known here may be about it or not.
            _ => fits = fits.min(Fits::Maybe),
        }
        if name != "match" {
            words.push(name.clone());
        }
    }
    Rule { fits, verdict, text: words.join(" ") }
}

fn matches(value: &Value, key: &(String, String), sets: &Sets<'_>, packet: &Packet<'_>) -> Fits {
    let negated = match value["op"].as_str() {
        Some("==" | "in") => false,
        Some("!=") => true,
        _ => return Fits::Maybe,
    };
    let right = &value["right"];
    let named = right.as_str().and_then(|name| name.strip_prefix('@'));
    let set = named.map(|name| sets.get(&(key.0.clone(), key.1.clone(), name.to_owned())));
    let values: Vec<&Value> = match (set, right.get("set")) {
        (Some(None), _) => return Fits::Maybe,
        (Some(Some(Value::Array(elements))), _) | (None, Some(Value::Array(elements))) => {
            elements.iter().collect()
        }
        (None, None) => match right {
            Value::Array(all) => all.iter().collect(),
            one => vec![one],
        },
        _ => return Fits::Maybe,
    };
    let left = &value["left"];
    let fits = values.into_iter().map(|right| compare(left, right, packet)).max().unwrap_or(Fits::No);
    fits.negated_if(negated)
}

/// Whether a packet's part is this value.
fn compare(left: &Value, right: &Value, packet: &Packet<'_>) -> Fits {
    // An element with a counter or a time-out.
    let right = right.get("elem").map_or(right, |element| &element["val"]);
    let word = || right.as_str().unwrap_or_default();
    let payload = &left["payload"];
    match (payload["protocol"].as_str(), payload["field"].as_str()) {
        (Some("th"), Some("dport")) => return port(right, packet.port),
        (Some(proto @ ("tcp" | "udp" | "sctp")), Some(field)) => {
            return if proto != packet.proto.name() {
                Fits::No
            } else if field == "dport" {
                port(right, packet.port)
            } else {
                Fits::Maybe
            };
        }
        (Some("ip"), _) if packet.is_ipv6 => return Fits::No,
        (Some("ip6"), _) if !packet.is_ipv6 => return Fits::No,
        (Some("ip" | "ip6"), Some("daddr")) => {
            return address(right).map_or(Fits::Maybe, |net| packet.goes_to(|to| net.contains(&to)));
        }
        (Some("ip"), Some("protocol")) | (Some("ip6"), Some("nexthdr")) => return proto(right, packet),
        (Some("icmp" | "icmpv6"), _) => return Fits::No,
        _ => {}
    }
    if left["ct"]["key"] == "state" || left["ct"]["key"] == "status" {
        return packet.is_in_state(word());
    }
    if left["ct"]["key"] == "proto-dst" && left["ct"]["dir"] == "original" {
        return port(right, packet.first_port);
    }
    match left["meta"]["key"].as_str() {
        Some("iif" | "iifname") => packet.comes_by(word()),
        Some("oif" | "oifname") => packet.leaves_by(word()),
        Some("l4proto") => proto(right, packet),
        Some("nfproto") => Fits::from((word() == "ipv6") == packet.is_ipv6),
        _ if left["fib"]["result"] == "type" && left["fib"]["flags"] == serde_json::json!(["daddr"]) => {
            Fits::from((word() == "local") == (packet.hook != Hook::Forward))
        }
        _ => Fits::Maybe,
    }
}

fn proto(right: &Value, packet: &Packet<'_>) -> Fits {
    let is_it = match right.as_str() {
        Some(name) => name == packet.proto.name(),
        None => right.as_u64() == Some(number(packet)),
    };
    Fits::from(is_it)
}

const fn number(packet: &Packet<'_>) -> u64 {
    match packet.proto {
        netcore::publish::Proto::Tcp => 6,
        netcore::publish::Proto::Udp => 17,
        netcore::publish::Proto::Sctp => 132,
    }
}

fn port(right: &Value, port: u16) -> Fits {
    let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
    if let Some(one) = number(right) {
        return Fits::from(one == port);
    }
    match right["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => match (number(first), number(last)) {
            (Some(first), Some(last)) => {
                Fits::from(PortRange::new(first, last).is_ok_and(|ports| ports.contains(port)))
            }
            _ => Fits::Maybe,
        },
        _ => Fits::Maybe,
    }
}

fn address(right: &Value) -> Option<IpNet> {
    let prefix = &right["prefix"];
    if let (Some(address), Some(length)) = (prefix["addr"].as_str(), prefix["len"].as_u64()) {
        return IpNet::new(address.parse().ok()?, u8::try_from(length).ok()?).ok();
    }
    right.as_str()?.parse::<IpAddr>().ok().map(IpNet::from)
}

/// A comparison, about as nft writes it.
fn shown(value: &Value) -> String {
    let left = &value["left"];
    let name = if left["payload"].is_object() {
        format!("{} {}", text(&left["payload"], "protocol"), text(&left["payload"], "field"))
    } else if left["meta"].is_object() {
        text(&left["meta"], "key")
    } else if left["ct"].is_object() {
        format!("ct {}", text(&left["ct"], "key"))
    } else {
        "(…)".to_owned()
    };
    let op = if value["op"] == "!=" { "!= " } else { "" };
    format!("{name} {op}{}", operand(&value["right"]))
}

fn operand(value: &Value) -> String {
    let list = |all: &Vec<Value>| all.iter().map(operand).collect::<Vec<_>>().join(", ");
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => list(all),
        Value::Object(object) => match object.iter().next().map(|(name, value)| (name.as_str(), value)) {
            Some(("set", Value::Array(all))) => format!("{{ {} }}", list(all)),
            Some(("range", Value::Array(ends))) => ends.iter().map(operand).collect::<Vec<_>>().join("-"),
            _ if value["prefix"].is_object() => {
                format!("{}/{}", operand(&value["prefix"]["addr"]), value["prefix"]["len"])
            }
            _ => "…".to_owned(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use netcore::publish::Proto;
    use serde_json::json;

    use super::*;

    const PACKET: Packet<'_> = Packet {
        hook: Hook::Forward,
        proto: Proto::Tcp,
        to: Some(IpAddr::V4(std::net::Ipv4Addr::new(172, 17, 0, 2))),
        is_ipv6: false,
        port: 80,
        first_port: 8080,
        is_translated: true,
        by: None,
        bridge: "br-x",
    };

    fn listing(table: (&str, &str), policy: &str, rules: &[Value]) -> String {
        let (family, table) = table;
        let chain = json!({"chain": {"family": family, "table": table, "name": "f", "type": "filter", "hook": "forward", "policy": policy}});
        let set = json!({"set": {"family": family, "table": table, "name": "ports", "elem": [22, {"range": [80, 90]}]}});
        let rule =
            |expr: &Value| json!({"rule": {"family": family, "table": table, "chain": "f", "expr": expr}});
        let all: Vec<Value> = [chain, set].into_iter().chain(rules.iter().map(rule)).collect();
        json!({ "nftables": all }).to_string()
    }

    fn dropping(left: Value, op: &str, right: Value) -> Value {
        json!([{"match": {"op": op, "left": left, "right": right}}, {"counter": {"packets": 0}}, {"drop": null}])
    }

    fn check(rule: &Value) -> Vec<(bool, String)> {
        let found =
            obstacles(&listing(("inet", "admin"), "accept", std::slice::from_ref(rule)), &PACKET).unwrap();
        found.into_iter().map(|obstacle| (obstacle.is_certain, obstacle.rule)).collect()
    }

    #[test]
    fn what_drops_the_packet_is_found() {
        let payload =
            |protocol: &str, field: &str| json!({"payload": {"protocol": protocol, "field": field}});
        let meta = |key: &str| json!({"meta": {"key": key}});
        let ct = |key: &str| json!({"ct": {"key": key}});
        let cases = [
            (payload("tcp", "dport"), "==", json!(80), Some((true, "tcp dport 80 drop"))),
            (
                payload("tcp", "dport"),
                "==",
                json!({"set": [22, {"range": [80, 90]}]}),
                Some((true, "tcp dport { 22, 80-90 } drop")),
            ),
            (payload("tcp", "dport"), "==", json!("@ports"), Some((true, "tcp dport @ports drop"))),
            (payload("tcp", "dport"), "!=", json!(22), Some((true, "tcp dport != 22 drop"))),
            (payload("tcp", "dport"), "==", json!(8080), None),
            (payload("tcp", "dport"), "==", json!("@gone"), Some((false, "tcp dport @gone drop"))),
            (payload("udp", "dport"), "==", json!(80), None),
            (payload("th", "dport"), "==", json!(80), Some((true, "th dport 80 drop"))),
            (payload("tcp", "sport"), "==", json!(80), Some((false, "tcp sport 80 drop"))),
            (
                payload("ip", "daddr"),
                "==",
                json!({"prefix": {"addr": "172.17.0.0", "len": 16}}),
                Some((true, "ip daddr 172.17.0.0/16 drop")),
            ),
            (payload("ip", "daddr"), "==", json!("172.17.0.3"), None),
            (payload("ip6", "daddr"), "==", json!("fd00::2"), None),
            (payload("ip", "saddr"), "!=", json!("192.0.2.9"), Some((false, "ip saddr != 192.0.2.9 drop"))),
            (meta("oifname"), "==", json!("br-*"), Some((true, "oifname br-* drop"))),
            (meta("iifname"), "==", json!("lo"), None),
            (meta("iifname"), "!=", json!("lo"), Some((true, "iifname != lo drop"))),
            (meta("iifname"), "==", json!("eth0"), Some((false, "iifname eth0 drop"))),
            (meta("l4proto"), "==", json!("tcp"), Some((true, "l4proto tcp drop"))),
            (meta("l4proto"), "==", json!(17), None),
            (meta("nfproto"), "==", json!("ipv6"), None),
            (ct("state"), "in", json!(["established", "related"]), None),
            (ct("state"), "in", json!("new"), Some((true, "ct state new drop"))),
            (ct("mark"), "==", json!(1), Some((false, "ct mark 1 drop"))),
        ];
        for (left, op, right, want) in cases {
            let rule = dropping(left, op, right);
            let want: Vec<_> =
                want.into_iter().map(|(is_certain, text)| (is_certain, text.to_owned())).collect();
            assert_eq!(check(&rule), want, "{rule}");
        }
        assert_eq!(
            check(&json!([{"limit": {"rate": 1}}, {"drop": null}])),
            [(false, "limit drop".to_owned())]
        );
        assert_eq!(check(&json!([{"reject": {"type": "tcp reset"}}])), [(true, "reject".to_owned())]);
    }

    #[test]
    fn policies_count_and_our_own_table_and_that_of_iptables_do_not() {
        let found = |table, policy| obstacles(&listing(table, policy, &[]), &PACKET).unwrap();
        let policy = &found(("inet", "admin"), "drop")[0];
        assert_eq!(
            (policy.place.as_str(), policy.rule.as_str(), policy.is_certain),
            ("table inet admin, chain f", "policy drop", true)
        );
        assert_eq!(found(("ip", "admin"), "drop").len(), 1);
        for (table, policy) in [
            (("inet", "admin"), "accept"),
            (("ip6", "admin"), "drop"),
            (("bridge", "admin"), "drop"),
            (("ip", "filter"), "drop"),
            (("inet", "portmap"), "drop"),
        ] {
            assert_eq!(found(table, policy), [], "{table:?}");
        }
        let accepted = json!([{"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, {"accept": null}]);
        assert_eq!(obstacles(&listing(("inet", "admin"), "drop", &[accepted]), &PACKET).unwrap(), []);
        assert!(obstacles("", &PACKET).is_err());
        assert_eq!(obstacles("{}", &PACKET).unwrap(), []);
    }
}
