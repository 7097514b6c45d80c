use std::io::{Read, Write};
use std::time::Duration;

use super::lab::{framed, read};
use super::*;

fn with_id(id: u8, name: &str) -> Vec<u8> {
    let mut message = bytes(name);
    message[1] = id;
    message
}

#[test]
fn queries_come_in_pieces_and_several_at_once() {
    let lab = Lab::new();
    let mut stream = lab.connect();
    stream.set_nodelay(true).unwrap();
    for piece in framed(&bytes("provider")).chunks(7) {
        stream.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(data(&read(&mut stream)), ["172.22.0.2"]);
    let all: Vec<u8> = (0..200).flat_map(|id| framed(&with_id(id, "provider"))).collect();
    stream.write_all(&all).unwrap();
    for id in 0..200 {
        let reply = read(&mut stream);
        assert_eq!((reply[1], data(&reply)), (id, vec!["172.22.0.2".to_owned()]));
    }
}

#[test]
fn answers_do_not_wait_for_one_another() {
    let lab = Lab::new();
    let slow = Upstream::new(&lab, 2, |query| {
        std::thread::sleep(Duration::from_millis(100));
        vec![address(query, 1)]
    });
    lab.host_file(&[&slow]);
    let mut stream = lab.connect();
    // More than may wait at once: the rest is read as these are answered.
    let all: Vec<u8> = (0..20).flat_map(|id| framed(&with_id(id, "example.com"))).collect();
    stream.write_all(&framed(&with_id(100, "provider"))).unwrap();
    stream.write_all(&all[..all.len() / 2]).unwrap();
    stream.write_all(&framed(&with_id(101, "provider"))).unwrap();
    stream.write_all(&all[all.len() / 2..]).unwrap();
    // The client says no more, and still gets all replies.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let replies: Vec<Vec<u8>> = (0..22).map(|_| read(&mut stream)).collect();
    assert_eq!((replies[0][1], replies[1][1]), (100, 101), "those at hand come first");
    assert!(replies[2..].iter().all(|reply| data(reply) == ["10.0.0.1"]));
    assert_eq!(slow.asked_over_tcp(), 20, "a query over TCP is forwarded over TCP");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_is_no_query_gets_its_code_or_silence_here_too() {
    let lab = Lab::new();
    for (what, message, expected) in odd_messages() {
        let mut stream = lab.connect();
        stream.write_all(&framed(&message)).unwrap();
        if let Some(expected) = expected {
            assert_eq!(code(&read(&mut stream)), expected, "{what}");
        }
        if message.len() > crate::dns::LONGEST_QUERY {
            // What else would come is lost between messages.
            assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "{what}");
        } else {
            stream.write_all(&framed(&bytes("provider"))).unwrap();
            assert_eq!(data(&read(&mut stream)), ["172.22.0.2"], "{what}");
        }
    }
}

#[test]
fn the_one_that_was_idle_longest_gives_way() {
    let lab = Lab::new();
    let mut streams: Vec<_> = (0..32).map(|_| lab.connect()).collect();
    for stream in &mut streams {
        stream.write_all(&framed(&bytes("provider"))).unwrap();
        read(stream);
    }
    // The first has something to say again, so the second has been silent longest.
    streams[0].write_all(&framed(&bytes("provider"))).unwrap();
    read(&mut streams[0]);
    let mut new = lab.connect();
    new.write_all(&framed(&bytes("provider"))).unwrap();
    assert_eq!(data(&read(&mut new)), ["172.22.0.2"]);
    assert_eq!(streams[1].read(&mut [0]).unwrap(), 0);
    for at in [0, 2, 31] {
        streams[at].write_all(&framed(&bytes("provider"))).unwrap();
        assert_eq!(data(&read(&mut streams[at])), ["172.22.0.2"]);
    }
}
