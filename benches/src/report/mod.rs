//! What a run is reported as: HTML with plots and Markdown for people; the JSON report is `Results` itself. Everything
//! here is pure.

mod charts;
mod html;
mod markdown;
mod sections;
mod table;
mod targets;

use crate::contenders::KERNEL;
use crate::crowd::Crowd;
use crate::idle::Idle;
use crate::loads::{self, Load, Traffic};
use crate::rounds::{Outcome, Results, WaitingCell, rate};
use crate::stats::Summary;

pub(crate) use html::html;
pub(crate) use markdown::{markdown, terminal};
pub(crate) use table::table as markdown_table;
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
        self.names().filter(|name| !KERNEL.contains(name))
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

    /// Percent of the datagrams sent; none for TCP.
    fn lost(&self, load: &Load, contender: &str) -> Option<Summary> {
        self.figure(load.name, contender, |outcome| {
            let (sent, lost) = match load.traffic {
                _ if load.protocol == loads::Protocol::Tcp => return None,
                Traffic::Flood => (outcome.measured.work, outcome.measured.work.saturating_sub(outcome.done)),
                _ => (outcome.measured.work + outcome.measured.lost, outcome.measured.lost),
            };
            (sent > 0).then(|| lost as f64 / sent as f64 * 100.0)
        })
    }

    fn idle_figure(&self, contender: &str, figure: impl Fn(&Idle) -> f64) -> Option<Summary> {
        waiting(&self.idle, contender, figure)
    }

    /// How many idle connections there were at a time; some contenders may have had fewer.
    fn connections(&self) -> Option<usize> {
        self.crowd.iter().filter_map(|cell| Some(cell.outcome.as_ref().ok()?.connections)).max()
    }

    fn crowd_figure(&self, contender: &str, figure: impl Fn(&Crowd) -> f64) -> Option<Summary> {
        waiting(&self.crowd, contender, figure)
    }
}

fn waiting<T>(cells: &[WaitingCell<T>], contender: &str, figure: impl Fn(&T) -> f64) -> Option<Summary> {
    let cells = cells.iter().filter(|cell| cell.contender == contender);
    Summary::of(cells.filter_map(|cell| Some(figure(cell.outcome.as_ref().ok()?))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenders::{DIRECT, DNAT, DOCKER_PROXY, HAPROXY, PORTABLE, URING};
    use crate::drive::{Cpu, Measured};
    use crate::golden::check_golden;
    use crate::line_up::LeftOut;
    use crate::machine::Machine;
    use crate::rounds::{BeforeAndAfter, Cell, Participant};
    use crate::usage::Memory;

    const EVERYBODY: [&str; 6] = [DIRECT, DNAT, DOCKER_PROXY, HAPROXY, PORTABLE, URING];

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
            left_out: Vec::new(),
            cells: Vec::new(),
            idle: Vec::new(),
            crowd: Vec::new(),
        }
    }

    /// Made-up figures: the io_uring engine moves 1.8 times what docker-proxy does at 0.5 times its CPU and a quarter
    /// of its memory, except that downloads are only as fast; the portable engine a bit less.
    fn outcome(load: &Load, contender: &str, round: u32) -> Outcome {
        let speed = match contender {
            DIRECT => 4.0,
            DNAT => 3.8,
            HAPROXY => 1.2,
            URING if load.name != "bulk-down" => 3.6,
            PORTABLE => 2.6,
            _ => 2.0,
        };
        let (cpu, memory) = match contender {
            URING => (0.5, 500.0),
            PORTABLE => (0.7, 600.0),
            _ => (1.0, 2000.0),
        };
        let scale = if load.traffic.counts_bytes() { 1e9 } else { 1e5 };
        let disturbance = f64::from(round) * 0.1 + 0.8;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures made up to fit")]
        let done = (speed * scale * disturbance * 2.0) as u64;
        let (_, portion) = load.traffic.portion();
        let memory = Memory { pss: memory, uss: memory - 100.0, peak_rss: memory * 4.0 };
        let after = Memory { pss: memory.pss * 2.0, ..memory };
        Outcome {
            measured: Measured {
                seconds: 2.0,
                work: if load.traffic == Traffic::Flood { done * 4 / 3 } else { done },
                lost: if load.traffic == Traffic::Bursts && contender == DOCKER_PROXY { done / 9 } else { 0 },
                cpu: Cpu { proxy: cpu * done as f64 / portion, client: 1.0, backend: 0.5 },
                p50: load.traffic.has_latency().then_some(100.0 / speed),
                p99: load.traffic.has_latency().then_some(1000.0 / speed),
            },
            done,
            memory: (!KERNEL.contains(&contender)).then_some(BeforeAndAfter { before: memory, after }),
        }
    }

    fn waiting_cell<T>(contender: &str, round: u32, outcome: T) -> WaitingCell<T> {
        WaitingCell { contender: contender.to_owned(), round, outcome: Ok(outcome) }
    }

    fn full() -> Results {
        let mut results = empty(&EVERYBODY);
        for round in 1..=3 {
            for load in loads::ALL {
                for contender in EVERYBODY {
                    if contender == HAPROXY && load.protocol == loads::Protocol::Udp {
                        continue;
                    }
                    results.cells.push(Cell {
                        load: load.name.to_owned(),
                        contender: contender.to_owned(),
                        round,
                        outcome: Ok(outcome(load, contender, round)),
                    });
                }
            }
            for (contender, pss) in
                [(DOCKER_PROXY, 1500.0), (HAPROXY, 40.0), (PORTABLE, 400.0), (URING, 120.0)]
            {
                let before = Memory { pss, uss: pss - 30.0, peak_rss: pss * 3.0 };
                let idle = Idle { ports: 400, memory_each: before, start_ms: pss / 100.0 };
                results.idle.push(waiting_cell(contender, round, idle));
                let during = Memory { uss: pss * 100.0, ..before };
                let connections = if contender == DOCKER_PROXY { 3000 } else { 10_000 };
                let crowd = Crowd { connections, before, during, rate: 5000.0 };
                results.crowd.push(waiting_cell(contender, round, crowd));
            }
        }
        let reason = "there is no nginx: install it".to_owned();
        results.left_out.push(LeftOut { name: "nginx".to_owned(), reason });
        results
    }

    #[test]
    fn a_full_run() {
        check_golden("full.md", &markdown(&full()));
        check_golden("full.txt", &terminal(&full()));
    }

    #[test]
    fn a_run_of_little_that_partly_failed() {
        let mut results = empty(&[DOCKER_PROXY, URING]);
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
        check_golden("partial.html", &html(&results));
    }

    #[test]
    fn the_json_report_holds_every_round() {
        let results = full();
        let json = serde_json::to_string(&results).unwrap();
        let back: Results = serde_json::from_str(&json).unwrap();
        assert_eq!(back.cells.len(), results.cells.len());
        assert_eq!(markdown(&back), markdown(&results));
    }
}
