//! The embedded resolver. Its decisions, what a query is answered with and whom else to ask, have no sockets, no clock and
//! no randomness of their own; the [`Server`] has, and carries them out.
//!
//! * [`Zones`] has the names on each network, a [`View`] what one sandbox sees of them.
//! * [`answer()`] turns a query's bytes into a reply, or says that it is for others.
//! * [`Exchange`] says which of the [`Upstreams`] to ask when, and which reply counts.
//! * [`Server`] receives, asks and sends, for all sandboxes, on one thread.
//!
//! A sandbox joining a network costs the same however many are there: its names go into the network's table, and no view
//! of another is touched.

mod answer;
#[cfg(test)]
mod lab;
mod query;
mod reply;
mod reverse;
mod server;
mod upstream;
mod zone;

pub use answer::{Settings, Verdict, answer};
pub use query::{Forward, LONGEST_QUERY, Transport};
pub(crate) use server::read_host_file;
pub use server::{Asked, Client, Server, ServerConfig};
pub use upstream::{Ask, Exchange, Step, Upstreams};
pub use zone::{Attachment, Found, Link, Member, View, Zones, names};
