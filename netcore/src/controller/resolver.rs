//! Where sandboxes stand in their networks' zones, and the embedded servers that answer from them.
//!
//! Not here: what is answered and how (`dns`), and the sandbox's own files (`names`).

use std::path::Path;

use super::error::ControllerError;
use super::known::Known;
use super::plans::{Attachment, gateway_of};
use super::{Inner, Result};
use crate::dns::{self, Asked, Client, Link, Member, Settings, View};
use crate::model::{Endpoint, EndpointSettings, Family, LinkSpec, Running, Sandbox, SandboxState};
use crate::store::{ReadTx, StoreError};

/// What is done if a sandbox is served already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serving {
    /// Its server is told what is new.
    Goes,
    /// It gets another one: its namespace may have been changed by somebody.
    Anew,
}

impl Inner {
    /// Lets a running sandbox be found on its networks, and find others. Repeatable. If it can't find others it is found all the
    /// same.
    pub(super) fn open_names(
        &self,
        sandbox: &Sandbox,
        attached: &[Attachment],
        serving: Serving,
    ) -> Result<()> {
        self.join_zones(sandbox, attached);
        let Some(namespace) = resolver_of(sandbox) else { return Ok(()) };
        let client = self.dns_client(sandbox, attached, namespace);
        if serving == Serving::Goes && self.dns.serves(sandbox.id) {
            self.dns.update(sandbox.id, client);
            return Ok(());
        }
        // Not asked in the call: the rules would be held until the kernel is done.
        let backend = self.rules().backend();
        let sockets = self.kernel.name_sockets(namespace, backend)?;
        self.dns.serve(sandbox.id, sockets, client).map_err(ControllerError::Resolver)
    }

    /// Puts a sandbox into the zones of its user-defined networks, under the names that it has now.
    pub(super) fn join_zones(&self, sandbox: &Sandbox, attached: &[Attachment]) {
        let hostname = self.hostname(sandbox);
        for Attachment { network, endpoint } in attached.iter().filter(|a| !a.network.is_predefined()) {
            let (name, aliases) = (sandbox.config.name.as_str(), &endpoint.settings.aliases);
            let member = Member {
                sandbox: sandbox.id,
                names: dns::names(name, aliases, &sandbox.id, &hostname),
                v4: endpoint.ipv4.map(|net| net.addr()),
                v6: endpoint.ipv6.map(|net| net.addr()),
            };
            self.dns.join(network.id, endpoint.id, member);
        }
    }

    /// Takes endpoints out of their networks' zones.
    pub(super) fn leave_zones<'a>(&self, endpoints: impl IntoIterator<Item = &'a Endpoint>) {
        endpoints.into_iter().for_each(|endpoint| self.dns.leave(&endpoint.network, &endpoint.id));
    }

    /// A sandbox ends: nobody finds it any more, and its server ends with it.
    pub(super) fn close_names(&self, sandbox: &Sandbox, attached: &[Attachment]) {
        self.leave_zones(attached.iter().map(|attachment| &attachment.endpoint));
        self.end_server(sandbox);
    }

    /// Ends a sandbox's server, if it has one, and leaves nothing of it in a namespace that stays.
    pub(super) fn end_server(&self, sandbox: &Sandbox) {
        self.dns.end(sandbox.id);
        // A namespace of ours goes with all that is in it.
        if let Some(adopted) = &sandbox.config.netns
            && resolver_of(sandbox).is_some()
            && let Err(error) = self.kernel.remove_name_rules(adopted)
        {
            tracing::debug!(sandbox = %sandbox.config.name, %error, "rules of its embedded server are left behind");
        }
    }

    /// Puts names back to what they were for a sandbox that couldn't become what `sandbox` is, with these endpoints.
    pub(super) fn reopen_names<'a>(
        &self,
        known: &Known,
        sandbox: &Sandbox,
        new: impl IntoIterator<Item = &'a Endpoint>,
    ) {
        self.leave_zones(new);
        if resolver_of(&known.sandbox).is_none() {
            self.end_server(sandbox);
        } else if let Err(error) = self.open_names(&known.sandbox, &known.attached, Serving::Goes) {
            tracing::warn!(sandbox = %known.sandbox.config.name, %error, "its names can't be put back");
        }
    }

    fn dns_client(&self, sandbox: &Sandbox, attached: &[Attachment], namespace: &Path) -> Client {
        let servers = sandbox.config.dns.or(&self.config.dns).servers;
        let asked = if servers.is_empty() {
            Asked::Host { ipv6: attached.iter().any(|attachment| attachment.endpoint.ipv6.is_some()) }
        } else {
            Asked::These(servers)
        };
        Client {
            namespace: namespace.to_owned(),
            view: view(attached),
            asked,
            gateway: [Family::V4, Family::V6].iter().any(|family| gateway_of(attached, *family).is_some()),
            settings: Settings {
                ttl: self.config.dns_ttl,
                ndots_given: self.is_ndots_given(sandbox, attached),
                ipv6: self.has_ipv6(sandbox),
            },
        }
    }
}

/// The namespace of a running sandbox that has an embedded server.
fn resolver_of(sandbox: &Sandbox) -> Option<&Path> {
    match &sandbox.state {
        SandboxState::Running(Running { resolver: true, netns: Some(netns), .. }) => Some(netns),
        _ => None,
    }
}

fn view(attached: &[Attachment]) -> View {
    let seen = attached.iter().filter(|a| !a.network.is_predefined());
    View::new(
        seen.map(|Attachment { network, endpoint }| dns::Attachment {
            network: network.id,
            name: network.name.to_string(),
            gw_priority: endpoint.settings.gw_priority,
            internal: network.internal,
            gateway4: endpoint.gateway4.is_some(),
            gateway6: endpoint.gateway6.is_some(),
            links: links(&endpoint.settings),
        })
        .collect(),
    )
}

fn links(settings: &EndpointSettings) -> Vec<Link> {
    let link = |link: &LinkSpec| Link {
        alias: link.alias.clone(),
        target: link.target.clone(),
        sandbox: settings.link_targets.get(&link.alias).copied(),
    };
    settings.links.iter().map(link).collect()
}

/// Notes whom links on a user-defined network mean, where there is a sandbox of that name already. Of two links of one alias
/// the last counts.
pub(super) fn bind_links(tx: &ReadTx<'_>, settings: &mut EndpointSettings) -> Result<(), StoreError> {
    for link in &settings.links {
        let target = match link.target.parse() {
            Ok(name) => tx.sandbox_named(&name)?,
            Err(_) => None,
        };
        match target {
            Some(target) => settings.link_targets.insert(link.alias.clone(), target.id),
            None => settings.link_targets.remove(&link.alias),
        };
    }
    Ok(())
}
