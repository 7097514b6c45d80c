//! Every row of Docker's grammar of `-p` and `--expose`: what is asked for, or the words of the refusal.

use super::lab::Lab;

/// What `-p` makes of a value: `80/tcp 127.0.0.1:8080` for each binding, or the error.
const PUBLISH: &[(&str, Result<&str, &str>)] = &[
    ("80", Ok("80/tcp :")),
    ("80/udp", Ok("80/udp :")),
    ("80/SCTP", Ok("80/sctp :")),
    ("80/", Ok("80/tcp :")),
    ("8080:80", Ok("80/tcp :8080")),
    (":80", Ok("80/tcp :")),
    ("::80", Ok("80/tcp :")),
    ("127.0.0.1::80", Ok("80/tcp 127.0.0.1:")),
    ("127.0.0.1:8080:80/udp", Ok("80/udp 127.0.0.1:8080")),
    ("0.0.0.0:8080:80", Ok("80/tcp 0.0.0.0:8080")),
    ("[::]:8080:80", Ok("80/tcp :::8080")),
    ("[::1]:8080:80", Ok("80/tcp ::1:8080")),
    ("::1:8080:80", Ok("80/tcp ::1:8080")),
    ("::::80", Ok("80/tcp :::")),
    ("2001:db8::1::80", Ok("80/tcp 2001:db8::1:")),
    ("[2001:db8::1]::80", Ok("80/tcp 2001:db8::1:")),
    ("[127.0.0.1]:8080:80", Ok("80/tcp 127.0.0.1:8080")),
    ("::ffff:127.0.0.1:8080:80", Ok("80/tcp ::ffff:127.0.0.1:8080")),
    ("8000-8002:80-82", Ok("80/tcp :8000 81/tcp :8001 82/tcp :8002")),
    ("8000-8002:80", Ok("80/tcp :8000-8002")),
    ("8000-8000:80", Ok("80/tcp :8000")),
    ("8000-8002:80-80", Ok("80/tcp :8000-8002")),
    ("80-82", Ok("80/tcp : 81/tcp : 82/tcp :")),
    ("0:80", Ok("80/tcp :")), // 0 is any
    ("0123", Ok("123/tcp :")),
    ("+80:80", Ok("80/tcp :80")),
    ("80:0", Err(r#"invalid port specification: "0/tcp""#)),
    ("0-65535", Err(r#"invalid port specification: "0/tcp""#)),
    ("8000-8001:80-82", Err("invalid ranges specified for container and host Ports: 80-82 and 8000-8001")),
    ("8000:80-81", Err("invalid ranges specified for container and host Ports: 80-81 and 8000")),
    ("", Err("no port specified: <empty>")),
    (":", Err("no port specified: :<empty>")),
    ("8080:", Err("no port specified: 8080:<empty>")),
    ("8080:/tcp", Err("no port specified: 8080:/tcp<empty>")),
    ("0.0.0.0:1234-1235:/tcp", Err("no port specified: 0.0.0.0:1234-1235:/tcp<empty>")),
    ("/tcp", Err("no port specified: /tcp<empty>")),
    ("80/xyz", Err("invalid proto: xyz")),
    ("80/tcp/udp", Err("invalid proto: tcp/udp")),
    ("tcp", Err("invalid containerPort: tcp")),
    ("80-", Err("invalid containerPort: 80-")),
    ("-80", Err("invalid containerPort: -80")),
    ("90-80", Err("invalid containerPort: 90-80")),
    ("65536", Err("invalid containerPort: 65536")),
    ("0x50", Err("invalid containerPort: 0x50")),
    (" 80", Err("invalid containerPort:  80")),
    ("80 ", Err("invalid containerPort: 80 ")),
    ("192.168.1.100", Err("invalid containerPort: 192.168.1.100")),
    ("9090-9089:80", Err("invalid hostPort: 9090-9089")),
    ("9090-:80", Err("invalid hostPort: 9090-")),
    ("-9090:80", Err("invalid hostPort: -9090")),
    ("99999:80", Err("invalid hostPort: 99999")),
    ("8080:65536", Err("invalid containerPort: 65536")),
    ("localhost:8080:80", Err("invalid IP address: localhost")),
    ("127.0.0.01:80:80", Err("invalid IP address: 127.0.0.01")),
    ("fe80::1%eth0:80:80", Err("invalid IP address: fe80::1%eth0")),
    ("[fe80::1%eth0]:80:80", Err("invalid IP address: fe80::1%eth0")),
    ("1:2:3:4:5", Err("invalid IP address: 1:2:3")),
    ("[::1:80:80", Err("invalid IP address [::1: address [::1:: missing ']' in address")),
    ("[::1]x:80:80", Err("invalid IP address [::1]x: address [::1]x:: missing port in address")),
    ("80:80/tcp,81:81", Err("invalid IP address: 80")),
    ("192.168.1.100:-1:-1", Err("invalid containerPort: -1")),
    ("target=80,published=8080", Ok("80/tcp :8080")),
    ("target=80", Ok("80/tcp :")),
    ("target=80-82,published=8080-8082,protocol=UDP", Ok("80/udp :8080 81/udp :8081 82/udp :8082")),
    ("target=80,mode=host", Ok("80/tcp :")),
    ("published=8080", Err("no port specified: 8080:/tcp<empty>")),
    ("Target=80", Err("no port specified: :/tcp<empty>")),
    (
        "published=1500,target:444",
        Err("invalid publish opts format (should be name=value but got 'target:444')"),
    ),
    ("target=80,published", Err("invalid publish opts format (should be name=value but got 'published')")),
    ("=80", Err("invalid publish opts format (should be name=value but got '=80')")),
];

const EXPOSE: &[(&str, Result<&str, &str>)] = &[
    ("8080", Ok("8080/tcp")),
    ("8080/tcp", Ok("8080/tcp")),
    ("8080-8080/udp", Ok("8080/udp")),
    ("8080-8082/tcp", Ok("8080/tcp 8081/tcp 8082/tcp")),
    ("8080/ncp", Ok("8080/ncp")),
    (":", Err("invalid range format for --expose: invalid start port ':': invalid syntax")),
    ("8080:9090", Err("invalid range format for --expose: invalid start port '8080:9090': invalid syntax")),
    ("/tcp", Err("invalid range format for --expose: invalid start port '': value is empty")),
    ("8080-NaN/tcp", Err("invalid range format for --expose: invalid end port 'NaN': invalid syntax")),
    ("80-", Err("invalid range format for --expose: invalid end port '': value is empty")),
    (
        "1234567890-8080/tcp",
        Err("invalid range format for --expose: invalid start port '1234567890': value out of range"),
    ),
    ("65536", Err("invalid range format for --expose: invalid start port '65536': value out of range")),
    ("82-80", Err("invalid range format for --expose: invalid port range: 82-80")),
    ("+80", Err("invalid range format for --expose: invalid start port '+80': invalid syntax")),
];

const BINDINGS: &str = "{{range $port, $all := .HostConfig.PortBindings}}{{range $all}}\
                        {{$port}} {{.HostIp}}:{{.HostPort}} {{end}}{{end}}";
const EXPOSED: &str = "{{range $port, $nothing := .Config.ExposedPorts}}{{$port}} {{end}}";

/// Makes a sandbox for each value that is right, and refuses the others with their words and status.
fn check(lab: &Lab, flag: &str, template: &str, rows: &[(&str, Result<&str, &str>)]) {
    for (value, want) in rows {
        let words = |verb, more| [&[verb][..], more, &[flag, value, "--", "true"]].concat();
        match want {
            Ok(want) => {
                let id = lab.ok(&words("create", &[]));
                let all = lab.ok(&["inspect", "-f", template, &id]);
                assert_eq!(all.trim(), *want, "{flag} {value:?}");
            }
            Err(want) => {
                for words in [words("run", &["--rm"]), words("create", &[])] {
                    let (code, said) = lab.fails(&words);
                    let said = said.replace("Error response from daemon: ", "");
                    assert_eq!(
                        (code, said),
                        (125, format!("portmap: {want}").trim_end().to_owned()),
                        "{words:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_way_to_publish_is_understood_as_docker_does() {
    let Some(lab) = Lab::new(&[]) else { return };
    check(&lab, "-p", BINDINGS, PUBLISH);
    let good = PUBLISH.iter().filter(|(_, want)| want.is_ok()).count();
    assert_eq!(lab.ok(&["ps", "-aq"]).lines().count(), good, "nothing else is left");
}

#[test]
fn every_way_to_expose_is_understood_as_docker_does() {
    let Some(lab) = Lab::new(&[]) else { return };
    check(&lab, "--expose", EXPOSED, EXPOSE);
    // What nobody can publish is found out when somebody tries.
    let (code, said) = lab.fails(&["run", "--expose", "8080/ncp", "-P", "--", "true"]);
    assert_eq!(code, 125);
    assert!(said.ends_with("unknown protocol"), "{said}");
    let (_, said) = lab.fails(&["run", "-p", "0-5:80", "--", "true"]);
    assert!(said.ends_with("invalid port range: 0-5"), "{said}");
}
