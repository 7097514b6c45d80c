//! The daemon's HTTP API: the part of Docker's Engine API that concerns networks, and our own paths for sandboxes.
//!
//! A request passes the [`version`] layer, which takes `/v1.NN` off the path, and then the router. Handlers parse what
//! was asked, let the controller do it on a blocking thread, and show what came of it. Such work runs to its end even if
//! the client has gone meanwhile: what is left is the old state or the new one.
//!
//! | module | what |
//! |---|---|
//! | [`system`] | `/_ping`, `/version`, `/info` |
//! | [`networks`] | `/networks…` |
//! | [`containers`] | Docker's view of sandboxes: `/containers/json`, `/containers/{id}/json` |
//! | [`sandboxes`] | what is done with sandboxes: `/portmap/sandboxes…`, and Docker's paths for the same |
//! | [`ports`], [`names`] | ports and names, in requests and answers of the above |
//! | [`events`] | `/events` |
//! | [`explain`] | `/portmap/explain/{what}` |
//! | [`absent`] | Docker's other paths |
//! | [`reply`], [`body`], [`query`], [`filters`], [`wording`] | what the above have in common |

mod absent;
mod body;
mod containers;
mod endpoint;
mod events;
mod explain;
mod filters;
#[cfg(test)]
mod golden;
mod names;
mod networks;
mod ports;
mod query;
mod reply;
mod sandboxes;
mod system;
mod version;
mod wording;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue, SERVER};
use netcore::controller::{Controller, ControllerError};
use tokio::task::spawn_blocking;
use tower_service::Service;

use self::reply::Refusal;
use super::State;

/// Docker's API version whose shapes we have.
pub(crate) const API_VERSION: &str = "1.51";
/// The oldest that is served.
pub(crate) const MIN_API_VERSION: &str = "1.24";

type Result<T> = std::result::Result<T, Refusal>;

/// The API, to be called once per request. Clones share everything.
#[derive(Clone)]
pub(crate) struct Api {
    router: Router,
}

impl Api {
    pub(crate) fn new(state: Arc<State>) -> Self {
        let router = Router::new()
            .merge(system::routes())
            .merge(networks::routes())
            .merge(containers::routes())
            .merge(sandboxes::routes())
            .merge(events::routes())
            .merge(explain::routes())
            .merge(absent::routes())
            .fallback(absent::page)
            .method_not_allowed_fallback(absent::page)
            .with_state(state);
        Self { router }
    }

    /// Answers one request; refusals are answers too.
    pub(crate) async fn answer<B>(mut self, request: hyper::Request<B>) -> Response
    where
        B: hyper::body::Body<Data = axum::body::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let request = request.map(Body::new);
        let mut response = match self.route(request).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        };
        let headers = response.headers_mut();
        for (name, value) in [
            ("api-version", API_VERSION),
            ("docker-experimental", "false"),
            ("ostype", "linux"),
            (SERVER.as_str(), concat!("Docker/", env!("CARGO_PKG_VERSION"), " (linux)")),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    }

    async fn route(&mut self, request: Request) -> Result<Response> {
        if request.method() == Method::OPTIONS {
            return Ok(().into_response());
        }
        let request = version::strip(request)?;
        let answer: std::result::Result<Response, Infallible> = self.router.call(request).await;
        match answer {
            Ok(response) => Ok(response),
            Err(impossible) => match impossible {},
        }
    }
}

/// Lets the controller work where it may block.
async fn perform<T: Send + 'static>(
    state: &Arc<State>,
    work: impl FnOnce(&Arc<State>, &Controller) -> std::result::Result<T, ControllerError> + Send + 'static,
) -> Result<T> {
    let state = state.clone();
    let done = spawn_blocking(move || work(&state, &state.controller)).await;
    match done {
        Ok(done) => Ok(done?),
        Err(broken) => {
            tracing::error!(%broken, "an operation broke off");
            Err(Refusal::internal("the operation broke off because of a fault in the daemon: see its log"))
        }
    }
}
