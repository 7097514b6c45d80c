use std::collections::VecDeque;
use std::path::Path;
use std::{env, fs};

use clap::{CommandFactory, Parser};
use serde_json::json;

use super::*;

#[derive(Parser)]
#[command(name = "portmap network")]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// Answers in order; what is asked is noted.
#[derive(Default)]
struct Daemon {
    answers: VecDeque<Result<Answer, CallError>>,
    asked: Vec<String>,
}

impl Api for Daemon {
    fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, CallError> {
        let body = body.map_or_else(String::new, |body| format!(" {body}"));
        self.asked.push(format!("{method} {path}{body}"));
        self.answers.pop_front().unwrap_or_else(|| Ok(Answer { status: 200, body: Vec::new() }))
    }
}

impl Daemon {
    fn answers(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.answers.push_back(Ok(Answer { status: 200, body: body.into() }));
        self
    }

    fn refuses(mut self, status: u16, message: &str) -> Self {
        self.answers.push_back(Err(CallError::Daemon { status, message: message.to_owned() }));
        self
    }
}

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    status: u8,
    out: String,
    err: String,
    asked: Vec<String>,
}

fn run_with(words: &[&str], input: &str, mut daemon: Daemon) -> Done {
    let line = Line::try_parse_from([&["network"], words].concat()).unwrap();
    let (mut input, mut out, mut err) = (input.as_bytes(), Vec::new(), Vec::new());
    let mut console = Console { input: &mut input, out: &mut out, err: &mut err };
    let status = execute(&line.args.command, &mut daemon, &mut console);
    let [out, err] = [out, err].map(|bytes| String::from_utf8(bytes).unwrap());
    Done { status, out, err, asked: daemon.asked }
}

fn run(words: &[&str], daemon: Daemon) -> Done {
    run_with(words, "", daemon)
}

fn done(status: u8, out: &str, err: &str) -> (u8, String, String) {
    (status, out.to_owned(), err.to_owned())
}

fn shown(Done { status, out, err, .. }: Done) -> (u8, String, String) {
    (status, out, err)
}

const NETWORKS: &str = r#"[
 {"Name":"n10","Id":"1196a4c5af43a21ae38ef34515b6af19236a3fc48122cf585e3f3054d509679b","Created":"2026-08-01T10:00:00.12Z",
  "Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"Internal":true,"Labels":{"b":"2","a":"1"}},
 {"Name":"none","Id":"9f904ee27bf5a21ae38ef34515b6af19236a3fc48122cf585e3f3054d509679b","Created":"2026-08-01T10:00:00Z",
  "Scope":"local","Driver":"null","EnableIPv4":true,"EnableIPv6":false,"Internal":false,"Labels":null},
 {"Name":"n2","Id":"20d412d86f5fa21ae38ef34515b6af19236a3fc48122cf585e3f3054d509679b","Created":"2026-08-01T10:00:00Z",
  "Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":true,"Internal":false,"Labels":{}}]"#;

/// `UPDATE_GOLDEN=1` rewrites the file; the rewrite is reviewed like code.
fn check_golden(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/network/golden").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, got).unwrap();
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    assert!(want == got, "{name} differs (UPDATE_GOLDEN=1 accepts)\n- want\n{want}\n- got\n{got}");
}

#[test]
fn help_says_what_it_said() {
    let mut tree = Line::command().term_width(100);
    tree.build();
    let mut all = tree.render_long_help().to_string();
    for command in tree.get_subcommands_mut() {
        let name = command.get_name().to_owned();
        if name != "help" {
            let help = command.clone().term_width(100).render_long_help();
            all.push_str(&format!("\n======== {name}\n{help}"));
        }
    }
    check_golden("help.txt", &all);
}

#[test]
fn requests_say_what_was_typed() {
    let lines: &[&[&str]] = &[
        &["create", "web"],
        &["create", "web", "-d", "null", "--internal", "--attachable=false", "--ipv4=false", "--ipv6"],
        &["create", "web", "--ipv6=false", "--internal=false", "--scope", "local"],
        &[
            "create",
            "web",
            "-o",
            "a=b",
            "--opt",
            "c",
            "-o",
            "a=d=e",
            "--ipam-driver",
            "x",
            "--ipam-opt",
            "y=z",
        ],
        &["create", "web", "--label", "l", "--label", "m=1", "--label", "n=a,b"],
        &["create", "web", "--subnet", "10.0.0.0/8,fd00::/64", "--gateway", "fd00::1", "--gateway=10.0.0.1"],
        &[
            "create",
            "--subnet=10.1.0.0/16",
            "--ip-range",
            "10.1.2.0/24",
            "--aux-address",
            "a=10.1.0.3",
            "--aux-address=b=10.1.0.4",
            "web",
        ],
        &["create", "--subnet", "10.10.10.0/8", "web"],
        &["create", "--subnet", "0.0.0.0/24", "web"],
        &["connect", "web", "one"],
        &[
            "connect",
            "--ip",
            "10.0.0.9",
            "--ip6",
            "fd00::9",
            "--alias",
            "a,b",
            "--alias",
            "c",
            "--link",
            "db:database",
            "--link",
            "x",
            "--link-local-ip",
            "169.254.1.1,fe80::1",
            "--driver-opt",
            "a=b,c=",
            "--gw-priority",
            "-3",
            "web",
            "one",
        ],
        &["connect", "web", "one", "--gw-priority=7", "--ip", "nonsense"],
        &["disconnect", "web", "one"],
        &["disconnect", "-f", "a/b c?", "one"],
        &["rm", "web", "ünï"],
        &["prune", "-f"],
        &["prune", "--force", "--filter", "label=a", "--filter", "label!=b=c", "--filter", "until=24h"],
        &["inspect", "web", "-v", "a%b"],
        &["ls"],
        &["list", "-f", "name=a", "--filter", "name=b"],
        &["ls", "-f", "name=a", "-f", "id=1", "-f", "driver=bridge", "-f", "id=2"],
        &["ls", "-f", "name=a", "-f", "id=1", "--filter-mode", "and"],
        &["ls", "-f", "type=custom", "-f", "type=builtin"],
        &["ls", "-f", "type=custom", "-f", "type=builtin", "-f", "name=a"],
        &["ls", "-f", "type=custom", "-f", "type=builtin", "-f", "name=a", "--filter-mode=and"],
        &["ls", "-qf", "name=a", "-qfid=1", "--filter=id=2"],
        &["ls", "-f", "type=custom", "-f", "name=a", "-f", "", "-f", " LABEL = x "],
    ];
    let mut all = String::new();
    for words in lines {
        let answer = if matches!(words[0], "create") { r#"{"Id":"1"}"# } else { "[]" };
        let answer = if words[0] == "prune" { "{}" } else { answer };
        let daemon = (0..4).fold(Daemon::default(), |daemon, _| daemon.answers(answer));
        let done = run(words, daemon);
        all.push_str(&format!("$ {}\n{}\n", words.join(" "), done.asked.join("\n")));
    }
    check_golden("requests.txt", &all);
}

#[test]
fn what_docker_refuses_is_refused_in_its_words_before_anything_is_asked() {
    const SUBNET: &[&str] = &["create", "web", "--subnet", "10.0.0.0/8"];
    let cases: &[(&[&[&str]], &str)] = &[
        (
            &[&["create", "web", "--gateway", "10.0.0.1"]],
            "every ip-range or gateway must have a corresponding subnet",
        ),
        (
            &[SUBNET, &["--ip-range", "10.0.0.0/9,10.128.0.0/9"]],
            "every ip-range or gateway must have a corresponding subnet",
        ),
        (&[&["create", "web", "--subnet", "x"]], "netip.ParsePrefix(\"x\"): no '/'"),
        (&[SUBNET, &["--ip-range", "10.0.0.0"]], "netip.ParsePrefix(\"10.0.0.0\"): no '/'"),
        (
            &[SUBNET, &["--subnet", "10.1.0.0/16"]],
            "multiple overlapping subnet configuration is not supported",
        ),
        (&[SUBNET, &["--ip-range", "11.0.0.0/9"]], "no matching subnet for range 11.0.0.0/9"),
        (&[SUBNET, &["--gateway", "11.0.0.1"]], "no matching subnet for gateway 11.0.0.1"),
        (&[SUBNET, &["--gateway", "x"]], "no matching subnet for gateway x"),
        (&[SUBNET, &["--aux-address", "a=11.0.0.1"]], "no matching subnet for aux-address 11.0.0.1"),
        (&[SUBNET, &["--aux-address", "a"]], "no matching subnet for aux-address "),
        (
            &[SUBNET, &["--subnet", "fd00::/64", "--gateway", "10.0.0.1,10.0.0.2"]],
            "cannot configure multiple gateways (10.0.0.2, 10.0.0.1) for the same subnet (10.0.0.0/8)",
        ),
        (
            &[SUBNET, &["--subnet", "fd00::/64", "--ip-range", "10.0.0.0/9,10.128.0.0/9"]],
            "cannot configure multiple ranges (10.128.0.0/9, 10.0.0.0/9) on the same subnet (10.0.0.0/8)",
        ),
        (
            &[&["create", "web", "--label", "=a"]],
            "invalid argument \"=a\" for \"--label\" flag: invalid label '=a': empty name",
        ),
        (&[&["create", "web", "--scope", "swarm"]], "--scope swarm: portmap's networks have the scope local"),
        (
            &[&["create", "web", "--attachable"]],
            "--attachable: portmap has no swarm; without it, every network can be attached to",
        ),
        (
            &[&["create", "web", "--ingress"]],
            "--ingress: portmap has no swarm whose traffic a network could distribute",
        ),
        (
            &[&["create", "web", "--config-only"]],
            "--config-only: portmap has no networks that are only configuration",
        ),
        (
            &[&["create", "web", "--config-from", "x"]],
            "--config-from: portmap has no networks that are only configuration",
        ),
        (
            &[&["connect", "web", "one", "--driver-opt", "a"]],
            "invalid key/value pair format in driver options",
        ),
        (
            &[&["connect", "web", "one", "--link", "a:b:c"]],
            "invalid argument \"a:b:c\" for \"--link\" flag: bad format for links: a:b:c",
        ),
        (
            &[&["connect", "web", "one", "--link", ""]],
            "invalid argument \"\" for \"--link\" flag: empty string specified for links",
        ),
        (&[&["connect", "", "one"]], "invalid network name or ID: value is empty"),
        (
            &[&["ls", "-f", "foo"]],
            "invalid argument \"foo\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
        ),
        (
            &[&["prune", "--filter", "foo"]],
            "invalid argument \"foo\" for \"--filter\" flag: bad format of filter (expected name=value)",
        ),
        (&[&["ls", "--format", "{{.Name"]], "template parsing error: template: :1: unclosed action"),
        (&[&["inspect", "web", "-f", "{{.Name"]], "template parsing error: template: :1: unclosed action"),
        (
            &[&["inspect", "web", "-f", "{{nope}}"]],
            "template parsing error: template: :1: function \"nope\" not defined",
        ),
    ];
    for (words, want) in cases {
        let words = words.concat();
        let Done { status, out, err, asked } = run(&words, Daemon::default());
        assert_eq!((out.as_str(), err), ("", format!("{want}\n")), "{words:?}");
        let want = if want.starts_with("invalid argument") {
            125
        } else if words[0] == "inspect" {
            64
        } else {
            1
        };
        assert_eq!((status, asked), (want, vec![]), "{words:?}");
    }
    for words in [
        &["create"][..],
        &["create", "a", "b"],
        &["create", "a", "--ipv6=maybe"],
        &["rm"],
        &["inspect"],
        &["connect", "a"],
        &["connect", "a", "b", "--gw-priority", "x"],
        &["disconnect", "a"],
        &["ls", "a"],
        &["ls", "--filter-mode", "xor"],
        &[],
    ] {
        assert!(Line::try_parse_from([&["network"], words].concat()).is_err(), "{words:?}");
    }
}

#[test]
fn create_prints_the_id_and_passes_warnings_on() {
    let daemon = Daemon::default().answers(r#"{"Id":"0123","Warning":""}"#);
    assert_eq!(shown(run(&["create", "web"], daemon)), done(0, "0123\n", ""));
    let daemon = Daemon::default().answers(r#"{"Id":"0123","Warning":"careful\u001b[2J"}"#);
    assert_eq!(shown(run(&["create", "web"], daemon)), done(0, "0123\n", "WARNING: careful\\u{1b}[2J\n"));
    let daemon = Daemon::default()
        .refuses(400, "invalid network config:\ninvalid subnet 10.10.10.0/8: it should be 10.0.0.0/8");
    let want = "Error response from daemon: invalid network config:\ninvalid subnet 10.10.10.0/8: it should be 10.0.0.0/8\n";
    assert_eq!(shown(run(&["create", "web"], daemon)), done(1, "", want));
    let Done { status, out, err, .. } = run(&["create", "web"], Daemon::default().answers("<html>"));
    assert!(status == 1 && out.is_empty() && err.starts_with("cannot read the daemon's answer: "), "{err}");
}

#[test]
fn rm_goes_on_after_a_failure() {
    let daemon = || Daemon::default().answers("").refuses(404, "network two not found").answers("");
    let missing = "Error response from daemon: network two not found\nexit status 1\n";
    assert_eq!(shown(run(&["rm", "one", "two", "three"], daemon())), done(1, "one\nthree\n", missing));
    assert_eq!(shown(run(&["remove", "-f", "one", "two", "three"], daemon())), done(0, "one\nthree\n", ""));
    let daemon = Daemon::default().refuses(403, "bridge is a pre-defined network and cannot be removed");
    let want =
        "Error response from daemon: bridge is a pre-defined network and cannot be removed\nexit status 1\n";
    assert_eq!(shown(run(&["rm", "--force", "bridge"], daemon)), done(1, "", want));
    let want = "invalid network name or ID: value is empty\nexit status 1\n";
    assert_eq!(shown(run(&["rm", ""], Daemon::default())), done(1, "", want));
}

#[test]
fn ls_lists_by_name_each_once() {
    let table = "NETWORK ID     NAME      DRIVER    SCOPE\n\
                 20d412d86f5f   n2        bridge    local\n\
                 1196a4c5af43   n10       bridge    local\n\
                 9f904ee27bf5   none      null      local\n";
    assert_eq!(shown(run(&["ls"], Daemon::default().answers(NETWORKS))), done(0, table, ""));
    let twice = Daemon::default().answers(NETWORKS).answers(NETWORKS);
    assert_eq!(shown(run(&["ls", "-f", "id=1", "-f", "name=n"], twice)), done(0, table, ""));
    let ids = "20d412d86f5f\n1196a4c5af43\n9f904ee27bf5\n";
    assert_eq!(shown(run(&["ls", "-q"], Daemon::default().answers(NETWORKS))), done(0, ids, ""));
    let Done { out, .. } = run(&["ls", "-q", "--no-trunc"], Daemon::default().answers(NETWORKS));
    assert!(out.lines().all(|id| id.len() == 64), "{out}");
    let Done { out, .. } = run(&["ls", "--no-trunc=false", "-q=true"], Daemon::default().answers(NETWORKS));
    assert_eq!(out, ids);
    let daemon = Daemon::default().refuses(400, "invalid filter 'x'");
    let want = done(1, "", "Error response from daemon: invalid filter 'x'\n");
    assert_eq!(shown(run(&["ls", "-f", "x=y"], daemon)), want);
}

#[test]
fn ls_formats_every_field() {
    let format = |format: &str| run(&["ls", "--format", format], Daemon::default().answers(NETWORKS)).out;
    let first = |text: String| text.lines().nth(1).map(str::to_owned);
    let json = "{\"CreatedAt\":\"2026-08-01 10:00:00.12 +0000 UTC\",\"Driver\":\"bridge\",\"ID\":\"1196a4c5af43\",\
                \"IPv4\":\"true\",\"IPv6\":\"false\",\"Internal\":\"true\",\"Labels\":\"a=1,b=2\",\"Name\":\"n10\",\"Scope\":\"local\"}";
    assert_eq!(first(format("json")).as_deref(), Some(json));
    let fields = "{{.ID}} {{.Name}} {{.Driver}} {{.Scope}} {{.IPv4}} {{.IPv6}} {{.Internal}} {{.Labels}} {{.CreatedAt}} {{.Label \"b\"}}";
    let want = "1196a4c5af43 n10 bridge local true false true a=1,b=2 2026-08-01 10:00:00.12 +0000 UTC 2";
    assert_eq!(first(format(fields)).as_deref(), Some(want));
    assert_eq!(
        format("table {{.Name}}\\t{{.IPv6}}\\t{{.Internal}}\\t{{.Labels}}\\t{{.CreatedAt}}").lines().next(),
        Some("NAME      IPV6      INTERNAL   LABELS    CREATED AT")
    );
}

#[test]
fn inspect_prints_what_is_there_and_then_what_is_not() {
    let web = r#"{"Name":"web","Id":"01","IPAM":{"Config":[{"Subnet":"172.22.0.0/16"}]},"Containers":{
        "b":{"Name":"big_bhabha","IPv4Address":"172.22.0.2/16"},"a":{"Name":"elegant_roentgen","IPv4Address":"172.22.0.3/16"}}}"#;
    let daemon = || Daemon::default().refuses(404, "network no not found").answers(web);
    let missing = "Error response from daemon: network no not found\n";
    let words = |format: &'static str| ["inspect", "no", "web", "-f", format];
    let cases = [
        ("{{(index .IPAM.Config 0).Subnet}}", "172.22.0.0/16\n"),
        (
            "{{range $c := .Containers}}{{$c.Name}} -> {{$c.IPv4Address}}    {{end}}",
            "elegant_roentgen -> 172.22.0.3/16    big_bhabha -> 172.22.0.2/16    \n",
        ),
        (
            "{{range $c := .Containers}}{{$.Name}} -> {{$c.IPv4Address}}    {{end}}",
            "web -> 172.22.0.3/16    web -> 172.22.0.2/16    \n",
        ),
        ("{{.ID}}{{(index .IPAM.Config 0).Gateway}}", "01\n"),
        ("{{.Id}}\\n", "01\\n\n"),
    ];
    for (format, want) in cases {
        assert_eq!(shown(run(&words(format), daemon())), done(1, want, missing), "{format}");
    }
    let want = "[\n    {\n        \"z\": 1,\n        \"a\": {}\n    }\n]\n";
    assert_eq!(
        shown(run(&["inspect", "x"], Daemon::default().answers(r#"{"z":1,"a":{}}"#))),
        done(0, want, "")
    );
    let none = |words: &[&str]| shown(run(words, Daemon::default().refuses(404, "network no not found")));
    assert_eq!(none(&["inspect", "no"]), done(1, "[]\n", missing));
    assert_eq!(none(&["inspect", "no", "-f", "json"]), done(1, "[]\n", missing));
    assert_eq!(none(&["inspect", "no", "-f", "{{.Name}}"]), done(1, "\n", missing));
    let want = "template parsing error: template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"\n";
    assert_eq!(
        shown(run(&["inspect", "x", "-f", "{{.Nope}}"], Daemon::default().answers(web))),
        done(1, "\n", want)
    );
}

#[test]
fn prune_asks_first() {
    let question = "WARNING! This will remove all custom networks not used by at least one container.\n\
                    Are you sure you want to continue? [y/N] ";
    let daemon = || Daemon::default().answers(r#"{"NetworksDeleted":["one","two"]}"#);
    let deleted = "Deleted Networks:\none\ntwo\n\n";
    for (input, agreed) in
        [("y\n", true), ("Y", true), (" y \n", true), ("", false), ("n\n", false), ("yes\n", false)]
    {
        let Done { status, out, err, asked } = run_with(&["prune"], input, daemon());
        let want = format!("{question}{}", if agreed { deleted } else { "" });
        assert_eq!((status, out, err.as_str(), asked.len()), (0, want, "", usize::from(agreed)), "{input:?}");
    }
    assert_eq!(shown(run(&["prune", "-f"], daemon())), done(0, deleted, ""));
    let nothing = Daemon::default().answers(r#"{"NetworksDeleted":null}"#);
    assert_eq!(shown(run(&["prune", "-f"], nothing)), done(0, "", ""));
}

#[test]
fn connect_and_disconnect_print_nothing_but_errors() {
    for command in ["connect", "disconnect"] {
        assert_eq!(shown(run(&[command, "web", "one"], Daemon::default())), done(0, "", ""));
        let daemon = Daemon::default().refuses(404, "No such container: one");
        let want = "Error response from daemon: No such container: one\n";
        assert_eq!(shown(run(&[command, "web", "one"], daemon)), done(1, "", want));
    }
}

/// A reader that leaves after the first lines.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    for words in [&["ls"][..], &["inspect", "web"], &["create", "web"], &["rm", "a", "b"], &["prune", "-f"]] {
        let body = json!({"Id": "1", "NetworksDeleted": ["x"]}).to_string();
        let mut daemon = Daemon::default().answers(if words[0] == "ls" { NETWORKS.to_owned() } else { body });
        let line = Line::try_parse_from([&["network"], words].concat()).unwrap();
        let mut err = Vec::new();
        let mut console = Console { input: &mut io::empty(), out: &mut Gone, err: &mut err };
        assert_eq!(execute(&line.args.command, &mut daemon, &mut console), 0, "{words:?}");
        assert!(err.is_empty());
    }
}
