//! A supervisor of its own for a command that nobody waits for.
//!
//! It is this program again, in a session of its own, with nothing open but a pipe to whoever started it: through that it
//! says once whether the command runs.

use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use serde::{Deserialize, Serialize};

use super::{Failure, Seat, supervise};
use crate::client::Client;

/// The hidden command's name.
pub(crate) const COMMAND: &str = "supervise";

/// What [`start_detached`] gives the supervisor.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The sandbox
    sandbox: String,

    /// Leave the command's stdin without an end
    #[arg(long)]
    stdin_open: bool,
}

/// What the supervisor says through its pipe.
#[derive(Serialize, Deserialize)]
enum Word {
    Runs,
    Failed { code: u8, message: String },
}

/// Starts a sandbox's command under a supervisor of its own, and returns when it runs.
pub(crate) fn start_detached(host: Option<&str>, sandbox: &str, stdin_open: bool) -> Result<(), Failure> {
    let flag = stdin_open.then_some("--stdin-open");
    let words = [COMMAND].into_iter().chain(flag).chain(["--", sandbox]);
    start_behind(host, words.map(str::to_owned))
}

/// Starts this program again behind ours, with these arguments, and returns when it says that its command runs.
pub(crate) fn start_behind(
    host: Option<&str>,
    arguments: impl IntoIterator<Item = String>,
) -> Result<(), Failure> {
    // The file may have been replaced or removed; this is what runs now.
    let mut supervisor = Command::new("/proc/self/exe");
    if let Some(host) = host {
        supervisor.arg(format!("--host={host}"));
    }
    supervisor.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut supervisor = supervisor.spawn().context("cannot start a supervisor")?;
    let mut said = String::new();
    let pipe = supervisor.stdout.as_mut().expect("it is piped");
    pipe.read_to_string(&mut said).context("cannot hear from the supervisor")?;
    match serde_json::from_str(&said) {
        Ok(Word::Runs) => Ok(()),
        Ok(Word::Failed { code, message }) => {
            // It has nothing left to do.
            let _ = supervisor.wait();
            Err(Failure { code, message })
        }
        Err(_) => Err(Failure::ours("the supervisor ended without a word")),
    }
}

/// The supervisor's own life.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    let seat = Seat::Detached { stdin_open: args.stdin_open };
    live_behind(|runs| supervise(host, &mut Client::new(host)?, &args.sandbox, seat, runs))
}

/// What [`start_behind`] started. `work` calls what it is given as soon as its command runs.
pub(crate) fn live_behind(work: impl FnOnce(fn()) -> Result<u8, Failure>) -> ExitCode {
    // It fails only for the leader of a process group, which then has left the session already.
    let _ = setsid();
    match work(|| say(&Word::Runs)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.code;
            say(&Word::Failed { code, message: failure.message });
            ExitCode::from(code)
        }
    }
}

/// Says it, and lets go of everything that whoever started us could wait for.
fn say(word: &Word) {
    let text = serde_json::to_string(word).unwrap_or_default();
    // If nobody listens any more, nobody minds.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    let _ = io::stdout().flush();
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
        let _ = dup2_stderr(&null);
    }
    let _ = chdir("/");
}
