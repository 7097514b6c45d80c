//! A sandbox starts: its endpoints, its namespace, its files.

use std::net::IpAddr;

use ipnet::IpNet;

use super::addresses::Claim;
use super::error::{ControllerError, SettingsError};
use super::known::{Attach, Known};
use super::names::{Etc, has_resolver};
use super::plans::{Attachment, Failed, candidate, in_order, new_interfaces};
use super::ports::Reserved;
use super::resolver::Serving;
use super::root::remove_dir;
use super::sandboxes::{endpoint_id, tenant};
use super::{Controller, Inner, Result, Started, now};
use crate::driver;
use crate::model::{
    Endpoint, EndpointSettings, Family, IfName, Lease, Mac, Network, NetworkMode, ProcessId, Running,
    Sandbox, SandboxState, check_target, compare, is_alias,
};
use crate::plan::Plan;
use crate::store::{StoreError, WriteTx};

/// What the interface in the sandbox is to be called.
const ENDPOINT_IFNAME: &str = "com.docker.network.endpoint.ifname";

impl Controller {
    /// Starts a sandbox: its namespace and its endpoints are made, its files written. It counts as running from now on;
    /// until [`Self::process_started`] its process is its supervisor.
    ///
    /// # Errors
    /// If there is no such sandbox, it runs, or one of its networks, addresses or its target can't be had. All is as
    /// before then.
    pub fn start_sandbox(&self, reference: &str, supervisor: ProcessId) -> Result<Started> {
        self.repairing(|| self.try_start(reference, supervisor))
    }

    fn try_start(&self, reference: &str, supervisor: ProcessId) -> Result<Started> {
        let inner = &*self.0;
        let (_guard, known) = inner.take_sandbox(reference, None)?;
        if matches!(known.sandbox.state, SandboxState::Running(_)) {
            return Err(ControllerError::AlreadyRunning(known.sandbox.config.name));
        }
        let linked = inner.linked(&known.sandbox)?;
        let target = inner.target(&known)?;
        let mut claim = inner.addresses.claim();
        let start = |error| ControllerError::Start(Box::new(error));
        let mut attached = inner.attach_all(&known, &mut claim).map_err(start)?;
        let reserved = inner.reserve_all(&known.sandbox, &mut attached).map_err(start)?;
        let mut sandbox = known.sandbox.clone();
        let netns = match (&sandbox.config.mode, &target) {
            (NetworkMode::Host, _) => None,
            (NetworkMode::Container(_), target) => target.as_ref().and_then(|(_, run)| run.netns.clone()),
            _ => Some(sandbox.config.netns.clone().unwrap_or_else(|| inner.root.namespace(sandbox.id))),
        };
        sandbox.state = SandboxState::Running(Running {
            pid: supervisor.pid,
            start_ticks: supervisor.start_ticks,
            boot: inner.boot.clone(),
            started: now(),
            netns: netns.clone(),
            supervisor: Some(supervisor),
            resolver: has_resolver(&attached),
        });
        let Etc { files, hostname, domainname } =
            inner.etc(&sandbox, &attached, target.as_ref(), &linked).map_err(start)?;
        let link_env = inner.variables(&sandbox, &linked);
        let started = Started { sandbox, netns, hostname, domainname, files, link_env, target };
        let begun = inner.begin(&known, &started.sandbox, &attached, claim, reserved);
        if begun.is_err() {
            remove_dir(&inner.root.run(known.sandbox.id));
        }
        begun.map_err(|error| match error {
            ControllerError::NamespaceInUse { .. } => error,
            error => ControllerError::Start(Box::new(error)),
        })?;
        let name = &started.sandbox.config.name;
        tracing::info!(%name, id = %started.sandbox.id.short(), "sandbox started");
        Ok(started)
    }
}

impl Inner {
    /// The sandbox whose stack this one shares, and how that runs.
    fn target(&self, known: &Known) -> Result<Option<(Sandbox, Running)>> {
        let NetworkMode::Container(name) = &known.sandbox.config.mode else { return Ok(None) };
        let state = |target: &Sandbox| (target.id, target.state.as_target(&self.boot));
        check_target(known.sandbox.id, name, known.target.as_ref().map(state))?;
        Ok(known.target.as_ref().and_then(|target| match &target.state {
            SandboxState::Running(running) => Some((target.clone(), running.clone())),
            SandboxState::Created | SandboxState::Exited(_) => None, // refused above
        }))
    }

    /// An endpoint on each network that is wanted, in the order in which they count.
    fn attach_all(&self, known: &Known, claim: &mut Claim<'_>) -> Result<Vec<Attachment>> {
        let mut networks = Vec::new();
        for Attach { settings, network, .. } in &known.wanted {
            let network = network.clone().map_err(StoreError::from)?;
            // Given twice, by name and by id: once.
            if !networks.iter().any(|(other, _): &(Network, _)| other.id == network.id) {
                networks.push((network, settings));
            }
        }
        networks.sort_by(|(a, left), (b, right)| compare(&candidate(a, left), &candidate(b, right)));
        let mut attached: Vec<Attachment> = Vec::new();
        for (network, settings) in networks {
            let endpoint = self.new_endpoint(&known.sandbox, &network, settings, &attached, claim)?;
            attached.push(Attachment { network, endpoint });
        }
        Ok(in_order(attached))
    }

    /// An endpoint that is to be, beside those there are.
    pub(super) fn new_endpoint(
        &self,
        sandbox: &Sandbox,
        network: &Network,
        settings: &EndpointSettings,
        beside: &[Attachment],
        claim: &mut Claim<'_>,
    ) -> Result<Endpoint> {
        let problems = unfit(network, settings);
        if !problems.is_empty() {
            return Err(ControllerError::Settings(problems));
        }
        let driver = driver::named(&network.driver)?;
        let prefix = driver.interface_prefix(network);
        let random: [u8; 6] = self.random.bytes()?;
        let mut endpoint = Endpoint {
            id: endpoint_id(self)?,
            network: network.id,
            sandbox: Some(sandbox.id),
            name: sandbox.config.name.to_string(),
            ipv4: None,
            ipv6: None,
            gateway4: None,
            gateway6: None,
            mac: prefix.as_ref().map(|_| settings.mac.unwrap_or_else(|| Mac::from_random(random))),
            ifname: None,
            host_ifname: None,
            settings: settings.clone(),
            publications: Vec::new(),
        };
        if let Some(prefix) = prefix {
            endpoint.ifname = Some(interface(&prefix, settings, beside)?);
            endpoint.host_ifname = Some(self.host_interface()?);
        }
        let asked = |family| match family {
            Family::V4 => settings.ip.map(IpAddr::V4),
            Family::V6 => settings.ip6.map(IpAddr::V6),
        };
        for subnet in &network.subnets {
            let Some(pool) = &subnet.pool else { continue };
            let (name, id) = (network.name.as_str(), network.id.to_string());
            let got =
                claim.address(pool, asked(subnet.family())).map_err(|error| error.on_network(name, &id))?;
            match got {
                Some(IpNet::V4(net)) => endpoint.ipv4 = Some(net),
                Some(IpNet::V6(net)) => endpoint.ipv6 = Some(net),
                None => {}
            }
        }
        if let (Some(_), Some(IpAddr::V4(ip))) = (endpoint.ipv4, network.default_gateway(Family::V4)) {
            endpoint.gateway4 = Some(ip);
        }
        if let (Some(_), Some(IpAddr::V6(ip))) = (endpoint.ipv6, network.default_gateway(Family::V6)) {
            endpoint.gateway6 = Some(ip);
        }
        Ok(endpoint)
    }

    /// `veth` and seven random hex digits.
    fn host_interface(&self) -> Result<IfName> {
        let number = u32::from_le_bytes(self.random.bytes()?) >> 4;
        Ok(format!("veth{number:07x}").parse()?)
    }

    /// Makes a start true: facts, then the kernel; or nothing.
    fn begin(
        &self,
        known: &Known,
        sandbox: &Sandbox,
        attached: &[Attachment],
        claim: Claim<'_>,
        reserved: Reserved<'_>,
    ) -> Result<()> {
        let (facts, endpoints) = (sandbox.clone(), endpoints(attached));
        let leases = leases(attached, claim.taken());
        self.store.write(move |tx| -> Result<()> {
            if let Some(path) = &facts.config.netns
                && let Some(owner) = tenant(tx, path, facts.id)?
            {
                return Err(ControllerError::NamespaceInUse { path: path.clone(), owner });
            }
            tx.update_sandbox(&facts)?;
            insert(tx, &endpoints, &leases)?;
            Ok(())
        })?;
        let after = self.sandbox_plan(sandbox, attached);
        let opened = self.carry_out(&Plan::default(), &after).and_then(|()| {
            after.veths().for_each(|veth| self.kernel.await_port(veth));
            let named = self.open_names(sandbox, attached, Serving::Anew);
            let linked = named.and_then(|()| self.open_links(sandbox.id));
            let opened = linked.and_then(|()| self.open_ports(sandbox, &[], attached, reserved));
            opened.map_err(|error| {
                self.close_names(sandbox, attached);
                Failed { error, undone: self.go_on(&after.change(&Plan::default())) }
            })
        });
        if let Err(failed) = opened {
            let (facts, endpoints) = (known.sandbox.clone(), endpoints_ids(attached));
            let restored = self.restore(move |tx| {
                endpoints.iter().try_for_each(|id| tx.delete_endpoint(*id))?;
                tx.update_sandbox(&facts)
            });
            self.follow_links(sandbox.id, endpoints_ids(attached), &[]);
            claim.settle(restored, failed.undone);
            return Err(failed.error);
        }
        let moved = claim.keep();
        self.follow_links(sandbox.id, [], &[]);
        new_interfaces(&Plan::default(), &after, &moved).iter().for_each(|veth| self.kernel.announce(veth));
        Ok(())
    }
}

/// What is asked for and can't be had on the network: addresses that it doesn't have, settings that aren't any.
pub(super) fn unfit(network: &Network, settings: &EndpointSettings) -> Vec<SettingsError> {
    let asked = settings.ip.map(IpAddr::V4).into_iter().chain(settings.ip6.map(IpAddr::V6));
    let outside = asked.filter(|ip| network.subnet_of(*ip).is_none()).map(SettingsError::Outside);
    // Whatever the interface will be called.
    let any: Option<IfName> = "eth0".parse().ok();
    let sysctls = any.and_then(|name| settings.interface_sysctls(&name).err()).map(SettingsError::Sysctl);
    bad_aliases(settings).chain(outside).chain(sysctls).collect()
}

/// Further names that can't be any.
pub(super) fn bad_aliases(settings: &EndpointSettings) -> impl Iterator<Item = SettingsError> {
    settings.aliases.iter().filter(|alias| !is_alias(alias)).cloned().map(SettingsError::Alias)
}

/// The interface that is asked for, or the lowest number that none beside it has.
fn interface(prefix: &str, settings: &EndpointSettings, beside: &[Attachment]) -> Result<IfName> {
    let taken = |name: &IfName| beside.iter().any(|other| other.endpoint.ifname.as_ref() == Some(name));
    if let Some(asked) = settings.driver_opts.get(ENDPOINT_IFNAME).filter(|name| !name.is_empty()) {
        let name: IfName = asked.parse()?;
        return if taken(&name) { Err(ControllerError::InterfaceTaken(asked.clone())) } else { Ok(name) };
    }
    // One more number than there are others: one of them is free.
    for number in 0..=beside.len() {
        let name: IfName = format!("{prefix}{number}").parse()?;
        if !taken(&name) {
            return Ok(name);
        }
    }
    Err(ControllerError::InterfaceTaken(prefix.to_owned()))
}

fn endpoints(attached: &[Attachment]) -> Vec<Endpoint> {
    attached.iter().map(|attachment| attachment.endpoint.clone()).collect()
}

fn endpoints_ids(attached: &[Attachment]) -> Vec<crate::model::EndpointId> {
    attached.iter().map(|attachment| attachment.endpoint.id).collect()
}

/// Who has which of the addresses that were claimed.
pub(super) fn leases(attached: &[Attachment], claimed: &[(crate::ipam::PoolId, IpAddr)]) -> Vec<Lease> {
    let lease = |(pool, address): &(crate::ipam::PoolId, IpAddr)| {
        let owner = attached.iter().find(|attachment| {
            attachment.network.subnets.iter().any(|subnet| subnet.pool.as_ref() == Some(pool))
        })?;
        Some(Lease { pool: pool.clone(), address: *address, endpoint: Some(owner.endpoint.id) })
    };
    claimed.iter().filter_map(lease).collect()
}

/// Adds endpoints and their leases.
pub(super) fn insert(tx: &WriteTx<'_>, endpoints: &[Endpoint], leases: &[Lease]) -> Result<(), StoreError> {
    endpoints.iter().try_for_each(|endpoint| tx.insert_endpoint(endpoint))?;
    leases.iter().try_for_each(|lease| tx.insert_lease(lease))
}
