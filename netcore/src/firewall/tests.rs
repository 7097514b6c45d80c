//! Golden files of both renderers, properties of every text they render, reading `iptables-save`, and [`Firewall`] with
//! tools that are none. `UPDATE_GOLDEN=1` rewrites the files.

mod links;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::iptables::{self, Present};
use super::tools::run;
use super::*;
use crate::model::{EndpointId, IfName, Publication};
use crate::publish::{PortRange, Proto};

fn network(name: &str, v4: &str) -> BridgeNetwork {
    let mut network = BridgeNetwork::new(name.parse().unwrap());
    network.ipv4.push(v4.parse().unwrap());
    network
}

fn one() -> BridgeNetwork {
    network("br-a", "172.17.0.0/16")
}

fn facts(networks: impl IntoIterator<Item = BridgeNetwork>) -> Facts {
    Facts::new(networks, [], HostFacts::default()).unwrap()
}

fn foreign(foreign_v4: Foreign, foreign_v6: Foreign) -> HostFacts {
    HostFacts { foreign_v4, foreign_v6, ..HostFacts::default() }
}

fn two() -> Facts {
    let mut internal = network_of_two();
    internal.internal = true;
    internal.icc = false;
    internal.ipv6.push("fd00:2::/64".parse().unwrap());
    Facts::new([one(), internal], [], foreign(Foreign::Drop, Foreign::Leave)).unwrap()
}

fn fresh(facts: &Facts, family: Family) -> String {
    iptables::replace(&Facts::default(), facts, family, &Present::default())
}

fn check(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/firewall/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, got).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(want == got, "{name} differs (UPDATE_GOLDEN=1 accepts)\n- want\n{want}\n- got\n{got}");
}

#[test]
fn rules_are_as_reviewed() {
    let with = |set: fn(&mut BridgeNetwork)| {
        let mut network = one();
        set(&mut network);
        facts([network])
    };
    let cases = [
        ("one", facts([one()])),
        ("two", two()),
        ("no_masquerade", with(|network| network.masquerade = false)),
        ("routed", with(|network| network.gateway_mode4 = GatewayMode::Routed)),
        ("icc_off", with(|network| network.icc = false)),
        ("internal", with(|network| network.internal = true)),
        ("v6", with(|network| network.ipv6.push("fd00:1::/64".parse().unwrap()))),
        ("none_left", facts([])),
        ("none_left_closed", Facts::new([], [], foreign(Foreign::Drop, Foreign::Drop)).unwrap()),
    ];
    for (name, facts) in cases {
        check(&format!("{name}.nft"), &nftables::replace(&facts));
        check(&format!("{name}.v4"), &fresh(&facts, Family::V4));
        check(&format!("{name}.v6"), &fresh(&facts, Family::V6));
    }
}

fn id(number: u8) -> EndpointId {
    EndpointId::from_random([number; 32])
}

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).unwrap()
}

/// As `8000-8009>80-89/udp`, on this address of the host.
fn mapping(host_ip: &str, ports: &str, target: &str) -> Mapping {
    let (ports, proto) = ports.split_once('/').unwrap_or((ports, "tcp"));
    let (host, container) = ports.split_once('>').unwrap_or((ports, ports));
    let parse = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        range(first.parse().unwrap(), last.parse().unwrap())
    };
    let (host_ip, target) = (host_ip.parse().unwrap(), target.parse().unwrap());
    Mapping { proto: proto.parse().unwrap(), host_ip, host: parse(host), target, container: parse(container) }
}

fn ports(bridge: &str, mappings: &[Mapping]) -> Arc<EndpointPorts> {
    let bridge = bridge.parse().unwrap();
    Arc::new(EndpointPorts { bridge, mappings: mappings.to_vec(), open: Vec::new() })
}

/// A network and in it an endpoint with every kind of port; another one that is internal, so that its port counts for
/// nothing.
fn published(host: HostFacts) -> Facts {
    const FOUR: &str = "172.17.0.2";
    const SIX: &str = "fd00:1::2";
    let mut network = one();
    network.ipv6.push("fd00:1::/64".parse().unwrap());
    let mut internal = network_of_two();
    internal.internal = true;
    let mut all = EndpointPorts::clone(&ports(
        "br-a",
        &[
            mapping("0.0.0.0", "8080>80", FOUR),
            mapping("::", "8080>80", SIX),
            mapping("198.51.100.7", "53/udp", FOUR),
            mapping("2001:db8::7", "53/udp", SIX),
            mapping("127.0.0.1", "8081>81", FOUR),
            mapping("::1", "8081>81", SIX),
            mapping("0.0.0.0", "20000-20009", FOUR),
            mapping("::", "20000-20009", SIX),
            mapping("198.51.100.7", "30000-30009", FOUR),
            mapping("0.0.0.0", "8000-8002>80-82", FOUR),
            mapping("::", "8000-8002>80-82", SIX),
            mapping("0.0.0.0", "9/sctp", FOUR),
        ],
    ));
    all.open.push(OpenPort { target: FOUR.parse().unwrap(), proto: Proto::Tcp, ports: range(82, 90) });
    let ports = [
        (id(1), Arc::new(all)),
        (id(2), ports("br-b", &[mapping("0.0.0.0", "1", "192.0.2.2")])),
        (id(3), ports("br-none", &[mapping("0.0.0.0", "2", "203.0.113.2")])),
    ];
    Facts::new([network, internal], ports, host).unwrap()
}

fn network_of_two() -> BridgeNetwork {
    network("br-b", "192.0.2.0/24")
}

/// A network of each mode, and what else opens one.
fn modes() -> Facts {
    let with = |name: &str, number: u8, set: fn(&mut BridgeNetwork)| {
        let mut network = network(name, &format!("172.{number}.0.0/16"));
        network.ipv6.push(format!("fd00:{number}::/64").parse().unwrap());
        set(&mut network);
        network
    };
    let networks = [
        with("br-n", 18, |network| network.trusted = vec!["wg0".parse().unwrap(), "tun0".parse().unwrap()]),
        with("br-u", 19, |network| {
            network.gateway_mode4 = GatewayMode::NatUnprotected;
            network.source4 = Some("198.51.100.9".parse().unwrap());
        }),
        with("br-r", 20, |network| {
            network.gateway_mode4 = GatewayMode::Routed;
            network.gateway_mode6 = GatewayMode::Routed;
        }),
        with("br-i", 21, |network| {
            (network.internal, network.icc) = (true, false);
            network.trusted = vec!["wg0".parse().unwrap()];
        }),
        with("br-x", 22, |network| {
            network.icc = false;
            network.source6 = Some("2001:db8::9".parse().unwrap());
        }),
    ];
    let host = HostFacts { accept_mark: Some("2/3".parse().unwrap()), ..HostFacts::default() };
    Facts::new(networks, [], host).unwrap()
}

#[test]
fn rules_of_ports_are_as_reviewed() {
    let without_proxy = HostFacts { userland_proxy: false, ..HostFacts::default() };
    let direct = HostFacts { allow_direct_routing: true, ..without_proxy };
    let cases = [
        ("ports", published(HostFacts::default())),
        ("ports_no_proxy", published(without_proxy)),
        ("ports_direct", published(direct)),
        ("modes", modes()),
    ];
    for (name, facts) in cases {
        check(&format!("{name}.nft"), &nftables::replace(&facts));
        check(&format!("{name}.v4"), &fresh(&facts, Family::V4));
        check(&format!("{name}.v6"), &fresh(&facts, Family::V6));
    }
    // A port more, one elsewhere, one gone, a range that grows.
    let before = published(HostFacts::default());
    let (_, changed) = before.ports().find(|(at, _)| *at == id(1)).unwrap();
    let mut changed = EndpointPorts::clone(changed);
    changed.mappings.remove(2);
    changed.mappings[0].container = range(90, 90);
    changed.mappings.push(mapping("0.0.0.0", "443", "172.17.0.2"));
    changed.open[0].ports = range(82, 99);
    let after = before.with_ports([(id(1), Some(Arc::new(changed)))]);
    check("ports_change.nft", &nftables::change(&before, &after));
    check("ports_change.v4", &iptables::change(&before, &after, Family::V4));
    check("ports_change.v6", &iptables::change(&before, &after, Family::V6));
}

#[test]
fn a_change_costs_what_changed_beside_10_000_ports() {
    const MANY: u16 = 10_000;
    let single = |port: u16| mapping("0.0.0.0", &format!("{port}>80"), "172.17.0.3");
    let many: Vec<Mapping> = (1..=MANY).map(single).collect();
    let before = Facts::new([one()], [(id(1), ports("br-a", &many))], HostFacts::default()).unwrap();
    let mut more = many.clone();
    more.push(single(MANY + 1));
    let other = ports("br-a", &[mapping("0.0.0.0", "60000-60999", "172.17.0.4")]);
    let cases = [
        ("another endpoint", before.with_ports([(id(2), Some(other))])),
        ("the same endpoint", before.with_ports([(id(1), Some(ports("br-a", &more)))])),
        ("one less", before.with_ports([(id(1), Some(ports("br-a", &many[1..])))])),
        ("an equal copy", before.with_ports([(id(1), Some(ports("br-a", &many)))])),
    ];
    for (what, after) in cases {
        for (from, to) in [(&before, &after), (&after, &before)] {
            let texts = [
                nftables::change(from, to),
                iptables::change(from, to, Family::V4),
                iptables::change(from, to, Family::V6),
            ];
            let written: usize = texts.iter().map(String::len).sum();
            assert!(written < 1000, "{what}: {texts:?}");
            assert_eq!(written == 0, what == "an equal copy", "{what}: {texts:?}");
        }
    }
    let network = Facts::new(
        [one(), network_of_two()],
        before.ports().map(|(id, ports)| (id, Arc::clone(ports))),
        HostFacts::default(),
    );
    assert!(nftables::change(&before, &network.unwrap()).len() < 1000, "a network more");
}

#[test]
fn what_the_firewall_does_of_publications_is_what_it_can() {
    let of = |host: Option<PortRange>, addresses: &[&str], target: &str| Publication {
        spec: "80".parse().unwrap(),
        proto: Proto::Tcp,
        container: range(80, 80),
        host,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        target: target.parse().unwrap(),
    };
    let host = Some(range(8080, 8080));
    let both = of(host, &["0.0.0.0", "::", "::1"], "172.17.0.2");
    let routed = of(None, &["::"], "fd00:1::2");
    let bridge = || "br-a".parse::<IfName>().unwrap();
    let mut want = EndpointPorts::clone(&ports("br-a", &[mapping("0.0.0.0", "8080>80", "172.17.0.2")]));
    want.open.push(OpenPort {
        target: "fd00:1::2".parse().unwrap(),
        proto: Proto::Tcp,
        ports: range(80, 80),
    });
    assert_eq!(EndpointPorts::of(bridge(), &[both, routed]), Some(want));
    assert_eq!(EndpointPorts::of(bridge(), &[of(host, &["::"], "172.17.0.2")]), None);
    assert_eq!(EndpointPorts::of(bridge(), &[]), None);
}

#[test]
fn the_last_network_takes_the_chains_with_it() {
    check("removed.v4", &iptables::replace(&two(), &facts([]), Family::V4, &Present::parse(SAVED)));
}

#[test]
fn facts_that_contradict_each_other_are_refused() {
    let cases = [
        (network("br-a", "10.0.0.0/8"), "bridge br-a is used by two networks"),
        (
            network("br-b", "172.17.3.0/24"),
            "subnet 172.17.3.0/24 of bridge br-b overlaps with 172.17.0.0/16 of bridge br-a",
        ),
    ];
    for (second, want) in cases {
        let refused = Facts::new([one(), second], [], HostFacts::default()).unwrap_err();
        assert_eq!(refused.to_string(), want);
    }
}

/// Up to five networks with subnets that don't overlap, in any order.
fn any_networks() -> impl Strategy<Value = Vec<BridgeNetwork>> {
    let any_network = ("[A-Za-z0-9_.][A-Za-z0-9_.-]{0,14}", any::<[bool; 5]>());
    proptest::collection::vec(any_network, 0..6).prop_filter_map("valid names, each once", |networks| {
        let mut all = Vec::new();
        for (at, (name, [masquerade, icc, internal, v4, v6])) in networks.into_iter().enumerate() {
            let mut network = BridgeNetwork::new(name.parse().ok()?);
            (network.masquerade, network.icc, network.internal) = (masquerade, icc, internal);
            if v4 {
                network.ipv4.push(format!("10.{at}.7.9/16").parse().ok()?);
            }
            if v6 {
                network.ipv6.push(format!("fd00:{at}::1/64").parse().ok()?);
            }
            all.push(network);
        }
        Facts::new(all.clone(), [], HostFacts::default()).ok().map(|_| all)
    })
}

fn any_foreign() -> impl Strategy<Value = Foreign> {
    any::<bool>().prop_map(|drop| if drop { Foreign::Drop } else { Foreign::Leave })
}

/// The words of a rule that name an interface.
fn interfaces(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text.lines() {
        if line.contains(" element ") {
            names.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
        }
        let words: Vec<&str> = line.split(' ').collect();
        names.extend(
            words.windows(2).filter(|pair| matches!(pair[0], "-i" | "-o")).map(|pair| pair[1].to_owned()),
        );
    }
    names
}

proptest! {
    #[test]
    fn rules_follow_from_the_facts_alone_and_name_their_bridges_only(
        networks in any_networks(),
        others in any_networks(),
        (v4, v6) in (any_foreign(), any_foreign()),
    ) {
        let host = foreign(v4, v6);
        let facts = Facts::new(networks.clone(), [], host).unwrap();
        let reversed = Facts::new(networks.iter().rev().cloned(), [], host).unwrap();
        let others = Facts::new(others, [], host).unwrap();
        let render = |facts: &Facts| {
            [
                nftables::replace(facts),
                nftables::change(&others, facts),
                fresh(facts, Family::V4),
                fresh(facts, Family::V6),
                iptables::replace(&others, facts, Family::V4, &Present::parse(SAVED)),
            ]
        };
        let texts = render(&facts);
        prop_assert_eq!(&texts, &render(&reversed));
        for name in texts.iter().flat_map(|text| interfaces(text)).filter(|name| name != "lo") {
            let name: IfName = name.parse().unwrap();
            let known = facts.networks().chain(others.networks()).any(|network| network.bridge == name);
            prop_assert!(known, "{}", name);
        }
        prop_assert_eq!(nftables::change(&facts, &reversed), "");
    }
}

/// As of iptables-save 1.8.9, with somebody's rules between ours.
const SAVED: &str = "# Generated by iptables-save v1.8.9 (nf_tables)
*mangle
:PREROUTING ACCEPT [0:0]
:PORTMAP-GUARD - [0:0]
-A PREROUTING -j PORTMAP-GUARD
COMMIT
*filter
:FORWARD DROP [0:0]
:PORTMAP-FORWARD - [0:0]
:PORTMAP-USER - [0:0]
-A FORWARD -j PORTMAP-USER
-A FORWARD -j PORTMAP-FORWARD
-A PORTMAP-USER -s 198.51.100.7/32 -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:PORTMAP-OUTPUT - [0:0]
:PORTMAP-POSTROUTING - [0:0]
:PORTMAP-PREROUTING - [0:0]
-A PREROUTING -j PORTMAP-PREROUTING
-A PREROUTING -s 198.51.100.7/32 -j RETURN
-A OUTPUT -j PORTMAP-OUTPUT
-A POSTROUTING -j PORTMAP-POSTROUTING
COMMIT
# Completed
";

#[test]
fn what_is_there_of_ours_is_found() {
    // What was saved, whether there is something of ours, whether FORWARD drops by policy, how it is removed.
    let cases = [
        ("", true, false, ""),
        ("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", true, false, ""),
        ("*filter\n:FORWARD DROP [7:9]\nCOMMIT\n", true, true, ""),
        ("*filter\n:FORWARD DROPPED - [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT\n", true, true, ""),
        (
            "*filter\n:PORTMAP-USER - [0:0]\n-A PORTMAP-USER -j DROP\nCOMMIT\n",
            true,
            false,
            "*filter\nCOMMIT\n",
        ),
        (
            "*filter\n:PORTMAP-USER - [0:0]\nCOMMIT\n",
            false,
            false,
            "*filter\n-F PORTMAP-USER\n-X PORTMAP-USER\nCOMMIT\n",
        ),
        (
            "*nat\n:PORTMAP-OLD - [0:0]\n-A OUTPUT -m comment --comment \"a -j b\" -j PORTMAP-OLD\nCOMMIT\n",
            false,
            false,
            "*nat\n-D OUTPUT -m comment --comment \"a -j b\" -j PORTMAP-OLD\n-F PORTMAP-OLD\n-X PORTMAP-OLD\nCOMMIT\n",
        ),
        ("*nat\n-A OUTPUT -m comment --comment \"x -j PORTMAP-OLD\" -j RETURN\nCOMMIT\n", true, false, ""),
    ];
    for (saved, empty, drops, removal) in cases {
        let present = Present::parse(saved);
        let got = (present.is_empty(), present.forward_drops());
        assert_eq!(got, (empty, drops), "{saved}");
        assert_eq!(iptables::remove(&Facts::default(), Family::V4, &present), removal, "{saved}");
    }
}

#[test]
fn jumps_in_place_stay() {
    let text = iptables::replace(&two(), &two(), Family::V4, &Present::parse(SAVED));
    assert!(!text.contains("-I ") && !text.contains("-D "), "{text}");
    assert!(!text.contains(":PORTMAP-USER"), "declaring it would empty it: {text}");
}

/// Answers as told.
struct Fake<F>(F);

impl<F: FnMut(&str) -> Result<String, ToolError>> Tools for Fake<F> {
    fn run(&mut self, program: &'static str, arguments: &[&str], _input: &str) -> Result<String, ToolError> {
        assert!(arguments.iter().all(|argument| !argument.contains(' ')));
        (self.0)(program)
    }
}

fn fake<F: FnMut(&str) -> Result<String, ToolError>>(choice: BackendChoice, answer: F) -> Firewall<Fake<F>> {
    Firewall::with_tools(choice, Fake(answer))
}

#[test]
fn auto_takes_what_works() {
    const OPEN: Option<&str> = Some("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n");
    const DROPS: Option<&str> = Some("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    // Whether nft works, what iptables-save says, the backend.
    let cases = [
        (true, OPEN, Ok(Some(Backend::Nftables))),
        (true, None, Ok(Some(Backend::Nftables))),
        (true, DROPS, Ok(Some(Backend::Iptables))),
        (false, OPEN, Ok(Some(Backend::Iptables))),
        (
            false,
            None,
            Err(
                "nft: command not found (install the package that brings it, choose another --firewall-backend, or do without rules by --iptables=false)",
            ),
        ),
    ];
    for (nft, saved, want) in cases {
        let mut firewall = fake(BackendChoice::Auto, |program| match program {
            "nft" if nft => Ok(String::new()),
            "iptables-save" => {
                saved.map(str::to_owned).ok_or(ToolError::NotFound { program: "iptables-save" })
            }
            _ => Err(ToolError::NotFound { program: "nft" }),
        });
        let got = firewall.backend().map_err(|error| error.to_string());
        assert_eq!(got, want.map_err(str::to_owned), "{nft} {saved:?}");
    }
}

#[test]
fn none_runs_nothing() {
    let mut firewall = fake(BackendChoice::None, |_| panic!("no tool is run"));
    firewall.apply(&two()).unwrap();
    firewall.remove().unwrap();
}

#[test]
fn a_host_without_ip6tables_can_do_ipv4() {
    let mut firewall = fake(BackendChoice::Iptables, |program| match program {
        "iptables-save" | "iptables-restore" => Ok(String::new()),
        _ => Err(ToolError::NotFound { program: "ip6tables-save" }),
    });
    firewall.apply(&facts([one()])).unwrap();
    firewall.remove().unwrap();
    assert!(matches!(firewall.apply(&two()), Err(ToolError::NotFound { program: "ip6tables-save" })));
}

#[test]
fn a_change_that_does_not_fit_becomes_a_replacement() {
    let mut calls = 0;
    let mut firewall = fake(BackendChoice::Nftables, |program| {
        calls += usize::from(program == "nft");
        // The second call of nft is the change.
        if calls == 2 {
            return Err(ToolError::Refused { program: "nft", stderr: "No such file".to_owned() });
        }
        Ok(String::new())
    });
    firewall.apply(&facts([one()])).unwrap();
    firewall.apply(&facts([one(), network("br-b", "192.0.2.0/24")])).unwrap();
    drop(firewall);
    assert_eq!(calls, 3);
}

#[test]
fn many_rules_that_go_are_not_looked_for_one_by_one() {
    let single = |port: u16| mapping("0.0.0.0", &format!("{port}>80"), "172.17.0.3");
    let all: Vec<Mapping> = (1..=100).map(single).collect();
    let published = |mappings: &[Mapping]| {
        Facts::new([one()], [(id(1), ports("br-a", mappings))], HostFacts::default()).unwrap()
    };
    // The rules that are there are only read to be replaced.
    let mut reads = 0;
    let mut firewall = fake(BackendChoice::Iptables, |program| {
        reads += usize::from(program == "iptables-save");
        Ok(String::new())
    });
    for left in [&all[..], &all[1..], &all[50..], &all[51..], &all[..]] {
        firewall.apply(&published(left)).unwrap();
    }
    drop(firewall);
    assert_eq!(reads, 2, "at first, and when 49 went");
}

#[test]
fn tools_that_fail_are_named_with_their_words() {
    let limit = Duration::from_secs(10);
    let sh = |script: &str| run("sh", &["-c", script], "input", limit).map_err(|error| error.to_string());
    assert_eq!(sh("cat"), Ok("input".to_owned()));
    assert_eq!(sh("echo 'line 1: no' >&2; exit 2"), Err("sh failed: line 1: no".to_owned()));
    assert_eq!(sh("exit 3"), Err("sh failed: exit status: 3".to_owned()));
    let missing = run("portmap-no-such-tool", &[], "", limit);
    assert!(matches!(missing, Err(ToolError::NotFound { program: "portmap-no-such-tool" })));
    // The second has nothing more to say, but doesn't leave; the third leaves, but its output isn't at an end.
    for script in ["exec sleep 60", "exec sleep 60 >&- 2>&-", "sleep 2 & exit 0"] {
        let slow = run("sh", &["-c", script], "", Duration::from_millis(50)).unwrap_err();
        assert_eq!(slow.to_string(), "sh gave no answer within 50ms");
    }
}

#[test]
fn more_than_a_pipe_holds_passes() {
    let much = "x".repeat(1 << 20);
    assert_eq!(run("cat", &[], &much, Duration::from_secs(10)).unwrap().len(), much.len());
}
