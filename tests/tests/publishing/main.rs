//! Published ports as a user meets them: how they come, change and go, and what survives whom.
//!
//! Each test has a host of its own (a network namespace with a daemon in it) and a neighbour on a cable. Needs root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

mod bindings;
mod direct;
mod explain;
#[path = "../networks/lab.rs"]
#[allow(dead_code, reason = "the tests of networks use the rest")]
mod lab;
mod loopback;
mod matrix;
mod modes;
mod servers;
mod witness;
