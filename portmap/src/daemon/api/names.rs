//! What a request says of names: `HostConfig`'s `Dns`, `DnsSearch`, `DnsOptions`, `ExtraHosts` and `Links`. And names that links
//! give, where a path has them.
//!
//! dockerd warns of links on the default bridge, for it will do without them one day. Here they stay, so nobody is warned.

use std::fmt::Display;

use hyper::Method;
use netcore::model::{LinkSpec, NetworkMode};
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

/// Links on the default bridge. On a user-defined network the endpoint has them; Docker's command line says them here too.
pub(super) fn links(host: &Fields, mode: &NetworkMode) -> Result<Vec<LinkSpec>> {
    let links = each(&host.texts("Links")?, str::parse)?;
    Ok(if mode.is_user_defined() { Vec::new() } else { links })
}

/// `/containers/blog/my_link/json` with the name that a link gives, `blog/my_link`, as one part of the path. Docker's command
/// line doesn't encode the slash. `None` if there is no such name in it.
pub(super) fn joined(method: &Method, path: &str) -> Option<String> {
    let rest = path.strip_prefix("/containers/")?;
    let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
    match parts[..] {
        [consumer, alias] if method == Method::DELETE => Some(format!("/containers/{consumer}%2F{alias}")),
        // Of Docker's own paths one has as many parts.
        [_, "attach", "ws"] => None,
        [consumer, alias, verb] => Some(format!("/containers/{consumer}%2F{alias}/{verb}")),
        _ => None,
    }
}

fn each<T, E: Display>(
    texts: &[String],
    parse: impl Fn(&str) -> std::result::Result<T, E>,
) -> Result<Vec<T>> {
    let parsed = texts.iter().map(|text| parse(text));
    parsed.map(|one| one.map_err(|error| Refusal::invalid(error.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_s_name_is_one_part_of_a_path() {
        let cases = [
            ("GET /containers/blog/my_link/json", Some("/containers/blog%2Fmy_link/json")),
            ("GET /containers//blog/my_link/json", Some("/containers/blog%2Fmy_link/json")),
            ("DELETE /containers/blog/my_link", Some("/containers/blog%2Fmy_link")),
            ("POST /containers/blog/my_link/stop", Some("/containers/blog%2Fmy_link/stop")),
            ("GET /containers/blog/json", None),
            ("DELETE /containers/blog", None),
            ("GET /containers/blog/attach/ws", None),
            ("GET /containers/json", None),
            ("GET /containers/a/b/c/json", None),
            ("DELETE /networks/a/b", None),
        ];
        for (request, want) in cases {
            let (method, path) = request.split_once(' ').unwrap();
            assert_eq!(joined(&method.parse().unwrap(), path).as_deref(), want, "{request}");
        }
    }

    #[test]
    fn links_count_on_the_default_bridge() {
        let links = |mode: &str| {
            let host = Fields::parse(br#"{"Links":["db:d"]}"#).unwrap();
            links(&host, &mode.parse().unwrap()).unwrap().len()
        };
        assert_eq!((links("bridge"), links("shop")), (1, 0));
        // They are refused there, not overlooked.
        assert_eq!((links("host"), links("container:x")), (1, 1));
        let bad = Fields::parse(br#"{"Links":["a:b:c"]}"#).unwrap();
        assert_eq!(
            super::links(&bad, &NetworkMode::Bridge).unwrap_err().shown(),
            "400 bad format for links: a:b:c"
        );
    }
}
