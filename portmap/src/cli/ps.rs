//! `portmap ps`: a list of sandboxes.
//!
//! Docker's columns but for IMAGE, which would always be empty; templates may still ask for it.

mod ports;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use netcore::model::Timestamp;
use serde::Deserialize;

use super::tell;
use crate::client::{Client, encode};
use crate::supervise::parse;
use crate::view::format::{Format, Listing, Row};
use crate::view::{id, time};

static LISTING: Listing = Listing {
    what: "container",
    columns: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("State", "STATE"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
        ("Networks", "NETWORKS"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
    ],
    table: "{{.ID}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    quiet: "{{.ID}}",
    raw: "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n\
          state: {{.State}}\nstatus: {{.Status}}\nnames: {{.Names}}\nlabels: {{.Labels}}\nports: {{.Ports}}\n",
    raw_quiet: "container_id: {{.ID}}",
};

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also those that don't run
    #[arg(short, long)]
    all: bool,

    /// Ids only
    #[arg(short, long)]
    quiet: bool,

    /// The last created ones, whatever their state
    #[arg(short = 'n', long = "last", value_name = "N", allow_negative_numbers = true, default_value_t = -1)]
    last: i64,

    /// The last created one, whatever its state
    #[arg(short, long)]
    latest: bool,

    /// Full ids and commands
    #[arg(long)]
    no_trunc: bool,

    /// Only those with name=…, id=…, status=…, network=…, label=…, publish=PORT, expose=PORT (may be given several times)
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,

    /// table, json, raw, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// A sandbox as the API lists it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    id: String,
    names: Vec<String>,
    image: String,
    command: String,
    created: i64,
    ports: Vec<ports::Port>,
    labels: BTreeMap<String, String>,
    state: String,
    status: String,
    network_settings: NetworkSettings,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    networks: BTreeMap<String, serde_json::Value>,
}

/// Lists them.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    const BAD_TEMPLATE: u8 = 64;
    let format = match Format::new(args.format.as_deref(), args.quiet, &LISTING) {
        Ok(format) => format,
        Err(error) => {
            tell::refuse(&error);
            return ExitCode::from(BAD_TEMPLATE);
        }
    };
    match list(host, args, &format) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::refuse(&error);
            ExitCode::FAILURE
        }
    }
}

fn list(host: Option<&str>, args: &Args, format: &Format) -> Result<()> {
    let answer = Client::new(host)?.call("GET", &format!("/containers/json{}", query(args)?), None)?;
    let listed: Vec<Listed> = parse(&answer.body)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let rows: Vec<Row> = listed.into_iter().map(|sandbox| row(sandbox, args.no_trunc, now)).collect();
    let text = format.render(&LISTING, &rows).map_err(|error| anyhow::anyhow!("{error}"))?;
    tell::print(&text).context("cannot print")
}

fn query(args: &Args) -> Result<String> {
    let mut parts = Vec::new();
    let last = if args.latest { 1 } else { args.last };
    if args.all {
        parts.push("all=1".to_owned());
    }
    if last > 0 {
        parts.push(format!("limit={last}"));
    }
    let mut filters: BTreeMap<String, BTreeMap<&str, bool>> = BTreeMap::new();
    for filter in args.filter.iter().filter(|filter| !filter.is_empty()) {
        let (key, value) = filter.split_once('=').context("bad format of filter (expected name=value)")?;
        filters.entry(key.trim().to_lowercase()).or_default().insert(value.trim(), true);
    }
    if !filters.is_empty() {
        parts.push(format!("filters={}", encode(&serde_json::to_string(&filters)?)));
    }
    Ok(if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) })
}

fn row(sandbox: Listed, no_trunc: bool, now: Duration) -> Row {
    let created = Duration::from_secs(u64::try_from(sandbox.created).unwrap_or(0));
    let nanos = i64::try_from(created.as_nanos()).unwrap_or(i64::MAX);
    let names = sandbox.names.iter().map(|name| name.strip_prefix('/').unwrap_or(name));
    // Names given by links have the other sandbox's in front.
    let names: Vec<&str> = names.filter(|name| no_trunc || !name.contains('/')).collect();
    let networks: Vec<&str> = sandbox.network_settings.networks.keys().map(String::as_str).collect();
    let labels: Vec<String> = sandbox.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let values = [
        id(&sandbox.id, no_trunc).to_owned(),
        if sandbox.image.is_empty() { "<no image>".to_owned() } else { sandbox.image },
        command(&sandbox.command, no_trunc),
        time::go(&Timestamp::from_nanos(nanos).to_string()),
        time::ago(now.saturating_sub(created)),
        sandbox.status,
        sandbox.state,
        ports::text(&sandbox.ports),
        names.join(","),
        networks.join(","),
        labels.join(","),
        String::new(),
        "0".to_owned(),
        "0B".to_owned(),
    ];
    Row { values: values.into(), labels: sandbox.labels }
}

/// In quotes, and at most 20 characters of it.
fn command(text: &str, no_trunc: bool) -> String {
    const MOST: usize = 20;
    let shown = if no_trunc || text.chars().count() <= MOST {
        text.to_owned()
    } else {
        text.chars().take(MOST - 1).chain(['…']).collect()
    };
    crate::view::json::quoted(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Args {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        <Line as clap::Parser>::try_parse_from([&["ps"], words].concat()).unwrap().args
    }

    #[test]
    fn what_is_asked_for() {
        let cases = [
            (&[][..], ""),
            (&["-a"], "?all=1"),
            (&["-l"], "?limit=1"),
            (&["-n", "3"], "?limit=3"),
            (
                &["-f", "name=web", "--filter", "NAME=db"],
                "?filters=%7B%22name%22%3A%7B%22db%22%3Atrue%2C%22web%22%3Atrue%7D%7D",
            ),
        ];
        for (words, want) in cases {
            assert_eq!(query(&args(words)).unwrap(), want, "{words:?}");
        }
        assert_eq!(
            query(&args(&["-f", "web"])).unwrap_err().to_string(),
            "bad format of filter (expected name=value)"
        );
    }

    #[test]
    fn a_list_is_a_table() {
        let listed = r#"[{"Id":"88b5d2c3f1e04a0ea8d1c3f6b7e5a49f7d0c2b1a0f9e8d7c6b5a4938271605f4","Names":["/web","/a/b"],
            "Command":"python3 -m http.server 80","Created":1785578400,"Status":"Up 5 minutes","State":"running",
            "Ports":[{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"}],
            "Labels":{"a":"b"},"NetworkSettings":{"Networks":{"shop":{}}}}]"#;
        let show = |format: Option<&str>| {
            let listed: Vec<Listed> = serde_json::from_str(listed).unwrap();
            let now = Duration::from_secs(1_785_578_700);
            let rows: Vec<Row> = listed.into_iter().map(|sandbox| row(sandbox, false, now)).collect();
            Format::new(format, false, &LISTING).unwrap().render(&LISTING, &rows).unwrap()
        };
        let table = "\
CONTAINER ID   COMMAND                  CREATED         STATUS         PORTS                        NAMES
88b5d2c3f1e0   \"python3 -m http.ser…\"   5 minutes ago   Up 5 minutes   443/tcp, [::]:8080->80/tcp   web
";
        assert_eq!(show(None), table);
        assert_eq!(
            show(Some("{{.Names}} {{.Networks}} {{.Label \"a\"}} {{.State}}")),
            "web shop b running\n"
        );
    }
}
