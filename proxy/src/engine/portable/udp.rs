//! UDP: a task per listening socket, a task per flow for its replies, and one that ends idle flows.
//!
//! Everything runs on the main thread; the table's lock is never contended and never held across a wait. Datagrams are
//! sent with plain non-blocking calls: what a full buffer doesn't take is dropped and counted, as a network would. One
//! call receives or sends one datagram: batches are the other engine's, but those that an earlier holder of the socket
//! asked for are understood.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle, yield_now};
use tokio::time::{Instant, sleep_until};

use super::Shared;
use crate::listen::{Listener, reason};
use crate::sources::{first_unspent, is_spent};
use crate::sys::watch;
use crate::udp::{Datagram, FlowKey, FlowTable, connect, is_shortage, receive, send, send_on};
use crate::{limits, log_error};

/// The largest datagram there is: IPv6 without jumbograms carries up to 65,527 bytes of payload.
const BUFFER: usize = 65_535;
/// Datagrams taken in a row before others get a turn.
const BURST: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

type Flows = Mutex<FlowTable<Instant, Flow>>;

/// What the table keeps per flow. Dropping it ends the flow.
#[derive(Debug)]
struct Flow {
    backend: Arc<AsyncFd<UdpSocket>>,
    replies: AbortHandle,
    shared: Arc<Shared>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.replies.abort();
        self.shared.counters.flows.open.down();
    }
}

/// All that the tasks of a UDP mapping share.
#[derive(Debug)]
struct Relay {
    flows: Flows,
    /// Rung when the table gets its first flow.
    first: Notify,
    shared: Arc<Shared>,
}

impl Relay {
    fn flows(&self) -> MutexGuard<'_, FlowTable<Instant, Flow>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task per listener, and the one that ends idle flows.
pub(super) fn serve(listeners: Vec<Listener>, shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let options = &shared.options;
    // A flow takes a descriptor: never more flows than descriptors.
    let most = limits::descriptor_budget(listeners.len(), 1);
    let bound = options.udp_flows.min(most.try_into().unwrap_or(options.udp_flows));
    let relay = Arc::new(Relay {
        flows: Mutex::new(FlowTable::new(bound, options.udp_timeout)),
        first: Notify::new(),
        shared: Arc::clone(shared),
    });
    let mut tasks = Vec::with_capacity(listeners.len() + 1);
    for (number, listener) in (0..).zip(listeners) {
        let receiver = Arc::new(Receiver {
            socket: watch(listener.socket)?,
            number,
            target: listener.target,
            relay: Arc::clone(&relay),
        });
        tasks.push(tokio::spawn(receiver.receive_all()));
    }
    tasks.push(tokio::spawn(expire(relay)));
    Ok(tasks)
}

/// A listening socket.
#[derive(Debug)]
struct Receiver {
    socket: AsyncFd<Socket>,
    number: u32,
    target: SocketAddr,
    relay: Arc<Relay>,
}

impl Receiver {
    async fn receive_all(self: Arc<Self>) {
        // An error means that the runtime is going away.
        while let Ok(mut ready) = self.socket.readable().await {
            let outcome = ready.try_io(|socket| {
                SCRATCH.with_borrow_mut(|buffer| self.receive_burst(socket.get_ref(), buffer))
            });
            if let Ok(Err(error)) = outcome {
                // Errors of earlier replies surface here too (udp(7)); none of them is the end.
                self.relay.shared.counters.errors.add(1);
                log_error!(Datagram, "receiving on port {}: {}", self.port(), reason(&error));
            }
            yield_now().await;
        }
    }

    fn receive_burst(self: &Arc<Self>, socket: &Socket, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BURST {
            let datagram = receive(socket, buffer)?;
            self.forward(datagram, &buffer[..datagram.len]);
        }
        Ok(())
    }

    fn forward(self: &Arc<Self>, datagram: Datagram, payload: &[u8]) {
        let key = FlowKey { listener: self.number, client: datagram.client, local: datagram.local };
        let counters = &self.relay.shared.counters;
        let known = self.relay.flows().lookup(&key, Instant::now()).map(|flow| Arc::clone(&flow.backend));
        let pieces = &[IoSlice::new(payload)];
        let sent = match known {
            Some(backend) => send_on(backend.get_ref(), pieces, datagram.segment),
            None => {
                self.open_flow(key).and_then(|backend| send_on(backend.get_ref(), pieces, datagram.segment))
            }
        };
        match sent {
            Ok(()) => counters.to_backend.datagrams(payload.len(), datagram.segment),
            Err(error) => {
                counters.errors.add(1);
                log_error!(Datagram, "datagram to {} dropped: {}", self.target, reason(&error));
            }
        }
    }

    fn open_flow(self: &Arc<Self>, key: FlowKey) -> io::Result<Arc<AsyncFd<UdpSocket>>> {
        let counters = &self.relay.shared.counters;
        let connect = || first_unspent(&self.relay.shared.sources, |source| connect(self.target, source));
        let backend = match connect() {
            // Descriptors or ports are short: the flow idle longest has one.
            Err(error)
                if (is_shortage(&error) || is_spent(&error)) && self.relay.flows().evict().is_some() =>
            {
                counters.flows.evicted.add(1);
                connect()
            }
            result => result,
        }?;
        let backend = Arc::new(watch(backend)?);
        let mut flows = self.relay.flows();
        let was_empty = flows.is_empty();
        let (_, evicted) = flows.insert(key, Instant::now(), |serial| {
            let replies = tokio::spawn(Arc::clone(self).reply_all(key, serial, Arc::clone(&backend)));
            Flow {
                backend: Arc::clone(&backend),
                replies: replies.abort_handle(),
                shared: Arc::clone(&self.relay.shared),
            }
        });
        drop(flows);
        counters.flows.open.up();
        counters.flows.total.add(1);
        if evicted.is_some() {
            counters.flows.evicted.add(1);
        }
        if was_empty {
            self.relay.first.notify_one();
        }
        Ok(backend)
    }

    /// Passes a flow's replies on until the flow ends, which aborts this task.
    async fn reply_all(self: Arc<Self>, key: FlowKey, serial: u64, backend: Arc<AsyncFd<UdpSocket>>) {
        while let Ok(mut ready) = backend.readable().await {
            let outcome = ready.try_io(|backend| {
                SCRATCH.with_borrow_mut(|buffer| self.reply_burst(key, serial, backend.get_ref(), buffer))
            });
            if let Ok(Err(error)) = outcome
                && error.kind() != io::ErrorKind::ConnectionRefused
            {
                self.relay.shared.counters.errors.add(1);
                log_error!(Datagram, "receiving from {}: {}", self.target, reason(&error));
            }
            yield_now().await;
        }
    }

    fn reply_burst(
        &self,
        key: FlowKey,
        serial: u64,
        backend: &UdpSocket,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        for _ in 0..BURST {
            let n = backend.recv(buffer)?;
            self.relay.flows().touch(&key, serial, Instant::now());
            let counters = &self.relay.shared.counters;
            // Whatever a reply runs into (a full queue, a firewall, no route), the flow stays: the next may pass.
            match send(self.socket.get_ref(), &buffer[..n], key.client, key.local) {
                Ok(()) => counters.to_client.packet(n),
                Err(error) => {
                    counters.errors.add(1);
                    log_error!(Datagram, "reply to {} dropped: {}", key.client, reason(&error));
                }
            }
        }
        Ok(())
    }

    fn port(&self) -> u16 {
        self.socket.get_ref().local_addr().ok().and_then(|a| a.as_socket()).map_or(0, |a| a.port())
    }
}

/// Ends flows as they become idle for too long.
async fn expire(relay: Arc<Relay>) {
    loop {
        let next = relay.flows().next_expiry();
        match next {
            Some(at) => sleep_until(at).await,
            None => relay.first.notified().await,
        }
        let now = Instant::now();
        while let Some(flow) = { relay.flows().expire(now) } {
            drop(flow);
        }
    }
}
