//! A disk without space: each operation says so in one line and changes nothing, and goes well when there is space again.

#![allow(clippy::unwrap_used, reason = "all of it is test code, whatever function it stands in")]

#[allow(dead_code, reason = "other tests use the rest")]
mod lab;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::thread;

use lab::ready;
use netcore::controller::{Class, Config, Controller, ControllerError, NetworkRequest, SandboxConfigRequest};
use netcore::firewall::{Backend, BackendChoice};
use netcore::ipam::SubnetSpec;
use netcore::model::{EndpointSettings, ProcessId};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Takes all space there is.
fn fill(dir: &Path) {
    let mut file = File::create(dir.join("fill")).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

fn me() -> ProcessId {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let start_ticks = fields.split_whitespace().nth(19).unwrap().parse().unwrap();
    ProcessId { pid: std::process::id(), start_ticks }
}

fn all(controller: &Controller, dir: &Path) -> String {
    let networks = controller.networks().unwrap();
    let pools: Vec<_> =
        networks.iter().map(|network| controller.network(network.name.as_str()).unwrap().pools).collect();
    let links = std::process::Command::new("ip").args(["-br", "link"]).output().unwrap();
    let names = |sub: &str| -> Vec<_> {
        let mut names: Vec<_> =
            fs::read_dir(dir.join(sub)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let mut links: Vec<String> = String::from_utf8(links.stdout)
        .unwrap()
        .lines()
        .map(|line| line.split([' ', '@']).next().unwrap().to_owned())
        .collect();
    links.sort();
    let files = ["run/netns", "run/sandboxes", "data/sandboxes"].map(names);
    format!("{networks:#?}\n{pools:?}\n{:#?}\n{links:?}\n{files:?}", controller.sandboxes().unwrap())
}

fn in_a_small_place(test: impl FnOnce(&Path, Config) + Send) {
    if ready(Backend::Nftables).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Mounts and network of its own, which end with the thread and those that it starts.
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let size = Some("size=1m");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), size).unwrap();
        let config = Config {
            data_root: dir.path().join("data"),
            exec_root: dir.path().join("run"),
            firewall_backend: BackendChoice::Nftables,
            ..Config::default()
        };
        test(dir.path(), config);
    };
    let ended = thread::scope(|scope| scope.spawn(inside).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn on_a_full_disk_nothing_changes_and_later_all_goes_well() {
    type Operation = (&'static str, fn(&Controller) -> Result<(), ControllerError>);
    let operations: [Operation; 11] = [
        ("create a network", |c| {
            let subnets = vec![SubnetSpec::new("10.1.0.0/24".parse().unwrap())];
            let request = NetworkRequest { name: "n".into(), subnets, ..NetworkRequest::default() };
            c.create_network(request).map(drop)
        }),
        ("create a sandbox", |c| {
            let name = Some("web".into());
            c.create_sandbox(SandboxConfigRequest { name, ..SandboxConfigRequest::default() }).map(drop)
        }),
        ("connect one that does not run", |c| c.connect("n", "web", EndpointSettings::default()).map(drop)),
        ("start", |c| c.start_sandbox("web", me()).map(drop)),
        ("tell of its process", |c| {
            c.process_started(c.sandbox("web").unwrap().sandbox.id, std::process::id())
        }),
        ("disconnect", |c| c.disconnect("n", "web", false)),
        ("connect", |c| c.connect("n", "web", EndpointSettings::default()).map(drop)),
        ("rename", |c| c.rename_sandbox("web", "www").map(drop)),
        ("end", |c| c.sandbox_ended(c.sandbox("www").unwrap().sandbox.id, 0, None).map(drop)),
        ("remove a sandbox", |c| c.remove_sandbox("www").map(drop)),
        ("remove a network", |c| c.remove_network("n").map(drop)),
    ];
    in_a_small_place(|dir, config| {
        let controller = Controller::open(config).unwrap();
        for (what, operation) in operations {
            let before = all(&controller, dir);
            fill(dir);
            let error = operation(&controller).expect_err(what);
            let text = error.to_string();
            assert!(text.contains("no space is left") && !text.contains('\n'), "{what}: {text}");
            assert_eq!(error.class(), Class::Unavailable, "{what}: {text}");
            fs::remove_file(dir.join("fill")).unwrap();
            assert_eq!(all(&controller, dir), before, "{what}");
            operation(&controller).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    });
}

#[test]
fn a_daemon_that_cannot_start_for_want_of_space_says_so() {
    in_a_small_place(|dir, config| {
        fill(dir);
        let text = Controller::open(config.clone()).unwrap_err().to_string();
        assert!(text.contains("no space is left") && !text.contains('\n'), "{text}");
        fs::remove_file(dir.join("fill")).unwrap();
        drop(Controller::open(config.clone()).unwrap());
        fill(dir);
        match Controller::open(config.clone()) {
            Ok(_) => {}
            Err(error) => assert!(error.to_string().contains("no space is left"), "{error}"),
        }
        fs::remove_file(dir.join("fill")).unwrap();
        Controller::open(config).unwrap();
    });
}
