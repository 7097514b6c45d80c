//! What a process costs: its CPU clock and its memory, as the kernel accounts them.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// USER_HZ: the same on every architecture we run on.
const TICKS: f64 = 100.0;

/// CPU time of all threads of a process, ended ones included, to the nanosecond: the clock that the ticks in
/// `/proc/PID/stat` are rounded from.
pub(crate) fn cpu_time(pid: Pid) -> nix::Result<Duration> {
    Ok(clock_getcpuclockid(pid)?.now()?.into())
}

/// CPU time of processes and of all below them, also of those that have ended and been waited for: their time the kernel
/// keeps in ticks only.
pub(crate) fn cpu_time_of_trees(roots: &[Pid]) -> nix::Result<Duration> {
    let mut sum = Duration::ZERO;
    for root in roots {
        // The root must be there; what it has forked may end at any time.
        sum += cpu_time(*root)? + ended_children(*root);
        for child in descendants(*root) {
            sum += cpu_time(child).unwrap_or_default() + ended_children(child);
        }
    }
    Ok(sum)
}

/// A process and all below it.
pub(crate) fn tree(root: Pid) -> Vec<Pid> {
    [root].into_iter().chain(descendants(root)).collect()
}

fn descendants(of: Pid) -> Vec<Pid> {
    let mut all = children(of);
    let mut at = 0;
    while let Some(next) = all.get(at).copied() {
        all.extend(children(next));
        at += 1;
    }
    all
}

/// The processes forked by any thread of `parent`; none if it has ended, or if the kernel doesn't tell.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let lists =
        threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| parse_pids(&list)).collect()
}

fn parse_pids(list: &str) -> Vec<Pid> {
    list.split_whitespace().filter_map(|word| word.parse().ok()).map(Pid::from_raw).collect()
}

fn ended_children(of: Pid) -> Duration {
    let ticks = fs::read_to_string(format!("/proc/{of}/stat")).ok().and_then(|stat| children_ticks(&stat));
    Duration::from_secs_f64(ticks.unwrap_or(0) as f64 / TICKS)
}

/// User and system time of the children waited for. The name before may hold anything, but it ends with the last bracket.
fn children_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(13).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
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
    /// Of processes and all below them.
    pub(crate) fn of_trees(roots: &[Pid]) -> anyhow::Result<Self> {
        let mut sum = Self::of(roots)?;
        // What has been forked may end at any time.
        let below = roots.iter().flat_map(|root| descendants(*root));
        below.filter_map(|pid| Self::of_one(pid).ok()).for_each(|one| sum = sum.and(one));
        Ok(sum)
    }

    pub(crate) fn of(pids: &[Pid]) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            sum = sum.and(Self::of_one(*pid)?);
        }
        Ok(sum)
    }

    fn and(self, other: Self) -> Self {
        Self {
            pss: self.pss + other.pss,
            uss: self.uss + other.uss,
            peak_rss: self.peak_rss + other.peak_rss,
        }
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

/// What a process has in memory at present, shared pages included, in KiB.
pub(crate) fn resident(pid: Pid) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    Ok(kib(&status, "VmRSS"))
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
    fn reads_the_time_of_ended_children() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 1 0 99 100 200";
        assert_eq!(children_ticks(stat), Some(15));
        assert_eq!(children_ticks("42 (short) S 1"), None);
    }

    #[test]
    fn a_child_is_below_us() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = tree(nix::unistd::getpid());
        assert!(own.contains(&Pid::from_raw(child.id().cast_signed())), "{own:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn our_own_figures_are_not_nothing() {
        let own = Memory::of(&[nix::unistd::getpid()]).unwrap();
        assert!(own.pss > 0.0 && own.peak_rss >= own.uss && own.uss > 0.0, "{own:?}");
        assert!(own_cpu_time().unwrap() <= cpu_time(nix::unistd::getpid()).unwrap());
    }
}
