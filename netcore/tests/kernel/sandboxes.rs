//! Sandboxes over what was made: who reaches whom, what neighbours learn, and many at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netcore::kernel::Kernel;
use netcore::plan::{Bridge, Veth};

use crate::world::{MARKER, World, bridge};

#[test]
fn sandboxes_reach_each_other_and_the_host() {
    let Some(world) = World::new() else { return };
    world.ensure(bridge("br-x", &["10.1.0.1/16", "fd00:1::1/64"]));
    for (name, number) in [("a", 2), ("b", 3)] {
        world.ensure(world.namespace(name));
        world.ensure(world.veth(
            name,
            "br-x",
            &[&format!("10.1.0.{number}/16"), &format!("fd00:1::{number}/64")],
        ));
        world.ensure(world.routes(name, Some("10.1.0.1"), Some("fd00:1::1")));
    }
    let (a, b) = (world.inside("a"), world.inside("b"));
    for (from, to, at) in [
        (&a, &b, "10.1.0.3"),
        (&b, &a, "fd00:1::2"),
        (&a, &world.host, "10.1.0.1"),
        (&world.host, &b, "fd00:1::3"),
    ] {
        assert!(from.reaches(to, at), "{at}");
    }
    // By the default route: an address of the host that isn't on the bridge.
    world.host.ip("link add out0 type bridge");
    world.host.ip("link set out0 up");
    world.host.ip("addr add 192.0.2.1/32 dev out0");
    assert!(a.reaches(&world.host, "192.0.2.1"));
}

#[test]
fn link_local_gateways_work() {
    let Some(world) = World::new() else { return };
    world.ensure(Bridge { ipv6: true, ..bridge("br-x", &["fd00:1::1/64"]) });
    world.host.ip("addr add fe80::1/64 dev br-x nodad");
    world.ensure(world.namespace("a"));
    world.ensure(world.veth("a", "br-x", &["fd00:1::2/64"]));
    world.ensure(world.routes("a", None, Some("fe80::1")));
    world.host.ip("addr add fd00:9::1/128 dev br-x nodad");
    assert!(world.inside("a").reaches(&world.host, "fd00:9::1"));
}

#[test]
fn a_hairpin_port_sends_back() {
    let Some(world) = World::new() else { return };
    world.ensure(bridge("br-x", &["10.1.0.1/16"]));
    let veth = world.sandbox("a", "br-x", "10.1.0.2/16");
    let inside = world.inside("a");
    let hits = |hairpin| {
        world.ensure(Veth { hairpin, ..veth.clone() });
        let before = received(&inside);
        // Broadcasts come back at a hairpin port. Some, for the host asks for its neighbour when it likes.
        for _ in 0..8 {
            inside.run("ip neigh flush all", "");
            let _ = inside.connect(&world.host, "10.1.0.1");
        }
        received(&inside) - before
    };
    let (without, with) = (hits(false), hits(true));
    assert!(with >= without + 4, "{without} {with}");
}

fn received(host: &crate::lab::Host) -> u64 {
    let text = host.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("counters"));
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).expect("the interface");
    line.split_whitespace().nth(1).and_then(|packets| packets.parse().ok()).expect("a number")
}

#[test]
fn neighbours_learn_who_has_an_address_now() {
    let Some(world) = World::new() else { return };
    world.ensure(bridge("br-x", &["10.1.0.1/16", "fd00:1::1/64"]));
    world.ensure(world.namespace("a"));
    let veth = world.veth("a", "br-x", &["10.1.0.2/16", "fd00:1::2/64"]);
    world.ensure(veth.clone());
    for address in ["10.1.0.2", "fd00:1::2"] {
        world.host.ip(&format!("neigh replace {address} lladdr 02:00:00:00:00:99 dev br-x nud stale"));
    }
    let asked = Instant::now();
    world.kernel.announce(&veth);
    assert!(asked.elapsed() < Duration::from_millis(500));
    let mac = veth.mac.to_string();
    let known = || world.host.run("ip neigh show dev br-x", "").matches(&mac).count();
    let limit = Instant::now() + Duration::from_secs(5);
    while known() < 2 && Instant::now() < limit {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(known(), 2, "{}", world.host.run("ip neigh", ""));
}

#[test]
fn a_listing_has_all_of_it_while_others_change() {
    let Some(world) = World::new() else { return };
    world.ensure(bridge("br-x", &["10.1.0.1/16"]));
    for number in 0..20 {
        world.host.ip(&format!("link add o{number} type bridge"));
    }
    for number in 0..20 {
        world.ensure(bridge(&format!("br-{number}"), &[]));
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..4 {
                for number in 0..10 {
                    world.host.ip(&format!("link del o{number}"));
                    world.host.ip(&format!("link add o{number} type bridge"));
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            assert_eq!(world.kernel.ours(MARKER, &world.pins()).unwrap().len(), 21);
        }
    });
}

#[test]
fn many_at_once() {
    let Some(world) = World::new() else { return };
    world.ensure(bridge("br-x", &["10.1.0.1/16"]));
    let started = Instant::now();
    thread::scope(|scope| {
        for worker in 0..8u32 {
            let world = &world;
            scope.spawn(move || {
                for number in (worker..100).step_by(8) {
                    let name = format!("s{number}");
                    world.sandbox(&name, "br-x", &format!("10.1.1.{}/16", number + 1));
                    world.ensure(world.routes(&name, Some("10.1.0.1"), None));
                }
            });
        }
    });
    let took = started.elapsed();
    assert_eq!(world.host.run("ip -o link show master br-x", "").lines().count(), 100);
    assert!(world.inside("s0").reaches(&world.inside("s99"), "10.1.1.100"));
    // Far more than it takes: a listing per endpoint would show.
    assert!(took < Duration::from_secs(30), "{took:?}");
    for number in 0..100 {
        world.remove(world.veth(&format!("s{number}"), "br-x", &[]));
        world.remove(world.namespace(&format!("s{number}")));
    }
    assert_eq!(world.host.run("ip -o link show master br-x", ""), "");
}
