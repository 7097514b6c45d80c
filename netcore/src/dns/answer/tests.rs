use hickory_proto::op::{Message, MessageType};
use proptest::prelude::*;

use super::super::lab::{
    LOCAL, PROVIDER, PROVIDER_END, SECOND_END, attachment, consumer, consumer_on_both, data, endpoint,
    member, network, provider, query, sandbox, with_edns, zones,
};
use super::*;

const SETTINGS: Settings = Settings { ttl: 600, ndots_given: false, ipv6: true };

fn ask(bytes: &[u8], zones: &Zones, view: &View) -> Verdict {
    answer(bytes, Transport::Udp, zones, view, &SETTINGS, 7)
}

fn reply(verdict: Verdict) -> Vec<u8> {
    match verdict {
        Verdict::Reply(reply) => reply,
        other => panic!("no reply: {other:?}"),
    }
}

/// The data of a NOERROR reply, or `forward`.
fn outcome(name: &str, kind: RecordType, zones: &Zones, view: &View) -> Vec<String> {
    match ask(&query(name, kind).to_vec().unwrap(), zones, view) {
        Verdict::Reply(reply) => {
            let message = Message::from_vec(&reply).unwrap();
            assert_eq!(message.metadata.response_code, ResponseCode::NoError, "{name} {kind}");
            assert!(message.answers.iter().all(|record| record.ttl == 600), "{name} {kind}");
            data(&reply)
        }
        Verdict::Forward(_) => vec!["forward".to_owned()],
        Verdict::Drop => vec!["drop".to_owned()],
    }
}

#[test]
fn scenarios() {
    use RecordType::{A, AAAA, ANY, CNAME, HTTPS, MX, NS, PTR, SOA, SRV, SVCB, TXT};
    const FORWARD: &[&str] = &["forward"];
    let cases: &[(&str, RecordType, &[&str])] = &[
        ("provider", A, &["172.22.0.2"]),
        ("provider.", A, &["172.22.0.2"]),
        ("PROVIDER", A, &["172.22.0.2"]),
        ("app", A, &["172.22.0.2", "172.22.0.3"]),
        ("a21d98819934", A, &["172.22.0.2"]),
        ("a21d", A, FORWARD),
        ("shop", A, &["172.22.0.3"]),
        ("provider.local_bridge", A, &["172.22.0.2"]),
        ("app.local_bridge", A, &["172.22.0.2", "172.22.0.3"]),
        ("provider.LOCAL_BRIDGE", A, &["172.22.0.2"]),
        ("giver", A, &["172.22.0.2"]),
        ("Giver", A, &["172.22.0.2"]),
        ("giver.local_bridge", A, &["172.22.0.2"]),
        ("giver", AAAA, &[]),
        ("giver", MX, &[]),
        ("provider", AAAA, &[]),
        ("cache", A, FORWARD),
        ("second.dual", A, FORWARD),
        ("2.0.22.172.in-addr.arpa", PTR, &["provider.local_bridge."]),
        ("4.0.22.172.in-addr.arpa", PTR, &["consumer.local_bridge."]),
        ("2.0.22.172.IN-ADDR.ARPA", PTR, &["provider.local_bridge."]),
        ("2.0.22.172.in-addr.arpa", A, &[]),
        ("1.0.22.172.in-addr.arpa", PTR, FORWARD),
        ("8.8.8.8.in-addr.arpa", PTR, FORWARD),
        ("22.172.in-addr.arpa", PTR, FORWARD),
        ("provider", MX, &[]),
        ("provider", TXT, &[]),
        ("provider", ANY, &[]),
        ("provider", HTTPS, &[]),
        ("provider", SVCB, &[]),
        ("provider", SOA, &[]),
        ("provider", NS, &[]),
        ("provider", CNAME, &[]),
        ("provider", PTR, &[]),
        ("provider", SRV, &[]),
        ("_http._tcp.provider", SRV, FORWARD),
        ("consumer", A, &["172.22.0.4"]),
        ("localhost", A, &["127.0.0.1"]),
        ("x.LocalHost", A, &["127.0.0.1"]),
        ("localhost", AAAA, &["::1"]),
        ("localhost", TXT, &[]),
        ("legacy", A, FORWARD),
        ("db.prod", A, &["172.22.0.4"]),
        ("db", A, FORWARD),
        ("local_bridge", A, FORWARD),
        ("example.com", A, FORWARD),
        ("nosuch", A, FORWARD),
        (".", NS, FORWARD),
    ];
    for (name, kind, want) in cases {
        assert_eq!(outcome(name, *kind, &zones(), &consumer()), *want, "{name} {kind}");
    }
    // A full id, as far as a label goes.
    assert_eq!(outcome(&PROVIDER[..63], A, &zones(), &consumer()), ["forward"]);
    // The alias of a link is the consumer's alone.
    let second = View::new(vec![attachment(LOCAL, "local_bridge", vec![])]);
    assert_eq!(outcome("giver", A, &zones(), &second), ["forward"]);

    let reverse6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.A.5.d.F.ip6.arpa";
    assert_eq!(outcome(reverse6, PTR, &zones(), &consumer()), ["forward"]);
    for (name, kind, want) in [
        ("second.dual", A, "172.23.0.2"),
        ("second", A, "172.23.0.2"),
        ("cache", AAAA, "fd5a:1:2:3::2"),
        (reverse6, PTR, "second.dual."),
        ("provider", A, "172.22.0.2"),
    ] {
        assert_eq!(outcome(name, kind, &zones(), &consumer_on_both()), [want], "{name} {kind}");
    }
}

#[test]
fn names_follow_what_happens_to_sandboxes() {
    let mut zones = zones();
    let a = |name: &str, zones: &Zones| outcome(name, RecordType::A, zones, &consumer());
    zones.leave(&network(LOCAL), &endpoint(SECOND_END));
    assert_eq!((a("second", &zones), a("app", &zones)), (vec!["forward".into()], vec!["172.22.0.2".into()]));
    zones.join(network(LOCAL), endpoint(PROVIDER_END), member(provider(), "p2", &["app"], "", "172.22.0.2"));
    for (name, want) in
        [("provider", "forward"), ("p2", "172.22.0.2"), ("app", "172.22.0.2"), ("giver", "forward")]
    {
        assert_eq!(a(name, &zones), [want], "{name}");
    }
}

#[test]
fn a_reply_repeats_the_question_as_it_was_spelled() {
    let mut message = query("pRoViDeR.Local_Bridge", RecordType::A);
    message.metadata.checking_disabled = true;
    let bytes = message.to_vec().unwrap();
    let answered = reply(ask(&bytes, &zones(), &consumer()));
    assert_eq!(answered[12..bytes.len()], bytes[12..]);
    let message = Message::from_vec(&answered).unwrap();
    // As spelled, by a pointer to the question.
    assert_eq!(answered[bytes.len()..bytes.len() + 2], [0xc0, 12]);
    assert_eq!(message.answers[0].name.to_string(), "pRoViDeR.Local_Bridge.");
    // QR, RD; RA, CD, no error; AA and AD not set.
    assert_eq!(answered[..4], [0x12, 0x34, 0x81, 0x90]);
    assert_eq!(answered[4..12], [0, 1, 0, 1, 0, 0, 0, 0]);
    // RD is the client's.
    let mut message = query("nosuch.", RecordType::A);
    message.metadata.recursion_desired = false;
    let settings = Settings { ndots_given: true, ..SETTINGS };
    let verdict = answer(&message.to_vec().unwrap(), Transport::Udp, &zones(), &consumer(), &settings, 0);
    assert_eq!(reply(verdict)[2..4], [0x80, 0x80]);
}

#[test]
fn an_unknown_single_label_is_nobodys_where_ndots_was_chosen() {
    let settings = Settings { ndots_given: true, ..SETTINGS };
    let ask = |name: &str, kind| {
        let bytes = query(name, kind).to_vec().unwrap();
        answer(&bytes, Transport::Udp, &zones(), &consumer(), &settings, 0)
    };
    for kind in [RecordType::A, RecordType::AAAA] {
        let reply = Message::from_vec(&reply(ask("nosuch", kind))).unwrap();
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0));
    }
    for (name, kind) in [
        ("nosuch", RecordType::TXT),
        ("example.com", RecordType::A),
        (".", RecordType::A),
        ("nosuch", RecordType::MX),
    ] {
        assert!(matches!(ask(name, kind), Verdict::Forward(_)), "{name} {kind}");
    }
    assert_eq!(data(&reply(ask("provider", RecordType::A))), ["172.22.0.2"]);
}

#[test]
fn the_loopback_of_a_sandbox_without_ipv6_has_one_address() {
    let settings = Settings { ipv6: false, ttl: 5, ..SETTINGS };
    let bytes = query("localhost", RecordType::AAAA).to_vec().unwrap();
    let verdict = answer(&bytes, Transport::Udp, &zones(), &consumer(), &settings, 0);
    assert_eq!(data(&reply(verdict)), [""; 0]);
    let bytes = query("provider", RecordType::A).to_vec().unwrap();
    let verdict = answer(&bytes, Transport::Udp, &zones(), &consumer(), &settings, 0);
    assert_eq!(Message::from_vec(&reply(verdict)).unwrap().answers[0].ttl, 5);
}

#[test]
fn addresses_change_their_order() {
    let bytes = query("app", RecordType::A).to_vec().unwrap();
    let firsts: Vec<Vec<u8>> = (0..64)
        .map(|random| reply(answer(&bytes, Transport::Udp, &zones(), &consumer(), &SETTINGS, random)))
        .collect();
    let first = |wanted: [u8; 4]| {
        let is = |reply: &&Vec<u8>| {
            Message::from_vec(reply).unwrap().answers[0].data == RData::A(A(wanted.into()))
        };
        firsts.iter().filter(is).count()
    };
    assert!((16..=48).contains(&first([172, 22, 0, 2])), "{}", first([172, 22, 0, 2]));
    assert_eq!(first([172, 22, 0, 2]) + first([172, 22, 0, 3]), 64);
}

#[test]
fn a_reply_has_as_much_as_the_client_can_take() {
    let mut zones = Zones::default();
    for number in 0..5000u16 {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + u32::from(number));
        let aliases: &[&str] = if number < 100 { &["app", "all"] } else { &["all"] };
        let own = format!("c{number}");
        zones.join(
            network(LOCAL),
            endpoint(number),
            member(sandbox(1), &own, aliases, "", &address.to_string()),
        );
    }
    let edns = |payload| with_edns(query("app", RecordType::A), payload);
    let plain = || query("app", RecordType::A);
    let all = || query("all", RecordType::A);
    let cases = [
        (plain(), Transport::Udp, 30, true),
        (plain(), Transport::Tcp, 100, false),
        (edns(4096), Transport::Udp, 100, false),
        (edns(0), Transport::Udp, 30, true),
        (edns(1232), Transport::Udp, 75, true),
        (edns(0), Transport::Tcp, 100, false),
    ];
    for (message, way, count, cut) in cases {
        let bytes = message.to_vec().unwrap();
        let reply = reply(answer(&bytes, way, &zones, &consumer(), &SETTINGS, 1));
        let read = Message::from_vec(&reply).unwrap();
        assert_eq!((read.answers.len(), read.metadata.truncation), (count, cut), "{message:?} {way:?}");
        assert!(read.edns.is_none() && read.additionals.is_empty());
        let mut different = data(&reply);
        different.dedup();
        assert_eq!(different.len(), count);
    }
    // What no message holds. The limit is a connection's, or a datagram's.
    for (message, way, limit) in
        [(all(), Transport::Tcp, 65_535), (with_edns(all(), u16::MAX), Transport::Udp, 65_507)]
    {
        let reply = reply(answer(&message.to_vec().unwrap(), way, &zones, &consumer(), &SETTINGS, 1));
        assert!((limit - 20..=limit).contains(&reply.len()), "{}", reply.len());
        assert!(Message::from_vec(&reply).unwrap().metadata.truncation);
    }
}

/// A query's bytes with some of them replaced.
fn altered(at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = query("provider", RecordType::A).to_vec().unwrap();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

#[test]
fn what_is_no_proper_query_gets_the_right_code_or_silence() {
    let good = query("provider", RecordType::A).to_vec().unwrap();
    let mut two = query("provider", RecordType::A);
    two.add_query(two.queries[0].clone());
    let mut other_class = query("provider", RecordType::A);
    other_class.queries[0].set_query_class(DNSClass::CH);
    let mut opt_twice = with_edns(query("provider", RecordType::A), 512).to_vec().unwrap();
    let opt = opt_twice[good.len()..].to_vec();
    opt_twice.extend(opt);
    opt_twice[11] = 2;
    let loops = [&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    let ahead = [&good[..12], &[0xc0, 40, 0, 1, 0, 1]].concat();
    let mutual = [&good[..12], &[0xc0, 14, 0xc0, 12, 0, 1, 0, 1]].concat();
    let long_label = [&good[..12], &[64], &[b'x'; 64], &[0, 0, 1, 0, 1]].concat();
    let long_name = [&good[..12], &[&[63][..], &[b'x'; 63]].concat().repeat(5), &[0, 0, 1, 0, 1]].concat();
    let cases = [
        ("empty", vec![], None),
        ("half a header", good[..11].to_vec(), None),
        ("a response", altered(2, &[0x81]), None),
        ("a response of nonsense", altered(2, &[0xff, 0xff, 0xff, 0xff]), None),
        ("no question", [&altered(4, &[0, 0])[..12], &[]].concat(), Some(ResponseCode::FormErr)),
        ("two questions", two.to_vec().unwrap(), Some(ResponseCode::FormErr)),
        ("65535 questions", altered(4, &[0xff, 0xff]), Some(ResponseCode::FormErr)),
        ("two answers", altered(6, &[0, 2]), Some(ResponseCode::FormErr)),
        ("an answer that isn't there", altered(6, &[0, 1]), Some(ResponseCode::FormErr)),
        ("two authorities", altered(8, &[0, 2]), Some(ResponseCode::FormErr)),
        ("three additionals", altered(10, &[0, 3]), Some(ResponseCode::FormErr)),
        ("two OPTs", opt_twice, Some(ResponseCode::FormErr)),
        ("header only", good[..12].to_vec(), Some(ResponseCode::FormErr)),
        ("half a question", good[..good.len() - 3].to_vec(), Some(ResponseCode::FormErr)),
        ("a pointer to itself", loops, Some(ResponseCode::FormErr)),
        ("a pointer ahead", ahead, Some(ResponseCode::FormErr)),
        ("pointers to each other", mutual, Some(ResponseCode::FormErr)),
        ("a long label", long_label, Some(ResponseCode::FormErr)),
        ("a long name", long_name, Some(ResponseCode::FormErr)),
        ("oversized", [&good[..], &[0; LONGEST]].concat(), Some(ResponseCode::FormErr)),
        ("inverse query", altered(2, &[0x09]), Some(ResponseCode::NotImp)),
        ("status", altered(2, &[0x11]), Some(ResponseCode::NotImp)),
        ("update", altered(2, &[0x29]), Some(ResponseCode::NotImp)),
        ("opcode 15", altered(2, &[0x79]), Some(ResponseCode::NotImp)),
        ("class CH", other_class.to_vec().unwrap(), Some(ResponseCode::Refused)),
        ("notify", altered(2, &[0x21]), Some(ResponseCode::NoError)),
        ("something behind it", [&good[..], b"rest"].concat(), Some(ResponseCode::NoError)),
    ];
    for (what, bytes, want) in cases {
        match (ask(&bytes, &zones(), &consumer()), want) {
            (Verdict::Drop, None) => {}
            (Verdict::Reply(reply), Some(code)) => {
                let message = Message::from_vec(&reply).unwrap();
                assert_eq!(message.metadata.response_code, code, "{what}");
                assert_eq!(message.metadata.message_type, MessageType::Response, "{what}");
                assert_eq!(
                    (&reply[..2], reply[2] & 0x79),
                    (&bytes[..2], bytes[2] & 0x79),
                    "{what}: id, opcode, RD"
                );
            }
            (verdict, want) => panic!("{what}: {verdict:?}, not {want:?}"),
        }
    }
    // Others may know other classes' names, as they may know names.
    let mut foreign = query("version.bind", RecordType::TXT);
    foreign.queries[0].set_query_class(DNSClass::CH);
    assert!(matches!(ask(&foreign.to_vec().unwrap(), &zones(), &consumer()), Verdict::Forward(_)));
    let mut any = query("provider", RecordType::A);
    any.queries[0].set_query_class(DNSClass::ANY);
    assert_eq!(data(&reply(ask(&any.to_vec().unwrap(), &zones(), &consumer()))), ["172.22.0.2"]);
}

const LONGEST: usize = super::super::LONGEST_QUERY;

#[test]
fn a_dot_in_a_label_does_not_end_it() {
    let mut message = query("x", RecordType::A);
    let name = Name::from_labels([&b"provider.local_bridge"[..]]).unwrap();
    message.queries[0].set_name(name);
    assert!(matches!(ask(&message.to_vec().unwrap(), &zones(), &consumer()), Verdict::Forward(_)));
}

#[test]
fn what_is_forwarded_stays_as_it_came_but_for_the_id() {
    let message = with_edns(query("eXample.com", RecordType::TXT), 1400);
    let bytes = [&message.to_vec().unwrap()[..], b"rest"].concat();
    let Verdict::Forward(query) = ask(&bytes, &zones(), &consumer()) else { panic!() };
    assert_eq!(query.with_id(0x1234), bytes);
    assert_eq!(query.with_id(0xabcd), [b"\xab\xcd", &bytes[2..]].concat());
    for (reply, code) in [(query.failed(), ResponseCode::ServFail), (query.refused(), ResponseCode::Refused)]
    {
        let message = Message::from_vec(&reply).unwrap();
        assert_eq!((message.metadata.id, message.metadata.response_code), (0x1234, code));
        assert_eq!(message.queries[0].name.to_string(), "eXample.com.");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), random: u64, tcp: bool) {
        let way = if tcp { Transport::Tcp } else { Transport::Udp };
        match answer(&bytes, way, &zones(), &consumer_on_both(), &SETTINGS, random) {
            Verdict::Drop => prop_assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
            Verdict::Reply(reply) => prop_assert_eq!(&reply[..2], &bytes[..2]),
            Verdict::Forward(query) => prop_assert_eq!(&query.with_id(0)[2..], &bytes[2..]),
        }
    }

    #[test]
    fn no_half_broken_query_panics(
        name in "[a-zA-Z0-9_.\\-]{1,20}",
        kind: u16,
        payload in prop::option::of(any::<u16>()),
        damage in prop::collection::vec((0..60usize, any::<u8>()), 0..4),
        random: u64,
    ) {
        let labels: Vec<&[u8]> = name.split('.').filter(|l| !l.is_empty()).map(str::as_bytes).collect();
        let mut message = query("x", RecordType::from(kind));
        message.queries[0].set_name(Name::from_labels(labels).unwrap());
        let message = match payload {
            Some(payload) => with_edns(message, payload),
            None => message,
        };
        let mut bytes = message.to_vec().unwrap();
        for (at, byte) in damage {
            let end = bytes.len();
            bytes[at % end] = byte;
        }
        if let Verdict::Reply(reply) = answer(&bytes, Transport::Udp, &zones(), &consumer(), &SETTINGS, random) {
            prop_assert!(Message::from_vec(&reply).is_ok());
            prop_assert_eq!(&reply[..2], &bytes[..2]);
        }
    }

    #[test]
    fn shuffling_keeps_what_there_is(count in 0..40usize, most in 0..40usize, random: u64) {
        let mut got: Vec<usize> = shuffled((0..count).collect(), most, random).collect();
        prop_assert_eq!(got.len(), count.min(most + 1));
        got.sort_unstable();
        got.dedup();
        prop_assert_eq!(got.len(), count.min(most + 1));
        prop_assert!(got.iter().all(|number| *number < count));
    }
}
