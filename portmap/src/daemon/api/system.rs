//! `/_ping`, `/version` and `/info`: what the daemon is.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use axum::Router;
use axum::extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::Method;
use netcore::firewall::Backend;
use netcore::model::SandboxState;
use nix::sys::utsname::uname;
use serde::Serialize;

use super::reply::Json;
use super::version::Version;
use super::{API_VERSION, MIN_API_VERSION, Result, perform};
use crate::daemon::State;
use crate::daemon::settings::Settings;

/// What is built knows neither its time nor its commit.
const UNKNOWN: &str = "n/a";

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/_ping", get(ping)).route("/version", get(version)).route("/info", get(info))
}

/// Answered without a lock: clients wait for it for two seconds only.
async fn ping(method: Method) -> Response {
    let headers = [
        ("builder-version", "2"),
        ("swarm", "inactive"),
        (header::CACHE_CONTROL.as_str(), "no-cache, no-store, must-revalidate"),
        (header::PRAGMA.as_str(), "no-cache"),
        (header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
    ];
    let body = if method == Method::HEAD { "" } else { "OK" };
    let mut response = (headers, body).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
    response
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VersionView {
    platform: Platform,
    components: Vec<Component>,
    version: &'static str,
    api_version: &'static str,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: &'static str,
    git_commit: &'static str,
    go_version: &'static str,
    os: &'static str,
    arch: &'static str,
    kernel_version: String,
    build_time: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Platform {
    name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: &'static str,
    version: &'static str,
    details: BTreeMap<&'static str, String>,
}

pub(super) async fn version() -> Json<VersionView> {
    let version = env!("CARGO_PKG_VERSION");
    let details = [
        ("ApiVersion", API_VERSION),
        ("Arch", go_arch()),
        ("BuildTime", UNKNOWN),
        ("Experimental", "false"),
        ("GitCommit", UNKNOWN),
        ("GoVersion", "n/a"),
        ("KernelVersion", &kernel_version()),
        ("MinAPIVersion", MIN_API_VERSION),
        ("Os", "linux"),
    ]
    .map(|(key, value)| (key, value.to_owned()));
    Json(VersionView {
        platform: Platform { name: "portmap" },
        components: vec![Component { name: "Engine", version, details: details.into() }],
        version,
        api_version: API_VERSION,
        min_api_version: MIN_API_VERSION,
        git_commit: UNKNOWN,
        go_version: "n/a",
        os: "linux",
        arch: go_arch(),
        kernel_version: kernel_version(),
        build_time: UNKNOWN,
    })
}

/// In dockerd's order. Fields whose names are not the rule's are renamed one by one.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InfoView {
    #[serde(rename = "ID")]
    id: String,
    containers: usize,
    containers_running: usize,
    containers_paused: usize,
    containers_stopped: usize,
    images: usize,
    driver: &'static str,
    driver_status: Vec<[String; 2]>,
    plugins: Plugins,
    memory_limit: bool,
    swap_limit: bool,
    cpu_cfs_period: bool,
    cpu_cfs_quota: bool,
    #[serde(rename = "CPUShares")]
    cpu_shares: bool,
    #[serde(rename = "CPUSet")]
    cpu_set: bool,
    pids_limit: bool,
    #[serde(rename = "IPv4Forwarding")]
    ipv4_forwarding: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge_nf_iptables: Option<bool>,
    #[serde(rename = "BridgeNfIp6tables", skip_serializing_if = "Option::is_none")]
    bridge_nf_ip6tables: Option<bool>,
    debug: bool,
    #[serde(rename = "NFd")]
    nfd: usize,
    oom_kill_disable: bool,
    #[serde(rename = "NGoroutines")]
    threads: usize,
    system_time: String,
    logging_driver: &'static str,
    cgroup_driver: &'static str,
    cgroup_version: &'static str,
    #[serde(rename = "NEventsListener")]
    listeners: usize,
    kernel_version: String,
    operating_system: String,
    #[serde(rename = "OSVersion")]
    os_version: String,
    #[serde(rename = "OSType")]
    os_type: &'static str,
    architecture: String,
    index_server_address: &'static str,
    registry_config: Option<()>,
    #[serde(rename = "NCPU")]
    cpus: usize,
    mem_total: u64,
    generic_resources: Option<()>,
    docker_root_dir: String,
    http_proxy: &'static str,
    https_proxy: &'static str,
    no_proxy: &'static str,
    name: String,
    labels: Vec<String>,
    experimental_build: bool,
    server_version: &'static str,
    runtimes: BTreeMap<(), ()>,
    default_runtime: &'static str,
    swarm: Swarm,
    live_restore_enabled: bool,
    isolation: &'static str,
    init_binary: &'static str,
    containerd_commit: Commit,
    runc_commit: Commit,
    init_commit: Commit,
    security_options: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    default_address_pools: Vec<PoolView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    firewall_backend: Option<FirewallView>,
    #[serde(rename = "CDISpecDirs")]
    cdi_spec_dirs: Vec<String>,
    warnings: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Plugins {
    volume: Vec<String>,
    network: Vec<&'static str>,
    authorization: Option<()>,
    log: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Swarm {
    #[serde(rename = "NodeID")]
    node_id: &'static str,
    node_addr: &'static str,
    local_node_state: &'static str,
    control_available: bool,
    error: &'static str,
    remote_managers: Option<()>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Commit {
    #[serde(rename = "ID")]
    id: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PoolView {
    base: String,
    size: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FirewallView {
    driver: String,
    info: Vec<[String; 2]>,
}

async fn info(extract::State(state): extract::State<Arc<State>>, version: Version) -> Result<Json<InfoView>> {
    let view = perform(&state, move |state, controller| {
        let sandboxes = controller.sandboxes()?;
        let is = |wanted: fn(&SandboxState) -> bool| {
            sandboxes.iter().filter(|view| wanted(&view.sandbox.state)).count()
        };
        let running = is(|sandbox| matches!(sandbox, SandboxState::Running(_)));
        let facts = Facts {
            id: &state.engine_id,
            settings: &state.settings,
            listeners: state.bus.listeners(),
            backend: controller.firewall_backend(),
            sandboxes: sandboxes.len(),
            running,
        };
        Ok(info_view(&facts, version))
    });
    view.await.map(Json)
}

/// What the daemon knows of itself.
pub(super) struct Facts<'a> {
    pub(super) id: &'a str,
    pub(super) settings: &'a Settings,
    pub(super) listeners: usize,
    pub(super) backend: Option<Backend>,
    pub(super) sandboxes: usize,
    pub(super) running: usize,
}

pub(super) fn info_view(facts: &Facts<'_>, version: Version) -> InfoView {
    let Facts { sandboxes, running, .. } = *facts;
    let Settings { controller: config, debug, .. } = facts.settings;
    let (os, os_version) = operating_system();
    let below = |minor| version < Version::new(1, minor);
    let commit = || Commit { id: "N/A", expected: below(49).then_some("N/A") };
    InfoView {
        id: facts.id.to_owned(),
        containers: sandboxes,
        containers_running: running,
        containers_paused: 0,
        containers_stopped: sandboxes - running,
        images: 0,
        driver: "none",
        driver_status: vec![["State".to_owned(), config.data_root.display().to_string()]],
        plugins: Plugins {
            volume: Vec::new(),
            network: vec!["bridge", "host", "null"],
            authorization: None,
            log: Vec::new(),
        },
        memory_limit: true,
        swap_limit: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: proc_flag("/proc/sys/net/ipv4/ip_forward"),
        // Old clients warn of what is false, and we don't need it.
        bridge_nf_iptables: below(50).then_some(true),
        bridge_nf_ip6tables: below(50).then_some(true),
        debug: *debug,
        nfd: entries("/proc/self/fd"),
        oom_kill_disable: true,
        threads: entries("/proc/self/task"),
        system_time: crate::daemon::now().to_string(),
        logging_driver: "json-file",
        cgroup_driver: "none",
        cgroup_version: "2",
        listeners: facts.listeners,
        kernel_version: kernel_version(),
        operating_system: os,
        os_version,
        os_type: "linux",
        architecture: uname()
            .map_or_else(|_| String::new(), |name| name.machine().to_string_lossy().into_owned()),
        index_server_address: "",
        registry_config: None,
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        mem_total: memory(),
        generic_resources: None,
        docker_root_dir: config.data_root.display().to_string(),
        http_proxy: "",
        https_proxy: "",
        no_proxy: "",
        name: uname().map_or_else(|_| String::new(), |name| name.nodename().to_string_lossy().into_owned()),
        labels: Vec::new(),
        experimental_build: false,
        server_version: env!("CARGO_PKG_VERSION"),
        runtimes: BTreeMap::new(),
        default_runtime: "portmap",
        swarm: Swarm {
            node_id: "",
            node_addr: "",
            local_node_state: "inactive",
            control_available: false,
            error: "",
            remote_managers: None,
        },
        live_restore_enabled: true,
        isolation: "",
        init_binary: "",
        containerd_commit: commit(),
        runc_commit: commit(),
        init_commit: commit(),
        security_options: Vec::new(),
        default_address_pools: config
            .default_pools
            .iter()
            .filter(|_| !below(41))
            .map(|pool| PoolView { base: pool.base().to_string(), size: pool.size() })
            .collect(),
        firewall_backend: (!below(49)).then(|| firewall(facts.backend)),
        cdi_spec_dirs: Vec::new(),
        warnings: None,
    }
}

fn firewall(backend: Option<Backend>) -> FirewallView {
    let (driver, info) = match backend {
        Some(Backend::Nftables) => ("nftables", vec![["Table".to_owned(), "portmap".to_owned()]]),
        Some(Backend::Iptables) => ("iptables", Vec::new()),
        None => ("none", Vec::new()),
    };
    FirewallView { driver: driver.to_owned(), info }
}

/// The architecture as Go calls it.
const fn go_arch() -> &'static str {
    match std::env::consts::ARCH.as_bytes() {
        b"x86_64" => "amd64",
        b"aarch64" => "arm64",
        _ => std::env::consts::ARCH,
    }
}

fn kernel_version() -> String {
    uname().map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned())
}

fn operating_system() -> (String, String) {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or("").trim().trim_matches('"').to_owned()
    };
    (value("PRETTY_NAME"), value("VERSION_ID"))
}

fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn proc_flag(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

fn entries(path: &str) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}
