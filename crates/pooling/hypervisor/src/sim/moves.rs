//! Moves of simulated guests: a machine that waits listens on loopback, and a guest that leaves says so there.

use super::{SimGuest, SimHypervisor};
use crate::{Arrival, Departure, GuestChange, GuestState, HypervisorError};
use arcus_types::agent::{MachineLayout, MigrationFigures, MigrationPlace, MigrationReport, MigrationStage};
use arcus_types::ids::{MigrationId, ServerId};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long the other end, on the same machine, may take.
const WORD_MAX: Duration = Duration::from_secs(2);

/// A simulated guest's move.
#[derive(Clone)]
pub(super) struct SimMove {
    id: MigrationId,
    key: String,
    stage: MigrationStage,
    /// Where a machine waits for its guest.
    listener: Option<Arc<TcpListener>>,
}

fn report(of: &SimMove) -> MigrationReport {
    MigrationReport { id: of.id, stage: of.stage.clone(), figures: MigrationFigures::default(), flows: Vec::new() }
}

impl SimGuest {
    pub(super) fn layout(&self) -> MachineLayout {
        MachineLayout {
            machine: "sim".into(),
            accel: "sim".into(),
            cpu_model: "sim".into(),
            nic_slots: 0,
            nics: Vec::new(),
            volume_slots: 0,
        }
    }

    /// Lets the machine wait for its guest.
    pub(super) fn listen(&mut self, server: ServerId, arrival: &Arrival) -> Result<MigrationPlace, HypervisorError> {
        let system = |source| HypervisorError::System { server, action: "listen", source };
        let listener = TcpListener::bind((arrival.address, 0)).map_err(system)?;
        listener.set_nonblocking(true).map_err(system)?;
        let port = listener.local_addr().map_err(system)?.port();
        let place = MigrationPlace { address: arrival.address, memory_port: port, disk_port: port };
        self.state = GuestState::Arriving;
        self.moving = Some(SimMove {
            id: arrival.id,
            key: arrival.key.clone(),
            stage: MigrationStage::Listening(place),
            listener: Some(Arc::new(listener)),
        });
        Ok(place)
    }

    fn look(&mut self) -> bool {
        let Some(moving) = &mut self.moving else { return false };
        let Some((mut stream, _)) = moving.listener.as_ref().and_then(|listener| listener.accept().ok()) else {
            return false;
        };
        let mut word = String::new();
        let heard = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(WORD_MAX)));
        if heard.and_then(|()| stream.read_to_string(&mut word)).is_err() || word != moving.key {
            return false;
        }
        (moving.stage, moving.listener) = (MigrationStage::Arrived, None);
        self.state = GuestState::Running;
        true
    }
}

impl SimHypervisor {
    pub(super) fn moves_send(&self, server: ServerId, wish: &Departure) -> Result<(), HypervisorError> {
        let done = self.change(server, |guest| {
            let moving = guest.moving.get_or_insert_with(|| SimMove {
                id: wish.id,
                key: wish.key.clone(),
                stage: MigrationStage::Ready,
                listener: None,
            });
            if moving.id != wish.id {
                return Err(HypervisorError::Busy { server, what: "machine" });
            }
            if !wish.switch || moving.stage != MigrationStage::Ready {
                return Ok(());
            }
            let to = SocketAddr::new(wish.to.address, wish.to.memory_port);
            let sent = TcpStream::connect_timeout(&to, WORD_MAX).and_then(|mut s| s.write_all(wish.key.as_bytes()));
            match sent {
                Ok(()) => {
                    moving.stage = MigrationStage::Moved;
                    guest.state = GuestState::Moved;
                }
                Err(error) => moving.stage = MigrationStage::Failed { message: error.to_string() },
            }
            Ok(())
        });
        self.tell(server, GuestChange::Moving);
        done
    }

    pub(super) fn moves_cancel(&self, server: ServerId) -> Result<(), HypervisorError> {
        self.change(server, |guest| {
            if let Some(moving) = guest.moving.as_mut().filter(|moving| moving.stage == MigrationStage::Ready) {
                moving.stage = MigrationStage::Cancelled;
            }
            Ok(())
        })
    }

    pub(super) fn moves_look(&self, server: ServerId) -> Option<MigrationReport> {
        let looked = self.change(server, |guest| {
            let came = guest.look();
            Ok((came, guest.moving.as_ref().map(report)))
        });
        let (came, report) = looked.ok()?;
        if came {
            self.tell(server, GuestChange::Resumed);
        }
        report
    }

    pub(super) fn moves_end(&self, server: ServerId) -> Result<(), HypervisorError> {
        self.change(server, |guest| {
            guest.moving = None;
            if guest.state == GuestState::Moved {
                guest.state = GuestState::Running;
            }
            Ok(())
        })
    }
}
