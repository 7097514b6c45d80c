//! Networking core: what Docker's networking gives a container, as a library.
//!
//! * [`controller`]: every operation there is. Begin here.
//! * [`dns`]: the server that sandboxes ask, and what it answers.
//! * [`driver`]: what the networks of each kind need.
//! * [`firewall`]: what of the networks' traffic may pass, as nftables or iptables rules.
//! * [`ipam`]: subnets of networks and addresses of endpoints.
//! * [`kernel`]: makes plans true on this host.
//! * [`model`]: networks, endpoints and sandboxes as facts; ids, names, options, modes.
//! * [`names`]: what sandboxes see under `/etc`.
//! * [`plan`]: what must exist in the kernel, as plain data.
//! * [`process`]: a command in a sandbox: what surrounds it, how it is started, how what is left of it ends.
//! * [`publish`]: host ports. The `-p` grammar, port numbers, sockets, and the proxies behind them.
//! * [`store`]: the facts on disk.
//!
//! The decisions (parsing, planning, allocating) are pure: they take values and return values. Sockets and processes
//! are touched only where a module's head says so. No caller needs an async runtime: the one there is, the
//! embedded server's, has a thread of its own.

#![deny(unsafe_code)]

pub mod controller;
pub mod dns;
pub mod driver;
pub mod firewall;
pub mod ipam;
pub mod kernel;
pub mod model;
pub mod names;
pub mod plan;
pub mod process;
pub mod publish;
pub mod store;
