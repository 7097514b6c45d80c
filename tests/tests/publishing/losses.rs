//! Clients who connect all the while: from the moment a port is taken, nobody who comes is turned away.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use e2e::lab::{Host, v4, v6};
use e2e::wait;

use super::lab::{IPTABLES, Lab, NFTABLES};
use super::ports::{HOST4, HOST6, asked, idle, named};

/// What became of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Served(String),
    Refused,
    Lost(String),
}

fn fate(from: &Host, to: SocketAddr) -> Fate {
    match asked(from, to) {
        Ok(word) if !word.is_empty() => Fate::Served(word),
        Ok(_) => Fate::Lost("accepted, and closed without a word".to_owned()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Fate::Refused,
        Err(e) => Fate::Lost(e.to_string()),
    }
}

/// Connects again and again until it is told that it's enough.
fn clients<'s>(
    scope: &'s thread::Scope<'s, '_>,
    enough: &'s AtomicBool,
    from: &'s Host,
    to: SocketAddr,
) -> ScopedJoinHandle<'s, (SocketAddr, Vec<Fate>)> {
    scope.spawn(move || {
        let mut fates = Vec::new();
        while !enough.load(Ordering::SeqCst) {
            fates.push(fate(from, to));
            // A port is refused in no time, and there is more to do on this machine.
            thread::sleep(Duration::from_millis(1));
        }
        (to, fates)
    })
}

/// Where clients come from, and where they go.
fn ways(lab: &Lab) -> [(&Host, SocketAddr); 5] {
    [
        (&lab.host, v4(8080)),
        (&lab.host, v6(8080)),
        (&lab.host, (HOST4, 8080).into()),
        (&lab.neighbour, (HOST4, 8080).into()),
        (&lab.neighbour, (HOST6, 8080).into()),
    ]
}

/// What happens to clients on all ways while `work` is done.
fn meanwhile(lab: &Lab, work: impl FnOnce()) -> Vec<(SocketAddr, Vec<Fate>)> {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let all: Vec<_> = ways(lab).into_iter().map(|(from, to)| clients(scope, &enough, from, to)).collect();
        let done = catch_unwind(AssertUnwindSafe(work));
        // Who came last has its time too.
        thread::sleep(Duration::from_millis(30));
        enough.store(true, Ordering::SeqCst);
        let fates = all.into_iter().map(|one| one.join().unwrap()).collect();
        done.unwrap_or_else(|panic| resume_unwind(panic));
        fates
    })
}

#[test]
fn from_the_moment_it_is_taken_a_port_serves_everybody() {
    for backend in [NFTABLES, IPTABLES] {
        let Some(lab) = Lab::new(&["--firewall-backend", backend]) else { return };
        let _web = named(&lab, "web", &[]);
        for _ in 0..2 {
            let fates = meanwhile(&lab, || drop(lab.ok(&["publish", "web", "-p", "8080:80"])));
            for (to, fates) in fates {
                let turned = fates.iter().position(|fate| *fate != Fate::Refused).unwrap_or(fates.len());
                assert!(turned < fates.len(), "{to}: nobody was served");
                let served = Fate::Served("web".to_owned());
                let lost: Vec<_> = fates[turned..].iter().filter(|fate| **fate != served).collect();
                assert!(lost.is_empty(), "{backend} {to}: {lost:?} after {turned}");
            }
            lab.ok(&["unpublish", "web", "-p", "8080:80"]);
        }
    }
}

#[test]
fn publishing_something_else_disturbs_nobody() {
    for backend in [NFTABLES, IPTABLES] {
        let Some(lab) = Lab::new(&["--firewall-backend", backend]) else { return };
        let _web = named(&lab, "web", &["-p", "8080:80"]);
        idle(&lab, "other", &[]);
        let fates = meanwhile(&lab, || {
            for _ in 0..2 {
                lab.ok(&["publish", "web", "-p", "9000-9099:9000-9099"]);
                lab.ok(&["publish", "other", "-p", "81:80"]);
                lab.fails(&["publish", "other", "-p", "8080:80"]);
                lab.ok(&["unpublish", "other", "-p", "81:80"]);
                lab.ok(&["unpublish", "web", "-p", "9000-9099:9000-9099"]);
                lab.ok(&["run", "--rm", "-p", "82:80", "--", "true"]);
            }
        });
        for (to, fates) in fates {
            let served = Fate::Served("web".to_owned());
            let lost: Vec<_> = fates.iter().filter(|fate| **fate != served).collect();
            assert!(lost.is_empty(), "{backend} {to}: {lost:?} of {}", fates.len());
        }
    }
}

#[test]
fn a_port_that_comes_and_goes_ends_up_where_it_was_led_last() {
    let Some(lab) = Lab::new(&[]) else { return };
    let _one = named(&lab, "one", &[]);
    let _two = named(&lab, "two", &[]);
    let fates = meanwhile(&lab, || {
        for _ in 0..3 {
            for name in ["one", "two"] {
                lab.ok(&["publish", name, "-p", "8080:80"]);
                lab.ok(&["unpublish", name, "-p", "8080:80"]);
            }
        }
        lab.ok(&["publish", "two", "-p", "8080:80"]);
    });
    // In between it may be cut, but who is answered is answered whole.
    for (to, fates) in fates {
        for fate in &fates {
            let is_right = !matches!(fate, Fate::Served(word) if word != "one" && word != "two");
            assert!(is_right, "{to}: {fate:?}");
        }
    }
    for (from, to) in ways(&lab) {
        let led = || fate(from, to) == Fate::Served("two".to_owned());
        wait::until("the last one to be answered", led);
    }
}
