//! A set of ports as a bitmap: 8 KiB, whole ranges in a few word operations.

use super::ports::PortRange;

const WORD: usize = u64::BITS as usize;
const WORDS: usize = (u16::MAX as usize + 1) / WORD;

/// Any of the 65,536 ports.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PortSet(Box<[u64; WORDS]>);

impl PortSet {
    pub(super) fn new() -> Self {
        Self(Box::new([0; WORDS]))
    }

    pub(super) fn insert(&mut self, ports: PortRange) {
        for (at, mask) in words(ports) {
            self.0[at] |= mask;
        }
    }

    pub(super) fn remove(&mut self, ports: PortRange) {
        for (at, mask) in words(ports) {
            self.0[at] &= !mask;
        }
    }

    /// Adds everything `other` has.
    pub(super) fn unite(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine |= theirs;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// What it holds, in as few runs as can be, ascending.
    pub(super) fn runs(&self) -> impl Iterator<Item = PortRange> {
        let mut from = Some(0);
        std::iter::from_fn(move || {
            let behind = PortRange::new(from?, u16::MAX).ok()?;
            let first = self.first_in(behind)?;
            let here = PortRange::new(first, u16::MAX).ok()?;
            let end = self.first_missing(here);
            from = end;
            PortRange::new(first, end.map_or(u16::MAX, |end| end - 1)).ok()
        })
    }

    #[cfg(test)]
    pub(super) fn contains(&self, port: u16) -> bool {
        self.first_in(PortRange::single(port)).is_some()
    }

    /// Lowest port of `ports` that is in the set.
    pub(super) fn first_in(&self, ports: PortRange) -> Option<u16> {
        words(ports).find_map(|(at, mask)| lowest(at, self.0[at] & mask))
    }

    /// Lowest port of `ports` that is not in the set.
    pub(super) fn first_missing(&self, ports: PortRange) -> Option<u16> {
        words(ports).find_map(|(at, mask)| lowest(at, !self.0[at] & mask))
    }
}

fn lowest(at: usize, bits: u64) -> Option<u16> {
    (bits != 0).then(|| {
        u16::try_from(at * WORD + bits.trailing_zeros() as usize).expect("the bitmap has 65,536 bits")
    })
}

/// The words a range touches, each with the bits of it that belong to the range.
fn words(ports: PortRange) -> impl Iterator<Item = (usize, u64)> {
    let (first, last) = (usize::from(ports.first()), usize::from(ports.last()));
    (first / WORD..=last / WORD).map(move |at| {
        let from = if at == first / WORD { u64::MAX << (first % WORD) } else { u64::MAX };
        let upto = if at == last / WORD { u64::MAX >> (WORD - 1 - last % WORD) } else { u64::MAX };
        (at, from & upto)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn any_range() -> impl Strategy<Value = PortRange> {
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn it_behaves_as_a_set(
            steps in proptest::collection::vec((any::<bool>(), any_range()), 1..6),
            ask in any_range(),
        ) {
            let (mut set, mut model) = (PortSet::new(), BTreeSet::new());
            for (insert, ports) in steps {
                if insert {
                    set.insert(ports);
                    model.extend(ports.iter());
                } else {
                    set.remove(ports);
                    model.retain(|port| !ports.contains(*port));
                }
            }
            let runs: Vec<PortRange> = set.runs().collect();
            prop_assert!(runs.windows(2).all(|pair| pair[0].last() + 1 < pair[1].first()));
            prop_assert!(runs.iter().flat_map(|run| run.iter()).eq(model.iter().copied()));
            prop_assert_eq!(set.is_empty(), model.is_empty());
            prop_assert_eq!(set.first_in(ask), model.range(ask.iter()).next().copied());
            prop_assert_eq!(set.first_missing(ask), ask.iter().find(|port| !model.contains(port)));
        }
    }
}
