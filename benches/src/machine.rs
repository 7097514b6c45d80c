//! Where and when a run took place: without that, figures can't be compared.

use std::fs;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::topology;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// UTC, `2026-01-31 23:59:59`.
    pub(crate) date: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// Of the namespaces measured in.
    pub(crate) congestion_control: String,
    pub(crate) mtu: u32,
    /// The harness's own version.
    pub(crate) bench: String,
}

impl Machine {
    pub(crate) fn describe() -> anyhow::Result<Self> {
        let release = "/proc/sys/kernel/osrelease";
        let kernel = fs::read_to_string(release).with_context(|| format!("can't read {release}"))?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        Ok(Self {
            date: date(since_1970.as_secs()),
            kernel: kernel.trim().to_owned(),
            cpu: fs::read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|text| cpu_model(&text))
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: thread::available_parallelism()?.get(),
            congestion_control: topology::CONGESTION_CONTROL.to_owned(),
            mtu: topology::MTU,
            bench: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

/// Not every architecture has the line.
fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Counts years from the first of March, so that the leap day comes last and months have regular lengths.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let since_year_0 = days + 719_468;
    let (era, of_era) = (since_year_0 / 146_097, since_year_0 % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_based = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_based + 2) / 5 + 1;
    let month = if march_based < 10 { march_based + 3 } else { march_based - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let cases = [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (1_798_761_599, "2026-12-31 23:59:59"),
        ];
        for (seconds, want) in cases {
            assert_eq!(date(seconds), want);
        }
    }

    #[test]
    fn cpu_models() {
        assert_eq!(
            cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n").as_deref(),
            Some("Some CPU @ 3 GHz")
        );
        assert_eq!(cpu_model("processor : 0\n"), None);
    }
}
