//! The bench: how fast netproxy is, and what it costs, beside docker-proxy and beside no proxy at all.
//!
//! The command line and the choice of role. The same binary is the harness, and, behind hidden subcommands, the
//! backend (`serve`) and the client (`drive`) that the harness places in their network namespaces.
#![forbid(unsafe_code)]

mod contenders;
mod drive;
mod idle;
mod launch;
mod loads;
mod machine;
mod namespace;
mod process;
mod report;
mod rounds;
mod serve;
mod stats;
mod topology;
mod usage;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};

use contenders::Binaries;
use rounds::Schedule;

#[derive(Parser)]
#[command(name = "bench", version, args_conflicts_with_subcommands = true)]
/// Compares netproxy with docker-proxy and with a direct path, in interleaved rounds.
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
    /// A coarse answer in under two minutes: fewer and shorter rounds
    #[arg(long)]
    quick: bool,
    /// How often every load meets every contender [default: 5, quick: 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How long one measurement takes [default: 3, quick: 0.8]
    #[arg(long)]
    seconds: Option<f64>,
    /// Only these loads, and `idle` for the memory of waiting proxies (see --list)
    #[arg(long, value_delimiter = ',', value_name = "LOAD,…")]
    only: Vec<String>,
    /// Who takes part
    #[arg(long, value_delimiter = ',', value_name = "NAME,…", default_values = contenders::NAMES)]
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
    /// Where the report goes, as Markdown and as JSON
    #[arg(long, value_name = "DIR", default_value = "bench-results")]
    out: PathBuf,
    /// Exit with status 1 when a target is missed or not measured
    #[arg(long)]
    check: bool,
    /// List the loads and contenders
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Serve(serve::Serve),
    #[command(hide = true)]
    Drive(drive::Drive),
    #[command(hide = true)]
    Launch(launch::Launch),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.role {
        Some(Role::Serve(serve)) => serve.run().map(|()| ExitCode::SUCCESS),
        Some(Role::Drive(drive)) => drive.run().map(|()| ExitCode::SUCCESS),
        Some(Role::Launch(launch)) => launch.run().map(|()| ExitCode::SUCCESS),
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
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces need root: run as root, or in `unshare --user --map-root-user`"
    );
    process::raise_open_files().context("can't raise the limit of open files")?;
    let schedule = schedule(options)?;
    let contenders = contenders::choose(&options.contenders, &binaries(options)?)?;
    fs::create_dir_all(&options.out)
        .with_context(|| format!("can't make the directory {}", options.out.display()))?;
    // What doesn't work here works in no round.
    topology::Topology::new().context("can't make the network to measure in")?;

    let results = rounds::run(&schedule, &contenders)?;
    let text = report::markdown(&results);
    print(&text)?;
    let stem = results.machine.date.replace([':', ' '], "-");
    let markdown = options.out.join(format!("{stem}.md"));
    let json = options.out.join(format!("{stem}.json"));
    fs::write(&markdown, &text).with_context(|| format!("can't write {}", markdown.display()))?;
    fs::write(&json, serde_json::to_vec_pretty(&results)?)
        .with_context(|| format!("can't write {}", json.display()))?;
    writeln!(std::io::stderr(), "written: {} and {}", markdown.display(), json.display())?;

    let failed = results.failures().count() > 0;
    let missed = options.check && !report::targets(&results).iter().all(report::Verdict::reached);
    Ok(if failed || missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn schedule(options: &Options) -> anyhow::Result<Schedule> {
    let (rounds, seconds, warm_up) = if options.quick { (3, 0.8, 0.2) } else { (5, 3.0, 0.4) };
    let seconds = options.seconds.unwrap_or(seconds);
    ensure!(seconds > 0.0 && seconds <= 3600.0, "--seconds must be above 0 and at most 3600, not {seconds}");
    let only = &options.only;
    if let Some(name) = only.iter().find(|name| *name != idle::NAME && loads::find(name).is_none()) {
        bail!("there is no load {name:?}: `bench --list` shows them");
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    Ok(Schedule {
        rounds: options.rounds.unwrap_or(rounds),
        measure: Duration::from_secs_f64(seconds),
        warm_up: Duration::from_secs_f64(warm_up),
        loads: loads::ALL.iter().filter(|load| wanted(load.name)).collect(),
        idle: wanted(idle::NAME),
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
    for (name, title) in loads.chain([(idle::NAME, idle::TITLE)]) {
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
