//! `/portmap/explain/{what}`: why a port or a sandbox answers, or doesn't.

use std::sync::Arc;

use axum::Router;
use axum::extract::{self, Path};
use axum::routing::get;

use super::reply::{Json, Refusal};
use super::{Result, perform};
use crate::daemon::State;
use crate::daemon::explain::{Report, explain};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/portmap/explain/{what}", get(answer))
}

async fn answer(
    extract::State(state): extract::State<Arc<State>>,
    Path(what): Path<String>,
) -> Result<Json<Report>> {
    let explained = perform(&state, move |state, _| explain(state, &what)).await?;
    explained.map(Json).map_err(Refusal::invalid)
}
