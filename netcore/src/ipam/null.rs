//! The manager of networks without addresses: `host` and `none`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::prefix::Family;
use super::{AddressRequest, Ipam, IpamError, Options, Pool, PoolChoice, PoolId, PoolRequest};

const ID: &str = "null/0.0.0.0/0";

/// The `null` manager: one pool for everybody, and no address in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullIpam;

impl Ipam for NullIpam {
    fn request_pool(&mut self, request: &PoolRequest) -> Result<Pool, IpamError> {
        match request.choice {
            PoolChoice::Default(Family::V4) => Ok(Pool {
                id: PoolId::new(ID),
                subnet: IpNet::new(Family::V4.unspecified(), 0).expect("0 is a prefix length"),
                gateway: None,
            }),
            _ => Err(IpamError::NullPool),
        }
    }

    fn release_pool(&mut self, pool: &PoolId) -> Result<(), IpamError> {
        known(pool)
    }

    fn request_address(
        &mut self,
        pool: &PoolId,
        _request: &AddressRequest,
        _options: &Options,
    ) -> Result<Option<IpNet>, IpamError> {
        known(pool).map(|()| None)
    }

    fn release_address(&mut self, pool: &PoolId, _ip: IpAddr) -> Result<(), IpamError> {
        known(pool)
    }
}

fn known(pool: &PoolId) -> Result<(), IpamError> {
    if pool.as_str() == ID { Ok(()) } else { Err(IpamError::UnknownPool(pool.to_string())) }
}
