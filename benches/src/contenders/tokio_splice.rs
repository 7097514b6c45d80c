//! A plain proxy on the crate tokio-splice: what one gets from it in fifty lines (`relay`). It is part of this binary,
//! which counts against its memory, though only for the pages that it touches.

use std::net::SocketAddr;

use anyhow::ensure;

use super::program::{self, PATIENCE};
use super::{Contender, Programs, TOKIO_SPLICE, Way};
use crate::launch;
use crate::loads::Protocol;
use crate::process::{Process, piped};
use crate::relay;
use crate::topology::Topology;

pub(super) struct TokioSplice;

fn serve(topology: &Topology, from: SocketAddr) -> anyhow::Result<Process> {
    let mut command = launch::role("relay");
    command.arg(from.to_string()).arg(Topology::backend_address().to_string());
    let mut process = Process::start(&topology.host, TOKIO_SPLICE, piped(command))?;
    let said = process.line(PATIENCE)?;
    ensure!(said == relay::READY, "{TOKIO_SPLICE} said {said:?} for {:?}", relay::READY);
    Ok(process)
}

impl Contender for TokioSplice {
    fn name(&self) -> &'static str {
        TOKIO_SPLICE
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(format!("fifty lines on tokio-splice {}, {} threads", relay::CRATE_VERSION, program::cores()))
    }

    fn carries(&self, protocol: Protocol, _: usize) -> bool {
        protocol == Protocol::Tcp
    }

    /// Two sockets, and a pipe for each direction, busy or not.
    fn files_per_connection(&self) -> u64 {
        6
    }

    fn start(&self, topology: &Topology, _: Protocol) -> anyhow::Result<Way> {
        let target = Topology::published_address();
        Ok(Way { target, programs: Programs::of(serve(topology, target)?) })
    }

    fn start_idle(&self, topology: &Topology, count: u16) -> anyhow::Result<Option<Programs>> {
        let mut programs = Programs::none();
        let mut address = Topology::published_address();
        for port in program::idle_ports(count) {
            address.set_port(port);
            programs.push(serve(topology, address)?);
        }
        Ok(Some(programs))
    }
}
