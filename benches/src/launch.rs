//! `bench launch`: becomes another program that dies with the harness.
//!
//! Whatever ends the harness, Ctrl-C or a SIGKILL, the kernel then kills its children, and with the last process the
//! namespaces go. So there is no clean-up code that could fail to run.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// This binary, even if it has been replaced on disk since it was started.
const SELF: &str = "/proc/self/exe";

/// The hidden subcommand.
#[derive(Args)]
pub(crate) struct Launch {
    /// The harness: if it isn't our parent any more, it is too late to be killed with it
    parent: i32,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Launch {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("can't tie our life to the harness's")?;
        if getppid().as_raw() != self.parent {
            bail!("the harness is gone");
        }
        let error = Command::new(&self.program).args(self.arguments).exec();
        Err(error).with_context(|| format!("can't run {}", self.program.display()))
    }
}

/// A command that will run `program` tied to this process; to be spawned on a namespace's thread.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(SELF);
    command.args(["launch", "--", &getpid().to_string()]).arg(program);
    command
}

/// The same for one of this binary's own roles.
pub(crate) fn role(name: &str) -> Command {
    let mut command = command(Path::new(SELF));
    command.arg(name);
    command
}
