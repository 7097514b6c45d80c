//! `portmap create`: a sandbox to be started later.

use std::process::ExitCode;

use super::sandbox::Flags;
use super::tell;
use crate::client::Client;
use crate::supervise::Failure;

/// What was typed.
#[derive(clap::Args)]
#[command(disable_help_flag = true, override_usage = "portmap create [OPTIONS] [--] COMMAND [ARG...]")]
pub(crate) struct Args {
    #[command(flatten)]
    flags: Flags,
}

/// Creates it, and prints its id.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    let create = || {
        let id = args.flags.create(&mut Client::new(host)?)?;
        tell::print(&format!("{id}\n")).map_err(Failure::ours)
    };
    create().map_or_else(|failure| tell::fail(&failure), |()| ExitCode::SUCCESS)
}
