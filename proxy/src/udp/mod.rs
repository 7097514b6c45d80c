//! What UDP means here: flows, each with a backend socket of its own, that end when idle or when room is needed.
//!
//! Sockets and tasks are the engine's; this room knows only keys, times and order.

mod flows;
mod packet;

pub use flows::{FlowKey, FlowTable, Local};
pub use packet::{Datagram, control_buffer, receive, send};
