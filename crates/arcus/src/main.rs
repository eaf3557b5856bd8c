//! The Arcus binary: a thin shell over the crates. `arcus up` runs a whole cloud on this machine.

mod agent;
mod cli;
mod cloud;
mod clouds;
mod clusters;
mod daemon;
mod down;
mod first_server;
mod home;
mod join_token;
mod lab;
mod listener;
mod live_migrate;
mod node;
mod nodes;
mod passwords;
mod placement;
mod process;
mod session;
mod tasks;
mod uplink;

use clap::Parser;
use std::process::ExitCode;

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
    let outcome = match cli.command {
        cli::Command::Up(options) => daemon::up(options),
        cli::Command::Down(options) => down::down(options),
        cli::Command::Server(options) => daemon::server(options),
        cli::Command::Agent(options) => agent::agent(options),
        cli::Command::JoinToken(options) => join_token::join_token(options),
        cli::Command::Cluster(options) => clusters::clusters(options),
        cli::Command::Node(options) => nodes::nodes(options),
        cli::Command::Task(options) => tasks::tasks(options),
        cli::Command::LiveMigrate(options) => live_migrate::live_migrate(options),
        cli::Command::Placement(options) => placement::placement(options),
        cli::Command::Lab(options) => lab::lab(options),
        cli::Command::Guard(options) => {
            arcus_hypervisor::guard::run(&options.orders, &options.arguments).map_err(anyhow::Error::from)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("arcus: {error:#}");
            ExitCode::FAILURE
        }
    }
}
