//! Ports of sandboxes: what was asked for, and what stands.
//!
//! Not here: the grammar of `-p` and `--expose`, and how a wish becomes a host port (`publish`).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::publish::{ExposeSpec, PortRange, Proto, PublishSpec};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortsConfig {
    /// `-p`, in the order given.
    pub publish: Vec<PublishSpec>,
    /// `--expose`, in the order given.
    pub expose: Vec<ExposeSpec>,
    /// `-P`: every exposed port that no `-p` names is published on a port of the host's choice.
    pub publish_all: bool,
}

/// Ports of an endpoint that are published: one spec, one target, and one port or range.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Publication {
    /// What it comes from; where that was `-P`, the port alone.
    pub spec: PublishSpec,
    /// On both sides.
    pub proto: Proto,
    /// The sandbox's ports.
    pub container: PortRange,
    /// The host's, first to first and last to last; `None` where the sandbox's own address is reached directly.
    #[serde(default)]
    pub host: Option<PortRange>,
    /// The host's addresses; the unspecified one stands for all of its family. They may be of another family than the
    /// target, which only a proxy can bridge.
    pub addresses: Vec<IpAddr>,
    /// The sandbox's address.
    pub target: IpAddr,
}

impl PortsConfig {
    /// Whether nothing is published and nothing exposed.
    pub fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.expose.is_empty() && !self.publish_all
    }
}
