//! The life cycle of a server: the state that it rests in, the task that is under way, and who may ask for what when.
//!
//! ```text
//!              Started          StopSeen                 Resized
//!  Building ------------> Active <---------> Stopped    Active/Stopped ------> Resized --(confirm, revert)--> Active
//!      |                  |  ^ \____________ Paused
//!      | Failed           |  |  \___________ Suspended
//!      v          Failed  v  | Started
//!    Error <--------------+--+           any state -- Removed --> Deleted
//!
//!  Active/Stopped/Error -- RescueSeen --> Rescued -- Started --> Active
//!  Active/Stopped/Paused/Suspended -- ShelveSeen --> Shelved -- OffloadSeen --> ShelvedOffloaded -- Started --> Active
//! ```
//! Pure: the engine applies these functions to rows, tests apply them to every pair.

use std::fmt;
use std::str::FromStr;

macro_rules! texts {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every value.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The text in the database.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.text()) }
        }
        impl FromStr for $name {
            type Err = crate::Rejected;
            fn from_str(text: &str) -> Result<Self, crate::Rejected> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(crate::Rejected(format!(concat!("'{}' is no ", stringify!($name)), text))),
                }
            }
        }
    };
}

texts! {
    /// The state that a server rests in: OpenStack's `vm_state`.
    ServerState {
        /// It has never run.
        Building = "building",
        /// It runs.
        Active = "active",
        /// It is shut down; its disk is kept.
        Stopped = "stopped",
        /// It is frozen in memory.
        Paused = "paused",
        /// Its memory is saved on its node.
        Suspended = "suspended",
        /// It has a new flavor that its owner has neither confirmed nor reverted.
        Resized = "resized",
        /// It runs from a rescue image, with its own disk as the second one.
        Rescued = "rescued",
        /// Its disk is kept as an image too; its node is about to let go of it.
        Shelved = "shelved",
        /// Only an image of its disk is kept; it is on no node.
        ShelvedOffloaded = "shelved_offloaded",
        /// Something went wrong; the fault says what.
        Error = "error",
        /// It is gone; only its record is kept.
        Deleted = "deleted",
    }
}

texts! {
    /// What is being done to a server: OpenStack's `task_state`. Each ends by itself: see [`ServerTask::deadline_s`].
    ServerTask {
        /// It starts for the first time.
        Spawning = "spawning",
        /// It restarts, asked politely.
        Rebooting = "rebooting",
        /// It is reset.
        RebootingHard = "rebooting_hard",
        /// It starts.
        PoweringOn = "powering-on",
        /// It shuts down.
        PoweringOff = "powering-off",
        /// It is being frozen.
        Pausing = "pausing",
        /// It is being thawed.
        Unpausing = "unpausing",
        /// Its memory is being saved.
        Suspending = "suspending",
        /// Its memory is being loaded.
        Resuming = "resuming",
        /// Its disk is being made anew.
        Rebuilding = "rebuilding",
        /// It shuts down, and the volume that it boots from is filled with an image.
        RebuildingVolume = "rebuild_block_device_mapping",
        /// It starts after that.
        RebuildFinishing = "rebuild_spawning",
        /// It shuts down to get another flavor, or to go to another node.
        ResizeStopping = "resize_migrating",
        /// An image of its disk is being made, for the node that it goes to.
        ResizeCopying = "resize_copying",
        /// It starts with another flavor, or on another node.
        ResizeFinishing = "resize_finish",
        /// It shuts down to get its old flavor and node back.
        RevertStopping = "resize_reverting",
        /// It starts with its old flavor, on its old node.
        RevertFinishing = "resize_reverting_finish",
        /// An image is being made of its disk.
        ImageSnapshot = "image_snapshot",
        /// A backup image is being made of its disk.
        ImageBackup = "image_backup",
        /// It starts from a rescue image.
        Rescuing = "rescuing",
        /// It starts from its own disk again.
        Unrescuing = "unrescuing",
        /// It shuts down to be shelved.
        Shelving = "shelving",
        /// The image that it is shelved as is being made.
        ShelvingSnapshot = "shelving_image_uploading",
        /// Its node lets go of it.
        ShelvingOffloading = "shelving_offloading",
        /// It starts after it was shelved.
        Unshelving = "unshelving",
        /// It is told a new password.
        UpdatingPassword = "updating_password",
        /// It goes to another node while it runs.
        Migrating = "migrating",
        /// It is being removed.
        Deleting = "deleting",
    }
}

texts! {
    /// What a user can ask of a server that exists. The text is the one in refusals.
    ServerRequest {
        /// Restart politely.
        RebootSoft = "reboot",
        /// Reset.
        RebootHard = "hard reboot",
        /// Start.
        Start = "start",
        /// Shut down.
        Stop = "stop",
        /// Freeze in memory.
        Pause = "pause",
        /// Thaw.
        Unpause = "unpause",
        /// Save memory and end.
        Suspend = "suspend",
        /// Load memory and run.
        Resume = "resume",
        /// Make the disk anew.
        Rebuild = "rebuild",
        /// Get another flavor.
        Resize = "resize",
        /// Keep the other flavor.
        ConfirmResize = "confirmResize",
        /// Get the old flavor back.
        RevertResize = "revertResize",
        /// Make an image of the disk.
        CreateImage = "createImage",
        /// Make a backup image of the disk.
        CreateBackup = "createBackup",
        /// Start from a rescue image.
        Rescue = "rescue",
        /// Start from its own disk again.
        Unrescue = "unrescue",
        /// Keep only an image of it.
        Shelve = "shelve",
        /// Let its node let go of it.
        ShelveOffload = "shelveOffload",
        /// Start from that image.
        Unshelve = "unshelve",
        /// Go to another node while stopped.
        Migrate = "migrate",
        /// Go to another node while running.
        LiveMigrate = "os-migrateLive",
        /// Go to another node because its own is down.
        Evacuate = "evacuate",
        /// Come back after it was deleted.
        Restore = "restore",
        /// Set a password.
        ChangePassword = "changePassword",
        /// Get another interface.
        AttachInterface = "attach_interface",
        /// Lose an interface.
        DetachInterface = "detach_interface",
        /// Get a volume.
        AttachVolume = "attach_volume",
        /// Lose a volume.
        DetachVolume = "detach_volume",
        /// Change the metadata.
        UpdateMetadata = "update metadata",
        /// Remove it.
        Delete = "delete",
    }
}

/// What has happened to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerEvent {
    /// It runs as wished.
    Started,
    /// It has ended, on request or by itself.
    StopSeen,
    /// It is frozen in memory.
    PauseSeen,
    /// Its memory is saved.
    SuspendSeen,
    /// It runs, or rests, with another flavor that awaits its owner's word.
    Resized,
    /// It runs from its rescue image.
    RescueSeen,
    /// The image that it is shelved as is complete.
    ShelveSeen,
    /// Its node has let go of it.
    OffloadSeen,
    /// It could not be brought to the wished state, or a deadline passed.
    Failed,
    /// An operator declares it to be well.
    ResetActive,
    /// It is gone.
    Removed,
}

impl ServerEvent {
    /// Every event.
    pub const ALL: &[ServerEvent] = &[
        Self::Started,
        Self::StopSeen,
        Self::PauseSeen,
        Self::SuspendSeen,
        Self::Resized,
        Self::RescueSeen,
        Self::ShelveSeen,
        Self::OffloadSeen,
        Self::Failed,
        Self::ResetActive,
        Self::Removed,
    ];
}

/// The event cannot happen to a server in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a server that is {state}")]
pub struct Impossible {
    /// The state.
    pub state: ServerState,
    /// The event.
    pub event: ServerEvent,
}

/// The request is refused in the server's present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Cannot '{request}' instance while it is in {attribute} {value}")]
pub struct Refused {
    /// What was asked.
    pub request: ServerRequest,
    /// `vm_state` or `task_state`.
    pub attribute: &'static str,
    /// The state or the task that stands in the way.
    pub value: &'static str,
}

impl ServerState {
    /// The state after `event`, or why it cannot be.
    ///
    /// # Errors
    /// [`Impossible`]: the observation does not fit and is to be ignored.
    pub fn after(self, event: ServerEvent) -> Result<ServerState, Impossible> {
        use ServerEvent as E;
        let impossible = Err(Impossible { state: self, event });
        match (self, event) {
            (Self::Building, E::Started | E::ResetActive) => Ok(Self::Active),
            // A guest that ends before anybody has seen it run: it did start.
            (Self::Building, E::StopSeen) => Ok(Self::Stopped),
            (
                Self::Building,
                E::PauseSeen | E::SuspendSeen | E::Resized | E::RescueSeen | E::ShelveSeen | E::OffloadSeen,
            ) => impossible,
            (Self::Building, E::Failed) => Ok(Self::Error),

            (Self::Active, E::Started | E::ResetActive) => Ok(Self::Active),
            (Self::Active, E::StopSeen) => Ok(Self::Stopped),
            (Self::Active, E::PauseSeen) => Ok(Self::Paused),
            (Self::Active, E::SuspendSeen) => Ok(Self::Suspended),
            (Self::Active, E::Resized) => Ok(Self::Resized),
            (Self::Active, E::RescueSeen) => Ok(Self::Rescued),
            (Self::Active, E::ShelveSeen) => Ok(Self::Shelved),
            (Self::Active, E::OffloadSeen) => impossible,
            (Self::Active, E::Failed) => Ok(Self::Error),

            (Self::Stopped, E::Started | E::ResetActive) => Ok(Self::Active),
            (Self::Stopped, E::StopSeen) => Ok(Self::Stopped),
            (Self::Stopped, E::PauseSeen | E::SuspendSeen | E::OffloadSeen) => impossible,
            (Self::Stopped, E::Resized) => Ok(Self::Resized),
            (Self::Stopped, E::RescueSeen) => Ok(Self::Rescued),
            (Self::Stopped, E::ShelveSeen) => Ok(Self::Shelved),
            (Self::Stopped, E::Failed) => Ok(Self::Error),

            (Self::Paused, E::Started | E::ResetActive) => Ok(Self::Active),
            (Self::Paused, E::StopSeen) => Ok(Self::Stopped),
            (Self::Paused, E::PauseSeen) => Ok(Self::Paused),
            (Self::Paused, E::ShelveSeen) => Ok(Self::Shelved),
            (Self::Paused, E::SuspendSeen | E::Resized | E::RescueSeen | E::OffloadSeen) => impossible,
            (Self::Paused, E::Failed) => Ok(Self::Error),

            (Self::Suspended, E::Started | E::ResetActive) => Ok(Self::Active),
            (Self::Suspended, E::StopSeen) => Ok(Self::Stopped),
            (Self::Suspended, E::SuspendSeen) => Ok(Self::Suspended),
            (Self::Suspended, E::ShelveSeen) => Ok(Self::Shelved),
            (Self::Suspended, E::PauseSeen | E::Resized | E::RescueSeen | E::OffloadSeen) => impossible,
            (Self::Suspended, E::Failed) => Ok(Self::Error),

            (Self::Resized, E::Started | E::ResetActive) => Ok(Self::Active),
            (Self::Resized, E::StopSeen) => Ok(Self::Stopped),
            (Self::Resized, E::Resized) => Ok(Self::Resized),
            (Self::Resized, E::PauseSeen | E::SuspendSeen | E::RescueSeen | E::ShelveSeen | E::OffloadSeen) => {
                impossible
            }
            (Self::Resized, E::Failed) => Ok(Self::Error),

            (Self::Rescued, E::Started | E::ResetActive) => Ok(Self::Active),
            // A rescue system that ended by itself: the next start is from the server's own disk.
            (Self::Rescued, E::StopSeen) => Ok(Self::Stopped),
            (Self::Rescued, E::RescueSeen) => Ok(Self::Rescued),
            (Self::Rescued, E::PauseSeen | E::SuspendSeen | E::Resized | E::ShelveSeen | E::OffloadSeen) => impossible,
            (Self::Rescued, E::Failed) => Ok(Self::Error),

            (Self::Shelved, E::Started | E::ResetActive) => Ok(Self::Active),
            (Self::Shelved, E::StopSeen | E::ShelveSeen) => Ok(Self::Shelved),
            (Self::Shelved, E::OffloadSeen) => Ok(Self::ShelvedOffloaded),
            (Self::Shelved, E::PauseSeen | E::SuspendSeen | E::Resized | E::RescueSeen) => impossible,
            (Self::Shelved, E::Failed) => Ok(Self::Error),

            (Self::ShelvedOffloaded, E::Started | E::ResetActive) => Ok(Self::Active),
            (Self::ShelvedOffloaded, E::StopSeen) => Ok(Self::Stopped),
            (Self::ShelvedOffloaded, E::OffloadSeen) => Ok(Self::ShelvedOffloaded),
            (Self::ShelvedOffloaded, E::PauseSeen | E::SuspendSeen | E::Resized | E::RescueSeen | E::ShelveSeen) => {
                impossible
            }
            (Self::ShelvedOffloaded, E::Failed) => Ok(Self::Error),

            (Self::Error, E::Started | E::ResetActive) => Ok(Self::Active),
            (Self::Error, E::StopSeen) => Ok(Self::Stopped),
            (Self::Error, E::PauseSeen) => Ok(Self::Paused),
            (Self::Error, E::SuspendSeen) => Ok(Self::Suspended),
            (Self::Error, E::RescueSeen) => Ok(Self::Rescued),
            (Self::Error, E::Resized | E::Failed | E::ShelveSeen | E::OffloadSeen) => Ok(Self::Error),

            (
                Self::Building
                | Self::Active
                | Self::Stopped
                | Self::Paused
                | Self::Suspended
                | Self::Resized
                | Self::Rescued
                | Self::Shelved
                | Self::ShelvedOffloaded
                | Self::Error
                | Self::Deleted,
                E::Removed,
            ) => Ok(Self::Deleted),
            (
                Self::Deleted,
                E::Started
                | E::StopSeen
                | E::PauseSeen
                | E::SuspendSeen
                | E::Resized
                | E::RescueSeen
                | E::ShelveSeen
                | E::OffloadSeen
                | E::Failed
                | E::ResetActive,
            ) => impossible,
        }
    }

    /// The status that clients see.
    ///
    /// Source: the compute API guide, "Server concepts", and the state map of its reference implementation.
    pub const fn status(self, task: Option<ServerTask>) -> &'static str {
        use ServerTask as T;
        match self {
            Self::Building => "BUILD",
            Self::Active | Self::Stopped => match task {
                Some(T::Rebooting) => "REBOOT",
                Some(T::RebootingHard) => "HARD_REBOOT",
                Some(T::UpdatingPassword) => "PASSWORD",
                Some(T::Rebuilding | T::RebuildingVolume | T::RebuildFinishing) => "REBUILD",
                Some(T::ResizeStopping | T::ResizeCopying | T::ResizeFinishing) => "RESIZE",
                Some(T::Migrating) => "MIGRATING",
                Some(
                    T::Spawning
                    | T::PoweringOn
                    | T::PoweringOff
                    | T::Pausing
                    | T::Unpausing
                    | T::Suspending
                    | T::Resuming
                    | T::RevertStopping
                    | T::RevertFinishing
                    | T::ImageSnapshot
                    | T::ImageBackup
                    | T::Rescuing
                    | T::Unrescuing
                    | T::Shelving
                    | T::ShelvingSnapshot
                    | T::ShelvingOffloading
                    | T::Unshelving
                    | T::Deleting,
                )
                | None => {
                    if matches!(self, Self::Active) {
                        "ACTIVE"
                    } else {
                        "SHUTOFF"
                    }
                }
            },
            Self::Paused => match task {
                Some(T::RebootingHard) => "HARD_REBOOT",
                Some(T::Migrating) => "MIGRATING",
                Some(_) | None => "PAUSED",
            },
            Self::Suspended => match task {
                Some(T::RebootingHard) => "HARD_REBOOT",
                Some(_) | None => "SUSPENDED",
            },
            Self::Resized => match task {
                Some(T::RevertStopping | T::RevertFinishing) => "REVERT_RESIZE",
                Some(_) | None => "VERIFY_RESIZE",
            },
            Self::Rescued => "RESCUE",
            Self::Shelved => "SHELVED",
            Self::ShelvedOffloaded => "SHELVED_OFFLOADED",
            Self::Error => match task {
                Some(T::Rebuilding | T::RebuildingVolume | T::RebuildFinishing) => "REBUILD",
                Some(T::RebootingHard) => "HARD_REBOOT",
                Some(_) | None => "ERROR",
            },
            Self::Deleted => "DELETED",
        }
    }
}

impl ServerTask {
    /// The spelling of `task_state` that clients know.
    pub const fn task_state(self) -> &'static str {
        match self {
            Self::ResizeCopying => "resize_migrating",
            Self::RevertFinishing => "resize_reverting",
            Self::Spawning
            | Self::Rebooting
            | Self::RebootingHard
            | Self::PoweringOn
            | Self::PoweringOff
            | Self::Pausing
            | Self::Unpausing
            | Self::Suspending
            | Self::Resuming
            | Self::Rebuilding
            | Self::RebuildingVolume
            | Self::RebuildFinishing
            | Self::ResizeStopping
            | Self::ResizeFinishing
            | Self::RevertStopping
            | Self::ImageSnapshot
            | Self::ImageBackup
            | Self::Rescuing
            | Self::Unrescuing
            | Self::Shelving
            | Self::ShelvingSnapshot
            | Self::ShelvingOffloading
            | Self::Unshelving
            | Self::UpdatingPassword
            | Self::Migrating
            | Self::Deleting => self.text(),
        }
    }

    /// How long the task may take, in seconds; then the server goes to ERROR, or, when it is being deleted, is
    /// released without its node. Long ones move whole images.
    pub const fn deadline_s(self) -> i64 {
        match self {
            Self::Spawning
            | Self::Rebuilding
            | Self::RebuildFinishing
            | Self::ResizeFinishing
            | Self::RevertFinishing
            | Self::Rescuing
            | Self::Unshelving => 30 * 60,
            // The volume gives up first, and says why.
            Self::RebuildingVolume => 40 * 60,
            Self::Suspending | Self::Resuming => 15 * 60,
            Self::ImageSnapshot
            | Self::ImageBackup
            | Self::ShelvingSnapshot
            | Self::ResizeCopying
            | Self::Migrating => 6 * 60 * 60,
            Self::Rebooting
            | Self::RebootingHard
            | Self::PoweringOn
            | Self::PoweringOff
            | Self::Pausing
            | Self::Unpausing
            | Self::ResizeStopping
            | Self::RevertStopping
            | Self::Unrescuing
            | Self::Shelving
            | Self::ShelvingOffloading
            | Self::UpdatingPassword
            | Self::Deleting => 10 * 60,
        }
    }
}

impl ServerRequest {
    /// Whether this may be asked of a server in this state.
    ///
    /// # Errors
    /// [`Refused`], in the words that clients look for.
    pub fn admit(self, state: ServerState, task: Option<ServerTask>) -> Result<(), Refused> {
        if !self.states().contains(&state) {
            let request = if self == Self::RebootHard { Self::RebootSoft } else { self };
            return Err(Refused { request, attribute: "vm_state", value: state.text() });
        }
        match task {
            None => Ok(()),
            Some(task) if self.tolerates(task) => Ok(()),
            Some(task) => {
                let request = if self == Self::RebootHard { Self::RebootSoft } else { self };
                Err(Refused { request, attribute: "task_state", value: task.task_state() })
            }
        }
    }

    const fn states(self) -> &'static [ServerState] {
        use ServerState as S;
        match self {
            Self::RebootSoft | Self::Pause | Self::Suspend | Self::ChangePassword => &[S::Active],
            Self::RebootHard => &[S::Active, S::Stopped, S::Paused, S::Suspended, S::Error],
            Self::Start => &[S::Stopped],
            Self::Stop => &[S::Active, S::Error],
            Self::Unpause => &[S::Paused],
            Self::Resume => &[S::Suspended],
            Self::Rebuild => &[S::Active, S::Stopped, S::Error],
            Self::Resize => &[S::Active, S::Stopped],
            Self::ConfirmResize | Self::RevertResize => &[S::Resized],
            Self::CreateImage | Self::CreateBackup | Self::Shelve => &[S::Active, S::Stopped, S::Paused, S::Suspended],
            Self::Rescue | Self::Evacuate => &[S::Active, S::Stopped, S::Error],
            Self::Unrescue => &[S::Rescued],
            Self::ShelveOffload => &[S::Shelved],
            Self::Unshelve => &[S::Shelved, S::ShelvedOffloaded],
            Self::Migrate => &[S::Active, S::Stopped],
            Self::LiveMigrate => &[S::Active, S::Paused],
            // What is deleted is gone at once: there is never anything to restore.
            Self::Restore => &[],
            Self::AttachInterface | Self::DetachInterface => &[S::Active, S::Stopped, S::Paused],
            Self::AttachVolume | Self::DetachVolume => {
                &[S::Active, S::Stopped, S::Paused, S::Resized, S::Shelved, S::ShelvedOffloaded]
            }
            Self::UpdateMetadata => &[S::Active, S::Stopped, S::Paused, S::Suspended],
            Self::Delete => S::ALL,
        }
    }

    /// Whether the request may replace a task that is under way.
    const fn tolerates(self, task: ServerTask) -> bool {
        match self {
            Self::Delete => true,
            Self::RebootHard => matches!(task, ServerTask::Rebooting | ServerTask::RebootingHard),
            Self::RebootSoft => matches!(task, ServerTask::Rebooting),
            Self::Start
            | Self::Stop
            | Self::Pause
            | Self::Unpause
            | Self::Suspend
            | Self::Resume
            | Self::Rebuild
            | Self::Resize
            | Self::ConfirmResize
            | Self::RevertResize
            | Self::CreateImage
            | Self::CreateBackup
            | Self::Rescue
            | Self::Unrescue
            | Self::Shelve
            | Self::ShelveOffload
            | Self::Unshelve
            | Self::Migrate
            | Self::LiveMigrate
            | Self::Evacuate
            | Self::Restore
            | Self::ChangePassword
            | Self::AttachInterface
            | Self::DetachInterface
            | Self::AttachVolume
            | Self::DetachVolume
            | Self::UpdateMetadata => false,
        }
    }
}

/// Whether a guest is seen to run: OpenStack's `power_state`, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerState {
    /// Nothing is known.
    NoState = 0,
    /// It runs.
    Running = 1,
    /// It is frozen in memory.
    Paused = 3,
    /// It is shut down.
    Shutdown = 4,
    /// It died.
    Crashed = 6,
    /// Its memory is saved.
    Suspended = 7,
}

impl PowerState {
    /// The number on the wire.
    pub const fn number(self) -> i64 {
        self as i64
    }

    /// The state with this number.
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::NoState),
            1 => Some(Self::Running),
            3 => Some(Self::Paused),
            4 => Some(Self::Shutdown),
            6 => Some(Self::Crashed),
            7 => Some(Self::Suspended),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deleted_stays_deleted_and_everything_can_be() {
        for &state in ServerState::ALL {
            assert_eq!(state.after(ServerEvent::Removed), Ok(ServerState::Deleted));
        }
        for &event in ServerEvent::ALL {
            if event != ServerEvent::Removed {
                assert!(ServerState::Deleted.after(event).is_err());
            }
        }
    }

    #[test]
    fn every_live_state_can_fail_and_every_error_can_be_reset() {
        for &state in ServerState::ALL {
            if state != ServerState::Deleted {
                assert_eq!(state.after(ServerEvent::Failed), Ok(ServerState::Error));
                assert_eq!(state.after(ServerEvent::ResetActive), Ok(ServerState::Active));
            }
        }
    }

    #[test]
    fn delete_is_never_refused() {
        for &state in ServerState::ALL {
            for &task in ServerTask::ALL {
                assert_eq!(ServerRequest::Delete.admit(state, Some(task)), Ok(()));
            }
        }
    }

    #[test]
    fn refusals_use_the_words_that_clients_look_for() {
        let refused = ServerRequest::RebootSoft.admit(ServerState::Stopped, None).unwrap_err();
        assert_eq!(refused.to_string(), "Cannot 'reboot' instance while it is in vm_state stopped");
        let refused = ServerRequest::Stop.admit(ServerState::Active, Some(ServerTask::Rebooting)).unwrap_err();
        assert_eq!(refused.to_string(), "Cannot 'stop' instance while it is in task_state rebooting");
    }

    #[test]
    fn texts_round_trip() {
        for &task in ServerTask::ALL {
            assert_eq!(task.text().parse::<ServerTask>().unwrap(), task);
            assert!(task.deadline_s() > 0);
        }
        for &state in ServerState::ALL {
            assert_eq!(state.text().parse::<ServerState>().unwrap(), state);
        }
    }

    #[test]
    fn statuses_are_those_of_the_api_guide() {
        assert_eq!(ServerState::Building.status(Some(ServerTask::Spawning)), "BUILD");
        assert_eq!(ServerState::Active.status(None), "ACTIVE");
        assert_eq!(ServerState::Active.status(Some(ServerTask::PoweringOff)), "ACTIVE");
        assert_eq!(ServerState::Stopped.status(None), "SHUTOFF");
        assert_eq!(ServerState::Active.status(Some(ServerTask::Rebooting)), "REBOOT");
        assert_eq!(ServerState::Resized.status(None), "VERIFY_RESIZE");
        assert_eq!(ServerState::Resized.status(Some(ServerTask::RevertFinishing)), "REVERT_RESIZE");
    }
}
