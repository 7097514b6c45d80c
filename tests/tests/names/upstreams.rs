//! Queries for others: which server is asked when and from where, what counts as an answer, and how long it may take.

use std::net::SocketAddr;

use e2e::lab::Host;
use e2e::nameserver::{self, Answer, Asked, NameServer, a, example};
use e2e::wait;
use hickory_proto::op::ResponseCode;

use super::lab::Sandbox;
use super::tools::{HOST, Names, U};

/// Three addresses of the host's, in the order in which its file names them.
const SERVERS: [&str; 3] = ["192.0.2.11", "192.0.2.12", "192.0.2.13"];
const ALL: &str = "nameserver 192.0.2.11\nnameserver 192.0.2.12\nnameserver 192.0.2.13\n";
const FOUND: &str = "NOERROR 93.184.216.34";
/// In milliseconds: for as long a silent server is waited for alone. Docker waits 4 s.
const PATIENCE: u32 = 1500;
/// In milliseconds, with what a busy machine adds. glibc gives up after 5 s.
const TOTAL: u32 = 5000;

type Says = fn(&Asked) -> Answer;

fn silent(_: &Asked) -> Answer {
    Answer::Silence
}

fn broken(_: &Asked) -> Answer {
    Answer::Code(ResponseCode::ServFail)
}

fn refusing(_: &Asked) -> Answer {
    Answer::Code(ResponseCode::Refused)
}

fn ignorant(_: &Asked) -> Answer {
    Answer::Code(ResponseCode::NXDomain)
}

/// Bytes that are no reply to anything.
fn babbling(_: &Asked) -> Answer {
    Answer::Bytes(b"\xde\xad\x80\0\0\x01\xff\xff\0\0\0\0 and so on".to_vec())
}

/// A sandbox `consumer` on the network `one` of a host with three servers.
fn servers(says: [Says; 3]) -> Option<(Names, Vec<NameServer>)> {
    let names = Names::new(ALL, &[])?;
    names.host.address("lo", &SERVERS.map(|ip| format!("{ip}/32")).each_ref().map(String::as_str));
    let servers =
        SERVERS.iter().zip(says).map(|(at, says)| NameServer::start(&names.host, at, says)).collect();
    names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    names.idle("consumer", &["--net", "one"]);
    Some((names, servers))
}

#[test]
fn a_silent_server_costs_its_time_once() {
    let Some((names, servers)) = servers([silent, example, broken]) else { return };
    let first = names.dig("consumer", "example.com A");
    assert_eq!(first.brief(), FOUND);
    assert!((PATIENCE..TOTAL).contains(&first.millis), "{first:?}");
    assert!(servers[0].count("example.com") > 0);
    let asked = servers[0].asked().len();
    let second = names.dig("consumer", "example.com A");
    assert_eq!(second.brief(), FOUND);
    assert!(second.millis < PATIENCE, "{second:?}");
    assert_eq!(servers[0].asked().len(), asked, "it is asked last now");
    assert!(servers[2].asked().is_empty());
}

#[test]
fn the_next_server_is_asked_at_once_if_one_says_that_it_cannot_help() {
    for says in [broken, refusing] {
        let Some((names, servers)) = servers([says, example, silent]) else { return };
        for transport in ["+notcp", "+tcp"] {
            let reply = names.dig("consumer", &format!("example.com A {transport}"));
            assert_eq!(reply.brief(), FOUND, "{transport}");
            assert!(reply.millis < PATIENCE, "{transport}: {reply:?}");
        }
        assert_eq!(servers[0].asked().len(), 2, "in order each time");
        assert_eq!(servers[0].asked().iter().filter(|asked| asked.tcp).count(), 1);
    }
}

#[test]
fn a_reply_that_says_no_is_final() {
    let Some((names, servers)) = servers([ignorant, example, example]) else { return };
    assert_eq!(names.asks("consumer", "example.com A"), "NXDOMAIN");
    assert!(servers[1].asked().is_empty());
}

#[test]
fn what_is_no_reply_is_waited_past() {
    let Some((names, _servers)) = servers([babbling, example, example]) else { return };
    let reply = names.dig("consumer", "example.com A");
    assert_eq!(reply.brief(), FOUND);
    assert!(reply.millis < TOTAL, "{reply:?}");
}

#[test]
fn nobody_knows_before_the_libc_gives_up() {
    let Some((names, servers)) = servers([silent, silent, silent]) else { return };
    for transport in ["+notcp", "+tcp"] {
        let reply = names.dig("consumer", &format!("example.com A {transport}"));
        assert_eq!(reply.brief(), "SERVFAIL", "{transport}");
        assert!(reply.millis < TOTAL, "{transport}: {reply:?}");
    }
    assert!(servers.iter().all(|server| server.count("example.com") > 0), "{servers:?}");
}

#[test]
fn servers_that_are_not_there_are_not_waited_for() {
    let Some(names) = Names::new(ALL, &[]) else { return };
    names.host.address("lo", &["192.0.2.11/32", "192.0.2.12/32", "192.0.2.13/32"]);
    names.ok(&["network", "create", "one"]);
    names.idle("consumer", &["--net", "one"]);
    for transport in ["+notcp", "+tcp"] {
        let reply = names.dig("consumer", &format!("example.com A {transport}"));
        assert_eq!(reply.brief(), "SERVFAIL", "{transport}");
        assert!(reply.millis < PATIENCE, "{transport}: {reply:?}");
    }
}

#[test]
fn public_servers_stand_in_where_the_host_names_none() {
    let Some(names) = Names::new("search corp.example\n", &[]) else { return };
    names.ok(&["network", "create", "one"]);
    names.idle("consumer", &["--net", "one"]);
    let trailer = "# Used default nameservers.\n# ExtServers: [host(8.8.8.8) host(8.8.4.4)]\n";
    let file = names.file("consumer", "/etc/resolv.conf");
    assert!(file.contains(trailer), "{file}");
    // Nobody can be asked: there is no way to them.
    let reply = names.dig("consumer", "example.com A");
    assert_eq!(reply.brief(), "SERVFAIL");
    assert!(reply.millis < PATIENCE, "{reply:?}");
    names.host.address("lo", &["8.8.8.8/32"]);
    let _google = NameServer::of_example(&names.host, "8.8.8.8");
    names.comes_to("consumer", "example.com A", FOUND);
}

#[test]
fn the_hosts_servers_are_asked_from_the_host_loopback_included() {
    let Some(names) = Names::new("nameserver 127.0.0.53\n", &[]) else { return };
    let upstream = NameServer::of_example(&names.host, "127.0.0.53");
    names.ok(&["network", "create", "one"]);
    names.idle("consumer", &["--net", "one"]);
    assert_eq!(names.asks("consumer", "example.com A"), FOUND);
    assert!(upstream.asked()[0].from.is_loopback());
}

#[test]
fn a_change_of_the_hosts_servers_reaches_running_sandboxes() {
    let Some((names, servers)) = servers([example, ignorant, silent]) else { return };
    let file = names.file("consumer", "/etc/resolv.conf");
    assert_eq!(names.asks("consumer", "example.com A"), FOUND);
    names.host_says("nameserver 192.0.2.12\n");
    names.comes_to("consumer", "example.com A", "NXDOMAIN");
    assert!(!servers[1].asked().is_empty());
    // As most replace it: another file takes its place.
    let other = names.host_file().with_extension("new");
    std::fs::write(&other, "nameserver 192.0.2.11\n").unwrap();
    std::fs::rename(&other, names.host_file()).unwrap();
    names.comes_to("consumer", "example.com A", FOUND);
    assert_eq!(names.file("consumer", "/etc/resolv.conf"), file, "the sandbox's own is left alone");
    // Who has servers of its own isn't concerned.
    names.idle("other", &["--net", "one", "--dns", "192.0.2.12"]);
    assert_eq!(names.asks("other", "example.com A"), "NXDOMAIN");
}

/// A name server inside a sandbox.
fn inside(sandbox: &Sandbox, says: Says) -> NameServer {
    let at = SocketAddr::from(([0, 0, 0, 0], nameserver::PORT));
    let (udp, tcp) =
        sandbox.enter(|| (std::net::UdpSocket::bind(at).unwrap(), std::net::TcpListener::bind(at).unwrap()));
    NameServer::with(udp, tcp, says)
}

#[test]
fn from_an_internal_network_nothing_is_asked_through_the_host() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    let upstream = NameServer::of_example(&names.host, U);
    names.ok(&["network", "create", "--internal", "--subnet", "10.20.0.0/24", "inner"]);
    names.ok(&["network", "create", "--subnet", "10.30.0.0/24", "outer"]);
    names.idle("provider", &["--net", "inner"]);
    names.idle("consumer", &["--net", "inner"]);
    names.idle("other", &["--net", "inner", "--dns", "10.20.0.2"]);
    for who in ["consumer", "other"] {
        assert_eq!(names.asks(who, "provider A"), "NOERROR 10.20.0.2");
        let reply = names.dig(who, "example.com A");
        assert_eq!(reply.brief(), "SERVFAIL", "{who}");
        assert!(reply.millis < TOTAL, "{who}: {reply:?}");
    }
    assert!(upstream.asked().is_empty());
    // A server of the sandbox's choice is asked from its own namespace.
    let own = inside(&names.sandbox("provider"), example);
    names.comes_to("other", "example.com A", FOUND);
    assert_eq!(own.asked()[0].from.to_string(), "10.20.0.4");
    assert_eq!(names.asks("other", "example.com A +tcp"), FOUND);
    // A way out turns it on and off.
    names.ok(&["network", "connect", "outer", "consumer"]);
    assert_eq!(names.asks("consumer", "example.com A"), FOUND);
    let asked = upstream.asked().len();
    names.ok(&["network", "disconnect", "outer", "consumer"]);
    assert_eq!(names.asks("consumer", "example.com A"), "SERVFAIL");
    assert_eq!(upstream.asked().len(), asked);
}

/// Forty addresses: more than fit 512 bytes.
fn forty() -> Answer {
    Answer::Data((1..=40).map(|last| a(&format!("198.51.100.{last}"))).collect())
}

fn big(host: &Host, says: Says) -> NameServer {
    NameServer::start(host, U, says)
}

#[test]
fn a_big_reply_is_passed_on_whole() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    let _upstream = big(&names.host, |_| forty());
    names.ok(&["network", "create", "one"]);
    names.idle("consumer", &["--net", "one"]);
    for words in
        ["big.example A +noedns +ignore", "big.example A +bufsize=4096 +ignore", "big.example A +tcp"]
    {
        let reply = names.dig("consumer", words);
        assert_eq!((reply.answers.len(), reply.is_cut()), (40, false), "{words}");
        assert!(reply.size > 512, "{words}: {reply:?}");
    }
}

#[test]
fn a_reply_that_was_cut_is_fetched_over_a_connection() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    let upstream = big(&names.host, |asked| if asked.tcp { forty() } else { Answer::Cut });
    names.ok(&["network", "create", "one"]);
    names.idle("consumer", &["--net", "one"]);
    let whole = names.dig("consumer", "big.example A +notcp +bufsize=4096 +ignore");
    assert_eq!((whole.answers.len(), whole.is_cut(), whole.tcp), (40, false, false));
    let ways: Vec<bool> = upstream.asked().iter().map(|asked| asked.tcp).collect();
    assert_eq!(ways, [false, true]);
    // Who can't take that much is told to come over a connection, where there is all.
    let cut = names.dig("consumer", "big.example A +noedns +ignore");
    assert!(cut.is_cut() && cut.size <= 512, "{cut:?}");
    let all = names.dig("consumer", "big.example A +noedns");
    assert_eq!((all.answers.len(), all.is_cut(), all.tcp), (40, false, true));
    assert_eq!(names.libc("consumer", "ahostsv4", "big.example").len(), 40);
}

#[test]
fn a_cut_reply_is_better_than_none() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    let _upstream = big(&names.host, |asked| if asked.tcp { Answer::Silence } else { Answer::Cut });
    names.ok(&["network", "create", "one"]);
    names.idle("consumer", &["--net", "one"]);
    let reply = names.dig("consumer", "big.example A +ignore");
    assert!(reply.is_cut() && reply.millis < TOTAL, "{reply:?}");
}

#[test]
fn a_server_that_claims_more_than_it_sends_is_not_waited_for_for_ever() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    let at = SocketAddr::new(U.parse().unwrap(), nameserver::PORT);
    let listener = names.host.listen(at);
    let _liar = e2e::servers::TcpServer::with(listener, |mut stream| {
        // 65,535 bytes will follow, it says, and sends one now and then.
        let mut said: &[u8] = b"\xff\xff";
        while std::io::Write::write_all(&mut stream, said).is_ok() {
            said = b"x";
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    names.ok(&["network", "create", "one"]);
    names.idle("consumer", &["--net", "one"]);
    let reply = names.dig("consumer", "example.com A +tcp");
    assert_eq!(reply.brief(), "SERVFAIL");
    assert!(reply.millis < TOTAL, "{reply:?}");
    wait::until("end of the conversation", || {
        !names.host.run("ss", &["-tn", "state", "established"]).contains(&at.to_string())
    });
}

#[test]
fn a_query_that_got_lost_is_sent_again() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    let lost = std::sync::atomic::AtomicBool::new(false);
    let upstream = NameServer::start(&names.host, U, move |asked| {
        if lost.swap(true, std::sync::atomic::Ordering::SeqCst) { example(asked) } else { Answer::Silence }
    });
    names.ok(&["network", "create", "one"]);
    names.idle("consumer", &["--net", "one"]);
    let reply = names.dig("consumer", "example.com A");
    assert_eq!(reply.brief(), FOUND);
    assert!((PATIENCE..TOTAL).contains(&reply.millis), "{reply:?}");
    assert_eq!(upstream.asked().len(), 2);
}

#[test]
fn servers_on_ipv6_are_asked_also_on_a_link() {
    let Some(names) = Names::new("nameserver fd00:ff::2\n", &[]) else { return };
    let upstream = NameServer::of_example(&names.neighbour, "::");
    names.ok(&["network", "create", "one"]);
    names.idle("consumer", &["--net", "one"]);
    assert_eq!(names.asks("consumer", "example.com A"), FOUND);
    assert_eq!(upstream.asked()[0].from.to_string(), "fd00:ff::1");
    let there = names.neighbour.link_local("in");
    names.host_says(&format!("nameserver {there}%out\n"));
    let here = names.host.link_local("out").to_string();
    wait::until("a query from the link's address", || {
        assert_eq!(names.asks("consumer", "example.com A"), FOUND);
        upstream.asked().last().unwrap().from.to_string() == here
    });
}

#[test]
fn a_sandboxs_own_servers_are_asked_from_inside() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    let upstream = NameServer::of_example(&names.host, U);
    names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    // On its own loopback, where nobody else's is.
    names.idle("own", &["--net", "one", "--dns", "127.0.0.1"]);
    let inner = inside(&names.sandbox("own"), |_| Answer::Data(vec![a("192.0.2.88")]));
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(names.asks("own", &format!("example.com A {transport}")), "NOERROR 192.0.2.88");
        assert_eq!(names.asks("own", &format!("own A {transport}")), "NOERROR 10.10.0.2");
    }
    assert!(inner.asked().iter().all(|asked| asked.from.is_loopback()), "{:?}", inner.asked());
    assert!(upstream.asked().is_empty());
    // The embedded server doesn't ask itself.
    names.idle("round", &["--net", "one", "--dns", "127.0.0.11"]);
    let reply = names.dig("round", "example.com A");
    assert_eq!(reply.brief(), "SERVFAIL");
    assert!(reply.millis < PATIENCE, "{reply:?}");
}
