//! SCTP, one-to-one style: whole messages with their stream and payload protocol, both ways.
//!
//! Messages are never spliced or cut: boundaries and stream numbers are what SCTP is for. There is no half-close
//! (RFC 9260 section 9), so the end of either association ends both.

mod message;

pub use message::{Envelope, Received, prepare, receive, send};
