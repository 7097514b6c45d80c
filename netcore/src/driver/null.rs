//! A network on which nobody reaches anybody: sandboxes with nothing but loopback.

use super::{Driver, DriverError};
use crate::ipam::SubnetConfig;
use crate::model::Network;

/// The driver `null`.
#[derive(Clone, Copy, Debug)]
pub struct Null;

impl Driver for Null {
    fn name(&self) -> &'static str {
        "null"
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
