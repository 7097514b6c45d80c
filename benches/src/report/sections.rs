//! The report's tables as plain data, in the order of their importance; how they look is up to the formats.

use super::table::{figure, median, spread, times};
use super::{Verdict, targets};
use crate::contenders::{DIRECT, DOCKER_PROXY};
use crate::crowd::Crowd;
use crate::loads::{Load, Protocol, Traffic};
use crate::rounds::{Outcome, Results};
use crate::stats::{Summary, ratio};

/// After these loads a table shows what memory a proxy has kept; the JSON report has it for all.
const MEMORY_AFTER: [&str; 4] = ["bulk-8", "rr-64", "connect", "udp-rr-16"];

pub(super) struct Section {
    pub(super) title: String,
    pub(super) note: Option<String>,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<Cell>>,
}

pub(super) enum Cell {
    Text(String),
    Figure(Option<Summary>),
    /// Against docker-proxy and against the direct path.
    Ratios(Option<f64>, Option<f64>),
}

impl Cell {
    /// Without the spread.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Figure(summary) => median(*summary),
            Self::Ratios(None, None) => "–".to_owned(),
            Self::Ratios(one, other) => format!("{}/{}", times(*one), times(*other)),
        }
    }

    /// The spread, where there is one.
    pub(super) fn spread(&self) -> Option<String> {
        match self {
            Self::Figure(summary) => spread((*summary)?),
            _ => None,
        }
    }
}

/// All tables that there is something for.
pub(super) fn sections(results: &Results) -> Vec<Section> {
    let all = [
        throughput(results),
        ratios(results),
        latency(results, "p50", |outcome| outcome.measured.p50),
        latency(results, "p99", |outcome| outcome.measured.p99),
        cpu(results),
        loss(results),
        memory(results),
        Some(verdicts(&targets(results))),
    ];
    all.into_iter().flatten().collect()
}

/// What was run, where.
pub(super) fn introduction(results: &Results) -> String {
    let machine = &results.machine;
    format!(
        "{}, {} cores, Linux {}; MTU {}, {}; bench {}. Up to {} of {} s for each load and contender, interleaved; \
         medians.",
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.mtu,
        machine.congestion_control,
        machine.bench,
        if results.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", results.rounds) },
        results.seconds,
    )
}

/// Who took part, and who didn't: name and description.
pub(super) fn participants(results: &Results) -> Vec<(String, String)> {
    let there = results.contenders.iter().map(|one| (one.name.clone(), one.version.clone()));
    let left_out = results.left_out.iter().map(|one| (one.name.clone(), format!("left out: {}", one.reason)));
    there.chain(left_out).collect()
}

fn throughput(results: &Results) -> Option<Section> {
    let row = |load: &'static Load| {
        let title = format!("{}, {}", load.title, short_unit(load.traffic));
        cells(title, results.names().map(|name| Cell::Figure(results.rate(load, name))))
    };
    section(results, "Throughput", Who::All, results.loads().map(row).collect())
}

/// Of rates the row's title tells what is counted.
fn short_unit(traffic: Traffic) -> &'static str {
    if traffic.counts_bytes() { "GB/s" } else { "per s" }
}

fn ratios(results: &Results) -> Option<Section> {
    let row = |load: &'static Load| {
        let of = |name, other| ratio(results.rate(load, name), results.rate(load, other));
        let ratios = results.names().map(|name| Cell::Ratios(of(name, DOCKER_PROXY), of(name, DIRECT)));
        cells(load.title.to_owned(), ratios)
    };
    let title = format!("Throughput, times {DOCKER_PROXY}'s/times the direct path's");
    let known = results.names().any(|name| name == DOCKER_PROXY || name == DIRECT);
    let rows = if known { results.loads().map(row).collect() } else { Vec::new() };
    section(results, &title, Who::All, rows)
}

fn latency(
    results: &Results,
    name: &str,
    figure: impl Copy + Fn(&Outcome) -> Option<f64>,
) -> Option<Section> {
    let row = |load: &'static Load| {
        let figures = results.names().map(|name| Cell::Figure(results.figure(load.name, name, figure)));
        cells(latency_title(load), figures)
    };
    let rows = results.loads().filter(|load| load.traffic.has_latency()).map(row).collect();
    section(results, &format!("Latency, {name} in microseconds"), Who::All, rows)
}

/// What the latency of a load is of.
pub(super) fn latency_title(load: &Load) -> String {
    match load.traffic {
        Traffic::Mixed => format!("round trips beside {} uploads", load.parallel),
        _ => load.title.to_owned(),
    }
}

fn cpu(results: &Results) -> Option<Section> {
    let row = |load: &'static Load| {
        let title = format!("{}, per {}", load.title, load.traffic.portion().0);
        cells(title, results.proxies().map(|name| Cell::Figure(results.cpu(load, name))))
    };
    let title = "CPU time of the proxy, seconds";
    section(results, title, Who::Proxies, results.loads().map(row).collect())
}

fn loss(results: &Results) -> Option<Section> {
    let row = |load: &'static Load| {
        cells(load.title.to_owned(), results.names().map(|name| Cell::Figure(results.lost(load, name))))
    };
    let rows = results.loads().filter(|load| load.protocol == Protocol::Udp).map(row).collect();
    section(results, "Datagrams lost, percent", Who::All, rows)
}

fn memory(results: &Results) -> Option<Section> {
    let mut rows = Vec::new();
    if let Some(idle) = results.idle.iter().find_map(|cell| cell.outcome.as_ref().ok()) {
        let mut row = |what: &str, figure: fn(&crate::idle::Idle) -> f64| {
            let title = format!("one of {} idle ports, {what}", idle.ports);
            let figures = results.proxies().map(|name| Cell::Figure(results.idle_figure(name, figure)));
            rows.push(cells(title, figures));
        };
        row("PSS", |idle| idle.memory_each.pss);
        row("USS", |idle| idle.memory_each.uss);
        row("ms to start", |idle| idle.start_ms);
    }
    if let Some(connections) = results.connections() {
        let mut row = |title: String, figure: fn(&Crowd) -> f64| {
            let figures = results.proxies().map(|name| Cell::Figure(results.crowd_figure(name, figure)));
            rows.push(cells(title, figures));
        };
        let count = figure(connections as f64);
        row(format!("one of {count} idle connections, USS"), Crowd::memory_each);
        row("making them, per s".to_owned(), |crowd| crowd.rate);
    }
    for load in results.loads().filter(|load| MEMORY_AFTER.contains(&load.name)) {
        let pss = |outcome: &Outcome| Some(outcome.memory?.after.pss);
        let figures = results.proxies().map(|name| Cell::Figure(results.figure(load.name, name, pss)));
        rows.push(cells(format!("after {}, PSS", load.title), figures));
    }
    let mut section = section(results, "Memory of the proxy, KiB", Who::Proxies, rows)?;
    section.note = memory_note(results);
    Some(section)
}

fn memory_note(results: &Results) -> Option<String> {
    let idle = (!results.idle.is_empty()).then(|| {
        "Of idle ports, haproxy and nginx have all in one process or one set of workers, the others a process for each."
            .to_owned()
    });
    let crowd = results.connections().map(|most| {
        let fewer = results.proxies().filter_map(|name| {
            let own = results.crowd_figure(name, |crowd| crowd.connections as f64)?.max;
            (own < most as f64).then(|| format!("{name} {}", figure(own)))
        });
        let fewer: Vec<String> = fewer.collect();
        let fewer = if fewer.is_empty() {
            String::new()
        } else {
            format!(" Some had fewer, for the limit of open files: {}.", fewer.join(", "))
        };
        format!(
            "Idle connections have had one round trip each; what the proxy had before them is taken off.{fewer}"
        )
    });
    let both: Vec<String> = [idle, crowd].into_iter().flatten().collect();
    (!both.is_empty()).then(|| both.join(" "))
}

fn verdicts(verdicts: &[Verdict]) -> Section {
    let row = |verdict: &Verdict| {
        let words = [verdict.what(), verdict.bound(), verdict.measured(), verdict.word().to_owned()];
        cells(verdict.who.to_owned(), words.map(Cell::Text))
    };
    Section {
        title: "Targets".to_owned(),
        note: None,
        head: ["who", "what", "target", "measured", "verdict"].map(str::to_owned).to_vec(),
        rows: verdicts.iter().map(row).collect(),
    }
}

/// Whose columns a table has.
#[derive(Clone, Copy)]
enum Who {
    All,
    Proxies,
}

/// None without a single figure.
fn section(results: &Results, title: &str, who: Who, rows: Vec<Vec<Cell>>) -> Option<Section> {
    let names: Vec<String> = match who {
        Who::All => results.names().map(str::to_owned).collect(),
        Who::Proxies => results.proxies().map(str::to_owned).collect(),
    };
    let head = [String::new()].into_iter().chain(names).collect();
    (!rows.is_empty()).then(|| Section { title: title.to_owned(), note: None, head, rows })
}

fn cells(title: String, rest: impl IntoIterator<Item = Cell>) -> Vec<Cell> {
    [Cell::Text(title)].into_iter().chain(rest).collect()
}
