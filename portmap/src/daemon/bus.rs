//! What happened, for those who listen: Docker's events.
//!
//! The last 256 are kept for those who ask what was. Whoever doesn't listen fast enough loses the oldest; nobody waits
//! for a listener.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use netcore::model::{Sandbox, Timestamp};
use serde::Serialize;
use tokio::sync::broadcast::{self, Receiver, Sender};

use super::NetworkLabel;

/// How many are kept, as dockerd does.
const KEPT: usize = 256;
/// The image that a sandbox is said to have: the host's own files.
pub(crate) const IMAGE: &str = "host";

/// One thing that happened, in the order in which dockerd writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<&'static str>,
    #[serde(rename = "Type")]
    pub(crate) kind: &'static str,
    #[serde(rename = "Action")]
    pub(crate) action: &'static str,
    #[serde(rename = "Actor")]
    pub(crate) actor: Actor,
    pub(crate) scope: &'static str,
    pub(crate) time: i64,
    #[serde(rename = "timeNano")]
    pub(crate) nanos: i64,
}

/// Whom it happened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Actor {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(rename = "Attributes")]
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Where events are published and heard.
pub(crate) struct Bus(Mutex<Inner>);

struct Inner {
    kept: VecDeque<Arc<Event>>,
    sender: Sender<Arc<Event>>,
}

impl Default for Bus {
    fn default() -> Self {
        Self(Mutex::new(Inner { kept: VecDeque::new(), sender: broadcast::channel(KEPT).0 }))
    }
}

impl Bus {
    /// Something happened to a network.
    pub(crate) fn network(&self, action: &'static str, id: impl ToString, network: &NetworkLabel) {
        let attributes = [("name", network.name.as_str()), ("type", network.driver.as_str())];
        self.publish("network", action, id.to_string(), pairs(&attributes));
    }

    /// A sandbox came to a network, or left it.
    pub(crate) fn attachment(
        &self,
        action: &'static str,
        id: impl ToString,
        network: &NetworkLabel,
        sandbox: impl ToString,
    ) {
        let sandbox = sandbox.to_string();
        let attributes = [
            ("container", sandbox.as_str()),
            ("name", network.name.as_str()),
            ("type", network.driver.as_str()),
        ];
        self.publish("network", action, id.to_string(), pairs(&attributes));
    }

    /// Networks were pruned.
    pub(crate) fn pruned(&self) {
        self.publish("network", "prune", String::new(), pairs(&[("reclaimed", "0")]));
    }

    /// Something happened to a sandbox.
    pub(crate) fn sandbox(&self, action: &'static str, sandbox: &Sandbox, more: &[(&str, &str)]) {
        let mut attributes = sandbox.config.labels.clone();
        attributes.extend(pairs(&[("image", IMAGE), ("name", sandbox.config.name.as_str())]));
        attributes.extend(pairs(more));
        self.publish("container", action, sandbox.id.to_string(), attributes);
    }

    /// The daemon looked at its settings again.
    pub(crate) fn reloaded(&self, id: &str) {
        self.publish("daemon", "reload", id.to_owned(), pairs(&[("name", id)]));
    }

    /// What was, and from there on what will be.
    pub(crate) fn listen(&self) -> (Vec<Arc<Event>>, Receiver<Arc<Event>>) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.kept.iter().cloned().collect(), inner.sender.subscribe())
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sender.receiver_count()
    }

    fn publish(
        &self,
        kind: &'static str,
        action: &'static str,
        id: String,
        attributes: BTreeMap<String, String>,
    ) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Arc::new(Event::new(kind, action, id, attributes, super::now()));
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(event.clone());
        // Nobody need be listening.
        let _ = inner.sender.send(event);
    }
}

impl Event {
    pub(crate) fn new(
        kind: &'static str,
        action: &'static str,
        id: String,
        attributes: BTreeMap<String, String>,
        at: Timestamp,
    ) -> Self {
        let of_container = kind == "container";
        Self {
            status: of_container.then_some(action),
            id: of_container.then(|| id.clone()),
            from: of_container.then_some(IMAGE),
            kind,
            action,
            actor: Actor { id, attributes },
            scope: "local",
            time: at.seconds(),
            nanos: at.nanos(),
        }
    }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_slow_listeners_lose_the_first() {
        let bus = Bus::default();
        let (_, mut slow) = bus.listen();
        let label = NetworkLabel { name: "n".to_owned(), driver: "bridge".to_owned() };
        for number in 0..KEPT + 10 {
            bus.network("create", number, &label);
        }
        let (kept, _) = bus.listen();
        assert_eq!((kept.len(), kept[0].actor.id.as_str()), (KEPT, "10"));
        assert!(matches!(slow.try_recv(), Err(broadcast::error::TryRecvError::Lagged(10))));
        assert_eq!(slow.try_recv().unwrap().actor.id, "10");
    }

    #[test]
    fn events_of_sandboxes_have_the_old_fields_too() {
        let at = Timestamp::from_nanos(1_785_578_401_000_000_001);
        let event = Event::new("container", "start", "88b5".to_owned(), pairs(&[("name", "web")]), at);
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"status":"start","id":"88b5","from":"host","Type":"container","Action":"start","Actor":{"ID":"88b5","Attributes":{"name":"web"}},"scope":"local","time":1785578401,"timeNano":1785578401000000001}"#
        );
        let event = Event::new("network", "prune", String::new(), pairs(&[("reclaimed", "0")]), at);
        assert!(serde_json::to_string(&event).unwrap().starts_with(r#"{"Type":"network","Action":"prune""#));
    }
}
