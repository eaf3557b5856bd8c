//! A process that ends itself, as suddenly as `kill -9` would, right before or after it writes how far a task is: tests see by
//! that what a crash at each step leaves. Only in debug builds, and only if the environment names a file.
//!
//! The file says which of the writes to come it is: `2-` is right before the second, `2+` right after it.

use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};

static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os("ARCUS_CRASH_FILE").map(PathBuf::from));
static TURN: Mutex<()> = Mutex::new(());

/// To be called before a commit.
pub fn before_commit(task: bool) {
    point(task, '-');
}

/// To be called after a commit.
pub fn after_commit(task: bool) {
    point(task, '+');
}

fn point(task: bool, side: char) {
    let Some(file) = FILE.as_ref().filter(|_| task) else { return };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(text) = std::fs::read_to_string(file) else { return };
    let Some((number, wanted)) = text.trim().split_at_checked(text.trim().len().saturating_sub(1)) else { return };
    let Ok(number) = number.parse::<u32>() else { return };
    if number <= 1 && wanted.starts_with(side) {
        // Without the file the process that is started next goes on.
        drop(std::fs::remove_file(file));
        std::process::abort();
    }
    if side == '+' {
        drop(std::fs::write(file, format!("{}{wanted}", number.saturating_sub(1))));
    }
}
