//! socat with `fork`: a process for each connection, which is how it is commonly used to forward a port. Its 8 KiB
//! buffers are left as they are. Not where there are so many connections that it would measure forking.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::program::{self, Forks, Scratch, Start};
use super::{Contender, Programs, SOCAT, Way};
use crate::launch;
use crate::loads::Protocol;
use crate::topology::Topology;

const MAX_CONNECTIONS: usize = 100;

pub(super) struct Socat {
    program: PathBuf,
}

impl Socat {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { program: program::find("socat", "socat")? })
    }

    fn serve(&self, topology: &Topology, from: SocketAddr) -> anyhow::Result<Programs> {
        let to = Topology::backend_address();
        let mut command = launch::sealed_command(&self.program);
        command.arg(format!(
            "TCP4-LISTEN:{},bind={},reuseaddr,backlog=1024,nodelay,fork",
            from.port(),
            from.ip()
        ));
        command.arg(format!("TCP4:{to},nodelay"));
        let how =
            Start { name: SOCAT, protocol: Protocol::Tcp, ports: &[from.port()], forks: Forks::Connections };
        Scratch::new()?.start(topology, &how, command)
    }
}

impl Contender for Socat {
    fn name(&self) -> &'static str {
        SOCAT
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok(program::version(&self.program, "a process for each connection"))
    }

    fn carries(&self, protocol: Protocol, connections: usize) -> bool {
        protocol == Protocol::Tcp && connections <= MAX_CONNECTIONS
    }

    fn start(&self, topology: &Topology, _: Protocol) -> anyhow::Result<Way> {
        let target = Topology::published_address();
        Ok(Way { target, programs: self.serve(topology, target)? })
    }

    fn start_idle(&self, topology: &Topology, count: u16) -> anyhow::Result<Option<Programs>> {
        let mut programs = Programs::none();
        let mut address = Topology::published_address();
        for port in program::idle_ports(count) {
            address.set_port(port);
            programs.join(self.serve(topology, address)?);
        }
        Ok(Some(programs))
    }
}
