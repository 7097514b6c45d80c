//! Hardware addresses of endpoints.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet address. `Display` and serde write `aa:bb:cc:dd:ee:ff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac([u8; 6]);

/// A text that is no Ethernet address, or one that no interface can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a valid mac address")]
pub struct BadMac(pub String);

impl Mac {
    /// A locally administered address made of random bytes, as Docker makes one at each start.
    pub const fn from_random(mut bytes: [u8; 6]) -> Self {
        bytes[0] = bytes[0] & 0xfe | 0x02;
        Self(bytes)
    }

    /// `02:42:` and the bytes of an IPv4 address: what Docker gave until version 28, and stable over restarts.
    pub const fn from_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The six bytes, first on the wire first.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

/// Accepts the three notations of Go's parser: `aa:bb:cc:dd:ee:ff`, `aa-bb-cc-dd-ee-ff`, `aabb.ccdd.eeff`. A group
/// address and all zeros are refused here, because the kernel would refuse them later.
impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        parse(text.trim())
            .filter(|bytes| bytes[0] & 1 == 0 && bytes.iter().any(|byte| *byte != 0))
            .map(Self)
            .ok_or_else(|| BadMac(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<[u8; 6]> {
    let (separator, digits) = match text.as_bytes().get(2)? {
        b':' => (':', 2),
        b'-' => ('-', 2),
        _ => ('.', 4),
    };
    let groups: Vec<&str> = text.split(separator).collect();
    let well_formed = |group: &&str| group.len() == digits && group.bytes().all(|c| c.is_ascii_hexdigit());
    if groups.len() * digits != 12 || !groups.iter().all(well_formed) {
        return None;
    }
    let mut bytes = [0; 6];
    let all = groups.concat();
    for (byte, pair) in bytes.iter_mut().zip(all.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl TryFrom<String> for Mac {
    type Error = BadMac;

    fn try_from(text: String) -> Result<Self, BadMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notations_of_go_are_read() {
        for text in ["02:42:ac:11:00:02", "02-42-AC-11-00-02", "0242.ac11.0002", " 02:42:ac:11:00:02 "] {
            assert_eq!(text.parse::<Mac>().unwrap(), Mac::from_ipv4(Ipv4Addr::new(172, 17, 0, 2)), "{text}");
        }
        let bad = [
            "",
            "02",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "02:42-ac:11:00:02",
            "2:42:ac:11:00:02",
            "02:42:ac:11:00:0g",
            "+2:42:ac:11:00:02",
            "0242ac110002",
            "0242.ac11.00",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "02:42:ac:11:00:é",
            "é2:42:ac:11:00:02",
        ];
        for text in bad {
            let error = text.parse::<Mac>().unwrap_err().to_string();
            assert_eq!(error, format!("{text} is not a valid mac address"));
        }
    }

    #[test]
    fn random_addresses_are_local_and_for_one_receiver() {
        assert_eq!(Mac::from_random([0xff; 6]).to_string(), "fe:ff:ff:ff:ff:ff");
        assert_eq!(Mac::from_random([0; 6]).to_string(), "02:00:00:00:00:00");
        assert_eq!(Mac::from_random([0; 6]).octets(), [2, 0, 0, 0, 0, 0]);
    }
}
