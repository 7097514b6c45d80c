//! What is done with sandboxes: our own paths, and Docker's for the same.
//!
//! A sandbox's command runs under the process that started it. That one asks for the sandbox to be started, says when
//! the command runs, and reports its end; whoever wants the end waits for that report.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{self, Path};
use axum::http::StatusCode;
use axum::routing::{delete, post};
use netcore::controller::{SandboxConfigRequest, SandboxView, Started};
use netcore::kernel::PidFd;
use netcore::model::{NetworkMode, ProcessConfig, Publication, Sandbox, SandboxId, SandboxState, Setting};
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::time::timeout;

use super::body::Fields;
use super::names;
use super::ports::{self, PortMap};
use super::query::Params;
use super::reply::{Json, Refusal};
use super::version::Version;
use super::{Result, endpoint, perform};
use crate::daemon::State;
use crate::daemon::watch::End;

/// How long `stop` waits before it kills, unless it is told.
const STOP_TIME: i64 = 10;
/// How long a supervisor may take to report the end of a killed command.
const REPORT_TIME: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Router<Arc<State>> {
    let mut router = Router::new()
        .route("/portmap/sandboxes/create", post(create))
        .route("/portmap/sandboxes/{id}/start", post(start))
        .route("/portmap/sandboxes/{id}/started", post(started))
        .route("/portmap/sandboxes/{id}/exited", post(exited))
        .route("/portmap/sandboxes/{id}/publish", post(publish))
        .route("/portmap/sandboxes/{id}/unpublish", post(unpublish));
    for root in ["/portmap/sandboxes", "/containers"] {
        router = router
            .route(&format!("{root}/{{id}}/stop"), post(stop))
            .route(&format!("{root}/{{id}}/kill"), post(kill))
            .route(&format!("{root}/{{id}}/wait"), post(wait))
            .route(&format!("{root}/{{id}}/rename"), post(rename))
            .route(&format!("{root}/{{id}}"), delete(remove));
    }
    router
}

type Daemon = extract::State<Arc<State>>;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
    warnings: Vec<&'static str>,
}

async fn create(
    extract::State(state): Daemon,
    version: Version,
    params: Params,
    fields: Fields,
) -> Result<(StatusCode, Json<Created>)> {
    let request = request(params.given("name"), &fields, version)?;
    let warnings = warnings(&request);
    let sandbox = perform(&state, move |state, controller| {
        let sandbox = controller.create_sandbox(request)?;
        state.bus.sandbox("create", &sandbox, &[]);
        Ok(sandbox)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(Created { id: sandbox.id.to_string(), warnings })))
}

/// What is accepted without effect. Of ports Docker looks at those that were named.
fn warnings(request: &SandboxConfigRequest) -> Vec<&'static str> {
    let given: &[Setting] = if request.ports.publish.is_empty() { &[] } else { &[Setting::Publish] };
    request.mode.warning(given).into_iter().collect()
}

fn request(name: Option<&str>, fields: &Fields, version: Version) -> Result<SandboxConfigRequest> {
    let given = |key| Ok::<_, Refusal>(Some(fields.text(key)?).filter(|text| !text.is_empty()));
    let host = fields.object("HostConfig")?;
    let mode = host.text("NetworkMode")?;
    let mode: NetworkMode = match mode.as_str() {
        "" => NetworkMode::default(),
        text => {
            text.parse().map_err(|error: netcore::model::ModeError| Refusal::invalid(error.to_string()))?
        }
    };
    let endpoints = fields.object("NetworkingConfig")?.map_of_objects("EndpointsConfig")?;
    let settings = |(name, fields): (String, Fields)| {
        Ok::<_, Refusal>((name, endpoint::settings(&fields, version, Version::new(1, 44))?))
    };
    Ok(SandboxConfigRequest {
        name: name.map(str::to_owned),
        hostname: given("Hostname")?,
        domainname: given("Domainname")?,
        labels: fields.map("Labels")?,
        mac: endpoint::mac(&fields.text("MacAddress")?)?,
        netns: path(&fields.text("Netns")?)?,
        networks: endpoints.into_iter().map(settings).collect::<Result<_>>()?,
        ports: ports::wanted(fields)?,
        dns: names::dns(&host)?,
        extra_hosts: names::extra_hosts(&host)?,
        links: names::links(&host, &mode)?,
        mode,
        process: process(fields)?,
        auto_remove: host.flag("AutoRemove")?,
    })
}

/// What is to run, as the kernel takes it: refused now, not when it is to be started.
fn process(fields: &Fields) -> Result<ProcessConfig> {
    let process = ProcessConfig {
        command: fields.texts("Cmd")?,
        env: fields.texts("Env")?,
        directory: path(&fields.text("WorkingDir")?)?,
        terminal: fields.flag("Tty")?,
    };
    process.command.iter().try_for_each(|word| without_zero(word))?;
    for entry in &process.env {
        without_zero(entry)?;
        if entry.is_empty() || entry.starts_with('=') {
            return Err(Refusal::invalid(format!("invalid environment variable: {entry}")));
        }
    }
    match process.directory {
        Some(directory) if directory.is_relative() => Err(Refusal::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            directory.display()
        ))),
        directory => Ok(ProcessConfig { directory, ..process }),
    }
}

/// A path; an empty one is none.
fn path(text: &str) -> Result<Option<PathBuf>> {
    without_zero(text)?;
    Ok((!text.is_empty()).then(|| text.into()))
}

fn without_zero(text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Refusal::invalid(format!("invalid value {text:?}: it contains a zero byte")));
    }
    Ok(())
}

/// What a supervisor needs.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Plumbed {
    id: String,
    name: String,
    /// Empty in the host's stack.
    netns: String,
    hostname: String,
    domainname: String,
    hosts_path: String,
    hostname_path: String,
    /// Empty to leave the host's.
    resolv_conf_path: String,
    cmd: Vec<String>,
    /// What its links say, and then what was asked for.
    env: Vec<String>,
    working_dir: String,
    tty: bool,
    log_path: String,
    /// The process whose view of `/etc` it shares, or 0.
    share_mounts_of: u32,
}

impl Plumbed {
    fn of(started: Started, state: &State) -> Self {
        let Started { sandbox, netns, hostname, domainname, files, link_env, target } = started;
        let path = |path: Option<PathBuf>| path.map_or_else(String::new, |path| path.display().to_string());
        let data_root = &state.settings.controller.data_root;
        let id = sandbox.id.to_string();
        let process = sandbox.config.process;
        Self {
            log_path: super::containers::log_path(data_root, &id).display().to_string(),
            id,
            name: sandbox.config.name.to_string(),
            netns: path(netns),
            hostname,
            domainname,
            hosts_path: path(Some(files.hosts)),
            hostname_path: path(Some(files.hostname)),
            resolv_conf_path: path(files.resolv_conf),
            cmd: process.command,
            env: link_env.into_iter().chain(process.env).collect(),
            working_dir: path(process.directory),
            tty: process.terminal,
            share_mounts_of: target.map_or(0, |(_, running)| running.pid),
        }
    }
}

async fn start(
    extract::State(state): Daemon,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Json<Plumbed>> {
    let pid = process_number(&fields)?;
    let (supervisor, process) = PidFd::open(pid).map_err(|error| no_process(pid, &error))?;
    let handle = tokio::runtime::Handle::current();
    let plumbed = perform(&state, move |state, controller| {
        let started = controller.start_sandbox(&id, process)?;
        // Here and not after the wait: whether or not the client is still there, somebody must notice the end.
        let entered = handle.enter();
        state.watch_started(started.sandbox.id, process, supervisor);
        drop(entered);
        tell_of_start(state, &started.sandbox);
        Ok(Plumbed::of(started, state))
    });
    plumbed.await.map(Json)
}

fn tell_of_start(state: &State, sandbox: &Sandbox) {
    if let Ok(view) = state.controller.sandbox(&sandbox.id.to_string()) {
        for endpoint in &view.endpoints {
            let network = state.network_label(endpoint.network);
            state.bus.attachment("connect", endpoint.network, &network, sandbox.id);
        }
    }
    state.bus.sandbox("start", sandbox, &[]);
}

async fn started(
    extract::State(state): Daemon,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<StatusCode> {
    let pid = process_number(&fields)?;
    let (command, _) = PidFd::open(pid).map_err(|error| no_process(pid, &error))?;
    perform(&state, move |state, controller| {
        let id = controller.sandbox(&id)?.sandbox.id;
        controller.process_started(id, pid)?;
        state.watch.command_started(id, command);
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

async fn exited(extract::State(state): Daemon, Path(id): Path<String>, fields: Fields) -> Result<StatusCode> {
    let code = fields.number("ExitCode")?;
    let code = i32::try_from(code).map_err(|_| Refusal::invalid(format!("invalid exit code: {code}")))?;
    let error = Some(fields.text("Error")?).filter(|text| !text.is_empty());
    let reporter = match process_number(&fields)? {
        0 => None,
        pid => Some(PidFd::open(pid).map_err(|error| no_process(pid, &error))?.1),
    };
    perform(&state, move |state, controller| {
        let sandbox = controller.sandbox(&id)?.sandbox;
        state.ended(sandbox.id, End::Reported(reporter, code, error))?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// The ports that a change was about, in the shape of `NetworkSettings.Ports`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Changed {
    ports: PortMap,
}

impl Changed {
    /// What one state of a sandbox has and the other hasn't; of a sandbox that doesn't run that is nothing.
    fn between(one: &SandboxView, other: &SandboxView) -> Self {
        let all = |view: &SandboxView| -> Vec<Publication> {
            view.endpoints.iter().flat_map(|endpoint| endpoint.publications.clone()).collect()
        };
        let others = all(other);
        Self { ports: ports::map_of(all(one).iter().filter(|publication| !others.contains(publication))) }
    }
}

async fn publish(
    extract::State(state): Daemon,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Json<Changed>> {
    let specs = ports::specs(&fields)?;
    perform(&state, move |_, controller| {
        let before = controller.sandbox(&id)?;
        let after = controller.publish(&id, specs)?;
        Ok(Json(Changed::between(&after, &before)))
    })
    .await
}

async fn unpublish(
    extract::State(state): Daemon,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Json<Changed>> {
    let specs = ports::specs(&fields)?;
    perform(&state, move |_, controller| {
        let before = controller.sandbox(&id)?;
        let after = controller.unpublish(&id, &specs)?;
        Ok(Json(Changed::between(&before, &after)))
    })
    .await
}

fn process_number(fields: &Fields) -> Result<u32> {
    let number = fields.number("Pid")?;
    u32::try_from(number).map_err(|_| Refusal::invalid(format!("invalid process id: {number}")))
}

fn no_process(pid: u32, error: &std::io::Error) -> Refusal {
    Refusal::invalid(format!("cannot watch process {pid}: {error}"))
}

async fn sandbox(state: &Arc<State>, reference: String) -> Result<Sandbox> {
    perform(state, move |_, controller| Ok(controller.sandbox(&reference)?.sandbox)).await
}

async fn stop(extract::State(state): Daemon, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let patience = params.number("t")?.unwrap_or(STOP_TIME);
    let signal = signal(params.given("signal").unwrap_or("TERM"))?;
    let sandbox = sandbox(&state, id).await?;
    let Some(mut end) = state.watch.end_of(sandbox.id) else { return Ok(StatusCode::NOT_MODIFIED) };
    if params.flag("keep") {
        state.watch.keep(sandbox.id);
    }
    let work = async move {
        send(&state, &sandbox, signal);
        let ended = end.wait_for(Option::is_some);
        // Negative means for ever.
        let ended = match u64::try_from(patience) {
            Ok(seconds) => timeout(Duration::from_secs(seconds), ended).await.is_ok(),
            Err(_) => ended.await.is_ok(),
        };
        if !ended {
            force(&state, &sandbox).await;
        }
        state.bus.sandbox("stop", &sandbox, &[]);
    };
    to_the_end(work).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Goes on if the client leaves: who asked for a stop doesn't take it back by hanging up.
async fn to_the_end(work: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    tokio::spawn(work).await.map_err(|_| Refusal::internal("the operation broke off"))
}

async fn kill(extract::State(state): Daemon, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let signal = signal(params.given("signal").unwrap_or("KILL"))?;
    let sandbox = sandbox(&state, id).await?;
    let running = state.watch.end_of(sandbox.id);
    let Some(mut end) = running else {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            format!(
                "cannot kill container: {}: container {} is not running",
                sandbox.config.name, sandbox.id
            ),
        ));
    };
    if signal == Signal::SIGKILL as i32 {
        force(&state, &sandbox).await;
        let _ = timeout(REPORT_TIME, end.wait_for(Option::is_some)).await;
    } else {
        send(&state, &sandbox, signal);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Kills a sandbox's command and waits until the sandbox is torn down.
async fn force(state: &Arc<State>, sandbox: &Sandbox) {
    let Some(mut end) = state.watch.end_of(sandbox.id) else { return };
    send(state, sandbox, Signal::SIGKILL as i32);
    if timeout(REPORT_TIME, end.wait_for(Option::is_some)).await.is_err() {
        tracing::warn!(id = %sandbox.id.short(), "its supervisor doesn't report the end: killing it too");
        state.watch.kill_supervisor(sandbox.id);
        let _ = timeout(REPORT_TIME, end.wait_for(Option::is_some)).await;
    }
}

fn send(state: &State, sandbox: &Sandbox, signal: i32) {
    match state.watch.signal(sandbox.id, signal) {
        Ok(()) => state.bus.sandbox("kill", sandbox, &[("signal", &signal.to_string())]),
        // It has ended just now; its report is on the way.
        Err(error) => tracing::debug!(id = %sandbox.id.short(), %error, "cannot signal"),
    }
}

/// `TERM`, `SIGTERM` or `15`.
fn signal(text: &str) -> Result<i32> {
    let upper = text.to_uppercase();
    let name = if upper.starts_with("SIG") { upper.clone() } else { format!("SIG{upper}") };
    let number = text.parse::<i32>().ok().filter(|number| (1..=64).contains(number));
    let named = || name.parse::<Signal>().ok().map(|signal| signal as i32);
    number.or_else(named).ok_or_else(|| Refusal::invalid(format!("invalid signal: {text}")))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Waited {
    status_code: i32,
}

async fn wait(extract::State(state): Daemon, Path(id): Path<String>, params: Params) -> Result<Json<Waited>> {
    let next = params.text("condition") == "next-exit";
    let sandbox = sandbox(&state, id).await?;
    let status_code = match state.watch.end_of(sandbox.id) {
        Some(mut end) => {
            let code = tokio::select! {
                code = end.wait_for(Option::is_some) => code.ok().and_then(|code| *code),
                () = state.activity.leaving() => None,
            };
            code.ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is leaving"))?
        }
        None if next => {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                format!("container {} is not running", sandbox.id),
            ));
        }
        None => match sandbox.state {
            SandboxState::Exited(exited) => exited.code,
            SandboxState::Created | SandboxState::Running(_) => 0,
        },
    };
    Ok(Json(Waited { status_code }))
}

async fn rename(extract::State(state): Daemon, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let name = params.text("name").to_owned();
    perform(&state, move |state, controller| {
        let before = controller.sandbox(&id)?.sandbox;
        let after = controller.rename_sandbox(&id, &name)?;
        let old = format!("/{}", before.config.name);
        state.bus.sandbox("rename", &after, &[("oldName", &old)]);
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

async fn remove(extract::State(state): Daemon, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let found = sandbox(&state, id).await?;
    let id: SandboxId = found.id;
    let forced = params.flag("force") && state.watch.end_of(id).is_some();
    if forced {
        let state = state.clone();
        to_the_end(async move { force(&state, &found).await }).await?;
    }
    let removed = perform(&state, move |state, controller| {
        // It may have been one that is removed at its end.
        if forced && controller.sandbox(&id.to_string()).is_err() {
            return Ok(());
        }
        let sandbox = controller.remove_sandbox(&id.to_string())?;
        state.bus.sandbox("destroy", &sandbox, &[]);
        Ok(())
    });
    removed.await.map(|()| StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::api::containers;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, want) in [("TERM", 15), ("SIGTERM", 15), ("term", 15), ("9", 9), ("sighup", 1), ("64", 64)]
        {
            assert_eq!(signal(text).unwrap(), want, "{text}");
        }
        for text in ["0", "65", "", "SIGNOPE", "-1"] {
            assert_eq!(signal(text).unwrap_err().shown(), format!("400 invalid signal: {text}"));
        }
    }

    #[test]
    fn a_request_is_read_into_a_configuration() {
        let fields = Fields::parse(
            br#"{"Hostname":"h","Env":["A=b"],"Cmd":["sleep","1"],"WorkingDir":"/x","Labels":{"l":"v"},
                "MacAddress":"02:42:ac:11:00:02","Netns":"/run/n","Publish":["8080:80"],"HostConfig":{"NetworkMode":"back","AutoRemove":true},
                "NetworkingConfig":{"EndpointsConfig":{"back":{"IPAMConfig":{"IPv4Address":"10.1.0.9"},"Aliases":["a"],
                "Links":["db:d"],"GwPriority":5},"front":null}}}"#,
        )
        .unwrap();
        let request = request(Some("web"), &fields, Version::own()).unwrap();
        assert_eq!(request.name.as_deref(), Some("web"));
        assert_eq!(request.mode, NetworkMode::Network("back".to_owned()));
        assert!(request.auto_remove && request.domainname.is_none());
        assert_eq!(request.process.command, ["sleep", "1"]);
        let back = &request.networks["back"];
        assert_eq!((back.ip, back.gw_priority), (Some("10.1.0.9".parse().unwrap()), 5));
        assert_eq!(request.networks["front"], Default::default());
        assert_eq!(request.ports.publish, ["8080:80".parse().unwrap()]);
        let bad = Fields::parse(
            br#"{"NetworkingConfig":{"EndpointsConfig":{"x":{"IPAMConfig":{"IPv4Address":"y"}}}}}"#,
        );
        assert_eq!(
            super::request(None, &bad.unwrap(), Version::own()).unwrap_err().shown(),
            "400 invalid endpoint settings:\ninvalid IPv4 address: y"
        );
    }

    #[test]
    fn ports_beside_the_hosts_stack_are_discarded_with_a_warning() {
        let warned = |body: &str| {
            let fields = Fields::parse(body.as_bytes()).unwrap();
            warnings(&request(None, &fields, Version::own()).unwrap())
        };
        let text = "Published ports are discarded when using host network mode";
        assert_eq!(warned(r#"{"Publish":["80"],"HostConfig":{"NetworkMode":"host"}}"#), [text]);
        for quiet in [
            r#"{"Publish":["80"]}"#,
            r#"{"Expose":["80"],"HostConfig":{"NetworkMode":"host","PublishAllPorts":true}}"#,
        ] {
            assert!(warned(quiet).is_empty(), "{quiet}");
        }
    }

    #[test]
    fn of_a_change_only_what_it_was_about_is_shown() {
        let mut view = containers::tests::view(containers::tests::running());
        let lines = ["8080:80 80 8080 0.0.0.0", "8081:81 81 8081 0.0.0.0"];
        view.endpoints = vec![containers::tests::endpoint("a", "172.17.0.2/16", &[])];
        view.endpoints[0].publications = lines.map(ports::tests::publication).into();
        let mut before = containers::tests::view(containers::tests::running());
        before.endpoints = vec![containers::tests::endpoint("a", "172.17.0.2/16", &[])];
        before.endpoints[0].publications = vec![ports::tests::publication(lines[0])];
        let changed = Changed::between(&view, &before);
        let shown = serde_json::to_string(&changed).unwrap();
        assert_eq!(shown, r#"{"Ports":{"81/tcp":[{"HostIp":"0.0.0.0","HostPort":"8081"}]}}"#);
    }
}
