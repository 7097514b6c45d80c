//! What follows from the facts. Pure.
//!
//! The steps are in the order in which a packet meets them; the first that it doesn't pass decides what there is to do.
//!
//! Not here: ports that nobody publishes (`absent`).

mod absent;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use netcore::model::Publication;
use netcore::publish::{PortRange, Proto};

use super::facts::{Facts, Host, Listener, Process, Published, Route, Sandbox, Stack};
use super::question::{HostPort, Question};
use super::{Mark, Path, Report, Step};

/// A path under way, and what is to be done about the first step that isn't passed.
struct Walk {
    title: String,
    steps: Vec<Step>,
    advice: Option<String>,
}

/// Explains it.
pub(super) fn reason(facts: &Facts) -> Report {
    match &facts.question {
        Question::Port(port) => {
            let mut walks = Vec::new();
            for sandbox in facts.sandboxes.iter().filter(|sandbox| sandbox.is_running) {
                for published in
                    sandbox.published.iter().filter(|published| is_meant(&published.publication, *port))
                {
                    walks.push(walk(&facts.host, sandbox, published, Some(*port)));
                }
            }
            if walks.is_empty() { absent::port(facts, *port) } else { report(walks) }
        }
        Question::Sandbox(_) => {
            let walks = facts.sandboxes.iter().flat_map(|sandbox| {
                if sandbox.is_running && !sandbox.published.is_empty() {
                    let of = |published| walk(&facts.host, sandbox, published, None);
                    sandbox.published.iter().map(of).collect()
                } else {
                    vec![absent::sandbox(sandbox)]
                }
            });
            report(walks.collect())
        }
    }
}

impl Walk {
    const fn new(title: String) -> Self {
        Self { title, steps: Vec::new(), advice: None }
    }

    fn yes(&mut self, text: impl Into<String>) {
        self.steps.push(Step { mark: Mark::Yes, text: text.into() });
    }

    fn note(&mut self, text: impl Into<String>) {
        self.steps.push(Step { mark: Mark::Note, text: text.into() });
    }

    fn no(&mut self, text: impl Into<String>, advice: impl Into<String>) {
        self.steps.push(Step { mark: Mark::No, text: text.into() });
        self.advice.get_or_insert_with(|| advice.into());
    }
}

fn report(walks: Vec<Walk>) -> Report {
    let advice = walks.iter().find_map(|walk| walk.advice.clone());
    Report {
        answers: advice.is_none(),
        advice: advice.unwrap_or_else(|| "It answers: nothing is in the way.".to_owned()),
        paths: walks.into_iter().map(|walk| Path { title: walk.title, steps: walk.steps }).collect(),
    }
}

/// Whether packets to this port of the host are led by the publication.
fn is_meant(publication: &Publication, asked: HostPort) -> bool {
    let ports = publication.host.unwrap_or(publication.container);
    publication.proto == asked.proto
        && ports.contains(asked.port)
        && match (publication.host, asked.address) {
            (_, None) => true,
            (None, Some(address)) => address == publication.target,
            (Some(_), Some(address)) => publication.addresses.iter().any(|own| covers(*own, address)),
        }
}

/// Whether a socket of `own` gets what is sent to `address`.
fn covers(own: IpAddr, address: IpAddr) -> bool {
    own == address || own.is_unspecified() && own.is_ipv4() == address.is_ipv4()
}

fn walk(host: &Host, sandbox: &Sandbox, published: &Published, asked: Option<HostPort>) -> Walk {
    let publication = &published.publication;
    let container =
        asked.map_or(publication.container, |asked| PortRange::single(inside(publication, asked.port)));
    let what = format!("{}: {container}/{}", sandbox.name, publication.proto);
    let Some(ports) = publication.host else {
        let mut walk = Walk::new(format!("{what} at its own address {}", publication.target));
        walk.note(format!(
            "network {} is in routed mode: there is no port of the host's, {} is reached directly",
            published.network,
            socket(publication.target, container)
        ));
        rules(&mut walk, host, sandbox, published, asked);
        listener(&mut walk, sandbox, publication, container);
        return walk;
    };
    let ports = asked.map_or(ports, |asked| PortRange::single(asked.port));
    let places: Vec<String> = publication.addresses.iter().map(|address| socket(*address, ports)).collect();
    let mut walk = Walk::new(format!("{what} at {}", places.join(" and ")));
    if !host.has_rules && !host.has_proxies {
        walk.no(
            "nothing leads to it: the daemon has neither rules (--iptables=false) nor proxies (--userland-proxy=false)",
            "Run the daemon without one of these flags.",
        );
        return walk;
    }
    held(&mut walk, host, published, ports, asked);
    let meant = match asked.and_then(|asked| asked.address) {
        Some(address) => vec![address],
        None => publication.addresses.clone(),
    };
    let is_proxys =
        |address: &IpAddr| is_for_the_proxy(host.has_rules, host.has_proxies, *address, publication.target);
    if meant.iter().all(is_proxys) {
        if !host.has_rules {
            walk.note(
                "no rules are made: the proxy carries everything, the sandbox sees the host's address, not the client's",
            );
        } else if meant.iter().any(|address| address.is_ipv6() != publication.target.is_ipv6()) {
            walk.note(
                "the proxy carries it to the sandbox's other family: the sandbox sees the host's address, not the client's",
            );
        }
        obstacles(&mut walk, published);
        route(&mut walk, sandbox, published);
    } else {
        rules(&mut walk, host, sandbox, published, asked);
    }
    listener(&mut walk, sandbox, publication, container);
    walk
}

/// Whether it is a proxy that leads to the target from this address of the host, and no rule.
pub(super) fn is_for_the_proxy(has_rules: bool, has_proxies: bool, address: IpAddr, target: IpAddr) -> bool {
    let is_loopback = address.is_loopback() && (has_proxies || address.is_ipv6());
    !has_rules || address.is_ipv6() != target.is_ipv6() || is_loopback
}

/// The sandbox's port that a port of the host's leads to.
fn inside(publication: &Publication, port: u16) -> u16 {
    let first = publication.host.unwrap_or(publication.container).first();
    publication.container.first() + port.saturating_sub(first)
}

/// Who holds the host's port.
fn held(walk: &mut Walk, host: &Host, published: &Published, ports: PortRange, asked: Option<HostPort>) {
    let publication = &published.publication;
    if !host.has_proxies
        && asked
            .and_then(|asked| asked.address)
            .is_some_and(|address| address.is_loopback() && address.is_ipv6())
    {
        walk.no(
            "without the userland proxy nothing leads from ::1: the kernel can't route it",
            "Use 127.0.0.1 or another address of the host, or run the daemon with --userland-proxy=true.",
        );
        return;
    }
    let mut strangers = Vec::new();
    let mut ours = false;
    for listener in &host.listeners {
        let is_it = listener.proto == publication.proto
            && ports.contains(listener.at.port())
            && publication
                .addresses
                .iter()
                .any(|address| covers(listener.at.ip(), *address) || covers(*address, listener.at.ip()));
        match &listener.by {
            _ if !is_it => {}
            Some(process) if Some(process.pid) == published.proxy || process.pid == host.daemon => {
                ours = true
            }
            Some(process) => strangers.push((listener.at, process)),
            // Whoever can't be looked at may be ours.
            None => ours = true,
        }
    }
    match (strangers.first(), published.proxy) {
        (Some((at, process)), _) if !ours => walk.no(
            format!("{} holds {at}, not portmap", named(process)),
            format!("End {}, or have it listen elsewhere: the port is taken back by itself.", named(process)),
        ),
        (_, Some(pid)) => walk.yes(format!("its proxy (pid {pid}) holds the host's port")),
        (_, None) if !host.has_proxies && ours => {
            walk.yes("the daemon keeps the host's port; rules lead past it")
        }
        (_, None) if !host.has_proxies => walk.no("nobody keeps the host's port", log_advice()),
        (_, None) => walk.no("no proxy runs for the host's port", log_advice()),
    }
}

fn log_advice() -> String {
    "The daemon's log says why; it tries again by itself.".to_owned()
}

/// What lies between the host's port and the sandbox, where rules lead.
fn rules(walk: &mut Walk, host: &Host, sandbox: &Sandbox, published: &Published, asked: Option<HostPort>) {
    let target = published.publication.target;
    match published.is_led {
        Some(true) if published.publication.host.is_some() => {
            walk.yes(format!("portmap's rules lead to {target}"))
        }
        Some(true) => walk.yes(format!("portmap's rules let packets in to {target}")),
        Some(false) => walk.no(
            "portmap's rules for it are missing: somebody has removed them",
            format!("Have the daemon write them again: kill -HUP {}", host.daemon),
        ),
        None => {}
    }
    let (forwards, setting) = if target.is_ipv4() {
        (host.forwards_v4, "net.ipv4.ip_forward")
    } else {
        (host.forwards_v6, "net.ipv6.conf.all.forwarding")
    };
    let is_local = asked.and_then(|asked| asked.address).is_some_and(|address| address.is_loopback());
    if forwards {
        walk.yes("the host forwards packets");
    } else if is_local {
        walk.note(format!(
            "the host doesn't forward packets ({setting} is 0): only its own processes get through"
        ));
    } else {
        walk.no(
            format!("the host doesn't forward packets ({setting} is 0): only its own processes get through"),
            format!("Turn forwarding on: sysctl -w {setting}=1"),
        );
    }
    obstacles(walk, published);
    route(walk, sandbox, published);
}

fn obstacles(walk: &mut Walk, published: &Published) {
    let (certain, possible): (Vec<_>, Vec<_>) =
        published.obstacles.iter().partition(|obstacle| obstacle.is_certain);
    for obstacle in &certain {
        walk.no(
            format!("a firewall rule that isn't portmap's drops it: {} ({})", obstacle.rule, obstacle.place),
            format!("Change or remove that rule in {}, or accept the port before it.", obstacle.place),
        );
    }
    for obstacle in possible {
        walk.note(format!(
            "some clients may be dropped by a rule that isn't portmap's: {} ({})",
            obstacle.rule, obstacle.place
        ));
    }
    match &published.unseen {
        Some(why) => walk.note(format!("rules of others couldn't be looked at: {why}")),
        None if certain.is_empty() => walk.yes("no firewall rule of others drops it"),
        None => {}
    }
}

fn route(walk: &mut Walk, sandbox: &Sandbox, published: &Published) {
    let target = published.publication.target;
    match published.route {
        Route::Direct => walk.yes(format!("the host reaches {target} on network {}", published.network)),
        Route::None => walk.no(
            format!("the host has no route to {target} on network {}", published.network),
            format!(
                "Restart the daemon, which makes the network again, or the sandbox: portmap restart {}",
                sandbox.name
            ),
        ),
        Route::Elsewhere(from) => walk.no(
            format!(
                "the host sends packets for {target} another way, from {from}, and not to network {}",
                published.network
            ),
            format!("Look for the route that leads there: ip route get {target}"),
        ),
    }
}

/// Who listens in the sandbox.
fn listener(walk: &mut Walk, sandbox: &Sandbox, publication: &Publication, ports: PortRange) {
    let proto = publication.proto;
    let all = match &sandbox.listeners {
        Ok(all) => all,
        Err(why) => return walk.note(format!("what listens in the sandbox couldn't be looked at: {why}")),
    };
    let here: Vec<&Listener> =
        all.iter().filter(|l| l.proto == proto && ports.contains(l.at.port())).collect();
    let hearing: Vec<&&Listener> = here.iter().filter(|l| hears(l, publication.target)).collect();
    if let Some(first) = hearing.first() {
        let mut numbers: Vec<u16> = hearing.iter().map(|listener| listener.at.port()).collect();
        numbers.dedup();
        return walk.yes(match ports.is_single() {
            true => format!("{} listens on {} in the sandbox", by(first), first.at),
            false => {
                format!("{} of the {} ports have a listener in the sandbox", numbers.len(), ports.count())
            }
        });
    }
    let port = here.first().map_or_else(|| ports.first(), |listener| listener.at.port());
    match here.first() {
        Some(listener) if listener.at.ip().is_loopback() => walk.no(
            format!(
                "{} listens only on {}, which nobody outside of the sandbox reaches",
                by(listener),
                listener.at
            ),
            format!(
                "Have {} listen on {} instead.",
                by(listener),
                socket(unspecified(publication.target), PortRange::single(port))
            ),
        ),
        Some(listener) => walk.no(
            format!(
                "{} listens only on {}, and packets come for {}",
                by(listener),
                listener.at,
                publication.target
            ),
            format!(
                "Have {} listen on {} instead.",
                by(listener),
                socket(unspecified(publication.target), PortRange::single(port))
            ),
        ),
        None => {
            let others = others(all, proto);
            let ports_listened: Vec<String> =
                others.iter().map(|listener| listener.at.port().to_string()).collect();
            let but = match &others[..] {
                [] => String::new(),
                [only] => format!("; {} listens on {}", by(only), only.at),
                _ => format!("; there are listeners on {}", ports_listened.join(", ")),
            };
            let advice = match &others[..] {
                [only] if ports.is_single() => format!(
                    "Have {} listen on port {ports}, or publish the port it listens on: portmap publish {} -p {}/{proto}",
                    by(only),
                    sandbox.name,
                    only.at.port()
                ),
                _ => format!("Start what is to answer in {}, on port {ports}.", sandbox.name),
            };
            walk.no(format!("nothing listens on {ports}/{proto} in the sandbox{but}"), advice);
        }
    }
}

/// Listeners that somebody outside could reach, a few of them.
fn others(all: &[Listener], proto: Proto) -> Vec<&Listener> {
    let mut others: Vec<&Listener> = Vec::new();
    for listener in all.iter().filter(|l| l.proto == proto && !l.at.ip().is_loopback()) {
        if others.iter().all(|known| known.at.port() != listener.at.port()) {
            others.push(listener);
        }
    }
    others.truncate(5);
    others
}

/// Whether it gets what is sent to the sandbox's address. IPv6's wildcard takes IPv4 too, as it is by default.
fn hears(listener: &Listener, target: IpAddr) -> bool {
    let at = listener.at.ip();
    at == target || at.is_unspecified() && (at.is_ipv6() || target.is_ipv4())
}

const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

fn named(process: &Process) -> String {
    format!("{} (pid {})", process.name, process.pid)
}

fn by(listener: &Listener) -> String {
    listener.by.as_ref().map_or_else(|| "a process".to_owned(), named)
}

fn socket(address: IpAddr, ports: PortRange) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{ports}"),
        IpAddr::V6(address) => format!("[{address}]:{ports}"),
    }
}

/// Why a sandbox has no ports of its own.
fn shared(stack: &Stack) -> Option<String> {
    match stack {
        Stack::Own => None,
        Stack::Host => {
            Some("it has the host's network: what it listens on is the host's own port".to_owned())
        }
        Stack::None => Some("it has no network (--net none)".to_owned()),
        Stack::Of(other) => Some(format!("it shares the network of {other}, which publishes ports for both")),
    }
}
