use std::io::Write;

use netcore::firewall::{BackendChoice, PacketMark};

use super::*;

fn given(pairs: &[(&'static str, &str)]) -> Given {
    let mut given = Given::new();
    for (key, value) in pairs {
        given.entry(*key).or_default().push((*value).to_owned());
    }
    given
}

#[test]
fn flags_are_read_into_a_configuration() {
    let settings = Settings::of(&given(&[
        ("data-root", "/d"),
        ("exec-root", "/e"),
        ("bip", "10.1.0.1/24"),
        ("fixed-cidr", "10.1.0.128/25"),
        ("default-gateway", "10.1.0.254"),
        ("icc", "false"),
        ("ip", "127.0.0.1"),
        ("mtu", "1400"),
        ("ipv6", "T"),
        ("fixed-cidr-v6", "fd00::/64"),
        ("firewall-backend", "iptables"),
        ("default-address-pools", "base=10.10.0.0/16,size=24"),
        ("default-network-opts", "bridge=com.docker.network.driver.mtu=1234"),
        ("hosts", "unix:///tmp/a.sock"),
        ("hosts", "unix:///tmp/b.sock"),
        ("log-level", "warn"),
        ("log-format", "json"),
        ("userland-proxy-path", "/opt/proxy"),
        ("allow-direct-routing", "true"),
        ("bridge-accept-fwmark", "0x2/0xff"),
        ("dns", "10.0.0.53"),
        ("dns", "fd00::53"),
        ("dns-search", "corp.example."),
        ("dns-opts", "ndots:1"),
        ("dns-ttl", "600"),
        ("resolv-conf", "/etc/resolv.alt"),
        ("host-gateway-ips", "192.0.2.1"),
        ("host-gateway-ips", "2001:db8::1"),
        ("link-env", "false"),
    ]))
    .unwrap();
    let config = &settings.controller;
    assert_eq!(config.data_root, Path::new("/d"));
    assert_eq!(config.default_bridge.address, Some("10.1.0.1/24".parse().unwrap()));
    assert_eq!(config.default_bridge.gateway, Some("10.1.0.254".parse().unwrap()));
    assert!(!config.default_bridge.icc && config.default_bridge.ipv6 && config.default_bridge.masquerade);
    assert_eq!(config.default_bridge.mtu, 1400);
    assert_eq!(config.firewall_backend, BackendChoice::Iptables);
    assert_eq!(config.default_pools, ["base=10.10.0.0/16,size=24".parse().unwrap()]);
    assert_eq!(config.default_options["bridge"]["com.docker.network.driver.mtu"], "1234");
    assert_eq!(config.userland_proxy_path, Path::new("/opt/proxy"));
    assert!(config.allow_direct_routing);
    assert_eq!(config.accept_mark, Some(PacketMark { value: 2, mask: 0xff }));
    let dns = DnsOptions {
        servers: vec!["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
        search: vec!["corp.example".to_owned()],
        options: vec!["ndots:1".to_owned()],
    };
    assert_eq!((&config.dns, config.dns_ttl, config.link_env), (&dns, 600, false));
    assert_eq!(config.resolv_conf.as_deref(), Some(Path::new("/etc/resolv.alt")));
    assert_eq!(config.host_gateways, ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    assert_eq!(settings.hosts, [Path::new("/tmp/a.sock"), Path::new("/tmp/b.sock")]);
    assert_eq!(settings.pidfile, Path::new("/e/portmap.pid"));
    assert_eq!((settings.level, settings.json_logs), (Level::Warn, true));
}

#[test]
fn nothing_given_is_the_default() {
    let settings = Settings::of(&Given::new()).unwrap();
    assert_eq!(settings.controller, Config::default());
    assert_eq!(settings.level, Level::Info);
    assert_eq!(settings.hosts, [Path::new("/run/portmap/portmap.sock")]);
    assert!(settings.group.is_none());
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let cases = [
        (
            "icc",
            "maybe",
            "invalid argument \"maybe\" for \"--icc\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        (
            "bip",
            "10.0.0.300/24",
            "invalid argument \"10.0.0.300/24\" for \"--bip\" flag: invalid IP address syntax",
        ),
        ("log-level", "loud", "invalid logging level: loud"),
        ("log-format", "xml", "invalid log format: xml"),
        (
            "hosts",
            "tcp://0.0.0.0:2375",
            "unable to parse host `tcp://0.0.0.0:2375`: the daemon listens on unix:///PATH only",
        ),
        (
            "ip6tables",
            "false",
            "--ip6tables=false needs --iptables=false: rules are made for both families or for none",
        ),
        (
            "bridge-accept-fwmark",
            "x",
            "invalid argument \"x\" for \"--bridge-accept-fwmark\" flag: invalid firewall mark \"x\": VALUE or \
             VALUE/MASK, of 32 bits each, is needed",
        ),
        ("dns", "x", "invalid argument \"x\" for \"--dns\" flag: IP address is not correctly formatted: x"),
        (
            "dns-search",
            "a_b",
            "invalid argument \"a_b\" for \"--dns-search\" flag: a_b is not a valid domain",
        ),
        ("dns-ttl", "-1", "invalid argument \"-1\" for \"--dns-ttl\" flag: invalid digit found in string"),
        (
            "dns-ttl",
            "2147483648",
            "invalid argument \"2147483648\" for \"--dns-ttl\" flag: no more than 2147483647 seconds are possible",
        ),
        (
            "host-gateway-ips",
            "here",
            "invalid argument \"here\" for \"--host-gateway-ip\" flag: IP address is not correctly formatted: here",
        ),
        ("default-network-opts", "x", "invalid default network option \"x\": DRIVER=KEY=VALUE is needed"),
    ];
    for (key, value, want) in cases {
        assert_eq!(Settings::of(&given(&[(key, value)])).unwrap_err().to_string(), want, "{key}={value}");
    }
}

#[test]
fn the_host_is_one_address_of_each_family() {
    let read = |pairs: &[(&'static str, &str)]| {
        let settings = Settings::of(&given(pairs)).map_err(|error| error.to_string())?;
        Ok::<_, String>(settings.controller.host_gateways.len())
    };
    let (one, other) = (("host-gateway-ips", "192.0.2.1"), ("host-gateway-ips", "2001:db8::1"));
    assert_eq!(read(&[other, one]), Ok(2));
    let several = |family: &str| Err(format!("only one {family} host gateway IP address can be specified"));
    assert_eq!(read(&[one, other, one]), several("IPv4"));
    assert_eq!(read(&[other, one, other]), several("IPv6"));

    let old = parse_file(r#"{"host-gateway-ip": "192.0.2.1"}"#).unwrap();
    assert_eq!(old, given(&[one]));
    assert_eq!(parse_file(r#"{"host-gateway-ips": ["192.0.2.1"], "host-gateway-ip": ""}"#).unwrap(), old);
    assert!(refuse_conflicts(&given(&[other]), &old).is_err(), "whichever key the file has");
    let both = parse_file(r#"{"host-gateway-ips": ["192.0.2.1"], "host-gateway-ip": "192.0.2.1"}"#);
    assert_eq!(both.unwrap_err().to_string(), "host-gateway-ip and host-gateway-ips can't both be set");
}

#[test]
fn the_file_says_the_same_in_json() {
    let file = parse_file(
        r#"{"icc": false, "mtu": 1400, "bip": "10.1.0.1/24", "hosts": ["unix:///a", "unix:///b"],
            "default-address-pools": [{"base": "10.10.0.0/16", "size": 24}],
            "dns": ["10.0.0.53"], "dns-search": ["."], "dns-opts": ["rotate", "ndots:1"], "dns-ttl": 0,
            "resolv-conf": "/etc/resolv.alt", "link-env": false,
            "default-network-opts": {"bridge": {"k": "v=w"}}}"#,
    )
    .unwrap();
    assert_eq!(
        file,
        given(&[
            ("icc", "false"),
            ("mtu", "1400"),
            ("bip", "10.1.0.1/24"),
            ("hosts", "unix:///a"),
            ("hosts", "unix:///b"),
            ("default-address-pools", "base=10.10.0.0/16,size=24"),
            ("default-network-opts", "bridge=k=v=w"),
            ("dns", "10.0.0.53"),
            ("dns-search", "."),
            ("dns-opts", "rotate"),
            ("dns-opts", "ndots:1"),
            ("dns-ttl", "0"),
            ("resolv-conf", "/etc/resolv.alt"),
            ("link-env", "false"),
        ])
    );
    assert_eq!(parse_file(" \n").unwrap(), Given::new());
    for (text, want) in [
        (
            r#"{"iccc": true, "foo": 1}"#,
            "the following directives don't match any configuration option: foo, iccc",
        ),
        (r#"{"icc": "true"}"#, "invalid value \"true\" for icc: true or false is needed"),
        (r#"{"mtu": "1"}"#, "invalid value \"1\" for mtu: a number is needed"),
        (r#"{"hosts": "unix:///a"}"#, "invalid value \"unix:///a\" for hosts: a list is needed"),
    ] {
        assert_eq!(format!("{:#}", parse_file(text).unwrap_err()), want);
    }
    assert!(parse_file("{").is_err() && parse_file("[]").is_err());
}

#[test]
fn a_proxy_that_is_named_must_be_there_unless_none_is_wanted() {
    let nowhere = Path::new("/nonexistent/daemon.json");
    let read = |pairs: &[(&'static str, &str)]| Settings::read(given(pairs), Given::new(), nowhere, false);
    let missing = ("userland-proxy-path", "/nonexistent/proxy");
    let error = read(&[missing]).unwrap_err();
    assert!(
        format!("{error:#}").starts_with("invalid userland-proxy-path: /nonexistent/proxy: "),
        "{error:#}"
    );
    assert!(read(&[missing, ("userland-proxy", "false")]).is_ok());
    let there = read(&[("userland-proxy-path", "/proc/self/exe")]).unwrap();
    assert_eq!(there.controller.userland_proxy_path, Path::new("/proc/self/exe"));
}

#[test]
fn without_rules_there_are_doubts() {
    let doubts = |pairs: &[(&'static str, &str)]| Settings::of(&given(pairs)).unwrap().doubts;
    assert!(doubts(&[]).is_empty() && doubts(&[("userland-proxy", "false")]).is_empty());
    assert!(doubts(&[("iptables", "false")])[0].contains("hides the addresses of clients, because of"));
    let neither = doubts(&[("iptables", "false"), ("userland-proxy", "false")]);
    assert!(neither[0].starts_with("no port can be published"), "{neither:?}");
}

#[test]
fn flag_and_file_must_not_say_the_same() {
    let path = std::env::temp_dir().join(format!("portmap-settings-{}.json", std::process::id()));
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(br#"{"icc": true, "hosts": ["unix:///a"], "mtu": 1400}"#).unwrap();
    let flags = given(&[("icc", "false"), ("hosts", "unix:///b"), ("ipv6", "true")]);
    let error = Settings::read(flags, Given::new(), &path, true).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        format!(
            "unable to configure the portmap daemon with file {}: the following directives are specified both as a \
             flag and in the configuration file: hosts: (from flag: [unix:///b], from file: [unix:///a]), icc: (from \
             flag: false, from file: true)",
            path.display()
        )
    );
    assert_eq!(
        Settings::read(given(&[("ipv6", "true")]), Given::new(), &path, true)
            .unwrap()
            .controller
            .default_bridge
            .mtu,
        1400
    );
    std::fs::remove_file(&path).unwrap();
    assert!(Settings::read(Given::new(), Given::new(), &path, true).is_err());
    assert!(Settings::read(Given::new(), Given::new(), &path, false).is_ok());
}

#[test]
fn a_flag_is_stronger_than_a_variable_and_a_variable_than_the_file() {
    let path = std::env::temp_dir().join(format!("portmap-precedence-{}.json", std::process::id()));
    let file = r#"{"data-root": "/file", "exec-root": "/file", "hosts": ["unix:///file.sock"]}"#;
    std::fs::write(&path, file).unwrap();
    let read = |flags: &[(&'static str, &str)], variables: &[(&'static str, &str)]| {
        let settings = Settings::read(given(flags), given(variables), &path, true).unwrap();
        let roots = (settings.controller.data_root, settings.controller.exec_root);
        format!("{} {} {:?}", roots.0.display(), roots.1.display(), settings.hosts)
    };
    assert_eq!(read(&[], &[]), r#"/file /file ["/file.sock"]"#);
    let variables = [("data-root", "/var"), ("exec-root", "/var"), ("hosts", "unix:///var.sock")];
    assert_eq!(read(&[], &variables), r#"/var /var ["/var.sock"]"#);
    std::fs::write(&path, "{}").unwrap();
    let flags = [("data-root", "/flag"), ("hosts", "unix:///flag.sock")];
    assert_eq!(read(&flags, &variables), r#"/flag /var ["/flag.sock"]"#);
    assert_eq!(read(&[("exec-root", "/x")], &[]), r#"/var/lib/portmap /x ["/x/portmap.sock"]"#);
    assert_eq!(
        read(&[("exec-root", "/x"), ("hosts", "")], &[]),
        r#"/var/lib/portmap /x ["/x/portmap.sock"]"#
    );
    assert_eq!(
        read(&[("exec-root", "/x"), ("hosts", "unix://")], &[]),
        r#"/var/lib/portmap /x ["/x/portmap.sock"]"#
    );
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn whoever_started_it_finds_it() {
    let mut settings = Settings::of(&given(&[("hosts", "unix:///a")])).unwrap();
    settings.listen_on(Path::new("/b"));
    settings.listen_on(Path::new("/a"));
    assert_eq!(settings.hosts, [Path::new("/a"), Path::new("/b")]);
}
