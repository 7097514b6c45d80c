//! `portmap stop`: ends the commands of sandboxes.

use std::process::ExitCode;

use super::tell;
use crate::client::{CallError, Client, encode};

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Signal to send first
    #[arg(short, long, value_name = "SIGNAL")]
    pub(super) signal: Option<String>,

    /// Seconds to wait before killing
    #[arg(
        short,
        long = "timeout",
        visible_alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    pub(super) timeout: Option<i64>,

    /// Names or ids of sandboxes
    #[arg(value_name = "SANDBOX", required = true)]
    pub(super) sandboxes: Vec<String>,
}

/// Stops them, one after the other.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    tell::each(&args.sandboxes, |sandbox| stop(host, sandbox, args.signal.as_deref(), args.timeout, false))
}

/// Stops one; no failure if it doesn't run. `keep`: it stays though it is to be removed at its end.
pub(super) fn stop(
    host: Option<&str>,
    sandbox: &str,
    signal: Option<&str>,
    timeout: Option<i64>,
    keep: bool,
) -> Result<(), CallError> {
    let timeout = timeout.map(|seconds| format!("t={seconds}"));
    let signal = signal.map(|signal| format!("signal={}", encode(signal)));
    let keep = keep.then(|| "keep=1".to_owned());
    let query: Vec<String> = timeout.into_iter().chain(signal).chain(keep).collect();
    let path = format!("/portmap/sandboxes/{}/stop?{}", encode(sandbox), query.join("&"));
    Client::new(host).map_err(CallError::Other)?.call("POST", path.trim_end_matches('?'), None).map(|_| ())
}
