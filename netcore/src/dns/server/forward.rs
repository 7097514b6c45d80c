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
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
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
    let mut attempts = Attempts::default();
    loop {
        match exchange.step(Instant::now()) {
            Step::Ask(ask) => attempts.begin(served, ask),
            Step::Wait(until) => {
                // Too late is no event; the next step knows the time.
                if let Ok((attempt, heard)) = timeout_at(until.into(), attempts.next(&served.shared)).await {
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
#[derive(Default)]
struct Attempts(Vec<(usize, Attempt)>);

enum Attempt {
    Sending(Pin<Box<dyn Future<Output = io::Result<UdpSocket>>>>),
    /// Sent. More than one datagram may come back, and not all from the server.
    Sent(UdpSocket),
    Connection(Pin<Box<dyn Future<Output = io::Result<Vec<u8>>>>>),
}

impl Attempts {
    fn begin(&mut self, served: &Rc<Served>, ask: Ask) {
        let (attempt, served) = (ask.attempt, Rc::clone(served));
        let begun = match ask.way {
            Transport::Udp => Attempt::Sending(Box::pin(async move { send(&served, &ask).await })),
            Transport::Tcp => Attempt::Connection(Box::pin(async move { converse(&served, &ask).await })),
        };
        self.0.push((attempt, begun));
    }

    /// Waits for something to come in answer to one of them, or for an end of it. Nothing to wait for: waits for ever.
    async fn next(&mut self, shared: &Shared) -> (usize, io::Result<Vec<u8>>) {
        poll_fn(|context| {
            for (at, (attempt, begun)) in self.0.iter_mut().enumerate() {
                if let Poll::Ready(heard) = begun.poll(context, shared) {
                    let attempt = *attempt;
                    if heard.is_err() || matches!(begun, Attempt::Connection(_)) {
                        self.0.swap_remove(at);
                    }
                    return Poll::Ready((attempt, heard));
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Attempt {
    fn poll(&mut self, context: &mut Context<'_>, shared: &Shared) -> Poll<io::Result<Vec<u8>>> {
        if let Self::Sending(sending) = self {
            match ready!(sending.as_mut().poll(context)) {
                Ok(socket) => *self = Self::Sent(socket),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        match self {
            Self::Sent(socket) => {
                let mut scratch = shared.scratch.borrow_mut();
                let mut buffer = ReadBuf::new(&mut scratch);
                ready!(socket.poll_recv(context, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().to_vec()))
            }
            Self::Connection(connection) => connection.as_mut().poll(context),
            Self::Sending(_) => Poll::Pending,
        }
    }
}

async fn send(served: &Served, ask: &Ask) -> io::Result<UdpSocket> {
    let Outgoing { socket, server } = make(served, ask).await?;
    socket.connect(&server.into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send(&ask.message).await?;
    Ok(socket)
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
