//! `portmap network inspect`.

use anyhow::Result;

use super::flags::boolean;
use super::{Api, BAD_TEMPLATE, Console, FAILED, Failure, path};
use crate::view::inspect::{Empty, Inspector, Types};

/// What was typed.
#[derive(clap::Args)]
#[command(args_override_self = true, after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Networks by name or id
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,

    /// 'json', or a Go template for each network
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    /// Verbose output for diagnostics
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    verbose: Option<bool>,
}

/// Shown below `--help`.
const EXAMPLES: &str = "\
Examples:
  portmap network inspect bridge
  portmap network inspect -f '{{(index .IPAM.Config 0).Subnet}}' web
  portmap network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}} {{end}}' web
  portmap network inspect -f '{{json .IPAM}}' web";

/// Docker's type of a network.
const NETWORK: Types = Types {
    renamed: &[("", "Id", "ID"), ("IPAM.Config.*", "AuxiliaryAddresses", "AuxAddress")],
    left_out: &[
        ("IPAM.Config.*", "Subnet", Empty::Text),
        ("IPAM.Config.*", "IPRange", Empty::Text),
        ("IPAM.Config.*", "Gateway", Empty::Text),
        ("IPAM.Config.*", "AuxAddress", Empty::Map),
        ("", "Peers", Empty::List),
        ("", "Services", Empty::Map),
    ],
    times: &["Created"],
};

/// Prints what is found, then what went wrong with the rest.
pub(super) fn run(args: &Args, api: &mut dyn Api, console: &mut Console<'_>) -> Result<u8> {
    let mut inspector = Inspector::new(args.format.as_deref())
        .map_err(|error| Failure { status: BAD_TEMPLATE, text: error.to_string() })?;
    let verbose = if args.verbose == Some(true) { "?verbose=true" } else { "" };
    let mut errors = Vec::new();
    for network in &args.networks {
        if let Err(error) = inspect(network, verbose, api, &mut inspector) {
            errors.push(format!("{error:#}"));
        }
    }
    console.out.write_all(inspector.finish().as_bytes())?;
    for error in &errors {
        console.complain(error);
    }
    Ok(if errors.is_empty() { 0 } else { FAILED })
}

fn inspect(network: &str, verbose: &str, api: &mut dyn Api, inspector: &mut Inspector) -> Result<()> {
    let answer = api.call("GET", &path(network, verbose)?, None)?;
    Ok(inspector.add(&String::from_utf8_lossy(&answer.body), &NETWORK)?)
}
