//! Bridges, and what else of the host is made or asked for.

use netcore::kernel::{HostKernel, Kernel, KernelError, Operation};
use netcore::plan::{Bridge, Key, Object, Step, Sysctl};
use nix::sched::{CloneFlags, setns};

use crate::world::{MARKER, World, bridge, name};

#[test]
fn a_bridge_is_made_once_and_goes_once() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let wanted = bridge("br-x", &["10.1.0.1/16", "fd00:1::1/64"]);
    world.ensure(wanted.clone());
    let made = world.state();
    assert!(world.is_settled(wanted.clone()));
    assert_eq!(world.state(), made);

    let facts = world.kernel.link(&name("br-x")).unwrap().unwrap();
    assert!(facts.bridge);
    assert_eq!(facts.addresses, wanted.addresses);
    assert_eq!(facts.alias.as_deref(), Some("portmap:test:br-x"));
    assert_eq!(world.kernel.sysctl("net/ipv6/conf/br-x/accept_ra").unwrap().as_deref(), Some("0"));
    assert_eq!(world.kernel.ours(MARKER, &world.pins()).unwrap(), [Key::Bridge(name("br-x"))]);
    assert_eq!(world.kernel.ours("other", &world.pins()).unwrap(), []);

    world.remove(wanted.clone());
    world.remove(wanted);
    assert_eq!(world.state(), before);
    assert_eq!(world.kernel.link(&name("br-x")).unwrap(), None);
}

#[test]
fn a_bridge_follows_its_plan() {
    let Some(world) = World::new() else { return };
    let first = bridge("br-x", &["10.1.0.1/16", "10.1.0.2/16", "fd00:1::1/64"]);
    world.ensure(first.clone());
    let changes: [Bridge; 7] = [
        bridge("br-x", &["10.1.0.2/16", "fd00:1::2/64"]),
        bridge("br-x", &["10.1.0.2/24", "fd00:1::2/80"]),
        Bridge { mtu: Some(1400), ..bridge("br-x", &["10.2.0.1/16"]) },
        bridge("br-x", &[]),
        first.clone(),
        bridge("br-x", &["10.3.0.1/16"]),
        first,
    ];
    for wanted in changes {
        world.ensure(wanted.clone());
        let facts = world.kernel.link(&name("br-x")).unwrap().unwrap();
        let (mut have, mut want) = (facts.addresses, wanted.addresses.clone());
        have.sort_unstable();
        want.sort_unstable();
        assert_eq!(have, want);
        wanted.mtu.inspect(|mtu| assert_eq!(facts.mtu, u32::from(*mtu)));
        let off = world.kernel.sysctl("net/ipv6/conf/br-x/disable_ipv6").unwrap();
        assert_eq!(off.as_deref(), Some(if wanted.ipv6 { "0" } else { "1" }));
        assert!(world.is_settled(wanted));
    }
}

#[test]
fn a_bridge_shows_the_firewall_what_passes_it_if_it_must() {
    let Some(world) = World::new() else { return };
    if world.kernel.sysctl("net/bridge/bridge-nf-call-iptables").unwrap().is_none() {
        let _ = crate::lab::missing("this kernel has no br_netfilter");
        return;
    }
    let plain = bridge("br-x", &["10.1.0.1/16"]);
    let filtered = Bridge { filtered: true, ..plain.clone() };
    for (wanted, shown) in
        [(filtered, "nf_call_iptables 1 nf_call_ip6tables 1"), (plain, "nf_call_iptables 0")]
    {
        world.ensure(wanted.clone());
        assert!(world.state().contains(shown), "{}", world.state());
        assert!(world.is_settled(wanted));
    }
}

#[test]
fn loopback_addresses_leave_by_a_bridge_while_they_should() {
    let Some(world) = World::new() else { return };
    world.host.ip("link add br-y type bridge");
    let set = |of: &str| world.kernel.sysctl(&format!("net/ipv4/conf/{of}/route_localnet")).unwrap();
    for (of, adopted) in [("br-x", false), ("br-y", true)] {
        let plain = Bridge { adopted, ..bridge(of, &["10.1.0.1/16"]) };
        let open = Bridge { route_localnet: true, ..plain.clone() };
        for (wanted, value) in [(&open, "1"), (&plain, "0"), (&open, "1")] {
            world.ensure(wanted.clone());
            assert_eq!(set(of).as_deref(), Some(value), "{of}");
            assert!(world.is_settled(wanted.clone()));
        }
        world.remove(open);
        assert_eq!(set(of).as_deref(), adopted.then_some("0"), "{of}");
    }
}

#[test]
fn a_bridge_keeps_its_hardware_address_when_ports_come() {
    let Some(world) = World::new() else { return };
    world.ensure(bridge("br-x", &["10.1.0.1/16"]));
    let address = || world.host.run("ip -br link show br-x", "").split_whitespace().nth(2).map(str::to_owned);
    let before = address();
    for number in 0..4 {
        world.sandbox(&format!("s{number}"), "br-x", &format!("10.1.0.{}/16", number + 2));
    }
    assert_eq!(address(), before);
}

#[test]
fn a_failed_bridge_leaves_nothing() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let wanted =
        Bridge { mtu: Some(1400), filtered: true, ..bridge("br-x", &["10.1.0.1/16", "fd00:1::1/64"]) };
    world.failing_in_turn(wanted, |verb| assert_eq!(world.state(), before, "{verb}"));
    // One the kernel itself refuses, after the device was made.
    let twice = bridge("br-y", &["10.1.0.1/16", "fd00:1::1/64", "ff02::1/128"]);
    let error = world.try_ensure(twice).unwrap_err().to_string();
    assert!(error.starts_with("cannot configure bridge br-y: "), "{error}");
    assert_eq!(world.kernel.link(&name("br-y")).unwrap(), None);
}

#[test]
fn another_kind_of_interface_is_no_bridge() {
    let Some(world) = World::new() else { return };
    world.host.ip("link add br-x type veth peer name other");
    let before = world.state();
    let error = world.try_ensure(bridge("br-x", &["10.1.0.1/16"])).unwrap_err();
    assert_eq!(error.to_string(), "existing interface br-x is not a bridge");
    world.remove(bridge("br-x", &["10.1.0.1/16"]));
    assert_eq!(world.state(), before);
    assert!(!world.kernel.link(&name("br-x")).unwrap().unwrap().bridge);
}

#[test]
fn somebody_elses_bridge_keeps_what_it_has() {
    let Some(world) = World::new() else { return };
    world.host.ip("link add br-x type bridge");
    world.host.ip("addr add 192.0.2.1/24 dev br-x");
    for adopted in [true, false] {
        let wanted = Bridge { adopted, ..bridge("br-x", &["10.1.0.1/16"]) };
        world.ensure(wanted.clone());
        assert!(world.is_settled(wanted.clone()));
        let facts = world.kernel.link(&name("br-x")).unwrap().unwrap();
        assert_eq!(
            facts.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["192.0.2.1/24", "10.1.0.1/16"]
        );
        assert_eq!(facts.alias, None);
        world.remove(wanted);
        assert!(world.kernel.link(&name("br-x")).unwrap().is_some());
    }
    assert_eq!(world.kernel.ours(MARKER, &world.pins()).unwrap(), []);
}

#[test]
fn the_hosts_own_subnets_are_those_without_a_gateway_and_not_ours() {
    let Some(world) = World::new() else { return };
    world.host.ip("link add up0 type veth peer name up1");
    world.host.ip("link set up0 up");
    world.host.ip("link set up1 up");
    world.host.ip("addr add 192.0.2.1/24 dev up0");
    world.host.ip("addr add fd00:ff::1/64 dev up0 nodad");
    world.host.ip("route add 198.51.100.0/24 dev up0");
    world.host.ip("route add 203.0.113.0/24 via 192.0.2.9");
    world.host.ip("route add default via 192.0.2.9");
    world.ensure(bridge("br-x", &["10.1.0.1/16", "fd00:1::1/64"]));
    let nets: Vec<String> = world.kernel.on_link_routes().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["192.0.2.0/24", "198.51.100.0/24", "fd00:ff::/64"]);
}

#[test]
fn sysctls_are_the_hosts_from_any_thread() {
    let Some(world) = World::new() else { return };
    let elsewhere = crate::lab::Host::new();
    let wanted = Sysctl { key: "net/ipv4/ip_forward".into(), value: "1".into() };
    let read = || world.kernel.sysctl("net/ipv4/ip_forward").unwrap();
    assert_eq!(read().as_deref(), Some("0"));
    elsewhere.enter(|| world.ensure(wanted.clone()));
    world.ensure(wanted.clone());
    assert_eq!(read().as_deref(), Some("1"));
    world.remove(wanted);
    assert_eq!(read().as_deref(), Some("1"));
    assert_eq!(elsewhere.run("cat /proc/sys/net/ipv4/ip_forward", "").trim(), "0");
    assert_eq!(world.kernel.sysctl("net/ipv4/no_such_thing").unwrap(), None);
    let error = world.try_ensure(Sysctl { key: "../etc/motd".into(), value: "1".into() }).unwrap_err();
    assert!(matches!(error, KernelError::BadSysctl(_)), "{error}");
}

#[test]
fn an_interface_that_goes_while_it_is_looked_at_is_gone() {
    let Some(world) = World::new() else { return };
    world.host.ip("link add br-y type bridge");
    let home = world.host.enter(|| std::fs::File::open("/proc/thread-self/ns/net")).unwrap();
    let gate = move |operation: &Operation<'_>| {
        if operation.verb == "list the addresses of" {
            let delete = || {
                setns(&home, CloneFlags::CLONE_NEWNET).unwrap();
                std::process::Command::new("ip").args(["link", "del", "br-y"]).status().unwrap()
            };
            assert!(std::thread::scope(|scope| scope.spawn(delete).join()).unwrap().success());
        }
        Ok(())
    };
    let kernel = world.host.enter(|| HostKernel::with_gate(MARKER.to_owned(), gate)).unwrap();
    assert_eq!(kernel.link(&name("br-y")).unwrap(), None);
}

#[test]
fn a_bridge_that_a_crash_left_without_its_mark_is_ours_and_anybody_elses_is_not() {
    let Some(world) = World::new() else { return };
    let wanted = bridge("br-x", &["10.1.0.1/16"]);
    // The one who makes it ends between making and marking.
    let crash = std::panic::AssertUnwindSafe(|| {
        let gate = |operation: &Operation<'_>| {
            assert_ne!(operation.verb, "configure", "on purpose");
            Ok(())
        };
        let kernel = world.host.enter(|| HostKernel::with_gate(MARKER.to_owned(), gate)).unwrap();
        kernel.apply(&Step::Ensure(Object::Bridge(wanted.clone())))
    });
    assert!(std::panic::catch_unwind(crash).is_err());
    assert_eq!(world.kernel.ours(MARKER, &world.pins()).unwrap(), [Key::Bridge(name("br-x"))]);
    assert_eq!(world.kernel.ours("other", &world.pins()).unwrap(), []);
    world.ensure(wanted.clone());
    let facts = world.kernel.link(&name("br-x")).unwrap().unwrap();
    assert_eq!(facts.alias.as_deref(), Some("portmap:test:br-x"));
    assert!(world.state().contains("group default") && world.is_settled(wanted.clone()));
    world.remove(wanted.clone());
    assert_eq!(world.kernel.link(&name("br-x")).unwrap(), None);

    world.host.ip("link add br-x type bridge");
    world.ensure(wanted.clone());
    assert_eq!(world.kernel.link(&name("br-x")).unwrap().unwrap().alias, None);
    world.remove(wanted);
    assert!(world.kernel.link(&name("br-x")).unwrap().is_some());
}
