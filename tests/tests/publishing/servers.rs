//! Servers and clients that nobody here wrote, through published ports: nginx, Redis, dnsmasq; curl, redis-cli, dig.

use std::process::Command;

use e2e::lab::Host;
use e2e::need;
use e2e::wait::{self, PATIENCE};

use super::lab::Lab;
use super::witness::{Place, create, with_both};

/// What a program writes that is run there, whether it succeeds or not.
fn said(place: &impl Place, program: &str, words: &[&str]) -> String {
    let output = place.there(|| Command::new(program).args(words).output().unwrap());
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Waits until it writes this.
#[track_caller]
fn says(place: &impl Place, program: &str, words: &[&str], want: &str) {
    let what = format!("{want:?} from {program} {words:?}");
    let mut last = String::new();
    wait::some(&what, PATIENCE, || {
        last = said(place, program, words);
        (last == want).then_some(())
    });
}

/// Waits until a log has a line that says all of this.
#[track_caller]
fn logged(lab: &Lab, log: &str, words: &[&str]) {
    let path = lab.home.path(log);
    wait::until(&format!("{words:?} in {log}"), || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().any(|line| words.iter().all(|word| line.contains(word)))
    });
}

#[test]
fn nginx_serves_pages_and_knows_its_clients() {
    if need::program("nginx").is_none() || need::program("curl").is_none() {
        return;
    }
    with_both(&[], |lab| {
        create(lab, "one", 1, &[]);
        let folder = lab.home.path("nginx");
        std::fs::create_dir(&folder).unwrap();
        // Larger than any buffer on the way.
        std::fs::write(folder.join("page"), "Buffalo buffalo. ".repeat(1 << 18)).unwrap();
        let configuration = "daemon off; user root; worker_processes 1; pid pid; error_log error.log;
            events {} http { access_log access.log; client_body_temp_path body; proxy_temp_path proxy;
            fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            server { listen 80; listen [::]:80; root .; location = /who { return 200 $remote_addr; } } }";
        std::fs::write(folder.join("nginx.conf"), configuration).unwrap();
        let (prefix, file) =
            (format!("{}/", folder.display()), folder.join("nginx.conf").display().to_string());
        let command = ["--", "nginx", "-e", "stderr", "-p", &prefix, "-c", &file];
        lab.ok(&[&["run", "-d", "--name", "web", "--net", "one", "-p", "8080:80"], &command[..]].concat());
        let fetch = ["-s", "--max-time", "10"];
        for (place, url, me) in [
            (&lab.neighbour, "http://192.0.2.1:8080/who", "192.0.2.2"),
            (&lab.neighbour, "http://[fd00:ff::1]:8080/who", "fd00:ff::2"),
            (&lab.host, "http://192.0.2.1:8080/who", "192.0.2.1"),
            (&lab.host, "http://127.0.0.1:8080/who", "10.1.0.1"),
            (&lab.host, "http://[::1]:8080/who", "fd00:1::1"),
        ] {
            says(place, "curl", &[&fetch[..], &[url]].concat(), me);
        }
        let host: &Host = &lab.host;
        for (place, url) in
            [(&lab.neighbour, "http://192.0.2.1:8080/page"), (host, "http://localhost:8080/page")]
        {
            let size =
                ["-s", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", url];
            assert_eq!(said(place, "curl", &size), format!("200 {}", 17 << 18), "{url}");
        }
        logged(lab, "nginx/access.log", &["192.0.2.2 ", "GET /page", " 200 "]);
    });
}

#[test]
fn redis_keeps_its_clients_while_ports_change_and_the_daemon_is_killed() {
    if need::program("redis-server").is_none() || need::program("redis-cli").is_none() {
        return;
    }
    let Some(mut lab) = Lab::new(&[]) else { return };
    create(&lab, "one", 1, &[]);
    let words = [
        "--save",
        "",
        "--appendonly",
        "no",
        "--protected-mode",
        "no",
        "--bind",
        "*",
        "-::*",
        "--dir",
        "/tmp",
    ];
    let run = ["run", "-d", "--name", "store", "--net", "one", "-p", "6379:6379", "--", "redis-server"];
    lab.ok(&[&run[..], &words].concat());
    let cli = |host: &'static str, words: &[&'static str]| [&["-h", host], words].concat();
    says(&lab.neighbour, "redis-cli", &cli("192.0.2.1", &["set", "herd", "buffalo"]), "OK");
    says(&lab.neighbour, "redis-cli", &cli("fd00:ff::1", &["get", "herd"]), "buffalo");
    says(&lab.host, "redis-cli", &cli("127.0.0.1", &["append", "herd", "es"]), "9");

    // Subscribers hold their connections: one by the rules, one by a proxy.
    let subscribe = |host: &Host, address: &str| {
        let mut command = Command::new("redis-cli");
        command.args(["-h", address, "subscribe", "news"]);
        host.spawn(command)
    };
    let subscribers = [subscribe(&lab.neighbour, "192.0.2.1"), subscribe(&lab.host, "127.0.0.1")];
    says(&lab.host, "redis-cli", &cli("127.0.0.1", &["pubsub", "numsub", "news"]), "news\n2");
    let clients = said(&lab.neighbour, "redis-cli", &cli("192.0.2.1", &["client", "list"]));
    for peer in [" addr=192.0.2.2:", " addr=10.1.0.1:"] {
        assert!(clients.contains(peer), "{peer} in {clients}");
    }

    lab.ok(&["publish", "store", "-p", "6380:6379"]);
    lab.ok(&["unpublish", "store", "-p", "6380:6379"]);
    lab.end_daemon("-KILL");
    says(&lab.neighbour, "redis-cli", &cli("192.0.2.1", &["publish", "news", "the daemon is away"]), "2");
    lab.start_daemon();
    says(&lab.host, "redis-cli", &cli("127.0.0.1", &["publish", "news", "the daemon is back"]), "2");
    for subscriber in &subscribers {
        wait::until("the news", || {
            let news = subscriber.stdout();
            news.contains("the daemon is away") && news.contains("the daemon is back")
        });
    }
    lab.ok(&["rm", "-f", "store"]);
    let ping = said(&lab.neighbour, "redis-cli", &cli("192.0.2.1", &["-t", "1", "ping"]));
    assert_eq!(ping, "", "nobody is left behind the port");
}

#[test]
fn dnsmasq_answers_by_udp_and_tcp() {
    if need::program("dnsmasq").is_none() || need::program("dig").is_none() {
        return;
    }
    with_both(&[], |lab| {
        create(lab, "one", 1, &[]);
        let log = format!("--log-facility={}", lab.home.path("dns.log").display());
        let long = format!("--txt-record=long.test{}", format!(",{}", "x".repeat(250)).repeat(16));
        let command = [
            "--",
            "dnsmasq",
            "--keep-in-foreground",
            "--user=root",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--no-resolv",
            "--no-hosts",
            "--log-queries",
            &log,
            "--address=/shop.test/203.0.113.7",
            &long,
        ];
        let ports = ["-p", "53:53", "-p", "53:53/udp"];
        lab.ok(&[&["run", "-d", "--name", "dns", "--net", "one"], &ports[..], &command].concat());
        lab.ok(&["run", "-d", "--name", "peer", "--net", "one", "--", "sleep", "infinity"]);
        let dig = |server: &'static str, words: &[&'static str]| {
            [&[server, "+short", "+tries=1", "+time=2"], words].concat()
        };
        let peer = lab.sandbox("peer");
        for transport in ["+notcp", "+tcp"] {
            let ask = ["shop.test", transport];
            says(&lab.neighbour, "dig", &dig("@192.0.2.1", &ask), "203.0.113.7");
            says(&lab.neighbour, "dig", &dig("@fd00:ff::1", &ask), "203.0.113.7");
            says(&lab.host, "dig", &dig("@127.0.0.1", &ask), "203.0.113.7");
            says(&lab.host, "dig", &dig("@::1", &ask), "203.0.113.7");
            says(&peer, "dig", &dig("@192.0.2.1", &ask), "203.0.113.7");
        }
        for client in ["192.0.2.2", "fd00:ff::2", "10.1.0.1", "fd00:1::1"] {
            logged(lab, "dns.log", &["query[A] shop.test from ", client]);
        }
        // Too long for a datagram: dig is told so and asks again by TCP.
        let long = said(&lab.neighbour, "dig", &dig("@192.0.2.1", &["long.test", "TXT"]));
        assert_eq!(long.matches('x').count(), 16 * 250, "{long}");
    });
}
