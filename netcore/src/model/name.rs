//! Names of sandboxes, networks and interfaces, with Docker's texts.
//!
//! Not here: whether a name is taken (the store).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The kernel's limit is `IFNAMSIZ`, with a zero at the end.
const LONGEST_INTERFACE: usize = 15;
/// RFC 1035, 2.3.4.
const LONGEST_LABEL: usize = 63;
/// The same, without the lengths of the first label and of the root.
const LONGEST_ALIAS: usize = 253;

/// Name of a sandbox: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`. One leading slash, as Docker's API writes it, is dropped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SandboxName(String);

/// Name of a network: any text that isn't blank.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NetworkName(String);

/// Name of a network interface that rules can be written for: 1 to 15 of `A-Z a-z 0-9 _ . -`, not `.` or `..`, no leading
/// `-`.
///
/// The kernel takes more. But `*` (nft), `+` (iptables) and quotes mean something in a rule, where the first two would
/// quietly make it match other interfaces; `%` the kernel replaces by a number; `all` and `default` are sysctl's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct IfName(String);

/// Why a name was refused, with Docker's text where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// A sandbox can't be called this.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Sandbox(String),
    /// A network's name has nothing but blanks.
    #[error("invalid name: name is empty")]
    EmptyNetwork,
    /// An interface can't be called this.
    #[error(
        "invalid interface name {0:?}: use 1 to 15 of the characters A-Z a-z 0-9 _ . - (not \"-\" first, and not \".\", \"..\", \"all\", \"default\")"
    )]
    Interface(String),
    /// A predefined network's name in `network create`. The text ends in a blank, as Docker's does.
    #[error("operation is not permitted on predefined {0} network ")]
    CreatePredefined(String),
    /// A predefined network in `network rm`.
    #[error("{0} is a pre-defined network and cannot be removed")]
    RemovePredefined(String),
}

/// The networks that exist without being created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Predefined {
    /// The default bridge.
    Bridge,
    /// The host's own stack.
    Host,
    /// Loopback only.
    None,
}

/// Whether a text can be a further name of a sandbox: labels of a domain name, of `A-Z a-z 0-9 _ -`, with dots between.
/// Docker takes any text, also such as no query can have.
pub fn is_alias(text: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
        (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(allowed)
    };
    text.len() <= LONGEST_ALIAS && text.split('.').all(is_label)
}

impl Predefined {
    /// All of them, sorted by name.
    pub const ALL: [Self; 3] = [Self::Bridge, Self::Host, Self::None];

    /// The network's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }

    /// The driver behind it.
    pub const fn driver(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "null",
        }
    }

    /// The predefined network of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|network| network.name() == name)
    }
}

impl SandboxName {
    /// The name, without a slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NetworkName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `network create` must refuse this name: `bridge`, `host`, `none`, and `default`, which is another word for
    /// `bridge`.
    pub fn is_reserved(&self) -> bool {
        self.0 == "default" || Predefined::named(&self.0).is_some()
    }

    /// Checks that a network may be created under this name.
    ///
    /// # Errors
    /// If the name is reserved.
    pub fn check_creatable(&self) -> Result<(), NameError> {
        if self.is_reserved() { Err(NameError::CreatePredefined(self.0.clone())) } else { Ok(()) }
    }

    /// Checks that the network of this name may be removed.
    ///
    /// # Errors
    /// If it is predefined.
    pub fn check_removable(&self) -> Result<(), NameError> {
        if self.is_reserved() { Err(NameError::RemovePredefined(self.0.clone())) } else { Ok(()) }
    }
}

impl From<Predefined> for NetworkName {
    fn from(network: Predefined) -> Self {
        Self(network.name().to_owned())
    }
}

impl IfName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SandboxName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.strip_prefix('/').unwrap_or(text);
        let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
        match name.as_bytes() {
            [first, rest @ ..]
                if first.is_ascii_alphanumeric() && !rest.is_empty() && rest.iter().all(|c| inner(*c)) =>
            {
                Ok(Self(name.to_owned()))
            }
            _ => Err(NameError::Sandbox(text.to_owned())),
        }
    }
}

impl FromStr for NetworkName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.trim().is_empty() { Err(NameError::EmptyNetwork) } else { Ok(Self(text.to_owned())) }
    }
}

impl FromStr for IfName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let fits = (1..=LONGEST_INTERFACE).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !matches!(text, "." | ".." | "all" | "default");
        if fits { Ok(Self(text.to_owned())) } else { Err(NameError::Interface(text.to_owned())) }
    }
}

macro_rules! text_conversions {
    ($($name:ident)*) => {$(
        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}
text_conversions!(SandboxName NetworkName IfName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_what_can_be_asked_for() {
        let label = "a".repeat(LONGEST_LABEL);
        let long = [label.as_str(); 4].join(".");
        for good in ["a", "_db", "db.prod", "A-1", "1", &label, &long[..LONGEST_ALIAS]] {
            assert!(is_alias(good), "{good:?}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a\nb", "a\tb", "é", &format!("{label}a"), &long] {
            assert!(!is_alias(bad), "{bad:?}");
        }
    }

    #[test]
    fn sandbox_names_have_two_characters_or_more_of_dockers_set() {
        for name in ["ab", "a1", "0.", "Web_1-x.y", &"x".repeat(300)] {
            assert_eq!(name.parse::<SandboxName>().unwrap().as_str(), name);
            assert_eq!(format!("/{name}").parse::<SandboxName>().unwrap().as_str(), name);
        }
        for name in
            ["", "a", "/", "/a", "//ab", "-ab", ".ab", "_ab", "a b", "a/b", "ab\n", "äb", "aä", "a:b", "a\0"]
        {
            let error = name.parse::<SandboxName>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
            );
        }
    }

    #[test]
    fn network_names_are_anything_but_blank() {
        for name in ["a", "Ä ö", "a/b", " x ", "-f", "bridge2", "Bridge"] {
            let name: NetworkName = name.parse().unwrap();
            assert_eq!((name.check_creatable(), name.check_removable()), (Ok(()), Ok(())), "{name}");
        }
        for name in ["", " ", "\t\n", "\u{2003}"] {
            assert_eq!(name.parse::<NetworkName>().unwrap_err().to_string(), "invalid name: name is empty");
        }
    }

    #[test]
    fn predefined_networks_are_neither_created_nor_removed() {
        for name in ["bridge", "host", "none", "default"] {
            let network: NetworkName = name.parse().unwrap();
            let create = network.check_creatable().unwrap_err().to_string();
            assert_eq!(create, format!("operation is not permitted on predefined {name} network "));
            let remove = network.check_removable().unwrap_err().to_string();
            assert_eq!(remove, format!("{name} is a pre-defined network and cannot be removed"));
        }
        let drivers = Predefined::ALL.map(|network| (network.name(), network.driver()));
        assert_eq!(drivers, [("bridge", "bridge"), ("host", "host"), ("none", "null")]);
        assert_eq!(Predefined::named("default"), None);
    }

    #[test]
    fn interface_names_mean_nothing_else_in_a_rule() {
        for name in ["a", "eth0", "br-0123456789ab", "...", "Eth0.1_x"] {
            assert_eq!(name.parse::<IfName>().unwrap().to_string(), name);
        }
        let bad = [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "eth%d",
            "a\0",
            "0123456789abcdef",
            "ä",
            "br*",
            "br+",
            "a\"b",
            "-a",
            "all",
            "default",
        ];
        for name in bad {
            assert!(name.parse::<IfName>().is_err(), "{name:?}");
        }
    }
}
