//! `portmap daemon` from outside: its socket, its life, and the docker CLI against it.

mod hostile;
mod life;
mod sandboxes;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use e2e::daemon::Home;
use e2e::lab::Host;
use e2e::proc::Proc;
use e2e::{bin, need, wait};
use nix::sys::signal::Signal;

fn home() -> Option<Home> {
    Home::new(&Host::new("host")?)
}

#[test]
fn a_ping_has_dockers_headers_and_needs_no_version() {
    let Some(home) = home() else { return };
    let Some(_) = need::program("curl") else { return };
    let _daemon = home.daemon(&[]);
    let socket = home.socket();
    let curl = |words: &[&str]| {
        let all = [&["-s", "-i", "--unix-socket", socket.to_str().expect("plain")], words].concat();
        home.run("curl", &all).ok().to_lowercase()
    };
    for words in [&["http://x/_ping"][..], &["http://x/v1.24/_ping"], &["-I", "http://x/_ping"]] {
        let answer = curl(words);
        assert!(answer.starts_with("http/1.1 200 ok"), "{answer}");
        for header in ["api-version: 1.51", "ostype: linux", "swarm: inactive", "docker-experimental: false"]
        {
            assert!(answer.contains(header), "{header}: {answer}");
        }
        assert_eq!(answer.ends_with("\r\n\r\nok"), !words.contains(&"-I"), "{answer}");
    }
    let refusals = [
        (&["http://x/nope"][..], "404", "page not found"),
        (&["-X", "PUT", "http://x/networks"], "404", "page not found"),
        (
            &["http://x/v1.99/info"],
            "400",
            "client version 1.99 is too new. maximum supported api version is 1.51",
        ),
        (&["http://x/networks/nope"], "404", "network nope not found"),
        (&["http://x/networks?filters=x"], "400", "invalid filter"),
        (&["-X", "POST", "http://x/containers/create"], "501", "portmap run"),
        (&["http://x/images/a/b/json"], "404", "no such image: a/b"),
        (&["-X", "POST", "-d", "{}", "http://x/networks/create"], "400", "must be 'application/json'"),
    ];
    for (words, status, text) in refusals {
        let answer = curl(words);
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{words:?}: {answer}");
        assert!(answer.contains("content-type: application/json\r\n"), "{words:?}: {answer}");
        assert!(answer.contains("{\"message\":\"") && answer.contains(text), "{words:?}: {answer}");
    }
    let large = vec![b' '; 1 << 20];
    let body = home.path("large");
    std::fs::write(&body, large).expect("our own folder");
    let body = format!("@{}", body.display());
    let json = "Content-Type: application/json";
    let answer = curl(&["-H", json, "--data-binary", &body, "http://x/networks/create"]);
    assert!(answer.contains("http/1.1 413 "), "{answer}");
}

#[test]
fn dockers_own_client_is_at_home() {
    let Some(home) = home() else { return };
    let Some(_) = need::program("docker") else { return };
    let _daemon = home.daemon(&[]);
    let versions = home.docker(&["version", "--format", "{{.Server.APIVersion}} {{.Server.MinAPIVersion}}"]);
    assert_eq!(versions.ok(), "1.51 1.24");
    assert_eq!(home.docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"]).ok(), "inactive");
    let list = ["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"];
    assert_eq!(home.docker(&list).ok(), "bridge bridge local\nhost host local\nnone null local");
    let create = ["network", "create", "--subnet", "10.9.0.0/24", "--label", "a=b", "front"];
    let id = home.docker(&create).ok();
    assert_eq!(id.len(), 64, "{id}");
    let refused = home.docker(&create);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.starts_with("Error response from daemon: network with name front already exists"),
        "{refused:?}"
    );
    let subnet = ["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}} {{.Labels.a}}", &id[..12]];
    assert_eq!(home.docker(&subnet).ok(), "10.9.0.1 b");
    home.portmap(&["run", "-d", "--name", "web", "--net", "front", "sleep", "100"]).ok();
    assert_eq!(home.docker(&["ps", "--format", "{{.Names}} {{.State}} {{.Image}}"]).ok(), "web running host");
    let address = "{{(index .NetworkSettings.Networks \"front\").IPAddress}}";
    assert_eq!(home.docker(&["inspect", "-f", address, "web"]).ok(), "10.9.0.2");
    let busy = home.docker(&["network", "rm", "front"]);
    assert!(busy.stderr.contains("network front has active endpoints (name:\"web\" id:\""), "{busy:?}");
    home.docker(&["network", "disconnect", "front", "web"]).ok();
    home.docker(&["network", "connect", "--ip", "10.9.0.77", "front", "web"]).ok();
    assert_eq!(home.docker(&["inspect", "-f", address, "web"]).ok(), "10.9.0.77");
    assert_eq!(home.docker(&["stop", "-t", "5", "web"]).ok(), "web");
    assert_eq!(home.docker(&["wait", "web"]).ok(), "143");
    assert_eq!(home.docker(&["rm", "web"]).ok(), "web");
    assert_eq!(home.docker(&["network", "rm", "front"]).ok(), "front");
    let events = ["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}}"];
    // The client sends whole seconds: what happened in this one comes with the next.
    let mut heard = String::new();
    wait::until("last event", || {
        heard = home.docker(&events).ok();
        heard.ends_with("network destroy")
    });
    let wanted = [
        "network create",
        "container create",
        "network connect",
        "container start",
        "network disconnect",
        "network connect",
        "container kill",
        "container die",
        "network disconnect",
        "container stop",
        "container destroy",
        "network destroy",
    ];
    assert_eq!(heard.lines().collect::<Vec<_>>(), wanted);
    assert!(home.docker(&["inspect", "nothing"]).stderr.to_lowercase().contains("no such object: nothing"));
}

#[test]
fn the_socket_is_for_its_owner_and_group() {
    let Some(home) = home() else { return };
    let _daemon = home.daemon(&[]);
    let mode = std::fs::metadata(home.socket()).expect("it listens").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let program = bin::portmap();
    let words = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    let copy = home.path("portmap");
    std::fs::copy(program, &copy).expect("our own folder");
    let copy = copy.to_str().expect("plain");
    let refused = home.run("setpriv", &[&words[..], &[copy, "network", "ls"]].concat());
    assert_eq!(refused.code, 1, "{refused:?}");
    let text =
        format!("permission denied while trying to connect to the portmap daemon socket at {}", home.url());
    assert!(refused.stderr.contains(&text), "{refused:?}");
    let daemon = home.run("setpriv", &[&words[..], &[copy, "daemon"]].concat());
    assert_eq!(daemon.code, 1);
    assert!(daemon.stderr.contains("needs to be started with root privileges"), "{daemon:?}");
}

#[test]
fn a_second_one_on_the_same_roots_is_refused_and_one_on_others_is_not() {
    let Some(home) = home() else { return };
    let _daemon = home.daemon(&[]);
    let second = home.path("second.sock");
    let mut command = home.command(bin::portmap());
    command.arg("daemon").arg("-H").arg(format!("unix://{}", second.display()));
    command.arg("--data-root").arg(home.path("data")).arg("--exec-root").arg(home.path("other"));
    let mut refused = home.host().spawn(command);
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr().contains("is in use by another portmap daemon"), "{}", refused.stderr());
    let mut refused = home.host().spawn(home.daemon_command(&[]));
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr().contains("another portmap daemon is running"), "{}", refused.stderr());

    let beside = self::home().expect("the first one could be made");
    let _other = beside.daemon(&[]);
    beside.portmap(&["network", "create", "there"]).ok();
    assert!(!home.portmap(&["network", "ls", "-q", "-f", "name=there"]).ok().contains(char::is_alphanumeric));
    assert!(home.listens() && beside.listens());
}

#[test]
fn flags_and_file_must_not_contradict_each_other() {
    let Some(home) = home() else { return };
    std::fs::write(home.path("daemon.json"), r#"{"icc": true}"#).expect("our own folder");
    let mut refused = home.host().spawn(home.daemon_command(&["--icc=false"]));
    assert_eq!(refused.code(), 1);
    let said = refused.stderr();
    let text = "the following directives are specified both as a flag and in the configuration file: icc: (from flag: false, from file: true)";
    assert!(said.contains(text), "{said}");
    std::fs::write(home.path("daemon.json"), r#"{"bridge": "none"}"#).expect("our own folder");
    let _daemon = home.daemon(&[]);
    let names = home.portmap(&["network", "ls", "--format", "{{.Name}}"]).ok();
    assert_eq!(names, "host\nnone");
}

#[test]
fn sandboxes_outlive_a_killed_daemon_and_the_next_one_takes_over() {
    let Some(home) = home() else { return };
    let first = home.daemon(&[]);
    home.portmap(&["network", "create", "net"]).ok();
    home.portmap(&["run", "-d", "--name", "web", "--net", "net", "sleep", "1000"]).ok();
    let pid = || home.portmap(&["inspect", "-f", "{{.State.Pid}} {{.State.Running}}", "web"]).ok();
    let before = pid();
    assert!(before.ends_with("true"), "{before}");
    home.kill_daemon();
    drop(first);
    let second = home.daemon(&[]);
    assert_eq!(pid(), before);
    // The new one notices the end too: here by the report of the supervisor.
    home.portmap(&["stop", "-t", "0", "web"]).ok();
    wait::until("end of the sandbox", || pid().ends_with("false"));
    second.signal(Signal::SIGTERM);
}

#[test]
fn a_supervisor_that_vanishes_takes_the_command_with_it() {
    let Some(home) = home() else { return };
    let _daemon = home.daemon(&[]);
    home.portmap(&["run", "-d", "--name", "web", "sleep", "1000"]).ok();
    let inspect = |what: &str| home.portmap(&["inspect", "-f", what, "web"]).ok();
    let command = inspect("{{.State.Pid}}");
    let supervisor = home.run("awk", &["{print $4}", &format!("/proc/{command}/stat")]).ok();
    home.run("kill", &["-9", &supervisor]).ok();
    wait::until("end of the sandbox", || inspect("{{.State.Status}} {{.State.ExitCode}}") == "exited 137");
    assert!(inspect("{{.NetworkSettings.SandboxKey}}").is_empty());
    // Dead and waited for, or a zombie that nobody waits for in here.
    let state = home.run("cat", &[&format!("/proc/{command}/stat")]).stdout;
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[test]
fn a_client_starts_the_daemon_and_it_leaves_when_idle() {
    let Some(home) = home() else { return };
    // Several at once get one daemon.
    let clients: Vec<Proc> = (0..4)
        .map(|_| {
            let mut command = home.command(bin::portmap());
            command.args(["network", "ls", "-q"]);
            home.host().spawn(command)
        })
        .collect();
    for mut client in clients {
        assert_eq!(client.code(), 0, "{}", client.stderr());
        assert_eq!(client.stdout().lines().count(), 3, "{}", client.stdout());
    }
    home.kill_daemon();
    // The socket's file is left, and nobody listens there: the next client starts another one.
    assert!(home.socket().exists());
    assert_eq!(home.portmap(&["network", "ls", "-q"]).ok().lines().count(), 3);
    home.kill_daemon();

    let mut daemon = home.host().spawn(home.daemon_command(&["--idle-timeout", "200ms"]));
    wait::until("daemon that listens", || home.listens());
    home.portmap(&["run", "-d", "--name", "web", "sleep", "1000"]).ok();
    std::thread::sleep(Duration::from_millis(600));
    assert!(daemon.ended().is_none(), "there is a sandbox to look after");
    home.portmap(&["rm", "-f", "web"]).ok();
    assert_eq!(daemon.code(), 0, "{}", daemon.stderr());
    assert!(!home.socket().exists());
}

#[test]
fn an_early_end_is_told_by_its_reason() {
    let Some(home) = home() else { return };
    std::fs::write(home.path("data"), "a file is in the way").expect("our own folder");
    let refused = home.portmap(&["network", "ls"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("the portmap daemon could not be started: "), "{refused:?}");
    assert!(refused.stderr.contains("data"), "{refused:?}");
}

#[test]
fn a_socket_of_a_service_manager_is_served_and_stays() {
    let Some(home) = home() else { return };
    let Some(_) = need::program("systemd-socket-activate") else { return };
    let mut command: Command = home.command("systemd-socket-activate");
    command.arg("-l").arg(home.path("activated.sock")).arg(bin::portmap()).arg("daemon");
    command.arg("--data-root").arg(home.path("data")).arg("--exec-root").arg(home.path("run"));
    let _manager = home.host().spawn(command);
    wait::until("socket", || home.path("activated.sock").exists());
    let url = format!("unix://{}", home.path("activated.sock").display());
    assert_eq!(home.portmap(&["-H", &url, "network", "ls", "-q"]).ok().lines().count(), 3);
}

#[test]
fn dockers_client_is_at_home_in_every_version() {
    let Some(home) = home() else { return };
    let Some(_) = need::program("docker") else { return };
    let _daemon = home.daemon(&[]);
    for version in ["1.24", "1.41", "1.44", "1.47", "1.51"] {
        let docker = |words: &[&str]| {
            let setting = format!("DOCKER_API_VERSION={version}");
            home.run("env", &[&[setting.as_str(), "docker"], words].concat())
        };
        home.portmap(&["run", "-d", "--name", "web", "--net", "none", "sleep", "1000"]).ok();
        home.portmap(&["network", "disconnect", "none", "web"]).ok();
        let shown = docker(&["version"]).ok();
        assert!(shown.contains("n/a") && !shown.contains("unknown"), "{version}: {shown}");
        let info = docker(&["info"]);
        assert!(info.code == 0 && !info.stderr.contains("WARNING: No "), "{version}: {info:?}");
        assert_eq!(docker(&["network", "create", "front"]).ok().len(), 64, "{version}");
        docker(&["network", "connect", "--alias", "www", "front", "web"]).ok();
        let aliases = "{{json (index .NetworkSettings.Networks \"front\").Aliases}}";
        let said = docker(&["inspect", "-f", aliases, "web"]).ok();
        assert_eq!(
            said.matches(',').count(),
            usize::from(matches!(version, "1.24" | "1.41" | "1.44")),
            "{said}"
        );
        assert_eq!(docker(&["port", "web"]).ok(), "");
        docker(&["rename", "web", "shop"]).ok();
        assert_eq!(docker(&["ps", "--format", "{{.Names}} {{.Networks}}"]).ok(), "shop front");
        docker(&["kill", "-s", "TERM", "shop"]).ok();
        assert_eq!(docker(&["wait", "shop"]).ok(), "143");
        docker(&["rm", "shop"]).ok();
        assert!(version == "1.24" || docker(&["network", "prune", "-f"]).ok().contains("front"), "{version}");
        let _ = docker(&["network", "rm", "front"]);
        assert_eq!(docker(&["network", "ls", "-q"]).ok().lines().count(), 3, "{version}");
    }
}
