//! Servers on this machine's loopback, and servers to ask that are silent, slow, unable, brief or liars.

mod connections;
mod lab;

use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

use self::lab::{Lab, Upstream, address, code, failure, truncated};
use super::super::lab::{data, query};

const FORMERR: ResponseCode = ResponseCode::FormErr;

fn bytes(name: &str) -> Vec<u8> {
    query(name, RecordType::A).to_vec().unwrap()
}

/// Messages, and what they are answered with; nothing: not at all.
fn odd_messages() -> Vec<(&'static str, Vec<u8>, Option<ResponseCode>)> {
    let changed = |change: fn(&mut Message)| {
        let mut message = query("provider", RecordType::A);
        change(&mut message);
        message.to_vec().unwrap()
    };
    let mut looping = bytes("provider");
    // The name points to itself.
    looping.splice(12..22, [0xc0, 12]);
    let mut many = bytes("provider");
    many[5] = 200;
    vec![
        ("nothing", vec![], None),
        ("too short for a header", vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0], None),
        ("a response", changed(|message| message.metadata.message_type = MessageType::Response), None),
        (
            "another operation",
            changed(|message| message.metadata.op_code = OpCode::Status),
            Some(ResponseCode::NotImp),
        ),
        ("no question", changed(|message| message.queries.clear()), Some(FORMERR)),
        ("two questions", changed(|message| message.queries.extend(message.queries.clone())), Some(FORMERR)),
        ("200 questions claimed", many, Some(FORMERR)),
        ("a name that points to itself", looping, Some(FORMERR)),
        ("cut in the question", bytes("provider")[..20].to_vec(), Some(FORMERR)),
        ("too long", [bytes("provider"), vec![0; 4096]].concat(), Some(FORMERR)),
        (
            "another class",
            changed(|message| message.queries[0].query_class = DNSClass::CH),
            Some(ResponseCode::Refused),
        ),
    ]
}

#[test]
fn local_names_are_answered_anew_each_time() {
    let lab = Lab::new();
    let mut first = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let reply = lab.ask("app");
        assert_eq!(data(&reply), ["172.22.0.2", "172.22.0.3"]);
        first.insert(format!("{:?}", Message::from_vec(&reply).unwrap().answers[0].data));
    }
    assert_eq!(first.len(), 2, "the order varies");
}

#[test]
fn what_is_no_query_gets_its_code_or_silence() {
    let lab = Lab::new();
    for (what, message, expected) in odd_messages() {
        lab.client.send(&message).unwrap();
        // Silence shows by the next one's reply being the first.
        let (reply, expected) = match expected {
            Some(expected) => (lab.receive(), expected),
            None => (lab.ask("provider"), ResponseCode::NoError),
        };
        assert_eq!(code(&reply), expected, "{what}");
        assert_eq!(reply[..2], [0x12, 0x34], "{what}");
    }
}

#[test]
fn a_server_that_is_of_no_use_gives_way_to_the_next() {
    let lab = Lab::new();
    let unable = Upstream::new(&lab, 2, |query| vec![failure(query, ResponseCode::ServFail)]);
    let liar = Upstream::new(&lab, 3, |query| {
        let mut lie = address(query, 66);
        lie[1] ^= 1;
        let mut other = Message::from_vec(&address(query, 67)).unwrap();
        other.queries[0].name = "elsewhere.com".parse().unwrap();
        vec![lie, other.to_vec().unwrap(), address(query, 1)]
    });
    lab.host_file(&[&unable, &liar]);
    assert_eq!(data(&lab.ask("example.com")), ["10.0.0.1"]);
    assert_eq!((unable.asked(), liar.asked()), (1, 1));
}

#[test]
fn nobody_listening_is_no_reason_to_wait() {
    let lab = Lab::new();
    let there = Upstream::new(&lab, 2, |query| vec![address(query, 1)]);
    lab.host_file_text(&format!("nameserver 127.0.0.9\nnameserver {}\n", there.ip));
    let began = Instant::now();
    assert_eq!(data(&lab.ask("example.com")), ["10.0.0.1"]);
    assert!(began.elapsed() < Duration::from_secs(1));
    lab.host_file_text("nameserver 127.0.0.9\n");
    std::thread::sleep(Duration::from_millis(1050));
    assert_eq!(code(&lab.ask("example.com")), ResponseCode::ServFail);
}

#[test]
fn a_silent_server_costs_its_time_once_and_a_slow_one_counts() {
    let lab = Lab::new();
    let silent = Upstream::new(&lab, 2, |_| vec![]);
    let slow = Upstream::new(&lab, 3, |query| {
        std::thread::sleep(Duration::from_millis(300));
        vec![address(query, 2)]
    });
    lab.host_file(&[&silent, &slow]);
    let began = Instant::now();
    assert_eq!(data(&lab.ask("example.com")), ["10.0.0.2"]);
    assert!(began.elapsed() > Duration::from_millis(1700), "{:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(data(&lab.ask("example.com")), ["10.0.0.2"]);
    assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
    // Local names never wait for anybody.
    lab.client.send(&bytes("example.com")).unwrap();
    let began = Instant::now();
    assert_eq!(data(&lab.ask("provider")), ["172.22.0.2"]);
    assert!(began.elapsed() < Duration::from_millis(250));
}

#[test]
fn what_does_not_fit_is_fetched_over_a_connection() {
    let lab = Lab::new();
    let brief = Upstream::new(&lab, 2, |query| vec![truncated(query)]);
    lab.host_file(&[&brief]);
    // Over TCP it says the same, with all there is.
    brief.says_over_tcp(|query| Some(address(query, 3)));
    assert_eq!(data(&lab.ask("example.com")), ["10.0.0.3"]);
    assert_eq!((brief.asked(), brief.asked_over_tcp()), (1, 1));
    // What a connection that ends early leaves is the short reply.
    brief.says_over_tcp(|_| None);
    let reply = Message::from_vec(&lab.ask("example.com")).unwrap();
    assert!(reply.metadata.truncation && reply.metadata.id == 0x1234);
}

#[test]
fn a_query_sent_again_is_not_asked_again() {
    let lab = Lab::new();
    let slow = Upstream::new(&lab, 2, |query| {
        std::thread::sleep(Duration::from_millis(400));
        vec![address(query, 2)]
    });
    lab.host_file(&[&slow]);
    for _ in 0..5 {
        lab.client.send(&bytes("example.com")).unwrap();
    }
    assert_eq!(data(&lab.receive()), ["10.0.0.2"]);
    lab.client.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    assert_eq!(
        lab.client.recv(&mut [0; 512]).unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "one reply is enough"
    );
    assert_eq!(slow.asked(), 1);
    // Answered, it is a new one.
    lab.client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(data(&lab.ask("example.com")), ["10.0.0.2"]);
}

#[test]
fn too_many_that_wait_are_refused_and_the_others_fare_as_ever() {
    let lab = Lab::new();
    let silent = Upstream::new(&lab, 2, |_| vec![]);
    lab.host_file(&[&silent]);
    let (most, more) = (super::budget::MOST, 40);
    for id in 0..most + more {
        let mut message = bytes("example.com");
        message[..2].copy_from_slice(&u16::try_from(id).unwrap().to_be_bytes());
        lab.client.send(&message).unwrap();
        if id % 32 == 0 {
            // The loopback drops what a socket has no room for.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    for _ in 0..more {
        assert_eq!(code(&lab.receive()), ResponseCode::Refused);
    }
    assert_eq!(data(&lab.ask("provider")), ["172.22.0.2"]);
    // In the end each learns that nobody answered.
    for _ in 0..most {
        assert_eq!(code(&lab.receive()), ResponseCode::ServFail);
    }
}

#[test]
fn servers_are_whom_the_hosts_file_names_now() {
    let lab = Lab::new();
    let (old, new) = (
        Upstream::new(&lab, 2, |query| vec![address(query, 1)]),
        Upstream::new(&lab, 3, |query| vec![address(query, 2)]),
    );
    lab.host_file(&[&old]);
    assert_eq!(data(&lab.ask("example.com")), ["10.0.0.1"]);
    lab.host_file(&[&new]);
    std::thread::sleep(Duration::from_millis(1050));
    assert_eq!(data(&lab.ask("example.com")), ["10.0.0.2"]);
    // A sandbox that lost its way out doesn't get one through them.
    lab.update(false);
    assert_eq!(code(&lab.ask("example.com")), ResponseCode::ServFail);
    assert_eq!(data(&lab.ask("provider")), ["172.22.0.2"]);
    lab.update(true);
    assert_eq!(data(&lab.ask("example.com")), ["10.0.0.2"]);
}

#[test]
fn an_end_closes_the_sockets_and_so_does_the_last_servers() {
    let lab = Lab::new();
    let at = lab.at;
    assert!(lab.server.serves(lab.id));
    let free = |at| UdpSocket::bind(at).is_ok() && TcpListener::bind(at).is_ok();
    assert!(!free(at));
    lab.server.end(lab.id);
    assert!(!lab.server.serves(lab.id) && free(at));
    // Nothing to end, nothing to tell.
    lab.server.end(lab.id);
    lab.update(true);
    // A second serving takes the first one's place.
    let (first, second) = (lab.serve(), lab.serve());
    assert!(free(first) && !free(second));
    let Lab { server, .. } = lab;
    drop(server);
    assert!(free(second));
}
