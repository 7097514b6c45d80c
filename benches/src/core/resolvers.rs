//! Name servers to compare ours with: aardvark-dns, dnsmasq, and the least there can be.
//!
//! Each has a network namespace to itself and listens where ours seems to, on port 53 of 127.0.0.11; nothing is translated on
//! the way to it. None has anybody to ask, and each knows the same names.
//!
//! Not here: what they are asked, and ours (`names`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::ask;
use crate::launch;
use crate::namespace::Namespace;
use crate::process::{Process, piped};
use crate::topology::ip;
use crate::usage;

/// Where sandboxes find ours, and where the others listen.
pub(super) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);
/// The least that a server can be.
pub(super) const LEAST: &str = "receive, append, send";
const AARDVARK: &str = "/usr/lib/podman/aardvark-dns";
const DNSMASQ: &str = "/usr/sbin/dnsmasq";
const SELF: &str = "/proc/self/exe";
/// For what forks itself away: a first process that stays as long as its input is open, and keeps the others alive.
const HOLD: &str = "\"$0\" \"$@\" && cat";
/// Longer than any of them takes to start.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// One that runs.
pub(super) struct Resolver {
    pub(super) name: &'static str,
    pub(super) pid: Pid,
    pub(super) namespace: Namespace,
    // What runs in the namespace goes before it.
    _process: Process,
    _files: TempDir,
}

/// All that are installed here; of the others standard error says so. `names` are NAME=ADDRESS.
pub(super) fn others(names: &[String]) -> anyhow::Result<Vec<Resolver>> {
    let mut running = Vec::new();
    for (name, program, command) in [
        ("aardvark-dns", AARDVARK, aardvark as fn(&[String], &Path) -> anyhow::Result<Command>),
        ("dnsmasq", DNSMASQ, dnsmasq),
        (LEAST, SELF, least),
    ] {
        if !Path::new(program).exists() {
            eprintln!("{name} is not measured: there is no {program}");
            continue;
        }
        let files = TempDir::with_prefix("bench-")?;
        let started =
            command(names, files.path()).and_then(|command| Resolver::new(name, command, files, names));
        running.push(started.with_context(|| format!("can't start {name}"))?);
    }
    Ok(running)
}

/// A file for each network: its server's addresses, and a line for each container.
fn aardvark(names: &[String], files: &Path) -> anyhow::Result<Command> {
    let mut text = format!("{}\n", SERVER.ip());
    for (at, pair) in names.iter().enumerate() {
        let (name, address) = split(pair)?;
        text += &format!("{at:064x} {address}  {name}\n");
    }
    std::fs::write(files.join("network"), text)?;
    let mut command = launch::sealed_command(Path::new("sh"));
    command.args(["-c", HOLD, AARDVARK]).arg("--config").arg(files).args(["-p", "53", "run"]);
    Ok(command)
}

/// With nothing read but a hosts file of ours.
fn dnsmasq(names: &[String], files: &Path) -> anyhow::Result<Command> {
    let hosts = files.join("names");
    let mut text = String::new();
    for pair in names {
        let (name, address) = split(pair)?;
        text += &format!("{address} {name}\n");
    }
    std::fs::write(&hosts, text)?;
    let mut command = launch::command(Path::new(DNSMASQ));
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"]);
    command.args(["--log-facility=/dev/null", "--no-resolv", "--no-hosts", "--local-ttl=600"]);
    command.args(["--bind-interfaces", &format!("--listen-address={}", SERVER.ip())]);
    command.arg(format!("--addn-hosts={}", hosts.display()));
    Ok(command)
}

/// Which has the first name's address for everything.
fn least(names: &[String], _: &Path) -> anyhow::Result<Command> {
    let (_, address) = split(names.first().context("no names")?)?;
    let mut command = launch::role("answer");
    command.args([&SERVER.to_string(), address]);
    Ok(command)
}

/// Whether a process is of this program.
fn is(pid: Pid, program: &str) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == Path::new(program))
}

fn split(pair: &str) -> anyhow::Result<(&str, &str)> {
    pair.split_once('=').with_context(|| format!("{pair:?} is not NAME=ADDRESS"))
}

impl Resolver {
    fn new(
        name: &'static str,
        mut command: Command,
        files: TempDir,
        names: &[String],
    ) -> anyhow::Result<Self> {
        let namespace = Namespace::new()?;
        namespace.run(|| ip("link set lo up\n"))?;
        command.stderr(Stdio::null());
        let mut process = Process::start(&namespace, name, piped(command))?;
        let first = names.first().context("no names")?.clone();
        let deadline = Instant::now() + PATIENCE;
        loop {
            process.expect_alive()?;
            let pair = first.clone();
            if namespace.run(move || ask::answers(SERVER, &pair))? {
                break;
            }
            ensure!(Instant::now() < deadline, "it doesn't answer");
            thread::sleep(LOOK_AGAIN);
        }
        // What was started, or what it has forked.
        let forked = usage::tree(process.pid()).into_iter().rfind(|pid| is(*pid, AARDVARK));
        let pid = forked.unwrap_or_else(|| process.pid());
        Ok(Self { name, pid, namespace, _process: process, _files: files })
    }
}
