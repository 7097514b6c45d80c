//! `bench drive`: the client's process, and the time keeper of a measurement.
//!
//! Connects, lets the load run warm, then measures for a fixed time. The CPU clocks of the proxy and of both sides of
//! the load generator are read at the same two instants that delimit the work counted. Prints one line of JSON.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::launch;
use crate::loads::{self, Load, Phase, Tally, Worker};
use crate::namespace::Namespace;
use crate::process::{Process, piped};
use crate::stats;
use crate::usage::{cpu_time, cpu_time_of_trees, own_cpu_time};

/// What connecting and ending may take beyond the time asked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The hidden subcommand.
#[derive(Args)]
pub(crate) struct Drive {
    load: String,
    target: SocketAddr,
    #[arg(long)]
    warm_up_ms: u64,
    #[arg(long)]
    measure_ms: u64,
    #[arg(long)]
    backend: i32,
    #[arg(long, value_delimiter = ',')]
    proxy: Vec<i32>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// Bytes or messages sent and, but for a flood, received.
    pub(crate) work: u64,
    /// Datagrams of closed loops that were given up on.
    pub(crate) lost: u64,
    /// CPU seconds within `seconds`.
    pub(crate) cpu: Cpu,
    /// In microseconds; none for loads without round trips.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cpu {
    pub(crate) proxy: f64,
    pub(crate) client: f64,
    pub(crate) backend: f64,
}

impl Drive {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let outcome = self.measure().map_err(|error| format!("{error:#}"));
        writeln!(io::stdout(), "{}", serde_json::to_string(&outcome)?)?;
        Ok(())
    }

    fn measure(&self) -> anyhow::Result<Measured> {
        let load = loads::find(&self.load).with_context(|| format!("there is no load {:?}", self.load))?;
        let workers =
            load.client(self.target).with_context(|| format!("can't connect to {}", self.target))?;
        let phase = Phase::default();
        let (seconds, cpu, tallies) = thread::scope(|scope| {
            let phase = &phase;
            let spawn = |worker: Worker| scope.spawn(move || worker(phase));
            let workers: Vec<_> = workers.into_iter().map(spawn).collect();
            let window = self.keep_time(phase);
            // Whatever happened, the workers must end, or this scope never would.
            phase.set(Phase::STOP);
            let join = |worker: thread::ScopedJoinHandle<'_, io::Result<Tally>>| {
                worker.join().map_err(|_| anyhow!("a worker panicked"))?.context("the load broke off")
            };
            let tallies = workers.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()?;
            let (seconds, cpu) = window?;
            anyhow::Ok((seconds, cpu, tallies))
        })?;

        let mut latencies: Vec<u32> =
            tallies.iter().flat_map(|tally| tally.latencies.iter().copied()).collect();
        latencies.sort_unstable();
        let percentile = |share| stats::percentile(&latencies, share).map(|ns| f64::from(ns) / 1e3);
        Ok(Measured {
            seconds,
            work: tallies.iter().map(|tally| tally.work).sum(),
            lost: tallies.iter().map(|tally| tally.lost).sum(),
            cpu,
            p50: percentile(0.5),
            p99: percentile(0.99),
        })
    }

    /// Length of the measurement and the CPU time spent in it.
    fn keep_time(&self, phase: &Phase) -> nix::Result<(f64, Cpu)> {
        thread::sleep(Duration::from_millis(self.warm_up_ms));
        let before = self.clocks()?;
        let start = Instant::now();
        phase.set(Phase::MEASURE);
        thread::sleep(Duration::from_millis(self.measure_ms));
        phase.set(Phase::STOP);
        let seconds = start.elapsed().as_secs_f64();
        let after = self.clocks()?;
        Ok((
            seconds,
            Cpu {
                proxy: after.proxy - before.proxy,
                client: after.client - before.client,
                backend: after.backend - before.backend,
            },
        ))
    }

    fn clocks(&self) -> nix::Result<Cpu> {
        let proxy: Vec<Pid> = self.proxy.iter().copied().map(Pid::from_raw).collect();
        Ok(Cpu {
            proxy: cpu_time_of_trees(&proxy)?.as_secs_f64(),
            client: own_cpu_time()?.as_secs_f64(),
            backend: cpu_time(Pid::from_raw(self.backend))?.as_secs_f64(),
        })
    }
}

/// How long to drive a load, and whose CPU clocks to read.
pub(crate) struct Course<'a> {
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
    pub(crate) backend: Pid,
    pub(crate) proxy: &'a [Pid],
}

/// The harness's side: drives `load` at `target` from a process in the clients' namespace.
pub(crate) fn drive(
    clients: &Namespace,
    load: &Load,
    target: SocketAddr,
    course: &Course<'_>,
) -> anyhow::Result<Measured> {
    let mut command = launch::role("drive");
    command.arg(load.name).arg(target.to_string());
    command.args(["--warm-up-ms", &course.warm_up.as_millis().to_string()]);
    command.args(["--measure-ms", &course.measure.as_millis().to_string()]);
    command.args(["--backend", &course.backend.to_string()]);
    if !course.proxy.is_empty() {
        let pids: Vec<String> = course.proxy.iter().map(Pid::to_string).collect();
        command.args(["--proxy", &pids.join(",")]);
    }
    let mut process = Process::start(clients, "the client", piped(command))?;
    let line = process.line(course.warm_up + course.measure + PATIENCE)?;
    let outcome: Result<Measured, String> = serde_json::from_str(&line)?;
    outcome.map_err(anyhow::Error::msg)
}
