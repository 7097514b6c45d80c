//! What waiting connections cost: ten thousand through one proxy, each used once and then left alone. Fewer where a
//! process may not have so many files open: each connection is two or more for a proxy.
//!
//! Every connection has one round trip first. So it is known to reach the backend, and what a proxy makes lazily is
//! made: memory that only an untouched connection saves would flatter it. `bench hold` is the client's process; it says in a
//! line of JSON how long connecting took, and holds on until its standard input ends.

use std::io::{self, BufRead, Read, Write, stdin, stdout};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::contenders::Contender;
use crate::launch;
use crate::loads::{self, Load, MESSAGE, Protocol};
use crate::process::{self, Process, piped};
use crate::serve::Backend;
use crate::topology::Topology;
use crate::usage::Memory;

pub(crate) const NAME: &str = "conns";
pub(crate) const TITLE: &str =
    "memory of 10,000 idle connections, or as many as the limit of open files allows";
/// How many there are at once.
const COUNT: usize = 10_000;
/// What else a process has open.
const OTHER_FILES: u64 = 1000;
/// So many are made at a time.
const THREADS: usize = 4;
/// Whose backend serves: many connections, an echo.
const LOAD: &str = "rr-1000";
/// For everybody's connections to be made, even by a slow proxy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a proxy has to notice that nothing is going on.
const SETTLE: Duration = Duration::from_millis(800);

/// Memory of one contender before and while it held the connections.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Crowd {
    pub(crate) connections: usize,
    pub(crate) before: Memory,
    pub(crate) during: Memory,
    /// Connections per second while they were made, a round trip for each included.
    pub(crate) rate: f64,
}

impl Crowd {
    /// The proxy's own memory for one connection, in KiB.
    pub(crate) fn memory_each(&self) -> f64 {
        (self.during.uss - self.before.uss) / self.connections as f64
    }
}

/// None for a contender without processes, or one that isn't made for so many.
pub(crate) fn measure(contender: &dyn Contender) -> anyhow::Result<Option<Crowd>> {
    let count = count(process::open_files()?, contender.files_per_connection());
    if !contender.carries(Protocol::Tcp, count) {
        return Ok(None);
    }
    let topology = Topology::new()?;
    let load: &Load = loads::find(LOAD).context("the load of idle connections is gone")?;
    let _backend = Backend::start(&topology, load)?;
    let mut way = contender.start(&topology, Protocol::Tcp)?;
    if way.programs.roots().is_empty() {
        return Ok(None);
    }
    let before = Memory::of_trees(way.programs.roots())?;
    let mut command = launch::role("hold");
    command.arg(way.target.to_string()).arg(count.to_string());
    let mut client = Process::start(&topology.host, "the client", piped(command))?;
    let line = client.line(PATIENCE);
    way.programs.expect_alive()?;
    let seconds: Result<f64, String> = serde_json::from_str(&line?)?;
    let seconds = seconds.map_err(anyhow::Error::msg)?;
    thread::sleep(SETTLE);
    let during = Memory::of_trees(way.programs.roots())?;
    Ok(Some(Crowd { connections: count, before, during, rate: count as f64 / seconds }))
}

/// In whole thousands.
fn count(open_files: u64, files_per_connection: u64) -> usize {
    let room = open_files.saturating_sub(OTHER_FILES) / files_per_connection;
    let room = usize::try_from(room).unwrap_or(COUNT);
    COUNT.min(room / 1000 * 1000).max(100)
}

/// The hidden subcommand.
#[derive(Args)]
pub(crate) struct Hold {
    target: SocketAddr,
    count: usize,
}

impl Hold {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let start = Instant::now();
        let held = self.connect().map_err(|error| format!("{error:#}"));
        let seconds = held.as_ref().map(|_| start.elapsed().as_secs_f64());
        writeln!(stdout(), "{}", serde_json::to_string(&seconds)?)?;
        for line in stdin().lock().lines() {
            line?;
        }
        Ok(())
    }

    fn connect(&self) -> anyhow::Result<Vec<Socket>> {
        let share = |thread: usize| (thread..self.count).step_by(THREADS);
        thread::scope(|scope| {
            let connect = |thread| {
                let target = self.target;
                scope.spawn(move || share(thread).map(|_| connected(target)).collect::<io::Result<Vec<_>>>())
            };
            let threads: Vec<_> = (0..THREADS).map(connect).collect();
            let mut held = Vec::with_capacity(self.count);
            for thread in threads {
                held.extend(thread.join().map_err(|_| anyhow!("a thread panicked"))??);
            }
            ensure!(held.len() == self.count, "{} connections of {}", held.len(), self.count);
            Ok(held)
        })
    }
}

/// A connection after its round trip.
fn connected(target: SocketAddr) -> io::Result<Socket> {
    let mut socket = loads::connect(Protocol::Tcp, target)?;
    socket.write_all(&[0x5a; MESSAGE])?;
    socket.read_exact(&mut [0; MESSAGE])?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_files_allow() {
        let count_of = |files| move |limit| count(limit, files);
        assert_eq!([1_048_576, 21_000, 20_000, 1024].map(count_of(2)), [10_000, 10_000, 9_000, 100]);
        assert_eq!([1_048_576, 20_000].map(count_of(6)), [10_000, 3_000]);
    }
}
