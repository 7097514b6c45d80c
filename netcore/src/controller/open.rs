//! Opening a controller: directories and their lock, the facts, the predefined networks, and everything made true.

use std::path::Path;
use std::sync::Mutex;

use super::addresses::Addresses;
use super::error::ControllerError;
use super::home::{self, Home};
use super::rules::Rules;
use super::{Config, Controller, Inner, Result, host, locks, root};
use crate::dns::{Server, ServerConfig};
use crate::firewall::{HostTools, Tools};
use crate::ipam::{DefaultIpam, DefaultPool, DefaultPools};
use crate::kernel::{HostKernel, Kernel};
use crate::model::{BootId, Network, NetworkId, NetworkName, Predefined, Scope};
use crate::publish::{Keeper, KeeperSettings};
use crate::store::{ReadTx, Store, StoreError};

/// There where this kernel has IPv6.
const IPV6: &str = "net/ipv6/conf/all/disable_ipv6";

/// What a controller works with: the host's, or a test's.
pub(super) struct Parts {
    pub(super) boot: BootId,
    pub(super) kernel: Box<dyn FnOnce(String) -> Result<Box<dyn Kernel>>>,
    pub(super) tools: Box<dyn Tools + Send>,
    /// Takes the network namespace. Only when the data root is taken, so that a second daemon there is told of that.
    pub(super) home: Option<fn() -> Result<Home>>,
}

impl Parts {
    /// The host's, with this way to its kernel.
    fn of_host(kernel: impl FnOnce(String) -> Result<Box<dyn Kernel>> + 'static) -> Result<Self> {
        let (boot, kernel, tools) = (host::boot()?, Box::new(kernel), Box::new(HostTools));
        Ok(Self { boot, kernel, tools, home: Some(home::take) })
    }
}

impl Controller {
    /// Opens the facts of a data root, or makes one, and makes them true in the calling thread's network namespace:
    /// sandboxes whose processes are gone are ended, the predefined networks are there as the configuration has them,
    /// and what is missing in the kernel is made, what is left over removed.
    ///
    /// # Errors
    /// If another daemon has the data root or the network namespace, the facts can't be read, the firewall's rules can't
    /// be loaded, or the default network can't be as configured. Other networks and sandboxes that can't be made true are
    /// logged.
    pub fn open(config: Config) -> Result<Self> {
        let kernel = |marker| Ok(Box::new(HostKernel::new(marker)?) as Box<dyn Kernel>);
        Self::open_with(config, Parts::of_host(kernel)?)
    }

    /// As [`open`](Self::open), with a kernel that asks before each single operation: its error is what happens instead.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[doc(hidden)]
    pub fn open_with_gate(
        config: Config,
        gate: impl Fn(&crate::kernel::Operation<'_>) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let kernel = |marker| Ok(Box::new(HostKernel::with_gate(marker, gate)?) as Box<dyn Kernel>);
        Self::open_with(config, Parts::of_host(kernel)?)
    }

    pub(super) fn open_with(config: Config, parts: Parts) -> Result<Self> {
        config.check()?;
        let root = root::Root::open(&config)?;
        let home = parts.home.map(|take| take()).transpose()?;
        let store = Store::open(root.database())?;
        let data = root.data().as_os_str().as_encoded_bytes();
        let marker = format!("{:016x}", host::fingerprint(&[data]));
        let rules = Rules::new(parts.tools, &config, root.forwarding(), parts.boot.clone());
        let kernel = (parts.kernel)(marker.clone())?;
        let inner = Inner {
            addresses: Addresses::new(ipam(&config, data)),
            ipv6: kernel.sysctl(IPV6)?.is_some(),
            kernel,
            boot: parts.boot,
            marker: marker.clone(),
            store,
            rules: Mutex::new(rules),
            locks: locks::Locks::default(),
            linking: Mutex::new(()),
            random: host::Random::open()?,
            pruning: Mutex::new(()),
            dns: Server::new(ServerConfig { host_file: config.host_resolv_conf() }),
            keeper: Keeper::new(KeeperSettings {
                marker: marker.clone(),
                proxy: config.userland_proxy.then(|| config.userland_proxy_path.clone()),
            }),
            root,
            _home: home,
            config,
        };
        let ended = inner.end_stale()?;
        inner.restore_addresses()?;
        inner.predefined(Predefined::Host)?;
        inner.predefined(Predefined::None)?;
        // What is left of the ended ones goes before their addresses are given to anybody.
        match inner.make_true() {
            // Logged; other networks and sandboxes go on.
            Err(ControllerError::Kernel(_) | ControllerError::Resolver(_)) => {}
            made => made?,
        }
        // No rule leads to them any more, but flows that began before go on.
        ended.iter().for_each(|stale| inner.give_up_stale(stale));
        inner.default_bridge()?;
        inner.restore_ports()?;
        Ok(Self(std::sync::Arc::new(inner)))
    }
}

/// The address manager, without anything given out. The host's own IPv6 prefix is drawn from what the host keeps.
fn ipam(config: &Config, data_root: &[u8]) -> DefaultIpam {
    let machine = std::fs::read(Path::new("/etc/machine-id")).unwrap_or_default();
    let seed = host::fingerprint(&[&machine, data_root]);
    let local = if config.default_pools.is_empty() {
        DefaultPools::docker_local(seed)
    } else {
        DefaultPools::new(config.default_pools.iter().copied()).or_ipv6(DefaultPool::unique_local(seed))
    };
    DefaultIpam::new(local, DefaultPools::docker_global())
}

impl Inner {
    /// Takes all that is taken, from the facts.
    fn restore_addresses(&self) -> Result<()> {
        let (networks, leases) =
            self.store.read(|tx: &ReadTx<'_>| Ok::<_, StoreError>((tx.networks()?, tx.leases()?)))?;
        for pool in networks.iter().flat_map(|network| &network.subnets).filter_map(|s| s.pool.as_ref()) {
            let of_pool = leases.partition_point(|lease| lease.pool < *pool)
                ..leases.partition_point(|lease| lease.pool <= *pool);
            let taken = leases[of_pool].iter().map(|lease| lease.address);
            self.addresses.restore(pool, taken)?;
        }
        Ok(())
    }

    /// Takes the ports that are published, with the proxies that live behind them.
    fn restore_ports(&self) -> Result<()> {
        let endpoints = self.store.read(|tx| tx.endpoints())?;
        let publications = endpoints.into_iter().flat_map(|endpoint| endpoint.publications);
        let bound = publications.filter(|publication| publication.host.is_some()).collect();
        for (publication, error) in self.keeper.restore(bound) {
            tracing::warn!(port = %publication.spec, %error, "a published port can't be had for now");
        }
        Ok(())
    }

    /// Adds a network that exists without having been created, if it is missing.
    fn predefined(&self, which: Predefined) -> Result<()> {
        let name = NetworkName::from(which);
        let wanted = name.clone();
        if self.store.read(move |tx| tx.network_named(&wanted))?.is_some() {
            return Ok(());
        }
        self.add_network(self.predefined_network(which)?, &[]).map(drop)
    }

    /// A predefined network, without subnets and options.
    pub(super) fn predefined_network(&self, which: Predefined) -> Result<Network> {
        Ok(Network {
            id: NetworkId::from_random(self.random.bytes()?),
            name: which.into(),
            driver: which.driver().to_owned(),
            scope: Scope::Local,
            created: super::now(),
            ipam: crate::model::Ipam::default(),
            subnets: Vec::new(),
            internal: false,
            ipv4: true,
            ipv6: false,
            options: std::collections::BTreeMap::new(),
            labels: std::collections::BTreeMap::new(),
            adopted: false,
        })
    }
}
