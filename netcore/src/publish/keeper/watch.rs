//! The keeper's thread: waits for the end of any proxy, and starts the next.
//!
//! Processes are watched by descriptor, each of which wakes the thread once. Where there is no descriptor to be had, or
//! the kernel takes no more of them, the process is looked at ten times a second instead. A few descriptors are set aside
//! for starting a process when there are no others left.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::state::{Part, State};
use super::{Shared, divided, restore};
use crate::publish::proxies::{self, Proxy, ProxyEvent};

/// How often a process is looked at that can't be waited for.
const GLANCE: Duration = Duration::from_millis(100);
/// Events taken at once.
const BATCH: usize = 64;
/// What the wake-up is called among the parts.
const WAKE: u64 = u64::MAX;

/// The thread, as its keeper has it.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) thread: JoinHandle<()>,
    wake: Arc<EventFd>,
}

impl Watcher {
    pub(super) fn wake(&self) {
        // Fails only if it was woken 2⁶⁴ times without looking.
        let _ = self.wake.write(1);
    }
}

/// Descriptors set aside: what it takes to start a process (two pipes, /dev/null on two or three places) and to watch it.
#[derive(Debug)]
struct Spares(Vec<OwnedFd>);

const SPARES: usize = 10;

impl Spares {
    /// As many as can be had.
    fn refill(&mut self, model: &impl AsFd) {
        let copies = std::iter::from_fn(|| model.as_fd().try_clone_to_owned().ok());
        let wanted = SPARES.saturating_sub(self.0.len());
        self.0.extend(copies.take(wanted));
    }
}

/// Starts the thread if it doesn't run.
pub(super) fn ensure(shared: &Arc<Shared>) -> io::Result<()> {
    let mut state = shared.state();
    if state.watcher.as_ref().is_some_and(|watcher| !watcher.thread.is_finished()) {
        return Ok(());
    }
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    epoll.add(wake.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
    let (shared, bell) = (Arc::clone(shared), Arc::clone(&wake));
    for part in state.parts.values_mut() {
        part.watched = false;
    }
    state.restless = state.parts.iter().filter(|(_, part)| part.is_wanted()).map(|(id, _)| *id).collect();
    let run = move || run(&shared, &epoll, &bell);
    let thread = thread::Builder::new().name("proxies".to_owned()).spawn(run)?;
    state.watcher = Some(Watcher { thread, wake });
    Ok(())
}

fn run(shared: &Arc<Shared>, epoll: &Epoll, wake: &EventFd) {
    let mut ready = Vec::new();
    let mut spares = Spares(Vec::new());
    loop {
        spares.refill(wake);
        let (sweep, deadline) = {
            let mut state = shared.state();
            if state.closing {
                return;
            }
            let now = Instant::now();
            let deadline = tend(shared, &mut state, (epoll, &mut spares), &ready, now);
            (state.sweep.is_some_and(|at| at <= now), deadline)
        };
        if sweep {
            restore::again(shared);
            ready.clear();
        } else {
            ready = wait(epoll, wake, deadline);
        }
    }
}

fn wait(epoll: &Epoll, wake: &EventFd, deadline: Option<Instant>) -> Vec<u64> {
    let mut events = [EpollEvent::empty(); BATCH];
    let timeout = deadline.map_or(EpollTimeout::NONE, |at| {
        let left = at.saturating_duration_since(Instant::now());
        // Rounded up, or the last millisecond would be spent spinning.
        EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
    });
    // An interrupted wait is a short one. No other error can last.
    let count = epoll.wait(&mut events, timeout).unwrap_or(0);
    let ready: Vec<u64> = events[..count].iter().map(EpollEvent::data).collect();
    if ready.contains(&WAKE) {
        let _ = wake.read();
    }
    ready
}

/// Looks after the parts that ask for it. Returns when it has something to do next.
fn tend(
    shared: &Shared,
    state: &mut State,
    (epoll, spares): (&Epoll, &mut Spares),
    ready: &[u64],
    now: Instant,
) -> Option<Instant> {
    let Some(program) = &shared.program else { return state.sweep };
    let mut ids: Vec<u64> = state.restless.iter().chain(ready).copied().collect();
    ids.dedup();
    while let Some(id) = ids.pop() {
        let Some(part) = state.parts.get_mut(&id) else { continue };
        if let Some(event) = part.proxy.bury(&program.command, false, now) {
            part.watched = false;
            log(&event);
        }
        if part.proxy.is_due(now) {
            spares.0.clear();
            let takes = program.takes();
            if let Some(parts) = division(&mut part.proxy, takes, now) {
                ids.extend(state.divide(id, parts));
                continue;
            }
            if let Some(event) = part.proxy.revive(&program.command, takes, now) {
                log(&event);
            }
        }
        watch(part, id, epoll);
        let settled = part.watched && part.proxy.deadline(&program.command).is_none();
        if settled || !part.is_wanted() {
            state.restless.remove(&id);
        } else {
            state.restless.insert(id);
        }
    }
    let next = |id: &u64| {
        let part = state.parts.get(id)?;
        let glance = part.proxy.pid().is_some() && !part.watched;
        part.proxy.deadline(&program.command).into_iter().chain(glance.then_some(now + GLANCE)).min()
    };
    state.restless.iter().filter_map(next).chain(state.sweep).min()
}

/// The parts that a proxy has to be divided into, because the program serves less at once than the one before did.
fn division(proxy: &mut Proxy, takes: crate::publish::program::Takes, now: Instant) -> Option<Vec<Proxy>> {
    let reservation = proxy.reservation.take();
    let mut parts = divided(reservation, takes);
    if parts.len() == 1 {
        proxy.reservation = parts.remove(0);
        return None;
    }
    let down = |part| Proxy::new(part, proxy.target, proxies::State::Down { until: now });
    Some(parts.into_iter().map(down).collect())
}

/// Asks to be told when its process ends.
fn watch(part: &mut Part, id: u64, epoll: &Epoll) {
    if part.watched {
        return;
    }
    if let proxies::State::Alive { process, .. } = &mut part.proxy.state
        && let Some(handle) = process.handle()
    {
        let once = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, id);
        // If it can't be had it is tried again at the next glance.
        part.watched = epoll.add(handle.as_fd(), once).is_ok();
    }
}

fn log(event: &ProxyEvent) {
    match event {
        ProxyEvent::Replaced { .. } => tracing::info!("{event}"),
        ProxyEvent::Exited { .. } | ProxyEvent::NotReplaced { .. } => tracing::warn!("{event}"),
    }
}
