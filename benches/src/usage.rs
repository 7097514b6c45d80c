//! What a process costs: its CPU clock and its memory, as the kernel accounts them.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// CPU time of all threads of a process, ended ones included, to the nanosecond: the clock that the ticks in
/// `/proc/PID/stat` are rounded from.
pub(crate) fn cpu_time(pid: Pid) -> nix::Result<Duration> {
    Ok(clock_getcpuclockid(pid)?.now()?.into())
}

/// CPU time of this process.
pub(crate) fn own_cpu_time() -> nix::Result<Duration> {
    Ok(ClockId::CLOCK_PROCESS_CPUTIME_ID.now()?.into())
}

/// Memory of one process, or the sum over the processes of one contender, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Proportional set: private pages plus a share of every page that others map too.
    pub(crate) pss: f64,
    /// Unique set: what ending the process would free.
    pub(crate) uss: f64,
    /// The highest resident set so far.
    pub(crate) peak_rss: f64,
}

impl Memory {
    pub(crate) fn of(pids: &[Pid]) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let one = Self::of_one(*pid)?;
            sum = Self {
                pss: sum.pss + one.pss,
                uss: sum.uss + one.uss,
                peak_rss: sum.peak_rss + one.peak_rss,
            };
        }
        Ok(sum)
    }

    fn of_one(pid: Pid) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("can't read {path}"))
        };
        let (rollup, status) = (read("smaps_rollup")?, read("status")?);
        let uss = ["Private_Clean", "Private_Dirty", "Private_Hugetlb"];
        Ok(Self {
            pss: kib(&rollup, "Pss"),
            uss: uss.iter().map(|key| kib(&rollup, key)).sum(),
            peak_rss: kib(&status, "VmHWM"),
        })
    }
}

/// The value of a `Key:   123 kB` line; 0 if there is none, as the kernel leaves out what a process hasn't.
fn kib(text: &str, key: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_lines() {
        let rollup =
            "55aa-7ffd ---p 00000000 00:00 0   [rollup]\nRss:  3000 kB\nPss:  1204 kB\nPss_Dirty: 77 kB\n";
        assert_eq!(kib(rollup, "Pss"), 1204.0);
        assert_eq!(kib(rollup, "Private_Hugetlb"), 0.0);
    }

    #[test]
    fn our_own_figures_are_not_nothing() {
        let own = Memory::of(&[nix::unistd::getpid()]).unwrap();
        assert!(own.pss > 0.0 && own.peak_rss >= own.uss && own.uss > 0.0, "{own:?}");
        assert!(own_cpu_time().unwrap() <= cpu_time(nix::unistd::getpid()).unwrap());
    }
}
