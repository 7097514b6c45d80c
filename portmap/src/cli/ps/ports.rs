//! The PORTS column of `ps`, as Docker's command line writes it.
//!
//! Neighbouring ports that are exposed only, or published under their own numbers, are one range; all others stand one by
//! one behind them.

use serde::Deserialize;

use crate::cli::ports::join_host_port;

/// A port as the API lists it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Port {
    #[serde(rename = "IP")]
    ip: String,
    private_port: u16,
    /// 0 if the host has none for it.
    public_port: u16,
    r#type: String,
}

/// Ports of one protocol on one address, or on none.
struct Run<'a> {
    ip: &'a str,
    proto: &'a str,
    first: u16,
    last: u16,
}

/// The column's text.
pub(super) fn text(ports: &[Port]) -> String {
    let mut ports: Vec<&Port> = ports.iter().collect();
    ports.sort_by(|one, other| order(one).cmp(&order(other)));
    let (mut done, mut shifted) = (Vec::new(), Vec::new());
    let mut runs: Vec<Run<'_>> = Vec::new();
    for port in ports {
        let current = port.private_port;
        if !port.ip.is_empty() && port.public_port != current {
            let host = join_host_port(&port.ip, &port.public_port.to_string());
            shifted.push(format!("{host}->{current}/{}", port.r#type));
            continue;
        }
        let fresh = Run { ip: &port.ip, proto: &port.r#type, first: current, last: current };
        match runs.iter_mut().find(|run| run.ip == port.ip && run.proto == port.r#type) {
            None => runs.push(fresh),
            Some(run) if run.last.checked_add(1) == Some(current) => run.last = current,
            // The place among the others is that of the first of its kind.
            Some(run) => done.push(std::mem::replace(run, fresh).text()),
        }
    }
    done.extend(runs.iter().map(Run::text));
    done.extend(shifted);
    done.join(", ")
}

fn order(port: &Port) -> (u16, &str, u16, &str) {
    (port.private_port, &port.ip, port.public_port, &port.r#type)
}

impl Run<'_> {
    fn text(&self) -> String {
        let Self { ip, proto, first, last } = self;
        let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
        if ip.is_empty() {
            format!("{ports}/{proto}")
        } else {
            format!("{}->{ports}/{proto}", join_host_port(ip, &ports))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `IP HOST-PORT PORT/PROTO`, where a dash stands for none.
    fn ports(lines: &[&str]) -> Vec<Port> {
        let port = |line: &&str| {
            let [ip, public, private] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let (private, proto) = private.split_once('/').unwrap();
            Port {
                ip: ip.replace('-', ""),
                private_port: private.parse().unwrap(),
                public_port: public.parse().unwrap_or(0),
                r#type: proto.to_owned(),
            }
        };
        lines.iter().map(port).collect()
    }

    #[test]
    fn neighbours_under_their_own_numbers_are_ranges() {
        let cases: &[(&[&str], &str)] = &[
            (&[], ""),
            (&["- - 80/tcp"], "80/tcp"),
            (&["- - 82/tcp", "- - 80/tcp", "- - 81/tcp", "- - 81/udp"], "80-82/tcp, 81/udp"),
            (&["0.0.0.0 8080 80/tcp", ":: 8080 80/tcp"], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
            (
                &["0.0.0.0 80 80/tcp", ":: 80 80/tcp", "0.0.0.0 81 81/tcp", ":: 81 81/tcp"],
                "0.0.0.0:80-81->80-81/tcp, [::]:80-81->80-81/tcp",
            ),
            (&["0.0.0.0 8000 80/tcp", "0.0.0.0 8001 81/tcp"], "0.0.0.0:8000->80/tcp, 0.0.0.0:8001->81/tcp"),
            (&["- - 80/tcp", "- - 90/tcp", "0.0.0.0 85 85/tcp"], "80/tcp, 90/tcp, 0.0.0.0:85->85/tcp"),
            (&["0.0.0.0 0 80/tcp", "- - 65535/tcp"], "65535/tcp, 0.0.0.0:0->80/tcp"),
        ];
        for (given, want) in cases {
            assert_eq!(text(&ports(given)), *want, "{given:?}");
        }
    }
}
