//! Why an operation failed: Docker's texts, and Docker's classes of error.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::driver::DriverError;
use crate::firewall::{FactsError, ToolError};
use crate::ipam::{BadConfig, IpamError};
use crate::kernel::KernelError;
use crate::model::{
    BadSysctl, EndpointId, ModeError, NameError, NetworkMode, ResolveError, SandboxId, SandboxName,
    TargetError,
};
use crate::names::hosts::NoHostGateway;
use crate::names::resolv_conf::TooLong;
use crate::publish::{BindingError, ProxyError, PublishSpec, ReserveError, UnknownProto};
use crate::store::StoreError;

/// Whose fault an error is, as the API's status tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It is so already: 304.
    NotModified,
    /// The request can't be meant: 400.
    Invalid,
    /// It isn't allowed: 403.
    Forbidden,
    /// It names nothing: 404.
    NotFound,
    /// It doesn't go with what there is: 409.
    Conflict,
    /// Our fault, or the host's: 500.
    Internal,
    /// Not now: 503.
    Unavailable,
}

/// Why an operation failed. Where Docker refuses the same thing, the text is Docker's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControllerError {
    /// The store, or a rule that it keeps.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No subnet, or no address.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// A name that isn't allowed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What doesn't go with a network mode.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// The target of a `container:` mode.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The driver's objections to a network.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// Subnets whose parts don't fit.
    #[error(transparent)]
    Subnets(#[from] BadConfig),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The firewall's tools.
    #[error(transparent)]
    Firewall(#[from] ToolError),
    /// No rules follow from the networks.
    #[error(transparent)]
    Rules(#[from] FactsError),
    /// What is asked for on a network doesn't fit it.
    #[error("invalid endpoint settings:\n{}", listed(.0))]
    Settings(Vec<SettingsError>),
    /// A sandbox couldn't be attached to its networks.
    #[error("failed to set up container networking: {0}")]
    Start(Box<Self>),
    /// Specs of ports that can't be published together.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// Ports of the host that can't be had.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// A proxy that doesn't serve.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// An exposed port that nothing can publish.
    #[error(transparent)]
    Protocol(#[from] UnknownProto),
    /// Ports of an endpoint can't be published.
    #[error("driver failed programming external connectivity on endpoint {name} ({endpoint}): {cause}")]
    Connectivity {
        /// The sandbox's name, which is the endpoint's.
        name: SandboxName,
        /// The endpoint.
        endpoint: EndpointId,
        /// Why.
        cause: Box<Self>,
    },
    /// Neither rules nor proxies may lead to a published port.
    #[error("ports can't be published: with --iptables=false and --userland-proxy=false there is no way in")]
    NoWayIn,
    /// A stack that is somebody else's has no ports of its own.
    #[error("container {name} has no ports of its own to publish: its network mode is {mode}")]
    NoPorts {
        /// The sandbox.
        name: SandboxName,
        /// Whose stack it has.
        mode: NetworkMode,
    },
    /// Nothing was published by this spec.
    #[error("{spec} is not published by container {name}")]
    NotPublished {
        /// What was given.
        spec: PublishSpec,
        /// The sandbox.
        name: SandboxName,
    },
    /// A link leads nowhere.
    #[error("could not get container for {target}: {cause}")]
    NoProvider {
        /// What was given.
        target: String,
        /// Why there is none.
        cause: ResolveError,
    },
    /// A link leads to a sandbox that doesn't run.
    #[error("Cannot link to a non running container: /{provider} AS /{consumer}/{alias}")]
    LinkNotRunning {
        /// That one.
        provider: SandboxName,
        /// Who has the link.
        consumer: SandboxName,
        /// What he calls it.
        alias: String,
    },
    /// A link leads to a sandbox that isn't on the default network.
    #[error("container {0} not attached to default bridge network")]
    LinkElsewhere(SandboxId),
    /// The name of a sandbox isn't one of a link.
    #[error("Conflict, cannot remove the default link name of the container")]
    OwnName,
    /// There is nobody who could have the link.
    #[error("Cannot get parent {parent} for link name {name}")]
    NoParent {
        /// Who would have it.
        parent: String,
        /// The link's path.
        name: String,
    },
    /// The sandbox runs already.
    #[error("container {0} is already running")]
    AlreadyRunning(SandboxName),
    /// A running sandbox can't be removed.
    #[error(
        "cannot remove container \"{0}\": container is running: stop the container before removing or force remove"
    )]
    RemoveRunning(SandboxName),
    /// A sandbox without a name.
    #[error("Neither old nor new names may be empty")]
    EmptyName,
    /// The name it has already.
    #[error("Renaming a container with the same name as its current name")]
    SameName,
    /// The new name can't be had.
    #[error("Error when allocating new name: {0}")]
    Rename(Box<Self>),
    /// Somebody prunes already.
    #[error("a prune operation is already running")]
    Pruning,
    /// There is no endpoint of this name to disconnect.
    #[error("endpoint {0} not found")]
    NoEndpoint(String),
    /// The sandbox isn't on the network.
    #[error("container {sandbox} is not connected to {}network {network}", if *running { "" } else { "the " })]
    NotConnected {
        /// The sandbox.
        sandbox: SandboxId,
        /// The network's name.
        network: String,
        /// Whether it runs, which decides over the text.
        running: bool,
    },
    /// A hostname that isn't one.
    #[error("invalid hostname format for --hostname: {0}")]
    Hostname(String),
    /// A domain name that isn't one.
    #[error("invalid domain name format for --domainname: {0}")]
    Domainname(String),
    /// A namespace to adopt beside a stack that isn't the sandbox's own.
    #[error("conflicting options: netns and the network mode")]
    NamespaceAndMode,
    /// The host's resolv.conf can't be read as one.
    #[error("{}: {source}", path.display())]
    ResolvConf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TooLong,
    },
    /// A name for the host, which sandboxes have no address of.
    #[error(transparent)]
    HostGateway(#[from] NoHostGateway),
    /// The embedded server can't be started.
    #[error("cannot start the embedded DNS server: {0}")]
    Resolver(io::Error),
    /// Another running sandbox lives in that namespace.
    #[error("network namespace {} is in use by container {owner}", path.display())]
    NamespaceInUse {
        /// The namespace.
        path: PathBuf,
        /// Who has it.
        owner: SandboxId,
    },
    /// An interface name that a sandbox has already.
    #[error("interface name {0} is already in use")]
    InterfaceTaken(String),
    /// `--bridge` and `--bip`.
    #[error("You specified -b & --bip, mutually exclusive options. Please specify only one")]
    BridgeAndAddress,
    /// `--icc=false` without rules.
    #[error(
        "You specified --iptables=false with --icc=false. ICC=false uses iptables to function. Please set --icc or --iptables to true"
    )]
    IccNeedsRules,
    /// The bridge to adopt isn't there.
    #[error("bridge {0} does not exist: make it first, or leave --bridge away")]
    NoBridge(String),
    /// The default network's gateway is outside its subnet.
    #[error("default gateway ip must be part of the network")]
    GatewayOutside,
    /// `--fixed-cidr` is outside the default network's subnet.
    #[error("range {range} of the default bridge is not part of its subnet {subnet}")]
    RangeOutside {
        /// The range.
        range: ipnet::IpNet,
        /// The subnet.
        subnet: ipnet::IpNet,
    },
    /// Another daemon has the data root.
    #[error("{} is in use by another portmap daemon: stop it, or choose another --data-root", .0.display())]
    Locked(PathBuf),
    /// Another daemon has the network namespace: its process, or 0 if that isn't to be seen from here.
    #[error(
        "another portmap daemon{} has the networks of this host: stop it, or start this one in a network namespace of its own",
        if *.0 > 0 { format!(" (process {})", .0) } else { String::new() }
    )]
    HomeTaken(i32),
    /// The network namespace can't be taken.
    #[error("cannot take the networks of this host: {0}")]
    Home(io::Error),
    /// A file or directory.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// What was to be done.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// What doesn't fit a network. Texts are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The address is outside the network's subnets.
    #[error("no configured subnet contains IP address {0}")]
    Outside(IpAddr),
    /// A further name that nobody could ask for, or that would break out of where names are written.
    #[error(
        "invalid network-scoped alias {0:?}: use letters, digits, _ . and -, at most 63 between two dots"
    )]
    Alias(String),
    /// A setting that isn't one of an interface.
    #[error(transparent)]
    Sysctl(#[from] BadSysctl),
    /// What the sandbox's mode doesn't allow.
    #[error(transparent)]
    Mode(#[from] ModeError),
}

impl ControllerError {
    /// Whose fault it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Store(error) => of_store(error),
            Self::Ipam(error) => of_ipam(error),
            Self::Name(NameError::CreatePredefined(_) | NameError::RemovePredefined(_)) => Class::Forbidden,
            Self::Name(_)
            | Self::Mode(_)
            | Self::Subnets(_)
            | Self::Settings(_)
            | Self::EmptyName
            | Self::NoProvider { .. }
            | Self::Binding(_)
            | Self::NoPorts { .. }
            | Self::SameName
            | Self::Hostname(_)
            | Self::Domainname(_)
            | Self::NamespaceAndMode
            | Self::InterfaceTaken(_)
            | Self::BridgeAndAddress
            | Self::IccNeedsRules
            | Self::NoBridge(_)
            | Self::HostGateway(_)
            | Self::GatewayOutside
            | Self::RangeOutside { .. } => Class::Invalid,
            Self::Target(TargetError::Missing(_))
            | Self::NoEndpoint(_)
            | Self::NotPublished { .. }
            | Self::NoParent { .. } => Class::NotFound,
            Self::Target(TargetError::Own) => Class::Invalid,
            Self::Target(_)
            | Self::RemoveRunning(_)
            | Self::OwnName
            | Self::Pruning
            | Self::NamespaceInUse { .. } => Class::Conflict,
            Self::Driver(error) => error.class(),
            Self::Kernel(
                KernelError::NotABridge(_) | KernelError::NotANamespace(_) | KernelError::NoNamespace(_),
            ) => Class::Invalid,
            Self::Kernel(KernelError::TakenInside { .. }) => Class::Conflict,
            Self::Start(cause) | Self::Rename(cause) | Self::Connectivity { cause, .. } => cause.class(),
            Self::AlreadyRunning(_) => Class::NotModified,
            Self::NotConnected { .. } => Class::Invalid,
            Self::Locked(_) | Self::HomeTaken(_) => Class::Unavailable,
            Self::LinkNotRunning { .. } | Self::LinkElsewhere(_) => Class::Internal,
            Self::Reserve(_) | Self::Proxy(_) | Self::Protocol(_) | Self::NoWayIn => Class::Internal,
            Self::Kernel(_)
            | Self::Firewall(_)
            | Self::Rules(_)
            | Self::ResolvConf { .. }
            | Self::Resolver(_)
            | Self::File { .. }
            | Self::Home(_) => Class::Internal,
        }
    }

    pub(super) fn network_not_found(reference: impl ToString) -> Self {
        let argument = reference.to_string();
        StoreError::from(ResolveError::NotFound { kind: crate::model::Kind::Network, argument }).into()
    }
}

fn of_store(error: &StoreError) -> Class {
    match error {
        StoreError::NetworkExists(_) | StoreError::SandboxExists { .. } => Class::Conflict,
        StoreError::EndpointExists { .. } | StoreError::AddressTaken | StoreError::NetworkInUse { .. } => {
            Class::Forbidden
        }
        StoreError::Resolve(ResolveError::NotFound { .. }) | StoreError::Gone { .. } => Class::NotFound,
        StoreError::Resolve(_) | StoreError::OwnChild => Class::Invalid,
        StoreError::Busy { .. } | StoreError::DiskFull { .. } | StoreError::Stopped => Class::Unavailable,
        _ => Class::Internal,
    }
}

const fn of_ipam(error: &IpamError) -> Class {
    match error {
        IpamError::Overlap | IpamError::InUse => Class::Forbidden,
        IpamError::InvalidPool
        | IpamError::InvalidSubPool
        | IpamError::AllSubnetted
        | IpamError::OutOfRange
        | IpamError::NullPool => Class::Invalid,
        _ => Class::Internal,
    }
}

/// One error bare, several as a list; lines that go on are indented.
fn listed(errors: &[SettingsError]) -> String {
    match errors {
        [only] => only.to_string(),
        several => several
            .iter()
            .map(|error| format!("* {}", error.to_string().replace('\n', "\n\t")))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

/// For `map_err`: what was to be done with which file.
pub(super) fn file(verb: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> ControllerError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull => StoreError::DiskFull { path }.into(),
        _ => ControllerError::File { verb, path, source },
    }
}
