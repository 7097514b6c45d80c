//! `portmap start`: the command of a sandbox that was created, or has ended.

use std::process::ExitCode;

use super::tell;
use crate::client::{CallError, Client, encode};
use crate::supervise::{Failure, Seat, parse, start_detached, supervise};

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stay, with the command's output and signals
    #[arg(short, long)]
    attach: bool,

    /// Stay, and give the command our stdin
    #[arg(short, long)]
    interactive: bool,

    /// Names or ids of sandboxes
    #[arg(value_name = "SANDBOX", required = true)]
    sandboxes: Vec<String>,
}

/// Starts them in the background, or one in the foreground.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    if args.attach || args.interactive {
        return attached(host, args);
    }
    let mut failed = Vec::new();
    for sandbox in &args.sandboxes {
        if let Err(failure) = start(host, sandbox) {
            tell::refuse(&failure.message);
            failed.push(sandbox.as_str());
        } else if tell::print(&format!("{sandbox}\n")).is_err() {
            failed.push(sandbox);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    tell::refuse(&format_args!("failed to start containers: {}", failed.join(", ")));
    ExitCode::FAILURE
}

/// Starts one in the background; no failure if it runs.
pub(super) fn start(host: Option<&str>, sandbox: &str) -> Result<(), Failure> {
    if is_running(host, sandbox)? {
        return Ok(());
    }
    start_detached(host, sandbox, false)
}

fn attached(host: Option<&str>, args: &Args) -> ExitCode {
    let [sandbox] = args.sandboxes.as_slice() else {
        tell::refuse(&"you cannot start and attach multiple containers at once");
        return ExitCode::FAILURE;
    };
    let seat = Seat::Foreground { stdin: args.interactive };
    let outcome = Client::new(host)
        .map_err(Failure::ours)
        .and_then(|mut client| supervise(host, &mut client, sandbox, seat, || ()));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            tell::refuse(&failure.message);
            ExitCode::FAILURE
        }
    }
}

fn is_running(host: Option<&str>, sandbox: &str) -> Result<bool, CallError> {
    let mut client = Client::new(host).map_err(CallError::Other)?;
    let answer = client.call("GET", &format!("/containers/{}/json", encode(sandbox)), None)?;
    let facts: serde_json::Value = parse(&answer.body).map_err(CallError::Other)?;
    Ok(facts["State"]["Running"] == true)
}
