//! Queries that come over connections: several on one, if the client likes, and answered as the answers are had.
//!
//! A connection on which nothing whole comes for a while is closed. A sandbox may have only so many; a new one takes the
//! place of the one that has been idle longest. What a client doesn't read holds up nobody but itself.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::WriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{sleep, sleep_until, timeout};

use super::desk::Served;
use super::forward::{self, Reply};
use crate::dns::{LONGEST_QUERY, Transport, Verdict};

/// How many connections a sandbox may have.
const MOST: usize = 32;
/// How many queries of one connection may wait for others. No more are read until one is answered.
const MOST_WAITING: usize = 16;
/// Within this a client has to send a whole query, or to read a reply.
const IDLE: Duration = Duration::from_secs(10);
/// How many connections are accepted, or queries of one answered, before others have their turn.
const TURN: usize = 16;
/// After an error that isn't about one connection: out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A sandbox's connections.
#[derive(Default)]
pub(super) struct Connections(RefCell<Vec<Connection>>);

struct Connection {
    state: Rc<State>,
    task: AbortHandle,
}

/// What of a connection says whether it is idle.
struct State {
    /// When it last came forward.
    active: Cell<Instant>,
    /// How many of its queries wait for others.
    waiting: Cell<usize>,
}

impl Connections {
    /// Makes room for one more, if any is idle.
    fn make_room(&self) -> bool {
        let mut all = self.0.borrow_mut();
        all.retain(|connection| !connection.task.is_finished());
        if all.len() < MOST {
            return true;
        }
        let idle = all.iter().enumerate().filter(|(_, connection)| connection.state.waiting.get() == 0);
        let Some((oldest, _)) = idle.min_by_key(|(_, connection)| connection.state.active.get()) else {
            return false;
        };
        all.swap_remove(oldest).task.abort();
        true
    }

    fn add(&self, connection: Connection) {
        self.0.borrow_mut().push(connection);
    }
}

/// Takes the connections that come.
pub(super) async fn serve(served: Rc<Served>, listener: TcpListener) {
    loop {
        for _ in 0..TURN {
            match listener.accept().await {
                Ok((stream, _)) => begin(&served, stream),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    served.shared.complain("an embedded name server can't accept", &error);
                    sleep(PAUSE).await;
                }
            }
        }
        yield_now().await;
    }
}

fn begin(served: &Rc<Served>, stream: TcpStream) {
    if !served.connections.make_room() {
        return;
    }
    let state = Rc::new(State { active: Cell::new(Instant::now()), waiting: Cell::new(0) });
    let (here, known) = (Rc::clone(served), Rc::clone(&state));
    let task = served.spawn(async move {
        // Its end is the client's affair.
        let _ = converse(&here, stream, &known).await;
    });
    served.connections.add(Connection { state, task });
}

/// Answers what comes over a connection until nothing more does.
async fn converse(served: &Rc<Served>, mut stream: TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (input, mut output) = stream.split();
    let (forwarded, mut replies) = mpsc::unbounded_channel::<Reply>();
    let mut received = Received::default();
    let mut open = true;
    loop {
        let mut turn = 0;
        while state.waiting.get() < MOST_WAITING
            && let Some(message) = received.first()
        {
            let (verdict, over) = (served.decide(message, Transport::Tcp), received.is_too_long());
            received.drop_first();
            match verdict {
                Verdict::Drop => {}
                Verdict::Reply(reply) => send(&mut output, &reply).await?,
                Verdict::Forward(query) => {
                    state.waiting.set(state.waiting.get() + 1);
                    forward::stream(served, *query, forwarded.clone());
                }
            }
            if over {
                return output.shutdown().await;
            }
            state.active.set(Instant::now());
            turn += 1;
            if turn % TURN == 0 {
                yield_now().await;
            }
        }
        let waiting = state.waiting.get();
        if !open && waiting == 0 {
            return Ok(());
        }
        select! {
            Some((reply, _permit)) = replies.recv(), if waiting > 0 => {
                send(&mut output, &reply).await?;
                state.waiting.set(waiting - 1);
                state.active.set(Instant::now());
            }
            ready = input.readable(), if open && waiting < MOST_WAITING => {
                ready?;
                let mut scratch = served.shared.scratch.borrow_mut();
                match input.try_read(&mut scratch[..Received::MOST]) {
                    Ok(0) => open = false,
                    Ok(length) => received.add(&scratch[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            () = sleep_until((state.active.get() + IDLE).into()), if waiting == 0 => return Ok(()),
        }
    }
}

async fn send(output: &mut WriteHalf<'_>, reply: &[u8]) -> io::Result<()> {
    let length = u16::try_from(reply.len()).map_err(|_| ErrorKind::InvalidData)?;
    timeout(IDLE, output.write_all(&[&length.to_be_bytes(), reply].concat())).await?
}

/// What came and isn't answered: messages, each after its length.
#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    /// How much of it is done with.
    done: usize,
}

impl Received {
    /// More is never waited for: one byte too many shows that a message is too long.
    const MOST: usize = 2 + LONGEST_QUERY + 1;

    fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.done);
        self.done = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The first message, if it is whole; of one that is too long, enough to see that.
    fn first(&self) -> Option<&[u8]> {
        let rest = &self.bytes[self.done..];
        rest.get(2..2 + self.claimed()?.min(LONGEST_QUERY + 1))
    }

    /// Whether the first message is longer than any that is read.
    fn is_too_long(&self) -> bool {
        self.claimed().is_some_and(|length| length > LONGEST_QUERY)
    }

    fn claimed(&self) -> Option<usize> {
        let length = self.bytes[self.done..].first_chunk::<2>()?;
        Some(u16::from_be_bytes(*length).into())
    }

    fn drop_first(&mut self) {
        if let Some(length) = self.claimed() {
            self.done = self.bytes.len().min(self.done + 2 + length);
        }
        if self.done == self.bytes.len() {
            // An idle connection holds nothing.
            *self = Self::default();
        }
    }
}
