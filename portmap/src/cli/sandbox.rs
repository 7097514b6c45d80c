//! What `run` and `create` have in common: the flags, and the request they become.
//!
//! Not here: what the daemon refuses, with Docker's texts; only what Docker's command line refuses itself.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ArgAction;
use netcore::model::NetworkMode;
use serde_json::{Map, Value, json};

use super::env_file;
use super::names::NameFlags;
use super::network_flag::NetworkFlag;
use super::ports::PortFlags;
use crate::client::{Client, encode};
use crate::supervise::{Failure, parse};

/// Longest hostname the kernel takes.
const LONGEST_HOSTNAME: usize = 64;

/// What was typed.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Flags {
    /// Assign a name to the sandbox
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Connect to a network: bridge, host, none, container:NAME, or a network's name or id (may be given several times)
    ///
    /// The long form sets more: name=NET,alias=NAME,link=NAME:ALIAS,ip=ADDR,ip6=ADDR,mac-address=MAC,link-local-ip=ADDR,
    /// driver-opt=K=V,gw-priority=N.
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,

    /// Add a name on the network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,

    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long, value_name = "ADDR")]
    ip: Option<String>,

    /// IPv6 address (e.g., 2001:db8::33)
    #[arg(long, value_name = "ADDR")]
    ip6: Option<String>,

    /// Hardware address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long, value_name = "MAC")]
    mac_address: Option<String>,

    /// Further link-local address
    #[arg(long, value_name = "ADDR")]
    link_local_ip: Vec<String>,

    #[command(flatten)]
    ports: PortFlags,

    #[command(flatten)]
    names: NameFlags,

    /// Hostname [default: the sandbox's short id]
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,

    /// NIS domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,

    /// Set an environment variable; a name alone takes its value from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]", allow_hyphen_values = true)]
    env: Vec<String>,

    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Set meta data
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,

    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,

    /// Directory to start in [default: the current one]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,

    /// Remove the sandbox when its command ends
    #[arg(long)]
    pub(crate) rm: bool,

    /// Keep stdin open
    #[arg(short, long)]
    pub(crate) interactive: bool,

    /// Give the command a terminal: the one we are on, or in the background one of its own
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Write the sandbox's id to a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,

    /// Adopt a network namespace that somebody else made
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,

    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

impl Flags {
    /// Creates the sandbox. Gives its id.
    pub(crate) fn create(&self, client: &mut Client) -> Result<String, Failure> {
        let body = self.request(|name| env::var(name).ok())?;
        let mut cidfile = self.cidfile.as_deref().map(CidFile::new).transpose()?;
        let query = self.name.as_ref().map(|name| format!("?name={}", encode(name))).unwrap_or_default();
        let answer = client.call("POST", &format!("/portmap/sandboxes/create{query}"), Some(&body))?;
        let answer: Value = parse(&answer.body)?;
        for warning in answer["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            super::tell::refuse(&format_args!("WARNING: {warning}"));
        }
        let Some(id) = answer["Id"].as_str() else {
            return Err(Failure::ours("unexpected answer from the daemon: no id"));
        };
        if let Some(file) = &mut cidfile {
            file.keep(id)?;
        }
        Ok(id.to_owned())
    }

    /// The body of the request to create it.
    fn request(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Value> {
        // In Docker's order, as far as its command line checks it.
        let mut host = self.names.read()?;
        let (mode, endpoints) = self.networks()?;
        self.ports.check()?;
        if let Some(hostname) = &self.hostname {
            ensure!(is_hostname(hostname), "invalid hostname format for --hostname: {hostname}");
        }
        let env = env_file::gather(&self.env_file, &self.env, &variable)?;
        let mut labels = BTreeMap::new();
        for file in &self.label_file {
            labels.extend(env_file::read(file, &|_| Some(String::new()))?.iter().map(|l| key_value(l)));
        }
        labels.extend(self.label.iter().map(|label| key_value(label)));
        host.extend([
            ("PublishAllPorts".to_owned(), self.ports.publish_all.into()),
            ("AutoRemove".to_owned(), self.rm.into()),
            // Elsewhere they are what one network is asked for.
            ("Links".to_owned(), if is_user_defined(&mode) { json!([]) } else { json!(self.names.link) }),
            ("NetworkMode".to_owned(), mode.into()),
        ]);
        Ok(json!({
            "Hostname": self.hostname.clone().unwrap_or_default(),
            "Domainname": self.domainname.clone().unwrap_or_default(),
            "Env": env,
            "Cmd": self.command,
            "WorkingDir": text(&self.directory()?)?,
            "Tty": self.tty,
            "Labels": labels,
            "MacAddress": "",
            "Netns": self.netns.as_deref().map(absolute_namespace).transpose()?.unwrap_or_default(),
            "Publish": self.ports.publish,
            "Expose": self.ports.expose,
            "HostConfig": host,
            "NetworkingConfig": {"EndpointsConfig": endpoints},
        }))
    }

    fn directory(&self) -> Result<PathBuf> {
        match &self.workdir {
            Some(directory) if directory.is_absolute() => Ok(directory.clone()),
            Some(directory) => {
                bail!(
                    "the working directory '{}' is invalid, it needs to be an absolute path",
                    directory.display()
                )
            }
            None => env::current_dir().context("cannot tell the current directory"),
        }
    }

    /// The mode, and what was asked for on each network.
    fn networks(&self) -> Result<(String, Map<String, Value>)> {
        let mut flags = self.network.iter().map(|text| text.parse()).collect::<Result<Vec<NetworkFlag>>>()?;
        if flags.is_empty() {
            flags.push(NetworkFlag::plain(NetworkMode::default().to_string()));
        }
        // What isn't said of a network is said of the first.
        self.add_short_flags(&mut flags[0])?;
        let own = flags.iter().filter(|flag| is_user_defined(&flag.name)).count();
        let mut endpoints = Map::new();
        for flag in &flags {
            ensure!(
                !endpoints.contains_key(&flag.name),
                "network {:?} is specified multiple times",
                flag.name
            );
            endpoints.insert(flag.name.clone(), flag.settings()?);
        }
        ensure!(
            own == 0 || own == flags.len(),
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        );
        if let [only] = flags.as_slice()
            && only.is_plain()
        {
            endpoints.clear();
        }
        Ok((flags[0].name.clone(), endpoints))
    }

    fn add_short_flags(&self, first: &mut NetworkFlag) -> Result<()> {
        const BOTH: &str = "conflicting options: cannot specify both";
        let add = |slot: &mut Option<String>, given: &Option<String>, what: &str| {
            ensure!(slot.is_none() || given.is_none(), "{BOTH} {what}");
            if given.is_some() {
                slot.clone_from(given);
            }
            Ok(())
        };
        let extend = |slot: &mut Vec<String>, given: &[String], what: &str| {
            ensure!(slot.is_empty() || given.is_empty(), "{BOTH} {what}");
            slot.extend_from_slice(given);
            Ok(())
        };
        extend(&mut first.aliases, &self.network_alias, "--network-alias and per-network alias")?;
        let (on_it, beside) = (is_user_defined(&first.name), self.names.link.as_slice());
        ensure!(first.links.is_empty() || beside.is_empty(), "{BOTH} --link and per-network links");
        first.links.extend(beside.iter().filter(|_| on_it).cloned());
        add(&mut first.ip, &self.ip, "--ip and per-network IPv4 address")?;
        add(&mut first.ip6, &self.ip6, "--ip6 and per-network IPv6 address")?;
        add(&mut first.mac, &self.mac_address, "--mac-address and per-network MAC address")?;
        extend(
            &mut first.link_local,
            &self.link_local_ip,
            "--link-local-ip and per-network link-local IP addresses",
        )
    }
}

/// The file that is to hold the id. It is made first, for the sandbox would stay if it couldn't be; it goes again if
/// there comes no sandbox.
struct CidFile<'a> {
    path: &'a Path,
    file: Option<File>,
}

impl<'a> CidFile<'a> {
    fn new(path: &'a Path) -> Result<Self, Failure> {
        match File::create_new(path) {
            Ok(file) => Ok(Self { path, file: Some(file) }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::ours(format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            ))),
            Err(error) => Err(Failure::ours(
                anyhow::Error::new(error)
                    .context(format!("failed to create the container ID file {}", path.display())),
            )),
        }
    }

    fn keep(&mut self, id: &str) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.write_all(id.as_bytes())
            .with_context(|| format!("cannot write the container ID file {}", self.path.display()))
    }
}

impl Drop for CidFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = std::fs::remove_file(self.path);
        }
    }
}

/// Labels of a hostname by RFC 1123, which the kernel takes as a whole.
fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.chars().all(inner)
    };
    text.len() <= LONGEST_HOSTNAME && text.split('.').all(is_label)
}

fn is_user_defined(network: &str) -> bool {
    network.parse::<NetworkMode>().is_ok_and(|mode| mode.is_user_defined())
}

fn key_value(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// A path that means the same to the daemon, of something that is a network namespace.
fn absolute_namespace(path: &Path) -> Result<String> {
    netcore::process::check_namespace(path)?;
    let own = format!("/proc/{}", std::process::id());
    let path = match path.strip_prefix("/proc/self").or_else(|_| path.strip_prefix("/proc/thread-self")) {
        Ok(rest) => Path::new(&own).join(rest),
        Err(_) => std::path::absolute(path).context("cannot tell the current directory")?,
    };
    Ok(text(&path)?.to_owned())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests;
