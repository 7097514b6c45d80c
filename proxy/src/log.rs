//! Errors worth a line, on stderr and, with `--log-file`, in a file: dockerd gives its proxies `/dev/null`.
//!
//! Only errors, and each [`Event`] at most once a second with a count of what was held back: a backend that refuses
//! ten thousand connections must not fill a disk.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often one kind of event may be printed.
const INTERVAL: Duration = Duration::from_secs(1);

/// The kinds of trouble, each limited on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A listener could not hand over a connection or datagram.
    Accept,
    /// A client didn't begin as it was to.
    Reject,
    /// The backend could not be reached.
    Dial,
    /// An established connection broke.
    Relay,
    /// A datagram could not be passed on.
    Datagram,
    /// Something the user should know once.
    Notice,
}

const EVENTS: usize = 6;

static FILE: OnceLock<File> = OnceLock::new();
static LIMIT: Mutex<[Limit; EVENTS]> = Mutex::new([Limit { last: None, held: 0 }; EVENTS]);

#[derive(Clone, Copy)]
struct Limit {
    last: Option<Instant>,
    held: u64,
}

impl Limit {
    /// How many lines were held back since the last one, or `None` when this one must be too.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.held += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held))
    }
}

/// Appends to `path` from now on, beside stderr.
///
/// # Errors
/// When the file can't be opened for appending.
pub fn to_file(path: &Path) -> std::io::Result<()> {
    let file = File::options().append(true).create(true).open(path)?;
    let _ = FILE.set(file); // set once, at start
    Ok(())
}

/// Writes one line, unless the same kind was written less than a second ago.
pub fn error(event: Event, message: fmt::Arguments<'_>) {
    let held = {
        let mut limits = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
        match limits[event as usize].admit(Instant::now()) {
            Some(held) => held,
            None => return,
        }
    };
    let more = if held == 0 { String::new() } else { format!(" ({held} more like this)") };
    let _ = writeln!(std::io::stderr(), "netproxy: {message}{more}");
    if let Some(mut file) = FILE.get() {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (secs, millis, pid) = (at.as_secs(), at.subsec_millis(), std::process::id());
        let _ = file.write_all(format!("{secs}.{millis:03} [{pid}] {message}{more}\n").as_bytes());
    }
}

/// `log!(Event::Dial, "…")`: formats only what is printed.
#[macro_export]
macro_rules! log_error {
    ($event:ident, $($arg:tt)*) => {
        $crate::log::error($crate::log::Event::$event, format_args!($($arg)*))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_the_rest_is_counted() {
        let mut limit = Limit { last: None, held: 0 };
        let start = Instant::now();
        assert_eq!(limit.admit(start), Some(0));
        assert_eq!(limit.admit(start + Duration::from_millis(10)), None);
        assert_eq!(limit.admit(start + Duration::from_millis(999)), None);
        assert_eq!(limit.admit(start + Duration::from_secs(1)), Some(2));
        assert_eq!(limit.admit(start + Duration::from_secs(3)), Some(0));
    }
}
