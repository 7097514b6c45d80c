//! Whether our own rules lead packets to a sandbox: looked for in listings, element by element.

use std::net::IpAddr;

use netcore::model::Publication;
use netcore::publish::{PortRange, Proto};

/// Whether a listing of `nft list table inet portmap` has the elements of a publication, in the family of its target.
pub(in crate::daemon::explain) fn is_led_by_nft(listing: &str, publication: &Publication) -> bool {
    let mut name = "";
    let mut led = false;
    for line in listing.lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("map ").or_else(|| line.strip_prefix("set ")) {
            name = rest.trim_end_matches(" {");
        }
        let kind = if publication.host.is_some() { "dnat" } else { "open" };
        if !name.starts_with(kind) {
            continue;
        }
        let elements = line.trim_start_matches("elements = { ").trim_end_matches(['}', ',', ' ']);
        led |= elements.split(',').any(|element| is_element(element.trim(), publication));
    }
    led
}

/// `tcp . 8080 : 172.17.0.2 . 80`, also with an address in front; in routed mode `172.17.0.2 . tcp . 80`.
fn is_element(element: &str, publication: &Publication) -> bool {
    let (key, value) = element.split_once(" : ").map_or((element, None), |(key, value)| (key, Some(value)));
    let mut parts = key.rsplit(" . ");
    let (Some(ports), Some(proto)) = (parts.next().and_then(range), parts.next()) else { return false };
    let wanted = publication.host.unwrap_or(publication.container);
    let target = value.and_then(|value| value.split(" . ").next()).or_else(|| parts.next());
    proto.parse() == Ok::<Proto, _>(publication.proto)
        && ports.contains(wanted.first())
        && target.and_then(|target| target.parse().ok()) == Some(publication.target)
}

/// Whether a listing of `iptables-save` or `ip6tables-save` has the rule of a publication.
pub(in crate::daemon::explain) fn is_led_by_iptables(listing: &str, publication: &Publication) -> bool {
    let chain = if publication.host.is_some() { "-A PORTMAP-DNAT " } else { "-A PORTMAP-OPEN " };
    let wanted = publication.host.unwrap_or(publication.container);
    listing.lines().filter_map(|line| line.strip_prefix(chain)).any(|rule| {
        let words: Vec<&str> = rule.split_whitespace().collect();
        let after = |flag: &str| words.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1]);
        let leads_to = after("--to-destination").and_then(destination);
        let enters = after("-d").and_then(|address| address.split('/').next()?.parse().ok());
        let target = if publication.host.is_some() { leads_to } else { enters };
        after("-p").and_then(|proto| proto.parse().ok()) == Some(publication.proto)
            && after("--dport").and_then(range).is_some_and(|ports| ports.contains(wanted.first()))
            && target == Some(publication.target)
    })
}

/// The address of `172.17.0.2:80`, `[fd00::2]:80-89/8080` or an address alone.
fn destination(text: &str) -> Option<IpAddr> {
    if let Some((address, _)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.parse().ok();
    }
    text.parse().ok().or_else(|| text.split_once(':')?.0.parse().ok())
}

/// `80`, `80-89` or `80:89`.
pub(super) fn range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once(['-', ':']).unwrap_or((text, text));
    PortRange::new(first.parse().ok()?, last.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(container: &str, host: Option<&str>, target: &str) -> Publication {
        Publication {
            spec: "80".parse().unwrap(),
            proto: Proto::Tcp,
            container: range(container).unwrap(),
            host: host.and_then(range),
            addresses: vec!["0.0.0.0".parse().unwrap()],
            target: target.parse().unwrap(),
        }
    }

    #[test]
    fn our_elements_are_found_in_a_listing() {
        let listing = "
            map dnat_any4 {
                type inet_proto . inet_service : ipv4_addr . inet_service
                elements = { udp . 8080 : 172.17.0.3 . 80,
                             tcp . 8080 : 172.17.0.2 . 80, tcp . 9 : 172.17.0.2 . 9 }
            }
            map dnat_range4 {
                elements = { 192.0.2.1 . tcp . 9000-9009 : 172.17.0.2 }
            }
            set open6 {
                elements = { fd00::2 . tcp . 80 }
            }
        ";
        let cases = [
            (publication("80", Some("8080"), "172.17.0.2"), true),
            (publication("80", Some("8080"), "172.17.0.3"), false),
            (publication("80", Some("8081"), "172.17.0.2"), false),
            (publication("9000-9009", Some("9000-9009"), "172.17.0.2"), true),
            (publication("80", None, "fd00::2"), true),
            (publication("81", None, "fd00::2"), false),
        ];
        for (publication, want) in cases {
            assert_eq!(is_led_by_nft(listing, &publication), want, "{publication:?}");
            assert!(!is_led_by_nft("", &publication));
        }
    }

    #[test]
    fn our_rules_are_found_in_a_listing() {
        let listing = "
-A PORTMAP-DNAT ! -i portmap0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A PORTMAP-DNAT ! -i portmap0 -p tcp -m tcp --dport 7000:7003 -j DNAT --to-destination 172.17.0.2:70-73/7000
-A PORTMAP-DNAT -p tcp -m tcp --dport 9 -j DNAT --to-destination [fd00::2]:9
-A PORTMAP-DNAT -p tcp -m tcp --dport 10:11 -j DNAT --to-destination fd00::2
-A PORTMAP-OPEN -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT
";
        let cases = [
            (publication("80", Some("8080"), "172.17.0.2"), true),
            (publication("80", Some("8080"), "172.17.0.9"), false),
            (publication("70-73", Some("7000-7003"), "172.17.0.2"), true),
            (publication("9", Some("9"), "fd00::2"), true),
            (publication("10-11", Some("10-11"), "fd00::2"), true),
            (publication("80", None, "172.17.0.2"), true),
            (publication("70", None, "172.17.0.2"), false),
        ];
        for (publication, want) in cases {
            assert_eq!(is_led_by_iptables(listing, &publication), want, "{publication:?}");
        }
    }
}
