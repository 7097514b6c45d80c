//! Turns parsed specs into groups: sockets that must share one host port, in the order they are to be bound.
//!
//! Fills in the addresses a spec leaves open, takes IPv4-mapped addresses for what they are, puts exact ports before
//! choices (so that a choice can avoid them), and finds specs that get in each other's way before anything is bound.
//! Pure: whether the host can listen on IPv6 is a parameter.
//!
//! Not here: which number a choice ends up with (`allocator`), whether the kernel agrees (`reserve`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::allocator::addresses_conflict;
use super::ports::{BadPortRange, PortRange, Proto};
use super::spec::{HostPorts, PublishSpec};

/// What a spec without a host address gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostDefaults {
    /// The default host address. `0.0.0.0` means every address, of both families.
    pub address: IpAddr,
    /// Whether the host can listen on IPv6: see [`super::host_listens_on_ipv6`].
    pub ipv6: bool,
}

/// Every address, of both families.
impl Default for HostDefaults {
    fn default() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ipv6: true }
    }
}

/// Ports that are bound on several addresses under the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    proto: Proto,
    container: PortRange,
    host: HostPorts,
    addresses: Vec<IpAddr>,
    specs: Vec<usize>,
}

impl Group {
    /// Protocol on both sides.
    pub const fn proto(&self) -> Proto {
        self.proto
    }

    /// Container ports; more than one only if the host side is aligned with them.
    pub const fn container(&self) -> PortRange {
        self.container
    }

    /// Host ports, without port 0.
    pub const fn host(&self) -> HostPorts {
        self.host
    }

    /// Host addresses, IPv4 first, no two of which conflict.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// For each address the spec that wants it, as an index into what [`plan`] was given.
    pub fn specs(&self) -> &[usize] {
        &self.specs
    }

    /// Without the places that have their ports already; `port` says which, for an address and a spec. What is left gets the
    /// same. `None` if nothing is.
    pub(super) fn without(self, port: impl Fn(IpAddr, usize) -> Option<PortRange>) -> Option<Self> {
        let mut left = Self { addresses: Vec::new(), specs: Vec::new(), ..self };
        for (address, spec) in self.addresses.into_iter().zip(self.specs) {
            if let Some(port) = port(address, spec) {
                left.host = HostPorts::Aligned(port);
            } else {
                left.addresses.push(address);
                left.specs.push(spec);
            }
        }
        (!left.addresses.is_empty()).then_some(left)
    }
}

/// Why specs can't be published as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// Port 0 on the container side.
    #[error("invalid port specification: \"0/{0}\"")]
    ContainerPortZero(Proto),
    /// A choice of host ports that includes port 0.
    #[error(transparent)]
    Range(#[from] BadPortRange),
    /// The same spec, or one that means the same, more than once.
    #[error("{spec} is published twice{}", if spec == other { String::new() } else { format!(" (also as {other})") })]
    Twice {
        /// The spec.
        spec: String,
        /// The later one.
        other: String,
    },
    /// Two specs want one host port.
    #[error("{one} and {other} overlap: both want {place}")]
    Overlap {
        /// One spec.
        one: String,
        /// The other.
        other: String,
        /// What both want.
        place: String,
    },
}

/// One spec on one address. The order of the fields is the order of binding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: Key,
    address: IpAddr,
    spec: usize,
}

/// Equal keys share a host port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    choice: Choice,
    container: PortRange,
    proto: Proto,
    /// 0 for an ephemeral port.
    host: PortRange,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Choice {
    Exact,
    Free,
}

/// Works out what has to be bound for `specs`.
///
/// # Errors
/// If a spec uses port 0 where there is none, or two specs want the same host port.
pub fn plan(specs: &[PublishSpec], defaults: &HostDefaults) -> Result<Vec<Group>, BindingError> {
    let addresses: Vec<_> = specs.iter().map(|spec| host_addresses(spec.host_ip(), defaults)).collect();
    plan_on(specs, &addresses)
}

/// [`plan`], for each spec on addresses that are known already; a spec without any is only checked.
pub(super) fn plan_on(specs: &[PublishSpec], addresses: &[Vec<IpAddr>]) -> Result<Vec<Group>, BindingError> {
    let mut entries = Vec::new();
    for (index, (spec, addresses)) in specs.iter().zip(addresses).enumerate() {
        for key in keys(spec)? {
            entries.extend(addresses.iter().map(|address| Entry { key, address: *address, spec: index }));
        }
    }
    entries.sort_unstable();
    refuse_overlaps(&entries, specs)?;
    Ok(entries.chunk_by(|a, b| a.key == b.key).flat_map(groups).collect())
}

/// Entries with one key share a port, except where one address is the other's wildcard: those get a port each.
fn groups(entries: &[Entry]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for Entry { key, address, spec } in entries {
        let fits =
            |group: &&mut Group| !group.addresses.iter().any(|other| addresses_conflict(*address, *other));
        match groups.iter_mut().find(fits) {
            Some(group) => {
                group.addresses.push(*address);
                group.specs.push(*spec);
            }
            None => groups.push(Group {
                proto: key.proto,
                container: key.container,
                host: key.host_ports(),
                addresses: vec![*address],
                specs: vec![*spec],
            }),
        }
    }
    groups
}

impl Key {
    const fn host_ports(self) -> HostPorts {
        match self.choice {
            Choice::Exact => HostPorts::Aligned(self.host),
            Choice::Free if self.host.last() == 0 => HostPorts::Ephemeral,
            Choice::Free => HostPorts::OneOf(self.host),
        }
    }
}

/// IPv4 before IPv6.
pub(super) fn host_addresses(given: Option<IpAddr>, defaults: &HostDefaults) -> Vec<IpAddr> {
    match given.unwrap_or(defaults.address).to_canonical() {
        IpAddr::V4(ip) if given.is_none() && ip.is_unspecified() && defaults.ipv6 => {
            vec![ip.into(), Ipv6Addr::UNSPECIFIED.into()]
        }
        ip => vec![ip],
    }
}

/// A spec's container ports, together as long as their host ports are, else one by one.
fn keys(spec: &PublishSpec) -> Result<Vec<Key>, BindingError> {
    let (container, proto) = (spec.container(), spec.proto());
    if container.first() == 0 {
        return Err(BindingError::ContainerPortZero(proto));
    }
    let exact = |container, host| Key { choice: Choice::Exact, container, proto, host };
    let free =
        |container, host| Key { choice: Choice::Free, container: PortRange::single(container), proto, host };
    let any = PortRange::single(0);
    Ok(match spec.host() {
        HostPorts::Ephemeral => container.iter().map(|port| free(port, any)).collect(),
        HostPorts::OneOf(host) if host.first() == 0 => {
            return Err(BadPortRange { first: 0, last: host.last() }.into());
        }
        HostPorts::OneOf(host) => vec![free(container.first(), host)],
        HostPorts::Aligned(host) if host.first() == 0 => {
            let mut keys = vec![free(container.first(), any)];
            if let (Ok(rest), Ok(host)) =
                (PortRange::new(container.first() + 1, container.last()), PortRange::new(1, host.last()))
            {
                keys.push(exact(rest, host));
            }
            keys
        }
        HostPorts::Aligned(host) => vec![exact(container, host)],
    })
}

/// No two exact entries may want one port, and none may be there twice.
fn refuse_overlaps(entries: &[Entry], specs: &[PublishSpec]) -> Result<(), BindingError> {
    // Sorted as they are, equal ones are neighbours.
    for pair in entries.windows(2) {
        if pair[0].key == pair[1].key && pair[0].address == pair[1].address {
            let (spec, other) = named(&pair[0], &pair[1], specs);
            return Err(BindingError::Twice { spec, other });
        }
    }
    let exact = entries.partition_point(|entry| entry.key.choice == Choice::Exact);
    let mut exact: Vec<&Entry> = entries[..exact].iter().collect();
    // Sorted by their first ports, none meets one behind that begins after its end.
    exact.sort_by_key(|entry| (entry.key.proto, entry.key.host));
    for (at, one) in exact.iter().enumerate() {
        let near = |other: &&&Entry| {
            other.key.proto == one.key.proto && other.key.host.first() <= one.key.host.last()
        };
        for other in exact[at + 1..].iter().take_while(near) {
            if addresses_conflict(one.address, other.address)
                && let Some(common) = one.key.host.intersection(other.key.host)
            {
                let address = if one.address.is_unspecified() { other.address } else { one.address };
                let place = format!("{}/{}", SocketAddr::new(address, common.first()), one.key.proto);
                let (one, other) = named(one, other, specs);
                return Err(BindingError::Overlap { one, other, place });
            }
        }
    }
    Ok(())
}

/// The two specs, in the order they were given.
fn named(one: &Entry, other: &Entry, specs: &[PublishSpec]) -> (String, String) {
    let spec = |index: usize| specs[index].to_string();
    (spec(one.spec.min(other.spec)), spec(one.spec.max(other.spec)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(specs: &[&str], defaults: &HostDefaults) -> Result<Vec<String>, String> {
        let specs: Vec<PublishSpec> = specs.iter().map(|text| text.parse().unwrap()).collect();
        let groups = plan(&specs, defaults).map_err(|error| error.to_string())?;
        Ok(groups
            .iter()
            .map(|group| {
                let host = match group.host() {
                    HostPorts::Ephemeral => "eph".to_owned(),
                    HostPorts::Aligned(range) => range.to_string(),
                    HostPorts::OneOf(range) => format!("one of {range}"),
                };
                let addresses: Vec<String> = group.addresses().iter().map(IpAddr::to_string).collect();
                format!("{}/{} <- {} on {}", group.container(), group.proto(), host, addresses.join(" "))
            })
            .collect())
    }

    fn default_on(address: &str, ipv6: bool) -> HostDefaults {
        HostDefaults { address: address.parse().unwrap(), ipv6 }
    }

    #[test]
    fn a_missing_address_is_filled_in_from_the_default() {
        let cases = [
            ("8080:80", default_on("0.0.0.0", true), "80/tcp <- 8080 on 0.0.0.0 ::"),
            ("8080:80", default_on("0.0.0.0", false), "80/tcp <- 8080 on 0.0.0.0"),
            ("8080:80", default_on("127.0.0.1", true), "80/tcp <- 8080 on 127.0.0.1"),
            ("8080:80", default_on("::ffff:127.0.0.1", true), "80/tcp <- 8080 on 127.0.0.1"),
            ("8080:80", default_on("::", true), "80/tcp <- 8080 on ::"),
            ("8080:80", default_on("::1", true), "80/tcp <- 8080 on ::1"),
            ("0.0.0.0:8080:80", default_on("::1", true), "80/tcp <- 8080 on 0.0.0.0"),
            ("[::]:8080:80", default_on("0.0.0.0", true), "80/tcp <- 8080 on ::"),
            ("::ffff:127.0.0.1:8080:80", default_on("0.0.0.0", true), "80/tcp <- 8080 on 127.0.0.1"),
        ];
        for (spec, defaults, want) in cases {
            assert_eq!(planned(&[spec], &defaults), Ok(vec![want.to_owned()]), "{spec} {defaults:?}");
        }
    }

    #[test]
    fn exact_ports_come_first_and_equal_requests_share_a_group() {
        let specs = [
            "192.168.1.2::80",
            "[fd0c:9167:5b11::2]::80",
            "192.168.1.2::22",
            "[fd0c:9167:5b11::3]::22",
            "[fd0c:9167:5b11::2]::22",
            "192.168.1.2:12345-12346:12345",
            "192.168.1.2:12345:12345",
            "192.168.1.2:9:22/udp",
        ];
        let want = [
            "22/udp <- 9 on 192.168.1.2",
            "12345/tcp <- 12345 on 192.168.1.2",
            "22/tcp <- eph on 192.168.1.2 fd0c:9167:5b11::2 fd0c:9167:5b11::3",
            "80/tcp <- eph on 192.168.1.2 fd0c:9167:5b11::2",
            "12345/tcp <- one of 12345-12346 on 192.168.1.2",
        ];
        assert_eq!(planned(&specs, &HostDefaults::default()), Ok(want.map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_choice_on_a_wildcard_and_on_one_of_its_addresses_are_two_choices() {
        let want = ["80/tcp <- eph on 0.0.0.0 ::", "80/tcp <- eph on 127.0.0.1 ::1"];
        let got = planned(&["[::1]::80", "80", "127.0.0.1::80"], &HostDefaults::default());
        assert_eq!(got, Ok(want.map(str::to_owned).to_vec()));
    }

    #[test]
    fn choices_are_ordered_by_container_port_then_protocol() {
        let specs = ["8080-8083:81/udp", "8080-8083:81", "8080-8083:80/udp", "8080-8083:80"];
        let got = planned(&specs, &default_on("0.0.0.0", false)).unwrap();
        let order: Vec<&str> = got.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(order, ["80/tcp", "80/udp", "81/tcp", "81/udp"]);
    }

    #[test]
    fn aligned_ranges_stay_whole_and_ephemeral_ones_are_chosen_port_by_port() {
        let v4 = default_on("0.0.0.0", false);
        assert_eq!(planned(&["1-65535:1-65535"], &v4), Ok(vec!["1-65535/tcp <- 1-65535 on 0.0.0.0".into()]));
        assert_eq!(
            planned(&["80-81"], &v4),
            Ok(vec!["80/tcp <- eph on 0.0.0.0".into(), "81/tcp <- eph on 0.0.0.0".into()])
        );
        assert_eq!(
            planned(&["0-2:80-82"], &v4),
            Ok(vec!["81-82/tcp <- 1-2 on 0.0.0.0".into(), "80/tcp <- eph on 0.0.0.0".into()])
        );
    }

    #[test]
    fn port_zero_is_refused_where_there_is_none() {
        let cases = [
            (&["80:0"][..], "invalid port specification: \"0/tcp\""),
            (&["0-65535/udp"], "invalid port specification: \"0/udp\""),
            (&["0-5:80"], "invalid port range: 0-5"),
        ];
        for (specs, want) in cases {
            assert_eq!(planned(specs, &HostDefaults::default()), Err(want.to_owned()), "{specs:?}");
        }
    }

    #[test]
    fn specs_that_want_one_port_are_named() {
        let cases = [
            (&["8080:80", "8080:80"][..], "8080:80 is published twice"),
            (&["80", "80"], "80 is published twice"),
            (&["8080:80", "0.0.0.0:8080:80"], "8080:80 is published twice (also as 0.0.0.0:8080:80)"),
            (
                &["8080:80", "127.0.0.1:8080:80"],
                "8080:80 and 127.0.0.1:8080:80 overlap: both want 127.0.0.1:8080/tcp",
            ),
            (&["8080:80", "[::1]:8080:81"], "8080:80 and [::1]:8080:81 overlap: both want [::1]:8080/tcp"),
            (
                &["8000-8009:80-89", "8009-8010:90-91"],
                "8000-8009:80-89 and 8009-8010:90-91 overlap: both want 0.0.0.0:8009/tcp",
            ),
            (&["8000-8002:80", "8000-8002:80"], "8000-8002:80 is published twice"),
        ];
        for (specs, want) in cases {
            assert_eq!(planned(specs, &HostDefaults::default()), Err(want.to_owned()), "{specs:?}");
        }
    }

    #[test]
    fn many_specs_cost_no_more_than_their_number() {
        let specs: Vec<String> = (1_000..51_000).map(|port| format!("{port}:80")).collect();
        let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
        let begun = std::time::Instant::now();
        assert_eq!(planned(&specs, &HostDefaults::default()).map(|groups| groups.len()), Ok(50_000));
        // All with all would be five thousand million times.
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn specs_that_can_live_together_do() {
        let fine: [&[&str]; 5] = [
            &["8080:80", "8080:80/udp"],
            &["127.0.0.1:8080:80", "127.0.0.2:8080:80"],
            &["0.0.0.0:8080:80", "[::]:8080:80"],
            &["8080:80", "8080-8082:81"],
            &["8000-8002:80", "8000-8002:81"],
        ];
        for specs in fine {
            assert!(planned(specs, &HostDefaults::default()).is_ok(), "{specs:?}");
        }
    }
}
