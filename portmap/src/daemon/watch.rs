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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netcore::controller::ControllerError;
use netcore::kernel::PidFd;
use netcore::model::{ProcessId, Running, SandboxId};
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

/// How a sandbox's end became known.
pub(crate) enum End {
    /// Its supervisor told the exit code, or why the command couldn't be started.
    Reported(i32, Option<String>),
    /// This supervisor is gone.
    Vanished(ProcessId),
}

/// The running sandboxes.
#[derive(Default)]
pub(crate) struct Watch(Mutex<HashMap<SandboxId, Watched>>);

struct Watched {
    supervisor: Option<Arc<PidFd>>,
    command: Option<Arc<PidFd>>,
    /// The exit code, once there is one.
    ended: Sender<Option<i32>>,
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

    fn processes(&self, id: SandboxId) -> (Option<Arc<PidFd>>, Option<Arc<PidFd>>) {
        self.lock().get(&id).map_or((None, None), |w| (w.command.clone(), w.supervisor.clone()))
    }

    /// Watches it no longer. Who waits is to be told by what is returned; `None` if it wasn't watched.
    fn forget(&self, id: SandboxId) -> Option<Sender<Option<i32>>> {
        self.lock().remove(&id).map(|watched| watched.ended)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Looks after a sandbox from its start on. To be called on the runtime.
    pub(crate) fn watch_started(self: &Arc<Self>, id: SandboxId, reporter: ProcessId, supervisor: PidFd) {
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
        self.watch.lock().insert(id, Watched { supervisor: supervisor.clone(), command, ended });
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
        let torn_down = spawn_blocking(move || state.ended(id, End::Vanished(reporter))).await;
        if let Ok(Err(error)) = torn_down {
            tracing::error!(sandbox = %id.short(), %error, "cannot tear it down");
        }
    }

    /// A sandbox's command has ended: tears down, and tells who waits. Blocks.
    pub(crate) fn ended(&self, id: SandboxId, end: End) -> Result<(), ControllerError> {
        let before = self.controller.sandbox(&id.to_string());
        let (code, ended) = match end {
            End::Reported(code, error) => (code, self.controller.sandbox_ended(id, code, error)),
            End::Vanished(supervisor) => (KILLED, self.controller.supervisor_gone(id, supervisor)),
        };
        // Also after a failure: who waits shall hear of the end, the rest is for the next reconciliation.
        let waiting = self.watch.forget(id);
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
