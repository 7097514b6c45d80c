//! From the start to the end: the status pipe to the byte, failures to start, signals, exit codes.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::Duration;

use e2e::contract::{Difference, Subject};
use e2e::lab::{Host, v4, v6};
use e2e::servers::{self, TcpServer, UdpServer};
use e2e::traffic::{PAYLOAD, ask, ask_udp};
use nix::sys::signal::Signal;

e2e::contract! {
    every: [
        ready_is_two_bytes_and_the_end,
        a_signal_right_after_the_start_ends_it_with_0,
        sigterm_ends_it_with_0,
        the_death_of_its_parent_thread_ends_it,
        a_reader_that_left_does_not_stop_it,
        connections_are_cut_at_the_end,
    ],
    binding: [
        an_unknown_protocol_is_reported,
        an_occupied_port_is_reported,
        an_address_of_another_host_is_reported,
        a_privileged_port_needs_the_right,
        a_missing_target_port_is_reported,
        a_port_out_of_range_is_reported,
        without_a_port_there_is_nothing_to_listen_on,
        a_port_in_time_wait_can_be_bound_again,
    ],
}

fn ready_is_two_bytes_and_the_end(subject: &Subject, host: &Host) {
    // `serve` insists on exactly that.
    subject.tcp(host, v4(1000), v4(9000)).serve(host).stop();
    subject.tcp(host, v6(1000), v6(9000)).serve(host).stop();
    subject.udp(host, v4(1000), v4(9000)).serve(host).stop();
    subject.udp(host, v6(1000), v6(9000)).serve(host).stop();
}

fn a_signal_right_after_the_start_ends_it_with_0(subject: &Subject, host: &Host) {
    for _ in 0..20 {
        let mut proxy = subject.tcp(host, v4(1000), v4(9000)).spawn(host);
        proxy.ready();
        proxy.signal(Signal::SIGINT);
        let code = proxy.code();
        let killed = code == -(Signal::SIGINT as i32);
        assert!(code == 0 || (killed && subject.has(Difference::RacesWithSignals)), "exit status {code}");
    }
}

fn sigterm_ends_it_with_0(subject: &Subject, host: &Host) {
    let _backend = UdpServer::echo(host, v4(9000));
    let mut proxy = subject.udp(host, v4(1000), v4(9000)).serve(host);
    // An answer proves that it is past its start.
    assert_eq!(ask_udp(&host.udp(v4(0)), v4(1000), PAYLOAD).0, PAYLOAD);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_for(Duration::from_secs(1)).code(), Some(0));
}

fn the_death_of_its_parent_thread_ends_it(subject: &Subject, host: &Host) {
    let start = subject.tcp(host, v4(1000), v4(9000)).through(["setpriv", "--pdeathsig", "TERM", "--"]);
    let mut proxy = host.enter(|| {
        let mut proxy = start.spawn_here();
        proxy.ready();
        proxy
    });
    let code = proxy.code();
    let killed = code == -(Signal::SIGTERM as i32);
    assert!(code == 0 || (killed && subject.has(Difference::RacesWithSignals)), "exit status {code}");
}

fn a_reader_that_left_does_not_stop_it(subject: &Subject, host: &Host) {
    let _backend = TcpServer::start(host, v4(9000), servers::echo);
    let proxy = subject.tcp(host, v4(1000), v4(9000)).broken_status().spawn(host);
    let mut client = e2e::wait::some("listener", e2e::wait::PATIENCE, || host.connect(v4(1000)).ok());
    assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
    proxy.stop();
}

fn connections_are_cut_at_the_end(subject: &Subject, host: &Host) {
    let _backend = TcpServer::start(host, v4(9000), servers::echo);
    let proxy = subject.tcp(host, v4(1000), v4(9000)).serve(host);
    let mut client = host.connect(v4(1000)).unwrap();
    assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
    proxy.stop();
    let (rest, ending) = servers::read_to_ending(&mut client);
    assert!(rest.is_empty());
    assert_ne!(ending, servers::Ending::Open);
}

/// Exit status 1, and the status pipe says why: the text after `1\n`.
#[track_caller]
fn refused(subject: &Subject, host: &Host, words: &str) -> String {
    let failed = subject.with(&words.split_whitespace().collect::<Vec<_>>()).fail(host);
    assert_eq!(failed.code, 1, "{words}: {}", failed.stderr);
    let status = failed.status.unwrap_or_default();
    let message = status.strip_prefix("1\n").unwrap_or_else(|| panic!("{words}: status {status:?}"));
    assert!(!message.is_empty() && !message.ends_with('\n'), "{words}: status {status:?}");
    message.to_owned()
}

fn an_unknown_protocol_is_reported(subject: &Subject, host: &Host) {
    for protocol in ["xyz", "TCP", "tcp6", "17"] {
        let words = format!("-proto {protocol} -host-port 1000 -container-ip 127.0.0.1 -container-port 9000");
        if subject.has(Difference::SilentAboutProtocol) {
            let failed = subject.with(&words.split_whitespace().collect::<Vec<_>>()).fail(host);
            assert_eq!((failed.code, failed.status.as_deref()), (1, Some("")));
            continue;
        }
        assert_eq!(refused(subject, host, &words), format!("unsupported protocol {protocol}"));
    }
}

fn an_occupied_port_is_reported(subject: &Subject, host: &Host) {
    let (_tcp, _udp) = (host.listen(v4(1000)), host.udp(v4(1000)));
    let (_tcp6, _udp6) = (host.listen(v6(1000)), host.udp(v6(1000)));
    for protocol in ["tcp", "udp"] {
        for (ip, address) in [("127.0.0.1", "127.0.0.1:1000"), ("::1", "[::1]:1000")] {
            let words = format!("-proto {protocol} -host-ip {ip} -host-port 1000 -container-port 9000");
            bind_refused(subject, host, &words, address, "address already in use");
        }
    }
}

fn an_address_of_another_host_is_reported(subject: &Subject, host: &Host) {
    for (ip, address) in [("192.0.2.1", "192.0.2.1:1000"), ("2001:db8::1", "[2001:db8::1]:1000")] {
        let words = format!("-host-ip {ip} -host-port 1000 -container-port 9000");
        bind_refused(subject, host, &words, address, "cannot assign requested address");
    }
}

#[track_caller]
fn bind_refused(subject: &Subject, host: &Host, words: &str, address: &str, why: &str) {
    let message = refused(subject, host, words);
    if subject.has(Difference::BareBindError) {
        assert!(message.contains(&format!("{address}: bind: {why}")), "{message}");
    } else {
        assert_eq!(message, format!("failed to listen on {address}: {why}"));
    }
}

fn a_privileged_port_needs_the_right(subject: &Subject, host: &Host) {
    let words = ["-host-ip", "127.0.0.1", "-host-port", "80", "-container-port", "9000"];
    let without = ["setpriv", "--bounding-set", "-net_bind_service", "--inh-caps", "-net_bind_service", "--"];
    let failed = subject.with(&words).through(without).fail(host);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    let status = failed.status.unwrap_or_default();
    assert!(status.starts_with("1\n") && status.contains("permission denied"), "{status:?}");
    assert!(subject.is_ours() == status.contains("CAP_NET_BIND_SERVICE"), "{status:?}");
    // A port above the limit needs none.
    let words = ["-host-ip", "127.0.0.1", "-host-port", "1024", "-container-port", "9000"];
    subject.with(&words).through(without).serve(host).stop();
}

fn a_missing_target_port_is_reported(subject: &Subject, host: &Host) {
    for words in ["-host-port 1000 -container-ip 10.0.0.2", "-host-port 1000 -container-port 0"] {
        if subject.has(Difference::NoTargetCheck) {
            subject.with(&words.split_whitespace().collect::<Vec<_>>()).serve(host).stop();
        } else {
            let message = refused(subject, host, words);
            assert!(message.contains("-container-port"), "{message}");
        }
    }
}

fn a_port_out_of_range_is_reported(subject: &Subject, host: &Host) {
    for (flag, words) in [
        ("-host-port", "-host-port 65536 -container-port 9000"),
        ("-host-port", "-host-port -7 -container-port 9000"),
        ("-container-port", "-host-port 1000 -container-port 65536"),
        ("-container-port", "-host-port 1000 -container-port -7"),
        ("-container-port", "-host-port 1000 -container-port 0x10000"),
    ] {
        if subject.has(Difference::NoPortCheck) && flag == "-container-port" {
            subject.with(&words.split_whitespace().collect::<Vec<_>>()).serve(host).stop();
        } else {
            let message = refused(subject, host, words);
            assert!(subject.has(Difference::NoPortCheck) || message.contains(flag), "{words}: {message}");
        }
    }
}

fn without_a_port_there_is_nothing_to_listen_on(subject: &Subject, host: &Host) {
    let words = "-host-ip 127.0.0.1 -container-ip 127.0.0.1 -container-port 9000";
    let message = refused(subject, host, words);
    assert!(message.contains(if subject.is_ours() { "-host-port" } else { "invalid argument" }), "{message}");
}

fn a_port_in_time_wait_can_be_bound_again(subject: &Subject, host: &Host) {
    // The side that closes first keeps the pair in TIME_WAIT: here the proxy's.
    let backend = TcpServer::start(host, v4(9000), drop);
    let proxy = subject.tcp(host, v4(1000), backend.addr).serve(host);
    let mut client = host.connect(v4(1000)).unwrap();
    assert_eq!(servers::read_to_ending(&mut client), (Vec::new(), servers::Ending::Closed));
    drop(client);
    let lingering = || host.run("ss", &["-Htan", "state", "time-wait", "sport", "=", ":1000"]);
    e2e::wait::until("pair in TIME_WAIT", || !lingering().is_empty());
    proxy.stop();
    subject.tcp(host, v4(1000), backend.addr).serve(host).stop();
}
