//! Takes up what an earlier keeper held, at once and, where that didn't work, again and again.
//!
//! An earlier daemon may have been killed between fork and exec, and then its last proxy bears no mark yet when it is
//! looked for: leftovers are looked for some more times, a second apart.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::found::{Found, predecessors};
use super::state::{Missing, State};
use super::{Shared, divided, end_all, watch};
use crate::kernel::child;
use crate::model::Publication;
use crate::publish::mapping::Mapping;
use crate::publish::ports::Proto;
use crate::publish::proxies::{self, Process, Proxy};
use crate::publish::reservation::Reservation;

/// Between attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// How often leftovers are looked for after the first time.
const SWEEPS: u32 = 3;

/// A leftover that is of use: its sockets, and itself if it is to go on.
struct Taken {
    reservation: Reservation,
    process: Option<Process>,
}

/// What is of use, by the mapping it is a part of.
type Assigned<T> = HashMap<Mapping, Vec<T>>;

pub(super) fn all(shared: &Arc<Shared>, wanted: Vec<Publication>) -> Vec<(Publication, String)> {
    {
        let mut state = shared.state();
        for publication in wanted {
            let Some(mapping) = Mapping::published(&publication) else { continue };
            if !state.holds(&mapping) {
                state.missing.push(Missing { publication, mapping, claimed: false, given_up: false });
            }
        }
        claim(shared, &mut state);
    }
    let failed = attempt(shared, predecessors(&shared.mark), Signal::SIGINT);
    let mut state = shared.state();
    state.sweeps = SWEEPS;
    let idle = state.parts.is_empty() && state.missing.is_empty();
    state.sweep = (!idle).then(|| Instant::now() + PAUSE);
    state.wake();
    drop(state);
    // Nothing to look after, nobody to do so: a daemon without ports has no such thread.
    if !idle && let Err(error) = watch::ensure(shared) {
        tracing::error!(%error, "nobody looks after the userland proxies");
    }
    failed
}

/// Another attempt, on the watcher's thread.
pub(super) fn again(shared: &Arc<Shared>) {
    let look = {
        let mut state = shared.state();
        let look = state.sweeps > 0;
        state.sweeps = state.sweeps.saturating_sub(1);
        claim(shared, &mut state);
        look
    };
    let found = if look { predecessors(&shared.mark) } else { Vec::new() };
    for (publication, reason) in attempt(shared, found, Signal::SIGKILL) {
        tracing::debug!(spec = %publication.spec, reason, "published port still can't be had");
    }
    let mut state = shared.state();
    let more = state.sweeps > 0 || state.missing.iter().any(|missing| !missing.given_up);
    state.sweep = more.then(|| Instant::now() + PAUSE);
}

/// Takes the numbers of what is missing. First of all of them, so that nobody else gets one.
fn claim(shared: &Shared, state: &mut State) {
    let mut numbers = shared.numbers();
    for Missing { mapping, claimed, given_up, .. } in &mut state.missing {
        if !*claimed && !*given_up {
            *claimed = numbers.claim(&mapping.addresses, mapping.proto, mapping.host).is_ok();
        }
    }
}

/// Uses of `found` what is of use, ends the others with `signal`, and has the rest bound and started.
fn attempt(shared: &Shared, found: Vec<Found>, signal: Signal) -> Vec<(Publication, String)> {
    let (assigned, strays) = assign(&shared.state(), found);
    let mut ending: Vec<Process> =
        strays.into_iter().map(|one| Process::adopted(one.pid, one.handle)).collect();
    let mut taken: Assigned<Taken> = HashMap::new();
    for (mapping, leftovers) in assigned {
        for leftover in leftovers {
            let one = take(shared, leftover, &mut ending);
            taken.entry(mapping.clone()).or_default().extend(one);
        }
    }
    for process in &ending {
        tracing::info!(pid = process.pid(), "ending a userland proxy of an earlier daemon");
        process.signal(signal);
    }
    end_all(ending);

    let mut state = shared.state();
    let mut failed = Vec::new();
    for missing in std::mem::take(&mut state.missing) {
        if missing.given_up {
            state.missing.push(missing);
            continue;
        }
        let leftovers = taken.remove(&missing.mapping).unwrap_or_default();
        let got = if missing.claimed {
            take_up(shared, &missing.mapping, leftovers)
        } else {
            Err("port is already allocated".to_owned())
        };
        match got {
            Ok(proxies) => state.hold(missing.publication, proxies),
            Err(reason) => {
                failed.push((missing.publication.clone(), reason));
                state.missing.push(missing);
            }
        }
    }
    // Released while it was being taken.
    for process in taken.into_values().flatten().filter_map(|one| one.process) {
        process.signal(Signal::SIGKILL);
    }
    state.wake();
    failed
}

/// What of `found` is part of something missing, no two parts of which meet; and the others. Without those that we look
/// after already.
fn assign(state: &State, found: Vec<Found>) -> (Assigned<Found>, Vec<Found>) {
    let ours = state.adopted();
    let mut missing: HashMap<(Proto, IpAddr), Vec<&Mapping>> = HashMap::new();
    for one in state.missing.iter().filter(|one| one.claimed && !one.given_up) {
        missing.entry((one.mapping.proto, one.mapping.target)).or_default().push(&one.mapping);
    }
    let (mut assigned, mut strays): (Assigned<Found>, _) = (HashMap::new(), Vec::new());
    for one in found.into_iter().filter(|one| !ours.contains(&one.pid)) {
        let candidates = missing.get(&(one.mapping.proto, one.mapping.target));
        let whole = candidates.and_then(|all| all.iter().find(|whole| one.mapping.is_part_of(whole)));
        let free = whole.filter(|whole| {
            assigned
                .get(**whole)
                .is_none_or(|parts| !parts.iter().any(|part| part.mapping.meets(&one.mapping)))
        });
        match free {
            Some(whole) => assigned.entry((*whole).clone()).or_default().push(one),
            None => strays.push(one),
        }
    }
    (assigned, strays)
}

/// Takes the sockets of a leftover, and itself unless no proxies are wanted any more; then it is to end.
fn take(shared: &Shared, leftover: Found, ending: &mut Vec<Process>) -> Option<Taken> {
    let sockets = leftover.sockets();
    let known = sockets.is_some();
    let reservation = leftover.mapping.unbound().with(sockets.unwrap_or_default());
    let process = Process::adopted(leftover.pid, leftover.handle);
    if shared.program.is_some() {
        if !known {
            tracing::warn!(pid = process.pid(), "cannot get the sockets of a userland proxy; it serves on");
        }
        return Some(Taken { reservation, process: Some(process) });
    }
    // What can't be made deaf has clients wait, who are led elsewhere by the rules.
    let _ = reservation.deafen();
    ending.push(process);
    known.then_some(Taken { reservation, process: None })
}

/// Completes a mapping by what nobody serves yet.
fn take_up(shared: &Shared, mapping: &Mapping, leftovers: Vec<Taken>) -> Result<Vec<Proxy>, String> {
    let target = mapping.target;
    let parts: Vec<Mapping> =
        leftovers.iter().map(|one| Mapping::reserved(&one.reservation, target)).collect();
    let mut all: Vec<Proxy> = leftovers
        .into_iter()
        .map(|Taken { reservation, process }| {
            let state = process
                .map_or(proxies::State::Over, |process| proxies::State::Alive { process, since: None });
            Proxy::new(reservation, target, state)
        })
        .collect();
    for part in mapping.without(&parts) {
        let mut reservation = part.unbound();
        let bound = reservation.open();
        if let (Err(error), true) = (&bound, all.is_empty()) {
            return Err(error.to_string());
        }
        let Some(program) = &shared.program else {
            if let Err(error) = bound {
                tracing::warn!(%part, %error, "a part of what is published can't be had");
            }
            all.push(Proxy::new(reservation, target, proxies::State::Over));
            continue;
        };
        child::expect_ends();
        let takes = program.takes();
        for part in divided(reservation, takes) {
            let (mut proxy, outcome) = Proxy::start(&program.command, part, target, takes);
            if let Err(error) = outcome {
                // It is tried again as if it had ended.
                tracing::warn!("{error}");
                proxy.state = proxies::State::Down { until: Instant::now() + PAUSE };
            }
            all.push(proxy);
        }
    }
    Ok(all)
}
