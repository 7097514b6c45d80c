//! Times as Docker writes and reads them: ages in words, durations and instants in filters.

use std::time::Duration;

use netcore::model::{SandboxState, Timestamp};

/// How long something has lasted, in Docker's words.
pub(super) fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    // Go rounds to the nearest hour, and the smaller units down.
    let (minutes, hours) = (seconds / 60, (span.as_secs_f64() / 3600.0 + 0.5).floor());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive count of hours")]
    let hours = hours as u64;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., 0..48) => format!("{hours} hours"),
        (.., 48..336) => format!("{} days", hours / 24),
        (.., 336..1440) => format!("{} weeks", hours / 24 / 7),
        (.., 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// The `STATUS` column of `ps`.
pub(super) fn status(state: &SandboxState, now: Timestamp) -> String {
    match state {
        SandboxState::Created => "Created".to_owned(),
        SandboxState::Running(running) => format!("Up {}", age(since(running.started, now))),
        SandboxState::Exited(exited) => {
            format!("Exited ({}) {} ago", exited.code, age(since(exited.finished, now)))
        }
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(now.nanos().saturating_sub(then.nanos())).unwrap_or(0))
}

/// `until` of prune: a Go duration before now, RFC 3339, or Unix seconds.
pub(super) fn instant(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Some(span) = go_duration(text) {
        return Some(Timestamp::from_nanos(now.nanos().saturating_sub(span)));
    }
    unix_seconds(text).or_else(|| rfc3339(text))
}

/// `seconds` or `seconds.nnnnnnnnn` since 1970.
pub(super) fn unix_seconds(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let magnitude = seconds.strip_prefix('-').unwrap_or(seconds);
    if magnitude.is_empty() || !digits(magnitude) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    let seconds: i64 = seconds.parse().ok()?;
    Some(Timestamp::from_nanos(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

/// `1h30m`, `1.5s`, `-2h`, in nanoseconds.
fn go_duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut nanos = 0.0;
    while {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (digits, behind) = rest.split_at(number);
        let value: f64 = digits.parse().ok()?;
        let unit = behind.len() - behind.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let (unit, behind) = behind.split_at(unit);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos += value * factor;
        rest = behind;
        !rest.is_empty()
    } {}
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float that is too large becomes the largest number"
    )]
    Some((nanos * sign) as i64)
}

/// RFC 3339, also without seconds, time or zone, which then is UTC.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let mut date = date.splitn(3, '-');
    let mut part = || date.next().filter(|text| text.len() >= 2)?.parse::<i64>().ok();
    let (year, month, day) = (part()?, part()?, part()?);
    let (time, offset) = match time.strip_suffix('Z') {
        Some(time) => (time, 0),
        None => match time.rfind(['+', '-']) {
            Some(at) => {
                let sign = if time[at..].starts_with('-') { -1 } else { 1 };
                let (hours, minutes) = time[at + 1..].split_once(':')?;
                (&time[..at], sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60))
            }
            None => (time, 0),
        },
    };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut clock = clock.split(':').map(|text| text.parse::<i64>().ok());
    let (hour, minute, second) =
        (clock.next()??, clock.next().unwrap_or(Some(0))?, clock.next().unwrap_or(Some(0))?);
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..61).contains(&second)
        && (1..=9999).contains(&year);
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    unix_seconds(&format!("{seconds}.{fraction}")).filter(|_| in_range)
}

/// Days from 1970-01-01, in the Gregorian calendar.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that a leap day is the last day of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_dockers_words() {
        const HOUR: u64 = 3600;
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 1799, "About an hour"),
            (HOUR + 1800, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (13 * 24 * HOUR, "13 days"),
            (14 * 24 * HOUR, "2 weeks"),
            (59 * 24 * HOUR, "8 weeks"),
            (60 * 24 * HOUR, "2 months"),
            (729 * 24 * HOUR, "24 months"),
            (730 * 24 * HOUR, "2 years"),
        ];
        for (seconds, want) in cases {
            assert_eq!(age(Duration::from_secs(seconds)), want, "{seconds}");
        }
    }

    #[test]
    fn instants_are_durations_ago_or_dates_or_seconds() {
        let now = Timestamp::from_nanos(1_785_578_400_000_000_000);
        let cases = [
            ("1h30m", Some("2026-08-01T08:30:00Z")),
            ("1.5s", Some("2026-08-01T09:59:58.5Z")),
            ("10ms", Some("2026-08-01T09:59:59.99Z")),
            ("1785578400", Some("2026-08-01T10:00:00Z")),
            ("1785578400.5", Some("2026-08-01T10:00:00.5Z")),
            ("2026-08-01T10:00:00.123456789Z", Some("2026-08-01T10:00:00.123456789Z")),
            ("2026-08-01T12:00:00+02:00", Some("2026-08-01T10:00:00Z")),
            ("2026-08-01T10:00", Some("2026-08-01T10:00:00Z")),
            ("2024-02-29", Some("2024-02-29T00:00:00Z")),
            ("1x", None),
            ("tomorrow", None),
            ("2026-13-01", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(instant(text, now).map(|at| at.to_string()).as_deref(), want, "{text:?}");
        }
    }
}
