//! `portmap network ls`.
//!
//! Filters of different keys are alternatives, as in Docker 1.10 and 1.11: the API joins keys by AND, so each key is
//! asked for alone and the answers are united.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use clap::ValueEnum;
use serde::Deserialize;

use super::flags::{Filters, boolean};
use super::{Api, Console};
use crate::view::format::{Format, Listing, Row};
use crate::view::{id, natural, time};

/// What was typed.
#[derive(clap::Args)]
#[command(args_override_self = true, after_long_help = FILTERS)]
pub(super) struct Args {
    /// Show networks that match, as in "driver=bridge" (may be given several times)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,

    /// Whether a network has to match the filters of any key or of every key
    #[arg(long, value_name = "MODE", default_value = "or")]
    filter_mode: FilterMode,

    /// 'table', 'table TEMPLATE', 'json', 'raw', or a Go template for each network
    ///
    /// Fields: .ID .Name .Driver .Scope .IPv4 .IPv6 .Internal .Labels .CreatedAt and {{.Label "key"}}.
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Do not truncate the output: show whole ids
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    no_trunc: Option<bool>,

    /// Only display network IDs
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    quiet: Option<bool>,
}

/// How filters of different keys go together.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FilterMode {
    Or,
    And,
}

/// Shown below `--help`.
const FILTERS: &str = "\
Filters:
  id=TEXT        the id, or a regular expression that is found in it
  name=TEXT      the name, or a regular expression that is found in it
  type=TYPE      builtin or custom
  driver=NAME    the driver
  scope=SCOPE    local, global or swarm
  label=KEY[=VALUE]
  dangling=BOOL  without endpoints

Several filters show the networks that match at least one of them, each once;
only values of label must all match. Docker did so in versions 1.10 and 1.11.
Since 1.12 a network has to match every key, as with --filter-mode=and here.";

const LISTING: Listing = Listing {
    what: "network",
    columns: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
    raw: "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
    raw_quiet: "network_id: {{.ID}}",
};

/// A network as the API lists it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Network {
    id: String,
    name: String,
    driver: String,
    scope: String,
    created: String,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    internal: bool,
    labels: Option<BTreeMap<String, String>>,
}

/// Lists the networks that match, by name.
pub(super) fn run(args: &Args, api: &mut dyn Api, console: &mut Console<'_>) -> Result<u8> {
    let filters = Filters::parse("-f, --filter", &args.filter)?;
    let (quiet, no_trunc) = (args.quiet.unwrap_or_default(), args.no_trunc.unwrap_or_default());
    let format = Format::new(args.format.as_deref(), quiet, &LISTING)?;
    let mut found = Vec::new();
    for filters in requests(filters, args.filter_mode) {
        let answer = api.call("GET", &format!("/networks{}", filters.query()), None)?;
        found.extend(super::json::<Vec<Network>>(&answer)?);
    }
    let mut seen = BTreeSet::new();
    found.retain(|network| seen.insert(network.id.clone()));
    found.sort_by(|one, other| natural::compare(&one.name, &other.name));
    let rows: Vec<Row> = found.into_iter().map(|network| row(network, no_trunc)).collect();
    console.out.write_all(format.render(&LISTING, &rows)?.as_bytes())?;
    Ok(0)
}

/// What to ask for, so that the answers together are what is wanted.
fn requests(Filters(mut filters): Filters, mode: FilterMode) -> Vec<Filters> {
    // Every network is one or the other; Docker's daemon looks at one of the two, a random one.
    const TYPES: [&str; 2] = ["builtin", "custom"];
    let every_type = filters.get("type").is_some_and(|types| types.iter().eq(TYPES));
    if every_type {
        filters.remove("type");
    }
    if mode == FilterMode::And || filters.len() + usize::from(every_type) < 2 {
        return vec![Filters(filters)];
    }
    let unfiltered = every_type.then(Filters::default);
    let alone = filters.into_iter().map(|filter| Filters(BTreeMap::from([filter])));
    alone.chain(unfiltered).collect()
}

fn row(network: Network, no_trunc: bool) -> Row {
    let labels = network.labels.unwrap_or_default();
    let list: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let values = vec![
        id(&network.id, no_trunc).to_owned(),
        network.name,
        network.driver,
        network.scope,
        network.enable_ipv4.to_string(),
        network.enable_ipv6.to_string(),
        network.internal.to_string(),
        list.join(","),
        time::go(&network.created),
    ];
    Row { values, labels }
}
