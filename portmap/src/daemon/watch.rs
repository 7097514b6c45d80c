//! The processes of running sandboxes, and who waits for their end.
//!
//! A running sandbox has a supervisor, which started its command and reports its end. The daemon holds descriptors of
//! both. A supervisor that vanishes without a report takes the command with it: what nobody supervises is killed, then
//! the sandbox has ended with 137, as after any kill.
//!
//! After a new start of the daemon the descriptors are opened again, by number and start time. A supervisor that can't
//! be found has vanished.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netcore::controller::{ControllerError, SandboxView};
use netcore::kernel::PidFd;
use netcore::model::{ProcessId, Running, SandboxId, SandboxState};
use netcore::process::Inhabitants;
use nix::libc::{ESRCH, SIGKILL};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch::{self, Receiver, Sender};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::State;

/// 128 and SIGKILL.
const KILLED: i32 = 137;
/// How long the kernel may take to end a killed process.
const KILL_TIME: Duration = Duration::from_secs(10);
/// How long it may take until a run that has ended is forgotten.
const FORGET_TIME: Duration = Duration::from_secs(2);
/// How often one looks whether they have ended.
const KILL_POLL: Duration = Duration::from_millis(2);

/// How a sandbox's end became known.
pub(crate) enum End {
    /// Its supervisor, if it says who it is, told the exit code, or why the command couldn't be started.
    Reported(Option<ProcessId>, i32, Option<String>),
    /// This supervisor is gone.
    Vanished(ProcessId),
}

/// The running sandboxes.
#[derive(Default)]
pub(crate) struct Watch(Mutex<HashMap<SandboxId, Watched>>);

struct Watched {
    /// Who reports the end.
    reporter: ProcessId,
    supervisor: Option<Arc<PidFd>>,
    command: Option<Arc<PidFd>>,
    /// The exit code, once there is one.
    ended: Sender<Option<i32>>,
    /// It is to be started again, so it isn't removed at its end.
    is_kept: bool,
}

impl Watch {
    /// How many run.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Tells the exit code of a running sandbox when it has ended; `None` for one that doesn't run.
    pub(crate) fn end_of(&self, id: SandboxId) -> Option<Receiver<Option<i32>>> {
        self.lock().get(&id).map(|watched| watched.ended.subscribe())
    }

    /// The command runs.
    pub(crate) fn command_started(&self, id: SandboxId, command: PidFd) {
        if let Some(watched) = self.lock().get_mut(&id) {
            watched.command = Some(Arc::new(command));
        }
    }

    /// Sends a signal to the command, or to the supervisor while there is no command yet.
    pub(crate) fn signal(&self, id: SandboxId, signal: i32) -> io::Result<()> {
        let (command, supervisor) = self.processes(id);
        match command.or(supervisor) {
            Some(process) => process.signal(signal),
            None => Err(io::Error::from_raw_os_error(ESRCH)),
        }
    }

    /// Ends a supervisor that doesn't report.
    pub(crate) fn kill_supervisor(&self, id: SandboxId) {
        if let (_, Some(supervisor)) = self.processes(id) {
            let _ = supervisor.signal(SIGKILL);
        }
    }

    /// It isn't removed at the end of this run.
    pub(crate) fn keep(&self, id: SandboxId) {
        if let Some(watched) = self.lock().get_mut(&id) {
            watched.is_kept = true;
        }
    }

    fn is_kept(&self, id: SandboxId) -> bool {
        self.lock().get(&id).is_some_and(|watched| watched.is_kept)
    }

    fn processes(&self, id: SandboxId) -> (Option<Arc<PidFd>>, Option<Arc<PidFd>>) {
        self.lock().get(&id).map_or((None, None), |w| (w.command.clone(), w.supervisor.clone()))
    }

    /// Watches it no longer; only its run under `reporter`, if that is given. Who waits is to be told by what is returned;
    /// `None` if it wasn't watched.
    fn forget(&self, id: SandboxId, reporter: Option<ProcessId>) -> Option<Sender<Option<i32>>> {
        let mut all = self.lock();
        let meant = all.get(&id).is_some_and(|run| reporter.is_none_or(|reporter| run.reporter == reporter));
        if meant { all.remove(&id).map(|watched| watched.ended) } else { None }
    }

    /// Waits until the run before is forgotten, as it is as soon as it has ended in the facts. Blocks.
    fn await_turn(&self, id: SandboxId) {
        let deadline = Instant::now() + FORGET_TIME;
        while self.lock().contains_key(&id) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Namespaces that were there before the daemon looked which sandboxes run.
pub(crate) struct Strays(Vec<(PathBuf, Inhabitants)>);

impl Strays {
    /// To be called before a controller is opened, which lets go of what nobody needs.
    pub(crate) fn below(exec_root: &Path) -> Self {
        let entries = std::fs::read_dir(exec_root.join("netns")).into_iter().flatten().flatten();
        let found = entries.filter_map(|entry| {
            let path = entry.path();
            Some((path.clone(), Inhabitants::of(&path).ok()?))
        });
        Self(found.collect())
    }
}

impl State {
    /// Looks after a sandbox from its start on. To be called in the runtime, where one may block.
    pub(crate) fn watch_started(self: &Arc<Self>, id: SandboxId, reporter: ProcessId, supervisor: PidFd) {
        self.watch.await_turn(id);
        self.watch_over(id, reporter, Some(supervisor), None);
    }

    /// Looks after a sandbox that was running before this daemon. To be called on the runtime.
    pub(crate) fn watch_again(self: &Arc<Self>, id: SandboxId, running: &Running) {
        let own = ProcessId { pid: running.pid, start_ticks: running.start_ticks };
        // Until the command runs, and where nobody else supervises it, both are the same.
        let reporter = running.supervisor.unwrap_or(own);
        let command = (reporter != own).then(|| PidFd::find(own).ok()).flatten();
        let supervisor = PidFd::find(reporter).ok();
        tracing::info!(sandbox = %id.short(), supervised = supervisor.is_some(), "taking over a running sandbox");
        self.watch_over(id, reporter, supervisor, command);
    }

    fn watch_over(
        self: &Arc<Self>,
        id: SandboxId,
        reporter: ProcessId,
        supervisor: Option<PidFd>,
        command: Option<PidFd>,
    ) {
        let (supervisor, command) = (supervisor.map(Arc::new), command.map(Arc::new));
        let (ended, mut reported) = watch::channel(None);
        self.watch
            .lock()
            .insert(id, Watched { reporter, supervisor: supervisor.clone(), command, ended, is_kept: false });
        let state = self.clone();
        tokio::spawn(async move {
            let vanished = async {
                if let Some(supervisor) = supervisor {
                    end_of(supervisor).await;
                }
            };
            // Who reports and leaves does both at once, and may be followed by the supervisor of the next start. A new
            // start drops this one's sender, which ends the wait too.
            let has_vanished = tokio::select! {
                biased;
                () = async { drop(reported.wait_for(Option::is_some).await) } => false,
                () = vanished => true,
            };
            if has_vanished {
                state.vanished(id, reporter).await;
            }
        });
    }

    async fn vanished(self: &Arc<Self>, id: SandboxId, reporter: ProcessId) {
        tracing::warn!(sandbox = %id.short(), "its supervisor vanished");
        if let (Some(command), _) = self.watch.processes(id)
            && command.signal(SIGKILL).is_ok()
            && timeout(KILL_TIME, end_of(command)).await.is_err()
        {
            tracing::warn!(sandbox = %id.short(), "its command doesn't end though it was killed");
        }
        let state = self.clone();
        let end = move || {
            state.clear_away(id, reporter);
            state.ended(id, End::Vanished(reporter))
        };
        let torn_down = spawn_blocking(end).await;
        if let Ok(Err(error)) = torn_down {
            tracing::error!(sandbox = %id.short(), %error, "cannot tear it down");
        }
    }

    /// Kills what a command left in its network namespace, as its supervisor would have done. Blocks.
    fn clear_away(&self, id: SandboxId, reporter: ProcessId) {
        let run = || match self.controller.sandbox(&id.to_string()) {
            Ok(SandboxView { sandbox, .. }) => match sandbox.state {
                SandboxState::Running(run) if run.supervisor == Some(reporter) => {
                    let own = !sandbox.config.mode.is_shared() && sandbox.config.netns.is_none();
                    run.netns.filter(|_| own)
                }
                _ => None,
            },
            Err(_) => None,
        };
        let Some(path) = run() else { return };
        let Ok(inhabitants) = Inhabitants::of(&path) else { return };
        // Looked at again: now it is sure that the file was this run's.
        if run().is_some() {
            self.end_all(Some(id), inhabitants);
        }
    }

    /// Kills what is left in namespaces of sandboxes that don't run any more: their supervisors vanished while there was no
    /// daemon. Blocks.
    pub(crate) fn end_strays(&self, before: Strays) {
        let running = self.controller.running().unwrap_or_default();
        for (path, inhabitants) in before.0 {
            if !running.iter().any(|(_, run)| run.netns.as_ref() == Some(&path)) {
                self.end_all(None, inhabitants);
            }
        }
    }

    /// Kills who is in a network namespace, but for other sandboxes that share it. Blocks.
    fn end_all(&self, id: Option<SandboxId>, mut inhabitants: Inhabitants) {
        for (other, run) in self.controller.running().unwrap_or_default() {
            if Some(other) != id {
                inhabitants.spare(run.pid, run.supervisor.map_or(run.pid, |supervisor| supervisor.pid));
            }
        }
        let deadline = Instant::now() + KILL_TIME;
        while inhabitants.kill() > 0 {
            if Instant::now() > deadline {
                tracing::warn!("what is left of a sandbox doesn't end though it was killed");
                return;
            }
            std::thread::sleep(KILL_POLL);
        }
    }

    /// A sandbox's command has ended: tears down, and tells who waits. Blocks.
    pub(crate) fn ended(&self, id: SandboxId, end: End) -> Result<(), ControllerError> {
        let before = self.controller.sandbox(&id.to_string());
        let (reporter, code, ended) = match end {
            End::Reported(reporter, code, error) => {
                let keep = self.watch.is_kept(id);
                (reporter, code, self.controller.run_ended(id, reporter, keep, code, error))
            }
            End::Vanished(supervisor) => {
                (Some(supervisor), KILLED, self.controller.supervisor_gone(id, supervisor))
            }
        };
        // Also after a failure: who waits shall hear of the end, the rest is for the next reconciliation.
        let waiting = self.watch.forget(id, reporter);
        if let (Some(_), Ok(view)) = (&waiting, &before) {
            self.bus.sandbox("die", &view.sandbox, &[("exitCode", &code.to_string())]);
            for endpoint in &view.endpoints {
                let network = self.network_label(endpoint.network);
                self.bus.attachment("disconnect", endpoint.network, &network, id);
            }
            if ended.as_ref().is_ok_and(|ended| ended.auto_removed) {
                self.bus.sandbox("destroy", &view.sandbox, &[]);
            }
        }
        if let Some(waiting) = waiting {
            // Nobody need be waiting.
            let _ = waiting.send(Some(code));
        }
        ended.map(drop)
    }
}

/// Waits for the end of a process.
#[expect(deprecated, reason = "the other form is unsafe; here the descriptor is owned by what is registered")]
async fn end_of(process: Arc<PidFd>) {
    let registered = AsyncFd::with_interest(process, Interest::READABLE);
    match registered {
        Ok(process) => {
            let _ = process.readable().await;
        }
        Err(error) => {
            tracing::error!(%error, "cannot watch a process");
            std::future::pending().await
        }
    }
}
