//! `portmap explain`: why a port or a sandbox answers, or doesn't.
//!
//! Not here: how that is found out (`daemon::explain`); the daemon has the rights for it.

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;

use super::tell;
use crate::OUR_OWN_FAILURE;
use crate::client::{Client, encode};
use crate::supervise::parse;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A port of the host, as 8080, 8080/udp or 127.0.0.1:8080; or a sandbox's name or id
    #[arg(value_name = "PORT|SANDBOX")]
    what: String,

    /// How to show it: text, or json for programs
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    answers: bool,
    paths: Vec<Path>,
    advice: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Path {
    title: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Step {
    mark: String,
    text: String,
}

/// Shows it. Exits with 0 if it answers, 1 if it doesn't, 125 if that can't be told.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    match ask(host, args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell::refuse(&error);
            ExitCode::from(OUR_OWN_FAILURE)
        }
    }
}

fn ask(host: Option<&str>, args: &Args) -> Result<bool> {
    let path = format!("/portmap/explain/{}", encode(&args.what));
    let answer = Client::new(host)?.call("GET", &path, None).map_err(|error| anyhow!("{error}"))?;
    let report: Report = parse(&answer.body)?;
    let text = match args.format {
        Format::Json => String::from_utf8_lossy(&answer.body).into_owned(),
        Format::Text => shown(&report),
    };
    tell::print(&text).context("cannot print")?;
    Ok(report.answers)
}

fn shown(report: &Report) -> String {
    let mut text = String::new();
    for path in &report.paths {
        text.push_str(&format!("{}\n", path.title));
        for step in &path.steps {
            let mark = match step.mark.as_str() {
                "yes" => '✓',
                "no" => '✗',
                _ => '·',
            };
            text.push_str(&format!("  {mark} {}\n", step.text));
        }
    }
    text.push_str(&format!("{}\n", report.advice));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_a_line_and_the_advice_is_last() {
        let report = r#"{"Answers":false,"Paths":[{"Title":"web: 80/tcp at 0.0.0.0:8080","Steps":[
            {"Mark":"yes","Text":"one"},{"Mark":"note","Text":"two"},{"Mark":"no","Text":"three"}]}],"Advice":"Do."}"#;
        let report: Report = serde_json::from_str(report).unwrap();
        assert_eq!(shown(&report), "web: 80/tcp at 0.0.0.0:8080\n  ✓ one\n  · two\n  ✗ three\nDo.\n");
    }
}
