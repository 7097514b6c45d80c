//! The façade: every operation there is on networks, sandboxes and endpoints.
//!
//! Each operation goes the same way:
//!
//! 1. It takes its networks and sandboxes (`locks`), looks at the facts and refuses what can't be.
//! 2. It claims subnets and addresses in memory (`addresses`).
//! 3. It changes the facts, in one transaction that asks nothing of the kernel.
//! 4. It leads the kernel and the firewall from the plan of the facts before to that of the facts after (`plans`).
//!
//! If the last fails, the facts of before are put back in one transaction and the kernel is led back to their plan:
//! nothing half-made remains. The end of a sandbox can't be undone; what the kernel refuses to remove then is left to
//! the next [`Controller::reconcile`], and its addresses stay taken until that.
//!
//! Operations block. Those on one network or sandbox that would disturb each other wait for each other, all others run
//! side by side.

mod addresses;
mod config;
mod default_bridge;
mod endpoints;
mod error;
mod home;
mod host;
mod known;
mod locks;
mod look;
mod names;
mod networks;
mod open;
mod plans;
mod ports;
mod reconcile;
mod request;
mod resolver;
mod root;
mod rules;
mod sandboxes;
mod start;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub use config::{BridgeDevice, Config, DEFAULT_BRIDGE, DefaultBridge};
pub use error::{Class, ControllerError, SettingsError};
pub use request::{
    Ended, Files, LinkView, NetworkRequest, NetworkView, SandboxConfigRequest, SandboxView, Started,
};

use crate::dns::Server;
use crate::firewall::Backend;
use crate::kernel::Kernel;
use crate::model::{BootId, Timestamp};
use crate::publish::Keeper;
use crate::store::Store;

type Result<T, E = ControllerError> = std::result::Result<T, E>;

/// The networks and sandboxes of one data root. Handles may be cloned and used from any thread of the network namespace
/// in which it was opened: the firewall's tools act in that of the calling thread.
#[derive(Clone)]
pub struct Controller(Arc<Inner>);

struct Inner {
    config: Config,
    boot: BootId,
    /// Tells what is ours in the kernel from what another daemon has made.
    marker: String,
    store: Store,
    kernel: Box<dyn Kernel>,
    /// Whether this kernel has IPv6, and with it the loopback of each namespace. Looked up once: a look under `/proc/sys`
    /// takes half a millisecond when there are 500 namespaces.
    ipv6: bool,
    addresses: addresses::Addresses,
    rules: Mutex<rules::Rules>,
    locks: locks::Locks,
    random: host::Random,
    /// The embedded servers, and the names they answer to.
    dns: Server,
    /// The host's ports, and the proxies behind them.
    keeper: Keeper,
    /// Held while networks are pruned.
    pruning: Mutex<()>,
    /// Dropped last, as the next: until then no other daemon may come.
    root: root::Root,
    /// None in tests without a kernel.
    _home: Option<home::Home>,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("data_root", &self.0.root.data()).finish_non_exhaustive()
    }
}

impl Controller {
    /// The boot that processes are of which run now.
    pub fn boot(&self) -> &BootId {
        &self.0.boot
    }

    /// What rules are made with; `None` if none are to be made, or nothing works that they could be made with.
    pub fn firewall_backend(&self) -> Option<Backend> {
        self.0.rules().backend()
    }
}

impl Inner {
    fn rules(&self) -> MutexGuard<'_, rules::Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
