//! docker-proxy's command line: flags, status on fd 3, sockets on fd 4, exit codes; nothing else.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use netproxy::counters::Counters;
use netproxy::engine::{self, Engine, Job};
use netproxy::flags::{self, Command, Refusal, Serve};
use netproxy::status::Status;
use netproxy::{control, limits, listen, log, log_error};
use nix::sys::signal::{SigSet, Signal};

/// docker-proxy's exit status for words it doesn't know.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    match flags::parse(&words, |name| Some(std::env::var_os(name)?.to_string_lossy().into_owned())) {
        Ok(Command::Version) => print(&version(&program)),
        Ok(Command::Help) => print(&flags::help()),
        Ok(Command::Stats(whom)) => match control::read(&whom) {
            Ok(json) => print(&json),
            Err(error) => fail(&error.to_string()),
        },
        Ok(Command::Serve(serve)) => {
            let status = Status::open();
            serve_and_report(*serve, status)
        }
        // Nothing may reach the status pipe here: its end without a byte tells dockerd that versions don't match.
        Err(Refusal::Usage(message)) => {
            let _ = write!(std::io::stderr(), "netproxy: {message}\n{}", flags::help());
            ExitCode::from(BAD_USAGE)
        }
        Err(Refusal::Config(message)) => report(Status::open(), &message),
    }
}

fn serve_and_report(serve: Serve, mut status: Option<Status>) -> ExitCode {
    let by_hand = status.is_none();
    let prepared = prepare(serve);
    let result = prepared.and_then(|(job, engine)| {
        let lines: Vec<String> = if by_hand { introduce(&job) } else { Vec::new() };
        engine
            .run(job, || {
                for line in &lines {
                    let _ = writeln!(std::io::stderr(), "netproxy: {line}");
                }
                if let Some(status) = status.take() {
                    status.ready();
                }
            })
            .context("can't serve")
    });
    match result {
        // Not by returning: worker threads may be in the middle of something, and dockerd waits for the exit.
        Ok(()) => std::process::exit(0),
        Err(error) => report(status, &format!("{error:#}")),
    }
}

fn prepare(mut serve: Serve) -> anyhow::Result<(Job, Engine)> {
    limits::share_the_heap();
    limits::raise_open_files();
    // Whoever started us may have had reasons to block them; without them we couldn't be stopped.
    let _ = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect::<SigSet>().thread_unblock();
    serve.options.threads = limits::affordable_threads(serve.options.threads);
    // The text holds the kernel's reason already, as docker-proxy's does: no chain behind it.
    let listeners = listen::listeners(&serve).map_err(|error| anyhow::anyhow!("{error}"))?;
    limits::check(listeners.len())?;
    listen::check_loop(&serve.mapping).map_err(|error| anyhow::anyhow!("{error}"))?;
    listen::check_sources(&serve.options.source_ips).map_err(|error| anyhow::anyhow!("{error}"))?;
    if let Some(path) = &serve.options.log_file {
        log::to_file(path).with_context(|| format!("can't write the log file {}", path.display()))?;
    }
    let mut control = Vec::new();
    match control::Server::for_this_process() {
        Ok(server) => control.push(server),
        Err(error) => log_error!(Notice, "no counters by process id: {}", listen::reason(&error)),
    }
    if let Some(path) = &serve.options.control_socket {
        let path = control::own_path(path);
        match control::Server::at(&path) {
            Ok(server) => control.push(server),
            Err(error) if serve.options.control_socket_is_a_wish => {
                log_error!(Notice, "no control socket {}: {}", path.display(), listen::reason(&error));
            }
            Err(error) => {
                bail!("can't make the control socket {}: {}", path.display(), listen::reason(&error))
            }
        }
    }
    let engine = engine::choose(&serve).map_err(|error| anyhow::anyhow!("{error}"))?;
    let counters = Arc::new(Counters::new(serve.mapping, engine.name()));
    Ok((Job { serve, listeners, control, counters }, engine))
}

/// What a proxy started by hand says: each socket, or the whole range in a line.
fn introduce(job: &Job) -> Vec<String> {
    match job.listeners.as_slice() {
        [one] => vec![format!("forwarding {} {} -> {}", job.serve.mapping.protocol, one.local, one.target)],
        _ => vec![format!("forwarding {}", job.serve.mapping)],
    }
}

fn version(program: &str) -> String {
    // Scripts that read docker-proxy's version go on working when we stand in its place.
    let name = std::path::Path::new(program).file_name().and_then(|n| n.to_str()).unwrap_or("netproxy");
    let name = if name == "docker-proxy" { name } else { "netproxy" };
    let commit = option_env!("NETPROXY_COMMIT").unwrap_or("unknown");
    format!("{name} (commit {commit}) version {}\n", env!("CARGO_PKG_VERSION"))
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // `netproxy -h | head -1` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn report(status: Option<Status>, message: &str) -> ExitCode {
    match status {
        // Who reads the status passes it on: a second line on stderr would say the same.
        Some(status) => {
            status.failed(message);
            ExitCode::FAILURE
        }
        None => fail(message),
    }
}

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "netproxy: {message}");
    ExitCode::FAILURE
}
