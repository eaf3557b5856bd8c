//! How long a move takes, against the same machine moved by hand over QMP between the same two nodes of a lab, and what a TCP
//! client notices.
//!
//! Ours begins when the request is sent and ends when the task is over: API, database, both agents, encryption, the ports and
//! the tracked connections are in it. By hand the disk is made, QEMU is started, the disk is mirrored and the memory sent, in the
//! clear. The client asks an echo service of the guest every 5 ms from a third node, over one connection, through all moves; its
//! waits are those between two answers.

use crate::by_hand::ByHand;
use crate::cloud::{Lab, Server};
use crate::guests::Seen;
use crate::measurement;
use crate::wire::Wire;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 20;
const MOVE_MAX: Duration = Duration::from_secs(60);
const GOAL: f64 = 1.15;
const STALL_MS: f64 = 60.0;
const STALL_WORST_MS: f64 = 120.0;
/// Between two moves: what the move before has left is over.
const PAUSE: Duration = Duration::from_secs(1);

pub async fn run() -> Result<()> {
    let lab = Lab::up("bench", 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    let mut by_hand = Hand::begin(&lab, &server)?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    tokio::time::sleep(PAUSE).await;
    let timeouts = wire.told()?.timeouts;
    let (mut stalls, mut ours, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let to = if round % 2 == 0 { "n2" } else { "n1" };
        wire.told()?;
        let began = Instant::now();
        let (status, told) = server.live_migration(json!({ "node": to })).await?;
        ensure!(status == 202, "the move was answered with {status}: {told}");
        let over = server.task_over(&told["task"], MOVE_MAX).await?;
        ours.push(began.elapsed());
        ensure!(over["state"] == "done", "the move failed: {over}");
        tokio::time::sleep(PAUSE).await;
        stalls.push(Duration::from_millis(wire.told()?.stall_ms));
        other.push(by_hand.moved()?);
        tokio::time::sleep(PAUSE).await;
    }
    let timeouts = wire.told()?.timeouts - timeouts;
    let ours = measurement::median_s("request to the end of the move", &ours)?;
    let other = measurement::median_s("the same by hand", &other)?;
    measurement::compared("migration_time", ours, other, "QEMU by hand", GOAL);
    let median = measurement::median_s("longest wait of a client in each move", &stalls)?;
    let worst = stalls.iter().max().context("nothing was measured")?.as_secs_f64();
    measurement::absolute("migration_stall", median * 1e3, STALL_MS, "ms");
    measurement::absolute("migration_stall_worst", worst * 1e3, STALL_WORST_MS, "ms");
    #[expect(clippy::cast_precision_loss, reason = "few")]
    measurement::absolute("migration_timeouts", timeouts as f64, 0.0, "timers");
    wire.end()?;
    drop(by_hand);
    lab.down()
}

/// The same machine, moved by hand.
struct Hand {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Hand {
    /// Boots it in the namespace of n1.
    fn begin(lab: &Lab, server: &Server) -> Result<Self> {
        let seen = Seen { pid: lab.process(server, "n1")?, at: Instant::now(), console: lab.home().join("none") };
        let words = seen.command_line()?;
        let mut ends = Vec::new();
        let mut disk = None;
        for node in ["n1", "n2"] {
            let machine = ByHand::like(&words, &lab.home().join(format!("by-hand-{node}")))?;
            let (backing, size) = machine.disk();
            disk = Some((backing.to_owned(), size));
            ends.push(machine.end(&lab.namespace(node)?, &lab.underlay(node)?));
        }
        let (backing, size) = disk.context("no end")?;
        let file = lab.home().join("by-hand.json");
        std::fs::write(&file, json!({ "backing": backing, "size": size, "ends": ends }).to_string())?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cloud/move_by_hand.py");
        let mut child =
            Command::new("python3").arg(script).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let ask = child.stdin.take().context("no input")?;
        let answers = BufReader::new(child.stdout.take().context("no output")?);
        let mut hand = Self { child, ask, answers };
        let said = hand.line()?;
        ensure!(said.trim() == "booted", "by hand: {said}");
        Ok(hand)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "what is moved by hand has ended");
        Ok(line)
    }

    /// Moves it to the other end; how long that took.
    fn moved(&mut self) -> Result<Duration> {
        self.ask.write_all(b"\n")?;
        let ms: f64 = self.line()?.trim().parse()?;
        Ok(Duration::from_secs_f64(ms / 1e3))
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // As from a keyboard: it ends its machine first.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0));
        if let Err(error) = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT) {
            eprintln!("what is moved by hand could not be ended: {error}");
        }
        drop(self.child.wait());
    }
}
