use super::*;

const DOCKERD: &str =
    "-proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.17.0.2 -container-port 80";

fn parse_line(line: &str) -> Result<Command, Refusal> {
    parse_with(line, &[])
}

fn parse_with(line: &str, variables: &[(&str, &str)]) -> Result<Command, Refusal> {
    let words: Vec<String> = line.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    parse(&words, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
}

fn serve(line: &str) -> Serve {
    match parse_line(line) {
        Ok(Command::Serve(serve)) => *serve,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn every_spelling_go_takes() {
    let want = serve(DOCKERD).mapping;
    for line in [
        "--proto tcp --host-ip 0.0.0.0 --host-port 8080 --container-ip 172.17.0.2 --container-port 80",
        "-container-port=80 -container-ip=172.17.0.2 -host-port=8080 --host-ip=0.0.0.0",
        "-host-port 0x1f90 -container-ip 172.17.0.2 -container-port 0b1010000",
        "-host-port 1 -host-port 8_080 -container-ip ::ffff:172.17.0.2 -container-port 80",
        "-host-port 8080 -container-ip 172.17.0.2 -container-port 80 word -proto udp",
        "-host-port 8080 -container-ip 172.17.0.2 -container-port 80 -- -proto udp",
    ] {
        assert_eq!(serve(line).mapping, want, "{line}");
    }
}

#[test]
fn the_listening_socket_is_inherited_only_on_request() {
    assert_eq!(serve(DOCKERD).inherit, None);
    for (tail, inherit) in [
        (" -use-listen-fd", Some(1)),
        (" --use-listen-fd=true", Some(1)),
        (" -use-listen-fd -listen-fds 2", Some(2)),
        (" -use-listen-fd=false", None),
        (" -use-listen-fd=true -use-listen-fd=F", None),
    ] {
        assert_eq!(serve(&format!("{DOCKERD}{tail}")).inherit, inherit, "{tail}");
    }
    let range = serve("-host-port 7000-7999 -container-port 7000-7999 -container-ip 10.0.0.2 -use-listen-fd");
    assert_eq!(range.inherit, Some(1000));
    assert_eq!(serve("-container-ip 10.0.0.2 -container-port 80 -use-listen-fd").inherit, Some(1));
}

#[test]
fn words_that_are_no_flags_are_usage_errors() {
    for (line, want) in [
        ("-nope", "flag provided but not defined: -nope"),
        ("--nope=1", "flag provided but not defined: -nope"),
        ("-host-port", "flag needs an argument: -host-port"),
        ("-host-port abc", "invalid value \"abc\" for flag -host-port: parse error"),
        ("-host-ip ::1%lo", "invalid value \"::1%lo\" for flag -host-ip: invalid IP address: ::1%lo"),
        ("-use-listen-fd=maybe", "invalid boolean value \"maybe\" for -use-listen-fd: parse error"),
        ("---proto tcp", "bad flag syntax: ---proto"),
        ("-=tcp", "bad flag syntax: -=tcp"),
        (
            "-udp-timeout never",
            "invalid value \"never\" for flag -udp-timeout: seconds are needed, like 10, 0.5, 500ms or 2m",
        ),
        ("-udp-flows 0", "invalid value \"0\" for flag -udp-flows: a whole number from 1 up is needed"),
        ("-proxy-protocol v3", "invalid value \"v3\" for flag -proxy-protocol: v1 or v2 is needed"),
        (
            "-accept-proxy-protocol 10.0.0.0/8,10/8",
            "invalid value \"10.0.0.0/8,10/8\" for flag -accept-proxy-protocol: invalid CIDR address: 10/8",
        ),
        ("-source-ips 10.0.0.1,", "invalid value \"10.0.0.1,\" for flag -source-ips: invalid IP address: "),
        (
            "-source-ips ::",
            "invalid value \"::\" for flag -source-ips: :: is any address, a certain one is needed",
        ),
        ("-connect-timeout 0", "invalid value \"0\" for flag -connect-timeout: must be more than 0"),
    ] {
        assert_eq!(parse_line(line).unwrap_err(), Refusal::Usage(want.into()), "{line}");
    }
}

#[test]
fn what_cannot_be_served_is_a_configuration_error() {
    for (line, want) in [
        ("-proto xyz -host-port 1 -container-port 2", "unsupported protocol xyz"),
        ("-proto TCP -host-port 1 -container-port 2", "unsupported protocol TCP"),
        ("-host-port 70000 -container-port 80", "invalid -host-port 70000: ports go from 0 to 65535"),
        ("-host-port 80 -container-port -5", "invalid -container-port -5: ports go from 0 to 65535"),
        ("-host-port 82-80 -container-port 80-82", "invalid -host-port 82-80: the range descends"),
        ("-host-port 0-80 -container-port 1-81", "invalid -host-port 0-80: a range can't start at port 0"),
        ("-host-port 80-81 -container-port 80", "-host-port 80-81 and -container-port 80 differ in length"),
        ("-host-port 80", "no target port: give -container-port a port between 1 and 65535"),
        (
            "-host-port 80 -container-port 0",
            "no target port: give -container-port a port between 1 and 65535",
        ),
        ("-container-port 80", "no port to listen on: give -host-port a port or range"),
        (
            "-host-port 80 -container-ip 10.0.0.2 -container-port 80 -listen-fds 2",
            "-listen-fds counts what -use-listen-fd takes over: give both",
        ),
        (
            "-proto udp -host-port 80 -container-ip 10.0.0.2 -container-port 80 -proxy-protocol v2",
            "-proxy-protocol needs -proto tcp, not udp",
        ),
        (
            "-proto sctp -host-port 80 -container-ip 10.0.0.2 -container-port 80 -accept-proxy-protocol ::/0",
            "-accept-proxy-protocol needs -proto tcp, not sctp",
        ),
        (
            "-proto sctp -host-port 80 -container-ip 10.0.0.2 -container-port 80 -source-ips 10.0.0.1",
            "-source-ips needs -proto tcp or udp, not sctp",
        ),
        (
            "-host-port 80 -container-ip 10.0.0.2 -container-port 80 -source-ips 10.0.0.1,fd00::1",
            "-source-ips fd00::1 can't reach -container-ip 10.0.0.2: IPv4 and IPv6 don't mix",
        ),
    ] {
        assert_eq!(parse_line(line).unwrap_err(), Refusal::Config(want.into()), "{line}");
    }
}

#[test]
fn own_options_come_from_the_environment_unless_typed() {
    let env = [("NETPROXY_UDP_TIMEOUT", "30"), ("NETPROXY_DRAIN", "1.5"), ("NETPROXY_PROTO", "udp")];
    let Ok(Command::Serve(got)) = parse_with(&format!("{DOCKERD} -drain 2"), &env) else { panic!() };
    assert_eq!(got.options.udp_timeout, Duration::from_secs(30));
    assert_eq!(got.options.drain, Duration::from_secs(2));
    assert_eq!(
        got.mapping.protocol,
        Protocol::Tcp,
        "docker-proxy's own words never come from the environment"
    );
    assert_eq!(
        parse_with(DOCKERD, &[("NETPROXY_THREADS", "many")]).unwrap_err(),
        Refusal::Config(
            "invalid value \"many\" in NETPROXY_THREADS: a whole number from 1 up is needed".into()
        )
    );
}

#[test]
fn an_environment_for_all_mappings_holds_where_it_can() {
    let env = [
        ("NETPROXY_PROXY_PROTOCOL", "v2"),
        ("NETPROXY_ACCEPT_PROXY_PROTOCOL", "10.0.0.0/8, ::1"),
        ("NETPROXY_SOURCE_IPS", "10.0.0.1,fd00::1,::ffff:10.0.0.3"),
    ];
    let options = |line: &str| match parse_with(line, &env) {
        Ok(Command::Serve(serve)) => serve.options,
        other => panic!("{line}: {other:?}"),
    };
    let ips = |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    let tcp = options(DOCKERD);
    assert_eq!(tcp.proxy_protocol, Some(Version::V2));
    assert_eq!(tcp.accept_proxy_protocol.len(), 2);
    assert_eq!(tcp.source_ips, ips(&["10.0.0.1", "10.0.0.3"]));
    let udp = options("-proto udp -host-port 53 -container-ip fd00::2 -container-port 53");
    assert_eq!((udp.proxy_protocol, udp.accept_proxy_protocol.len()), (None, 0));
    assert_eq!(udp.source_ips, ips(&["fd00::1"]));
    let sctp = options("-proto sctp -host-port 53 -container-ip 10.0.0.2 -container-port 53");
    assert_eq!(sctp.source_ips, ips(&[]));
    // What is wrong as such is wrong for every mapping.
    let wrong =
        parse_with("-proto udp -host-port 53 -container-port 53", &[("NETPROXY_PROXY_PROTOCOL", "v3")]);
    assert!(matches!(wrong, Err(Refusal::Config(why)) if why.contains("v1 or v2")));
}

#[test]
fn version_help_and_stats_need_nothing_else() {
    for line in ["-v", "--version", "-version=true", "-proto xyz -v"] {
        assert!(matches!(parse_line(line), Ok(Command::Version)), "{line}");
    }
    for line in ["-h", "--help", "-h -nope"] {
        assert!(matches!(parse_line(line), Ok(Command::Help)), "{line}");
    }
    assert!(matches!(parse_line("--stats 42"), Ok(Command::Stats(who)) if who == "42"));
    for flag in FLAGS {
        assert!(help().contains(&format!("  -{}", flag.name)), "{}", flag.name);
    }
}
