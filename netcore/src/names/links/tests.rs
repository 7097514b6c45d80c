//! The samples of Docker's documentation, word by word.

use super::*;

fn ports(publish: &[&str], expose: &[&str]) -> PortsConfig {
    PortsConfig {
        publish: publish.iter().map(|text| text.parse().unwrap()).collect(),
        expose: expose.iter().map(|text| text.parse().unwrap()).collect(),
        publish_all: false,
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn of(consumer: &str, alias: &str, address: &str, expose: &[&str], environment: &[&str]) -> Vec<String> {
    variables(Linked {
        consumer,
        alias,
        address: Some(address.parse().unwrap()),
        ports: &exposed(&ports(&[], expose)),
        environment: &strings(environment),
    })
}

#[test]
fn a_database_and_its_blog_as_dockers_example() {
    let environment = [
        "MYSQL_DATABASE=wp",
        "TZ=UTC",
        "MYSQL_ROOT_PASSWORD=s3cr3t",
        "PATH=/bin",
        "MYSQL_MAJOR=5.6",
        "MYSQL_VERSION=5.6.27-1debian8",
    ];
    let want = [
        "MY_LINK_PORT=tcp://172.17.0.2:3306",
        "MY_LINK_PORT_3306_TCP=tcp://172.17.0.2:3306",
        "MY_LINK_PORT_3306_TCP_ADDR=172.17.0.2",
        "MY_LINK_PORT_3306_TCP_PORT=3306",
        "MY_LINK_PORT_3306_TCP_PROTO=tcp",
        "MY_LINK_NAME=/blog/my_link",
        "MY_LINK_ENV_MYSQL_DATABASE=wp",
        "MY_LINK_ENV_TZ=UTC",
        "MY_LINK_ENV_MYSQL_ROOT_PASSWORD=s3cr3t",
        "MY_LINK_ENV_MYSQL_MAJOR=5.6",
        "MY_LINK_ENV_MYSQL_VERSION=5.6.27-1debian8",
    ];
    assert_eq!(of("blog", "my_link", "172.17.0.2", &["3306"], &environment), want);
    // And the course's.
    let mut course = of("blog", "mysql", "172.17.0.17", &["3306"], &[]);
    course.sort();
    let mut want = [
        "MYSQL_NAME=/blog/mysql",
        "MYSQL_PORT_3306_TCP_PORT=3306",
        "MYSQL_PORT_3306_TCP=tcp://172.17.0.17:3306",
        "MYSQL_PORT_3306_TCP_PROTO=tcp",
        "MYSQL_PORT_3306_TCP_ADDR=172.17.0.17",
        "MYSQL_PORT=tcp://172.17.0.17:3306",
    ];
    want.sort_unstable();
    assert_eq!(course, want);
}

#[test]
fn a_run_of_ports_has_its_ends_told() {
    let got = of("web", "my-app", "172.17.0.5", &["53/tcp", "53/udp", "8000-8002/tcp"], &[]);
    let start = [
        "MY_APP_PORT=tcp://172.17.0.5:53",
        "MY_APP_PORT_8000_TCP_START=tcp://172.17.0.5:8000",
        "MY_APP_PORT_8000_TCP_PORT_START=8000",
        "MY_APP_PORT_8000_TCP_END=tcp://172.17.0.5:8002",
        "MY_APP_PORT_8000_TCP_PORT_END=8002",
    ];
    assert_eq!(got[..start.len()], start);
    let mut want = strings(&start);
    for (port, proto) in [(53, "tcp"), (8000, "tcp"), (8001, "tcp"), (8002, "tcp"), (53, "udp")] {
        let key = format!("MY_APP_PORT_{port}_{}", proto.to_uppercase());
        want.push(format!("{key}={proto}://172.17.0.5:{port}"));
        want.push(format!("{key}_ADDR=172.17.0.5"));
        want.push(format!("{key}_PORT={port}"));
        want.push(format!("{key}_PROTO={proto}"));
    }
    want.push("MY_APP_NAME=/web/my-app".to_owned());
    assert_eq!(got, want);
}

#[test]
fn the_first_port_and_the_runs_follow_from_what_is_exposed() {
    // What is exposed, the first port, the runs.
    type Case = (&'static [&'static str], Option<&'static str>, &'static [(u16, u16)]);
    let cases: [Case; 8] = [
        (&[], None, &[]),
        (&["80/udp", "443/tcp"], Some("tcp://10.0.0.2:443"), &[]),
        (&["6379", "6380"], Some("tcp://10.0.0.2:6379"), &[(6379, 6380)]),
        (&["6381", "6379", "6380"], Some("tcp://10.0.0.2:6379"), &[(6379, 6381)]),
        (&["53/udp", "53/sctp"], Some("sctp://10.0.0.2:53"), &[]),
        (&["80/tcp", "81/udp"], Some("tcp://10.0.0.2:80"), &[]),
        (&["90-95", "80-89", "85-92"], Some("tcp://10.0.0.2:80"), &[(80, 95)]),
        (&["65535", "0-1", "7/ncp"], Some("tcp://10.0.0.2:1"), &[]),
    ];
    for (expose, first, runs) in cases {
        let got = of("c", "a", "10.0.0.2", expose, &[]);
        let value = |name: &str| {
            got.iter().find_map(|entry| entry.strip_prefix(&format!("{name}="))).map(str::to_owned)
        };
        assert_eq!(value("A_PORT").as_deref(), first, "{expose:?}");
        let starts: Vec<_> = got.iter().filter(|entry| entry.contains("_PORT_START=")).collect();
        assert_eq!(starts.len(), runs.len(), "{expose:?}");
        for (start, end) in runs {
            assert_eq!(value(&format!("A_PORT_{start}_TCP_PORT_START")), Some(start.to_string()));
            assert_eq!(value(&format!("A_PORT_{start}_TCP_PORT_END")), Some(end.to_string()));
            assert_eq!(value(&format!("A_PORT_{start}_TCP_END")), Some(format!("tcp://10.0.0.2:{end}")));
        }
        assert!(got.contains(&"A_NAME=/c/a".to_owned()));
        assert!(!got.iter().any(|entry| entry.contains("NCP") || entry.contains("PORT_0_")), "{got:?}");
    }
}

#[test]
fn a_published_port_is_exposed_by_its_number_inside() {
    let got = exposed(&ports(&["8080:80", "127.0.0.1:5300-5301:53-54/udp"], &["80", "90"]));
    let shown: Vec<String> = got.iter().map(|(proto, run)| format!("{run}/{proto}")).collect();
    assert_eq!(shown, ["80/tcp", "90/tcp", "53-54/udp"]);
}

#[test]
fn the_providers_variables_are_copied_as_they_are() {
    let environment = ["e1=", "e2=v2", "e3=v3=v3", "HOME=/root", "PATH=/bin", "unset", "=x", "e2=later"];
    let want = ["FIRST_NAME=/c/first", "FIRST_ENV_e1=", "FIRST_ENV_e3=v3=v3", "FIRST_ENV_e2=later"];
    assert_eq!(of("c", "first", "10.0.0.2", &[], &environment), want);
    assert_eq!(of("c", "my.db-1", "10.0.0.2", &[], &["k=v"])[1], "MY.DB_1_ENV_k=v");
}

#[test]
fn without_an_address_no_port_is_told() {
    let link = Linked {
        consumer: "c",
        alias: "a",
        address: None,
        ports: &exposed(&ports(&[], &["80"])),
        environment: &strings(&["k=v"]),
    };
    assert_eq!(variables(link), ["A_NAME=/c/a", "A_ENV_k=v"]);
}

#[test]
fn a_line_has_the_alias_the_hostname_and_the_name() {
    let cases = [
        ("my_link", "1dd4b0384bae", "mysql_db", "172.17.0.2\tmy_link 1dd4b0384bae mysql_db\n"),
        ("my_link", "db1", "mysql_db", "172.17.0.2\tmy_link db1 mysql_db\n"),
        ("mysql_db", "1dd4b0384bae", "mysql_db", "172.17.0.2\tmysql_db 1dd4b0384bae\n"),
    ];
    for (alias, hostname, name, want) in cases {
        assert_eq!(lines(alias, hostname, name, ["172.17.0.2".parse().unwrap()]), want);
    }
    let both = ["172.17.0.2", "fd00::2"].map(|ip| ip.parse().unwrap());
    assert_eq!(lines("a", "h", "n", both), "172.17.0.2\ta h n\nfd00::2\ta h n\n");
}
