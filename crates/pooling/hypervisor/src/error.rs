//! What can go wrong with a guest, split by what the caller will do about it.

use arcus_types::ids::ServerId;
use std::path::PathBuf;

/// Why a hypervisor could not do what was asked. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// The node cannot run guests until someone installs the program.
    #[error("'{program}' was not found; install the package {package}")]
    ProgramMissing {
        /// What was looked for.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The node cannot run guests as it is configured.
    #[error("this node cannot run guests: {reason}")]
    Unsuitable {
        /// What is wrong and what to do.
        reason: String,
    },
    /// The launch asks for what no machine here can be.
    #[error("server {server} cannot be started as asked: {reason}")]
    LaunchRefused {
        /// The server.
        server: ServerId,
        /// What is wrong with the launch.
        reason: String,
    },
    /// The guest's process did not come up.
    #[error("server {server} did not start: {reason}")]
    StartFailed {
        /// The server.
        server: ServerId,
        /// What QEMU said, with a hint where we know one.
        reason: String,
        /// Whether the same launch may work later, such as after memory has become free.
        transient: bool,
    },
    /// A process of this server lives; the caller must end it first.
    #[error("server {server} already runs on this node")]
    AlreadyRuns {
        /// The server.
        server: ServerId,
    },
    /// There is no guest to do this to.
    #[error("server {server} does not run on this node")]
    NotRunning {
        /// The server.
        server: ServerId,
    },
    /// Someone else uses the device.
    #[error("the {what} of server {server} is in use by another client")]
    Busy {
        /// The server.
        server: ServerId,
        /// Which device.
        what: &'static str,
    },
    /// The guest has no agent, or the agent does not answer or refuses.
    #[error("the guest agent of server {server} did not do it: {reason}")]
    NoGuestAgent {
        /// The server.
        server: ServerId,
        /// What the agent said, or that it is silent.
        reason: String,
    },
    /// QEMU refused a command.
    #[error("QEMU refused '{command}' for server {server}: {message}")]
    Refused {
        /// The server.
        server: ServerId,
        /// The QMP command.
        command: &'static str,
        /// QEMU's words.
        message: String,
    },
    /// QEMU's control socket is silent or gone; the process may live.
    #[error("QEMU of server {server} did not answer '{command}' within {limit_ms} ms")]
    Silent {
        /// The server.
        server: ServerId,
        /// The QMP command.
        command: &'static str,
        /// How long we waited, in milliseconds.
        limit_ms: u64,
    },
    /// The guest's process cannot be ended.
    #[error("process {pid} of server {server} does not end; it may hang in the node's storage")]
    WillNotEnd {
        /// The server.
        server: ServerId,
        /// The process.
        pid: u32,
    },
    /// A file of ours could not be read or written.
    #[error("could not {action} {}", path.display())]
    File {
        /// What was tried, such as `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused something that concerns a guest.
    #[error("could not {action} for server {server}")]
    System {
        /// The server.
        server: ServerId,
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The simulator was told to fail here.
    #[error("simulated fault in '{operation}' of server {server}")]
    Simulated {
        /// The server.
        server: ServerId,
        /// The method.
        operation: &'static str,
        /// Whether it passes.
        transient: bool,
    },
}

/// An error and all that caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl HypervisorError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Silent { .. } | Self::WillNotEnd { .. } | Self::NoGuestAgent { .. } => true,
            Self::StartFailed { transient, .. } | Self::Simulated { transient, .. } => *transient,
            Self::File { source, .. } | Self::System { source, .. } => matches!(
                source.raw_os_error(),
                Some(
                    nix::libc::ENOSPC
                        | nix::libc::EAGAIN
                        | nix::libc::ENOMEM
                        | nix::libc::EMFILE
                        | nix::libc::ENFILE
                        | nix::libc::EBUSY
                        | nix::libc::EINTR
                )
            ),
            Self::ProgramMissing { .. }
            | Self::Unsuitable { .. }
            | Self::LaunchRefused { .. }
            | Self::AlreadyRuns { .. }
            | Self::NotRunning { .. }
            | Self::Refused { .. } => false,
        }
    }
}
