//! Command lines, and what is asked of the daemon for them.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

fn request(words: &[&str]) -> Result<Value, String> {
    let line = Line::try_parse_from([&["run"], words].concat()).map_err(|error| error.to_string())?;
    let variable = |name: &str| (name == "HERE").then(|| "there".to_owned());
    line.flags.request(variable).map_err(|error| error.to_string())
}

fn refused(words: &[&str]) -> String {
    let error = request(words).expect_err("it is wrong");
    error.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_first_word_that_is_no_flag_begins_the_command() {
    let cases = [
        (&["true"][..], &["true"][..]),
        (&["--", "true"], &["true"]),
        (&["--rm", "ls", "-l", "--rm", "--", "x"], &["ls", "-l", "--rm", "--", "x"]),
        (&["--name", "web", "--", "-odd"], &["-odd"]),
        (&["sh", "-c", "exit 3"], &["sh", "-c", "exit 3"]),
    ];
    for (words, command) in cases {
        assert_eq!(request(words).unwrap()["Cmd"], json!(command), "{words:?}");
    }
}

#[test]
fn plain_words_become_a_plain_request() {
    let body = request(&["true"]).unwrap();
    let host = json!({
        "NetworkMode": "bridge", "PublishAllPorts": false, "AutoRemove": false, "Dns": [], "DnsSearch": [], "DnsOptions": [],
        "ExtraHosts": [], "Links": [],
    });
    assert_eq!(body["HostConfig"], host);
    assert_eq!((&body["Publish"], &body["Expose"]), (&json!([]), &json!([])));
    assert_eq!(body["NetworkingConfig"], json!({"EndpointsConfig": {}}));
    assert_eq!(body["WorkingDir"], json!(env::current_dir().unwrap()));
    assert_eq!(body["Env"], json!([]));
}

#[test]
fn flags_become_settings_of_the_first_network() {
    let words = ["--net", "Shop", "--ip", "172.22.0.9", "--net-alias", "a", "--network-alias=b", "-h", "web"];
    let more =
        ["--rm", "-e", "A=b", "-eHERE", "-e", "NOWHERE", "-l", "x=y=z", "--label", "q", "-w", "/tmp", "true"];
    let body = request(&[&words[..], &more].concat()).unwrap();
    assert_eq!(
        (&body["HostConfig"]["NetworkMode"], &body["HostConfig"]["AutoRemove"]),
        (&json!("Shop"), &json!(true))
    );
    let endpoint = &body["NetworkingConfig"]["EndpointsConfig"]["Shop"];
    assert_eq!(endpoint["IPAMConfig"]["IPv4Address"], "172.22.0.9");
    assert_eq!(endpoint["Aliases"], json!(["a", "b"]));
    assert_eq!(body["Hostname"], "web");
    assert_eq!(body["Env"], json!(["A=b", "HERE=there"]));
    assert_eq!(body["Labels"], json!({"x": "y=z", "q": ""}));
    assert_eq!(body["WorkingDir"], "/tmp");
}

#[test]
fn ports_are_asked_for_as_they_were_typed() {
    let words = ["-p", "8080:80", "--publish=127.0.0.1::53/udp", "-P", "--expose", "9000-9002", "true"];
    let body = request(&words).unwrap();
    assert_eq!(body["Publish"], json!(["8080:80", "127.0.0.1::53/udp"]));
    assert_eq!(body["Expose"], json!(["9000-9002"]));
    assert_eq!(body["HostConfig"]["PublishAllPorts"], true);
    assert_eq!(request(&["-p80", "-P", "true"]).unwrap()["Publish"], json!(["80"]));
}

#[test]
fn what_is_said_of_names_is_the_hosts_part() {
    let words =
        ["--dns", "10.0.0.1", "--dns=fd00::1", "--dns-search", "example.com.", "--dns-opt", "ndots:1"];
    let more = [
        "--dns-option=rotate",
        "--add-host",
        "db:10.0.0.5",
        "--add-host=v6=[::1]",
        "--add-host",
        "me:host-gateway",
    ];
    let body = request(&[&words[..], &more, &["--link", "mysql_db:my_link", "--link=web", "true"]].concat())
        .unwrap();
    let host = &body["HostConfig"];
    assert_eq!(host["Dns"], json!(["10.0.0.1", "fd00::1"]));
    assert_eq!(host["DnsSearch"], json!(["example.com"]));
    assert_eq!(host["DnsOptions"], json!(["ndots:1", "rotate"]));
    assert_eq!(host["ExtraHosts"], json!(["db:10.0.0.5", "v6:::1", "me:host-gateway"]));
    assert_eq!(host["Links"], json!(["mysql_db:my_link", "web"]));
    assert_eq!(body["NetworkingConfig"], json!({"EndpointsConfig": {}}));
}

#[test]
fn links_are_the_hosts_part_only_beside_the_default_bridge() {
    let links = |words: &[&str], network: &str| {
        let body = request(&[words, &["true"]].concat()).unwrap();
        let endpoint = body["NetworkingConfig"]["EndpointsConfig"][network]["Links"].clone();
        (body["HostConfig"]["Links"].clone(), endpoint)
    };
    assert_eq!(links(&["--net", "shop", "--link", "db:d"], "shop"), (json!([]), json!(["db:d"])));
    assert_eq!(links(&["--network=name=shop,link=db:d,link=x"], "shop"), (json!([]), json!(["db:d", "x"])));
    assert_eq!(links(&["--net", "a", "--net=b", "--link", "db:d"], "b"), (json!([]), json!([])));
    assert_eq!(links(&["--net", "none", "--link", "db:d"], "none"), (json!(["db:d"]), Value::Null));
    // What isn't accepted there is for the daemon to say.
    assert_eq!(links(&["--net", "host", "--link", "db"], "host"), (json!(["db"]), Value::Null));
}

#[test]
fn several_networks_are_all_asked_for() {
    let body = request(&["--network=name=One,gw-priority=-2", "--network", "two", "true"]).unwrap();
    assert_eq!(body["HostConfig"]["NetworkMode"], "One");
    let endpoints = body["NetworkingConfig"]["EndpointsConfig"].as_object().unwrap();
    assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["One", "two"]);
    assert_eq!(endpoints["One"]["GwPriority"], -2);
}

#[test]
fn what_docker_refuses_itself_is_refused() {
    let cases = [
        (&["--net", "a", "--net", "a", "true"][..], r#"network "a" is specified multiple times"#),
        (
            &["--net", "a", "--net", "host", "true"],
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (&["--net", "alias=x", "true"], "network name/id is not specified"),
        (&["--net", "name=a,color=red", "true"], "invalid field key color"),
        (
            &["--net", "name=a,ip=1.2.3.4", "--ip", "1.2.3.5", "true"],
            "conflicting options: cannot specify both --ip and per-network IPv4 address",
        ),
        (
            &["--net", "name=a,link=x", "--link", "y", "true"],
            "conflicting options: cannot specify both --link and per-network links",
        ),
        (&["--net", "name=bridge,link=x", "true"], "links are only supported for user-defined networks"),
        (
            &["--dns", "x", "--net", "name=a,color=red", "true"],
            r#"invalid argument "x" for "--dns" flag: IP address is not correctly formatted: x"#,
        ),
        (
            &["--dns-search", "a_b", "true"],
            r#"invalid argument "a_b" for "--dns-search" flag: a_b is not a valid domain"#,
        ),
        (
            &["--add-host", "db", "true"],
            r#"invalid argument "db" for "--add-host" flag: bad format for add-host: "db""#,
        ),
        (
            &["--add-host", "db:1.2.3", "true"],
            r#"invalid argument "db:1.2.3" for "--add-host" flag: invalid IP address in add-host: "1.2.3""#,
        ),
        (
            &["--link", "", "true"],
            r#"invalid argument "" for "--link" flag: empty string specified for links"#,
        ),
        (
            &["--link=a:b:c", "true"],
            r#"invalid argument "a:b:c" for "--link" flag: bad format for links: a:b:c"#,
        ),
        (&["-h", "a_b", "true"], "invalid hostname format for --hostname: a_b"),
        (&["-e", "=x", "true"], "invalid environment variable: =x"),
        (&["-w", "tmp", "true"], "the working directory 'tmp' is invalid, it needs to be an absolute path"),
        (&["-p", "80/xyz", "true"], "invalid proto: xyz"),
        (&["-p", "-80", "true"], "invalid containerPort: -80"),
        (&["-p", "bad", "--expose", "x", "-h", "a_b", "true"], "invalid containerPort: bad"),
        (
            &["-p", "bad", "-p", "target=80,x", "true"],
            "invalid publish opts format (should be name=value but got 'x')",
        ),
        (
            &["--expose", "82-80", "-h", "a_b", "true"],
            "invalid range format for --expose: invalid port range: 82-80",
        ),
        (&["-p", "bad", "--net", "name=a,color=red", "true"], "invalid field key color"),
    ];
    for (words, text) in cases {
        assert_eq!(refused(words), text, "{words:?}");
    }
    assert!(refused(&["--netns", "/dev/null", "true"]).ends_with("not a network namespace"));
    assert!(refused(&["--netns", "/no/such", "true"]).ends_with("no such file or directory"));
    assert!(refused(&["--rm"]).contains("required arguments"));
}

#[test]
fn hostnames_are_those_of_rfc_1123() {
    let long = "a".repeat(65);
    for (text, good) in [
        ("web", true),
        ("web.example.com", true),
        ("0a-1", true),
        ("-a", false),
        ("a.", false),
        ("", false),
        (&long, false),
    ] {
        assert_eq!(is_hostname(text), good, "{text}");
    }
}
