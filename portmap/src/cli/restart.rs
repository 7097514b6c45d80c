//! `portmap restart`: stops sandboxes that run, and starts them in the background.

use std::process::ExitCode;

use anyhow::anyhow;

use super::{start, stop, tell};
use crate::client::CallError;

/// What was typed: the same as for `stop`.
pub(crate) type Args = stop::Args;

/// Restarts them, one after the other.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    tell::each(&args.sandboxes, |sandbox| {
        stop::stop(host, sandbox, args.signal.as_deref(), args.timeout, true)?;
        start::start(host, sandbox).map_err(|failure| CallError::Other(anyhow!(failure.message)))
    })
}
