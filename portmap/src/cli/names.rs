//! What `run` and `create` are told of names: whom to ask for them, what stands in `/etc/hosts`, and links.
//!
//! Docker's command line reads these flags itself, before anything else is looked at, and refuses them in its own words.
//! Where a link belongs depends on the first network (`sandbox`); what it leads to is the daemon's matter.

use std::fmt::Display;

use anyhow::{Result, anyhow};
use netcore::model::LinkSpec;
use netcore::names::hosts::ExtraHost;
use netcore::names::resolv_conf::{parse_search, parse_server};
use serde_json::{Map, Value, json};

/// What was typed about names.
#[derive(clap::Args)]
pub(crate) struct NameFlags {
    /// A DNS server to ask instead of the host's (may be given several times)
    #[arg(long, value_name = "ADDR", allow_hyphen_values = true)]
    dns: Vec<String>,

    /// A domain to look names up in that are short; "." for none (may be given several times)
    #[arg(long, value_name = "DOMAIN", allow_hyphen_values = true)]
    dns_search: Vec<String>,

    /// An option for resolv.conf, as ndots:1 (may be given several times)
    #[arg(long, visible_alias = "dns-option", value_name = "OPTION", allow_hyphen_values = true)]
    dns_opt: Vec<String>,

    /// A further line of /etc/hosts; the address host-gateway is the host's (may be given several times)
    #[arg(long, value_name = "NAME:ADDR", allow_hyphen_values = true)]
    add_host: Vec<String>,

    /// Add a name for another sandbox that only this one knows; on the default bridge with its variables (may be given
    /// several times)
    #[arg(long, value_name = "NAME[:ALIAS]", allow_hyphen_values = true)]
    pub(super) link: Vec<String>,
}

impl NameFlags {
    /// `HostConfig`'s fields for all but links.
    ///
    /// # Errors
    /// If a flag can't be read: Docker's text.
    pub(super) fn read(&self) -> Result<Map<String, Value>> {
        let servers = each("--dns", &self.dns, parse_server)?;
        let search = each("--dns-search", &self.dns_search, parse_search)?;
        // Docker's daemon knows but the colon.
        let hosts =
            each("--add-host", &self.add_host, |text| text.parse().map(|host: ExtraHost| host.to_string()))?;
        each("--link", &self.link, |text| text.parse::<LinkSpec>())?;
        let fields = [
            ("Dns", json!(servers)),
            ("DnsSearch", json!(search)),
            ("DnsOptions", json!(self.dns_opt)),
            ("ExtraHosts", json!(hosts)),
        ];
        Ok(fields.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
    }
}

fn each<T, E: Display>(flag: &str, texts: &[String], read: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>> {
    let refuse = |text: &String, why: E| anyhow!("invalid argument {text:?} for {flag:?} flag: {why}");
    texts.iter().map(|text| read(text).map_err(|why| refuse(text, why))).collect()
}
