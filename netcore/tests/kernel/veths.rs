//! Endpoints and default routes.

use netcore::kernel::{Kernel, KernelError};
use netcore::plan::{Key, Sysctl, Veth};

use crate::world::{MARKER, World, bridge, name, state};

/// A bridge, and an empty sandbox `a`.
fn world() -> Option<World> {
    let world = World::new()?;
    world.ensure(bridge("br-x", &["10.1.0.1/16", "fd00:1::1/64"]));
    world.ensure(world.namespace("a"));
    Some(world)
}

#[test]
fn an_endpoint_is_made_once_and_goes_once() {
    let Some(world) = world() else { return };
    let before = world.state();
    let wanted =
        Veth { mtu: Some(1400), hairpin: true, ..world.veth("a", "br-x", &["10.1.0.2/16", "fd00:1::2/64"]) };
    world.ensure(wanted.clone());
    let inside = world.inside("a");
    let (made, there) = (world.state(), state(&inside));
    for text in ["master br-x", "hairpin on", "portmap:test:0000", "mtu 1400", "addrgenmode none"] {
        assert!(made.contains(text), "{text}: {made}");
    }
    for text in ["inet 10.1.0.2/16", "inet6 fd00:1::2/64", "mtu 1400", &wanted.mac.to_string()] {
        assert!(there.contains(text), "{text}: {there}");
    }
    assert!(!there.contains("tentative"), "{there}");

    assert!(world.is_settled(wanted.clone()));
    assert_eq!((world.state(), state(&inside)), (made, there));
    let ours = world.kernel.ours(MARKER, &world.pins()).unwrap();
    assert_eq!(
        ours,
        [Key::Bridge(name("br-x")), Key::Namespace(world.pin("a")), Key::Veth(wanted.host.clone())]
    );

    world.remove(wanted.clone());
    world.remove(wanted);
    assert_eq!(world.state(), before);
    assert!(!inside.run("ip -br link", "").contains("eth0"));
}

#[test]
fn an_awaited_port_forwards() {
    let Some(world) = world() else { return };
    let wanted = world.veth("a", "br-x", &["10.1.0.2/16"]);
    world.ensure(wanted.clone());
    world.kernel.await_port(&wanted);
    let port = world.host.run(&format!("ip -d -o link show {}", wanted.host), "");
    assert!(port.contains("state UP") && port.contains("state forwarding"), "{port}");
}

#[test]
fn a_bridge_without_a_free_port_is_named() {
    let Some(world) = world() else { return };
    let port = |number| format!("link add p{number} master br-x type veth peer q{number}\n");
    world.host.run("ip -batch -", &(0..1023).map(port).collect::<String>());
    let before = world.state();
    let wanted = world.veth("a", "br-x", &["10.1.0.2/16"]);
    let error = world.try_ensure(wanted.clone()).unwrap_err();
    assert!(matches!(error, KernelError::BridgeFull { .. }), "{error}");
    assert!(error.to_string().contains("bridge br-x has 1023 ports"), "{error}");
    assert_eq!(world.state(), before);
    world.host.run("ip link delete p7", "");
    world.ensure(wanted);
}

#[test]
fn an_endpoint_follows_its_plan() {
    let Some(world) = world() else { return };
    world.ensure(bridge("br-y", &["10.2.0.1/16"]));
    let first = world.veth("a", "br-x", &["10.1.0.2/16"]);
    world.ensure(first.clone());
    let inside = world.inside("a");
    let off = || inside.run("cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6", "").trim().to_owned();
    assert_eq!(off(), "1");
    let other = Veth { mac: "02:00:00:00:00:77".parse().unwrap(), ..first.clone() };
    let changes = [
        (
            world.veth("a", "br-x", &["10.1.0.3/16", "fd00:1::3/64"]),
            vec!["inet 10.1.0.3/16", "inet6 fd00:1::3/64"],
        ),
        (other, vec!["02:00:00:00:00:77", "inet 10.1.0.2/16"]),
        (Veth { mtu: Some(1300), ..first.clone() }, vec!["mtu 1300"]),
        (Veth { addresses: vec![], ..first.clone() }, vec!["eth0"]),
        (Veth { name: name("net1"), ..first.clone() }, vec!["net1", "inet 10.1.0.2/16"]),
    ];
    for (wanted, shown) in changes {
        world.ensure(wanted.clone());
        let there = state(&inside);
        for text in shown {
            assert!(there.contains(text), "{text}: {there}");
        }
        assert!(world.is_settled(wanted), "{there}");
    }
    assert!(!inside.run("ip -br link", "").contains("eth0"));
    let moved = Veth { bridge: name("br-y"), hairpin: true, ..first };
    world.ensure(moved.clone());
    let made = world.state();
    assert!(made.contains("master br-y") && made.contains("hairpin on"), "{made}");
    assert!(world.is_settled(moved));
}

#[test]
fn a_failed_endpoint_leaves_nothing() {
    let Some(world) = world() else { return };
    let (before, there) = (world.state(), state(&world.inside("a")));
    let wanted = world.veth("a", "br-x", &["10.1.0.2/16", "fd00:1::2/64"]);
    let check = |verb: &str| {
        assert_eq!(world.state(), before, "{verb}");
        assert_eq!(state(&world.inside("a")), there, "{verb}");
    };
    world.failing_in_turn(wanted.clone(), check);
    world.remove(wanted.clone());
    // The kernel itself refuses the last one.
    let refused =
        Veth { addresses: vec!["10.1.0.2/16".parse().unwrap(), "ff02::1/128".parse().unwrap()], ..wanted };
    let error = world.try_ensure(refused).unwrap_err().to_string();
    assert!(error.starts_with("cannot configure the inner end of veth veth-a: "), "{error}");
    check("multicast");
}

#[test]
fn names_that_are_taken_are_refused() {
    let Some(world) = world() else { return };
    let wanted = world.veth("a", "br-x", &["10.1.0.2/16"]);
    let inside = world.inside("a");
    inside.ip("link add eth0 type bridge");
    let before = world.state();
    let error = world.try_ensure(wanted.clone()).unwrap_err();
    assert!(matches!(error, KernelError::TakenInside { .. }), "{error}");
    assert_eq!(world.state(), before);
    inside.ip("link del eth0");

    world.host.ip("link add veth-a type bridge");
    let error = world.try_ensure(wanted.clone()).unwrap_err();
    let text = "cannot create veth veth-a: an interface of that name exists and isn't portmap's";
    assert_eq!(error.to_string(), text);
    world.remove(wanted.clone());
    world.host.ip("link del veth-a");

    let stray = Veth { bridge: name("br-z"), ..wanted };
    let error = world.try_ensure(stray).unwrap_err();
    assert_eq!(error.to_string(), "cannot create veth veth-a: there is no bridge br-z");
}

#[test]
fn a_leftover_of_the_same_name_is_replaced() {
    let Some(world) = world() else { return };
    world.ensure(world.namespace("b"));
    let old = world.veth("a", "br-x", &["10.1.0.2/16"]);
    world.ensure(old.clone());
    let new = Veth { host: old.host.clone(), ..world.veth("b", "br-x", &["10.1.0.3/16"]) };
    world.ensure(new.clone());
    assert!(!world.inside("a").run("ip -br link", "").contains("eth0"));
    assert!(state(&world.inside("b")).contains("inet 10.1.0.3/16"));
    assert!(world.is_settled(new));
}

#[test]
fn an_endpoint_goes_with_its_namespace() {
    let Some(world) = world() else { return };
    let veth = world.veth("a", "br-x", &["10.1.0.2/16"]);
    let routes = world.routes("a", Some("10.1.0.1"), None);
    world.ensure(veth.clone());
    world.ensure(routes.clone());
    world.remove(world.namespace("a"));
    world.remove(routes);
    world.remove(veth.clone());
    let error = world.try_ensure(veth).unwrap_err();
    assert!(matches!(error, KernelError::NoNamespace(_)), "{error}");
}

#[test]
fn default_routes_follow_their_plan() {
    let Some(world) = world() else { return };
    world.ensure(world.veth("a", "br-x", &["10.1.0.2/16", "fd00:1::2/64"]));
    let inside = world.inside("a");
    let v4 = || inside.run("ip route show default", "").trim().to_owned();
    let v6 = || inside.run("ip -6 route show default", "").trim().to_owned();
    let steps = [
        (Some("10.1.0.1"), Some("fd00:1::1")),
        (Some("10.1.255.254"), Some("fd00:1::fe")),
        (None, Some("fd00:1::1")),
        (Some("10.1.0.1"), None),
        (None, None),
    ];
    for (gateway, gateway6) in steps {
        let wanted = world.routes("a", gateway, gateway6);
        world.ensure(wanted.clone());
        let want = gateway.map(|gateway| format!("default via {gateway} dev eth0 proto static"));
        assert_eq!(v4(), want.unwrap_or_default());
        let want = gateway6.map(|gateway| format!("default via {gateway} dev eth0 proto static metric 1024"));
        assert!(
            v6().starts_with(&want.clone().unwrap_or_default()) && v6().is_empty() == want.is_none(),
            "{}",
            v6()
        );
        assert!(world.is_settled(wanted));
    }
    let last = world.routes("a", Some("10.1.0.1"), Some("fd00:1::1"));
    world.ensure(last.clone());
    world.remove(last.clone());
    world.remove(last);
    assert_eq!((v4(), v6()), (String::new(), String::new()));
}

#[test]
fn failed_default_routes_are_those_of_before() {
    let Some(world) = world() else { return };
    world.ensure(world.veth("a", "br-x", &["10.1.0.2/16", "fd00:1::2/64"]));
    let inside = world.inside("a");
    for before in [(None, None), (Some("10.1.0.9"), None), (None, Some("fd00:1::9"))] {
        world.ensure(world.routes("a", before.0, before.1));
        let there = state(&inside);
        let wanted = world.routes("a", Some("10.1.0.1"), Some("fd00:1::1"));
        world.failing_in_turn(wanted, |verb| assert_eq!(state(&inside), there, "{verb}"));
        world.ensure(world.routes("a", before.0, before.1));
        // IPv4's is taken, IPv6's is refused by the kernel.
        let refused = world.routes("a", Some("10.1.0.1"), Some("fd00:2::1"));
        let error = world.try_ensure(refused).unwrap_err().to_string();
        assert!(error.starts_with("cannot set the default routes of "), "{error}");
        assert_eq!(state(&inside), there);
    }
}

#[test]
fn an_adopted_namespace_keeps_its_other_routes() {
    let Some(world) = world() else { return };
    world.ensure(world.veth("a", "br-x", &["10.1.0.2/16", "fd00:1::2/64"]));
    let inside = world.inside("a");
    inside.ip("route add default via 10.1.0.7 metric 50");
    inside.ip("route add 192.0.2.0/24 via 10.1.0.8");
    inside.ip("route add default via 10.1.0.9 table 77");
    let there = state(&inside);
    let wanted = world.routes("a", Some("10.1.0.1"), Some("fd00:1::1"));
    world.ensure(wanted.clone());
    world.remove(wanted);
    assert_eq!(state(&inside), there);
    assert!(inside.run("ip route show table 77", "").contains("10.1.0.9"));
}

#[test]
fn a_route_needs_its_interface() {
    let Some(world) = world() else { return };
    let error = world.try_ensure(world.routes("a", Some("10.1.0.1"), None)).unwrap_err().to_string();
    assert!(error.ends_with("No such device (no interface eth0)"), "{error}");
}

#[test]
fn settings_of_the_sandboxs_end_are_set() {
    let Some(world) = world() else { return };
    let before = world.state();
    let sysctl = |key: &str| Sysctl { key: format!("net/ipv4/conf/eth0/{key}"), value: "1".into() };
    let wanted = Veth { sysctls: vec![sysctl("log_martians")], ..world.veth("a", "br-x", &["10.1.0.2/16"]) };
    world.ensure(wanted.clone());
    let set = || world.inside("a").run("cat /proc/sys/net/ipv4/conf/eth0/log_martians", "");
    assert_eq!(set(), "1\n");
    assert!(world.is_settled(wanted.clone()));
    world.inside("a").sysctl("net/ipv4/conf/eth0/log_martians", "0");
    world.ensure(wanted.clone());
    assert_eq!(set(), "1\n");
    world.remove(wanted.clone());
    let error = world.try_ensure(Veth { sysctls: vec![sysctl("none")], ..wanted }).unwrap_err().to_string();
    assert_eq!(error, "cannot set sysctls of veth veth-a: No such file or directory");
    assert_eq!(world.state(), before);
}
