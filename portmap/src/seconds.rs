//! Times on the command line and in the environment, written as netproxy takes them: `10`, `0.5`, `500ms`, `2m`, `1h`.

use std::time::Duration;

/// The proxy's limit too: no clock overflows.
const YEAR: f64 = 365.0 * 86_400.0;

/// Reads a time.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let with_unit = UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (number, unit) = with_unit.unwrap_or((text, 1.0));
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match number.parse::<f64>().ok().filter(|_| plain).map(|number| number * unit) {
        Some(seconds) if seconds <= YEAR => Ok(Duration::from_secs_f64(seconds)),
        Some(_) => Err("more than a year".to_owned()),
        None => Err("seconds are needed, like 10, 0.5, 500ms or 2m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_what_a_number_means_and_units_are_optional() {
        let cases = [("10", 10_000), ("0", 0), ("0.5", 500), ("250ms", 250), ("3s", 3_000), ("2m", 120_000)];
        for (text, millis) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text:?}");
        }
        for text in ["", ".", "s", "-1", "+1", "1e3", "inf", "nan", "10x", "1..2", " 1"] {
            assert!(parse(text).unwrap_err().starts_with("seconds are needed"), "{text:?}");
        }
        assert_eq!(parse("9999h"), Err("more than a year".to_owned()));
    }
}
