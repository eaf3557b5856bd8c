//! DHCP and metadata of one segment: tasks on sockets that were opened inside the segment's namespace.

use super::namespace::Namespace;
use super::packet::{self, Wanted};
use super::segment::Guests;
use super::{dhcp, metadata, names};
use crate::{GuestDirectory, NetworkError};
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// The running services of a segment. They hold its namespace open.
pub struct Services {
    guests: Arc<RwLock<Arc<Guests>>>,
    tasks: [JoinHandle<io::Result<()>>; 2],
}

impl Services {
    /// Opens the sockets and starts answering.
    pub fn start(
        namespace: &Namespace,
        guests: Guests,
        directory: Arc<dyn GuestDirectory>,
        runtime: &Handle,
    ) -> Result<Self, NetworkError> {
        let failed =
            |service| move |source| NetworkError::Service { place: namespace.name().to_owned(), service, source };
        let (requests, listener) = namespace.inside(|| {
            let requests = packet::open(names::BRIDGE, Wanted::UdpPort(67)).map_err(failed("DHCP"))?;
            let listener = metadata::listen().map_err(failed("metadata"))?;
            Ok::<_, NetworkError>((requests, listener))
        })??;
        let guests = Arc::new(RwLock::new(Arc::new(guests)));
        let tasks = [
            runtime.spawn(dhcp::serve(requests, Arc::clone(&guests))),
            runtime.spawn(metadata::serve(listener, Arc::clone(&guests), directory)),
        ];
        Ok(Self { guests, tasks })
    }

    /// Tells them of changed guests.
    pub fn tell(&self, guests: Guests) {
        let mut current = self.guests.write().unwrap_or_else(PoisonError::into_inner);
        if **current != guests {
            *current = Arc::new(guests);
        }
    }

    /// Whether both still answer.
    pub fn are_alive(&self) -> bool {
        !self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Ends them and waits until their sockets are closed. Not to be called from a task.
    pub fn stop(mut self, runtime: &Handle) {
        for task in &mut self.tasks {
            task.abort();
            if let Ok(Err(error)) = runtime.block_on(task) {
                tracing::warn!(%error, "a service for guests had ended early");
            }
        }
    }
}

impl Drop for Services {
    /// Without a driver nobody answers.
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
