//! The report as one HTML file that needs nothing else: plots first, then the tables with the spread of all rounds.

use super::charts::{Bar, Line, Range, bars, escape, lines, ranges};
use super::sections::{Cell, Section, introduction, latency_title, participants, sections};
use super::table::figure;
use crate::contenders::DOCKER_PROXY;
use crate::crowd::Crowd;
use crate::loads::{Load, Traffic};
use crate::rounds::Results;
use crate::stats::{Summary, ratio};

const STYLE: &str = include_str!("style.css");

pub(crate) fn html(results: &Results) -> String {
    let plots = [
        ("Throughput", throughput(results), "More is better. Whiskers: lowest and highest round."),
        ("Latency", latency(results), "Further left is better; a short line means that it varies little."),
        ("Message sizes", sizes(results), "Round trips with messages of different sizes on 4 connections."),
        ("CPU time of the proxy", cpu(results), "Less is better."),
        ("Memory of the proxy", memory(results), "Less is better."),
    ];
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Benchmark of {date} UTC</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Benchmark of {date} UTC</h1>\n<p>{}</p>\n",
        escape(&introduction(results)),
        date = escape(&results.machine.date),
    );
    page += "<ul>\n";
    for (name, description) in participants(results) {
        page += &format!("<li><b>{}</b>: {}</li>\n", escape(&name), escape(&description));
    }
    page += "</ul>\n";
    for (title, plots, note) in plots {
        if !plots.is_empty() {
            let line = if title == "Throughput" || title.starts_with("CPU") || title.starts_with("Memory") {
                "The dashed line is docker-proxy."
            } else {
                ""
            };
            page += &format!("<h2>{title}</h2>\n<p>{note} {line}</p>\n<div class=\"plots\">\n");
            page += &plots.concat();
            page += "</div>\n";
        }
    }
    page += "<h1>Tables</h1>\n<p>Medians, below them the lowest and the highest round.</p>\n";
    page += &sections(results).iter().map(table).collect::<String>();
    let failures: String =
        results.failures().map(|failure| format!("<li>{}</li>\n", escape(&failure))).collect();
    if !failures.is_empty() {
        page += &format!("<h2>Failed measurements</h2>\n<ul>\n{failures}</ul>\n");
    }
    page + "</body>\n</html>\n"
}

fn throughput(results: &Results) -> Vec<String> {
    let plot = |load: &'static Load| {
        let value = |name: &str| results.rate(load, name);
        bars(load.title, load.traffic.unit(), &rows(results.names(), value))
    };
    results.loads().filter(|load| load.traffic != Traffic::Echoes).map(plot).collect()
}

fn cpu(results: &Results) -> Vec<String> {
    let plot = |load: &'static Load| {
        let unit = format!("CPU seconds per {}", load.traffic.portion().0);
        bars(load.title, &unit, &rows(results.proxies(), |name| results.cpu(load, name)))
    };
    results.loads().filter(|load| load.traffic != Traffic::Echoes).map(plot).collect()
}

fn latency(results: &Results) -> Vec<String> {
    let plot = |load: &'static Load| {
        let range = |name| {
            let p50 = results.figure(load.name, name, |outcome| outcome.measured.p50);
            let p99 = results.figure(load.name, name, |outcome| outcome.measured.p99);
            Range { name, ends: p50.zip(p99).map(|(p50, p99)| (p50.median, p99.median)) }
        };
        let rows: Vec<Range<'_>> = results.names().map(range).filter(|range| range.ends.is_some()).collect();
        ranges(&latency_title(load), &rows)
    };
    let timed = |load: &&Load| load.traffic.has_latency() && load.traffic != Traffic::Echoes;
    results.loads().filter(timed).map(plot).collect()
}

/// All sizes in one plot, as multiples of docker-proxy: rates from one byte to a mebibyte have no common scale.
fn sizes(results: &Results) -> Vec<String> {
    let loads: Vec<&Load> = results.loads().filter(|load| load.traffic == Traffic::Echoes).collect();
    let line = |name| {
        let times = |load: &&Load| ratio(results.rate(load, name), results.rate(load, DOCKER_PROXY));
        Line { name, points: loads.iter().map(times).collect() }
    };
    let all: Vec<Line<'_>> =
        results.names().map(line).filter(|line| line.points.iter().any(Option::is_some)).collect();
    let columns: Vec<&str> = loads.iter().map(|load| load.title.trim_start_matches("echoes of ")).collect();
    if all.is_empty() {
        Vec::new()
    } else {
        vec![lines("Round trips", "times docker-proxy's", &columns, &all)]
    }
}

fn memory(results: &Results) -> Vec<String> {
    let mut plots = Vec::new();
    if let Some(idle) = results.idle.iter().find_map(|cell| cell.outcome.as_ref().ok()) {
        let pss = |name: &str| results.idle_figure(name, |idle| idle.memory_each.pss);
        let title = format!("One of {} idle ports, PSS", idle.ports);
        plots.push(bars(&title, "KiB", &rows(results.proxies(), pss)));
        let start = |name: &str| results.idle_figure(name, |idle| idle.start_ms);
        plots.push(bars("Starting one of them", "ms", &rows(results.proxies(), start)));
    }
    if let Some(connections) = results.connections() {
        let each = |name: &str| results.crowd_figure(name, Crowd::memory_each);
        let title = format!("One of {} idle connections, USS", figure(connections as f64));
        plots.push(bars(&title, "KiB", &rows(results.proxies(), each)));
    }
    plots
}

/// Those without a value are left out: the tables show who they are.
fn rows<'a>(names: impl Iterator<Item = &'a str>, value: impl Fn(&str) -> Option<Summary>) -> Vec<Bar<'a>> {
    names.map(|name| Bar { name, value: value(name) }).filter(|bar| bar.value.is_some()).collect()
}

fn table(section: &Section) -> String {
    let head: String = section.head.iter().map(|name| format!("<th>{}</th>", escape(name))).collect();
    let row = |row: &Vec<Cell>| format!("<tr>{}</tr>\n", row.iter().map(cell).collect::<String>());
    let rows: String = section.rows.iter().map(row).collect();
    let note = section.note.as_ref().map_or_else(String::new, |note| format!("<p>{}</p>\n", escape(note)));
    format!(
        "<h2>{}</h2>\n<div class=\"wide\"><table>\n<tr>{head}</tr>\n{rows}</table></div>\n{note}",
        escape(&section.title)
    )
}

fn cell(cell: &Cell) -> String {
    let text = cell.brief();
    let class =
        if matches!(&*text, "reached" | "missed") { format!(" class=\"{text}\"") } else { String::new() };
    let spread = cell.spread().map_or_else(String::new, |spread| format!("<small>{spread}</small>"));
    format!("<td{class}>{}{spread}</td>", escape(&text))
}
