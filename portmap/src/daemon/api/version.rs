//! The `/v1.NN` before a path: which version of the API the client speaks.

use std::convert::Infallible;
use std::fmt;

use axum::extract::{FromRequestParts, Request};
use axum::http::Uri;
use axum::http::request::Parts;

use super::reply::Refusal;
use super::{API_VERSION, MIN_API_VERSION, Result, names};

/// A version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

impl Version {
    pub(super) const fn new(major: u32, minor: u32) -> Self {
        Self(major, minor)
    }

    /// Our own.
    pub(super) fn own() -> Self {
        Self::parse(API_VERSION)
    }

    /// Digits and dots, as the path has them; what Go's comparison makes of odd ones is a number too.
    fn parse(text: &str) -> Self {
        let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        Self(next(), next())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl<S: Sync> FromRequestParts<S> for Version {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_else(Self::own))
    }
}

/// Takes the version off the path and keeps it with the request. `/networks/` becomes `/networks`, and the name that a link
/// gives one part of the path.
pub(super) fn strip(mut request: Request) -> Result<Request> {
    let path = request.uri().path();
    let (version, rest) = match split(path) {
        Some((text, rest)) => (checked(text)?, rest),
        None => (Version::own(), path),
    };
    let joined = names::joined(request.method(), rest);
    let rest = if rest == "/networks/" { "/networks" } else { joined.as_deref().unwrap_or(rest) };
    if rest != path {
        let rest = match request.uri().query() {
            Some(query) => format!("{rest}?{query}"),
            None => rest.to_owned(),
        };
        let uri: Uri = rest.parse().map_err(|_| Refusal::not_found("page not found"))?;
        *request.uri_mut() = uri;
    }
    request.extensions_mut().insert(version);
    Ok(request)
}

/// `/v1.51/networks` into `1.51` and `/networks`.
fn split(path: &str) -> Option<(&str, &str)> {
    let (version, _) = path.strip_prefix("/v")?.split_once('/')?;
    let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_version.then(|| (version, &path[2 + version.len()..]))
}

fn checked(text: &str) -> Result<Version> {
    let version = Version::parse(text);
    if version < Version::parse(MIN_API_VERSION) {
        return Err(Refusal::invalid(format!(
            "client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, please upgrade your client to a newer version"
        )));
    }
    if version > Version::own() {
        return Err(Refusal::invalid(format!(
            "client version {text} is too new. Maximum supported API version is {API_VERSION}"
        )));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn the_version_is_taken_off_the_path() {
        let cases = [
            ("/v1.41/networks?filters=x", "1.41 /networks?filters=x"),
            ("/networks/", "1.51 /networks"),
            ("/v1.24/networks/", "1.24 /networks"),
            ("/v1.51/networks/a%2Fb", "1.51 /networks/a%2Fb"),
            ("/v1.51/containers/blog/my_link/json?size=1", "1.51 /containers/blog%2Fmy_link/json?size=1"),
            ("/version", "1.51 /version"),
            ("/v1.51/v1.51/x", "1.51 /v1.51/x"),
            ("/v1.51", "1.51 /v1.51"),
            (
                "/v1.20/info",
                "400 client version 1.20 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
            ),
            ("/v1.99/info", "400 client version 1.99 is too new. Maximum supported API version is 1.51"),
            ("/v2.0/info", "400 client version 2.0 is too new. Maximum supported API version is 1.51"),
        ];
        for (uri, want) in cases {
            let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
            let got = match strip(request) {
                Ok(request) => {
                    let version = request.extensions().get::<Version>().unwrap();
                    format!("{version} {}", request.uri())
                }
                Err(refusal) => refusal.shown(),
            };
            assert_eq!(got, want, "{uri}");
        }
    }
}
