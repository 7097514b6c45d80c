//! netproxy moves bytes between host ports and a target: docker-proxy's contract, in one small process per mapping.
//!
//! What is forwarded where is a [`mapping::Mapping`]; [`listen`] opens or inherits its sockets; an [`engine`] serves
//! them until a signal ends it. What TCP and UDP *mean* (half-close, resets, flows, time-outs) lives in [`tcp`] and
//! [`udp`], apart from the engine that does the I/O, so that every engine means the same. [`counters`] count,
//! [`control`] lets other processes read them.
//!
//! Not here: networks, firewalls, port allocation, supervision. A proxy knows two addresses and nothing else.
//!
//! # Libraries, where we went another way
//!
//! - `tokio-splice`: no per-direction state, no pooled or late pipes and no resets passed on; the relay here is
//!   [`tcp`]'s state machine over `splice(2)`. Its figures stand beside ours in each benchmark.
//! - `tokio` carries the portable engine alone: its own ring support is unstable and knows files, not sockets.
//! - `clap`: Go's flag syntax (`-proto tcp`) reads to it as a cluster of short flags; [`flags`] is a table instead.
//! - `ipnet`: all that is asked of a network here is [`cidr::Cidr::contains`], two lines.
//! - `metrics`: an exporter costs 0.4 MB per process, more than the whole proxy; [`counters`] are plain atomics.
#![deny(unsafe_code)]

pub mod cidr;
pub mod control;
pub mod counters;
pub mod engine;
pub mod flags;
pub mod limits;
pub mod listen;
pub mod log;
pub mod mapping;
pub mod sctp;
pub mod sources;
pub mod splice;
pub mod status;
mod sys;
pub mod tcp;
pub mod udp;
