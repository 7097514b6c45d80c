//! What the end-to-end tests share: namespaces, processes, proxies, servers.
//!
//! The tests drive the built binaries from outside, as a user or dockerd would. Everything happens in network
//! namespaces made for one test, so tests run side by side and leave the machine as it was. A step that fails panics
//! with what it was doing: here a failed step is a failed test.
#![forbid(unsafe_code)]

pub mod bin;
pub mod contract;
pub mod daemon;
pub mod dockerd;
pub mod lab;
pub mod nameserver;
pub mod need;
pub mod proc;
pub mod proxy;
pub mod servers;
pub mod traffic;
pub mod wait;
