//! What others on a wire keep of a sandbox, and what the bridge does with its ports.

use super::lab::Lab;

fn idle(lab: &Lab, name: &str, flags: &[&str]) {
    lab.ok(&[&["run", "-d", "--name", name], flags, &["--", "sleep", "infinity"]].concat());
}

#[test]
fn an_address_that_moved_is_announced() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--ipv6", "--subnet", "10.10.0.0/24", "--subnet", "fd00:10::/64", "one"]);
    let fixed = ["--net", "one", "--ip", "10.10.0.5", "--ip6", "fd00:10::5"];
    idle(&lab, "peer", &["--net", "one"]);
    lab.serve("before", &fixed);
    let peer = lab.sandbox("peer");
    let hosts = ["10.10.0.5", "fd00:10::5"];
    for to in [lab.v4("before", "one"), lab.v6("before", "one")] {
        assert!(peer.connects(to), "{to}");
    }
    let known = |host: &str| peer.ip(&format!("neighbour show {host}"));
    let mac = |name: &str| {
        lab.sandbox(name).ip("-o link show eth0").split("link/ether ").nth(1).unwrap()[..17].to_owned()
    };
    let old = mac("before");
    for host in hosts {
        assert!(known(host).contains(&old), "{}", known(host));
    }
    lab.ok(&["rm", "-f", "before"]);
    lab.serve("after", &fixed);
    let new = mac("after");
    assert_ne!(old, new);
    // Without a packet of the peer's own: it would find out only after half a minute.
    for host in hosts {
        e2e::wait::until("the news", || known(host).contains(&new));
    }
    for to in [lab.v4("after", "one"), lab.v6("after", "one")] {
        assert!(peer.connects(to), "{to}");
    }
}

#[test]
fn a_port_reflects_only_where_no_proxy_helps() {
    for (flags, want) in [(&[][..], "hairpin off"), (&["--userland-proxy=false"], "hairpin on")] {
        let Some(lab) = Lab::new(flags) else { return };
        idle(&lab, "alpha", &[]);
        let ports = lab.host.run("bridge", &["-d", "link"]);
        assert!(ports.contains(want), "{flags:?}: {ports}");
    }
}

#[test]
fn a_sandbox_has_the_settings_of_a_stack_of_its_own() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--ipv6", "both"]);
    let settings =
        "net.ipv4.ip_unprivileged_port_start net.ipv4.ping_group_range net.ipv6.conf.eth0.disable_ipv6";
    let read = |network: &str| {
        let words: Vec<&str> = ["run", "--rm", "--net", network, "--", "sysctl", "-n"]
            .into_iter()
            .chain(settings.split(' '))
            .collect();
        lab.ok(&words).replace('\t', " ")
    };
    assert_eq!(read("bridge"), "0\n0 2147483647\n1");
    assert_eq!(read("both"), "0\n0 2147483647\n0");
    // Whoever is on the bridge must not be advised by a sandbox.
    assert_eq!(lab.host.run("cat", &["/proc/sys/net/ipv6/conf/portmap0/accept_ra"]).trim(), "0");
    assert_eq!(lab.host.run("cat", &["/proc/sys/net/ipv4/ip_unprivileged_port_start"]).trim(), "1024");
}
