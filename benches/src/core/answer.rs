//! How long it takes until a published port answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use crate::namespace::Namespace;

/// A connect to a port that drops everything yet isn't waited for: the kernel would repeat it after a second.
const CONNECT: Duration = Duration::from_millis(2);
/// Between two tries: short beside what is measured, and long enough to leave the processors to others.
const PAUSE: Duration = Duration::from_micros(500);
/// Longer than any start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Milliseconds from the start of `command` until a web server answers at `target`, and until the command has ended.
pub(super) fn answered(
    namespace: &Namespace,
    mut command: Command,
    target: SocketAddr,
) -> anyhow::Result<(f64, f64)> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    namespace.run(move || {
        let start = Instant::now();
        let mut child = command.spawn()?;
        let ended = thread::spawn(move || {
            let status = child.wait();
            (status, start.elapsed())
        });
        let answer = await_answer(target, start + PATIENCE);
        let took = start.elapsed();
        let Ok((status, end)) = ended.join() else { bail!("waiting for a child has panicked") };
        let status = status?;
        ensure!(status.success(), "{command:?}: {status}");
        answer?;
        Ok((took.as_secs_f64() * 1e3, end.as_secs_f64() * 1e3))
    })
}

fn await_answer(target: SocketAddr, deadline: Instant) -> anyhow::Result<()> {
    loop {
        match ask(target) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => return Err(error.into()),
            Err(_) => {} // not yet
        }
        ensure!(Instant::now() < deadline, "nobody answers at {target}");
        thread::sleep(PAUSE);
    }
}

/// Whether there is an answer, of whatever kind.
fn ask(target: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&target, CONNECT)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    Ok(head.starts_with(b"HTTP/1"))
}
