//! Identifiers: 256 random bits, written as 64 hex digits, shown as the first 12.
//!
//! Networks, endpoints and sandboxes have types of their own, so that one can't stand for another.
//!
//! Not here: where the random bytes come from, and finding an object by part of its id (`resolve`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many hex digits an id has.
pub const ID_DIGITS: usize = 64;
/// How many hex digits of an id are shown, and name a network namespace or a bridge.
pub const SHORT_DIGITS: usize = 12;

/// A text that isn't 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid id {0:?}: an id is 64 lower-case hex digits")]
pub struct BadId(pub String);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Bytes([u8; 32]);

impl Bytes {
    /// An id whose short form reads as a number would be taken for one where it becomes a hostname: such bytes get a
    /// letter in front, which costs three bits of the 256.
    const fn from_random(mut bytes: [u8; 32]) -> Self {
        let mut at = 0;
        while at < SHORT_DIGITS / 2 {
            if bytes[at] >> 4 > 9 || bytes[at] & 0xf > 9 {
                return Self(bytes);
            }
            at += 1;
        }
        bytes[0] |= 0xa0;
        Self(bytes)
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() != ID_DIGITS {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// `Display` and serde write all 64 digits.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(Bytes);

        impl $name {
            /// An id made of random bytes. Its short form never reads as a number.
            pub const fn from_random(bytes: [u8; 32]) -> Self {
                Self(Bytes::from_random(bytes))
            }

            /// The first 12 digits.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(SHORT_DIGITS);
                text
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                Bytes::parse(text).map(Self).ok_or_else(|| BadId(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
    };
}

id_type! {
    /// Identifies a network.
    NetworkId
}
id_type! {
    /// Identifies an endpoint.
    EndpointId
}
id_type! {
    /// Identifies a sandbox.
    SandboxId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_64_lower_case_hex_digits() {
        let text = "20d412d86f5ffc055a81a94a47dc84d8a4d712256d6dc5d55f0e7c7320faf37a";
        let id: NetworkId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.short(), "20d412d86f5f");
        assert_eq!(format!("{id:?}"), "NetworkId(20d412d86f5f)");
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<NetworkId>(&format!("\"{text}\"")).unwrap(), id);
        for bad in [
            "",
            &text[1..],
            &format!("{text}0"),
            &text.to_uppercase(),
            &text.replace('2', "g"),
            &"é".repeat(32),
        ] {
            assert_eq!(bad.parse::<NetworkId>(), Err(BadId(bad.to_owned())));
        }
    }

    #[test]
    fn random_bytes_are_kept_unless_the_short_form_would_read_as_a_number() {
        assert_eq!(SandboxId::from_random([0xab; 32]).to_string(), "ab".repeat(32));
        for first in 0..=9u8 {
            let id = SandboxId::from_random([first << 4 | 7; 32]);
            assert!(id.short().parse::<u64>().is_err(), "{id}");
            assert_eq!(id.to_string()[1..], format!("{first}7").repeat(32)[1..]);
        }
    }
}
