//! Who takes part in a run: those wanted, as far as they work on this machine.
//!
//! Each is tried with a moment of round trips. Who can't do that, because a program, a flag or something in the kernel
//! is missing, is left out and named in the report; who was asked for by name ends the run instead.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::contenders::{self, Binaries, Contender, NAMES};
use crate::loads;
use crate::rounds;

const LOAD: &str = "rr-1";
const MOMENT: Duration = Duration::from_millis(50);
/// For a machine so busy that nothing happened in a moment.
const SECOND_TRY: Duration = Duration::from_secs(1);

/// The contenders of a run, in the order of `NAMES`.
#[derive(Default)]
pub(crate) struct LineUp {
    pub(crate) contenders: Vec<Box<dyn Contender>>,
    pub(crate) left_out: Vec<LeftOut>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// Those with these names, or the usual ones if there are no names.
pub(crate) fn line_up(names: &[String], binaries: &Binaries) -> anyhow::Result<LineUp> {
    if let Some(name) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        bail!("there is no contender {name:?}: choose from {}", NAMES.join(", "));
    }
    let by_name = !names.is_empty();
    let usual: Vec<&str> = contenders::usual().collect();
    let wanted =
        |name: &str| if by_name { names.iter().any(|one| one == name) } else { usual.contains(&name) };
    let mut line_up = LineUp::default();
    for name in NAMES.into_iter().filter(|name| wanted(name)) {
        match contenders::find(name, binaries).and_then(tried) {
            Ok(contender) => line_up.contenders.push(contender),
            Err(error) if by_name => return Err(error).with_context(|| format!("{name} doesn't work here")),
            Err(error) => {
                let reason = format!("{error:#}");
                // Nobody to tell is no reason to stop.
                let _ = writeln!(std::io::stderr(), "without {name}: {reason}");
                line_up.left_out.push(LeftOut { name: name.to_owned(), reason });
            }
        }
    }
    Ok(line_up)
}

fn tried(contender: Box<dyn Contender>) -> anyhow::Result<Box<dyn Contender>> {
    let load = loads::find(LOAD).context("the load to try with is gone")?;
    let attempt = |time| rounds::measure(load, contender.as_ref(), Duration::ZERO, time);
    attempt(MOMENT).or_else(|_| attempt(SECOND_TRY))?;
    Ok(contender)
}
