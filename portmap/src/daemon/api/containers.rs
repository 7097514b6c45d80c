//! `/containers/json` and `/containers/{id}/json`: sandboxes as Docker shows containers.

mod view;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{self, Path};
use axum::routing::get;
use netcore::controller::{Controller, ControllerError, SandboxView};
use netcore::model::SandboxState;
use regex_lite::Regex;

pub(super) use self::view::log_path;
use self::view::{Inspected, LinkNames, Listed, Places};
use super::filters::Filters;
use super::ports::PortFilter;
use super::query::Params;
use super::reply::{Json, Refusal};
use super::version::Version;
use super::{Result, perform};
use crate::daemon::bus::IMAGE;
use crate::daemon::{State, now};

const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/containers/json", get(list)).route("/containers/{id}/json", get(inspect))
}

type Daemon = extract::State<Arc<State>>;

async fn list(extract::State(state): Daemon, version: Version, params: Params) -> Result<Json<Vec<Listed>>> {
    const KNOWN: [&str; 14] = [
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
    ];
    let filters = Filters::of(&params, &[&KNOWN[..], &["volume"]].concat())?;
    let limit = usize::try_from(params.number("limit")?.unwrap_or(0)).unwrap_or(0);
    let all = params.flag("all") || limit > 0 || filters.has("status") || filters.has("exited");
    let wanted = Wanted::of(&filters, all)?;
    let shown = perform(&state, move |state, controller| {
        let mut views = controller.sandboxes()?;
        // The newest first.
        views.sort_by_key(|view| std::cmp::Reverse((view.sandbox.created, view.sandbox.id)));
        let bounds = Bounds::of(&filters, controller)?;
        let networks = network_ids(&filters, controller);
        let link_names = LinkNames::of(&views);
        let mut shown = Vec::new();
        for view in &views {
            let names = link_names.names(view);
            let fits = wanted.has(view, &names)
                && bounds.hold(view)
                && networks.as_ref().is_none_or(|ids| wanted_network(view, ids, &filters));
            if fits {
                shown.push(Listed::of(view, names, &|id| state.network_label(id).name, version, now()));
            }
            if limit > 0 && shown.len() == limit {
                break;
            }
        }
        Ok(shown)
    });
    shown.await.map(Json)
}

/// What the sandbox decides, and what it is called.
struct Wanted {
    filters: Filters,
    all: bool,
    exited: BTreeSet<i32>,
    ports: PortFilter,
}

impl Wanted {
    fn of(filters: &Filters, all: bool) -> Result<Self> {
        if let Some(odd) = filters.values("status").find(|status| !STATES.contains(status)) {
            return Err(Refusal::invalid(format!("invalid filter 'status={odd}'")));
        }
        let exited = filters.values("exited").map(|code| {
            code.parse().map_err(|_| Refusal::invalid(format!("invalid filter 'exited={code}'")))
        });
        let exited = exited.collect::<Result<_>>()?;
        Ok(Self { filters: filters.clone(), all, exited, ports: PortFilter::of(filters)? })
    }

    fn has(&self, view: &SandboxView, names: &[String]) -> bool {
        let (filters, sandbox) = (&self.filters, &view.sandbox);
        let shown = self.all || matches!(sandbox.state, SandboxState::Running(_));
        let ended = match &sandbox.state {
            SandboxState::Exited(exited) => self.exited.contains(&exited.code),
            _ => false,
        };
        shown
            && (self.exited.is_empty() || ended)
            && filters.exact("status", sandbox.state.name())
            && filters.any("id", |id| sandbox.id.to_string().starts_with(id) || is_found(id, &sandbox.id.to_string()))
            && filters.any("name", |name| names.iter().any(|own| is_called(name, own)))
            && filters.labels("label", &sandbox.config.labels)
            && filters.exact("ancestor", IMAGE)
            // What no sandbox has, whatever its state.
            && !filters.has("volume")
            && self.ports.has(view)
            && filters.any("health", |health| health == "none")
            && filters.any("is-task", |task| matches!(task, "false" | "0"))
    }
}

/// Whether a name that begins with a slash fits, with it or without.
fn is_called(wanted: &str, name: &str) -> bool {
    let bare = name.trim_start_matches('/');
    wanted.trim_start_matches('/') == bare || is_found(wanted, bare) || is_found(wanted, name)
}

fn is_found(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

/// `before` and `since`: moments at which other sandboxes were created.
struct Bounds {
    before: Vec<netcore::model::Timestamp>,
    since: Vec<netcore::model::Timestamp>,
}

impl Bounds {
    fn of(filters: &Filters, controller: &Controller) -> std::result::Result<Self, ControllerError> {
        let created = |reference: &str| controller.sandbox(reference).map(|view| view.sandbox.created);
        Ok(Self {
            before: filters.values("before").map(created).collect::<std::result::Result<_, _>>()?,
            since: filters.values("since").map(created).collect::<std::result::Result<_, _>>()?,
        })
    }

    fn hold(&self, view: &SandboxView) -> bool {
        let created = view.sandbox.created;
        self.before.iter().all(|bound| created < *bound) && self.since.iter().all(|bound| created > *bound)
    }
}

/// The networks that `network` names, by name or the beginning of an id; `None` if there is no such filter.
fn network_ids(filters: &Filters, controller: &Controller) -> Option<BTreeSet<netcore::model::NetworkId>> {
    let networks = filters.has("network").then(|| controller.networks().unwrap_or_default())?;
    let named = |wanted: &str| {
        let wanted = wanted.to_owned();
        let fits = move |network: &&netcore::model::Network| {
            network.name.as_str() == wanted || network.id.to_string().starts_with(&wanted)
        };
        networks.iter().filter(fits).map(|network| network.id).collect::<Vec<_>>()
    };
    Some(filters.values("network").flat_map(named).collect())
}

/// Whether it is on one of them, or will be when it starts.
fn wanted_network(view: &SandboxView, ids: &BTreeSet<netcore::model::NetworkId>, filters: &Filters) -> bool {
    let config = &view.sandbox.config;
    view.endpoints.iter().any(|endpoint| ids.contains(&endpoint.network))
        || filters.values("network").any(|name| config.networks.contains_key(name))
}

async fn inspect(
    extract::State(state): Daemon,
    version: Version,
    Path(id): Path<String>,
) -> Result<Json<Inspected>> {
    let shown = perform(&state, move |state, controller| {
        let view = controller.sandbox(&id)?;
        let places = Places::of(&state.settings.controller, view.sandbox.id);
        Ok(Inspected::of(&view, &places, &|id| state.network_label(id).name, version))
    });
    shown.await.map(Json)
}

#[cfg(test)]
pub(super) mod tests;
