//! What a flood of queries does to the daemon's memory, and to the answers that another sandbox gets meanwhile.
//!
//! A million answers first. Then one sandbox floods, twice, with names that nobody knows and that are to be asked of a server
//! that never answers, while its neighbour asks for names of the network. What the first flood needs may be kept for the next
//! one, which must find it enough.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::daemon::Daemon;
use super::measure::{SETTLE, constant, figure_in};
use super::names::{named_sandboxes, pin, processors};
use super::resolvers::SERVER;
use super::{Amounts, Figure};
use crate::ask::{self, Course, Pace};
use crate::topology::ip;
use crate::usage;

const NAMES: usize = 8;
const WINDOW: usize = 64;
/// What the flood has, each second, and what its neighbour.
const FLOOD: u32 = 20_000;
const NEIGHBOUR: u32 = 1000;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURE: Duration = Duration::from_secs(4);
/// Both ends of the neighbour's measurement are inside the flood.
const LONGER: Duration = Duration::from_secs(7);
/// For the longest that a query may wait.
const FORGET: Duration = Duration::from_secs(6);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// For as many answers as there may be.
const LONG: Duration = Duration::from_secs(120);
/// Where the silent server is.
const SILENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// In MiB: what answering may leave behind, and what a flood may hold.
const LEFT: f64 = 0.5;
const HELD: f64 = 2.0;

pub(super) fn measure(daemon: &mut Daemon, amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    let names = named_sandboxes(daemon, NAMES)?;
    // Its queue is full soon, and then all is dropped.
    let silent = daemon.namespace().run(|| {
        ip(&format!("addr add {SILENT}/32 dev lo\n"))?;
        let silent = UdpSocket::bind((SILENT, 53))?;
        silent.set_nonblocking(true)?;
        Ok(silent)
    })?;
    let dns = SILENT.to_string();
    let flooder =
        ["run", "-d", "--name", "flooder", "--net", "named", "--dns", &dns, "--", "sleep", "infinity"];
    daemon.timed(&flooder)?;
    let [calm, noisy] = ["box0", "flooder"].map(|name| daemon.namespace_of(name));
    let (calm, noisy) = (calm?, noisy?);
    let cpus = processors();
    pin(daemon.pid(), cpus.map(|(server, _)| server))?;
    let cpu = cpus.map(|(_, client)| client);
    let memory = || anyhow::Ok(usage::resident(daemon.pid())? / 1024.0);
    let ask = |inside, names, pace, measure| {
        let course = Course { names, pace, warm_up: WARM_UP, measure, cpu };
        ask::ask(daemon.namespace(), Some(inside), daemon.pid(), SERVER, &course)
    };

    let calmly = ask(&calm, &names, Pace::Rate(NEIGHBOUR), MEASURE)?.end()?;
    let calmly = calmly.p99.context("no answers")?;
    let before = memory()?;
    let many = ask(&calm, &names, Pace::Until(WINDOW, amounts.queries), LONG)?.end()?;
    anyhow::ensure!(many.answers >= amounts.queries, "only {} answers", many.answers);
    thread::sleep(SETTLE);
    let answered = memory()?;

    let (mut most, mut latencies, mut lost) = ([answered; 2], Vec::new(), 0);
    for most in &mut most {
        let flood = ask(&noisy, &[], Pace::Rate(FLOOD), LONGER)?;
        thread::sleep(WARM_UP);
        let began = Instant::now();
        let beside = ask(&calm, &names, Pace::Rate(NEIGHBOUR), MEASURE)?;
        while began.elapsed() < WARM_UP + MEASURE {
            *most = memory()?.max(*most);
            thread::sleep(LOOK_AGAIN);
        }
        let beside = beside.end()?;
        latencies.push(beside.p99.context("no answers")?);
        lost += beside.lost;
        flood.end()?;
        thread::sleep(FORGET);
    }
    silent.recv(&mut [0; 512]).context("nothing of the flood came to the server")?;

    let mib = |what: String, value, at_most| Figure::new(what, "MiB", constant(value), at_most);
    let count = amounts.queries;
    Ok(vec![
        mib("daemon before queries: resident memory".to_owned(), before, None),
        mib(format!("what {count} answers add to it"), answered - before, Some(LEFT)),
        mib("what a flood for a silent server adds".to_owned(), most[0] - answered, Some(HELD)),
        mib("what a second one adds to that".to_owned(), (most[1] - most[0]).max(0.0), Some(LEFT)),
        figure_in("µs", "another sandbox without the flood: p99", vec![calmly], None)?,
        figure_in("µs", "another sandbox beside the flood: p99", latencies, Some(1000.0))?,
        Figure::new("its queries lost", "", constant(lost as f64), Some(0.0)),
    ])
}
