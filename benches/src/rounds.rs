//! The rounds: every load meets every contender once per round, each time in a topology of its own.
//!
//! Contenders take turns within a load and change their order from round to round, so that whatever else happens on
//! the machine hits all of them alike. A measurement that fails is recorded and the rounds go on.

use std::fmt::Display;
use std::io::Write;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::drive::{Course, Measured, drive};
use crate::idle::{self, Idle};
use crate::loads::{Load, Traffic};
use crate::machine::Machine;
use crate::serve::Backend;
use crate::topology::Topology;
use crate::usage::Memory;

/// How long a proxy has to close what the load left, before its memory after the load is read.
const SETTLE: Duration = Duration::from_millis(200);

/// What to measure, and for how long.
pub(crate) struct Schedule {
    pub(crate) rounds: u32,
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
    pub(crate) loads: Vec<&'static Load>,
    pub(crate) idle: bool,
}

/// Everything that came out of a run; the JSON report is exactly this.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) contenders: Vec<Participant>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) idle: Vec<IdleCell>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Participant {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// One load on one contender in one round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) load: String,
    pub(crate) contender: String,
    pub(crate) round: u32,
    pub(crate) outcome: Result<Outcome, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) measured: Measured,
    /// What counts as done: for a flood the datagrams that arrived, otherwise all of `measured.work`.
    pub(crate) done: u64,
    /// None for a contender without processes.
    pub(crate) memory: Option<BeforeAndAfter>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct BeforeAndAfter {
    pub(crate) before: Memory,
    pub(crate) after: Memory,
}

/// The idle proxies of one contender in one round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IdleCell {
    pub(crate) contender: String,
    pub(crate) round: u32,
    pub(crate) outcome: Result<Idle, String>,
}

impl Results {
    /// What went wrong, a sentence each.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        let cells = self.cells.iter().filter_map(|cell| {
            let error = cell.outcome.as_ref().err()?;
            Some(format!("{} on {}, round {}: {error}", cell.load, cell.contender, cell.round))
        });
        let idle = self.idle.iter().filter_map(|cell| {
            let error = cell.outcome.as_ref().err()?;
            Some(format!("{} on {}, round {}: {error}", idle::NAME, cell.contender, cell.round))
        });
        cells.chain(idle)
    }
}

/// Runs the whole schedule; tells on standard error how far it is.
pub(crate) fn run(schedule: &Schedule, contenders: &[Box<dyn Contender>]) -> anyhow::Result<Results> {
    let participant =
        |one: &dyn Contender| Ok(Participant { name: one.name().to_owned(), version: one.version()? });
    let mut results = Results {
        machine: Machine::describe()?,
        rounds: schedule.rounds,
        seconds: schedule.measure.as_secs_f64(),
        contenders: contenders.iter().map(|one| participant(one.as_ref())).collect::<anyhow::Result<_>>()?,
        cells: Vec::new(),
        idle: Vec::new(),
    };
    for round in 1..=schedule.rounds {
        for (turn, load) in schedule.loads.iter().enumerate() {
            for contender in in_turn(contenders, round as usize + turn) {
                let outcome =
                    measure(schedule, load, contender.as_ref()).map_err(|error| format!("{error:#}"));
                let brief = outcome.as_ref().map(|outcome| rate(load.traffic, outcome));
                progress(round, schedule.rounds, load.name, contender.name(), brief, load.traffic.unit());
                results.cells.push(Cell {
                    load: load.name.to_owned(),
                    contender: contender.name().to_owned(),
                    round,
                    outcome,
                });
            }
        }
        if schedule.idle {
            for contender in in_turn(contenders, round as usize) {
                let Some(outcome) = idle::measure(contender.as_ref()).transpose() else { continue };
                let outcome = outcome.map_err(|error| format!("{error:#}"));
                let brief = outcome.as_ref().map(|idle| idle.memory_each.pss);
                progress(round, schedule.rounds, idle::NAME, contender.name(), brief, "KiB each");
                let contender = contender.name().to_owned();
                results.idle.push(IdleCell { contender, round, outcome });
            }
        }
    }
    Ok(results)
}

/// Work done per second, in the traffic's unit.
pub(crate) fn rate(traffic: Traffic, outcome: &Outcome) -> f64 {
    let scale = if traffic.counts_bytes() { 1e9 } else { 1.0 };
    outcome.done as f64 / outcome.measured.seconds / scale
}

/// All of `items`, beginning with another one at each `turn`.
fn in_turn<T>(items: &[T], turn: usize) -> impl Iterator<Item = &T> {
    items.iter().cycle().skip(turn % items.len().max(1)).take(items.len())
}

fn measure(schedule: &Schedule, load: &Load, contender: &dyn Contender) -> anyhow::Result<Outcome> {
    let topology = Topology::new()?;
    let mut backend = Backend::start(&topology, load)?;
    let mut way = contender.start(&topology, load.protocol)?;
    let proxy = way.pids();
    let before = Memory::of(&proxy)?;
    let course = Course {
        warm_up: schedule.warm_up,
        measure: schedule.measure,
        backend: backend.pid(),
        proxy: &proxy,
    };
    let driven = drive(&topology, load, way.target, &course);
    // A proxy's end explains more than what the client saw of it.
    way.processes.iter_mut().try_for_each(crate::process::Process::expect_alive)?;
    let measured = driven?;
    let done = if load.traffic == Traffic::Flood { backend.received()? } else { measured.work };
    let memory = if proxy.is_empty() {
        None
    } else {
        thread::sleep(SETTLE);
        Some(BeforeAndAfter { before, after: Memory::of(&proxy)? })
    };
    Ok(Outcome { measured, done, memory })
}

fn progress(round: u32, rounds: u32, load: &str, who: &str, outcome: Result<f64, impl Display>, unit: &str) {
    let what = match outcome {
        Ok(figure) if figure < 100.0 => format!("{figure:.2} {unit}"),
        Ok(figure) => format!("{figure:.0} {unit}"),
        Err(error) => format!("failed: {error}"),
    };
    // Nobody to tell is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{round}/{rounds}  {load:<10} {who:<13} {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_turn_and_the_first_one_changes() {
        let order = |turn| in_turn(&["a", "b", "c"], turn).copied().collect::<String>();
        assert_eq!([order(0), order(1), order(2), order(3)], ["abc", "bca", "cab", "abc"]);
        assert_eq!(in_turn(&[] as &[u8], 4).count(), 0);
    }
}
