//! `/events`: what was and what will be, one JSON object per line.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Frame;
use netcore::model::Timestamp;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::filters::Filters;
use super::query::Params;
use super::reply::Refusal;
use super::{Result, wording};
use crate::daemon::bus::Event;
use crate::daemon::serve::Request;
use crate::daemon::{State, now};

/// How long a listener may take for one event; then it is lost to it.
const PATIENCE: Duration = Duration::from_millis(100);

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/events", get(events))
}

async fn events(
    extract::State(state): extract::State<Arc<State>>,
    params: Params,
    headers: axum::http::HeaderMap,
) -> Result<Response> {
    const KNOWN: [&str; 14] = [
        "config",
        "container",
        "daemon",
        "event",
        "image",
        "label",
        "network",
        "node",
        "plugin",
        "scope",
        "secret",
        "service",
        "type",
        "volume",
    ];
    let filters = Filters::of(&params, &KNOWN)?;
    let (since, until) = (moment(&params, "since")?, moment(&params, "until")?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(Refusal::invalid(format!(
            "`since` time ({since}) cannot be after `until` time ({until})"
        )));
    }
    let (kept, coming) = state.bus.listen();
    let replayed = since.is_some() || until.is_some();
    let past: Vec<Arc<Event>> = kept
        .into_iter()
        .filter(|event| replayed && in_span(event, since, until) && is_wanted(&filters, event))
        .collect();
    let form = Form::of(&headers);
    let (lines, body) = mpsc::channel(16);
    tokio::spawn(tell(Telling { state, past, coming, until, filters, form, lines }));
    let body = Body::new(Lines(body));
    Ok(([(header::CONTENT_TYPE, form.content_type())], body).into_response())
}

/// How events are put one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    JsonLines,
    NdJson,
    JsonSequence,
}

impl Form {
    /// What the client accepts by one of three names, each alone in its header; else what old clients expect.
    fn of(headers: &axum::http::HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let named = |text: &str| match text.trim() {
            "application/jsonl" => Some(Self::JsonLines),
            "application/x-ndjson" => Some(Self::NdJson),
            "application/json-seq" => Some(Self::JsonSequence),
            _ => None,
        };
        accepted.filter_map(named).next().unwrap_or(Self::Json)
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLines => "application/jsonl",
            Self::NdJson => "application/x-ndjson",
            Self::JsonSequence => "application/json-seq",
        }
    }

    fn line(self, event: &Event) -> Option<Bytes> {
        let mut line = if self == Self::JsonSequence { vec![0x1e] } else { Vec::new() };
        serde_json::to_writer(&mut line, event).ok()?;
        line.push(b'\n');
        Some(line.into())
    }
}

struct Telling {
    state: Arc<State>,
    past: Vec<Arc<Event>>,
    coming: Receiver<Arc<Event>>,
    until: Option<Timestamp>,
    filters: Filters,
    form: Form,
    lines: mpsc::Sender<Bytes>,
}

/// Sends events until the client, the time or the daemon ends it.
async fn tell(mut telling: Telling) {
    let _open = Request::begin(&telling.state);
    let form = telling.form;
    for event in std::mem::take(&mut telling.past) {
        let Some(line) = form.line(&event) else { continue };
        let sent = tokio::select! {
            sent = telling.lines.send(line) => sent.is_ok(),
            () = telling.state.activity.leaving() => false,
        };
        if !sent {
            return;
        }
    }
    let left = telling.until.map(|until| until.nanos().saturating_sub(now().nanos()));
    let time_is_up = async {
        match left {
            Some(nanos) => sleep(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(time_is_up);
    loop {
        let event = tokio::select! {
            () = time_is_up.as_mut() => return,
            () = telling.lines.closed() => return,
            () = telling.state.activity.leaving() => return,
            event = telling.coming.recv() => event,
        };
        match event {
            Ok(event) if is_wanted(&telling.filters, &event) => {
                if let Some(line) = form.line(&event) {
                    // An event that isn't taken in time is lost; a client that left is noticed above.
                    let _ = timeout(PATIENCE, telling.lines.send(line)).await;
                }
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// A body that grows.
struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

fn moment(params: &Params, name: &str) -> Result<Option<Timestamp>> {
    let Some(text) = params.given(name) else { return Ok(None) };
    let moment = wording::unix_seconds(text);
    moment.map(Some).ok_or_else(|| Refusal::invalid(format!("failed to parse value {text:?} as a time")))
}

fn in_span(event: &Event, since: Option<Timestamp>, until: Option<Timestamp>) -> bool {
    let at = Timestamp::from_nanos(event.nanos);
    since.is_none_or(|since| at >= since) && until.is_none_or(|until| at <= until)
}

fn is_wanted(filters: &Filters, event: &Event) -> bool {
    let attributes: &BTreeMap<String, String> = &event.actor.attributes;
    // Objects are looked for whatever the event's type is.
    let object = |key: &str| {
        filters.any(key, |wanted| {
            let name = attributes.get("name").map_or("", String::as_str);
            event.actor.id.starts_with(wanted) || name.starts_with(wanted)
        })
    };
    let action = |wanted: &str| match wanted {
        "health_status" | "exec_create" | "exec_start" => event.action.starts_with(wanted),
        _ => event.action == wanted,
    };
    filters.any("event", action)
        && filters.exact("type", event.kind)
        && filters.exact("scope", event.scope)
        && filters.labels("label", attributes)
        && [
            "container",
            "daemon",
            "image",
            "network",
            "node",
            "plugin",
            "secret",
            "service",
            "volume",
            "config",
        ]
        .into_iter()
        .all(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &'static str, action: &'static str, id: &str, name: &str) -> Event {
        let attributes = [("name".to_owned(), name.to_owned()), ("team".to_owned(), "a".to_owned())];
        Event::new(kind, action, id.to_owned(), attributes.into(), Timestamp::from_nanos(5))
    }

    #[test]
    fn filters_look_at_types_names_and_ids() {
        let event = event("network", "connect", "1196a4", "isolated_nw");
        let cases = [
            (r"{}", true),
            (r#"{"type":["network"]}"#, true),
            (r#"{"type":["container"]}"#, false),
            (r#"{"network":["iso"],"event":["connect"]}"#, true),
            (r#"{"container":["1196"]}"#, true),
            (r#"{"container":["web"]}"#, false),
            (r#"{"event":["conn"]}"#, false),
            (r#"{"label":["team=a"]}"#, true),
            (r#"{"label":["team=b"]}"#, false),
        ];
        for (filters, want) in cases {
            assert_eq!(is_wanted(&Filters::for_test(filters), &event), want, "{filters}");
        }
        let at = |nanos| Some(Timestamp::from_nanos(nanos));
        assert!(
            in_span(&event, at(5), at(5)) && !in_span(&event, at(6), None) && !in_span(&event, None, at(4))
        );
    }

    #[test]
    fn the_form_is_what_the_client_accepts() {
        let accept = |values: &[&'static str]| {
            let mut headers = axum::http::HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT, axum::http::HeaderValue::from_static(value));
            }
            Form::of(&headers).content_type()
        };
        assert_eq!(accept(&[]), "application/json");
        assert_eq!(accept(&["application/x-ndjson"]), "application/x-ndjson");
        let with_quality = ["application/json-seq;q=0.9", "application/jsonl;q=1.0"];
        assert_eq!(accept(&with_quality), "application/json");
        let line = Form::JsonSequence.line(&event("network", "create", "1", "n")).unwrap();
        assert!(line.starts_with(b"\x1e{") && line.ends_with(b"}\n"));
    }
}
