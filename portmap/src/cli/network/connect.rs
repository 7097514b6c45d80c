//! `portmap network connect`.

use anyhow::{Result, bail};
use netcore::model::LinkSpec;
use serde_json::{Value, json};

use super::flags::{bad_value, map};
use super::{Api, path};

/// What was typed.
#[derive(clap::Args)]
#[command(args_override_self = true)]
pub(super) struct Args {
    /// The network, by name or id
    #[arg(value_name = "NETWORK")]
    network: String,

    /// The container, by name or id; one that doesn't run is connected when it starts
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// Add a name for the container in this network
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    alias: Vec<String>,

    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long, value_name = "ADDR")]
    ip: Option<String>,

    /// IPv6 address (e.g., "2001:db8::33")
    #[arg(long, value_name = "ADDR")]
    ip6: Option<String>,

    /// Add a name for another container, that only this one knows
    #[arg(long, value_name = "NAME[:ALIAS]")]
    link: Vec<String>,

    /// Add a link-local address for the container
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    link_local_ip: Vec<String>,

    /// Driver options for the endpoint
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    driver_opt: Vec<String>,

    /// The network with the highest priority provides the default gateway; may be negative
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 0)]
    gw_priority: i32,
}

/// Connects; there is nothing to print.
pub(super) fn run(args: &Args, api: &mut dyn Api) -> Result<u8> {
    api.call("POST", &path(&args.network, "/connect")?, Some(&body(args)?))?;
    Ok(0)
}

/// The request.
fn body(args: &Args) -> Result<Value> {
    for link in &args.link {
        if let Err(error) = link.parse::<LinkSpec>() {
            bail!(bad_value("--link", link, &error.to_string()));
        }
    }
    if args.driver_opt.iter().any(|option| !option.contains('=')) {
        bail!("invalid key/value pair format in driver options");
    }
    Ok(json!({
        "Container": args.container,
        "EndpointConfig": {
            "IPAMConfig": {
                "IPv4Address": args.ip.as_deref().unwrap_or_default(),
                "IPv6Address": args.ip6.as_deref().unwrap_or_default(),
                "LinkLocalIPs": args.link_local_ip,
            },
            "Links": args.link,
            "Aliases": args.alias,
            "DriverOpts": map(&args.driver_opt),
            "GwPriority": args.gw_priority,
        },
    }))
}
