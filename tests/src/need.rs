//! What a test can't do without, and what becomes of it when it is missing.
//!
//! Every function answers `None` after a line `SKIP <test>: why`, and the test returns. With `E2E_REQUIRED=1` in the
//! environment the same line is a panic, so that a CI machine can't quietly test less than it should.

use std::io::Write;
use std::path::PathBuf;

use nix::unistd::geteuid;
use socket2::{Domain, Protocol, Socket, Type};

use crate::bin;

/// SCTP's protocol number.
pub const SCTP: i32 = 132;

/// Namespaces, and ports below 1024 in them.
#[must_use]
pub fn root() -> Option<()> {
    if geteuid().is_root() { Some(()) } else { missing("needs root for network namespaces") }
}

/// Docker's proxy.
#[must_use]
pub fn docker_proxy() -> Option<PathBuf> {
    bin::docker_proxy().or_else(|| missing("no docker-proxy installed (run `make setup`)"))
}

/// A program of the system's, like `curl`.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    bin::on_path(name).or_else(|| missing(&format!("no {name} installed (run `make setup`)")))
}

/// SCTP in this kernel. Never required: no package brings it.
#[must_use]
pub fn sctp() -> Option<()> {
    if has_sctp() {
        return Some(());
    }
    skip("this kernel has no SCTP");
    None
}

/// Whether this kernel has SCTP.
#[must_use]
pub fn has_sctp() -> bool {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(SCTP))).is_ok()
}

/// Skips the calling test, or fails it where skipping isn't allowed.
#[must_use]
pub fn missing<T>(why: &str) -> Option<T> {
    assert!(!is_required(), "{}: {why}, and E2E_REQUIRED=1 allows no skipping", test());
    skip(why);
    None
}

/// Whether nothing may be missing here: `E2E_REQUIRED=1`.
#[must_use]
pub fn is_required() -> bool {
    std::env::var_os("E2E_REQUIRED").is_some_and(|value| value == "1")
}

fn skip(why: &str) {
    // Not by eprintln!: the test harness would swallow it in a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIP {}: {why}", test());
}

fn test() -> String {
    std::thread::current().name().unwrap_or("test").to_owned()
}
