//! Facts: what a network, an endpoint and a sandbox are, and what may be asked of them. No I/O.
//!
//! | what | types |
//! |---|---|
//! | facts, as the store keeps them | [`Network`], [`Endpoint`], [`Sandbox`], [`Lease`] |
//! | ids and names | [`NetworkId`], [`EndpointId`], [`SandboxId`], [`NetworkName`], [`SandboxName`], [`IfName`], [`Mac`] |
//! | which object an argument means | [`resolve()`] |
//! | ports | [`PortsConfig`], [`Publication`] |
//! | `--link` | [`LinkSpec`] |
//! | `-o key=value` | [`BridgeOptions`] |
//! | `--net`, and what doesn't go with it | [`NetworkMode`], [`check_together`], [`check_connect`], [`check_target`] |
//! | who gets the default route | [`default_route`] |
//!
//! Texts become these types once, where they come in; a type that parses can't hold what its rules forbid. The clock and
//! random bytes are the caller's. Facts read back from a store of an earlier version get defaults for what they lack.

mod election;
mod id;
mod link;
mod mac;
mod mode;
mod name;
mod network;
pub mod options;
mod publication;
mod resolve;
mod sandbox;
mod time;

pub use election::{Candidate, Family, compare, default_route};
pub use id::{BadId, EndpointId, ID_DIGITS, NetworkId, SHORT_DIGITS, SandboxId};
pub use link::{LinkError, LinkSpec};
pub use mac::{BadMac, Mac};
pub use mode::{
    ModeError, NetworkMode, PORTS_DISCARDED, Setting, TargetError, TargetState, check_connect,
    check_disconnect, check_target, check_together,
};
pub use name::{IfName, NameError, NetworkName, Predefined, SandboxName, is_alias};
pub use network::{DEFAULT_GATEWAY_IPV4, DEFAULT_GATEWAY_IPV6, Ipam, Network, Scope, Subnet};
pub use options::{BridgeOptions, GatewayMode, OptionError};
pub use publication::{PortsConfig, Publication};
pub(crate) use resolve::name_of;
pub use resolve::{Kind, MatchedOn, ResolveError, resolve};
pub use sandbox::{
    BadBootId, BadSysctl, BootId, Endpoint, EndpointSettings, Exited, Lease, ProcessConfig, ProcessId,
    Running, Sandbox, SandboxConfig, SandboxState,
};
pub use time::Timestamp;
