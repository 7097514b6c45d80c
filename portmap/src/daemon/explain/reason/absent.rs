//! Ports and sandboxes that nothing is published of, and what they could have been meant to be.

use std::net::IpAddr;

use netcore::publish::{ExposedProto, HostPorts, PublishSpec};

use super::super::facts::{Facts, Process, Published, Sandbox};
use super::super::question::HostPort;
use super::super::{Mark, Report};
use super::{Walk, by, is_meant, named, report, shared};

/// A port that is led nowhere.
pub(super) fn port(facts: &Facts, asked: HostPort) -> Report {
    let HostPort { port, proto, address } = asked;
    let place = address.map_or_else(String::new, |address| format!(" at {address}"));
    let mut walk = Walk::new(format!("{port}/{proto}{place}"));
    for sandbox in &facts.sandboxes {
        if sandbox.is_running { near(&mut walk, sandbox, asked) } else { stopped(&mut walk, sandbox, asked) }
    }
    // Sockets of ours that lead there would have been found by what they publish.
    let is_ours =
        |process: &Process| process.pid == facts.host.daemon || facts.host.proxies.contains(&process.pid);
    let strangers = facts.host.listeners.iter().filter(|listener| !listener.by.as_ref().is_some_and(is_ours));
    let holder = strangers.into_iter().find(|listener| {
        let hears = |address| super::hears(listener, address) || listener.at.ip() == address;
        listener.proto == proto && listener.at.port() == port && address.is_none_or(hears)
    });
    let Some(holder) = holder else {
        let what = if walk.steps.is_empty() {
            "no sandbox publishes it, and nothing on the host listens there"
        } else {
            "nothing on the host listens there"
        };
        walk.no(what, format!("Publish it: portmap publish SANDBOX -p {port}:PORT/{proto}"));
        return report(vec![walk]);
    };
    walk.yes(format!("{} listens on {} on the host", by(holder), holder.at));
    let who = holder.by.as_ref().map_or_else(|| "another process".to_owned(), named);
    let clash = walk.steps.iter().any(|step| step.mark == Mark::No);
    let advice = if clash {
        format!(
            "It is answered by {who}, not by a sandbox. End that one first, then: {}",
            walk.advice.take().unwrap_or_default()
        )
    } else {
        format!("It is answered by {who}, not by a sandbox.")
    };
    let answered = report(vec![walk]);
    Report { answers: true, advice, ..answered }
}

/// A sandbox that doesn't run, and would publish the port.
fn stopped(walk: &mut Walk, sandbox: &Sandbox, asked: HostPort) {
    if sandbox.ports.publish.iter().any(|spec| is_wanted(spec, asked)) {
        let name = &sandbox.name;
        walk.no(format!("{name} publishes it, but doesn't run"), format!("Start it: portmap start {name}"));
    }
}

/// A sandbox that runs, and has something to do with the port.
fn near(walk: &mut Walk, sandbox: &Sandbox, asked: HostPort) {
    let HostPort { port, proto, address } = asked;
    let name = &sandbox.name;
    for published in &sandbox.published {
        let publication = &published.publication;
        let other = HostPort { proto: publication.proto, ..asked };
        let anywhere = HostPort { address: None, ..asked };
        let listed = |text: fn(&IpAddr) -> String| publication.addresses.iter().map(text).collect::<Vec<_>>();
        let places = listed(ToString::to_string).join(" and ");
        if publication.proto != proto && is_meant(publication, other) {
            let other = publication.proto;
            walk.no(
                format!("{name} publishes {port}/{other}, not {port}/{proto}"),
                format!("Ask for {port}/{other}, or publish {proto} too: portmap publish {name} -p {port}:{port}/{proto}"),
            );
        } else if let Some(address) = address
            && is_meant(publication, anywhere)
            && publication.host.is_some()
        {
            let family = |is_ipv6| if is_ipv6 { "IPv6" } else { "IPv4" };
            let only = publication.addresses.iter().all(|own| own.is_ipv6() != address.is_ipv6());
            let (why, is_v6) = (family(address.is_ipv6()), !address.is_ipv6());
            let inside = super::inside(publication, port);
            let advice = format!(
                "Use {}, or publish it there too: portmap publish {name} -p {}:{inside}/{proto}",
                listed(usable).join(" or "),
                super::socket(address, netcore::publish::PortRange::single(port))
            );
            if only {
                walk.no(
                    format!("{name} publishes it on {} only, at {places}, and not on {why}", family(is_v6)),
                    advice,
                );
            } else {
                walk.no(format!("{name} publishes it only at {places}"), advice);
            }
        } else if publication.proto == proto
            && publication.container.contains(port)
            && let Some(host) = publication.host
        {
            let at = host.first() + (port - publication.container.first());
            walk.no(
                format!("{name} publishes its port {port}/{proto} as {at} of the host"),
                format!("Use port {at}."),
            );
        }
    }
    if walk.steps.iter().any(|step| step.text.starts_with(&format!("{name} publishes"))) {
        return;
    }
    let routed = sandbox.published.iter().find(|published| {
        published.publication.host.is_none() && is_wanted(&published.publication.spec, asked)
    });
    if let Some(Published { publication, network, .. }) = routed {
        let itself = super::socket(publication.target, publication.container);
        return walk.no(
            format!(
                "{name} asks for it, but network {network} is in routed mode and takes no port of the host's"
            ),
            format!("Use the sandbox's own address: {itself}"),
        );
    }
    if sandbox.ports.publish.iter().any(|spec| is_wanted(spec, asked)) {
        let (what, advice) = nothing_leads(sandbox);
        return walk.no(format!("{name} asks for it, but {what}"), advice);
    }
    let publish = format!("Publish it: portmap publish {name} -p {port}:{port}/{proto}");
    let is_exposed = sandbox
        .ports
        .expose
        .iter()
        .any(|spec| spec.ports().contains(port) && *spec.proto() == ExposedProto::Known(proto));
    let listens = sandbox.listeners.iter().flatten().find(|l| l.proto == proto && l.at.port() == port);
    match shared(&sandbox.stack) {
        Some(_) => {}
        None if is_exposed => {
            walk.no(format!("{name} exposes {port}/{proto}, which publishes nothing"), publish)
        }
        None => {
            if let Some(listener) = listens {
                walk.no(
                    format!(
                        "{} listens on {} in {name}, which doesn't publish it",
                        by(listener),
                        listener.at
                    ),
                    publish,
                );
            }
        }
    }
}

/// A sandbox that has nothing published.
pub(super) fn sandbox(sandbox: &Sandbox) -> Walk {
    let name = &sandbox.name;
    let mut walk = Walk::new(name.clone());
    if let Some(why) = shared(&sandbox.stack) {
        walk.no(why, "Run it on a network of its own to publish ports: portmap run -p …");
    } else if !sandbox.is_running {
        walk.no("it doesn't run", format!("Start it: portmap start {name}"));
    } else if sandbox.ports.publish.is_empty() && !sandbox.ports.publish_all {
        let exposed: Vec<String> = sandbox.ports.expose.iter().map(ToString::to_string).collect();
        if !exposed.is_empty() {
            walk.note(format!("{} is exposed, which publishes nothing", exposed.join(", ")));
        }
        walk.no("it publishes no ports", format!("Publish one: portmap publish {name} -p 8080:80"));
    } else if sandbox.ports.publish.is_empty() && sandbox.ports.expose.is_empty() {
        walk.no(
            "it publishes all exposed ports (-P), but exposes none",
            format!("Publish one: portmap publish {name} -p 8080:80"),
        );
    } else {
        let (what, advice) = nothing_leads(sandbox);
        walk.no(what, advice);
    }
    walk
}

/// Why nothing is published of a sandbox that asks for it.
fn nothing_leads(sandbox: &Sandbox) -> (String, String) {
    let name = &sandbox.name;
    let advice = format!("Connect it to a network that has a way out: portmap network connect bridge {name}");
    let networks: Vec<&str> = sandbox.networks.iter().map(|network| network.name.as_str()).collect();
    if networks.is_empty() {
        return ("it is on no network".to_owned(), advice);
    }
    let what = if sandbox.networks.iter().all(|network| network.is_internal) {
        format!("it is only on internal networks ({}), which nothing is published of", networks.join(", "))
    } else {
        format!(
            "nothing leads to it from the host: none of its networks ({}) has the default route",
            networks.join(", ")
        )
    };
    (what, advice)
}

/// What a client can dial to get to a socket at this address.
fn usable(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => "an IPv4 address of the host".to_owned(),
        IpAddr::V6(any) if any.is_unspecified() => "an IPv6 address of the host".to_owned(),
        one => one.to_string(),
    }
}

/// Whether a spec names this port of the host's.
fn is_wanted(spec: &PublishSpec, asked: HostPort) -> bool {
    let has = match spec.host() {
        HostPorts::Ephemeral => false,
        HostPorts::Aligned(ports) | HostPorts::OneOf(ports) => ports.contains(asked.port),
    };
    let there = match (spec.host_ip(), asked.address) {
        (Some(own), Some(address)) => super::covers(own.to_canonical(), address),
        _ => true,
    };
    spec.proto() == asked.proto && has && there
}
