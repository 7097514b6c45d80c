//! `portmap network …`: asks the daemon, prints what Docker's command line prints.
//!
//! A command returns its exit status, or an error that is printed as it is: texts that Docker has begin as Docker's.
//! Everything printed goes through [`Console`], so that a closed pipe ends a command quietly.

mod connect;
mod create;
mod disconnect;
mod flags;
mod inspect;
mod ls;
mod prune;
mod rm;

use std::fmt;
use std::io::{self, BufRead, BufWriter, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

use crate::client::{Answer, CallError, Client, encode};

/// Exit status of a command that failed.
const FAILED: u8 = 1;
/// Exit status after a flag that can't be read.
const BAD_FLAG: u8 = 125;
/// Exit status after a template that can't be read.
const BAD_TEMPLATE: u8 = 64;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Manage networks.
#[derive(Subcommand)]
enum Command {
    /// Connect a container to a network
    Connect(connect::Args),
    /// Create a network
    Create(create::Args),
    /// Disconnect a container from a network
    Disconnect(disconnect::Args),
    /// Display detailed information on one or more networks
    Inspect(inspect::Args),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// Remove all unused networks
    Prune(prune::Args),
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm(rm::Args),
}

/// The daemon.
trait Api {
    fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, CallError>;
}

impl Api for Client {
    fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, CallError> {
        self.call(method, path, body)
    }
}

/// Where a command reads and writes.
struct Console<'a> {
    input: &'a mut dyn BufRead,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

/// A failure with an exit status of its own.
#[derive(Debug)]
struct Failure {
    status: u8,
    text: String,
}

/// Runs a command of the daemon at `host`.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    let (mut input, mut err) = (io::stdin().lock(), io::stderr().lock());
    let mut out = BufWriter::new(io::stdout().lock());
    let mut console = Console { input: &mut input, out: &mut out, err: &mut err };
    let status = match Client::new(host) {
        Ok(mut client) => execute(&args.command, &mut client, &mut console),
        Err(error) => console.fail(&error),
    };
    ExitCode::from(status)
}

/// Runs a command to its exit status.
fn execute(command: &Command, api: &mut dyn Api, console: &mut Console<'_>) -> u8 {
    let outcome = match command {
        Command::Connect(args) => connect::run(args, api),
        Command::Create(args) => create::run(args, api, console),
        Command::Disconnect(args) => disconnect::run(args, api),
        Command::Inspect(args) => inspect::run(args, api, console),
        Command::Ls(args) => ls::run(args, api, console),
        Command::Prune(args) => prune::run(args, api, console),
        Command::Rm(args) => rm::run(args, api, console),
    };
    let flushed = console.out.flush().map_err(anyhow::Error::from);
    match outcome.and_then(|status| flushed.map(|()| status)) {
        Ok(status) => status,
        Err(error) => console.fail(&error),
    }
}

impl Console<'_> {
    /// Says why a command failed. Returns its exit status.
    fn fail(&mut self, error: &anyhow::Error) -> u8 {
        // Only our own output fails so; what breaks the daemon's connection is inside of a `CallError`.
        match error.downcast_ref::<io::Error>() {
            // Whoever reads has read enough.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => return 0,
            Some(error) => self.complain(&format!("cannot print: {error}")),
            None => self.complain(&format!("{error:#}")),
        }
        error.downcast_ref::<Failure>().map_or(FAILED, |failure| failure.status)
    }

    /// A message on standard error. What can't be written there can't be told anywhere.
    fn complain(&mut self, text: &str) {
        let _ = self.out.flush();
        let _ = writeln!(self.err, "{}", printable(text));
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Messages quote names, whatever those are: they have lines and tabs, but move no cursor.
fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// The path of a network by name or id.
fn path(network: &str, rest: &str) -> Result<String> {
    // Nothing would ask for the list.
    anyhow::ensure!(!network.trim().is_empty(), "invalid network name or ID: value is empty");
    Ok(format!("/networks/{}{rest}", encode(network)))
}

/// An answer as JSON.
fn json<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| anyhow::anyhow!("cannot read the daemon's answer: {error}"))
}

#[cfg(test)]
mod tests;
