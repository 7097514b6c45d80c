//! `portmap exec`: a further command in a running sandbox.
//!
//! It ends with the sandbox. What it leaves behind when it ends itself goes on, as with Docker.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};
use netcore::kernel::PidFd;
use netcore::process::{self, Program, Session, Surroundings};
use serde::Deserialize;

use super::{env_file, run, tell};
use crate::client::{Client, encode};
use crate::supervise::{Attendant, Failure, Signals, environment, live_behind, parse, start_behind};

/// What was typed.
#[derive(clap::Args)]
#[command(override_usage = "portmap exec [OPTIONS] SANDBOX COMMAND [ARG...]")]
pub(crate) struct Args {
    /// Run in the background, without output
    #[arg(short, long)]
    detach: bool,

    /// Set an environment variable; a name alone takes its value from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]", allow_hyphen_values = true)]
    env: Vec<String>,

    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Directory to start in [default: the sandbox's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,

    /// Give the command our stdin
    #[arg(short, long)]
    interactive: bool,

    /// Insist on a terminal, with -i
    #[arg(short, long)]
    tty: bool,

    /// We are in the background
    #[arg(long, hide = true)]
    behind: bool,

    /// A sandbox's name or id
    sandbox: String,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// What there is to know of a sandbox.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Facts {
    id: String,
    state: State,
    config: Config,
    host_config: HostConfig,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    running: bool,
    pid: u32,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    hostname: String,
    domainname: String,
    env: Option<Vec<String>>,
    working_dir: PathBuf,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    links: Option<Vec<String>>,
}

/// Runs it, and exits with what it exits with.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    if args.behind {
        return live_behind(|runs| exec(host, args, runs));
    }
    let outcome = if args.detach { detach(host, args) } else { exec(host, args, || ()) };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            tell::refuse(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Docker's command line says 1 where it couldn't even ask for the command.
fn ours(error: impl std::fmt::Display) -> Failure {
    Failure { code: 1, ..Failure::ours(error) }
}

fn exec(host: Option<&str>, args: &Args, runs: fn()) -> Result<u8, Failure> {
    if args.interactive && args.tty {
        run::need_terminal().map_err(|failure| ours(failure.message))?;
    }
    let env = asked_env(args).map_err(ours)?;
    let mut client = Client::new(host).map_err(ours)?;
    let answer =
        client.call("GET", &format!("/containers/{}/json", encode(&args.sandbox)), None).map_err(ours)?;
    let Facts { id, state, config, host_config } = parse(&answer.body).map_err(ours)?;
    let host = PidFd::open(state.pid).ok().filter(|_| state.running && process::is_apart(state.pid));
    let Some((host, _)) = host else {
        return Err(ours(format_args!("Error response from daemon: container {id} is not running")));
    };
    let links = host_config.links.unwrap_or_default();
    let linked = if links.is_empty() { Vec::new() } else { link_env(&mut client, &id).map_err(ours)? };
    // The daemon isn't needed any more, and needn't stay for us.
    drop(client);
    let own = config.env.unwrap_or_default();
    let asked: Vec<String> = linked.into_iter().chain(own).chain(env).collect();
    let directory = match &args.workdir {
        Some(directory) => directory.clone(),
        None if config.working_dir.as_os_str().is_empty() => "/".into(),
        None => config.working_dir,
    };
    let (session, stdio) = if args.behind {
        (Session::Own, [Stdio::null(), Stdio::null(), Stdio::null()])
    } else {
        let stdin = if args.interactive { Stdio::inherit() } else { Stdio::null() };
        (Session::Shared, [stdin, Stdio::inherit(), Stdio::inherit()])
    };
    let env = environment(env::vars_os(), &config.hostname, &config.domainname, &asked);
    let program = Program {
        command: args.command.iter().map(OsString::from).collect(),
        env: env.into_iter().collect(),
        directory,
        session,
        stdio,
    };
    let signals = Signals::block(session == Session::Shared).map_err(ours)?;
    let mut child = process::spawn(program, &Surroundings::Of(state.pid)).map_err(|error| {
        signals.release();
        let failure = Failure::of_spawn(&error);
        Failure { code: error.exit_code().unwrap_or(1), message: format!("exec failed: {}", failure.message) }
    })?;
    runs();
    Ok(Attendant::new(&mut child, signals, None).not_beyond(host).await_end())
}

/// What its links say by now, which may differ from what its command was told.
fn link_env(client: &mut Client, id: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Linked {
        env: Vec<String>,
    }
    let answer = client.call("GET", &format!("/portmap/sandboxes/{id}/link-env"), None)?;
    Ok(parse::<Linked>(&answer.body)?.env)
}

/// The same in the background.
fn detach(host: Option<&str>, args: &Args) -> Result<u8, Failure> {
    let mut words = vec!["exec".to_owned(), "--behind".to_owned()];
    words.extend(asked_env(args).map_err(ours)?.into_iter().map(|entry| format!("--env={entry}")));
    if let Some(directory) = &args.workdir {
        let directory = directory.to_str().context("the working directory is not UTF-8").map_err(ours)?;
        words.push(format!("--workdir={directory}"));
    }
    words.extend(["--".to_owned(), args.sandbox.clone()]);
    words.extend(args.command.iter().cloned());
    start_behind(host, words).map(|()| 0)
}

fn asked_env(args: &Args) -> Result<Vec<String>> {
    env_file::gather(&args.env_file, &args.env, |name| env::var(name).ok())
}
