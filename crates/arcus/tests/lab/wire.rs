//! A client that speaks to a server over one connection from where another server's machine would be.

use crate::cloud::{Lab, Server};
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const SSH_MAX: Duration = Duration::from_secs(60);

/// The connection; it breaks if a byte is lost, doubled or out of order.
pub struct Wire {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What happened since the client was asked last.
#[derive(Debug, Deserialize)]
pub struct Told {
    /// The longest time without an answer, in milliseconds.
    pub stall_ms: u64,
    /// How often a retransmission timer has fired, ever.
    pub timeouts: i64,
    /// Bytes that came back, ever.
    pub bytes: u64,
}

/// What somebody who watches has seen.
#[derive(Debug, Deserialize)]
pub struct Seen {
    /// How often the play stood still because nothing was left to be played, ever.
    pub rebuffers: u64,
    /// What was left at the least since the player was asked last, in milliseconds of play.
    pub lowest_ms: u64,
    /// Bytes that came and were what they had to be, ever.
    pub bytes: u64,
    /// Connections that were reset, ever.
    pub resets: i64,
}

impl Wire {
    /// Connects from the client's interface on node n3.
    pub fn connect(lab: &Lab, client: &Server, server: &Server) -> Result<Self> {
        let mut wire = Self::begin(lab, client, "wire.py", &[&server.address, "7000"])?;
        wire.expect("connected")?;
        Ok(wire)
    }

    /// Takes a connection that the server begins, and over which it only listens.
    pub fn listen(lab: &Lab, client: &Server, server: &Server) -> Result<Self> {
        let mut wire = Self::begin(lab, client, "wire.py", &[&server.address, "7000", "listen"])?;
        wire.expect("listening")?;
        let line = format!("start-stop-daemon -S -b -x /bin/sh -- -c \"sleep 9999 | nc {} 7000\"", client.address);
        wire.guest(lab, server, &line)?;
        wire.expect("connected")?;
        Ok(wire)
    }

    /// Plays an HTTP server's endless stream at a constant bit rate; see `player.py`.
    pub fn play(lab: &Lab, client: &Server, server: &Server, path: &str, bits_per_s: u32) -> Result<Self> {
        let rate = bits_per_s.to_string();
        let mut wire = Self::begin(lab, client, "player.py", &[&server.address, "8080", path, &rate])?;
        wire.expect("connected")?;
        Ok(wire)
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let said = self.line()?;
        ensure!(said.contains(word), "the client said {said}");
        Ok(())
    }

    fn begin(lab: &Lab, client: &Server, script: &str, more: &[&str]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab").join(script);
        let plain = client.port.replace('-', "");
        let tap = format!("p{}", &plain[plain.len() - 12..]);
        let mut child = Command::new("python3")
            // No compiled copy of the module that the scripts share is left beside it.
            .arg("-B")
            .arg(script)
            .args([&lab.segment("n3")?, &tap, &client.mac, &format!("{}/24", client.address), "1400"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ask = child.stdin.take().context("no input")?;
        let answers = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, ask, answers })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the client has ended: its connection broke");
        Ok(line)
    }

    /// What happened since the last time.
    pub fn told(&mut self) -> Result<Told> {
        self.asked()
    }

    /// The same of a player.
    pub fn seen(&mut self) -> Result<Seen> {
        self.asked()
    }

    fn asked<T: serde::de::DeserializeOwned>(&mut self) -> Result<T> {
        self.ask.write_all(b"\n")?;
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the client said {line}"))
    }

    /// Sees that answers come; the longest time without one since the last time, in milliseconds.
    ///
    /// Two questions in a row say nothing: between them there may have been no time for an answer.
    pub fn answered(&mut self, patience: Duration) -> Result<u64> {
        let first = self.told()?;
        let began = Instant::now();
        loop {
            let now = self.told()?;
            if now.bytes > first.bytes {
                return Ok(first.stall_ms.max(now.stall_ms));
            }
            ensure!(began.elapsed() < patience, "nobody answers: {first:?}, {now:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a command without single quotes as root in the server's guest, over a connection of its own from the same place.
    pub fn guest(&mut self, lab: &Lab, server: &Server, command: &str) -> Result<String> {
        let began = Instant::now();
        loop {
            let output = Command::new("nsenter")
                .args([&format!("--net=/proc/{}/ns/net", self.child.id()), "ssh", "-i"])
                .arg(&lab.key)
                .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
                .args([
                    "-o",
                    "ConnectTimeout=10",
                    "-o",
                    "LogLevel=ERROR",
                    "-o",
                    "BatchMode=yes",
                    "-o",
                    "IdentitiesOnly=yes",
                ])
                .args([&format!("arcus@{}", server.address), &format!("sudo sh -c '{command}'")])
                .stdin(Stdio::null())
                .output()?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(began.elapsed() < SSH_MAX, "the guest does not obey: {said}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Ends it well.
    pub fn end(mut self) -> Result<()> {
        self.asked::<serde_json::Value>()?;
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
