//! Times in words: how long ago, as Docker says it, and a date as Go prints it.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// `5 minutes`, `About an hour`: the age of something, rounded as Docker rounds it.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    // Hours are rounded to the nearest, everything else is cut off.
    let hours = (seconds + HOUR / 2) / HOUR;
    match (seconds, hours) {
        (0, _) => "Less than a second".to_owned(),
        (1, _) => "1 second".to_owned(),
        (s, _) if s < MINUTE => format!("{s} seconds"),
        (s, _) if s < 2 * MINUTE => "About a minute".to_owned(),
        (s, _) if s < HOUR => format!("{} minutes", s / MINUTE),
        (_, 1) => "About an hour".to_owned(),
        (_, h) if h < 48 => format!("{h} hours"),
        (_, h) if h < 24 * 7 * 2 => format!("{} days", h / 24),
        (_, h) if h < 24 * 30 * 2 => format!("{} weeks", h / 24 / 7),
        (_, h) if h < 24 * 365 * 2 => format!("{} months", h / 24 / 30),
        (s, _) => format!("{} years", s / HOUR / 24 / 365),
    }
}

/// `5 minutes ago`.
pub(crate) fn ago(since: Duration) -> String {
    format!("{} ago", age(since))
}

/// Turns the API's `2026-08-01T10:00:00.12Z` into what Go prints of a time: `2026-08-01 10:00:00.12 +0000 UTC`. Anything
/// else comes back as it is.
pub(crate) fn go(rfc3339: &str) -> String {
    let Some((date, time)) = rfc3339.split_once('T') else { return rfc3339.to_owned() };
    if let Some(time) = time.strip_suffix('Z') {
        return format!("{date} {time} +0000 UTC");
    }
    let Some(sign) = time.rfind(['+', '-']) else { return rfc3339.to_owned() };
    let (time, zone) = time.split_at(sign);
    let zone = zone.replace(':', "");
    format!("{date} {time} {zone} {zone}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{age, ago, go};

    #[test]
    fn ages_are_in_dockers_words() {
        const DAY: u64 = 86_400;
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (59 * 60, "59 minutes"),
            (60 * 60, "About an hour"),
            (89 * 60, "About an hour"),
            (90 * 60, "2 hours"),
            (47 * 3600, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
            (36_500 * DAY, "100 years"),
        ];
        for (seconds, want) in cases {
            assert_eq!(age(Duration::from_secs(seconds)), want, "{seconds}");
        }
        assert_eq!(ago(Duration::from_millis(120_999)), "2 minutes ago");
    }

    #[test]
    fn dates_look_as_go_prints_them() {
        let cases = [
            ("2026-08-01T10:00:00.12Z", "2026-08-01 10:00:00.12 +0000 UTC"),
            ("2026-08-01T10:00:00+02:00", "2026-08-01 10:00:00 +0200 +0200"),
            ("", ""),
            ("soon", "soon"),
        ];
        for (text, want) in cases {
            assert_eq!(go(text), want);
        }
    }
}
