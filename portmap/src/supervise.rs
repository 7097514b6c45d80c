//! The parent of a sandbox's command: asks the daemon for the sandbox, starts the command in it, passes signals on, and
//! reports the end.
//!
//! The daemon learns of four things: that we are about to start (it makes the network, and watches us from then on), the
//! command's number, its end, and, if we vanish, that too. In between it isn't needed: it may end and come back. A sandbox
//! ends with its command: what the command leaves behind is killed.
//!
//! Not here: how a child gets into a sandbox (`netcore::process`), and what a sandbox is (the daemon).

mod attend;
mod detached;
mod environment;
mod log;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow};
use netcore::process::{
    self, Files, Leftovers, Mounts, Program, Session, SpawnError, Surroundings, Terminal,
};
use nix::sys::prctl::set_child_subreaper;
use serde::Deserialize;
use serde_json::json;

use crate::cli::tell;
use crate::client::{CallError, Client, encode};

pub(crate) use attend::{Attendant, Signals};
pub(crate) use detached::{Args, live_behind, run, start_behind, start_detached};
pub(crate) use environment::environment;
use log::Log;

/// What `docker run` exits with when Docker itself fails, not the command it runs.
pub(crate) const OUR_OWN_FAILURE: u8 = 125;
/// What a sandbox is said to have exited with whose command couldn't be started, through no fault of the command.
const NEVER_RAN: u8 = 128;

/// What the sandbox's own is laid over.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A command that wasn't started.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What to exit with.
    pub(crate) code: u8,
    /// Why.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn ours(why: impl std::fmt::Display) -> Self {
        Self { code: OUR_OWN_FAILURE, message: format!("{why:#}") }
    }

    pub(crate) fn of_spawn(error: &SpawnError) -> Self {
        Self { code: error.exit_code().unwrap_or(OUR_OWN_FAILURE), message: error.to_string() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::ours(error)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::ours(error)
    }
}

/// Where a command's input comes from and its output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Ours, in our session and on our terminal.
    Foreground {
        /// Or nothing comes in.
        stdin: bool,
    },
    /// Nothing comes in, and what goes out is kept in the sandbox's log.
    Detached {
        /// Nothing comes in, but there is no end to it either.
        stdin_open: bool,
    },
}

/// What the daemon says about a sandbox it has made ready.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ready {
    id: String,
    netns: PathBuf,
    hostname: String,
    domainname: String,
    hosts_path: PathBuf,
    hostname_path: PathBuf,
    resolv_conf_path: PathBuf,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: PathBuf,
    tty: bool,
    log_path: PathBuf,
    share_mounts_of: u32,
}

impl Ready {
    fn surroundings(&self) -> Surroundings {
        let set = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        let netns = set(&self.netns);
        match self.share_mounts_of {
            0 => Surroundings::Own {
                netns,
                hostname: self.hostname.clone(),
                domainname: self.domainname.clone(),
                files: Files {
                    hosts: set(&self.hosts_path),
                    hostname: set(&self.hostname_path),
                    resolv_conf: set(&self.resolv_conf_path),
                },
            },
            with => Surroundings::Shared { netns, with },
        }
    }

    /// Whether the sandbox has a resolv.conf that can't be laid anywhere.
    fn lacks_resolv_conf(&self) -> bool {
        !self.resolv_conf_path.as_os_str().is_empty() && !Path::new(RESOLV_CONF).exists()
    }

    fn program(&self, session: Session, stdio: [Stdio; 3]) -> Result<Program> {
        let directory = if self.working_dir.as_os_str().is_empty() {
            env::current_dir().context("cannot tell the current directory")?
        } else {
            self.working_dir.clone()
        };
        let mut env = environment(env::vars_os(), &self.hostname, &self.domainname, &self.env);
        if session == Session::OwnWithTerminal {
            env.entry("TERM".into()).or_insert_with(|| "xterm".into());
        }
        let command = self.cmd.iter().map(OsString::from).collect();
        Ok(Program { command, env: env.into_iter().collect(), directory, session, stdio })
    }
}

/// Starts a sandbox's command, attends it to its end and gives its exit code. `started` is called as soon as it runs.
///
/// # Errors
/// If the command wasn't started.
pub(crate) fn supervise(
    host: Option<&str>,
    client: &mut Client,
    reference: &str,
    seat: Seat,
    started: impl FnOnce(),
) -> Result<u8, Failure> {
    // The daemon needs longer.
    let mounts = Mounts::prepare();
    let path = format!("/portmap/sandboxes/{}/start", encode(reference));
    let answer = client.call("POST", &path, Some(&json!({"Pid": std::process::id()})))?;
    if answer.status == 304 {
        return Err(Failure::ours(format!(
            "{reference} is already running (portmap logs -f {reference} shows its output)"
        )));
    }
    let ready: Ready = serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::ours(format!("unexpected answer from the daemon: {error}")))?;
    if ready.lacks_resolv_conf() {
        tell::complain(&format!(
            "this host has no {RESOLV_CONF} to lay the sandbox's over: names won't resolve in it until there is one"
        ));
    }
    let path = |what: &str| format!("/portmap/sandboxes/{}/{what}", ready.id);
    let outcome = start(&ready, seat, mounts);
    let (mut attendant, leftovers) = match outcome {
        Ok(running) => running,
        Err(failure) => {
            // Only what is the command's fault is its exit code; the rest is Docker's number for a failed start.
            let code = if failure.code == OUR_OWN_FAILURE { NEVER_RAN } else { failure.code };
            report_end(host, client, &path("exited"), code, &failure.message);
            return Err(failure);
        }
    };
    // The command isn't waited for before this, so that its number is still its own.
    report_start(host, client, &path("started"), &attendant);
    started();
    let code = attendant.await_end();
    attendant.clear_away(&leftovers);
    // If the daemon doesn't answer, one may lose patience: it will notice by itself that we are gone.
    attendant.release_signals();
    // What the client may start now is no leftover of the command's.
    let _ = set_child_subreaper(false);
    report_end(host, client, &path("exited"), code, "");
    Ok(code)
}

fn start(ready: &Ready, seat: Seat, mounts: Mounts) -> Result<(Attendant, Leftovers), Failure> {
    let (session, stdio, mut log) = match seat {
        Seat::Foreground { stdin } => {
            let stdin = if stdin { Stdio::inherit() } else { Stdio::null() };
            (Session::Shared, [stdin, Stdio::inherit(), Stdio::inherit()], None)
        }
        Seat::Detached { stdin_open } => detached_stdio(ready, stdin_open)?,
    };
    let program = ready.program(session, stdio)?;
    let surroundings = ready.surroundings();
    // Orphans come to us instead of to init.
    set_child_subreaper(true).context("cannot become a subreaper")?;
    let signals = Signals::block(session == Session::Shared)?;
    let mut child = match process::spawn_in(program, &surroundings, Some(mounts)) {
        Ok(child) => child,
        Err(error) => {
            signals.release();
            return Err(Failure::of_spawn(&error));
        }
    };
    if let Some(log) = &mut log {
        log.read_from(&mut child).context("cannot read the command's output")?;
    }
    let leftovers = Leftovers::of(child.id());
    Ok((Attendant::new(&mut child, signals, log), leftovers))
}

fn detached_stdio(ready: &Ready, stdin_open: bool) -> Result<(Session, [Stdio; 3], Option<Log>), Failure> {
    let mut log = Log::open(&ready.log_path)
        .with_context(|| format!("cannot open the log {}", ready.log_path.display()))?;
    if ready.tty {
        let terminal = Terminal::open().and_then(Terminal::into_parts).context("cannot make a terminal")?;
        log.read_terminal(terminal.1).context("cannot read the terminal")?;
        return Ok((Session::OwnWithTerminal, terminal.0, Some(log)));
    }
    let stdin = if stdin_open { Stdio::piped() } else { Stdio::null() };
    Ok((Session::Own, [stdin, Stdio::piped(), Stdio::piped()], Some(log)))
}

/// Tells the daemon which process the command is. One that has ended meanwhile is no longer of interest to it.
fn report_start(host: Option<&str>, client: &mut Client, path: &str, attendant: &Attendant) {
    if attendant.has_ended() {
        return;
    }
    match tell(host, client, path, &json!({"Pid": attendant.pid()})) {
        Err(error) if !attendant.has_ended() => complain(&error),
        _ => {}
    }
}

/// Tells the daemon what became of a sandbox. It may have been removed by force meanwhile.
fn report_end(host: Option<&str>, client: &mut Client, path: &str, code: u8, why: &str) {
    let body = json!({"Pid": std::process::id(), "ExitCode": code, "Error": why});
    match tell(host, client, path, &body) {
        Ok(()) | Err(CallError::Daemon { status: 404, .. }) => {}
        Err(error) => complain(&error),
    }
}

fn complain(error: &CallError) {
    tell::complain(&format!("cannot tell the daemon: {error:#}"));
}

/// Tells the daemon something that can't be helped any more. One that was killed has lost the connection: it is reached, or
/// started, again. Being told twice is no harm to it.
fn tell(
    host: Option<&str>,
    client: &mut Client,
    path: &str,
    body: &serde_json::Value,
) -> Result<(), CallError> {
    const TRIES: usize = 4;
    let mut outcome = client.call("POST", path, Some(body));
    for _ in 1..TRIES {
        if !matches!(outcome, Err(CallError::Other(_))) {
            break;
        }
        if let Ok(again) = Client::new(host) {
            *client = again;
        }
        outcome = client.call("POST", path, Some(body));
    }
    outcome.map(|_| ())
}

/// The daemon's answer as JSON.
pub(crate) fn parse<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| anyhow!("unexpected answer from the daemon: {error}"))
}
