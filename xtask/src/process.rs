//! Runs the programs that xtask is made of, and says what is being done.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The workspace root.
pub fn workspace_root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// Prints one progress line: seconds since the start, and what happens now.
pub fn step(what: impl AsRef<str>) {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed_s = START.get_or_init(Instant::now).elapsed().as_secs_f64();
    eprintln!("[{elapsed_s:6.1}s] {}", what.as_ref());
}

/// A command line as a person would type it, for messages.
fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs `command` with its output on the terminal.
///
/// # Errors
/// When it cannot start, or ends with another status than 0.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("could not start: {}", shown(command)))?;
    if !status.success() {
        bail!("{status}: {}", shown(command));
    }
    Ok(())
}

/// Runs `command` silently and gives what it wrote to its standard output.
///
/// # Errors
/// When it cannot start, or ends with another status than 0; then with all that it wrote.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("could not start: {}", shown(command)))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let errors = String::from_utf8_lossy(&done.stderr);
        bail!("{}: {}\n{text}{errors}", done.status, shown(command));
    }
    Ok(text)
}

/// Whether `program` is found in `PATH`.
pub fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|folder| folder.join(program).is_file()))
}

/// Cargo, as it called us.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    command
}
