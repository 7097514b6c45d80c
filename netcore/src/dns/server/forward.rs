//! Queries for others: asks the servers that an [`Exchange`] names, and gives the reply to who asked.
//!
//! Each server is asked from a socket of its own, connected and on a random port, which is closed when the query is done:
//! a stranger has to guess port and id.

use std::future::{Future, poll_fn};
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use super::budget::Permit;
use super::desk::{Served, Shared};
use super::udp;
use crate::dns::{Ask, Exchange, Forward, Step, Transport};
use crate::kernel::resolver::{Outgoing, outgoing};
use crate::names::resolv_conf::Origin;

/// A reply for a connection, with the leave to wait that its query has until it is sent.
pub(super) type Reply = (Vec<u8>, Option<Permit>);

/// Finds the reply to a query that came as a datagram. If the query waits already, it has only been sent again.
pub(super) fn datagram(served: &Rc<Served>, socket: &Rc<UdpSocket>, query: Forward, from: SocketAddr) {
    let key = (from, served.shared.hasher.hash_one(query.bytes()));
    if served.waiting.borrow().contains(&key) {
        return;
    }
    let Some(permit) = served.share.take() else {
        return udp::send(served, socket, &query.refused(), from);
    };
    served.waiting.borrow_mut().insert(key);
    let (here, socket) = (Rc::clone(served), Rc::clone(socket));
    served.spawn(async move {
        let reply = find(&here, query, Transport::Udp).await;
        here.waiting.borrow_mut().remove(&key);
        drop(permit);
        udp::send(&here, &socket, &reply, from);
    });
}

/// The same for one that came over a connection, whose `replies` get it.
pub(super) fn stream(served: &Rc<Served>, query: Forward, replies: mpsc::UnboundedSender<Reply>) {
    // Whoever waits for the replies may have gone.
    let Some(permit) = served.share.take() else {
        let _ = replies.send((query.refused(), None));
        return;
    };
    let here = Rc::clone(served);
    served.spawn(async move {
        let reply = find(&here, query, Transport::Tcp).await;
        let _ = replies.send((reply, Some(permit)));
    });
}

async fn find(served: &Rc<Served>, query: Forward, way: Transport) -> Vec<u8> {
    let now = Instant::now();
    served.refresh_upstreams(now);
    let random = match served.shared.random() {
        Ok(random) => random,
        Err(error) => {
            served.shared.complain("there are no random numbers", &error);
            return query.failed();
        }
    };
    let gateway = served.client.borrow().gateway;
    let mut exchange = Exchange::new(query, way, &served.upstreams.borrow(), gateway, random, now);
    let mut attempts = Attempts { shared: Rc::clone(&served.shared), begun: Vec::new() };
    loop {
        match exchange.step(Instant::now()) {
            Step::Ask(ask) => attempts.begin(served, ask),
            Step::Wait(until) => {
                // Too late is no event; the next step knows the time.
                if let Ok((attempt, heard)) = timeout_at(until.into(), attempts.next()).await {
                    match heard {
                        Ok(reply) => exchange.heard(attempt, &reply),
                        Err(error) => {
                            served.shared.complain("a name server can't be asked", &error);
                            exchange.failed(attempt);
                        }
                    }
                }
            }
            Step::Done(reply) => {
                exchange.teach(&mut served.upstreams.borrow_mut(), Instant::now());
                return reply;
            }
        }
    }
}

/// What was asked and may still be answered.
struct Attempts {
    shared: Rc<Shared>,
    begun: Vec<(usize, Attempt)>,
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<Heard>>>>;

/// A message that came back, and over what more may come: to a socket for datagrams, also others than the server send.
type Heard = (Vec<u8>, Option<UdpSocket>);

impl Attempts {
    fn begin(&mut self, served: &Rc<Served>, ask: Ask) {
        let (attempt, served) = (ask.attempt, Rc::clone(served));
        let begun: Attempt = match ask.way {
            Transport::Udp => Box::pin(async move {
                let socket = send(&served, &ask).await?;
                receive(&served.shared, socket).await
            }),
            Transport::Tcp => Box::pin(async move { Ok((converse(&served, &ask).await?, None)) }),
        };
        self.begun.push((attempt, begun));
    }

    /// Waits for something to come in answer to one of them, or for an end of it. Nothing to wait for: waits for ever.
    async fn next(&mut self) -> (usize, io::Result<Vec<u8>>) {
        let (at, heard) = poll_fn(|context| {
            let all = self.begun.iter_mut().enumerate();
            let mut ready = all.filter_map(|(at, (_, begun))| match begun.as_mut().poll(context) {
                Poll::Ready(heard) => Some((at, heard)),
                Poll::Pending => None,
            });
            ready.next().map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let (attempt, _) = self.begun.swap_remove(at);
        let message = heard.map(|(message, more)| {
            if let Some(socket) = more {
                let shared = Rc::clone(&self.shared);
                self.begun.push((attempt, Box::pin(async move { receive(&shared, socket).await })));
            }
            message
        });
        (attempt, message)
    }
}

async fn send(served: &Served, ask: &Ask) -> io::Result<UdpSocket> {
    let Outgoing { socket, server } = make(served, ask).await?;
    socket.connect(&server.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send(&ask.message).await?;
    Ok(socket)
}

async fn receive(shared: &Shared, socket: UdpSocket) -> io::Result<Heard> {
    loop {
        // An error alone, such as that nobody listens there, wouldn't wake up who waits for datagrams.
        if socket.ready(Interest::READABLE | Interest::ERROR).await?.is_error() {
            return Err(socket.take_error()?.unwrap_or_else(|| io::ErrorKind::Other.into()));
        }
        let mut scratch = shared.scratch.borrow_mut();
        match socket.try_recv(&mut scratch) {
            Ok(length) => return Ok((scratch[..length].to_vec(), Some(socket))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn converse(served: &Served, ask: &Ask) -> io::Result<Vec<u8>> {
    let Outgoing { socket, server } = make(served, ask).await?;
    let mut stream = TcpSocket::from_std_stream(socket.into()).connect(server).await?;
    let length = u16::try_from(ask.message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), &ask.message[..]].concat()).await?;
    let length = stream.read_u16().await?;
    // Grows with what comes, not with what is claimed.
    let mut reply = Vec::new();
    (&mut stream).take(length.into()).read_to_end(&mut reply).await?;
    if reply.len() < length.into() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(reply) }
}

async fn make(served: &Served, ask: &Ask) -> io::Result<Outgoing> {
    let (server, port) = (&ask.server.server, served.shared.port);
    match ask.server.origin {
        Origin::Host => outgoing(server, port, ask.way),
        Origin::Sandbox => {
            let (done, made) = oneshot::channel();
            let namespace = served.client.borrow().namespace.clone();
            served.shared.maker.borrow_mut().make(namespace, (server.clone(), port), ask.way, |outcome| {
                // Nobody waits for it any more: it is closed.
                drop(done.send(outcome));
            });
            made.await.unwrap_or_else(|_| Err(io::Error::other("the thread that makes sockets ended")))
        }
    }
}
