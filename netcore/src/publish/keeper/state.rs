//! What a keeper holds, and in which part of it there is something to do.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::watch::Watcher;
use crate::model::Publication;
use crate::publish::mapping::Mapping;
use crate::publish::proxies::{self, Process, Proxy};
use crate::publish::reservation::Reservation;

/// Everything that changes. The cost of a change doesn't depend on how much is held.
#[derive(Debug, Default)]
pub(super) struct State {
    held: HashMap<Mapping, Held>,
    /// All parts of what is held.
    pub(super) parts: HashMap<u64, Part>,
    next: u64,
    /// Parts that have to be looked at even if no process ends.
    pub(super) restless: BTreeSet<u64>,
    /// What is wanted but couldn't be had yet.
    pub(super) missing: Vec<Missing>,
    /// When to look for leftovers of earlier keepers and to try [`Self::missing`] again.
    pub(super) sweep: Option<Instant>,
    /// How often leftovers are still looked for.
    pub(super) sweeps: u32,
    pub(super) watcher: Option<Watcher>,
    pub(super) closing: bool,
}

#[derive(Debug)]
pub(super) struct Held {
    publication: Publication,
    parts: Vec<u64>,
}

/// What one process serves.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) mapping: Mapping,
    pub(super) proxy: Proxy,
    /// Whether the watcher is told when its process ends.
    pub(super) watched: bool,
}

#[derive(Debug)]
pub(super) struct Missing {
    pub(super) publication: Publication,
    pub(super) mapping: Mapping,
    /// Whether its numbers are ours.
    pub(super) claimed: bool,
    /// Withdrawn, and not to be tried again.
    pub(super) given_up: bool,
}

impl Part {
    /// Whether there shall be a process.
    pub(super) const fn is_wanted(&self) -> bool {
        !matches!(self.proxy.state, proxies::State::Over)
    }
}

impl State {
    /// Takes up what is served, or only bound.
    pub(super) fn hold(&mut self, publication: Publication, proxies: Vec<Proxy>) {
        let Some(mapping) = Mapping::published(&publication) else { return };
        let parts: Vec<u64> = proxies.into_iter().map(|proxy| self.add(&mapping, proxy)).collect();
        // What was led elsewhere comes in the parts that it was in.
        self.held.entry(mapping).or_insert(Held { publication, parts: Vec::new() }).parts.extend(parts);
    }

    /// Forgets a mapping, whose numbers stay taken and whose sockets go to the caller.
    pub(super) fn take(&mut self, mapping: &Mapping) -> Vec<Reservation> {
        let Some(held) = self.held.remove(mapping) else { return Vec::new() };
        let part = |id| {
            self.restless.remove(&id);
            self.parts.remove(&id).map(|part| part.proxy.reservation)
        };
        held.parts.into_iter().filter_map(part).collect()
    }

    fn add(&mut self, mapping: &Mapping, proxy: Proxy) -> u64 {
        let id = self.next;
        self.next += 1;
        let part = Part { mapping: mapping.clone(), proxy, watched: false };
        if part.is_wanted() {
            self.restless.insert(id);
        }
        self.parts.insert(id, part);
        id
    }

    /// Puts several parts where one was. Gives their names.
    pub(super) fn divide(&mut self, id: u64, proxies: Vec<Proxy>) -> Vec<u64> {
        let Some(part) = self.parts.remove(&id) else { return Vec::new() };
        self.restless.remove(&id);
        let new: Vec<u64> = proxies.into_iter().map(|proxy| self.add(&part.mapping, proxy)).collect();
        if let Some(held) = self.held.get_mut(&part.mapping) {
            held.parts.retain(|other| *other != id);
            held.parts.extend(&new);
        }
        new
    }

    /// Nothing is to be started for a mapping any more. Gives the processes that run, for the caller to end.
    pub(super) fn withdraw(&mut self, mapping: &Mapping) -> Vec<Process> {
        for missing in self.missing.iter_mut().filter(|missing| missing.mapping == *mapping) {
            missing.given_up = true;
        }
        let mut running = Vec::new();
        for id in self.held.get(mapping).map_or(&[][..], |held| &held.parts) {
            self.restless.remove(id);
            let Some(Part { proxy, .. }) = self.parts.get_mut(id) else { continue };
            let process = match std::mem::replace(&mut proxy.state, proxies::State::Over) {
                proxies::State::Alive { process, .. } => Some(process),
                proxies::State::Down { .. } => None,
                // Withdrawn before, or never served: it is deaf.
                proxies::State::Over => continue,
            };
            // Who can't be made deaf is ended all the same.
            let _ = proxy.reservation.deafen();
            running.extend(process);
        }
        running
    }

    /// Forgets a mapping and closes its sockets. Returns whether its numbers were taken.
    pub(super) fn let_go(&mut self, mapping: &Mapping) -> bool {
        let claimed = self.forget_missing(mapping);
        let Some(held) = self.held.remove(mapping) else { return claimed };
        for id in held.parts {
            self.restless.remove(&id);
            self.parts.remove(&id);
        }
        true
    }

    /// Isn't to try any more what couldn't be had. Returns whether its numbers were taken.
    pub(super) fn forget_missing(&mut self, mapping: &Mapping) -> bool {
        let claimed = self.missing.iter().any(|missing| missing.mapping == *mapping && missing.claimed);
        self.missing.retain(|missing| missing.mapping != *mapping);
        claimed
    }

    /// Processes that an earlier keeper has started.
    pub(super) fn adopted(&self) -> BTreeSet<u32> {
        let pid = |part: &Part| match &part.proxy.state {
            proxies::State::Alive { process, .. } if process.is_adopted() => Some(process.pid()),
            _ => None,
        };
        self.parts.values().filter_map(pid).collect()
    }

    /// Whether a mapping is held, all of it.
    pub(super) fn holds(&self, mapping: &Mapping) -> bool {
        self.held.contains_key(mapping)
    }

    pub(super) fn statuses(&self) -> Vec<(Publication, Option<u32>)> {
        let pids = |held: &Held| -> Vec<(Publication, Option<u32>)> {
            let of =
                |id: &u64| (held.publication.clone(), self.parts.get(id).and_then(|part| part.proxy.pid()));
            held.parts.iter().map(of).collect()
        };
        self.held.values().flat_map(pids).collect()
    }

    /// Has the watcher look at everything again.
    pub(super) fn wake(&self) {
        if let Some(watcher) = &self.watcher {
            watcher.wake();
        }
    }
}
