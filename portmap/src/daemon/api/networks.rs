//! `/networks…`: Docker's paths for networks.

mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{self, Path};
use axum::http::StatusCode;
use axum::routing::{get, post};
use ipnet::IpNet;
use netcore::controller::NetworkRequest;
use netcore::ipam::SubnetSpec;
use netcore::model::{Ipam, Network, NetworkId};
use serde::Serialize;

use self::view::NetworkView;
use super::body::Fields;
use super::filters::Filters;
use super::query::Params;
use super::reply::{Json, Refusal};
use super::version::Version;
use super::{Result, endpoint, perform, wording};
use crate::daemon::{NetworkLabel, State, now};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

type Daemon = extract::State<Arc<State>>;

async fn list(
    extract::State(state): Daemon,
    version: Version,
    params: Params,
) -> Result<Json<Vec<NetworkView>>> {
    const KNOWN: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];
    let filters = Filters::of(&params, &KNOWN)?;
    let dangling = filters.flag("dangling")?;
    check_types(&filters)?;
    let whole = NetworkView::lists_all(version);
    let (networks, endpoints) = perform(&state, move |_, controller| {
        let networks = controller.networks()?;
        // Only asked for where it shows.
        let endpoints = if whole || dangling.is_some() { controller.endpoints()? } else { Vec::new() };
        Ok((networks, endpoints))
    })
    .await?;
    let used: BTreeSet<NetworkId> = endpoints.iter().map(|endpoint| endpoint.network).collect();
    let wanted = |network: &&Network| {
        let is_dangling = !network.is_predefined() && !used.contains(&network.id);
        matches(&filters, network) && dangling.is_none_or(|wanted| wanted == is_dangling)
    };
    let shown = networks.iter().filter(wanted).map(|network| {
        let here = endpoints.iter().filter(|endpoint| endpoint.network == network.id);
        NetworkView::listed(network, here, version)
    });
    Ok(Json(shown.collect()))
}

fn check_types(filters: &Filters) -> Result<()> {
    match filters.values("type").find(|kind| !matches!(*kind, "builtin" | "custom")) {
        Some(other) => Err(Refusal::invalid(format!("invalid filter: 'type'='{other}'"))),
        None => Ok(()),
    }
}

fn matches(filters: &Filters, network: &Network) -> bool {
    let kind = if network.is_predefined() { "builtin" } else { "custom" };
    filters.exact("driver", &network.driver)
        && filters.exact("scope", network.scope.name())
        && filters.exact("type", kind)
        && filters.matches("id", &network.id.to_string())
        && filters.matches("name", network.name.as_str())
        && filters.labels("label", &network.labels)
}

async fn inspect(
    extract::State(state): Daemon,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<NetworkView>> {
    let reference = id.clone();
    let view = perform(&state, move |_, controller| controller.network(&reference)).await?;
    if params.given("scope").is_some_and(|scope| scope != view.network.scope.name()) {
        return Err(Refusal::not_found(format!("network {id} not found")));
    }
    Ok(Json(NetworkView::of(&view.network, view.endpoints.iter())))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
    warning: &'static str,
}

async fn create(
    extract::State(state): Daemon,
    version: Version,
    fields: Fields,
) -> Result<(StatusCode, Json<Created>)> {
    let request = request(&fields, version)?;
    let network = perform(&state, move |state, controller| {
        let network = controller.create_network(request)?;
        state.bus.network("create", network.id, &label(&network));
        Ok(network)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(Created { id: network.id.to_string(), warning: "" })))
}

fn request(fields: &Fields, version: Version) -> Result<NetworkRequest> {
    for (key, what) in [
        ("ConfigOnly", "configuration-only networks"),
        ("Ingress", "ingress networks"),
        ("Attachable", "attachable networks"),
    ] {
        if fields.flag(key)? {
            return Err(Refusal::new(
                StatusCode::NOT_IMPLEMENTED,
                format!("{what} are not supported by portmap"),
            ));
        }
    }
    if !fields.object("ConfigFrom")?.text("Network")?.is_empty() {
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "networks with the configuration of another network are not supported by portmap",
        ));
    }
    let scope = fields.text("Scope")?;
    if !matches!(scope.as_str(), "" | "local") {
        return Err(Refusal::invalid(format!("network scope {scope:?} is not supported by portmap")));
    }
    let ipam = fields.object("IPAM")?;
    let ipam_driver = ipam.text("Driver")?;
    Ok(NetworkRequest {
        name: fields.text("Name")?,
        driver: fields.text("Driver")?,
        ipv4: if version < Version::new(1, 48) { None } else { fields.maybe_flag("EnableIPv4")? },
        ipv6: fields.maybe_flag("EnableIPv6")?,
        ipam: Ipam {
            driver: if ipam_driver.is_empty() { Ipam::default().driver } else { ipam_driver },
            options: ipam.map("Options")?,
        },
        subnets: subnets(&ipam.objects("Config")?)?,
        internal: fields.flag("Internal")?,
        options: fields.map("Options")?,
        labels: fields.map("Labels")?,
    })
}

/// Reads every part before it complains, as dockerd does.
fn subnets(configs: &[Fields]) -> Result<Vec<SubnetSpec>> {
    let mut wrong = Vec::new();
    let mut specs = Vec::new();
    for config in configs.iter().filter(|config| !config.is_empty()) {
        let text = config.text("Subnet")?;
        let subnet = prefix("subnet", &text, &mut wrong);
        let range = optional(&config.text("IPRange")?).and_then(|text| prefix("ip-range", text, &mut wrong));
        let gateway =
            optional(&config.text("Gateway")?).and_then(|text| address("gateway", text, &mut wrong));
        let mut auxiliary = BTreeMap::new();
        for (name, text) in config.map("AuxiliaryAddresses")? {
            if let Some(ip) = address("auxiliary address", &text, &mut wrong) {
                auxiliary.insert(name, ip);
            }
        }
        specs.extend(subnet.map(|subnet| SubnetSpec { subnet, range, gateway, auxiliary }));
    }
    match wrong.as_slice() {
        [] => Ok(specs),
        [only] => Err(Refusal::invalid(format!("invalid network config:\n{only}"))),
        several => {
            let lines: Vec<String> = several.iter().map(|line| format!("* {line}")).collect();
            Err(Refusal::invalid(format!("invalid network config:\n{}", lines.join("\n"))))
        }
    }
}

fn optional(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn prefix(what: &str, text: &str, wrong: &mut Vec<String>) -> Option<IpNet> {
    let parsed = netcore::ipam::parse_prefix(text).ok();
    if parsed.is_none() {
        wrong.push(format!("invalid {what} {text}: invalid CIDR block notation"));
    }
    parsed
}

fn address(what: &str, text: &str, wrong: &mut Vec<String>) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        wrong.push(format!("invalid {what} {text}: invalid address"));
    }
    parsed
}

async fn remove(extract::State(state): Daemon, Path(id): Path<String>) -> Result<StatusCode> {
    perform(&state, move |state, controller| {
        let network = controller.remove_network(&id)?;
        removed(state, &network);
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pruned {
    networks_deleted: Option<Vec<String>>,
}

async fn prune(extract::State(state): Daemon, params: Params) -> Result<Json<Pruned>> {
    let filters = Filters::of(&params, &["label", "label!", "until"])?;
    let until = match filters.only("until", "more than one until filter specified")? {
        None => None,
        Some(text) => Some(wording::instant(text, now()).ok_or_else(|| {
            Refusal::invalid(format!("failed to parse value as time or duration: {text:?}"))
        })?),
    };
    let gone = perform(&state, move |state, controller| {
        let gone = controller.prune_networks(|network| {
            until.is_none_or(|until| network.created < until)
                && filters.labels("label", &network.labels)
                && !(filters.has("label!") && filters.labels("label!", &network.labels))
        })?;
        gone.iter().for_each(|network| removed(state, network));
        state.bus.pruned();
        Ok(gone)
    })
    .await?;
    let names: Vec<String> = gone.into_iter().map(|network| network.name.to_string()).collect();
    Ok(Json(Pruned { networks_deleted: (!names.is_empty()).then_some(names) }))
}

fn removed(state: &State, network: &Network) {
    state.bus.network("destroy", network.id, &label(network));
}

async fn connect(
    extract::State(state): Daemon,
    version: Version,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<StatusCode> {
    let sandbox = fields.text("Container")?;
    let settings = endpoint::settings(&fields.object("EndpointConfig")?, version, Version::new(1, 54))?;
    attach(&state, "connect", id, sandbox, move |controller, network, sandbox| {
        controller.connect(network, sandbox, settings).map(drop)
    })
    .await
}

async fn disconnect(
    extract::State(state): Daemon,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<StatusCode> {
    let (sandbox, force) = (fields.text("Container")?, fields.flag("Force")?);
    attach(&state, "disconnect", id, sandbox, move |controller, network, sandbox| {
        controller.disconnect(network, sandbox, force)
    })
    .await
}

/// Changes whether a sandbox is on a network, and tells of it if the sandbox runs.
async fn attach(
    state: &Arc<State>,
    action: &'static str,
    network: String,
    sandbox: String,
    change: impl FnOnce(
        &netcore::controller::Controller,
        &str,
        &str,
    ) -> std::result::Result<(), netcore::controller::ControllerError>
    + Send
    + 'static,
) -> Result<StatusCode> {
    perform(state, move |state, controller| {
        // Looked up before: afterwards a forced removal may have left nothing to look up.
        let known = controller.network(&network).map(|view| view.network);
        let subject = controller.sandbox(&sandbox).map(|view| view.sandbox);
        change(controller, &network, &sandbox)?;
        if let (Ok(network), Ok(subject)) = (known, subject)
            && matches!(subject.state, netcore::model::SandboxState::Running(_))
        {
            state.bus.attachment(action, network.id, &label(&network), subject.id);
        }
        Ok(StatusCode::OK)
    })
    .await
}

fn label(network: &Network) -> NetworkLabel {
    NetworkLabel { name: network.name.to_string(), driver: network.driver.clone() }
}

#[cfg(test)]
pub(super) mod tests;
