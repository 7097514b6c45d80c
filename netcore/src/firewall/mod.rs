//! The host's firewall: what of the networks' traffic may pass, and under which address it leaves.
//!
//! | step | type | kernel? |
//! |---|---|---|
//! | what there is | [`Facts`], of [`BridgeNetwork`]s | no |
//! | the rules that follow from it | [`nftables`], [`iptables`] | no |
//! | load them | [`Firewall`] | runs `nft` or `iptables-restore` |
//!
//! Both backends enforce the same:
//!
//! 1. An internal network is fenced first: nothing in or out, whoever would accept it later.
//! 2. Within a network, traffic passes if `icc` is on; if it is off, what came to a published port through the host's
//!    address, and what a link opens: ports of one container to another, in this direction. (Bridged packets are only seen here with the bridge's `nf_call_iptables`: [`Facts::filters_bridged`].)
//! 3. Answers pass.
//! 4. Published ports may be reached; in [`GatewayMode::Routed`] also ICMP gets in, in [`GatewayMode::NatUnprotected`]
//!    everything.
//! 5. Nothing else enters a network: not from outside, not from another network.
//! 6. Everything else may leave, under the host's address if `masquerade` is on.
//! 7. If it was us who made this host a router, it routes for nobody else: [`Foreign`].
//!
//! Packets to a published port of the host get the container's address and keep their own; what a proxy must serve is
//! left to it ([`HostFacts::userland_proxy`]).
//!
//! Besides, a packet from outside that names a container's address is dropped before any address is translated: no
//! rule of somebody else's in the forward path can let it pass then. The same goes for a loopback address.
//!
//! ```no_run
//! use netcore::firewall::{BackendChoice, BridgeNetwork, Facts, Firewall, HostFacts};
//! use netcore::model::IfName;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut network = BridgeNetwork::new("portmap0".parse::<IfName>()?);
//! network.ipv4.push("172.17.0.0/16".parse()?);
//! let facts = Facts::new([network], [], HostFacts::default())?;
//! Firewall::new(BackendChoice::Auto).apply(&facts)?;
//! # Ok(()) }
//! ```

mod apply;
mod facts;
pub mod iptables;
pub mod nftables;
mod ports;
pub(crate) mod resolver;
#[cfg(test)]
mod tests;
mod tools;

pub use apply::{Backend, BackendChoice, Firewall, UnknownBackend};
pub use facts::{
    BadMark, BridgeNetwork, Facts, FactsError, Family, Foreign, GatewayMode, HostFacts, PacketMark,
};
pub use ports::{EndpointLinks, EndpointPorts, LinkPort, Mapping, OpenPort};
pub use tools::{HostTools, ToolError, Tools};
