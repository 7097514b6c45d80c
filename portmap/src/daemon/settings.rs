//! The daemon's settings: what flags and the configuration file say, and what it means.
//!
//! A setting is a text under dockerd's key, wherever it was given; flags, environment and file are joined, and read once.
//! A flag is stronger than a variable, a variable than the file; flag and file must not say the same, as with dockerd. What
//! variables say is for clients too, so a user may have them set without a thought of the file.
//!
//! Not here: which flags there are (`cli::daemon`), and whether settings fit each other (the controller says).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use netcore::controller::{BridgeDevice, Config, DefaultBridge};
use netcore::names::resolv_conf::{DnsOptions, parse_search, parse_server};
use serde_json::{Map, Value};

use crate::{client, userland_proxy};

/// Where the configuration is, if there is any.
pub(crate) const DEFAULT_FILE: &str = "/etc/portmap/daemon.json";

/// Settings as they were given, by key.
pub(crate) type Given = BTreeMap<&'static str, Vec<String>>;

/// What the daemon is to do.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) controller: Config,
    /// Where to listen.
    pub(crate) hosts: Vec<PathBuf>,
    pub(crate) group: Option<String>,
    pub(crate) pidfile: PathBuf,
    pub(crate) level: Level,
    pub(crate) json_logs: bool,
    pub(crate) debug: bool,
    /// What can be had, but is probably not what was meant: to be logged at start.
    pub(crate) doubts: Vec<String>,
}

/// `--log-level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// What a key's value is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Switch,
    Texts,
    Pools,
    Options,
}

/// dockerd's keys for what `host-gateway` stands for: one address in older files, one of each family in newer ones.
const HOST_GATEWAY: &str = "host-gateway-ip";
const HOST_GATEWAYS: &str = "host-gateway-ips";
/// RFC 2181, section 8.
const LONGEST_TTL: u32 = i32::MAX.unsigned_abs();

/// Every key there is.
const KEYS: &[(&str, Kind)] = &[
    ("allow-direct-routing", Kind::Switch),
    ("bip", Kind::Text),
    ("bip6", Kind::Text),
    ("bridge", Kind::Text),
    ("bridge-accept-fwmark", Kind::Text),
    ("data-root", Kind::Text),
    ("debug", Kind::Switch),
    ("default-address-pools", Kind::Pools),
    ("default-gateway", Kind::Text),
    ("default-gateway-v6", Kind::Text),
    ("default-network-opts", Kind::Options),
    ("dns", Kind::Texts),
    ("dns-opts", Kind::Texts),
    ("dns-search", Kind::Texts),
    ("dns-ttl", Kind::Number),
    ("exec-root", Kind::Text),
    ("firewall-backend", Kind::Text),
    ("fixed-cidr", Kind::Text),
    ("fixed-cidr-v6", Kind::Text),
    ("group", Kind::Text),
    (HOST_GATEWAY, Kind::Text),
    (HOST_GATEWAYS, Kind::Texts),
    ("hosts", Kind::Texts),
    ("icc", Kind::Switch),
    ("ip", Kind::Text),
    ("ip-forward", Kind::Switch),
    ("ip-masq", Kind::Switch),
    ("ip6tables", Kind::Switch),
    ("iptables", Kind::Switch),
    ("ipv6", Kind::Switch),
    ("link-env", Kind::Switch),
    ("log-format", Kind::Text),
    ("log-level", Kind::Text),
    ("mtu", Kind::Number),
    ("pidfile", Kind::Text),
    ("resolv-conf", Kind::Text),
    ("userland-proxy", Kind::Switch),
    ("userland-proxy-path", Kind::Text),
];

impl Settings {
    /// Joins the flags with what the environment says and with the file at `path`, and reads all.
    pub(crate) fn read(flags: Given, environment: Given, path: &Path, must_exist: bool) -> Result<Self> {
        let about = || format!("unable to configure the portmap daemon with file {}", path.display());
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && !must_exist => String::new(),
            text => text.with_context(about)?,
        };
        let file = parse_file(&text).with_context(about)?;
        refuse_conflicts(&flags, &file).with_context(about)?;
        let given = file.into_iter().chain(environment).chain(flags).collect();
        let mut settings = Self::of(&given)?;
        settings.find_proxy(path_of_proxy(&given)?)?;
        Ok(settings)
    }

    /// A program that was named must be there. Without one that is found the daemon has all but ports to offer.
    fn find_proxy(&mut self, given: Option<PathBuf>) -> Result<()> {
        if !self.controller.userland_proxy {
            return Ok(());
        }
        match (userland_proxy::find(given.as_deref()), given) {
            (Ok(path), _) => self.controller.userland_proxy_path = path,
            (Err(error), Some(_)) => return Err(error),
            (Err(error), None) => self.doubts.push(format!("ports cannot be published: {error:#}")),
        }
        Ok(())
    }

    /// Sees to it that whoever started us finds us.
    pub(crate) fn listen_on(&mut self, socket: &Path) {
        if !self.hosts.iter().any(|host| host == socket) {
            self.hosts.push(socket.to_owned());
        }
    }

    pub(crate) fn of(given: &Given) -> Result<Self> {
        let controller = controller(given)?;
        let default = controller.exec_root.join(client::SOCKET);
        let hosts = given.get("hosts").into_iter().flatten().filter(|host| !host.is_empty());
        let mut hosts = hosts.map(|host| socket_path(host, &default)).collect::<Result<Vec<_>>>()?;
        if hosts.is_empty() {
            hosts.push(default);
        }
        let pidfile = path(given, "pidfile")?.unwrap_or_else(|| controller.exec_root.join("portmap.pid"));
        let json_logs = match one(given, "log-format") {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => bail!("invalid log format: {other}"),
        };
        let debug = switch(given, "debug")?.unwrap_or(false);
        let level = if debug { Some(Level::Debug) } else { None };
        let level = level.map_or_else(|| one(given, "log-level").unwrap_or("info").parse(), Ok)?;
        let group = one(given, "group").filter(|group| !group.is_empty()).map(str::to_owned);
        let doubts = doubts(&controller);
        Ok(Self { hosts, controller, group, pidfile, level, json_logs, debug, doubts })
    }
}

impl FromStr for Level {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "trace" | "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" | "warning" => Ok(Self::Warn),
            "error" | "fatal" | "panic" => Ok(Self::Error),
            _ => bail!("invalid logging level: {text}"),
        }
    }
}

/// What the environment says.
pub(crate) fn environment() -> Result<Given> {
    let variables = [
        ("data-root", client::DATA_ROOT_VARIABLE),
        ("exec-root", client::EXEC_ROOT_VARIABLE),
        ("hosts", client::HOST_VARIABLE),
    ];
    let said = variables
        .into_iter()
        .filter_map(|(key, variable)| Some((key, variable, client::from_environment(variable)?)));
    said.map(|(key, variable, value)| {
        let text = value.into_string().map_err(|value| anyhow!("{variable} is not UTF-8: {value:?}"))?;
        Ok((key, vec![text]))
    })
    .collect()
}

/// A boolean as Go's flags take them.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn controller(given: &Given) -> Result<Config> {
    let standard = Config::default();
    let on = |key, standard| Ok::<bool, anyhow::Error>(switch(given, key)?.unwrap_or(standard));
    let iptables = on("iptables", standard.iptables)?;
    ensure!(
        on("ip6tables", iptables)? == iptables,
        "--ip6tables={} needs --iptables={}: rules are made for both families or for none",
        !iptables,
        !iptables
    );
    let pools = given.get("default-address-pools").into_iter().flatten();
    let root = |key, standard| Ok::<PathBuf, anyhow::Error>(path(given, key)?.unwrap_or(standard));
    Ok(Config {
        data_root: root("data-root", standard.data_root)?,
        exec_root: root("exec-root", standard.exec_root)?,
        default_bridge: default_bridge(given)?,
        ip_forward: on("ip-forward", standard.ip_forward)?,
        iptables,
        firewall_backend: parsed(given, "firewall-backend")?.unwrap_or(standard.firewall_backend),
        default_pools: pools.map(|pool| parse("default-address-pool", pool)).collect::<Result<_>>()?,
        default_options: default_options(given)?,
        userland_proxy: on("userland-proxy", standard.userland_proxy)?,
        userland_proxy_path: path_of_proxy(given)?.unwrap_or(standard.userland_proxy_path),
        allow_direct_routing: on("allow-direct-routing", standard.allow_direct_routing)?,
        accept_mark: parsed(given, "bridge-accept-fwmark")?,
        dns: dns(given)?,
        dns_ttl: dns_ttl(given)?.unwrap_or(standard.dns_ttl),
        resolv_conf: path(given, "resolv-conf")?,
        host_gateways: host_gateways(given)?,
        link_env: on("link-env", standard.link_env)?,
    })
}

fn dns(given: &Given) -> Result<DnsOptions> {
    Ok(DnsOptions {
        servers: each(given, "dns", "dns", parse_server)?,
        search: each(given, "dns-search", "dns-search", parse_search)?,
        options: given.get("dns-opts").cloned().unwrap_or_default(),
    })
}

fn dns_ttl(given: &Given) -> Result<Option<u32>> {
    let ttl = parsed(given, "dns-ttl")?;
    ensure!(
        ttl.is_none_or(|ttl| ttl <= LONGEST_TTL),
        "invalid argument \"{}\" for \"--dns-ttl\" flag: no more than {LONGEST_TTL} seconds are possible",
        ttl.unwrap_or_default()
    );
    Ok(ttl)
}

/// At most one address of each family.
fn host_gateways(given: &Given) -> Result<Vec<IpAddr>> {
    let gateways = each(given, HOST_GATEWAYS, HOST_GATEWAY, parse_server)?;
    for (family, is_of) in [("IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("IPv6", IpAddr::is_ipv6)] {
        let several = gateways.iter().filter(|ip| is_of(ip)).count() > 1;
        ensure!(!several, "only one {family} host gateway IP address can be specified");
    }
    Ok(gateways)
}

fn each<T, E: Display>(
    given: &Given,
    key: &str,
    flag: &str,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>> {
    let texts = given.get(key).into_iter().flatten();
    texts.map(|text| read(text).map_err(|error| invalid(flag, text, &error))).collect()
}

fn path_of_proxy(given: &Given) -> Result<Option<PathBuf>> {
    path(given, "userland-proxy-path")
}

/// What publishing ports will be like without rules.
fn doubts(controller: &Config) -> Vec<String> {
    let doubt = match (controller.iptables, controller.userland_proxy) {
        (true, _) => return Vec::new(),
        (false, true) => {
            "published ports are served by the userland proxy alone, which hides the addresses of clients, because of --iptables=false"
        }
        (false, false) => {
            "no port can be published: --iptables=false and --userland-proxy=false leave no way to one"
        }
    };
    vec![doubt.to_owned()]
}

fn default_bridge(given: &Given) -> Result<DefaultBridge> {
    let standard = DefaultBridge::default();
    let device = match one(given, "bridge") {
        None | Some("") => BridgeDevice::Own,
        Some("none") => BridgeDevice::None,
        Some(name) => BridgeDevice::Adopted(parse("bridge", name)?),
    };
    Ok(DefaultBridge {
        device,
        address: parsed(given, "bip")?,
        address6: parsed(given, "bip6")?,
        range: parsed(given, "fixed-cidr")?,
        range6: parsed(given, "fixed-cidr-v6")?,
        gateway: parsed(given, "default-gateway")?,
        gateway6: parsed(given, "default-gateway-v6")?,
        icc: switch(given, "icc")?.unwrap_or(standard.icc),
        masquerade: switch(given, "ip-masq")?.unwrap_or(standard.masquerade),
        host_binding: parsed(given, "ip")?.unwrap_or(standard.host_binding),
        // Docker's 0 is its own default too.
        mtu: parsed(given, "mtu")?.filter(|mtu| *mtu != 0).unwrap_or(standard.mtu),
        ipv6: switch(given, "ipv6")?.unwrap_or(standard.ipv6),
    })
}

fn default_options(given: &Given) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let mut options: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for text in given.get("default-network-opts").into_iter().flatten() {
        let mut parts = text.splitn(3, '=');
        let (Some(driver), Some(key), Some(value)) = (parts.next(), parts.next(), parts.next()) else {
            bail!("invalid default network option {text:?}: DRIVER=KEY=VALUE is needed");
        };
        options.entry(driver.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
    }
    Ok(options)
}

fn socket_path(host: &str, default: &Path) -> Result<PathBuf> {
    match host.split_once("://") {
        Some(("unix", "")) => Ok(default.to_owned()),
        Some(("unix", path)) => std::path::absolute(path).with_context(|| format!("invalid path {path:?}")),
        // A network socket would give root to whoever reaches it.
        _ => bail!("unable to parse host `{host}`: the daemon listens on unix:///PATH only"),
    }
}

fn one<'a>(given: &'a Given, key: &str) -> Option<&'a str> {
    given.get(key)?.last().map(String::as_str)
}

fn path(given: &Given, key: &str) -> Result<Option<PathBuf>> {
    let text = one(given, key).filter(|text| !text.is_empty());
    text.map(|text| std::path::absolute(text).with_context(|| format!("invalid path {text:?} in {key}")))
        .transpose()
}

fn switch(given: &Given, key: &str) -> Result<Option<bool>> {
    let parse = |text| {
        go_bool(text).ok_or_else(|| {
            anyhow!(
                "invalid argument {text:?} for \"--{key}\" flag: strconv.ParseBool: parsing {text:?}: invalid syntax"
            )
        })
    };
    one(given, key).map(parse).transpose()
}

fn parsed<T: FromStr<Err: Display>>(given: &Given, key: &str) -> Result<Option<T>> {
    one(given, key).filter(|text| !text.is_empty()).map(|text| parse(key, text)).transpose()
}

fn parse<T: FromStr<Err: Display>>(key: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error| invalid(key, text, &error))
}

fn invalid(flag: &str, text: &str, why: &dyn Display) -> anyhow::Error {
    anyhow!("invalid argument {text:?} for \"--{flag}\" flag: {why}")
}

/// Reads the file's text. An empty one says nothing.
fn parse_file(text: &str) -> Result<Given> {
    if text.trim().is_empty() {
        return Ok(Given::new());
    }
    let values: Map<String, Value> = serde_json::from_str(text)?;
    let known = |key: &str| KEYS.iter().find(|(known, _)| *known == key);
    let unknown: Vec<&str> = values.keys().map(String::as_str).filter(|key| known(key).is_none()).collect();
    ensure!(
        unknown.is_empty(),
        "the following directives don't match any configuration option: {}",
        unknown.join(", ")
    );
    let mut given = Given::new();
    for (key, value) in &values {
        let Some((key, kind)) = known(key) else { continue };
        let texts = texts(*kind, value).with_context(|| format!("invalid value {value} for {key}"))?;
        given.insert(key, texts);
    }
    if let Some(one) = given.remove(HOST_GATEWAY).filter(|texts| texts.iter().any(|text| !text.is_empty())) {
        let only = given.insert(HOST_GATEWAYS, one).is_none();
        ensure!(only, "{HOST_GATEWAY} and {HOST_GATEWAYS} can't both be set");
    }
    Ok(given)
}

fn texts(kind: Kind, value: &Value) -> Result<Vec<String>> {
    let strings = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(anyhow!("a text is needed")),
    };
    let items = |value: &Value| value.as_array().cloned().context("a list is needed");
    Ok(match (kind, value) {
        (Kind::Text, value) => vec![strings(value)?],
        (Kind::Number, Value::Number(number)) => vec![number.to_string()],
        (Kind::Number, _) => bail!("a number is needed"),
        (Kind::Switch, Value::Bool(on)) => vec![on.to_string()],
        (Kind::Switch, _) => bail!("true or false is needed"),
        (Kind::Texts, value) => items(value)?.iter().map(strings).collect::<Result<_>>()?,
        (Kind::Pools, value) => items(value)?.iter().map(pool).collect::<Result<_>>()?,
        (Kind::Options, value) => options(value)?,
    })
}

/// `{"base": …, "size": …}` as the flag has it.
fn pool(value: &Value) -> Result<String> {
    let text = |key| match value.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => Err(anyhow!("a pool needs \"base\" and \"size\"")),
    };
    Ok(format!("base={},size={}", text("base")?, text("size")?))
}

/// `{"driver": {"key": "value"}}` as the flag has it.
fn options(value: &Value) -> Result<Vec<String>> {
    let object = |value: &Value| value.as_object().cloned().context("an object of objects is needed");
    let mut texts = Vec::new();
    for (driver, options) in object(value)? {
        for (key, value) in object(&options)? {
            let value = value.as_str().with_context(|| format!("a text is needed for {key}"))?;
            texts.push(format!("{driver}={key}={value}"));
        }
    }
    Ok(texts)
}

fn refuse_conflicts(flags: &Given, file: &Given) -> Result<()> {
    let shown = |texts: &Vec<String>, is_list: bool| match texts.as_slice() {
        [only] if !is_list => only.clone(),
        several => format!("[{}]", several.join(" ")),
    };
    let both: BTreeSet<&str> = flags.keys().copied().filter(|key| file.contains_key(key)).collect();
    let conflicts: Vec<String> = both
        .into_iter()
        .map(|key| {
            let is_list = KEYS.iter().any(|(known, kind)| {
                *known == key && matches!(kind, Kind::Texts | Kind::Pools | Kind::Options)
            });
            format!(
                "{key}: (from flag: {}, from file: {})",
                shown(&flags[key], is_list),
                shown(&file[key], is_list)
            )
        })
        .collect();
    ensure!(
        conflicts.is_empty(),
        "the following directives are specified both as a flag and in the configuration file: {}",
        conflicts.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests;
