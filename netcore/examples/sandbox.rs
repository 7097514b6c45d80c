//! A network, a sandbox and an endpoint, by netcore alone: made, looked at from inside, removed.
//!
//! Needs root, and makes this host's network namespace its playground. So run it in one of its own:
//!
//! ```sh
//! cargo build -p netcore --example sandbox
//! sudo unshare -n target/debug/examples/sandbox
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::Path;
use std::thread;

use netcore::controller::{Config, Controller, NetworkRequest, SandboxConfigRequest};
use netcore::model::ProcessId;
use nix::sched::{CloneFlags, setns};

fn main() -> Result<(), Box<dyn Error>> {
    let root = std::env::temp_dir().join(format!("netcore-example-{}", std::process::id()));
    let shown = run(&root);
    let removed = fs::remove_dir_all(&root);
    shown?;
    Ok(removed?)
}

fn run(root: &Path) -> Result<(), Box<dyn Error>> {
    let config = Config { data_root: root.join("data"), exec_root: root.join("run"), ..Config::default() };
    let controller = Controller::open(config)?;

    let network =
        controller.create_network(NetworkRequest { name: "example".into(), ..NetworkRequest::default() })?;
    let subnet = network.subnets.first().ok_or("a bridge network has a subnet")?;
    println!("network   {} {}", network.name, subnet.subnet);

    let sandbox = controller.create_sandbox(SandboxConfigRequest {
        name: Some("example".into()),
        mode: "example".parse()?,
        ..SandboxConfigRequest::default()
    })?;
    // Somebody has to look after a sandbox: when this process ends, it counts as ended.
    let started = controller.start_sandbox("example", myself()?)?;
    let endpoint = controller.sandbox("example")?.endpoints.into_iter().next().ok_or("an endpoint")?;
    let gateway = endpoint.gateway4.ok_or("a way out")?;
    println!("sandbox   {} on {:?}", started.hostname, endpoint.ifname.map(|name| name.to_string()));

    // A socket belongs to the namespace it was made in. The thread that entered it ends there.
    let namespace = File::open(started.netns.ok_or("a namespace of its own")?)?;
    let address = thread::spawn(move || -> Result<_, std::io::Error> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((gateway, 9))?;
        socket.local_addr()
    });
    let address = address.join().map_err(|_| "the thread inside panicked")??;
    println!("address   {} towards {gateway}", address.ip());

    controller.sandbox_ended(sandbox.id, 0, None)?;
    controller.remove_sandbox("example")?;
    controller.remove_network("example")?;
    println!("removed");
    Ok(())
}

fn myself() -> Result<ProcessId, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("a name in parentheses")?;
    let start_ticks = fields.split_whitespace().nth(19).ok_or("a time of start")?.parse()?;
    Ok(ProcessId { pid: std::process::id(), start_ticks })
}
