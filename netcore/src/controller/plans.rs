//! From facts to plans, and from one plan to another in the kernel.
//!
//! A network and a sandbox have a plan each. They meet where an endpoint's interface is a port of the network's bridge:
//! that one belongs to the sandbox's plan, so that a start costs the same however many there are.

use std::net::IpAddr;

use super::error::ControllerError;
use super::{Inner, Result};
use crate::driver::{self, HostSettings};
use crate::model::{
    Candidate, Endpoint, EndpointSettings, Family, Network, ProcessId, Sandbox, SandboxState, compare,
    default_route,
};
use crate::plan::{DefaultRoutes, Namespace, Object, Plan, Step, Veth};

/// An endpoint and its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) network: Network,
    pub(super) endpoint: Endpoint,
}

/// A plan that couldn't be carried out.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: ControllerError,
    /// Whether the kernel is as it was before.
    pub(super) undone: bool,
}

impl Attachment {
    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            gateway4: self.endpoint.gateway4.is_some(),
            gateway6: self.endpoint.gateway6.is_some(),
            ..candidate(&self.network, &self.endpoint.settings)
        }
    }

    /// The endpoint's addresses, IPv4 first.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let four = self.endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
        let six = self.endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
        four.into_iter().chain(six)
    }
}

/// What an endpoint with these settings would count.
pub(super) fn candidate<'a>(network: &'a Network, settings: &EndpointSettings) -> Candidate<'a> {
    Candidate {
        network: network.name.as_str(),
        gw_priority: settings.gw_priority,
        helper: false,
        internal: network.internal,
        gateway4: network.ipv4 && network.default_gateway(Family::V4).is_some(),
        gateway6: network.ipv6 && network.default_gateway(Family::V6).is_some(),
    }
}

/// The networks of a sandbox in the order in which they count.
pub(super) fn in_order(mut attached: Vec<Attachment>) -> Vec<Attachment> {
    attached.sort_by(|a, b| compare(&a.candidate(), &b.candidate()));
    attached
}

/// The attachment that has the default route of a family.
pub(super) fn gateway_of(attached: &[Attachment], family: Family) -> Option<&Attachment> {
    let candidates: Vec<Candidate<'_>> = attached.iter().map(Attachment::candidate).collect();
    default_route(family, &candidates).map(|at| &attached[at])
}

/// What a running sandbox needs.
pub(super) fn of_sandbox(sandbox: &Sandbox, attached: &[Attachment], host: HostSettings) -> Plan {
    let SandboxState::Running(running) = &sandbox.state else { return Plan::default() };
    let Some(path) = running.netns.clone().filter(|_| !sandbox.config.mode.is_shared()) else {
        return Plan::default();
    };
    let process = ProcessId { pid: running.pid, start_ticks: running.start_ticks };
    // Until the sandbox's process is there, its supervisor stands in for it, who lives elsewhere.
    let holder = running.supervisor.is_some_and(|supervisor| supervisor != process).then_some(process);
    let namespace = Namespace { path: path.clone(), adopted: sandbox.config.netns.is_some(), holder };
    let mut plan: Plan = [Object::Namespace(namespace)].into_iter().collect();
    for Attachment { network, endpoint } in attached {
        if let Ok(driver) = driver::named(&network.driver) {
            plan.extend(driver.endpoint_objects(network, endpoint, &path, host));
        }
    }
    let elected = |family| gateway_of(attached, family).map(|attachment| &attachment.endpoint);
    let ipv4 = elected(Family::V4).and_then(|e| Some((e.gateway4?, e.ifname.clone()?)));
    let ipv6 = elected(Family::V6).and_then(|e| Some((e.gateway6?, e.ifname.clone()?)));
    if ipv4.is_some() || ipv6.is_some() {
        plan.add(Object::DefaultRoutes(DefaultRoutes { namespace: path, ipv4, ipv6 }));
    }
    plan
}

/// What a network needs. A driver that this version lacks asks for nothing.
pub(super) fn of_network(network: &Network, host: HostSettings) -> Plan {
    let objects = driver::named(&network.driver).map(|driver| driver.network_objects(network, host));
    objects.into_iter().flatten().collect()
}

/// The interfaces that a change makes and whose address is one of these.
pub(super) fn new_interfaces(before: &Plan, after: &Plan, known: &[IpAddr]) -> Vec<Veth> {
    let steps = before.change(after).into_iter();
    let veth = |step| match step {
        Step::Ensure(Object::Veth(veth)) => Some(veth),
        _ => None,
    };
    let is_known = |veth: &Veth| veth.addresses.iter().any(|net| known.contains(&net.addr()));
    steps.filter_map(veth).filter(is_known).collect()
}

impl Inner {
    pub(super) const fn settings(&self) -> HostSettings {
        HostSettings { ip_forward: self.config.ip_forward, userland_proxy: self.config.userland_proxy }
    }

    pub(super) fn network_plan(&self, network: &Network) -> Plan {
        of_network(network, self.settings())
    }

    pub(super) fn sandbox_plan(&self, sandbox: &Sandbox, attached: &[Attachment]) -> Plan {
        of_sandbox(sandbox, attached, self.settings())
    }

    /// Leads the kernel from one plan to another. If a step fails, it is led back: whatever there is of `after` goes, and
    /// what there was of `before` is made again.
    pub(super) fn carry_out(&self, before: &Plan, after: &Plan) -> Result<(), Failed> {
        for step in before.change(after) {
            if let Err(error) = self.kernel.apply(&step) {
                let undone = self.go_on(&after.change(before));
                return Err(Failed { error: error.into(), undone });
            }
        }
        Ok(())
    }

    /// Carries out every step that can be. Whether all could; the others are logged, and left to the next reconciliation.
    pub(super) fn go_on(&self, steps: &[Step]) -> bool {
        let mut done = true;
        for step in steps {
            if let Err(error) = self.kernel.apply(step) {
                tracing::warn!(%error, "left to be cleaned up later");
                done = false;
            }
        }
        done
    }
}
