//! What netproxy does beyond docker-proxy's contract, and how it bears abuse, as black-box tests.

mod abuse;
mod drain;
mod engine;
mod flows;
mod inherited;
mod options;
mod proxy_protocol;
mod ranges;
mod sources;
mod stats;
mod streams;

use std::net::SocketAddr;

use e2e::bin;
use e2e::proxy::{Running, Start};

/// Where the proxy listens unless a test says otherwise.
const FRONT: u16 = 25_587;

/// netproxy forwarding TCP.
fn tcp(at: SocketAddr, target: SocketAddr) -> Start {
    Start::mapping(bin::netproxy(), "tcp", at, target)
}

/// netproxy forwarding UDP.
fn udp(at: SocketAddr, target: SocketAddr) -> Start {
    Start::mapping(bin::netproxy(), "udp", at, target)
}

/// netproxy with these words, split at spaces.
fn netproxy(words: &str) -> Start {
    Start::new(bin::netproxy(), words.split_whitespace())
}

/// The counters of a running proxy, asked for by its process id.
#[track_caller]
fn counters(proxy: &Running) -> serde_json::Value {
    stats::of(&proxy.pid().to_string())
}
