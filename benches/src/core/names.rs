//! What answering queries for names costs, beside others that do it, and what neighbours with names cost a start.
//!
//! The client is in a network namespace with each server and asks 127.0.0.11: ours from a sandbox, through the translation
//! there. Server and client have a processor each, where there are two; so answers are those of one core. The kernel lets
//! who sends pay for the way to the receiver's queue: the client for a query's, the server for an answer's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::unistd::Pid;

use super::daemon::Daemon;
use super::measure::{SETTLE, constant, count, figure, figure_in, resident};
use super::resolvers::{self, SERVER};
use super::{Amounts, Figure};
use crate::ask::{self, Asked, Course, Pace};
use crate::namespace::Namespace;
use crate::stats::Summary;

const NETWORK: &str = "named";
/// How many names there are to ask for: a number that divides those of ids.
const NAMES: usize = 8;
/// Queries under way. Enough that the server never waits, and fewer than a socket's buffer takes.
const WINDOW: usize = 64;
const RATE: u32 = 10_000;
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURE: Duration = Duration::from_secs(2);
/// Answers that one core has to give in a second.
const AT_LEAST: f64 = 50_000.0;
/// What a start beside many may cost, in times of one beside few.
const ALIKE: f64 = 1.2;
/// How many have started when the first starts that count do.
const TENTH: usize = 9;
/// What a sandbox is told of names.
const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// A server that is asked.
struct Site<'a> {
    name: &'a str,
    home: &'a Namespace,
    inside: Option<PathBuf>,
    server: Pid,
    answers: Vec<f64>,
    per_cpu: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    max: Vec<f64>,
    lost: u64,
}

/// Answers per second and their latencies, of ours and the others in turns.
pub(super) fn beside_others(bin_dir: &Path, amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    let daemon = Daemon::start(bin_dir, &[]).context("can't start the daemon under test")?;
    let names = named_sandboxes(&daemon, NAMES)?;
    let others = resolvers::others(&names)?;
    let inside = Some(daemon.namespace_of("box0")?);
    let ours = Site::new("portmap", daemon.namespace(), inside, daemon.pid());
    let theirs = others.iter().map(|other| Site::new(other.name, &other.namespace, None, other.pid));
    let mut sites: Vec<Site<'_>> = [ours].into_iter().chain(theirs).collect();
    let cpus = processors();
    for site in &sites {
        pin(site.server, cpus.map(|(server, _)| server))?;
    }
    for _ in 0..amounts.turns {
        for site in &mut sites {
            site.measure(&names, cpus.map(|(_, client)| client))
                .with_context(|| format!("asking {}", site.name))?;
        }
    }
    let mut figures = Vec::new();
    for (at, site) in sites.into_iter().enumerate() {
        figures.extend(site.figures(at == 0)?);
    }
    Ok(figures)
}

impl<'a> Site<'a> {
    fn new(name: &'a str, home: &'a Namespace, inside: Option<PathBuf>, server: Pid) -> Self {
        let (answers, per_cpu, p50, p99, max) = (vec![], vec![], vec![], vec![], vec![]);
        Self { name, home, inside, server, answers, per_cpu, p50, p99, max, lost: 0 }
    }

    fn measure(&mut self, names: &[String], cpu: Option<usize>) -> anyhow::Result<()> {
        // What it could answer as fast as it can, then how fast it is when it need not.
        let names = if self.name == resolvers::LEAST { &names[..1] } else { names };
        let course = |pace| Course { names, pace, warm_up: WARM_UP, measure: MEASURE, cpu };
        let ask = |pace| -> anyhow::Result<Asked> {
            let inside = self.inside.as_deref();
            ask::ask(self.home, inside, self.server, SERVER, &course(pace))?.end()
        };
        let full = ask(Pace::Window(WINDOW))?;
        let calm = ask(Pace::Rate(RATE))?;
        self.answers.push(full.answers as f64 / full.seconds);
        self.per_cpu.push(full.answers as f64 / full.server_cpu);
        for (list, value) in [(&mut self.p50, calm.p50), (&mut self.p99, calm.p99), (&mut self.max, calm.max)]
        {
            list.push(value.context("no answers")?);
        }
        self.lost += full.lost + calm.lost;
        Ok(())
    }

    fn figures(self, ours: bool) -> anyhow::Result<Vec<Figure>> {
        let Self { name, answers, per_cpu, p50, p99, max, lost, .. } = self;
        let answers = figure_in("1/s", &format!("{name}: answers of one core"), answers, None)?;
        let most = ours.then_some(1000.0);
        Ok(vec![
            if ours { answers.or_more(AT_LEAST) } else { answers },
            figure_in("1/s", &format!("{name}: answers for a second of its CPU time"), per_cpu, None)?,
            figure_in("µs", &format!("{name}: latency at {RATE} queries/s, p50"), p50, None)?,
            figure_in("µs", &format!("{name}: p99"), p99, most)?,
            figure_in("µs", &format!("{name}: the slowest"), max, None)?,
            Figure::new(format!("{name}: queries lost"), "", constant(lost as f64), None),
        ])
    }
}

/// Sandboxes `box0`, `box1`, … on a network of their own, as NAME=ADDRESS.
pub(super) fn named_sandboxes(daemon: &Daemon, how_many: usize) -> anyhow::Result<Vec<String>> {
    daemon.timed(&["network", "create", "--subnet", "10.202.0.0/20", NETWORK])?;
    let mut names = Vec::new();
    for at in 0..how_many {
        let name = format!("box{at}");
        daemon.timed(&["run", "-d", "--name", &name, "--net", NETWORK, "--", "sleep", "infinity"])?;
        names.push(format!("{name}={}", address(daemon, &name)?));
    }
    Ok(names)
}

fn address(daemon: &Daemon, sandbox: &str) -> anyhow::Result<String> {
    let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    Ok(daemon.timed(&["inspect", "-f", template, sandbox])?.1.trim().to_owned())
}

/// The first two processors, for the server and for the client; none if there is but one.
pub(super) fn processors() -> Option<(usize, usize)> {
    let count = thread::available_parallelism().map_or(1, usize::from);
    (count > 1).then_some((0, 1))
}

/// All threads of a process.
pub(super) fn pin(process: Pid, cpu: Option<usize>) -> anyhow::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let name = thread?.file_name();
        let id = name.to_str().and_then(|id| id.parse().ok()).context("a thread without a number")?;
        ask::pin(Pid::from_raw(id), cpu)?;
    }
    Ok(())
}

/// The time of a start beside few and beside many, and whether it touches what those have.
pub(super) fn neighbours(daemon: &mut Daemon, amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    daemon.timed(&["network", "create", "--subnet", "10.202.0.0/20", NETWORK])?;
    let start = |at: usize| {
        let name = format!("box{at}");
        let words = ["run", "-d", "--name", &name, "--net", NETWORK, "--net-alias", "app"];
        Ok::<f64, anyhow::Error>(daemon.timed(&[&words[..], &["--", "sleep", "infinity"]].concat())?.0)
    };
    let Amounts { names, sample, .. } = amounts;
    let mut times = Vec::new();
    let few = names - sample;
    for at in 0..few {
        times.push(start(at)?);
    }
    let before = files(daemon, few)?;
    let last = (few..names).map(start).collect::<anyhow::Result<Vec<f64>>>()?;
    let after = files(daemon, few)?;
    let rewritten = before.iter().filter(|(file, state)| after.get(*file) != Some(*state)).count();

    // That nothing was written must not mean that nothing is known.
    let newest = format!("box{}", names - 1);
    let pair = format!("{newest}={}", address(daemon, &newest)?);
    let inside = daemon.namespace_of("box0")?;
    let course = Course {
        names: &[pair],
        pace: Pace::Until(1, 1),
        warm_up: Duration::ZERO,
        measure: MEASURE,
        cpu: None,
    };
    let asked = ask::ask(daemon.namespace(), Some(&inside), daemon.pid(), SERVER, &course)?.end()?;
    ensure!(asked.answers == 1, "{newest} isn't known to its neighbours");

    thread::sleep(SETTLE);
    let memory = resident(daemon, &format!("daemon, {names} sandboxes with names: resident memory"), None)?;

    let first = times[TENTH..].iter().copied().take(sample).collect::<Vec<f64>>();
    let median = |values: &[f64]| Summary::of(values.iter().copied()).map(|one| one.median);
    let ratio = median(&last).zip(median(&first)).map(|(last, first)| last / first);
    let ratio = ratio.context("nothing was started")?;
    Ok(vec![
        figure(&format!("run -d: from the tenth on a network on, {sample} of them"), first, None)?,
        figure(&format!("run -d: the last {sample} of {names}"), last, None)?,
        Figure::new("the last against the first", "times", constant(ratio), Some(ALIKE)),
        Figure::new("files of neighbours that those wrote", "", constant(count(rewritten)), Some(0.0)),
        memory,
    ])
}

/// What each sandbox is told of names: which file it is, and when it was written.
fn files(daemon: &Daemon, how_many: usize) -> anyhow::Result<BTreeMap<PathBuf, (u64, u64, i64, i64)>> {
    let names: Vec<String> = (0..how_many).map(|at| format!("box{at}")).collect();
    let mut words = vec!["inspect", "-f", "{{.State.Pid}}"];
    words.extend(names.iter().map(String::as_str));
    let mut states = BTreeMap::new();
    for pid in daemon.timed(&words)?.1.split_whitespace() {
        for file in FILES {
            let path = PathBuf::from(format!("/proc/{pid}/root/etc/{file}"));
            let seen = fs::metadata(&path).with_context(|| format!("can't look at {}", path.display()))?;
            states.insert(path, (seen.dev(), seen.ino(), seen.mtime(), seen.mtime_nsec()));
        }
    }
    ensure!(states.len() == how_many * FILES.len(), "some sandboxes have no process");
    Ok(states)
}
