//! Sandboxes: created, looked at, ended, renamed, removed.
//!
//! Not here: starting one (`start`), and its networks while it runs (`endpoints`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::ControllerError;
use super::known::attached;
use super::links::{add_links, link_views};
use super::locks::{Access, Key};
use super::plans::{Attachment, in_order};
use super::resolver::bind_links;
use super::root::remove_dir;
use super::start::bad_aliases;
use super::{Controller, Ended, Inner, LinkView, Result, SandboxConfigRequest, SandboxView, host, now};
use crate::model::{
    Endpoint, EndpointId, EndpointSettings, Exited, Kind, Lease, LinkSpec, Network, NetworkId, NetworkMode,
    ProcessId, ResolveError, Running, Sandbox, SandboxConfig, SandboxId, SandboxName, SandboxState, Setting,
    check_together,
};
use crate::names;
use crate::plan::Plan;
use crate::store::{Link, ReadTx, StoreError, WriteTx};

/// The exit code of what vanished while nobody looked: as if it had been killed.
pub(super) const LOST: i32 = 137;
/// How many names are tried before the id is taken for one.
const TRIES: usize = 8;
/// What Linux takes.
const LONGEST_HOSTNAME: usize = 64;

impl Controller {
    /// Creates a sandbox. Nothing is asked of the kernel, nor are its networks looked up: that is for when it starts.
    ///
    /// # Errors
    /// If its name is taken, or its settings don't go together.
    pub fn create_sandbox(&self, request: SandboxConfigRequest) -> Result<Sandbox> {
        let inner = &*self.0;
        let id = SandboxId::from_random(inner.random.bytes()?);
        let given = request.name.as_deref().filter(|name| !name.is_empty()).map(str::parse).transpose()?;
        let mut networks = check(&request)?;
        networks = inner.store.read(move |tx| {
            networks.values_mut().try_for_each(|settings| bind_links(tx, settings))?;
            Ok::<_, StoreError>(networks)
        })?;
        if networks.is_empty() && !matches!(request.mode, NetworkMode::Container(_)) {
            networks.insert(request.mode.to_string(), EndpointSettings::default());
        }
        let config = |name: SandboxName| SandboxConfig {
            name,
            hostname: request.hostname.clone().filter(|name| !name.is_empty()),
            domainname: request.domainname.clone().filter(|name| !name.is_empty()),
            labels: request.labels.clone(),
            mode: request.mode.clone(),
            netns: request.netns.clone(),
            networks: networks.clone(),
            ports: request.ports.clone(),
            dns: request.dns.clone(),
            extra_hosts: request.extra_hosts.clone(),
            process: request.process.clone(),
            auto_remove: request.auto_remove,
        };
        // Until it is among the facts, its directory would be taken for a leftover.
        let _guard = inner.locks.take([(Key::Sandbox(id), Access::Alone)].into());
        inner.root.make_kept(id)?;
        let made = inner.insert_sandbox(id, given, config, &request.links);
        match &made {
            Ok(sandbox) => tracing::info!(name = %sandbox.config.name, id = %id.short(), "sandbox created"),
            Err(_) => remove_dir(&inner.root.kept(id)),
        }
        made
    }

    /// All sandboxes by name, with their endpoints.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn sandboxes(&self) -> Result<Vec<SandboxView>> {
        self.0.store.read(|tx| {
            let networks: BTreeMap<NetworkId, Network> =
                tx.networks()?.into_iter().map(|network| (network.id, network)).collect();
            let mut by_sandbox: BTreeMap<SandboxId, Vec<Attachment>> = BTreeMap::new();
            for endpoint in tx.endpoints()? {
                if let (Some(sandbox), Some(network)) = (endpoint.sandbox, networks.get(&endpoint.network)) {
                    let attachment = Attachment { network: network.clone(), endpoint };
                    by_sandbox.entry(sandbox).or_default().push(attachment);
                }
            }
            let sandboxes = tx.sandboxes()?;
            let names: BTreeMap<SandboxId, &SandboxName> =
                sandboxes.iter().map(|sandbox| (sandbox.id, &sandbox.config.name)).collect();
            let mut links: BTreeMap<SandboxId, Vec<LinkView>> = BTreeMap::new();
            for Link { consumer, alias, provider } in tx.links()? {
                if let Some(provider) = names.get(&provider) {
                    let provider = SandboxName::clone(provider);
                    links.entry(consumer).or_default().push(LinkView { provider, alias });
                }
            }
            let view = |sandbox: Sandbox| SandboxView {
                endpoints: endpoints(in_order(by_sandbox.remove(&sandbox.id).unwrap_or_default())),
                links: links.remove(&sandbox.id).unwrap_or_default(),
                sandbox,
            };
            Ok(sandboxes.into_iter().map(view).collect())
        })
    }

    /// One sandbox, by id, name or the beginning of an id.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn sandbox(&self, reference: &str) -> Result<SandboxView> {
        let reference = reference.to_owned();
        self.0.store.read(move |tx| {
            let sandbox = tx.resolve_sandbox(&reference)?;
            let links = link_views(tx, sandbox.id)?;
            Ok(SandboxView { endpoints: endpoints(attached(tx, &sandbox)?), links, sandbox })
        })
    }

    /// The sandboxes that run.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn running(&self) -> Result<Vec<(SandboxId, Running)>> {
        let running = |sandbox: Sandbox| match sandbox.state {
            SandboxState::Running(running) => Some((sandbox.id, running)),
            SandboxState::Created | SandboxState::Exited(_) => None,
        };
        self.0.store.read(move |tx| Ok(tx.sandboxes()?.into_iter().filter_map(running).collect()))
    }

    /// Tells which process is the sandbox's, now that its supervisor has started it.
    ///
    /// # Errors
    /// If there is no such sandbox.
    pub fn process_started(&self, id: SandboxId, pid: u32) -> Result<()> {
        // One that has ended already has no time of start; its end will be told in a moment.
        let start_ticks = host::start_ticks(pid).unwrap_or_default();
        let _guard = self.0.locks.take([(Key::Sandbox(id), Access::Alone)].into());
        self.0.store.write(move |tx| {
            let mut sandbox = by_id(tx, id)?;
            if let SandboxState::Running(running) = &mut sandbox.state {
                (running.pid, running.start_ticks) = (pid, start_ticks);
                tx.update_sandbox(&sandbox)?;
            }
            Ok(())
        })
    }

    /// Tells that a sandbox's process ended, or never came to be: its endpoints are released, and it is removed if it was
    /// to be. Of a sandbox that doesn't run, or is gone, nothing is changed.
    ///
    /// # Errors
    /// If the store can't be written. What the kernel refuses to remove is logged and left to [`Self::reconcile`].
    pub fn sandbox_ended(&self, id: SandboxId, code: i32, error: Option<String>) -> Result<Ended> {
        self.ended(id, Run::default(), (code, error))
    }

    /// As [`sandbox_ended`](Self::sandbox_ended), told by its supervisor: a run that has another one isn't touched, for who
    /// tells twice may be overtaken by the next start. With `keep` the sandbox isn't removed, because it is about to be
    /// started again.
    ///
    /// # Errors
    /// As [`sandbox_ended`](Self::sandbox_ended).
    pub fn run_ended(
        &self,
        id: SandboxId,
        supervisor: Option<ProcessId>,
        keep: bool,
        code: i32,
        error: Option<String>,
    ) -> Result<Ended> {
        self.ended(id, Run { supervisor, is_kept: keep }, (code, error))
    }

    /// Tells that the supervisor of a sandbox is gone, who would have told the end of its process: it counts as killed. A
    /// run that has another supervisor isn't touched, nor is a sandbox that doesn't run.
    ///
    /// # Errors
    /// As [`sandbox_ended`](Self::sandbox_ended).
    pub fn supervisor_gone(&self, id: SandboxId, supervisor: ProcessId) -> Result<Ended> {
        self.ended(id, Run { supervisor: Some(supervisor), is_kept: false }, (LOST, None))
    }

    fn ended(
        &self,
        id: SandboxId,
        Run { supervisor, is_kept }: Run,
        (code, error): (i32, Option<String>),
    ) -> Result<Ended> {
        let inner = &*self.0;
        let (_guard, known) = match inner.take_sandbox(&id.to_string(), None) {
            Err(ControllerError::Store(StoreError::Resolve(ResolveError::NotFound { .. }))) => {
                return Ok(Ended { auto_removed: true });
            }
            taken => taken?,
        };
        let SandboxState::Running(running) = &known.sandbox.state else {
            return Ok(Ended { auto_removed: false });
        };
        if supervisor.is_some() && running.supervisor != supervisor {
            return Ok(Ended { auto_removed: false });
        }
        let exited = Exited { code, started: Some(running.started), finished: now(), error };
        let auto_removed = known.sandbox.config.auto_remove && !is_kept;
        let before = known.sandbox.clone();
        let (leases, consumers) = inner.store.write(move |tx| {
            let consumers = tx.consumers_of(before.id)?;
            Ok::<_, StoreError>((end_facts(tx, before, exited, auto_removed)?, consumers))
        })?;
        let (name, id) = (&known.sandbox.config.name, id.short());
        tracing::info!(%name, %id, code, "sandbox ended");
        inner.close_names(&known.sandbox, &known.attached);
        inner.follow_links(known.sandbox.id, known.attached.iter().map(|a| a.endpoint.id), &consumers);
        inner.close_ports(&known.attached);
        let plan = inner.sandbox_plan(&known.sandbox, &known.attached);
        let gone = inner.go_on(&plan.change(&Plan::default()));
        inner.forget_run(known.sandbox.id, leases, gone, auto_removed);
        Ok(Ended { auto_removed })
    }

    /// Removes a sandbox that doesn't run. Gives what it was.
    ///
    /// # Errors
    /// If there is none, or it runs.
    pub fn remove_sandbox(&self, reference: &str) -> Result<Sandbox> {
        let inner = &*self.0;
        let (_guard, known) = inner.take_sandbox(reference, None)?;
        let sandbox = known.sandbox;
        if matches!(sandbox.state, SandboxState::Running(_)) {
            return Err(ControllerError::RemoveRunning(sandbox.config.name));
        }
        let id = sandbox.id;
        inner.store.write(move |tx| tx.delete_sandbox(id))?;
        remove_dir(&inner.root.kept(id));
        tracing::info!(name = %sandbox.config.name, id = %id.short(), "sandbox removed");
        Ok(sandbox)
    }

    /// Gives a sandbox another name, and its endpoints too. Its hostname stays. Gives what it is now.
    ///
    /// # Errors
    /// If there is none, or the name isn't allowed or is taken.
    pub fn rename_sandbox(&self, reference: &str, name: &str) -> Result<Sandbox> {
        if reference.is_empty() || name.trim_start_matches('/').is_empty() {
            return Err(ControllerError::EmptyName);
        }
        let inner = &*self.0;
        let (_guard, known) = inner.take_sandbox(reference, None)?;
        let mut sandbox = known.sandbox;
        let rename = |error: ControllerError| ControllerError::Rename(Box::new(error));
        let name: SandboxName = name.parse().map_err(|error| rename(ControllerError::Name(error)))?;
        if name == sandbox.config.name {
            return Err(ControllerError::SameName);
        }
        sandbox.config.name = name;
        let (facts, attached) = (sandbox.clone(), known.attached.clone());
        let change = move |tx: &WriteTx<'_>| -> Result<(), StoreError> {
            tx.update_sandbox(&facts)?;
            attached.into_iter().try_for_each(|Attachment { mut endpoint, .. }| {
                endpoint.name = facts.config.name.to_string();
                tx.update_endpoint(&endpoint)
            })
        };
        inner.store.write(change).map_err(|error| rename(error.into()))?;
        inner.join_zones(&sandbox, &known.attached);
        inner.follow_links(sandbox.id, [], &[]);
        Ok(sandbox)
    }
}

impl Inner {
    fn insert_sandbox(
        &self,
        id: SandboxId,
        given: Option<SandboxName>,
        config: impl Fn(SandboxName) -> SandboxConfig,
        links: &[LinkSpec],
    ) -> Result<Sandbox> {
        for attempt in 0.. {
            let made_up = || -> Result<SandboxName> {
                let name = names::generate(self.random.bytes()?, attempt > 0);
                Ok(if attempt < TRIES { name } else { id.short() }.parse()?)
            };
            let name = given.clone().map_or_else(made_up, Ok)?;
            let sandbox = Sandbox { id, created: now(), config: config(name), state: SandboxState::Created };
            let facts = sandbox.clone();
            // On a network of its own, a sandbox has the links of its endpoint.
            let links = if facts.config.mode.is_user_defined() { Vec::new() } else { links.to_vec() };
            let inserted = self.store.write(move |tx| -> Result<()> {
                tx.insert_sandbox(&facts)?;
                add_links(tx, &facts, &links)
            });
            match inserted {
                Err(ControllerError::Store(StoreError::SandboxExists { .. }))
                    if given.is_none() && attempt < TRIES => {}
                done => return done.map(|()| sandbox),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Gives back what a sandbox had that ended, and removes its files. Addresses whose interface isn't gone are held.
    pub(super) fn forget_run(&self, id: SandboxId, leases: Vec<Lease>, gone: bool, removed: bool) {
        let taken = leases.into_iter().map(|lease| (lease.pool, lease.address));
        if gone {
            taken.for_each(|(pool, ip)| self.addresses.release(&pool, ip));
        } else {
            self.addresses.hold(taken);
        }
        remove_dir(&self.root.run(id));
        if removed {
            remove_dir(&self.root.kept(id));
        }
    }
}

/// Which run of a sandbox ends, and how.
#[derive(Default)]
struct Run {
    /// Only one of this supervisor.
    supervisor: Option<ProcessId>,
    /// The sandbox isn't removed, even if it is to be at its end.
    is_kept: bool,
}

/// Changes the facts of a sandbox that ended. Gives the leases that went with its endpoints.
pub(super) fn end_facts(
    tx: &WriteTx<'_>,
    mut sandbox: Sandbox,
    exited: Exited,
    remove: bool,
) -> Result<Vec<Lease>, StoreError> {
    let mut leases = Vec::new();
    for endpoint in tx.endpoints_of_sandbox(sandbox.id)? {
        leases.extend(tx.leases_of_endpoint(endpoint.id)?);
        tx.delete_endpoint(endpoint.id)?;
    }
    if remove {
        tx.delete_sandbox(sandbox.id)?;
    } else {
        sandbox.state = SandboxState::Exited(exited);
        tx.update_sandbox(&sandbox)?;
    }
    Ok(leases)
}

fn by_id(tx: &ReadTx<'_>, id: SandboxId) -> Result<Sandbox, StoreError> {
    let missing = || ResolveError::NotFound { kind: Kind::Sandbox, argument: id.to_string() };
    tx.sandbox(id)?.ok_or_else(|| missing().into())
}

fn endpoints(attached: Vec<Attachment>) -> Vec<Endpoint> {
    attached.into_iter().map(|attachment| attachment.endpoint).collect()
}

/// Refuses settings that don't go together. Gives the networks the sandbox is to be on.
fn check(request: &SandboxConfigRequest) -> Result<BTreeMap<String, EndpointSettings>> {
    let mut given = Vec::new();
    if let Some(hostname) = request.hostname.as_deref().filter(|name| !name.is_empty()) {
        given.push(Setting::Hostname);
        if hostname.len() > LONGEST_HOSTNAME || !is_hostname(hostname) {
            return Err(ControllerError::Hostname(hostname.to_owned()));
        }
    }
    if let Some(domainname) = request.domainname.as_deref().filter(|name| !name.is_empty())
        && (domainname.len() > LONGEST_HOSTNAME || !is_hostname(domainname))
    {
        return Err(ControllerError::Domainname(domainname.to_owned()));
    }
    let mut networks = BTreeMap::new();
    for (key, settings) in &request.networks {
        // `default` is another word for `bridge`.
        networks.insert(key.parse::<NetworkMode>()?, settings.clone());
    }
    if let Some(mac) = request.mac {
        networks.entry(request.mode.clone()).or_default().mac.get_or_insert(mac);
    }
    let own = networks.entry(request.mode.clone()).or_default();
    given.extend(settings_given(own));
    given.extend((!request.links.is_empty() && !request.mode.is_user_defined()).then_some(Setting::Links));
    given.extend((!request.dns.servers.is_empty()).then_some(Setting::Dns));
    given.extend((!request.extra_hosts.is_empty()).then_some(Setting::ExtraHosts));
    let ports = &request.ports;
    given.extend((!ports.publish.is_empty() || ports.publish_all).then_some(Setting::Publish));
    given.extend((!ports.expose.is_empty()).then_some(Setting::Expose));
    request.mode.check(&given)?;
    for (mode, settings) in &networks {
        mode.check(&settings_given(settings))?;
        let bad: Vec<_> = bad_aliases(settings).collect();
        if !bad.is_empty() {
            return Err(ControllerError::Settings(bad));
        }
    }
    let modes: Vec<NetworkMode> = networks.keys().cloned().collect();
    check_together(&modes)?;
    if request.netns.is_some() && request.mode.is_shared() {
        return Err(ControllerError::NamespaceAndMode);
    }
    if matches!(request.mode, NetworkMode::Container(_)) {
        networks.clear();
    }
    Ok(networks.into_iter().map(|(mode, settings)| (mode.to_string(), settings)).collect())
}

/// What of an endpoint's settings not every network allows.
pub(super) fn settings_given(settings: &EndpointSettings) -> Vec<Setting> {
    let given = [
        (!settings.links.is_empty(), Setting::EndpointLinks),
        (settings.mac.is_some(), Setting::Mac),
        (settings.ip.is_some() || settings.ip6.is_some(), Setting::Address),
        (!settings.aliases.is_empty(), Setting::Alias),
    ];
    given.into_iter().filter(|(given, _)| *given).map(|(_, setting)| setting).collect()
}

/// Labels as RFC 1123 has them, with dots between.
fn is_hostname(text: &str) -> bool {
    text.split('.').all(|label| {
        let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    })
}

/// A running sandbox that lives in this namespace and isn't `but`.
pub(super) fn tenant(
    tx: &ReadTx<'_>,
    path: &PathBuf,
    but: SandboxId,
) -> Result<Option<SandboxId>, StoreError> {
    let lives = |sandbox: &Sandbox| {
        sandbox.id != but
            && sandbox.config.netns.as_ref() == Some(path)
            && matches!(sandbox.state, SandboxState::Running(_))
    };
    Ok(tx.sandboxes()?.iter().find(|sandbox| lives(sandbox)).map(|sandbox| sandbox.id))
}

/// The id of an endpoint that is drawn now.
pub(super) fn endpoint_id(inner: &Inner) -> Result<EndpointId> {
    Ok(EndpointId::from_random(inner.random.bytes()?))
}
