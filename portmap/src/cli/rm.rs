//! `portmap rm`: removes sandboxes, or links between them.

use std::process::ExitCode;

use super::tell;
use crate::client::{CallError, Client, encode};

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kill those that run first; one that isn't there is no failure
    #[arg(short, long)]
    force: bool,

    /// Remove links, given as /SANDBOX/ALIAS, and no sandbox
    #[arg(short, long)]
    link: bool,

    /// Accepted as Docker's; sandboxes have no volumes
    #[arg(short, long)]
    volumes: bool,

    /// Names or ids of sandboxes; with --link names of links
    #[arg(value_name = "SANDBOX", required = true)]
    sandboxes: Vec<String>,
}

/// Removes them, one after the other.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    // Nothing to remove but the sandbox itself.
    let _ = args.volumes;
    let missing = |error: &CallError| matches!(error, CallError::Daemon { status: 404, .. });
    let mut code = ExitCode::SUCCESS;
    for sandbox in &args.sandboxes {
        match remove(host, &path(sandbox, args)) {
            Ok(()) => {}
            Err(error) => {
                tell::refuse(&error);
                if !(args.force && missing(&error)) {
                    code = ExitCode::FAILURE;
                }
                continue;
            }
        }
        if tell::print(&format!("{sandbox}\n")).is_err() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn remove(host: Option<&str>, path: &str) -> Result<(), CallError> {
    Client::new(host).map_err(CallError::Other)?.call("DELETE", path, None).map(|_| ())
}

fn path(sandbox: &str, args: &Args) -> String {
    let query = match (args.link, args.force) {
        (true, _) => "?link=1",
        (false, true) => "?force=1",
        (false, false) => "",
    };
    format!("/portmap/sandboxes/{}{query}", encode(sandbox))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_removed_by_its_path() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let cases = [
            (&["web"][..], "/portmap/sandboxes/web"),
            (&["-f", "web"], "/portmap/sandboxes/web?force=1"),
            (&["-l", "/blog/my_link"], "/portmap/sandboxes/%2Fblog%2Fmy_link?link=1"),
            (&["--link", "-f", "blog/my_link"], "/portmap/sandboxes/blog%2Fmy_link?link=1"),
        ];
        for (words, want) in cases {
            let line = <Line as clap::Parser>::try_parse_from([&["rm"], words].concat()).unwrap();
            assert_eq!(path(&line.args.sandboxes[0], &line.args), want, "{words:?}");
        }
    }
}
