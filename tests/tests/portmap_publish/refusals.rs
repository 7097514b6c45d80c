//! What is refused, and in which words.

use super::*;

#[test]
fn a_busy_port_stops_everything_with_dockers_words() {
    in_namespace(|| {
        let _holder = TcpListener::bind((ANY, 8081)).unwrap();
        let line = refusal(&["-p", "8080:80", "-p", "8081:81", "-p", "8082:82/udp", "127.0.0.1"]);
        let by = format!("(by portmap_publish, process {})", std::process::id());
        assert_eq!(line, format!("failed to bind host port 0.0.0.0:8081/tcp: address already in use {by}"));
        for port in [8080, 8082] {
            assert!(can_bind((ANY, port)), "{port} is free again");
        }
        let line = refusal(&["-p", "192.0.2.9:8080:80", "127.0.0.1"]);
        assert_eq!(line, "failed to bind host port 192.0.2.9:8080/tcp: cannot assign requested address");
        let line = refusal(&["-p", "[fe80::1]:8080:80", "127.0.0.1"]);
        assert_eq!(
            line,
            "failed to bind host port [fe80::1]:8080/tcp: invalid argument (a link-local address says nothing \
             without its interface, which -p can't name: publish on [::] instead)"
        );
    });
}

#[test]
fn an_ordinary_user_may_publish_ordinary_ports() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        // The build directory may be closed to others, so the user gets copies.
        let folder = tempfile::tempdir().unwrap();
        let programs = [bin::portmap(), bin::netproxy()];
        sh("chmod 755 \"$0\"; cp \"$1\" \"$2\" \"$0\"", &[folder.path(), &programs[0], &programs[1]]);
        let as_nobody = |words: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
            command.arg(folder.path().join("portmap")).args(words);
            command
        };
        let _portmap = Portmap::start_command(2, as_nobody(&["-p", "8080:80", "127.0.0.1"]));
        assert_eq!(ask_tcp((V4, 8080)), "web");
        assert_eq!(
            refusal_of(as_nobody(&["-p", "443:80", "127.0.0.1"])),
            "failed to bind host port 0.0.0.0:443/tcp: permission denied \
             (ports below 1024 need CAP_NET_BIND_SERVICE or root)"
        );
    });
}

#[test]
fn specs_in_each_others_way_are_named() {
    let line = refusal(&["-p", "8080:80", "-p", "127.0.0.1:8080:81", "127.0.0.1"]);
    assert_eq!(line, "8080:80 and 127.0.0.1:8080:81 overlap: both want 127.0.0.1:8080/tcp");
    assert_eq!(refusal(&["-p", "8080:80", "-p", "8080:80", "127.0.0.1"]), "8080:80 is published twice");
}

#[test]
fn publishing_to_oneself_is_refused() {
    in_namespace(|| {
        let loops: [&[&str]; 4] = [
            &["-p", "8080:8080", "127.0.0.1"],
            &["-p", "[::1]:8080:8080", "::1"],
            &["-p", "8000-8010:8005-8015", "localhost"],
            &["-p", "8080:8081", "-p", "8081:8080", "127.0.0.1"],
        ];
        for words in loops {
            let line = refusal(words);
            assert!(
                line.starts_with("cannot publish to ")
                    && line.ends_with("/tcp: this very command listens there"),
                "{line}"
            );
        }
        // The same number on another address is no loop.
        tcp_echo((V4, 8080), "web");
        let _portmap = Portmap::start(1, &["-p", "127.0.0.2:8080:8080", "127.0.0.1"]);
        assert_eq!(ask_tcp(([127, 0, 0, 2], 8080)), "web");
    });
}

#[test]
fn bad_specs_get_dockers_text() {
    let cases = [
        ("", "no port specified: <empty>"),
        ("8080:", "no port specified: 8080:<empty>"),
        ("80/xyz", "invalid proto: xyz"),
        ("-1:80", "invalid hostPort: -1"),
        ("65536", "invalid containerPort: 65536"),
        ("localhost:8080:80", "invalid IP address: localhost"),
        ("[::1:80:80", "invalid IP address [::1: address [::1:: missing ']' in address"),
        ("8000:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000"),
        ("80:0", "invalid port specification: \"0/tcp\""),
        ("0-5:80", "invalid port range: 0-5"),
        ("target=80,published", "invalid publish opts format (should be name=value but got 'published')"),
        ("80\n81\u{1b}[2J", "invalid containerPort: 80\\n81\\u{1b}[2J"),
    ];
    for (spec, want) in cases {
        assert_eq!(refusal(&["-p", spec, "127.0.0.1"]), want, "spec {spec:?}");
    }
}

#[test]
fn bad_targets_are_named() {
    let line = refusal(&["-p", "80", "nosuch.invalid"]);
    assert!(line.starts_with("cannot resolve \"nosuch.invalid\": "), "{line}");
    assert!(line.ends_with(", and no sandbox has that name"), "{line}");
    let cases = [
        (" ", "the target is empty: give an IP address or a host name, as in: portmap -p 8080:80 172.17.0.8"),
        ("", "the target is empty: give an IP address or a host name, as in: portmap -p 8080:80 172.17.0.8"),
        ("[nonsense]", "invalid IP address: nonsense"),
        (
            "127.0.0.1:90",
            "invalid target \"127.0.0.1:90\": neither an IP address nor a host name (ports go into -p)",
        ),
        (
            "http://web/",
            "invalid target \"http://web/\": neither an IP address nor a host name (ports go into -p)",
        ),
        ("fe80::1%lo", "cannot publish to \"fe80::1%lo\": addresses with a zone are not supported"),
        ("0.0.0.0", "cannot publish to 0.0.0.0: it stands for no particular host"),
        ("[::]", "cannot publish to ::: it stands for no particular host"),
    ];
    for (target, want) in cases {
        assert_eq!(refusal(&["-p", "80", target]), want, "target {target:?}");
    }
}

#[test]
fn bad_command_lines_get_one_line() {
    let cases: [(&[&str], &str); 10] = [
        (&[], "nothing to publish: give ports and a target, as in: portmap -p 8080:80 172.17.0.8"),
        (
            &["-p", "80"],
            "-p needs a target, an IP address or a host name, as in: portmap -p 8080:80 172.17.0.8",
        ),
        (&["172.17.0.8"], "no port to publish to 172.17.0.8: give one, as in: portmap -p 8080:80 172.17.0.8"),
        (&["-p"], "a value is required for '--publish <SPEC>' but none was supplied (see portmap --help)"),
        (&["-p", "80", "a", "b"], "unexpected argument 'b' found (see portmap --help)"),
        (&["--nonsense"], "unexpected argument '--nonsense' found (see portmap --help)"),
        (
            &["--ip", "x", "-p", "80", "127.0.0.1"],
            "invalid value 'x' for '--ip <ADDR>': invalid IP address syntax (see portmap --help)",
        ),
        (
            &["--drain", "soon", "-p", "80", "127.0.0.1"],
            "invalid value 'soon' for '--drain <SECONDS>': seconds are needed, like 10, 0.5, 500ms or 2m \
             (see portmap --help)",
        ),
        (
            &["--drain", "-1", "-p", "80", "127.0.0.1"],
            "invalid value '-1' for '--drain <SECONDS>': seconds are needed, like 10, 0.5, 500ms or 2m \
             (see portmap --help)",
        ),
        (
            &["--userland-proxy-path", "/nonexistent", "-p", "80", "127.0.0.1"],
            "invalid userland-proxy-path: /nonexistent: No such file or directory (os error 2)",
        ),
    ];
    for (words, want) in cases {
        assert_eq!(refusal(words), want, "{words:?}");
    }
}

#[test]
fn the_environment_may_say_how_long_to_drain() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let with_variable = |value: &str, words: &[&str]| {
            let mut command = Command::new(bin::portmap());
            command.env("NETPROXY_DRAIN", value).args(words).args(["-p", "127.0.0.1:8080:80", "127.0.0.1"]);
            command
        };
        for value in ["", "soon"] {
            assert_eq!(
                refusal_of(with_variable(value, &[])),
                format!(
                    "invalid value {value:?} in NETPROXY_DRAIN: seconds are needed, like 10, 0.5, 500ms or 2m"
                )
            );
        }
        // The proxies have the variable too: an open connection outlives the signal by what portmap gives a proxy anyway.
        let mut portmap = Portmap::start_command(1, with_variable("2m", &[]));
        let mut client = TcpStream::connect((V4, 8080)).unwrap();
        client.read_exact(&mut [0; 3]).unwrap();
        portmap.process.signal(Signal::SIGINT);
        thread::sleep(Duration::from_millis(2500));
        assert!(portmap.process.ended().is_none() && !is_gone(portmap.rows[0].proxy));
        client.write_all(b"/ping").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(portmap.process.code(), 0);

        // What was typed wins, for portmap and for its proxies: nobody waits for the connection.
        let mut portmap = Portmap::start_command(1, with_variable("2m", &["--drain", "0"]));
        let mut client = TcpStream::connect((V4, 8080)).unwrap();
        client.read_exact(&mut [0; 3]).unwrap();
        let asked = Instant::now();
        portmap.process.signal(Signal::SIGINT);
        assert_eq!(portmap.process.code(), 0);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    });
}

#[test]
fn a_proxy_path_may_be_relative() {
    in_namespace(|| {
        let mut command = Command::new(bin::portmap());
        command.current_dir(bin::netproxy().parent().unwrap());
        command.args(["--userland-proxy-path", "netproxy", "-p", "8080:80", "127.0.0.1"]);
        command.env("PATH", "/usr/bin:/bin");
        Portmap::start_command(2, command);
    });
}

#[test]
fn a_program_that_is_no_proxy_is_refused_and_the_ports_are_free_again() {
    in_namespace(|| {
        let line = refusal(&["--userland-proxy-path", "/bin/true", "-p", "8080:80", "127.0.0.1"]);
        assert_eq!(
            line,
            "failed to start userland proxy for port mapping 0.0.0.0:8080:127.0.0.1:80/tcp: \
             /bin/true exited with status 0 before it was ready"
        );
        let line = refusal(&["--userland-proxy-path", "/etc/passwd", "-p", "8080:80", "127.0.0.1"]);
        assert!(line.starts_with("invalid userland-proxy-path: /etc/passwd: "), "{line}");
        assert!(can_bind((ANY, 8080)));
    });
}

#[test]
fn a_reader_that_has_gone_does_no_harm() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child =
            Command::new(bin::portmap()).args(["-p", "8080:80", "127.0.0.1"]).stdout(writer).spawn().unwrap();
        wait::until("open port", || !refuses((V4, 8080)));
        assert_eq!(ask_tcp((V4, 8080)), "web");
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn a_table_that_cannot_be_written_is_reported_and_the_ports_are_served() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let full = || fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(bin::portmap());
        command.args(["-p", "8080:80", "127.0.0.1"]).stdout(full()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        wait::until("open port", || !refuses((V4, 8080)));
        assert_eq!(ask_tcp((V4, 8080)), "web");
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let mut said = String::new();
        child.stderr.unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "portmap: cannot print the table: No space left on device (os error 28)\n");

        let out = Command::new(bin::portmap()).arg("--help").stdout(full()).output().unwrap();
        assert_eq!(out.status.code(), Some(125));
    });
}

#[test]
fn help_and_version_succeed() {
    for (flag, part) in [
        ("--help", "portmap -p 8080:80 172.17.0.8"),
        ("-h", "Usage:"),
        ("--version", "portmap "),
        ("-v", "portmap "),
    ] {
        let out = Command::new(bin::portmap()).arg(flag).output().unwrap();
        assert_eq!((out.status.code(), out.stderr.len()), (Some(0), 0), "{flag}");
        assert!(String::from_utf8(out.stdout).unwrap().contains(part), "{flag}");
    }
}
