//! The daemon: the one process of a host that keeps networks and sandboxes, and changes its network.
//!
//! It is started by hand, by systemd with a socket, or by the first client that finds nobody listening. Its order is:
//! lock the run-time folder and the data root, reconcile (that is what opening a controller does), look after what runs
//! already, and only then listen. Its end is the reverse, and leaves all sandboxes as they are.
//!
//! | module | what |
//! |---|---|
//! | [`settings`] | flags and configuration file |
//! | [`logs`] | where log lines go |
//! | [`socket`] | the sockets it listens on |
//! | [`serve`] | connections, signals, the end |
//! | [`watch`] | processes of running sandboxes |
//! | [`bus`] | what happened, for those who listen |
//! | [`explain`] | why a port answers, or doesn't |
//! | [`api`] | requests and answers |

mod api;
mod bus;
mod explain;
mod logs;
mod serve;
pub(crate) mod settings;
mod socket;
mod watch;

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use netcore::controller::{Controller, ControllerError};
use netcore::kernel::inherited_sockets;
use netcore::model::{NetworkId, Timestamp};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{geteuid, setsid};
use tokio::runtime::Builder;

use self::bus::Bus;
use self::serve::Activity;
use self::settings::Settings;
use self::watch::{Strays, Watch};

/// Operations of the controller that may go on at once.
const BLOCKING_THREADS: usize = 16;
/// How long an idle thread of these is kept: each costs memory.
const BLOCKING_KEPT: Duration = Duration::from_secs(2);
/// How long the last operations may take once the daemon is to end.
const LAST_OPERATIONS: Duration = Duration::from_secs(20);

/// How the daemon is started.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) settings: Settings,
    pub(crate) idle_timeout: Option<Duration>,
    /// Whether a client started it.
    pub(crate) on_demand: bool,
}

/// What all requests share.
pub(crate) struct State {
    pub(crate) controller: Controller,
    pub(crate) settings: Settings,
    pub(crate) bus: Bus,
    pub(crate) watch: Watch,
    pub(crate) activity: Activity,
    /// Tells this daemon's data root from others.
    pub(crate) engine_id: String,
    networks: Mutex<HashMap<NetworkId, NetworkLabel>>,
}

/// What of a network never changes.
#[derive(Clone, Debug)]
pub(crate) struct NetworkLabel {
    pub(crate) name: String,
    pub(crate) driver: String,
}

/// Runs the daemon to its end.
pub(crate) fn run(launch: Launch) -> Result<()> {
    let inherited = inherited_sockets();
    if launch.on_demand {
        // Fails for the leader of a process group, which a client's child is not.
        let _ = setsid();
    }
    let settings = &launch.settings;
    logs::start(settings.level, settings.json_logs);
    if !geteuid().is_root() {
        bail!("portmap daemon needs to be started with root privileges");
    }
    for doubt in &settings.doubts {
        tracing::warn!("{doubt}");
    }
    raise_descriptor_limit();
    let Some((_pidfile, strays, controller)) = open(settings, launch.on_demand)? else { return Ok(()) };
    let engine_id = engine_id(&settings.controller.data_root)?;
    let state = Arc::new(State {
        controller,
        settings: settings.clone(),
        bus: Bus::default(),
        watch: Watch::default(),
        activity: Activity::default(),
        engine_id,
        networks: Mutex::default(),
    });
    state.end_strays(strays);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEPT)
        .build()
        .context("cannot start a runtime")?;
    let served = runtime.block_on(serve::serve(state, inherited, launch.idle_timeout));
    // What was begun is finished.
    runtime.shutdown_timeout(LAST_OPERATIONS);
    let _ = std::fs::remove_file(&settings.pidfile);
    served
}

impl State {
    /// What a network is called, also just after it has gone.
    pub(crate) fn network_label(&self, id: NetworkId) -> NetworkLabel {
        let lock = || self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(label) = lock().get(&id) {
            return label.clone();
        }
        // Never asked of the controller with the lock held.
        if let Ok(networks) = self.controller.networks() {
            *lock() = networks
                .into_iter()
                .map(|network| {
                    (network.id, NetworkLabel { name: network.name.to_string(), driver: network.driver })
                })
                .collect();
        }
        let unknown = || NetworkLabel { name: id.to_string(), driver: String::new() };
        lock().get(&id).cloned().unwrap_or_else(unknown)
    }
}

/// The clock.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Takes the folders and what is in them; `None` if another daemon has them and that is as it should be.
fn open(settings: &Settings, on_demand: bool) -> Result<Option<(Flock<File>, Strays, Controller)>> {
    let exec_root = &settings.controller.exec_root;
    // What the sockets will need is asked for before the host is changed.
    socket::resolve_group(settings.group.as_deref())?;
    make_folder(exec_root)?;
    let Some(pidfile) = lock(&settings.pidfile)? else {
        let busy = format!("another portmap daemon is running: {} is locked", settings.pidfile.display());
        if !on_demand {
            bail!("{busy}");
        }
        tracing::debug!("{busy}");
        return Ok(None);
    };
    let strays = Strays::below(exec_root);
    match Controller::open(settings.controller.clone()) {
        Ok(controller) => Ok(Some((pidfile, strays, controller))),
        Err(busy @ ControllerError::Locked(_)) if on_demand => {
            tracing::warn!("{busy}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Everybody may pass: the socket is in it, and has a group of its own.
fn make_folder(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o711).create(path);
    made.with_context(|| format!("cannot make {}", path.display()))
}

/// Writes our process id into a file and keeps it locked. `None` if somebody else does.
fn lock(path: &Path) -> Result<Option<Flock<File>>> {
    let about = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path);
    let mut file = match Flock::lock(file.with_context(about)?, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, error)) => return Err(error).with_context(about),
    };
    file.set_len(0).with_context(about)?;
    file.write_all(std::process::id().to_string().as_bytes()).with_context(about)?;
    Ok(Some(file))
}

/// The id that a data root gets once.
fn engine_id(data_root: &Path) -> Result<String> {
    let path = data_root.join("engine-id");
    let about = || format!("cannot write {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(about),
        _ => {}
    }
    let id =
        std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("the kernel gives no random id")?;
    std::fs::write(&path, id.trim()).with_context(about)?;
    Ok(id.trim().to_owned())
}

/// Two descriptors for each sandbox, one for each client.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Without it fewer fit, and opening too many says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
