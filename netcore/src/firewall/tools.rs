//! Runs `nft` and `iptables-restore`: text in, text out, within a time.
//!
//! A child starts in the network namespace of the thread that calls, and so does its effect.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than `iptables -w 5` waits for the lock of somebody else, and than any rule set takes to load.
const LIMIT: Duration = Duration::from_secs(20);
/// Where these tools are, also for callers whose PATH is a plain user's.
const SYSTEM_PATH: &str = ":/usr/local/sbin:/usr/sbin:/sbin";

/// Something that runs the firewall's tools: the host, or a test's stand-in.
pub trait Tools {
    /// Runs `program` with `input` on its standard input and returns what it wrote.
    ///
    /// # Errors
    /// If it isn't there, refuses, or takes too long.
    fn run(&mut self, program: &'static str, arguments: &[&str], input: &str) -> Result<String, ToolError>;
}

impl<T: Tools + ?Sized> Tools for Box<T> {
    fn run(&mut self, program: &'static str, arguments: &[&str], input: &str) -> Result<String, ToolError> {
        (**self).run(program, arguments, input)
    }
}

/// The tools that are installed on this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostTools;

/// Why a tool didn't do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// Not installed.
    #[error(
        "{program}: command not found (install the package that brings it, choose another --firewall-backend, or do without rules by --iptables=false)"
    )]
    NotFound {
        /// The tool.
        program: &'static str,
    },
    /// It couldn't be started or talked to.
    #[error("running {program} failed")]
    Io {
        /// The tool.
        program: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// It answered with an error; nothing has changed.
    #[error("{program} failed: {stderr}")]
    Refused {
        /// The tool.
        program: &'static str,
        /// Its words, with the numbers of lines.
        stderr: String,
    },
    /// It was killed after too long.
    #[error("{program} gave no answer within {limit:?}")]
    TimedOut {
        /// The tool.
        program: &'static str,
        /// How long it had.
        limit: Duration,
    },
}

impl Tools for HostTools {
    fn run(&mut self, program: &'static str, arguments: &[&str], input: &str) -> Result<String, ToolError> {
        run(program, arguments, input, LIMIT)
    }
}

pub(super) fn run(
    program: &'static str,
    arguments: &[&str],
    input: &str,
    limit: Duration,
) -> Result<String, ToolError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ToolError::NotFound { program },
        _ => ToolError::Io { program, source },
    };
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    path.push(SYSTEM_PATH);
    let deadline = Instant::now() + limit;
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (said, answers) = mpsc::channel();
    // Threads, because each of the three pipes may fill. They end with the child; one that its own children hold open is
    // left behind.
    let input = input.to_owned();
    thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
    let complaints = said.clone();
    thread::spawn(move || complaints.send((true, read_all(stderr))));
    thread::spawn(move || said.send((false, read_all(stdout))));
    let (mut out, mut err) = (String::new(), String::new());
    let mut complete = true;
    for _ in 0..2 {
        match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((true, text)) => err = text,
            Ok((false, text)) => out = text,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                complete = false;
                break;
            }
        }
    }
    // Half an output is none, even of a child that succeeded.
    let status = if complete { ended(&mut child, deadline).map_err(failed)? } else { None };
    let Some(status) = status else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(ToolError::TimedOut { program, limit });
    };
    if status.success() {
        return Ok(out);
    }
    let words = err.trim();
    let stderr = if words.is_empty() { status.to_string() } else { words.to_owned() };
    Err(ToolError::Refused { program, stderr })
}

/// How a child ended, if it did by then. Its output is at an end already, so it rarely has to be asked twice.
fn ended(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn read_all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
