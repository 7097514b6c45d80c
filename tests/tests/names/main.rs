//! Names as sandboxes meet them: their files under `/etc`, and the embedded name server, asked by the libc inside and by
//! `dig`.
//!
//! Each test has a host of its own (a network namespace with a daemon in it) and name servers there that say what the test
//! has them say. Needs root, `dig`, `nft` and `iptables`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

mod changes;
mod crowds;
mod hosts;
#[path = "../networks/lab.rs"]
#[allow(dead_code, reason = "the tests of networks use the rest")]
mod lab;
mod messages;
mod resolv_conf;
mod scenarios;
mod tools;
mod upstreams;
mod wiring;
