//! The only room with system calls that need `unsafe`, and the only one that changes the host's network. Each of its
//! functions is safe to call.
//!
//! [`Kernel`] is what the controller sees: it makes steps of a [plan](crate::plan) true. [`HostKernel`] does so on this
//! host.
//!
//! Not here: what must exist (`plan`), and the firewall, which has tools of its own ([`firewall`](crate::firewall)).

#![allow(unsafe_code, reason = "this is where netcore talks to the kernel itself")]

mod address;
mod announce;
mod bridge;
pub(crate) mod child;
mod conntrack;
pub(crate) mod deaf;
pub(crate) mod enter;
mod error;
mod host;
mod inherited;
mod link;
mod netlink;
mod netns;
mod pidfd;
mod procfs;
pub(crate) mod resolver;
mod route;
pub(crate) mod sctp;
mod sockets;
mod sysctl;
mod veth;

use std::path::Path;

use ipnet::IpNet;

pub use self::conntrack::{Flow, forget_flows};
pub use self::error::KernelError;
pub use self::host::HostKernel;
#[doc(hidden)]
pub use self::host::Operation;
pub use self::inherited::inherited_sockets;
pub use self::pidfd::PidFd;
pub use self::resolver::NameSockets;
pub use self::sockets::{BoundSocket, Holder, Place, holder, holder_of, listeners, sockets};
use crate::firewall::Backend;
use crate::model::IfName;
use crate::plan::{Key, Step, Veth};

/// What the controller asks of the kernel.
pub trait Kernel: Send + Sync {
    /// Makes a step true. Doing it twice is doing it once. On failure nothing of an object that was not there remains.
    ///
    /// # Errors
    /// If the kernel refuses, or something that isn't ours is in the way.
    fn apply(&self, step: &Step) -> Result<(), KernelError>;

    /// Subnets that this host reaches directly, without those of our own bridges: what a new network must not overlap.
    ///
    /// # Errors
    /// If they can't be listed.
    fn on_link_routes(&self) -> Result<Vec<IpNet>, KernelError>;

    /// What there is to know about an interface; `None` if there is none of that name.
    ///
    /// # Errors
    /// If the kernel can't be asked.
    fn link(&self, name: &IfName) -> Result<Option<LinkFacts>, KernelError>;

    /// Bridges and veth pairs that bear the marker, and the namespaces pinned in a directory. A file that pins nothing
    /// any more counts: removing it is how it goes.
    ///
    /// # Errors
    /// If they can't be listed.
    fn ours(&self, marker: &str, namespaces: &Path) -> Result<Vec<Key>, KernelError>;

    /// A setting under `/proc/sys`, by its path below that; `None` if this kernel doesn't have it.
    ///
    /// # Errors
    /// If it is there but can't be read.
    fn sysctl(&self, key: &str) -> Result<Option<String>, KernelError>;

    /// Waits until packets pass the bridge and the host's end of a pair, a fifth of a second at most. The kernel opens new
    /// ports in the background, and drops packets until then: a connection would begin with a second of silence.
    fn await_port(&self, _veth: &Veth) {}

    /// Tells the neighbours of a sandbox's interface who has its addresses now: three times, a second apart, in the
    /// background. A failure is only logged.
    fn announce(&self, veth: &Veth);

    /// Whether the loopback interface of a pinned namespace has an IPv6 address, or gets it when it is set up.
    ///
    /// # Errors
    /// If there is no such namespace, or it can't be looked into.
    fn has_ipv6(&self, namespace: &Path) -> Result<bool, KernelError>;

    /// Makes the embedded server's sockets in a sandbox's namespace, on ports of the kernel's choice of 127.0.0.11, and
    /// leads port 53 of that address to them, so that the sandbox may have a server of its own on that port. Earlier rules
    /// of ours are replaced. `backend` is what rules are made with; `None`: whichever works. Where none does, the sockets
    /// are on port 53 itself.
    ///
    /// # Errors
    /// If there is no such namespace, or neither rules nor port 53 can be had.
    fn name_sockets(&self, namespace: &Path, backend: Option<Backend>) -> Result<NameSockets, KernelError>;

    /// Takes away the rules that led to an embedded server, of a namespace that stays.
    ///
    /// # Errors
    /// If there is no such namespace, or the rules can't be removed.
    fn remove_name_rules(&self, namespace: &Path) -> Result<(), KernelError>;
}

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// Whether it is a bridge.
    pub bridge: bool,
    /// Its addresses, each with the length of its subnet's prefix; without IPv6 link-local ones.
    pub addresses: Vec<IpNet>,
    /// Maximum size of a packet.
    pub mtu: u32,
    /// Its alias, which says whose it is: `portmap:<marker>:…` for ours.
    pub alias: Option<String>,
}
