//! What netproxy has promised to reach, all of it measured against docker-proxy in the same run.

use std::fmt;

use crate::contenders::{DOCKER_PROXY, NETPROXY};
use crate::loads;
use crate::rounds::Results;
use crate::stats::ratio;

/// One target and what became of it.
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) bound: Bound,
    /// netproxy's figure divided by docker-proxy's; none if either is missing.
    pub(crate) measured: Option<f64>,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Clone, Copy)]
enum Quantity {
    /// Throughput of a load.
    Rate(&'static str),
    /// CPU time for the same work under a load.
    Cpu(&'static str),
    /// PSS of one of many idle proxies.
    IdleMemory,
}

const TARGETS: [(Quantity, Bound); 8] = [
    (Quantity::Rate("bulk-up"), Bound::AtLeast(1.2)),
    (Quantity::Rate("bulk-down"), Bound::AtLeast(1.2)),
    (Quantity::Rate("bulk-8"), Bound::AtLeast(1.2)),
    (Quantity::Cpu("bulk-up"), Bound::AtMost(0.75)),
    (Quantity::Cpu("bulk-down"), Bound::AtMost(0.75)),
    (Quantity::Cpu("bulk-8"), Bound::AtMost(0.75)),
    (Quantity::Rate("rr-64"), Bound::AtLeast(1.3)),
    (Quantity::IdleMemory, Bound::AtMost(1.0 / 3.0)),
];

/// Every target, in a fixed order, whether it was measured or not.
pub(crate) fn targets(results: &Results) -> Vec<Verdict> {
    let verdict = |(quantity, bound): (Quantity, Bound)| Verdict {
        what: quantity.name(),
        bound,
        measured: quantity.measured(results),
    };
    TARGETS.into_iter().map(verdict).collect()
}

impl Quantity {
    fn name(self) -> String {
        let title = |name| loads::find(name).map_or(name, |load| load.title);
        match self {
            Self::Rate(load) => format!("{}: throughput", title(load)),
            Self::Cpu(load) => format!("{}: CPU time for the same work", title(load)),
            Self::IdleMemory => "idle: PSS".to_owned(),
        }
    }

    fn measured(self, results: &Results) -> Option<f64> {
        let of = |contender| match self {
            Self::Rate(load) => results.rate(loads::find(load)?, contender),
            Self::Cpu(load) => results.cpu(loads::find(load)?, contender),
            Self::IdleMemory => results.idle_figure(contender, |idle| idle.memory_each.pss),
        };
        ratio(of(NETPROXY), of(DOCKER_PROXY))
    }
}

impl Verdict {
    pub(crate) fn reached(&self) -> bool {
        self.measured.is_some_and(|measured| self.bound.holds(measured))
    }

    pub(super) fn word(&self) -> &'static str {
        match self.measured {
            None => "not measured",
            Some(_) if self.reached() => "reached",
            Some(_) => "missed",
        }
    }
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {bound:.2}×"),
            Self::AtMost(bound) => write!(f, "≤ {bound:.2}×"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_include_themselves() {
        assert!(Bound::AtLeast(1.2).holds(1.2) && !Bound::AtLeast(1.2).holds(1.19));
        assert!(Bound::AtMost(0.75).holds(0.75) && !Bound::AtMost(0.75).holds(0.76));
    }

    #[test]
    fn every_target_names_a_load_that_exists() {
        for (quantity, _) in TARGETS {
            if let Quantity::Rate(load) | Quantity::Cpu(load) = quantity {
                assert!(loads::find(load).is_some(), "{load}");
            }
        }
    }
}
