//! Options of the bridge driver: `-o key=value`, typed, with Docker's texts for values that don't parse.
//!
//! The map itself stays with the network, as it was given: it is shown by `network inspect`. Keys that aren't read here
//! are no error, as in Docker.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::name::IfName;

/// Name of the bridge device.
pub const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Source NAT for traffic that leaves the bridge.
pub const ENABLE_IP_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// Traffic between the sandboxes on the bridge.
pub const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
/// Host address of published ports that name none.
pub const HOST_BINDING_IPV4: &str = "com.docker.network.bridge.host_binding_ipv4";
/// MTU of the network's devices.
pub const DRIVER_MTU: &str = "com.docker.network.driver.mtu";
/// The spelling of [`DRIVER_MTU`] that old manuals had; no version of Docker reads it, we do.
pub const MTU: &str = "com.docker.network.mtu";
/// IPv6, if `--ipv6` says nothing.
pub const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";
/// IPv4, if `--ipv4` says nothing.
pub const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
/// How the outside reaches IPv4 addresses of sandboxes.
pub const GATEWAY_MODE_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
/// The same for IPv6.
pub const GATEWAY_MODE_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
/// The bridge gets no IPv4 address: something else is the gateway.
pub const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";

/// Interfaces by which sandboxes may be reached under their own addresses, separated by colons.
pub const TRUSTED_HOST_INTERFACES: &str = "com.docker.network.bridge.trusted_host_interfaces";
/// The address under which IPv4 leaves the host.
pub const HOST_IPV4: &str = "com.docker.network.host_ipv4";
/// The same for IPv6.
pub const HOST_IPV6: &str = "com.docker.network.host_ipv6";

/// Smallest and largest MTU that a veth device takes.
const MTU_LIMITS: std::ops::RangeInclusive<i64> = 68..=65_535;

/// Links that carry smaller packets have no IPv6 (RFC 8200, section 5).
pub const IPV6_MINIMUM_MTU: u16 = 1280;

/// How the outside and the sandboxes of a network reach each other, in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// Under the host's address, and in only through published ports.
    #[default]
    Nat,
    /// As [`Self::Nat`], but in also directly.
    NatUnprotected,
    /// Under the sandboxes' own addresses, for which the outside needs routes.
    Routed,
    /// Not at all; the host itself isn't on the network either.
    Isolated,
}

/// What a network's options mean to the bridge driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeOptions {
    /// Name of the device; `None` makes one of the network's id.
    pub name: Option<IfName>,
    /// Source NAT for traffic that leaves the bridge.
    pub masquerade: bool,
    /// Whether sandboxes on the bridge reach each other.
    pub icc: bool,
    /// Host address of published ports that name none; `None` is all addresses.
    pub host_binding: Option<IpAddr>,
    /// MTU of both veth ends; `None` is the kernel's default.
    pub mtu: Option<u16>,
    /// What the options say about IPv4.
    pub ipv4: Option<bool>,
    /// What the options say about IPv6.
    pub ipv6: Option<bool>,
    /// How the outside and sandboxes reach each other over IPv4.
    pub gateway_mode4: GatewayMode,
    /// The same for IPv6.
    pub gateway_mode6: GatewayMode,
    /// Whether the bridge is to have no IPv4 address.
    pub inhibit_ipv4: bool,
    /// Interfaces by which sandboxes may be reached under their own addresses.
    pub trusted_interfaces: Vec<IfName>,
    /// The address under which IPv4 leaves the host; `None` is that of the interface by which it does.
    pub host_ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub host_ipv6: Option<Ipv6Addr>,
    /// The keys that mean nothing here.
    pub other: BTreeMap<String, String>,
}

/// Why an option's value was refused, with Docker's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// A value doesn't parse.
    #[error("failed to parse {key} value: {value} ({reason})")]
    Value {
        /// The option.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, in the words of Go's parsers.
        reason: String,
    },
    /// A number that no device takes as MTU.
    #[error("invalid MTU number: {0}")]
    Mtu(i64),
    /// `enable_ipv4` and `enable_ipv6`, which Docker parses elsewhere.
    #[error("driver-opt {key:?} is not a valid bool")]
    Family {
        /// The option.
        key: &'static str,
    },
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            name: None,
            masquerade: true,
            icc: true,
            host_binding: None,
            mtu: None,
            ipv4: None,
            ipv6: None,
            gateway_mode4: GatewayMode::Nat,
            gateway_mode6: GatewayMode::Nat,
            inhibit_ipv4: false,
            trusted_interfaces: Vec::new(),
            host_ipv4: None,
            host_ipv6: None,
            other: BTreeMap::new(),
        }
    }
}

impl BridgeOptions {
    /// Reads a network's options. If both spellings of the MTU are given, the one that Docker reads counts.
    ///
    /// # Errors
    /// If a known key has a value that doesn't parse: the first such key in byte order.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, OptionError> {
        let mut parsed = Self::default();
        let mut mtu_synonym = None;
        for (key, value) in options {
            match key.as_str() {
                BRIDGE_NAME => parsed.name = bridge_name(value)?,
                ENABLE_IP_MASQUERADE => parsed.masquerade = boolean(ENABLE_IP_MASQUERADE, value)?,
                ENABLE_ICC => parsed.icc = boolean(ENABLE_ICC, value)?,
                HOST_BINDING_IPV4 => parsed.host_binding = Some(address(HOST_BINDING_IPV4, value)?),
                TRUSTED_HOST_INTERFACES => parsed.trusted_interfaces = interfaces(value)?,
                HOST_IPV4 => parsed.host_ipv4 = Some(address(HOST_IPV4, value)?),
                HOST_IPV6 => parsed.host_ipv6 = Some(address(HOST_IPV6, value)?),
                DRIVER_MTU => parsed.mtu = mtu(DRIVER_MTU, value)?,
                MTU => mtu_synonym = mtu(MTU, value)?,
                ENABLE_IPV4 => parsed.ipv4 = Some(family(ENABLE_IPV4, value)?),
                ENABLE_IPV6 => parsed.ipv6 = Some(family(ENABLE_IPV6, value)?),
                GATEWAY_MODE_IPV4 => parsed.gateway_mode4 = gateway_mode(GATEWAY_MODE_IPV4, value)?,
                GATEWAY_MODE_IPV6 => parsed.gateway_mode6 = gateway_mode(GATEWAY_MODE_IPV6, value)?,
                INHIBIT_IPV4 => parsed.inhibit_ipv4 = boolean(INHIBIT_IPV4, value)?,
                _ => {
                    parsed.other.insert(key.clone(), value.clone());
                }
            }
        }
        if !options.contains_key(DRIVER_MTU) {
            parsed.mtu = mtu_synonym;
        }
        Ok(parsed)
    }
}

fn bad(key: &'static str, value: &str, reason: String) -> OptionError {
    OptionError::Value { key, value: value.to_owned(), reason }
}

/// An empty name is none, as in Docker.
fn bridge_name(value: &str) -> Result<Option<IfName>, OptionError> {
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|error: super::NameError| bad(BRIDGE_NAME, value, error.to_string()))
}

fn address<T: FromStr>(key: &'static str, value: &str) -> Result<T, OptionError> {
    value.parse().map_err(|_| bad(key, value, "nil ip".to_owned()))
}

/// Between colons there may be nothing, as in Docker.
fn interfaces(value: &str) -> Result<Vec<IfName>, OptionError> {
    let names = value.split(':').filter(|name| !name.is_empty());
    let parsed = names.map(str::parse).collect::<Result<_, super::NameError>>();
    parsed.map_err(|error| bad(TRUSTED_HOST_INTERFACES, value, error.to_string()))
}

fn boolean(key: &'static str, value: &str) -> Result<bool, OptionError> {
    parse_bool(value).ok_or_else(|| {
        bad(key, value, format!("strconv.ParseBool: parsing {}: invalid syntax", go_quote(value)))
    })
}

fn gateway_mode(key: &'static str, value: &str) -> Result<GatewayMode, OptionError> {
    match value {
        "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        _ => Err(bad(key, value, format!("unknown gateway mode {value}"))),
    }
}

fn family(key: &'static str, value: &str) -> Result<bool, OptionError> {
    parse_bool(value).ok_or(OptionError::Family { key })
}

/// The forms that Go's `strconv.ParseBool` accepts.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// 0 is the kernel's default. Values that no device takes are refused here rather than when half a network exists.
fn mtu(key: &'static str, value: &str) -> Result<Option<u16>, OptionError> {
    let digits = value.strip_prefix(['+', '-']).unwrap_or(value);
    let number = value.parse::<i64>().map_err(|_| {
        let is_number = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
        let what = if is_number { "value out of range" } else { "invalid syntax" };
        bad(key, value, format!("strconv.Atoi: parsing {}: {what}", go_quote(value)))
    })?;
    match u16::try_from(number) {
        Ok(0) => Ok(None),
        Ok(mtu) if MTU_LIMITS.contains(&number) => Ok(Some(mtu)),
        _ => Err(OptionError::Mtu(number)),
    }
}

/// A text in quotes as Go's `%q` writes it.
fn go_quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<BridgeOptions, String> {
        let map = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        BridgeOptions::parse(&map).map_err(|e| e.to_string())
    }

    #[test]
    fn without_options_the_defaults_are_dockers() {
        let options = parse(&[]).unwrap();
        assert!(options.masquerade && options.icc);
        assert_eq!((&options.name, options.host_binding, options.mtu), (&None, None, None));
        assert_eq!((options.ipv4, options.ipv6), (None, None));
    }

    #[test]
    fn every_key_is_read_and_unknown_ones_are_kept() {
        let options = parse(&[
            (BRIDGE_NAME, "br-test"),
            (ENABLE_IP_MASQUERADE, "false"),
            (ENABLE_ICC, "0"),
            (HOST_BINDING_IPV4, "127.0.0.1"),
            (DRIVER_MTU, "1400"),
            (ENABLE_IPV4, "F"),
            (ENABLE_IPV6, "true"),
            (GATEWAY_MODE_IPV4, "routed"),
            (GATEWAY_MODE_IPV6, "isolated"),
            (INHIBIT_IPV4, "1"),
            (TRUSTED_HOST_INTERFACES, "eth1::wg0:"),
            (HOST_IPV4, "198.51.100.9"),
            (HOST_IPV6, "2001:db8::9"),
            ("com.docker.network.maybe", "maybe"),
            ("x", ""),
        ])
        .unwrap();
        let want = BridgeOptions {
            name: Some("br-test".parse().unwrap()),
            masquerade: false,
            icc: false,
            host_binding: Some("127.0.0.1".parse().unwrap()),
            mtu: Some(1400),
            ipv4: Some(false),
            ipv6: Some(true),
            gateway_mode4: GatewayMode::Routed,
            gateway_mode6: GatewayMode::Isolated,
            inhibit_ipv4: true,
            trusted_interfaces: vec!["eth1".parse().unwrap(), "wg0".parse().unwrap()],
            host_ipv4: Some("198.51.100.9".parse().unwrap()),
            host_ipv6: Some("2001:db8::9".parse().unwrap()),
            other: [("com.docker.network.maybe", "maybe"), ("x", "")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        };
        assert_eq!(options, want);
    }

    #[test]
    fn gateway_modes_have_four_names() {
        for key in [GATEWAY_MODE_IPV4, GATEWAY_MODE_IPV6] {
            for mode in ["nat", "nat-unprotected", "routed", "isolated"] {
                assert!(parse(&[(key, mode)]).is_ok(), "{mode}");
            }
            for mode in ["NAT", "bridge", "routed "] {
                let want = format!("failed to parse {key} value: {mode} (unknown gateway mode {mode})");
                assert_eq!(parse(&[(key, mode)]).unwrap_err(), want);
            }
        }
    }

    #[test]
    fn booleans_are_those_of_go() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert!(!parse(&[(ENABLE_ICC, "0")]).unwrap().icc && parse(&[(ENABLE_ICC, text)]).unwrap().icc);
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert!(!parse(&[(ENABLE_IP_MASQUERADE, text)]).unwrap().masquerade);
        }
        for text in ["", "tRUE", "yes", "no", "on", "2", " true", "true "] {
            for key in [ENABLE_ICC, ENABLE_IP_MASQUERADE] {
                let want = format!(
                    "failed to parse {key} value: {text} (strconv.ParseBool: parsing \"{text}\": invalid syntax)"
                );
                assert_eq!(parse(&[(key, text)]).unwrap_err(), want);
            }
            for key in [ENABLE_IPV4, ENABLE_IPV6] {
                assert_eq!(
                    parse(&[(key, text)]).unwrap_err(),
                    format!("driver-opt \"{key}\" is not a valid bool")
                );
            }
        }
    }

    #[test]
    fn both_spellings_of_the_mtu_are_read_and_dockers_wins() {
        for key in [DRIVER_MTU, MTU] {
            let cases = [
                ("0", Ok(None)),
                ("-0", Ok(None)),
                ("68", Ok(Some(68))),
                ("+1500", Ok(Some(1500))),
                ("01400", Ok(Some(1400))),
                ("65535", Ok(Some(65_535))),
                ("-1", Err("invalid MTU number: -1".to_owned())),
                ("67", Err("invalid MTU number: 67".to_owned())),
                ("65536", Err("invalid MTU number: 65536".to_owned())),
                ("9223372036854775808", Err("value out of range".to_owned())),
                ("-99999999999999999999", Err("value out of range".to_owned())),
                ("", Err("invalid syntax".to_owned())),
                ("+", Err("invalid syntax".to_owned())),
                ("1_000", Err("invalid syntax".to_owned())),
                ("0x10", Err("invalid syntax".to_owned())),
                ("15 00", Err("invalid syntax".to_owned())),
                ("big", Err("invalid syntax".to_owned())),
            ];
            for (value, want) in cases {
                let want = want.map_err(|text| match text.starts_with("invalid MTU") {
                    true => text,
                    false => format!(
                        "failed to parse {key} value: {value} (strconv.Atoi: parsing \"{value}\": {text})"
                    ),
                });
                assert_eq!(parse(&[(key, value)]).map(|o| o.mtu), want, "{value:?}");
            }
        }
        assert_eq!(parse(&[(MTU, "1400"), (DRIVER_MTU, "1300")]).unwrap().mtu, Some(1300));
        assert_eq!(parse(&[(MTU, "1400"), (DRIVER_MTU, "0")]).unwrap().mtu, None);
    }

    #[test]
    fn addresses_and_device_names_are_checked() {
        for value in ["", "localhost", "127.0.0.1/8", "127.1", "127.0.0.01", "fe80::1%eth0"] {
            let want = format!("failed to parse {HOST_BINDING_IPV4} value: {value} (nil ip)");
            assert_eq!(parse(&[(HOST_BINDING_IPV4, value)]).unwrap_err(), want);
        }
        assert_eq!(
            parse(&[(HOST_BINDING_IPV4, "0.0.0.0")]).unwrap().host_binding,
            Some("0.0.0.0".parse().unwrap())
        );
        assert_eq!(parse(&[(BRIDGE_NAME, "")]).unwrap().name, None);
        let error = parse(&[(BRIDGE_NAME, "a/b")]).unwrap_err();
        assert!(error.starts_with(
            "failed to parse com.docker.network.bridge.name value: a/b (invalid interface name"
        ));
    }

    #[test]
    fn values_are_quoted_as_go_quotes_them() {
        assert_eq!(go_quote("a\"\\\n\t\x07\x01\u{85}ä"), r#""a\"\\\n\t\a\x01\u0085ä""#);
    }
}
