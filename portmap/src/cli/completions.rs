//! `portmap completions SHELL|man`: what packages ship besides the program, made from the command line's own description.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Command, ValueEnum};
use clap_complete::Shell;

use crate::to_the_end_or_enough;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// For which shell; 'man' writes manual pages instead
    #[arg(value_name = "SHELL", value_enum)]
    kind: Kind,

    /// The folder that manual pages are written to
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
    Man,
}

/// Prints completions of `tree`, or writes its manual pages.
pub(crate) fn run(args: &Args, tree: Command) -> ExitCode {
    match make(args, tree) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "portmap: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn make(args: &Args, tree: Command) -> Result<()> {
    let shell = match args.kind {
        Kind::Bash => Shell::Bash,
        Kind::Elvish => Shell::Elvish,
        Kind::Fish => Shell::Fish,
        Kind::Powershell => Shell::PowerShell,
        Kind::Zsh => Shell::Zsh,
        Kind::Man => {
            let cannot = || format!("cannot write manual pages to {}", args.folder.display());
            fs::create_dir_all(&args.folder).with_context(cannot)?;
            return clap_mangen::generate_to(tree, &args.folder).with_context(cannot);
        }
    };
    to_the_end_or_enough(io::stdout().lock().write_all(&script(shell, tree))).context("cannot print")
}

fn script(shell: Shell, mut tree: Command) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut tree, "portmap", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Cli;

    #[test]
    fn completions_know_the_commands_and_their_flags() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let script = String::from_utf8(script(shell, Cli::command())).unwrap();
            for word in ["network", "disconnect", "aux-address"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
