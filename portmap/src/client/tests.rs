use std::io::Write;
use std::os::unix::net::UnixListener;
use std::thread;

use serde_json::json;

use super::*;

#[test]
fn hosts_are_unix_paths_or_tcp_addresses() {
    let cases = [
        ("unix:///tmp/p.sock", Some("unix:///tmp/p.sock")),
        ("unix://", Some("unix:///run/portmap/portmap.sock")),
        ("tcp://127.0.0.1:2375", Some("tcp://127.0.0.1:2375")),
        ("tcp://127.0.0.1", None),
        ("/tmp/p.sock", None),
        ("npipe:////./pipe/x", None),
        ("", None),
    ];
    for (text, want) in cases {
        assert_eq!(Host::parse(text).ok().map(|host| host.to_string()).as_deref(), want, "{text:?}");
    }
}

#[test]
fn what_means_something_in_a_url_is_encoded() {
    assert_eq!(encode("a-b_c.d~9"), "a-b_c.d~9");
    assert_eq!(encode("/a b?c=d&é"), "%2Fa%20b%3Fc%3Dd%26%C3%A9");
}

/// Answers each connection with its texts, one per request, and closes it. What was asked.
fn serve(path: &Path, connections: &'static [&'static [&'static str]]) -> thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let mut asked = Vec::new();
        for answers in connections {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in *answers {
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).unwrap();
                asked.push(String::from_utf8_lossy(&buffer[..read]).into_owned());
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
        asked
    })
}

fn socket() -> (PathBuf, String) {
    let name = format!("portmap-client-{}-{:?}.sock", std::process::id(), thread::current().id());
    let path = env::temp_dir().join(name);
    let _ = std::fs::remove_file(&path);
    let host = format!("unix://{}", path.display());
    (path, host)
}

#[test]
fn one_connection_serves_many_requests() {
    let (path, host) = socket();
    let server = serve(
        &path,
        &[&[
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 33\r\n\r\n{\"message\":\"network x not found\"}",
            "HTTP/1.1 304 Not Modified\r\n\r\n",
        ]],
    );
    let mut client = Client::new(Some(&host)).unwrap();
    assert_eq!(client.call("GET", "/_ping", None).unwrap().body, b"OK");
    let error = client.call("GET", "/networks/x", None).unwrap_err();
    assert_eq!(error.to_string(), "Error response from daemon: network x not found");
    assert!(matches!(error, CallError::Daemon { status: 404, .. }));
    assert_eq!(client.call("POST", "/a?b=c", Some(&json!({ "A": 1 }))).unwrap().status, 304);
    let asked = server.join().unwrap();
    assert!(asked[0].starts_with("GET /_ping HTTP/1.1\r\n"), "{asked:?}");
    assert!(asked[2].contains("content-type: application/json\r\n"), "{asked:?}");
    assert!(asked[2].ends_with("\r\n\r\n{\"A\":1}"), "{asked:?}");
    let _ = std::fs::remove_file(&path);
}

#[test]
fn a_question_is_asked_again_but_an_order_the_daemon_may_have_seen_is_not() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
    let (path, host) = socket();
    let server = serve(&path, &[&[""], &[OK], &[""]]);
    let mut client = Client::new(Some(&host)).unwrap();
    assert_eq!(client.call("GET", "/networks", None).unwrap().body, b"OK");
    // The server closed it, unasked: whether we notice before or after we ask, it is a fresh connection that is closed.
    client.connection = None;
    let error = client.call("POST", "/networks/create", None).unwrap_err();
    assert!(error.to_string().starts_with("the connection to the portmap daemon was closed"), "{error}");
    assert_eq!(server.join().unwrap().len(), 3);
    let _ = std::fs::remove_file(&path);
}
