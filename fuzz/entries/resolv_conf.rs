//! The host's resolv.conf, and what becomes of it with options of any text: a byte of settings, the file, and the options,
//! one a line.

use std::net::IpAddr;
use std::path::Path;

use netcore::names::resolv_conf::{
    DnsOptions, EMBEDDED, Kind, Nameserver, Origin, ResolvConf, generate, parse_search, source,
};

use super::input::Input;

const LONGEST_LINE: usize = 64 * 1024;

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let file = input.section();
    let Ok(host) = ResolvConf::parse(file) else {
        assert!(
            file.split(|byte| *byte == b'\n').any(|line| line.len() > LONGEST_LINE),
            "refused for nothing"
        );
        return;
    };
    let dns = options(flags, &String::from_utf8_lossy(input.0));
    // A file of ours that ended up in the host's place is read again with nothing lost or added.
    for ipv6 in [false, true] {
        for kind in [Kind::Host, Kind::Legacy { ipv6 }, Kind::Embedded { ipv6 }] {
            check(&host, &dns, kind, ipv6);
        }
    }
}

fn options(flags: u8, text: &str) -> DnsOptions {
    let mut dns = DnsOptions::default();
    if flags & 1 != 0 {
        dns.servers = vec![IpAddr::from([192, 0, 2, flags]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])];
    }
    for (at, option) in text.lines().enumerate() {
        // What the command line lets through: domains are checked, options aren't.
        match parse_search(option) {
            Ok(domain) if at % 2 == 0 => dns.search.push(domain),
            _ => dns.options.push(option.to_owned()),
        }
    }
    dns
}

fn check(host: &ResolvConf, dns: &DnsOptions, kind: Kind, ipv6: bool) {
    let generated = generate(host, source(kind, host), dns, kind);
    let Ok(again) = ResolvConf::parse(generated.text.as_bytes()) else {
        // Many short lines of options become one long one.
        assert!(generated.text.lines().any(|line| line.len() > LONGEST_LINE));
        return;
    };
    assert_eq!(again.invalid, Vec::<String>::new(), "{:?}", generated.text);
    assert_eq!(again.others, host.others, "{:?}", generated.text);
    let named: Vec<Nameserver> = dns.servers.iter().copied().map(Nameserver::from).collect();
    let known = if named.is_empty() { &host.nameservers } else { &named };
    match kind {
        Kind::Host => assert_eq!(again.nameservers, *known),
        Kind::Legacy { .. } => {
            assert!(!again.nameservers.is_empty(), "nobody to ask");
            let usable = |server: &&Nameserver| {
                !server.ip.to_canonical().is_loopback() && (ipv6 || server.ip.is_ipv4())
            };
            let usable: Vec<&Nameserver> =
                known.iter().filter(|server| !named.is_empty() || usable(server)).collect();
            assert!(usable.is_empty() || again.nameservers.iter().eq(usable), "{:?}", generated.text);
        }
        Kind::Embedded { .. } => {
            assert_eq!(again.nameservers, [Nameserver::from(IpAddr::from(EMBEDDED))]);
            let asked: Vec<&Nameserver> =
                generated.upstreams.iter().map(|upstream| &upstream.server).collect();
            assert!(!asked.is_empty(), "nobody to ask");
            assert!(known.is_empty() || asked.into_iter().eq(known));
            let origin = if named.is_empty() { Origin::Host } else { Origin::Sandbox };
            assert!(generated.upstreams.iter().all(|upstream| upstream.origin == origin));
            assert!(again.options.iter().any(|option| option.starts_with("ndots:")), "{:?}", generated.text);
        }
    }
    // What was written has no options left to apply, so it is what it becomes.
    let path = Path::new("/etc/resolv.conf");
    let copied = generate(&again, path, &DnsOptions::default(), Kind::Host);
    assert_eq!(ResolvConf::parse(copied.text.as_bytes()).as_ref(), Ok(&again));
}
