//! `portmap network create`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use ipnet::IpNet;
use netcore::ipam::{GatherError, SubnetSpec, gather, parse_prefix};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::flags::{bad_value, boolean, map};
use super::{Api, Console};

/// What was typed.
#[derive(clap::Args)]
#[command(args_override_self = true, after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// The name of the network
    #[arg(value_name = "NETWORK")]
    name: String,

    /// Driver to manage the network
    #[arg(short, long, value_name = "NAME", default_value = "bridge")]
    driver: String,

    /// Subnet in CIDR format, one per address family; 0.0.0.0/24 chooses a free one of that size
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    subnet: Vec<String>,

    /// Allocate container addresses from a sub-range of the subnet
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    ip_range: Vec<String>,

    /// The network's own address and its containers' gateway
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    gateway: Vec<String>,

    /// Reserve an address; the names DefaultGatewayIPv4 and DefaultGatewayIPv6 move the default route there
    #[arg(long, value_name = "NAME=ADDR")]
    aux_address: Vec<String>,

    /// Driver specific option
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,

    /// IP address management driver
    #[arg(long, value_name = "NAME", default_value = "default")]
    ipam_driver: String,

    /// IPAM driver specific option
    #[arg(long, value_name = "KEY=VALUE")]
    ipam_opt: Vec<String>,

    /// Restrict external access to the network
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    internal: Option<bool>,

    /// Set metadata on the network
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,

    /// Enable or disable IPv4 address assignment [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    ipv4: Option<bool>,

    /// Enable or disable IPv6 address assignment
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    ipv6: Option<bool>,

    // Docker's flags for what we don't have.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    attachable: Option<bool>,
    #[arg(long, hide = true)]
    scope: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    ingress: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean)]
    config_only: Option<bool>,
    #[arg(long, hide = true)]
    config_from: Option<String>,
}

/// Shown below `--help`.
const EXAMPLES: &str = "\
Examples:
  portmap network create web
  portmap network create --subnet 172.28.0.0/16 --ip-range 172.28.5.0/24 web
  portmap network create --ipv6 --subnet 172.29.0.0/16,fd00:29::/64 web6
  portmap network create -o com.docker.network.bridge.name=br-web web

Options of the bridge driver (-o):
  com.docker.network.bridge.name                   name of the bridge device
  com.docker.network.bridge.enable_ip_masquerade   source NAT for traffic that leaves (true)
  com.docker.network.bridge.enable_icc             containers reach each other (true)
  com.docker.network.bridge.host_binding_ipv4      host address of ports published without one
  com.docker.network.driver.mtu                    MTU, also as com.docker.network.mtu
  com.docker.network.enable_ipv6                   as --ipv6";

/// Creates the network and prints its id.
pub(super) fn run(args: &Args, api: &mut dyn Api, console: &mut Console<'_>) -> Result<u8> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Created {
        id: String,
        #[serde(default)]
        warning: String,
    }
    let answer = api.call("POST", "/networks/create", Some(&body(args)?))?;
    let created: Created = super::json(&answer)?;
    if !created.warning.is_empty() {
        console.complain(&format!("WARNING: {}", created.warning));
    }
    writeln!(console.out, "{}", created.id)?;
    Ok(0)
}

/// The request.
fn body(args: &Args) -> Result<Value> {
    refuse_foreign(args)?;
    let mut body = json!({
        "Name": args.name,
        "CheckDuplicate": true,
        "Driver": args.driver,
        "Scope": args.scope.as_deref().unwrap_or_default(),
        "IPAM": {
            "Driver": args.ipam_driver,
            "Options": map(&args.ipam_opt),
            "Config": subnets(args)?.iter().map(config).collect::<Vec<_>>(),
        },
        "Internal": args.internal.unwrap_or_default(),
        "Attachable": false,
        "Ingress": false,
        "ConfigOnly": false,
        "ConfigFrom": null,
        "Options": map(&args.opt),
        "Labels": labels(&args.label)?,
    });
    // What isn't said is the daemon's to decide.
    for (key, said) in [("EnableIPv4", args.ipv4), ("EnableIPv6", args.ipv6)] {
        if let Some(said) = said {
            body[key] = said.into();
        }
    }
    Ok(body)
}

fn refuse_foreign(args: &Args) -> Result<()> {
    let scope = args.scope.as_deref().filter(|scope| !matches!(*scope, "" | "local"));
    ensure!(
        scope.is_none(),
        "--scope {}: portmap's networks have the scope local",
        scope.unwrap_or_default()
    );
    ensure!(
        args.attachable != Some(true),
        "--attachable: portmap has no swarm; without it, every network can be attached to"
    );
    ensure!(
        args.ingress != Some(true),
        "--ingress: portmap has no swarm whose traffic a network could distribute"
    );
    ensure!(
        args.config_only != Some(true),
        "--config-only: portmap has no networks that are only configuration"
    );
    ensure!(args.config_from.is_none(), "--config-from: portmap has no networks that are only configuration");
    Ok(())
}

fn labels(list: &[String]) -> Result<BTreeMap<String, String>> {
    let labels = map(list);
    if let Some(label) = list.iter().find(|label| label.is_empty() || label.starts_with('=')) {
        bail!(bad_value("--label", label, &format!("invalid label '{label}': empty name")));
    }
    Ok(labels)
}

/// Which range, gateway and auxiliary addresses belong to which subnet.
fn subnets(args: &Args) -> Result<Vec<SubnetSpec>> {
    if args.subnet.len() < args.ip_range.len().max(args.gateway.len()) {
        bail!(GatherError::TooFewSubnets);
    }
    let prefixes =
        |texts: &[String]| texts.iter().map(|text| parse_prefix(text)).collect::<Result<Vec<IpNet>, _>>();
    let (subnets, ranges) = (prefixes(&args.subnet)?, prefixes(&args.ip_range)?);
    let address = |what: &str, text: &str| {
        // What is no address is in no subnet, Docker says.
        text.parse::<IpAddr>().map_err(|_| anyhow::anyhow!("no matching subnet for {what} {text}"))
    };
    let gateways = args.gateway.iter().map(|text| address("gateway", text)).collect::<Result<Vec<_>>>()?;
    let auxiliary = map(&args.aux_address)
        .into_iter()
        .map(|(name, text)| Ok((name, address("aux-address", &text)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    Ok(gather(&subnets, &ranges, &gateways, &auxiliary)?)
}

/// A subnet as the API wants it; what isn't given is left out.
fn config(spec: &SubnetSpec) -> Value {
    let mut config = Map::new();
    config.insert("Subnet".to_owned(), spec.subnet.to_string().into());
    if let Some(range) = spec.range {
        config.insert("IPRange".to_owned(), range.to_string().into());
    }
    if let Some(gateway) = spec.gateway {
        config.insert("Gateway".to_owned(), gateway.to_string().into());
    }
    if !spec.auxiliary.is_empty() {
        let addresses = spec.auxiliary.iter().map(|(name, ip)| (name.clone(), ip.to_string().into()));
        config.insert("AuxiliaryAddresses".to_owned(), Value::Object(addresses.collect()));
    }
    Value::Object(config)
}
