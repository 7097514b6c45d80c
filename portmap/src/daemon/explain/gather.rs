//! Asks the controller, the kernel and the firewall's tools for what there is to know.
//!
//! What can't be found out is left open rather than guessed. Nothing is changed, and no packet is sent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use netcore::controller::{Controller, ControllerError, SandboxView};
use netcore::firewall::{Backend, HostTools, ToolError, Tools};
use netcore::kernel::{self, Place};
use netcore::model::{Network, NetworkId, NetworkMode, Publication, SandboxState};

use super::facts::{Facts, Host, Listener, Obstacle, Process, Published, Route, Sandbox, Stack};
use super::firewall::{self, Hook, Packet};
use super::question::Question;
use super::{Report, facts, reason};
use crate::daemon::State;

/// Explains a port or a sandbox. What can't be read as either is told in the inner error.
pub(crate) fn explain(state: &State, what: &str) -> Result<Result<Report, String>, ControllerError> {
    let question = match Question::parse(what) {
        Ok(question) => question,
        Err(why) => return Ok(Err(why)),
    };
    let controller = &state.controller;
    let views = match &question {
        Question::Port(_) => controller.sandboxes()?,
        Question::Sandbox(reference) => vec![controller.sandbox(reference)?],
    };
    let networks = controller.networks()?.into_iter().map(|network| (network.id, network)).collect();
    let proxies = controller.proxies();
    let mut look = Look { state, networks, proxies, listings: Listings::default(), holders: BTreeMap::new() };
    let sandboxes = views.iter().map(|view| look.sandbox(view, &question)).collect();
    let facts = Facts { host: look.host(), sandboxes, question };
    Ok(Ok(reason::reason(&facts)))
}

struct Look<'a> {
    state: &'a State,
    networks: BTreeMap<NetworkId, Network>,
    proxies: Vec<(Publication, Option<u32>)>,
    listings: Listings,
    /// Who holds which socket, as far as it was looked for.
    holders: BTreeMap<u64, Option<Process>>,
}

/// What the firewall's tools listed, each asked once.
#[derive(Default)]
struct Listings(BTreeMap<&'static str, Result<String, String>>);

impl Look<'_> {
    fn controller(&self) -> &Controller {
        &self.state.controller
    }

    fn host(&mut self) -> Host {
        let config = &self.state.settings.controller;
        let is_on = |path: &str| std::fs::read_to_string(path).is_ok_and(|value| value.trim() != "0");
        Host {
            has_proxies: config.userland_proxy,
            has_rules: self.controller().firewall_backend().is_some(),
            forwards_v4: is_on("/proc/sys/net/ipv4/ip_forward"),
            forwards_v6: is_on("/proc/sys/net/ipv6/conf/all/forwarding"),
            daemon: std::process::id(),
            proxies: self.proxies.iter().filter_map(|(_, pid)| *pid).collect(),
            // Without the list of the host's own sockets the rest is still worth telling.
            listeners: self.listeners(Place::Here).unwrap_or_default(),
        }
    }

    fn sandbox(&mut self, view: &SandboxView, question: &Question) -> Sandbox {
        let sandbox = &view.sandbox;
        let running = match &sandbox.state {
            SandboxState::Running(running) => Some(running),
            SandboxState::Created | SandboxState::Exited(_) => None,
        };
        let stack = match &sandbox.config.mode {
            NetworkMode::Host => Stack::Host,
            NetworkMode::None if view.endpoints.iter().all(|endpoint| endpoint.ipv4.is_none()) => Stack::None,
            NetworkMode::Container(other) => Stack::Of(other.clone()),
            NetworkMode::Bridge | NetworkMode::None | NetworkMode::Network(_) => Stack::Own,
        };
        let listeners = match running {
            Some(running) if stack == Stack::Own => match &running.netns {
                Some(path) => self.listeners(Place::Pinned(path)),
                None => self.listeners(Place::Process(running.pid)),
            },
            _ => Ok(Vec::new()),
        };
        let on = view
            .endpoints
            .iter()
            .filter_map(|endpoint| Some((endpoint, self.networks.get(&endpoint.network)?.clone())));
        let on: Vec<_> = on.collect();
        let mut published = Vec::new();
        for (endpoint, network) in &on {
            for publication in &endpoint.publications {
                if is_worth_a_look(publication, question) {
                    published.push(self.published(publication, network, question));
                } else {
                    published.push(unlooked(publication, network));
                }
            }
        }
        let network = |(_, network): &(_, Network)| facts::Network {
            name: network.name.to_string(),
            is_internal: network.internal || network.driver != "bridge",
        };
        Sandbox {
            name: sandbox.config.name.to_string(),
            stack,
            is_running: running.is_some(),
            ports: sandbox.config.ports.clone(),
            networks: on.iter().map(network).collect(),
            published,
            listeners,
        }
    }

    fn published(&mut self, publication: &Publication, network: &Network, question: &Question) -> Published {
        let config = &self.state.settings.controller;
        let proxy = self.proxies.iter().find(|(held, _)| held == publication).and_then(|(_, pid)| *pid);
        let backend = self.controller().firewall_backend();
        let target = publication.target;
        let asked = match question {
            Question::Port(asked) => asked.address,
            Question::Sandbox(_) => None,
        };
        let meant = asked.map_or_else(|| publication.addresses.clone(), |address| vec![address]);
        let is_led_from = |address: &IpAddr| {
            !reason::is_for_the_proxy(backend.is_some(), config.userland_proxy, *address, target)
        };
        let has_rule = backend.is_some() && (publication.host.is_none() || meant.iter().any(is_led_from));
        let bridge = self.controller().bridge_of(network).to_string();
        let mut unseen = None;
        let is_led = match backend.filter(|_| has_rule) {
            None => None,
            Some(backend) => match self.is_led(backend, publication) {
                Ok(is_led) => Some(is_led),
                Err(why) => {
                    unseen = Some(why);
                    None
                }
            },
        };
        let mut obstacles = Vec::new();
        for packet in packets(publication, &meant, &bridge, has_rule) {
            match self.obstacles(&packet) {
                Ok(found) => obstacles.extend(found),
                Err(why) => unseen = Some(why),
            }
        }
        obstacles.dedup();
        Published {
            proxy,
            is_led,
            obstacles,
            unseen,
            route: route(target, network),
            ..unlooked(publication, network)
        }
    }

    fn is_led(&mut self, backend: Backend, publication: &Publication) -> Result<bool, String> {
        Ok(match backend {
            Backend::Nftables => match self.listings.get("nft", &["list", "table", "inet", "portmap"]) {
                Ok(listing) => firewall::is_led_by_nft(&listing, publication),
                // No such table: then there are no rules.
                Err(why) if why.contains("No such file") => false,
                Err(why) => return Err(why),
            },
            Backend::Iptables => {
                let save = if publication.target.is_ipv4() { "iptables-save" } else { "ip6tables-save" };
                firewall::is_led_by_iptables(&self.listings.get(save, &[])?, publication)
            }
        })
    }

    /// Rules of others, as both tools have them. One that isn't installed has none.
    fn obstacles(&mut self, packet: &Packet<'_>) -> Result<Vec<Obstacle>, String> {
        let missing = |why: &String| why.contains("command not found");
        let mut found = Vec::new();
        match self.listings.get("nft", &["-j", "list", "ruleset"]) {
            Ok(listing) => found.extend(firewall::nft::obstacles(&listing, packet)?),
            Err(why) if missing(&why) => {}
            Err(why) => return Err(why),
        }
        let (save, command) =
            if packet.is_ipv6 { ("ip6tables-save", "ip6tables") } else { ("iptables-save", "iptables") };
        match self.listings.get(save, &[]) {
            Ok(listing) => found.extend(firewall::iptables::obstacles(&listing, command, packet)),
            Err(why) if missing(&why) => {}
            Err(why) => return Err(why),
        }
        Ok(found)
    }

    fn listeners(&mut self, place: Place<'_>) -> Result<Vec<Listener>, String> {
        let all = kernel::listeners(place).map_err(|error| error.to_string())?;
        Ok(all
            .into_iter()
            .map(|socket| {
                let found = || {
                    kernel::holder(socket.inode).map(|holder| Process { pid: holder.pid, name: holder.name })
                };
                let by = self.holders.entry(socket.inode).or_insert_with(found).clone();
                Listener { proto: socket.proto, at: socket.local, by }
            })
            .collect())
    }
}

impl Listings {
    fn get(&mut self, program: &'static str, arguments: &[&'static str]) -> Result<String, String> {
        let key = arguments.last().copied().filter(|_| program == "nft").unwrap_or(program);
        let run = || HostTools.run(program, arguments, "").map_err(|error: ToolError| error.to_string());
        self.0.entry(key).or_insert_with(run).clone()
    }
}

/// Whether the publication is asked about, or could have been meant. Looking at others would cost for nothing.
fn is_worth_a_look(publication: &Publication, question: &Question) -> bool {
    match question {
        Question::Sandbox(_) => true,
        Question::Port(asked) => publication.host.unwrap_or(publication.container).contains(asked.port),
    }
}

fn unlooked(publication: &Publication, network: &Network) -> Published {
    Published {
        publication: publication.clone(),
        network: network.name.to_string(),
        proxy: None,
        is_led: None,
        obstacles: Vec::new(),
        unseen: None,
        route: Route::Direct,
    }
}

/// A publication's packets where rules look at them: from outside, or from this host if only its loopback is meant.
fn packets<'a>(
    publication: &Publication,
    meant: &[IpAddr],
    bridge: &'a str,
    is_led: bool,
) -> Vec<Packet<'a>> {
    let host = publication.host.unwrap_or(publication.container).first();
    let exact = match meant {
        [only] if !only.is_unspecified() => Some(*only),
        _ => None,
    };
    let is_local = publication.host.is_some() && meant.iter().all(IpAddr::is_loopback);
    let arriving = |hook| Packet {
        hook,
        proto: publication.proto,
        to: if publication.host.is_some() { exact } else { Some(publication.target) },
        is_ipv6: meant.first().unwrap_or(&publication.target).is_ipv6(),
        port: host,
        first_port: host,
        is_translated: false,
        by: is_local.then_some("lo"),
        bridge,
    };
    let forwarded = Packet {
        hook: Hook::Forward,
        to: Some(publication.target),
        is_ipv6: publication.target.is_ipv6(),
        port: publication.container.first(),
        is_translated: publication.host.is_some(),
        ..arriving(Hook::Forward)
    };
    if is_led {
        vec![arriving(Hook::Prerouting), forwarded]
    } else {
        vec![arriving(Hook::Prerouting), arriving(Hook::Input)]
    }
}

/// How the host reaches an address: by its own address there, which a socket that sends nothing gets from the kernel.
fn route(target: IpAddr, network: &Network) -> Route {
    let any: IpAddr = if target.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let asked = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::new(target, 9))?;
        socket.local_addr()
    });
    match asked {
        Err(_) => Route::None,
        Ok(from) if network.subnets.iter().any(|subnet| subnet.subnet.contains(&from.ip())) => Route::Direct,
        Ok(from) => Route::Elsewhere(from.ip()),
    }
}
