//! `portmap inspect`: all that is known of sandboxes, and of networks.

use std::process::ExitCode;

use clap::ValueEnum;

use super::tell;
use crate::client::{CallError, Client, encode};
use crate::view::inspect::{Empty, Inspector, Types};

/// How Go's types of a container differ from their JSON.
static CONTAINER: Types = Types {
    renamed: &[
        ("", "Id", "ID"),
        ("HostConfig", "Dns", "DNS"),
        ("HostConfig", "DnsOptions", "DNSOptions"),
        ("HostConfig", "DnsSearch", "DNSSearch"),
        ("HostConfig.PortBindings.*.*", "HostIp", "HostIP"),
        ("NetworkSettings.Ports.*.*", "HostIp", "HostIP"),
    ],
    left_out: &[
        ("Config", "ExposedPorts", Empty::Map),
        ("Config", "MacAddress", Empty::Text),
        ("Config", "StopSignal", Empty::Text),
        ("HostConfig", "ExtraHosts", Empty::List),
        ("HostConfig", "Links", Empty::List),
        ("NetworkSettings.Networks.*", "Aliases", Empty::List),
        ("NetworkSettings.Networks.*", "DNSNames", Empty::List),
        ("NetworkSettings.Networks.*", "Links", Empty::List),
    ],
    times: &[],
};
/// The same of a network.
static NETWORK: Types = Types { renamed: &[("", "Id", "ID")], left_out: &[], times: &["Created"] };

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,

    /// Look only among these
    #[arg(long, value_name = "TYPE")]
    r#type: Option<Kind>,

    /// Names or ids of sandboxes or networks
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// What can be inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A sandbox
    #[value(alias = "sandbox")]
    Container,
    /// A network
    Network,
}

/// Shows what there is, then what there isn't.
pub(crate) fn run(host: Option<&str>, args: &Args) -> ExitCode {
    const BAD_TEMPLATE: u8 = 64;
    let mut inspector = match Inspector::new(args.format.as_deref()) {
        Ok(inspector) => inspector,
        Err(error) => {
            tell::refuse(&error);
            return ExitCode::from(BAD_TEMPLATE);
        }
    };
    let mut failures = Vec::new();
    for name in &args.names {
        let added = find(host, name, args.r#type)
            .and_then(|(json, types)| inspector.add(&json, types).map_err(|error| error.to_string()));
        failures.extend(added.err());
    }
    let printed = tell::print(&inspector.finish());
    failures.extend(printed.err().map(|error| error.to_string()));
    failures.iter().for_each(tell::refuse);
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn find(host: Option<&str>, name: &str, only: Option<Kind>) -> Result<(String, &'static Types), String> {
    let mut client = Client::new(host).map_err(|error| format!("{error:#}"))?;
    let encoded = encode(name);
    for kind in
        [Kind::Container, Kind::Network].into_iter().filter(|kind| only.is_none_or(|only| only == *kind))
    {
        let (path, types) = match kind {
            Kind::Container => (format!("/containers/{encoded}/json"), &CONTAINER),
            Kind::Network => (format!("/networks/{encoded}"), &NETWORK),
        };
        match client.call("GET", &path, None) {
            Ok(answer) => return Ok((String::from_utf8_lossy(&answer.body).into_owned(), types)),
            Err(CallError::Daemon { status: 404, .. }) if only.is_none() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("error: no such object: {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_printed_as_docker_prints_them() {
        let print = |template: &str, links: &str| {
            let json = format!(
                r#"{{"HostConfig":{{"Links":{links},"Dns":["1.2.3.4"]}},"NetworkSettings":{{"Networks":{{"a-b":{{"Links":{links}}}}}}}}}"#
            );
            let mut inspector = Inspector::new(Some(template)).unwrap();
            inspector.add(&json, &CONTAINER).unwrap();
            inspector.finish()
        };
        let link = r#"["/mysql_db:/blog/my_link"]"#;
        let cases = [
            ("{{.HostConfig.Links}}", link, "[/mysql_db:/blog/my_link]"),
            ("{{.HostConfig.Links}}", "null", "[]"),
            ("{{json .HostConfig.Links}}", "null", "null"),
            (r#"{{(index .NetworkSettings.Networks "a-b").Links}}"#, "null", "[]"),
            ("{{.HostConfig.Dns}}", "null", "[1.2.3.4]"),
            ("{{.HostConfig.DNS}}", "null", "[1.2.3.4]"),
        ];
        for (template, links, want) in cases {
            assert_eq!(print(template, links), format!("{want}\n"), "{template} {links}");
        }
    }
}
