//! Leads ports elsewhere, without giving them up in between.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::state::Missing;
use super::{Keeper, end_all};
use crate::model::Publication;
use crate::publish::mapping::Mapping;

impl Keeper {
    /// Has held ports lead elsewhere: each publication is replaced by what it becomes, whose addresses are among its own.
    /// The sockets stay bound throughout; those of addresses that are in none of them are given up.
    ///
    /// What can't be served at once is tried again every second or so, until it is released.
    pub fn repoint(&self, moves: Vec<(Publication, Vec<Publication>)>) {
        let shared = &self.0;
        let mut mappings = Vec::new();
        for (was, now) in moves {
            let Some(mapping) = Mapping::published(&was) else { continue };
            let ending = shared.state().withdraw(&mapping);
            for process in &ending {
                process.signal(Signal::SIGINT);
            }
            end_all(ending);
            let reservations = shared.state().take(&mapping);
            let place = |address| now.iter().position(|one| one.addresses.contains(&address));
            for (place, mut part) in
                reservations.into_iter().flat_map(|whole| whole.split_by(|ip, _| place(ip)))
            {
                match place {
                    // One that a proxy bound itself has no socket of ours.
                    Some(place) if part.open().is_ok() => mappings.push((part, now[place].clone())),
                    Some(place) => shared.state().want(now[place].clone()),
                    None => part.release(&mut shared.numbers()),
                }
            }
        }
        let publications: Vec<Publication> =
            mappings.iter().map(|(_, publication)| publication.clone()).collect();
        if let Err(error) = self.serve(mappings) {
            tracing::warn!(%error, "a port that leads elsewhere now isn't served yet");
            publications.into_iter().for_each(|publication| shared.state().want(publication));
        }
    }
}

impl super::State {
    /// What isn't held, and shall be.
    fn want(&mut self, publication: Publication) {
        let Some(mapping) = Mapping::published(&publication) else { return };
        self.missing.push(Missing { publication, mapping, claimed: false, given_up: false });
        self.sweep = Some(Instant::now());
        self.wake();
    }
}
