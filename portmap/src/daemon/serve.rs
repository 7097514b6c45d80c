//! Connections, signals, and the end of the daemon.
//!
//! Leaving because nothing is left to do is a race against the client that arrives just now. So the socket's file goes
//! first: who comes then starts the next daemon. Who is in the queue by then is served, and only then the socket closes.
//! A socket that a service manager gave us stays open on its side, and its queue waits for the next daemon.

use std::convert::Infallible;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, sleep_until, timeout};

use super::State;
use super::api::Api;
use super::socket::Listening;

/// How long a request's head may take, and a connection be unused.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// How long open requests may take once the daemon is to end.
const LAST_REQUESTS: Duration = Duration::from_secs(10);
/// How long a client may take to read the last that it is told.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long to wait for descriptors when there are none.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// When the daemon was last asked for something.
pub(crate) struct Activity {
    open: AtomicUsize,
    last: Mutex<Instant>,
    leaving: watch::Sender<bool>,
}

/// A request that is being answered.
pub(crate) struct Request(Arc<State>);

impl Default for Activity {
    fn default() -> Self {
        Self {
            open: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            leaving: watch::Sender::new(false),
        }
    }
}

impl Activity {
    /// Resolves when the daemon is to end.
    pub(crate) async fn leaving(&self) {
        let mut leaving = self.leaving.subscribe();
        let _ = leaving.wait_for(|leaving| *leaving).await;
    }
}

impl Request {
    pub(crate) fn begin(state: &Arc<State>) -> Self {
        state.activity.open.fetch_add(1, Ordering::SeqCst);
        Self(state.clone())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let activity = &self.0.activity;
        *activity.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        activity.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    /// When there will have been nothing to do for `span`; now if that is so already, later if there is something.
    fn idle_at(&self, span: Duration) -> Instant {
        let last = *self.activity.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.activity.open.load(Ordering::SeqCst) == 0 && self.watch.count() == 0 {
            last + span
        } else {
            Instant::now() + span
        }
    }
}

/// Serves until a signal, or until there is nothing to do for as long as `idle` says.
pub(super) async fn serve(state: Arc<State>, inherited: Vec<OwnedFd>, idle: Option<Duration>) -> Result<()> {
    for (id, running) in state.controller.running()? {
        state.watch_again(id, &running);
    }
    let sockets = listen(&state, inherited)?;
    let mut signals = Signals::listen()?;
    let api = Api::new(state.clone());
    let mut connections = JoinSet::new();
    let (accepted, mut arrivals) = tokio::sync::mpsc::channel::<UnixStream>(16);
    let mut acceptors = JoinSet::new();
    let mut listeners = Vec::new();
    for socket in &sockets {
        let listener = socket.listener.try_clone().and_then(UnixListener::from_std);
        let listener = Arc::new(listener.with_context(|| format!("cannot listen on {}", socket.shown()))?);
        acceptors.spawn(accept(listener.clone(), accepted.clone()));
        listeners.push((listener, socket.is_ours()));
        tracing::info!("API listen on {}", socket.shown());
    }
    tell_service_manager("READY=1");
    loop {
        tokio::select! {
            Some(stream) = arrivals.recv() => {
                connections.spawn(converse(stream, api.clone(), state.clone()));
            }
            Some(_) = connections.join_next() => {}
            signal = signals.next() => match signal {
                Heard::Reload => reload(&state),
                Heard::End(name) => {
                    tracing::info!(signal = name, "leaving: sandboxes go on");
                    break;
                }
            },
            () = idle_for(&state, idle) => {
                tracing::info!("leaving: nothing to look after");
                break;
            }
        }
    }
    tell_service_manager("STOPPING=1");
    sockets.iter().for_each(Listening::remove);
    acceptors.shutdown().await;
    while let Ok(stream) = arrivals.try_recv() {
        connections.spawn(converse(stream, api.clone(), state.clone()));
    }
    for (listener, _) in listeners.iter().filter(|(_, ours)| *ours) {
        while let Some(stream) = queued(listener).await {
            connections.spawn(converse(stream, api.clone(), state.clone()));
        }
    }
    drop((listeners, sockets));
    state.activity.leaving.send_replace(true);
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => {}
        () = last_requests(&state) => {}
    }
    Ok(())
}

/// How long to wait for connections at the end: until all is answered and could be read.
async fn last_requests(state: &State) {
    let deadline = Instant::now() + LAST_REQUESTS;
    while Instant::now() < deadline {
        sleep(LAST_WORDS).await;
        if state.activity.open.load(Ordering::SeqCst) == 0 {
            return;
        }
    }
    tracing::warn!("leaving with requests unanswered");
}

fn listen(state: &State, inherited: Vec<OwnedFd>) -> Result<Vec<Listening>> {
    let settings = &state.settings;
    if !inherited.is_empty() {
        return inherited.into_iter().map(Listening::inherit).collect();
    }
    settings.hosts.iter().map(|path| Listening::bind(path, settings.group.as_deref())).collect()
}

async fn accept(listener: Arc<UnixListener>, accepted: tokio::sync::mpsc::Sender<UnixStream>) {
    loop {
        // A place is taken first, so that an accepted connection is never lost.
        let Ok(place) = accepted.reserve().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => place.send(stream),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

/// The next connection in the queue, if there is one.
async fn queued(listener: &UnixListener) -> Option<UnixStream> {
    let waiting = timeout(Duration::from_millis(1), listener.accept()).await;
    waiting.ok()?.ok().map(|(stream, _)| stream)
}

/// Serves one connection until its client or the daemon leaves.
async fn converse(stream: UnixStream, api: Api, state: Arc<State>) {
    let shared = state.clone();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (api, open) = (api.clone(), Request::begin(&shared));
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let response = api.answer(request).await;
            tracing::debug!(%method, path, status = response.status().as_u16(), "request");
            drop(open);
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(64 * 1024);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = state.activity.leaving() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn idle_for(state: &State, span: Option<Duration>) {
    let Some(span) = span else { return pending().await };
    loop {
        let at = state.idle_at(span);
        if at <= Instant::now() {
            return;
        }
        sleep_until(at.into()).await;
    }
}

fn reload(state: &Arc<State>) {
    let state = state.clone();
    spawn_blocking(move || match state.controller.reconcile() {
        Ok(()) => {
            tracing::info!("everything is as it should be");
            state.bus.reloaded(&state.engine_id);
        }
        Err(error) => tracing::error!(%error, "not everything is as it should be"),
    });
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

enum Heard {
    End(&'static str),
    Reload,
}

impl Signals {
    fn listen() -> Result<Self> {
        let open = |kind| signal(kind).context("cannot wait for signals");
        Ok(Self {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
            hangup: open(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::End("SIGTERM"),
            _ = self.interrupt.recv() => Heard::End("SIGINT"),
            _ = self.hangup.recv() => Heard::Reload,
        }
    }
}

/// By sd_notify(3), where somebody wants to know.
fn tell_service_manager(what: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent =
        UnixDatagram::unbound().and_then(|socket| match path.to_str().and_then(|p| p.strip_prefix('@')) {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                socket.send_to_addr(what.as_bytes(), &address)
            }
            None => socket.send_to(what.as_bytes(), &path),
        });
    if let Err(error) = sent {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}
