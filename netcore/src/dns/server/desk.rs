//! The servers' thread: what its sandboxes share, and what it is told to do.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet, LocalSet};

use super::budget::{Pool, Share};
use super::host_file::HostFile;
use super::tcp::Connections;
use super::{Asked, Client, Order, ServerConfig, tcp, udp};
use crate::dns::answer::next;
use crate::dns::{Transport, Upstreams, Verdict, Zones, answer};
use crate::kernel::NameSockets;
use crate::kernel::resolver::{Home, SocketMaker};
use crate::model::SandboxId;
use crate::names::resolv_conf::{given_upstreams, host_upstreams};

/// The longest message there is.
const LONGEST: usize = u16::MAX as usize;
/// Queries that wait for others, of all sandboxes, beyond the few that each has for certain.
const POOL: usize = 2048;
/// What a query may need: a datagram socket for each of three servers, and a connection for a long reply.
const SOCKETS_PER_QUERY: usize = 4;
/// Between two lines about errors.
const QUIET: Duration = Duration::from_secs(10);

/// The thread's own things.
pub(super) struct Desk {
    runtime: Runtime,
    shared: Rc<Shared>,
}

/// What all sandboxes share.
pub(super) struct Shared {
    zones: Arc<RwLock<Zones>>,
    /// What is received, until it is looked at.
    pub(super) scratch: RefCell<Box<[u8]>>,
    /// Orders addresses: no secret.
    shuffle: Cell<u64>,
    random: File,
    /// Of the servers that are asked.
    pub(super) port: u16,
    pub(super) hasher: RandomState,
    pool: Rc<Pool>,
    host_file: RefCell<HostFile>,
    pub(super) maker: RefCell<SocketMaker>,
    complained: Cell<Option<Instant>>,
}

/// One sandbox's server.
pub(super) struct Served {
    pub(super) shared: Rc<Shared>,
    pub(super) client: RefCell<Client>,
    pub(super) upstreams: RefCell<Upstreams>,
    /// Of the host's file, that the upstreams are from; 0: from none yet.
    edition: Cell<u64>,
    pub(super) share: Rc<Share>,
    /// Queries that came as datagrams and wait for others: from where, and what they are.
    pub(super) waiting: RefCell<HashSet<(SocketAddr, u64)>>,
    pub(super) connections: Connections,
    tasks: RefCell<JoinSet<()>>,
}

impl Desk {
    /// What the thread needs before it serves anybody.
    pub(super) fn open(
        config: ServerConfig,
        zones: Arc<RwLock<Zones>>,
        home: &Home,
        port: u16,
    ) -> io::Result<Self> {
        home.enter()?;
        let mut random = File::open("/dev/urandom")?;
        let mut seed = [0; 8];
        random.read_exact(&mut seed)?;
        let shared = Shared {
            zones,
            scratch: RefCell::new(vec![0; LONGEST].into_boxed_slice()),
            shuffle: Cell::new(u64::from_ne_bytes(seed)),
            random,
            port,
            hasher: RandomState::new(),
            pool: Pool::new(pool_size()),
            host_file: RefCell::new(HostFile::new(config.host_file)),
            maker: RefCell::default(),
            complained: Cell::default(),
        };
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Self { runtime, shared: Rc::new(shared) })
    }

    /// Does what it is told until nobody can tell it any more.
    pub(super) fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut all: HashMap<SandboxId, Rc<Served>> = HashMap::new();
        LocalSet::new().block_on(&self.runtime, async {
            while let Some(order) = orders.recv().await {
                // Whoever gave an order may be gone when it is done.
                match order {
                    Order::Serve(id, sockets, client, done) => {
                        if let Some(old) = all.remove(&id) {
                            old.end().await;
                        }
                        let served = Served::start(&self.shared, sockets, *client);
                        let _ = done.send(served.map(|served| drop(all.insert(id, served))));
                    }
                    Order::Update(id, client, done) => {
                        if let Some(served) = all.get(&id) {
                            served.update(*client);
                        }
                        let _ = done.send(());
                    }
                    Order::End(id, done) => {
                        if let Some(old) = all.remove(&id) {
                            old.end().await;
                        }
                        let _ = done.send(());
                    }
                }
            }
        });
    }
}

/// Half of the descriptors that this process may have are left to others.
fn pool_size() -> usize {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let affordable = usize::try_from(descriptors).unwrap_or(usize::MAX) / 2 / SOCKETS_PER_QUERY;
    POOL.min(affordable)
}

impl Shared {
    /// A number that nobody can guess.
    pub(super) fn random(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        (&self.random).read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn shuffle(&self) -> u64 {
        self.shuffle.set(next(self.shuffle.get()));
        self.shuffle.get()
    }

    /// Has an error in the log, unless there was one just now: what is the matter with one query is with the next, too.
    pub(super) fn complain(&self, what: &'static str, error: &io::Error) {
        let now = Instant::now();
        if self.complained.get().is_none_or(|last| now.saturating_duration_since(last) >= QUIET) {
            self.complained.set(Some(now));
            tracing::debug!(%error, "{what}");
        }
    }
}

impl Served {
    fn start(shared: &Rc<Shared>, sockets: NameSockets, client: Client) -> io::Result<Rc<Self>> {
        let udp = Rc::new(UdpSocket::from_std(sockets.udp)?);
        let tcp = TcpListener::from_std(sockets.tcp)?;
        let served = Rc::new(Self {
            shared: Rc::clone(shared),
            upstreams: RefCell::default(),
            edition: Cell::new(0),
            share: Share::of(&shared.pool),
            waiting: RefCell::default(),
            connections: Connections::default(),
            tasks: RefCell::default(),
            client: RefCell::new(client.clone()),
        });
        served.update(client);
        served.spawn(udp::serve(Rc::clone(&served), udp));
        served.spawn(tcp::serve(Rc::clone(&served), tcp));
        Ok(served)
    }

    fn update(&self, client: Client) {
        match &client.asked {
            // Out of the file, when somebody has to be asked, as it is by then.
            Asked::Host { .. } => {
                self.edition.set(0);
                self.shared.host_file.borrow_mut().look_again();
            }
            Asked::These(servers) => {
                self.upstreams.borrow_mut().replace(given_upstreams(servers.iter().copied()));
            }
        }
        *self.client.borrow_mut() = client;
    }

    /// When this is done, no task and no socket is left.
    async fn end(&self) {
        let mut tasks = self.tasks.take();
        tasks.shutdown().await;
        // One may be on its way from the thread that makes them.
        let (settled, all) = oneshot::channel();
        self.shared.maker.borrow_mut().settle(|| {
            // This waits for it.
            let _ = settled.send(());
        });
        let _ = all.await;
    }

    /// Runs something until it ends or the sandbox's server does.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) -> AbortHandle {
        let mut tasks = self.tasks.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(task)
    }

    /// What to do about a message.
    pub(super) fn decide(&self, message: &[u8], transport: Transport) -> Verdict {
        let client = self.client.borrow();
        let zones = self.shared.zones.read().unwrap_or_else(PoisonError::into_inner);
        answer(message, transport, &zones, &client.view, &client.settings, self.shared.shuffle())
    }

    /// Makes the upstreams be what the host's file says now, if that is whom the sandbox asks.
    pub(super) fn refresh_upstreams(&self, now: Instant) {
        let Asked::Host { ipv6 } = self.client.borrow().asked else { return };
        let mut file = self.shared.host_file.borrow_mut();
        let (says, edition) = file.look(now);
        if self.edition.replace(edition) != edition {
            self.upstreams.borrow_mut().replace(host_upstreams(says, ipv6));
        }
    }
}
