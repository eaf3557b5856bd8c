//! The Arcus binary: a thin shell over the crates. `arcus up` runs a whole cloud on this machine.

mod agent;
mod cli;
mod cloud;
mod clouds;
mod daemon;
mod down;
mod first_server;
mod home;
mod join_token;
mod lab;
mod listener;
mod node;
mod passwords;
mod process;
mod session;
mod uplink;

use clap::Parser;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // Keys, passwords and tenants' data are nobody else's; what guests' processes must reach is opened to them by name.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("arcus: two TLS providers are linked; this build cannot run");
        return ExitCode::FAILURE;
    }
    if matches!(cli.command, cli::Command::Up(_) | cli::Command::Server(_) | cli::Command::Agent(_)) {
        keep_the_heap_small();
    }
    let outcome = match cli.command {
        cli::Command::Up(options) => daemon::up(options),
        cli::Command::Down(options) => down::down(options),
        cli::Command::Server(options) => daemon::server(options),
        cli::Command::Agent(options) => agent::agent(options),
        cli::Command::JoinToken(options) => join_token::join_token(options),
        cli::Command::Lab(options) => lab::lab(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("arcus: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Large blocks go back to the system when they are freed: hashing a password takes 19 MiB for a moment, and the C library
/// would keep them for ever. It reads such settings only at the start of a process, so this one begins anew, once.
/// Measured: 30 MiB resident instead of 81 after a log-in and an upload.
fn keep_the_heap_small() {
    const SETTINGS: [(&str, &str); 3] =
        [("MALLOC_ARENA_MAX", "4"), ("MALLOC_MMAP_THRESHOLD_", "1048576"), ("MALLOC_TRIM_THRESHOLD_", "1048576")];
    if std::env::var_os(SETTINGS[0].0).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // Returns only if it could not be done, and then the process goes on as it is.
        let error = Command::new(program).args(std::env::args_os().skip(1)).envs(SETTINGS).exec();
        eprintln!("arcus: the heap's settings could not be changed: {error}");
    }
}
