//! No proxy: the client connects to the backend's own address, over the bridge. What is lost beyond this is the
//! price of publishing a port.

use super::{Contender, DIRECT, Programs, Way};
use crate::loads::Protocol;
use crate::topology::Topology;

pub(super) struct Direct;

impl Contender for Direct {
    fn name(&self) -> &'static str {
        DIRECT
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok("the backend's own address, over the bridge".to_owned())
    }

    fn start(&self, _: &Topology, _: Protocol) -> anyhow::Result<Way> {
        Ok(Way { target: Topology::backend_address(), programs: Programs::none() })
    }

    fn start_idle(&self, _: &Topology, _: u16) -> anyhow::Result<Option<Programs>> {
        Ok(None)
    }
}
