//! Whom to ask what a sandbox's own names don't answer: which server when, and which reply counts.
//!
//! Servers are asked in order. One that is silent isn't waited for longer than [`PATIENCE`] before the next is asked too,
//! but its reply still counts if it comes; after [`TOTAL`] the client is told that nobody knows, before it gives up by
//! itself. What was silent is asked last for a while, so that a dead server costs its time once and not per query.
//!
//! Not here: sockets. Who drives an [`Exchange`] does what each [`Step`] says and reports what came of it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::names::resolv_conf::{EMBEDDED, Origin, Upstream};

use super::answer::next;
use super::query::{Forward, Transport};
use super::reply::{Worth, judge};

/// How long one server is waited for alone. Docker's 4 s are more than a client's patience once a second one is needed.
pub(super) const PATIENCE: Duration = Duration::from_millis(1500);
/// How long a query may take. glibc gives up after 5 s.
pub(super) const TOTAL: Duration = Duration::from_millis(4500);
/// For how long a silent server is asked last.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// As many servers as libc reads from a file.
const MOST_SERVERS: usize = 3;
/// How often a query is sent as a datagram, which may get lost.
const MOST_TRIES: usize = 3;

/// The servers of one sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstreams {
    servers: Vec<Server>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    upstream: Upstream,
    silent_until: Option<Instant>,
}

/// One query on its way to others.
#[derive(Debug)]
pub struct Exchange {
    query: Forward,
    way: Transport,
    servers: Vec<Candidate>,
    attempts: Vec<Attempt>,
    random: u64,
    ends: Instant,
    /// A reply that says there is more than it has.
    truncated: Option<Truncated>,
    reply: Option<Vec<u8>>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, and report what comes back until the exchange is done.
    Ask(Ask),
    /// Nothing until something comes, or it is this late.
    Wait(Instant),
    /// Send this to the client. The exchange is over.
    Done(Vec<u8>),
}

/// Something to send to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What to report under.
    pub attempt: usize,
    /// The server.
    pub server: Upstream,
    /// How.
    pub way: Transport,
    /// The message, without a length in front.
    pub message: Vec<u8>,
}

#[derive(Debug)]
struct Candidate {
    upstream: Upstream,
    /// Nothing more is to be expected of it.
    out: bool,
    /// Something came from it.
    spoke: bool,
}

#[derive(Debug)]
struct Attempt {
    server: usize,
    way: Transport,
    id: u16,
    since: Instant,
    open: bool,
}

#[derive(Debug)]
struct Truncated {
    reply: Vec<u8>,
    server: usize,
    /// Whether the rest was asked for already.
    asked: bool,
}

impl Upstreams {
    /// The first three of these. The embedded server itself isn't one.
    pub fn new(list: impl IntoIterator<Item = Upstream>) -> Self {
        let others = list.into_iter().filter(|upstream| upstream.server.ip != IpAddr::from(EMBEDDED));
        let servers = others.take(MOST_SERVERS).map(|upstream| Server { upstream, silent_until: None });
        Self { servers: servers.collect() }
    }

    /// Other servers from now on; what is known of those that stay is kept.
    pub fn replace(&mut self, list: impl IntoIterator<Item = Upstream>) {
        let known = std::mem::replace(self, Self::new(list));
        for server in &mut self.servers {
            let same = known.servers.iter().find(|old| old.upstream == server.upstream);
            server.silent_until = same.and_then(|old| old.silent_until);
        }
    }

    /// Whom to ask now, best first. A sandbox without a way out (`gateway`) doesn't get one through the host's servers.
    fn order(&self, gateway: bool, now: Instant) -> Vec<Upstream> {
        let usable = |server: &&Server| gateway || server.upstream.origin == Origin::Sandbox;
        let mut servers: Vec<&Server> = self.servers.iter().filter(usable).collect();
        servers.sort_by_key(|server| server.silent_until.is_some_and(|until| now < until));
        servers.into_iter().map(|server| server.upstream.clone()).collect()
    }
}

impl Exchange {
    /// A query that came in by `way`. `gateway` is whether the sandbox has a way out at this moment; `random` makes ids
    /// that can't be guessed.
    pub fn new(
        query: Forward,
        way: Transport,
        upstreams: &Upstreams,
        gateway: bool,
        random: u64,
        now: Instant,
    ) -> Self {
        let candidate = |upstream| Candidate { upstream, out: false, spoke: false };
        let servers = upstreams.order(gateway, now).into_iter().map(candidate).collect();
        let ends = now + TOTAL;
        Self { query, way, servers, attempts: Vec::new(), random, ends, truncated: None, reply: None }
    }

    /// What to do now.
    pub fn step(&mut self, now: Instant) -> Step {
        if let Some(reply) = &self.reply {
            return Step::Done(reply.clone());
        }
        if let Some(truncated) = &mut self.truncated
            && !truncated.asked
        {
            truncated.asked = true;
            let server = truncated.server;
            return self.ask(server, Transport::Tcp, now);
        }
        let newest = self.attempts.last().filter(|attempt| attempt.open);
        let patient = newest.map(|attempt| attempt.since + PATIENCE).filter(|until| now < *until);
        let next = if now < self.ends { self.next_server() } else { None };
        match (patient, next) {
            (Some(until), _) if now < self.ends && (next.is_some() || self.truncated.is_some()) => {
                Step::Wait(until.min(self.ends))
            }
            (_, Some(server)) => self.ask(server, self.way, now),
            _ if now < self.ends && self.truncated.is_none() && self.attempts.iter().any(|a| a.open) => {
                Step::Wait(self.ends)
            }
            _ => self.conclude(),
        }
    }

    /// Something came in answer to an attempt.
    pub fn heard(&mut self, attempt: usize, reply: &[u8]) {
        let Some(Attempt { server, way, id, open: true, .. }) = self.attempts.get(attempt) else { return };
        let (server, way, worth) = (*server, *way, judge(&self.query, *id, reply));
        if worth == Worth::Foreign {
            return;
        }
        self.attempts[attempt].open = false;
        self.servers[server].spoke = true;
        match worth {
            Worth::Truncated if way == Transport::Udp && self.truncated.is_none() => {
                self.truncated = Some(Truncated { reply: reply.to_vec(), server, asked: false });
            }
            Worth::Truncated | Worth::Final => {
                // What a server sends unasked is passed on as it came; what we fetched over a connection is ours to cut.
                let cut = way != self.way;
                self.reply.get_or_insert_with(|| self.query.pass_on(reply.to_vec(), cut));
            }
            Worth::Useless | Worth::Foreign => self.servers[server].out = true,
        }
    }

    /// Nothing will come in answer to an attempt: no connection, or it ended.
    pub fn failed(&mut self, attempt: usize) {
        if let Some(attempt) = self.attempts.get_mut(attempt).filter(|attempt| attempt.open) {
            attempt.open = false;
            self.servers[attempt.server].out = true;
        }
    }

    /// Has the sandbox's later queries know who was silent in this one, and who wasn't.
    pub fn teach(&self, upstreams: &mut Upstreams, now: Instant) {
        for server in &mut upstreams.servers {
            let Some(at) = self.servers.iter().position(|known| known.upstream == server.upstream) else {
                continue;
            };
            let mut asked = self.attempts.iter().filter(|attempt| attempt.server == at);
            let patience_ended = asked.any(|attempt| !attempt.open || now >= attempt.since + PATIENCE);
            if self.servers[at].spoke {
                server.silent_until = None;
            } else if patience_ended {
                server.silent_until = Some(now + SILENCE);
            }
        }
    }

    /// The servers take turns, but over a connection, where nothing gets lost, each has one.
    fn next_server(&self) -> Option<usize> {
        if self.truncated.is_some() {
            return None;
        }
        let tries = |at: usize| self.attempts.iter().filter(|attempt| attempt.server == at).count();
        let open = (0..self.servers.len()).filter(|at| !self.servers[*at].out);
        match self.way {
            Transport::Udp if self.attempts.len() >= MOST_TRIES => None,
            Transport::Udp => open.min_by_key(|at| tries(*at)),
            Transport::Tcp => open.filter(|at| tries(*at) == 0).min(),
        }
    }

    fn ask(&mut self, server: usize, way: Transport, now: Instant) -> Step {
        self.random = next(self.random);
        let [high, low, ..] = self.random.to_be_bytes();
        let id = u16::from_be_bytes([high, low]);
        self.attempts.push(Attempt { server, way, id, since: now, open: true });
        Step::Ask(Ask {
            attempt: self.attempts.len() - 1,
            server: self.servers[server].upstream.clone(),
            way,
            message: self.query.with_id(id),
        })
    }

    /// Nobody is left: who asked gets what little came, or learns that nothing did.
    fn conclude(&mut self) -> Step {
        let query = &self.query;
        let reply = match self.truncated.take() {
            Some(truncated) => query.pass_on(truncated.reply, false),
            None => query.failed(),
        };
        self.reply = Some(reply.clone());
        Step::Done(reply)
    }
}

#[cfg(test)]
mod tests;
