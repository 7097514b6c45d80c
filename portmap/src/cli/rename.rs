//! `portmap rename`: another name for a sandbox. Its hostname stays.

use std::process::ExitCode;

use super::tell;
use crate::client::{CallError, Client, encode};

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A sandbox's name or id
    sandbox: String,

    /// The new name
    name: String,
}

/// Renames it.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    let path = format!("/portmap/sandboxes/{}/rename?name={}", encode(&args.sandbox), encode(&args.name));
    let renamed =
        Client::new(host).map_err(CallError::Other).and_then(|mut client| client.call("POST", &path, None));
    match renamed {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            tell::refuse(&error);
            ExitCode::FAILURE
        }
    }
}
