//! `--link` as users meet it: on the default bridge with its variables, lines in `/etc/hosts`, names, `linkgraph.db` and
//! openings, on other networks as names that one sandbox alone knows.
//!
//! Each test has a host of its own (a network namespace with a daemon in it). What a name stands for is asked of the libc in
//! the sandbox, what is open by connecting. Needs root, `docker`, `nft` and `iptables`, and MariaDB for one.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

mod crash;
mod environment;
mod events;
mod graph;
#[path = "../networks/lab.rs"]
#[allow(dead_code, reason = "the tests of networks use the rest")]
mod lab;
mod mysql;
mod naming;
mod openings;
mod own_networks;
mod refusals;
mod scenarios;
mod tools;
#[path = "../publishing/witness.rs"]
#[allow(dead_code, reason = "the tests of published ports use the rest")]
mod witness;
