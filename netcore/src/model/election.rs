//! Which of a sandbox's networks provides the default route, and in which order they count.
//!
//! The same order decides which network answers an unqualified name first, and is a stable one to number interfaces by.

use std::cmp::Ordering;

/// What the election looks at: one endpoint of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The network's name.
    pub network: &'a str,
    /// `--gw-priority`.
    pub gw_priority: i32,
    /// The helper network that gives overlay endpoints a way out; it yields to all that were asked for.
    pub helper: bool,
    /// Whether the network is `--internal`.
    pub internal: bool,
    /// Whether the endpoint has an IPv4 gateway.
    pub gateway4: bool,
    /// Whether the endpoint has an IPv6 gateway.
    pub gateway6: bool,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Candidate<'_> {
    const fn has_gateway(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.gateway4,
            Family::V6 => self.gateway6,
        }
    }
}

/// Docker's order: the better one is less. Higher priority, not the helper, not internal, gateways in more families,
/// name.
pub fn compare(a: &Candidate<'_>, b: &Candidate<'_>) -> Ordering {
    let gateways = |c: &Candidate<'_>| u8::from(c.gateway4) + u8::from(c.gateway6);
    b.gw_priority
        .cmp(&a.gw_priority)
        .then(a.helper.cmp(&b.helper))
        .then(a.internal.cmp(&b.internal))
        .then(gateways(b).cmp(&gateways(a)))
        .then(a.network.cmp(b.network))
}

/// The place in `candidates` of the one whose gateway gets the default route of `family`; none if no one has a gateway.
pub fn default_route(family: Family, candidates: &[Candidate<'_>]) -> Option<usize> {
    let with_gateway = candidates.iter().enumerate().filter(|(_, c)| c.has_gateway(family));
    with_gateway.min_by(|(_, a), (_, b)| compare(a, b)).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dual(network: &str) -> Candidate<'_> {
        Candidate { network, gw_priority: 0, helper: false, internal: false, gateway4: true, gateway6: true }
    }

    #[test]
    fn the_first_difference_wins() {
        let v4 = |network| Candidate { gateway6: false, ..dual(network) };
        let v6 = |network| Candidate { gateway4: false, ..dual(network) };
        let priority = |network, gw_priority| Candidate { gw_priority, ..dual(network) };
        let helper = |network| Candidate { helper: true, ..dual(network) };
        let internal = |network| Candidate { internal: true, ..dual(network) };
        let isolated = |network| Candidate { gateway4: false, gateway6: false, ..dual(network) };
        let cases = [
            (vec![], None, None),
            (vec![isolated("a")], None, None),
            (vec![v4("a"), v4("b")], Some("a"), None),
            (vec![dual("b"), dual("a")], Some("a"), Some("a")),
            (vec![v4("a"), dual("b")], Some("b"), Some("b")),
            (vec![v4("a"), v6("b")], Some("a"), Some("b")),
            (vec![internal("a"), v4("b")], Some("b"), Some("a")),
            (vec![helper("a"), internal("b")], Some("b"), Some("b")),
            (vec![helper("a"), v4("z")], Some("z"), Some("a")),
            (vec![priority("a", -1), dual("b")], Some("b"), Some("b")),
            (vec![dual("a"), Candidate { gw_priority: 1, ..internal("z") }], Some("z"), Some("z")),
            (vec![dual("b"), Candidate { gw_priority: 9, ..isolated("a") }], Some("b"), Some("b")),
            (vec![dual("n10"), dual("n2")], Some("n10"), Some("n10")),
        ];
        for (candidates, four, six) in cases {
            let winner = |family| default_route(family, &candidates).map(|at| candidates[at].network);
            assert_eq!((winner(Family::V4), winner(Family::V6)), (four, six), "{candidates:?}");
        }
    }

    proptest! {
        #[test]
        fn the_winner_does_not_depend_on_the_order_of_candidates(
            facts in prop::collection::vec((-1..2i32, any::<[bool; 4]>()), 1..6),
            turn in 0..6usize,
        ) {
            let names = ["a", "b", "c", "d", "e"];
            let mut candidates: Vec<Candidate<'_>> = facts.iter().zip(names).map(|((gw_priority, flags), network)| {
                let [helper, internal, gateway4, gateway6] = *flags;
                Candidate { network, gw_priority: *gw_priority, helper, internal, gateway4, gateway6 }
            }).collect();
            let before = default_route(Family::V4, &candidates).map(|at| candidates[at].network);
            let places = candidates.len();
            candidates.rotate_left(turn % places);
            let after = default_route(Family::V4, &candidates).map(|at| candidates[at].network);
            prop_assert_eq!(before, after);
        }
    }
}
