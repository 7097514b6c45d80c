//! Golden files of both renderers, and reading `iptables-save`. `UPDATE_GOLDEN=1` rewrites the files.

use std::path::Path;

use super::iptables::{self, Present};
use super::{BridgeNetwork, Facts, Family, Foreign, IfName, nftables};

fn network(name: &str, v4: &str) -> BridgeNetwork {
    let mut network = BridgeNetwork::new(name.parse().unwrap());
    network.ipv4.push(v4.parse().unwrap());
    network
}

fn two() -> Facts {
    let mut internal = network("br-b", "192.0.2.0/24");
    internal.internal = true;
    internal.icc = false;
    internal.ipv6.push("fd00:2::/64".parse().unwrap());
    Facts::new([network("br-a", "172.17.0.0/16"), internal], Foreign::Drop, Foreign::Leave).unwrap()
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
fn rules_of_two_networks() {
    check("two.nft", &nftables::replace(&two()));
    check("two.v4", &iptables::replace(&two(), Family::V4, &Present::default()));
    check("two.v6", &iptables::replace(&two(), Family::V6, &Present::default()));
}

#[test]
fn names_that_mean_something_in_a_rule_are_refused() {
    for name in ["", "br*", "br+", "a\"b", "a b", "-a", "..", "all", "abcdefghijklmnop"] {
        assert!(name.parse::<IfName>().is_err(), "{name:?}");
    }
}
