//! Clients that mean no good, or don't know better.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use e2e::daemon::Home;
use e2e::{need, wait};

use super::home;

/// Sends a request as it is and gives the whole answer.
fn ask(home: &Home, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(home.socket()).expect("a daemon listens");
    stream.set_read_timeout(Some(wait::PATIENCE)).expect("a socket");
    // It may refuse before it has read all of it.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
        .into_bytes()
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let Some(home) = home() else { return };
    let daemon = home.daemon(&[]);
    let deep = format!("{{\"Name\":\"x\",\"Labels\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let create = "/networks/create";
    let sandbox = "/portmap/sandboxes/create";
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (request("POST", create, JSON, "{"), "400"),
        (request("POST", create, JSON, "[]"), "400"),
        (request("POST", create, JSON, "{\"Name\":1}"), "400"),
        (request("POST", create, JSON, "{\"Name\":\"a\"} {}"), "400"),
        (request("POST", create, JSON, &deep), "400"),
        (request("POST", create, "Content-Type: text/plain\r\n", "{\"Name\":\"a\"}"), "400"),
        (request("POST", create, "", "{\"Name\":\"a\"}"), "400"),
        (request("POST", create, JSON, ""), "400"),
        (request("POST", create, JSON, "{\"Name\":\"\"}"), "400"),
        (request("POST", create, JSON, "{\"Name\":\"\\ud800\"}"), "400"),
        (request("POST", &format!("{sandbox}?name=a%00b"), JSON, "{\"Cmd\":[\"true\"]}"), "400"),
        (request("POST", &format!("{sandbox}?name=..%2f..%2fx"), JSON, "{\"Cmd\":[\"true\"]}"), "400"),
        (request("POST", &format!("{sandbox}?name=%ff%fe"), JSON, "{\"Cmd\":[\"true\"]}"), "400"),
        (request("POST", sandbox, JSON, "{\"Cmd\":[\"a\\u0000b\"]}"), "400"),
        (request("POST", sandbox, JSON, "{\"Cmd\":[\"true\"],\"WorkingDir\":\"usr\"}"), "400"),
        (request("POST", sandbox, JSON, "{\"Cmd\":[\"true\"],\"Env\":[\"=x\"]}"), "400"),
        (request("POST", sandbox, JSON, "{\"Cmd\":[\"true\"],\"Netns\":\"/a\\u0000\"}"), "400"),
        (request("POST", sandbox, JSON, "{\"Cmd\":[\"true\"],\"Env\":[\"A=\\u0000\"]}"), "400"),
        (request("POST", sandbox, JSON, "{\"Cmd\":[\"true\"],\"WorkingDir\":\"/a\\u0000\"}"), "400"),
        (request("POST", sandbox, JSON, "{\"Cmd\":[\"true\"],\"Hostname\":\"a\\nb c\"}"), "400"),
        (request("POST", sandbox, JSON, "{\"Cmd\":[\"true\"],\"Domainname\":\"a\\nb c\"}"), "400"),
        (request("POST", "/portmap/sandboxes/x/start", JSON, "{\"Pid\":-1}"), "400"),
        (request("POST", "/portmap/sandboxes/x/start", JSON, "{\"Pid\":99999999999}"), "400"),
        (request("GET", "/containers/..%2f..%2fetc/json", "", ""), "404"),
        (request("GET", "/containers/%00/json", "", ""), "404"),
        (request("GET", "/containers/%ff/json", "", ""), "4"),
        (request("GET", "/networks/%0d%0aX-Evil:%201", "", ""), "404"),
        (request("GET", "/../../etc/passwd", "", ""), "404"),
        (request("GET", "/containers/json?filters=%7B", "", ""), "400"),
        (request("GET", "/containers/json?limit=x", "", ""), "400"),
        (request("GET", "/events?since=x", "", ""), "400"),
        (request("POST", "/containers/x/stop?t=x", "", ""), "4"),
        (b"nonsense\r\n\r\n".to_vec(), "400"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: "
                .iter()
                .copied()
                .chain(vec![b'a'; 1 << 20])
                .collect(),
            "4",
        ),
    ];
    for (request, status) in cases {
        let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        let answer = ask(&home, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown}: {answer}");
        assert!(!answer.to_lowercase().contains("\nx-evil"), "{shown}: {answer}");
    }
    assert_eq!(home.portmap(&["network", "ls", "-q"]).ok().lines().count(), 3);
    assert_eq!(home.portmap(&["ps", "-a", "-q"]).ok(), "");
    // Names of networks are anything, as Docker's; then they are data and nothing else.
    let long = "n".repeat(20_000);
    let odd = [
        ("../../etc", "..%2F..%2Fetc"),
        ("a\\r\\nX-Evil: 1", "a%0D%0AX-Evil%3A%201"),
        ("a\\u0000b", "a%00b"),
        ("'; DROP TABLE networks --", "%27;%20DROP%20TABLE%20networks%20--"),
        (&long, &long),
    ];
    for (name, reference) in odd {
        let created = ask(&home, &request("POST", create, JSON, &format!("{{\"Name\":\"{name}\"}}")));
        assert!(created.starts_with("HTTP/1.1 201"), "{created}");
        for (method, status) in [("GET", "200"), ("DELETE", "204"), ("GET", "404")] {
            let answer = ask(&home, &request(method, &format!("/networks/{reference}"), "", ""));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{reference}: {answer}");
            assert!(!answer.to_lowercase().contains("\nx-evil"), "{answer}");
        }
    }
    let said = daemon.stderr();
    assert!(!said.contains("panicked") && !said.contains("ERROR"), "{said}");
}

#[test]
fn who_is_slow_holds_up_nobody_and_costs_little() {
    let Some(home) = home() else { return };
    let Some(_) = need::program("curl") else { return };
    let _daemon = home.daemon(&[]);
    let pid = std::fs::read_to_string(home.path("run/portmap.pid")).expect("a daemon runs");
    let resident = || -> u64 {
        let status = home.run("grep", &["VmRSS", &format!("/proc/{}/status", pid.trim())]).ok();
        status.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
    };
    let before = resident();
    let slow: Vec<UnixStream> = (0..200)
        .map(|number| {
            let mut stream = UnixStream::connect(home.socket()).expect("a daemon listens");
            let begin: &[u8] = match number % 3 {
                0 => b"GET /_pi",
                1 => b"POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500000\r\n\r\n{",
                _ => b"POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
            };
            stream.write_all(begin).expect("it is accepted");
            stream
        })
        .collect();
    let begun = Instant::now();
    assert_eq!(home.portmap(&["network", "ls", "-q"]).ok().lines().count(), 3);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let cost = resident().saturating_sub(before);
    assert!(cost < 200 * 64, "{cost} KiB");
    drop(slow);
}

#[test]
fn a_listener_that_does_not_read_delays_nobody() {
    let Some(home) = home() else { return };
    let Some(_) = need::program("curl") else { return };
    let _daemon = home.daemon(&[]);
    let mut deaf = UnixStream::connect(home.socket()).expect("a daemon listens");
    deaf.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is accepted");
    let all = home.path("events");
    let script =
        format!("curl -sN --unix-socket {} http://x/events > {}", home.socket().display(), all.display());
    let mut command = home.command("sh");
    command.args(["-c", &script]);
    let _eager = home.host().spawn(command);
    wait::until("listeners", || {
        ask(&home, &request("GET", "/info", "", "")).contains("\"NEventsListener\":2")
    });
    // More than the socket and the queue hold.
    let label = "x".repeat(30_000);
    let body = format!("{{\"Cmd\":[\"true\"],\"Labels\":{{\"l\":\"{label}\"}}}}");
    let begun = Instant::now();
    for number in 0..60 {
        let path = format!("/portmap/sandboxes/create?name=s{number}");
        assert!(ask(&home, &request("POST", &path, JSON, &body)).starts_with("HTTP/1.1 201"));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    wait::until("all events with who listens", || {
        std::fs::read_to_string(&all).is_ok_and(|text| text.lines().count() == 60 && text.ends_with('\n'))
    });
    // And it doesn't keep the daemon from leaving.
    let begun = Instant::now();
    home.run(
        "kill",
        &["-TERM", std::fs::read_to_string(home.path("run/portmap.pid")).expect("it runs").trim()],
    )
    .ok();
    wait::until("end of the daemon", || !home.path("run/portmap.pid").exists());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(deaf);
}
