//! `--add-host`, with Docker's grammar and texts.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const HOST_GATEWAY: &str = "host-gateway";

/// `NAME:ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ExtraHost {
    /// Any text without a colon or a control character.
    pub name: String,
    /// What it stands for.
    pub address: ExtraAddress,
}

/// What an extra name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExtraAddress {
    /// An address, and how it was spelled: files and `inspect` show it so.
    Ip(IpAddr, String),
    /// `host-gateway`: the host, as the sandbox reaches it.
    HostGateway,
}

/// Why a `--add-host` was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadExtraHost {
    /// Not a name and something else.
    #[error("bad format for add-host: {0:?}")]
    Format(String),
    /// What follows the name is no address.
    #[error("invalid IP address in add-host: {0:?}")]
    Address(String),
}

/// `host-gateway` where the host has no address that sandboxes know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to derive the IP value for host-gateway")]
pub struct NoHostGateway;

/// The lines for the extra names, in the order given. `host-gateway` is one line for each of `gateways`. Without `ipv6`,
/// IPv6 addresses are left out.
///
/// # Errors
/// If `host-gateway` is asked for and `gateways` is empty.
pub fn extra_lines(hosts: &[ExtraHost], gateways: &[IpAddr], ipv6: bool) -> Result<String, NoHostGateway> {
    let mut text = String::new();
    for host in hosts {
        let addresses: Vec<(IpAddr, String)> = match &host.address {
            ExtraAddress::Ip(ip, spelled) => vec![(*ip, spelled.clone())],
            ExtraAddress::HostGateway if gateways.is_empty() => return Err(NoHostGateway),
            ExtraAddress::HostGateway => gateways.iter().map(|ip| (*ip, ip.to_string())).collect(),
        };
        for (_, address) in addresses.iter().filter(|(ip, _)| ipv6 || ip.is_ipv4()) {
            text.push_str(&format!("{address}\t{}\n", host.name));
        }
    }
    Ok(text)
}

impl FromStr for ExtraHost {
    type Err = BadExtraHost;

    /// `NAME:ADDRESS` or `NAME=ADDRESS`; an address may stand in brackets. Only the first `=`, or else the first colon,
    /// divides.
    fn from_str(text: &str) -> Result<Self, BadExtraHost> {
        let bad = || BadExtraHost::Format(text.to_owned());
        let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
        // Docker takes any name. But a line's end in it would begin a line of its own.
        if name.is_empty() || name.contains(':') || name.contains(char::is_control) {
            return Err(bad());
        }
        let name = name.to_owned();
        if address == HOST_GATEWAY {
            return Ok(Self { name, address: ExtraAddress::HostGateway });
        }
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let ip = bare.parse().map_err(|_| BadExtraHost::Address(bare.to_owned()))?;
        Ok(Self { name, address: ExtraAddress::Ip(ip, bare.to_owned()) })
    }
}

impl fmt::Display for ExtraHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            ExtraAddress::Ip(_, spelled) => write!(f, "{}:{spelled}", self.name),
            ExtraAddress::HostGateway => write!(f, "{}:{HOST_GATEWAY}", self.name),
        }
    }
}

impl TryFrom<String> for ExtraHost {
    type Error = BadExtraHost;

    fn try_from(text: String) -> Result<Self, BadExtraHost> {
        text.parse()
    }
}

impl From<ExtraHost> for String {
    fn from(host: ExtraHost) -> Self {
        host.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(hosts: &[&str], gateways: &[&str], ipv6: bool) -> Result<String, NoHostGateway> {
        let hosts: Vec<ExtraHost> = hosts.iter().map(|text| text.parse().unwrap()).collect();
        let gateways: Vec<IpAddr> = gateways.iter().map(|ip| ip.parse().unwrap()).collect();
        extra_lines(&hosts, &gateways, ipv6)
    }

    #[test]
    fn extra_names_parse_as_dockers() {
        let cases = [
            ("db:10.0.0.5", Ok("db:10.0.0.5")),
            ("db=10.0.0.5", Ok("db:10.0.0.5")),
            ("db:::1", Ok("db:::1")),
            ("db:[::1]", Ok("db:::1")),
            ("db=[fd00:0::1]", Ok("db:fd00:0::1")),
            ("db:host-gateway", Ok("db:host-gateway")),
            ("any text#:1.2.3.4", Ok("any text#:1.2.3.4")),
            ("", Err("bad format for add-host: \"\"")),
            ("db", Err("bad format for add-host: \"db\"")),
            (":1.2.3.4", Err("bad format for add-host: \":1.2.3.4\"")),
            ("a:b=1.2.3.4", Err("bad format for add-host: \"a:b=1.2.3.4\"")),
            ("a\nb:1.2.3.4", Err("bad format for add-host: \"a\\nb:1.2.3.4\"")),
            ("db:", Err("invalid IP address in add-host: \"\"")),
            ("db:1.2.3", Err("invalid IP address in add-host: \"1.2.3\"")),
            ("db:host-Gateway", Err("invalid IP address in add-host: \"host-Gateway\"")),
            ("db:[]", Err("invalid IP address in add-host: \"\"")),
        ];
        for (text, want) in cases {
            let got = text.parse::<ExtraHost>().map(|host| host.to_string()).map_err(|e| e.to_string());
            assert_eq!(got, want.map(str::to_owned).map_err(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn a_name_has_a_line_for_each_address() {
        let hosts = ["db:10.0.0.5", "db:fd00:0::1", "db:10.0.0.5", "me:host-gateway"];
        let gateways = ["172.17.0.1", "fd00::1"];
        assert_eq!(
            lines(&hosts, &gateways, true).unwrap(),
            "10.0.0.5\tdb\nfd00:0::1\tdb\n10.0.0.5\tdb\n172.17.0.1\tme\nfd00::1\tme\n"
        );
        assert_eq!(lines(&hosts, &gateways, false).unwrap(), "10.0.0.5\tdb\n10.0.0.5\tdb\n172.17.0.1\tme\n");
        assert_eq!(lines(&hosts[..1], &[], true).unwrap(), "10.0.0.5\tdb\n");
        let error = lines(&hosts, &[], true).unwrap_err().to_string();
        assert_eq!(error, "unable to derive the IP value for host-gateway");
    }

    proptest! {
        #[test]
        fn what_parses_is_one_line_and_parses_again(text in "[ -~\n\t]{0,8}[:=](\\[?[0-9a-f:.]{0,12}\\]?|1\\.2\\.3\\.4|host-gateway)") {
            let Ok(host) = text.parse::<ExtraHost>() else { return Ok(()) };
            let file = extra_lines(std::slice::from_ref(&host), &[IpAddr::from([10, 0, 0, 1])], true).unwrap();
            prop_assert_eq!(file.lines().count(), 1);
            prop_assert_eq!(host.to_string().parse::<ExtraHost>().unwrap(), host);
        }
    }
}
