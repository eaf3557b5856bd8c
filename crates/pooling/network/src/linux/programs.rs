//! The programs that the driver builds on: `ip`, `bridge` and `tc` (iproute2) and `nft` (nftables).
//!
//! They are started from a thread that has entered the namespace, so they work there; commands go in on standard input
//! as one batch, so that a pass takes few processes however much it changes. One that does not end in time is ended: a
//! pass must come to its end whatever the kernel does.

use super::netlink::FilterWatch;
use crate::NetworkError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take. They are done within milliseconds; large filters take a second or two.
const DEADLINE: Duration = Duration::from_secs(30);

/// How much of a program's complaint goes into an error, in characters.
const MESSAGE_CHARS_MAX: usize = 1000;

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How often is asked whether a transaction is over.
const POLL: Duration = Duration::from_micros(300);

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Devices, addresses, routes, neighbours.
    Ip,
    /// Forwarding tables.
    Bridge,
    /// Packet filters.
    Nft,
    /// Queues.
    Tc,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Bridge => "bridge",
            Self::Nft => "nft",
            Self::Tc => "tc",
        }
    }
}

/// Runs a batch of commands of `ip`, `bridge` or `tc`, which stops at the first that fails; an empty one takes no process.
pub fn batch(place: &str, program: Program, lines: &[String]) -> Result<(), NetworkError> {
    if lines.is_empty() {
        return Ok(());
    }
    ask(place, program, &["-batch", "-"], &joined(lines)).map(drop)
}

/// Runs a batch of commands whatever each comes to, for removing what may be gone already.
pub fn batch_removals(place: &str, program: Program, lines: &[String]) -> Result<(), NetworkError> {
    if lines.is_empty() {
        return Ok(());
    }
    match ask(place, program, &["-force", "-batch", "-"], &joined(lines)) {
        Err(NetworkError::Refused { message, .. }) => {
            tracing::debug!(network.place = place, %message, "some of what was to be removed was gone already");
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Replaces tables in one transaction: all of the text takes effect, or nothing. Returns the filter's generation
/// afterwards, if that is known.
///
/// With `alone`, nobody else writes filters in this namespace. Then the transaction is over when the kernel counts one
/// more change, and the program need not be waited for: it spends most of its time closing its socket (see
/// [`FilterWatch`]).
pub fn rules(place: &str, text: &str, alone: bool) -> Result<Option<u32>, NetworkError> {
    let watch = FilterWatch::open().ok();
    let generation = || watch.as_ref().and_then(|watch| watch.generation().ok());
    let before = generation().filter(|_| alone);
    let mut running = Running::start(Program::Nft, &["-f", "-"], text, DEADLINE)?;
    while before.is_some() && !running.is_over()? {
        let now = generation();
        if now.is_some() && now != before {
            // Somebody has to wait for it all the same, or its entry stays in the kernel's table.
            std::thread::spawn(move || {
                drop(watch);
                let _ = running.finish("");
            });
            return Ok(now);
        }
        running.pump(POLL)?;
    }
    running.finish(place)?;
    Ok(generation())
}

/// Runs a program in the calling thread's namespace and returns what it printed.
pub fn ask(place: &str, program: Program, arguments: &[&str], input: &str) -> Result<String, NetworkError> {
    Running::start(program, arguments, input, DEADLINE)?.finish(place)
}

/// A program that runs, and what has been said to it and by it.
struct Running {
    name: &'static str,
    child: Child,
    input: Vec<u8>,
    written: usize,
    output: Vec<u8>,
    complaint: Vec<u8>,
    end: Instant,
}

impl Running {
    fn start(program: Program, arguments: &[&str], input: &str, deadline: Duration) -> Result<Self, NetworkError> {
        Self::spawn(program.name(), program.name(), arguments, input, deadline)
    }

    fn spawn(
        name: &'static str,
        file: &str,
        arguments: &[&str],
        input: &str,
        deadline: Duration,
    ) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::Program { program: name, source };
        let child = Command::new(located(file))
            .args(arguments)
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut running = Self {
            name,
            child,
            input: input.as_bytes().to_vec(),
            written: 0,
            output: Vec::new(),
            complaint: Vec::new(),
            end: Instant::now() + deadline,
        };
        // Pipes that never block: a program that neither reads nor ends must not hold us.
        let child = &running.child;
        let (stdin, stdout, stderr) = (child.stdin.as_ref(), child.stdout.as_ref(), child.stderr.as_ref());
        let pipes = [stdin.map(AsFd::as_fd), stdout.map(AsFd::as_fd), stderr.map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
                .map_err(|errno| failed(errno.into()))?;
        }
        running.feed();
        Ok(running)
    }

    /// Writes what the pipe takes. A program that ended early closes the pipe; its exit status tells more than that.
    fn feed(&mut self) {
        let Some(stdin) = &mut self.child.stdin else { return };
        while let Some(rest) = self.input.get(self.written..).filter(|rest| !rest.is_empty()) {
            match stdin.write(rest) {
                Ok(count) if count > 0 => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => break,
            }
        }
        self.child.stdin = None;
    }

    /// Carries input and output for as long as `patience`, or until something came.
    fn pump(&mut self, patience: Duration) -> Result<(), NetworkError> {
        let name = self.name;
        let mut polled: Vec<PollFd<'_>> = [
            (self.child.stdin.as_ref().map(AsFd::as_fd), PollFlags::POLLOUT),
            (self.child.stdout.as_ref().map(AsFd::as_fd), PollFlags::POLLIN),
            (self.child.stderr.as_ref().map(AsFd::as_fd), PollFlags::POLLIN),
        ]
        .into_iter()
        .filter_map(|(pipe, flags)| Some(PollFd::new(pipe?, flags)))
        .collect();
        if polled.is_empty() {
            std::thread::sleep(patience);
            return Ok(());
        }
        // Rounded up, or a short patience would be none at all.
        let wait = PollTimeout::try_from(patience.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, wait) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(NetworkError::Program { program: name, source: errno.into() }),
        }
        drop(polled);
        self.feed();
        if self.child.stdout.as_mut().is_some_and(|pipe| drained(pipe, &mut self.output)) {
            self.child.stdout = None;
        }
        if self.child.stderr.as_mut().is_some_and(|pipe| drained(pipe, &mut self.complaint)) {
            self.child.stderr = None;
        }
        Ok(())
    }

    fn status(&mut self) -> Result<Option<ExitStatus>, NetworkError> {
        self.child.try_wait().map_err(|source| NetworkError::Program { program: self.name, source })
    }

    fn is_over(&mut self) -> Result<bool, NetworkError> {
        Ok(self.status()?.is_some() || Instant::now() > self.end)
    }

    /// Waits for its end and returns what it printed.
    fn finish(mut self, place: &str) -> Result<String, NetworkError> {
        let status = loop {
            let silent = self.child.stdout.is_none() && self.child.stderr.is_none();
            // It has closed its output: it ends within a moment.
            self.pump(if silent { POLL } else { Duration::from_millis(100) })?;
            if (silent || Instant::now() > self.end)
                && let Some(status) = self.status()?
            {
                break status;
            }
            if Instant::now() > self.end {
                let _ = self.child.kill();
                // What the kernel holds does not even die: nobody waits for that but a thread of its own.
                std::thread::spawn(move || self.child.wait());
                return Err(NetworkError::Deadline { program: self.name, place: place.to_owned(), after: DEADLINE });
            }
        };
        if status.success() {
            return Ok(String::from_utf8_lossy(&self.output).into_owned());
        }
        let message = String::from_utf8_lossy(&self.complaint).trim().chars().take(MESSAGE_CHARS_MAX).collect();
        Err(NetworkError::Refused { program: self.name, place: place.to_owned(), message })
    }
}

/// Where the program is, or its bare name if it is in none of the folders of [`PATH`].
///
/// A bare name would make the standard library fork: with all of the agent's memory to map once more, a start costs
/// milliseconds. With a path it borrows the memory until the program begins.
fn located(file: &str) -> PathBuf {
    let found = PATH.split(':').map(|folder| Path::new(folder).join(file)).find(|path| path.exists());
    found.unwrap_or_else(|| file.into())
}

/// Reads what is there; says whether the pipe has come to its end.
fn drained(pipe: &mut impl Read, into: &mut Vec<u8>) -> bool {
    match pipe.read_to_end(into) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

fn joined(lines: &[String]) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, input: &str, deadline: Duration) -> Result<String, NetworkError> {
        Running::spawn("ip", "sh", &["-c", script], input, deadline)?.finish("here")
    }

    #[test]
    fn much_goes_in_and_much_comes_out() {
        let text = "x".repeat(1_000_000);
        assert_eq!(run("cat", &text, DEADLINE).unwrap(), text);
        assert!(run("exit 0", &text, DEADLINE).is_ok(), "it need not read");
        let refused = run("echo no >&2; exit 3", "", DEADLINE).unwrap_err();
        assert!(refused.to_string().contains("no"), "{refused}");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let begun = Instant::now();
        for script in ["exec sleep 60", "exec sleep 60 >&- 2>&-"] {
            let refused = run(script, &"x".repeat(1_000_000), Duration::from_millis(300)).unwrap_err();
            assert!(matches!(refused, NetworkError::Deadline { .. }), "{refused}");
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
