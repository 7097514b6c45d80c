//! Endpoints as requests describe them and as answers show them: Docker's `EndpointSettings`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netcore::dns;
use netcore::model::{Endpoint, EndpointSettings, NetworkMode, Sandbox};
use serde::Serialize;

use super::Result;
use super::body::Fields;
use super::reply::Refusal;
use super::version::Version;

/// In dockerd's order.
#[derive(Debug, Serialize)]
pub(super) struct EndpointView {
    #[serde(rename = "IPAMConfig")]
    ipam: Option<IpamView>,
    #[serde(rename = "Links")]
    links: Option<Vec<String>>,
    #[serde(rename = "Aliases")]
    aliases: Option<Vec<String>>,
    #[serde(rename = "DriverOpts")]
    driver_opts: Option<BTreeMap<String, String>>,
    #[serde(rename = "GwPriority")]
    gw_priority: i32,
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "EndpointID")]
    id: String,
    #[serde(rename = "Gateway")]
    gateway: String,
    #[serde(rename = "IPAddress")]
    address: String,
    #[serde(rename = "MacAddress")]
    mac: String,
    #[serde(rename = "IPPrefixLen")]
    prefix: u8,
    #[serde(rename = "IPv6Gateway")]
    gateway6: String,
    #[serde(rename = "GlobalIPv6Address")]
    address6: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    prefix6: u8,
    #[serde(rename = "DNSNames", skip_serializing_if = "Option::is_none")]
    dns_names: Option<Option<Vec<String>>>,
}

#[derive(Debug, Serialize)]
struct IpamView {
    #[serde(rename = "IPv4Address", skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    #[serde(rename = "IPv6Address", skip_serializing_if = "Option::is_none")]
    ip6: Option<String>,
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Vec::is_empty")]
    link_local: Vec<String>,
}

/// What is asked for on one network. `mac_from` is the version from which a MAC address counts in this request.
pub(super) fn settings(fields: &Fields, version: Version, mac_from: Version) -> Result<EndpointSettings> {
    let ipam = fields.object("IPAMConfig")?;
    let mut wrong = Vec::new();
    let ip = address(&ipam.text("IPv4Address")?, "IPv4", &mut wrong);
    let ip6 = address(&ipam.text("IPv6Address")?, "IPv6", &mut wrong);
    let link_local = ipam.texts("LinkLocalIPs")?;
    let link_local =
        link_local.iter().filter_map(|text| address(text, "link-local IP", &mut wrong)).collect();
    if !wrong.is_empty() {
        return Err(Refusal::invalid(format!("invalid endpoint settings:\n{}", wrong.join("\n"))));
    }
    let links = fields.texts("Links")?;
    let links = links.iter().map(|link| link.parse()).collect::<std::result::Result<_, _>>();
    Ok(EndpointSettings {
        aliases: fields.texts("Aliases")?,
        ip,
        ip6,
        link_local,
        mac: if version < mac_from { None } else { mac(&fields.text("MacAddress")?)? },
        links: links.map_err(|error: netcore::model::LinkError| Refusal::invalid(error.to_string()))?,
        // Whom they mean is looked up when they are made.
        link_targets: BTreeMap::new(),
        gw_priority: if version < Version::new(1, 48) { 0 } else { priority(fields.number("GwPriority")?)? },
        driver_opts: fields.map("DriverOpts")?,
    })
}

/// A hardware address; nothing for an empty text.
pub(super) fn mac(text: &str) -> Result<Option<netcore::model::Mac>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: netcore::model::BadMac| Refusal::invalid(error.to_string()))
}

fn priority(number: i64) -> Result<i32> {
    i32::try_from(number).map_err(|_| Refusal::invalid(format!("invalid gateway priority: {number}")))
}

fn address<T: std::str::FromStr>(text: &str, what: &str, wrong: &mut Vec<String>) -> Option<T> {
    if text.is_empty() {
        return None;
    }
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            wrong.push(format!("invalid {what} address: {text}"));
            None
        }
    }
}

/// An endpoint of a sandbox, on a network of this name.
pub(super) fn view(endpoint: &Endpoint, network: &str, sandbox: &Sandbox, version: Version) -> EndpointView {
    let asked = wanted(&endpoint.settings, network, sandbox, version);
    let names = is_user_defined(network)
        .then(|| dns::names(&endpoint.name, &endpoint.settings.aliases, &sandbox.id, &sandbox.hostname()));
    let text = |address: Option<IpAddr>| address.map_or_else(String::new, |address| address.to_string());
    EndpointView {
        network: endpoint.network.to_string(),
        id: endpoint.id.to_string(),
        gateway: text(endpoint.gateway4.map(IpAddr::V4)),
        address: text(endpoint.ipv4.map(|net| IpAddr::V4(net.addr()))),
        mac: endpoint.mac.map_or_else(String::new, |mac| mac.to_string()),
        prefix: endpoint.ipv4.map_or(0, |net| net.prefix_len()),
        gateway6: text(endpoint.gateway6.map(IpAddr::V6)),
        address6: text(endpoint.ipv6.map(|net| IpAddr::V6(net.addr()))),
        prefix6: endpoint.ipv6.map_or(0, |net| net.prefix_len()),
        dns_names: (version >= Version::new(1, 44)).then_some(names),
        ..asked
    }
}

/// A network that a sandbox is to be on when it starts.
pub(super) fn wanted(
    settings: &EndpointSettings,
    network: &str,
    sandbox: &Sandbox,
    version: Version,
) -> EndpointView {
    let any = settings.ip.is_some() || settings.ip6.is_some() || !settings.link_local.is_empty();
    let mut aliases = settings.aliases.clone();
    if version < Version::new(1, 45) && is_user_defined(network) {
        aliases = once_each(aliases.into_iter().chain([sandbox.id.short()]));
    }
    let links: Vec<String> = settings.links.iter().map(ToString::to_string).collect();
    EndpointView {
        ipam: any.then(|| IpamView {
            ip: settings.ip.map(|ip| ip.to_string()),
            ip6: settings.ip6.map(|ip| ip.to_string()),
            link_local: settings.link_local.iter().map(ToString::to_string).collect(),
        }),
        links: (!links.is_empty()).then_some(links),
        aliases: (!aliases.is_empty()).then_some(aliases),
        driver_opts: (!settings.driver_opts.is_empty()).then(|| settings.driver_opts.clone()),
        gw_priority: settings.gw_priority,
        network: String::new(),
        id: String::new(),
        gateway: String::new(),
        address: String::new(),
        mac: settings.mac.map_or_else(String::new, |mac| mac.to_string()),
        prefix: 0,
        gateway6: String::new(),
        address6: String::new(),
        prefix6: 0,
        dns_names: (version >= Version::new(1, 44)).then_some(None),
    }
}

/// On the predefined networks nobody has a name.
fn is_user_defined(network: &str) -> bool {
    network.parse().is_ok_and(|mode: NetworkMode| mode.is_user_defined())
}

fn once_each(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(name.clone())).collect()
}

impl EndpointView {
    /// The address fields, which the block of old clients repeats for the default bridge.
    pub(super) fn legacy(&self) -> (&str, &str, &str, u8, &str, u8, &str, &str) {
        (
            &self.id,
            &self.gateway,
            &self.address6,
            self.prefix6,
            &self.address,
            self.prefix,
            &self.gateway6,
            &self.mac,
        )
    }
}
