//! What a network needs of its address manager, as one step: the pool, the gateway, the auxiliary addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{AddressRequest, Ipam, IpamError, Pool, PoolId, PoolRequest};

/// The addresses of a network that its user has chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// `--gateway`.
    pub gateway: Option<IpAddr>,
    /// `--aux-address`.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// What a network got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPool {
    /// Its subnet.
    pub pool: Pool,
    /// Its gateway, with the subnet's prefix length. `None` if the manager leaves addresses to the driver.
    pub gateway: Option<IpNet>,
}

/// Requests a pool, then the gateway, then the auxiliary addresses. All of it or nothing: what was got is given back
/// when a later part fails.
///
/// A gateway that nobody chose is taken first, so an auxiliary address can collide with it, as in Docker.
///
/// # Errors
/// The first part's that failed.
pub fn allocate_network(
    ipam: &mut dyn Ipam,
    request: &PoolRequest,
    fixed: &Fixed,
) -> Result<NetworkPool, IpamError> {
    let pool = ipam.request_pool(request)?;
    let mut got = Vec::new();
    match addresses(ipam, &pool, request, fixed, &mut got) {
        Ok(gateway) => Ok(NetworkPool { pool, gateway }),
        Err(error) => {
            // The first failure is the one to report; a manager that can't take back either says so again later.
            let _ = release_network(ipam, &pool.id, got);
            Err(error)
        }
    }
}

/// Gives a network's addresses and its pool back. Goes on after a failure.
///
/// # Errors
/// The first failure.
pub fn release_network(
    ipam: &mut dyn Ipam,
    pool: &PoolId,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Result<(), IpamError> {
    let mut first_failure = Ok(());
    for ip in addresses {
        let released = ipam.release_address(pool, ip);
        first_failure = first_failure.and(released);
    }
    let released = ipam.release_pool(pool);
    first_failure.and(released)
}

/// The gateway and the auxiliary addresses; `got` tells what has to be given back on failure.
fn addresses(
    ipam: &mut dyn Ipam,
    pool: &Pool,
    request: &PoolRequest,
    fixed: &Fixed,
    got: &mut Vec<IpAddr>,
) -> Result<Option<IpNet>, IpamError> {
    let asked = fixed.gateway;
    let mut gateway = pool.gateway;
    if asked.is_some() || gateway.is_none() {
        gateway = ipam
            .request_address(&pool.id, &AddressRequest::Gateway(asked), &request.options)
            .map_err(|cause| IpamError::Gateway { asked, cause: Box::new(cause) })?;
        got.extend(gateway.map(|net| net.addr()));
    }
    for (name, ip) in &fixed.auxiliary {
        ipam.request_address(&pool.id, &AddressRequest::Exactly(*ip), &request.options)
            .map_err(|cause| IpamError::Auxiliary { name: name.clone(), ip: *ip, cause: Box::new(cause) })?;
        got.push(*ip);
    }
    Ok(gateway)
}
