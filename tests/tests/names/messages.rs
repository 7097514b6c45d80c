//! Bytes that no libc sends: what is refused, what is left unanswered, and that nobody else notices.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use e2e::nameserver::NameServer;
use e2e::wait::PATIENCE;

use super::lab::Sandbox;
use super::tools::{HOST, Names, U};

const SERVER: ([u8; 4], u16) = ([127, 0, 0, 11], 53);
/// `web.`, type A, class IN: after a header.
const QUESTION: &[u8] = b"\x03web\0\0\x01\0\x01";
const ID: u16 = 0x1234;

const NO_ERROR: u8 = 0;
const FORM_ERR: u8 = 1;
const NOT_IMP: u8 = 4;
const REFUSED: u8 = 5;

/// A message of one question; `flags` are the header's, `counts` its four counts.
fn message(flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let header = [ID, flags].into_iter().chain(counts);
    header.flat_map(u16::to_be_bytes).chain(rest.iter().copied()).collect()
}

fn query() -> Vec<u8> {
    message(0x0100, [1, 0, 0, 0], QUESTION)
}

/// What is sent, and the code of the reply; `None` if there is none.
fn cases() -> Vec<(&'static str, Vec<u8>, Option<u8>)> {
    let one = [1, 0, 0, 0];
    let opt = b"\0\0\x29\x10\0\0\0\0\0\0\0";
    let asks = |rest: &[u8]| message(0x0100, one, rest);
    let many = |counts: [u16; 4]| message(0x0100, counts, &[QUESTION, QUESTION, opt, opt, opt].concat());
    let names = b"\x3fabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk".repeat(5);
    vec![
        ("a query", query(), Some(NO_ERROR)),
        ("one with EDNS", message(0x0100, [1, 0, 0, 1], &[QUESTION, opt].concat()), Some(NO_ERROR)),
        ("no question", message(0x0100, [0; 4], &[]), Some(FORM_ERR)),
        ("two questions", many([2, 0, 0, 0]), Some(FORM_ERR)),
        ("two answers", many([1, 2, 0, 0]), Some(FORM_ERR)),
        ("two authorities", many([1, 0, 2, 0]), Some(FORM_ERR)),
        ("three additional records", many([1, 0, 0, 3]), Some(FORM_ERR)),
        ("more questions than can be", message(0x0100, [u16::MAX; 4], QUESTION), Some(FORM_ERR)),
        ("a question that isn't there", asks(&[]), Some(FORM_ERR)),
        ("half a question", asks(&QUESTION[..QUESTION.len() - 3]), Some(FORM_ERR)),
        ("a label that doesn't end", asks(b"\x3fweb"), Some(FORM_ERR)),
        ("a label of another kind", asks(b"\x43web\0\0\x01\0\x01"), Some(FORM_ERR)),
        ("a name that is its own end", asks(b"\xc0\x0c\0\x01\0\x01"), Some(FORM_ERR)),
        ("a name that goes round", asks(b"\x01a\xc0\x0c\0\x01\0\x01"), Some(FORM_ERR)),
        ("two that lead to each other", asks(b"\xc0\x0e\xc0\x0c\0\x01\0\x01"), Some(FORM_ERR)),
        ("a name beyond the end", asks(b"\xff\xff\0\x01\0\x01"), Some(FORM_ERR)),
        ("a name that is too long", asks(&[&names[..], b"\0\0\x01\0\x01"].concat()), Some(FORM_ERR)),
        ("an inverse query", message(0x0900, one, QUESTION), Some(NOT_IMP)),
        ("a status", message(0x1100, one, QUESTION), Some(NOT_IMP)),
        ("an update", message(0x2900, one, QUESTION), Some(NOT_IMP)),
        ("an operation that isn't defined", message(0x7900, one, QUESTION), Some(NOT_IMP)),
        ("a class that addresses aren't in", asks(b"\x03web\0\0\x01\0\x03"), Some(REFUSED)),
        ("more than a query needs", asks(&[QUESTION, &[0; 5000]].concat()), Some(FORM_ERR)),
        ("a response", message(0x8180, one, QUESTION), None),
        ("a response without question", message(0x8180, [0; 4], &[]), None),
        ("eleven bytes", query()[..11].to_vec(), None),
        ("one byte", vec![0], None),
    ]
}

fn udp(sandbox: &Sandbox) -> UdpSocket {
    sandbox.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(SocketAddr::from(SERVER)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    })
}

fn tcp(sandbox: &Sandbox) -> TcpStream {
    sandbox.enter(|| {
        let stream = TcpStream::connect(SocketAddr::from(SERVER)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    })
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let count = socket.recv(&mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

/// A good query under another id, so that its reply is known by that.
fn other() -> (Vec<u8>, [u8; 2]) {
    let mut query = query();
    query[..2].copy_from_slice(&[0xbe, 0xef]);
    (query, [0xbe, 0xef])
}

#[track_caller]
fn check(what: &str, sent: &[u8], reply: &[u8], want: Option<u8>) {
    let Some(want) = want else {
        assert_eq!(reply[..2], other().1, "{what} was answered: {reply:x?}");
        return;
    };
    assert_eq!(reply[..2], sent[..2], "{what}: id");
    assert_eq!(reply[3] & 0xf, want, "{what}: {reply:x?}");
    assert_eq!(reply[2] & 0x80, 0x80, "{what}: a response");
    assert_eq!(reply[2] & 0x79, sent[2] & 0x79, "{what}: operation, recursion desired");
    assert!(reply.len() <= 512, "{what}: {} bytes", reply.len());
}

fn web() -> Option<Names> {
    let names = Names::new(HOST, &[])?;
    names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    names.idle("web", &["--net", "one"]);
    Some(names)
}

#[test]
fn bad_messages_are_refused_or_ignored() {
    let Some(names) = web() else { return };
    let sandbox = names.sandbox("web");
    for (what, sent, want) in cases() {
        let socket = udp(&sandbox);
        socket.send(&sent).unwrap();
        socket.send(&other().0).unwrap();
        check(what, &sent, &receive(&socket), want);
    }
    for (what, sent, want) in cases() {
        let mut stream = tcp(&sandbox);
        // What is too long ends the conversation, which may be over before all is sent.
        let _ = stream.write_all(&[framed(&sent), framed(&other().0)].concat());
        check(what, &sent, &read_framed(&mut stream), want);
    }
    assert_eq!(names.asks("web", "web"), "NOERROR 10.10.0.2");
}

#[test]
fn other_classes_of_unknown_names_are_others_affair() {
    let Some(names) = web() else { return };
    let upstream = NameServer::of_example(&names.host, U);
    assert_eq!(names.asks("web", "version.bind CH TXT"), "NXDOMAIN");
    assert_eq!(upstream.count("version.bind"), 1);
    assert_eq!(names.asks("web", "web CH A"), "REFUSED");
    assert_eq!(upstream.count("web"), 0);
    assert_eq!(names.asks("web", "web A +opcode=notify +noedns"), "NOERROR 10.10.0.2");
    assert_eq!(names.asks("web", "web A +opcode=update"), "NOTIMP");
}

#[test]
fn connections_may_be_slow_and_full_and_short() {
    let Some(names) = web() else { return };
    let sandbox = names.sandbox("web");
    // A byte at a time.
    let mut stream = tcp(&sandbox);
    stream.set_nodelay(true).unwrap();
    for byte in framed(&query()) {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_framed(&mut stream)[3] & 0xf, NO_ERROR);
    // Several on one connection, and at once.
    stream.write_all(&framed(&query()).repeat(50)).unwrap();
    (0..50).for_each(|_| assert_eq!(read_framed(&mut stream)[3] & 0xf, NO_ERROR));
    // All is said on our side.
    stream.write_all(&framed(&query())).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_framed(&mut stream)[3] & 0xf, NO_ERROR);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    // Nothing in it is no query.
    let mut stream = tcp(&sandbox);
    stream.write_all(&[framed(&[]), framed(&query())].concat()).unwrap();
    let reply = read_framed(&mut stream);
    assert_eq!((&reply[..2], reply[3] & 0xf), (&ID.to_be_bytes()[..], NO_ERROR));
    // More is announced than comes.
    let mut stream = tcp(&sandbox);
    stream.write_all(b"\x01\x00 too little").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    // Whoever holds many connections doesn't hold up the next.
    let held: Vec<TcpStream> = (0..64).map(|_| tcp(&sandbox)).collect();
    assert_eq!(names.asks("web", "web +tcp"), "NOERROR 10.10.0.2");
    drop(held);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let Some(names) = web() else { return };
    let sandbox = names.sandbox("web");
    let mut stream = tcp(&sandbox);
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let many = framed(&query()).repeat(1000);
    let stuck = loop {
        match stream.write_all(&many) {
            Ok(()) => {}
            Err(error) => break error.kind(),
        }
    };
    assert!(
        matches!(stuck, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset),
        "{stuck}"
    );
    for transport in ["+tcp", "+notcp"] {
        let reply = names.dig("web", &format!("web {transport}"));
        assert_eq!(reply.brief(), "NOERROR 10.10.0.2");
        assert!(reply.millis < 1000, "{reply:?}");
    }
}
