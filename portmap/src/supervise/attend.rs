//! Attends a running command: signals, output, its end, and what it leaves behind.
//!
//! On our terminal the command shares our process group, so what the terminal's keys send reaches it without us. Such
//! signals come from the kernel; what comes from a process is passed on. Ctrl-Z stops both at once, and where the command
//! stops itself, we stop too, so that the shell we were started from gets its terminal back.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netcore::kernel::PidFd;
use netcore::process::{self, Leftovers};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpid, getsid};

use super::log::Log;

/// What is passed on. Those that stop a process have their usual effect on us.
const PASSED_ON: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGCONT,
    Signal::SIGWINCH,
    Signal::SIGPWR,
];
/// What `nohup` and shells' `&` make a process ignore: it stays ignored, by us and the command.
const MAY_BE_IGNORED: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];
/// How long killed processes may take to disappear.
const KILL_TIME: Duration = Duration::from_secs(5);

/// The signals we live by, blocked, as a descriptor.
pub(crate) struct Signals {
    descriptor: SignalFd,
    set: SigSet,
}

impl Signals {
    /// From here on none of them interrupts anything. `inherit`: those that were ignored when we were started stay so.
    pub(crate) fn block(inherit: bool) -> Result<Self> {
        let stays_ignored = |signal: &Signal| {
            inherit && MAY_BE_IGNORED.contains(signal) && process::is_ignored(*signal as i32)
        };
        let mut set: SigSet = PASSED_ON.into_iter().filter(|signal| !stays_ignored(signal)).collect();
        set.add(Signal::SIGCHLD);
        set.thread_block().context("cannot block signals")?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot wait for signals")?;
        Ok(Self { descriptor, set })
    }

    /// They have their usual effect again.
    pub(crate) fn release(&self) {
        let _ = self.set.thread_unblock();
    }
}

/// A command and what it takes to attend it.
pub(crate) struct Attendant {
    command: Pid,
    /// Kept open where the command's stdin shall have no end.
    _stdin: Option<std::process::ChildStdin>,
    signals: Signals,
    log: Option<Log>,
    /// The process that the command may not outlive.
    host: Option<PidFd>,
    /// We can be stopped and continued by a shell.
    job_control: bool,
}

impl Attendant {
    pub(crate) fn new(child: &mut Child, signals: Signals, log: Option<Log>) -> Self {
        let command = Pid::from_raw(i32::try_from(child.id()).expect("the kernel's numbers fit"));
        let job_control = log.is_none() && File::open("/dev/tty").is_ok();
        Self { command, _stdin: child.stdin.take(), signals, log, host: None, job_control }
    }

    /// The command is killed when this process has ended.
    pub(crate) fn not_beyond(mut self, host: PidFd) -> Self {
        self.host = Some(host);
        self
    }

    pub(crate) fn pid(&self) -> i32 {
        self.command.as_raw()
    }

    /// Whether the command has ended, without waiting for it.
    pub(crate) fn has_ended(&self) -> bool {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(self.command), look).is_ok_and(|status| status != WaitStatus::StillAlive)
    }

    /// Attends the command until it has ended. Gives its exit code, or 128 and the signal's number.
    pub(crate) fn await_end(&mut self) -> u8 {
        // What happened before we looked is still to be asked for.
        let mut ended = self.collect();
        while ended.is_none() {
            self.wait(PollTimeout::NONE);
            // First what continues, then what stopped: a stop that is over isn't one.
            while let Ok(Some(signal)) = self.signals.descriptor.read_signal() {
                self.pass_on(&signal);
            }
            self.keep_output();
            if self.host.take_if(|host| host.has_ended()).is_some() {
                let _ = kill(self.command, Signal::SIGKILL);
            }
            ended = self.collect();
        }
        ended.unwrap_or(super::OUR_OWN_FAILURE)
    }

    /// Kills what the command left behind, and keeps the last of its output.
    pub(crate) fn clear_away(&mut self, leftovers: &Leftovers) {
        let deadline = Instant::now() + KILL_TIME;
        while leftovers.kill() > 0 && Instant::now() < deadline {
            self.wait(PollTimeout::from(1u8));
            while let Ok(Some(_)) = self.signals.descriptor.read_signal() {}
            self.collect();
        }
        self.keep_output();
        if let Some(log) = &mut self.log {
            log.finish();
        }
    }

    /// From here on signals end us as they end anybody. Not those that were meant for the command, and not a terminal that
    /// goes away: both tend to come twice.
    pub(crate) fn release_signals(&self) {
        while let Ok(Some(_)) = self.signals.descriptor.read_signal() {}
        let mut released = self.signals.set;
        released.remove(Signal::SIGHUP);
        let _ = released.thread_unblock();
    }

    fn wait(&self, timeout: PollTimeout) {
        let mut ready = vec![PollFd::new(self.signals.descriptor.as_fd(), PollFlags::POLLIN)];
        let output = self.log.iter().flat_map(Log::descriptors);
        let others = output.chain(self.host.iter().map(AsFd::as_fd));
        ready.extend(others.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)));
        match poll(&mut ready, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Nothing else can be done about it than to look more often.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }

    fn keep_output(&mut self) {
        if let Some(log) = &mut self.log {
            log.keep();
        }
    }

    fn pass_on(&self, received: &siginfo) {
        let Ok(signal) = i32::try_from(received.ssi_signo)
            .map_err(|_| ())
            .and_then(|number| Signal::try_from(number).map_err(|_| ()))
        else {
            return;
        };
        if is_passed_on(signal, received.ssi_code, self.log.is_none(), leads_session()) {
            // It may have ended; that will be seen.
            let _ = kill(self.command, signal);
        }
    }

    /// Collects children that ended. Gives the exit code once the command is among them.
    fn collect(&mut self) -> Option<u8> {
        let mut code = None;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(pid, status)) if pid == self.command => {
                    code = Some(u8::try_from(status & 0xff).expect("masked"));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.command => {
                    code = Some(128 + u8::try_from(signal as i32).expect("signals have small numbers"));
                }
                Ok(WaitStatus::Stopped(pid, _)) if pid == self.command && self.job_control => {
                    // Where no shell could continue us, the kernel ignores this one.
                    let _ = kill(getpid(), Signal::SIGTSTP);
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return code,
                Ok(_) => {}
            }
        }
    }
}

/// Whether the command doesn't get a signal that we got. `code` says who sent it: above zero it was the kernel, which for a
/// terminal means the whole process group.
fn is_passed_on(signal: Signal, code: i32, shares_group: bool, leads_session: bool) -> bool {
    match signal {
        Signal::SIGCHLD => false,
        // Twice is as good as once.
        Signal::SIGCONT => true,
        // A terminal that goes away tells only the session's leader.
        Signal::SIGHUP if leads_session => true,
        _ => code <= 0 || !shares_group,
    }
}

fn leads_session() -> bool {
    getsid(None).is_ok_and(|session| session == getpid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_terminal_sends_is_not_sent_twice() {
        const USER: i32 = 0;
        const KERNEL: i32 = 0x80;
        let cases = [
            (Signal::SIGINT, KERNEL, true, false, false),
            (Signal::SIGINT, USER, true, false, true),
            (Signal::SIGQUIT, KERNEL, true, true, false),
            (Signal::SIGTERM, USER, true, false, true),
            (Signal::SIGTERM, USER, false, true, true),
            (Signal::SIGWINCH, KERNEL, true, false, false),
            (Signal::SIGHUP, KERNEL, true, false, false),
            (Signal::SIGHUP, KERNEL, true, true, true),
            (Signal::SIGCONT, KERNEL, true, false, true),
            (Signal::SIGCHLD, KERNEL, false, true, false),
        ];
        for (signal, code, shares_group, leads_session, want) in cases {
            let got = is_passed_on(signal, code, shares_group, leads_session);
            assert_eq!(got, want, "{signal} {code} {shares_group} {leads_session}");
        }
    }
}
