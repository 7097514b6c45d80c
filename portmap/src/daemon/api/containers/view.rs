//! Sandboxes as answers show them, field by field as dockerd does with containers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use netcore::controller::{Config, LinkView, SandboxView};
use netcore::model::{NetworkId, NetworkMode, Sandbox, SandboxId, SandboxState, Timestamp};
use serde::Serialize;

use crate::daemon::api::endpoint::{self, EndpointView};
use crate::daemon::api::ports::{self, Binding, ListedPort, Nothing, PortMap};
use crate::daemon::api::version::Version;
use crate::daemon::api::wording;
use crate::daemon::bus::IMAGE;

/// How Go writes a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// What a network is called.
type Naming<'a> = &'a dyn Fn(NetworkId) -> String;

/// An object whose content nobody looks at.
type Empty = BTreeMap<String, String>;

/// One line of `ps`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    id: String,
    names: Vec<String>,
    image: &'static str,
    #[serde(rename = "ImageID")]
    image_id: &'static str,
    command: String,
    created: i64,
    ports: Vec<ListedPort>,
    labels: BTreeMap<String, String>,
    state: &'static str,
    status: String,
    host_config: ListedHostConfig,
    network_settings: ListedNetworks,
    mounts: [(); 0],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedHostConfig {
    network_mode: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedNetworks {
    networks: BTreeMap<String, EndpointView>,
}

impl Listed {
    /// `names` are all that it has, its own and those that links give it.
    pub(super) fn of(
        view: &SandboxView,
        names: Vec<String>,
        name: Naming<'_>,
        version: Version,
        now: Timestamp,
    ) -> Self {
        let sandbox = &view.sandbox;
        Self {
            id: sandbox.id.to_string(),
            names,
            image: IMAGE,
            image_id: "",
            command: sandbox.config.process.command.join(" "),
            created: sandbox.created.seconds(),
            ports: ports::listed(view),
            labels: sandbox.config.labels.clone(),
            state: sandbox.state.name(),
            status: wording::status(&sandbox.state, now),
            host_config: ListedHostConfig { network_mode: sandbox.config.mode.as_text().into_owned() },
            network_settings: ListedNetworks { networks: networks(view, name, version) },
            mounts: [],
        }
    }
}

/// What links call sandboxes, by the sandboxes' own names: `/consumer/alias`.
#[derive(Debug, Default)]
pub(super) struct LinkNames<'a>(BTreeMap<&'a str, Vec<String>>);

impl<'a> LinkNames<'a> {
    pub(super) fn of(views: &'a [SandboxView]) -> Self {
        let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for view in views {
            for link in &view.links {
                names.entry(link.provider.as_str()).or_default().push(link_name(view, link));
            }
        }
        names.values_mut().for_each(|names| names.sort_unstable());
        Self(names)
    }

    /// All names of a sandbox, its own first.
    pub(super) fn names(&self, view: &SandboxView) -> Vec<String> {
        let own = view.sandbox.config.name.as_str();
        let links = self.0.get(own).into_iter().flatten().cloned();
        [format!("/{own}")].into_iter().chain(links).collect()
    }
}

/// What a link of this sandbox calls the other one.
fn link_name(view: &SandboxView, link: &LinkView) -> String {
    format!("/{}/{}", view.sandbox.config.name, link.alias)
}

/// The networks it is on; for one that doesn't run, those it is to be on.
fn networks(view: &SandboxView, name: Naming<'_>, version: Version) -> BTreeMap<String, EndpointView> {
    let sandbox = &view.sandbox;
    let attached: BTreeMap<String, EndpointView> = view
        .endpoints
        .iter()
        .map(|endpoint| (name(endpoint.network), endpoint))
        .map(|(name, endpoint)| {
            let view = endpoint::view(endpoint, &name, sandbox, version);
            (name, view)
        })
        .collect();
    if !attached.is_empty() || sandbox.config.mode.is_shared() {
        return attached;
    }
    let view = |name: &str, settings| endpoint::wanted(settings, name, sandbox, version);
    let wanted = sandbox.config.networks.iter();
    wanted.map(|(name, settings)| (name.clone(), view(name, settings))).collect()
}

/// Where a sandbox's files are.
#[derive(Debug)]
pub(super) struct Places {
    run: PathBuf,
    log: PathBuf,
}

impl Places {
    pub(super) fn of(config: &Config, id: SandboxId) -> Self {
        let id = id.to_string();
        Self { run: config.exec_root.join("sandboxes").join(&id), log: log_path(&config.data_root, &id) }
    }
}

/// The log of a detached sandbox.
pub(in crate::daemon::api) fn log_path(data_root: &Path, id: &str) -> PathBuf {
    data_root.join("sandboxes").join(id).join("log.json")
}

/// All there is to know.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    id: String,
    created: String,
    path: String,
    args: Vec<String>,
    state: StateView,
    image: &'static str,
    resolv_conf_path: String,
    hostname_path: String,
    hosts_path: String,
    log_path: String,
    name: String,
    restart_count: u32,
    driver: &'static str,
    platform: &'static str,
    mount_label: &'static str,
    process_label: &'static str,
    app_armor_profile: &'static str,
    #[serde(rename = "ExecIDs")]
    exec_ids: Option<()>,
    host_config: HostConfig,
    graph_driver: GraphDriver,
    mounts: [(); 0],
    config: ConfigView,
    network_settings: NetworkSettings,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StateView {
    status: &'static str,
    running: bool,
    paused: bool,
    restarting: bool,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    dead: bool,
    pid: u32,
    exit_code: i32,
    error: String,
    started_at: String,
    finished_at: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    network_mode: String,
    port_bindings: BTreeMap<String, Vec<Binding>>,
    publish_all_ports: bool,
    dns: Vec<IpAddr>,
    dns_options: Vec<String>,
    dns_search: Vec<String>,
    extra_hosts: Option<Vec<String>>,
    /// `/provider:/consumer/alias`, as the two are called now.
    links: Option<Vec<String>>,
    auto_remove: bool,
    restart_policy: RestartPolicy,
    log_config: LogConfig,
    /// Not Docker's: a namespace somebody else made.
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    name: &'static str,
    maximum_retry_count: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LogConfig {
    r#type: &'static str,
    config: Empty,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    data: Option<()>,
    name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigView {
    hostname: String,
    domainname: String,
    user: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<String, Nothing>,
    tty: bool,
    env: Vec<String>,
    cmd: Vec<String>,
    image: &'static str,
    volumes: Option<()>,
    working_dir: String,
    entrypoint: Option<()>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(rename = "SandboxID")]
    sandbox_id: String,
    sandbox_key: String,
    ports: PortMap,
    networks: BTreeMap<String, EndpointView>,
    bridge: &'static str,
    hairpin_mode: bool,
    #[serde(rename = "LinkLocalIPv6Address")]
    link_local: &'static str,
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    link_local_prefix: u8,
    #[serde(rename = "SecondaryIPAddresses")]
    secondary: Option<()>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    secondary6: Option<()>,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    address6: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    prefix6: u8,
    #[serde(rename = "IPAddress")]
    address: String,
    #[serde(rename = "IPPrefixLen")]
    prefix: u8,
    #[serde(rename = "IPv6Gateway")]
    gateway6: String,
    mac_address: String,
}

impl Inspected {
    pub(super) fn of(view: &SandboxView, places: &Places, name: Naming<'_>, version: Version) -> Self {
        let sandbox = &view.sandbox;
        let mut command = sandbox.config.process.command.iter().cloned();
        // Who shares a stack has the files of whom it is shared with.
        let has_files = !matches!(sandbox.config.mode, NetworkMode::Container(_));
        let run = |file: &str| match &sandbox.state {
            SandboxState::Running(_) if has_files => places.run.join(file).display().to_string(),
            _ => String::new(),
        };
        Self {
            id: sandbox.id.to_string(),
            created: sandbox.created.to_string(),
            path: command.next().unwrap_or_default(),
            args: command.collect(),
            state: StateView::of(&sandbox.state),
            image: "",
            resolv_conf_path: run("resolv.conf"),
            hostname_path: run("hostname"),
            hosts_path: run("hosts"),
            log_path: places.log.display().to_string(),
            name: format!("/{}", sandbox.config.name),
            restart_count: 0,
            driver: "none",
            platform: "linux",
            mount_label: "",
            process_label: "",
            app_armor_profile: "",
            exec_ids: None,
            host_config: HostConfig::of(view),
            graph_driver: GraphDriver { data: None, name: "none" },
            mounts: [],
            config: ConfigView::of(sandbox),
            network_settings: NetworkSettings::of(view, name, version),
        }
    }
}

impl StateView {
    fn of(state: &SandboxState) -> Self {
        let mut view = Self {
            status: state.name(),
            running: false,
            paused: false,
            restarting: false,
            oom_killed: false,
            dead: false,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            started_at: NEVER.to_owned(),
            finished_at: NEVER.to_owned(),
        };
        match state {
            SandboxState::Created => {}
            SandboxState::Running(running) => {
                view.running = true;
                view.pid = running.pid;
                view.started_at = running.started.to_string();
            }
            SandboxState::Exited(exited) => {
                view.exit_code = exited.code;
                view.error = exited.error.clone().unwrap_or_default();
                view.started_at = exited.started.map_or_else(|| NEVER.to_owned(), |at| at.to_string());
                view.finished_at = exited.finished.to_string();
            }
        }
        view
    }
}

impl HostConfig {
    fn of(view: &SandboxView) -> Self {
        let sandbox = &view.sandbox;
        let dns = &sandbox.config.dns;
        let hosts = sandbox.config.extra_hosts.iter().map(ToString::to_string);
        let links = view.links.iter().map(|link| format!("/{}:{}", link.provider, link_name(view, link)));
        Self {
            network_mode: sandbox.config.mode.as_text().into_owned(),
            port_bindings: ports::bindings(&sandbox.config.ports),
            publish_all_ports: sandbox.config.ports.publish_all,
            dns: dns.servers.clone(),
            dns_options: dns.options.clone(),
            dns_search: dns.search.clone(),
            extra_hosts: some(hosts),
            links: some(links),
            auto_remove: sandbox.config.auto_remove,
            restart_policy: RestartPolicy { name: "no", maximum_retry_count: 0 },
            log_config: LogConfig { r#type: "json-file", config: Empty::new() },
            netns: sandbox.config.netns.as_ref().map(|path| path.display().to_string()),
        }
    }
}

/// Docker's `null` for none.
fn some(texts: impl Iterator<Item = String>) -> Option<Vec<String>> {
    let texts: Vec<String> = texts.collect();
    (!texts.is_empty()).then_some(texts)
}

impl ConfigView {
    fn of(sandbox: &Sandbox) -> Self {
        let config = &sandbox.config;
        // A shared stack has the hostname of whom it is shared with.
        let hostname = match config.mode {
            NetworkMode::Container(_) => config.hostname.clone().unwrap_or_default(),
            _ => sandbox.hostname(),
        };
        Self {
            hostname,
            domainname: config.domainname.clone().unwrap_or_default(),
            user: "",
            exposed_ports: ports::exposed(&config.ports),
            tty: config.process.terminal,
            env: config.process.env.clone(),
            cmd: config.process.command.clone(),
            image: "",
            volumes: None,
            working_dir: config
                .process
                .directory
                .as_ref()
                .map_or_else(String::new, |d| d.display().to_string()),
            entrypoint: None,
            labels: config.labels.clone(),
        }
    }
}

impl NetworkSettings {
    fn of(view: &SandboxView, name: Naming<'_>, version: Version) -> Self {
        let (sandbox_id, key) = match &view.sandbox.state {
            SandboxState::Running(running) => (
                view.sandbox.id.to_string(),
                running.netns.as_ref().map_or_else(String::new, |path| path.display().to_string()),
            ),
            _ => (String::new(), String::new()),
        };
        let networks = networks(view, name, version);
        let default = networks.get("bridge").map(EndpointView::legacy).unwrap_or_default();
        let (endpoint_id, gateway, address6, prefix6, address, prefix, gateway6, mac) = default;
        Self {
            sandbox_id,
            sandbox_key: key,
            ports: ports::published(view),
            bridge: "",
            hairpin_mode: false,
            link_local: "",
            link_local_prefix: 0,
            secondary: None,
            secondary6: None,
            endpoint_id: endpoint_id.to_owned(),
            gateway: gateway.to_owned(),
            address6: address6.to_owned(),
            prefix6,
            address: address.to_owned(),
            prefix,
            gateway6: gateway6.to_owned(),
            mac_address: mac.to_owned(),
            networks,
        }
    }
}
