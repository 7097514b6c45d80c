//! The grammar of `--expose port[-port][/proto]`.
//!
//! Stricter about numbers than `-p` (no sign) and looser about protocols: an unknown word is kept, because an image
//! may expose what nobody publishes. It becomes an error only when somebody does.

use std::fmt;
use std::num::IntErrorKind;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ports::{BadPortRange, PortRange, Proto, UnknownProto};

/// Ports that a container listens on, whether or not they are published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ExposeSpec {
    ports: PortRange,
    proto: ExposedProto,
}

/// Protocol of an exposed port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExposedProto {
    /// One that can be published.
    Known(Proto),
    /// Any other word, in lower case.
    Other(Box<str>),
}

/// Why an `--expose` value was refused, with Docker's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExposeError {
    /// The first (or only) number is wrong.
    #[error("invalid range format for --expose: invalid start port '{text}': {reason}")]
    StartPort {
        /// What stood there.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The number behind the dash is wrong.
    #[error("invalid range format for --expose: invalid end port '{text}': {reason}")]
    EndPort {
        /// What stood there.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The range runs backwards.
    #[error("invalid range format for --expose: {0}")]
    Range(BadPortRange),
}

impl ExposeSpec {
    /// The exposed container ports.
    pub const fn ports(&self) -> PortRange {
        self.ports
    }

    /// Their protocol.
    pub const fn proto(&self) -> &ExposedProto {
        &self.proto
    }
}

impl ExposedProto {
    /// The protocol, if it can be published.
    ///
    /// # Errors
    /// If the word names no transport we know.
    pub fn publishable(&self) -> Result<Proto, UnknownProto> {
        match self {
            Self::Known(proto) => Ok(*proto),
            Self::Other(_) => Err(UnknownProto),
        }
    }
}

impl FromStr for ExposeSpec {
    type Err = ExposeError;

    fn from_str(text: &str) -> Result<Self, ExposeError> {
        let (ports, word) = text.split_once('/').unwrap_or((text, ""));
        let (start, end) = ports.split_once('-').unwrap_or((ports, ports));
        let first =
            strict_port(start).map_err(|reason| ExposeError::StartPort { text: start.to_owned(), reason })?;
        let last =
            strict_port(end).map_err(|reason| ExposeError::EndPort { text: end.to_owned(), reason })?;
        let proto = match word {
            "" => ExposedProto::Known(Proto::Tcp),
            word => word.parse().map_or_else(
                |UnknownProto| ExposedProto::Other(word.to_lowercase().into()),
                ExposedProto::Known,
            ),
        };
        Ok(Self { ports: PortRange::new(first, last).map_err(ExposeError::Range)?, proto })
    }
}

fn strict_port(text: &str) -> Result<u16, &'static str> {
    if text.starts_with('+') {
        return Err("invalid syntax");
    }
    text.parse::<u16>().map_err(|error| match error.kind() {
        IntErrorKind::Empty => "value is empty",
        IntErrorKind::PosOverflow => "value out of range",
        _ => "invalid syntax",
    })
}

impl fmt::Display for ExposeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proto {
            ExposedProto::Known(proto) => write!(f, "{}/{proto}", self.ports),
            ExposedProto::Other(word) => write!(f, "{}/{word}", self.ports),
        }
    }
}

impl TryFrom<String> for ExposeSpec {
    type Error = ExposeError;

    fn try_from(text: String) -> Result<Self, ExposeError> {
        text.parse()
    }
}

impl From<ExposeSpec> for String {
    fn from(spec: ExposeSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_gives_its_result_or_text() {
        const START: &str = "invalid range format for --expose: invalid start port";
        const END: &str = "invalid range format for --expose: invalid end port";
        let cases: &[(&str, Result<&str, String>)] = &[
            ("8080", Ok("8080/tcp")),
            ("8080/tcp", Ok("8080/tcp")),
            ("8080/", Ok("8080/tcp")),
            ("8080-8080/udp", Ok("8080/udp")),
            ("8080-8082/TCP", Ok("8080-8082/tcp")),
            ("8080/NCP", Ok("8080/ncp")),
            (":", Err(format!("{START} ':': invalid syntax"))),
            ("8080:9090", Err(format!("{START} '8080:9090': invalid syntax"))),
            ("/tcp", Err(format!("{START} '': value is empty"))),
            ("", Err(format!("{START} '': value is empty"))),
            ("8080-NaN/tcp", Err(format!("{END} 'NaN': invalid syntax"))),
            ("80-", Err(format!("{END} '': value is empty"))),
            ("1234567890-8080/tcp", Err(format!("{START} '1234567890': value out of range"))),
            ("65536", Err(format!("{START} '65536': value out of range"))),
            ("82-80", Err("invalid range format for --expose: invalid port range: 82-80".into())),
            ("+80", Err(format!("{START} '+80': invalid syntax"))),
        ];
        for (input, want) in cases {
            let got = input.parse::<ExposeSpec>().map(|spec| spec.to_string()).map_err(|e| e.to_string());
            assert_eq!(got, want.clone().map(str::to_owned), "input {input:?}");
        }
    }

    #[test]
    fn an_unknown_protocol_is_refused_only_when_it_is_published() {
        let spec: ExposeSpec = "8080/ncp".parse().unwrap();
        assert_eq!(spec.proto().publishable().unwrap_err().to_string(), "unknown protocol");
        assert_eq!("8080".parse::<ExposeSpec>().unwrap().proto().publishable(), Ok(Proto::Tcp));
    }
}
