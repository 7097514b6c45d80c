//! The controller against a real kernel, with each firewall backend: who reaches whom, and that nothing is left of what
//! couldn't be made.

#![allow(clippy::unwrap_used, reason = "all of it is test code, whatever function it stands in")]

#[allow(dead_code, reason = "other tests use the rest")]
mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use lab::{Host, missing, ready};
use netcore::controller::{
    Class, Config, Controller, ControllerError, NetworkRequest, SandboxConfigRequest, SandboxView,
};
use netcore::firewall::{Backend, BackendChoice};
use netcore::ipam::SubnetSpec;
use netcore::kernel::Operation;
use netcore::kernel::PidFd;
use netcore::model::{EndpointSettings, PortsConfig, ProcessId, options};
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
        // State, and addresses of the link, appear when they like.
        let settled = |word: &&str| !word.starts_with("fe80") && !["UP", "DOWN", "UNKNOWN"].contains(word);
        let line = |line: &str| line.split_whitespace().filter(settled).collect::<Vec<_>>().join(" ");
        let mut all: Vec<String> = links.lines().map(line).collect();
        // Word by word: nft lists the elements of a set in any order.
        let rules = self.host.rules(self.backend);
        all.extend(rules.split_whitespace().map(|word| word.trim_end_matches(',').to_owned()));
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

    /// Fails each operation of the kernel in turn. Some may fail without harm, such as looking; `undo` takes back then
    /// what was done. At last nothing fails.
    fn fail_in_turn(
        &self,
        least: usize,
        operation: impl Fn(&Controller) -> Result<(), ControllerError> + Sync,
        undo: impl Fn(&Controller) + Sync,
    ) {
        let mut tried = BTreeSet::new();
        for turn in 1.. {
            let before = self.everything();
            self.gate.fail_in.store(turn, Ordering::SeqCst);
            let done = self.run(&operation);
            self.gate.fail_in.store(0, Ordering::SeqCst);
            let Some(what) = self.gate.failed.lock().unwrap().take() else {
                done.unwrap();
                break;
            };
            match done {
                Ok(()) => self.run(&undo),
                Err(error) => {
                    assert_eq!(error.class(), Class::Internal, "{what}: {error}");
                    assert_eq!(self.everything(), before, "after `{what}` failed");
                    tried.insert(what);
                }
            }
        }
        assert!(tried.len() >= least, "{tried:#?}");
    }
}

impl Drop for World {
    /// Unpins what a failed test left running.
    fn drop(&mut self) {
        let Some(controller) = self.controller.take() else { return };
        self.host.enter(|| {
            for (id, _) in controller.running().unwrap_or_default() {
                let _ = controller.sandbox_ended(id, 137, None);
            }
        });
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
    a_link_opens_the_exposed_ports_wherever_their_owner_is
    nothing_is_left_of_what_cannot_be_made
    many_start_at_once_and_leave_nothing
    all_goes_on_after_the_controller_was_gone
    what_the_administrator_removed_is_in_nobodys_way
    rules_that_somebody_flushed_come_back_with_the_next_network
    the_other_backend_takes_over_without_a_trace_of_the_first
    a_host_without_ipv6_has_networks
    flows_to_who_ended_unseen_lead_nowhere
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
    ["a1", "a2", "b1"].iter().for_each(|name| world.end(name));
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
    if !Path::new("/proc/sys/net/bridge").exists() {
        missing("needs br_netfilter");
        return;
    }
    let icc_off = [(options::ENABLE_ICC.to_owned(), "false".to_owned())].into();
    world.network(NetworkRequest { options: icc_off, ..named("n", "10.1.0.0/24") });
    let [(one, one_ip), (two, two_ip)] = ["one", "two"].map(|name| world.sandbox(name, "n"));
    assert!(!one.reaches(&two, &two_ip) && !two.reaches(&one, &one_ip));
    assert!(world.host.reaches(&one, &one_ip));
}

fn a_link_opens_the_exposed_ports_wherever_their_owner_is(mut world: World) {
    if !Path::new("/proc/sys/net/bridge").exists() {
        missing("needs br_netfilter");
        return;
    }
    (world.config.default_bridge.icc, world.config.default_bridge.ipv6) = (false, true);
    world.open();
    let mut db = request("db", "bridge");
    db.ports.expose.push("80".parse().unwrap());
    let mut web = request("web", "bridge");
    web.links.push("db:mine".parse().unwrap());
    world.run(|c| c.create_sandbox(db)).unwrap();
    world.run(|c| c.create_sandbox(web)).unwrap();
    // A sandbox's namespace and its addresses.
    let start = |world: &World, name: &str| {
        world.run(|c| c.start_sandbox(name, me())).unwrap();
        let view = world.run(|c| c.sandbox(name)).unwrap();
        let at = &view.endpoints[0];
        let host = Host::at(&world.config.exec_root.join("netns").join(view.sandbox.id.short()));
        (host, [at.ipv4.unwrap().addr().to_string(), format!("[{}]", at.ipv6.unwrap().addr())])
    };
    let reached = |client: &Host, (server, at): &(Host, [String; 2]), port: u16| {
        let dial =
            |ip: &String| !client.dial(&format!("{ip}:{port}"), server, &format!("{ip}:{port}")).is_empty();
        [dial(&at[0]), dial(&at[1])]
    };
    let db = start(&world, "db");
    let (web, _) = start(&world, "web");
    let (other, _) = world.sandbox("other", "bridge");
    assert_eq!(reached(&web, &db, 80), [true; 2]);
    assert_eq!([reached(&web, &db, 81), reached(&other, &db, 80)], [[false; 2]; 2]);
    // It comes back with other addresses; the old ones are somebody else's, whom nobody has a link to.
    world.run(|c| c.sandbox_ended(c.sandbox("db").unwrap().sandbox.id, 0, None)).unwrap();
    let mut taken = Vec::new();
    while !taken.iter().any(|(_, at): &(Host, [String; 2])| at[0] == db.1[0]) {
        let name = format!("taker{}", taken.len());
        world.run(|c| c.create_sandbox(request(&name, "bridge"))).unwrap();
        taken.push(start(&world, &name));
    }
    assert!(taken.iter().all(|taker| reached(&web, taker, 80) == [false; 2]));
    let db = start(&world, "db");
    assert_eq!(reached(&web, &db, 80), [true; 2]);
    world.open();
    assert_eq!((reached(&web, &db, 80), reached(&other, &db, 80)), ([true; 2], [false; 2]));
    world.run(|c| c.remove_link("/web/mine")).unwrap();
    assert_eq!(reached(&web, &db, 80), [false; 2]);
}

fn nothing_is_left_of_what_cannot_be_made(world: World) {
    let six = |name: &str, subnet: &str| NetworkRequest { ipv6: Some(true), ..named(name, subnet) };
    // Forwarding stays on once it is; and from then on the rules drop what is routed for others.
    world.network(six("warm", "10.9.0.0/24"));
    world.fail_in_turn(
        3,
        |controller| controller.create_network(six("net", "10.1.0.0/24")).map(drop),
        |controller| drop(controller.remove_network("net").unwrap()),
    );
    let create = |controller: &Controller| drop(controller.create_sandbox(request("web", "net")).unwrap());
    let end = |controller: &Controller| {
        let id = controller.sandbox("web").unwrap().sandbox.id;
        controller.sandbox_ended(id, 0, None).unwrap();
        controller.remove_sandbox("web").unwrap();
    };
    world.run(create);
    world.fail_in_turn(
        6,
        |controller| controller.start_sandbox("web", me()).map(drop),
        |controller| {
            end(controller);
            create(controller);
        },
    );
    world.fail_in_turn(
        4,
        |controller| controller.connect("warm", "web", EndpointSettings::default()).map(drop),
        |controller| controller.disconnect("warm", "web", false).unwrap(),
    );
    world.fail_in_turn(
        1,
        |controller| controller.disconnect("warm", "web", false),
        |controller| drop(controller.connect("warm", "web", EndpointSettings::default()).unwrap()),
    );
    world.run(end);
    world.fail_in_turn(
        1,
        |controller| controller.remove_network("net").map(drop),
        |controller| drop(controller.create_network(six("net", "10.1.0.0/24")).unwrap()),
    );
}

fn many_start_at_once_and_leave_nothing(world: World) {
    const MANY: usize = 40;
    world.network(named("net", "10.1.0.0/24"));
    let before = world.everything();
    let controller = world.controller.as_ref().unwrap();
    let host = &world.host;
    let each = |work: &(dyn Fn(&str) + Sync)| {
        thread::scope(|scope| {
            for number in 0..MANY {
                scope.spawn(move || host.enter(|| work(&format!("s{number}"))));
            }
        });
    };
    each(&|name| {
        controller.create_sandbox(request(name, "net")).unwrap();
        controller.start_sandbox(name, me()).unwrap();
    });
    let endpoints = controller.network("net").unwrap().endpoints;
    let addresses: BTreeSet<_> = endpoints.iter().map(|endpoint| endpoint.ipv4).collect();
    assert_eq!(addresses.len(), MANY);
    let ports = world.host.run("ip -o link show type veth", "");
    assert_eq!(ports.lines().count(), MANY, "{ports}");
    each(&|name| {
        let id = controller.sandbox(name).unwrap().sandbox.id;
        controller.sandbox_ended(id, 0, None).unwrap();
        controller.remove_sandbox(name).unwrap();
    });
    assert_eq!(world.everything(), before);
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
    ["a1", "a2"].iter().for_each(|name| world.end(name));
}

/// A process in a sandbox, as its command is, with somebody who looks after it.
fn resident(world: &World, name: &str) -> std::process::Child {
    let id = world.run(|controller| controller.sandbox(name).unwrap().sandbox.id);
    let netns = world.config.exec_root.join("netns").join(id.short());
    let mut sleep = std::process::Command::new("sleep");
    let child = Host::at(&netns).enter(|| sleep.arg("60").spawn()).unwrap();
    world.run(|controller| controller.process_started(id, child.id())).unwrap();
    child
}

fn what_the_administrator_removed_is_in_nobodys_way(world: World) {
    let before = world.everything();
    world.network(named("a", "10.1.0.0/24"));
    world.network(named("b", "10.2.0.0/24"));
    let (_, old_ip) = world.sandbox("old", "a");
    let mut command = resident(&world, "old");
    let of_old = Host::at(Path::new(&format!("/proc/{}/ns/net", command.id())));
    let bridge = |name: &str| {
        format!("br-{}", world.run(|controller| controller.network(name).unwrap().network.id.short()))
    };

    // A bridge: who starts, and who connects, finds it and everybody on it again.
    world.host.ip(&format!("link del {}", bridge("a")));
    let (new, _) = world.sandbox("new", "a");
    assert!(new.reaches(&of_old, &old_ip));
    world.host.ip(&format!("link del {}", bridge("b")));
    world.run(|controller| controller.connect("b", "old", EndpointSettings::default())).unwrap();

    // The pin of a namespace in which somebody lives.
    let id = world.run(|controller| controller.sandbox("old").unwrap().sandbox.id);
    let pin = world.config.exec_root.join("netns").join(id.short());
    let unpin = || {
        // Not there: the last operation didn't need it.
        let _ = nix::mount::umount2(&pin, nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&pin);
        assert!(!pin.exists());
    };
    unpin();
    world.run(|controller| controller.disconnect("b", "old", false)).unwrap();
    unpin();
    world.run(|controller| controller.connect("b", "old", EndpointSettings::default())).unwrap();
    assert!(Host::at(&pin).run("ip -br addr", "").contains("10.2.0."));
    assert!(new.reaches(&of_old, &old_ip), "it is the same namespace, with all it had");

    // An interface, a bridge and a pin: all goes that is left.
    let endpoints = world.run(|controller| controller.sandbox("old").unwrap().endpoints);
    world.host.ip(&format!("link del {}", endpoints[0].host_ifname.as_ref().unwrap()));
    world.host.ip(&format!("link del {}", bridge("a")));
    unpin();
    world.run(|controller| controller.disconnect("a", "old", false)).unwrap();
    unpin();
    world.host.ip(&format!("link del {}", bridge("b")));
    command.kill().unwrap();
    command.wait().unwrap();
    ["old", "new"].iter().for_each(|name| world.end(name));
    world.run(|controller| ["a", "b"].map(|name| controller.remove_network(name).unwrap()));
    assert_eq!(world.everything(), before);
}

fn rules_that_somebody_flushed_come_back_with_the_next_network(world: World) {
    world.network(named("a", "10.1.0.0/24"));
    world.network(named("b", "10.2.0.0/24"));
    let before = world.everything();
    world.host.run("nft flush ruleset", "");
    world.network(named("c", "10.3.0.0/24"));
    world.run(|controller| controller.remove_network("c")).unwrap();
    assert_eq!(world.everything(), before);
    world.host.run("nft flush ruleset", "");
    world.run(|controller| controller.remove_network("b")).unwrap();
    let (a, _) = world.sandbox("a1", "a");
    let (other, ip) = world.sandbox("other", "bridge");
    assert!(!a.reaches(&other, &ip));
}

/// Each switch is one of daemons: the second knows nothing of the first but what that wrote down.
fn the_other_backend_takes_over_without_a_trace_of_the_first(mut world: World) {
    world.network(named("a", "10.1.0.0/24"));
    let (first, first_rules) = (world.backend, world.host.rules(world.backend));
    let (a, _) = world.sandbox("a1", "a");
    let (other, ip) = world.sandbox("other", "bridge");
    let (second, choice) = match first {
        Backend::Nftables => (Backend::Iptables, BackendChoice::Iptables),
        Backend::Iptables => (Backend::Nftables, BackendChoice::Nftables),
    };
    let first_choice = std::mem::replace(&mut world.config.firewall_backend, choice);
    world.open();
    let iptables = world.host.rules(Backend::Iptables);
    let closed = iptables.matches(":FORWARD DROP").count();
    match second {
        // The default network made a router of this host: it is one for nobody else, as before.
        Backend::Iptables => {
            assert_eq!(closed, 1, "{iptables}");
            assert!(!world.host.rules(Backend::Nftables).contains("table inet portmap"));
        }
        Backend::Nftables => {
            assert!(closed == 0 && !iptables.contains("-A PORTMAP"), "{iptables}");
            assert!(world.host.rules(Backend::Nftables).contains("not ours"));
        }
    }
    assert!(!a.reaches(&other, &ip) && world.host.reaches(&a, "10.1.0.2"));
    world.config.firewall_backend = first_choice;
    world.open();
    let words = |rules: &str| {
        let mut words: Vec<_> =
            rules.split_whitespace().map(|word| word.trim_matches(',').to_owned()).collect();
        words.sort();
        words
    };
    // What is left of the other's are its tables, empty.
    let left = world.host.rules(first);
    let ours = |rules: &str| words(rules).into_iter().filter(|word| word.contains("br-")).collect::<Vec<_>>();
    assert_eq!(ours(&left), ours(&first_rules));
}

fn a_host_without_ipv6_has_networks(mut world: World) {
    for which in ["all", "default"] {
        world.host.sysctl(&format!("net/ipv6/conf/{which}/disable_ipv6"), "1");
    }
    world.open();
    world.network(named("a", "10.1.0.0/24"));
    let [(a1, _), (a2, a2_ip)] = ["a1", "a2"].map(|name| world.sandbox(name, "a"));
    assert!(a1.reaches(&a2, &a2_ip));
    world.run(|controller| controller.connect("bridge", "a1", EndpointSettings::default())).unwrap();
    world.run(|controller| controller.disconnect("bridge", "a1", false)).unwrap();
    ["a1", "a2"].iter().for_each(|name| world.end(name));
    world.run(|controller| controller.remove_network("a")).unwrap();
}

/// The next who has the address would get what was never meant for him, on a port that he didn't publish.
fn flows_to_who_ended_unseen_lead_nowhere(mut world: World) {
    world.config.userland_proxy = false;
    world.open();
    let mut process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let (_, supervisor) = PidFd::open(process.id()).unwrap();
    let ports =
        PortsConfig { publish: vec!["127.0.0.1:5353:53/udp".parse().unwrap()], ..PortsConfig::default() };
    world.run(|controller| {
        controller.create_sandbox(SandboxConfigRequest { ports, ..request("web", "bridge") }).unwrap();
        controller.start_sandbox("web", supervisor).unwrap();
    });
    let client = world.host.enter(|| UdpSocket::bind("127.0.0.1:0")).unwrap();
    client.send_to(b"x", "127.0.0.1:5353").unwrap();
    let flows = |world: &World| {
        let all = world.host.enter(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack")).unwrap();
        all.lines().filter(|line| line.contains("dport=5353")).count()
    };
    assert_eq!(flows(&world), 1);
    world.controller = None;
    process.kill().unwrap();
    process.wait().unwrap();
    world.open();
    assert_eq!(flows(&world), 0);
    world.end("web");
}
