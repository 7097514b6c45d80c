//! The embedded resolver's decisions: what a query is answered with, and whom else to ask. No sockets, no clock, no
//! randomness of its own.
//!
//! * [`Zones`] has the names on each network, a [`View`] what one sandbox sees of them.
//! * [`answer()`] turns a query's bytes into a reply, or says that it is for others.
//! * [`Exchange`] says which of the [`Upstreams`] to ask when, and which reply counts.
//!
//! A sandbox joining a network costs the same however many are there: its names go into the network's table, and no view
//! of another is touched.

mod answer;
#[cfg(test)]
mod lab;
mod query;
mod reply;
mod reverse;
mod upstream;
mod zone;

pub use answer::{Settings, Verdict, answer};
pub use query::{Forward, LONGEST_QUERY, Transport};
pub use upstream::{Ask, Exchange, Step, Upstreams};
pub use zone::{Attachment, Found, Link, Member, View, Zones, names};
