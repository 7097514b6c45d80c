//! What commands on ports have in common: the flags of `run` and `create`, and the lines that show where a port is
//! published.
//!
//! Not here: the grammars (`netcore::publish`), the columns of `ps`.

use std::collections::BTreeMap;

use anyhow::Result;
use netcore::publish::{ExposeSpec, PublishSpec, SpecError};
use serde::Deserialize;

use crate::view::natural;

/// What `-p` is. No doc comment: rustdoc would take the brackets for links.
pub(super) const SPEC_HELP: &str = "A port to publish: [[HOST-IP:][HOST-PORT[-PORT]]:]PORT[-PORT][/tcp|udp|sctp] (may be given several times)";

/// What was typed about ports.
#[derive(clap::Args)]
pub(crate) struct PortFlags {
    #[arg(help = SPEC_HELP,
        short,
        long,
        value_name = "SPEC",
        allow_hyphen_values = true
    )]
    pub(super) publish: Vec<String>,

    /// Publish all exposed ports, on free ports of the host
    #[arg(short = 'P', long)]
    pub(super) publish_all: bool,

    /// Expose a port or a range of ports: ps and inspect show them, -P publishes them (may be given several times)
    #[arg(long, value_name = "PORT[-PORT][/PROTO]", allow_hyphen_values = true)]
    pub(super) expose: Vec<String>,
}

impl PortFlags {
    /// Refuses what can't be read.
    pub(super) fn check(&self) -> Result<()> {
        specs(&self.publish)?;
        Ok(self.expose.iter().try_for_each(|text| text.parse::<ExposeSpec>().map(drop))?)
    }
}

/// Reads specs in Docker's order: first the long forms are made short, all of them, then all are read.
pub(super) fn specs(texts: &[String]) -> Result<Vec<PublishSpec>, SpecError> {
    let read = || texts.iter().map(|text| text.parse());
    match read().find(|spec| matches!(spec, Err(SpecError::NameValue(_)))) {
        Some(Err(error)) => Err(error),
        _ => read().collect(),
    }
}

/// Where ports are published, by `80/tcp`; nothing for one that is exposed only.
pub(super) type PortMap = BTreeMap<String, Option<Vec<Binding>>>;

/// A place on the host.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Binding {
    host_ip: String,
    host_port: String,
}

impl Binding {
    fn text(&self) -> String {
        join_host_port(&self.host_ip, &self.host_port)
    }
}

/// An address and a port as Go joins them.
pub(super) fn join_host_port(host: &str, port: &str) -> String {
    if host.contains([':', '%']) { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Where one port is published, a line each; without a line if it isn't.
pub(super) fn lines_of(ports: &PortMap, key: &str) -> String {
    let bindings = ports.get(key).into_iter().flatten().flatten();
    lines(bindings.map(Binding::text).collect())
}

/// Where all of them are published: `80/tcp -> 0.0.0.0:8080`.
pub(super) fn all_lines(ports: &PortMap) -> String {
    let line = |key: &String, binding: &Binding| format!("{key} -> {}", binding.text());
    let places = ports
        .iter()
        .flat_map(|(key, bindings)| bindings.iter().flatten().map(move |binding| line(key, binding)));
    lines(places.collect())
}

fn lines(mut lines: Vec<String>) -> String {
    lines.sort_by(|one, other| natural::compare(one, other));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> PortMap {
        let text = r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],
            "443/tcp":null,"9/udp":[],"53/udp":[{"HostIp":"127.0.0.1","HostPort":"10053"},{"HostIp":"127.0.0.1","HostPort":"9053"}],
            "81/tcp":[{"HostIp":"0.0.0.0","HostPort":""}]}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn lines_are_in_natural_order() {
        assert_eq!(
            all_lines(&ports()),
            "53/udp -> 127.0.0.1:9053\n53/udp -> 127.0.0.1:10053\n80/tcp -> 0.0.0.0:8080\n\
             80/tcp -> [::]:8080\n81/tcp -> 0.0.0.0:\n"
        );
        assert_eq!(lines_of(&ports(), "80/tcp"), "0.0.0.0:8080\n[::]:8080\n");
        for key in ["443/tcp", "9/udp", "7/tcp"] {
            assert_eq!(lines_of(&ports(), key), "", "{key}");
        }
        assert_eq!(all_lines(&PortMap::new()), "");
    }

    #[test]
    fn a_malformed_long_form_is_told_before_any_other_mistake() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let refused = |list: &[&str]| specs(&texts(list)).unwrap_err().to_string();
        let format = "invalid publish opts format (should be name=value but got 'x')";
        assert_eq!(refused(&["bad", "target=80,x"]), format);
        assert_eq!(refused(&["80", "bad", "80/x"]), "invalid containerPort: bad");
        assert_eq!(specs(&texts(&["80", "target=81,published=8081"])).unwrap().len(), 2);
    }
}
