//! The rounds: every load meets every contender once per round, each time in a topology of its own.
//!
//! Contenders take turns within a load and change their order from round to round, so that whatever else happens on
//! the machine hits all of them alike. A measurement that fails is recorded and the rounds go on.

use std::fmt::Display;
use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::crowd::{self, Crowd};
use crate::drive::{Course, Measured, drive};
use crate::idle::{self, Idle};
use crate::line_up::{LeftOut, LineUp};
use crate::loads::{Load, Traffic, Weight};
use crate::machine::Machine;
use crate::serve::Backend;
use crate::topology::Topology;
use crate::usage::Memory;

/// How long a proxy has to close what the load left, before its memory after the load is read.
const SETTLE: Duration = Duration::from_millis(200);

/// What to measure, and for how long.
pub(crate) struct Schedule {
    pub(crate) rounds: u32,
    /// Of them, how many have loads that are a detail, and how many have the waiting.
    pub(crate) detail_rounds: u32,
    pub(crate) waiting_rounds: u32,
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
    pub(crate) loads: Vec<&'static Load>,
    pub(crate) idle: bool,
    pub(crate) crowd: bool,
}

/// Everything that came out of a run; the JSON report is exactly this.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) contenders: Vec<Participant>,
    pub(crate) left_out: Vec<LeftOut>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) idle: Vec<WaitingCell<Idle>>,
    pub(crate) crowd: Vec<WaitingCell<Crowd>>,
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

/// What waiting cost with one contender in one round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WaitingCell<T> {
    pub(crate) contender: String,
    pub(crate) round: u32,
    pub(crate) outcome: Result<T, String>,
}

impl Results {
    /// What went wrong, a sentence each.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        let cells = self.cells.iter().filter_map(|cell| {
            let error = cell.outcome.as_ref().err()?;
            Some(failure(&cell.load, &cell.contender, cell.round, error))
        });
        let idle = self.idle.iter().filter_map(|cell| cell.failure(idle::NAME));
        let crowd = self.crowd.iter().filter_map(|cell| cell.failure(crowd::NAME));
        cells.chain(idle).chain(crowd)
    }
}

impl<T> WaitingCell<T> {
    fn failure(&self, name: &str) -> Option<String> {
        Some(failure(name, &self.contender, self.round, self.outcome.as_ref().err()?))
    }
}

fn failure(load: &str, contender: &str, round: u32, error: &str) -> String {
    format!("{load} on {contender}, round {round}: {error}")
}

/// Runs the whole schedule; tells on standard error how far it is.
pub(crate) fn run(schedule: &Schedule, line_up: LineUp) -> anyhow::Result<Results> {
    let LineUp { contenders, left_out } = line_up;
    let participant =
        |one: &dyn Contender| Ok(Participant { name: one.name().to_owned(), version: one.version()? });
    let mut results = Results {
        machine: Machine::describe()?,
        rounds: schedule.rounds,
        seconds: schedule.measure.as_secs_f64(),
        contenders: contenders.iter().map(|one| participant(one.as_ref())).collect::<anyhow::Result<_>>()?,
        left_out,
        cells: Vec::new(),
        idle: Vec::new(),
        crowd: Vec::new(),
    };
    for round in 1..=schedule.rounds {
        let due = |load: &&&Load| load.weight == Weight::Main || round <= schedule.detail_rounds;
        for (turn, load) in schedule.loads.iter().filter(due).enumerate() {
            for contender in in_turn(&contenders, round as usize + turn) {
                results.cells.extend(cell(schedule, load, contender.as_ref(), round));
            }
        }
        if round > schedule.waiting_rounds {
            continue;
        }
        for contender in in_turn(&contenders, round as usize) {
            let contender = contender.as_ref();
            let at = Turn { round, rounds: schedule.waiting_rounds, contender };
            if schedule.idle {
                let outcome = idle::measure(contender);
                results.idle.extend(at.waited(idle::NAME, "KiB each", outcome, |idle| idle.memory_each.pss));
            }
            if schedule.crowd {
                let outcome = crowd::measure(contender);
                results.crowd.extend(at.waited(crowd::NAME, "KiB each", outcome, Crowd::memory_each));
            }
        }
    }
    Ok(results)
}

/// None if the load is nothing for the contender.
fn cell(schedule: &Schedule, load: &Load, contender: &dyn Contender, round: u32) -> Option<Cell> {
    if !contender.carries(load.protocol, load.parallel) {
        return None;
    }
    let outcome =
        measure(load, contender, schedule.warm_up, schedule.measure).map_err(|error| format!("{error:#}"));
    let brief = outcome.as_ref().map(|outcome| rate(load.traffic, outcome));
    let rounds = if load.weight == Weight::Main { schedule.rounds } else { schedule.detail_rounds };
    Turn { round, rounds, contender }.progress(load.name, brief, load.traffic.unit());
    Some(Cell { load: load.name.to_owned(), contender: contender.name().to_owned(), round, outcome })
}

/// Whose turn it is, and when.
struct Turn<'a> {
    round: u32,
    rounds: u32,
    contender: &'a dyn Contender,
}

impl Turn<'_> {
    fn waited<T>(
        &self,
        name: &str,
        unit: &str,
        outcome: anyhow::Result<Option<T>>,
        figure: impl Fn(&T) -> f64,
    ) -> Option<WaitingCell<T>> {
        let outcome = outcome.transpose()?.map_err(|error| format!("{error:#}"));
        self.progress(name, outcome.as_ref().map(figure), unit);
        Some(WaitingCell { contender: self.contender.name().to_owned(), round: self.round, outcome })
    }

    fn progress(&self, load: &str, outcome: Result<f64, impl Display>, unit: &str) {
        let what = match outcome {
            Ok(figure) if figure < 100.0 => format!("{figure:.2} {unit}"),
            Ok(figure) => format!("{figure:.0} {unit}"),
            Err(error) => format!("failed: {error}"),
        };
        let (round, rounds, who) = (self.round, self.rounds, self.contender.name());
        // Nobody to tell is no reason to stop.
        let _ = writeln!(std::io::stderr(), "{round}/{rounds}  {load:<10} {who:<18} {what}");
    }
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

/// One load on one contender, once.
pub(crate) fn measure(
    load: &Load,
    contender: &dyn Contender,
    warm_up: Duration,
    measure: Duration,
) -> anyhow::Result<Outcome> {
    let topology = Topology::new()?;
    let mut backend = Backend::start(&topology, load)?;
    let mut way = contender.start(&topology, load.protocol)?;
    let proxy = way.programs.roots().to_vec();
    let before = Memory::of_trees(&proxy)?;
    let course = Course { warm_up, measure, backend: backend.pid(), proxy: &proxy };
    let driven = drive(&topology.host, load, way.target, &course);
    // A proxy's end explains more than what the client saw of it.
    way.programs.expect_alive()?;
    let measured = driven?;
    let done = if load.traffic == Traffic::Flood { backend.received()? } else { measured.work };
    ensure!(done > 0, "nothing came through");
    let memory = if proxy.is_empty() {
        None
    } else {
        thread::sleep(SETTLE);
        Some(BeforeAndAfter { before, after: Memory::of_trees(&proxy)? })
    };
    Ok(Outcome { measured, done, memory })
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
