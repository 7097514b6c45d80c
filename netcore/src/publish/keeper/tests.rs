//! Real processes: shell scripts that play the proxy's part of the agreement, on real sockets.

mod fixture;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use super::super::bindings::{HostDefaults, plan};
use super::*;
use crate::publish::PublishSpec;

use self::fixture::*;

#[test]
fn a_keeper_of_nothing_starts_nothing() {
    let fixture = Fixture::new(MANY, SERVE);
    let keeper = fixture.keeper();
    assert!(keeper.restore(Vec::new()).is_empty());
    assert!(keeper.proxies().is_empty() && fixture.calls().is_empty());
    assert!(keeper.0.state().watcher.is_none());
}

#[test]
fn a_killed_proxy_is_back_behind_the_same_socket_every_time() {
    let fixture = Fixture::new(MANY, SERVE);
    let keeper = fixture.keeper();
    let publication = one(&keeper);
    let mut known = pids(&keeper);
    let socket = sockets_of(known[0]);
    for _ in 0..12 {
        let killed = Instant::now();
        kill(*known.last().unwrap());
        let next = another(&keeper, &known);
        // The longest pause is 100 ms; the rest is a busy machine's.
        assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
        assert_eq!(sockets_of(next), socket);
        assert!(listens(&publication));
        known.push(next);
    }
    for pid in &known[..known.len() - 1] {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "collected");
    }
}

/// Who waits for the end of a pipe would wait for as long as the port is published.
#[test]
fn proxies_have_no_descriptor_that_was_only_inherited() {
    let (_reader, writer) = std::io::pipe().unwrap();
    // Without close-on-exec, and where no descriptor of the proxy's would take its place.
    let raw = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_DUPFD(300)).unwrap();
    let pipe = fs::read_link(format!("/proc/self/fd/{raw}")).unwrap();
    let fixture = Fixture::new(MANY, SERVE);
    let keeper = fixture.keeper();
    one(&keeper);
    let pid = pids(&keeper)[0];
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let all: Vec<PathBuf> = links.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect();
    nix::unistd::close(raw).unwrap();
    assert!(!all.is_empty() && !all.contains(&pipe), "{all:?}");
}

#[test]
fn proxies_outlive_their_keeper_and_the_next_takes_them_over() {
    let fixture = Fixture::new(MANY, SERVE);
    let keeper = fixture.keeper();
    let range = format!("{}::80-82", own_address());
    let mut wanted = served(&keeper, &[range, format!("{}::53/udp", own_address())]);
    wanted.sort_by_key(|one| one.container);
    let mut before = pids(&keeper);
    before.sort_unstable();
    let mut keeper = keeper;
    for round in 0..3 {
        drop(keeper);
        assert!(before.iter().all(|pid| runs(*pid)), "round {round}");
        keeper = fixture.keeper();
        assert!(keeper.restore(wanted.clone()).is_empty());
        let mut after = pids(&keeper);
        after.sort_unstable();
        assert_eq!(after, before, "round {round}: the same processes");
    }
    // Each is replaced behind the socket it has always had.
    for pid in before {
        let socket = sockets_of(pid);
        kill(pid);
        eventually("it is replaced", || {
            pids(&keeper)
                .into_iter()
                .find(|next| *next != pid && serves(*next) && sockets_of(*next) == socket)
        });
    }
    for one in &wanted {
        let claimed = keeper.0.numbers().claim(&one.addresses, one.proto, one.host.unwrap());
        assert!(claimed.is_err(), "its numbers are taken");
    }
    keeper.release(&wanted);
    assert!(keeper.proxies().is_empty());
}

#[test]
fn what_died_while_nobody_looked_is_bound_and_started_anew() {
    let fixture = Fixture::new(MANY, SERVE);
    let keeper = fixture.keeper();
    let publication = one(&keeper);
    let pid = pids(&keeper)[0];
    drop(keeper);
    kill(pid);
    let keeper = fixture.keeper();
    eventually("the port is free", || has_restored(&keeper, &publication).then_some(()));
    let next = another(&keeper, &[pid]);
    assert!(runs(next) && listens(&publication));
}

/// A copy of the socket may live in a child of another test for a moment: then the keeper itself tries again.
fn has_restored(keeper: &Keeper, publication: &Publication) -> bool {
    if keeper.0.state().missing.is_empty() && keeper.proxies().is_empty() {
        keeper.restore(vec![publication.clone()]);
    }
    !keeper.proxies().is_empty()
}

#[test]
fn leftovers_that_nobody_wants_are_ended_and_strangers_are_not() {
    let (fixture, stranger) = (Fixture::new(MANY, SERVE), Fixture::new(MANY, SERVE));
    let (keeper, others) = (fixture.keeper(), stranger.keeper());
    let (publication, _theirs) = (one(&keeper), one(&others));
    let (pid, other) = (pids(&keeper)[0], pids(&others)[0]);
    drop(keeper);
    let keeper = fixture.keeper();
    // The same port leads elsewhere now.
    let moved = Publication { target: "172.17.0.9".parse().unwrap(), ..publication };
    keeper.restore(vec![moved.clone()]);
    assert!(!runs(pid));
    let next = another(&keeper, &[pid]);
    assert!(runs(other) && runs(next));
    assert!(fixture.calls().last().unwrap().contains("-container-ip 172.17.0.9"));
    keeper.release(&[moved]);
    let keeper = fixture.keeper();
    keeper.restore(Vec::new());
    assert!(!runs(next) && runs(other));
}

/// A process that says of itself what a proxy of an earlier keeper would say.
struct Impostor(std::process::Child);

impl Impostor {
    fn new(
        fixture: &Fixture,
        publication: &Publication,
        command: &mut std::process::Command,
    ) -> Option<Self> {
        let mapping = Mapping::published(publication).unwrap();
        command.env("PORTMAP_PROXY", format!("{} {mapping}", fixture.marker()));
        command.spawn().ok().map(Self)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_is_not_of_our_user_and_network_is_no_leftover() {
    let fixture = Fixture::new(MANY, SERVE);
    let publication = {
        let keeper = fixture.without_proxy();
        let publication = one(&keeper);
        keeper.release(std::slice::from_ref(&publication));
        publication
    };
    let sleep = || {
        let mut command = std::process::Command::new("sleep");
        command.arg("1000");
        command
    };
    let mut elsewhere = std::process::Command::new("unshare");
    elsewhere.args(["-n", "sleep", "1000"]);
    let (same, mut user) = (&mut sleep(), sleep());
    std::os::unix::process::CommandExt::uid(&mut user, 65_534);
    let mine = Impostor::new(&fixture, &publication, same).unwrap();
    let others = [&mut user, &mut elsewhere].map(|command| Impostor::new(&fixture, &publication, command));
    let [Some(user), Some(elsewhere)] = others else {
        eprintln!("not tested: only root may have other users' processes and networks");
        return;
    };
    let pids = [&mine, &user, &elsewhere].map(|one| one.0.id());
    eventually("all have begun", || pids.iter().all(|pid| serves(*pid)).then_some(()));
    let found: Vec<u32> =
        found::predecessors(&KeeperMark::new(&fixture.marker())).iter().map(|one| one.pid).collect();
    assert_eq!(found, [mine.0.id()]);
}

#[test]
fn a_port_is_never_free_when_proxies_are_switched_off_and_on() {
    let fixture = Fixture::new(MANY, SERVE);
    let keeper = fixture.keeper();
    let publication = one(&keeper);
    let pid = pids(&keeper)[0];
    let socket = sockets_of(pid);
    drop(keeper);
    let keeper = fixture.without_proxy();
    assert!(keeper.restore(vec![publication.clone()]).is_empty());
    assert!(!runs(pid));
    assert_eq!(keeper.proxies(), [(publication.clone(), None)]);
    assert!(!listens(&publication) && !is_free(&publication), "held, and deaf");
    let held = keeper.0.state().parts.values().next().map(|part| {
        let raw = std::os::fd::AsRawFd::as_raw_fd(&part.proxy.reservation.sockets().next().unwrap());
        fs::read_link(format!("/proc/self/fd/{raw}")).unwrap()
    });
    assert_eq!(held.into_iter().collect::<Vec<_>>(), socket);
    drop(keeper);
    let keeper = fixture.keeper();
    eventually("it is bound anew", || has_restored(&keeper, &publication).then_some(()));
    another(&keeper, &[pid]);
    assert!(listens(&publication));
}

#[test]
fn what_cannot_be_had_is_tried_again_until_it_can() {
    for proxy in [true, false] {
        let fixture = Fixture::new(MANY, SERVE);
        let first = fixture.without_proxy();
        let publication = one(&first);
        first.release(std::slice::from_ref(&publication));
        let holder = eventually("the port", || TcpListener::bind(place(&publication)).ok());
        let keeper = if proxy { fixture.keeper() } else { fixture.without_proxy() };
        let failed = keeper.restore(vec![publication.clone()]);
        assert_eq!(failed.len(), 1);
        assert!(failed[0].1.contains("address already in use"), "{}", failed[0].1);
        assert!(keeper.proxies().is_empty());
        drop(holder);
        eventually("it is had", || (!keeper.proxies().is_empty()).then_some(()));
        assert_eq!(keeper.proxies()[0].0, publication);
        keeper.release(&[publication]);
        assert!(keeper.proxies().is_empty());
    }
}

#[test]
fn what_is_released_is_not_tried_any_more() {
    let fixture = Fixture::new(MANY, SERVE);
    let holder = TcpListener::bind((own_address(), 0)).unwrap();
    let at = holder.local_addr().unwrap();
    let publication = Publication {
        spec: format!("{at}:80").parse().unwrap(),
        proto: crate::publish::Proto::Tcp,
        container: crate::publish::PortRange::single(80),
        host: Some(crate::publish::PortRange::single(at.port())),
        addresses: vec![at.ip()],
        target: "172.17.0.2".parse().unwrap(),
    };
    let keeper = fixture.keeper();
    assert_eq!(keeper.restore(vec![publication.clone()]).len(), 1);
    keeper.release(std::slice::from_ref(&publication));
    assert!(keeper.0.state().missing.is_empty());
    let free = keeper.0.numbers().claim(
        &publication.addresses,
        publication.proto,
        crate::publish::PortRange::single(at.port()),
    );
    assert!(free.is_ok());
}

#[test]
fn a_withdrawn_port_is_deaf_but_taken_and_a_released_one_is_free() {
    let fixture = Fixture::new(MANY, SERVE);
    let keeper = fixture.keeper();
    let publication = one(&keeper);
    let pid = pids(&keeper)[0];
    assert!(listens(&publication));
    keeper.withdraw(std::slice::from_ref(&publication));
    assert!(!runs(pid) && !listens(&publication) && !is_free(&publication));
    keeper.release(std::slice::from_ref(&publication));
    eventually("the port is free", || is_free(&publication).then_some(()));
    // Once is enough: somebody else may have the numbers by now.
    let text = format!("{}:80", place(&publication));
    let again = eventually("the number is free", || {
        let spec: PublishSpec = text.parse().unwrap();
        keeper.reserve(&plan(&[spec], &HostDefaults::default()).unwrap()).ok()
    });
    keeper.release(&[publication]);
    assert!(keeper.reserve(&plan(&[text.parse().unwrap()], &HostDefaults::default()).unwrap()).is_err());
    keeper.cancel(again);
}

#[test]
fn a_stubborn_proxy_is_killed() {
    let fixture = Fixture::new(MANY, "trap '' INT TERM; printf '0\\n' >&3; exec 3>&-; exec sleep 1000");
    let keeper = fixture.keeper();
    let publication = one(&keeper);
    let pid = pids(&keeper)[0];
    keeper.release(&[publication]);
    assert!(!runs(pid));
}

#[test]
fn a_failure_to_serve_leaves_nothing() {
    let fixture = Fixture::new(
        MANY,
        &format!("case \"$*\" in *'-proto udp'*) printf '1\\nno udp here' >&3; exit 1;; esac\n{SERVE}"),
    );
    let keeper = fixture.keeper();
    let ip = own_address();
    let mappings = reserved(&keeper, &[format!("{ip}::80"), format!("{ip}::53/udp")]);
    let published: Vec<_> = mappings.iter().map(|(_, one)| one.clone()).collect();
    let error = keeper.serve(mappings).unwrap_err().to_string();
    assert!(error.ends_with("error starting userland proxy: no udp here"), "{error}");
    assert!(keeper.proxies().is_empty());
    let tcp = published.iter().find(|one| one.proto == crate::publish::Proto::Tcp).unwrap();
    eventually("the port is free", || is_free(tcp).then_some(()));
    let mut numbers = keeper.0.numbers();
    assert!(numbers.claim(&tcp.addresses, tcp.proto, tcp.host.unwrap()).is_ok());
}

#[test]
fn a_program_gets_as_many_sockets_as_it_takes() {
    let one_socket = Fixture::new(ONE, SERVE);
    let keeper = one_socket.keeper();
    let publication = served(&keeper, &[format!("{}::80-81", own_address())]);
    let pieces = keeper.proxies().len();
    assert_eq!(pieces, 2, "one process for each port");
    let calls = one_socket.calls();
    assert!(calls.iter().all(|call| call.ends_with("-use-listen-fd")), "{calls:?}");
    // A program that takes less than the one before.
    let old = pids(&keeper);
    drop(keeper);
    let keeper = one_socket.keeper();
    assert!(keeper.restore(publication.clone()).is_empty());
    let mut now = pids(&keeper);
    let mut before = old;
    now.sort_unstable();
    before.sort_unstable();
    assert_eq!(now, before, "parts are taken over too");

    let none = Fixture::new(NOTHING, SERVE);
    let keeper = none.keeper();
    let publication = one(&keeper);
    assert!(none.calls()[0].ends_with("-container-port 80"), "{:?}", none.calls());
    eventually("our socket is closed", || is_free(&publication).then_some(()));
}

#[test]
fn a_range_is_divided_when_the_program_in_its_place_takes_less() {
    let mut fixture = Fixture::new(MANY, SERVE);
    let keeper = fixture.keeper();
    two_in_a_row(&keeper);
    let whole = pids(&keeper);
    assert_eq!(whole.len(), 1);
    fixture.help = ONE;
    fixture.program(SERVE);
    kill(whole[0]);
    eventually("two processes serve", || {
        let now = pids(&keeper);
        (now.len() == 2 && now.iter().all(|pid| serves(*pid))).then_some(())
    });
}

/// Debian's, which binds its port itself, or a newer one.
#[test]
fn a_docker_proxy_serves_is_replaced_and_taken_over() {
    const PROGRAM: &str = "/usr/sbin/docker-proxy";
    if !Path::new(PROGRAM).exists() {
        assert!(std::env::var_os("E2E_REQUIRED").is_none(), "{PROGRAM} is missing");
        eprintln!("skipped: {PROGRAM} is missing");
        return;
    }
    let server = TcpListener::bind((own_address(), 0)).unwrap();
    let inside = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"hello"));
        }
    });
    let marker = format!("docker-{}-{}", std::process::id(), inside.port());
    let keeper = || Keeper::new(KeeperSettings { marker: marker.clone(), proxy: Some(PROGRAM.into()) });
    let first = keeper();
    let spec: PublishSpec = format!("{}::{}", own_address(), inside.port()).parse().unwrap();
    let (reservation, mut publication) = reserved(&first, &[spec.to_string()]).remove(0);
    publication.target = inside.ip();
    first.serve(vec![(reservation, publication.clone())]).unwrap();
    let answers = || {
        let mut stream = TcpStream::connect_timeout(&place(&publication), Duration::from_secs(1)).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        (text == "hello").then_some(())
    };
    eventually("it serves", answers);
    let pid = pids(&first)[0];
    drop(first);
    eventually("it serves while nobody looks", answers);
    let second = keeper();
    assert!(second.restore(vec![publication.clone()]).is_empty());
    assert_eq!(pids(&second), [pid]);
    kill(pid);
    eventually("another one serves", || (pids(&second) != [pid]).then(answers).flatten());
    second.release(std::slice::from_ref(&publication));
    eventually("the port is free", || is_free(&publication).then_some(()));
}

#[test]
fn a_proxy_is_replaced_when_no_descriptor_is_left_and_taken_over_when_few_are() {
    // In a process of its own: the others here need descriptors too.
    const NAME: &str =
        "publish::keeper::tests::a_proxy_is_replaced_when_no_descriptor_is_left_and_taken_over_when_few_are";
    if std::env::var_os("ALONE").is_none() {
        let done = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env("ALONE", "1")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        return;
    }
    let fixture = Fixture::new(MANY, SERVE);
    let keeper = fixture.keeper();
    let publication = one(&keeper);
    let socket = sockets_of(pids(&keeper)[0]);
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 256, 256).unwrap();
    let null = || fs::File::open("/dev/null");
    // The watcher sets some aside first.
    let mut eaten = Vec::new();
    eventually("they are set aside", || {
        let count = fs::read_dir("/proc/self/fd").unwrap().count();
        (count > 15).then_some(())
    });
    while let Ok(file) = null() {
        eaten.push(file);
    }
    let first = pids(&keeper);
    kill(first[0]);
    let next = eventually("another proxy", || pids(&keeper).into_iter().find(|pid| !first.contains(pid)));
    eaten.clear();
    assert_eq!(another(&keeper, &first), next);
    assert_eq!(sockets_of(next), socket);
    drop(keeper);
    // The next keeper can't even take the socket. It serves on, and is bound anew when it ends.
    while let Ok(file) = null() {
        eaten.push(file);
    }
    eaten.truncate(eaten.len() - 4);
    let keeper = fixture.keeper();
    let failed = keeper.restore(vec![publication.clone()]);
    eaten.clear();
    assert!(failed.is_empty() || failed[0].1.contains("in use"), "{failed:?}");
    eventually("it is looked after", || {
        let alive = pids(&keeper);
        alive.iter().any(|pid| serves(*pid)).then_some(())
    });
    assert!(listens(&publication));
    let last = pids(&keeper);
    kill(last[0]);
    another(&keeper, &last);
    eventually("it is bound", || listens(&publication).then_some(()));
}

fn moved(publication: &Publication) -> Publication {
    Publication { target: "172.17.0.9".parse().unwrap(), ..publication.clone() }
}

/// What is held for a while isn't, and then is served; released, its numbers are free.
fn comes_in_the_end(keeper: &Keeper, wanted: &Publication, proxies: usize) {
    eventually("it is served", || (pids(keeper).len() == proxies).then_some(()));
    eventually("nothing is tried any more", || keeper.0.state().missing.is_empty().then_some(()));
    assert!(keeper.proxies().iter().all(|(publication, _)| publication == wanted));
    keeper.release(std::slice::from_ref(wanted));
    assert!(keeper.proxies().is_empty() && keeper.0.state().missing.is_empty());
    let claimed = keeper.0.numbers().claim(&wanted.addresses, wanted.proto, wanted.host.unwrap());
    assert_eq!(claimed, Ok(()));
}

#[test]
fn what_is_led_elsewhere_while_it_cannot_be_had_comes_in_the_end() {
    let fixture = Fixture::new(MANY, SERVE);
    let first = fixture.without_proxy();
    let publication = one(&first);
    first.release(std::slice::from_ref(&publication));
    let holder = eventually("the port", || TcpListener::bind(place(&publication)).ok());
    let keeper = fixture.keeper();
    assert_eq!(keeper.restore(vec![publication.clone()]).len(), 1);
    let now = moved(&publication);
    keeper.repoint(vec![(publication, vec![now.clone()])]);
    drop(holder);
    comes_in_the_end(&keeper, &now, 1);
}

#[test]
fn what_cannot_be_bound_again_where_it_leads_elsewhere_comes_in_the_end() {
    let fixture = Fixture::new(NOTHING, SERVE);
    let keeper = fixture.keeper();
    let publication = one(&keeper);
    let holder = eventually("our socket is closed", || TcpListener::bind(place(&publication)).ok());
    let now = moved(&publication);
    keeper.repoint(vec![(publication, vec![now.clone()])]);
    assert!(keeper.proxies().is_empty());
    drop(holder);
    comes_in_the_end(&keeper, &now, 1);
}

#[test]
fn what_cannot_be_served_where_it_leads_elsewhere_comes_in_the_end() {
    let fixture = Fixture::new(ONE, SERVE);
    let keeper = fixture.keeper();
    let publication = two_in_a_row(&keeper);
    fixture.program("printf '1\\nnot now' >&3; exit 1");
    let now = moved(&publication);
    keeper.repoint(vec![(publication, vec![now.clone()])]);
    fixture.program(SERVE);
    comes_in_the_end(&keeper, &now, 2);
}
