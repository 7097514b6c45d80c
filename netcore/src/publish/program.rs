//! What a proxy program can do, found out by asking it for its help text.
//!
//! netproxy takes over any number of sockets, docker-proxy since 28 one, an older one none: it binds the port itself.

use std::fs;
use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A program that doesn't tell by then is taken for one like today's docker-proxy.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one that didn't tell isn't asked again: all that waits for it would wait once more for each port.
const GRUDGE: Duration = Duration::from_secs(30);
/// More than any help text.
const LONGEST_HELP: usize = 64 * 1024;

/// How many sockets a process of the program takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Any number, of a range and on several addresses.
    Many,
    /// One.
    One,
    /// None: it binds its port itself.
    Nothing,
}

/// What was found out, and of which file.
#[derive(Debug, Default)]
pub(super) struct Knowledge(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    of: Option<Stamp>,
    takes: Takes,
    /// Until when, if the program didn't tell.
    until: Option<Instant>,
}

/// Tells one state of a file from another: device, inode, size, time of change in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl Knowledge {
    /// What the program can do now: asked once, and again when another one stands in its place, or some time after it
    /// didn't tell.
    pub(super) fn of(&self, program: &Path) -> Takes {
        let stamp = fs::metadata(program)
            .ok()
            .map(|file| (file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec()));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_good = |until: Option<Instant>| until.is_none_or(|until| Instant::now() < until);
        if let Some(Known { of, takes, until }) = *known
            && of == stamp
            && is_good(until)
        {
            return takes;
        }
        let told = help(program).as_deref().and_then(understood);
        let until = told.is_none().then(|| Instant::now() + GRUDGE);
        let takes = told.unwrap_or(Takes::One);
        *known = Some(Known { of: stamp, takes, until });
        takes
    }
}

/// `None` if this is no help text of a docker-proxy.
fn understood(help: &str) -> Option<Takes> {
    let has = |option: &str| help.contains(option);
    if has("listen-fds") {
        Some(Takes::Many)
    } else if has("use-listen-fd") {
        Some(Takes::One)
    } else {
        has("container-port").then_some(Takes::Nothing)
    }
}

/// What the program says of itself, on either stream.
fn help(program: &Path) -> Option<String> {
    let (mut from, into) = std::io::pipe().ok()?;
    let mut command = Command::new(program);
    command.arg("--help").stdin(Stdio::null()).stdout(into.try_clone().ok()?).stderr(into);
    let mut child = command.spawn().ok()?;
    // It holds our ends of the pipe, which would never come to its end.
    drop(command);
    let text = read_within(&mut from, PATIENCE);
    let _ = child.kill();
    let _ = child.wait();
    Some(text)
}

fn read_within(from: &mut PipeReader, limit: Duration) -> String {
    let deadline = Instant::now() + limit;
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    while text.len() < LONGEST_HELP {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut ready, timeout) {
            Ok(1..) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) | Err(_) => break,
        }
        match from.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.extend(&chunk[..length]),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_texts_tell_what_a_program_takes() {
        let cases = [
            ("  -container-port int\n  -use-listen-fd  x\n  -listen-fds N  y", Some(Takes::Many)),
            ("  -container-port int\n  -use-listen-fd\n", Some(Takes::One)),
            ("Usage of docker-proxy:\n  -container-port int\n", Some(Takes::Nothing)),
            ("sleep: unknown option", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(understood(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_program_that_cannot_be_asked_is_taken_for_todays() {
        let knowledge = Knowledge::default();
        assert_eq!(knowledge.of(Path::new("/nonexistent")), Takes::One);
        assert_eq!(knowledge.of(Path::new("/bin/true")), Takes::One);
        // Not twice.
        let folder = tempfile::tempdir().unwrap();
        let (program, asked) = (folder.path().join("proxy"), folder.path().join("asked"));
        let script = format!("printf '#!/bin/sh\\necho >> {}\\n' > {}", asked.display(), program.display());
        let made =
            Command::new("sh").args(["-c", &format!("{script} && chmod 755 {}", program.display())]).status();
        assert!(made.unwrap().success());
        assert_eq!([knowledge.of(&program), knowledge.of(&program)], [Takes::One; 2]);
        assert_eq!(fs::read_to_string(asked).unwrap(), "\n");
    }
}
