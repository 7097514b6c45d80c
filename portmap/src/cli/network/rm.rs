//! `portmap network rm`: one after the other, whatever happens to the others.

use anyhow::Result;

use super::flags::boolean;
use super::{Api, Console, FAILED, path};
use crate::client::CallError;

/// What was typed.
#[derive(clap::Args)]
#[command(args_override_self = true)]
pub(super) struct Args {
    /// Networks by name or id
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,

    /// Do not error if a network does not exist
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    force: Option<bool>,
}

/// Removes them; each that is gone is printed as it was given.
pub(super) fn run(args: &Args, api: &mut dyn Api, console: &mut Console<'_>) -> Result<u8> {
    const NOT_FOUND: u16 = 404;
    let mut failed = false;
    for network in &args.networks {
        match remove(network, api) {
            Ok(()) => writeln!(console.out, "{network}")?,
            Err(CallError::Daemon { status: NOT_FOUND, .. }) if args.force == Some(true) => {}
            Err(error) => {
                console.complain(&error.to_string());
                failed = true;
            }
        }
    }
    if failed {
        // Docker's last line.
        console.complain("exit status 1");
    }
    Ok(if failed { FAILED } else { 0 })
}

fn remove(network: &str, api: &mut dyn Api) -> Result<(), CallError> {
    api.call("DELETE", &path(network, "")?, None).map(drop)
}
