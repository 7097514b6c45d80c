//! `bench serve`: the backend's process.
//!
//! Says `ready` when it listens. Answers the line `received` on its standard input with how many datagrams of the
//! measurement have arrived, and ends when that input ends.

use std::io::{BufRead, Write, stdin, stdout};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use nix::unistd::Pid;

use crate::launch;
use crate::loads::{self, Load};
use crate::namespace::Namespace;
use crate::process::{Process, piped};
use crate::topology::Topology;

pub(crate) const READY: &str = "ready";
const RECEIVED: &str = "received";
/// Once nothing arrives for so long, what was under way has come or is lost.
const QUIET: Duration = Duration::from_millis(50);
/// More than the backend ever needs to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The hidden subcommand.
#[derive(Args)]
pub(crate) struct Serve {
    load: String,
    address: SocketAddr,
}

impl Serve {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let load = loads::find(&self.load).with_context(|| format!("there is no load {:?}", self.load))?;
        let received = Arc::new(AtomicU64::new(0));
        load.serve(self.address, Arc::clone(&received))
            .with_context(|| format!("can't serve on {}", self.address))?;
        writeln!(stdout(), "{READY}")?;
        for line in stdin().lock().lines() {
            if line? == RECEIVED {
                writeln!(stdout(), "{}", settled(&received))?;
            }
        }
        Ok(())
    }
}

fn settled(received: &AtomicU64) -> u64 {
    let mut seen = received.load(Ordering::Relaxed);
    loop {
        thread::sleep(QUIET);
        let now = received.load(Ordering::Relaxed);
        if now == seen {
            return now;
        }
        seen = now;
    }
}

/// The harness's end of a backend process.
pub(crate) struct Backend(Process);

impl Backend {
    pub(crate) fn start(topology: &Topology, load: &Load) -> anyhow::Result<Self> {
        Self::start_by(launch::role("serve"), &topology.backend, load, Topology::backend_address())
    }

    /// With a command for the role that is started from `namespace`, and may lead elsewhere from there.
    pub(crate) fn start_by(
        mut command: Command,
        namespace: &Namespace,
        load: &Load,
        address: SocketAddr,
    ) -> anyhow::Result<Self> {
        command.arg(load.name).arg(address.to_string());
        let mut process = Process::start(namespace, "the backend", piped(command))?;
        let ready = process.line(PATIENCE)?;
        anyhow::ensure!(ready == READY, "the backend said {ready:?} for {READY:?}");
        Ok(Self(process))
    }

    pub(crate) fn pid(&self) -> Pid {
        self.0.pid()
    }

    /// How many datagrams of the measurement arrived, once no more are coming.
    pub(crate) fn received(&mut self) -> anyhow::Result<u64> {
        self.0.tell(RECEIVED)?;
        Ok(self.0.line(PATIENCE)?.parse()?)
    }
}
