//! The bench: how fast netproxy is, and what it costs, beside docker-proxy, other proxies, and no proxy at all.
//!
//! The command line and the choice of role. The same binary is the harness, and, behind hidden subcommands, the
//! backend (`serve`), the clients (`drive`, `hold`, `ask`), one contender (`relay`) and one name server (`answer`) that the
//! harness places in their network namespaces.
#![forbid(unsafe_code)]

mod ask;
mod contenders;
mod core;
mod crowd;
mod drive;
#[cfg(test)]
mod golden;
mod idle;
mod launch;
mod line_up;
mod loads;
mod machine;
mod namespace;
mod process;
mod relay;
mod report;
mod rounds;
mod serve;
mod stats;
mod topology;
mod usage;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};

use contenders::Binaries;
use loads::{Load, Weight};
use rounds::{Results, Schedule};

#[derive(Parser)]
#[command(name = "bench", version, args_conflicts_with_subcommands = true)]
/// Compares netproxy with docker-proxy, other proxies and the direct path, in interleaved rounds.
///
/// Everything runs in network namespaces that live as long as this process does. Needs root, its own or that of
/// `unshare --user --map-root-user`.
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Args)]
struct Options {
    /// A coarse answer in three minutes: fewer and shorter rounds of the main loads
    #[arg(long)]
    quick: bool,
    /// How often every load meets every contender [default: 5, quick: 2; details and waiting: 3, quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How long one measurement takes [default: 1, quick: 0.3]
    #[arg(long)]
    seconds: Option<f64>,
    /// Only these loads, and `idle` or `conns` for the memory of waiting proxies or connections (see --list)
    #[arg(long, value_delimiter = ',', value_name = "LOAD,…")]
    only: Vec<String>,
    /// Who takes part [default: all that work here, with netproxy's two engines]
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    contenders: Vec<String>,
    /// docker-proxy's binary [default: where Docker's packages put it]
    #[arg(long, value_name = "PATH")]
    docker_proxy: Option<PathBuf>,
    /// netproxy's binary [default: in --bin-dir]
    #[arg(long, value_name = "PATH")]
    netproxy: Option<PathBuf>,
    /// Where the workspace's binaries are [default: where this one is]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Where the report goes: as HTML with plots, as Markdown, and as JSON with every single figure
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    out: PathBuf,
    /// Measure nothing, report an earlier run's JSON again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "rounds", "seconds", "only", "contenders"])]
    from: Option<PathBuf>,
    /// Exit with status 1 when a target is missed or not measured
    #[arg(long)]
    check: bool,
    /// List the loads and contenders
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand)]
enum Role {
    Core(core::Core),
    #[command(hide = true)]
    Answer(ask::Answer),
    #[command(hide = true)]
    Ask(ask::Ask),
    #[command(hide = true)]
    Serve(serve::Serve),
    #[command(hide = true)]
    Drive(drive::Drive),
    #[command(hide = true)]
    Launch(launch::Launch),
    #[command(hide = true)]
    Hold(crowd::Hold),
    #[command(hide = true)]
    Relay(relay::Relay),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.role {
        Some(Role::Core(core)) => core.run(),
        Some(Role::Answer(answer)) => answer.run().map(|()| ExitCode::SUCCESS),
        Some(Role::Ask(ask)) => ask.run().map(|()| ExitCode::SUCCESS),
        Some(Role::Serve(serve)) => serve.run().map(|()| ExitCode::SUCCESS),
        Some(Role::Drive(drive)) => drive.run().map(|()| ExitCode::SUCCESS),
        Some(Role::Launch(launch)) => launch.run().map(|()| ExitCode::SUCCESS),
        Some(Role::Hold(hold)) => hold.run().map(|()| ExitCode::SUCCESS),
        Some(Role::Relay(relay)) => relay.run().map(|()| ExitCode::SUCCESS),
        None => compare(&cli.options),
    };
    done.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "bench: {error:#}");
        ExitCode::from(2)
    })
}

fn compare(options: &Options) -> anyhow::Result<ExitCode> {
    if options.list {
        return print(&list()).map(|()| ExitCode::SUCCESS);
    }
    let results = match &options.from {
        Some(path) => earlier(path)?,
        None => measured(options)?,
    };
    print(&report::terminal(&results))?;
    write_reports(&options.out, &results)?;
    let failed = results.failures().count() > 0;
    let missed = options.check && !report::targets(&results).iter().all(report::Verdict::reached);
    Ok(if failed || missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn measured(options: &Options) -> anyhow::Result<Results> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces need root: run as root, or in `unshare --user --map-root-user`"
    );
    process::raise_open_files().context("can't raise the limit of open files")?;
    let schedule = schedule(options)?;
    // What doesn't work here works in no round, and needn't be blamed on anybody.
    topology::Topology::new().context("can't make the network to measure in")?;
    let start = Instant::now();
    let line_up = line_up::line_up(&options.contenders, &binaries(options)?)?;
    let results = rounds::run(&schedule, line_up)?;
    writeln!(std::io::stderr(), "measured in {} s", start.elapsed().as_secs())?;
    Ok(results)
}

fn earlier(path: &Path) -> anyhow::Result<Results> {
    let json = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    serde_json::from_slice(&json)
        .with_context(|| format!("{} is no report of this version's", path.display()))
}

fn write_reports(out: &Path, results: &Results) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("can't make the directory {}", out.display()))?;
    let stem = results.machine.date.replace([':', ' '], "-");
    let reports = [
        ("html", report::html(results).into_bytes()),
        ("md", report::markdown(results).into_bytes()),
        ("json", serde_json::to_vec_pretty(results)?),
    ];
    for (kind, content) in reports {
        let path = out.join(format!("{stem}.{kind}"));
        fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))?;
        writeln!(std::io::stderr(), "written: {}", path.display())?;
    }
    Ok(())
}

fn schedule(options: &Options) -> anyhow::Result<Schedule> {
    let quick = options.quick;
    let (rounds, seconds, warm_up) = if quick { (2, 0.3, 0.1) } else { (5, 1.0, 0.2) };
    let seconds = options.seconds.unwrap_or(seconds);
    ensure!(seconds > 0.0 && seconds <= 3600.0, "--seconds must be above 0 and at most 3600, not {seconds}");
    let only = &options.only;
    let known = |name: &str| [idle::NAME, crowd::NAME].contains(&name) || loads::find(name).is_some();
    if let Some(name) = only.iter().find(|name| !known(name)) {
        bail!("there is no load {name:?}: `bench --list` shows them");
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    // What was asked for by name is no detail.
    let left_out = |load: &Load| quick && only.is_empty() && load.weight == Weight::Detail;
    let rounds = options.rounds.unwrap_or(rounds);
    let fewer = if quick { 1 } else { 3 };
    Ok(Schedule {
        rounds,
        detail_rounds: if only.is_empty() { rounds.min(fewer) } else { rounds },
        waiting_rounds: rounds.min(fewer),
        measure: Duration::from_secs_f64(seconds),
        warm_up: Duration::from_secs_f64(warm_up),
        loads: loads::ALL.iter().filter(|load| wanted(load.name) && !left_out(load)).collect(),
        idle: wanted(idle::NAME),
        crowd: wanted(crowd::NAME),
    })
}

fn binaries(options: &Options) -> anyhow::Result<Binaries> {
    let here = std::env::current_exe().context("can't find this binary's own path")?;
    let beside = here.parent().map(PathBuf::from).unwrap_or_default();
    let bin_dir = options.bin_dir.clone().unwrap_or(beside);
    Ok(Binaries {
        docker_proxy: options.docker_proxy.clone(),
        netproxy: options.netproxy.clone().unwrap_or_else(|| bin_dir.join("netproxy")),
    })
}

fn list() -> String {
    let loads = loads::ALL.iter().map(|load| (load.name, load.title));
    let mut text = String::from("loads:\n");
    for (name, title) in loads.chain([(idle::NAME, idle::TITLE), (crowd::NAME, crowd::TITLE)]) {
        text += &format!("  {name:<10} {title}\n");
    }
    text + &format!("contenders: {}\n", contenders::NAMES.join(", "))
}

/// A reader that went away (`bench --list | head -1`) ends the output, not the program.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
