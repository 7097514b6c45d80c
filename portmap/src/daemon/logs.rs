//! Log lines, on stderr: where systemd, a terminal, or the file of a daemon started on demand takes them.

use tracing::Level as Tracing;
use tracing_subscriber::filter::LevelFilter;

use super::settings::Level;

/// Begins to log. A second call changes nothing.
pub(super) fn start(level: Level, json: bool) {
    let level = match level {
        Level::Debug => Tracing::DEBUG,
        Level::Info => Tracing::INFO,
        Level::Warn => Tracing::WARN,
        Level::Error => Tracing::ERROR,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::from_level(level))
        .with_writer(std::io::stderr)
        .with_target(false);
    // Either way a logger that is there already stays.
    let _ = if json {
        lines.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        lines.with_ansi(false).try_init()
    };
}
