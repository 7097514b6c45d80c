//! The small network that every measurement gets for itself.
//!
//! ```text
//! host namespace                                backend namespace
//!   client ── 127.0.0.1:PORT ── proxy ── br0 10.99.0.1 ══ veth ══ eth0 10.99.0.2:PORT ── backend
//! ```
//!
//! As on a Docker host: the proxy and its client share the host's loopback, the backend sits behind a bridge. Made
//! afresh each time because thousands of TIME_WAIT pairs left by one contender make the next one's connects slow.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::namespace::Namespace;

/// Pacing by the machine's default (BBR, say) would measure the pacing. It is set on the routes, since as the
/// default of a namespace the kernel takes only what the machine's administrator has allowed to everybody.
pub(crate) const CONGESTION_CONTROL: &str = "cubic";
pub(crate) const MTU: u32 = 1500;

/// The bridge in the host namespace.
pub(crate) const BRIDGE_NAME: &str = "br0";
const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const SUBNET: &str = "10.99.0.0/24";
/// Both ports lie below `EPHEMERAL`, so that no outgoing connection can sit on them.
const HOST_PORT: u16 = 8080;
const BACKEND_PORT: u16 = 9000;
/// Wider than the kernel's default: a contender must not run out of ports before the measurement ends.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const EPHEMERAL: &str = "10240 65535";

/// The two namespaces and the link between them.
pub(crate) struct Topology {
    pub(crate) host: Namespace,
    pub(crate) backend: Namespace,
}

impl Topology {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let topology = Self { host: Namespace::new()?, backend: Namespace::new()? };
        let backend_path = topology.backend.path().clone();
        topology.host.run(move || {
            fs::write(PORT_RANGE, EPHEMERAL).with_context(|| format!("can't write to {PORT_RANGE}"))?;
            ip(&host_links(&backend_path))
        })?;
        topology.backend.run(|| ip(&backend_links()))?;
        Ok(topology)
    }

    /// Where the backend listens, and where a client without a proxy goes.
    pub(crate) fn backend_address() -> SocketAddr {
        SocketAddrV4::new(BACKEND, BACKEND_PORT).into()
    }

    /// Where a proxy listens.
    pub(crate) fn published_address() -> SocketAddr {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, HOST_PORT).into()
    }
}

fn host_links(backend: &Path) -> String {
    let backend = backend.display();
    let local = Ipv4Addr::LOCALHOST;
    format!(
        "link set lo up\n\
         route change local {local} dev lo scope host src {local} table local congctl {CONGESTION_CONTROL}\n\
         link add {BRIDGE_NAME} mtu {MTU} type bridge\n\
         addr add {BRIDGE}/24 dev {BRIDGE_NAME}\n\
         link set {BRIDGE_NAME} up\n\
         route change {SUBNET} dev {BRIDGE_NAME} src {BRIDGE} congctl {CONGESTION_CONTROL}\n\
         link add veth0 mtu {MTU} type veth peer name eth0 mtu {MTU} netns {backend}\n\
         link set veth0 master {BRIDGE_NAME} up\n"
    )
}

fn backend_links() -> String {
    format!(
        "addr add {BACKEND}/24 dev eth0\n\
         link set eth0 up\n\
         route change {SUBNET} dev eth0 src {BACKEND} congctl {CONGESTION_CONTROL}\n"
    )
}

/// Runs a batch of iproute2's commands in the namespace of the thread that calls.
pub(crate) fn ip(batch: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("can't run `ip` (package iproute2)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
