//! Live counters of a mapping: relaxed atomics that the data path adds to and nobody locks.
//!
//! A snapshot is not a consistent cut: each number is exact, two of them may be a datagram apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use serde::Serialize;

use crate::mapping::{Mapping, Protocol};

/// What one proxy counts. Shared by all of its threads.
#[derive(Debug)]
pub struct Counters {
    started: Instant,
    mapping: Mapping,
    engine: &'static str,
    /// Connections or associations.
    pub connections: Connections,
    /// UDP flows.
    pub flows: Flows,
    /// From clients to the backend.
    pub to_backend: Traffic,
    /// From the backend to clients.
    pub to_client: Traffic,
    /// Trouble of our own: descriptors, memory, sockets that broke.
    pub errors: Counter,
}

/// Counts up, never down.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many are there now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    pub fn up(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less.
    pub fn down(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Connections of a mapping.
#[derive(Debug, Default)]
pub struct Connections {
    /// Accepted and not yet over.
    pub open: Gauge,
    /// Accepted since the start.
    pub total: Counter,
    /// Refused by the backend.
    pub refused: Counter,
    /// Given up for another reason: time-out, unreachable, no descriptors.
    pub failed: Counter,
    /// Reset for want of the PROXY protocol header that was to come first.
    pub rejected: Counter,
}

/// UDP flows of a mapping.
#[derive(Debug, Default)]
pub struct Flows {
    /// In the table.
    pub open: Gauge,
    /// Made since the start.
    pub total: Counter,
    /// Dropped before their time because the table was full.
    pub evicted: Counter,
}

/// One direction of a mapping.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Payload passed on.
    pub bytes: Counter,
    /// Datagrams or messages passed on; a TCP stream has none.
    pub packets: Counter,
}

impl Traffic {
    /// One datagram, or as many of `segment` bytes as there are in `bytes`.
    pub fn datagrams(&self, bytes: usize, segment: Option<u16>) {
        let count = segment.map_or(1, |size| bytes.div_ceil(usize::from(size.max(1))).max(1));
        self.bytes.add(bytes as u64);
        self.packets.add(count as u64);
    }

    /// One message of `bytes`.
    pub fn packet(&self, bytes: usize) {
        self.datagrams(bytes, None);
    }
}

impl Counters {
    /// All zero, from now on.
    #[must_use]
    pub fn new(mapping: Mapping, engine: &'static str) -> Self {
        Self {
            started: Instant::now(),
            mapping,
            engine,
            connections: Connections::default(),
            flows: Flows::default(),
            to_backend: Traffic::default(),
            to_client: Traffic::default(),
            errors: Counter::default(),
        }
    }

    /// The numbers now, as one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let m = &self.mapping;
        let stream = m.protocol == Protocol::Tcp;
        let traffic =
            |t: &Traffic| Direction { bytes: t.bytes.get(), packets: (!stream).then(|| t.packets.get()) };
        let stats = Stats {
            pid: std::process::id(),
            engine: self.engine,
            protocol: m.protocol.name(),
            host: m.host(),
            target: m.behind(),
            uptime_seconds: self.started.elapsed().as_secs(),
            connections: (m.protocol != Protocol::Udp).then(|| ConnectionStats {
                open: self.connections.open.get(),
                total: self.connections.total.get(),
                refused: self.connections.refused.get(),
                failed: self.connections.failed.get(),
                rejected: self.connections.rejected.get(),
            }),
            flows: (m.protocol == Protocol::Udp).then(|| FlowStats {
                open: self.flows.open.get(),
                total: self.flows.total.get(),
                evicted: self.flows.evicted.get(),
            }),
            to_backend: traffic(&self.to_backend),
            to_client: traffic(&self.to_client),
            errors: self.errors.get(),
        };
        serde_json::to_string(&stats).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }
}

#[derive(Serialize)]
struct Stats {
    pid: u32,
    engine: &'static str,
    protocol: &'static str,
    host: String,
    target: String,
    uptime_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<ConnectionStats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<FlowStats>,
    to_backend: Direction,
    to_client: Direction,
    errors: u64,
}

#[derive(Serialize)]
struct ConnectionStats {
    open: u64,
    total: u64,
    refused: u64,
    failed: u64,
    rejected: u64,
}

#[derive(Serialize)]
struct FlowStats {
    open: u64,
    total: u64,
    evicted: u64,
}

#[derive(Serialize)]
struct Direction {
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    packets: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Ports;

    fn counters(protocol: Protocol) -> Counters {
        let ports = |p| Ports::new(p, p).unwrap();
        let mapping = Mapping::new(
            protocol,
            ("::1".parse().unwrap(), ports(53)),
            ("10.0.0.2".parse().unwrap(), ports(5353)),
        );
        Counters::new(mapping.unwrap(), "portable")
    }

    #[test]
    fn a_snapshot_shows_what_the_protocol_has() {
        let udp = counters(Protocol::Udp);
        udp.to_backend.packet(100);
        udp.flows.open.up();
        udp.flows.total.add(1);
        let json: serde_json::Value = serde_json::from_str(&udp.json()).unwrap();
        assert_eq!(json["to_backend"], serde_json::json!({"bytes": 100, "packets": 1}));
        assert_eq!(json["flows"], serde_json::json!({"open": 1, "total": 1, "evicted": 0}));
        assert_eq!(json["host"], "[::1]:53");
        assert_eq!(json["target"], "10.0.0.2:5353");
        assert!(json.get("connections").is_none());

        let tcp = counters(Protocol::Tcp);
        tcp.to_client.bytes.add(7);
        let json: serde_json::Value = serde_json::from_str(&tcp.json()).unwrap();
        assert_eq!(json["to_client"], serde_json::json!({"bytes": 7}));
        assert!(json.get("flows").is_none());
        assert_eq!(json["connections"]["open"], 0);
    }
}
