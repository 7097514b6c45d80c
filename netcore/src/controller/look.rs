//! What is behind the facts just now, for those who ask why something works or doesn't.

use super::Controller;
use crate::driver::bridge;
use crate::model::{IfName, Network, Publication};

impl Controller {
    /// What is held of the host's ports, each with a process id of its proxy; `None` where there is none just now, or none is
    /// wanted.
    pub fn proxies(&self) -> Vec<(Publication, Option<u32>)> {
        self.0.keeper.proxies()
    }

    /// The host's end of a bridge network.
    pub fn bridge_of(&self, network: &Network) -> IfName {
        bridge::device(network)
    }
}
