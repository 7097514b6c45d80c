//! What sandboxes and networks cost: starting one, the five-hundredth, a hundred at once, a thousand networks, and the
//! daemon that looks after them; what publishing their ports costs; and what answering their queries for names does.
//!
//! The command line and the report. The daemon under test is in `daemon`, dockerd in `docker`, name servers in `resolvers`,
//! the measurements in `measure`, `ports`, `path`, `names` and `flood`.

mod answer;
mod daemon;
mod docker;
mod flood;
mod measure;
mod names;
mod path;
mod ports;
mod resolvers;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;

use crate::machine::Machine;
use crate::report::markdown_table;
use crate::stats::Summary;
use daemon::Daemon;

/// Measures what portmap's daemon and `portmap run` cost.
///
/// The daemon under test has a network namespace and directories of its own, and all of it goes with this process.
#[derive(Args)]
pub(crate) struct Core {
    /// A coarse answer in under a minute: fewer sandboxes and networks
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART,…", value_parser = PARTS.map(|(name, ..)| name))]
    only: Vec<String>,
    /// Where portmap and netproxy are [default: where this one is]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Where the report goes, as Markdown and as JSON
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    out: PathBuf,
    /// Exit with status 1 when a target is missed
    #[arg(long)]
    check: bool,
}

/// How much of everything.
#[derive(Clone, Copy, Debug, Serialize)]
struct Amounts {
    /// Runs of `true`, each beside one of `unshare`.
    runs: usize,
    /// Sandboxes on one bridge.
    crowd: usize,
    /// How many of the first and of the last of them are compared.
    sample: usize,
    /// Networks.
    networks: usize,
    /// Sandboxes that start at once.
    at_once: usize,
    /// Publications of a kind.
    publishings: usize,
    /// Ports of a host that is full.
    ports: usize,
    /// Turns that dockerd has.
    dockerd: usize,
    /// Turns of each name server.
    turns: usize,
    /// Sandboxes that answer to names on one network; a bridge has 1,023 ports.
    names: usize,
    /// Queries after which memory is looked at.
    queries: u64,
}

/// One figure, and what it had to be.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    unit: &'static str,
    median: f64,
    min: f64,
    max: f64,
    /// None for a figure that explains another.
    at_most: Option<f64>,
    at_least: Option<f64>,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    amounts: Amounts,
    figures: Vec<Figure>,
}

const FULL: Amounts = Amounts {
    runs: 60,
    crowd: 500,
    sample: 25,
    networks: 1000,
    at_once: 100,
    publishings: 15,
    ports: 10_000,
    dockerd: 3,
    turns: 5,
    names: 1000,
    queries: 1_000_000,
};
const QUICK: Amounts = Amounts {
    runs: 15,
    crowd: 60,
    sample: 10,
    networks: 100,
    at_once: 30,
    publishings: 5,
    ports: 1000,
    dockerd: 1,
    turns: 2,
    names: 100,
    queries: 100_000,
};

impl Core {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
        let here = std::env::current_exe().context("can't find this binary's own path")?;
        let beside = here.parent().map(PathBuf::from).unwrap_or_default();
        let bin_dir = self.bin_dir.unwrap_or(beside);
        let bin_dir =
            bin_dir.canonicalize().with_context(|| format!("no directory {}", bin_dir.display()))?;
        let amounts = if self.quick { QUICK } else { FULL };
        let start = Instant::now();
        let figures = measured(&bin_dir, &self.only, amounts)?;
        let report = Report { machine: Machine::describe()?, amounts, figures };
        let text = report.markdown();
        write!(std::io::stdout(), "{text}")?;
        fs::create_dir_all(&self.out)
            .with_context(|| format!("can't make the directory {}", self.out.display()))?;
        let stem = format!("core-{}", report.machine.date.replace([':', ' '], "-"));
        for (kind, content) in [("md", text.into_bytes()), ("json", serde_json::to_vec_pretty(&report)?)] {
            let path = self.out.join(format!("{stem}.{kind}"));
            fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))?;
            writeln!(std::io::stderr(), "written: {}", path.display())?;
        }
        writeln!(std::io::stderr(), "measured in {} s", start.elapsed().as_secs())?;
        let missed = self.check && report.figures.iter().any(|figure| figure.reached() == Some(false));
        Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// A measurement.
enum Part {
    /// With a daemon to itself: what one leaves behind costs no other.
    With(fn(&mut Daemon, Amounts) -> anyhow::Result<Vec<Figure>>),
    /// That starts what it needs of the programs in a directory.
    Apart(fn(&Path, Amounts) -> anyhow::Result<Vec<Figure>>),
}

/// Each with its name, and what it is of.
const PARTS: [(&str, &str, Part); 12] = [
    ("idle", "an idle daemon", Part::With(measure::idle)),
    ("runs", "runs of true", Part::With(measure::runs)),
    ("crowd", "starts on one bridge", Part::With(measure::crowd)),
    ("networks", "networks", Part::With(measure::networks)),
    ("at-once", "starts at once", Part::With(measure::at_once)),
    ("range", "a range of published ports", Part::With(ports::range)),
    ("answer", "the time until a published port answers", Part::With(ports::answer)),
    ("path", "the way to a published port", Part::Apart(path::measure)),
    ("names", "answers to queries for names", Part::Apart(names::beside_others)),
    ("neighbours", "starts on a network where many have names", Part::With(names::neighbours)),
    ("flood", "memory under a flood of queries", Part::With(flood::measure)),
    ("dockerd", "dockerd's ports beside ours", Part::Apart(ports::beside_dockerd)),
];

fn measured(bin_dir: &Path, only: &[String], amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    for (name, what, part) in PARTS.into_iter().filter(|(name, ..)| wanted(name)) {
        writeln!(std::io::stderr(), "measuring {what}")?;
        let measured = match part {
            Part::With(part) => Daemon::start(bin_dir, &[])
                .context("can't start the daemon under test")
                .and_then(|mut daemon| part(&mut daemon, amounts)),
            Part::Apart(part) => part(bin_dir, amounts),
        };
        figures.extend(measured.with_context(|| format!("measuring {name}"))?);
    }
    Ok(figures)
}

impl Figure {
    fn new(what: impl Into<String>, unit: &'static str, values: Summary, at_most: Option<f64>) -> Self {
        let Summary { median, min, max } = values;
        Self { what: what.into(), unit, median, min, max, at_most, at_least: None }
    }

    /// The same, which has to be so much or more.
    fn or_more(self, at_least: f64) -> Self {
        Self { at_least: Some(at_least), ..self }
    }

    fn reached(&self) -> Option<bool> {
        let enough = self.at_least.map(|bound| self.median >= bound);
        self.at_most.map(|bound| self.median <= bound).or(enough)
    }

    /// What it had to be, as the report says it.
    fn aim(&self) -> String {
        let at_most = self.at_most.map(|bound| format!("≤ {bound:.2}"));
        at_most.or_else(|| self.at_least.map(|bound| format!("≥ {bound:.2}"))).unwrap_or_default()
    }
}

impl Report {
    fn markdown(&self) -> String {
        let head = ["", "unit", "median", "min", "max", "aim", "reached"].map(str::to_owned);
        let row = |figure: &Figure| {
            let number = |value: f64| format!("{value:.2}");
            vec![
                figure.what.clone(),
                figure.unit.to_owned(),
                number(figure.median),
                number(figure.min),
                number(figure.max),
                figure.aim(),
                figure.reached().map(|yes| if yes { "yes" } else { "NO" }.to_owned()).unwrap_or_default(),
            ]
        };
        let rows: Vec<Vec<String>> = self.figures.iter().map(row).collect();
        let Machine { date, kernel, cpu, cores, .. } = &self.machine;
        format!(
            "# Sandboxes and networks, {date} UTC\n\n{cores} cores of {cpu}, Linux {kernel}\n\n{}",
            markdown_table(&head, &rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_reached_by_the_median() {
        let figure = |median, at_most| {
            Figure::new("x", "ms", Summary { median, min: 1.0, max: 100.0 }, at_most).reached()
        };
        assert_eq!(figure(40.0, Some(40.0)), Some(true));
        assert_eq!(figure(40.1, Some(40.0)), Some(false));
        assert_eq!(figure(40.1, None), None);
        let rate = Figure::new("x", "1/s", Summary { median: 50.0, min: 1.0, max: 100.0 }, None);
        let rate = rate.or_more(50.0);
        assert_eq!((rate.reached(), rate.aim()), (Some(true), "≥ 50.00".to_owned()));
        assert_eq!(rate.or_more(50.1).reached(), Some(false));
    }
}
