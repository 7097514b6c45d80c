//! `portmap rm`: removes sandboxes.

use std::process::ExitCode;

use super::tell;
use crate::client::{CallError, Client, encode};

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kill those that run first; one that isn't there is no failure
    #[arg(short, long)]
    force: bool,

    /// Accepted as Docker's; sandboxes have no volumes
    #[arg(short, long)]
    volumes: bool,

    /// Names or ids of sandboxes
    #[arg(value_name = "SANDBOX", required = true)]
    sandboxes: Vec<String>,
}

/// Removes them, one after the other.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    // Nothing to remove but the sandbox itself.
    let _ = args.volumes;
    let missing = |error: &CallError| matches!(error, CallError::Daemon { status: 404, .. });
    let mut code = ExitCode::SUCCESS;
    for sandbox in &args.sandboxes {
        match remove(host, sandbox, args.force) {
            Ok(()) => {}
            Err(error) => {
                tell::refuse(&error);
                if !(args.force && missing(&error)) {
                    code = ExitCode::FAILURE;
                }
                continue;
            }
        }
        if tell::print(&format!("{sandbox}\n")).is_err() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn remove(host: Option<&str>, sandbox: &str, force: bool) -> Result<(), CallError> {
    let query = if force { "?force=1" } else { "" };
    let path = format!("/portmap/sandboxes/{}{query}", encode(sandbox));
    Client::new(host).map_err(CallError::Other)?.call("DELETE", &path, None).map(|_| ())
}
