//! What the flags of networks, sandboxes and the daemon make of the kernel.

use super::lab::{Lab, connects};

#[test]
fn addresses_come_from_where_they_were_asked_for() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&[
        "network",
        "create",
        "--subnet",
        "10.10.0.0/24",
        "--ip-range",
        "10.10.0.128/25",
        "--gateway",
        "10.10.0.254",
        "--aux-address",
        "printer=10.10.0.129",
        "one",
    ]);
    let gateway = lab.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "one"]);
    assert_eq!(gateway, "10.10.0.254");
    lab.ok(&["run", "-d", "--name", "alpha", "--net", "one", "--", "sleep", "infinity"]);
    lab.ok(&["run", "-d", "--name", "beta", "--net", "one", "--", "sleep", "infinity"]);
    lab.ok(&[
        "run",
        "-d",
        "--name",
        "gamma",
        "--net",
        "one",
        "--ip",
        "10.10.0.5",
        "--mac-address",
        "02:00:00:00:00:05",
        "--",
        "sleep",
        "infinity",
    ]);
    assert_eq!(lab.v4("alpha", "one").ip().to_string(), "10.10.0.128");
    assert_eq!(lab.v4("beta", "one").ip().to_string(), "10.10.0.130");
    assert_eq!(lab.v4("gamma", "one").ip().to_string(), "10.10.0.5");
    let c = lab.sandbox("gamma");
    assert!(c.ip("link show eth0").contains("02:00:00:00:00:05"));
    assert!(c.ip("-4 address show eth0").contains("10.10.0.5/24"));
    assert!(c.ip("route").contains("default via 10.10.0.254"));
    // What is free again is given at once.
    lab.ok(&["rm", "-f", "alpha"]);
    lab.ok(&["run", "-d", "--name", "delta", "--net", "one", "--", "sleep", "infinity"]);
    assert_eq!(lab.v4("delta", "one").ip().to_string(), "10.10.0.128");
}

#[test]
fn a_network_nobody_gave_a_subnet_gets_the_next_of_dockers() {
    let Some(lab) = Lab::new(&[]) else { return };
    let subnet =
        |name: &str| lab.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name]);
    assert_eq!(subnet("bridge"), "172.17.0.0/16");
    lab.ok(&["network", "create", "one"]);
    assert_eq!(subnet("one"), "172.18.0.0/16");
    lab.host.ip("link add taken type bridge");
    lab.host.address("taken", &["172.19.0.1/16"]);
    lab.ok(&["network", "create", "two"]);
    assert_eq!(subnet("two"), "172.20.0.0/16", "the host's own routes are respected");
    lab.ok(&["network", "rm", "one"]);
    lab.ok(&["network", "create", "three"]);
    assert_eq!(subnet("three"), "172.18.0.0/16");
}

#[test]
fn a_device_has_the_name_that_was_asked_for_or_one_of_the_id() {
    let Some(lab) = Lab::new(&[]) else { return };
    let id = lab.ok(&["network", "create", "one"]);
    lab.ok(&["network", "create", "-o", "com.docker.network.bridge.name=lan0", "two"]);
    let links = lab.host.ip("-brief link");
    assert!(
        links.contains(&format!("br-{}", &id[..12])) && links.contains("lan0") && links.contains("portmap0"),
        "{links}"
    );
    lab.ok(&["network", "rm", "one", "two"]);
    let links = lab.host.ip("-brief link");
    assert!(!links.contains("br-") && !links.contains("lan0"), "{links}");
    // A bridge that was there is used, and stays.
    lab.host.ip("link add lan1 type bridge");
    lab.ok(&["network", "create", "-o", "com.docker.network.bridge.name=lan1", "three"]);
    lab.ok(&["network", "rm", "three"]);
    assert!(lab.host.ip("-brief link").contains("lan1"));
}

#[test]
fn ipv6_only_where_it_was_asked_for() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "four"]);
    lab.ok(&["network", "create", "--ipv6", "both"]);
    lab.ok(&["network", "create", "-o", "com.docker.network.enable_ipv6=true", "also"]);
    for (network, has) in [("four", false), ("both", true), ("also", true)] {
        lab.serve(&format!("on-{network}"), &["--net", network]);
        let addresses = lab.sandbox(&format!("on-{network}")).ip("-6 address show eth0");
        assert_eq!(addresses.contains("scope global"), has, "{network}: {addresses}");
        assert_eq!(addresses.contains("inet6"), has, "{network}: {addresses}");
    }
    assert!(connects(&lab.host, lab.v6("on-both", "both")));
    assert!(lab.sandbox("on-both").ip("-6 route").contains("default via"));
}

#[test]
fn the_default_bridge_obeys_the_daemons_flags() {
    let flags = [
        "--bip",
        "10.5.0.1/24",
        "--fixed-cidr",
        "10.5.0.64/26",
        "--default-gateway",
        "10.5.0.254",
        "--mtu",
        "1400",
        "--icc=false",
        "--ip",
        "192.0.2.1",
    ];
    let Some(lab) = Lab::new(&flags) else { return };
    assert!(lab.host.ip("-4 address show portmap0").contains("10.5.0.1/24"));
    lab.serve("alpha", &[]);
    lab.serve("beta", &[]);
    let a = lab.sandbox("alpha");
    assert_eq!(lab.v4("alpha", "bridge").ip().to_string(), "10.5.0.64");
    assert!(a.ip("route").contains("default via 10.5.0.254"), "{}", a.ip("route"));
    assert!(a.ip("link show eth0").contains("mtu 1400"));
    assert!(!a.connects(lab.v4("beta", "bridge")));
    let options = lab.ok(&["network", "inspect", "-f", "{{json .Options}}", "bridge"]);
    for want in [
        r#""com.docker.network.bridge.enable_icc":"false""#,
        r#""com.docker.network.bridge.host_binding_ipv4":"192.0.2.1""#,
        r#""com.docker.network.driver.mtu":"1400""#,
        r#""com.docker.network.bridge.name":"portmap0""#,
    ] {
        assert!(options.contains(want), "{options}");
    }
}

#[test]
fn the_default_bridge_may_be_somebody_elses_or_not_be_at_all() {
    let host = e2e::lab::Host::new("host");
    let Some(host) = host else { return };
    host.bridge("lan0", &["10.7.0.1/24"]);
    let home = e2e::daemon::Home::new(&host).unwrap();
    let daemon = home.daemon(&["--bridge", "lan0"]);
    let said = home.portmap(&["run", "--rm", "--", "ip", "-brief", "-4", "address", "show", "eth0"]).ok();
    assert!(said.contains("10.7.0.2/24"), "{said}");
    drop(daemon);
    assert!(host.ip("-brief link").contains("lan0"));

    let Some(lab) = Lab::new(&["--bridge", "none"]) else { return };
    assert!(!lab.ok(&["network", "ls", "--format", "{{.Name}}"]).contains("bridge"));
    assert!(!lab.host.ip("-brief link").contains("portmap0"));
    let links = lab.ok(&["run", "--rm", "--", "ip", "-brief", "link"]);
    assert!(links.starts_with("lo ") && links.lines().count() == 1, "{links}");
    lab.ok(&["network", "create", "one"]);
    assert!(lab.ok(&["run", "--rm", "--net", "one", "--", "ip", "-brief", "link"]).contains("eth0"));
}

#[test]
fn interfaces_are_numbered_from_the_lowest_that_is_free() {
    let Some(lab) = Lab::new(&[]) else { return };
    for name in ["n1", "n2", "n3"] {
        lab.ok(&["network", "create", name]);
    }
    lab.ok(&["run", "-d", "--name", "alpha", "--net", "n1", "--", "sleep", "infinity"]);
    lab.ok(&["network", "connect", "n2", "alpha"]);
    lab.ok(&["network", "disconnect", "n1", "alpha"]);
    lab.ok(&["network", "connect", "n3", "alpha"]);
    let links = lab.sandbox("alpha").ip("-brief link");
    assert!(links.contains("eth0") && links.contains("eth1") && !links.contains("eth2"), "{links}");
}

#[test]
fn the_default_bridge_speaks_ipv6_where_it_was_told_to() {
    for (flags, address, gateway) in [
        (&["--ipv6", "--fixed-cidr-v6", "fd00:9::/80"][..], "fd00:9::2", "fd00:9::1"),
        (&["--ipv6", "--bip6", "fd00:8::1/64"], "fd00:8::2", "fd00:8::1"),
        (
            &[
                "--ipv6",
                "--bip6",
                "fd00:7::1/64",
                "--fixed-cidr-v6",
                "fd00:7::1:0/112",
                "--default-gateway-v6",
                "fd00:7::9",
            ],
            "fd00:7::1:0",
            "fd00:7::9",
        ),
    ] {
        let Some(lab) = Lab::new(flags) else { return };
        lab.serve("alpha", &[]);
        lab.serve("beta", &[]);
        assert_eq!(lab.v6("alpha", "bridge").ip().to_string(), address, "{flags:?}");
        let alpha = lab.sandbox("alpha");
        let route = alpha.ip("-6 route show default");
        assert!(route.contains(&format!("via {gateway} ")), "{flags:?}: {route}");
        let beta = lab.v6("beta", "bridge");
        assert!(alpha.connects(beta) && connects(&lab.host, beta), "{flags:?}");
        assert!(!connects(&lab.neighbour, beta), "{flags:?}");
        if !flags.contains(&"--default-gateway-v6") {
            let listener = lab.neighbour.listen("[fd00:ff::2]:7".parse().unwrap());
            assert!(alpha.connects(listener.local_addr().unwrap()), "{flags:?}");
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_string(), "fd00:ff::1");
        }
    }
    // A pool of its own where nothing was said.
    let Some(lab) = Lab::new(&["--ipv6"]) else { return };
    lab.serve("alpha", &[]);
    assert!(lab.v6("alpha", "bridge").ip().to_string().starts_with("fd"));
}

#[test]
fn the_default_bridge_need_not_masquerade() {
    let Some(lab) = Lab::new(&["--ip-masq=false"]) else { return };
    lab.ok(&["run", "-d", "--name", "alpha", "--", "sleep", "infinity"]);
    let listener = lab.neighbour.listen("192.0.2.2:7".parse().unwrap());
    assert!(lab.sandbox("alpha").connects(listener.local_addr().unwrap()));
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "172.17.0.2");
}

#[test]
fn daemon_flags_that_cannot_be_are_refused_before_anything_is_made() {
    let Some(host) = e2e::lab::Host::new("host") else { return };
    let home = e2e::daemon::Home::new(&host).unwrap();
    host.ip("link add lan0 type bridge");
    let cases: &[(&[&str], &str)] = &[
        (
            &["-b", "lan0", "--bip", "10.5.0.1/24"],
            "You specified -b & --bip, mutually exclusive options. Please specify only one",
        ),
        (
            &["--icc=false", "--iptables=false"],
            "You specified --iptables=false with --icc=false. ICC=false uses iptables to function. Please set --icc or --iptables to true",
        ),
        (
            &["--bip", "10.5.0.1/24", "--default-gateway", "10.6.0.1"],
            "default gateway ip must be part of the network",
        ),
        (&["--bip", "10.5.0.1/24", "--fixed-cidr", "10.6.0.0/24"], "10.6.0.0/24"),
        (&["--bip", "nonsense"], "nonsense"),
        (&["--bip", "10.5.0.1"], "10.5.0.1"),
        (&["--mtu", "-1"], "-1"),
        (&["-b", "lan9"], "lan9"),
        (&["-b", "lo"], "lo"),
        (&["--firewall-backend", "magic"], "magic"),
        (&["--default-address-pool", "base=10.9.0.0/16,size=8"], "10.9.0.0/16"),
        (&["--default-network-opt", "nonsense"], "nonsense"),
    ];
    for (flags, want) in cases {
        let mut refused = host.spawn(home.daemon_command(flags));
        assert_eq!(refused.code(), 1, "{flags:?}: {}", refused.stderr());
        assert!(refused.stderr().contains(want), "{flags:?}: {}", refused.stderr());
        let links = host.ip("-brief link");
        assert_eq!(links.lines().count(), 2, "{flags:?}: {links}");
    }
}

#[test]
fn new_networks_take_the_daemons_options() {
    let Some(lab) = Lab::new(&["--default-network-opt", "bridge=com.docker.network.driver.mtu=1234"]) else {
        return;
    };
    lab.ok(&["network", "create", "one"]);
    lab.ok(&["network", "create", "-o", "com.docker.network.driver.mtu=1300", "two"]);
    for (network, mtu) in [("one", "1234"), ("two", "1300"), ("bridge", "1500")] {
        let link = lab.ok(&["run", "--rm", "--net", network, "--", "ip", "link", "show", "eth0"]);
        assert!(link.contains(&format!("mtu {mtu} ")), "{network}: {link}");
    }
}
