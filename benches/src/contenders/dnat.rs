//! No proxy but the kernel: what dockerd with `"userland-proxy": false` does for a client on the host itself.
//!
//! The client goes to the published address on the loopback, as it does with every proxy; a rule in OUTPUT sends the
//! packets on to the backend, and masquerading makes their source one that the backend can answer. For that the bridge must
//! accept loopback addresses (`route_localnet`). The alternative, publishing on another address of the host, would
//! spare the masquerading, but then the contenders wouldn't be asked for the same. The kernel's work is on the
//! clocks of client and backend; there is no process to count CPU time or memory of.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::{Contender, DNAT, Programs, Way, program};
use crate::loads::Protocol;
use crate::topology::{BRIDGE_NAME, Topology};

pub(super) struct Dnat {
    nft: PathBuf,
}

impl Dnat {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { nft: program::find("nft", "nftables")? })
    }
}

impl Contender for Dnat {
    fn name(&self) -> &'static str {
        DNAT
    }

    fn version(&self) -> anyhow::Result<String> {
        Ok("the kernel's address translation, from nftables rules as dockerd's without a userland proxy"
            .to_owned())
    }

    fn start(&self, topology: &Topology, protocol: Protocol) -> anyhow::Result<Way> {
        let target = Topology::published_address();
        let (nft, rules) = (self.nft.clone(), rules(protocol, target, Topology::backend_address()));
        topology.host.run(move || {
            let route = format!("/proc/sys/net/ipv4/conf/{BRIDGE_NAME}/route_localnet");
            fs::write(&route, "1").with_context(|| format!("can't write to {route}"))?;
            load(&nft, &rules)
        })?;
        Ok(Way { target, programs: Programs::none() })
    }

    fn start_idle(&self, _: &Topology, _: u16) -> anyhow::Result<Option<Programs>> {
        Ok(None)
    }
}

fn rules(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> String {
    format!(
        "table ip bench {{\n\
         \x20 chain output {{\n\
         \x20   type nat hook output priority -100;\n\
         \x20   ip daddr {} {} dport {} dnat to {to}\n\
         \x20 }}\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority 100;\n\
         \x20   oifname {BRIDGE_NAME} ip saddr 127.0.0.0/8 masquerade\n\
         \x20 }}\n\
         }}\n",
        from.ip(),
        protocol.name(),
        from.port(),
    )
}

/// Loads rules into the namespace of the thread that calls.
fn load(nft: &Path, rules: &str) -> anyhow::Result<()> {
    let mut child = Command::new(nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {}", nft.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::check_golden;

    #[test]
    fn rules_of_a_published_port() {
        let (from, to) = (Topology::published_address(), Topology::backend_address());
        check_golden("dnat.nft", &rules(Protocol::Udp, from, to));
    }
}
