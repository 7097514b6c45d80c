//! Subnets of every size and family, and what a network's flags say about addresses.

use super::lab::{Lab, connects};

fn idle(lab: &Lab, name: &str, flags: &[&str]) {
    lab.ok(&[&["run", "-d", "--name", name], flags, &["--", "sleep", "infinity"]].concat());
}

#[test]
fn small_subnets_hold_what_they_can() {
    let Some(lab) = Lab::new(&[]) else { return };
    for (name, subnet, first) in [
        ("two", "10.10.0.0/30", Some("10.10.0.2")),
        ("pair", "10.11.0.0/31", Some("10.11.0.1")),
        ("lone", "10.12.0.0/32", None),
    ] {
        lab.ok(&["network", "create", "--subnet", subnet, name]);
        let on = format!("on-{name}");
        if let Some(address) = first {
            lab.serve(&on, &["--net", name]);
            assert_eq!(lab.v4(&on, name).ip().to_string(), address);
            assert!(connects(&lab.host, lab.v4(&on, name)), "{name}");
        }
        let (status, said) = lab.fails(&["run", "--rm", "--net", name, "--", "true"]);
        assert_eq!(status, 125);
        assert!(
            said.contains(&format!("no available IPv4 addresses on this network's address pools: {name} (")),
            "{said}"
        );
    }
    // A big one begins at its beginning all the same.
    lab.ok(&["network", "create", "--subnet", "20.0.0.0/8", "big"]);
    idle(&lab, "first", &["--net", "big"]);
    idle(&lab, "last", &["--net", "big", "--ip", "20.255.255.254"]);
    assert_eq!(lab.v4("first", "big").ip().to_string(), "20.0.0.2");
    assert!(lab.sandbox("last").ip("-4 address show eth0").contains("20.255.255.254/8"));
}

#[test]
fn a_subnet_may_be_left_to_the_pools_in_part() {
    let Some(lab) = Lab::new(&[]) else { return };
    let subnets =
        |name: &str| lab.ok(&["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", name]);
    lab.ok(&["network", "create", "--subnet", "0.0.0.0/24", "small"]);
    assert_eq!(subnets("small"), "172.18.0.0/24");
    lab.ok(&["network", "create", "--ipv6", "--subnet", "::/96", "six"]);
    let both = subnets("six");
    assert!(both.starts_with("172.19.0.0/16 fd") && both.ends_with("::/96"), "{both}");
    let (status, said) = lab.fails(&["network", "create", "--subnet", "0.0.0.0/8", "huge"]);
    assert_eq!(status, 1);
    assert!(said.contains("invalid address pool"), "{said}");
}

#[test]
fn a_network_may_be_of_ipv6_alone() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd00:10::/64", "six"]);
    lab.serve("alpha", &["--net", "six"]);
    lab.serve("beta", &["--net", "six", "--ip6", "fd00:10::9"]);
    let alpha = lab.sandbox("alpha");
    assert_eq!(alpha.ip("-4 address show eth0"), "");
    assert_eq!(alpha.ip("-4 route"), "");
    let to = "[fd00:10::9]:80".parse().unwrap();
    assert!(alpha.connects(to) && connects(&lab.host, to));
    assert!(!connects(&lab.neighbour, to));
    let families = "{{.EnableIPv4}} {{.EnableIPv6}} {{len .IPAM.Config}}";
    assert_eq!(lab.ok(&["network", "inspect", "-f", families, "six"]), "false true 1");
}

#[test]
fn another_address_may_be_the_gateway() {
    let Some(lab) = Lab::new(&[]) else { return };
    let aux = "DefaultGatewayIPv4=10.10.0.2";
    lab.ok(&[
        "network",
        "create",
        "--subnet",
        "10.10.0.0/24",
        "--aux-address",
        aux,
        "--aux-address",
        "x=10.10.0.3",
        "one",
    ]);
    idle(&lab, "alpha", &["--net", "one"]);
    assert_eq!(lab.v4("alpha", "one").ip().to_string(), "10.10.0.4", "both are reserved");
    let alpha = lab.sandbox("alpha");
    assert!(alpha.ip("route").contains("default via 10.10.0.2 "), "{}", alpha.ip("route"));
    assert!(lab.host.ip("-4 address").contains("10.10.0.1/24"), "the bridge has its own");
    let shown =
        lab.ok(&["network", "inspect", "-f", "{{json (index .IPAM.Config 0).AuxiliaryAddresses}}", "one"]);
    assert_eq!(shown, r#"{"DefaultGatewayIPv4":"10.10.0.2","x":"10.10.0.3"}"#);
}

#[test]
fn addresses_that_were_chosen_are_on_the_interface() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--ipv6", "--subnet", "10.10.0.0/24", "--subnet", "fd00:10::/64", "one"]);
    idle(
        &lab,
        "alpha",
        &[
            "--net",
            "one",
            "--ip",
            "10.10.0.9",
            "--ip6",
            "fd00:10::9",
            "--link-local-ip",
            "169.254.9.9",
            "--mac-address",
            "02:00:00:00:00:09",
        ],
    );
    let shown = lab.sandbox("alpha").ip("address show eth0");
    for want in ["10.10.0.9/24", "fd00:10::9/64", "169.254.9.9/16", "02:00:00:00:00:09"] {
        assert!(shown.contains(want), "{want}: {shown}");
    }
    for (flags, want) in [
        (&["--ip6", "fd00:10::9"][..], "Address already in use"),
        (&["--ip6", "fd00:11::9"], "no configured subnet contains IP address fd00:11::9"),
        (&["--mac-address", "nonsense"], "nonsense is not a valid mac address"),
    ] {
        let (status, said) = lab.fails(&[&["run", "--rm", "--net", "one"], flags, &["--", "true"]].concat());
        assert_eq!(status, 125, "{flags:?}: {said}");
        assert!(said.contains(want), "{flags:?}: {said}");
    }
    assert_eq!(lab.ok(&["ps", "-aq"]).lines().count(), 1);
}

#[test]
fn options_are_kept_and_read() {
    let Some(lab) = Lab::new(&[]) else { return };
    let binding = "com.docker.network.bridge.host_binding_ipv4";
    lab.ok(&["network", "create", "-o", &format!("{binding}=127.0.0.1"), "-o", "colour=red", "one"]);
    let shown = lab.ok(&["network", "inspect", "-f", "{{json .Options}}", "one"]);
    assert_eq!(shown, format!(r#"{{"colour":"red","{binding}":"127.0.0.1"}}"#));
    for (words, want) in [
        (
            &["-o", "com.docker.network.bridge.host_binding_ipv4=nope"][..],
            "host_binding_ipv4 value: nope (nil ip)",
        ),
        (
            &["-o", "com.docker.network.enable_ipv6=perhaps"],
            r#"driver-opt "com.docker.network.enable_ipv6" is not a valid bool"#,
        ),
        (&["--ipam-driver", "magic"], r#"plugin "magic" not found"#),
        (&["--gateway", "10.0.0.1"], "every ip-range or gateway must have a corresponding subnet"),
        (
            &["--internal", "--subnet", "10.9.0.0/24", "--aux-address", "DefaultGatewayIPv4=10.9.0.9"],
            "no gateway can be set on an internal bridge network",
        ),
    ] {
        let (status, said) = lab.fails(&[&["network", "create"], words, &["two"]].concat());
        assert_eq!(status, 1, "{words:?}: {said}");
        assert!(said.contains(want), "{words:?}: {said}");
    }
    lab.ok(&["network", "create", "-o", "com.docker.network.container_iface_prefix=lan", "three"]);
    assert!(lab.ok(&["run", "--rm", "--net", "three", "--", "ip", "link"]).contains("lan0"));
}

#[test]
fn a_new_name_is_known_everywhere_at_once() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    idle(&lab, "alpha", &[]);
    idle(&lab, "beta", &[]);
    let names = || lab.ok(&["network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{end}}", "bridge"]);
    lab.ok(&["rename", "alpha", "omega"]);
    let seen = names();
    assert!(seen.contains("omega") && !seen.contains("alpha"), "{seen}");
    for (words, want) in [
        (["rename", "omega", "beta"], "is already in use by container"),
        (["rename", "omega", "x"], "Invalid container name (x)"),
        (["rename", "alpha", "gamma"], "No such container: alpha"),
    ] {
        let (status, said) = lab.fails(&words);
        assert_eq!(status, 1);
        assert!(said.contains(want), "{said}");
    }
    lab.end_daemon("-KILL");
    lab.start_daemon();
    assert_eq!(lab.ok(&["exec", "omega", "echo", "hello"]), "hello");
}
