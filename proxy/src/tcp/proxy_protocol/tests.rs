use proptest::prelude::*;

use super::*;

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn line(addresses: &Addresses) -> String {
    String::from_utf8(encode(Version::V1, addresses)).unwrap()
}

/// A version 2 header.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE.as_slice(), &[command, family], &len, body].concat()
}

#[test]
fn lines_are_written_as_specified() {
    for (source, destination, want) in [
        ("192.168.0.1:56324", "192.168.0.11:443", "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"),
        ("[2001:db8::1]:1", "[::1]:65535", "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n"),
        ("192.0.2.1:1", "[2001:db8::2]:2", "PROXY TCP6 ::ffff:c000:201 2001:db8::2 1 2\r\n"),
        ("[fe80::1%3]:1", "[fe80::2%3]:2", "PROXY TCP6 fe80::1 fe80::2 1 2\r\n"),
    ] {
        assert_eq!(line(&addresses(source, destination)), want);
    }
    let long = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    assert_eq!(line(&addresses(long, long)).len(), 104);
}

#[test]
fn binary_headers_are_written_as_specified() {
    let v4 = encode(Version::V2, &addresses("192.0.2.1:258", "198.51.100.2:772"));
    assert_eq!(v4, binary(0x21, 0x11, &[192, 0, 2, 1, 198, 51, 100, 2, 1, 2, 3, 4]));
    let v6 = encode(Version::V2, &addresses("[::1]:1", "192.0.2.1:2"));
    assert_eq!((v6.len(), &v6[12..16]), (52, [0x21, 0x21, 0, 36].as_slice()));
    assert_eq!(&v6[32..48], Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets());
}

#[test]
fn mapped_sockets_are_ipv4() {
    let mapped = |s: &str| s.parse().unwrap();
    let seen = Addresses::of_socket(mapped("[::ffff:192.0.2.1]:7"), mapped("[::ffff:192.0.2.2]:8"));
    assert_eq!(seen, addresses("192.0.2.1:7", "192.0.2.2:8"));
}

#[test]
fn lines_others_write() {
    let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
    assert_eq!(long.len(), LONGEST_LINE);
    for (text, want) in [
        ("PROXY TCP4 1.2.3.4 5.6.7.8 0 65535\r\n", Some(addresses("1.2.3.4:0", "5.6.7.8:65535"))),
        ("PROXY TCP6 ::A ::ffff:1.2.3.4 1 2\r\n", Some(addresses("[::a]:1", "[::ffff:1.2.3.4]:2"))),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN what ever  \r it says\r\n", None),
        (long.as_str(), None),
    ] {
        let done = Parsed::Done { len: text.len(), addresses: want };
        assert_eq!(parse(text.as_bytes()), done, "{text:?}");
        assert_eq!(parse(format!("{text}PROXY \r\n").as_bytes()), done, "{text:?} and more");
    }
}

#[test]
fn lines_that_are_none() {
    let endless = format!("PROXY UNKNOWN {}\r\n", "f".repeat(92));
    for (text, why) in [
        ("GET / HTTP/1.1\r\n", Malformed::Missing),
        ("POST / HTTP/1.1\r\n", Malformed::Missing),
        ("PROXY\r\n", Malformed::Missing),
        ("PROXY\tTCP4 1.2.3.4 5.6.7.8 1 2\r\n", Malformed::Missing),
        ("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Malformed::Missing),
        ("PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Malformed::Line),
        ("PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n", Malformed::Line),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", Malformed::Line),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", Malformed::Line),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", Malformed::Line),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", Malformed::Line),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", Malformed::Line),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", Malformed::Line),
        ("PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n", Malformed::Line),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", Malformed::Line),
        ("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", Malformed::Line),
        ("PROXY TCP6 fe80::1%1 fe80::2%1 1 2\r\n", Malformed::Line),
        ("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", Malformed::Line),
        ("PROXY UNKNOWNS\r\n", Malformed::Line),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n\r\n", Malformed::Line),
        (endless.as_str(), Malformed::LongLine),
    ] {
        assert_eq!(parse(text.as_bytes()), Parsed::Bad(why), "{text:?}");
    }
    // As soon as it can be known, and not before.
    assert_eq!(parse(b"PRO"), Parsed::Incomplete);
    assert_eq!(parse(b"PRI"), Parsed::Bad(Malformed::Missing));
    assert_eq!(parse(&endless.as_bytes()[..106]), Parsed::Incomplete);
    assert_eq!(parse(&endless.as_bytes()[..107]), Parsed::Bad(Malformed::LongLine));
    assert_eq!(parse("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n".as_bytes()), Parsed::Incomplete);
}

#[test]
fn binary_headers_others_write() {
    let v4 = [1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 2];
    let with_extras = |n| [v4.as_slice(), &vec![0xEE; n]].concat();
    let known = Some(addresses("1.2.3.4:1", "5.6.7.8:2"));
    for (command, family, body, want) in [
        (0x21, TCP4, v4.to_vec(), known),
        (0x21, TCP4, with_extras(3), known),
        (0x21, TCP4, with_extras(4096), known),
        (0x21, 0x00, Vec::new(), None),
        (0x21, 0x12, v4.to_vec(), None),
        (0x21, 0x31, vec![b'/'; 216], None),
        (0x21, 0x31, vec![b'/'; 216 + 4096], None),
        (0x20, 0x00, Vec::new(), None),
        (0x20, TCP4, v4.to_vec(), None),
        (0x20, TCP4, Vec::new(), None),
        (0x20, 0xFF, vec![1; 100], None),
    ] {
        let header = binary(command, family, &body);
        let done = Parsed::Done { len: header.len(), addresses: want };
        assert_eq!(parse(&header), done, "{command:#x} {family:#x}");
        assert_eq!(
            parse(&[&header, SIGNATURE.as_slice()].concat()),
            done,
            "{command:#x} {family:#x} and more"
        );
    }
}

#[test]
fn binary_headers_that_are_none() {
    for (header, why) in [
        (b"\r\n\r\n\0\r\nQUIX\n".to_vec(), Malformed::Missing),
        (b"\r\n\r\n\r\n".to_vec(), Malformed::Missing),
        (binary(0x11, TCP4, &[0; 12]), Malformed::Command(0x11)),
        (binary(0x22, TCP4, &[0; 12]), Malformed::Command(0x22)),
        (binary(0x21, 0x41, &[0; 12]), Malformed::Family(0x41)),
        (binary(0x21, 0x13, &[0; 12]), Malformed::Family(0x13)),
        (binary(0x21, TCP4, &[0; 11]), Malformed::Short),
        (binary(0x21, TCP6, &[0; 35]), Malformed::Short),
        (binary(0x21, TCP4, &[0; 4313]), Malformed::Long(4329)),
        (binary(0x20, 0, &[0; 65_535]), Malformed::Long(65_551)),
    ] {
        assert_eq!(parse(&header), Parsed::Bad(why), "{:?}", &header[..header.len().min(20)]);
    }
    // As soon as it can be known.
    assert_eq!(parse(&binary(0x2F, 0, &[])[..13]), Parsed::Bad(Malformed::Command(0x2F)));
    assert_eq!(parse(&binary(0x21, 0x44, &[])[..14]), Parsed::Bad(Malformed::Family(0x44)));
    assert_eq!(parse(&binary(0x21, TCP4, &[0; 60_000])[..16]), Parsed::Bad(Malformed::Long(60_016)));
}

#[test]
fn probes_are_not_worth_a_line() {
    assert!(!Why::Ended(0).is_worth_a_line());
    assert!(Why::Ended(1).is_worth_a_line() && Why::Malformed(Malformed::Missing).is_worth_a_line());
}

fn any_version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V1), Just(Version::V2)]
}

fn any_addresses() -> impl Strategy<Value = Addresses> {
    let v4 = any::<(Ipv4Addr, u16, Ipv4Addr, u16)>();
    let v4 = v4.prop_map(|(a, p, b, q)| Addresses { source: (a, p).into(), destination: (b, q).into() });
    let v6 = any::<(Ipv6Addr, u16, Ipv6Addr, u16)>();
    let v6 = v6.prop_map(|(a, p, b, q)| Addresses { source: (a, p).into(), destination: (b, q).into() });
    prop_oneof![v4, v6]
}

/// Headers, and bytes that begin like one.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just(Vec::new()),
        Just(WORD.to_vec()),
        Just(b"PROXY TCP4 ".to_vec()),
        Just(SIGNATURE.to_vec()),
        Just([SIGNATURE.as_slice(), &[0x21]].concat()),
        Just([SIGNATURE.as_slice(), &[0x21, TCP6, 0]].concat()),
        (any_version(), any_addresses()).prop_map(|(v, a)| encode(v, &a)),
    ];
    (start, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(start, more)| [start, more].concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        version in any_version(),
        addresses in any_addresses(),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let header = encode(version, &addresses);
        let done = Parsed::Done { len: header.len(), addresses: Some(addresses) };
        prop_assert_eq!(parse(&[header.as_slice(), &payload].concat()), done);
        for end in 0..header.len() {
            prop_assert_eq!(parse(&header[..end]), Parsed::Incomplete, "{} of {} bytes", end, header.len());
        }
    }

    /// Whatever the bytes: no panic, no verdict taken back, nothing claimed that isn't there, nothing held for ever.
    #[test]
    fn any_bytes_are_borne(bytes in any_bytes()) {
        let mut verdict = Parsed::Incomplete;
        for end in 0..=bytes.len() {
            let parsed = parse(&bytes[..end]);
            if let Parsed::Done { len, .. } = parsed {
                prop_assert!(len <= end);
            }
            if verdict != Parsed::Incomplete {
                prop_assert_eq!(parsed, verdict, "at {}", end);
            }
            verdict = parsed;
        }
    }

    /// However the bytes are cut, the verdict is the same, and so is the number of bytes taken.
    #[test]
    fn pieces_are_as_good_as_the_whole(bytes in any_bytes(), cuts in proptest::collection::vec(1_usize..9, 0..300)) {
        let whole = parse(&bytes);
        let (mut incoming, mut at) = (Incoming::default(), 0);
        let mut cuts = cuts.into_iter();
        let mut got = Parsed::Incomplete;
        while at < bytes.len() {
            let end = cuts.next().map_or(bytes.len(), |n| bytes.len().min(at + n));
            got = match incoming.feed(&bytes[at..end]) {
                Parsed::Done { len, addresses } => Parsed::Done { len: at + len, addresses },
                other => other,
            };
            if got != Parsed::Incomplete {
                break;
            }
            at = end;
        }
        prop_assert_eq!(got, whole);
    }
}
