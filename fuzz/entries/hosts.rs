//! `--add-host` and the lines of a hosts file that somebody may have edited: a section each for an extra name, lines of
//! ours, and the file.

use std::net::IpAddr;

use netcore::names::hosts::{ExtraHost, extra_lines, lines, own_names, with, without};

use super::input::Input;

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let [extra, ours] = [(); 2].map(|()| String::from_utf8_lossy(input.section()).into_owned());
    let file = String::from_utf8_lossy(input.0);
    let added = added(&extra);
    for ours in [added, ours] {
        check(&file, &ours);
    }
}

/// The lines of an extra name, if it is one, and of a sandbox's own.
fn added(text: &str) -> String {
    let own = lines([IpAddr::from([172, 22, 0, 3])], &own_names("c1.example.com", ""));
    let Ok(host) = text.parse::<ExtraHost>() else { return own };
    assert_eq!(host.to_string().parse::<ExtraHost>().as_ref(), Ok(&host), "{text:?}");
    let gateways = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])];
    for ipv6 in [false, true] {
        let lines = extra_lines(std::slice::from_ref(&host), &gateways, ipv6).expect("there are gateways");
        for line in lines.lines() {
            let (address, name) = line.split_once('\t').expect("an address and a name");
            assert!(address.parse::<IpAddr>().is_ok_and(|ip| ipv6 || ip.is_ipv4()), "{line:?}");
            assert_eq!(name, host.name);
        }
    }
    extra_lines(&[host], &gateways, true).expect("there are gateways") + &own
}

fn check(file: &str, ours: &str) {
    let longer = with(file, ours);
    assert!(longer.starts_with(file) && longer.ends_with(ours), "what was there stays");
    let kept = without(file, ours);
    assert_eq!(without(&longer, ours), kept, "what comes goes again: {file:?} {ours:?}");
    assert_eq!(without(&kept, ours), kept, "once is enough: {file:?} {ours:?}");
    let wanted =
        |line: &&str| !line.trim().is_empty() && !ours.split('\n').any(|our| bare(our) == bare(line));
    assert!(
        kept.split_terminator('\n').eq(file.split('\n').filter(wanted)),
        "a line is gone: {file:?} {ours:?}"
    );
}

fn bare(line: &str) -> &str {
    line.trim_end_matches('\r')
}
