//! Networks and sandboxes as a user meets them: who reaches whom, what the flags do, what is refused, what persists.
//!
//! Each test has a host of its own (a network namespace with a daemon in it) and, where it matters, a neighbour on a
//! cable. Needs root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

mod addressing;
mod commands;
mod connect;
mod lab;
mod listing;
mod modes;
mod neighbours;
mod options;
mod reach;
mod refusals;
mod restart;
mod scarcity;
