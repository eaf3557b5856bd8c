//! DHCP, router advertisements, DNS and metadata of one segment: tasks on sockets that were opened inside the segment's
//! namespace.

use super::advertise::Advertisement;
use super::namespace::Namespace;
use super::packet::{self, Wanted};
use super::segment::Guests;
use super::{dhcp, dns, metadata, names, router6};
use crate::{GuestDirectory, NetworkError};
use socket2::Socket;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The running services of a segment. They hold its namespace open.
pub struct Services {
    guests: Arc<RwLock<Arc<Guests>>>,
    told: watch::Sender<router6::Told>,
    names: Arc<RwLock<Arc<dns::Names>>>,
    tasks: [JoinHandle<io::Result<()>>; 5],
    /// Second handles of the packet sockets. The last one to be closed waits for all processors to have let go of the
    /// socket, some ten milliseconds: that shall be whoever stops the services, and not a thread that runs tasks.
    _packets: [Socket; 2],
}

/// What they know of a segment.
pub struct Known {
    /// The guests of this node.
    pub guests: Guests,
    /// What routers tell guests.
    pub told: Vec<Advertisement>,
    /// The names of the ports of all nodes.
    pub names: dns::Names,
}

impl Services {
    /// Opens the sockets and starts answering.
    pub fn start(
        namespace: &Namespace,
        known: Known,
        directory: Arc<dyn GuestDirectory>,
        runtime: &Handle,
    ) -> Result<Self, NetworkError> {
        let failed =
            |service| move |source| NetworkError::Service { place: namespace.name().to_owned(), service, source };
        let (requests, questions, names_asked, listener, listener6) = namespace.inside(|| {
            let requests = packet::open(names::BRIDGE, Wanted::UdpPort(67)).map_err(failed("DHCP"))?;
            let questions = packet::open(names::BRIDGE, Wanted::Ipv6Questions).map_err(failed("DHCPv6"))?;
            let names_asked = dns::listen().map_err(failed("DNS"))?;
            let listener = metadata::listen().map_err(failed("metadata"))?;
            let listener6 = metadata::listen6().map_err(failed("metadata over IPv6"))?;
            Ok::<_, NetworkError>((requests, questions, names_asked, listener, listener6))
        })??;
        let again = |socket: &Socket| socket.try_clone().map_err(failed("packets"));
        let packets = [again(&requests)?, again(&questions)?];
        let guests = Arc::new(RwLock::new(Arc::new(known.guests)));
        let names = Arc::new(RwLock::new(Arc::new(known.names)));
        let (sender, receiver) = watch::channel(Arc::new(known.told));
        let open = metadata::Open::default();
        let answer = |listener| {
            runtime.spawn(metadata::serve(listener, Arc::clone(&guests), Arc::clone(&directory), Arc::clone(&open)))
        };
        let tasks = [
            runtime.spawn(dhcp::serve(requests, Arc::clone(&guests))),
            runtime.spawn(dns::serve(names_asked, Arc::clone(&names))),
            runtime.spawn(router6::serve(questions, Arc::clone(&guests), receiver)),
            answer(listener),
            answer(listener6),
        ];
        Ok(Self { guests, told: sender, names, tasks, _packets: packets })
    }

    /// Tells them of changes.
    pub fn tell(&self, known: Known) {
        let Known { guests, told, names } = known;
        replace(&self.guests, guests);
        replace(&self.names, names);
        self.told.send_if_modified(|current| {
            let changed = **current != told;
            if changed {
                *current = Arc::new(told);
            }
            changed
        });
    }

    /// Whether all still answer.
    pub fn are_alive(&self) -> bool {
        !self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Ends them on a thread of its own, for a namespace that goes: nobody waits for its sockets.
    pub fn leave(self, runtime: &Handle) {
        let runtime = runtime.clone();
        std::thread::spawn(move || self.stop(&runtime));
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

/// Puts the new one in place unless it is the same.
fn replace<T: PartialEq>(current: &RwLock<Arc<T>>, new: T) {
    let mut current = current.write().unwrap_or_else(PoisonError::into_inner);
    if **current != new {
        *current = Arc::new(new);
    }
}

impl Drop for Services {
    /// Without a driver nobody answers.
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
