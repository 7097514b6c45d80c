//! What a failed accept or dial means: whose trouble it is, whether trying again can help, what is said. Pure.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Errors that descriptors, memory or ports freed by somebody else will cure. A client waits them out, up to the
/// connect time-out, instead of being turned away.
#[must_use]
pub fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EAGAIN)
    )
}

/// Errors of the one connection that was about to be accepted (accept(2) lists them): the next may be fine.
#[must_use]
pub fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}

/// Why a client was turned away.
#[derive(Debug, thiserror::Error)]
pub enum DialFailure {
    /// The backend's own answer: nothing listens there.
    #[error("{0} refused the connection")]
    Refused(SocketAddr),
    /// No answer in time.
    #[error("{0} did not answer within {1:?}")]
    TimedOut(SocketAddr, Duration),
    /// Anything else.
    #[error("can't reach {target}: {}", crate::listen::reason(.source))]
    Failed {
        /// The backend.
        target: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The client hung up first.
    #[error("client left before {0} answered")]
    ClientLeft(SocketAddr),
}

impl DialFailure {
    /// Sorts a `connect` error.
    #[must_use]
    pub fn from_connect(target: SocketAddr, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            Self::Refused(target)
        } else {
            Self::Failed { target, source: error }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortage_passes_and_refusal_does_not() {
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL] {
            assert!(is_passing(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::EPERM, libc::ETIMEDOUT]
        {
            assert!(!is_passing(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
    }
}
