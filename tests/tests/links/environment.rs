//! What a consumer is told in variables, and what `--env-file` puts among those of a provider.

use std::process::Command;

use e2e::bin;

use super::lab::Lab;
use super::tools::{IDLE, NOT_STARTED};

/// Starts a provider as a client does that has these variables itself.
#[track_caller]
fn run_as(lab: &Lab, client: &[(&str, &str)], words: &[&str]) {
    let mut command: Command = lab.home.command(bin::portmap());
    command.args(words).env_remove("GONE").envs(client.iter().copied());
    let output = lab.host.output(command);
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// Writes a file and gives its path.
fn env_file(lab: &Lab, name: &str, text: &[u8]) -> String {
    let path = lab.home.path(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_worked_example_is_told_line_by_line() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let file = env_file(&lab, "db.env", b"# database\nMYSQL_DATABASE=wp\nTZ\n");
    // What the image sets in the example is set by hand here.
    let image = [
        "-e",
        "MYSQL_MAJOR=5.6",
        "-e",
        "MYSQL_VERSION=5.6.27-1debian8",
        "-e",
        "PATH=/bin",
        "-e",
        "HOME=/root",
    ];
    let words = ["run", "-d", "--name", "mysql_db", "-e", "MYSQL_ROOT_PASSWORD=s3cr3t", "--env-file", &file];
    run_as(&lab, &[("TZ", "UTC")], &[&words[..], &image, &["--expose", "3306"], &IDLE].concat());
    lab.idle("blog", &["--link", "mysql_db:my_link"]);
    let want = "\
MY_LINK_PORT=tcp://172.17.0.2:3306
MY_LINK_PORT_3306_TCP=tcp://172.17.0.2:3306
MY_LINK_PORT_3306_TCP_ADDR=172.17.0.2
MY_LINK_PORT_3306_TCP_PORT=3306
MY_LINK_PORT_3306_TCP_PROTO=tcp
MY_LINK_NAME=/blog/my_link
MY_LINK_ENV_MYSQL_DATABASE=wp
MY_LINK_ENV_TZ=UTC
MY_LINK_ENV_MYSQL_ROOT_PASSWORD=s3cr3t
MY_LINK_ENV_MYSQL_MAJOR=5.6
MY_LINK_ENV_MYSQL_VERSION=5.6.27-1debian8";
    let mut want: Vec<&str> = want.lines().collect();
    let answer = lab.api("GET", "/portmap/sandboxes/blog/link-env", "").1;
    assert_eq!(answer, serde_json::json!({ "Env": want }).to_string());
    want.sort_unstable();
    assert_eq!(lab.environment("blog", "MY_LINK_"), want);
    assert_eq!(lab.exec_environment("blog", "MY_LINK_"), want);
    assert_eq!(lab.environment("mysql_db", "BLOG"), [""; 0]);
}

#[test]
fn the_courses_sample_comes_out_in_its_form() {
    let Some(lab) = Lab::linking(&["--bip", "172.17.0.1/16", "--fixed-cidr", "172.17.0.16/29"]) else {
        return;
    };
    lab.idle("before", &[]);
    lab.idle("mysql_db", &["--expose", "3306"]);
    assert_eq!(lab.ip("mysql_db"), "172.17.0.17");
    lab.idle("blog", &["--link", "mysql_db:mysql"]);
    let mut want = [
        "MYSQL_NAME=/blog/mysql",
        "MYSQL_PORT_3306_TCP_PORT=3306",
        "MYSQL_PORT_3306_TCP=tcp://172.17.0.17:3306",
        "MYSQL_PORT_3306_TCP_PROTO=tcp",
        "MYSQL_PORT_3306_TCP_ADDR=172.17.0.17",
        "MYSQL_PORT=tcp://172.17.0.17:3306",
    ];
    want.sort_unstable();
    assert_eq!(lab.environment("blog", "MYSQL_"), want);
}

#[test]
fn each_kind_of_exposed_port_is_told() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let single = |port: u16, proto: &str| {
        let key = format!("PORT_{port}_{}", proto.to_uppercase());
        vec![
            format!("{key}={proto}://IP:{port}"),
            format!("{key}_ADDR=IP"),
            format!("{key}_PORT={port}"),
            format!("{key}_PROTO={proto}"),
        ]
    };
    let run = |proto: &str, first: u16, last: u16| {
        let key = format!("PORT_{first}_{}", proto.to_uppercase());
        let ends = vec![
            format!("{key}_START={proto}://IP:{first}"),
            format!("{key}_PORT_START={first}"),
            format!("{key}_END={proto}://IP:{last}"),
            format!("{key}_PORT_END={last}"),
        ];
        [ends, (first..=last).flat_map(|port| single(port, proto)).collect()].concat()
    };
    let first = |url: &str| vec![format!("PORT={url}")];
    let cases: [(&str, &str, Vec<Vec<String>>); 9] = [
        ("none", "", vec![]),
        (
            "udp-tcp",
            "--expose 80/udp --expose 443",
            vec![first("tcp://IP:443"), single(443, "tcp"), single(80, "udp")],
        ),
        ("two", "--expose 6380 --expose 6379", vec![first("tcp://IP:6379"), run("tcp", 6379, 6380)]),
        ("three", "--expose 6379-6381", vec![first("tcp://IP:6379"), run("tcp", 6379, 6381)]),
        (
            "sctp",
            "--expose 53/udp --expose 53/sctp",
            vec![first("sctp://IP:53"), single(53, "sctp"), single(53, "udp")],
        ),
        (
            "my-app",
            "--expose 53 --expose 53/udp --expose 8000-8002",
            vec![first("tcp://IP:53"), single(53, "tcp"), run("tcp", 8000, 8002), single(53, "udp")],
        ),
        (
            "published",
            "-p 8080:80 -p 127.0.0.1:5353:53/udp",
            vec![first("tcp://IP:80"), single(80, "tcp"), single(53, "udp")],
        ),
        ("both", "--expose 80 -p 81", vec![first("tcp://IP:80"), run("tcp", 80, 81)]),
        ("my.db", "--expose 1/udp", vec![first("udp://IP:1"), single(1, "udp")]),
    ];
    let mut links: Vec<String> = Vec::new();
    for (name, flags, _) in &cases {
        lab.idle(name, &flags.split_whitespace().collect::<Vec<_>>());
        links.extend(["--link".to_owned(), (*name).to_owned()]);
    }
    // One of each, of one consumer.
    lab.idle("blog", &links.iter().map(String::as_str).collect::<Vec<_>>());
    for (name, _, want) in &cases {
        let (prefix, ip) = (format!("{}_", name.to_uppercase().replace('-', "_")), lab.ip(name));
        let mut want: Vec<String> =
            want.concat().iter().map(|line| format!("{prefix}{}", line.replace("IP", &ip))).collect();
        want.push(format!("{prefix}NAME=/blog/{name}"));
        want.sort();
        assert_eq!(lab.environment("blog", &prefix), want, "{name}");
    }
}

#[test]
fn values_of_a_provider_are_copied_as_they_are() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.idle("first", &["-e", "e1=", "-e", "e2=v2", "-e", "e3=v3=v3", "-e", "e2=v4", "-e", "e4= \"x\"  y "]);
    lab.idle("second", &["--link", "first"]);
    let want = ["FIRST_ENV_e1=", "FIRST_ENV_e2=v4", "FIRST_ENV_e3=v3=v3", "FIRST_ENV_e4= \"x\"  y "];
    assert_eq!(lab.environment("second", "FIRST_ENV_"), want);
    assert_eq!(lab.environment("second", "FIRST_NAME"), ["FIRST_NAME=/second/first"]);
    // What a consumer was told isn't told on: these are no variables of its configuration.
    lab.idle("third", &["--link", "second", "-e", "SECOND_ENV_x=y"]);
    assert_eq!(lab.environment("third", "SECOND_"), ["SECOND_ENV_x=y", "SECOND_NAME=/third/second"]);
}

#[test]
fn exec_is_told_how_things_are_by_then() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.idle("mysql_db", &["--expose", "3306", "-e", "K=v"]);
    lab.idle("blog", &["--link", "mysql_db:db", "-e", "DB_PORT_3306_TCP_PROTO=mine"]);
    let (old, new) = lab.move_away("mysql_db");
    let of = |address: &str| format!("DB_PORT=tcp://{address}:3306");
    assert_eq!(lab.environment("blog", "DB_PORT="), [of(&old)]);
    assert_eq!(lab.exec_environment("blog", "DB_PORT="), [of(&new)]);
    assert_eq!(lab.exec_environment("blog", "DB_ENV_K="), ["DB_ENV_K=v"]);
    assert_eq!(lab.exec_environment("blog", "DB_PORT_3306_TCP_PROTO="), ["DB_PORT_3306_TCP_PROTO=mine"]);
    let given = lab.ok(&["exec", "-e", "DB_PORT=given", "blog", "env"]);
    assert!(given.lines().any(|line| line == "DB_PORT=given"), "{given}");
    // A provider that is down doesn't keep anybody from working in a consumer.
    lab.stop("mysql_db");
    assert_eq!(lab.exec_environment("blog", "DB_NAME="), ["DB_NAME=/blog/db"]);
    lab.ok(&["rename", "blog", "diary"]);
    assert_eq!(lab.exec_environment("diary", "DB_NAME="), ["DB_NAME=/diary/db"]);
    assert_eq!(lab.environment("diary", "DB_NAME="), ["DB_NAME=/blog/db"]);
}

#[test]
fn copies_of_variables_can_be_switched_off() {
    let Some(lab) = Lab::linking(&["--link-env=false"]) else { return };
    lab.idle("mysql_db", &["--expose", "3306", "-e", "MYSQL_ROOT_PASSWORD=s3cr3t"]);
    lab.idle("blog", &["--link", "mysql_db:db"]);
    for told in [lab.environment("blog", "DB_"), lab.exec_environment("blog", "DB_")] {
        assert_eq!(told.len(), 6, "{told:?}");
        assert!(!told.concat().contains("_ENV_"), "{told:?}");
    }
}

#[test]
fn an_env_file_is_read_as_dockers_client_reads_it() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let one = "\u{feff}A=1\n  # comment\n\n   \n\t B= two words  \nC=\"quoted\" $A\nD=a=b\nHERE\nGONE\nE=\n#F=x\nG=one\n";
    let one = env_file(&lab, "one.env", one.as_bytes());
    let two = env_file(&lab, "two.env", b"G=two\nH=two\nI=crlf"); // no line end
    let words = ["run", "-d", "--name", "first", "-e", "H=flag", "--env-file", &one, "--env-file", &two];
    run_as(&lab, &[("HERE", "of the client")], &[&words[..], &IDLE].concat());
    lab.idle("second", &["--link", "first:f"]);
    let told = lab.environment("second", "F_ENV_");
    let want = [
        "F_ENV_A=1",
        "F_ENV_B= two words  ",
        "F_ENV_C=\"quoted\" $A",
        "F_ENV_D=a=b",
        "F_ENV_E=",
        "F_ENV_G=two",
        "F_ENV_H=flag",
        "F_ENV_HERE=of the client",
        "F_ENV_I=crlf",
    ];
    assert_eq!(told, want);
}

#[test]
fn a_wrong_env_file_is_refused_before_anything_is_made() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let cases: [(&[u8], &str); 4] = [
        (b"A=1\n=x\n", "no variable name on line '=x'"),
        (b"x y=z\n", "variable 'x y' contains whitespaces"),
        (b"A=1\nB=2\n\xff\xfe=3\n", "invalid utf8 bytes at line 3: [255 254 61 51]"),
        (b"A B\n", "variable 'A B' contains whitespaces"),
    ];
    for (text, why) in cases {
        let file = env_file(&lab, "db.env", text);
        let (code, said) = lab.fails(&[&["run", "--name", "c1", "--env-file", &file], &IDLE[..]].concat());
        assert_eq!(code, NOT_STARTED, "{said}");
        assert!(said.contains(&format!("invalid env file ({file}): {why}")), "{said}");
    }
    let nosuch = lab.home.path("nosuch");
    let nosuch = nosuch.to_str().unwrap();
    let (code, said) = lab.fails(&[&["run", "--name", "c1", "--env-file", nosuch], &IDLE[..]].concat());
    assert_eq!(code, NOT_STARTED);
    assert!(said.contains(&format!("open {nosuch}: no such file or directory")), "{said}");
    assert_eq!(lab.ok(&["ps", "-aq"]), "");
}
