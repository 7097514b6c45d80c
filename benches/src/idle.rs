//! What waiting costs: many published ports at once, none of them used, as on a host with many containers.
//!
//! A program made so is started once for each port, as dockerd does; HAProxy and nginx have all ports in one, as their
//! administrators do. The memory is divided by the ports either way.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::contenders::Contender;
use crate::topology::Topology;
use crate::usage::Memory;

pub(crate) const NAME: &str = "idle";
pub(crate) const TITLE: &str = "memory and start-up time of 400 idle proxies";
/// How many run at once.
const COUNT: u16 = 400;

/// Means over the ports of one contender that were published at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Idle {
    pub(crate) ports: u16,
    pub(crate) memory_each: Memory,
    /// From the start of one until it serves; they are started one after the other, as dockerd does. Includes about
    /// a millisecond of the bench's own.
    pub(crate) start_ms: f64,
}

/// None for a contender without processes.
pub(crate) fn measure(contender: &dyn Contender) -> anyhow::Result<Option<Idle>> {
    let topology = Topology::new()?;
    let start = Instant::now();
    let Some(programs) = contender.start_idle(&topology, COUNT)? else { return Ok(None) };
    let count = f64::from(COUNT);
    let start_ms = start.elapsed().as_secs_f64() * 1e3 / count;
    let all = Memory::of_trees(programs.roots())?;
    let memory_each = Memory { pss: all.pss / count, uss: all.uss / count, peak_rss: all.peak_rss / count };
    Ok(Some(Idle { ports: COUNT, memory_each, start_ms }))
}
