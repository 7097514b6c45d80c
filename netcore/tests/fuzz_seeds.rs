//! What `make fuzz` feeds with libFuzzer's bytes, fed here with its seeds and with what little changes make of them: so
//! that no nightly compiler is needed to see the checks hold.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their helpers")]

#[path = "../../fuzz/entries/dns_message.rs"]
mod dns_message;
#[path = "../../fuzz/entries/hosts.rs"]
mod hosts;
#[path = "../../fuzz/entries/input.rs"]
mod input;
#[path = "../../fuzz/entries/resolv_conf.rs"]
mod resolv_conf;

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// A small change, at a place that depends on the length.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// Of a part, to some place.
    Copy(Index, usize, Index),
    Cut(Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    // Bytes that mean something in a message or a file, and any.
    let byte = || prop_oneof![any::<u8>(), prop::sample::select(&b"\0\x01\x0c\x3f\xc0\xff\n\r\t .:#%="[..])];
    let place = any::<Index>;
    vec(
        prop_oneof![
            (place(), byte()).prop_map(|(at, byte)| Change::Set(at, byte)),
            (place(), vec(byte(), 1..9)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
            (place(), 1..9_usize).prop_map(|(at, count)| Change::Remove(at, count)),
            (place(), 1..40_usize, place()).prop_map(|(from, count, to)| Change::Copy(from, count, to)),
            place().prop_map(Change::Cut),
        ],
        0..6,
    )
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let place = |at: &Index| at.index(bytes.len() + 1);
        let end = |start: usize, count: usize| (start + count).min(bytes.len());
        match change {
            Change::Set(at, byte) => {
                let at = place(at);
                bytes.splice(at..end(at, 1), [*byte]);
            }
            Change::Insert(at, more) => {
                let at = place(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Remove(at, count) => {
                let at = place(at);
                bytes.drain(at..end(at, *count));
            }
            Change::Copy(from, count, to) => {
                let (from, to) = (place(from), place(to));
                let part = bytes[from..end(from, *count)].to_vec();
                bytes.splice(to..to, part);
            }
            Change::Cut(at) => bytes.truncate(place(at)),
        }
    }
    bytes
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

fn run(target: &str, entry: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(seeds.len() > 5, "the seeds of {target} are gone");
    for seed in &seeds {
        entry(seed);
    }
    let config = Config { cases: 4000, failure_persistence: None, ..Config::default() };
    let seed = prop::sample::select(seeds);
    let checked = TestRunner::new(config).run(&(seed, changes()), |(seed, changes)| {
        entry(&changed(seed, &changes));
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn dns_messages() {
    run("dns_message", dns_message::run);
}

#[test]
fn resolv_confs() {
    run("resolv_conf", resolv_conf::run);
}

#[test]
fn hosts_files() {
    run("hosts", hosts::run);
}
