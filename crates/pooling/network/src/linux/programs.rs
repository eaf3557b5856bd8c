//! The three programs that the driver builds on: `ip` and `bridge` (iproute2) and `nft` (nftables).
//!
//! They are started from a thread that has entered the namespace, so they work there; commands go in on standard input
//! as one batch, so that a pass takes few processes however much it changes.

use super::netlink::FilterWatch;
use crate::NetworkError;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How much of a program's complaint goes into an error, in characters.
const MESSAGE_CHARS_MAX: usize = 1000;

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
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Bridge => "bridge",
            Self::Nft => "nft",
        }
    }
}

/// Runs a batch of `ip` or `bridge` commands, which stops at the first that fails; an empty one takes no process.
pub fn batch(place: &str, program: Program, lines: &[String]) -> Result<(), NetworkError> {
    if lines.is_empty() {
        return Ok(());
    }
    ask(place, program, &["-batch", "-"], &joined(lines)).map(drop)
}

/// Runs a batch of `ip` commands whatever each comes to, for removing what may be gone already.
pub fn batch_removals(place: &str, lines: &[String]) -> Result<(), NetworkError> {
    if lines.is_empty() {
        return Ok(());
    }
    match ask(place, Program::Ip, &["-force", "-batch", "-"], &joined(lines)) {
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
    let mut child = start(Program::Nft, &["-f", "-"], text)?;
    let failed = |source| NetworkError::Program { program: Program::Nft.name(), source };
    while before.is_some() && child.try_wait().map_err(failed)?.is_none() {
        let now = generation();
        if now.is_some() && now != before {
            // Somebody has to wait for it all the same, or its entry stays in the kernel's table.
            std::thread::spawn(move || {
                drop(watch);
                child.wait()
            });
            return Ok(now);
        }
        std::thread::sleep(POLL);
    }
    finish(place, Program::Nft, child)?;
    Ok(generation())
}

/// Runs a program in the calling thread's namespace and returns what it printed.
pub fn ask(place: &str, program: Program, arguments: &[&str], input: &str) -> Result<String, NetworkError> {
    finish(place, program, start(program, arguments, input)?)
}

fn start(program: Program, arguments: &[&str], input: &str) -> Result<Child, NetworkError> {
    let name = program.name();
    let mut child = Command::new(name)
        .args(arguments)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| NetworkError::Program { program: name, source })?;
    // The input is read in full before anything long is printed, so writing first cannot block for ever. A program
    // that ended early closes the pipe; its exit status tells more than the broken pipe.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    Ok(child)
}

fn finish(place: &str, program: Program, child: Child) -> Result<String, NetworkError> {
    let name = program.name();
    let output = child.wait_with_output().map_err(|source| NetworkError::Program { program: name, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().chars().take(MESSAGE_CHARS_MAX).collect();
    Err(NetworkError::Refused { program: name, place: place.to_owned(), message })
}

fn joined(lines: &[String]) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    text
}
