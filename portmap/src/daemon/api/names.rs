//! What a request says of names: `HostConfig`'s `Dns`, `DnsSearch`, `DnsOptions`, `ExtraHosts` and `Links`.

use std::fmt::Display;

use netcore::model::LinkSpec;
use netcore::names::hosts::ExtraHost;
use netcore::names::resolv_conf::{DnsOptions, parse_search, parse_server};

use super::Result;
use super::body::Fields;
use super::reply::Refusal;

pub(super) fn dns(host: &Fields) -> Result<DnsOptions> {
    Ok(DnsOptions {
        servers: each(&host.texts("Dns")?, parse_server)?,
        search: each(&host.texts("DnsSearch")?, parse_search)?,
        options: host.texts("DnsOptions")?,
    })
}

pub(super) fn extra_hosts(host: &Fields) -> Result<Vec<ExtraHost>> {
    each(&host.texts("ExtraHosts")?, str::parse)
}

pub(super) fn links(host: &Fields) -> Result<Vec<LinkSpec>> {
    each(&host.texts("Links")?, str::parse)
}

fn each<T, E: Display>(
    texts: &[String],
    parse: impl Fn(&str) -> std::result::Result<T, E>,
) -> Result<Vec<T>> {
    let parsed = texts.iter().map(|text| parse(text));
    parsed.map(|one| one.map_err(|error| Refusal::invalid(error.to_string()))).collect()
}
