//! Plans made true in a real kernel: each object made twice, changed, removed twice, and failing at each of its
//! operations; and sandboxes that reach each other over what was made.

#[path = "kernel/bridges.rs"]
mod bridges;
#[path = "kernel/conntrack.rs"]
mod conntrack;
#[allow(dead_code, reason = "the firewall's tests use the rest")]
mod lab;
#[path = "kernel/namespaces.rs"]
mod namespaces;
#[path = "kernel/sandboxes.rs"]
mod sandboxes;
#[path = "kernel/veths.rs"]
mod veths;
#[path = "kernel/world.rs"]
mod world;
