//! Publishing ports: from the text of a `-p` option to proxies that serve it.
//!
//! | step | type | kernel? |
//! |---|---|---|
//! | parse `-p` and `--expose` | [`PublishSpec`], [`ExposeSpec`] | no |
//! | addresses, order, groups that share one host port | [`plan`] → [`Group`] | no |
//! | choose numbers | [`Allocator`], [`EphemeralPorts`] | no |
//! | bind | [`reserve()`] → [`Reservation`] | sockets |
//! | serve in the foreground | [`Supervisor`] | processes |
//! | serve as a daemon | [`Keeper`] | processes |
//!
//! ```no_run
//! use netcore::publish::{Allocator, EphemeralPorts, HostDefaults, PublishSpec, plan, reserve};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let specs: Vec<PublishSpec> = vec!["8080:80".parse()?, "127.0.0.1::53/udp".parse()?];
//! let groups = plan(&specs, &HostDefaults::default())?;
//! let mut numbers = Allocator::new(EphemeralPorts::of_this_host());
//! for bound in reserve(&mut numbers, &groups)? {
//!     println!("{} on {:?}", bound.host(), bound.addresses());
//! }
//! # Ok(()) }
//! ```

mod allocator;
mod bindings;
mod destination;
mod ephemeral;
mod expose;
mod keeper;
mod mapping;
mod ports;
mod portset;
mod program;
mod proxies;
mod reservation;
mod reserve;
mod socket;
mod spec;

pub use allocator::{AllocateError, Allocator, PortRequest};
pub use bindings::{BindingError, Group, HostDefaults, plan};
pub use destination::{Destination, Planned, plan_for, publications, wanted};
pub use ephemeral::{EphemeralPorts, ReservedListError};
pub use expose::{ExposeError, ExposeSpec, ExposedProto};
pub use keeper::{Keeper, KeeperSettings};
pub use ports::{BadPortRange, PortRange, Proto, UnknownProto};
pub use proxies::{ProxyCommand, ProxyError, ProxyEvent, ProxyExit, ProxyStatus, Supervisor};
pub use reservation::Reservation;
pub use reserve::{ReserveError, reserve};
pub use socket::host_listens_on_ipv6;
pub use spec::{HostPort, HostPorts, PortBinding, PublishSpec, SpecError};
