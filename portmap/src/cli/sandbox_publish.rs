//! `portmap publish` and `portmap unpublish`: changes the ports of a sandbox. `portmap -p SPEC… SANDBOX` is a short form of
//! the former.
//!
//! Not here: publishing to an address (`publish`).

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use serde_json::json;

use super::ports::{PortMap, all_lines, specs};
use super::tell;
use crate::client::{Client, encode};
use crate::supervise::parse;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A sandbox's name or id
    sandbox: String,

    #[arg(help = super::ports::SPEC_HELP,
        short,
        long,
        value_name = "SPEC",
        required = true,
        allow_hyphen_values = true
    )]
    publish: Vec<String>,
}

/// Which way.
#[derive(Clone, Copy)]
enum Change {
    Publish,
    Unpublish,
}

/// Publishes further ports, and prints where they are.
pub(crate) fn publish(host: Option<&str>, args: &Args) -> ExitCode {
    run(host, args, Change::Publish)
}

/// Takes ports back, and prints where they were.
pub(crate) fn unpublish(host: Option<&str>, args: &Args) -> ExitCode {
    run(host, args, Change::Unpublish)
}

fn run(host: Option<&str>, args: &Args, change: Change) -> ExitCode {
    match Client::new(host).and_then(|mut client| ask(&mut client, &args.sandbox, &args.publish, change)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::refuse(&error);
            ExitCode::FAILURE
        }
    }
}

fn ask(client: &mut Client, sandbox: &str, texts: &[String], change: Change) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Changed {
        ports: PortMap,
    }
    specs(texts)?;
    let verb = match change {
        Change::Publish => "publish",
        Change::Unpublish => "unpublish",
    };
    let path = format!("/portmap/sandboxes/{}/{verb}", encode(sandbox));
    let answer = client.call("POST", &path, Some(&json!({ "Publish": texts })));
    let answer = answer.map_err(|error| anyhow!("{error}"))?;
    let changed: Changed = parse(&answer.body)?;
    if changed.ports.is_empty() && matches!(change, Change::Publish) {
        tell::complain(&format!(
            "no port of the host leads to {sandbox} for now: portmap explain {sandbox} says why"
        ));
    }
    tell::print(&all_lines(&changed.ports)).context("cannot print")
}

/// A sandbox that a word may mean.
pub(super) struct Named {
    client: Client,
    id: String,
    pub(super) is_running: bool,
}

impl Named {
    /// The sandbox with this name or id, if a daemon listens that knows it: none is started for the question.
    ///
    /// The beginning of an id counts from the length on in which ids are shown, for shorter ones may well be host names.
    pub(super) fn find(host: Option<&str>, word: &str) -> Option<Self> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "PascalCase", default)]
        struct Inspected {
            id: String,
            name: String,
            state: State,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "PascalCase", default)]
        struct State {
            running: bool,
        }
        let mut client = Client::new(host).ok()?.without_starting();
        let answer = client.call("GET", &format!("/containers/{}/json", encode(word)), None).ok()?;
        let found: Inspected = parse(&answer.body).ok()?;
        is_meant(word, &found.name, &found.id).then_some(Self {
            client,
            id: found.id,
            is_running: found.state.running,
        })
    }

    /// As `portmap publish` does.
    pub(super) fn publish(mut self, texts: &[String]) -> Result<()> {
        ask(&mut self.client, &self.id, texts, Change::Publish)
    }
}

fn is_meant(word: &str, name: &str, id: &str) -> bool {
    const SHORT: usize = 12;
    name.strip_prefix('/').unwrap_or(name) == word || (word.len() >= SHORT && id.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::is_meant;

    #[test]
    fn a_word_means_a_sandbox_by_its_name_or_an_id_as_it_is_shown() {
        let id = "cafe5d2c3f1e04a0ea8d1c3f6b7e5a49f7d0c2b1a0f9e8d7c6b5a4938271605f4";
        for (word, meant) in [
            ("web", true),
            ("Web", false),
            ("cafe", false),
            ("cafe5d2c3f1", false),
            ("cafe5d2c3f1e", true),
            (id, true),
            ("cafe5d2c3f1f", false),
        ] {
            assert_eq!(is_meant(word, "/web", id), meant, "{word}");
        }
    }
}
