//! Networks of sandboxes that exist: connected and disconnected, running or not.

use super::error::{ControllerError, SettingsError};
use super::known::Known;
use super::plans::{Attachment, Failed, in_order, new_interfaces};
use super::resolver::{Serving, bind_links};
use super::sandboxes::settings_given;
use super::start::{insert, leases, unfit};
use super::{Controller, Inner, Result};
use crate::driver;
use crate::model::{
    Endpoint, EndpointSettings, Network, NetworkMode, ResolveError, Sandbox, SandboxState, check_connect,
    check_disconnect,
};
use crate::names::resolv_conf::Moment;
use crate::plan::Plan;
use crate::store::StoreError;

impl Controller {
    /// Connects a sandbox to a network. One that doesn't run is connected when it starts. Gives the endpoint of one that
    /// runs.
    ///
    /// # Errors
    /// If there is no such network or sandbox, the sandbox can't be on it or, running, is on it already, or the address
    /// can't be had. All is as before then.
    pub fn connect(
        &self,
        network: &str,
        sandbox: &str,
        settings: EndpointSettings,
    ) -> Result<Option<Endpoint>> {
        self.repairing(|| self.try_connect(network, sandbox, settings.clone()))
    }

    fn try_connect(
        &self,
        network: &str,
        sandbox: &str,
        mut settings: EndpointSettings,
    ) -> Result<Option<Endpoint>> {
        let inner = &*self.0;
        let network = inner.resolve_network(network)?;
        let (_guard, known) = inner.take_sandbox(sandbox, Some(network.id))?;
        // It may have gone while this operation waited.
        let network = inner.resolve_network(&network.id.to_string())?;
        known.check_connect(&network, &settings)?;
        let there = known.attached.iter().any(|attachment| attachment.network.id == network.id);
        if there {
            let (name, network) = (known.sandbox.config.name.to_string(), network.name.to_string());
            return Err(StoreError::EndpointExists { name, network }.into());
        }
        settings = inner.store.read(move |tx| {
            bind_links(tx, &mut settings)?;
            Ok::<_, StoreError>(settings)
        })?;
        let mut sandbox = known.sandbox.clone();
        if known.wanted_on(network.id).next().is_none() {
            sandbox.config.networks.insert(network.name.to_string(), settings.clone());
        }
        if let SandboxState::Running(running) = &mut sandbox.state {
            running.resolver |= !network.is_predefined();
            return inner.attach(&known, &sandbox, network, &settings).map(Some);
        }
        inner.store.write(move |tx| tx.update_sandbox(&sandbox))?;
        Ok(None)
    }

    /// Disconnects a sandbox from a network. With `force`, `sandbox` may also be the name of an endpoint that is left of
    /// a sandbox nobody knows any more, and a running sandbox forgets a network that is gone.
    ///
    /// # Errors
    /// If there is no such network or sandbox, or they aren't connected.
    pub fn disconnect(&self, network: &str, sandbox: &str, force: bool) -> Result<()> {
        self.repairing(|| self.try_disconnect(network, sandbox, force))
    }

    fn try_disconnect(&self, network: &str, sandbox: &str, force: bool) -> Result<()> {
        let inner = &*self.0;
        let reference = network;
        let network = match inner.resolve_network(network) {
            Err(ControllerError::Store(StoreError::Resolve(error @ ResolveError::NotFound { .. }))) => {
                return inner.forget_network(reference, sandbox, force, error);
            }
            network => network?,
        };
        let (_guard, known) = match inner.take_sandbox(sandbox, Some(network.id)) {
            Err(ControllerError::Store(StoreError::Resolve(ResolveError::NotFound { .. }))) if force => {
                return inner.remove_stale(&network, sandbox);
            }
            taken => taken?,
        };
        check_disconnect(&known.sandbox.config.mode)?;
        let mut after = known.sandbox.clone();
        known.wanted_on(network.id).for_each(|attach| drop(after.config.networks.remove(&attach.key)));
        let running = matches!(known.sandbox.state, SandboxState::Running(_));
        let there = known.attached.iter().any(|attachment| attachment.network.id == network.id);
        let stored = after.config.networks.len() < known.sandbox.config.networks.len();
        if (running && !there) || (!running && !stored) {
            let network = network.name.to_string();
            return Err(ControllerError::NotConnected { sandbox: known.sandbox.id, network, running });
        }
        if running {
            return inner.detach(&known, &after, &network);
        }
        Ok(inner.store.write(move |tx| tx.update_sandbox(&after))?)
    }
}

impl Known {
    /// Refuses a network that the sandbox can't be on, or not with these settings.
    fn check_connect(&self, network: &Network, settings: &EndpointSettings) -> Result<()> {
        let attached: Vec<&str> = match &self.sandbox.state {
            SandboxState::Running(_) => self.attached.iter().map(|a| a.network.name.as_str()).collect(),
            _ => {
                let names = self.wanted.iter().filter_map(|attach| attach.network.as_ref().ok());
                names.map(|network| network.name.as_str()).collect()
            }
        };
        check_connect(&self.sandbox.config.mode, &attached, network.name.as_str())?;
        let mode: NetworkMode = match network.is_predefined() {
            true => network.name.as_str().parse()?,
            false => NetworkMode::Network(network.name.to_string()),
        };
        let mut problems = Vec::new();
        for setting in settings_given(settings) {
            problems.extend(mode.check(&[setting]).err().map(SettingsError::Mode));
        }
        if problems.is_empty() {
            problems = unfit(network, settings);
        }
        if problems.is_empty() { Ok(()) } else { Err(ControllerError::Settings(problems)) }
    }
}

impl Inner {
    fn resolve_network(&self, reference: &str) -> Result<Network> {
        let reference = reference.to_owned();
        self.store.read(move |tx| Ok(tx.resolve_network(&reference)?))
    }

    /// Adds an endpoint to a running sandbox: facts, then the kernel; or nothing.
    fn attach(
        &self,
        known: &Known,
        sandbox: &Sandbox,
        network: Network,
        settings: &EndpointSettings,
    ) -> Result<Endpoint> {
        let mut claim = self.addresses.claim();
        let endpoint = self.new_endpoint(sandbox, &network, settings, &known.attached, &mut claim)?;
        let leases =
            leases(&[Attachment { network: network.clone(), endpoint: endpoint.clone() }], claim.taken());
        let mut attached = known.attached.clone();
        attached.push(Attachment { network, endpoint });
        let mut attached = in_order(attached);
        let repointed = self.repoint(sandbox, &known.attached, &mut attached)?;
        let (mut others, added): (Vec<_>, Vec<_>) = attached
            .iter()
            .cloned()
            .partition(|a| known.attached.iter().any(|b| a.endpoint.id == b.endpoint.id));
        let Some(new) = added.into_iter().next() else { unreachable!("it was added above") };
        let (facts, endpoint) = (sandbox.clone(), new.endpoint.clone());
        let of_others: Vec<Endpoint> = others.drain(..).map(|a| a.endpoint).collect();
        self.store.write(move |tx| -> Result<(), StoreError> {
            tx.update_sandbox(&facts)?;
            of_others.iter().try_for_each(|endpoint| tx.update_endpoint(endpoint))?;
            insert(tx, std::slice::from_ref(&endpoint), &leases)
        })?;
        let before = self.sandbox_plan(&known.sandbox, &known.attached);
        let after = self.sandbox_plan(sandbox, &attached);
        let carried_out = self.carry_out(&before, &after).and_then(|()| {
            let named = self.open_names(sandbox, &attached, Serving::Goes);
            let moved = named.and_then(|()| self.move_ports(sandbox, &known.attached, &attached, repointed));
            moved.map_err(|error| {
                self.reopen_names(known, sandbox, [&new.endpoint]);
                Failed { error, undone: self.go_on(&after.change(&before)) }
            })
        });
        if let Err(failed) = carried_out {
            let (facts, old, id) = (known.sandbox.clone(), known.attached.clone(), new.endpoint.id);
            let restored = self.restore(move |tx| {
                tx.delete_endpoint(id)?;
                old.iter().try_for_each(|attachment| tx.update_endpoint(&attachment.endpoint))?;
                tx.update_sandbox(&facts)
            });
            self.follow_links(sandbox.id, [id], &[]);
            claim.settle(restored, failed.undone);
            return Err(failed.error);
        }
        let moved = claim.keep();
        self.change_hosts(sandbox, &new, true);
        self.follow_links(sandbox.id, [], &[]);
        if let Err(error) = self.write_resolv_conf(sandbox, &attached, Moment::Connect) {
            tracing::warn!(sandbox = %sandbox.config.name, %error, "its resolv.conf can't be changed");
        }
        new_interfaces(&before, &after, &moved).iter().for_each(|veth| self.kernel.announce(veth));
        tracing::info!(sandbox = %sandbox.config.name, network = %new.network.name, "connected");
        Ok(new.endpoint)
    }

    /// Removes an endpoint from a running sandbox: facts, then the kernel; or nothing.
    fn detach(&self, known: &Known, sandbox: &Sandbox, network: &Network) -> Result<()> {
        let (gone, mut left): (Vec<_>, Vec<_>) =
            known.attached.iter().cloned().partition(|attachment| attachment.network.id == network.id);
        let repointed = self.repoint(sandbox, &known.attached, &mut left)?;
        let (facts, endpoints, kept) = (sandbox.clone(), gone.clone(), left.clone());
        let leases = self.store.write(move |tx| -> Result<_, StoreError> {
            let mut leases = Vec::new();
            for Attachment { endpoint, .. } in &endpoints {
                leases.extend(tx.leases_of_endpoint(endpoint.id)?);
                tx.delete_endpoint(endpoint.id)?;
            }
            kept.iter().try_for_each(|attachment| tx.update_endpoint(&attachment.endpoint))?;
            tx.update_sandbox(&facts)?;
            Ok(leases)
        })?;
        let before = self.sandbox_plan(&known.sandbox, &known.attached);
        let after = self.sandbox_plan(sandbox, &left);
        let carried_out = self.carry_out(&before, &after).and_then(|()| {
            let moved = self.move_ports(sandbox, &known.attached, &left, repointed);
            moved.map_err(|error| Failed { error, undone: self.go_on(&after.change(&before)) })
        });
        if let Err(failed) = carried_out {
            let (facts, endpoints, old) = (known.sandbox.clone(), gone, known.attached.clone());
            let taken: Vec<_> = leases.iter().map(|lease| (lease.pool.clone(), lease.address)).collect();
            let restored = self.restore(move |tx| {
                let endpoints: Vec<Endpoint> = endpoints.into_iter().map(|a| a.endpoint).collect();
                let was_kept = |a: &&Attachment| endpoints.iter().all(|gone| gone.id != a.endpoint.id);
                old.iter().filter(was_kept).try_for_each(|a| tx.update_endpoint(&a.endpoint))?;
                tx.update_sandbox(&facts)?;
                insert(tx, &endpoints, &leases)
            });
            if !restored {
                self.addresses.hold(taken);
            }
            return Err(failed.error);
        }
        self.follow_links(sandbox.id, gone.iter().map(|attachment| attachment.endpoint.id), &[]);
        self.leave_zones(gone.iter().map(|attachment| &attachment.endpoint));
        // Only now: nothing leads to the addresses any more.
        leases.iter().for_each(|lease| self.addresses.release(&lease.pool, lease.address));
        if let Err(error) = self.open_names(sandbox, &left, Serving::Goes) {
            tracing::warn!(sandbox = %sandbox.config.name, %error, "its embedded server can't be told of the change");
        }
        gone.iter().for_each(|attachment| self.change_hosts(sandbox, attachment, false));
        tracing::info!(sandbox = %sandbox.config.name, network = %network.name, "disconnected");
        Ok(())
    }

    /// Removes what a sandbox wanted of a network that is gone. One that runs has to be forced: it may be a mistake.
    fn forget_network(&self, network: &str, sandbox: &str, force: bool, missing: ResolveError) -> Result<()> {
        let (_guard, known) = self.take_sandbox(sandbox, None)?;
        let mut sandbox = known.sandbox;
        let running = matches!(sandbox.state, SandboxState::Running(_));
        if (running && !force) || sandbox.config.networks.remove(network).is_none() {
            return Err(StoreError::from(missing).into());
        }
        Ok(self.store.write(move |tx| tx.update_sandbox(&sandbox))?)
    }

    /// Removes the endpoint of this name, whose sandbox nobody knows.
    fn remove_stale(&self, network: &Network, name: &str) -> Result<()> {
        let (id, wanted) = (network.id, name.to_owned());
        let found = self.store.write(move |tx| -> Result<_, StoreError> {
            let endpoints = tx.endpoints_of_network(id)?;
            let stale = |endpoint: &Endpoint| endpoint.name == wanted && endpoint.sandbox.is_none();
            let Some(endpoint) = endpoints.into_iter().find(stale) else { return Ok(None) };
            let leases = tx.leases_of_endpoint(endpoint.id)?;
            tx.delete_endpoint(endpoint.id)?;
            Ok(Some((endpoint, leases)))
        })?;
        let (endpoint, leases) = found.ok_or_else(|| ControllerError::NoEndpoint(name.to_owned()))?;
        // The namespace doesn't matter to removing.
        let objects = driver::named(&network.driver)?.endpoint_objects(
            network,
            &endpoint,
            &self.root.namespaces(),
            self.settings(),
        );
        let plan: Plan = objects.into_iter().collect();
        let taken = leases.into_iter().map(|lease| (lease.pool, lease.address));
        if self.go_on(&plan.change(&Plan::default())) {
            taken.for_each(|(pool, ip)| self.addresses.release(&pool, ip));
        } else {
            self.addresses.hold(taken);
        }
        Ok(())
    }
}
