//! A daemon killed before each single thing it does to the kernel, from its first start to the end of a sandbox and a
//! network: the next one finds or makes exactly what the facts say, and all of it can be removed.

#![allow(clippy::unwrap_used, reason = "all of it is test code, whatever function it stands in")]

#[allow(dead_code, reason = "other tests use the rest")]
mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use lab::{Host, ready};
use netcore::controller::{Config, Controller, NetworkRequest, SandboxConfigRequest};
use netcore::firewall::{Backend, BackendChoice};
use netcore::ipam::SubnetSpec;
use netcore::model::{EndpointSettings, ProcessId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DIR: &str = "NETCORE_CRASH_DIR";
const AT: &str = "NETCORE_CRASH_AT";
const SUPERVISOR: &str = "NETCORE_CRASH_SUPERVISOR";
const BACKEND: &str = "NETCORE_CRASH_BACKEND";
/// How many lives go on side by side.
const AT_ONCE: usize = 4;

fn config(dir: &Path, backend: &str) -> Config {
    Config {
        data_root: dir.join("data"),
        exec_root: dir.join("run"),
        firewall_backend: backend.parse::<BackendChoice>().unwrap(),
        ..Config::default()
    }
}

fn process(pid: u32) -> ProcessId {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    ProcessId { pid, start_ticks: fields.split_whitespace().nth(19).unwrap().parse().unwrap() }
}

/// No test of its own: the daemon that is killed.
#[test]
fn daemon() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let var = |name| std::env::var(name).unwrap();
    let (at, done) = (var(AT).parse::<usize>().unwrap(), AtomicUsize::new(0));
    let gate = move |_: &netcore::kernel::Operation<'_>| {
        if done.fetch_add(1, Ordering::SeqCst) + 1 == at {
            kill(Pid::this(), Signal::SIGKILL).unwrap();
        }
        Ok(())
    };
    let controller = Controller::open_with_gate(config(Path::new(&dir), &var(BACKEND)), gate).unwrap();
    for (name, subnet) in [("a", "10.1.0.0/24"), ("b", "10.2.0.0/24")] {
        let subnets = vec![SubnetSpec::new(subnet.parse().unwrap())];
        let request =
            NetworkRequest { name: name.into(), subnets, ipv6: Some(true), ..NetworkRequest::default() };
        controller.create_network(request).unwrap();
    }
    let request = SandboxConfigRequest {
        name: Some("web".into()),
        mode: "a".parse().unwrap(),
        ..SandboxConfigRequest::default()
    };
    let id = controller.create_sandbox(request).unwrap().id;
    controller.start_sandbox("web", process(var(SUPERVISOR).parse().unwrap())).unwrap();
    controller.connect("b", "web", EndpointSettings::default()).unwrap();
    controller.disconnect("a", "web", false).unwrap();
    controller.remove_network("a").unwrap();
    controller.sandbox_ended(id, 0, None).unwrap();
    controller.remove_sandbox("web").unwrap();
    controller.remove_network("b").unwrap();
}

/// What there is: interfaces, pins and the directories of sandboxes.
fn things(host: &Host, dir: &Path) -> Vec<String> {
    let links = host.run("ip -br link", "");
    let name = |line: &str| line.split([' ', '@']).next().unwrap().to_owned();
    let mut all: Vec<String> = links.lines().map(name).collect();
    for sub in ["run/netns", "run/sandboxes", "data/sandboxes"] {
        let entries = fs::read_dir(dir.join(sub)).unwrap();
        all.extend(entries.map(|entry| format!("{sub}/{}", entry.unwrap().file_name().display())));
    }
    all.sort();
    all
}

/// What there should be.
fn wanted(controller: &Controller) -> Vec<String> {
    let mut all = vec!["lo".to_owned(), "portmap0".to_owned()];
    for network in controller.networks().unwrap().iter().filter(|network| !network.is_predefined()) {
        all.push(format!("br-{}", network.id.short()));
    }
    for view in controller.sandboxes().unwrap() {
        let id = view.sandbox.id;
        all.push(format!("data/sandboxes/{id}"));
        if !controller.running().unwrap().is_empty() {
            all.push(format!("run/netns/{}", id.short()));
            all.push(format!("run/sandboxes/{id}"));
        }
        all.extend(view.endpoints.iter().map(|endpoint| endpoint.host_ifname.as_ref().unwrap().to_string()));
    }
    all.sort();
    all
}

/// One life that ends before its `at`-th operation. Whether it went on to the end.
fn life(at: usize, backend: Backend, lives: bool) -> bool {
    let (host, dir) = (Host::new(), tempfile::tempdir().unwrap());
    let mut gone = Command::new("true").spawn().unwrap();
    let supervisor = if lives { std::process::id() } else { gone.id() };
    let mut daemon = Command::new(std::env::current_exe().unwrap());
    daemon.args(["--exact", "daemon", "--nocapture"]).env(DIR, dir.path()).env(AT, at.to_string());
    daemon.env(SUPERVISOR, supervisor.to_string()).env(BACKEND, backend.to_string());
    daemon.stdout(Stdio::null()).stderr(Stdio::null());
    let status = host.enter(|| daemon.status()).unwrap();
    gone.wait().unwrap();
    let what = format!("{backend}, killed before operation {at}, supervisor lives: {lives}");
    assert!(status.success() || libc::SIGKILL == signal(status), "{what}: {status}");

    let config = config(dir.path(), &backend.to_string());
    let controller = host.enter(|| Controller::open(config.clone())).unwrap();
    assert_eq!(things(&host, dir.path()), wanted(&controller), "{what}");
    for view in controller.sandboxes().unwrap() {
        assert!(lives || view.endpoints.is_empty(), "{what}");
        let netns: PathBuf = dir.path().join("run/netns").join(view.sandbox.id.short());
        let inside = if netns.exists() { Host::at(&netns).run("ip -o addr", "") } else { String::new() };
        for endpoint in &view.endpoints {
            for address in [endpoint.ipv4.unwrap().to_string(), endpoint.ipv6.unwrap().to_string()] {
                assert!(inside.contains(&address), "{what}: {address} in {inside}");
            }
        }
    }
    let rules = host.rules(backend);
    host.enter(|| {
        for (id, _) in controller.running().unwrap() {
            controller.sandbox_ended(id, 137, None).unwrap();
        }
        for view in controller.sandboxes().unwrap() {
            controller.remove_sandbox(view.sandbox.config.name.as_str()).unwrap();
        }
        controller.prune_networks(|_| true).unwrap();
    });
    assert_eq!(things(&host, dir.path()), ["lo", "portmap0"], "{what}");
    assert!(!host.rules(backend).contains("br-"), "{what}: {rules}");
    status.success()
}

fn signal(status: std::process::ExitStatus) -> i32 {
    std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default()
}

fn killed_before_each_operation(backend: Backend, lives: bool) {
    if ready(backend).is_none() {
        return;
    }
    let (next, last) = (AtomicUsize::new(1), AtomicUsize::new(usize::MAX));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    if at > last.load(Ordering::SeqCst) {
                        return;
                    }
                    if life(at, backend, lives) {
                        last.fetch_min(at, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert!(last.into_inner() > 50);
}

#[test]
fn the_next_daemon_ends_what_a_killed_one_left() {
    killed_before_each_operation(Backend::Nftables, false);
}

#[test]
fn the_next_daemon_goes_on_with_what_a_killed_one_left() {
    killed_before_each_operation(Backend::Iptables, true);
}
