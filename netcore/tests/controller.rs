//! The controller against a real kernel, with each firewall backend: who reaches whom, and that nothing is left of what
//! couldn't be made.

#[allow(dead_code, reason = "other tests use the rest")]
mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lab::{Host, missing, ready};
use netcore::controller::{
    Class, Config, Controller, ControllerError, NetworkRequest, SandboxConfigRequest, SandboxView,
};
use netcore::firewall::{Backend, BackendChoice};
use netcore::ipam::SubnetSpec;
use netcore::kernel::Operation;
use netcore::model::{EndpointSettings, ProcessId, options};
use tempfile::TempDir;

/// A host, and a controller in it.
struct World {
    host: Host,
    controller: Option<Controller>,
    gate: Arc<Gate>,
    config: Config,
    backend: Backend,
    _dir: TempDir,
}

/// Makes one operation of the kernel fail.
#[derive(Default)]
struct Gate {
    /// The how many-th from now; 0 for none.
    fail_in: AtomicUsize,
    failed: Mutex<Option<String>>,
}

impl Gate {
    fn pass(&self, operation: &Operation<'_>) -> io::Result<()> {
        let left = self.fail_in.load(Ordering::SeqCst);
        if left > 0 && self.fail_in.fetch_sub(1, Ordering::SeqCst) == 1 {
            *self.failed.lock().unwrap() = Some(format!("{} {}", operation.verb, operation.object));
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        Ok(())
    }
}

impl World {
    fn new(backend: Backend) -> Self {
        let dir = TempDir::new().unwrap();
        let firewall_backend = match backend {
            Backend::Nftables => BackendChoice::Nftables,
            Backend::Iptables => BackendChoice::Iptables,
        };
        let config = Config {
            data_root: dir.path().join("data"),
            exec_root: dir.path().join("run"),
            firewall_backend,
            ..Config::default()
        };
        let host = Host::new();
        let mut world = Self { host, controller: None, gate: Arc::default(), config, backend, _dir: dir };
        world.open();
        world
    }

    fn open(&mut self) {
        self.controller = None;
        let (gate, config) = (Arc::clone(&self.gate), self.config.clone());
        let open = || Controller::open_with_gate(config, move |operation| gate.pass(operation));
        self.controller = Some(self.host.enter(open).unwrap());
    }

    /// Runs an operation in the host's namespace, as a daemon's threads are.
    fn run<T: Send>(&self, operation: impl FnOnce(&Controller) -> T + Send) -> T {
        let controller = self.controller.as_ref().unwrap();
        self.host.enter(|| operation(controller))
    }

    fn network(&self, request: NetworkRequest) {
        self.run(|controller| controller.create_network(request)).unwrap();
    }

    /// A running sandbox: its namespace and its first address.
    fn sandbox(&self, name: &str, mode: &str) -> (Host, String) {
        let view = self.run(|controller| -> Result<SandboxView, ControllerError> {
            controller.create_sandbox(request(name, mode))?;
            controller.start_sandbox(name, me())?;
            controller.sandbox(name)
        });
        let view = view.unwrap();
        let netns = self.config.exec_root.join("netns").join(view.sandbox.id.short());
        (Host::at(&netns), view.endpoints[0].ipv4.unwrap().addr().to_string())
    }

    fn end(&self, name: &str) {
        self.run(|controller| {
            let id = controller.sandbox(name).unwrap().sandbox.id;
            controller.sandbox_ended(id, 0, None).unwrap();
            controller.remove_sandbox(name).unwrap();
        });
    }

    /// All that is there: interfaces with their addresses, rules, pins, facts.
    fn everything(&self) -> Vec<String> {
        let links = self.host.run("ip -br address", "");
        // An IPv6 address of the link appears when it likes.
        let mut all: Vec<String> = links
            .lines()
            .map(|line| line.split_whitespace().filter(|word| !word.starts_with("fe80")).collect::<Vec<_>>())
            .map(|words| {
                words
                    .into_iter()
                    .filter(|word| !["UP", "DOWN", "UNKNOWN"].contains(word))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        all.extend(self.host.rules(self.backend).lines().map(str::to_owned));
        for dir in ["netns", "sandboxes"] {
            let entries = fs::read_dir(self.config.exec_root.join(dir)).unwrap();
            all.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
        }
        let facts = self.run(|controller| {
            let networks = controller.networks().unwrap();
            let pools: Vec<_> =
                networks.iter().map(|n| controller.network(n.name.as_str()).unwrap().pools).collect();
            let sandboxes = controller.sandboxes().unwrap();
            format!("{networks:?} {pools:?} {sandboxes:?}")
        });
        all.push(facts);
        all.sort();
        all
    }

    /// Fails each operation of the kernel in turn. What was to be done must be done at last.
    fn fail_in_turn(&self, operation: impl Fn(&Controller) -> Result<(), ControllerError> + Sync) {
        let before = self.everything();
        let mut tried = BTreeSet::new();
        for turn in 1.. {
            self.gate.fail_in.store(turn, Ordering::SeqCst);
            let done = self.run(&operation);
            self.gate.fail_in.store(0, Ordering::SeqCst);
            let Some(what) = self.gate.failed.lock().unwrap().take() else {
                done.unwrap();
                break;
            };
            if done.is_ok() {
                // It was something that may fail: looking, or what is only tried.
                return;
            }
            assert_eq!(done.unwrap_err().class(), Class::Internal, "{what}");
            assert_eq!(self.everything(), before, "after `{what}` failed");
            tried.insert(what);
        }
        assert!(!tried.is_empty());
    }
}

fn me() -> ProcessId {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let start_ticks = fields.split_whitespace().nth(19).unwrap().parse().unwrap();
    ProcessId { pid: std::process::id(), start_ticks }
}

fn request(name: &str, mode: &str) -> SandboxConfigRequest {
    SandboxConfigRequest {
        name: Some(name.into()),
        mode: mode.parse().unwrap(),
        ..SandboxConfigRequest::default()
    }
}

fn named(name: &str, subnet: &str) -> NetworkRequest {
    NetworkRequest {
        name: name.into(),
        subnets: vec![SubnetSpec::new(subnet.parse().unwrap())],
        ..NetworkRequest::default()
    }
}

/// Each test once with nftables and once with iptables.
macro_rules! with_each_backend {
    ($($name:ident)*) => {
        mod nftables_backend {
            $(#[test] fn $name() { super::run(super::Backend::Nftables, super::$name); })*
        }
        mod iptables_backend {
            $(#[test] fn $name() { super::run(super::Backend::Iptables, super::$name); })*
        }
    };
}

with_each_backend! {
    who_is_on_a_network_reaches_who_is_there_and_nobody_else
    an_internal_network_has_no_way_out
    without_icc_neighbours_are_apart
    nothing_is_left_of_what_cannot_be_made
    all_goes_on_after_the_controller_was_gone
}

fn run(backend: Backend, test: fn(World)) {
    if ready(backend).is_some() {
        test(World::new(backend));
    }
}

fn who_is_on_a_network_reaches_who_is_there_and_nobody_else(world: World) {
    world.network(named("a", "10.1.0.0/24"));
    world.network(named("b", "10.2.0.0/24"));
    let [(a1, a1_ip), (a2, a2_ip)] = ["a1", "a2"].map(|name| world.sandbox(name, "a"));
    let (b1, b1_ip) = world.sandbox("b1", "b");
    assert!(a1.reaches(&a2, &a2_ip) && a2.reaches(&a1, &a1_ip));
    assert!(world.host.reaches(&a1, &a1_ip), "the host reaches its sandboxes");
    assert!(a1.reaches(&world.host, "10.1.0.1"), "and they reach it");
    assert!(!a1.reaches(&b1, &b1_ip) && !b1.reaches(&a1, &a1_ip));
    world.run(|controller| controller.connect("b", "a1", EndpointSettings::default())).unwrap();
    assert!(a1.reaches(&b1, &b1_ip));
    world.run(|controller| controller.disconnect("b", "a1", false)).unwrap();
    assert!(!a1.reaches(&b1, &b1_ip));
    ["a1", "a2", "b1"].map(|name| world.end(name));
}

fn an_internal_network_has_no_way_out(world: World) {
    world.network(NetworkRequest { internal: true, ..named("in", "10.1.0.0/24") });
    world.network(named("out", "10.2.0.0/24"));
    let [(one, _), (two, two_ip)] = ["one", "two"].map(|name| world.sandbox(name, "in"));
    assert!(one.reaches(&two, &two_ip));
    assert_eq!(one.run("ip route show default", ""), "");
    let (out, out_ip) = world.sandbox("out", "out");
    assert!(out.run("ip route show default", "").contains("via 10.2.0.1 dev eth0"));
    one.ip("route add default via 10.1.0.1");
    assert!(!one.reaches(&out, &out_ip), "not even with a route");
}

fn without_icc_neighbours_are_apart(world: World) {
    if !std::path::Path::new("/proc/sys/net/bridge").exists() {
        missing("needs br_netfilter");
        return;
    }
    let icc_off = [(options::ENABLE_ICC.to_owned(), "false".to_owned())].into();
    world.network(NetworkRequest { options: icc_off, ..named("n", "10.1.0.0/24") });
    let [(one, one_ip), (two, two_ip)] = ["one", "two"].map(|name| world.sandbox(name, "n"));
    assert!(!one.reaches(&two, &two_ip) && !two.reaches(&one, &one_ip));
    assert!(world.host.reaches(&one, &one_ip));
}

fn nothing_is_left_of_what_cannot_be_made(world: World) {
    let six = NetworkRequest { ipv6: Some(true), ..named("n", "10.1.0.0/24") };
    // Forwarding stays on once it was; before it is on for IPv6 too, the rules differ.
    world.network(NetworkRequest {
        name: "warm".into(),
        ..NetworkRequest { ipv6: Some(true), ..named("warm", "10.9.0.0/24") }
    });
    world.fail_in_turn(|controller| controller.create_network(six.clone()).map(drop));
    world.run(|controller| controller.create_sandbox(request("web", "n"))).unwrap();
    world.fail_in_turn(|controller| controller.start_sandbox("web", me()).map(drop));
    world.fail_in_turn(|controller| controller.connect("warm", "web", EndpointSettings::default()).map(drop));
    world.end("web");
}

fn all_goes_on_after_the_controller_was_gone(mut world: World) {
    world.network(named("a", "10.1.0.0/24"));
    let [(a1, _), (a2, a2_ip)] = ["a1", "a2"].map(|name| world.sandbox(name, "a"));
    let ends = a1.connect(&a2, &a2_ip).expect("they are on one network");
    let before = world.everything();
    world.open();
    assert_eq!(world.everything(), before);
    io::Write::write_all(&mut &ends.0, b"x").unwrap();
    assert_eq!(io::Read::read(&mut &ends.1, &mut [0; 2]).unwrap(), 1);
    world.host.run("ip link del portmap0", "");
    world.run(Controller::reconcile).unwrap();
    assert_eq!(world.everything(), before);
    ["a1", "a2"].map(|name| world.end(name));
}
