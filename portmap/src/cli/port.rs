//! `portmap port`: where a sandbox's ports are published.

use std::num::IntErrorKind;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::ports::{PortMap, all_lines, lines_of};
use super::tell;
use crate::client::{CallError, Client, encode};
use crate::supervise::parse;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A sandbox's name or id
    sandbox: String,

    /// One of its ports only; without a protocol TCP is meant
    #[arg(value_name = "PRIVATE_PORT[/PROTO]", allow_hyphen_values = true)]
    port: Option<String>,
}

/// What of a sandbox is looked at.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Inspected {
    network_settings: NetworkSettings,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    ports: Option<PortMap>,
}

/// Shows them.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    let shown = fetch(host, &args.sandbox).and_then(|ports| {
        let text = show(&ports, args)?;
        tell::print(&text).context("cannot print")
    });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::refuse(&error);
            ExitCode::FAILURE
        }
    }
}

fn fetch(host: Option<&str>, sandbox: &str) -> Result<PortMap> {
    let path = format!("/containers/{}/json", encode(sandbox));
    let answer =
        Client::new(host)?.call("GET", &path, None).map_err(|error: CallError| anyhow!("{error}"))?;
    let inspected: Inspected = parse(&answer.body)?;
    Ok(inspected.network_settings.ports.unwrap_or_default())
}

fn show(ports: &PortMap, args: &Args) -> Result<String> {
    let wanted = args.port.as_deref().filter(|port| !port.is_empty());
    let Some(wanted) = wanted else { return Ok(all_lines(ports)) };
    let (port, proto) = wanted.split_once('/').unwrap_or((wanted, ""));
    let proto = if proto.is_empty() { "tcp" } else { proto };
    if let Some(why) = not_a_number(port) {
        bail!(
            "Error: invalid port ({port}): strconv.ParseUint: parsing {}: {why}",
            crate::view::json::quoted(port)
        );
    }
    let lines = lines_of(ports, &format!("{port}/{proto}"));
    if lines.is_empty() {
        bail!("Error: No public port '{wanted}' published for {}", args.sandbox);
    }
    Ok(lines)
}

/// Go's reason why a text isn't a number of 16 bits: it takes no sign.
fn not_a_number(text: &str) -> Option<&'static str> {
    const SYNTAX: &str = "invalid syntax";
    if text.starts_with('+') {
        return Some(SYNTAX);
    }
    text.parse::<u16>().err().map(|error| match error.kind() {
        IntErrorKind::PosOverflow => "value out of range",
        _ => SYNTAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_is_shown_or_its_absence_told() {
        let ports: PortMap =
            serde_json::from_str(r#"{"80/tcp":[{"HostIp":"::1","HostPort":"8080"}],"81/tcp":null}"#).unwrap();
        let ask = |port: Option<&str>| {
            let args = Args { sandbox: "web".to_owned(), port: port.map(str::to_owned) };
            show(&ports, &args).unwrap_or_else(|error| error.to_string())
        };
        let invalid = |port: &str, why: &str| {
            format!("Error: invalid port ({port}): strconv.ParseUint: parsing \"{port}\": {why}")
        };
        let missing = |port: &str| format!("Error: No public port '{port}' published for web");
        let cases = [
            (None, "80/tcp -> [::1]:8080\n".to_owned()),
            (Some("80"), "[::1]:8080\n".to_owned()),
            (Some("80/tcp"), "[::1]:8080\n".to_owned()),
            (Some("80/"), "[::1]:8080\n".to_owned()),
            (Some("80/TCP"), missing("80/TCP")),
            (Some("80/udp"), missing("80/udp")),
            (Some("080"), missing("080")),
            (Some("81"), missing("81")),
            (Some("x"), invalid("x", "invalid syntax")),
            (Some(""), "80/tcp -> [::1]:8080\n".to_owned()),
            (Some("/udp"), invalid("", "invalid syntax")),
            (Some("-1"), invalid("-1", "invalid syntax")),
            (Some("+80"), invalid("+80", "invalid syntax")),
            (Some("65536"), invalid("65536", "value out of range")),
        ];
        for (port, want) in cases {
            assert_eq!(ask(port), want, "{port:?}");
        }
    }
}
