//! Our own options: from the command line, from the environment, and when they are wrong.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use e2e::lab::{Host, v4};
use e2e::servers::{self, TcpServer};
use e2e::traffic::{PAYLOAD, ask};
use e2e::wait;

use crate::{FRONT, tcp};

#[test]
fn options_come_from_the_environment_too() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let start = tcp(v4(FRONT), backend.addr)
        .variable("NETPROXY_CONNECT_TIMEOUT", "0.5")
        .variable("NETPROXY_UDP_TIMEOUT", "2m")
        .variable("NETPROXY_UDP_FLOWS", "100")
        .variable("NETPROXY_DRAIN", "0")
        .variable("NETPROXY_THREADS", "1")
        .variable("NETPROXY_ACCEPT_PROXY_PROTOCOL", "192.0.2.0/24, 2001:db8::/32")
        .variable("NETPROXY_SOURCE_IPS", "127.0.0.2, 127.0.0.3")
        .variable("NETPROXY_LOG_FILE", log.to_str().unwrap())
        .variable("NETPROXY_SOMETHING_ELSE", "is ignored");
    let proxy = start.serve(&host);
    assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
    proxy.stop();
    assert!(log.exists());
}

#[test]
fn wrong_values_are_reported() {
    let Some(host) = Host::new("host") else { return };
    for (option, value) in [
        ("connect-timeout", "0"),
        ("connect-timeout", "soon"),
        ("connect-timeout", "-1"),
        ("udp-timeout", "0"),
        ("udp-timeout", "1e9"),
        ("udp-flows", "0"),
        ("udp-flows", "many"),
        ("drain", "-1"),
        ("drain", "nan"),
        ("threads", "0"),
        ("proxy-protocol", ""),
        ("proxy-protocol", "2"),
        ("accept-proxy-protocol", ""),
        ("accept-proxy-protocol", "10.0.0.0/33"),
        ("accept-proxy-protocol", "127.0.0.1,localhost"),
        ("source-ips", ""),
        ("source-ips", "127.0.0.2,,127.0.0.3"),
        ("source-ips", "0.0.0.0"),
        ("log-file", ""),
        ("control-socket", ""),
    ] {
        // On the command line like any other flag that doesn't parse.
        let failed = tcp(v4(FRONT), v4(9000)).words([&format!("--{option}"), value]).fail(&host);
        assert_eq!((failed.code, failed.status.as_deref()), (2, Some("")), "--{option} {value}");
        let complaint = format!("invalid value {value:?} for flag -{option}: ");
        assert!(failed.stderr.contains(&complaint), "{}", failed.stderr);
        // In the environment it is nothing that dockerd could have got wrong: told through the status pipe.
        let variable = format!("NETPROXY_{}", option.to_uppercase().replace('-', "_"));
        let failed = tcp(v4(FRONT), v4(9000)).variable(&variable, value).fail(&host);
        let status = failed.status.unwrap_or_default();
        let complaint = format!("1\ninvalid value {value:?} in {variable}: ");
        assert!(failed.code == 1 && status.starts_with(&complaint), "{variable}={value}: {status:?}");
    }
}

#[test]
fn the_command_line_wins_over_the_environment() {
    let Some(host) = Host::new("host") else { return };
    let start = tcp(v4(FRONT), v4(9000)).words(["--drain", "0"]).variable("NETPROXY_DRAIN", "nonsense");
    start.serve(&host).stop();
}

#[test]
fn files_that_cannot_be_written_are_reported() {
    let Some(host) = Host::new("host") else { return };
    for option in ["--log-file", "--control-socket"] {
        let path = "/proc/nowhere/file";
        let failed = tcp(v4(FRONT), v4(9000)).words([option, path]).fail(&host);
        let status = failed.status.unwrap_or_default();
        assert!(failed.code == 1 && status.starts_with("1\n") && status.contains(path), "{status:?}");
    }
}

#[test]
fn errors_go_to_the_log_file_but_not_without_end() {
    let Some(host) = Host::new("host") else { return };
    let log = tempfile::NamedTempFile::new().unwrap();
    let start = tcp(v4(FRONT), v4(9000)).words(["--log-file", log.path().to_str().unwrap()]);
    let proxy = start.serve(&host);
    for _ in 0..100 {
        let _ = host.connect(v4(FRONT));
    }
    let text = || std::fs::read_to_string(log.path()).unwrap();
    wait::until("line about the refusal", || text().contains("127.0.0.1:9000 refused the connection"));
    proxy.stop();
    assert!(text().lines().count() <= 5, "a line for each refusal: {}", text());
}
