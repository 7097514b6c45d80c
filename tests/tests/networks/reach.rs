//! Who reaches whom, and who must not, with both firewall backends.

use std::net::{SocketAddr, TcpStream};

use super::lab::{IPTABLES, Lab, NFTABLES, connects};

/// Runs a test with each backend on a host of its own.
fn with_both(flags: &[&str], test: impl Fn(&Lab)) {
    for backend in [NFTABLES, IPTABLES] {
        let flags = [&["--firewall-backend", backend], flags].concat();
        let Some(lab) = Lab::new(&flags) else { return };
        test(&lab);
    }
}

#[test]
fn one_network_is_open_inside_and_closed_to_others() {
    with_both(&[], |lab| {
        lab.ok(&[
            "network",
            "create",
            "--ipv6",
            "--subnet",
            "10.10.0.0/24",
            "--subnet",
            "fd00:10::/64",
            "one",
        ]);
        lab.ok(&[
            "network",
            "create",
            "--ipv6",
            "--subnet",
            "10.11.0.0/24",
            "--subnet",
            "fd00:11::/64",
            "two",
        ]);
        lab.serve("alpha", &["--net", "one"]);
        lab.serve("beta", &["--net", "one"]);
        lab.serve("gamma", &["--net", "two"]);
        let (a, c) = (lab.sandbox("alpha"), lab.sandbox("gamma"));
        for to in [lab.v4("beta", "one"), lab.v6("beta", "one")] {
            assert!(a.connects(to), "same network, {to}");
            assert!(connects(&lab.host, to), "the host, {to}");
            assert!(!c.connects(to), "another network, {to}");
            assert!(!connects(&lab.neighbour, to), "a neighbour with a route, {to}");
        }
        // The other direction is no better.
        assert!(!a.connects(lab.v4("gamma", "two")));
    });
}

#[test]
fn sandboxes_leave_under_the_hosts_address() {
    with_both(&[], |lab| {
        lab.ok(&["network", "create", "--ipv6", "--subnet", "fd00:10::/64", "one"]);
        lab.ok(&["run", "-d", "--name", "alpha", "--net", "one", "--", "sleep", "infinity"]);
        let a = lab.sandbox("alpha");
        for (server, host) in [("192.0.2.2:7", "192.0.2.1"), ("[fd00:ff::2]:7", "fd00:ff::1")] {
            let server: SocketAddr = server.parse().unwrap();
            let listener = lab.neighbour.listen(server);
            assert!(a.connects(server), "{server}");
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_string(), host);
        }
    });
}

#[test]
fn without_masquerade_they_leave_under_their_own() {
    with_both(&[], |lab| {
        let off = "com.docker.network.bridge.enable_ip_masquerade=false";
        lab.ok(&["network", "create", "-o", off, "--subnet", "10.10.0.0/24", "one"]);
        lab.ok(&[
            "run",
            "-d",
            "--name",
            "alpha",
            "--net",
            "one",
            "--ip",
            "10.10.0.9",
            "--",
            "sleep",
            "infinity",
        ]);
        let server: SocketAddr = "192.0.2.2:7".parse().unwrap();
        let listener = lab.neighbour.listen(server);
        assert!(lab.sandbox("alpha").connects(server));
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip().to_string(), "10.10.0.9");
    });
}

#[test]
fn without_icc_neighbours_on_a_bridge_are_strangers() {
    with_both(&[], |lab| {
        lab.ok(&[
            "network",
            "create",
            "-o",
            "com.docker.network.bridge.enable_icc=false",
            "--ipv6",
            "--subnet",
            "fd00:10::/64",
            "quiet",
        ]);
        lab.serve("alpha", &["--net", "quiet"]);
        lab.serve("beta", &["--net", "quiet"]);
        let a = lab.sandbox("alpha");
        for to in [lab.v4("beta", "quiet"), lab.v6("beta", "quiet")] {
            assert!(!a.connects(to), "{to}");
            assert!(connects(&lab.host, to), "the host, {to}");
        }
        let listener = lab.neighbour.listen("192.0.2.2:7".parse().unwrap());
        assert!(a.connects(listener.local_addr().unwrap()), "the way out stays");
    });
}

#[test]
fn an_internal_network_has_no_outside() {
    with_both(&[], |lab| {
        lab.ok(&["network", "create", "--internal", "--subnet", "10.10.0.0/24", "inside"]);
        lab.ok(&["network", "create", "--subnet", "10.11.0.0/24", "other"]);
        lab.serve("alpha", &["--net", "inside"]);
        lab.serve("beta", &["--net", "inside"]);
        lab.serve("gamma", &["--net", "other"]);
        let (a, c) = (lab.sandbox("alpha"), lab.sandbox("gamma"));
        assert!(a.connects(lab.v4("beta", "inside")));
        assert!(connects(&lab.host, lab.v4("beta", "inside")));
        assert!(!c.connects(lab.v4("alpha", "inside")));
        assert!(!connects(&lab.neighbour, lab.v4("alpha", "inside")));
        assert!(!a.ip("route").contains("default"), "{}", a.ip("route"));
        // Not even with a route of its own.
        a.ip("route add default via 10.10.0.1");
        let listener = lab.neighbour.listen("192.0.2.2:7".parse().unwrap());
        assert!(!a.connects(listener.local_addr().unwrap()));
        assert!(!a.connects(lab.v4("gamma", "other")));
    });
}

#[test]
fn the_host_routes_for_nobody_else_because_of_us() {
    with_both(&[], |lab| {
        // Forwarding was off before the daemon came; a neighbour must not get through to a third network now.
        let third = e2e::lab::Host::new("third").unwrap();
        e2e::lab::cable((&lab.host, "more", &["198.51.100.1/24"]), (&third, "in", &["198.51.100.2/24"]));
        third.ip("route add default via 198.51.100.1");
        let listener = third.listen("198.51.100.2:7".parse().unwrap());
        let to = listener.local_addr().unwrap();
        // A new cable may be dead for a second.
        e2e::wait::until("the cable", || connects(&lab.host, to));
        assert_eq!(lab.host.run("cat", &["/proc/sys/net/ipv4/ip_forward"]).trim(), "1");
        assert!(!connects(&lab.neighbour, to));
        lab.ok(&["run", "-d", "--name", "alpha", "--", "sleep", "infinity"]);
        assert!(lab.sandbox("alpha").connects(to));
    });
}

#[test]
fn with_forwarding_left_off_nothing_leaves_and_nothing_is_touched() {
    let Some(lab) = Lab::new(&["--ip-forward=false"]) else { return };
    assert_eq!(lab.host.run("cat", &["/proc/sys/net/ipv4/ip_forward"]).trim(), "0");
    lab.ok(&["run", "-d", "--name", "alpha", "--", "sleep", "infinity"]);
    let listener = lab.neighbour.listen("192.0.2.2:7".parse().unwrap());
    let to = listener.local_addr().unwrap();
    assert!(!lab.sandbox("alpha").connects(to));
    // As the course has it: the administrator turns it on, and it works.
    lab.host.run("sysctl", &["-w", "net.ipv4.conf.all.forwarding=1"]);
    assert!(lab.sandbox("alpha").connects(to));
    assert!(lab.host.run("sysctl", &["net.ipv4.conf.all.forwarding"]).contains("= 1"));
}

#[test]
fn without_iptables_no_rule_is_touched() {
    let Some(lab) = Lab::new(&["--iptables=false"]) else { return };
    let rules = || lab.host.run("nft", &["list", "ruleset"]) + &lab.host.run("iptables-save", &[]);
    let before = rules();
    lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    lab.serve("alpha", &["--net", "one"]);
    assert!(
        connects(&lab.neighbour, lab.v4("alpha", "one")),
        "nothing protects it, which is what was asked for"
    );
    assert!(!rules().contains("portmap") && !rules().contains("PORTMAP"), "{before} became {}", rules());
}

#[test]
fn a_sandbox_on_two_networks_talks_on_both_and_leaves_by_one() {
    with_both(&[], |lab| {
        for (name, subnet) in [("aa", "10.10.0.0/24"), ("bb", "10.11.0.0/24")] {
            lab.ok(&["network", "create", "--subnet", subnet, name]);
            lab.serve(&format!("on-{name}"), &["--net", name]);
        }
        lab.serve("both", &["--net", "bb"]);
        let both = lab.sandbox("both");
        assert!(both.ip("route").contains("default via 10.11.0.1 dev eth0"), "{}", both.ip("route"));
        lab.ok(&["network", "connect", "--ip", "10.10.0.77", "aa", "both"]);
        // Of equals, the lesser name wins.
        assert!(both.ip("route").contains("default via 10.10.0.1 dev eth1"), "{}", both.ip("route"));
        assert!(both.connects(lab.v4("on-aa", "aa")) && both.connects(lab.v4("on-bb", "bb")));
        assert!(lab.sandbox("on-aa").connects("10.10.0.77:80".parse().unwrap()));
        lab.ok(&["network", "disconnect", "aa", "both"]);
        assert!(both.ip("route").contains("default via 10.11.0.1 dev eth0"), "{}", both.ip("route"));
        assert!(!both.ip("link").contains("eth1"));
        assert!(!lab.sandbox("on-aa").connects("10.10.0.77:80".parse().unwrap()));
        // A priority beats the name.
        lab.ok(&["network", "connect", "--gw-priority", "-1", "aa", "both"]);
        assert!(both.ip("route").contains("default via 10.11.0.1"), "{}", both.ip("route"));
    });
}

#[test]
fn a_big_packet_fits_a_small_mtu() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    // Under 1280 the kernel takes IPv6 and all settings of it from a link.
    for (key, mtu) in [
        ("com.docker.network.driver.mtu", "1400"),
        ("com.docker.network.mtu", "1300"),
        ("com.docker.network.driver.mtu", "900"),
    ] {
        let name = format!("mtu{mtu}");
        lab.ok(&["network", "create", "-o", &format!("{key}={mtu}"), &name]);
        lab.serve(&format!("on-{mtu}"), &["--net", &name]);
        let sandbox = lab.sandbox(&format!("on-{mtu}"));
        assert!(sandbox.ip("link show eth0").contains(&format!("mtu {mtu} ")), "{}", sandbox.ip("link"));
        let to = lab.v4(&format!("on-{mtu}"), &name);
        assert!(lab.host.enter(|| TcpStream::connect(to)).is_ok());
    }
    lab.end_daemon("-KILL");
    lab.start_daemon();
    lab.serve("another", &["--net", "mtu900"]);
    let (_, said) =
        lab.fails(&["network", "create", "--ipv6", "-o", "com.docker.network.driver.mtu=900", "six"]);
    assert!(said.ends_with("invalid MTU number: 900: IPv6 needs 1280 at least"), "{said}");
}
