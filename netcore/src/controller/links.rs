//! Links on the default network: who may be linked, what a link brings, and how that follows its provider.
//!
//! A link is a record: consumer, alias, provider. Three things follow from it while the consumer runs: variables, which its
//! process was given once; lines of its hosts file; and, where sandboxes are kept apart, rules that open the provider's
//! exposed ports. The last two follow each change of either end: they are worked out anew from the facts, one change after
//! the other ([`Inner::follow_links`]), so that the last one is right about all. That takes no lock of the other end: an
//! operation on one sandbox never waits for one on another because they are linked.
//!
//! What was written last is beside the hosts file. A line that somebody has altered is nobody's any more and is left alone.
//!
//! Not here: links on other networks (`resolver`), and the texts (`names::links`).

use std::fs;
use std::net::IpAddr;

use super::error::{ControllerError, file};
use super::known::found;
use super::plans::Attachment;
use super::root::write;
use super::{Controller, Inner, LinkView, Result};
use crate::driver::bridge;
use crate::firewall::{EndpointLinks, LinkPort};
use crate::model::{
    Endpoint, EndpointId, Kind, LinkSpec, ModeError, NetworkMode, Predefined, ResolveError, Sandbox,
    SandboxId, SandboxState,
};
use crate::names::hosts;
use crate::names::links::{Linked, exposed, lines, replaced, variables};
use crate::store::{Link, ReadTx, StoreError, WriteTx};

/// A link of a sandbox and where it leads, as the facts are.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    alias: String,
    sandbox: Sandbox,
    /// Its endpoint on the default network.
    endpoint: Option<Endpoint>,
}

/// A running sandbox on the default network, and its links.
struct Consumer {
    id: SandboxId,
    at: Attachment,
    providers: Vec<Provider>,
}

impl Controller {
    /// What the links of a sandbox put into an environment now, as `NAME=value`.
    ///
    /// # Errors
    /// If there is no such sandbox.
    pub fn link_env(&self, reference: &str) -> Result<Vec<String>> {
        let reference = reference.to_owned();
        let (sandbox, providers) = self.0.store.read(move |tx| {
            let sandbox = tx.resolve_sandbox(&reference)?;
            let providers = providers(tx, &sandbox)?;
            Ok::<_, StoreError>((sandbox, providers))
        })?;
        Ok(self.0.variables(&sandbox, &providers))
    }

    /// Removes a link by its path, `/blog/my_link`, for good. A consumer that runs loses the name and the way at once; its
    /// process keeps its environment.
    ///
    /// # Errors
    /// If the path is a sandbox's own name, or there is no such link.
    pub fn remove_link(&self, path: &str) -> Result<()> {
        let name = format!("/{}", path.trim_start_matches('/'));
        let missing = || {
            let argument = path.to_owned();
            ControllerError::from(StoreError::from(ResolveError::NotFound { kind: Kind::Sandbox, argument }))
        };
        let (parent, alias) = match name.rsplit_once('/') {
            Some((parent, alias)) if !parent.is_empty() => (parent.to_owned(), alias.to_owned()),
            _ => {
                let path = path.to_owned();
                self.0.store.read(move |tx| tx.resolve_sandbox(&path))?;
                return Err(ControllerError::OwnName);
            }
        };
        let inner = &*self.0;
        let (_guard, known) = inner.take_sandbox(&parent, None).map_err(|error| match error {
            ControllerError::Store(StoreError::Resolve(_)) => {
                ControllerError::NoParent { parent: parent.clone(), name: name.clone() }
            }
            error => error,
        })?;
        let (id, gone) = (known.sandbox.id, alias.clone());
        if !inner.store.write(move |tx| tx.remove_link(id, &gone))? {
            return Err(missing());
        }
        inner.unlink(id, &alias);
        tracing::info!(%name, "link removed");
        Ok(())
    }
}

impl Inner {
    /// The links of a sandbox that is about to start.
    ///
    /// # Errors
    /// Of the first one whose provider doesn't run, or isn't on the default network.
    pub(super) fn linked(&self, sandbox: &Sandbox) -> Result<Vec<Provider>> {
        let consumer = sandbox.clone();
        let providers = self.store.read(move |tx| providers(tx, &consumer))?;
        for provider in &providers {
            match (&provider.sandbox.state, &provider.endpoint) {
                (SandboxState::Running(_), Some(_)) => {}
                (SandboxState::Running(_), None) => {
                    return Err(ControllerError::LinkElsewhere(provider.sandbox.id));
                }
                _ => {
                    return Err(ControllerError::LinkNotRunning {
                        provider: provider.sandbox.config.name.clone(),
                        consumer: sandbox.config.name.clone(),
                        alias: provider.alias.clone(),
                    });
                }
            }
        }
        Ok(providers)
    }

    /// What links put into the environment.
    pub(super) fn variables(&self, consumer: &Sandbox, providers: &[Provider]) -> Vec<String> {
        let of = |provider: &Provider| {
            let config = &provider.sandbox.config;
            variables(Linked {
                consumer: consumer.config.name.as_str(),
                alias: &provider.alias,
                address: provider.endpoint.as_ref().and_then(|endpoint| endpoint.ipv4).map(|net| net.addr()),
                ports: &exposed(&config.ports),
                environment: if self.config.link_env { &config.process.env } else { &[] },
            })
        };
        providers.iter().flat_map(of).collect()
    }

    /// The lines of links in the hosts file of a sandbox that starts on these networks.
    pub(super) fn link_lines(&self, attached: &[Attachment], providers: &[Provider]) -> String {
        if !attached.iter().any(is_default) {
            return String::new();
        }
        providers.iter().map(|provider| self.lines_of(provider, "")).collect()
    }

    /// The lines of a link. The addresses of a provider that has none are those that it had.
    fn lines_of(&self, provider: &Provider, before: &str) -> String {
        let addresses: Vec<IpAddr> = match &provider.endpoint {
            Some(endpoint) => addresses(endpoint).collect(),
            None => before.lines().filter_map(|line| line.split_once('\t')?.0.parse().ok()).collect(),
        };
        let name = provider.sandbox.config.name.as_str();
        lines(&provider.alias, &self.hostname(&provider.sandbox), name, addresses)
    }

    /// Opens what the links of a sandbox that starts lead to.
    pub(super) fn open_links(&self, sandbox: SandboxId) -> Result<()> {
        let _turn = self.linking();
        let Some(consumer) = self.store.read(move |tx| consumer(tx, sandbox))? else { return Ok(()) };
        self.rules().set_links(vec![(consumer.at.endpoint.id, openings(&consumer))])
    }

    /// Brings hosts files and rules in step with the facts after a change of a sandbox: its own, and those of `consumers`
    /// and of all that are linked to it. `gone` are endpoints that it had. Failures are only logged: the change stands.
    pub(super) fn follow_links(
        &self,
        sandbox: SandboxId,
        gone: impl IntoIterator<Item = EndpointId>,
        consumers: &[Link],
    ) {
        let _turn = self.linking();
        let mut ids: Vec<SandboxId> = consumers.iter().map(|link| link.consumer).collect();
        let found = self.store.read(move |tx| {
            ids.extend(tx.consumers_of(sandbox)?.into_iter().map(|link| link.consumer));
            ids.push(sandbox);
            ids.sort_unstable();
            ids.dedup();
            let all: Result<Vec<_>, StoreError> = ids.into_iter().map(|id| consumer(tx, id)).collect();
            all
        });
        let consumers: Vec<Consumer> = match found {
            Ok(consumers) => consumers.into_iter().flatten().collect(),
            Err(error) => return tracing::warn!(%error, "links can't be looked up"),
        };
        let closed = gone.into_iter().map(|endpoint| (endpoint, None));
        let opened = consumers.iter().map(|consumer| (consumer.at.endpoint.id, openings(consumer)));
        if let Err(error) = self.rules().force_links(closed.chain(opened).collect()) {
            tracing::warn!(%error, "rules of links are left to be changed later");
        }
        consumers.iter().for_each(|consumer| self.follow_in_hosts(consumer));
    }

    /// A link of a sandbox was removed from the facts.
    fn unlink(&self, sandbox: SandboxId, alias: &str) {
        let _turn = self.linking();
        let found = self.store.read(move |tx| {
            let (at, left) = (default_endpoint(tx, sandbox)?, consumer(tx, sandbox)?);
            Ok::<_, ControllerError>(at.map(|at| (at.endpoint.id, left.as_ref().and_then(openings))))
        });
        let closed = found.and_then(|change| self.rules().force_links(change.into_iter().collect()));
        if let Err(error) = closed {
            tracing::warn!(%error, "rules of a link are left to be removed later");
        }
        self.change_link_lines(sandbox, |before| without(before, alias));
    }

    /// Makes hosts files follow what changed while nobody looked.
    pub(super) fn follow_all_links(&self, running: &[(Sandbox, Vec<Attachment>)]) -> Result<()> {
        let ids: Vec<SandboxId> = running.iter().map(|(sandbox, _)| sandbox.id).collect();
        let _turn = self.linking();
        let all: Vec<Option<Consumer>> = self.store.read(move |tx| {
            let all: Result<_, StoreError> = ids.into_iter().map(|id| consumer(tx, id)).collect();
            all
        })?;
        all.iter().flatten().for_each(|consumer| self.follow_in_hosts(consumer));
        Ok(())
    }

    fn follow_in_hosts(&self, consumer: &Consumer) {
        if consumer.providers.is_empty() {
            return;
        }
        self.change_link_lines(consumer.id, |before| {
            consumer.providers.iter().fold(before.to_owned(), |text, provider| {
                let old = of_alias(&text, &provider.alias);
                let new = self.lines_of(provider, &old);
                if old.is_empty() { text + &new } else { replaced(&text, &old, &new) }
            })
        });
    }

    /// Changes the lines of links in a running sandbox's hosts file: those that were written last are led to what `change`
    /// makes of them, alias by alias, and where they stand.
    fn change_link_lines(&self, sandbox: SandboxId, change: impl FnOnce(&str) -> String) {
        let (path, record) = (self.root.files(sandbox).hosts, self.root.link_lines(sandbox));
        let before = fs::read_to_string(&record).unwrap_or_default();
        let after = change(&before);
        if before == after {
            return;
        }
        let text = fs::read_to_string(&path).map_err(file("read", &path));
        let changed = text.and_then(|mut text| {
            // Until the file is written, either may be in it: who is killed in between must know both for his own.
            let mut either = before.clone();
            for alias in aliases(&before, &after) {
                let (old, new) = (of_alias(&before, alias), of_alias(&after, alias));
                if !old.is_empty() {
                    either.push_str(&new);
                    text = replaced(&text, &old, &new);
                } else if !text.contains(&new) {
                    text = hosts::with(&text, &new);
                }
            }
            write(&record, &either)?;
            write(&path, &text)?;
            write(&record, &after)
        });
        if let Err(error) = changed {
            tracing::warn!(path = %path.display(), %error, "a hosts file can't follow a link");
        }
    }
}

/// Adds the links of a sandbox that was just added. Whom a link means is settled now; a sandbox that shares the stack of
/// another stands for that one.
///
/// # Errors
/// If one leads nowhere, to a sandbox in the host's stack, or to the sandbox itself.
pub(super) fn add_links(tx: &WriteTx<'_>, consumer: &Sandbox, links: &[LinkSpec]) -> Result<()> {
    for LinkSpec { target, alias } in links {
        let unknown = |error| match error {
            StoreError::Resolve(cause) => ControllerError::NoProvider { target: target.clone(), cause },
            error => error.into(),
        };
        let mut provider = tx.resolve_sandbox(target).map_err(unknown)?;
        let mut seen = vec![provider.id];
        while let NetworkMode::Container(target) = &provider.config.mode {
            match found(tx.resolve_sandbox(target))? {
                Some(target) if !seen.contains(&target.id) => provider = target,
                _ => break,
            }
            seen.push(provider.id);
        }
        if provider.config.mode == NetworkMode::Host {
            return Err(ModeError::HostLinks.into());
        }
        let link = Link { consumer: consumer.id, alias: alias.clone(), provider: provider.id };
        if !tx.add_link(&link)? {
            tracing::warn!(name = %consumer.config.name, %alias, %target, "an alias that is taken: this link is left out");
        }
    }
    Ok(())
}

/// The links of a sandbox as they are shown.
pub(super) fn link_views(tx: &ReadTx<'_>, consumer: SandboxId) -> Result<Vec<LinkView>, StoreError> {
    let mut views = Vec::new();
    for link in tx.links_of(consumer)? {
        if let Some(provider) = tx.sandbox(link.provider)? {
            views.push(LinkView { provider: provider.config.name, alias: link.alias });
        }
    }
    Ok(views)
}

/// What all links open.
pub(super) fn all_openings(tx: &ReadTx<'_>) -> Result<Vec<(EndpointId, EndpointLinks)>, StoreError> {
    let mut consumers: Vec<SandboxId> = tx.links()?.into_iter().map(|link| link.consumer).collect();
    consumers.dedup();
    let mut all = Vec::new();
    for id in consumers {
        let Some(consumer) = consumer(tx, id)? else { continue };
        all.extend(openings(&consumer).map(|links| (consumer.at.endpoint.id, links)));
    }
    Ok(all)
}

/// The links that have an effect, in the order in which they were given.
fn providers(tx: &ReadTx<'_>, consumer: &Sandbox) -> Result<Vec<Provider>, StoreError> {
    let mut providers = Vec::new();
    if consumer.config.mode != NetworkMode::Bridge {
        return Ok(providers);
    }
    for Link { alias, provider, .. } in tx.links_of(consumer.id)? {
        if let Some(sandbox) = tx.sandbox(provider)? {
            let endpoint = default_endpoint(tx, provider)?.map(|at| at.endpoint);
            providers.push(Provider { alias, sandbox, endpoint });
        }
    }
    Ok(providers)
}

fn consumer(tx: &ReadTx<'_>, id: SandboxId) -> Result<Option<Consumer>, StoreError> {
    let Some(sandbox) = tx.sandbox(id)? else { return Ok(None) };
    if !matches!(sandbox.state, SandboxState::Running(_)) {
        return Ok(None);
    }
    let providers = providers(tx, &sandbox)?;
    Ok(default_endpoint(tx, id)?.map(|at| Consumer { id, at, providers }))
}

/// The endpoint of a sandbox on the default network.
fn default_endpoint(tx: &ReadTx<'_>, sandbox: SandboxId) -> Result<Option<Attachment>, StoreError> {
    let Some(network) = tx.network_named(&Predefined::Bridge.into())? else { return Ok(None) };
    let endpoints = tx.endpoints_of_sandbox(sandbox)?;
    let endpoint = endpoints.into_iter().find(|endpoint| endpoint.network == network.id);
    Ok(endpoint.map(|endpoint| Attachment { network, endpoint }))
}

fn is_default(attachment: &Attachment) -> bool {
    attachment.network.name.as_str() == Predefined::Bridge.name()
}

/// IPv4 first.
fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> + use<> {
    let four = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
    let six = endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
    four.into_iter().chain(six)
}

/// The exposed ports of each provider, in the families that both ends have.
fn openings(consumer: &Consumer) -> Option<EndpointLinks> {
    let mut ports = Vec::new();
    for from in addresses(&consumer.at.endpoint) {
        for provider in &consumer.providers {
            let to = provider.endpoint.iter().flat_map(addresses).filter(|to| to.is_ipv4() == from.is_ipv4());
            for to in to {
                let open = exposed(&provider.sandbox.config.ports).into_iter();
                ports.extend(open.map(|(proto, ports)| LinkPort { from, to, proto, ports }));
            }
        }
    }
    (!ports.is_empty()).then(|| EndpointLinks { bridge: bridge::device(&consumer.at.network), ports })
}

/// The lines of one alias, which is the first name on each.
fn of_alias(lines: &str, alias: &str) -> String {
    lines.lines().filter(|line| alias_of(line) == Some(alias)).map(|line| format!("{line}\n")).collect()
}

fn without(lines: &str, alias: &str) -> String {
    lines.lines().filter(|line| alias_of(line) != Some(alias)).map(|line| format!("{line}\n")).collect()
}

fn alias_of(line: &str) -> Option<&str> {
    line.split_once('\t')?.1.split(' ').next()
}

fn aliases<'a>(before: &'a str, after: &'a str) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    for alias in before.lines().chain(after.lines()).filter_map(alias_of) {
        if !all.contains(&alias) {
            all.push(alias);
        }
    }
    all
}
