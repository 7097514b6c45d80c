//! What a link on the default network tells who has it: variables of the environment and lines of `/etc/hosts`.
//!
//! Not here: which links there are (`store`), and links on other networks, which are names of the embedded server.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::hosts;
use crate::model::PortsConfig;
use crate::publish::{ExposedProto, PortRange, Proto};

/// Variables of a provider that no consumer gets: they would be a lie about itself.
const OWN: [&str; 2] = ["HOME", "PATH"];

/// A link, and what its variables follow from.
#[derive(Clone, Copy, Debug)]
pub struct Linked<'a> {
    /// The name of who has the link.
    pub consumer: &'a str,
    /// What it calls the other one.
    pub alias: &'a str,
    /// The provider's address on the default network; without one no port is told.
    pub address: Option<Ipv4Addr>,
    /// The provider's exposed ports, as [`exposed`] gives them.
    pub ports: &'a [(Proto, PortRange)],
    /// What is copied of the provider's environment: `NAME=value`, the last one of a name counts.
    pub environment: &'a [String],
}

/// The exposed ports of a sandbox: `--expose` and the sandbox's side of `-p`, as runs that are as long as can be. TCP comes
/// first, then the other protocols by name. A port of a protocol that can't be published is left out.
pub fn exposed(ports: &PortsConfig) -> Vec<(Proto, PortRange)> {
    let exposed = ports.expose.iter().filter_map(|spec| match spec.proto() {
        ExposedProto::Known(proto) => Some((*proto, spec.ports())),
        ExposedProto::Other(_) => None,
    });
    let published = ports.publish.iter().map(|spec| (spec.proto(), spec.container()));
    let mut all: Vec<(Proto, PortRange)> = exposed.chain(published).collect();
    all.sort_unstable_by_key(|(proto, range)| (*proto != Proto::Tcp, proto.name(), *range));
    let mut runs: Vec<(Proto, PortRange)> = Vec::new();
    // Port 0 is none.
    for (proto, range) in all.into_iter().filter(|(_, range)| range.last() > 0) {
        let first = range.first().max(1);
        let goes_on = |run: &PortRange| u32::from(first) <= u32::from(run.last()) + 1;
        let before = runs.last_mut().filter(|(other, run)| *other == proto && goes_on(run));
        let (joined, last) = match &before {
            Some((_, run)) => (run.first(), run.last().max(range.last())),
            None => (first, range.last()),
        };
        let Ok(run) = PortRange::new(joined, last) else { continue };
        match before {
            Some((_, longer)) => *longer = run,
            None => runs.push((proto, run)),
        }
    }
    runs
}

/// The variables of a link, as `NAME=value`, in Docker's order.
pub fn variables(link: Linked<'_>) -> Vec<String> {
    let prefix = link.alias.to_ascii_uppercase().replace('-', "_");
    let mut all = Vec::new();
    if let Some(address) = link.address {
        let url = |proto: Proto, port: u16| format!("{proto}://{address}:{port}");
        let key = |proto: Proto, port: u16| format!("{prefix}_PORT_{port}_{}", proto.name().to_uppercase());
        if let Some((proto, run)) = link.ports.first() {
            all.push(format!("{prefix}_PORT={}", url(*proto, run.first())));
        }
        for (proto, run) in link.ports.iter().filter(|(_, run)| !run.is_single()) {
            let key = key(*proto, run.first());
            for (end, port) in [("START", run.first()), ("END", run.last())] {
                all.push(format!("{key}_{end}={}", url(*proto, port)));
                all.push(format!("{key}_PORT_{end}={port}"));
            }
        }
        for (proto, port) in link.ports.iter().flat_map(|(proto, run)| run.iter().map(|port| (*proto, port)))
        {
            let key = key(proto, port);
            all.push(format!("{key}={}", url(proto, port)));
            all.push(format!("{key}_ADDR={address}"));
            all.push(format!("{key}_PORT={port}"));
            all.push(format!("{key}_PROTO={proto}"));
        }
    }
    all.push(format!("{prefix}_NAME=/{}/{}", link.consumer, link.alias));
    let copied: Vec<(&str, &str)> =
        link.environment.iter().filter_map(|entry| entry.split_once('=')).collect();
    let last: BTreeMap<&str, usize> = copied.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    let counts = |(at, (name, _)): &(usize, &(&str, &str))| {
        !name.is_empty() && !OWN.contains(name) && last.get(name) == Some(at)
    };
    let copied = copied.iter().enumerate().filter(counts);
    all.extend(copied.map(|(_, (name, value))| format!("{prefix}_ENV_{name}={value}")));
    all
}

/// The lines of a link: one for each address of the provider, which is called by the alias, its hostname and, unless that
/// is the alias, its name.
pub fn lines(alias: &str, hostname: &str, name: &str, addresses: impl IntoIterator<Item = IpAddr>) -> String {
    let name = if name == alias { String::new() } else { format!(" {name}") };
    hosts::lines(addresses, &format!("{alias} {hostname}{name}"))
}

#[cfg(test)]
mod tests;
