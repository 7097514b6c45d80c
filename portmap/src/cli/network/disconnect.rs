//! `portmap network disconnect`.

use anyhow::Result;
use serde_json::json;

use super::flags::boolean;
use super::{Api, path};

/// What was typed.
#[derive(clap::Args)]
#[command(args_override_self = true)]
pub(super) struct Args {
    /// The network, by name or id
    #[arg(value_name = "NETWORK")]
    network: String,

    /// The container, by name or id
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// Force the container to disconnect from the network
    ///
    /// Removes the endpoint of that name if there is no such container, and the setting of a network that is gone.
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    force: Option<bool>,
}

/// Disconnects; there is nothing to print.
pub(super) fn run(args: &Args, api: &mut dyn Api) -> Result<u8> {
    let body = json!({ "Container": args.container, "Force": args.force.unwrap_or_default() });
    api.call("POST", &path(&args.network, "/disconnect")?, Some(&body))?;
    Ok(0)
}
