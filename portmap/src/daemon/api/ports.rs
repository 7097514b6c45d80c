//! Ports as requests ask for them and as answers show them: Docker's port maps and lists.
//!
//! Docker has an entry for every port, also where a range was given, so that is what its clients get; ranges are taken
//! apart here and nowhere before.
//!
//! Not here: how a list of ports is printed (`cli::ps`), and which port a wish ends up with (the controller).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netcore::controller::SandboxView;
use netcore::model::{NetworkMode, PortsConfig, Publication, SandboxState};
use netcore::publish::{ExposeSpec, ExposedProto, HostPort, PortRange, PublishSpec};
use serde::Serialize;

use super::Result;
use super::body::Fields;
use super::filters::Filters;
use super::reply::Refusal;

/// Where a port is published, by `80/tcp`; nothing for one that is exposed only.
pub(super) type PortMap = BTreeMap<String, Option<Vec<Binding>>>;

/// A place on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Binding {
    host_ip: String,
    /// As it was asked for, or as it is; empty if the host has no port for it.
    host_port: String,
}

/// An object without members, which is how Docker lists exposed ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Nothing {}

/// A port of a line of `ps`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedPort {
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    private_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_port: Option<u16>,
    r#type: String,
}

/// One port of a publication: what Docker calls a binding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    container: u16,
    /// Without one, behind all others.
    is_routed: bool,
    host: Option<u16>,
    address: IpAddr,
}

/// What a request's body says about ports.
pub(super) fn wanted(fields: &Fields) -> Result<PortsConfig> {
    let expose = fields.texts("Expose")?;
    let expose: Vec<ExposeSpec> = expose.iter().map(|text| parse(text)).collect::<Result<_>>()?;
    if let Some(zero) = expose.iter().find(|spec| spec.ports().first() == 0) {
        return Err(no_such_port(exposed_word(zero)));
    }
    Ok(PortsConfig {
        publish: specs(fields)?,
        expose,
        publish_all: fields.object("HostConfig")?.flag("PublishAllPorts")?,
    })
}

/// `Publish` of a request's body.
pub(super) fn specs(fields: &Fields) -> Result<Vec<PublishSpec>> {
    let specs = fields.texts("Publish")?;
    let specs: Vec<PublishSpec> = specs.iter().map(|text| parse(text)).collect::<Result<_>>()?;
    match specs.iter().find(|spec| spec.container().first() == 0) {
        Some(zero) => Err(no_such_port(zero.proto().name())),
        None => Ok(specs),
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| Refusal::invalid(error.to_string()))
}

fn no_such_port(proto: &str) -> Refusal {
    Refusal::invalid(format!("invalid port specification: \"0/{proto}\""))
}

/// `HostConfig.PortBindings`: what was asked for.
pub(super) fn bindings(config: &PortsConfig) -> BTreeMap<String, Vec<Binding>> {
    let mut bindings: BTreeMap<String, Vec<Binding>> = BTreeMap::new();
    for binding in config.publish.iter().flat_map(|spec| spec.bindings()) {
        let host_port = match binding.host {
            HostPort::Ephemeral => String::new(),
            HostPort::Exact(port) => port.to_string(),
            HostPort::OneOf(range) => range.to_string(),
        };
        let host_ip = binding.host_ip.map_or_else(String::new, |ip| ip.to_string());
        let key = key(binding.container, binding.proto.name());
        bindings.entry(key).or_default().push(Binding { host_ip, host_port });
    }
    bindings
}

/// `Config.ExposedPorts`: what was exposed, and what was published.
pub(super) fn exposed(config: &PortsConfig) -> BTreeMap<String, Nothing> {
    ranges(config)
        .flat_map(|(ports, word)| ports.iter().map(move |port| (key(port, word), Nothing {})))
        .collect()
}

fn ranges(config: &PortsConfig) -> impl Iterator<Item = (PortRange, &str)> {
    let published = config.publish.iter().map(|spec| (spec.container(), spec.proto().name()));
    published.chain(config.expose.iter().map(|spec| (spec.ports(), exposed_word(spec))))
}

fn exposed_word(spec: &ExposeSpec) -> &str {
    match spec.proto() {
        ExposedProto::Known(proto) => proto.name(),
        ExposedProto::Other(word) => word,
    }
}

fn key(port: u16, word: &str) -> String {
    format!("{port}/{word}")
}

/// `NetworkSettings.Ports`: what stands. A sandbox that doesn't run has none, nor has one without a bridge.
pub(super) fn published(view: &SandboxView) -> PortMap {
    let mut ports = PortMap::new();
    for (port, word) in only_exposed(view) {
        ports.insert(key(port, word), None);
    }
    if matches!(view.sandbox.state, SandboxState::Running(_)) {
        let publications = view.endpoints.iter().flat_map(|endpoint| &endpoint.publications);
        ports.extend(map_of(publications));
    }
    ports
}

/// These publications alone.
pub(super) fn map_of<'a>(publications: impl Iterator<Item = &'a Publication>) -> PortMap {
    let mut ports = PortMap::new();
    for (word, place) in places(publications) {
        let host_port = place.host.map_or_else(String::new, |port| port.to_string());
        let binding = Binding { host_ip: place.address.to_string(), host_port };
        ports.entry(key(place.container, word)).or_default().get_or_insert_default().push(binding);
    }
    ports
}

/// `Ports` of a line of `ps`.
pub(super) fn listed(view: &SandboxView) -> Vec<ListedPort> {
    let runs = matches!(view.sandbox.state, SandboxState::Running(_));
    let publications = view.endpoints.iter().filter(|_| runs).flat_map(|endpoint| &endpoint.publications);
    let published: Vec<(&str, Place)> = places(publications);
    let taken: BTreeSet<(u16, &str)> =
        published.iter().map(|(word, place)| (place.container, *word)).collect();
    let exposed = only_exposed(view).filter(|port| !taken.contains(port)).map(|(port, word)| ListedPort {
        ip: None,
        private_port: port,
        public_port: None,
        r#type: word.to_owned(),
    });
    let mut ports: Vec<ListedPort> = exposed.collect();
    ports.extend(published.into_iter().map(|(word, place)| ListedPort {
        ip: Some(place.address),
        private_port: place.container,
        public_port: place.host,
        r#type: word.to_owned(),
    }));
    let order = |port: &ListedPort| (port.private_port, port.ip, port.public_port);
    ports.sort_by(|one, other| order(one).cmp(&order(other)).then_with(|| one.r#type.cmp(&other.r#type)));
    ports.dedup();
    ports
}

/// Every port on every address, in Docker's order of one port's places, each once.
fn places<'a>(publications: impl Iterator<Item = &'a Publication>) -> Vec<(&'static str, Place)> {
    let mut places: Vec<(&'static str, Place)> = Vec::new();
    for publication in publications {
        for (nth, container) in (0..).zip(publication.container.iter()) {
            // Both sides are equally long, so a sum beyond the last port is none of ours.
            let host = publication.host.and_then(|host| host.first().checked_add(nth));
            let place =
                |address: &IpAddr| Place { container, is_routed: host.is_none(), host, address: *address };
            places.extend(publication.addresses.iter().map(|ip| (publication.proto.name(), place(ip))));
        }
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// The ports that the sandbox's bridges know of, whether published or not.
fn only_exposed(view: &SandboxView) -> impl Iterator<Item = (u16, &str)> {
    let sandbox = &view.sandbox;
    let has_bridge = matches!(sandbox.state, SandboxState::Running(_))
        && !matches!(sandbox.config.mode, NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_));
    let ranges = has_bridge.then(|| ranges(&sandbox.config.ports)).into_iter().flatten();
    ranges.flat_map(|(ports, word)| ports.iter().map(move |port| (port, word)))
}

/// The filters `publish` and `expose` of `ps`: any of them is enough.
#[derive(Debug, Default)]
pub(super) struct PortFilter {
    publish: Vec<ExposeSpec>,
    expose: Vec<ExposeSpec>,
}

impl PortFilter {
    pub(super) fn of(filters: &Filters) -> Result<Self> {
        let ports = |key| filters.values(key).map(|value| filter(key, value)).collect::<Result<_>>();
        Ok(Self { publish: ports("publish")?, expose: ports("expose")? })
    }

    pub(super) fn has(&self, view: &SandboxView) -> bool {
        if self.publish.is_empty() && self.expose.is_empty() {
            return true;
        }
        let names = |wanted: &[ExposeSpec], port: u16, word: &str| {
            wanted.iter().any(|spec| spec.ports().contains(port) && exposed_word(spec) == word)
        };
        listed(view).iter().any(|port| {
            names(&self.publish, port.public_port.unwrap_or(0), &port.r#type)
                || names(&self.expose, port.private_port, &port.r#type)
        })
    }
}

/// A port or a range, as `--expose` takes them.
fn filter(key: &str, value: &str) -> Result<ExposeSpec> {
    const OF_THE_FLAG: &str = "invalid range format for --expose: ";
    if value.contains(':') {
        return Err(Refusal::invalid(format!("filter for '{key}' should not contain ':': {value}")));
    }
    value.parse().map_err(|error: netcore::publish::ExposeError| {
        let text = error.to_string();
        let why = text.strip_prefix(OF_THE_FLAG).unwrap_or(&text);
        Refusal::invalid(format!("error while looking up for {key} {value}: {why}"))
    })
}

#[cfg(test)]
pub(super) mod tests;
