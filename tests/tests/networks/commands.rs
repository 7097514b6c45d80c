//! What `run` and its kin give a command, with the real daemon: variables, folder, files, and its end.

use super::lab::Lab;

#[test]
fn variables_come_from_flags_files_and_the_caller() {
    let Some(lab) = Lab::new(&[]) else { return };
    let file = lab.home.path("env");
    std::fs::write(&file, "# a comment\n\nFILE=from file\nBOTH=file\nDOCKER_HOST\nMISSING\n").unwrap();
    let file = file.to_str().unwrap();
    let flags =
        ["--env-file", file, "-e", "FLAG=a=b", "-e", "BOTH=flag", "-e", "EMPTY=", "-e", "PORTMAP_HOST"];
    lab.ok(&[&["create", "--name", "alpha"], &flags[..], &["--", "sh", "-c", "env | sort"]].concat());
    let said = lab.ok(&["start", "-a", "alpha"]);
    let url = lab.home.url();
    for line in [
        "FILE=from file",
        "BOTH=flag",
        "FLAG=a=b",
        "EMPTY=",
        &format!("DOCKER_HOST={url}"),
        &format!("PORTMAP_HOST={url}"),
    ] {
        assert!(said.lines().any(|other| other == line), "{line}: {said}");
    }
    assert!(!said.contains("MISSING"), "{said}");
    let kept = lab.ok(&["inspect", "-f", "{{json .Config.Env}}", "alpha"]);
    assert!(kept.contains(r#""FILE=from file""#) && kept.contains(r#""BOTH=flag""#), "{kept}");
    std::fs::write(file, "two words=x\n").unwrap();
    for (flags, want) in [
        (
            &["--env-file", file][..],
            &*format!("invalid env file ({file}): variable 'two words' contains whitespaces"),
        ),
        (&["--env-file", "/nowhere"], "open /nowhere: no such file or directory"),
        (&["-e", "=x"], "invalid environment variable: =x"),
    ] {
        let (status, said) = lab.fails(&[&["run"], flags, &["--", "true"]].concat());
        assert_eq!(status, 125, "{flags:?}: {said}");
        assert!(said.contains(want), "{flags:?}: {said}");
    }
    assert_eq!(lab.ok(&["ps", "-aq"]).lines().count(), 1);
}

#[test]
fn a_command_starts_where_it_is_told_to() {
    let Some(lab) = Lab::new(&[]) else { return };
    assert_eq!(lab.ok(&["run", "--rm", "-w", "/usr/bin", "--", "pwd"]), "/usr/bin");
    lab.ok(&["run", "-d", "--name", "alpha", "-w", "/usr", "--", "sleep", "infinity"]);
    assert_eq!(lab.ok(&["exec", "alpha", "pwd"]), "/usr");
    assert_eq!(lab.ok(&["exec", "-w", "/etc", "-e", "A=b", "alpha", "sh", "-c", "pwd; echo $A"]), "/etc\nb");
    for (folder, status, want) in [
        ("/nowhere", 127, r#"chdir to cwd ("/nowhere") failed: no such file or directory"#),
        ("usr", 125, "the working directory 'usr' is invalid, it needs to be an absolute path"),
    ] {
        let (code, said) = lab.fails(&["run", "--rm", "-w", folder, "--", "true"]);
        assert_eq!(code, status, "{said}");
        assert!(said.contains(want), "{said}");
    }
    assert_eq!(lab.ok(&["ps", "-aq"]).lines().count(), 1);
}

#[test]
fn the_id_is_written_to_a_file_that_was_not_there() {
    let Some(lab) = Lab::new(&[]) else { return };
    let file = lab.home.path("cid");
    let file = file.to_str().unwrap();
    let id = lab.ok(&["run", "-d", "--cidfile", file, "--", "sleep", "infinity"]);
    assert_eq!(std::fs::read_to_string(file).unwrap(), id);
    let nowhere = lab.home.path("no/such/folder");
    for (file, want) in [
        (file, "container ID file found, make sure the other container isn't running or delete"),
        (nowhere.to_str().unwrap(), "No such file or directory"),
    ] {
        for command in ["run", "create"] {
            let (status, said) = lab.fails(&[command, "--cidfile", file, "--", "true"]);
            assert_eq!(status, 125, "{said}");
            assert!(said.contains(want), "{said}");
        }
    }
    assert_eq!(lab.ok(&["ps", "-aq"]).lines().count(), 1, "none was made for those");
    // Nor is a file left where nothing came about.
    let other = lab.home.path("other");
    lab.fails(&["run", "--cidfile", other.to_str().unwrap(), "--net", "container:", "--", "true"]);
    assert!(!other.exists());
}

#[test]
fn ends_are_told_by_the_status() {
    let Some(lab) = Lab::new(&[]) else { return };
    let cases: &[(&[&str], i32)] = &[
        (&["true"], 0),
        (&["sh", "-c", "exit 42"], 42),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["/etc"], 126),
        (&["/etc/hostname"], 126),
        (&["no-such-command"], 127),
        (&["/no/such/command"], 127),
    ];
    for (n, (words, code)) in cases.iter().enumerate() {
        let name = format!("case{n}");
        let said = lab.portmap(&[&["run", "--name", &name, "--"], *words].concat());
        assert_eq!(said.code, *code, "{words:?}: {said:?}");
        assert_eq!(lab.ok(&["inspect", "-f", "{{.State.ExitCode}}", &name]), code.to_string(), "{words:?}");
        let said = lab.portmap(&[&["run", "--rm", "--"], *words].concat());
        assert_eq!(said.code, *code, "{words:?} with --rm: {said:?}");
    }
    assert_eq!(lab.ok(&["ps", "-aq"]).lines().count(), cases.len(), "--rm left none");
    lab.ok(&["run", "-d", "--name", "alpha", "--", "sleep", "infinity"]);
    for (words, code) in [(&["sh", "-c", "exit 9"][..], 9), (&["no-such-command"], 127), (&["/etc"], 126)] {
        let said = lab.portmap(&[&["exec", "alpha"], words].concat());
        assert_eq!(said.code, code, "{said:?}");
    }
    lab.ok(&["stop", "-t", "1", "alpha"]);
    assert_eq!(lab.ok(&["inspect", "-f", "{{.State.ExitCode}}", "alpha"]), "143");
    let (status, said) = lab.fails(&["exec", "alpha", "true"]);
    assert_eq!(status, 1);
    assert!(said.contains("is not running"), "{said}");
    // One that doesn't listen is killed after a while, one with a wish gets it.
    lab.ok(&[
        "run",
        "-d",
        "--name",
        "deaf",
        "--",
        "sh",
        "-c",
        "trap '' TERM; echo up; while :; do sleep 1; done",
    ]);
    e2e::wait::until("the trap", || lab.ok(&["logs", "deaf"]) == "up");
    lab.ok(&["stop", "-t", "1", "deaf"]);
    assert_eq!(lab.ok(&["inspect", "-f", "{{.State.ExitCode}}", "deaf"]), "137");
    lab.ok(&[
        "run",
        "-d",
        "--name",
        "polite",
        "--",
        "sh",
        "-c",
        "trap 'exit 5' INT; echo up; while :; do sleep 0.1; done",
    ]);
    e2e::wait::until("the trap", || lab.ok(&["logs", "polite"]) == "up");
    lab.ok(&["stop", "-s", "INT", "-t", "8", "polite"]);
    assert_eq!(lab.ok(&["inspect", "-f", "{{.State.ExitCode}}", "polite"]), "5");
}

#[test]
fn several_are_started_stopped_and_removed_and_a_failure_stops_nothing() {
    let Some(lab) = Lab::new(&[]) else { return };
    for name in ["alpha", "beta"] {
        lab.ok(&["create", "--name", name, "--", "sleep", "infinity"]);
    }
    for (words, after) in [
        (&["start"][..], "running running"),
        (&["restart", "-t", "0"], "running running"),
        (&["stop", "-t", "0"], "exited exited"),
    ] {
        let said = lab.portmap(&[words, &["alpha", "nobody", "beta"]].concat());
        assert_eq!((said.code, said.stdout.as_str()), (1, "alpha\nbeta"), "{words:?}: {said:?}");
        assert!(said.stderr.contains("No such container: nobody"), "{said:?}");
        let states = lab.ok(&["inspect", "-f", "{{.State.Status}}", "alpha", "beta"]).replace('\n', " ");
        assert_eq!(states, after, "{words:?}");
    }
    lab.ok(&["start", "alpha"]);
    let said = lab.portmap(&["rm", "alpha", "nobody", "beta"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, "beta"));
    assert!(said.stderr.contains("stop the container before removing or force remove"), "{said:?}");
    let said = lab.portmap(&["rm", "-f", "alpha", "nobody"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "alpha"), "{said:?}");
    let said = lab.portmap(&["inspect", "nobody"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, "[]"));
}
