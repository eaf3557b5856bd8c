//! What can be typed.

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A complete cloud in one program.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cloud on this machine: the server and one node, with first-run set-up.
    Up(Up),
    /// Stop it: end its guests, take its networks down and remove its files.
    Down(Down),
}

/// Where a cloud keeps everything.
#[derive(Debug, Clone, Args)]
pub struct HomeOption {
    /// The folder that holds everything of this cloud.
    #[arg(long, env = "ARCUS_HOME", default_value = "/var/lib/arcus")]
    pub home: PathBuf,
}

/// `arcus up`.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// Where it keeps everything.
    #[command(flatten)]
    pub home: HomeOption,
    /// The port of the endpoint.
    #[arg(long, env = "ARCUS_PORT", default_value_t = 8774)]
    pub port: u16,
    /// The address that the endpoint listens on. Anything but loopback offers the cloud to others.
    #[arg(long, env = "ARCUS_LISTEN", default_value = "127.0.0.1")]
    pub listen: std::net::IpAddr,
    /// The database: `postgres://…`; without it, an embedded one under the home folder.
    #[arg(long, env = "ARCUS_DATABASE")]
    pub database: Option<String>,
    /// The machine's own link by which guests may reach the outside; without it they reach only each other and this
    /// machine.
    #[arg(long, env = "ARCUS_UPLINK")]
    pub uplink: Option<String>,
    /// Run in the background once the endpoint answers.
    #[arg(long)]
    pub detach: bool,
    /// A disk image to offer to all projects under the name `arcus-tiny`.
    #[arg(long)]
    pub image: Option<PathBuf>,
    /// Boot a first server from that image and wait until it answers over the network.
    #[arg(long, requires = "image")]
    pub first_server: bool,
    /// How guests run: `auto` takes KVM where it works, else emulation (TCG).
    #[arg(long, env = "ARCUS_ACCEL", default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    pub accel: String,
    /// Pretend: the node runs no guests and makes no networks, but obeys the same protocol. For trying out clients and for
    /// load tests.
    #[arg(long)]
    pub simulate: bool,
}

impl Up {
    /// The address that the endpoint listens on.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.port)
    }

    /// The endpoint as clients call it.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }
}

/// `arcus down`.
#[derive(Debug, Clone, Args)]
pub struct Down {
    /// Where it keeps everything.
    #[command(flatten)]
    pub home: HomeOption,
    /// Keep the database, images and disks, so that `arcus up` goes on where this stopped.
    #[arg(long, env = "ARCUS_KEEP_DATA")]
    pub keep_data: bool,
}
