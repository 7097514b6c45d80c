//! A query: read from bytes that may be anything, checked as far as it concerns us, and answered with a failure or in
//! full.

use hickory_proto::op::{Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable, BinEncoder};

/// Longer queries are refused. One question and its EDNS options fit a fraction of it; it bounds what waits for others.
pub const LONGEST_QUERY: usize = 4096;

/// What a reply over UDP may have if the query doesn't say, and the least that it may say.
const PLAIN_UDP: usize = 512;
/// The most that a datagram on IPv4 carries.
const LONGEST_UDP: usize = 65_507;
const LONGEST_TCP: usize = u16::MAX as usize;
const HEADER: usize = 12;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// As a datagram.
    Udp,
    /// Over a connection, after its length.
    Tcp,
}

/// A query that others have to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    bytes: Vec<u8>,
    pub(super) metadata: Metadata,
    pub(super) question: Query,
    limit: usize,
}

/// Why bytes aren't a query of ours.
pub(super) enum Refusal {
    /// Nobody should be answered.
    Silence,
    /// Whoever asked is told this.
    Reply(Vec<u8>),
}

impl Forward {
    pub(super) fn read(bytes: &[u8], transport: Transport) -> Result<Self, Refusal> {
        let header = Header::from_bytes(bytes).map_err(|_| Refusal::Silence)?;
        if header.message_type == MessageType::Response {
            return Err(Refusal::Silence);
        }
        let refuse = |code| Refusal::Reply(bare(&header.metadata, code));
        if !matches!(header.op_code, OpCode::Query | OpCode::Notify) {
            return Err(refuse(ResponseCode::NotImp));
        }
        let counts = header.counts;
        let usual =
            counts.queries == 1 && counts.answers <= 1 && counts.authorities <= 1 && counts.additionals <= 2;
        if !usual || bytes.len() > LONGEST_QUERY {
            return Err(refuse(ResponseCode::FormErr));
        }
        let message = Message::from_vec(bytes).map_err(|_| refuse(ResponseCode::FormErr))?;
        let udp = message.edns.as_ref().map_or(PLAIN_UDP, |edns| usize::from(edns.max_payload()));
        let limit = match transport {
            Transport::Udp => udp.clamp(PLAIN_UDP, LONGEST_UDP),
            Transport::Tcp => LONGEST_TCP,
        };
        let question = message.queries.into_iter().next().ok_or_else(|| refuse(ResponseCode::FormErr))?;
        Ok(Self { bytes: bytes.to_vec(), metadata: header.metadata, question, limit })
    }

    /// The query as it came.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The query as it came, under another id.
    pub fn with_id(&self, id: u16) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        restamp(&mut bytes, id);
        bytes
    }

    /// A reply of somebody else's for who asked here: under the id that the query came with, and cut if it came over a
    /// connection (`cut`) and is more than who asked can take.
    pub fn pass_on(&self, mut reply: Vec<u8>, cut: bool) -> Vec<u8> {
        if cut && reply.len() > self.limit {
            return self.cut();
        }
        restamp(&mut reply, self.metadata.id);
        reply
    }

    /// SERVFAIL: nobody that could be asked knows.
    pub fn failed(&self) -> Vec<u8> {
        self.reply(ResponseCode::ServFail, &[])
    }

    /// REFUSED: there are too many queries waiting.
    pub fn refused(&self) -> Vec<u8> {
        self.reply(ResponseCode::Refused, &[])
    }

    /// What tells a client to ask again over a connection.
    fn cut(&self) -> Vec<u8> {
        let mut message = self.response(ResponseCode::NoError);
        message.metadata.truncation = true;
        self.encode(&message)
    }

    /// How many addresses a reply can't have more of.
    pub(super) const fn most_addresses(&self) -> usize {
        // A pointer to the name, type, class, TTL, length, and four bytes of an IPv4 address.
        self.limit / 16
    }

    /// A reply of our own. Answers that don't fit are left out, and the reply says so.
    pub(super) fn reply(&self, code: ResponseCode, answers: &[(u32, RData)]) -> Vec<u8> {
        let mut message = self.response(code);
        for (ttl, data) in answers {
            message.add_answer(Record::from_rdata(self.question.name().clone(), *ttl, data.clone()));
        }
        self.encode(&message)
    }

    fn response(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.metadata.id, self.metadata.op_code);
        message.metadata = reply_to(&self.metadata, code);
        message.add_query(self.question.clone());
        message
    }

    fn encode(&self, message: &Message) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PLAIN_UDP);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(u16::try_from(self.limit).unwrap_or(u16::MAX));
        match message.emit(&mut encoder) {
            Ok(()) => bytes,
            // Not to be had: a question that was read has a name that can be written. Silence would cost a time-out.
            Err(_) => bare(&self.metadata, ResponseCode::ServFail),
        }
    }

    pub(super) const fn name(&self) -> &Name {
        &self.question.name
    }
}

fn reply_to(query: &Metadata, code: ResponseCode) -> Metadata {
    let mut reply = Metadata::new(query.id, MessageType::Response, query.op_code);
    reply.recursion_desired = query.recursion_desired;
    reply.checking_disabled = query.checking_disabled;
    reply.recursion_available = true;
    reply.response_code = code;
    reply
}

/// A reply that repeats no question.
fn bare(query: &Metadata, code: ResponseCode) -> Vec<u8> {
    let header = Header { metadata: reply_to(query, code), counts: Default::default() };
    // A header always fits; no reply if it didn't.
    header.to_bytes().unwrap_or_default()
}

fn restamp(message: &mut [u8], id: u16) {
    debug_assert!(message.len() >= HEADER, "what is passed on has been read");
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}
