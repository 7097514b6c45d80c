//! What UDP means here: flows, each with a backend socket of its own, that end when idle or when room is needed.
//!
//! Tasks and readiness are the engine's; this room knows keys, times and order, and the calls that move one datagram.

mod backend;
mod flows;
mod packet;

pub use backend::{connect, is_shortage, send_on};
pub use flows::{FlowKey, FlowTable, Local};
pub use packet::{Datagram, receive, send};
pub(crate) use packet::{local_of, segment_of, send_all};
