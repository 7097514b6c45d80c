//! The host's own stack as a network, so that sandboxes without one of their own are on some network too.

use super::{Driver, DriverError};
use crate::ipam::SubnetConfig;
use crate::model::Network;

/// The driver `host`.
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Driver for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn is_single(&self) -> bool {
        true
    }

    fn has_addresses(&self) -> bool {
        false
    }

    fn check(&self, _network: &Network, _subnets: &[SubnetConfig]) -> Result<(), DriverError> {
        Ok(())
    }
}
