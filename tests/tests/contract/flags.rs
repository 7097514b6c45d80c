//! The command line: Go's flag syntax, what is refused how, and what the two informative flags print.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::os::unix::fs::symlink;

use e2e::contract::{Difference, Subject};
use e2e::lab::{Host, v4, v6};
use e2e::proxy::Start;
use e2e::servers::{self, TcpServer};
use e2e::traffic::{PAYLOAD, ask};

e2e::contract! {
    every: [],
    binding: [
        every_spelling_is_understood,
        integers_are_read_as_go_reads_them,
        defaults_fill_what_is_left_out,
        a_mapped_address_counts_as_ipv4,
        bad_words_are_refused_without_a_status,
        text_for_an_address_is_refused,
        the_version_is_printed,
        help_names_every_flag,
    ],
}

/// Starts the proxy with these words; it must forward 127.0.0.1:`port` to an echo at 127.0.0.1:9000.
#[track_caller]
fn forwards(subject: &Subject, host: &Host, words: &str, port: u16) {
    let words: Vec<&str> = words.split_whitespace().collect();
    let proxy = subject.with(&words).serve(host);
    let mut client = host.connect(v4(port)).unwrap_or_else(|e| panic!("{words:?}: port {port}: {e}"));
    assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD, "{words:?}");
    drop(client);
    proxy.stop();
}

fn every_spelling_is_understood(subject: &Subject, host: &Host) {
    let _backend = TcpServer::start(host, v4(9000), servers::echo);
    for words in [
        // As the daemon has it, and as the old rootless wrapper has it.
        "-proto tcp -host-ip 127.0.0.1 -host-port 1000 -container-ip 127.0.0.1 -container-port 9000",
        "-container-ip 127.0.0.1 -container-port 9000 -host-ip 127.0.0.1 -host-port 1000 -proto tcp",
        "--proto tcp --host-ip 127.0.0.1 --host-port 1000 --container-ip 127.0.0.1 --container-port 9000",
        "-proto=tcp -host-ip=127.0.0.1 -host-port=1000 -container-ip=127.0.0.1 -container-port=9000",
        "--proto=tcp --host-ip=127.0.0.1 --host-port 1000 -container-ip=127.0.0.1 -container-port=9000",
        // The last of a kind wins.
        "-host-port 2000 -host-ip 127.0.0.1 -container-ip 127.0.0.1 -container-port 9000 -host-port 1000",
        "-host-ip 127.0.0.1 -host-port 1000 -container-ip 127.0.0.1 -container-port 1 -container-port=9000",
        // Flags end at `--`, at a lone dash and at the first word that is none; what follows is ignored.
        "-host-ip 127.0.0.1 -host-port 1000 -container-ip 127.0.0.1 -container-port 9000 -- -host-port 2000",
        "-host-ip 127.0.0.1 -host-port 1000 -container-ip 127.0.0.1 -container-port 9000 - -host-port 2000",
        "-host-ip 127.0.0.1 -host-port 1000 -container-ip 127.0.0.1 -container-port 9000 word -nonsense",
    ] {
        forwards(subject, host, words, 1000);
    }
}

fn integers_are_read_as_go_reads_them(subject: &Subject, host: &Host) {
    let _backend = TcpServer::start(host, v4(9000), servers::echo);
    for (number, port) in [
        ("0x50", 80),
        ("0X50", 80),
        ("0o120", 80),
        ("0120", 80),
        ("0b1010000", 80),
        ("+80", 80),
        ("1_000", 1000),
        ("0x_50", 80),
    ] {
        let words =
            format!("-host-ip 127.0.0.1 -host-port {number} -container-ip 127.0.0.1 -container-port 9_000");
        forwards(subject, host, &words, port);
    }
}

fn defaults_fill_what_is_left_out(subject: &Subject, host: &Host) {
    let _backend = TcpServer::start(host, v4(9000), servers::echo);
    // TCP, from every IPv4 address, to the host itself.
    let proxy = subject.with(&["-host-port", "1000", "-container-port", "9000"]).serve(host);
    let (answers, refuses) =
        if subject.has(Difference::TextForAddress) { (v6(1000), v4(1000)) } else { (v4(1000), v6(1000)) };
    assert_eq!(ask(&mut host.connect(answers).unwrap(), PAYLOAD), PAYLOAD);
    assert!(host.connect(refuses).is_err());
    proxy.stop();
}

fn a_mapped_address_counts_as_ipv4(subject: &Subject, host: &Host) {
    let _backend = TcpServer::start(host, v4(9000), servers::echo);
    let words =
        "-host-ip ::ffff:127.0.0.1 -host-port 1000 -container-ip ::ffff:127.0.0.1 -container-port 9000";
    forwards(subject, host, words, 1000);
}

fn bad_words_are_refused_without_a_status(subject: &Subject, host: &Host) {
    for (words, complaint) in [
        (&["-nonsense"][..], "flag provided but not defined: -nonsense"),
        (&["-host-port", "1000", "--nonsense=1"], "flag provided but not defined: -nonsense"),
        (&["-Proto", "tcp"], "flag provided but not defined: -Proto"),
        (&["-host-port"], "flag needs an argument: -host-port"),
        (&["-proto"], "flag needs an argument: -proto"),
        (&["---proto", "tcp"], "bad flag syntax: ---proto"),
        (&["-=tcp"], "bad flag syntax: -=tcp"),
        (&["-host-port", "http"], "invalid value \"http\" for flag -host-port: parse error"),
        (&["-host-port="], "invalid value \"\" for flag -host-port: parse error"),
        (&["-container-port", "80.0"], "invalid value \"80.0\" for flag -container-port: parse error"),
        (&["-container-port", "08"], "invalid value \"08\" for flag -container-port: parse error"),
        (&["-container-port", "80_"], "invalid value \"80_\" for flag -container-port: parse error"),
        (&["-container-port", "1e3"], "invalid value \"1e3\" for flag -container-port: parse error"),
    ] {
        let failed = subject.with(words).fail(host);
        assert_eq!(failed.code, 2, "{words:?}: {}", failed.stderr);
        assert_eq!(failed.status.as_deref(), Some(""), "{words:?}");
        assert!(failed.stderr.contains(complaint), "{words:?}: {}", failed.stderr);
        assert!(failed.stderr.contains("-container-port"), "the usage follows: {}", failed.stderr);
        assert_eq!(failed.stdout, "", "{words:?}");
    }
}

fn text_for_an_address_is_refused(subject: &Subject, host: &Host) {
    let _backend = TcpServer::start(host, v4(9000), servers::echo);
    for address in ["localhost", "127.0.0.256", "", "10.0.0.0/8", "[::1]"] {
        let words = ["-host-ip", address, "-host-port", "1000", "-container-port", "9000"];
        if subject.has(Difference::TextForAddress) {
            let proxy = subject.with(&words).serve(host);
            assert_eq!(ask(&mut host.connect(v6(1000)).unwrap(), PAYLOAD), PAYLOAD, "{address:?}");
            proxy.stop();
            continue;
        }
        let failed = subject.with(&words).fail(host);
        assert_eq!((failed.code, failed.status.as_deref()), (2, Some("")), "{address:?}: {}", failed.stderr);
        assert!(failed.stderr.contains("-host-ip"), "{address:?}: {}", failed.stderr);
    }
}

fn the_version_is_printed(subject: &Subject, host: &Host) {
    for word in ["-v", "--version", "-version=true"] {
        let failed = subject.with(&[word]).fail(host);
        if subject.has(Difference::NoVersion) {
            assert_eq!(failed.code, 2);
            continue;
        }
        assert_eq!((failed.code, failed.status.as_deref()), (0, Some("")), "{word}: {}", failed.stderr);
        let (commit, version) = failed.stdout.split_once(" version ").expect("a version");
        assert!(commit.contains(" (commit ") && commit.ends_with(')'), "{}", failed.stdout);
        assert!(version.ends_with('\n') && version.lines().count() == 1, "{}", failed.stdout);
    }
    if subject.is_ours() {
        // In docker-proxy's place it says docker-proxy: scripts look for that.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let alias = folder.path().join("docker-proxy");
        symlink(e2e::bin::netproxy(), &alias).expect("a link can be made");
        let said = Start::new(alias, ["-v"]).fail(host).stdout;
        assert!(said.starts_with("docker-proxy (commit "), "{said}");
    }
}

fn help_names_every_flag(subject: &Subject, host: &Host) {
    for word in ["-h", "--help"] {
        let failed = subject.with(&[word]).fail(host);
        assert_eq!((failed.code, failed.status.as_deref()), (0, Some("")), "{word}");
        let said = failed.stdout + &failed.stderr;
        for flag in ["-proto", "-host-ip", "-host-port", "-container-ip", "-container-port"] {
            assert!(said.contains(flag), "{word} doesn't tell of {flag}: {said}");
        }
    }
}
