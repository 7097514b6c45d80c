//! `portmap daemon`: its flags, which are those of dockerd's that concern networks.
//!
//! Not here: what the flags mean together with the configuration file (`daemon::settings`).

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ArgAction;

use crate::daemon::settings::{self, DEFAULT_FILE, Given, Settings};
use crate::daemon::{self, Launch};
use crate::seconds;

/// Defines the flags once, as clap's arguments and as what was given: all of them texts, for the file has the same
/// settings and both are read by the same code. A `switch` is a boolean as Go's flags are: `--icc`, `--icc=false`.
macro_rules! flags {
    (
        switches { $($(#[doc = $switch_doc:literal])+ $switch:ident = $switch_key:literal $(, $switch_short:literal)?;)* }
        values { $($(#[doc = $doc:literal])+ $value:ident = $key:literal, $name:literal $(, $short:literal)?;)* }
        lists { $($(#[doc = $list_doc:literal])+ $list:ident = $list_key:literal, $list_flag:literal, $list_name:literal;)* }
    ) => {
        /// What was typed.
        #[derive(clap::Args, Default)]
        pub(crate) struct Args {
            $($(#[doc = $switch_doc])+
            #[arg(long = $switch_key $(, short = $switch_short)?, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
            $switch: Option<String>,)*
            $($(#[doc = $doc])+
            #[arg(long = $key $(, short = $short)?, value_name = $name, allow_hyphen_values = true)]
            $value: Option<String>,)*
            $($(#[doc = $list_doc])+
            #[arg(long = $list_flag, value_name = $list_name, action = ArgAction::Append)]
            $list: Vec<String>,)*

            /// The configuration file, with dockerd's keys [default: /etc/portmap/daemon.json]
            #[arg(long, value_name = "PATH")]
            config_file: Option<PathBuf>,

            /// Leave when there has been nothing to look after and no request for this long [default: never]
            #[arg(long, value_name = "SECONDS", value_parser = seconds::parse)]
            idle_timeout: Option<Duration>,

            /// Started by a client, which looks for it there: leave quietly if another daemon is there
            #[arg(long, hide = true, value_name = "SOCKET")]
            on_demand: Option<PathBuf>,
        }

        impl Args {
            fn given(&self) -> Given {
                let mut given = Given::new();
                $(given.extend(self.$switch.iter().map(|text| ($switch_key, vec![text.clone()])));)*
                $(given.extend(self.$value.iter().map(|text| ($key, vec![text.clone()])));)*
                $(if !self.$list.is_empty() { given.insert($list_key, self.$list.clone()); })*
                given
            }
        }
    };
}

flags! {
    switches {
        /// Let sandboxes on the default bridge reach each other [default: true]
        icc = "icc";
        /// Masquerade what leaves the default bridge [default: true]
        ip_masq = "ip-masq";
        /// Turn the host's forwarding on where a network needs it [default: true]
        ip_forward = "ip-forward";
        /// Touch firewall rules at all [default: true]
        iptables = "iptables";
        /// The same for IPv6; can't differ from --iptables [default: true]
        ip6tables = "ip6tables";
        /// IPv6 on the default bridge [default: false]
        ipv6 = "ipv6";
        /// A proxy behind each published port [default: true]
        userland_proxy = "userland-proxy";
        /// Let others reach sandboxes by their own addresses, not only by published ports [default: false]
        allow_direct_routing = "allow-direct-routing";
        /// Copy the variables of a sandbox that a link leads to, as ALIAS_ENV_NAME, passwords and all [default: true]
        link_env = "link-env";
        /// Log everything [default: false]
        debug = "debug", 'D';
    }
    values {
        /// Where networks, sandboxes and logs are kept [env: PORTMAP_DATA_ROOT] [default: /var/lib/portmap]
        data_root = "data-root", "PATH";
        /// Where namespaces and files of running sandboxes are [env: PORTMAP_EXEC_ROOT] [default: /run/portmap]
        exec_root = "exec-root", "PATH";
        /// The file with the daemon's process id [default: portmap.pid in the exec root]
        pidfile = "pidfile", "PATH";
        /// A bridge that exists, for the default network; "none" for no default network [default: portmap0]
        bridge = "bridge", "NAME", 'b';
        /// Address of the default bridge, with its prefix length
        bip = "bip", "CIDR";
        /// IPv6 address of the default bridge, with its prefix length
        bip6 = "bip6", "CIDR";
        /// Where sandboxes on the default bridge get their addresses from
        fixed_cidr = "fixed-cidr", "CIDR";
        /// The same for IPv6
        fixed_cidr_v6 = "fixed-cidr-v6", "CIDR";
        /// The default route of sandboxes on the default bridge
        default_gateway = "default-gateway", "ADDR";
        /// The same for IPv6
        default_gateway_v6 = "default-gateway-v6", "ADDR";
        /// Host address of published ports that name none [default: 0.0.0.0]
        ip = "ip", "ADDR";
        /// The proxy program [default: netproxy beside portmap, then in $PATH]
        userland_proxy_path = "userland-proxy-path", "PATH";
        /// Let packets that bear this mark into all networks that aren't internal
        bridge_accept_fwmark = "bridge-accept-fwmark", "VALUE[/MASK]";
        /// Size of packets on the default bridge [default: 1500]
        mtu = "mtu", "BYTES";
        /// What rules are made with: auto, nftables or iptables [default: auto]
        firewall_backend = "firewall-backend", "NAME";
        /// The file that stands for the host's /etc/resolv.conf
        resolv_conf = "resolv-conf", "FILE";
        /// How long an answer of the embedded DNS server may be kept; Docker's is 600 [default: 5]
        dns_ttl = "dns-ttl", "SECONDS";
        /// Group of the socket [default: portmap if there is one, else root]
        group = "group", "NAME";
        /// debug, info, warn, error or fatal [default: info]
        log_level = "log-level", "LEVEL", 'l';
        /// text or json [default: text]
        log_format = "log-format", "FORMAT";
    }
    lists {
        /// Where subnets come from that nobody chose: base=PREFIX,size=BITS (may be given several times)
        default_address_pool = "default-address-pools", "default-address-pool", "POOL";
        /// Option of new networks of a driver: DRIVER=KEY=VALUE (may be given several times)
        default_network_opt = "default-network-opts", "default-network-opt", "OPTION";
        /// A DNS server that sandboxes ask instead of the host's (may be given several times)
        dns = "dns", "dns", "ADDR";
        /// A domain in which sandboxes look short names up; "." for none (may be given several times)
        dns_search = "dns-search", "dns-search", "DOMAIN";
        /// An option for sandboxes' resolv.conf (may be given several times)
        dns_opt = "dns-opts", "dns-opt", "OPTION";
        /// What host-gateway in --add-host stands for, one address of each family [default: the default bridge's]
        host_gateway_ip = "host-gateway-ips", "host-gateway-ip", "ADDR";
    }
}

/// Runs the daemon until it is told to end, or has nothing more to do.
pub(crate) fn run(args: &Args, hosts: Vec<String>) -> ExitCode {
    match try_run(args, hosts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "portmap: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &Args, hosts: Vec<String>) -> Result<()> {
    let mut given = args.given();
    if !hosts.is_empty() {
        given.insert("hosts", hosts);
    }
    let file = args.config_file.as_deref();
    let path = file.unwrap_or_else(|| Path::new(DEFAULT_FILE));
    let mut settings = Settings::read(given, settings::environment()?, path, file.is_some())?;
    if let Some(socket) = &args.on_demand {
        settings.listen_on(socket);
    }
    let launch = Launch { settings, idle_timeout: args.idle_timeout, on_demand: args.on_demand.is_some() };
    daemon::run(launch).context("failed to start daemon")
}
