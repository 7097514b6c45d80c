//! `portmap run`: a command in a sandbox of its own.

use std::io;
use std::process::ExitCode;

use super::sandbox::Flags;
use super::tell;
use crate::client::Client;
use crate::supervise::{Failure, Seat, start_detached, supervise};

/// What was typed.
#[derive(clap::Args)]
#[command(disable_help_flag = true, override_usage = "portmap run [OPTIONS] [--] COMMAND [ARG...]")]
pub(crate) struct Args {
    #[command(flatten)]
    flags: Flags,

    /// Run in the background, and print the sandbox's id
    #[arg(short, long)]
    detach: bool,
}

/// Runs it. In the foreground we exit with what the command exits with.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    try_run(host, args).map_or_else(|failure| tell::fail(&failure), ExitCode::from)
}

fn try_run(host: Option<&str>, args: &Args) -> Result<u8, Failure> {
    let flags = &args.flags;
    if !args.detach && flags.interactive && flags.tty {
        need_terminal()?;
    }
    let mut client = Client::new(host)?;
    let id = flags.create(&mut client)?;
    let outcome = if args.detach {
        start_detached(host, &id, flags.interactive).map(|()| 0)
    } else {
        supervise(host, &mut client, &id, Seat::Foreground { stdin: true }, || ())
    };
    if outcome.is_err() && flags.rm {
        // It may have got that far that it is gone already.
        let _ = client.call("DELETE", &format!("/portmap/sandboxes/{id}?force=1"), None);
    }
    if outcome.is_ok() && args.detach {
        tell::print(&format!("{id}\n")).map_err(Failure::ours)?;
    }
    outcome
}

/// `-i -t` in the foreground is for people.
pub(super) fn need_terminal() -> Result<(), Failure> {
    if io::IsTerminal::is_terminal(&io::stdin()) {
        return Ok(());
    }
    Err(Failure::ours("the input device is not a TTY"))
}
