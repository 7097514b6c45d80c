//! What is asked about: `8080`, `8080/udp`, `127.0.0.1:8080`, `[::1]:8080/udp`, or a sandbox.

use std::net::IpAddr;

use netcore::publish::Proto;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// A port of the host.
    Port(HostPort),
    /// A sandbox, by name or id.
    Sandbox(String),
}

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    /// `None` for any.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) proto: Proto,
}

impl Question {
    /// Reads it. What looks like a port is one, whatever sandboxes are called.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (place, proto) = text.split_once('/').map_or((text, None), |(place, word)| (place, Some(word)));
        let (address, port) = match place.rsplit_once(':') {
            Some((address, port)) => (Some(address), port),
            None => (None, place),
        };
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        if address.is_none() && proto.is_none() && !is_number {
            return Ok(Self::Sandbox(text.to_owned()));
        }
        let number = port.parse().ok().filter(|port| *port != 0 && is_number);
        let port =
            number.ok_or_else(|| format!("invalid port {port:?}: a number from 1 to 65535 is needed"))?;
        let proto = proto.unwrap_or("tcp").parse().map_err(|error| format!("{error}: {text}"))?;
        let address = match address {
            None | Some("") => None,
            Some(address) => {
                let bare =
                    address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
                let parsed: Result<IpAddr, _> =
                    if bare == "localhost" { Ok([127, 0, 0, 1].into()) } else { bare.parse() };
                let parsed = parsed.map_err(|_| format!("invalid IP address: {address}"))?;
                Some(parsed.to_canonical()).filter(|address| !address.is_unspecified())
            }
        };
        Ok(Self::Port(HostPort { address, port, proto }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_from_sandboxes() {
        let port = |address: &str, port, proto| {
            let address = (!address.is_empty()).then(|| address.parse().unwrap());
            Ok(Question::Port(HostPort { address, port, proto }))
        };
        let number = |text: &str| Err(format!("invalid port {text:?}: a number from 1 to 65535 is needed"));
        let cases = [
            ("8080", port("", 8080, Proto::Tcp)),
            ("8080/udp", port("", 8080, Proto::Udp)),
            ("127.0.0.1:8080", port("127.0.0.1", 8080, Proto::Tcp)),
            ("localhost:8080", port("127.0.0.1", 8080, Proto::Tcp)),
            ("[::1]:8080/UDP", port("::1", 8080, Proto::Udp)),
            ("::1:8080", port("::1", 8080, Proto::Tcp)),
            ("0.0.0.0:8080", port("", 8080, Proto::Tcp)),
            (":8080", port("", 8080, Proto::Tcp)),
            ("[::ffff:127.0.0.1]:1", port("127.0.0.1", 1, Proto::Tcp)),
            ("web", Ok(Question::Sandbox("web".to_owned()))),
            ("1a2b", Ok(Question::Sandbox("1a2b".to_owned()))),
            ("0", number("0")),
            ("65536", number("65536")),
            ("web:80x", number("80x")),
            ("80x/tcp", number("80x")),
            ("web:80", Err("invalid IP address: web".to_owned())),
            ("80/ncp", Err("unknown protocol: 80/ncp".to_owned())),
        ];
        for (text, want) in cases {
            assert_eq!(Question::parse(text), want, "{text}");
        }
    }
}
