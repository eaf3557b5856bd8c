//! What can be typed.

use crate::passwords::PasswordOptions;
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
    /// Stop it: end its guests, take its networks down and remove its files. Also for `server` and `agent`.
    Down(Down),
    /// Run the part of a cloud that answers clients, without a node on this machine.
    Server(Server),
    /// Run this machine as a node of a cloud; the first time with --join and --token.
    Agent(Agent),
    /// Let machines join the cloud of this machine: prints the command to run on them.
    JoinToken(JoinToken),
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
    /// The part that answers clients.
    #[command(flatten)]
    pub endpoint: EndpointOptions,
    /// The part that runs guests.
    #[command(flatten)]
    pub node: NodeOptions,
    /// Run in the background once the endpoint answers.
    #[arg(long)]
    pub detach: bool,
    /// A disk image to offer to all projects under the name `arcus-tiny`.
    #[arg(long)]
    pub image: Option<PathBuf>,
    /// Boot a first server from that image and wait until it answers over the network.
    #[arg(long, requires = "image")]
    pub first_server: bool,
}

/// How the endpoint is reached and where its data is.
#[derive(Debug, Clone, Args)]
pub struct EndpointOptions {
    /// The port of the endpoint.
    #[arg(long, env = "ARCUS_PORT", default_value_t = 8774)]
    pub port: u16,
    /// The address that the endpoint listens on. Anything but loopback offers the cloud to others.
    #[arg(long, env = "ARCUS_LISTEN", default_value = "127.0.0.1")]
    pub listen: std::net::IpAddr,
    /// The database: `postgres://…`; without it, an embedded one under the home folder.
    #[arg(long, env = "ARCUS_DATABASE")]
    pub database: Option<String>,
    /// Rules for passwords and tokens.
    #[command(flatten)]
    pub passwords: PasswordOptions,
}

/// What this machine does as a node.
#[derive(Debug, Clone, Args)]
pub struct NodeOptions {
    /// The machine's own link by which guests may reach the outside; without it they reach only each other and this
    /// machine.
    #[arg(long, env = "ARCUS_UPLINK")]
    pub uplink: Option<String>,
    /// This machine's address on the network that joins the nodes: tunnels between them end here.
    #[arg(long, env = "ARCUS_UNDERLAY")]
    pub underlay: Option<std::net::IpAddr>,
    /// What the node is called, once and for all when it joins: by default the machine's host name.
    #[arg(long, env = "ARCUS_NODE")]
    pub node: Option<String>,
    /// How guests run: `auto` takes KVM where it works, else emulation (TCG).
    #[arg(long, env = "ARCUS_ACCEL", default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    pub accel: String,
    /// Pretend: the node runs no guests and makes no networks, but obeys the same protocol. For trying out clients and for
    /// load tests.
    #[arg(long)]
    pub simulate: bool,
}

impl EndpointOptions {
    /// The address that the endpoint listens on.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.port)
    }

    /// The endpoint as clients call it.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }
}

/// `arcus server`.
#[derive(Debug, Clone, Args)]
pub struct Server {
    /// Where it keeps everything.
    #[command(flatten)]
    pub home: HomeOption,
    /// The part that answers clients.
    #[command(flatten)]
    pub endpoint: EndpointOptions,
}

/// `arcus agent`.
#[derive(Debug, Clone, Args)]
pub struct Agent {
    /// Where it keeps everything.
    #[command(flatten)]
    pub home: HomeOption,
    /// The endpoint of the cloud to join, such as `https://10.0.0.1:8774`; a node remembers it.
    #[arg(long, requires = "token")]
    pub join: Option<String>,
    /// The token that `arcus join-token` printed. It also says which certificate authority to trust.
    #[arg(long, env = "ARCUS_JOIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The part that runs guests.
    #[command(flatten)]
    pub node: NodeOptions,
}

/// `arcus join-token`.
#[derive(Debug, Clone, Args)]
pub struct JoinToken {
    /// Where the cloud keeps everything.
    #[command(flatten)]
    pub home: HomeOption,
    /// How many machines may join with it.
    #[arg(long, default_value_t = 1)]
    pub uses: u64,
    /// How long it is good, in minutes.
    #[arg(long, default_value_t = 60)]
    pub minutes: u64,
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
