//! `portmap network prune`.

use anyhow::Result;
use serde::Deserialize;

use super::flags::{Filters, boolean};
use super::{Api, Console};

/// What was typed.
#[derive(clap::Args)]
#[command(args_override_self = true)]
pub(super) struct Args {
    /// Only networks that match every filter: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,

    /// Do not prompt for confirmation
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    force: Option<bool>,
}

const QUESTION: &str = "\
WARNING! This will remove all custom networks not used by at least one container.
Are you sure you want to continue? [y/N] ";

/// Asks first, then removes and prints the names of what is gone.
pub(super) fn run(args: &Args, api: &mut dyn Api, console: &mut Console<'_>) -> Result<u8> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Pruned {
        networks_deleted: Option<Vec<String>>,
    }
    let filters = Filters::parse("--filter", &args.filter)?;
    if args.force != Some(true) && !agrees(console)? {
        return Ok(0);
    }
    let answer = api.call("POST", &format!("/networks/prune{}", filters.query()), None)?;
    let pruned: Pruned = super::json(&answer)?;
    let names = pruned.networks_deleted.unwrap_or_default();
    if !names.is_empty() {
        writeln!(console.out, "Deleted Networks:\n{}\n", names.join("\n"))?;
    }
    Ok(0)
}

fn agrees(console: &mut Console<'_>) -> Result<bool> {
    write!(console.out, "{QUESTION}")?;
    console.out.flush()?;
    let mut answer = String::new();
    // What isn't text isn't consent.
    let read = console.input.read_line(&mut answer);
    Ok(read.is_ok() && answer.trim().eq_ignore_ascii_case("y"))
}
