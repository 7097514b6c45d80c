//! What publishing costs: a thousand ports, and the time until a port answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::unistd::Pid;

use super::answer::answered;
use super::daemon::Daemon;
use super::docker::Dockerd;
use super::measure::{constant, count, figure, figure_in};
use super::{Amounts, Figure};
use crate::usage::{self, Memory};

/// A thousand ports.
const RANGE: &str = "20000-20999:20000-20999";
/// Two hundred: dockerd needs a minute for a thousand.
const FEWER: &str = "20000-20199:20000-20199";
/// What those may take to come, and to go.
const AT_MOST: f64 = 100.0;
/// Time for a proxy to be done with starting.
const SETTLE: Duration = Duration::from_secs(1);
/// Where the web server is published.
const WEB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Publishes it there.
const SERVE: [&str; 12] =
    ["run", "-d", "--name", "web", "-p", "8080:80", "--", "busybox", "httpd", "-f", "-p", "80"];

/// A thousand ports of a sandbox that runs, and of one that starts.
pub(super) fn range(daemon: &mut Daemon, amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    daemon.timed(&["run", "-d", "--name", "web", "--", "sleep", "infinity"])?;
    let (mut up, mut down, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    let mut processes = 0;
    for round in 0..=amounts.publishings {
        let (came, _) = daemon.timed(&["publish", "web", "-p", RANGE])?;
        if round == 0 {
            thread::sleep(SETTLE);
            let proxies = proxies(daemon);
            processes = proxies.len();
            memory.push(Memory::of(&proxies)?.pss / 1024.0);
        }
        let (went, _) = daemon.timed(&["unpublish", "web", "-p", RANGE])?;
        // The first one finds nothing warm.
        if round > 0 {
            up.push(came);
            down.push(went);
        }
    }
    let (mut plain, mut whole, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..amounts.publishings {
        plain.push(daemon.timed(&["run", "-d", "--name", "one", "--", "sleep", "infinity"])?.0);
        daemon.timed(&["rm", "-f", "one"])?;
        whole.push(daemon.timed(&["run", "-d", "--name", "one", "-p", RANGE, "--", "sleep", "infinity"])?.0);
        gone.push(daemon.timed(&["rm", "-f", "one"])?.0);
    }
    ensure!(proxies(daemon).is_empty(), "proxies are left over");
    Ok(vec![
        figure("publish 1,000 ports of a running sandbox", up, Some(AT_MOST))?,
        figure("unpublish them", down, Some(AT_MOST))?,
        Figure::new("proxies of 1,000 ports", "", constant(count(processes)), Some(1.0)),
        figure_in("MiB", "their memory, PSS", memory, Some(2.0))?,
        figure("run -d, no ports", plain, None)?,
        figure("run -d with 1,000 ports", whole, Some(AT_MOST))?,
        figure("rm -f of that", gone, Some(AT_MOST))?,
    ])
}

/// `run -d -p` of a web server, until it answers on the loopback.
pub(super) fn answer(daemon: &mut Daemon, amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    daemon.timed(&["run", "--rm", "--", "true"])?;
    let (mut first, mut returned) = (Vec::new(), Vec::new());
    for _ in 0..amounts.publishings {
        let (took, end) = answered(daemon.namespace(), daemon.command(&SERVE), WEB)?;
        first.push(took);
        returned.push(end);
        daemon.timed(&["rm", "-f", "web"])?;
    }
    Ok(vec![
        figure("run -d -p 8080:80: until the port answers", first, Some(50.0))?,
        figure("run -d -p 8080:80: until it returns", returned, None)?,
    ])
}

/// Two hundred ports, and a web server's port, of ours and of dockerd's, in turns.
pub(super) fn beside_dockerd(bin_dir: &Path, amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    let Some(dockerd) = Dockerd::start().context("can't start dockerd")? else { return Ok(Vec::new()) };
    let daemon = Daemon::start(bin_dir, &[]).context("can't start the daemon under test")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut ours_gone, mut theirs_gone) = (Vec::new(), Vec::new());
    let (mut ours_answer, mut their_answer) = (Vec::new(), Vec::new());
    for _ in 0..amounts.dockerd {
        ours.push(daemon.timed(&["run", "-d", "--name", "one", "-p", FEWER, "--", "sleep", "infinity"])?.0);
        ours_gone.push(daemon.timed(&["rm", "-f", "one"])?.0);
        ours_answer.push(answered(daemon.namespace(), daemon.command(&SERVE), WEB)?.0);
        daemon.timed(&["rm", "-f", "web"])?;

        theirs.push(dockerd.timed(&Dockerd::run("one", FEWER, &["busybox", "sleep", "1000"]))?);
        theirs_gone.push(dockerd.timed(&["rm", "-f", "one"])?);
        let serve = Dockerd::run("web", "8080:80", &["busybox", "httpd", "-f", "-p", "80"]);
        their_answer.push(answered(&dockerd.namespace, dockerd.command(&serve), WEB)?.0);
        dockerd.timed(&["rm", "-f", "web"])?;
    }
    Ok(vec![
        figure("run -d with 200 ports", ours, None)?,
        figure("docker run -d with 200 ports", theirs, None)?,
        figure("rm -f of that", ours_gone, None)?,
        figure("docker rm -f of that", theirs_gone, None)?,
        figure("run -d -p 8080:80, until it answers", ours_answer, None)?,
        figure("docker run -d -p 8080:80, until it answers", their_answer, None)?,
    ])
}

/// The daemon's proxies.
fn proxies(daemon: &Daemon) -> Vec<Pid> {
    usage::children(daemon.pid())
        .into_iter()
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "netproxy")
        })
        .collect()
}
