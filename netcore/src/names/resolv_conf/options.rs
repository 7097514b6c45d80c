//! `--dns`, `--dns-search` and `--dns-opt`, with Docker's texts.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A name's limit, RFC 1035.
const LONGEST_DOMAIN: usize = 254;

/// What was asked for, of a sandbox or of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsOptions {
    /// `--dns`.
    pub servers: Vec<IpAddr>,
    /// `--dns-search`; `.` stands for no search list.
    pub search: Vec<String>,
    /// `--dns-opt`.
    pub options: Vec<String>,
}

/// Why an option was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadDnsOption {
    /// Of `--dns`.
    #[error("IP address is not correctly formatted: {0}")]
    Server(String),
    /// Of `--dns-search`.
    #[error("{0} is not a valid domain")]
    Search(String),
}

impl DnsOptions {
    /// A sandbox's options, and the daemon's for each kind that it has none of. Lists replace one another; they are never
    /// merged.
    #[must_use]
    pub fn or(&self, daemon: &Self) -> Self {
        fn list<T: Clone>(own: &[T], other: &[T]) -> Vec<T> {
            if own.is_empty() { other.to_vec() } else { own.to_vec() }
        }
        Self {
            servers: list(&self.servers, &daemon.servers),
            search: list(&self.search, &daemon.search),
            options: list(&self.options, &daemon.options),
        }
    }
}

/// A value of `--dns`.
///
/// # Errors
/// If it is no address.
pub fn parse_server(text: &str) -> Result<IpAddr, BadDnsOption> {
    text.trim().parse().map_err(|_| BadDnsOption::Server(text.to_owned()))
}

/// A value of `--dns-search`: a domain without its last dot, or `.`.
///
/// # Errors
/// If it is no domain of letters, digits and inner hyphens with at least one letter in it.
pub fn parse_search(text: &str) -> Result<String, BadDnsOption> {
    let domain = text.trim();
    if domain == "." {
        return Ok(domain.to_owned());
    }
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let fits = domain.bytes().any(|c| c.is_ascii_alphabetic())
        && domain.len() <= LONGEST_DOMAIN
        && domain.split('.').all(label);
    if fits { Ok(domain.to_owned()) } else { Err(BadDnsOption::Search(text.to_owned())) }
}
