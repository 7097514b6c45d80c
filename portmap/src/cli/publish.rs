//! `portmap -p SPEC… TARGET`: publishes ports to an address, in the foreground, without a daemon. If the target is a sandbox,
//! it is `portmap publish` in short.
//!
//! All or nothing: every socket is bound before the first proxy starts, every proxy serves before the table is printed, and
//! a failure on the way leaves nothing. Then it looks after the proxies until a signal ends it.
//!
//! Not here: the grammar, the sockets, the processes (`netcore::publish`).

use std::env;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use netcore::publish::{
    Allocator, EphemeralPorts, HostDefaults, PortRange, ProxyCommand, ProxyError, PublishSpec, Reservation,
    Supervisor, host_listens_on_ipv6, plan, reserve,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::ports::specs;
use super::sandbox_publish::Named;
use crate::{seconds, to_the_end_or_enough, userland_proxy};

/// How long a proxy may take to end once it is asked to, on top of its drain time.
const STOP_TIME: Duration = Duration::from_secs(2);

/// Shown below `--help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  portmap -p 8080:80 172.17.0.8              port 8080 of every address, to port 80 there
  portmap -p 127.0.0.1:8080:80 172.17.0.8    on one address only
  portmap -p '[::1]:8080:80' 172.17.0.8      on an IPv6 address, to an IPv4 one
  portmap -p 80 172.17.0.8                   a free host port, shown in the table
  portmap -p 8000-8010:80 172.17.0.8         the first free host port of these
  portmap -p 7000-7999:7000-7999 172.17.0.8  a range, served by one process
  portmap -p 53:53/udp -p 53:53 ns.internal  several ports, UDP, a host name
  portmap -p 8080:80 web                     to the sandbox web, for as long as it runs

SPEC is Docker's: [[HOST-IP:][HOST-PORT[-PORT]]:]PORT[-PORT][/tcp|udp|sctp], or
target=PORT,published=PORT,protocol=WORD.

Exit status: 0 after Ctrl-C or SIGTERM, 125 if anything could not be published. For a sandbox the
ports are printed, and the command ends: portmap unpublish takes them back.";

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Publish a port (may be given several times)
    ///
    /// Without a host address the port is published on all addresses, IPv4 and IPv6. Without a host port the system
    /// chooses one from its ephemeral range. A host range for a single port means: any free one of these.
    #[arg(short = 'p', long = "publish", value_name = "SPEC", allow_hyphen_values = true)]
    publish: Vec<String>,

    /// Where the published ports lead: an IP address, a running sandbox, or a host name
    ///
    /// A name is looked for among the sandboxes of the daemon, if one is running, and else resolved once, at start; IPv4
    /// addresses are preferred.
    #[arg(value_name = "TARGET")]
    target: Option<String>,

    /// Default host address for specs that name none [default: 0.0.0.0]
    #[arg(long, value_name = "ADDR")]
    ip: Option<IpAddr>,

    /// The proxy program [default: netproxy beside portmap, then in $PATH]
    #[arg(long, value_name = "PATH")]
    userland_proxy_path: Option<PathBuf>,

    /// At the end, let open connections finish for up to this long
    ///
    /// Whole or decimal seconds, or with a unit: 500ms, 2m. NETPROXY_DRAIN in the environment says the same.
    #[arg(long, value_name = "SECONDS", value_parser = seconds::parse, allow_negative_numbers = true)]
    drain: Option<Duration>,
}

/// Publishes until a signal says to stop; to a sandbox, for as long as that runs.
pub(crate) fn run(host: Option<&str>, args: Args) -> Result<()> {
    let (specs, target) = parse(&args)?;
    let sandbox = may_be_sandbox(&target).then(|| Named::find(host, &target)).flatten();
    if let Some(sandbox) = sandbox {
        if sandbox.is_running {
            args.refuse_settings_of_proxies(&target)?;
            return sandbox.publish(&args.publish);
        }
        // It may be a host name as well, and only that helps here.
        if resolve(&target).is_err() {
            bail!(
                "sandbox {target} is not running: portmap publish changes what is published when it starts"
            );
        }
    }
    let proxy = userland_proxy::find(args.userland_proxy_path.as_deref())?;
    let drain = args.drain.map_or_else(drain_of_environment, Ok)?;
    let target = resolve(&target).map_err(|error| match may_be_sandbox(&target) {
        true => anyhow!("{error}, and no sandbox has that name"),
        false => error,
    })?;
    let address = args.ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let groups = plan(&specs, &HostDefaults { address, ipv6: host_listens_on_ipv6() })?;
    raise_descriptor_limit();
    let bound = reserve(&mut Allocator::new(EphemeralPorts::of_this_host()), &groups)?;
    refuse_loops(&bound, target)?;

    let signals = Signals::block()?;
    let mut command = ProxyCommand::new(proxy);
    // What wasn't typed isn't passed on: the proxies have our environment, and docker-proxy doesn't know the option.
    if let Some(drain) = args.drain {
        command = command.option(["--drain".to_owned(), drain.as_secs_f64().to_string()]);
    }
    let mappings = bound.into_iter().map(|reservation| (reservation, target)).collect();
    let proxies = match Supervisor::start(command, mappings, signals.stop.as_fd()) {
        Ok(proxies) => proxies,
        Err(ProxyError::Interrupted) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // The ports are wanted all the same.
    if let Err(error) = to_the_end_or_enough(io::stdout().lock().write_all(table(&proxies).as_bytes())) {
        let _ = writeln!(io::stderr(), "portmap: cannot print the table: {error}");
    }
    look_after(proxies, &signals, drain)
}

/// How long the proxies will drain without being told.
fn drain_of_environment() -> Result<Duration> {
    const VARIABLE: &str = "NETPROXY_DRAIN";
    let Some(value) = env::var_os(VARIABLE) else { return Ok(Duration::ZERO) };
    let value = value.to_string_lossy();
    seconds::parse(&value).map_err(|why| anyhow!("invalid value {value:?} in {VARIABLE}: {why}"))
}

fn parse(args: &Args) -> Result<(Vec<PublishSpec>, String)> {
    const USAGE: &str = "as in: portmap -p 8080:80 172.17.0.8";
    let target = match &args.target {
        None if args.publish.is_empty() => bail!("nothing to publish: give ports and a target, {USAGE}"),
        None => bail!("-p needs a target, an IP address or a host name, {USAGE}"),
        Some(target) if target.trim().is_empty() => {
            bail!("the target is empty: give an IP address or a host name, {USAGE}")
        }
        Some(target) => target.clone(),
    };
    ensure!(!args.publish.is_empty(), "no port to publish to {target}: give one, {USAGE}");
    Ok((specs(&args.publish)?, target))
}

/// Names of sandboxes have neither of these, and an address is none.
fn may_be_sandbox(target: &str) -> bool {
    target.parse::<IpAddr>().is_err() && !target.contains([':', '/', '[', '%'])
}

impl Args {
    /// The ports of a sandbox are served as its daemon is set up.
    fn refuse_settings_of_proxies(&self, sandbox: &str) -> Result<()> {
        let given = [
            ("--ip", self.ip.is_some()),
            ("--userland-proxy-path", self.userland_proxy_path.is_some()),
            ("--drain", self.drain.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => {
                bail!("{flag} goes with an address or a host name, and {sandbox} is a sandbox")
            }
            None => Ok(()),
        }
    }
}

/// The address behind TARGET.
fn resolve(target: &str) -> Result<IpAddr> {
    let bare = target.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(target);
    ensure!(!bare.contains('%'), "cannot publish to {target:?}: addresses with a zone are not supported");
    let ip = match bare.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical(),
        Err(_) if bare.len() != target.len() => bail!("invalid IP address: {bare}"),
        Err(_) => look_up(target)?,
    };
    ensure!(!ip.is_unspecified(), "cannot publish to {ip}: it stands for no particular host");
    Ok(ip)
}

fn look_up(name: &str) -> Result<IpAddr> {
    // A port or a URL: resolvers only say that they don't know such a name, some after seconds.
    if name.contains([':', '/']) {
        bail!("invalid target {name:?}: neither an IP address nor a host name (ports go into -p)");
    }
    let addresses: Vec<IpAddr> = (name, 0)
        .to_socket_addrs()
        .map_err(|error| anyhow!("cannot resolve {name:?}: {}", resolver_text(&error)))?
        .map(|address| address.ip().to_canonical())
        .collect();
    let preferred = addresses.iter().find(|ip| ip.is_ipv4()).or_else(|| addresses.first());
    preferred.copied().ok_or_else(|| anyhow!("cannot resolve {name:?}: it has no address"))
}

/// The system's words without the standard library's preface.
fn resolver_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
}

/// A target port that we publish ourselves would make every connection call itself again, until descriptors run out.
fn refuse_loops(bound: &[Reservation], target: IpAddr) -> Result<()> {
    let on_this_host = UdpSocket::bind((target, 0)).is_ok();
    let reaches = |address: &IpAddr| {
        *address == target
            || (on_this_host && address.is_unspecified() && address.is_ipv4() == target.is_ipv4())
    };
    for to in bound {
        for from in bound.iter().filter(|from| from.proto() == to.proto()) {
            let common = from.host().intersection(to.container());
            if let Some(ports) = common.filter(|_| from.addresses().iter().any(reaches)) {
                bail!(
                    "cannot publish to {}/{}: this very command listens there",
                    SocketAddr::new(target, ports.first()),
                    to.proto()
                );
            }
        }
    }
    Ok(())
}

/// Each port and address takes a descriptor here and one in its proxy, which inherits the limit.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Without it fewer ports fit, and opening too many says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The signals we live by, as descriptors. From here on none of them interrupts anything.
///
/// SIGHUP keeps its usual meaning, or none under nohup: if it ends us, the kernel ends the proxies.
struct Signals {
    stop: SignalFd,
    child: SignalFd,
}

impl Signals {
    fn block() -> Result<Self> {
        let open = |signals: &[Signal]| {
            let set: SigSet = signals.iter().copied().collect();
            set.thread_block()?;
            SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        };
        let stop = open(&[Signal::SIGINT, Signal::SIGTERM]).context("cannot wait for signals")?;
        let child = open(&[Signal::SIGCHLD]).context("cannot wait for signals")?;
        Ok(Self { stop, child })
    }

    /// Waits for a signal or the deadline. Returns whether to stop.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        let timeout = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            // Rounded up, or the last millisecond would be spent spinning.
            Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let mut ready =
            [&self.stop, &self.child].map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        match poll(&mut ready, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for signals"),
        }
        while let Ok(Some(_)) = self.child.read_signal() {}
        Ok(matches!(self.stop.read_signal(), Ok(Some(_))))
    }
}

/// Replaces proxies until the first signal, then lets them end until the second one or their time is over.
fn look_after(mut proxies: Supervisor, signals: &Signals, drain: Duration) -> Result<()> {
    let mut stop_by = None;
    loop {
        for event in proxies.tend(Instant::now()) {
            let _ = writeln!(io::stderr(), "portmap: {event}");
        }
        if stop_by.is_some_and(|at| proxies.is_over() || Instant::now() >= at) {
            // Dropping the supervisor kills what is left.
            return Ok(());
        }
        let stop = signals.wait(proxies.next_deadline().into_iter().chain(stop_by).min())?;
        if stop && stop_by.is_some() {
            return Ok(());
        }
        if stop {
            proxies.request_stop();
            stop_by = Some(Instant::now() + STOP_TIME + drain);
        }
    }
}

/// One row per host address, columns as wide as they need to be.
fn table(proxies: &Supervisor) -> String {
    let mut rows = vec![["HOST", "TARGET", "PROTO", "PROXY"].map(str::to_owned)];
    for proxy in proxies.statuses() {
        for address in proxy.reservation.addresses() {
            rows.push([
                endpoint(*address, proxy.reservation.host()),
                endpoint(proxy.target, proxy.reservation.container()),
                proxy.reservation.proto().to_string(),
                proxy.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            ]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (host, target, proto) = (width(0), width(1), width(2));
    let line = |[a, b, c, d]: &[String; 4]| format!("{a:host$}   {b:target$}   {c:proto$}   {d}\n");
    rows.iter().map(line).collect()
}

fn endpoint(ip: IpAddr, ports: PortRange) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{ports}"),
        IpAddr::V6(ip) => format!("[{ip}]:{ports}"),
    }
}
