//! The path of a DNS message: bytes from a sandbox, and whatever servers send that are asked next.
//!
//! A byte of settings, the query, and then what happens to it if others are asked: time passes, an attempt fails, or a
//! section comes as a reply.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType};
use netcore::dns::{
    Attachment, Exchange, Forward, Link, Member, Settings, Step, Transport, Upstreams, Verdict, View, Zones,
    answer, names,
};
use netcore::model::{EndpointId, NetworkId, SandboxId};
use netcore::names::resolv_conf::{Nameserver, Origin, Upstream};

use super::input::Input;

const HEADER: usize = 12;
const PLAIN_UDP: usize = 512;
/// Three datagrams and one connection for what was cut, or a connection to each of three servers.
const MOST_ASKED: usize = 4;
/// What a client waits for.
const TOTAL: Duration = Duration::from_millis(4500);
/// Made once: it is the same for all, and most of a run's time.
static WORLD: OnceLock<(Zones, View)> = OnceLock::new();

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let query = input.section();
    let (zones, view) = WORLD.get_or_init(world);
    let settings = Settings { ttl: 600, ndots_given: flags & 1 != 0, ipv6: flags & 2 != 0 };
    for transport in [Transport::Udp, Transport::Tcp] {
        match answer(query, transport, zones, view, &settings, u64::from(flags)) {
            Verdict::Drop => {
                let response = query.get(2).is_some_and(|byte| byte & 0x80 != 0);
                assert!(query.len() < HEADER || response, "a query was ignored");
            }
            Verdict::Reply(reply) => {
                let reply = read(query, &reply, transport);
                assert!(reply.answers.iter().all(|record| record.ttl == 600), "another TTL than ours");
            }
            Verdict::Forward(forward) => {
                let name = Message::from_vec(query).unwrap().queries[0].name().to_string().to_lowercase();
                let ours = ["provider.", "provider.local_bridge.", "giver.", "localhost.", "a.localhost."];
                assert!(!ours.contains(&name.as_str()), "{name} leaks");
                exchange(query, *forward, transport, flags, Input(input.0));
            }
        }
    }
}

/// `provider` and forty that share an alias, as `consumer` sees them.
fn world() -> (Zones, View) {
    let network = NetworkId::from_random([0xb1; 32]);
    let mut zones = Zones::default();
    for number in 0..41_u8 {
        let sandbox = SandboxId::from_random([number; 32]);
        let name = if number == 0 { "provider".to_owned() } else { format!("one{number}") };
        let member = Member {
            sandbox,
            names: names(&name, &["app".to_owned(), "db.prod".to_owned()], &sandbox, "shop"),
            v4: Some([172, 22, 0, number + 2].into()),
            v6: (number % 2 == 0).then(|| [0xfd5a, 1, 2, 3, 0, 0, 0, u16::from(number)].into()),
        };
        zones.join(network, EndpointId::from_random([number; 32]), member);
    }
    let link = Link { alias: "giver".to_owned(), target: "provider".to_owned(), sandbox: None };
    let attachment = Attachment {
        network,
        name: "local_bridge".to_owned(),
        gw_priority: 0,
        internal: false,
        gateway4: true,
        gateway6: false,
        links: vec![link],
    };
    (zones, View::new(vec![attachment]))
}

/// A reply of ours to `query`, which has to be one.
fn read(query: &[u8], reply: &[u8], transport: Transport) -> Message {
    let message = Message::from_vec(reply).expect("a reply of ours can be read");
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert_eq!(reply[..2], query[..2], "the reply has another id");
    let asked = Message::from_vec(query);
    let edns = asked.as_ref().ok().and_then(|asked| asked.edns.as_ref());
    let most = match transport {
        Transport::Udp => edns.map_or(PLAIN_UDP, |edns| usize::from(edns.max_payload())).max(PLAIN_UDP),
        Transport::Tcp => usize::from(u16::MAX),
    };
    assert!(reply.len() <= most, "{} bytes where the client takes {most}", reply.len());
    if let Some(question) = message.queries.first() {
        let asked = asked.expect("only what could be read is repeated");
        assert_eq!(question.name().to_ascii(), asked.queries[0].name().to_ascii(), "another spelling");
        assert_eq!(question.query_type(), asked.queries[0].query_type());
    }
    message
}

fn exchange(query: &[u8], forward: Forward, transport: Transport, flags: u8, mut input: Input<'_>) {
    let server = |number: u8| Upstream {
        server: Nameserver::from(IpAddr::from([192, 0, 2, number])),
        origin: if number == 1 { Origin::Sandbox } else { Origin::Host },
    };
    let mut upstreams = Upstreams::new((1..4).map(server));
    let gateway = flags & 4 != 0;
    let start = Instant::now();
    let mut now = start;
    let mut exchange = Exchange::new(forward, transport, &upstreams, gateway, u64::from(flags), now);
    let mut ids: Vec<[u8; 2]> = Vec::new();
    let reply = loop {
        match exchange.step(now) {
            Step::Ask(ask) => {
                assert_eq!(ask.attempt, ids.len());
                assert_eq!(ask.message[2..], query[2..], "a query is forwarded as it came");
                assert!(gateway || ask.server.origin == Origin::Sandbox, "a way out that isn't there");
                ids.push([ask.message[0], ask.message[1]]);
                assert!(ids.len() <= MOST_ASKED, "asked too often");
            }
            Step::Wait(until) => {
                assert!(until > now && until <= start + TOTAL, "waits in vain");
                let event = input.byte();
                let attempt = usize::from(event >> 4) % ids.len().max(1);
                match event & 3 {
                    0 => now = until,
                    1 => exchange.failed(attempt),
                    what => {
                        let mut reply = input.section().to_vec();
                        // Most of the time under the id that a fuzzer can't guess.
                        if what == 2 && reply.len() >= 2 {
                            reply[..2].copy_from_slice(&ids[attempt]);
                        }
                        exchange.heard(attempt, &reply);
                    }
                }
            }
            Step::Done(reply) => break reply,
        }
    };
    assert!(now <= start + TOTAL, "later than the client waits");
    assert!(
        reply.len() >= HEADER && reply[..2] == query[..2] && reply[2] & 0x80 != 0,
        "no reply to the query"
    );
    exchange.heard(0, &[0; HEADER]);
    assert_eq!(exchange.step(now), Step::Done(reply), "what is done stays so");
    exchange.teach(&mut upstreams, now);
}
