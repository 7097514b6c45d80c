//! The firewall's facts: all networks, the published ports and the links of their endpoints, and whether it was us who made this host a router.
//!
//! Forwarding that we turned on is for our networks only: everything else that would be forwarded is dropped, as it was
//! before. That is remembered in a file, for a daemon that is started later in the same boot finds forwarding on and
//! couldn't tell by whom.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::root;
use super::{Config, Result};
use crate::firewall::{
    Backend, BridgeNetwork, EndpointLinks, EndpointPorts, Facts, Firewall, Foreign, HostFacts, Tools,
};
use crate::model::{BootId, EndpointId, Family, NetworkId};

type AnyTools = Box<dyn Tools + Send>;

/// The rules of this host.
pub(super) struct Rules {
    firewall: Firewall<AnyTools>,
    networks: BTreeMap<NetworkId, BridgeNetwork>,
    /// What was applied last.
    facts: Facts,
    /// What the flags say.
    host: HostFacts,
    routed: Routed,
}

/// Families that this host forwards because of us.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Routed {
    path: PathBuf,
    boot: BootId,
    v4: bool,
    v6: bool,
}

impl Rules {
    /// No networks yet. What was remembered in another boot doesn't count: forwarding went with it.
    pub(super) fn new(tools: AnyTools, config: &Config, path: PathBuf, boot: BootId) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut words = text.split_whitespace();
        let same_boot = words.next() == Some(boot.as_str());
        let families: Vec<&str> = words.filter(|_| same_boot).collect();
        let (v4, v6) = (families.contains(&"ipv4"), families.contains(&"ipv6"));
        let host = HostFacts {
            userland_proxy: config.userland_proxy,
            accept_mark: config.accept_mark,
            allow_direct_routing: config.allow_direct_routing,
            ..HostFacts::default()
        };
        Self {
            firewall: Firewall::with_tools(config.backend(), tools),
            networks: BTreeMap::new(),
            facts: Facts::default(),
            host,
            routed: Routed { path, boot, v4, v6 },
        }
    }

    pub(super) fn backend(&mut self) -> Option<Backend> {
        self.firewall.backend().ok().flatten()
    }

    /// Remembers that forwarding is about to be turned on by us.
    pub(super) fn remember(&mut self, family: Family) -> Result<()> {
        let mut routed = self.routed.clone();
        match family {
            Family::V4 => routed.v4 = true,
            Family::V6 => routed.v6 = true,
        }
        if routed != self.routed {
            let family = |on, name| if on { name } else { "" };
            let text =
                format!("{}{}{}\n", routed.boot, family(routed.v4, " ipv4"), family(routed.v6, " ipv6"));
            root::replace(&routed.path, &text)?;
            self.routed = routed;
        }
        Ok(())
    }

    /// Adds, changes or removes the facts of one network and makes the rules follow. On failure all is as before.
    pub(super) fn set(&mut self, id: NetworkId, network: Option<BridgeNetwork>) -> Result<()> {
        let before = self.put(id, network);
        let ports = self.facts.ports().map(|(id, ports)| (id, Arc::clone(ports))).collect();
        let links: Vec<_> = self.facts.links().map(|(id, links)| (id, Some(Arc::clone(links)))).collect();
        let applied = self.facts_with(ports).and_then(|facts| self.apply(facts.with_links(links)));
        if applied.is_err() {
            self.put(id, before);
        }
        applied
    }

    /// Changes what is published of endpoints, `None` where nothing is any more, and makes the rules follow, in one
    /// transaction. On failure all is as before.
    pub(super) fn set_ports(&mut self, changes: Vec<(EndpointId, Option<EndpointPorts>)>) -> Result<()> {
        let changes = changes.into_iter().map(|(id, ports)| (id, ports.map(Arc::new)));
        self.apply(self.facts.with_ports(changes))
    }

    /// As [`set_ports`](Self::set_ports), for what is so whatever becomes of the rules: those that can't be changed now are
    /// by the next change of any.
    pub(super) fn force_ports(&mut self, changes: Vec<(EndpointId, Option<EndpointPorts>)>) -> Result<()> {
        let changes = changes.into_iter().map(|(id, ports)| (id, ports.map(Arc::new)));
        self.force(self.facts.with_ports(changes))
    }

    /// Changes what links open, `None` where nothing is any more. On failure all is as before.
    pub(super) fn set_links(&mut self, changes: Vec<(EndpointId, Option<EndpointLinks>)>) -> Result<()> {
        match self.with_links(changes) {
            Some(facts) => self.apply(facts),
            None => Ok(()),
        }
    }

    /// As [`set_links`](Self::set_links), but as [`force_ports`](Self::force_ports) does it.
    pub(super) fn force_links(&mut self, changes: Vec<(EndpointId, Option<EndpointLinks>)>) -> Result<()> {
        match self.with_links(changes) {
            Some(facts) => self.force(facts),
            None => Ok(()),
        }
    }

    /// The facts with other links, if that is a change.
    fn with_links(&self, changes: Vec<(EndpointId, Option<EndpointLinks>)>) -> Option<Facts> {
        let is_change = |(id, new): &(EndpointId, Option<EndpointLinks>)| {
            self.facts.links_of(*id).map(|links| &**links) != new.as_ref()
        };
        let changes: Vec<_> = changes.into_iter().filter(is_change).collect();
        let changes = changes.into_iter().map(|(id, links)| (id, links.map(Arc::new)));
        (changes.len() > 0).then(|| self.facts.with_links(changes))
    }

    /// Replaces all facts and all rules.
    pub(super) fn replace(
        &mut self,
        networks: BTreeMap<NetworkId, BridgeNetwork>,
        ports: BTreeMap<EndpointId, EndpointPorts>,
        links: Vec<(EndpointId, EndpointLinks)>,
    ) -> Result<()> {
        self.networks = networks;
        self.firewall.forget();
        let ports = ports.into_iter().map(|(id, ports)| (id, Arc::new(ports))).collect();
        let links = links.into_iter().map(|(id, links)| (id, Some(Arc::new(links))));
        self.facts = self.facts_with(ports)?.with_links(links);
        Ok(self.firewall.apply(&self.facts)?)
    }

    fn put(&mut self, id: NetworkId, network: Option<BridgeNetwork>) -> Option<BridgeNetwork> {
        match network {
            Some(network) => self.networks.insert(id, network),
            None => self.networks.remove(&id),
        }
    }

    fn facts_with(&self, ports: BTreeMap<EndpointId, Arc<EndpointPorts>>) -> Result<Facts> {
        let foreign = |ours| if ours { Foreign::Drop } else { Foreign::Leave };
        let (foreign_v4, foreign_v6) = (foreign(self.routed.v4), foreign(self.routed.v6));
        let host = HostFacts { foreign_v4, foreign_v6, ..self.host };
        Ok(Facts::new(self.networks.values().cloned(), ports, host)?)
    }

    /// Takes these facts for true, and makes the rules follow now or with the next change.
    fn force(&mut self, facts: Facts) -> Result<()> {
        self.facts = facts;
        let applied = self.firewall.apply(&self.facts);
        if applied.is_err() {
            self.firewall.forget();
        }
        Ok(applied?)
    }

    /// Makes the rules what these facts ask for. On failure they are as before.
    fn apply(&mut self, facts: Facts) -> Result<()> {
        if let Err(error) = self.firewall.apply(&facts) {
            // With iptables, which has no transaction over tables and families, some of it may have been done.
            self.firewall.forget();
            if let Err(error) = self.firewall.apply(&self.facts) {
                tracing::warn!(%error, "the firewall's rules can't be put back");
            }
            return Err(error.into());
        }
        self.facts = facts;
        Ok(())
    }
}
