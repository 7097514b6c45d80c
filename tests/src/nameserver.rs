//! A name server that says what a test has it say, on UDP and TCP, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, TXT};
use hickory_proto::rr::{RData, Record, RecordType};

use crate::lab::Host;
use crate::servers::{TcpServer, UdpServer};
use crate::wait;

/// Where name servers are.
pub const PORT: u16 = 53;
/// How long an answer of this server's may be kept, in seconds.
pub const TTL: u32 = 77;

/// What it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As it was spelled, without the last dot.
    pub name: String,
    /// What is wanted.
    pub kind: RecordType,
    /// Whether over a connection.
    pub tcp: bool,
    /// How much the client takes in a datagram, if it says so.
    pub edns: Option<u16>,
    /// From where.
    pub from: IpAddr,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// NOERROR with these.
    Data(Vec<RData>),
    /// Nothing but a code.
    Code(ResponseCode),
    /// There is more than fits, and here is nothing of it.
    Cut,
    /// No reply.
    Silence,
    /// No reply, but these bytes.
    Bytes(Vec<u8>),
}

type Knows = dyn Fn(&Asked) -> Answer + Send + Sync;
type Log = Arc<Mutex<Vec<Asked>>>;

/// The server; it ends with the handle.
#[derive(Debug)]
pub struct NameServer {
    log: Log,
    _udp: UdpServer,
    _tcp: TcpServer,
}

impl NameServer {
    /// Serves on port 53 of one of the host's addresses.
    ///
    /// # Panics
    /// When the port is taken or the address not the host's.
    #[must_use]
    pub fn start(host: &Host, at: &str, knows: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let at = SocketAddr::new(at.parse().expect("an address"), PORT);
        Self::with(host.udp(at), host.listen(at), knows)
    }

    /// Serves sockets made elsewhere.
    #[must_use]
    pub fn with(
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
        knows: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (log, knows): (Log, Arc<Knows>) = (Log::default(), Arc::new(knows));
        let (log_udp, knows_udp) = (Arc::clone(&log), Arc::clone(&knows));
        let udp = UdpServer::serve(udp, move |datagram| {
            let reply = reply(&datagram.bytes, datagram.from.ip(), false, &*knows_udp, &log_udp);
            reply.into_iter().collect()
        });
        let log_tcp = Arc::clone(&log);
        let tcp = TcpServer::with(tcp, move |stream| {
            // A client that goes ends its conversation.
            let _ = converse(stream, &*knows, &log_tcp);
        });
        Self { log, _udp: udp, _tcp: tcp }
    }

    /// One that knows `example.com`, and that nothing else exists.
    #[must_use]
    pub fn of_example(host: &Host, at: &str) -> Self {
        Self::start(host, at, example)
    }

    /// What it has been asked so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it was asked for a name, in whatever spelling.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.asked().iter().filter(|asked| asked.name.eq_ignore_ascii_case(name)).count()
    }

    /// Waits until it has been asked for a name.
    ///
    /// # Panics
    /// When nobody asks.
    #[track_caller]
    pub fn wait_for(&self, name: &str) {
        wait::until(&format!("query for {name}"), || self.count(name) > 0);
    }
}

/// `example.com` is 93.184.216.34, and nothing else exists.
#[must_use]
pub fn example(asked: &Asked) -> Answer {
    match (asked.name.to_ascii_lowercase().as_str(), asked.kind) {
        ("example.com", RecordType::A) => Answer::Data(vec![a("93.184.216.34")]),
        ("example.com", _) => Answer::Data(Vec::new()),
        _ => Answer::Code(ResponseCode::NXDomain),
    }
}

/// An address as an answer.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn a(address: &str) -> RData {
    match address.parse().expect("an address") {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

/// A text as an answer.
#[must_use]
pub fn txt(text: &str) -> RData {
    RData::TXT(TXT::new(vec![text.to_owned()]))
}

fn reply(query: &[u8], from: IpAddr, tcp: bool, knows: &Knows, log: &Log) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let name = question.name().to_string().trim_end_matches('.').to_owned();
    let edns = query.edns.as_ref().map(hickory_proto::op::Edns::max_payload);
    let asked = Asked { name, kind: question.query_type(), tcp, edns, from };
    // Before the answer: who has that may look here at once.
    log.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
    let mut reply = query.into_response();
    reply.edns = None;
    match knows(&asked) {
        Answer::Data(data) => {
            for data in data {
                reply.add_answer(Record::from_rdata(question.name().clone(), TTL, data));
            }
        }
        Answer::Code(code) => reply.metadata.response_code = code,
        Answer::Cut => reply.metadata.truncation = true,
        Answer::Silence => return None,
        Answer::Bytes(bytes) => return Some(bytes),
    }
    Some(reply.to_vec().expect("a reply can be written"))
}

fn converse(mut stream: TcpStream, knows: &Knows, log: &Log) -> std::io::Result<()> {
    let from = stream.peer_addr()?.ip();
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        if let Some(reply) = reply(&query, from, true, knows, log) {
            let length = u16::try_from(reply.len()).map_err(std::io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes(), &reply[..]].concat())?;
        }
    }
}
