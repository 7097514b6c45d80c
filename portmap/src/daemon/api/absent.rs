//! Docker's paths that aren't ours.
//!
//! Where `docker inspect` looks for an object of any kind, there is none: 404. What only a container engine can do is
//! refused with 501 and a hint. Everything else is no path at all.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{any, get, post};

use super::reply::Refusal;
use crate::daemon::State;

/// Known to dockerd, and never ours.
const ENGINE: &[&str] = &[
    "/auth",
    "/build",
    "/build/{*rest}",
    "/commit",
    "/configs",
    "/configs/{*rest}",
    "/containers/prune",
    "/containers/{id}/archive",
    "/containers/{id}/attach",
    "/containers/{id}/attach/ws",
    "/containers/{id}/changes",
    "/containers/{id}/export",
    "/containers/{id}/logs",
    "/containers/{id}/pause",
    "/containers/{id}/resize",
    "/containers/{id}/restart",
    "/containers/{id}/stats",
    "/containers/{id}/top",
    "/containers/{id}/unpause",
    "/containers/{id}/update",
    "/distribution/{*rest}",
    "/exec/{*rest}",
    "/grpc",
    "/images/create",
    "/images/json",
    "/images/load",
    "/images/prune",
    "/images/search",
    "/nodes",
    "/nodes/{*rest}",
    "/plugins",
    "/secrets",
    "/secrets/{*rest}",
    "/services",
    "/services/{*rest}",
    "/session",
    "/swarm",
    "/swarm/{*rest}",
    "/system/df",
    "/tasks",
    "/tasks/{*rest}",
    "/volumes",
    "/volumes/create",
    "/volumes/prune",
];

pub(super) fn routes() -> Router<Arc<State>> {
    let elsewhere = "start it with `portmap`: a sandbox's command runs under the process that starts it";
    let mut router = Router::new()
        .route("/images/{*name}", get(no_image))
        .route("/volumes/{name}", get(no_volume))
        .route("/plugins/{*name}", get(no_plugin))
        .route(
            "/containers/create",
            post(move || async {
                not_ours("creating a container from an image", "use `portmap run` or `portmap create`")
            }),
        )
        .route(
            "/containers/{id}/start",
            post(move || async move { not_ours("starting a container", elsewhere) }),
        )
        .route("/containers/{id}/exec", post(|| async { not_ours("exec", "use `portmap exec`") }));
    for path in ENGINE {
        router = router.route(path, any(|| async { not_ours("this", "portmap has Docker's networks only") }));
    }
    router
}

/// Neither Docker's nor ours.
pub(super) async fn page() -> Refusal {
    Refusal::not_found("page not found")
}

fn not_ours(what: &str, instead: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not supported by portmap: {instead}"))
}

async fn no_image(Path(name): Path<String>) -> Refusal {
    let name = name.strip_suffix("/json").unwrap_or(&name);
    Refusal::not_found(format!("No such image: {name}"))
}

async fn no_volume(Path(name): Path<String>) -> Refusal {
    Refusal::not_found(format!("get {name}: no such volume"))
}

async fn no_plugin(Path(name): Path<String>) -> Refusal {
    let name = name.strip_suffix("/json").unwrap_or(&name);
    Refusal::not_found(format!("plugin {name:?} not found"))
}
