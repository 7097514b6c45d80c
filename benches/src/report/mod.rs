//! What a run is reported as: Markdown for people; the JSON report is `Results` itself. Everything here is pure.

mod markdown;
mod table;
mod targets;

use crate::contenders::{DIRECT, DOCKER_PROXY};
use crate::idle::Idle;
use crate::loads::{self, Load};
use crate::rounds::{Outcome, Results, rate};
use crate::stats::Summary;

pub(crate) use markdown::markdown;
pub(crate) use targets::{Verdict, targets};

impl Results {
    /// The loads that were run, in their usual order.
    fn loads(&self) -> impl Iterator<Item = &'static Load> {
        loads::ALL.iter().filter(|load| self.cells.iter().any(|cell| cell.load == load.name))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.contenders.iter().map(|one| one.name.as_str())
    }

    /// The contenders that are processes of their own.
    fn proxies(&self) -> impl Iterator<Item = &str> {
        self.names().filter(|name| *name != DIRECT)
    }

    /// Pairs worth a ratio: everybody else with docker-proxy, every proxy with the direct path.
    fn comparisons(&self) -> Vec<(&str, &str)> {
        let pair = |of: &'static str| {
            let present = self.names().any(|name| name == of);
            self.proxies().filter(move |name| present && *name != of).map(move |name| (name, of))
        };
        pair(DOCKER_PROXY).chain(pair(DIRECT)).collect()
    }

    /// One figure of the successful rounds of a load on a contender.
    fn figure(
        &self,
        load: &str,
        contender: &str,
        figure: impl Fn(&Outcome) -> Option<f64>,
    ) -> Option<Summary> {
        let cells = self.cells.iter().filter(|cell| cell.load == load && cell.contender == contender);
        Summary::of(cells.filter_map(|cell| figure(cell.outcome.as_ref().ok()?)))
    }

    fn rate(&self, load: &Load, contender: &str) -> Option<Summary> {
        self.figure(load.name, contender, |outcome| Some(rate(load.traffic, outcome)))
    }

    /// The proxy's CPU seconds per portion of work.
    fn cpu(&self, load: &Load, contender: &str) -> Option<Summary> {
        let (_, portion) = load.traffic.portion();
        self.figure(load.name, contender, |outcome| {
            let done = outcome.done as f64 / portion;
            (outcome.memory.is_some() && done > 0.0).then(|| outcome.measured.cpu.proxy / done)
        })
    }

    fn idle_figure(&self, contender: &str, figure: impl Fn(&Idle) -> f64) -> Option<Summary> {
        let cells = self.idle.iter().filter(|cell| cell.contender == contender);
        Summary::of(cells.filter_map(|cell| Some(figure(cell.outcome.as_ref().ok()?))))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{env, fs};

    use super::*;
    use crate::contenders::NETPROXY;
    use crate::drive::{Cpu, Measured};
    use crate::loads::Traffic;
    use crate::machine::Machine;
    use crate::rounds::{BeforeAndAfter, Cell, IdleCell, Participant};
    use crate::usage::Memory;

    /// `UPDATE_GOLDEN=1` rewrites the file; the rewrite is reviewed like code.
    fn check_golden(name: &str, got: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, got).unwrap();
        }
        let want = fs::read_to_string(&path).unwrap_or_default();
        assert!(want == got, "{name} differs (UPDATE_GOLDEN=1 accepts)\n- want\n{want}\n- got\n{got}");
    }

    fn empty(contenders: &[&str]) -> Results {
        let participant =
            |name: &&str| Participant { name: (*name).to_owned(), version: format!("{name} 1.0") };
        Results {
            machine: Machine {
                date: "2026-01-31 23:59:59".to_owned(),
                kernel: "6.12.0".to_owned(),
                cpu: "Some CPU".to_owned(),
                cores: 2,
                congestion_control: "cubic".to_owned(),
                mtu: 1500,
                bench: "0.1.0".to_owned(),
            },
            rounds: 3,
            seconds: 2.0,
            contenders: contenders.iter().map(participant).collect(),
            cells: Vec::new(),
            idle: Vec::new(),
        }
    }

    /// Made-up figures: netproxy moves 1.5 times what docker-proxy does at 0.6 times its CPU and a quarter of its
    /// memory, except that downloads are only as fast.
    fn outcome(load: &Load, contender: &str, round: u32) -> Outcome {
        let speed = match contender {
            DIRECT => 4.0,
            NETPROXY if load.name != "bulk-down" => 3.0,
            _ => 2.0,
        };
        let (cpu, memory) = if contender == NETPROXY { (0.6, 500.0) } else { (1.0, 2000.0) };
        let scale = if load.traffic.counts_bytes() { 1e9 } else { 1e5 };
        let disturbance = f64::from(round) * 0.1 + 0.8;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures made up to fit")]
        let done = (speed * scale * disturbance * 2.0) as u64;
        let (_, portion) = load.traffic.portion();
        let memory = Memory { pss: memory, uss: memory - 100.0, peak_rss: memory * 4.0 };
        let after = Memory { pss: memory.pss * 2.0, ..memory };
        let paced = matches!(load.traffic, Traffic::RoundTrips | Traffic::Connects);
        Outcome {
            measured: Measured {
                seconds: 2.0,
                work: if load.traffic == Traffic::Flood { done * 4 / 3 } else { done },
                lost: 0,
                cpu: Cpu { proxy: cpu * done as f64 / portion, client: 1.0, backend: 0.5 },
                p50: paced.then_some(100.0 / speed),
                p99: paced.then_some(1000.0 / speed),
            },
            done,
            memory: (contender != DIRECT).then_some(BeforeAndAfter { before: memory, after }),
        }
    }

    fn full() -> Results {
        let mut results = empty(&[DIRECT, DOCKER_PROXY, NETPROXY]);
        for round in 1..=3 {
            for load in loads::ALL {
                for contender in [DIRECT, DOCKER_PROXY, NETPROXY] {
                    results.cells.push(Cell {
                        load: load.name.to_owned(),
                        contender: contender.to_owned(),
                        round,
                        outcome: Ok(outcome(load, contender, round)),
                    });
                }
            }
            for (contender, pss) in [(DOCKER_PROXY, 1500.0), (NETPROXY, 400.0)] {
                let memory_each = Memory { pss, uss: pss - 50.0, peak_rss: pss * 3.0 };
                results.idle.push(IdleCell {
                    contender: contender.to_owned(),
                    round,
                    outcome: Ok(Idle { processes: 50, memory_each, start_ms: pss / 100.0 }),
                });
            }
        }
        results
    }

    #[test]
    fn a_full_run() {
        check_golden("full.md", &markdown(&full()));
    }

    #[test]
    fn a_run_of_little_that_partly_failed() {
        let mut results = empty(&[DOCKER_PROXY, NETPROXY]);
        let load = loads::find("rr-64").unwrap();
        for round in 1..=2 {
            let outcome = match round {
                1 => Ok(outcome(load, DOCKER_PROXY, round)),
                _ => Err("docker-proxy ended by itself: exit status: 2".to_owned()),
            };
            let (load, contender) = (load.name.to_owned(), DOCKER_PROXY.to_owned());
            results.cells.push(Cell { load, contender, round, outcome });
        }
        check_golden("partial.md", &markdown(&results));
    }

    #[test]
    fn the_json_report_holds_every_round() {
        let results = full();
        let json = serde_json::to_string(&results).unwrap();
        let back: Results = serde_json::from_str(&json).unwrap();
        assert_eq!(back.cells.len(), loads::ALL.len() * 3 * 3);
        assert_eq!(markdown(&back), markdown(&results));
    }
}
