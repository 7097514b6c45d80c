//! HAProxy in TCP mode, as an administrator would set it up for this: a thread for each core, splicing where it
//! thinks that this pays, room for many connections, no logs. Buffers are left at their defaults.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::program::{self, Forks, Scratch, Start};
use super::{Contender, HAPROXY, Programs, Way};
use crate::launch;
use crate::loads::Protocol;
use crate::process;
use crate::topology::Topology;

/// More than any load has connections, if the limit of open files has room for them: HAProxy insists on it.
const MAX_CONNECTIONS: u64 = 30_000;
/// For splicing: more than any load has busy connections, two a connection.
const MAX_PIPES: u64 = 200;
/// What HAProxy has open otherwise, about.
const OTHER_FILES: u64 = 1000;

pub(super) struct HaProxy {
    program: PathBuf,
}

impl HaProxy {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { program: program::find("haproxy", "haproxy")? })
    }

    fn serve(&self, topology: &Topology, ports: &[u16]) -> anyhow::Result<Programs> {
        let scratch = Scratch::new()?;
        let (from, to) = (Topology::published_address(), Topology::backend_address());
        let room = process::open_files()?.saturating_sub(MAX_PIPES * 2 + OTHER_FILES) / 2;
        let limits = Limits { threads: program::cores(), connections: room.min(MAX_CONNECTIONS) };
        let config = scratch.file("haproxy.cfg", &config(&limits, from, ports, to))?;
        let mut command = launch::command(&self.program);
        command.args(["-db", "-f"]).arg(config);
        let how = Start { name: HAPROXY, protocol: Protocol::Tcp, ports, forks: Forks::Never };
        scratch.start(topology, &how, command)
    }
}

impl Contender for HaProxy {
    fn name(&self) -> &'static str {
        HAPROXY
    }

    fn version(&self) -> anyhow::Result<String> {
        let settings = format!("mode tcp, {} threads, splice-auto, no logs", program::cores());
        Ok(program::version(&self.program, &settings))
    }

    fn carries(&self, protocol: Protocol, _: usize) -> bool {
        protocol == Protocol::Tcp
    }

    fn start(&self, topology: &Topology, _: Protocol) -> anyhow::Result<Way> {
        let target = Topology::published_address();
        Ok(Way { target, programs: self.serve(topology, &[target.port()])? })
    }

    /// One process has all the ports.
    fn start_idle(&self, topology: &Topology, count: u16) -> anyhow::Result<Option<Programs>> {
        self.serve(topology, &program::idle_ports(count)).map(Some)
    }
}

struct Limits {
    threads: usize,
    connections: u64,
}

fn config(limits: &Limits, from: SocketAddr, ports: &[u16], to: SocketAddr) -> String {
    let Limits { threads, connections } = limits;
    let mut text = format!(
        "global\n\
         \x20 nbthread {threads}\n\
         \x20 maxconn {connections}\n\
         \x20 maxpipes {MAX_PIPES}\n\
         defaults\n\
         \x20 mode tcp\n\
         \x20 maxconn {connections}\n\
         \x20 option splice-auto\n\
         \x20 timeout connect 5s\n\
         \x20 timeout client 10m\n\
         \x20 timeout server 10m\n"
    );
    for port in ports {
        // Writing to a string doesn't fail.
        let _ = write!(text, "listen published-{port}\n  bind {}:{port}\n  server backend {to}\n", from.ip());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::check_golden;

    #[test]
    fn configuration_with_two_ports() {
        let limits = Limits { threads: 2, connections: 9500 };
        let (from, to) = (Topology::published_address(), Topology::backend_address());
        check_golden("haproxy.cfg", &config(&limits, from, &[5001, 5002], to));
    }
}
