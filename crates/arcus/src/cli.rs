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
    /// Show nodes, take all servers off one for maintenance, and bring them back.
    Node(Node),
    /// Show clusters of nodes, change what may be claimed of them, and say which nodes belong together.
    Cluster(Clusters),
    /// Show what was asked and is not instant, follow it, give it up or ask for it again.
    Task(Tasks),
    /// Move a server to another node while it runs, or say what would come of that.
    LiveMigrate(LiveMigrate),
    /// Ask why a server is where it is, why it is not elsewhere, and where one could go.
    Placement(Placement),
    /// Run a cloud of several nodes on this machine, to try things that need more than one, and to break them.
    Lab(Lab),
    /// Start a guest that is killed when its node's lease is over: for agents only.
    #[command(hide = true)]
    Guard(Guard),
}

/// `arcus guard`.
#[derive(Debug, Clone, Args)]
pub struct Guard {
    /// What the agent wants.
    pub orders: String,
    /// The guest's arguments.
    #[arg(last = true)]
    pub arguments: Vec<std::ffi::OsString>,
}

/// Where a cloud keeps everything.
#[derive(Debug, Clone, Args)]
pub struct HomeOption {
    /// The folder that holds everything of this cloud.
    #[arg(long, global = true, env = "ARCUS_HOME", default_value = "/var/lib/arcus")]
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
    /// Start no servers of a lost node elsewhere, even if their disks can be reached there.
    #[arg(long, env = "ARCUS_NO_RECOVERY")]
    pub no_recovery: bool,
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
    /// A folder that several nodes see (NFS, CephFS): disks of new servers are made there, and servers whose node is lost
    /// start on another node of the same folder by themselves.
    #[arg(long, env = "ARCUS_SHARED_DISKS", value_name = "DIR")]
    pub shared_disks: Option<PathBuf>,
    /// How guests run: `auto` takes KVM where it works, else emulation (TCG).
    #[arg(long, env = "ARCUS_ACCEL", default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    pub accel: String,
    /// Pretend: the node runs no guests and makes no networks, but obeys the same protocol. For trying out clients and for
    /// load tests.
    #[arg(long)]
    pub simulate: bool,
    /// What tells one boot of this machine from the next, where that is not the kernel's: a lab switches nodes on and off.
    #[arg(long, hide = true)]
    pub boot_id: Option<String>,
}

impl NodeOptions {
    /// A simulated node of that name.
    pub fn simulated(name: &str) -> Self {
        Self {
            uplink: None,
            underlay: None,
            shared_disks: None,
            node: Some(name.to_owned()),
            accel: "auto".to_owned(),
            simulate: true,
            boot_id: None,
        }
    }
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
    /// The cluster that this machine goes to when it joins for the first time; otherwise the default one.
    #[arg(long, env = "ARCUS_CLUSTER")]
    pub cluster: Option<String>,
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

/// `arcus node`.
#[derive(Debug, Clone, Args)]
pub struct Node {
    /// Where the cloud keeps everything.
    #[command(flatten)]
    pub home: HomeOption,
    /// Print what the API answers, as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: NodeCommand,
}

/// What can be done with nodes.
#[derive(Debug, Clone, Subcommand)]
pub enum NodeCommand {
    /// Show the nodes and what is held of each.
    List {
        /// Only those of this cluster, by its name or id.
        #[arg(long)]
        cluster: Option<String>,
    },
    /// Take all running servers of a node elsewhere while they run; no new ones come to it from then on.
    Drain {
        /// The node.
        node: String,
        /// Only show where each server would go, how long that would take, and what is in the way.
        #[arg(long)]
        plan_only: bool,
        /// How many servers move at the same time: 2 unless you say, 1 where processors are emulated.
        #[arg(long)]
        parallel: Option<u32>,
        /// Give up after so many seconds.
        #[arg(long)]
        deadline: Option<u64>,
        /// Do not wait until it is over.
        #[arg(long)]
        no_wait: bool,
    },
    /// Let servers come to a node again, and bring back those that its last drain took away.
    Restore {
        /// The node.
        node: String,
        /// How many servers move at the same time: 2 unless you say, 1 where processors are emulated.
        #[arg(long)]
        parallel: Option<u32>,
        /// Do not wait until it is over.
        #[arg(long)]
        no_wait: bool,
    },
}

/// `arcus cluster`.
#[derive(Debug, Clone, Args)]
pub struct Clusters {
    /// Where the cloud, or the lab, keeps everything.
    #[command(flatten)]
    pub home: HomeOption,
    /// Print what the API answers, as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// What can be done with clusters.
#[derive(Debug, Clone, Subcommand)]
pub enum ClusterCommand {
    /// Show the clusters.
    List,
    /// Show one, with what its nodes have in common.
    Show {
        /// Its name or id.
        cluster: String,
    },
    /// Make a cluster.
    Create {
        /// Its name.
        name: String,
        /// All else.
        #[command(flatten)]
        figures: ClusterFigures,
    },
    /// Change a cluster; what is left out stays.
    Set {
        /// Its name or id.
        cluster: String,
        /// Its new name.
        #[arg(long)]
        name: Option<String>,
        /// All else.
        #[command(flatten)]
        figures: ClusterFigures,
    },
    /// Remove a cluster without nodes.
    Delete {
        /// Its name or id.
        cluster: String,
    },
    /// Put a node into a cluster, unless guests could not move between it and the others.
    AddNode {
        /// The cluster's name or id.
        cluster: String,
        /// The node.
        node: String,
        /// Also if they cannot for another processor model or another release of QEMU.
        #[arg(long)]
        force: bool,
    },
    /// Take a node out of a cluster: it goes to the default one.
    RemoveNode {
        /// The cluster's name or id.
        cluster: String,
        /// The node.
        node: String,
    },
    /// Show what a node would cost a cluster.
    Check {
        /// The cluster's name or id.
        cluster: String,
        /// The node.
        node: String,
    },
    /// Show which nodes' guests can move to which others.
    Pairs {
        /// The cluster's name or id.
        cluster: String,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Those after this pair.
        #[arg(long, num_args = 2, value_names = ["SOURCE", "DEST"])]
        after: Vec<String>,
    },
}

/// What a cluster is like.
#[derive(Debug, Clone, Default, Args)]
pub struct ClusterFigures {
    /// The zone of its nodes.
    #[arg(long)]
    pub zone: Option<String>,
    /// A description.
    #[arg(long)]
    pub description: Option<String>,
    /// Virtual CPUs that may be claimed, in percent of a node's threads; 1600 in a new cluster.
    #[arg(long, value_name = "PERCENT")]
    pub vcpus: Option<u64>,
    /// Memory that may be claimed, in percent of a node's; 100 in a new cluster.
    #[arg(long, value_name = "PERCENT")]
    pub memory: Option<u64>,
    /// Disk that may be claimed, in percent of a node's; 1000 in a new cluster.
    #[arg(long, value_name = "PERCENT")]
    pub disk: Option<u64>,
    /// Whether the emptiest node is taken first, or the fullest that has room.
    #[arg(long, value_parser = ["spread", "pack"])]
    pub placement: Option<String>,
}

/// `arcus task`.
#[derive(Debug, Clone, Args)]
pub struct Tasks {
    /// Where the cloud keeps everything.
    #[command(flatten)]
    pub home: HomeOption,
    /// Print what the API answers, as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: TaskCommand,
}

/// What can be done with tasks.
#[derive(Debug, Clone, Subcommand)]
pub enum TaskCommand {
    /// Show tasks, the newest first.
    List {
        /// Only those in this state: waiting, running, done, failed or cancelled.
        #[arg(long)]
        state: Option<String>,
        /// Only those of this kind, such as `live-migration`.
        #[arg(long)]
        kind: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show one task.
    Show {
        /// Its id.
        id: String,
    },
    /// Follow a task until it is over.
    Watch {
        /// Its id.
        id: String,
    },
    /// Give a task up, where that can be.
    Cancel {
        /// Its id.
        id: String,
    },
    /// Ask again for what failed.
    Retry {
        /// Its id.
        id: String,
    },
}

/// `arcus live-migrate`.
#[derive(Debug, Clone, Args)]
pub struct LiveMigrate {
    /// Where the cloud, or the lab, keeps everything.
    #[command(flatten)]
    pub home: HomeOption,
    /// Print the answers as JSON.
    #[arg(long)]
    pub json: bool,
    /// The server's id or name.
    pub server: String,
    /// The node to go to; otherwise one is chosen.
    #[arg(long)]
    pub node: Option<String>,
    /// Only say what is in the way and what the move would take.
    #[arg(long)]
    pub dry_run: bool,
    /// Never let the guest stand still for longer, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub max_blackout: Option<u32>,
    /// Give it up after so many seconds; the guest runs on where it is.
    #[arg(long, value_name = "SECONDS")]
    pub deadline: Option<u32>,
    /// Do not wait until it is over.
    #[arg(long)]
    pub no_wait: bool,
}

/// `arcus placement`.
#[derive(Debug, Clone, Args)]
pub struct Placement {
    /// Where the cloud, or the lab, keeps everything.
    #[command(flatten)]
    pub home: HomeOption,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to ask.
    #[command(subcommand)]
    pub command: PlacementCommand,
}

/// What can be asked about placement.
#[derive(Debug, Clone, Subcommand)]
pub enum PlacementCommand {
    /// Why is a server where it is; with --node, why is it not there.
    Why(PlacementWhy),
    /// Where could a server go, and why not elsewhere. Reserves nothing.
    Explain(PlacementExplain),
}

/// `arcus placement why`.
#[derive(Debug, Clone, Args)]
pub struct PlacementWhy {
    /// The server's id or name.
    pub server: String,
    /// A node on which it is not.
    #[arg(long)]
    pub node: Option<String>,
}

/// `arcus placement explain`.
#[derive(Debug, Clone, Args)]
pub struct PlacementExplain {
    /// The flavor's id or name.
    #[arg(long)]
    pub flavor: Option<String>,
    /// Virtual CPUs, instead of the flavor's.
    #[arg(long)]
    pub vcpus: Option<u64>,
    /// Memory in MiB, instead of the flavor's.
    #[arg(long)]
    pub memory: Option<u64>,
    /// Disk in GiB, instead of the flavor's.
    #[arg(long)]
    pub disk: Option<u64>,
    /// The availability zone.
    #[arg(long)]
    pub zone: Option<String>,
    /// The id of a server group.
    #[arg(long)]
    pub group: Option<String>,
    /// The id of an image.
    #[arg(long)]
    pub image: Option<String>,
    /// Only this node.
    #[arg(long)]
    pub node: Option<String>,
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

/// `arcus lab`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub struct Lab {
    /// The folder that holds everything of the lab; at most 36 bytes long.
    #[arg(long, env = "ARCUS_LAB_HOME", default_value = "/var/lib/arcus-lab", global = true)]
    pub home: PathBuf,
    /// How a new lab is made.
    #[command(flatten)]
    pub start: LabStart,
    /// What to do with the lab that is there; without a command, a new one is made.
    #[command(subcommand)]
    pub command: Option<LabCommand>,
}

/// How a lab is made.
#[derive(Debug, Clone, Args)]
pub struct LabStart {
    /// How many nodes: each is a network namespace with its own agent, underlay address, disks and identity [default: 3,
    /// or 0 with --sim].
    #[arg(long)]
    pub nodes: Option<u8>,
    /// How many simulated nodes, which run no guests but obey the same protocol.
    #[arg(long, default_value_t = 0)]
    pub sim: u32,
    /// The port of the endpoint.
    #[arg(long, default_value_t = 8774)]
    pub port: u16,
    /// Keep all servers' disks in one folder that every node sees, as on NFS.
    #[arg(long)]
    pub shared: bool,
    /// A disk image to offer to all projects under the name `arcus-tiny`.
    #[arg(long)]
    pub image: Option<PathBuf>,
    /// How guests run: `auto` takes KVM where it works, else emulation (TCG).
    #[arg(long, default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    pub accel: String,
}

/// What can be done to a lab.
#[derive(Debug, Clone, Subcommand)]
pub enum LabCommand {
    /// Show its nodes, their cables and what the server thinks of them.
    Status,
    /// End everything and leave nothing behind.
    Down,
    /// Switch a node off as a power cut does: its agent and its guests end at once.
    PowerOff {
        /// The node.
        node: String,
    },
    /// Switch a node on again.
    PowerOn {
        /// The node.
        node: String,
    },
    /// Pull a node's cable, or let two nodes no longer reach each other.
    Cut(LabEnds),
    /// Undo `cut`.
    Heal(LabEnds),
    /// Slow a node's cable; without options it is as fast as before.
    Slow(LabSlow),
    /// Run simulated nodes in this process.
    #[command(hide = true)]
    SimulatedNodes(SimulatedNodes),
}

/// The ends of a cable.
#[derive(Debug, Clone, Args)]
pub struct LabEnds {
    /// The node.
    pub node: String,
    /// The node that it does not reach, or `server`; without it, it reaches nobody.
    pub other: Option<String>,
}

/// How a cable is slowed.
#[derive(Debug, Clone, Args)]
pub struct LabSlow {
    /// The node.
    pub node: String,
    /// How long each packet takes each way, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pub delay: u32,
    /// How much passes each way, in Mbit/s; 0 is without a limit.
    #[arg(long, default_value_t = 0)]
    pub rate: u32,
    /// How many packets get lost each way, in percent.
    #[arg(long, default_value_t = 0.0)]
    pub loss: f64,
}

/// Simulated nodes of one process.
#[derive(Debug, Clone, Args)]
pub struct SimulatedNodes {
    /// Where they keep what they are.
    #[arg(long)]
    pub folder: PathBuf,
    /// How many.
    #[arg(long)]
    pub count: u32,
    /// The endpoint to join.
    #[arg(long)]
    pub join: String,
    /// The token to join with.
    #[arg(long)]
    pub token: String,
}
