//! What commands on sandboxes say, and to whom.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::client::CallError;
use crate::supervise::Failure;
use crate::to_the_end_or_enough;

/// Prints to stdout. A reader that has gone has read what it wanted.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    to_the_end_or_enough(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Complains in our own name.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "portmap: {}", harmless(text));
}

/// Says what the daemon said, as Docker's command line does.
pub(crate) fn refuse(error: &impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", harmless(&format!("{error:#}")));
}

/// Complains about a command that wasn't started; gives what to exit with.
pub(crate) fn fail(failure: &Failure) -> ExitCode {
    complain(&failure.message);
    ExitCode::from(failure.code)
}

/// Does the same to each of several: what fails is complained about, and the others are done all the same.
pub(crate) fn each(names: &[String], mut work: impl FnMut(&str) -> Result<(), CallError>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        let done = work(name)
            .and_then(|()| print(&format!("{name}\n")).map_err(|error| CallError::Other(error.into())));
        if let Err(error) = done {
            refuse(&error);
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Messages quote what was typed, whatever that is: they move no cursor.
fn harmless(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}
