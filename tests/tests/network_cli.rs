//! `portmap network` beside Docker's own command line: of the same answers both print the same, byte for byte, and end with
//! the same status; for the same words both ask the same.
//!
//! The daemon is a thread that knows a few networks by heart, on a Unix socket; no namespace, no root. The last test asks
//! our real daemon, in a namespace of its own.
//!
//! What differs on purpose, and isn't compared: a flag that can't be read is one line, without Docker's usage below; a
//! field that a list doesn't have is answered with those it has; labels of a list are sorted, in Docker their order is
//! random; a subnet or range that doesn't parse is refused before the daemon is asked, in the words of Docker 29; several
//! filters of `ls` are alternatives; `rm` doesn't look at a network before it removes it. And by the engine's limits: some
//! errors of templates have other words or no position, and times have no methods.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use e2e::lab::Host;
use e2e::{bin, need, wait};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// From this major version on, Docker's command line prints what ours prints.
const AS_OURS: u32 = 28;

/// The networks of the daemon, as Docker's daemon writes them.
const NETWORKS: [&str; 5] = [
    r#"{"Name":"n10","Id":"1196a4c5af43a21ae38ef34515b6af19236a3fc48122cf585e3f3054d509679b","Created":"2026-08-01T10:00:00.123456789Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"172.21.0.0/16","IPRange":"172.21.5.0/24","Gateway":"172.21.0.1","AuxiliaryAddresses":{"router":"172.21.0.2"}},{"Subnet":"fd00:21::/64"}]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{"48b5d2c3f1e04a0ea8d1c3f6b7e5a49f7d0c2b1a0f9e8d7c6b5a4938271605f4":{"Name":"big_bhabha","EndpointID":"3c1b3a495867768594a3b2c1d0e0f1e2d3c4b5a69788796a5b4c3d2e1f0a9b8c","MacAddress":"02:42:ac:15:05:03","IPv4Address":"172.21.5.3/16","IPv6Address":"fd00:21::3/64"},"88b5d2c3f1e04a0ea8d1c3f6b7e5a49f7d0c2b1a0f9e8d7c6b5a4938271605f4":{"Name":"web","EndpointID":"2c1b3a495867768594a3b2c1d0e0f1e2d3c4b5a69788796a5b4c3d2e1f0a9b8c","MacAddress":"02:42:ac:15:05:02","IPv4Address":"172.21.5.2/16","IPv6Address":""}},"Options":{"com.docker.network.bridge.name":"br-test"},"Labels":{"com.my-own_key":"<x>&é"}}"#,
    r#"{"Name":"n2","Id":"20d412d86f5ffc055a81a94a47dc84d8a4d712256d6dc5d55f0e7c7320faf37a","Created":"2026-08-01T10:00:01Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":true,"IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"172.22.0.0/16","Gateway":"172.22.0.1"}]},"Internal":true,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{},"Labels":{}}"#,
    r#"{"Name":"a name that is long, 名前","Id":"30d412d86f5ffc055a81a94a47dc84d8a4d712256d6dc5d55f0e7c7320faf37a","Created":"2026-08-01T10:00:02Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":{},"Config":[]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{},"Labels":{}}"#,
    r#"{"Name":"none","Id":"9f904ee27bf5fc055a81a94a47dc84d8a4d712256d6dc5d55f0e7c7320faf37a","Created":"2026-08-01T10:00:03Z","Scope":"local","Driver":"null","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":null},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{},"Labels":{}}"#,
    r#"{"Name":"bridge","Id":"b2b1a2cba717fc055a81a94a47dc84d8a4d712256d6dc5d55f0e7c7320faf37a","Created":"2026-08-01T10:00:04Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":[{"Subnet":"172.17.0.0/16","Gateway":"172.17.0.1"}]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{"com.docker.network.bridge.default_bridge":"true"},"Labels":{}}"#,
];

/// The daemon, and what it was asked to do.
struct Daemon {
    folder: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, log) = (stream.unwrap(), Arc::clone(&log));
                // A client that leaves amid a request has what it wanted.
                thread::spawn(move || serve(&stream, &log));
            }
        });
        Self { folder, asked }
    }

    /// What `program` prints for these words, and what it asks.
    fn run(&self, program: &Path, words: &[&str]) -> (Output, Vec<String>) {
        self.asked.lock().unwrap().clear();
        let output = Command::new(program)
            .env_clear()
            .env("HOME", self.folder.path())
            .arg(format!("--host=unix://{}", self.folder.path().join("socket").display()))
            .arg("network")
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (output, std::mem::take(&mut self.asked.lock().unwrap()))
    }
}

/// Answers requests of one connection; those that change something are noted, without the version in their paths.
fn serve(stream: &UnixStream, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let (mut request, mut length) = (String::new(), 0);
        reader.read_line(&mut request).ok().filter(|read| *read > 0)?;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
            let Some((name, value)) = header.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let mut words = request.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let path = match path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/')) {
            Some((_, rest)) => format!("/{rest}"),
            None => path.to_owned(),
        };
        if method == "POST" || method == "DELETE" {
            log.lock().unwrap().push(format!("{method} {path} {}", said(&body)));
        }
        let (status, answer) = answer(method, &path);
        let length = answer.len();
        let content = if method == "HEAD" { "" } else { &answer };
        let head = "Api-Version: 1.51\r\nContent-Type: application/json";
        write!(writer, "HTTP/1.1 {status} -\r\n{head}\r\nContent-Length: {length}\r\n\r\n{content}").ok()?;
    }
}

fn answer(method: &str, path: &str) -> (u16, String) {
    let path = path.split('?').next().unwrap_or(path);
    let network = path.strip_prefix("/networks/").unwrap_or_default();
    let found = NETWORKS.iter().find(|text| {
        let (_, rest) = text.split_once(r#""Name":""#).unwrap();
        rest.split('"').next() == Some(network)
    });
    match (method, path) {
        (_, "/_ping") => (200, "OK".to_owned()),
        ("GET", "/networks") => (200, format!("[{}]\n", NETWORKS.join(","))),
        ("POST", "/networks/create") => {
            (201, format!("{{\"Id\":\"{}\",\"Warning\":\"\"}}\n", "1a".repeat(32)))
        }
        ("POST", "/networks/prune") => (200, "{\"NetworksDeleted\":[\"one\",\"two\"]}\n".to_owned()),
        ("POST", _) if path.ends_with("/stuck") || network.starts_with("stuck/") => {
            (403, "{\"message\":\"endpoint with name c already exists in network stuck\"}\n".to_owned())
        }
        ("POST", _) => (200, String::new()),
        ("DELETE", _) if network == "bridge" => {
            (403, "{\"message\":\"bridge is a pre-defined network and cannot be removed\"}\n".to_owned())
        }
        (method, _) => match found {
            Some(_) if method == "DELETE" => (204, String::new()),
            Some(text) => (200, format!("{text}\n")),
            None => (404, json!({ "message": format!("network {network} not found") }).to_string()),
        },
    }
}

/// A request's body without what says nothing: zero values, which either side may leave out, except where a value says
/// more than none (`EnableIPv6`).
fn said(body: &[u8]) -> Value {
    fn prune(value: Value) -> Value {
        let Value::Object(map) = value else { return value };
        let zero = [Value::Null, json!(0), json!(false), json!([]), json!({})];
        let says_nothing = |key: &str, value: &Value| {
            // Of texts only those of the API itself; options and labels may be empty.
            let text =
                key == "Scope" || key.ends_with("Gateway") || key.ends_with("Address") || key.ends_with("ID");
            key == "CheckDuplicate"
                || (!key.starts_with("Enable") && zero.contains(value))
                || (text && value == "")
        };
        let said = map.into_iter().map(|(key, value)| (key, prune(value)));
        Value::Object(said.filter(|(key, value)| !says_nothing(key, value)).collect())
    }
    serde_json::from_slice(body).map_or(Value::Null, prune)
}

fn docker() -> Option<(PathBuf, u32)> {
    let docker = need::program("docker")?;
    let output = Command::new(&docker).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let major = text.split_whitespace().find_map(|word| word.split_once('.')?.0.parse().ok());
    Some((docker, major.unwrap_or_else(|| panic!("a version in {text:?}"))))
}

/// Compares standard output, standard error and status, line after line.
fn compare(lines: &[&[&str]]) {
    let Some((docker, version)) = docker() else { return };
    let daemon = Daemon::start();
    let mut differing = Vec::new();
    for words in lines {
        let (theirs, mut they_asked) = daemon.run(&docker, words);
        if version < AS_OURS {
            // They didn't know yet that nothing can be said about it.
            they_asked.iter_mut().for_each(|asked| *asked = asked.replace("\"EnableIPv6\":false,", ""));
        }
        let (ours, we_asked) = daemon.run(&bin::portmap(), words);
        let show = |output: &Output| {
            let [out, err] =
                [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            // Whatever explains a command below an error is each program's own.
            let err = err.split("\n\nUsage:").next().unwrap_or_default().trim_end().to_owned();
            format!("{:?}\n{out}{err}", output.status.code())
        };
        let (theirs, ours) = (show(&theirs), show(&ours));
        if version >= AS_OURS && theirs != ours {
            differing.push(format!("{words:?}\n-- docker\n{theirs}\n-- portmap\n{ours}"));
        }
        if they_asked != we_asked {
            differing
                .push(format!("{words:?}\n-- docker asks\n{they_asked:#?}\n-- portmap asks\n{we_asked:#?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n\n"));
}

#[test]
fn ls_prints_what_docker_prints() {
    compare(&[
        &["ls"],
        &["list"],
        &["ls", "-q"],
        &["ls", "-q", "--no-trunc"],
        &["ls", "--no-trunc"],
        &["ls", "--no-trunc=false", "-q=true"],
        &["ls", "--format", "json"],
        &["ls", "-q", "--format", "json"],
        &["ls", "--format", "raw"],
        &["ls", "-q", "--format", "raw"],
        &["ls", "--format", "table"],
        &["ls", "--format", ""],
        &[
            "ls",
            "--format",
            r#"table {{.Name}}\t{{.Label "com.my-own_key"}}\t{{upper .Driver}}\t{{.IPv6}}\t{{.Internal}}\t{{.CreatedAt}}\t{{.Labels}}"#,
        ],
        &[
            "ls",
            "--format",
            r"table {{pad .Name 2 3}}\t{{truncate .Name 3}}\t{{title .Driver}}\t{{lower .Scope}}\t{{json .Name}}",
        ],
        &[
            "ls",
            "--format",
            r#"{{title .Driver}}|{{split .ID "4"}}|{{join (split .ID "4") "-"}}|{{json .Labels}}|{{len .Name}}"#,
        ],
        &["ls", "--format", r#"{{if eq .Driver "bridge"}}yes{{else}}no{{end}}\n{{printf "%q" .Scope}}"#],
        &["ls", "--format", r"{{println .Name}}\tx"],
        &["ls", "--format", "table {{.Name}}: {{.Driver}}"],
        &["ls", "--format", r#"{{range $i, $c := split .Name "1"}}{{$i}}{{$c}},{{end}}"#],
        &["ls", "--format", "{{.Name"],
        &["ls", "--format", "{{nope}}"],
        &["ls", "-f", "name=x"],
        &["ls", "-f", ""],
        &["ls", "-f", "foo"],
    ]);
}

#[test]
fn inspect_prints_what_docker_prints() {
    let with = |template| ["inspect", "-f", template, "n10"];
    let templates = [
        "{{(index .IPAM.Config 0).Subnet}}",
        "{{range $c := .Containers}}{{$c.Name}} -> {{$c.IPv4Address}}    {{end}}",
        "{{range $c := .Containers}}{{$.Name}} -> {{$c.IPv4Address}}    {{end}}",
        "{{range .Containers}}[{{.IPv6Address}}]{{end}}",
        "{{range .IPAM.Config}}[{{.IPRange}}][{{.Gateway}}]{{.AuxAddress}}{{.AuxAddress.router}}{{end}}",
        "{{range .IPAM.Config}}[{{.AuxiliaryAddresses}}]{{end}}",
        "{{.ID}} {{.Name}}",
        "{{.Id}} {{.Name}}",
        "{{.Id}} {{.ID}}",
        "{{.Nope}}",
        "{{.IPAM.Nope}}",
        "{{range $k, $c := .Containers}}{{$c.Nope}}{{end}}",
        "{{json .}}",
        "{{json .IPAM}} {{json (index .IPAM.Config 1)}} {{json .Containers}}",
        "{{json .Labels}} {{json .Created}} {{.Created}}",
        "{{.Labels}} {{.Options}} {{.Internal}} {{.EnableIPv6}}",
        "{{len .Containers}} {{len .IPAM.Config}} {{len .Peers}} {{.Services}}",
        "{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}",
        r#"{{index .Options "com.docker.network.bridge.name"}} {{index .Labels "no"}} {{.Labels.no}}"#,
        "{{.Name",
        "{{nope}}",
        "{{end}}",
        r#"{{.Name | upper | printf "%s-%s" .Driver}}"#,
        r"a\tb\n",
        "{{/* nothing */}}{{- \" x \" -}} y",
        "{{slice .ID 0 12}}",
        "json",
        "",
    ];
    let lines: Vec<[&str; 4]> = templates.into_iter().map(with).collect();
    let mut lines: Vec<&[&str]> = lines.iter().map(<[_; 4]>::as_slice).collect();
    lines.extend::<[&[&str]; 9]>([
        &["inspect", "n2"],
        &["inspect", "n2", "none", "n10", "bridge"],
        &["inspect", "n2", "nope", "n10"],
        &["inspect", "-v", "n10"],
        &["inspect", "nope", "nope2"],
        &["inspect", "-f", "{{.Name}}", "n2", "nope", "n10"],
        &["inspect", "-f", "{{.Name}}", "nope"],
        &["inspect", "-f", "json", "nope"],
        &["inspect", ""],
    ]);
    compare(&lines);
}

#[test]
fn changes_are_asked_for_as_docker_asks() {
    compare(&[
        &["create", "web"],
        &["create", "web", "-d", "null", "--internal"],
        &[
            "create",
            "web",
            "-o",
            "a=b",
            "--opt",
            "c",
            "--ipam-driver",
            "x",
            "--ipam-opt",
            "y=z",
            "--ipam-opt",
            "k",
        ],
        &["create", "web", "--label", "l", "--label", "m=1", "--label", "n=a,b"],
        &["create", "web", "--subnet", "10.0.0.0/8", "--gateway=10.0.0.1"],
        &[
            "create",
            "web",
            "--subnet=10.1.0.0/16",
            "--ip-range",
            "10.1.2.0/24",
            "--aux-address",
            "a=10.1.0.3",
            "--aux-address=b=10.1.0.4",
        ],
        &["create", "web", "--gateway", "10.0.0.1"],
        &["create", "web", "--subnet", "10.0.0.0/8", "--gateway", "x"],
        &["create", "web", "--subnet", "10.0.0.0/8", "--aux-address", "a=zz"],
        &["create", "web", "--subnet", "10.0.0.0/8", "--aux-address", "a"],
        &["create", "web", "--subnet", "10.0.0.0/8", "--subnet", "10.1.0.0/16"],
        &[
            "create",
            "web",
            "--subnet",
            "10.0.0.0/8",
            "--subnet",
            "11.0.0.0/8",
            "--ip-range",
            "10.0.0.0/9,10.128.0.0/9",
        ],
        &[
            "create",
            "web",
            "--subnet",
            "10.0.0.0/8",
            "--subnet",
            "11.0.0.0/8",
            "--gateway",
            "10.0.0.1,10.0.0.2",
        ],
        &["create", "web", "--subnet", "10.0.0.0/8", "--ip-range", "11.0.0.0/9"],
        &["create", "web", "--subnet", "10.0.0.0/8", "--gateway", "11.0.0.1"],
        &["create", "web", "--label", "=a"],
        &["connect", "n2", "c"],
        &[
            "connect",
            "--ip",
            "10.0.0.9",
            "--ip6",
            "fd00::9",
            "--alias",
            "a",
            "--alias",
            "c",
            "--link",
            "db:database",
            "n2",
            "c",
        ],
        &[
            "connect",
            "--link-local-ip",
            "169.254.1.1,fe80::1",
            "--driver-opt",
            "a=b",
            "--driver-opt",
            "c=",
            "n2",
            "c",
        ],
        &["connect", "n2", "c", "--driver-opt", "x"],
        &["connect", "n2", "c", "--link", "a:b:c"],
        &["connect", "stuck", "c"],
        &["disconnect", "n2", "c"],
        &["disconnect", "--force", "n2", "c"],
        &["rm", "n2"],
        &["rm", "n2", "n10"],
        &["prune", "-f"],
        &["prune", "-f", "--filter", "label=a", "--filter", "label!=b=c", "--filter", "until=24h"],
        &["prune"],
        &["prune", "--filter", "x"],
    ]);
}

#[test]
fn newer_flags_are_asked_for_as_newer_dockers_ask() {
    let Some((_, version)) = docker() else { return };
    if version >= AS_OURS {
        compare(&[
            &["create", "web", "--ipv4=false", "--ipv6"],
            &["create", "web", "--ipv6=false", "--internal=false", "--scope", "local"],
            &["connect", "n2", "c", "--gw-priority", "-3"],
            &["connect", "n2", "c", "--gw-priority=7", "--alias", "a,b"],
            &["rm", "-f", "n2"],
            &["rm", "bridge"],
        ]);
    }
}

/// Docker asks nothing about a network that its own look didn't find; what it prints is the same.
#[test]
fn rm_goes_on_as_docker_does() {
    let Some((docker, version)) = docker() else { return };
    let daemon = Daemon::start();
    for words in [
        &["rm", "n2", "nope", "n10"][..],
        &["rm", "nope"],
        &["rm", "-f", "nope", "n2"],
        &["remove", "n2", "bridge"],
        &["rm", ""],
    ] {
        let ours = daemon.run(&bin::portmap(), words).0;
        if version >= AS_OURS {
            let theirs = daemon.run(&docker, words).0;
            assert_eq!(
                (theirs.status, theirs.stdout, theirs.stderr),
                (ours.status, ours.stdout, ours.stderr),
                "{words:?}"
            );
        }
    }
}

/// What our daemon answers reads the same on both command lines, refusals too.
#[test]
fn of_our_daemon_both_print_the_same() {
    const LINES: &[&[&str]] = &[
        &["ls"],
        &["ls", "--no-trunc"],
        &["ls", "--format", "json"],
        &["ls", "-f", "label=x"],
        &["ls", "-f", "name=w"],
        &["ls", "-f", "nope=y"],
        &["ls", "-f", "type=nope"],
        &["ls", "-f", "dangling=true"],
        &["ls", "-f", "driver=null"],
        &["inspect", "web", "two", "bridge", "host", "none", "nope"],
        &["inspect", "-f", "json", "two"],
        &["inspect", "-f", "{{json .}}", "two", "bridge", "none"],
        &[
            "inspect",
            "-f",
            "{{range .IPAM.Config}}{{.Subnet}} {{.IPRange}} {{.Gateway}} {{.AuxAddress}} {{end}}",
            "two",
        ],
        &["create", "web"],
        &["create", "bridge"],
        &["create", "default"],
        &["create", "-d", "nope", "x"],
        &["create", "-d", "host", "x"],
        &["create", "--subnet", "172.28.0.0/24", "x"],
        &["create", "--subnet", "10.10.10.0/8", "x"],
        &["create", "--subnet", "10.0.0.0/8", "--ip-range", "10.0.1.7/24", "x"],
        &["create", "--subnet", "10.0.0.0/8", "--subnet", "11.0.0.0/8", "x"],
        &["create", "-o", "com.docker.network.bridge.enable_icc=maybe", "x"],
        &["create", "-o", "com.docker.network.driver.mtu=-1", "x"],
        &["create", " "],
        &["connect", "web", "nope"],
        &["connect", "nope", "nope"],
        &["disconnect", "web", "nope"],
        &["disconnect", "-f", "web", "nope"],
        &["rm", "bridge", "nope", "host"],
        &["rm", "-f", "nope"],
        &["prune", "-f", "--filter", "until=nope"],
        &["prune", "-f", "--filter", "nope=x"],
    ];
    let (Some(host), Some((docker, version))) = (Host::new("host"), docker()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let url = format!("--host=unix://{}", at("socket").display());
    let mut daemon = Command::new(bin::portmap());
    daemon.arg("daemon").arg(&url).arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("run"));
    let mut daemon = host.spawn(daemon);
    wait::until("daemon's socket", || UnixStream::connect(at("socket")).is_ok());
    let run = |program: &Path, words: &[&str]| {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", folder.path()).arg(&url).arg("network").args(words);
        let Output { status, stdout, stderr } = host.output(command);
        (status, [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let portmap = |words: &[&str]| run(&bin::portmap(), words);
    let made = [
        portmap(&["create", "web"]),
        portmap(&[
            "create",
            "two",
            "--subnet",
            "172.28.0.0/16",
            "--ip-range",
            "172.28.5.0/24",
            "--aux-address",
            "a=172.28.1.1",
            "--label",
            "x=y",
            "--label",
            "z",
            "-o",
            "com.docker.network.driver.mtu=1400",
        ]),
    ];
    for (status, [id, error]) in made {
        assert!(status.success() && id.trim().len() == 64, "{id}{error}");
    }
    if version >= AS_OURS {
        for words in LINES {
            assert_eq!(portmap(words), run(&docker, words), "{words:?}");
        }
    }
    let (status, [out, error]) = portmap(&["prune", "-f"]);
    assert!(status.success() && out.starts_with("Deleted Networks:\n"), "{out}{error}");
    assert_eq!(portmap(&["ls", "-q", "-f", "type=custom"]).1, [const { String::new() }; 2]);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.code(), 0);
}
