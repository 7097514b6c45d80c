//! A command in a sandbox: what surrounds it, how it is started, and how what it leaves behind ends.
//!
//! [`Surroundings`] become a list of steps that the child makes between fork and exec; a step that fails is named in the
//! error. What the command sees of the host is the host's, but for its network stack, its hostname, and the three files
//! that say who it and the others are.
//!
//! The child dies with the thread that started it: call [`spawn`] from one that lives as long as the command shall.
//!
//! Not here: who waits for the command, passes signals on and keeps its output (the command line), and what is in the
//! files (the controller).

mod error;
mod leftovers;
mod mounts;
mod terminal;

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::kernel::enter::{self, Failure, Step};

pub use error::SpawnError;
pub use leftovers::{Inhabitants, Leftovers, is_apart};
pub use mounts::Mounts;
pub use terminal::Terminal;

/// Where the files of a sandbox are laid.
const HOSTS: &str = "/etc/hosts";
const HOSTNAME: &str = "/etc/hostname";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What surrounds a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surroundings {
    /// A sandbox with a mount and a UTS namespace of its own.
    Own {
        /// Its network namespace; `None` is that of whoever starts it.
        netns: Option<PathBuf>,
        /// Its hostname.
        hostname: String,
        /// Its NIS domain name; empty for none.
        domainname: String,
        /// The files that are laid over the host's.
        files: Files,
    },
    /// A sandbox that has the network stack, the files and the names of another one. What it mounts stays its own.
    Shared {
        /// The network namespace; `None` is that of whoever starts it.
        netns: Option<PathBuf>,
        /// A process of the other sandbox.
        with: u32,
    },
    /// Those of this process, as they are.
    Of(u32),
}

/// Files that are laid over those of the host. `None` leaves the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Laid over `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// Laid over `/etc/hostname`.
    pub hostname: Option<PathBuf>,
    /// Laid over `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
}

/// What is to run.
#[derive(Debug)]
pub struct Program {
    /// The program, found by the `PATH` of `env`, and its arguments.
    pub command: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it starts; absolute.
    pub directory: PathBuf,
    /// Whose session it is in.
    pub session: Session,
    /// Its stdin, stdout and stderr.
    pub stdio: [Stdio; 3],
}

/// Which session, and so which terminal, a command belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// That of whoever starts it, in the same process group: what a terminal's keys send reaches both. Where SIGHUP,
    /// SIGINT or SIGQUIT are ignored (nohup, jobs in the background) they stay so.
    Shared,
    /// One of its own, without a terminal.
    Own,
    /// One of its own; stdin is its terminal.
    OwnWithTerminal,
}

/// Starts a program.
///
/// # Errors
/// Says which step failed, or what is wrong with the program.
pub fn spawn(program: Program, surroundings: &Surroundings) -> Result<Child, SpawnError> {
    spawn_in(program, surroundings, None)
}

/// As [`spawn`], where a mount namespace of its own has been prepared.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_in(
    program: Program,
    surroundings: &Surroundings,
    mounts: Option<Mounts>,
) -> Result<Child, SpawnError> {
    let Program { command, env, directory, session, stdio: [stdin, stdout, stderr] } = program;
    let Some((name, arguments)) = command.split_first().filter(|(name, _)| !name.is_empty()) else {
        return Err(SpawnError::NoCommand);
    };
    let mut steps = surroundings.steps(mounts)?;
    steps.extend(session.steps());
    steps.push(Step::Directory(c_string(&directory)?));
    steps.push(Step::Signals(session.kept()));
    let told: Vec<String> = steps.iter().map(error::describe).collect();

    // Whoever starts us may have SIGCHLD ignored; then nobody would learn how a child ended.
    crate::kernel::child::expect_ends();
    let mut child = Command::new(name);
    child.args(arguments).env_clear().envs(env).stdin(stdin).stdout(stdout).stderr(stderr);
    enter::spawn(child, steps).map_err(|failure| match failure {
        Failure::Fork(cause) => SpawnError::Fork(cause),
        Failure::Step(at, cause) if told.get(at).is_some_and(|_| at + 2 == told.len()) => {
            SpawnError::Directory { path: directory, cause }
        }
        Failure::Step(at, cause) => {
            SpawnError::Step { what: told.get(at).cloned().unwrap_or_default(), cause }
        }
        Failure::Exec(cause) => SpawnError::of_exec(name, cause),
    })
}

/// Whether this process ignores a signal, given by its number: `nohup` and shells' `&` make it so.
pub fn is_ignored(signal: i32) -> bool {
    enter::is_ignored(signal)
}

impl Surroundings {
    fn steps(&self, mounts: Option<Mounts>) -> Result<Vec<Step>, SpawnError> {
        const OWN: libc::c_int = libc::CLONE_NEWNS | libc::CLONE_NEWUTS;
        let mut steps = Vec::new();
        match self {
            Self::Own { netns, hostname, domainname, files } => {
                steps.extend(netns.as_deref().map(network).transpose()?);
                match mounts.and_then(Mounts::steps) {
                    Some(prepared) => {
                        steps.extend(prepared);
                        steps.push(Step::Unshare(libc::CLONE_NEWUTS));
                    }
                    None => steps.extend([Step::Unshare(OWN), Step::Slave]),
                }
                for (source, target) in files.pairs() {
                    steps.push(Step::Cover { source: c_string(source)?, target: c_string(target)? });
                }
                steps.push(Step::Hostname(hostname.clone()));
                steps.push(Step::Domainname(domainname.clone()));
            }
            Self::Shared { netns, with } => {
                steps.extend(netns.as_deref().map(network).transpose()?);
                steps.push(Step::Join(process(*with)?, OWN));
                steps.push(Step::Unshare(libc::CLONE_NEWNS));
                steps.push(Step::Slave);
            }
            Self::Of(pid) => steps.push(Step::Join(process(*pid)?, OWN | libc::CLONE_NEWNET)),
        }
        Ok(steps)
    }
}

impl Files {
    fn pairs(&self) -> impl Iterator<Item = (&Path, &'static Path)> {
        let pairs = [(&self.hosts, HOSTS), (&self.hostname, HOSTNAME), (&self.resolv_conf, RESOLV_CONF)];
        pairs.into_iter().filter_map(|(source, target)| Some((source.as_deref()?, Path::new(target))))
    }
}

impl Session {
    fn steps(self) -> Vec<Step> {
        match self {
            Self::Shared => vec![],
            Self::Own => vec![Step::Session],
            Self::OwnWithTerminal => vec![Step::Session, Step::Terminal],
        }
    }

    /// The signals whose actions it doesn't reset.
    const fn kept(self) -> &'static [libc::c_int] {
        match self {
            Self::Shared => &[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT],
            Self::Own | Self::OwnWithTerminal => &[],
        }
    }
}

fn network(path: &Path) -> Result<Step, SpawnError> {
    let file = File::open(path).map_err(|cause| SpawnError::Namespace { path: path.to_owned(), cause })?;
    Ok(Step::Join(file.into(), libc::CLONE_NEWNET))
}

fn process(pid: u32) -> Result<OwnedFd, SpawnError> {
    enter::open_process(pid).map_err(|cause| SpawnError::Process { pid, cause })
}

fn c_string(path: &Path) -> Result<CString, SpawnError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| SpawnError::Path(path.to_owned()))
}

/// Refuses a path that isn't a network namespace.
///
/// # Errors
/// If it can't be opened, or is something else.
pub fn check_namespace(path: &Path) -> Result<(), SpawnError> {
    let of = |cause| SpawnError::Namespace { path: path.to_owned(), cause };
    // Opened without waiting: it might be a pipe.
    let file = fs::OpenOptions::new();
    let file = nonblocking(file).open(path).map_err(of)?;
    match enter::namespace_kind(&file) {
        Some(libc::CLONE_NEWNET) => Ok(()),
        _ => Err(of(io::Error::other("not a network namespace"))),
    }
}

fn nonblocking(mut options: fs::OpenOptions) -> fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}
