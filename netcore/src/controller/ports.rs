//! Ports of sandboxes: published, led elsewhere, and withdrawn again.
//!
//! The order of a publication loses no connection: ports are taken by binding them, with nothing let through; then come the
//! facts, the rules, and last the proxies, which find what has arrived meanwhile. The way back is the reverse.
//!
//! Not here: which ports, which sockets and which processes (`publish`), and the rules (`firewall`).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::error::ControllerError;
use super::plans::{Attachment, gateway_of};
use super::{Controller, Inner, Result, SandboxView};
use crate::driver::bridge;
use crate::firewall::EndpointPorts;
use crate::kernel::{Flow, forget_flows};
use crate::model::{
    BridgeOptions, EndpointId, Family, GatewayMode, PortsConfig, Publication, Sandbox, SandboxState,
};
use crate::publish::{
    Destination, HostPorts, Keeper, Proto, PublishSpec, Reservation, host_listens_on_ipv6, plan_for,
    publications, wanted,
};
use crate::store::{StoreError, WriteTx};

/// Ports that are bound and lead nowhere yet. Given back unless they are opened.
pub(super) struct Reserved<'a> {
    keeper: &'a Keeper,
    ports: Vec<(Reservation, Publication)>,
}

/// Ports that are about to be led elsewhere, and those that are new.
pub(super) struct Repointed<'a> {
    moves: Vec<(Publication, Vec<Publication>)>,
    reserved: Reserved<'a>,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.keeper.cancel(self.ports.drain(..).map(|(reservation, _)| reservation).collect());
    }
}

impl Controller {
    /// Publishes further ports of a sandbox. Of one that doesn't run they are published when it starts. Gives the sandbox as
    /// it is then.
    ///
    /// # Errors
    /// If there is no such sandbox, it has no ports of its own, or one of them can't be had. All is as before then.
    pub fn publish(&self, reference: &str, specs: Vec<PublishSpec>) -> Result<SandboxView> {
        let inner = &*self.0;
        let (_guard, known) = inner.take_sandbox(reference, None)?;
        let mut sandbox = known.sandbox.clone();
        if sandbox.config.mode.is_shared() {
            return Err(ControllerError::NoPorts { name: sandbox.config.name, mode: sandbox.config.mode });
        }
        sandbox.config.ports.publish.extend_from_slice(&specs);
        let mut attached = known.attached.clone();
        let reserved = match sandbox.state {
            SandboxState::Running(_) => {
                let reserved = inner.reserve_ports(&sandbox, &specs, &[], &mut attached)?;
                inner.refuse_clashes(&sandbox, &attached)?;
                reserved
            }
            SandboxState::Created | SandboxState::Exited(_) => inner.nothing_reserved(),
        };
        inner.change_ports(&known.sandbox, &sandbox, &known.attached, &attached, reserved)?;
        tracing::info!(name = %sandbox.config.name, ports = %listed(&specs), "published");
        self.sandbox(&sandbox.id.to_string())
    }

    /// Takes back ports that were published by these specs: each as it was given, or so that it says which ones are
    /// meant. Gives the sandbox as it is then.
    ///
    /// # Errors
    /// If there is no such sandbox, or one of the specs isn't published by it. All is as before then.
    pub fn unpublish(&self, reference: &str, specs: &[PublishSpec]) -> Result<SandboxView> {
        let inner = &*self.0;
        let (_guard, known) = inner.take_sandbox(reference, None)?;
        let (mut sandbox, mut attached) = (known.sandbox.clone(), known.attached.clone());
        for spec in specs {
            let given = sandbox.config.ports.publish.len();
            let mut gone: Vec<PublishSpec> = vec![*spec];
            // Where it is there to the letter, others that it may mean as well stay.
            let is_there = sandbox.config.ports.publish.contains(spec)
                || attached.iter().flat_map(|a| &a.endpoint.publications).any(|p| p.spec == *spec);
            for Attachment { endpoint, .. } in &mut attached {
                let meant = |publication: &Publication| {
                    publication.spec == *spec || (!is_there && is_meant(spec, publication))
                };
                gone.extend(endpoint.publications.iter().filter(|p| meant(p)).map(|p| p.spec));
                endpoint.publications.retain(|publication| !gone.contains(&publication.spec));
            }
            sandbox.config.ports.publish.retain(|published| !gone.contains(published));
            if gone.len() == 1 && sandbox.config.ports.publish.len() == given {
                return Err(ControllerError::NotPublished { spec: *spec, name: sandbox.config.name });
            }
        }
        inner.change_ports(&known.sandbox, &sandbox, &known.attached, &attached, inner.nothing_reserved())?;
        tracing::info!(name = %sandbox.config.name, ports = %listed(specs), "no longer published");
        self.sandbox(&sandbox.id.to_string())
    }
}

impl Inner {
    pub(super) const fn nothing_reserved(&self) -> Reserved<'_> {
        Reserved { keeper: &self.keeper, ports: Vec::new() }
    }

    /// Takes the host's ports for what doesn't stand yet of `specs`, and adds what will stand to the endpoints.
    pub(super) fn reserve_ports(
        &self,
        sandbox: &Sandbox,
        specs: &[PublishSpec],
        standing: &[Publication],
        attached: &mut [Attachment],
    ) -> Result<Reserved<'_>> {
        let mut reserved = self.nothing_reserved();
        if specs.is_empty() {
            return Ok(reserved);
        }
        let to = self.destination(attached);
        if to.v4.is_none() && to.v6.is_none() {
            return Ok(reserved); // without a way out there is none in
        }
        let failed = |error: ControllerError| of_endpoint(sandbox, attached, error);
        let planned = plan_for(specs, &to).map_err(|error| failed(error.into()))?.without(standing, specs);
        if !planned.groups.is_empty() && !self.config.has_rules() && !self.config.userland_proxy {
            return Err(ControllerError::NoWayIn);
        }
        for warning in &planned.warnings {
            tracing::warn!(name = %sandbox.config.name, "{warning}");
        }
        let bound = self.keeper.reserve(&planned.groups).map_err(|error| failed(error.into()))?;
        reserved.ports = publications(bound, specs, &to);
        let bound = reserved.ports.iter().map(|(_, publication)| publication.clone());
        let standing = bound.chain(routed(specs, &to, attached)).collect();
        stand(standing, attached);
        Ok(reserved)
    }

    /// Refuses ports of a running sandbox with which it couldn't be started again.
    fn refuse_clashes(&self, sandbox: &Sandbox, attached: &[Attachment]) -> Result<()> {
        let failed = |error: ControllerError| of_endpoint(sandbox, attached, error);
        let specs = wanted(&sandbox.config.ports).map_err(|error| failed(error.into()))?;
        plan_for(&specs, &self.destination(attached)).map_err(|error| failed(error.into()))?;
        Ok(())
    }

    /// All that is to be published of a sandbox that starts.
    pub(super) fn reserve_all(&self, sandbox: &Sandbox, attached: &mut [Attachment]) -> Result<Reserved<'_>> {
        let specs =
            wanted(&sandbox.config.ports).map_err(|error| of_endpoint(sandbox, attached, error.into()))?;
        self.reserve_ports(sandbox, &specs, &[], attached)
    }

    /// Where published ports lead: in each family to the network that has the default route.
    fn destination(&self, attached: &[Attachment]) -> Destination {
        let (v4, v6) = (gateway_of(attached, Family::V4), gateway_of(attached, Family::V6));
        let options = |attachment: Option<&Attachment>| {
            attachment.map_or_else(BridgeOptions::default, |a| bridge::options(&a.network))
        };
        let (options4, options6) = (options(v4), options(v6));
        let binding = v4.map_or(&options6, |_| &options4).host_binding;
        Destination {
            v4: v4.and_then(|a| a.endpoint.ipv4).map(|net| net.addr()),
            v6: v6.and_then(|a| a.endpoint.ipv6).map(|net| net.addr()),
            v6_elsewhere: false,
            mode4: options4.gateway_mode4,
            mode6: options6.gateway_mode6,
            default_address: binding.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            host_ipv6: host_listens_on_ipv6(),
            proxy: self.config.userland_proxy,
        }
    }

    /// Leads the ports of a sandbox from one state to another: facts, rules, proxies; or nothing.
    fn change_ports(
        &self,
        before: &Sandbox,
        after: &Sandbox,
        old: &[Attachment],
        new: &[Attachment],
        reserved: Reserved<'_>,
    ) -> Result<()> {
        let (sandbox, attached) = (after.clone(), new.to_vec());
        self.store.write(move |tx| facts(tx, &sandbox, &attached))?;
        if let Err(error) = self.open_ports(after, old, new, reserved) {
            let (sandbox, attached) = (before.clone(), old.to_vec());
            self.restore(move |tx| facts(tx, &sandbox, &attached));
            self.follow_links(before.id, [], &[]); // somebody may have looked at the facts meanwhile
            return Err(error);
        }
        // A published port is exposed to who is linked.
        self.follow_links(after.id, [], &[]);
        self.give_up(&missing(old, new), |_| true);
        Ok(())
    }

    /// Rules for what is new or different, then the proxies. On failure rules are as before and nothing is bound.
    pub(super) fn open_ports(
        &self,
        sandbox: &Sandbox,
        old: &[Attachment],
        new: &[Attachment],
        mut reserved: Reserved<'_>,
    ) -> Result<()> {
        let failed = |error: ControllerError| of_endpoint(sandbox, new, error);
        self.rules().set_ports(changes(old, new)).map_err(failed)?;
        let fresh: Vec<Publication> =
            reserved.ports.iter().map(|(_, publication)| publication.clone()).collect();
        // Flows that began while nothing was published would go on past the rules, whoever answers them.
        flush(&fresh, |proto| proto == Proto::Udp, |_| None);
        if let Err(error) = self.keeper.serve(std::mem::take(&mut reserved.ports)) {
            if let Err(error) = self.rules().force_ports(changes(new, old)) {
                tracing::warn!(%error, "rules can't be put back for now");
            }
            return Err(failed(error.into()));
        }
        Ok(())
    }

    /// Takes everything back that is published of endpoints that go.
    pub(super) fn close_ports(&self, attached: &[Attachment]) {
        let gone = missing(attached, &[]);
        if gone.is_empty() {
            return;
        }
        if let Err(error) = self.rules().force_ports(changes(attached, &[])) {
            tracing::warn!(%error, "rules of ports are left to be cleaned up later");
        }
        self.give_up(&gone, |proto| proto == Proto::Udp);
    }

    /// Ends what stands behind ports that no rule leads to any more. Their numbers are free last.
    pub(super) fn give_up(&self, gone: &[Publication], flushed: impl Fn(Proto) -> bool) {
        self.keeper.withdraw(gone);
        flush(gone, flushed, |publication| Some(publication.target));
        self.keeper.release(gone);
    }

    /// Leads published ports to the networks that have the default routes now. Ports stay what they are; what leads nowhere
    /// any more is given up, and what of a spec led nowhere until now gets its ports. Adds what will stand to `new`, and
    /// gives it with what moves.
    pub(super) fn repoint(
        &self,
        sandbox: &Sandbox,
        old: &[Attachment],
        new: &mut [Attachment],
    ) -> Result<Repointed<'_>> {
        let to = self.destination(new);
        new.iter_mut().for_each(|attachment| attachment.endpoint.publications.clear());
        let (mut moves, mut standing, mut kept) = (Vec::new(), Vec::new(), HashSet::new());
        for was in missing(old, &[]).into_iter().filter(|publication| publication.host.is_some()) {
            kept.insert(was.spec);
            let now = to.repoint(&was);
            standing.extend(now.iter().cloned());
            if now != [was.clone()] {
                moves.push((was, now));
            }
        }
        let wanted = |ports: &PortsConfig| {
            wanted(ports).map_err(|error| of_endpoint(sandbox, new, ControllerError::from(error)))
        };
        // What is published of exposed ports stays as it is, though their run may be another one by now.
        let now: HashSet<PublishSpec> = wanted(&sandbox.config.ports)?.into_iter().collect();
        let mut ports = sandbox.config.ports.clone();
        ports.publish.extend(kept.difference(&now));
        let mut specs = wanted(&ports)?;
        specs.retain(|spec| now.contains(spec) || !kept.contains(spec));
        stand(standing.clone(), new);
        let reserved = self.reserve_ports(sandbox, &specs, &standing, new)?;
        Ok(Repointed { moves, reserved })
    }

    /// As [`open_ports`](Self::open_ports), for ports that are led elsewhere besides.
    pub(super) fn move_ports(
        &self,
        sandbox: &Sandbox,
        old: &[Attachment],
        new: &[Attachment],
        Repointed { moves, reserved }: Repointed<'_>,
    ) -> Result<()> {
        self.open_ports(sandbox, old, new, reserved)?;
        let stale: Vec<Publication> = moves.iter().map(|(was, _)| was.clone()).collect();
        // A proxy that doesn't come up again is tried again; the rules lead the right way already.
        self.keeper.repoint(moves);
        flush(&stale, |_| true, |publication| Some(publication.target));
        Ok(())
    }
}

/// Publications that need no port of the host: on the gateway's network, and on all others of routed mode.
fn routed(specs: &[PublishSpec], to: &Destination, attached: &[Attachment]) -> Vec<Publication> {
    let all = std::iter::once(to.clone()).chain(other_routed(attached));
    // What is wrong with a spec is said when its ports are reserved.
    all.flat_map(|to| plan_for(specs, &to).map(|planned| planned.routed).unwrap_or_default()).collect()
}

/// Networks of routed mode that have no default route: their ports are reached directly too.
fn other_routed(attached: &[Attachment]) -> Vec<Destination> {
    let is_gateway = |a: &Attachment, family| {
        gateway_of(attached, family).is_some_and(|other| other.endpoint.id == a.endpoint.id)
    };
    let of = |a: &Attachment| {
        let options = bridge::options(&a.network);
        let is_routed4 = options.gateway_mode4 == GatewayMode::Routed && !is_gateway(a, Family::V4);
        let is_routed6 = options.gateway_mode6 == GatewayMode::Routed && !is_gateway(a, Family::V6);
        Destination {
            v4: a.endpoint.ipv4.filter(|_| is_routed4).map(|net| net.addr()),
            v6: a.endpoint.ipv6.filter(|_| is_routed6).map(|net| net.addr()),
            v6_elsewhere: true,
            mode4: GatewayMode::Routed,
            mode6: GatewayMode::Routed,
            default_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            host_ipv6: true,
            proxy: false,
        }
    };
    attached
        .iter()
        .filter(|a| !a.network.internal)
        .map(of)
        .filter(|to| to.v4.is_some() || to.v6.is_some())
        .collect()
}

/// Adds publications to the endpoints that they lead to.
fn stand(publications: Vec<Publication>, attached: &mut [Attachment]) {
    for publication in publications {
        let owner = attached.iter_mut().find(|a| a.addresses().any(|ip| ip == publication.target));
        owner.into_iter().for_each(|owner| owner.endpoint.publications.push(publication.clone()));
    }
}

/// What the rules must know of an attachment's ports.
pub(super) fn rules_of(attachment: &Attachment) -> Option<EndpointPorts> {
    EndpointPorts::of(bridge::device(&attachment.network), &attachment.endpoint.publications)
}

/// The changes of rules that lead from one state of a sandbox's endpoints to another.
fn changes(old: &[Attachment], new: &[Attachment]) -> Vec<(EndpointId, Option<EndpointPorts>)> {
    let of = |all: &[Attachment], id| all.iter().find(|a| a.endpoint.id == id).and_then(rules_of);
    let mut ids: Vec<EndpointId> = old.iter().chain(new).map(|a| a.endpoint.id).collect();
    ids.sort_unstable();
    ids.dedup();
    let change = |id| (of(old, id) != of(new, id)).then(|| (id, of(new, id)));
    ids.into_iter().filter_map(change).collect()
}

/// The publications that `all` has and `others` hasn't.
fn missing(all: &[Attachment], others: &[Attachment]) -> Vec<Publication> {
    fn publications(all: &[Attachment]) -> impl Iterator<Item = &Publication> {
        all.iter().flat_map(|a| &a.endpoint.publications)
    }
    let kept: HashSet<&Publication> = publications(others).collect();
    publications(all).filter(|publication| !kept.contains(publication)).cloned().collect()
}

/// Makes the kernel forget flows to published ports of these protocols, of each those that `answered_from` answers; `None` is
/// anybody.
fn flush(
    publications: &[Publication],
    proto: impl Fn(Proto) -> bool,
    answered_from: impl Fn(&Publication) -> Option<IpAddr>,
) {
    let of = |publication: &Publication| {
        let host = publication.host?;
        let target = answered_from(publication);
        let flow = |ip: &IpAddr| Flow { proto: publication.proto, host_ip: *ip, host, target };
        Some(publication.addresses.iter().map(flow).collect::<Vec<_>>())
    };
    let flows: Vec<Flow> = publications.iter().filter(|p| proto(p.proto)).filter_map(of).flatten().collect();
    if flows.is_empty() {
        return;
    }
    if let Err(error) = forget_flows(&flows) {
        tracing::warn!(%error, "old flows to published ports may go on");
    }
}

fn facts(tx: &WriteTx<'_>, sandbox: &Sandbox, attached: &[Attachment]) -> Result<(), StoreError> {
    tx.update_sandbox(sandbox)?;
    attached.iter().try_for_each(|attachment| tx.update_endpoint(&attachment.endpoint))
}

/// Whether a spec that isn't quite the one that was given means this publication.
fn is_meant(spec: &PublishSpec, publication: &Publication) -> bool {
    let host = match spec.host() {
        HostPorts::Ephemeral => true,
        HostPorts::Aligned(ports) | HostPorts::OneOf(ports) => publication.host == Some(ports),
    };
    let address = spec.host_ip().is_none_or(|ip| publication.addresses.contains(&ip.to_canonical()));
    host && address && publication.proto == spec.proto() && publication.container == spec.container()
}

/// Docker names the endpoint whose ports can't be had: the one of the default route.
fn of_endpoint(sandbox: &Sandbox, attached: &[Attachment], error: ControllerError) -> ControllerError {
    let owner = gateway_of(attached, Family::V4).or_else(|| gateway_of(attached, Family::V6));
    match owner {
        Some(owner) => ControllerError::Connectivity {
            name: sandbox.config.name.clone(),
            endpoint: owner.endpoint.id,
            cause: Box::new(error),
        },
        None => error,
    }
}

fn listed(specs: &[PublishSpec]) -> String {
    specs.iter().map(PublishSpec::to_string).collect::<Vec<_>>().join(" ")
}
