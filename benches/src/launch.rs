//! `bench launch`: becomes another program that dies with the harness.
//!
//! Whatever ends the harness, Ctrl-C or a SIGKILL, the kernel then kills its children, and with the last process the
//! namespaces go. So there is no clean-up code that could fail to run.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// This binary, even if it has been replaced on disk since it was started.
const SELF: &str = "/proc/self/exe";
/// A parent outside the child's process namespace, as the child sees it.
const OUTSIDE: &str = "0";

/// The hidden subcommand.
#[derive(Args)]
pub(crate) struct Launch {
    /// Make the program the first process of a process namespace: what it forks ends with it
    #[arg(long)]
    sealed: bool,
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
        if self.sealed {
            return self.run_sealed();
        }
        let error = Command::new(&self.program).args(self.arguments).exec();
        Err(error).with_context(|| format!("can't run {}", self.program.display()))
    }

    /// The program becomes a child, as the namespace begins with the next process; it is tied to us as we are to the
    /// harness, and with it the kernel kills whatever else is in the namespace.
    fn run_sealed(&self) -> anyhow::Result<()> {
        unshare(CloneFlags::CLONE_NEWPID).context("can't make a process namespace")?;
        let status = Command::new(SELF)
            .args(["launch", "--", OUTSIDE])
            .arg(&self.program)
            .args(&self.arguments)
            .status()
            .with_context(|| format!("can't run {}", self.program.display()))?;
        // What it had to say it has said itself.
        std::process::exit(status.code().unwrap_or(1))
    }
}

/// A command that will run `program` tied to this process; to be spawned on a namespace's thread.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(SELF);
    command.args(["launch", "--", &getpid().to_string()]).arg(program);
    command
}

/// The same for a program that forks: its children, too, end when it does or the harness does.
pub(crate) fn sealed_command(program: &Path) -> Command {
    let mut command = Command::new(SELF);
    command.args(["launch", "--sealed", "--", &getpid().to_string()]).arg(program);
    command
}

/// A command for one of this binary's own roles.
pub(crate) fn role(name: &str) -> Command {
    let mut command = command(Path::new(SELF));
    command.arg(name);
    command
}
