//! Published ports as a user meets them: how they come, change and go, and what survives whom.
//!
//! Each test has a host of its own (a network namespace with a daemon in it) and a neighbour on a cable. Needs root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

mod bindings;
mod changes;
mod choice;
mod direct;
mod endings;
mod explain;
mod flows;
mod gateways;
mod input;
#[path = "../networks/lab.rs"]
#[allow(dead_code, reason = "the tests of networks use the rest")]
mod lab;
mod listing;
mod loopback;
mod losses;
mod matrix;
mod modes;
mod ports;
mod proxies;
mod races;
mod refusals;
mod servers;
mod switching;
mod witness;
