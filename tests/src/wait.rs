//! Waiting for something to become true, with a deadline, instead of sleeping and hoping.

use std::time::{Duration, Instant};

/// What anything that should happen at once may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The first `Some` that `attempt` gives within `deadline`.
///
/// # Panics
/// When there is none, naming `what` was waited for.
#[track_caller]
pub fn some<T>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < end, "no {what} within {deadline:?}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Waits until `condition` holds, for [`PATIENCE`].
///
/// # Panics
/// When it doesn't, naming `what` was waited for.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    some(what, PATIENCE, || condition().then_some(()));
}
