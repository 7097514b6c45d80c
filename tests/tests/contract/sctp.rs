//! SCTP, where the kernel has it; a clear refusal where it hasn't.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{Read, Write};
use std::net::SocketAddr;

use e2e::contract::Subject;
use e2e::lab::{Host, v4, v6};
use e2e::need;
use e2e::servers::SctpEcho;
use e2e::traffic::PAYLOAD;

e2e::contract! {
    every: [messages_come_back],
    binding: [a_kernel_without_it_is_reported],
}

/// Where the proxy listens.
const FRONT: u16 = 25_587;

fn messages_come_back(subject: &Subject, host: &Host) {
    let Some(()) = need::sctp() else { return };
    for local in [v4, v6] as [fn(u16) -> SocketAddr; 2] {
        let _backend = SctpEcho::start(host, local(9000));
        let proxy = subject.sctp(host, local(FRONT), local(9000)).serve(host);
        let mut client = host.sctp(local(0));
        client.connect(&local(FRONT).into()).unwrap();
        client.write_all(PAYLOAD).unwrap();
        let mut answer = [0; PAYLOAD.len()];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, PAYLOAD);
        proxy.stop();
    }
}

fn a_kernel_without_it_is_reported(subject: &Subject, host: &Host) {
    if need::has_sctp() {
        return;
    }
    let words = ["-proto", "sctp", "-host-ip", "127.0.0.1", "-host-port", "1000", "-container-port", "9000"];
    let failed = subject.with(&words).fail(host);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    let status = failed.status.unwrap_or_default();
    assert!(status.starts_with("1\n") && status.contains("protocol not supported"), "{status:?}");
    if subject.is_ours() {
        assert!(status.contains("this kernel has no sctp"), "{status:?}");
    }
}
