//! The sandboxes that tests ask about: `provider` and `second` on `local_bridge`, `second` also on the dual-stack `dual`,
//! and who asks.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::model::{EndpointId, NetworkId, SandboxId};

use super::{Attachment, Found, Link, Member, View, Zones, names};

pub(super) const PROVIDER: &str = "a21d98819934abababababababababababababababababababababababababab";

pub(super) fn network(number: u8) -> NetworkId {
    NetworkId::from_random([number; 32])
}

pub(super) fn endpoint(number: u16) -> EndpointId {
    let [high, low] = number.to_be_bytes();
    let mut bytes = [0xee; 32];
    (bytes[30], bytes[31]) = (high, low);
    EndpointId::from_random(bytes)
}

pub(super) fn sandbox(number: u8) -> SandboxId {
    SandboxId::from_random([number; 32])
}

/// `addresses` are an IPv4 and an IPv6 one, either of which may be missing.
pub(super) fn member(id: SandboxId, name: &str, aliases: &[&str], hostname: &str, addresses: &str) -> Member {
    let aliases: Vec<String> = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    let find = |wanted: char| addresses.split_whitespace().find(|text| text.contains(wanted));
    Member {
        sandbox: id,
        names: names(name, &aliases, &id, hostname),
        v4: find('.').map(|text| text.parse().unwrap()),
        v6: find(':').map(|text| text.parse().unwrap()),
    }
}

pub(super) const LOCAL: u8 = 0xb1;
pub(super) const DUAL: u8 = 0xb2;
pub(super) const PROVIDER_END: u16 = 1;
pub(super) const SECOND_END: u16 = 2;

pub(super) fn provider() -> SandboxId {
    PROVIDER.parse().unwrap()
}

pub(super) fn zones() -> Zones {
    let mut zones = Zones::default();
    let (second, consumer) = (sandbox(0xc2), sandbox(0xc3));
    let local = network(LOCAL);
    let app = &["app"];
    zones.join(
        local,
        endpoint(PROVIDER_END),
        member(provider(), "provider", app, "a21d98819934", "172.22.0.2"),
    );
    zones.join(local, endpoint(SECOND_END), member(second, "second", app, "shop", "172.22.0.3"));
    zones.join(local, endpoint(3), member(consumer, "consumer", &["db.prod"], "consumer", "172.22.0.4"));
    let both = "172.23.0.2 fd5a:1:2:3::2";
    zones.join(network(DUAL), endpoint(4), member(second, "second", &["cache"], "shop", both));
    zones
}

pub(super) fn link(alias: &str, target: &str, sandbox: Option<SandboxId>) -> Link {
    Link { alias: alias.to_owned(), target: target.to_owned(), sandbox }
}

pub(super) fn attachment(number: u8, name: &str, links: Vec<Link>) -> Attachment {
    Attachment {
        network: network(number),
        name: name.to_owned(),
        gw_priority: 0,
        internal: false,
        gateway4: true,
        gateway6: number == DUAL,
        links,
    }
}

/// What `consumer` sees.
pub(super) fn consumer() -> View {
    View::new(vec![attachment(LOCAL, "local_bridge", vec![link("giver", "provider", None)])])
}

/// What `consumer` sees once it is connected to `dual`.
pub(super) fn consumer_on_both() -> View {
    let local = attachment(LOCAL, "local_bridge", vec![link("giver", "provider", None)]);
    View::new(vec![local, attachment(DUAL, "dual", vec![])])
}

pub(super) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let labels = name.trim_end_matches('.').split('.').map(str::as_bytes);
    let name = if name == "." { Name::root() } else { Name::from_labels(labels).unwrap() };
    message.add_query(Query::query(name, kind));
    message
}

pub(super) fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

/// The answers' data as texts, sorted.
pub(super) fn data(reply: &[u8]) -> Vec<String> {
    let message = Message::from_vec(reply).unwrap();
    let text = |data: &RData| match data {
        RData::A(a) => a.0.to_string(),
        RData::AAAA(aaaa) => aaaa.0.to_string(),
        RData::PTR(ptr) => ptr.0.to_string(),
        other => format!("{other:?}"),
    };
    let mut texts: Vec<String> = message.answers.iter().map(|record| text(&record.data)).collect();
    texts.sort();
    texts
}

/// All addresses, as texts.
pub(super) fn texts(found: Option<Found>) -> Option<Vec<String>> {
    found.map(|found| {
        let v6 = found.v6.iter().map(ToString::to_string);
        found.v4.iter().map(ToString::to_string).chain(v6).collect()
    })
}
