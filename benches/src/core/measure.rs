//! Sandboxes and networks. Each measurement has a daemon to itself.

use std::collections::BTreeSet;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::daemon::Daemon;
use super::{Amounts, Figure};
use crate::stats::Summary;
use crate::usage;

/// Time to become quiet.
pub(super) const SETTLE: Duration = Duration::from_secs(2);

/// What a daemon with nothing to do has in memory.
pub(super) fn idle(daemon: &mut Daemon, _: Amounts) -> anyhow::Result<Vec<Figure>> {
    daemon.timed(&["network", "ls"])?;
    thread::sleep(SETTLE);
    Ok(vec![resident(daemon, "daemon, idle: resident memory", Some(12.0))?])
}

/// `portmap run -- true` beside `unshare -n true`, in turns.
pub(super) fn runs(daemon: &mut Daemon, amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    daemon.timed(&["run", "--rm", "--", "true"])?;
    let (mut plain, mut sandboxed, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..amounts.runs {
        let mut unshare = Command::new("unshare");
        unshare.args(["-n", "true"]);
        let (without, _) = daemon.timed_command(unshare)?;
        let (with, _) = daemon.timed(&["run", "--rm", "--", "true"])?;
        plain.push(without);
        sandboxed.push(with);
        more.push(with - without);
    }
    Ok(vec![
        figure("unshare -n true", plain, None)?,
        figure("portmap run --rm -- true", sandboxed, None)?,
        figure("what a sandbox costs over a plain namespace", more, Some(40.0))?,
    ])
}

/// The first and the last of many sandboxes on one bridge.
pub(super) fn crowd(daemon: &mut Daemon, amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    daemon.timed(&["network", "create", "--subnet", "10.200.0.0/20", "crowd"])?;
    let start = |daemon: &Daemon| daemon.timed(&["run", "-d", "--net", "crowd", "--", "sleep", "infinity"]);
    let mut times = Vec::new();
    for _ in 0..amounts.crowd {
        times.push(start(daemon)?.0);
    }
    let first = times[..amounts.sample].to_vec();
    let last = times[times.len() - amounts.sample..].to_vec();
    let ratio = Summary::of(last.iter().copied())
        .zip(Summary::of(first.iter().copied()))
        .map(|(last, first)| last.median / first.median)
        .context("nothing was started")?;
    thread::sleep(SETTLE);
    Ok(vec![
        figure(&format!("run -d: the first {} on a bridge", amounts.sample), first, None)?,
        figure(&format!("run -d: the last {} of {}", amounts.sample, amounts.crowd), last, None)?,
        Figure::new("the last against the first", "times", constant(ratio), Some(1.2)),
        resident(daemon, &format!("daemon, {} sandboxes: resident memory", amounts.crowd), None)?,
    ])
}

/// Listing many networks.
pub(super) fn networks(daemon: &mut Daemon, amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    let mut created = Vec::new();
    for n in 0..amounts.networks {
        let subnet = format!("10.{}.{}.0/24", 100 + n / 250, n % 250);
        let name = format!("bench{n}");
        created.push(daemon.timed(&["network", "create", "--subnet", &subnet, &name])?.0);
    }
    let mut listed = Vec::new();
    for _ in 0..20 {
        let (took, list) = daemon.timed(&["network", "ls", "-q"])?;
        ensure!(list.lines().count() >= amounts.networks, "not all networks are listed");
        listed.push(took);
    }
    let last = created.split_off(created.len() - amounts.sample.min(created.len()));
    Ok(vec![
        figure(&format!("network ls with {} networks", amounts.networks), listed, Some(20.0))?,
        figure(&format!("network create, the last {} of them", amounts.sample), last, None)?,
    ])
}

/// Many sandboxes that start at once, each to show its address.
pub(super) fn at_once(daemon: &mut Daemon, amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    daemon.timed(&["network", "create", "--subnet", "10.201.0.0/20", "rush"])?;
    let before = daemon.links()?;
    let show = ["run", "--rm", "--net", "rush", "--", "ip", "-4", "-oneline", "address", "show", "eth0"];
    let start = std::time::Instant::now();
    let said = daemon.at_once((0..amounts.at_once).map(|_| daemon.command(&show)).collect())?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    ensure!(said.iter().all(|line| line.contains("inet 10.201.")), "a sandbox had no address: {said:?}");
    // Those may have had one address one after the other. What must not be is two with one at a time.
    let hold = ["run", "-d", "--net", "rush", "--", "sleep", "infinity"];
    daemon.at_once((0..amounts.at_once).map(|_| daemon.command(&hold)).collect())?;
    let (_, inspected) = daemon.timed(&[
        "network",
        "inspect",
        "-f",
        "{{range .Containers}}{{.IPv4Address}} {{end}}",
        "rush",
    ])?;
    let held: BTreeSet<&str> = inspected.split_whitespace().collect();
    let duplicates = amounts.at_once.saturating_sub(held.len());
    let (_, ids) = daemon.timed(&["ps", "-aq"])?;
    let mut rm = vec!["rm", "-f"];
    rm.extend(ids.lines());
    daemon.timed(&rm)?;
    let after = daemon.links()?;
    let leaked = after.iter().filter(|link| !before.contains(link)).count() + daemon.pins();
    Ok(vec![
        Figure::new(format!("{} runs at once: all of them", amounts.at_once), "ms", constant(took), None),
        Figure::new("addresses given twice", "", constant(count(duplicates)), Some(0.0)),
        Figure::new("links and namespaces left over", "", constant(count(leaked)), Some(0.0)),
    ])
}

pub(super) fn resident(daemon: &Daemon, what: &str, at_most: Option<f64>) -> anyhow::Result<Figure> {
    let kib = usage::resident(daemon.pid())?;
    Ok(Figure::new(what, "MiB", constant(kib / 1024.0), at_most))
}

/// A figure in milliseconds.
pub(super) fn figure(what: &str, times: Vec<f64>, at_most: Option<f64>) -> anyhow::Result<Figure> {
    figure_in("ms", what, times, at_most)
}

pub(super) fn figure_in(
    unit: &'static str,
    what: &str,
    values: Vec<f64>,
    at_most: Option<f64>,
) -> anyhow::Result<Figure> {
    let values = Summary::of(values).with_context(|| format!("nothing was measured of {what}"))?;
    Ok(Figure::new(what, unit, values, at_most))
}

pub(super) const fn constant(value: f64) -> Summary {
    Summary { median: value, min: value, max: value }
}

pub(super) fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
