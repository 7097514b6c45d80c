//! A child process: killed with its whole group when the handle goes, waited for with a deadline, its output kept.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::wait::{self, PATIENCE};

/// A running (or ended) program.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    /// For messages.
    program: String,
    stdout: File,
    stderr: File,
}

impl Proc {
    /// Starts it in a process group of its own, from the calling thread (and so in its namespace), with nothing on
    /// stdin and its output kept.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        // Files, not pipes: nobody has to empty them, and what was said can be read at any time.
        let (stdout, out) = kept();
        let (stderr, err) = kept();
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().unwrap_or_else(|e| panic!("can't start {command:?}: {e}"));
        Self { child, program, stdout, stderr }
    }

    /// Starts it with a terminal as its stdin, stdout and stderr.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn on_terminal(command: &mut Command, terminal: OwnedFd) -> Self {
        let copy = || terminal.try_clone().expect("a second handle");
        command.stdin(copy()).stdout(copy()).stderr(copy()).process_group(0);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().unwrap_or_else(|e| panic!("can't start {command:?}: {e}"));
        Self { child, program, stdout: kept().0, stderr: kept().0 }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone.
    ///
    /// # Panics
    /// When the process has been waited for already.
    pub fn signal(&self, signal: Signal) {
        kill(self.nix_pid(), signal).unwrap_or_else(|e| panic!("{}: {signal}: {e}", self.program));
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When the kernel can't tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    /// Waits for its end, for [`PATIENCE`].
    ///
    /// # Panics
    /// When it goes on.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_for(PATIENCE)
    }

    /// Waits for its end, for `deadline`.
    ///
    /// # Panics
    /// When it goes on.
    #[track_caller]
    pub fn wait_for(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("end of {}", self.program);
        wait::some(&what, deadline, || self.ended())
    }

    /// Waits for its end and says in numbers how it was: the exit code, or minus the signal.
    ///
    /// # Panics
    /// When it goes on.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        let status = self.wait();
        status.code().or_else(|| status.signal().map(|s| -s)).expect("ended either way")
    }

    /// What it wrote to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it wrote to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// How many descriptors it has open.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let listing = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        listing.expect("the process lives").count()
    }

    /// How many of them are ends of pipes.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pipe_ends(&self) -> usize {
        let listing = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the process lives");
        let links = listing.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("pipe:")).count()
    }

    /// How many threads it has.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn threads(&self) -> usize {
        let listing = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
        listing.expect("the process lives").count()
    }

    /// The processor time it has used so far.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process lives");
        // The name in parentheses may hold anything; user and system time are fields 14 and 15, state is 3.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|n| u64::try_from(n).ok());
        Duration::from_millis(ticks * 1000 / per_second.unwrap_or(100))
    }

    /// The processor time it uses during the next `span`, as a share of one core.
    ///
    /// # Panics
    /// When it ends meanwhile.
    #[must_use]
    pub fn load_over(&self, span: Duration) -> f64 {
        let (before, started) = (self.cpu_time(), Instant::now());
        std::thread::sleep(span);
        (self.cpu_time() - before).as_secs_f64() / started.elapsed().as_secs_f64()
    }

    /// Resident memory, in bytes.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kib| kib * 1024)
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id is positive"))
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // The group first: once waited for, its number may belong to somebody else.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = killpg(self.nix_pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{} said: {}{}", self.program, self.stdout(), self.stderr());
        }
    }
}

/// Lets this process have as many descriptors as it may: a test that plays a thousand clients needs them.
pub fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// A nameless file: one handle to read it, one to write to.
fn kept() -> (File, File) {
    let file = tempfile::tempfile().expect("a temporary file");
    let other = file.try_clone().expect("a second handle");
    (file, other)
}

fn read(file: &File) -> String {
    let length = file.metadata().map_or(0, |m| m.len());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    // By position: reading must not move the writer's offset, which is the same.
    let read: io::Result<()> = file.read_exact_at(&mut bytes, 0);
    read.expect("what was written can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
