//! `portmap restart`: stops sandboxes that run, and starts them in the background.

use std::process::ExitCode;

use anyhow::anyhow;

use super::{start, stop, tell};
use crate::client::CallError;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Signal to send first
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,

    /// Seconds to wait before killing
    #[arg(
        short,
        long = "timeout",
        visible_alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    timeout: Option<i64>,

    /// Names or ids of sandboxes
    #[arg(value_name = "SANDBOX", required = true)]
    sandboxes: Vec<String>,
}

/// Restarts them, one after the other.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    tell::each(&args.sandboxes, |sandbox| {
        stop::stop(host, sandbox, args.signal.as_deref(), args.timeout, true)?;
        start::start(host, sandbox).map_err(|failure| CallError::Other(anyhow!(failure.message)))
    })
}
