//! Values as Go's `flag` and `strconv` read them, and the few types of our own.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::cidr::{BadCidr, Cidr};
use crate::tcp::proxy_protocol::Version;

/// Go's word for any number it can't read.
const PARSE_ERROR: &str = "parse error";

/// Go's `strconv.ParseBool`.
pub(super) fn boolean(s: &str) -> Result<bool, String> {
    match s {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(PARSE_ERROR.to_owned()),
    }
}

/// An address without a zone: a listening or target address is never link-local in docker-proxy's contract.
pub(super) fn ip(s: &str) -> Result<IpAddr, String> {
    s.parse().map_err(|_| format!("invalid IP address: {s}"))
}

/// `N` or `N-M`, each as Go's base-0 integers.
pub(super) fn int_range(s: &str) -> Result<(i64, i64), String> {
    if let Some(n) = int(s) {
        return Ok((n, n));
    }
    s.split_once('-').and_then(|(a, b)| Some((int(a)?, int(b)?))).ok_or_else(|| PARSE_ERROR.to_owned())
}

/// Go's `strconv.ParseInt(s, 0, 64)`: sign, base prefix, and `_` between digits or after the prefix.
fn int(s: &str) -> Option<i64> {
    let (negative, digits) = match s.as_bytes().first()? {
        b'-' => (true, &s[1..]),
        b'+' => (false, &s[1..]),
        _ => (false, s),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // An underscore stands between digits; a base prefix counts as one.
    let after_prefix = body.len() < lower.len();
    if body.ends_with('_') || body.contains("__") || (body.starts_with('_') && !after_prefix) {
        return None;
    }
    let plain = body.replace('_', "");
    if plain.starts_with(['+', '-']) {
        return None; // `from_str_radix` would take a second sign
    }
    let signed = if negative { format!("-{plain}") } else { plain };
    i64::from_str_radix(&signed, radix).ok()
}

/// A number from 1 up.
pub(super) fn count(s: &str) -> Result<NonZeroUsize, String> {
    s.parse().map_err(|_| "a whole number from 1 up is needed".to_owned())
}

/// Seconds, whole or decimal, or a number with `ms`, `s`, `m` or `h`. At most a year, so that no clock overflows.
pub(super) fn duration(s: &str) -> Result<Duration, String> {
    const YEAR: f64 = 365.0 * 86_400.0;
    let (number, unit) = match s {
        _ if s.ends_with("ms") => (&s[..s.len() - 2], 0.001),
        _ if s.ends_with('s') => (&s[..s.len() - 1], 1.0),
        _ if s.ends_with('m') => (&s[..s.len() - 1], 60.0),
        _ if s.ends_with('h') => (&s[..s.len() - 1], 3600.0),
        _ => (s, 1.0),
    };
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds = plain.then(|| number.parse::<f64>().ok()).flatten().map(|n| n * unit);
    match seconds {
        Some(seconds) if seconds <= YEAR => Ok(Duration::from_secs_f64(seconds)),
        Some(_) => Err("more than a year".to_owned()),
        None => Err("seconds are needed, like 10, 0.5, 500ms or 2m".to_owned()),
    }
}

/// A duration longer than nothing.
pub(super) fn positive_duration(s: &str) -> Result<Duration, String> {
    match duration(s)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        d => Ok(d),
    }
}

/// Values separated by commas, at least one.
pub(super) fn list<T>(s: &str, one: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    s.split(',').map(|item| one(item.trim())).collect()
}

/// A network, or a single address.
pub(super) fn cidr(s: &str) -> Result<Cidr, String> {
    s.parse().map_err(|bad: BadCidr| bad.to_string())
}

/// An address to connect from: a certain one.
pub(super) fn source_ip(s: &str) -> Result<IpAddr, String> {
    match ip(s)?.to_canonical() {
        any if any.is_unspecified() => Err(format!("{any} is any address, a certain one is needed")),
        certain => Ok(certain),
    }
}

/// A version of the PROXY protocol.
pub(super) fn version(s: &str) -> Result<Version, String> {
    match s {
        "v1" => Ok(Version::V1),
        "v2" => Ok(Version::V2),
        _ => Err("v1 or v2 is needed".to_owned()),
    }
}

/// Any path but the empty one.
pub(super) fn path(s: &str) -> Result<PathBuf, String> {
    if s.is_empty() { Err("a path is needed".to_owned()) } else { Ok(PathBuf::from(s)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_as_go_reads_them() {
        let cases: &[(&str, Option<i64>)] = &[
            ("80", Some(80)),
            ("+80", Some(80)),
            ("-1", Some(-1)),
            ("0x50", Some(80)),
            ("0X50", Some(80)),
            ("0o120", Some(80)),
            ("0120", Some(80)),
            ("0b1010000", Some(80)),
            ("8_0", Some(80)),
            ("0x_50", Some(80)),
            ("0_120", Some(80)),
            ("0", Some(0)),
            ("-0", Some(0)),
            ("", None),
            ("_80", None),
            ("80_", None),
            ("8__0", None),
            ("0x", None),
            ("08", None),
            ("0x-5", None),
            ("+-5", None),
            (" 80", None),
            ("80.0", None),
            ("99999999999999999999", None),
        ];
        for (text, want) in cases {
            assert_eq!(int(text), *want, "{text:?}");
        }
    }

    #[test]
    fn ranges_of_integers() {
        assert_eq!(int_range("7000-7999"), Ok((7000, 7999)));
        assert_eq!(int_range("-1"), Ok((-1, -1)));
        assert_eq!(int_range("0x50-0x51"), Ok((80, 81)));
        for bad in ["", "-", "7000-", "-7000-", "a-b", "1-2-3x"] {
            assert!(int_range(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "s", "-1", "inf", "nan", "1e9", "10x", "1..2", "99999h"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        assert!(positive_duration("0").is_err());
    }
}
