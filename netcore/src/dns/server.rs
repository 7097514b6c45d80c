//! The embedded servers of all sandboxes: sockets, time and randomness for the decisions of this module's parent.
//!
//! One thread serves them all, so that a sandbox costs two sockets and no thread. What one sandbox sends is taken in turns
//! with the others' ([`udp`], [`tcp`]), and of what queries for others cost ([`forward`]) each has its share ([`budget`]).
//! Nothing grows with what comes in.
//!
//! Callers talk to the thread by messages; [`Zones`] alone are shared, behind a lock that is held for one look-up.
//!
//! Not here: making the sockets and leading port 53 to them (`kernel`).

mod budget;
mod desk;
mod forward;
mod host_file;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

pub(crate) use host_file::read as read_host_file;
use tokio::sync::mpsc;

use super::{Member, Settings, View, Zones};
use crate::kernel::NameSockets;
use crate::kernel::resolver::{Home, PORT};
use crate::model::{EndpointId, NetworkId, SandboxId};

/// The embedded servers of all sandboxes.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    /// Where the host's servers are asked from. An error is told when there is something to serve.
    home: io::Result<Home>,
    zones: Arc<RwLock<Zones>>,
    /// On which port servers are asked.
    port: u16,
    state: Mutex<State>,
}

/// What is the same for all sandboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Whose servers [`Asked::Host`] means: the host's resolv.conf. It is looked at when something is to be forwarded, once
    /// a second at most, and read anew when it changed. No file is an empty one.
    pub host_file: PathBuf,
}

/// What one sandbox's server has to know.
#[derive(Clone, Debug)]
pub struct Client {
    /// The handle of its network namespace: servers of its own are asked from in there.
    pub namespace: PathBuf,
    /// What it sees.
    pub view: View,
    /// Whom it asks what it doesn't see.
    pub asked: Asked,
    /// Whether it has a way out now. If not, the host's servers aren't asked for it.
    pub gateway: bool,
    /// What else its answers depend on.
    pub settings: Settings,
}

/// Whom a sandbox's server asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The servers of the host's file, or public ones if it names none, from the host's namespace.
    Host {
        /// Whether public servers may be IPv6 ones, too.
        ipv6: bool,
    },
    /// `--dns`: these, from the sandbox's namespace.
    These(Vec<IpAddr>),
}

#[derive(Debug, Default)]
struct State {
    thread: Option<Thread>,
    served: HashSet<SandboxId>,
}

#[derive(Debug)]
struct Thread {
    orders: mpsc::UnboundedSender<Order>,
    handle: JoinHandle<()>,
}

/// What the thread is told to do, and whom it tells of the outcome: not by tokio's channels, as a caller may be on a thread of
/// some runtime.
enum Order {
    Serve(SandboxId, NameSockets, Box<Client>, SyncSender<io::Result<()>>),
    Update(SandboxId, Box<Client>, SyncSender<()>),
    End(SandboxId, SyncSender<()>),
}

impl Server {
    /// No thread runs yet. The host's servers will be asked from the calling thread's network namespace.
    pub fn new(config: ServerConfig) -> Self {
        Self { config, home: Home::here(), zones: Arc::default(), port: PORT, state: Mutex::default() }
    }

    /// An endpoint becomes active, or is called something else. Queries that come after this know it.
    pub fn join(&self, network: NetworkId, endpoint: EndpointId, member: Member) {
        self.zones().join(network, endpoint, member);
    }

    /// An endpoint isn't active any more.
    pub fn leave(&self, network: &NetworkId, endpoint: &EndpointId) {
        self.zones().leave(network, endpoint);
    }

    /// Serves a sandbox on these sockets. What served it before ends.
    ///
    /// # Errors
    /// If the thread can't be started or the sockets can't be waited on: out of descriptors or memory.
    pub fn serve(&self, id: SandboxId, sockets: NameSockets, client: Client) -> io::Result<()> {
        let mut state = self.state();
        if state.thread.as_ref().is_none_or(|thread| thread.handle.is_finished()) {
            // If there was one, it ended by a panic and took all sockets along.
            state.served.clear();
            state.thread = Some(self.start()?);
        }
        let (done, outcome) = sync_channel(1);
        state.order(Order::Serve(id, sockets, Box::new(client), done));
        state.served.remove(&id);
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the name servers' thread ended")))?;
        state.served.insert(id);
        Ok(())
    }

    /// A sandbox's server knows something else when this returns. Nothing happens if there is none.
    pub fn update(&self, id: SandboxId, client: Client) {
        let (done, outcome) = sync_channel(1);
        self.state().order(Order::Update(id, Box::new(client), done));
        // An error says that there is no thread, and so nothing that could know.
        let _ = outcome.recv();
    }

    /// Ends a sandbox's server. When this returns its sockets are closed, and nothing keeps the namespace.
    pub fn end(&self, id: SandboxId) {
        let (done, outcome) = sync_channel(1);
        let mut state = self.state();
        state.order(Order::End(id, done));
        state.served.remove(&id);
        drop(state);
        // An error says that there is no thread, and so no socket.
        let _ = outcome.recv();
    }

    /// Whether a sandbox has a server.
    pub fn serves(&self, id: SandboxId) -> bool {
        let state = self.state();
        state.thread.as_ref().is_some_and(|thread| !thread.handle.is_finished()) && state.served.contains(&id)
    }

    fn start(&self) -> io::Result<Thread> {
        let home = self.home.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let home = home.try_clone()?;
        let (orders, ordered) = mpsc::unbounded_channel();
        let (config, zones, port) = (self.config.clone(), Arc::clone(&self.zones), self.port);
        let (started, outcome) = sync_channel(1);
        let handle = thread::Builder::new().name("dns".to_owned()).spawn(move || {
            let failed = match desk::Desk::open(config, zones, &home, port) {
                Ok(desk) => {
                    // The caller waits for it.
                    let _ = started.send(Ok(()));
                    return desk.run(ordered);
                }
                Err(error) => error,
            };
            let _ = started.send(Err(failed));
        })?;
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the name servers' thread ended")))?;
        Ok(Thread { orders, handle })
    }

    fn zones(&self) -> RwLockWriteGuard<'_, Zones> {
        // A panic in between would be one of the table's own code, which changes name by name.
        self.zones.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// If there is no thread, the order is dropped, and with it who is told of its outcome.
    fn order(&self, order: Order) {
        if let Some(thread) = &self.thread {
            let _ = thread.orders.send(order);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(Thread { orders, handle }) = self.state().thread.take() else { return };
        drop(orders);
        // It ends with its last order. A panic was its own.
        let _ = handle.join();
    }
}
