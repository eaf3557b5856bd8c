//! Runs `qemu-img`, and what formats disks, on bytes that nobody trusts: as a user without rights, with bounded memory, CPU time, output and
//! duration, without an environment and never through a shell.

use super::durable::is_root;
use crate::StorageError;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// The user that converters run as: no account has it, and no guest (their numbers begin above).
pub(super) const TOOL_UID: u32 = 0x5fff_ffff;

const ADDRESS_BYTES_MAX: u64 = 1 << 30;
const STDERR_BYTES_MAX: u64 = 16 << 10;
/// What a converter may take beyond what the amount of data accounts for.
const CPU_S_MIN: u64 = 60;
/// Compression runs at some 25 MB/s on a slow core.
const CPU_S_PER_GIB: u64 = 60;
const CPU_S_MAX: u64 = 6 * 3600;
/// How much longer than its CPU time a converter may take when the node is busy.
const WALL_FACTOR: u64 = 4;

/// What one run may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// The user that it runs as.
    pub uid: u32,
    /// The longest file that it may write, in bytes.
    pub file_bytes_max: u64,
    /// How much data it has to read at most, in bytes.
    pub data_bytes: u64,
    /// Whether it opens what a tenant made: its failure then is the tenant's, and comes again.
    pub hostile: bool,
}

/// Runs `qemu-img` with these arguments.
pub(super) async fn qemu_img(arguments: Vec<OsString>, allowance: Allowance) -> Result<(), StorageError> {
    run("qemu-img", arguments, allowance).await
}

/// Runs a program with these arguments.
pub(super) async fn run(
    program: &'static str,
    arguments: Vec<OsString>,
    allowance: Allowance,
) -> Result<(), StorageError> {
    run_told(program, arguments, allowance, &|_| {}).await
}

/// Runs `qemu-img` with these arguments; with `-p` among them, tells how far it is, 0 to 100.
pub(super) async fn qemu_img_told(
    arguments: Vec<OsString>,
    allowance: Allowance,
    progress: &(dyn Fn(u8) + Sync),
) -> Result<(), StorageError> {
    run_told("qemu-img", arguments, allowance, progress).await
}

async fn run_told(
    program: &'static str,
    arguments: Vec<OsString>,
    allowance: Allowance,
    progress: &(dyn Fn(u8) + Sync),
) -> Result<(), StorageError> {
    let tool_failed = |what, transient| StorageError::Tool { program, what, transient };
    let cpu_s = CPU_S_MIN.saturating_add((allowance.data_bytes >> 30).saturating_mul(CPU_S_PER_GIB)).min(CPU_S_MAX);
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--as={ADDRESS_BYTES_MAX}"))
        .arg(format!("--cpu={cpu_s}"))
        .arg(format!("--fsize={}", allowance.file_bytes_max))
        .args(["--core=0", "--nofile=64", "--", "nice", "-n", "10", program])
        .args(&arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("LC_ALL", "C")
        // One arena: each further one reserves 64 MiB of the address space.
        .env("MALLOC_ARENA_MAX", "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if is_root() {
        command.uid(allowance.uid).gid(allowance.uid);
    }
    let mut child = command.spawn().map_err(|error| tool_failed(format!("it did not start: {error}"), true))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let run = async {
        let listen = async {
            let mut said = Vec::new();
            if let Some(stderr) = stderr {
                stderr.take(STDERR_BYTES_MAX).read_to_end(&mut said).await?;
            }
            Ok::<_, std::io::Error>(said)
        };
        let watch = async {
            if let Some(stdout) = stdout {
                tell_progress(stdout, progress).await;
            }
        };
        let ((), said) = tokio::join!(watch, listen);
        Ok::<_, std::io::Error>((child.wait().await?, said?))
    };
    let (status, said) = match tokio::time::timeout(Duration::from_secs(cpu_s * WALL_FACTOR), run).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => return Err(tool_failed(format!("it was lost: {error}"), true)),
        Err(_) => return Err(tool_failed(format!("it took more than {} s", cpu_s * WALL_FACTOR), true)),
    };
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    match status.signal() {
        Some(signal) => Err(tool_failed(format!("it was ended by signal {signal}: {said}"), !allowance.hostile)),
        None => {
            let room = said.contains("No space left") || said.contains("Cannot allocate memory");
            Err(tool_failed(said, room || !allowance.hostile))
        }
    }
}

/// Reads what `-p` prints, such as `(12.34/100%)` and a carriage return, to its end.
async fn tell_progress(mut stdout: impl tokio::io::AsyncRead + Unpin, progress: &(dyn Fn(u8) + Sync)) {
    let (mut piece, mut line) = ([0; 256], Vec::new());
    while let Ok(count @ 1..) = stdout.read(&mut piece).await {
        for byte in piece.iter().take(count) {
            match byte {
                b'(' => line.clear(),
                b'.' => {
                    let percent = std::str::from_utf8(&line).ok().and_then(|text| text.parse().ok());
                    if let Some(percent @ 0..=100) = percent {
                        progress(percent);
                    }
                    line.clear();
                }
                _ if line.len() < 3 => line.push(*byte),
                _ => {}
            }
        }
    }
}

/// Arguments of mixed kinds as one list.
pub(super) fn arguments(words: &[&str], paths: &[&Path]) -> Vec<OsString> {
    let words = words.iter().map(OsString::from);
    words.chain(paths.iter().map(|path| path.as_os_str().to_owned())).collect()
}
