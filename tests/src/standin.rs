//! A stand-in for the daemon, for tests of the other side: it answers as the daemon does, makes no networks, and keeps what
//! it was told.
//!
//! Its sandboxes have the host's network stack, and hosts and hostname files of their own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::bin;
use crate::wait::{self, PATIENCE};

/// The stand-in, listening until it goes.
#[derive(Debug)]
pub struct StandIn {
    state: Arc<Mutex<State>>,
    folder: tempfile::TempDir,
}

#[derive(Debug, Default)]
struct State {
    sandboxes: BTreeMap<String, Value>,
    /// What was asked, but for questions: operation and body.
    told: Vec<(String, Value)>,
    /// Connections, so that they can be cut.
    connections: Vec<UnixStream>,
    /// How many connections are cut amid a request before it is heard.
    deaf: usize,
}

impl StandIn {
    /// Begins to listen.
    ///
    /// # Panics
    /// When there is no room for a socket.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = Arc::new(Mutex::new(State::default()));
        let listener = UnixListener::bind(folder.path().join("socket")).expect("a free path");
        let (shared, path) = (Arc::clone(&state), folder.path().to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, folder) = (Arc::clone(&shared), path.clone());
                state.lock().expect("no panic").connections.extend(stream.try_clone());
                thread::spawn(move || serve(&stream, &state, &folder));
            }
        });
        Self { state, folder }
    }

    /// A `portmap` that talks to it.
    #[must_use]
    pub fn portmap(&self, words: &[&str]) -> Command {
        let mut command = Command::new(bin::portmap());
        command.args(words).env("PORTMAP_HOST", format!("unix://{}", self.path().join("socket").display()));
        command
    }

    /// Its folder, for whatever a test needs.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What it was told so far: `create`, `start`, `started`, `exited`, with the bodies.
    ///
    /// # Panics
    /// When a connection's thread did.
    #[must_use]
    pub fn told(&self) -> Vec<(String, Value)> {
        self.state.lock().expect("no panic").told.clone()
    }

    /// The body of the first thing of this name that it is told, for [`PATIENCE`].
    ///
    /// # Panics
    /// When it isn't told.
    #[must_use]
    pub fn hears(&self, what: &str) -> Value {
        wait::some(what, PATIENCE, || self.told().into_iter().find(|(told, _)| told == what)).1
    }

    /// Cuts all connections, as a daemon's death does, and the next one before it is heard.
    ///
    /// # Panics
    /// When a connection's thread did.
    pub fn cut(&self) {
        let mut state = self.state.lock().expect("no panic");
        state.deaf = 1;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Default for StandIn {
    fn default() -> Self {
        Self::new()
    }
}

/// Answers requests on one connection.
fn serve(stream: &UnixStream, state: &Mutex<State>, folder: &Path) {
    let mut reader = BufReader::new(stream);
    while let Some((method, path, body)) = request(&mut reader) {
        let answered = {
            let mut state = state.lock().expect("no panic");
            if state.deaf > 0 {
                state.deaf -= 1;
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            answer(&mut state, folder, &method, &path, body)
        };
        let (status, body) = answered;
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        if (&mut &*stream).write_all(format!("{head}{text}").as_bytes()).is_err() {
            return;
        }
    }
}

fn request(reader: &mut impl BufRead) -> Option<(String, String, Value)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let (method, rest) = line.split_once(' ')?;
    let path = rest.split(' ').next()?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method.to_owned(), path.to_owned(), serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

fn answer(state: &mut State, folder: &Path, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let operation = parts.last().copied().unwrap_or_default();
    if method == "POST" {
        state.told.push((operation.to_owned(), body.clone()));
    }
    if operation == "create" {
        let id = format!("{:064x}", state.sandboxes.len() + 0xa000_0000);
        let name = query.strip_prefix("name=").unwrap_or_else(|| &id[52..]).to_owned();
        state.sandboxes.insert(id.clone(), json!({"Name": name, "Config": body, "Running": false, "Pid": 0}));
        return (201, json!({"Id": id, "Warnings": []}));
    }
    let reference = parts.get(parts.len().saturating_sub(2)).copied().unwrap_or_default();
    let found = state.sandboxes.iter_mut().find(|(id, facts)| *id == reference || facts["Name"] == reference);
    let Some((id, facts)) = found else {
        return (404, json!({"message": format!("No such container: {reference}")}));
    };
    let file = |name: &str| -> PathBuf { folder.join(format!("{}-{name}", &id[52..])) };
    let hostname =
        facts["Config"]["Hostname"].as_str().filter(|name| !name.is_empty()).unwrap_or_else(|| &id[52..]);
    match (method, operation) {
        ("GET", "json") => {
            let config = json!({"Hostname": hostname, "Env": facts["Config"]["Env"],
                "WorkingDir": facts["Config"]["WorkingDir"]});
            let state = json!({"Running": facts["Running"], "Pid": facts["Pid"]});
            (
                200,
                json!({"Id": id, "Name": facts["Name"], "LogPath": file("log"), "State": state, "Config": config}),
            )
        }
        ("POST", "start") => {
            let written = fs::write(file("hosts"), format!("10.1.2.3 {hostname}\n"))
                .and_then(|()| fs::write(file("hostname"), format!("{hostname}\n")));
            written.expect("a temporary folder takes files");
            let config = &facts["Config"];
            let ready = json!({"Id": id, "Name": facts["Name"], "Netns": "", "Hostname": hostname, "Domainname": "",
                "HostsPath": file("hosts"), "HostnamePath": file("hostname"), "ResolvConfPath": "",
                "Cmd": config["Cmd"], "Env": config["Env"], "WorkingDir": config["WorkingDir"],
                "Tty": config["Tty"], "LogPath": file("log"), "ShareMountsOf": 0});
            facts["Running"] = true.into();
            facts["Pid"] = body["Pid"].clone();
            (200, ready)
        }
        ("POST", "started") => {
            facts["Pid"] = body["Pid"].clone();
            (204, Value::Null)
        }
        ("POST", "exited") => {
            facts["Running"] = false.into();
            (204, Value::Null)
        }
        _ => (404, json!({"message": "page not found"})),
    }
}
