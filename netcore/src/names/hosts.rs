//! `/etc/hosts` and `/etc/hostname` of a sandbox.

mod extra;

use std::net::IpAddr;

pub use extra::{BadExtraHost, ExtraAddress, ExtraHost, NoHostGateway, extra_lines};

const IPV4: &str = "127.0.0.1\tlocalhost\n";
const IPV6: &str = "::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// What every hosts file begins with; `ipv6` is whether the sandbox's loopback has `::1`.
pub fn template(ipv6: bool) -> String {
    if ipv6 { format!("{IPV4}{IPV6}") } else { IPV4.to_owned() }
}

/// What a sandbox is called under its own addresses: its hostname, or its full name and its hostname.
pub fn own_names(hostname: &str, domainname: &str) -> String {
    match hostname.split_once('.') {
        _ if !domainname.is_empty() => format!("{hostname}.{domainname} {hostname}"),
        Some((short, _)) => format!("{hostname} {short}"),
        None => hostname.to_owned(),
    }
}

/// A line for each address.
pub fn lines(addresses: impl IntoIterator<Item = IpAddr>, names: &str) -> String {
    addresses.into_iter().map(|address| format!("{address}\t{names}\n")).collect()
}

/// The file with further lines.
pub fn with(file: &str, lines: &str) -> String {
    let gap = if file.is_empty() || file.ends_with('\n') { "" } else { "\n" };
    format!("{file}{gap}{lines}")
}

/// The file without lines that are exactly these, whatever ends them. What somebody has altered stays; blank lines go, as
/// in Docker.
pub fn without(file: &str, lines: &str) -> String {
    // Not `str::lines`: it would take the carriage returns of lines that stay.
    let unwanted: Vec<&str> = lines.split('\n').map(bare).collect();
    let kept = file.split('\n').filter(|line| !line.trim().is_empty() && !unwanted.contains(&bare(line)));
    kept.map(|line| format!("{line}\n")).collect()
}

/// `/etc/hostname`.
pub fn hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}

fn bare(line: &str) -> &str {
    line.trim_end_matches('\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_template_and_the_sandboxes_own_lines() {
        let own = own_names("c1.example.com", "");
        let file = with(&template(true), &lines(["172.22.0.3".parse().unwrap()], &own));
        let joined = with(&file, &lines(["172.23.0.2", "fd5a:1:2:3::2"].map(|ip| ip.parse().unwrap()), &own));
        let want = "127.0.0.1\tlocalhost\n\
            ::1\tlocalhost ip6-localhost ip6-loopback\n\
            fe00::\tip6-localnet\n\
            ff00::\tip6-mcastprefix\n\
            ff02::1\tip6-allnodes\n\
            ff02::2\tip6-allrouters\n\
            172.22.0.3\tc1.example.com c1\n\
            172.23.0.2\tc1.example.com c1\n\
            fd5a:1:2:3::2\tc1.example.com c1\n";
        assert_eq!(joined, want);
        assert_eq!(template(false), "127.0.0.1\tlocalhost\n");
    }

    #[test]
    fn names_are_the_hostname_and_the_full_name_if_there_is_one() {
        let cases = [
            ("web", "", "web"),
            ("web", "example.com", "web.example.com web"),
            ("web.example.com", "", "web.example.com web"),
        ];
        for (host, domain, want) in cases {
            assert_eq!(own_names(host, domain), want);
        }
    }

    #[test]
    fn lines_go_only_if_nobody_altered_them() {
        let own = "172.22.0.3\tweb\n";
        let file = "127.0.0.1\tlocalhost\n\n# mine\n172.22.0.3\tweb\n172.22.0.3\tweb more\n172.22.0.31\tweb";
        let want = "127.0.0.1\tlocalhost\n# mine\n172.22.0.3\tweb more\n172.22.0.31\tweb\n";
        assert_eq!(without(file, own), want);
        assert_eq!(with("a", own), "a\n172.22.0.3\tweb\n");
    }

    #[test]
    fn lines_that_stay_keep_their_ends() {
        let file = "# mine\r\n172.22.0.3\tweb\r\n\r\n10.0.0.1\tdb\r\r\n";
        assert_eq!(without(file, "172.22.0.3\tweb\n"), "# mine\r\n10.0.0.1\tdb\r\r\n");
    }
}
