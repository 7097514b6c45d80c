//! `portmap logs`: what a sandbox's command wrote in the background.
//!
//! The log is a file that its supervisor writes; where that is says the daemon. It is read here, without the daemon.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use netcore::model::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;

use super::tell;
use crate::client::{Client, encode};
use crate::supervise::parse;
use crate::{seconds, to_the_end_or_enough};

/// How often it is asked whether a sandbox still runs whose log doesn't change.
const IDLE: Duration = Duration::from_secs(2);
/// The same after its log was closed: the daemon hears of the end right after that.
const CLOSING: Duration = Duration::from_millis(20);

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Go on with what is written from now on, until the command ends
    #[arg(short, long)]
    follow: bool,

    /// How many lines from the end, or all
    #[arg(short = 'n', long, value_name = "N", default_value = "all", allow_hyphen_values = true)]
    tail: String,

    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,

    /// Only what was written since a time (2026-08-01T10:00:00Z) or for some time (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// A sandbox's name or id
    sandbox: String,
}

/// What is known of the sandbox.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Facts {
    id: String,
    log_path: PathBuf,
    state: State,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    running: bool,
}

/// A line of the file.
#[derive(Debug, Deserialize)]
struct Entry {
    log: String,
    stream: String,
    time: String,
}

/// Which entries are shown, and how.
struct Choice {
    since: Option<String>,
    timestamps: bool,
}

/// Shows the log.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    match show(host, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::refuse(&format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn show(host: Option<&str>, args: &Args) -> Result<()> {
    let tail = tail(&args.tail);
    let since = args.since.as_deref().map(|text| since(text, SystemTime::now())).transpose()?;
    let choice = Choice { since, timestamps: args.timestamps };
    let facts = facts(host, &args.sandbox)?;
    let Some(folder) = facts.log_path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        bail!("the daemon says no log of {}", args.sandbox);
    };
    // Watched before it is read, so that nothing is missed in between.
    let watch = if args.follow { watch(folder)? } else { None };
    let mut log = Reader::open(&facts.log_path)?;
    let mut last = VecDeque::new();
    while let Some(entry) = log.next()? {
        if choice.takes(&entry) {
            last.push_back(entry);
        }
        if tail.is_some_and(|most| last.len() > most) {
            last.pop_front();
        }
        if tail.is_none() && !print(&choice, last.drain(..))? {
            return Ok(());
        }
    }
    if !print(&choice, last.into_iter())? {
        return Ok(());
    }
    match watch {
        Some(watch) if facts.state.running => follow(host, &facts, &mut log, &choice, &watch),
        _ => Ok(()),
    }
}

/// Prints what comes, until the sandbox doesn't run any more.
fn follow(
    host: Option<&str>,
    facts: &Facts,
    log: &mut Reader,
    choice: &Choice,
    watch: &Inotify,
) -> Result<()> {
    let (mut asked, mut pause) = (Instant::now(), IDLE);
    loop {
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        // Interrupted or not: what there is gets printed.
        let _ = poll(&mut ready, timeout);
        let mut gone = false;
        for event in watch.read_events().into_iter().flatten() {
            gone |= event.mask.intersects(AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_IGNORED);
            if event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE) {
                pause = CLOSING;
            }
        }
        // Asked before the rest is read: the rest was written before the end was reported.
        if !gone && asked.elapsed() >= pause {
            gone = !self::facts(host, &facts.id).is_ok_and(|facts| facts.state.running);
            asked = Instant::now();
        }
        log.reopen(&facts.log_path)?;
        while let Some(entry) = log.next()? {
            if choice.takes(&entry) && !print(choice, std::iter::once(entry))? {
                return Ok(());
            }
        }
        if gone {
            return Ok(());
        }
    }
}

fn facts(host: Option<&str>, sandbox: &str) -> Result<Facts> {
    let answer = Client::new(host)?.call("GET", &format!("/containers/{}/json", encode(sandbox)), None)?;
    parse(&answer.body)
}

/// Watches a folder; `None` if it isn't there.
fn watch(folder: &Path) -> Result<Option<Inotify>> {
    let watch =
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("cannot watch files")?;
    let what = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE_SELF;
    Ok(watch.add_watch(folder, what).is_ok().then_some(watch))
}

/// How many entries from the end; `None` is all. Docker takes anything that is no number for all.
fn tail(text: &str) -> Option<usize> {
    text.parse().ok()
}

/// The time in the form that entries are compared in.
fn since(text: &str, now: SystemTime) -> Result<String> {
    if let Ok(age) = seconds::parse(text).or_else(|why| parse_words(text).ok_or(why)) {
        // A large number is a point in time, in seconds since 1970.
        const POINT: Duration = Duration::from_secs(100_000_000);
        let is_point = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && age > POINT;
        let at = if is_point { SystemTime::UNIX_EPOCH + age } else { now.checked_sub(age).unwrap_or(now) };
        return Ok(fixed(&Timestamp::from(at).to_string()));
    }
    let looks_right = text.len() >= "2026-08-01".len()
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"-:.TZ".contains(&byte))
        && text.as_bytes().get(4) == Some(&b'-');
    ensure!(looks_right, "invalid value for \"since\": failed to parse value as time or duration: {text:?}");
    Ok(fixed(text))
}

/// Seconds since 1970, which are too many for a duration.
fn parse_words(text: &str) -> Option<Duration> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// With nine digits behind the point, as Docker prints times; such texts are in the order of the times.
fn fixed(time: &str) -> String {
    let Some(time) = time.strip_suffix('Z') else { return time.to_owned() };
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    format!("{whole}.{fraction:0<9}Z")
}

impl Choice {
    fn takes(&self, entry: &Entry) -> bool {
        self.since.as_ref().is_none_or(|since| fixed(&entry.time) >= *since)
    }
}

/// Prints entries where they were written. Gives whether anybody still reads.
fn print(choice: &Choice, entries: impl Iterator<Item = Entry>) -> Result<bool> {
    for entry in entries {
        let mut text = entry.log;
        if choice.timestamps {
            text = format!("{} {text}", fixed(&entry.time));
        }
        let written = match entry.stream.as_str() {
            "stderr" => io::stderr().lock().write_all(text.as_bytes()),
            _ => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
        };
        if matches!(&written, Err(error) if error.kind() == ErrorKind::BrokenPipe) {
            return Ok(false);
        }
        to_the_end_or_enough(written).context("cannot print")?;
    }
    Ok(true)
}

/// Reads whole lines of a file that grows.
struct Reader {
    file: Option<BufReader<File>>,
    line: Vec<u8>,
}

impl Reader {
    fn open(path: &Path) -> Result<Self> {
        let mut reader = Self { file: None, line: Vec::new() };
        reader.reopen(path)?;
        Ok(reader)
    }

    /// Opens it, if it wasn't there before.
    fn reopen(&mut self, path: &Path) -> Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        match File::open(path) {
            Ok(file) => self.file = Some(BufReader::new(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => bail!("cannot read the log {}: {error}", path.display()),
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        let Some(file) = &mut self.file else { return Ok(None) };
        loop {
            file.read_until(b'\n', &mut self.line).context("cannot read the log")?;
            if self.line.last() != Some(&b'\n') {
                // The rest is still to come.
                return Ok(None);
            }
            let entry = serde_json::from_slice(&self.line);
            self.line.clear();
            // A line that was torn by a crash is no reason to hide the others.
            if let Ok(entry) = entry {
                return Ok(Some(entry));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nine_digits() {
        assert_eq!(fixed("2026-08-01T10:00:00.12Z"), "2026-08-01T10:00:00.120000000Z");
        assert_eq!(fixed("2026-08-01T10:00:00Z"), "2026-08-01T10:00:00.000000000Z");
    }

    #[test]
    fn since_is_a_time_or_a_duration() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_785_578_400);
        let cases = [
            ("2026-08-01T10:00:00Z", Some("2026-08-01T10:00:00.000000000Z")),
            ("2026-08-01", Some("2026-08-01")),
            ("10m", Some("2026-08-01T09:50:00.000000000Z")),
            ("1785578400", Some("2026-08-01T10:00:00.000000000Z")),
            ("yesterday", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(since(text, now).ok().as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn a_line_is_read_when_it_is_whole() {
        let path = std::env::temp_dir().join(format!("portmap-logs-{}", std::process::id()));
        let mut reader = Reader::open(&path).unwrap();
        assert!(reader.next().unwrap().is_none(), "it isn't there yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"torn\n{\"log\":\"a\\n\",\"stream\":\"stdout\",").unwrap();
        reader.reopen(&path).unwrap();
        assert!(reader.next().unwrap().is_none());
        file.write_all(b"\"time\":\"2026-08-01T10:00:00Z\"}\n").unwrap();
        assert_eq!(reader.next().unwrap().unwrap().log, "a\n");
        assert!(reader.next().unwrap().is_none());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn tail_takes_anything_for_all_but_numbers() {
        assert_eq!(["all", "0", "3", "-1"].map(tail), [None, Some(0), Some(3), None]);
    }
}
