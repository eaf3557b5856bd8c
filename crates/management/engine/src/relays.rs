//! Byte streams between clients and guests' devices. The server cannot call a node, so it puts the wish for a stream into
//! the node's spec; the node dials in, and both ends are joined here.
//!
//! ```text
//! client --ws--> console_connect --+             +-- relay_accept <--ws-- node
//!                                  +== duplex ===+
//! ```
//! Wishes and tickets live in memory: they are worth nothing after a restart, and clients ask again.

use crate::{Engine, EngineError};
use arcus_types::agent::{RelayKind, RelaySpec};
use arcus_types::policy::{Target, arcus, authorize};
use arcus_types::{Actor, NodeId, OpCtx, RelayId, ServerId};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::DuplexStream;
use tokio::sync::oneshot;

/// How long a client waits for a node to dial in.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// How long a console ticket is good for.
const TICKET_LIFETIME: Duration = Duration::from_secs(600);
/// Bytes in flight each way.
const RELAY_BUFFER_BYTES: usize = 64 << 10;
/// The most relays that wait at once, and the most tickets: beyond that, clients are told to try later.
const WAITING_MAX: usize = 1000;

/// Relays that wait for their node, and tickets that wait for their client.
#[derive(Default)]
pub struct Relays {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<RelayId, (NodeId, RelaySpec, oneshot::Sender<DuplexStream>)>,
    tickets: HashMap<String, Ticket>,
}

struct Ticket {
    node: NodeId,
    server: ServerId,
    kind: RelayKind,
    expires: Instant,
}

/// The right to open one console once.
#[derive(Clone)]
pub struct ConsoleTicket {
    /// The secret: 256 random bits in hexadecimal.
    pub token: String,
    /// Where to connect, from the root of the endpoint.
    pub path: String,
}

impl Relays {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wishes that a node has not answered yet.
    pub(crate) fn of_node(&self, node: NodeId) -> Vec<RelaySpec> {
        self.lock().waiting.values().filter(|(n, ..)| *n == node).map(|(_, spec, _)| *spec).collect()
    }
}

/// Takes a wish back when the client stops waiting.
struct Withdraw<'a>(&'a Relays, RelayId);

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting.remove(&self.1);
    }
}

impl Engine {
    /// A byte stream to a device of a guest. The caller has authorised it.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if the node does not dial in within ten seconds.
    pub async fn relay_open(
        &self,
        node: NodeId,
        server: ServerId,
        kind: RelayKind,
    ) -> Result<DuplexStream, EngineError> {
        let id = RelayId::random();
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.relays().lock();
            if state.waiting.len() >= WAITING_MAX {
                return Err(EngineError::Unavailable("Too many consoles are being opened; try again.".into()));
            }
            state.waiting.insert(id, (node, RelaySpec { id, server_id: server, kind }, sender));
        }
        let _withdraw = Withdraw(self.relays(), id);
        self.wake().node(node);
        match tokio::time::timeout(DIAL_DEADLINE, receiver).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(_)) | Err(_) => Err(EngineError::Unavailable(
                "The node that runs this server does not answer; its console cannot be reached now.".into(),
            )),
        }
    }

    /// The node's end of a stream that it was told to open; `None` if nobody waits for it any more.
    ///
    /// # Errors
    /// [`EngineError::Denied`] unless the caller is the node that was told to.
    pub fn relay_accept(&self, ctx: &OpCtx, id: RelayId) -> Result<Option<DuplexStream>, EngineError> {
        authorize(ctx, arcus::NODE_RELAY, &Target::default())?;
        let Actor::Node { node_id } = ctx.actor else { return Ok(None) };
        let mut state = self.relays().lock();
        if state.waiting.get(&id).is_none_or(|(node, ..)| *node != node_id) {
            return Ok(None);
        }
        let Some((_, _, sender)) = state.waiting.remove(&id) else { return Ok(None) };
        let (ours, theirs) = tokio::io::duplex(RELAY_BUFFER_BYTES);
        Ok(sender.send(theirs).is_ok().then_some(ours))
    }

    /// A ticket for a console of a server. The caller has authorised it.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if too many tickets wait for their client.
    pub fn console_ticket(
        &self,
        node: NodeId,
        server: ServerId,
        kind: RelayKind,
    ) -> Result<ConsoleTicket, EngineError> {
        let token = hex::encode(rand::random::<[u8; 32]>());
        let now = Instant::now();
        let mut state = self.relays().lock();
        if state.tickets.len() >= WAITING_MAX {
            state.tickets.retain(|_, ticket| ticket.expires > now);
        }
        if state.tickets.len() >= WAITING_MAX {
            return Err(EngineError::Unavailable("Too many consoles wait to be opened; try again later.".into()));
        }
        state.tickets.insert(token.clone(), Ticket { node, server, kind, expires: now + TICKET_LIFETIME });
        let page = match kind {
            RelayKind::Serial | RelayKind::ConsoleLog { .. } | RelayKind::Appraisal => "serial",
            RelayKind::Vnc => "vnc",
        };
        Ok(ConsoleTicket { path: format!("/console/{page}?token={token}"), token })
    }

    /// What a ticket is for; it stays good.
    pub(crate) fn console_peek(&self, token: &str) -> Option<(ServerId, NodeId, RelayKind)> {
        let state = self.relays().lock();
        let ticket = state.tickets.get(token).filter(|t| t.expires > Instant::now())?;
        Some((ticket.server, ticket.node, ticket.kind))
    }

    /// Opens the console that a ticket is for; the ticket is used up.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for a ticket that is unknown, used or too old.
    pub async fn console_connect(&self, token: &str) -> Result<DuplexStream, EngineError> {
        let ticket = self.relays().lock().tickets.remove(token);
        let ticket = ticket.filter(|t| t.expires > Instant::now()).ok_or_else(|| {
            EngineError::not_found(
                "ConsoleNotFound",
                "Console",
                "of this token; it is used up or too old: ask for a new one, it",
            )
        })?;
        self.relay_open(ticket.node, ticket.server, ticket.kind).await
    }
}
