//! The report's sections, in the order of their importance.

use super::table::{figure, median, spread, table, times};
use super::{Verdict, targets};
use crate::contenders::DOCKER_PROXY;
use crate::idle;
use crate::loads::{Load, Protocol, Traffic};
use crate::rounds::{BeforeAndAfter, Outcome, Results};
use crate::stats::{Summary, ratio};
use crate::usage::Memory;

/// The whole report.
pub(crate) fn markdown(results: &Results) -> String {
    let sections = [
        Some(heading(results)),
        throughput(results),
        cpu(results),
        latency(results),
        loss(results),
        memory(results),
        Some(verdicts(&targets(results))),
        failures(results),
    ];
    sections.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn heading(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "# Benchmark of {} UTC\n\n{}, {} cores, Linux {}; MTU {}, {}; bench {}. {} rounds of {} s for each load and \
         contender, interleaved; medians, in brackets the lowest and the highest round.\n\n",
        machine.date,
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.mtu,
        machine.congestion_control,
        machine.bench,
        results.rounds,
        results.seconds,
    );
    for contender in &results.contenders {
        text += &format!("- {}: {}\n", contender.name, contender.version);
    }
    text
}

fn throughput(results: &Results) -> Option<String> {
    let comparisons = results.comparisons();
    let mut head = words(["load", "unit"]);
    head.extend(results.names().map(str::to_owned));
    head.extend(comparisons.iter().map(|(name, of)| format!("{name} ÷ {of}")));
    let row = |load: &'static Load| {
        let mut row = words([load.title, load.traffic.unit()]);
        row.extend(results.names().map(|name| spread(results.rate(load, name))));
        row.extend(
            comparisons
                .iter()
                .map(|(name, of)| times(ratio(results.rate(load, name), results.rate(load, of)))),
        );
        row
    };
    section("Throughput", &head, results.loads().map(row).collect())
}

fn cpu(results: &Results) -> Option<String> {
    let mut head = words(["load", "CPU seconds per"]);
    head.extend(results.proxies().map(str::to_owned));
    let others = with_docker_proxy(results, &mut head);
    let row = |load: &'static Load| {
        let mut row = words([load.title, load.traffic.portion().0]);
        row.extend(results.proxies().map(|name| spread(results.cpu(load, name))));
        let of = results.cpu(load, DOCKER_PROXY);
        row.extend(others.iter().map(|name| times(ratio(results.cpu(load, name), of))));
        row
    };
    section("CPU time of the proxy", &head, results.loads().map(row).collect())
}

fn latency(results: &Results) -> Option<String> {
    let mut head = words(["load"]);
    head.extend(results.names().map(|name| format!("{name} p50 / p99")));
    let timed = |load: &&Load| matches!(load.traffic, Traffic::RoundTrips | Traffic::Connects);
    let row = |load: &'static Load| {
        let mut row = words([load.title]);
        row.extend(results.names().map(|name| {
            let p50 = results.figure(load.name, name, |outcome| outcome.measured.p50);
            let p99 = results.figure(load.name, name, |outcome| outcome.measured.p99);
            format!("{} / {}", median(p50), median(p99))
        }));
        row
    };
    section("Latency, microseconds", &head, results.loads().filter(timed).map(row).collect())
}

fn loss(results: &Results) -> Option<String> {
    let mut head = words(["load"]);
    head.extend(results.names().map(str::to_owned));
    let row = |load: &'static Load| {
        let mut row = words([load.title]);
        let percent = |outcome: &Outcome| lost(load.traffic, outcome).map(|share| share * 100.0);
        row.extend(results.names().map(|name| spread(results.figure(load.name, name, percent))));
        row
    };
    let rows = results.loads().filter(|load| load.protocol == Protocol::Udp).map(row).collect();
    section("Datagrams lost, percent", &head, rows)
}

fn lost(traffic: Traffic, outcome: &Outcome) -> Option<f64> {
    let (sent, lost) = match traffic {
        Traffic::Flood => (outcome.measured.work, outcome.measured.work.saturating_sub(outcome.done)),
        _ => (outcome.measured.work + outcome.measured.lost, outcome.measured.lost),
    };
    (sent > 0).then(|| lost as f64 / sent as f64)
}

/// The two sizes of a row in the table of memory.
struct Sets {
    pss: Option<Summary>,
    uss: Option<Summary>,
}

fn memory(results: &Results) -> Option<String> {
    let mut head = words(["when"]);
    head.extend(results.proxies().map(|name| format!("{name} PSS / USS")));
    let others = with_docker_proxy(results, &mut head);
    let row = |when: String, sets: &dyn Fn(&str) -> Sets| {
        let mut row = vec![when];
        row.extend(
            results.proxies().map(sets).map(|one| format!("{} / {}", median(one.pss), median(one.uss))),
        );
        let of = sets(DOCKER_PROXY).pss;
        row.extend(others.iter().map(|name| times(ratio(sets(name).pss, of))));
        row
    };
    let mut rows = Vec::new();
    if let Some(cell) = results.idle.iter().find_map(|cell| cell.outcome.as_ref().ok()) {
        let sets = |name: &str| Sets {
            pss: results.idle_figure(name, |idle| idle.memory_each.pss),
            uss: results.idle_figure(name, |idle| idle.memory_each.uss),
        };
        rows.push(row(format!("idle, one of {}", cell.processes), &sets));
    }
    for (at, load) in results.loads().enumerate() {
        let sets = |name: &str, when: fn(BeforeAndAfter) -> Memory| Sets {
            pss: results.figure(load.name, name, |outcome| Some(when(outcome.memory?).pss)),
            uss: results.figure(load.name, name, |outcome| Some(when(outcome.memory?).uss)),
        };
        if at == 0 {
            rows.push(row("idle, alone".to_owned(), &|name| sets(name, |memory| memory.before)));
        }
        rows.push(row(format!("after {}", load.title), &|name| sets(name, |memory| memory.after)));
    }
    let mut text = section("Memory of the proxy, KiB", &head, rows)?;
    if !results.idle.is_empty() {
        let each = results
            .proxies()
            .map(|name| format!("{name} {}", median(results.idle_figure(name, |idle| idle.start_ms))));
        text += &format!(
            "\nMilliseconds from starting a proxy until it serves ({}): {}.\n",
            idle::TITLE,
            each.collect::<Vec<_>>().join(", ")
        );
    }
    Some(text)
}

/// Adds a column for every proxy compared with docker-proxy, and says which they are.
fn with_docker_proxy<'a>(results: &'a Results, head: &mut Vec<String>) -> Vec<&'a str> {
    let others: Vec<&str> = results
        .comparisons()
        .into_iter()
        .filter_map(|(name, of)| (of == DOCKER_PROXY).then_some(name))
        .collect();
    head.extend(others.iter().map(|name| format!("{name} ÷ {DOCKER_PROXY}")));
    others
}

fn verdicts(verdicts: &[Verdict]) -> String {
    let row = |verdict: &Verdict| {
        let measured = verdict.measured.map_or_else(|| "–".to_owned(), |ratio| format!("{}×", figure(ratio)));
        vec![verdict.what.clone(), verdict.bound.to_string(), measured, verdict.word().to_owned()]
    };
    let head = words(["netproxy ÷ docker-proxy", "target", "measured", "verdict"]);
    format!("## Targets\n\n{}", table(&head, &verdicts.iter().map(row).collect::<Vec<_>>()))
}

fn failures(results: &Results) -> Option<String> {
    let lines: String = results.failures().map(|failure| format!("- {failure}\n")).collect();
    (!lines.is_empty()).then(|| format!("## Failed measurements\n\n{lines}"))
}

fn section(title: &str, head: &[String], rows: Vec<Vec<String>>) -> Option<String> {
    (!rows.is_empty()).then(|| format!("## {title}\n\n{}", table(head, &rows)))
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}
