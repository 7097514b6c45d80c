use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::super::lab::{query, with_edns};
use super::*;

/// `host(…)` is one of the host's file.
fn upstream(text: &str) -> Upstream {
    match text.strip_prefix("host(").and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => Upstream { server: inner.parse().unwrap(), origin: Origin::Host },
        None => Upstream { server: text.parse().unwrap(), origin: Origin::Sandbox },
    }
}

fn upstreams(list: &str) -> Upstreams {
    Upstreams::new(list.split_whitespace().map(upstream))
}

fn forward(message: &Message, way: Transport) -> Forward {
    let Ok(query) = Forward::read(&message.to_vec().unwrap(), way) else { panic!("no query") };
    query
}

/// A query in the hands of a test, with the time under its control.
struct Lab {
    exchange: Exchange,
    start: Instant,
    now: Instant,
    upstreams: Upstreams,
}

impl Lab {
    fn new(list: &str) -> Self {
        Self::of(&query("example.com", RecordType::A), Transport::Udp, upstreams(list), true)
    }

    fn of(message: &Message, way: Transport, upstreams: Upstreams, gateway: bool) -> Self {
        let now = Instant::now();
        let exchange = Exchange::new(forward(message, way), way, &upstreams, gateway, 42, now);
        Self { exchange, start: now, now, upstreams }
    }

    /// The next step is to ask `server`.
    fn asks(&mut self, server: &str, way: Transport) -> Ask {
        match self.exchange.step(self.now) {
            Step::Ask(ask) => {
                assert_eq!((ask.server.to_string().as_str(), ask.way), (server, way));
                ask
            }
            other => panic!("{other:?} instead of asking {server}"),
        }
    }

    fn asks_udp(&mut self, server: &str) -> Ask {
        self.asks(server, Transport::Udp)
    }

    /// Nothing comes until the exchange wants to go on.
    fn waits(&mut self) -> Duration {
        match self.exchange.step(self.now) {
            Step::Wait(until) => {
                assert!(until > self.now, "time goes on");
                self.now = until;
                until - self.start
            }
            other => panic!("{other:?} instead of waiting"),
        }
    }

    fn done(&mut self) -> Message {
        let bytes = self.done_bytes();
        Message::from_vec(&bytes).unwrap()
    }

    fn done_bytes(&mut self) -> Vec<u8> {
        match self.exchange.step(self.now) {
            Step::Done(reply) => reply,
            other => panic!("{other:?} instead of an end"),
        }
    }

    fn ends_with(&mut self, code: ResponseCode) {
        let reply = self.done();
        assert_eq!((reply.metadata.id, reply.metadata.response_code), (0x1234, code));
        assert_eq!(reply.queries[0].name.to_string(), "example.com.");
    }

    fn hears(&mut self, ask: &Ask, reply: &Message) {
        self.exchange.heard(ask.attempt, &reply.to_vec().unwrap());
    }
}

fn replied(ask: &Ask, code: ResponseCode) -> Message {
    let mut reply = Message::from_vec(&ask.message).unwrap().into_response();
    reply.metadata.response_code = code;
    reply
}

fn address(ask: &Ask, count: u8) -> Message {
    let mut reply = replied(ask, ResponseCode::NoError);
    let name = reply.queries[0].name.clone();
    for last in 0..count {
        reply.add_answer(Record::from_rdata(name.clone(), 77, RData::A(A([93, 184, 216, last].into()))));
    }
    reply
}

#[test]
fn the_first_answer_is_passed_on_as_it_came() {
    for code in [ResponseCode::NoError, ResponseCode::NXDomain, ResponseCode::FormErr, ResponseCode::NotImp] {
        let mut lab = Lab::new("10.0.0.1 10.0.0.2");
        let ask = lab.asks_udp("10.0.0.1");
        let reply = replied(&ask, code);
        lab.hears(&ask, &reply);
        lab.ends_with(code);
        lab.ends_with(code);
    }
    let mut lab = Lab::new("10.0.0.1");
    let ask = lab.asks_udp("10.0.0.1");
    assert_ne!(ask.message[..2], [0x12, 0x34]);
    lab.hears(&ask, &address(&ask, 1));
    let reply = lab.done();
    assert_eq!((reply.metadata.id, reply.answers[0].ttl), (0x1234, 77));
}

#[test]
fn a_server_that_does_not_help_gives_way_at_once() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let mut lab = Lab::new("10.0.0.1 10.0.0.2");
        let ask = lab.asks_udp("10.0.0.1");
        lab.hears(&ask, &replied(&ask, code));
        let ask = lab.asks_udp("10.0.0.2");
        lab.hears(&ask, &address(&ask, 1));
        lab.ends_with(ResponseCode::NoError);
    }
    let mut lab = Lab::new("10.0.0.1 10.0.0.2 10.0.0.3");
    for server in ["10.0.0.1", "10.0.0.2"] {
        let ask = lab.asks_udp(server);
        lab.hears(&ask, &replied(&ask, ResponseCode::ServFail));
    }
    let ask = lab.asks_udp("10.0.0.3");
    lab.exchange.failed(ask.attempt);
    lab.ends_with(ResponseCode::ServFail);
    assert_eq!(lab.now, lab.start, "no time is lost");
}

#[test]
fn silent_servers_are_waited_for_a_little_and_not_too_long_in_all() {
    let mut lab = Lab::new("10.0.0.1 10.0.0.2 10.0.0.3");
    lab.asks_udp("10.0.0.1");
    assert_eq!(lab.waits(), PATIENCE);
    lab.asks_udp("10.0.0.2");
    assert_eq!(lab.waits(), 2 * PATIENCE);
    lab.asks_udp("10.0.0.3");
    assert_eq!(lab.waits(), TOTAL);
    lab.ends_with(ResponseCode::ServFail);
    assert!(TOTAL < Duration::from_secs(5));
    // One that may have lost a datagram is asked again.
    let mut lab = Lab::new("10.0.0.1");
    for _ in 0..2 {
        lab.asks_udp("10.0.0.1");
        lab.waits();
    }
    let last = lab.asks_udp("10.0.0.1");
    lab.hears(&last, &address(&last, 1));
    lab.ends_with(ResponseCode::NoError);
    // Two take turns.
    let mut lab = Lab::new("10.0.0.1 10.0.0.2");
    for server in ["10.0.0.1", "10.0.0.2", "10.0.0.1"] {
        lab.asks_udp(server);
        lab.waits();
    }
    lab.ends_with(ResponseCode::ServFail);
}

#[test]
fn a_late_reply_counts() {
    let mut lab = Lab::new("10.0.0.1 10.0.0.2");
    let first = lab.asks_udp("10.0.0.1");
    lab.waits();
    let second = lab.asks_udp("10.0.0.2");
    lab.hears(&second, &replied(&second, ResponseCode::ServFail));
    lab.hears(&first, &address(&first, 1));
    lab.ends_with(ResponseCode::NoError);
    // The first that counts is the only one.
    lab.hears(&second, &replied(&second, ResponseCode::NXDomain));
    lab.ends_with(ResponseCode::NoError);
}

#[test]
fn nobody_to_ask_is_a_failure_at_once() {
    let message = query("example.com", RecordType::A);
    for (list, gateway) in [("", true), ("127.0.0.11", true), ("host(10.0.0.1) host(127.0.0.53)", false)] {
        Lab::of(&message, Transport::Udp, upstreams(list), gateway).ends_with(ResponseCode::ServFail);
    }
    // On an internal network the servers that the sandbox itself was given.
    let mut lab = Lab::of(&message, Transport::Udp, upstreams("10.0.0.1"), false);
    lab.asks_udp("10.0.0.1");
}

#[test]
fn three_servers_count_and_not_the_embedded_one() {
    let mut list = upstreams("127.0.0.11 10.0.0.1 host(10.0.0.2) fd00::3 10.0.0.4");
    let order =
        |list: &Upstreams, now| list.order(true, now).iter().map(ToString::to_string).collect::<Vec<_>>();
    let now = Instant::now();
    assert_eq!(order(&list, now), ["10.0.0.1", "host(10.0.0.2)", "fd00::3"]);
    list.replace(["host(10.0.0.9)"].map(upstream));
    assert_eq!(order(&list, now), ["host(10.0.0.9)"]);
}

#[test]
fn the_silent_are_asked_last_for_a_while() {
    let mut lab = Lab::new("10.0.0.1 10.0.0.2");
    lab.asks_udp("10.0.0.1");
    lab.waits();
    let ask = lab.asks_udp("10.0.0.2");
    lab.hears(&ask, &address(&ask, 1));
    lab.done();
    let mut list = lab.upstreams.clone();
    lab.exchange.teach(&mut list, lab.now);
    let first = |list: &Upstreams, now| list.order(true, now)[0].to_string();
    assert_eq!(first(&list, lab.now), "10.0.0.2");
    assert_eq!(first(&list, lab.now + SILENCE), "10.0.0.1");
    // Known also when the list changes, until it speaks again.
    list.replace(["10.0.0.1", "10.0.0.3"].map(upstream));
    assert_eq!(first(&list, lab.now), "10.0.0.3");
    let mut other = Lab::new("10.0.0.1");
    let ask = other.asks_udp("10.0.0.1");
    other.hears(&ask, &replied(&ask, ResponseCode::ServFail));
    other.exchange.teach(&mut list, other.now);
    assert_eq!(first(&list, lab.now), "10.0.0.1");
    // One that wasn't waited for is not known to be silent; one that can't be reached is.
    let mut fresh = Lab::new("10.0.0.1 10.0.0.3");
    let ask = fresh.asks_udp("10.0.0.1");
    fresh.exchange.teach(&mut list, fresh.now);
    assert_eq!(first(&list, fresh.now), "10.0.0.1");
    fresh.exchange.failed(ask.attempt);
    fresh.exchange.teach(&mut list, fresh.now);
    assert_eq!(first(&list, fresh.now), "10.0.0.3");
}

fn truncated(ask: &Ask) -> Message {
    let mut reply = address(ask, 2);
    reply.metadata.truncation = true;
    reply
}

#[test]
fn a_truncated_reply_is_fetched_whole() {
    let mut lab = Lab::new("10.0.0.1 10.0.0.2");
    let ask = lab.asks_udp("10.0.0.1");
    lab.hears(&ask, &truncated(&ask));
    let again = lab.asks("10.0.0.1", Transport::Tcp);
    assert_ne!(ask.message[..2], again.message[..2], "an id is used once");
    lab.hears(&again, &address(&again, 20));
    let reply = lab.done();
    assert_eq!((reply.answers.len(), reply.metadata.truncation, reply.metadata.id), (20, false, 0x1234));
    // More than this client can take: it is told to come back over a connection itself.
    let edns = with_edns(query("example.com", RecordType::A), 600);
    for (message, count, kept) in
        [(query("example.com", RecordType::A), 31, 0), (edns.clone(), 31, 31), (edns, 60, 0)]
    {
        let mut lab = Lab::of(&message, Transport::Udp, upstreams("10.0.0.1"), true);
        let ask = lab.asks_udp("10.0.0.1");
        lab.hears(&ask, &truncated(&ask));
        let again = lab.asks("10.0.0.1", Transport::Tcp);
        lab.hears(&again, &address(&again, count));
        let reply = lab.done();
        assert_eq!((reply.answers.len(), reply.metadata.truncation), (kept, kept == 0), "{count}");
        assert_eq!(reply.metadata.id, 0x1234);
    }
}

#[test]
fn without_the_whole_the_truncated_reply_has_to_do() {
    // No connection; no answer over it; nonsense over it.
    for way_out in 0..3 {
        let mut lab = Lab::new("10.0.0.1 10.0.0.2");
        let ask = lab.asks_udp("10.0.0.1");
        lab.hears(&ask, &truncated(&ask));
        let again = lab.asks("10.0.0.1", Transport::Tcp);
        match way_out {
            0 => lab.exchange.failed(again.attempt),
            1 => assert_eq!(lab.waits(), PATIENCE),
            _ => lab.hears(&again, &replied(&again, ResponseCode::ServFail)),
        }
        let reply = lab.done();
        assert_eq!((reply.answers.len(), reply.metadata.truncation), (2, true), "{way_out}");
        assert_eq!(reply.metadata.id, 0x1234);
    }
}

#[test]
fn a_client_on_a_connection_has_its_servers_asked_over_one() {
    let message = query("example.com", RecordType::A);
    let mut lab = Lab::of(&message, Transport::Tcp, upstreams("10.0.0.1 10.0.0.2"), true);
    let first = lab.asks("10.0.0.1", Transport::Tcp);
    lab.exchange.failed(first.attempt);
    let second = lab.asks("10.0.0.2", Transport::Tcp);
    assert_eq!(lab.waits(), TOTAL);
    // Nothing more is to be had over a connection than what comes.
    lab.now = lab.start;
    lab.hears(&second, &truncated(&second));
    assert!(lab.done().metadata.truncation);
    // Each is asked once.
    let mut lab = Lab::of(&message, Transport::Tcp, upstreams("10.0.0.1"), true);
    lab.asks("10.0.0.1", Transport::Tcp);
    assert_eq!(lab.waits(), TOTAL);
    lab.ends_with(ResponseCode::ServFail);
}

#[test]
fn what_is_too_large_for_a_client_by_its_own_server_is_passed_on() {
    let mut lab = Lab::new("10.0.0.1");
    let ask = lab.asks_udp("10.0.0.1");
    let mut reply = address(&ask, 0);
    let text = RData::TXT(TXT::new(vec!["x".repeat(200); 5]));
    reply.add_answer(Record::from_rdata(Name::root(), 1, text));
    let mut sent = reply.to_vec().unwrap();
    assert!(sent.len() > 1000);
    lab.exchange.heard(ask.attempt, &sent);
    sent[..2].copy_from_slice(&[0x12, 0x34]);
    assert_eq!(lab.done_bytes(), sent);
}

#[test]
fn replies_to_something_else_are_not_heard_and_broken_ones_are_a_failure() {
    type Alter = (&'static str, fn(&mut Vec<u8>));
    let ignored: [Alter; 5] = [
        ("another id", |reply| reply[0] ^= 1),
        ("nothing", Vec::clear),
        ("one byte", |reply| reply.truncate(1)),
        ("another name", |reply| reply[13] ^= 2),
        ("another type", |reply| reply[26] = 16),
    ];
    let broken: [Alter; 8] = [
        ("the query itself", |reply| reply[2] &= 0x7f),
        ("half a header", |reply| reply.truncate(7)),
        ("another opcode", |reply| reply[2] |= 0x20),
        ("no question", |reply| reply[5] = 0),
        ("two questions", |reply| reply[5] = 2),
        ("half a question", |reply| reply.truncate(20)),
        ("half a record", |reply| reply.truncate(reply.len() - 1)),
        ("a record too few", |reply| reply[7] = 2),
    ];
    let cases = ignored.map(|case| (case, false)).into_iter().chain(broken.map(|case| (case, true)));
    for ((what, alter), gives_way) in cases {
        let mut lab = Lab::new("10.0.0.1 10.0.0.2");
        let ask = lab.asks_udp("10.0.0.1");
        let mut reply = address(&ask, 1).to_vec().unwrap();
        alter(&mut reply);
        lab.exchange.heard(ask.attempt, &reply);
        if gives_way {
            lab.asks_udp("10.0.0.2");
        } else {
            assert_eq!(lab.waits(), PATIENCE, "{what}");
            lab.hears(&ask, &address(&ask, 1));
            lab.ends_with(ResponseCode::NoError);
        }
    }
    // A pointer that goes round in circles.
    let mut lab = Lab::new("10.0.0.1 10.0.0.2");
    let ask = lab.asks_udp("10.0.0.1");
    let mut reply = address(&ask, 1).to_vec().unwrap();
    let record = u8::try_from(ask.message.len()).unwrap();
    reply[usize::from(record) + 1] = record;
    lab.exchange.heard(ask.attempt, &reply);
    lab.asks_udp("10.0.0.2");
}

#[test]
fn a_server_may_change_letters_and_need_not_repeat_what_it_could_not_read() {
    let mut lab = Lab::new("10.0.0.1");
    let ask = lab.asks_udp("10.0.0.1");
    let mut reply = address(&ask, 1).to_vec().unwrap();
    reply[13] = b'E';
    lab.exchange.heard(ask.attempt, &reply);
    assert_eq!(lab.done().answers.len(), 1);

    let mut lab = Lab::new("10.0.0.1");
    let ask = lab.asks_udp("10.0.0.1");
    let mut reply = replied(&ask, ResponseCode::FormErr);
    reply.queries.clear();
    lab.hears(&ask, &reply);
    assert_eq!(lab.done().metadata.response_code, ResponseCode::FormErr);
}

proptest! {
    #[test]
    fn whatever_comes_the_exchange_ends_in_time(
        servers in 0..5u8,
        tcp: bool,
        events in prop::collection::vec((0..5u8, 0..8usize, 0..2000u64, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
    ) {
        let list: String = (0..servers).map(|last| format!("10.0.0.{last} ")).collect();
        let way = if tcp { Transport::Tcp } else { Transport::Udp };
        let mut lab = Lab::of(&query("example.com", RecordType::A), way, upstreams(&list), true);
        let (mut asks, mut events) = (Vec::new(), events.into_iter());
        for _ in 0..40 {
            match lab.exchange.step(lab.now) {
                Step::Done(reply) => {
                    prop_assert_eq!(&reply[..2], &[0x12, 0x34]);
                    prop_assert!(lab.now <= lab.start + TOTAL);
                    let mut list = lab.upstreams.clone();
                    lab.exchange.teach(&mut list, lab.now);
                    return Ok(());
                }
                Step::Ask(ask) => {
                    asks.push(ask);
                    prop_assert!(asks.len() <= MOST_TRIES + 1);
                }
                Step::Wait(until) => {
                    prop_assert!(until > lab.now && until <= lab.start + TOTAL);
                    let Some((kind, which, millis, bytes)) = events.next() else {
                        lab.now = until;
                        continue;
                    };
                    lab.now = until.min(lab.now + Duration::from_millis(millis));
                    let Some(ask) = asks.get(which % asks.len().max(1)) else { continue };
                    match kind {
                        0 => lab.exchange.failed(ask.attempt),
                        1 => lab.exchange.heard(ask.attempt, &bytes),
                        2 => lab.exchange.heard(ask.attempt, &[&ask.message[..2], &bytes].concat()),
                        3 => lab.exchange.heard(ask.attempt, &truncated(ask).to_vec().unwrap()),
                        _ => lab.exchange.heard(which, &replied(ask, ResponseCode::ServFail).to_vec().unwrap()),
                    }
                }
            }
        }
        prop_assert!(false, "no end");
    }

    #[test]
    fn no_reply_panics(bytes in prop::collection::vec(any::<u8>(), 0..120), damage in prop::collection::vec((0..80usize, any::<u8>()), 0..4)) {
        let forward = forward(&query("example.com", RecordType::A), Transport::Udp);
        let ask = Ask { attempt: 0, server: upstream("10.0.0.1"), way: Transport::Udp, message: forward.with_id(7) };
        let mut reply = address(&ask, 3).to_vec().unwrap();
        for (at, byte) in damage {
            let end = reply.len();
            reply[at % end] = byte;
        }
        for bytes in [bytes.clone(), [&[0, 7], &bytes[..]].concat(), reply] {
            if judge(&forward, 7, &bytes) == Worth::Final {
                prop_assert!(bytes.len() >= 12);
                prop_assert_eq!(&forward.pass_on(bytes.clone(), false)[2..], &bytes[2..]);
            }
        }
    }
}
