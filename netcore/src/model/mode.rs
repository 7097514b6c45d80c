//! Network modes (`--net`, `--network`) and the combinations that are refused, with Docker's texts.
//!
//! Not here: the state of a `container:` target, which is looked at when the dependant starts ([`check_target`] has the
//! rules), and whether a network exists.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::Predefined;

/// Whose network stack a sandbox has. `Display` and serde write the option's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum NetworkMode {
    /// A stack of its own on the default bridge.
    #[default]
    Bridge,
    /// The host's.
    Host,
    /// A stack of its own with loopback only.
    None,
    /// Another sandbox's, by name or id.
    Container(String),
    /// A stack of its own on this network, by name, id or the beginning of an id.
    Network(String),
}

/// A setting beside the mode that not every mode goes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// `--hostname`.
    Hostname,
    /// `--uts host`.
    HostUts,
    /// `--link` on the default network.
    Links,
    /// `--link` on the network itself.
    EndpointLinks,
    /// `--dns`. Search domains and options aren't looked at: they are ignored where they make no sense.
    Dns,
    /// `--add-host`.
    ExtraHosts,
    /// `--mac-address`.
    Mac,
    /// `-p` or `-P`.
    Publish,
    /// `--expose`.
    Expose,
    /// `--ip` or `--ip6`.
    Address,
    /// `--net-alias`.
    Alias,
}

/// Why a mode, or what was asked for beside it, was refused: Docker's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModeError {
    /// `container` with nothing behind it.
    #[error("invalid network mode: invalid container format container:<name|id>")]
    ContainerFormat,
    /// A hostname beside another sandbox's stack.
    #[error("conflicting options: hostname and the network mode")]
    Hostname,
    /// Links beside another sandbox's stack.
    #[error(
        "conflicting options: container type network can't be used with links. This would result in undefined behavior"
    )]
    ContainerLinks,
    /// Name servers beside another sandbox's stack.
    #[error("conflicting options: dns and the network mode")]
    Dns,
    /// Lines for the hosts file beside another sandbox's stack.
    #[error("conflicting options: custom host-to-IP mapping and the network mode")]
    ExtraHosts,
    /// A hardware address beside a stack that isn't the sandbox's own.
    #[error("conflicting options: mac-address and the network mode")]
    Mac,
    /// Published ports beside another sandbox's stack.
    #[error("conflicting options: port publishing and the container type network mode")]
    Publish,
    /// Exposed ports beside another sandbox's stack.
    #[error("conflicting options: port exposing and the container type network mode")]
    Expose,
    /// A hostname beside the host's.
    #[error("conflicting options: hostname and the UTS mode")]
    HostUts,
    /// Links beside the host's stack.
    #[error(
        "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
    )]
    HostLinks,
    /// An address on a network that wasn't created by a user.
    #[error("user-specified IP address is supported on user-defined networks only")]
    Address,
    /// Links of an endpoint on a network that wasn't created by a user.
    #[error("links are only supported for user-defined networks")]
    EndpointLinks,
    /// An alias on a network that wasn't created by a user.
    #[error("network-scoped aliases are only supported for user-defined networks")]
    Alias,
    /// A network given twice.
    #[error("network {0:?} is specified multiple times")]
    Twice(String),
    /// A user-defined network beside a mode that is none.
    #[error("conflicting options: cannot attach both user-defined and non-user-defined network-modes")]
    Mixed,
    /// A further network for a sandbox without a stack of its own.
    #[error(
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )]
    SharedStack,
    /// `none` and another network.
    #[error(
        "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    )]
    PrivateAndOther,
    /// The host's stack for a sandbox that was created with another.
    #[error("cannot connect container to host network - container must be created in host network mode")]
    ConnectHost,
    /// Another stack for a sandbox that was created with the host's.
    #[error("cannot disconnect container from host network - container was created in host network mode")]
    DisconnectHost,
}

/// What goes without saying, but is said: the warning of Docker's daemon.
pub const PORTS_DISCARDED: &str = "Published ports are discarded when using host network mode";

impl NetworkMode {
    /// The text of `--net`.
    pub fn as_text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Bridge => "bridge".into(),
            Self::Host => "host".into(),
            Self::None => "none".into(),
            Self::Container(target) => format!("container:{target}").into(),
            Self::Network(network) => network.into(),
        }
    }

    /// Whether this is a network that a user created.
    pub const fn is_user_defined(&self) -> bool {
        matches!(self, Self::Network(_))
    }

    /// Whether the stack belongs to the host or another sandbox.
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Host | Self::Container(_))
    }

    /// Refuses what doesn't go with the mode: the first of Docker's checks that fails.
    ///
    /// # Errors
    /// If one of `given` is refused.
    pub fn check(&self, given: &[Setting]) -> Result<(), ModeError> {
        let has = |setting| given.contains(&setting);
        let container = matches!(self, Self::Container(_));
        let host = *self == Self::Host;
        let own = !self.is_user_defined();
        let links = has(Setting::Links) || has(Setting::EndpointLinks);
        let refusals = [
            (container && has(Setting::Hostname), ModeError::Hostname),
            (container && links, ModeError::ContainerLinks),
            (container && has(Setting::Dns), ModeError::Dns),
            (container && has(Setting::ExtraHosts), ModeError::ExtraHosts),
            (self.is_shared() && has(Setting::Mac), ModeError::Mac),
            (container && has(Setting::Publish), ModeError::Publish),
            (container && has(Setting::Expose), ModeError::Expose),
            (has(Setting::HostUts) && has(Setting::Hostname), ModeError::HostUts),
            (host && links, ModeError::HostLinks),
            (own && has(Setting::Address), ModeError::Address),
            (own && has(Setting::Alias), ModeError::Alias),
            (own && has(Setting::EndpointLinks), ModeError::EndpointLinks),
        ];
        refusals.into_iter().find(|(refused, _)| *refused).map_or(Ok(()), |(_, error)| Err(error))
    }

    /// What to tell the user about settings that are accepted without effect.
    pub fn warning(&self, given: &[Setting]) -> Option<&'static str> {
        (*self == Self::Host && given.contains(&Setting::Publish)).then_some(PORTS_DISCARDED)
    }
}

/// Checks several `--network` options of one sandbox against each other.
///
/// # Errors
/// If one is given twice, or they can't be had together.
pub fn check_together(modes: &[NetworkMode]) -> Result<(), ModeError> {
    for (at, mode) in modes.iter().enumerate() {
        if modes[..at].contains(mode) {
            return Err(ModeError::Twice(mode.to_string()));
        }
    }
    let own = modes.iter().filter(|mode| mode.is_user_defined()).count();
    match modes.len() {
        several @ 2.. if own == several => Ok(()),
        2.. if own > 0 => Err(ModeError::Mixed),
        2.. if modes.contains(&NetworkMode::None) => Err(ModeError::PrivateAndOther),
        2.. => Err(ModeError::SharedStack),
        _ => Ok(()),
    }
}

/// Checks `network connect`: `mode` is the sandbox's, `attached` are the names of its networks, `target` is the network's
/// name.
///
/// # Errors
/// If the network can't be added.
pub fn check_connect(mode: &NetworkMode, attached: &[&str], target: &str) -> Result<(), ModeError> {
    let none = Predefined::None.name();
    if target == Predefined::Host.name() && *mode != NetworkMode::Host {
        return Err(ModeError::ConnectHost);
    }
    if mode.is_shared() {
        return Err(ModeError::SharedStack);
    }
    let private = attached.contains(&none);
    if (private && target != none) || (target == none && attached.iter().any(|network| *network != none)) {
        return Err(ModeError::PrivateAndOther);
    }
    Ok(())
}

/// Checks `network disconnect`: a sandbox can't leave the host's stack, or that of another.
///
/// # Errors
/// If the sandbox has no stack of its own.
pub const fn check_disconnect(mode: &NetworkMode) -> Result<(), ModeError> {
    match mode {
        NetworkMode::Host => Err(ModeError::DisconnectHost),
        NetworkMode::Container(_) => Err(ModeError::SharedStack),
        _ => Ok(()),
    }
}

impl FromStr for NetworkMode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        match (text, text.split_once(':')) {
            ("" | "default" | "bridge", _) => Ok(Self::Bridge),
            ("host", _) => Ok(Self::Host),
            ("none", _) => Ok(Self::None),
            ("container", _) | (_, Some(("container", ""))) => Err(ModeError::ContainerFormat),
            (_, Some(("container", target))) => Ok(Self::Container(target.to_owned())),
            (network, _) => Ok(Self::Network(network.to_owned())),
        }
    }
}

impl TryFrom<String> for NetworkMode {
    type Error = ModeError;

    fn try_from(text: String) -> Result<Self, ModeError> {
        text.parse()
    }
}

impl From<NetworkMode> for String {
    fn from(mode: NetworkMode) -> Self {
        mode.to_string()
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_text())
    }
}

mod target;
pub use target::{TargetError, TargetState, check_target};

#[cfg(test)]
mod tests;
