//! Accepting: from the kernel's backlog to a task per connection, whatever the shortage.
//!
//! A connection is accepted only when its descriptors are there, the client's and the backend's: until then it waits
//! in the backlog, where nothing is lost. If the kernel runs short all the same (the system's table, memory), accepting
//! pauses, longer each time up to a second, and goes on. Nothing here ever ends a listener.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use super::dial::dial;
use super::greet::{announce, greet};
use super::relay::relay;
use super::workers::{Seat, Workers};
use super::{Shared, sctp};
use crate::engine::{rejected, turned_away};
use crate::listen::{Listener, reason};
use crate::log_error;
use crate::mapping::Protocol;
use crate::sys;
use crate::tcp::{Direction, Finish, is_the_clients};
use std::net::SocketAddr;

/// Descriptors of a connection: the client's and the backend's.
const SOCKETS: u32 = 2;
/// Connections accepted in a row before others get a turn.
const BURST: usize = 64;
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection between the thread that accepted it and the one that serves it.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) socket: OwnedFd,
    pub(super) target: SocketAddr,
    pub(super) admission: Admission,
    pub(super) seat: Seat,
}

/// Permission to hold a connection's descriptors; also what `connections.open` counts.
#[derive(Debug)]
pub(super) struct Admission(Arc<Shared>);

impl Admission {
    async fn wait(shared: &Arc<Shared>) -> Self {
        // The semaphore is never closed; if it were, the kernel's own refusals would still keep order.
        if let Ok(permit) = shared.descriptors.acquire_many(SOCKETS).await {
            permit.forget();
        }
        Self::taken(shared)
    }

    fn try_take(shared: &Arc<Shared>) -> Option<Self> {
        shared.descriptors.try_acquire_many(SOCKETS).ok()?.forget();
        Some(Self::taken(shared))
    }

    fn taken(shared: &Arc<Shared>) -> Self {
        shared.counters.connections.open.up();
        Self(Arc::clone(shared))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.descriptors.add_permits(SOCKETS as usize);
        self.0.counters.connections.open.down();
    }
}

/// A task per listener.
pub(super) fn serve(
    listeners: Vec<Listener>,
    closing: &watch::Receiver<()>,
    shared: &Arc<Shared>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let workers = Arc::new(Mutex::new(Workers::new(Arc::clone(shared))));
    listeners
        .into_iter()
        .map(|listener| {
            let socket = sys::watch(listener.socket)?;
            let door = Door {
                socket,
                target: listener.target,
                shared: Arc::clone(shared),
                workers: Arc::clone(&workers),
            };
            Ok(tokio::spawn(door.serve(closing.clone())))
        })
        .collect()
}

/// A listener.
#[derive(Debug)]
struct Door {
    socket: AsyncFd<Socket>,
    target: SocketAddr,
    shared: Arc<Shared>,
    workers: Arc<Mutex<Workers>>,
}

impl Door {
    /// Accepts until it is told to close, and then what is left: it was let in by the kernel already.
    async fn serve(self, mut closing: watch::Receiver<()>) {
        tokio::select! {
            () = self.accept_all() => {}
            _ = closing.changed() => {}
        }
        while let Some(admission) = Admission::try_take(&self.shared)
            && let Ok(client) = sys::accept(self.socket.as_fd())
        {
            self.admit(client, admission);
        }
    }

    async fn accept_all(&self) {
        let mut pause = SHORTEST_PAUSE;
        // An error means that the runtime is going away.
        while let Ok(mut ready) = self.socket.readable().await {
            for _ in 0..BURST {
                let admission = Admission::wait(&self.shared).await;
                let accepted = match ready.try_io(|listener| sys::accept(listener.as_fd())) {
                    Ok(accepted) => accepted,
                    Err(_would_block) => break,
                };
                match accepted {
                    Ok(client) => {
                        pause = SHORTEST_PAUSE;
                        self.admit(client, admission);
                    }
                    Err(error) if is_the_clients(&error) => {}
                    Err(error) => {
                        drop(admission);
                        self.shared.counters.errors.add(1);
                        log_error!(Accept, "can't accept, trying again in {pause:?}: {}", reason(&error));
                        sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
            yield_now().await;
        }
    }

    fn admit(&self, client: OwnedFd, admission: Admission) {
        self.shared.counters.connections.total.add(1);
        let target = self.target;
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).place(client, |socket, seat| Accepted {
            socket,
            target,
            admission,
            seat,
        });
    }
}

/// A connection's whole life, on its thread.
pub(super) async fn converse(accepted: Accepted, shared: Arc<Shared>) {
    let Accepted { socket, target, admission, seat } = accepted;
    let result = match shared.protocol {
        Protocol::Sctp => sctp::converse(socket, target, &shared).await,
        Protocol::Tcp | Protocol::Udp => connect_through(socket, target, &shared).await,
    };
    if let Err(error) = result {
        shared.counters.errors.add(1);
        log_error!(Relay, "connection to {target}: {}", reason(&error));
    }
    drop((admission, seat));
}

async fn connect_through(socket: OwnedFd, target: SocketAddr, shared: &Arc<Shared>) -> io::Result<()> {
    let mut client = TcpStream::from_std(socket.into())?;
    let header = match greet(&client, shared).await {
        Ok(header) => header,
        Err(rejection) => {
            rejection.iter().for_each(|rejection| rejected(rejection, &shared.counters));
            reset_on_close(&client);
            return Ok(());
        }
    };
    match dial(target, &client, &shared.sources, shared.options.connect_timeout).await {
        Ok(mut backend) => {
            let finish = match announce(&backend, header).await {
                Ok(()) => relay(&mut client, &mut backend, shared).await,
                Err(_) => Finish::Reset, // the backend has reset already
            };
            if finish.resets_receiver(Direction::Down) {
                reset_on_close(&client);
            }
            if finish.resets_receiver(Direction::Up) {
                reset_on_close(&backend);
            }
        }
        Err(failure) => {
            turned_away(&failure, &shared.counters);
            reset_on_close(&client);
        }
    }
    Ok(())
}

/// Makes the close a reset: the peer must not take what it got for all there was.
pub(super) fn reset_on_close(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO)); // a socket that is gone needs no reset
}
