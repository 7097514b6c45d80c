//! The daemon's API from the client's side: one request, one answer, blocking.
//!
//! Where nobody listens on a Unix socket, the daemon is started on demand: this very program, detached, which leaves
//! again when there is nothing left to look after. Two clients at once start two, of which one loses the lock on the data
//! root and leaves quietly; both clients get the winner.
//!
//! A request is sent again only if the daemon can't have seen it, or if it asks without changing anything: a daemon that
//! is killed amid a request may have done what was asked.
//!
//! Not here: what the paths and bodies mean (`cli`, `daemon::api`).

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use nix::unistd::geteuid;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};

/// Where the daemon's run-time files are unless it is told otherwise.
pub(crate) const DEFAULT_EXEC_ROOT: &str = "/run/portmap";
/// Where the daemon listens unless it is told otherwise: a file in its exec root.
pub(crate) const SOCKET: &str = "portmap.sock";
/// `-H`, of clients and of the daemon.
pub(crate) const HOST_VARIABLE: &str = "PORTMAP_HOST";
/// The daemon's `--data-root`.
pub(crate) const DATA_ROOT_VARIABLE: &str = "PORTMAP_DATA_ROOT";
/// The daemon's `--exec-root`, and so where its clients look for it.
pub(crate) const EXEC_ROOT_VARIABLE: &str = "PORTMAP_EXEC_ROOT";

/// How long a daemon started on demand stays with nothing to look after.
const IDLE_TIMEOUT: &str = "60s";
/// How long it may take until it answers.
const START_TIME: Duration = Duration::from_secs(10);
/// How often the socket is tried meanwhile.
const START_POLL: Duration = Duration::from_millis(5);
/// How long after one that lost the lock the next is started: the winner was possibly about to leave.
const RESTART_PAUSE: Duration = Duration::from_millis(250);
/// How long an unused connection is kept. The daemon keeps its end for longer, so it is never closed under a request.
const KEEP: Duration = Duration::from_secs(5);

/// A client of one daemon.
pub(crate) struct Client {
    host: Host,
    runtime: Runtime,
    connection: Option<Kept>,
    /// Whether a daemon is started where nobody listens.
    starts: bool,
}

/// What the daemon answered: a status of 2xx, or 304.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Why there is no such answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The daemon refused.
    Daemon { status: u16, message: String },
    /// It couldn't be asked.
    Other(anyhow::Error),
}

/// Where the daemon listens.
#[derive(Debug, PartialEq, Eq)]
enum Host {
    Unix(PathBuf),
    Tcp(String),
}

struct Kept {
    sender: SendRequest<Full<Bytes>>,
    used: Instant,
}

/// A request that wasn't answered.
struct Unanswered {
    error: anyhow::Error,
    /// Whether the daemon may have seen it.
    seen: bool,
}

impl Client {
    /// A client of the daemon at `host`, as given with `-H` or in `PORTMAP_HOST`; `None` is the default one. Neither
    /// connects nor starts anything yet.
    pub(crate) fn new(host: Option<&str>) -> Result<Self> {
        let host = match host {
            Some(text) => Host::parse(text)?,
            None => Host::Unix(std::path::absolute(exec_root().join(SOCKET)).context("invalid path")?),
        };
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        Ok(Self { host, runtime: runtime.context("cannot start a runtime")?, connection: None, starts: true })
    }

    /// Asks only a daemon that is there.
    pub(crate) fn without_starting(self) -> Self {
        Self { starts: false, ..self }
    }

    /// Sends one request and waits for its answer, for as long as it takes. The daemon is started if nobody listens.
    pub(crate) fn call(
        &mut self,
        method: &str,
        path_and_query: &str,
        body: Option<&Value>,
    ) -> Result<Answer, CallError> {
        let method: Method = method.parse().with_context(|| format!("invalid method {method:?}"))?;
        let body = body.map(|value| Bytes::from(value.to_string()));
        let connection = self.connection.take().filter(|kept| kept.used.elapsed() < KEEP);
        let Self { host, runtime, starts, .. } = self;
        let connect = || host.connect(*starts);
        let (answer, kept) = runtime.block_on(async {
            let ask = |kept: Kept| send(kept, &method, path_and_query, body.clone());
            if let Some(kept) = connection {
                match ask(kept).await {
                    Err(lost) if !lost.seen || method.is_safe() => {}
                    done => return done.map_err(|lost| lost.error),
                }
            }
            match ask(connect().await?).await {
                // It left between our connecting and our asking.
                Err(lost) if !lost.seen || method.is_safe() => ask(connect().await?).await,
                done => done,
            }
            .map_err(|lost| lost.error)
        })?;
        self.connection = kept;
        match answer.status {
            200..=299 | 304 => Ok(answer),
            status => Err(CallError::Daemon { status, message: message_of(status, &answer.body) }),
        }
    }
}

/// What a variable says; an empty one says nothing.
pub(crate) fn from_environment(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn exec_root() -> PathBuf {
    from_environment(EXEC_ROOT_VARIABLE).map_or_else(|| DEFAULT_EXEC_ROOT.into(), PathBuf::from)
}

/// Percent-encodes what stands for itself in a path segment or a query value.
pub(crate) fn encode(segment: &str) -> String {
    let mut encoded = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

impl Host {
    fn parse(text: &str) -> Result<Self> {
        match text.split_once("://") {
            Some(("unix", "")) => Ok(Self::Unix(exec_root().join(SOCKET))),
            Some(("unix", path)) => {
                Ok(Self::Unix(std::path::absolute(path).with_context(|| format!("invalid path {path:?}"))?))
            }
            Some(("tcp", address)) if address.contains(':') => Ok(Self::Tcp(address.to_owned())),
            _ => bail!("unable to parse host `{text}`: unix:///PATH or tcp://ADDRESS:PORT is needed"),
        }
    }

    /// A connection, to a daemon that is started if need be and allowed.
    async fn connect(&self, may_start: bool) -> Result<Kept> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await.with_context(|| self.unreachable())?;
                handshake(stream).await
            }
            Self::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => handshake(stream).await,
                Err(error) if may_start && nobody_listens(&error) => handshake(self.start(path).await?).await,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(anyhow!(
                    "permission denied while trying to connect to the portmap daemon socket at {self}: {error}"
                )),
                Err(error) => Err(anyhow!("{}: {error}", self.unreachable())),
            },
        }
    }

    /// Starts the daemon and waits until it listens.
    async fn start(&self, socket: &Path) -> Result<UnixStream> {
        if !geteuid().is_root() {
            bail!("{} Only root can start it.", self.unreachable());
        }
        let deadline = Instant::now() + START_TIME;
        let mut starting = Starting::spawn(socket)?;
        loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) if nobody_listens(&error) => {}
                Err(error) => return Err(anyhow!("{}: {error}", self.unreachable())),
            }
            if Instant::now() > deadline {
                bail!("the portmap daemon doesn't listen on {self}, {START_TIME:?} after it was started");
            }
            if starting.has_left()? && starting.since.elapsed() > RESTART_PAUSE {
                starting = Starting::spawn(socket)?;
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    fn unreachable(&self) -> String {
        format!("Cannot connect to the portmap daemon at {self}. Is the portmap daemon running?")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// A daemon that was started and isn't heard of yet.
struct Starting {
    child: Child,
    since: Instant,
    log: PathBuf,
    /// Where in the log its own lines begin.
    begin: u64,
}

impl Starting {
    fn spawn(socket: &Path) -> Result<Self> {
        let exec_root = std::path::absolute(exec_root()).context("cannot tell the current directory")?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["daemon", "--idle-timeout", IDLE_TIMEOUT, "--on-demand"]).arg(socket);
        // It has the same variables, but another directory.
        command.env_remove(HOST_VARIABLE).env(EXEC_ROOT_VARIABLE, &exec_root);
        if let Some(root) = from_environment(DATA_ROOT_VARIABLE) {
            command.env(DATA_ROOT_VARIABLE, std::path::absolute(root)?);
        }
        let (mut file, log) = open_log(&exec_root)?;
        let begin = file.seek(SeekFrom::End(0)).unwrap_or(0);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().context("cannot start the portmap daemon")?;
        Ok(Self { child, since: Instant::now(), log, begin })
    }

    /// Whether it has left because another one is there. One that failed is an error in its own words.
    fn has_left(&mut self) -> Result<bool> {
        match self.child.try_wait().context("cannot watch the portmap daemon")? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => {
                let said = self.last_line().unwrap_or_else(|| status.to_string());
                bail!("the portmap daemon could not be started: {said}")
            }
        }
    }

    fn last_line(&self) -> Option<String> {
        let mut file = File::open(&self.log).ok()?;
        file.seek(SeekFrom::Start(self.begin)).ok()?;
        let mut said = Vec::new();
        file.take(64 * 1024).read_to_end(&mut said).ok()?;
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(last.trim().trim_start_matches("portmap: ").to_owned())
    }
}

/// The log of daemons that have no terminal.
fn open_log(exec_root: &Path) -> Result<(File, PathBuf)> {
    let cannot = |path: &Path| format!("cannot start the portmap daemon: cannot make {}", path.display());
    DirBuilder::new().recursive(true).mode(0o711).create(exec_root).with_context(|| cannot(exec_root))?;
    let path = exec_root.join("daemon.log");
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    Ok((file.with_context(|| cannot(&path))?, path))
}

fn nobody_listens(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Kept> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.context("cannot talk to the portmap daemon")?;
    // What breaks the connection is told to whoever waits for the answer.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Kept { sender, used: Instant::now() })
}

async fn send(
    mut kept: Kept,
    method: &Method,
    path_and_query: &str,
    body: Option<Bytes>,
) -> Result<(Answer, Option<Kept>), Unanswered> {
    let unseen = |error: anyhow::Error| Unanswered { error, seen: false };
    let mut request = Request::builder().method(method).uri(path_and_query);
    request = request
        .header(HOST, "portmap")
        .header(USER_AGENT, concat!("portmap/", env!("CARGO_PKG_VERSION"), " (linux)"));
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(body.unwrap_or_default()));
    let request =
        request.with_context(|| format!("invalid request path {path_and_query:?}")).map_err(unseen)?;
    let gone = "the connection to the portmap daemon was closed";
    kept.sender.ready().await.context(gone).map_err(unseen)?;
    let response = kept.sender.try_send_request(request).await.map_err(|mut lost| {
        let seen = lost.take_message().is_none();
        Unanswered { error: anyhow::Error::new(lost.into_error()).context(gone), seen }
    })?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await;
    let body = body.context(gone).map_err(|error| Unanswered { error, seen: true })?;
    let kept = (!kept.sender.is_closed()).then(|| Kept { used: Instant::now(), ..kept });
    Ok((Answer { status, body: body.to_bytes().into() }, kept))
}

fn message_of(status: u16, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.message.trim().to_owned(),
        Err(_) if body.is_empty() => format!("request returned status {status}"),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon { message, .. } => write!(f, "Error response from daemon: {message}"),
            Self::Other(error) => write!(f, "{error:#}"),
        }
    }
}

impl Error for CallError {}

impl From<anyhow::Error> for CallError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

#[cfg(test)]
mod tests;
