//! The controller with a kernel and firewall tools that are none.

mod facts;
mod flags;
mod lab;
mod names;
mod networks;
mod ports;
mod restart;
mod sandboxes;
mod undo;
