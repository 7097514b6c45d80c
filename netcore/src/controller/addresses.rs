//! The address manager's state, in memory: what is taken, so that an address costs the same however many there are.
//!
//! What an operation gets is claimed first and becomes a fact in its transaction. A claim that is dropped gives
//! everything back; one that is kept leaves it taken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::Result;
use crate::ipam::{
    AddressRequest, DefaultIpam, Fixed, Ipam, IpamError, NetworkPool, Options, PoolId, PoolRequest,
    PoolStatus, allocate_network,
};

/// All addresses of a daemon.
#[derive(Debug)]
pub(super) struct Addresses {
    ipam: Mutex<DefaultIpam>,
    /// Addresses whose interface couldn't be removed. They are free when it is.
    stuck: Mutex<Vec<(PoolId, IpAddr)>>,
    /// Of the pools that were made in this life of the daemon, the addresses that somebody has had. What was before is not
    /// known.
    past: Mutex<BTreeMap<PoolId, BTreeSet<IpAddr>>>,
}

/// What an operation has got.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    addresses: &'a Addresses,
    pools: Vec<PoolId>,
    taken: Vec<(PoolId, IpAddr)>,
}

impl Addresses {
    pub(super) fn new(ipam: DefaultIpam) -> Self {
        Self { ipam: Mutex::new(ipam), stuck: Mutex::default(), past: Mutex::default() }
    }

    /// A claim to nothing yet.
    pub(super) const fn claim(&self) -> Claim<'_> {
        Claim { addresses: self, pools: Vec::new(), taken: Vec::new() }
    }

    pub(super) fn restore(
        &self,
        pool: &PoolId,
        taken: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), IpamError> {
        self.ipam().restore(pool, taken)
    }

    /// Gives an address back.
    pub(super) fn release(&self, pool: &PoolId, ip: IpAddr) {
        if let Err(error) = self.ipam().release_address(pool, ip) {
            tracing::warn!(%pool, %ip, %error, "an address can't be given back");
        }
        if let Some(past) = self.past().get_mut(pool) {
            past.insert(ip);
        }
    }

    /// Gives a pool back, with all its addresses.
    pub(super) fn release_pool(&self, pool: &PoolId) {
        if let Err(error) = self.ipam().release_pool(pool) {
            tracing::warn!(%pool, %error, "a pool can't be given back");
        }
        self.past().remove(pool);
    }

    /// Whether somebody may have had the address, and others may still take it for theirs.
    fn is_known(&self, pool: &PoolId, ip: IpAddr) -> bool {
        self.past().get(pool).is_none_or(|past| past.contains(&ip))
    }

    /// Keeps addresses from being used until what has them is gone.
    pub(super) fn hold(&self, taken: impl IntoIterator<Item = (PoolId, IpAddr)>) {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).extend(taken);
    }

    /// Gives held addresses back: what had them is gone.
    pub(super) fn release_held(&self) {
        let held = std::mem::take(&mut *self.stuck.lock().unwrap_or_else(PoisonError::into_inner));
        for (pool, ip) in held {
            self.release(&pool, ip);
        }
    }

    pub(super) fn status(&self, pool: &PoolId) -> Option<PoolStatus> {
        self.ipam().status(pool)
    }

    fn past(&self) -> MutexGuard<'_, BTreeMap<PoolId, BTreeSet<IpAddr>>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ipam(&self) -> MutexGuard<'_, DefaultIpam> {
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim<'_> {
    /// A subnet for a network, with its gateway and its auxiliary addresses.
    pub(super) fn pool(&mut self, request: &PoolRequest, fixed: &Fixed) -> Result<NetworkPool, IpamError> {
        let got = allocate_network(&mut *self.addresses.ipam(), request, fixed)?;
        self.pools.push(got.pool.id.clone());
        Ok(got)
    }

    /// An address for an endpoint.
    pub(super) fn address(&mut self, pool: &PoolId, ip: Option<IpAddr>) -> Result<Option<IpNet>, IpamError> {
        let request = ip.map_or(AddressRequest::Any, AddressRequest::Exactly);
        let got = self.addresses.ipam().request_address(pool, &request, &Options::new())?;
        self.taken.extend(got.map(|net| (pool.clone(), net.addr())));
        Ok(got)
    }

    /// The endpoint addresses of this claim.
    pub(super) fn taken(&self) -> &[(PoolId, IpAddr)] {
        &self.taken
    }

    /// What was got is used from now on. The endpoint addresses that others may know as somebody else's: these are worth
    /// an announcement. It goes to every port of a bridge, so where nobody needs it, it would only make starts on a full
    /// bridge slow (2 ms each on one with 500 ports).
    pub(super) fn keep(mut self) -> Vec<IpAddr> {
        self.addresses.past().extend(self.pools.drain(..).map(|pool| (pool, BTreeSet::new())));
        let taken = std::mem::take(&mut self.taken).into_iter();
        taken.filter(|(pool, ip)| self.addresses.is_known(pool, *ip)).map(|(_, ip)| ip).collect()
    }

    /// After a failure. Facts that couldn't be put back have what was got, so it stays taken. If something with these
    /// addresses couldn't be removed, they aren't used, but aren't free either.
    pub(super) fn settle(mut self, facts_restored: bool, kernel_restored: bool) {
        if !facts_restored {
            self.keep();
        } else if !kernel_restored {
            self.addresses.hold(std::mem::take(&mut self.taken));
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        for (pool, ip) in &self.taken {
            self.addresses.release(pool, *ip);
        }
        for pool in &self.pools {
            self.addresses.release_pool(pool);
        }
    }
}
