//! What a packet to a published port costs on a host that publishes nothing else, and on one that publishes very much.
//!
//! ```text
//! remote namespace                    the daemon's namespace                     a sandbox
//!   client ── eth0 192.0.2.2 ══ out0 192.0.2.1:8080 ── rules ── portmap0 ══ eth0 :9000 ── backend
//! ```
//!
//! The hosts that are compared are there at the same time and take turns, so whatever else the machine does hits them
//! alike. On the full ones the port that is measured was published last.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::daemon::Daemon;
use super::measure::{figure, figure_in};
use super::{Amounts, Figure};
use crate::drive::{Course, drive};
use crate::loads::{self, Load};
use crate::namespace::Namespace;
use crate::serve::Backend;
use crate::stats::Summary;
use crate::topology::ip;
use crate::{launch, process};

/// How much more a connection may cost on a full host before it isn't the same any more: what runs differ by anyway.
const ALIKE: f64 = 1.1;
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PUBLISHED: SocketAddr = SocketAddr::new(IpAddr::V4(HOST), 8080);
const BACKEND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9000);
/// The first port of those that fill a host; below the ports of outgoing connections.
const FIRST: usize = 20_000;
/// Sandboxes that share what fills a host.
const TENANTS: usize = 10;
const WARM_UP: Duration = Duration::from_millis(100);
const MEASURE: Duration = Duration::from_millis(500);

/// A way to publish.
struct Kind {
    name: &'static str,
    flags: &'static [&'static str],
    /// Whether a proxy stands behind each port: then ranges fill the host, a process each. They are shifted, so
    /// that the kernel still has every port on its own.
    ranges: bool,
    /// Whether the way must not get longer.
    constant: bool,
    /// Which part of the ports are enough: iptables takes minutes to take rules out of ten thousand.
    part: usize,
}

const KINDS: [Kind; 3] = [
    Kind { name: "nftables", flags: &["--firewall-backend=nftables"], ranges: true, constant: true, part: 1 },
    Kind {
        name: "nftables, no proxies",
        flags: &["--firewall-backend=nftables", "--userland-proxy=false"],
        ranges: false,
        constant: true,
        part: 1,
    },
    Kind {
        name: "iptables, no proxies",
        flags: &["--firewall-backend=iptables", "--userland-proxy=false"],
        ranges: false,
        constant: false,
        part: 5,
    },
];

/// A host, its neighbour, and what was measured between them.
struct Site {
    // What runs in a namespace goes before it.
    connects: Backend,
    floods: Backend,
    remote: Namespace,
    daemon: Daemon,
    latencies: Vec<f64>,
    packets: Vec<f64>,
    published: Vec<f64>,
    withdrawn: Vec<f64>,
}

pub(super) fn measure(bin_dir: &Path, amounts: Amounts) -> anyhow::Result<Vec<Figure>> {
    // Every port is a descriptor of the daemon's.
    process::raise_open_files().context("can't raise the limit of open files")?;
    let mut figures = Vec::new();
    for kind in &KINDS {
        let empty = Site::new(bin_dir, kind, 0)?;
        let ports = amounts.ports / kind.part;
        let full = Site::new(bin_dir, kind, ports)?;
        let mut sites = [empty, full];
        // Before the traffic: what the kernel remembers of that for a while makes a port's end cost more.
        for step in [Site::publish, Site::measure] {
            for round in 0..amounts.publishings {
                sites.rotate_left(round % 2);
                sites.iter_mut().try_for_each(step)?;
                sites.rotate_left(round % 2);
            }
        }
        figures.extend(of(kind, ports, sites)?);
    }
    Ok(figures)
}

fn of(kind: &Kind, ports: usize, [empty, full]: [Site; 2]) -> anyhow::Result<Vec<Figure>> {
    let Kind { name, constant: bounded, .. } = kind;
    let ratio = |of: &[f64], to: &[f64]| {
        let median = |values: &[f64]| Summary::of(values.iter().copied()).map(|one| one.median);
        let ratios = of.iter().zip(to).map(|(of, to)| of / to);
        let each = Summary::of(ratios).context("nothing was measured")?;
        let median = median(of).zip(median(to)).map_or(each.median, |(of, to)| of / to);
        anyhow::Ok(Summary { median, ..each })
    };
    let longer = ratio(&full.latencies, &empty.latencies)?;
    let faster = ratio(&full.packets, &empty.packets)?;
    let bound = bounded.then_some(ALIKE);
    Ok(vec![
        figure_in("µs", &format!("{name}: a connection to the only published port"), empty.latencies, None)?,
        figure_in("µs", &format!("{name}: to one of {ports} more"), full.latencies, None)?,
        Figure::new(format!("{name}: that against the other"), "times", longer, bound),
        figure_in("1/s", &format!("{name}: datagrams through the only one"), empty.packets, None)?,
        figure_in("1/s", &format!("{name}: through one of {ports} more"), full.packets, None)?,
        Figure::new(format!("{name}: that against the other"), "times", faster, None),
        figure(&format!("{name}: publish one more port"), empty.published, None)?,
        figure(&format!("{name}: publish one more to {ports}"), full.published, None)?,
        figure(&format!("{name}: unpublish it"), empty.withdrawn, None)?,
        figure(&format!("{name}: unpublish it of {ports}"), full.withdrawn, None)?,
    ])
}

impl Site {
    fn new(bin_dir: &Path, kind: &Kind, ports: usize) -> anyhow::Result<Self> {
        let daemon = Daemon::start(bin_dir, kind.flags).context("can't start the daemon under test")?;
        let remote = Namespace::new()?;
        let far = remote.path().display().to_string();
        daemon.namespace().run(move || {
            ip(&format!(
                "link add out0 type veth peer name eth0 netns {far}\naddr add {HOST}/24 dev out0\nlink set out0 up\n"
            ))
        })?;
        remote.run(|| ip("link set lo up\naddr add 192.0.2.2/24 dev eth0\nlink set eth0 up\n"))?;
        fill(&daemon, kind, ports)?;
        daemon.timed(&["run", "-d", "--name", "web", "--", "sleep", "infinity"])?;
        daemon.timed(&["publish", "web", "-p", "8080:9000", "-p", "8080:9000/udp"])?;
        let inside = daemon.namespace_of("web")?;
        let backend = |load: &Load| {
            let mut command = launch::command(Path::new("nsenter"));
            command.arg(format!("--net={}", inside.display())).arg(std::env::current_exe()?).arg("serve");
            Backend::start_by(command, daemon.namespace(), load, BACKEND)
        };
        let (connects, floods) = (backend(load("connect")?)?, backend(load("udp-flood")?)?);
        Ok(Self {
            connects,
            floods,
            remote,
            daemon,
            latencies: Vec::new(),
            packets: Vec::new(),
            published: Vec::new(),
            withdrawn: Vec::new(),
        })
    }

    fn measure(&mut self) -> anyhow::Result<()> {
        let course = |backend: &Backend| Course {
            warm_up: WARM_UP,
            measure: MEASURE,
            backend: backend.pid(),
            proxy: &[],
        };
        let connected = drive(&self.remote, load("connect")?, PUBLISHED, &course(&self.connects))?;
        self.latencies.push(connected.p50.context("no connection came through")?);
        let before = self.floods.received()?;
        let flooded = drive(&self.remote, load("udp-flood")?, PUBLISHED, &course(&self.floods))?;
        let arrived = self.floods.received()? - before;
        ensure!(arrived > 0, "no datagram came through");
        self.packets.push(arrived as f64 / flooded.seconds);
        Ok(())
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        self.published.push(self.daemon.timed(&["publish", "web", "-p", "8081:81"])?.0);
        self.withdrawn.push(self.daemon.timed(&["unpublish", "web", "-p", "8081:81"])?.0);
        Ok(())
    }
}

/// Publishes so many ports of some sandboxes, on one family's addresses: each takes a descriptor.
fn fill(daemon: &Daemon, kind: &Kind, ports: usize) -> anyhow::Result<()> {
    let each = ports / TENANTS;
    for tenant in (0..TENANTS).filter(|_| each > 0) {
        let name = format!("tenant{tenant}");
        daemon.timed(&["run", "-d", "--name", &name, "--", "sleep", "infinity"])?;
        let first = FIRST + tenant * each;
        let specs: Vec<String> = if kind.ranges {
            let last = first + each - 1;
            vec![format!("0.0.0.0:{first}-{last}:{}-{}", first + 1, last + 1)]
        } else {
            (first..first + each).map(|port| format!("0.0.0.0:{port}:80")).collect()
        };
        let mut words = vec!["publish", &name];
        words.extend(specs.iter().flat_map(|spec| ["-p", spec]));
        daemon.timed(&words)?;
    }
    Ok(())
}

fn load(name: &str) -> anyhow::Result<&'static Load> {
    loads::find(name).with_context(|| format!("there is no load {name:?}"))
}
