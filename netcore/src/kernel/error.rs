//! Why the kernel didn't do it, in one line: operation, object, reason.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::model::IfName;

/// Why something in the kernel couldn't be made, changed, removed or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The kernel refused, or a file couldn't be read or written.
    #[error("cannot {operation} {object}: {}", Reason(reason, said.as_deref()))]
    Refused {
        /// What was to be done: `create`.
        operation: &'static str,
        /// To what: `bridge br-x`.
        object: String,
        /// The error.
        reason: io::Error,
        /// The kernel's own words, where it had some.
        said: Option<String>,
    },
    /// A network's bridge has the name of another kind of interface.
    #[error("existing interface {0} is not a bridge")]
    NotABridge(IfName),
    /// The name of a host's end is taken by an interface that isn't ours.
    #[error("cannot create veth {0}: an interface of that name exists and isn't portmap's")]
    Taken(IfName),
    /// The sandbox has an interface of that name already.
    #[error("cannot create interface {name} in {}: an interface of that name exists there", namespace.display())]
    TakenInside {
        /// The name.
        name: IfName,
        /// The sandbox's namespace.
        namespace: PathBuf,
    },
    /// A veth's bridge isn't there.
    #[error("cannot create veth {veth}: there is no bridge {bridge}")]
    NoBridge {
        /// The host's end.
        veth: IfName,
        /// The missing one.
        bridge: IfName,
    },
    /// A veth's bridge has as many ports as it can: the kernel gives them numbers of ten bits.
    #[error(
        "cannot create veth {veth}: bridge {bridge} has 1023 ports, which is the most that the kernel allows; use another network"
    )]
    BridgeFull {
        /// The host's end.
        veth: IfName,
        /// The bridge.
        bridge: IfName,
    },
    /// A file that was to be a network namespace is something else.
    #[error("{} is not a network namespace", .0.display())]
    NotANamespace(PathBuf),
    /// A network namespace that somebody else made is gone.
    #[error("network namespace {} does not exist", .0.display())]
    NoNamespace(PathBuf),
    /// The firewall has to see bridged packets, and nothing shows them to it.
    #[error(
        "cannot filter what passes bridge {0}: this kernel has no br_netfilter (try `modprobe br_netfilter`)"
    )]
    NoBridgeNetfilter(IfName),
    /// A key that could lead out of `/proc/sys`.
    #[error("invalid sysctl {0:?}")]
    BadSysctl(String),
}

impl KernelError {
    /// The error number, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { reason, .. } => reason.raw_os_error(),
            _ => None,
        }
    }
}

/// An answer of the kernel that isn't yes.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: io::Error,
    /// The text of an extended ACK.
    pub(super) said: Option<String>,
    /// Which request of the batch.
    pub(super) at: usize,
}

impl Refusal {
    pub(super) fn is(&self, errno: Errno) -> bool {
        self.reason.raw_os_error() == Some(errno as i32)
    }

    pub(super) fn about(self, operation: &'static str, object: &str) -> KernelError {
        KernelError::Refused { operation, object: object.to_owned(), reason: self.reason, said: self.said }
    }
}

impl From<io::Error> for Refusal {
    fn from(reason: io::Error) -> Self {
        Self { reason, said: None, at: 0 }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// `Operation not permitted (its own words)`, without a number.
struct Reason<'a>(&'a io::Error, Option<&'a str>);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            Some(number) => f.write_str(Errno::from_raw(number).desc())?,
            None => write!(f, "{}", self.0)?,
        }
        self.1.map_or(Ok(()), |said| write!(f, " ({})", said.trim_end_matches('.')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_operation_object_and_reason_in_one_line() {
        let refused = |said: Option<&str>| {
            let mut refusal = Refusal::from(Errno::EPERM);
            refusal.said = said.map(str::to_owned);
            refusal.about("create", "bridge br-x").to_string()
        };
        assert_eq!(refused(None), "cannot create bridge br-x: Operation not permitted");
        assert_eq!(refused(Some("Not now.")), "cannot create bridge br-x: Operation not permitted (Not now)");
        let other = Refusal::from(io::Error::other("odd")).about("read", "sysctl a/b");
        assert_eq!(other.to_string(), "cannot read sysctl a/b: odd");
    }
}
