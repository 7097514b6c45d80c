//! What a TCP connection through the proxy means: how its two directions end, and what a failed dial tells the client.
//!
//! Sockets and readiness are the engine's; this room decides.

mod dial;
mod ends;
pub mod proxy_protocol;

pub use dial::{DialFailure, is_passing, is_the_clients};
pub use ends::{Direction, Ends, Finish};
