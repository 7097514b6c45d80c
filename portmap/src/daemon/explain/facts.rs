//! What there is to know about a port or a sandbox, as plain data.

use std::net::{IpAddr, SocketAddr};

use netcore::model::{PortsConfig, Publication};
use netcore::publish::Proto;

use super::question::Question;

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) question: Question,
    pub(super) host: Host,
    /// The one that is asked about, or all.
    pub(super) sandboxes: Vec<Sandbox>,
}

/// The host.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// What waits for packets on it.
    pub(super) listeners: Vec<Listener>,
    /// `--userland-proxy`.
    pub(super) has_proxies: bool,
    /// Whether rules are made at all.
    pub(super) has_rules: bool,
    pub(super) forwards_v4: bool,
    pub(super) forwards_v6: bool,
    /// Our own process.
    pub(super) daemon: u32,
    /// The proxies of all sandboxes.
    pub(super) proxies: Vec<u32>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
}

/// A socket that waits for packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) proto: Proto,
    pub(super) at: SocketAddr,
    /// Who holds it, if that could be found out.
    pub(super) by: Option<Process>,
}

/// A sandbox.
#[derive(Clone, Debug)]
pub(super) struct Sandbox {
    pub(super) name: String,
    pub(super) stack: Stack,
    pub(super) is_running: bool,
    /// What was asked for.
    pub(super) ports: PortsConfig,
    pub(super) networks: Vec<Network>,
    pub(super) published: Vec<Published>,
    /// What waits for packets in it, or why that isn't known. Nothing of one that doesn't run.
    pub(super) listeners: Result<Vec<Listener>, String>,
}

/// Whose network stack a sandbox has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stack {
    Own,
    /// The host's.
    Host,
    /// Its own, without a network.
    None,
    /// That of another sandbox.
    Of(String),
}

/// A network that a sandbox is on.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) name: String,
    pub(super) is_internal: bool,
}

/// A publication, and what is on its way.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) publication: Publication,
    /// The network it leads to.
    pub(super) network: String,
    /// The process that carries it.
    pub(super) proxy: Option<u32>,
    /// Whether the rule is there that leads packets to the sandbox, or lets them in; `None` where there needs to be none.
    pub(super) is_led: Option<bool>,
    pub(super) obstacles: Vec<Obstacle>,
    /// Why rules of others couldn't be looked at.
    pub(super) unseen: Option<String>,
    pub(super) route: Route,
}

/// A rule of somebody else's that drops packets on this way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// Whether it drops all of them, or only those that are what can't be known before they come.
    pub(super) is_certain: bool,
    /// In which chain: `table ip filter, chain FORWARD`.
    pub(super) place: String,
    /// The rule.
    pub(super) rule: String,
}

/// How the host reaches a sandbox's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Not at all.
    None,
    /// By the sandbox's network.
    Direct,
    /// By another way: packets leave with this address.
    Elsewhere(IpAddr),
}
