//! The log of a detached command: what it writes, as lines of JSON.
//!
//! An entry is a line with its end, or a part of one where a line is long or the output ends without a new line. Printed one
//! after the other the entries are the output.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::time::SystemTime;

use netcore::model::Timestamp;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::Serialize;

/// A longer line is kept in parts, as Docker does it.
const LONGEST: usize = 16 * 1024;

/// A log, and where it comes from.
pub(crate) struct Log {
    file: File,
    sources: Vec<Source>,
}

struct Source {
    name: &'static str,
    /// `None` after its end.
    from: Option<File>,
    lines: Lines,
}

#[derive(Serialize)]
struct Entry<'a> {
    log: &'a str,
    stream: &'a str,
    time: String,
}

impl Log {
    /// A log that goes on where it ended.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { file, sources: Vec::new() })
    }

    /// Keeps what the child writes to its pipes, if it has some.
    pub(crate) fn read_from(&mut self, child: &mut Child) -> io::Result<()> {
        if let Some(stdout) = child.stdout.take() {
            self.add("stdout", stdout.into())?;
        }
        if let Some(stderr) = child.stderr.take() {
            self.add("stderr", stderr.into())?;
        }
        Ok(())
    }

    /// Keeps what is shown on a terminal.
    pub(crate) fn read_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        self.add("stdout", master)
    }

    fn add(&mut self, name: &'static str, from: OwnedFd) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(&from, FcntlArg::F_GETFL)?);
        fcntl(&from, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        self.sources.push(Source { name, from: Some(from.into()), lines: Lines::default() });
        Ok(())
    }

    /// What to wait for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sources.iter().filter_map(|source| Some(source.from.as_ref()?.as_fd()))
    }

    /// Keeps what there is now.
    pub(crate) fn keep(&mut self) {
        for source in &mut self.sources {
            source.read();
        }
        self.write();
    }

    /// Keeps lines that have no end, too.
    pub(crate) fn finish(&mut self) {
        for source in &mut self.sources {
            source.from = None;
            source.lines.end();
        }
        self.write();
    }

    fn write(&mut self) {
        let time = Timestamp::from(SystemTime::now()).to_string();
        let mut text = Vec::new();
        for source in &mut self.sources {
            while let Some(line) = source.lines.next() {
                let log = String::from_utf8_lossy(&line);
                let entry = Entry { log: &log, stream: source.name, time: time.clone() };
                if serde_json::to_writer(&mut text, &entry).is_ok() {
                    text.push(b'\n');
                }
            }
        }
        if !text.is_empty() {
            // With a full disk the output is lost, but the command isn't held up.
            let _ = self.file.write_all(&text);
        }
    }
}

impl Source {
    fn read(&mut self) {
        let mut buffer = [0; LONGEST];
        // Not for ever: the other source and the signals want their turn.
        for _ in 0..16 {
            let Some(from) = &mut self.from else { return };
            match from.read(&mut buffer) {
                Ok(length @ 1..) => self.lines.add(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A terminal says by an error that nobody has it open any more.
                Ok(_) | Err(_) => self.from = None,
            }
        }
    }
}

/// Cuts output into entries.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
}

impl Lines {
    fn add(&mut self, mut output: &[u8]) {
        while let Some(end) = output.iter().position(|byte| *byte == b'\n') {
            let (line, further) = output.split_at(end + 1);
            self.rest.extend_from_slice(line);
            self.cut();
            self.ready.push_back(std::mem::take(&mut self.rest));
            output = further;
        }
        self.rest.extend_from_slice(output);
        self.cut();
    }

    /// Leaves no more in `rest` than one entry may have.
    fn cut(&mut self) {
        while self.rest.len() > LONGEST {
            let further = self.rest.split_off(whole_characters(&self.rest, LONGEST));
            self.ready.push_back(std::mem::replace(&mut self.rest, further));
        }
    }

    fn end(&mut self) {
        if !self.rest.is_empty() {
            self.ready.push_back(std::mem::take(&mut self.rest));
        }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }
}

/// The largest length up to `most` that cuts no character of UTF-8 in two; other bytes may be cut anywhere.
fn whole_characters(text: &[u8], most: usize) -> usize {
    let continues = |at: usize| text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let cut = (most.saturating_sub(3)..=most).rev().find(|at| !continues(*at));
    cut.filter(|at| *at > 0).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn entries(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        chunks.iter().for_each(|chunk| lines.add(chunk));
        lines.end();
        std::iter::from_fn(|| lines.next()).map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn an_entry_is_a_line() {
        assert_eq!(entries(&[b"one\ntw", b"o\n\nthree"]), ["one\n", "two\n", "\n", "three"]);
        assert!(entries(&[b""]).is_empty());
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let long = "x".repeat(LONGEST - 1);
        assert_eq!(entries(&[long.as_bytes(), b"\n"]), [format!("{long}\n")]);
        assert_eq!(entries(&[long.as_bytes(), b"yz\n"]), [format!("{long}y"), "z\n".to_owned()]);
        let accented = "é".repeat(LONGEST);
        let parts = entries(&[b"x", accented.as_bytes()]);
        assert!(parts.iter().all(|part| part.len() <= LONGEST), "whole characters");
        assert_eq!(parts.concat(), format!("x{accented}"));
    }

    #[test]
    fn what_is_no_text_is_kept_as_replacement_characters() {
        let directory = std::env::temp_dir().join(format!("portmap-log-{}", std::process::id()));
        let mut log = Log::open(&directory).unwrap();
        let (read, mut write) = io::pipe().unwrap();
        log.add("stderr", read.into()).unwrap();
        write.write_all(b"a\xffb\nrest").unwrap();
        log.keep();
        log.finish();
        let text = fs::read_to_string(&directory).unwrap();
        fs::remove_file(&directory).unwrap();
        let logs: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(logs[0]["log"], "a\u{fffd}b\n");
        assert_eq!((&logs[1]["log"], &logs[1]["stream"]), (&"rest".into(), &"stderr".into()));
        assert!(logs[0]["time"].as_str().unwrap().ends_with('Z'));
    }
}
