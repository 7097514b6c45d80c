//! What netproxy has promised to reach, all of it measured in the same run: mostly against other contenders, as figures
//! of different machines can't be compared; memory in absolute terms.

use super::table::figure;
use crate::contenders::{DIRECT, DOCKER_PROXY, HAPROXY, PORTABLE, URING};
use crate::loads;
use crate::rounds::Results;
use crate::stats::{Summary, ratio};

/// One target and what became of it.
pub(crate) struct Verdict {
    pub(super) who: &'static str,
    target: Target,
    /// A ratio, or the figure itself where the target is absolute; none if something needed is missing.
    value: Option<f64>,
}

#[derive(Clone, Copy)]
struct Target {
    quantity: Quantity,
    bound: Bound,
    against: Against,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Clone, Copy)]
enum Against {
    Contender(&'static str),
    /// The bound is in the quantity's own unit.
    Nobody,
}

#[derive(Clone, Copy)]
enum Quantity {
    /// Throughput of a load.
    Rate(&'static str),
    /// CPU time for the same work under a load.
    Cpu(&'static str),
    P50(&'static str),
    P99(&'static str),
    /// Percent of datagrams.
    Lost(&'static str),
    /// PSS of one of many idle proxies, in KiB.
    IdleMemory,
    /// USS for one of many idle connections, in KiB.
    ConnectionMemory,
}

use Bound::{AtLeast, AtMost};
use Quantity::{ConnectionMemory, Cpu, IdleMemory, Lost, P50, P99, Rate};

const TARGETS: [(&str, &[Target]); 2] = [(PORTABLE, PORTABLE_TARGETS), (URING, URING_TARGETS)];

const PORTABLE_TARGETS: &[Target] = &[
    docker(Rate("bulk-up"), AtLeast(1.2)),
    docker(Rate("bulk-down"), AtLeast(1.2)),
    docker(Rate("bulk-8"), AtLeast(1.2)),
    docker(Cpu("bulk-up"), AtMost(0.75)),
    docker(Cpu("bulk-down"), AtMost(0.75)),
    docker(Cpu("bulk-8"), AtMost(0.75)),
    docker(Rate("rr-64"), AtLeast(1.3)),
    docker(IdleMemory, AtMost(1.0 / 3.0)),
];

const URING_TARGETS: &[Target] = &[
    docker(Rate("bulk-up"), AtLeast(1.3)),
    docker(Rate("bulk-down"), AtLeast(1.3)),
    docker(Rate("bulk-8"), AtLeast(1.3)),
    against(DIRECT, Rate("bulk-up"), AtLeast(0.9)),
    against(DIRECT, Rate("bulk-down"), AtLeast(0.9)),
    against(DIRECT, Rate("bulk-8"), AtLeast(0.9)),
    docker(Cpu("bulk-up"), AtMost(0.6)),
    docker(Cpu("bulk-down"), AtMost(0.6)),
    docker(Cpu("bulk-8"), AtMost(0.6)),
    docker(Rate("rr-64"), AtLeast(2.0)),
    against(HAPROXY, Rate("rr-64"), AtLeast(1.1)),
    docker(P99("rr-64"), AtMost(0.5)),
    against(HAPROXY, P50("rr-1"), AtMost(1.0)),
    docker(Rate("connect"), AtLeast(2.0)),
    docker(Rate("udp-rr-1"), AtLeast(2.0)),
    docker(Rate("udp-rr-16"), AtLeast(2.0)),
    docker(Cpu("udp-rr-1"), AtMost(0.4)),
    docker(Cpu("udp-rr-16"), AtMost(0.4)),
    absolute(Lost("udp-rr-1"), AtMost(0.0)),
    absolute(Lost("udp-rr-16"), AtMost(0.0)),
    absolute(Lost("udp-burst"), AtMost(0.0)),
    docker(P99("mixed"), AtMost(0.5)),
    absolute(IdleMemory, AtMost(150.0)),
    absolute(ConnectionMemory, AtMost(2.0)),
];

const fn docker(quantity: Quantity, bound: Bound) -> Target {
    against(DOCKER_PROXY, quantity, bound)
}

const fn against(contender: &'static str, quantity: Quantity, bound: Bound) -> Target {
    Target { quantity, bound, against: Against::Contender(contender) }
}

const fn absolute(quantity: Quantity, bound: Bound) -> Target {
    Target { quantity, bound, against: Against::Nobody }
}

/// Every target, in a fixed order, whether it was measured or not.
pub(crate) fn targets(results: &Results) -> Vec<Verdict> {
    let verdict = |who, target: Target| Verdict { who, target, value: target.value(results, who) };
    TARGETS.iter().flat_map(|(who, targets)| targets.iter().map(|target| verdict(*who, *target))).collect()
}

impl Target {
    fn value(self, results: &Results, who: &str) -> Option<f64> {
        let own = self.quantity.of(results, who);
        match self.against {
            Against::Contender(name) => ratio(own, self.quantity.of(results, name)),
            Against::Nobody => Some(own?.median),
        }
    }
}

impl Quantity {
    fn name(self) -> String {
        let title = |name| loads::find(name).map_or(name, |load| load.title);
        let latency = |name| loads::find(name).map_or_else(String::new, super::sections::latency_title);
        match self {
            Rate(load) => format!("{}: throughput", title(load)),
            Cpu(load) => format!("{}: CPU time for the same work", title(load)),
            P50(load) => format!("{}: median latency", latency(load)),
            P99(load) => format!("{}: p99 latency", latency(load)),
            Lost(load) => format!("{}: datagrams lost", title(load)),
            IdleMemory => "idle port: PSS".to_owned(),
            ConnectionMemory => "idle connection: user memory".to_owned(),
        }
    }

    /// Of absolute values.
    fn unit(self) -> &'static str {
        match self {
            Rate(_) => "/s",
            Cpu(_) => "s",
            P50(_) | P99(_) => "µs",
            Lost(_) => "%",
            IdleMemory | ConnectionMemory => "KiB",
        }
    }

    fn of(self, results: &Results, contender: &str) -> Option<Summary> {
        match self {
            Rate(load) => results.rate(loads::find(load)?, contender),
            Cpu(load) => results.cpu(loads::find(load)?, contender),
            P50(load) => results.figure(load, contender, |outcome| outcome.measured.p50),
            P99(load) => results.figure(load, contender, |outcome| outcome.measured.p99),
            Lost(load) => results.lost(loads::find(load)?, contender),
            IdleMemory => results.idle_figure(contender, |idle| idle.memory_each.pss),
            ConnectionMemory => results.crowd_figure(contender, crate::crowd::Crowd::memory_each),
        }
    }
}

impl Verdict {
    pub(crate) fn reached(&self) -> bool {
        self.value.is_some_and(|value| self.target.bound.holds(value))
    }

    pub(super) fn word(&self) -> &'static str {
        match self.value {
            None => "not measured",
            Some(_) if self.reached() => "reached",
            Some(_) => "missed",
        }
    }

    pub(super) fn what(&self) -> String {
        self.target.quantity.name()
    }

    pub(super) fn bound(&self) -> String {
        let (sign, bound) = match self.target.bound {
            AtLeast(bound) => ("≥", bound),
            AtMost(bound) => ("≤", bound),
        };
        match self.target.against {
            Against::Contender(name) => format!("{sign} {bound:.2}× {name}"),
            Against::Nobody => format!("{sign} {} {}", figure(bound), self.target.quantity.unit()),
        }
    }

    pub(super) fn measured(&self) -> String {
        match (self.value, self.target.against) {
            (None, _) => "–".to_owned(),
            (Some(value), Against::Contender(_)) => format!("{value:.2}×"),
            (Some(value), Against::Nobody) => format!("{} {}", figure(value), self.target.quantity.unit()),
        }
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            AtLeast(bound) => value >= bound,
            AtMost(bound) => value <= bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_include_themselves() {
        assert!(AtLeast(1.2).holds(1.2) && !AtLeast(1.2).holds(1.19));
        assert!(AtMost(0.75).holds(0.75) && !AtMost(0.75).holds(0.76));
    }

    #[test]
    fn every_target_names_a_load_that_exists_and_is_in_a_quick_run() {
        for target in TARGETS.iter().flat_map(|(_, targets)| targets.iter()) {
            if let Rate(load) | Cpu(load) | P50(load) | P99(load) | Lost(load) = target.quantity {
                let found = loads::find(load);
                assert!(found.is_some_and(|load| load.weight == loads::Weight::Main), "{load}");
            }
        }
    }
}
