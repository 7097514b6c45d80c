//! Networks as answers show them, field by field as dockerd does: `docker network inspect` prints them as they come.

use std::collections::BTreeMap;

use netcore::model::{Endpoint, Network, Subnet};
use serde::Serialize;

use crate::daemon::api::version::Version;

/// In dockerd's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkView {
    name: String,
    id: String,
    created: String,
    scope: &'static str,
    driver: String,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: IpamView,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_from: ConfigFrom,
    config_only: bool,
    containers: BTreeMap<String, ContainerView>,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpamView {
    driver: String,
    options: Option<BTreeMap<String, String>>,
    config: Option<Vec<SubnetView>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SubnetView {
    subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    auxiliary_addresses: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigFrom {
    network: &'static str,
}

#[derive(Debug, Serialize)]
struct ContainerView {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint: String,
    #[serde(rename = "MacAddress")]
    mac: String,
    #[serde(rename = "IPv4Address")]
    ipv4: String,
    #[serde(rename = "IPv6Address")]
    ipv6: String,
}

/// From this version on a list doesn't show who is on a network.
const SHORT_LISTS: Version = Version::new(1, 28);

impl NetworkView {
    /// Whether a list shows who is on a network.
    pub(super) fn lists_all(version: Version) -> bool {
        version < SHORT_LISTS
    }

    /// A network in a list.
    pub(super) fn listed<'a>(
        network: &Network,
        endpoints: impl Iterator<Item = &'a Endpoint>,
        version: Version,
    ) -> Self {
        Self::of(network, endpoints.filter(|_| Self::lists_all(version)))
    }

    /// A network and those of its endpoints that are to be shown.
    pub(super) fn of<'a>(network: &Network, endpoints: impl Iterator<Item = &'a Endpoint>) -> Self {
        let predefined = network.is_predefined();
        let subnets: Vec<SubnetView> = network.subnets.iter().map(SubnetView::of).collect();
        Self {
            name: network.name.to_string(),
            id: network.id.to_string(),
            created: network.created.to_string(),
            scope: network.scope.name(),
            driver: network.driver.clone(),
            enable_ipv4: network.ipv4,
            enable_ipv6: network.ipv6,
            ipam: IpamView {
                driver: network.ipam.driver.clone(),
                options: (!predefined).then(|| network.ipam.options.clone()),
                // Networks without addresses have none at all, in dockerd too.
                config: (!subnets.is_empty() || !predefined).then_some(subnets),
            },
            internal: network.internal,
            attachable: false,
            ingress: false,
            config_from: ConfigFrom { network: "" },
            config_only: false,
            containers: endpoints.map(ContainerView::of).collect(),
            options: network.options.clone(),
            labels: network.labels.clone(),
        }
    }
}

impl SubnetView {
    fn of(subnet: &Subnet) -> Self {
        Self {
            subnet: subnet.subnet.to_string(),
            range: subnet.range.map(|range| range.to_string()),
            gateway: subnet.gateway.map(|gateway| gateway.to_string()),
            auxiliary_addresses: subnet.aux.iter().map(|(name, ip)| (name.clone(), ip.to_string())).collect(),
        }
    }
}

impl ContainerView {
    /// By the sandbox's id, or for an endpoint of somebody else's by its own.
    fn of(endpoint: &Endpoint) -> (String, Self) {
        let key =
            endpoint.sandbox.map_or_else(|| format!("ep-{}", endpoint.id), |sandbox| sandbox.to_string());
        let view = Self {
            name: endpoint.name.clone(),
            endpoint: endpoint.id.to_string(),
            mac: endpoint.mac.map_or_else(String::new, |mac| mac.to_string()),
            ipv4: endpoint.ipv4.map_or_else(String::new, |net| net.to_string()),
            ipv6: endpoint.ipv6.map_or_else(String::new, |net| net.to_string()),
        };
        (key, view)
    }
}
