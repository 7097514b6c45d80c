//! Networks: created, looked at, removed.

use std::sync::TryLockError;

use super::error::ControllerError;
use super::locks::{Access, Key, Wanted};
use super::{Controller, Inner, NetworkRequest, NetworkView, Result, host, now};
use crate::driver::{self, Driver, DriverError};
use crate::ipam::{
    AddressSpace, Family, Fixed, PoolChoice, PoolRequest, SubnetConfig, SubnetSpec, reserved_prefixes,
};
use crate::model::{
    BridgeOptions, Endpoint, Family as ModelFamily, Lease, Network, NetworkId, NetworkName, Scope, Subnet,
};
use crate::plan::{Object, Plan};
use crate::store::{ReadTx, StoreError, WriteTx};

/// The only address manager there is.
const DEFAULT_IPAM: &str = "default";
/// The sysctls that decide whether a family is forwarded.
const FORWARDING: [(&str, ModelFamily); 2] =
    [("net/ipv4/ip_forward", ModelFamily::V4), ("net/ipv6/conf/all/forwarding", ModelFamily::V6)];

impl Controller {
    /// Creates a network.
    ///
    /// # Errors
    /// If it can't be, with Docker's text for why; nothing of it remains then.
    pub fn create_network(&self, request: NetworkRequest) -> Result<Network> {
        let inner = &*self.0;
        let (mut network, subnets) = inner.draft(request)?;
        let driver = driver::named(&network.driver)?;
        driver.check(&network, &subnets)?;
        network.adopted = inner.is_adopted(driver, &network)?;
        inner.add_network(network, &subnets)
    }

    /// All networks by name, in byte order.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn networks(&self) -> Result<Vec<Network>> {
        self.0.store.read(|tx| Ok(tx.networks()?))
    }

    /// One network, by id, name or the beginning of an id.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn network(&self, reference: &str) -> Result<NetworkView> {
        let reference = reference.to_owned();
        let look = move |tx: &ReadTx<'_>| -> Result<(Network, Vec<Endpoint>)> {
            let network = tx.resolve_network(&reference)?;
            let endpoints = tx.endpoints_of_network(network.id)?;
            Ok((network, endpoints))
        };
        let (network, endpoints) = self.0.store.read(look)?;
        let status = |subnet: &Subnet| Some((subnet.subnet, self.0.addresses.status(subnet.pool.as_ref()?)?));
        let pools = network.subnets.iter().filter_map(status).collect();
        Ok(NetworkView { network, endpoints, pools })
    }

    /// All endpoints.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        self.0.store.read(|tx| Ok(tx.endpoints()?))
    }

    /// Removes a network without endpoints. Gives what it was.
    ///
    /// # Errors
    /// If there is none, it is predefined, or it has endpoints.
    pub fn remove_network(&self, reference: &str) -> Result<Network> {
        let inner = &*self.0;
        let argument = reference.to_owned();
        let network = inner.store.read(move |tx| tx.resolve_network(&argument))?;
        network.name.check_removable()?;
        let _guard = inner.locks.take(alone(&network));
        inner.drop_network(network.id).map_err(|error| match error {
            ControllerError::Store(StoreError::Gone { .. }) => ControllerError::network_not_found(reference),
            other => other,
        })
    }

    /// Removes the networks that are `wanted` gone, not predefined and without endpoints. Gives those that went.
    ///
    /// # Errors
    /// If this is being done already, or the store can't be read. What can't be removed is logged and left.
    pub fn prune_networks(&self, wanted: impl Fn(&Network) -> bool) -> Result<Vec<Network>> {
        let inner = &*self.0;
        let _pruning = match inner.pruning.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(ControllerError::Pruning),
        };
        let candidates = self.networks()?.into_iter().filter(|network| !network.is_predefined());
        let mut removed = Vec::new();
        for network in candidates.filter(|network| wanted(network)) {
            let _guard = inner.locks.take(alone(&network));
            match inner.drop_network(network.id) {
                Ok(network) => removed.push(network),
                Err(ControllerError::Store(StoreError::NetworkInUse { .. } | StoreError::Gone { .. })) => {}
                Err(error) => tracing::warn!(network = %network.name, %error, "a network can't be pruned"),
            }
        }
        Ok(removed)
    }
}

impl Inner {
    /// What is asked for, as far as it can be checked by itself: a network without subnets, and those it is to have.
    fn draft(&self, request: NetworkRequest) -> Result<(Network, Vec<SubnetConfig>)> {
        let name: NetworkName = request.name.parse()?;
        name.check_creatable()?;
        let same = name.clone();
        if self.store.read(move |tx| tx.network_named(&same))?.is_some() {
            return Err(StoreError::NetworkExists(name).into());
        }
        let subnets = SubnetConfig::check(request.subnets)?;
        let driver = if request.driver.is_empty() { "bridge".to_owned() } else { request.driver };
        driver::named(&driver)?;
        if request.ipam.driver != DEFAULT_IPAM {
            return Err(DriverError::Unknown(request.ipam.driver).into());
        }
        let mut options = request.options;
        for (key, value) in self.config.default_options.get(&driver).into_iter().flatten() {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let parsed = BridgeOptions::parse(&options).map_err(DriverError::from)?;
        let network = Network {
            id: NetworkId::from_random(self.random.bytes()?),
            name,
            driver,
            scope: Scope::Local,
            created: now(),
            ipam: request.ipam,
            subnets: Vec::new(),
            internal: request.internal,
            ipv4: request.ipv4.or(parsed.ipv4).unwrap_or(true),
            ipv6: request.ipv6.or(parsed.ipv6).unwrap_or(false),
            options,
            labels: request.labels,
            adopted: false,
        };
        Ok((network, subnets))
    }

    /// Whether the network's device is somebody else's. Refuses one that can't be the network.
    fn is_adopted(&self, driver: &dyn Driver, network: &Network) -> Result<bool> {
        let Some(device) = driver.device(network) else { return Ok(false) };
        match self.kernel.link(&device)? {
            None => Ok(false),
            Some(link) if !link.bridge => Err(DriverError::NotABridge(device).into()),
            Some(link) => Ok(!link.alias.is_some_and(|alias| self.is_ours(&alias))),
        }
    }

    /// Whether this alias marks what is ours.
    pub(super) fn is_ours(&self, alias: &str) -> bool {
        let rest = alias.strip_prefix("portmap:").and_then(|rest| rest.strip_prefix(self.marker.as_str()));
        rest.is_some_and(|rest| rest.starts_with(':'))
    }

    /// Gives a checked network its subnets and makes it true: facts, rules, kernel; or nothing.
    pub(super) fn add_network(&self, mut network: Network, subnets: &[SubnetConfig]) -> Result<Network> {
        let _guard = self.locks.take(alone(&network));
        let driver = driver::named(&network.driver)?;
        let mut claim = self.addresses.claim();
        if driver.has_addresses() {
            let requests = self.pool_requests(&network, subnets)?;
            for (request, fixed) in requests {
                let got = claim.pool(&request, &fixed)?;
                network.subnets.push(Subnet {
                    subnet: got.pool.subnet,
                    range: match request.choice {
                        PoolChoice::Explicit { range, .. } => range,
                        _ => None,
                    },
                    gateway: got.gateway.map(|net| net.addr()),
                    aux: fixed.auxiliary,
                    pool: Some(got.pool.id),
                });
            }
        }
        let facts = network.clone();
        self.store.write(move |tx| insert(tx, driver, &facts))?;
        if let Err(error) = self.realize(&Plan::default(), &self.network_plan(&network), &network) {
            let id = network.id;
            if !self.restore(move |tx| delete(tx, id).map(drop)) {
                claim.keep();
            }
            return Err(error);
        }
        claim.keep();
        tracing::info!(network = %network.name, id = %network.id.short(), "network created");
        Ok(network)
    }

    /// What is to be asked of the address manager, IPv4 first. Subnets of a family that is off are ignored, as in Docker.
    fn pool_requests(
        &self,
        network: &Network,
        subnets: &[SubnetConfig],
    ) -> Result<Vec<(PoolRequest, Fixed)>> {
        let mut requests = Vec::new();
        for (family, on) in [(Family::V4, network.ipv4), (Family::V6, network.ipv6)] {
            let of_family: Vec<_> = subnets.iter().filter(|s| Family::of_net(s.subnet()) == family).collect();
            if !on {
                continue;
            }
            if of_family.is_empty() {
                requests.push((PoolChoice::Default(family), Fixed::default()));
            }
            for subnet in of_family {
                let fixed = Fixed { gateway: subnet.gateway(), auxiliary: subnet.auxiliary().clone() };
                requests.push((PoolChoice::of(subnet)?, fixed));
            }
        }
        let explicit = |choice: &PoolChoice| matches!(choice, PoolChoice::Explicit { .. });
        let reserved = if requests.iter().all(|(choice, _)| explicit(choice)) {
            Vec::new()
        } else {
            reserved_prefixes(&host::name_servers(), &self.kernel.on_link_routes()?)
        };
        let options = &network.ipam.options;
        let request = |choice| PoolRequest {
            space: AddressSpace::Local,
            choice,
            reserved: reserved.clone(),
            options: options.clone(),
        };
        Ok(requests.into_iter().map(|(choice, fixed)| (request(choice), fixed)).collect())
    }

    /// Makes a network's plan and its rules true, the rules first: no bridge is there before what guards it. On failure
    /// both are as before.
    fn realize(&self, before: &Plan, after: &Plan, network: &Network) -> Result<()> {
        let facts = driver::named(&network.driver)?.firewall(network);
        self.remember_forwarding(after)?;
        if facts.is_some() {
            self.rules().set(network.id, facts.clone())?;
        }
        if let Err(failed) = self.carry_out(before, after) {
            if facts.is_some()
                && let Err(error) = self.rules().set(network.id, None)
            {
                tracing::warn!(%error, "the rules of a network that failed can't be removed");
            }
            return Err(failed.error);
        }
        Ok(())
    }

    /// If the plan is about to turn forwarding on, that is remembered before it happens.
    pub(super) fn remember_forwarding(&self, plan: &Plan) -> Result<()> {
        for object in plan.objects() {
            let Object::Sysctl(sysctl) = object else { continue };
            let Some((key, family)) = FORWARDING.into_iter().find(|(key, _)| *key == sysctl.key) else {
                continue;
            };
            if self.kernel.sysctl(key)?.as_deref() == Some("0") {
                self.rules().remember(family)?;
            }
        }
        Ok(())
    }

    /// Removes a network, which the caller has alone: facts, kernel, rules; or nothing.
    pub(super) fn drop_network(&self, id: NetworkId) -> Result<Network> {
        let (network, leases) = self.store.write(move |tx| delete(tx, id))?;
        let plan = self.network_plan(&network);
        let removed = self.carry_out(&plan, &Plan::default()).map_err(|failed| failed.error);
        let removed = removed.and_then(|()| {
            let ruled = driver::named(&network.driver)?.firewall(&network).is_some();
            let done = if ruled { self.rules().set(id, None) } else { Ok(()) };
            if done.is_err() {
                self.go_on(&plan.ensure());
            }
            done
        });
        let release = || {
            let pools = network.subnets.iter().filter_map(|subnet| subnet.pool.as_ref());
            pools.for_each(|pool| self.addresses.release_pool(pool));
        };
        if let Err(error) = removed {
            let facts = network.clone();
            let restored = self.restore(move |tx| {
                tx.insert_network(&facts)?;
                leases.iter().try_for_each(|lease| tx.insert_lease(lease))
            });
            if !restored {
                release();
            }
            return Err(error);
        }
        release();
        tracing::info!(network = %network.name, id = %network.id.short(), "network removed");
        Ok(network)
    }

    /// Puts facts back after a failure. Whether they are: if even that fails, the facts count that there are, for the
    /// addresses in memory too, and the next reconciliation leads the kernel to them.
    pub(super) fn restore(
        &self,
        facts: impl FnOnce(&WriteTx<'_>) -> Result<(), StoreError> + Send + 'static,
    ) -> bool {
        let restored = self.store.write(facts);
        if let Err(error) = &restored {
            tracing::error!(%error, "facts can't be put back after a failure");
        }
        restored.is_ok()
    }
}

/// What an operation takes that makes or removes a network. Its device, too: another network may want one of that name.
fn alone(network: &Network) -> Wanted {
    let device = driver::named(&network.driver).ok().and_then(|driver| driver.device(network));
    let keys = device.map(Key::Device).into_iter().chain([Key::Network(network.id)]);
    keys.map(|key| (key, Access::Alone)).collect()
}

/// Adds a network's facts, if it goes with the others.
fn insert(tx: &WriteTx<'_>, driver: &dyn Driver, network: &Network) -> Result<()> {
    for other in tx.networks()?.iter().filter(|other| other.driver == network.driver) {
        if other.name == network.name {
            return Err(StoreError::NetworkExists(network.name.clone()).into());
        }
        if driver.is_single() {
            return Err(DriverError::Single(driver.name()).into());
        }
        driver.check_beside(network, other)?;
    }
    tx.insert_network(network)?;
    for subnet in &network.subnets {
        let Some(pool) = &subnet.pool else { continue };
        for address in subnet.gateway.iter().chain(subnet.aux.values()) {
            tx.insert_lease(&Lease { pool: pool.clone(), address: *address, endpoint: None })?;
        }
    }
    Ok(())
}

/// Removes a network's facts. Gives them.
fn delete(tx: &WriteTx<'_>, id: NetworkId) -> Result<(Network, Vec<Lease>), StoreError> {
    let network = tx.network(id)?.ok_or_else(|| StoreError::Gone { table: "network", id: id.to_string() })?;
    tx.delete_network(id)?;
    let mut leases = Vec::new();
    for pool in network.subnets.iter().filter_map(|subnet| subnet.pool.as_ref()) {
        leases.extend(tx.leases_of_pool(pool)?);
        tx.delete_leases_of_pool(pool)?;
    }
    Ok((network, leases))
}

/// A subnet as the default network's flags describe it.
pub(super) fn checked(spec: SubnetSpec) -> Result<SubnetConfig> {
    let mut checked = SubnetConfig::check(vec![spec])?;
    Ok(checked.remove(0))
}
