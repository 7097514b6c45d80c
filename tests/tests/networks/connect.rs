//! `network connect` and `disconnect`: what their flags make of a sandbox, running or not.

use super::lab::Lab;

/// A sandbox that does nothing, on these networks.
fn idle(lab: &Lab, name: &str, flags: &[&str]) {
    lab.ok(&[&["run", "-d", "--name", name], flags, &["--", "sleep", "infinity"]].concat());
}

/// A part of what is known of a sandbox on a network.
fn on(lab: &Lab, name: &str, network: &str, field: &str) -> String {
    let template = format!("{{{{json (index .NetworkSettings.Networks {network:?}).{field}}}}}");
    lab.ok(&["inspect", "-f", &template, name])
}

#[test]
fn each_flag_reaches_the_interface() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--ipv6", "--subnet", "10.10.0.0/24", "--subnet", "fd00:10::/64", "one"]);
    idle(&lab, "alpha", &[]);
    lab.ok(&[
        "network",
        "connect",
        "--ip",
        "10.10.0.77",
        "--ip6",
        "fd00:10::77",
        "--link-local-ip",
        "169.254.3.4",
        "--link-local-ip",
        "fe80::77",
        "--alias",
        "shop",
        "--link",
        "db:store",
        "--driver-opt",
        "com.docker.network.endpoint.ifname=lan7",
        "--driver-opt",
        "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1",
        "one",
        "alpha",
    ]);
    let addresses = lab.sandbox("alpha").ip("address show lan7");
    for address in ["10.10.0.77/24", "fd00:10::77/64", "169.254.3.4/16", "fe80::77/64"] {
        assert!(addresses.contains(address), "{address}: {addresses}");
    }
    let martians = ["exec", "alpha", "cat", "/proc/sys/net/ipv4/conf/lan7/log_martians"];
    assert_eq!(lab.ok(&martians), "1");
    assert_eq!(on(&lab, "alpha", "one", "Aliases"), r#"["shop"]"#);
    assert_eq!(on(&lab, "alpha", "one", "Links"), r#"["db:store"]"#);
    assert_eq!(on(&lab, "alpha", "one", "IPAddress"), r#""10.10.0.77""#);
    assert_eq!(on(&lab, "alpha", "one", "GlobalIPv6Address"), r#""fd00:10::77""#);
    assert_eq!(on(&lab, "alpha", "one", "IPAMConfig.LinkLocalIPs"), r#"["169.254.3.4","fe80::77"]"#);
    // What was asked for is asked for again.
    lab.ok(&["restart", "-t", "0", "alpha"]);
    let addresses = lab.sandbox("alpha").ip("address show lan7");
    assert!(addresses.contains("10.10.0.77/24") && addresses.contains("fe80::77/64"), "{addresses}");
}

#[test]
fn the_highest_priority_is_the_way_out() {
    let Some(lab) = Lab::new(&[]) else { return };
    for (name, subnet) in [("aa", "10.10.0.0/24"), ("bb", "10.11.0.0/24"), ("cc", "10.12.0.0/24")] {
        lab.ok(&["network", "create", "--subnet", subnet, name]);
    }
    lab.ok(&["network", "create", "--internal", "--subnet", "10.13.0.0/24", "in"]);
    idle(&lab, "alpha", &["--net", "in"]);
    let route = || lab.sandbox("alpha").ip("route show default");
    assert_eq!(route(), "", "an internal network leads nowhere");
    for (flags, network, via) in [
        (&[][..], "bb", "10.11.0.1"),
        (&["--gw-priority", "5"], "cc", "10.12.0.1"),
        (&["--gw-priority=1"], "aa", "10.12.0.1"),
    ] {
        lab.ok(&[&["network", "connect"], flags, &[network, "alpha"]].concat());
        assert!(route().contains(&format!("via {via} ")), "{network}: {}", route());
    }
    for (network, via) in [("cc", "10.10.0.1"), ("aa", "10.11.0.1")] {
        lab.ok(&["network", "disconnect", network, "alpha"]);
        assert!(route().contains(&format!("via {via} ")), "without {network}: {}", route());
    }
    // By `run` too.
    idle(&lab, "beta", &["--net", "aa", "--net", "name=bb,gw-priority=1,ip=10.11.0.9"]);
    let beta = lab.sandbox("beta");
    assert!(beta.ip("route show default").contains("via 10.11.0.1"), "{}", beta.ip("route"));
    assert!(beta.ip("address").contains("10.11.0.9/24"));
}

#[test]
fn a_stopped_one_is_connected_when_it_starts() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    lab.ok(&["network", "create", "--subnet", "10.11.0.0/24", "two"]);
    lab.ok(&["create", "--name", "alpha", "--net", "one", "--", "sleep", "infinity"]);
    lab.ok(&["network", "connect", "--ip", "10.11.0.77", "--alias", "shop", "two", "alpha"]);
    assert!(!lab.host.ip("-brief link").contains("veth"));
    lab.ok(&["start", "alpha"]);
    let addresses = lab.sandbox("alpha").ip("-4 address");
    assert!(addresses.contains("10.10.0.2/24") && addresses.contains("10.11.0.77/24"), "{addresses}");
    lab.ok(&["stop", "-t", "0", "alpha"]);
    lab.ok(&["network", "disconnect", "two", "alpha"]);
    let (status, said) = lab.fails(&["network", "disconnect", "two", "alpha"]);
    assert_eq!(status, 1);
    assert!(said.ends_with("is not connected to the network two"), "{said}");
    lab.ok(&["start", "alpha"]);
    let addresses = lab.sandbox("alpha").ip("-4 address");
    assert!(addresses.contains("10.10.0.2/24") && !addresses.contains("10.11."), "{addresses}");
}

#[test]
fn a_starting_one_gets_the_lowest_address_that_is_free() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    for name in ["alpha", "beta", "gamma"] {
        idle(&lab, name, &["--net", "one"]);
    }
    let address = |name: &str| lab.address(name, "one", "IPAddress").to_string();
    lab.ok(&["stop", "-t", "0", "alpha", "beta"]);
    lab.ok(&["start", "beta"]);
    assert_eq!(address("beta"), "10.10.0.2", "what alpha had");
    lab.ok(&["start", "alpha"]);
    assert_eq!(address("alpha"), "10.10.0.3");
    // One that was asked for and is taken meanwhile keeps its owner from starting, and nothing of it is left.
    lab.ok(&["create", "--name", "fixed", "--net", "one", "--ip", "10.10.0.4", "--", "sleep", "infinity"]);
    let (status, said) = lab.fails(&["start", "fixed"]);
    assert_eq!(status, 1);
    assert!(said.contains("Address already in use"), "{said}");
    assert_eq!(lab.host.ip("-brief link").matches("veth").count(), 3);
    lab.ok(&["rm", "-f", "gamma"]);
    lab.ok(&["start", "fixed"]);
    assert_eq!(address("fixed"), "10.10.0.4");
}

#[test]
fn what_cannot_be_connected_is_refused_with_dockers_words() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    lab.ok(&["network", "create", "--subnet", "10.11.0.0/30", "small"]);
    idle(&lab, "alpha", &["--net", "one"]);
    idle(&lab, "full", &["--net", "small"]);
    idle(&lab, "lone", &["--net", "none"]);
    idle(&lab, "open", &["--net", "host"]);
    let links = lab.host.ip("-brief link");
    let cases: &[(&[&str], &str)] = &[
        (&["connect", "one", "alpha"], "endpoint with name alpha already exists in network one"),
        (
            &["connect", "--ip", "10.12.0.5", "small", "alpha"],
            "no configured subnet contains IP address 10.12.0.5",
        ),
        (&["connect", "--ip", "10.11.0.2", "small", "alpha"], "Address already in use"),
        (
            &["connect", "small", "alpha"],
            "no available IPv4 addresses on this network's address pools: small (",
        ),
        (&["connect", "--ip", "nonsense", "small", "alpha"], "invalid IPv4 address: nonsense"),
        (&["connect", "--ip6", "nonsense", "small", "alpha"], "invalid IPv6 address: nonsense"),
        (
            &["connect", "--link-local-ip", "nonsense", "small", "alpha"],
            "invalid link-local IP address: nonsense",
        ),
        (
            &["connect", "--driver-opt", "nonsense", "small", "alpha"],
            "invalid key/value pair format in driver options",
        ),
        (
            &["connect", "--ip", "172.17.0.9", "bridge", "alpha"],
            "user-specified IP address is supported on user-defined networks only",
        ),
        (
            &["connect", "--alias", "x", "bridge", "alpha"],
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            &["connect", "host", "alpha"],
            "cannot connect container to host network - container must be created in host network mode",
        ),
        (
            &["connect", "none", "alpha"],
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        (
            &["connect", "one", "lone"],
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        (
            &["connect", "one", "open"],
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
        (&["connect", "nowhere", "alpha"], "network nowhere not found"),
        (&["connect", "one", "nobody"], "No such container: nobody"),
        (&["disconnect", "small", "alpha"], "is not connected to network small"),
        (
            &["disconnect", "host", "open"],
            "cannot disconnect container from host network - container was created in host network mode",
        ),
        (&["disconnect", "one", "nobody"], "No such container: nobody"),
        (&["disconnect", "-f", "one", "nobody"], "endpoint nobody not found"),
        (&["disconnect", "nowhere", "alpha"], "network nowhere not found"),
    ];
    for (words, want) in cases {
        let (status, said) = lab.fails(&[&["network"], *words].concat());
        assert_eq!(status, 1, "{words:?}: {said}");
        assert!(said.contains(want), "{words:?}: {said}");
    }
    assert_eq!(lab.host.ip("-brief link"), links);
    lab.ok(&["network", "disconnect", "-f", "one", "alpha"]);
    assert!(!lab.sandbox("alpha").ip("link").contains("eth0"));
}

#[test]
fn who_left_all_networks_is_on_none() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    idle(&lab, "alpha", &["--net", "one"]);
    let networks = || lab.ok(&["inspect", "-f", "{{json .NetworkSettings.Networks}}", "alpha"]);
    lab.ok(&["network", "disconnect", "one", "alpha"]);
    assert_eq!(networks(), "{}");
    assert_eq!(lab.ok(&["ps", "-q", "-f", "network=one"]), "");
    lab.ok(&["stop", "-t", "0", "alpha"]);
    assert_eq!(networks(), "{}");
    // What it is told afterwards holds.
    lab.ok(&["network", "connect", "--ip", "10.10.0.200", "one", "alpha"]);
    lab.ok(&["start", "alpha"]);
    assert_eq!(lab.address("alpha", "one", "IPAddress").to_string(), "10.10.0.200");
    // One that was only created is on its network already.
    lab.ok(&["create", "--name", "beta", "--net", "one", "--", "true"]);
    assert!(lab.ok(&["ps", "-a", "-f", "network=one", "--format", "{{.Names}}"]).contains("beta"));
}
