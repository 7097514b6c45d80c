//! Leads ports elsewhere, without giving them up in between.

use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::state::Missing;
use super::{Keeper, Shared, end_all, watch};
use crate::model::Publication;
use crate::publish::allocator::Allocator;
use crate::publish::mapping::Mapping;
use crate::publish::reservation::Reservation;

impl Keeper {
    /// Has held ports lead elsewhere: each publication is replaced by what it becomes, whose addresses are among its own.
    /// The sockets stay bound throughout; those of addresses that are in none of them are given up.
    ///
    /// What can't be served at once is tried again every second or so, until it is released.
    pub fn repoint(&self, moves: Vec<(Publication, Vec<Publication>)>) {
        let shared = &self.0;
        let mut mappings = Vec::new();
        let mut later = Vec::new();
        for (was, now) in moves {
            let Some(mapping) = Mapping::published(&was) else { continue };
            let ending = shared.state().withdraw(&mapping);
            for process in &ending {
                process.signal(Signal::SIGINT);
            }
            end_all(ending);
            for (publication, mut parts) in shared.taken(&mapping, now) {
                // One that a proxy bound itself has no socket of ours.
                if !parts.is_empty() && parts.iter_mut().all(|part| part.open().is_ok()) {
                    mappings.extend(parts.into_iter().map(|part| (part, publication.clone())));
                } else {
                    // What is tried again is the whole.
                    self.cancel(parts);
                    later.push(publication);
                }
            }
        }
        let mut publications: Vec<Publication> =
            mappings.iter().map(|(_, publication)| publication.clone()).collect();
        if let Err(error) = self.serve(mappings) {
            tracing::warn!(%error, "a port that leads elsewhere now isn't served yet");
            // The parts of one are neighbours.
            publications.dedup();
            later.extend(publications);
        }
        shared.try_later(later);
    }
}

impl Shared {
    /// Forgets a mapping, and gives what of it each of these is to have: nothing of one that wasn't held. What is in none of
    /// them is given up.
    fn taken(&self, mapping: &Mapping, now: Vec<Publication>) -> Vec<(Publication, Vec<Reservation>)> {
        let mut state = self.state();
        let mut numbers = self.numbers();
        let mut taken: Vec<_> = now.into_iter().map(|publication| (publication, Vec::new())).collect();
        if state.forget_missing(mapping) {
            numbers.release(&mapping.addresses, mapping.proto, mapping.host);
        }
        for whole in state.take(mapping) {
            let place = |address| taken.iter().position(|(one, _)| one.addresses.contains(&address));
            for (place, part) in whole.split_by(|ip, _| place(ip)) {
                match place {
                    Some(place) => taken[place].1.push(part),
                    None => part.release(&mut numbers),
                }
            }
        }
        taken
    }

    /// Tries again and again to have what isn't held.
    fn try_later(self: &Arc<Self>, publications: Vec<Publication>) {
        if publications.is_empty() {
            return;
        }
        let mut state = self.state();
        let mut numbers = self.numbers();
        publications.into_iter().for_each(|publication| state.want(publication, &mut numbers));
        state.sweep = Some(Instant::now());
        state.wake();
        drop((state, numbers));
        if let Err(error) = watch::ensure(self) {
            tracing::error!(%error, "nobody looks after published ports");
        }
    }
}

impl super::State {
    /// What isn't held, and shall be.
    fn want(&mut self, publication: Publication, numbers: &mut Allocator) {
        let Some(mapping) = Mapping::published(&publication) else { return };
        let claimed = numbers.claim(&mapping.addresses, mapping.proto, mapping.host).is_ok();
        self.missing.push(Missing { publication, mapping, claimed, given_up: false });
    }
}
