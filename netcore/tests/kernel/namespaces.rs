//! Namespaces and their pins.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use netcore::kernel::Kernel;
use netcore::plan::{Key, Namespace};

use crate::world::{MARKER, World, bridge, exists};

#[test]
fn a_namespace_is_made_once_and_goes_once() {
    let Some(world) = World::new() else { return };
    let wanted = world.namespace("a");
    world.ensure(wanted.clone());
    let inside = world.inside("a");
    let links = inside.run("ip -br link", "");
    assert!(links.starts_with("lo") && links.contains("LOWER_UP"), "{links}");
    assert_eq!(inside.run("cat /proc/sys/net/ipv4/ping_group_range", "").trim(), "0\t2147483647");
    assert_eq!(inside.run("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "").trim(), "0");
    assert_eq!(fs::metadata(world.pins()).unwrap().permissions().mode() & 0o777, 0o755);

    assert!(world.is_settled(wanted.clone()));
    assert_eq!(world.kernel.ours(MARKER, &world.pins()).unwrap(), [Key::Namespace(world.pin("a"))]);
    world.remove(wanted.clone());
    world.remove(wanted);
    assert!(!exists(&world.pin("a")));
    assert_eq!(world.kernel.ours(MARKER, &world.pins()).unwrap(), []);
}

#[test]
fn a_namespace_has_the_ipv6_that_its_owner_leaves_it() {
    let Some(world) = World::new() else { return };
    world.ensure(world.namespace("a"));
    let has = || world.kernel.has_ipv6(&world.pin("a")).unwrap();
    assert!(has());
    world.inside("a").run("tee /proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    assert!(!has());
    assert!(world.kernel.has_ipv6(&world.pin("b")).is_err());
}

#[test]
fn a_failed_namespace_leaves_nothing() {
    let Some(world) = World::new() else { return };
    world.failing_in_turn(world.namespace("a"), |verb| assert!(!exists(&world.pin("a")), "{verb}"));
    assert!(exists(&world.pin("a")));
}

#[test]
fn a_file_that_pins_nothing_is_used_or_removed() {
    let Some(world) = World::new() else { return };
    fs::create_dir_all(world.pins()).unwrap();
    for name in ["a", "b"] {
        fs::write(world.pin(name), "").unwrap();
    }
    assert_eq!(world.kernel.ours(MARKER, &world.pins()).unwrap().len(), 2);
    world.ensure(world.namespace("a"));
    assert!(world.inside("a").run("ip -br link", "").starts_with("lo"));
    world.remove(world.namespace("b"));
    assert!(!exists(&world.pin("b")));
}

#[test]
fn what_is_no_network_namespace_is_refused_and_left_alone() {
    let Some(world) = World::new() else { return };
    fs::create_dir_all(world.pins()).unwrap();
    fs::write(world.pin("file"), "text").unwrap();
    let adopt = |path| Namespace { path, adopted: true, holder: None };
    let refused = |namespace| world.try_ensure(namespace).unwrap_err().to_string();

    let file = world.pin("file");
    assert_eq!(refused(adopt(file.clone())), format!("{} is not a network namespace", file.display()));
    assert_eq!(refused(adopt("/proc/self/ns/mnt".into())), "/proc/self/ns/mnt is not a network namespace");
    assert_eq!(refused(adopt("/dev/null".into())), "/dev/null is not a network namespace");
    assert_eq!(refused(adopt("/no/such".into())), "network namespace /no/such does not exist");
    let directory = Namespace { path: world.pins(), adopted: false, holder: None };
    assert_eq!(refused(directory), format!("{} is not a network namespace", world.pins().display()));
    assert_eq!(fs::read_to_string(world.pin("file")).unwrap(), "text");

    let mut veth = world.veth("x", "br-x", &[]);
    veth.namespace = file.clone();
    let error = world.try_ensure(veth).unwrap_err().to_string();
    assert_eq!(error, format!("{} is not a network namespace", file.display()));
}

#[test]
fn an_adopted_namespace_stays() {
    let Some(world) = World::new() else { return };
    world.ensure(world.namespace("a"));
    let adopted = Namespace { adopted: true, ..world.namespace("a") };
    world.ensure(adopted.clone());
    world.remove(adopted);
    assert!(world.inside("a").run("ip -br link", "").starts_with("lo"));
}

#[test]
fn a_copy_of_the_pin_in_another_mount_namespace_does_not_keep_it() {
    let Some(world) = World::new() else { return };
    world.ensure(bridge("br-x", &[]));
    let veth = world.sandbox("a", "br-x", "10.1.0.2/16");
    let pin = world.pin("a");
    let mut child = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", "echo; read line; test ! -e \"$0\""])
        .arg(&pin)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It has its own mounts once it writes.
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    world.remove(world.namespace("a"));
    assert!(!exists(&pin));
    // The interface goes with the namespace that the other end is in.
    let limit = Instant::now() + Duration::from_secs(10);
    while world.kernel.link(&veth.host).unwrap().is_some() {
        assert!(Instant::now() < limit, "the namespace lives on");
        thread::sleep(Duration::from_millis(10));
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
