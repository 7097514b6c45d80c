//! The command line: Go's flag syntax, docker-proxy's words, our own options, and `NETPROXY_…` from the environment.
//!
//! Go's rules: one dash or two; `-f value` or `-f=value`; a bool takes a value only after `=`; the first word that is
//! no flag, or `--`, ends the flags; a later duplicate wins. Our own options follow the same rules and may also come
//! from the environment, since dockerd fixes its proxies' command line but hands its environment on.
//!
//! Two kinds of refusal, because dockerd tells them apart: a word that is no flag or doesn't parse is [`Refusal::Usage`]
//! (exit 2, nothing on the status pipe), a value that parses but can't be served is [`Refusal::Config`] (exit 1, and
//! the status pipe says why).

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::cidr::Cidr;
use crate::engine::Choice;
use crate::mapping::{BadMapping, Mapping, Ports, Protocol};
use crate::tcp::proxy_protocol::Version;

mod golang;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Forward a mapping.
    Serve(Box<Serve>),
    /// Print the counters of the proxy with this process id or control socket.
    Stats(String),
    /// Print the version.
    Version,
    /// Print the usage.
    Help,
}

/// Everything a serving proxy needs to know.
#[derive(Clone, Debug)]
pub struct Serve {
    /// What is forwarded where.
    pub mapping: Mapping,
    /// Sockets to take over from fd 4 on; `None` to bind our own.
    pub inherit: Option<usize>,
    /// Time-outs, limits and places.
    pub options: Options,
}

/// Our own options, each also `NETPROXY_<NAME>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a client waits for the backend before it is reset.
    pub connect_timeout: Duration,
    /// How long a UDP flow lives without a datagram either way.
    pub udp_timeout: Duration,
    /// How many UDP flows there may be; the one idle longest makes room.
    pub udp_flows: NonZeroUsize,
    /// How long open connections may go on after a signal.
    pub drain: Duration,
    /// How many threads may serve connections.
    pub threads: NonZeroUsize,
    /// The PROXY protocol header the backend gets before a client's bytes.
    pub proxy_protocol: Option<Version>,
    /// Clients in these networks, and no others, begin with a PROXY protocol header.
    pub accept_proxy_protocol: Vec<Cidr>,
    /// Local addresses to reach the backend from, in turn; all of its family. None: the kernel's choice.
    pub source_ips: Vec<IpAddr>,
    /// What waits for sockets and moves the bytes.
    pub engine: Choice,
    /// Where errors go beside stderr.
    pub log_file: Option<PathBuf>,
    /// A socket in the file system for `--stats`, beside the one named after the process id.
    pub control_socket: Option<PathBuf>,
    /// Serve without that socket rather than not at all: it was the environment that asked for it.
    pub control_socket_is_a_wish: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            udp_timeout: Duration::from_secs(90),
            udp_flows: const { NonZeroUsize::new(16_384).expect("not zero") },
            drain: Duration::ZERO,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            proxy_protocol: None,
            accept_proxy_protocol: Vec::new(),
            source_ips: Vec::new(),
            engine: Choice::Auto,
            log_file: None,
            control_socket: None,
            control_socket_is_a_wish: false,
        }
    }
}

/// Why the command line isn't carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a flag, or not a value of its type: exit 2 and nothing on the status pipe.
    #[error("{0}")]
    Usage(String),
    /// Well-formed but impossible: exit 1, and the status pipe says why.
    #[error("{0}")]
    Config(String),
}

impl From<BadMapping> for Refusal {
    fn from(bad: BadMapping) -> Self {
        Self::Config(bad.to_string())
    }
}

/// One line of the flag table.
struct Flag {
    name: &'static str,
    /// What its value is called in the usage; empty for a bool.
    value: &'static str,
    help: &'static str,
    /// Ours: may also come from the environment.
    own: bool,
    set: fn(&mut Raw, &str) -> Result<(), String>,
}

/// What was typed, before it is looked at as a whole.
struct Raw {
    protocol: String,
    host_ip: IpAddr,
    host_port: (i64, i64),
    target_ip: IpAddr,
    target_port: (i64, i64),
    use_listen_fd: bool,
    listen_fds: Option<NonZeroUsize>,
    version: bool,
    help: bool,
    stats: Option<String>,
    options: Options,
}

const FLAGS: &[Flag] = &[
    Flag {
        name: "proto",
        value: "PROTOCOL",
        help: "tcp, udp or sctp (default tcp)",
        own: false,
        set: |raw, v| {
            raw.protocol = v.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "host-ip",
        value: "IP",
        help: "address to listen on (default 0.0.0.0)",
        own: false,
        set: |raw, v| golang::ip(v).map(|ip| raw.host_ip = ip),
    },
    Flag {
        name: "host-port",
        value: "PORT[-PORT]",
        help: "port or range to listen on",
        own: false,
        set: |raw, v| golang::int_range(v).map(|p| raw.host_port = p),
    },
    Flag {
        name: "container-ip",
        value: "IP",
        help: "address to forward to (default 0.0.0.0)",
        own: false,
        set: |raw, v| golang::ip(v).map(|ip| raw.target_ip = ip),
    },
    Flag {
        name: "container-port",
        value: "PORT[-PORT]",
        help: "port or range to forward to, as many as -host-port",
        own: false,
        set: |raw, v| golang::int_range(v).map(|p| raw.target_port = p),
    },
    Flag {
        name: "use-listen-fd",
        value: "",
        help: "serve the socket on descriptor 4 instead of binding one",
        own: false,
        set: |raw, v| golang::boolean(v).map(|b| raw.use_listen_fd = b),
    },
    Flag {
        name: "listen-fds",
        value: "N",
        help: "with -use-listen-fd: serve N sockets, on descriptors 4 and up, each for the port it is bound to",
        own: false,
        set: |raw, v| golang::count(v).map(|n| raw.listen_fds = Some(n)),
    },
    Flag {
        name: "connect-timeout",
        value: "SECONDS",
        help: "give up on the backend and reset the client after this long (default 10)",
        own: true,
        set: |raw, v| golang::positive_duration(v).map(|d| raw.options.connect_timeout = d),
    },
    Flag {
        name: "udp-timeout",
        value: "SECONDS",
        help: "forget a UDP flow idle for this long (default 90)",
        own: true,
        set: |raw, v| golang::positive_duration(v).map(|d| raw.options.udp_timeout = d),
    },
    Flag {
        name: "udp-flows",
        value: "N",
        help: "keep at most N UDP flows, dropping the one idle longest (default 16384)",
        own: true,
        set: |raw, v| golang::count(v).map(|n| raw.options.udp_flows = n),
    },
    Flag {
        name: "drain",
        value: "SECONDS",
        help: "on a signal, let open connections finish for this long (default 0; a second signal ends it)",
        own: true,
        set: |raw, v| golang::duration(v).map(|d| raw.options.drain = d),
    },
    Flag {
        name: "threads",
        value: "N",
        help: "serve with at most N threads; the second starts when there is load (default: one per core)",
        own: true,
        set: |raw, v| golang::count(v).map(|n| raw.options.threads = n),
    },
    Flag {
        name: "proxy-protocol",
        value: "v1|v2",
        help: "tell the backend each client's address in a PROXY protocol header (tcp)",
        own: true,
        set: |raw, v| golang::version(v).map(|v| raw.options.proxy_protocol = Some(v)),
    },
    Flag {
        name: "accept-proxy-protocol",
        value: "CIDRS",
        help: "clients in these networks, and no others, begin with a PROXY protocol header (tcp)",
        own: true,
        set: |raw, v| golang::list(v, golang::cidr).map(|all| raw.options.accept_proxy_protocol = all),
    },
    Flag {
        name: "source-ips",
        value: "IPS",
        help: "reach the backend from these local addresses in turn: one has about 28,000 ports (tcp, udp)",
        own: true,
        set: |raw, v| golang::list(v, golang::source_ip).map(|all| raw.options.source_ips = all),
    },
    Flag {
        name: "engine",
        value: "NAME",
        help: "uring, portable, or auto: io_uring where the kernel allows it (default auto)",
        own: true,
        set: |raw, v| v.parse().map(|engine| raw.options.engine = engine),
    },
    Flag {
        name: "log-file",
        value: "PATH",
        help: "append errors to this file too: dockerd gives its proxies no stderr",
        own: true,
        set: |raw, v| golang::path(v).map(|p| raw.options.log_file = Some(p)),
    },
    Flag {
        name: "control-socket",
        value: "PATH",
        help: "answer --stats on this socket too; %p in it stands for the process id",
        own: true,
        set: |raw, v| golang::path(v).map(|p| raw.options.control_socket = Some(p)),
    },
    Flag {
        name: "stats",
        value: "PID|SOCKET",
        help: "print the counters of a running netproxy as JSON and exit",
        own: false,
        set: |raw, v| {
            if v.is_empty() {
                return Err("neither a process id nor a path".to_owned());
            }
            raw.stats = Some(v.to_owned());
            Ok(())
        },
    },
    Flag {
        name: "version",
        value: "",
        help: "print the version and exit (also -v)",
        own: false,
        set: |raw, v| golang::boolean(v).map(|b| raw.version = b),
    },
    Flag {
        name: "help",
        value: "",
        help: "print this and exit (also -h)",
        own: false,
        set: |raw, v| golang::boolean(v).map(|b| raw.help = b),
    },
];

impl Flag {
    fn named(name: &str) -> Option<&'static Self> {
        let name = match name {
            "v" => "version",
            "h" => "help",
            other => other,
        };
        FLAGS.iter().find(|f| f.name == name)
    }

    fn is_bool(&self) -> bool {
        self.value.is_empty()
    }

    fn variable(&self) -> String {
        format!("NETPROXY_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

/// Reads the words after the program's name, and the `NETPROXY_…` variables through `environment`.
///
/// # Errors
/// See [`Refusal`].
pub fn parse(words: &[String], environment: impl Fn(&str) -> Option<String>) -> Result<Command, Refusal> {
    let mut raw = Raw {
        protocol: Protocol::Tcp.name().to_owned(),
        host_ip: IpAddr::from([0, 0, 0, 0]),
        host_port: (-1, -1),
        target_ip: IpAddr::from([0, 0, 0, 0]),
        target_port: (-1, -1),
        use_listen_fd: false,
        listen_fds: None,
        version: false,
        help: false,
        stats: None,
        options: Options::default(),
    };
    // The words come first only in the order of complaints: dockerd must see exit 2 for words it may have got wrong.
    let mut typed = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some((name, inline)) = split(word)? else { break };
        let flag =
            Flag::named(name).ok_or_else(|| usage(format!("flag provided but not defined: -{name}")))?;
        let value = match inline {
            Some(value) => value,
            None if flag.is_bool() => "true",
            None => words.next().ok_or_else(|| usage(format!("flag needs an argument: -{name}")))?,
        };
        (flag.set)(&mut raw, value).map_err(|why| {
            let kind = if flag.is_bool() { "boolean value" } else { "value" };
            let of = if flag.is_bool() { "for" } else { "for flag" };
            usage(format!("invalid {kind} {value:?} {of} -{name}: {why}"))
        })?;
        typed.push(flag.name);
        if raw.help {
            return Ok(Command::Help); // Go stops at the first -h, whatever follows
        }
    }
    if raw.version {
        return Ok(Command::Version);
    }
    if let Some(whom) = raw.stats {
        return Ok(Command::Stats(whom));
    }
    for flag in FLAGS.iter().filter(|f| f.own && !typed.contains(&f.name)) {
        let variable = flag.variable();
        if let Some(value) = environment(&variable) {
            (flag.set)(&mut raw, &value)
                .map_err(|why| Refusal::Config(format!("invalid value {value:?} in {variable}: {why}")))?;
        }
    }
    raw.into_serve(|name| typed.contains(&name)).map(|serve| Command::Serve(Box::new(serve)))
}

/// Splits `-name`, `--name=value` and the like; `None` where the flags end.
fn split(word: &str) -> Result<Option<(&str, Option<&str>)>, Refusal> {
    let Some(rest) = word.strip_prefix('-') else { return Ok(None) };
    let name = rest.strip_prefix('-').unwrap_or(rest);
    if rest.is_empty() || rest == "-" {
        return Ok(None); // "-" is a word, "--" ends the flags
    }
    if name.starts_with(['-', '=']) {
        return Err(usage(format!("bad flag syntax: {word}")));
    }
    Ok(Some(name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)))))
}

fn usage(message: String) -> Refusal {
    Refusal::Usage(message)
}

impl Raw {
    fn into_serve(mut self, typed: impl Fn(&str) -> bool) -> Result<Serve, Refusal> {
        let protocol: Protocol = self.protocol.parse()?;
        let target_ports = ports("-container-port", self.target_port)?.ok_or(BadMapping::NoTargetPort)?;
        let host_ports = match ports("-host-port", self.host_port)? {
            Some(ports) => ports,
            // With an inherited socket the number is only for people reading `ps`.
            None if self.use_listen_fd && target_ports.count() == 1 => Ports::NONE,
            None => {
                return Err(Refusal::Config("no port to listen on: give -host-port a port or range".into()));
            }
        };
        let mapping = Mapping::new(protocol, (self.host_ip, host_ports), (self.target_ip, target_ports))?;
        self.options.fit(&mapping, typed)?;
        let inherit = match (self.use_listen_fd, self.listen_fds) {
            (true, Some(n)) => Some(n.get()),
            (true, None) => Some(host_ports.count()),
            (false, None) => None,
            (false, Some(_)) => {
                return Err(Refusal::Config(
                    "-listen-fds counts what -use-listen-fd takes over: give both".into(),
                ));
            }
        };
        Ok(Serve { mapping, inherit, options: self.options })
    }
}

impl Options {
    /// Leaves out what `mapping` can't have. Typed for it that is a mistake; an environment is the same for all of
    /// dockerd's proxies, so what it says of TCP or of one address family is for those that have it.
    fn fit(&mut self, mapping: &Mapping, typed: impl Fn(&str) -> bool) -> Result<(), Refusal> {
        let (protocol, target) = (mapping.protocol, mapping.target_ip);
        self.control_socket_is_a_wish = !typed("control-socket");
        let leave_out = |present: bool, name: &str, why: String| {
            if present && typed(name) { Err(Refusal::Config(why)) } else { Ok(()) }
        };
        if protocol != Protocol::Tcp {
            let (send, accept) =
                (self.proxy_protocol.take(), std::mem::take(&mut self.accept_proxy_protocol));
            for (name, present) in
                [("proxy-protocol", send.is_some()), ("accept-proxy-protocol", !accept.is_empty())]
            {
                leave_out(present, name, format!("-{name} needs -proto tcp, not {protocol}"))?;
            }
        }
        if protocol == Protocol::Sctp {
            let ips = std::mem::take(&mut self.source_ips);
            leave_out(
                !ips.is_empty(),
                "source-ips",
                format!("-source-ips needs -proto tcp or udp, not {protocol}"),
            )?;
        }
        let (fit, other): (Vec<_>, Vec<_>) =
            self.source_ips.drain(..).partition(|ip| ip.is_ipv4() == target.is_ipv4());
        self.source_ips = fit;
        match other.first() {
            Some(ip) => leave_out(
                true,
                "source-ips",
                format!("-source-ips {ip} can't reach -container-ip {target}: IPv4 and IPv6 don't mix"),
            ),
            None => Ok(()),
        }
    }
}

/// Go parses any integer; the range check is ours. `-1` is docker-proxy's "not given".
fn ports(flag: &str, (first, last): (i64, i64)) -> Result<Option<Ports>, Refusal> {
    if (first, last) == (-1, -1) {
        return Ok(None);
    }
    let one = |n: i64| {
        u16::try_from(n).map_err(|_| Refusal::Config(format!("invalid {flag} {n}: ports go from 0 to 65535")))
    };
    let (first, last) = (one(first)?, one(last)?);
    let range = Ports::new(first, last)
        .ok_or_else(|| Refusal::Config(format!("invalid {flag} {first}-{last}: the range descends")))?;
    if range.count() > 1 && first == 0 {
        return Err(Refusal::Config(format!("invalid {flag} {range}: a range can't start at port 0")));
    }
    Ok(Some(range))
}

/// The usage text, every flag with its help.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "Usage: netproxy -proto tcp -host-ip IP -host-port PORT -container-ip IP -container-port PORT [options]\n\
         \n\
         Forwards what arrives at a host address to a target: a drop-in for docker-proxy.\n\
         One dash or two, `-flag value` or `-flag=value`.\n\
         \n",
    );
    let row = |text: &mut String, f: &Flag| {
        let name = if f.is_bool() { format!("-{}", f.name) } else { format!("-{} {}", f.name, f.value) };
        *text += &format!("  {name:<28} {}\n", f.help);
    };
    FLAGS.iter().filter(|f| !f.own).for_each(|f| row(&mut text, f));
    text += "\nOwn options, each also from the environment as NETPROXY_<NAME>, e.g. NETPROXY_UDP_TIMEOUT=30\n\
             (times in seconds, or with a unit: 500ms, 2m):\n\n";
    FLAGS.iter().filter(|f| f.own).for_each(|f| row(&mut text, f));
    text += "\nSIGINT and SIGTERM stop it with status 0. Exit status 1: can't serve; 2: bad command line.\n";
    text
}

#[cfg(test)]
mod tests;
