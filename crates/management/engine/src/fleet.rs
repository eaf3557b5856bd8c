//! The inventory in memory: every resource provider with what it has and what is claimed of it. Servers are placed from
//! it and the placement API answers from it, so no request reads a table of nodes.
//!
//! When nodes were heard of is no change of a provider: that comes from memory ([`arcus_store::Presence`]).
//!
//! It only proposes: the database decides, by conditional claims. Transactions of this process say which providers they
//! have changed, and these are read again before the next look; where the database is shared, all is read again once it
//! is older than `SHARED_AGE_MAX`.

use crate::{Engine, EngineError};
use arcus_placement::candidates::{Provider, Stock};
use arcus_placement::{Amounts, Around, Candidate, Decision, Needs, Verdict, decide, image_mark, judge};
use arcus_store::{Inventory, Node};
use arcus_types::{NodeId, ProviderId, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How old what is known may be where other processes write, too.
const SHARED_AGE_MAX: Duration = Duration::from_secs(1);
/// From so many changed providers on, all are read.
const REREAD_MAX: usize = 256;

/// What every node can do, in order: what the drivers bring along. Source of the names: os-traits.
const NODE_TRAITS: &[&str] = &[
    "COMPUTE_DEVICE_TAGGING",
    "COMPUTE_GRAPHICS_MODEL_VGA",
    "COMPUTE_IMAGE_TYPE_ISO",
    "COMPUTE_IMAGE_TYPE_QCOW2",
    "COMPUTE_IMAGE_TYPE_RAW",
    "COMPUTE_IMAGE_TYPE_VMDK",
    "COMPUTE_NET_ATTACH_INTERFACE",
    "COMPUTE_NET_VIF_MODEL_VIRTIO",
    "COMPUTE_NODE",
    "COMPUTE_STORAGE_BUS_VIRTIO",
    "HW_ARCH_X86_64",
];
/// A node that takes no new servers says so.
const DISABLED_TRAIT: &str = "COMPUTE_STATUS_DISABLED";

/// One provider of the fleet.
#[derive(Debug, Clone)]
pub struct Member {
    /// As the decision sees it.
    pub view: Arc<Provider>,
    /// Its name.
    pub name: String,
    /// Rises whenever something is said about it.
    pub generation: u64,
    /// What it has, in full.
    pub inventories: Vec<Inventory>,
    /// The node, if it is one.
    pub node: Option<Node>,
    /// When its record last changed.
    pub updated_at: Timestamp,
}

/// The providers, in the order in which they were made.
#[derive(Default)]
struct Members {
    list: Vec<Arc<Member>>,
    at: HashMap<ProviderId, usize>,
    /// By root: the rest of its tree.
    below: HashMap<ProviderId, Vec<usize>>,
    /// The nodes as a decision about a server looks at them: one piece of memory, gone through in one go.
    candidates: Vec<Candidate>,
    candidate_at: HashMap<NodeId, usize>,
    words: Words,
}

/// Zones and lists of images that nodes have alike are kept once.
#[derive(Default)]
struct Words {
    zones: HashSet<Arc<str>>,
    images: HashSet<Arc<[u64]>>,
}

/// From so many on, they are forgotten: what nodes still say comes back.
const WORDS_MAX: usize = 4_096;

impl Words {
    fn zone(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.zones.get(name) {
            return Arc::clone(known);
        }
        if self.zones.len() >= WORDS_MAX {
            self.zones.clear();
        }
        let new: Arc<str> = name.into();
        self.zones.insert(Arc::clone(&new));
        new
    }

    fn images(&mut self, sha256s: &[String]) -> Arc<[u64]> {
        let marks: Vec<u64> = sha256s.iter().filter_map(|sha256| image_mark(sha256)).collect();
        if let Some(known) = self.images.get(marks.as_slice()) {
            return Arc::clone(known);
        }
        if self.images.len() >= WORDS_MAX {
            self.images.clear();
        }
        let new: Arc<[u64]> = marks.into();
        self.images.insert(Arc::clone(&new));
        new
    }

    /// A node as a decision sees it; `down_after_s` without a word of it, it counts as down.
    fn candidate(&mut self, node: &Node, down_after_s: u64) -> Candidate {
        Candidate {
            node_id: node.id,
            cap: Amounts { vcpus: node.vcpus_cap, memory_mib: node.memory_mib_cap, disk_gib: node.disk_gib_cap },
            used: Amounts { vcpus: node.vcpus_used, memory_mib: node.memory_mib_used, disk_gib: node.disk_gib_used },
            alive_until: alive_until(node, down_after_s),
            closed: closed(node).map(Into::into),
            zone: self.zone(&node.availability_zone),
            filling: node.filling,
            images: self.images(&node.facts.cached_images),
            name: node.name.as_str().into(),
        }
    }
}

/// Until when a node counts as up if no more is heard of it.
fn alive_until(node: &Node, down_after_s: u64) -> Timestamp {
    let limit = i64::try_from(down_after_s).unwrap_or(i64::MAX);
    if node.state.is_down() { Timestamp(i64::MIN) } else { node.seen_at.plus_seconds(limit) }
}

/// Why a node takes no new servers, if so.
fn closed(node: &Node) -> Option<String> {
    if !node.enabled {
        return Some(node.disabled_reason.clone().unwrap_or_default());
    }
    let why = || node.state_reason.clone().unwrap_or_else(|| node.state.to_string());
    (!node.state.takes_servers()).then(why)
}

/// The inventory in memory.
#[derive(Default)]
pub struct Fleet {
    members: RwLock<Members>,
    /// When all of it was last read; held by who reads.
    read_at: tokio::sync::Mutex<Option<Instant>>,
}

/// A class with quantities as a node has them.
fn of_node(class: &str, total: u64, percent: u64, cap: u64, used: u64) -> Inventory {
    Inventory {
        class: class.to_owned(),
        total,
        reserved: 0,
        min_unit: 1,
        max_unit: total,
        step_size: 1,
        ratio_millionths: percent.saturating_mul(10_000),
        cap,
        used,
    }
}

pub(crate) fn member(p: arcus_store::Provider) -> Member {
    let mut inventories = Vec::with_capacity(p.inventories.len() + 3);
    let mut traits = p.traits;
    if let Some(node) = &p.node {
        let facts = &node.facts;
        let ratios = &node.overcommit;
        for (class, total, percent, cap, used) in [
            ("DISK_GB", facts.disk_gib, ratios.disk_percent, node.disk_gib_cap, node.disk_gib_used),
            ("MEMORY_MB", facts.memory_mib, ratios.memory_percent, node.memory_mib_cap, node.memory_mib_used),
            ("VCPU", u64::from(facts.vcpus), ratios.vcpus_percent, node.vcpus_cap, node.vcpus_used),
        ] {
            if total > 0 {
                inventories.push(of_node(class, total, percent, cap, used));
            }
        }
        traits.extend(NODE_TRAITS.iter().map(|t| (*t).to_owned()));
        if !node.enabled {
            traits.push(DISABLED_TRAIT.to_owned());
        }
        traits.sort_unstable();
        traits.dedup();
    }
    inventories.extend(p.inventories);
    let stock = |i: &Inventory| Stock {
        class: i.class.clone(),
        cap: i.cap,
        used: i.used,
        min_unit: i.min_unit,
        max_unit: i.max_unit,
        step_size: i.step_size,
    };
    let view = Provider {
        id: p.id,
        parent_id: p.parent_id,
        root_id: p.root_id,
        stocks: inventories.iter().map(stock).collect(),
        traits,
        aggregates: p.aggregates,
    };
    Member {
        view: Arc::new(view),
        name: p.name,
        generation: p.generation,
        inventories,
        node: p.node,
        updated_at: p.updated_at,
    }
}

impl Member {
    /// Whether a trait is one that the provider has by being a node, which nobody gives or takes.
    pub fn has_by_nature(&self, word: &str) -> bool {
        self.node.is_some() && (NODE_TRAITS.contains(&word) || word == DISABLED_TRAIT)
    }

    /// Whether a class is one that the node itself tells of.
    pub fn tells_itself(&self, class: &str) -> bool {
        self.node.is_some() && matches!(class, "VCPU" | "MEMORY_MB" | "DISK_GB")
    }
}

impl Members {
    fn of(list: Vec<Arc<Member>>, down_after_s: u64) -> Self {
        let at = list.iter().enumerate().map(|(at, m)| (m.view.id, at)).collect();
        let mut below: HashMap<ProviderId, Vec<usize>> = HashMap::new();
        for (at, m) in list.iter().enumerate() {
            if m.view.root_id != m.view.id {
                below.entry(m.view.root_id).or_default().push(at);
            }
        }
        let mut words = Words::default();
        let nodes = list.iter().filter_map(|m| m.node.as_ref());
        let candidates: Vec<Candidate> = nodes.map(|node| words.candidate(node, down_after_s)).collect();
        let candidate_at = candidates.iter().enumerate().map(|(at, c)| (c.node_id, at)).collect();
        Self { list, at, below, candidates, candidate_at, words }
    }

    /// Takes in when nodes were heard of: nothing else of them has changed, so nothing is read.
    fn heard(&mut self, news: HashMap<NodeId, Timestamp>, down_after_s: u64) {
        for (id, at) in news {
            let found = self.at.get(&id.into()).and_then(|at| self.list.get_mut(*at));
            let Some(node) = found.map(Arc::make_mut).and_then(|member| member.node.as_mut()) else { continue };
            node.seen_at = at;
            if let Some(candidate) = self.candidate_at.get(&id).and_then(|at| self.candidates.get_mut(*at)) {
                candidate.alive_until = alive_until(node, down_after_s);
            }
        }
    }

    /// Puts what was read again in its place.
    fn replace(&mut self, read: Vec<arcus_store::Provider>, down_after_s: u64) {
        let mut reshaped = false;
        for one in read {
            let new = Arc::new(member(one));
            if let Some(node) = &new.node
                && let Some(candidate) = self.candidate_at.get(&node.id).and_then(|at| self.candidates.get_mut(*at))
            {
                *candidate = self.words.candidate(node, down_after_s);
            }
            match self.at.get(&new.view.id).and_then(|at| self.list.get_mut(*at)) {
                Some(old) => {
                    reshaped |= old.view.root_id != new.view.root_id;
                    *old = new;
                }
                None => {
                    reshaped = true;
                    self.at.insert(new.view.id, self.list.len());
                    self.list.push(new);
                }
            }
        }
        if reshaped {
            *self = Self::of(std::mem::take(&mut self.list), down_after_s);
        }
    }
}

impl Engine {
    /// Brings what is known of the providers up to date. Not to be called within a transaction: it reads on a connection
    /// of its own, and all of them may be held by transactions that wait here.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub(crate) async fn fleet_refresh(&self) -> Result<(), EngineError> {
        let (fleet, store) = (self.fleet(), self.store());
        let mut read_at = fleet.read_at.lock().await;
        let news = store.presence().take_news();
        if !news.is_empty() {
            let mut members = fleet.members.write().unwrap_or_else(PoisonError::into_inner);
            members.heard(news, self.config().node_down_after_s);
        }
        let fresh = read_at.is_some_and(|at| !store.is_postgres() || at.elapsed() < SHARED_AGE_MAX);
        let changed = store.provider_changes().take();
        if fresh && changed.is_empty() {
            return Ok(());
        }
        let some = fresh && changed.len() <= REREAD_MAX;
        let ids: Vec<ProviderId> = changed.iter().copied().collect();
        let (now, down_after_s) = (Instant::now(), self.config().node_down_after_s);
        let read = match store.provider_list(some.then_some(ids.as_slice())).await {
            Ok(read) => read,
            Err(error) => {
                store.provider_changes().add(changed);
                return Err(error.into());
            }
        };
        let mut members = fleet.members.write().unwrap_or_else(PoisonError::into_inner);
        if some {
            let gone: Vec<ProviderId> =
                changed.iter().filter(|id| !read.iter().any(|p| p.id == **id)).copied().collect();
            if !gone.is_empty() {
                members.list.retain(|m| !gone.contains(&m.view.id));
                *members = Members::of(std::mem::take(&mut members.list), down_after_s);
            }
            members.replace(read, down_after_s);
        } else {
            *members = Members::of(read.into_iter().map(|p| Arc::new(member(p))).collect(), down_after_s);
            *read_at = Some(now);
        }
        Ok(())
    }

    /// The members of the fleet for which `pick` answers something, in order, at most `limit` of them.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub(crate) async fn fleet_pick<T>(
        &self,
        limit: usize,
        mut pick: impl FnMut(&Arc<Member>) -> Option<T>,
    ) -> Result<Vec<T>, EngineError> {
        self.fleet_refresh().await?;
        Ok(self.fleet_known(limit, &mut pick))
    }

    /// The same of what was last read: for transactions, which must not wait for a second connection. Refresh before.
    pub(crate) fn fleet_known<T>(&self, limit: usize, pick: impl FnMut(&Arc<Member>) -> Option<T>) -> Vec<T> {
        let members = self.fleet().members.read().unwrap_or_else(PoisonError::into_inner);
        members.list.iter().filter_map(pick).take(limit).collect()
    }

    /// Decides where a server could go, of what was last read: refresh before the transaction begins.
    pub(crate) fn fleet_decide(&self, needs: &Needs, around: &Around) -> Decision {
        let members = self.fleet().members.read().unwrap_or_else(PoisonError::into_inner);
        decide(needs, around, Timestamp::now(), &members.candidates)
    }

    /// Judges one node by the same measure; `None` if there is none of that name. Refresh before.
    pub(crate) fn fleet_judge(&self, needs: &Needs, around: &Around, name: &str) -> Option<Verdict> {
        let members = self.fleet().members.read().unwrap_or_else(PoisonError::into_inner);
        let candidate = members.candidates.iter().find(|c| *c.name == *name)?;
        Some(judge(needs, around, Timestamp::now(), candidate))
    }

    /// Goes over the trees of the fleet, the root first in each, until `visit` has had enough and answers `false`.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub(crate) async fn fleet_trees(&self, mut visit: impl FnMut(&[Arc<Provider>]) -> bool) -> Result<(), EngineError> {
        self.fleet_refresh().await?;
        let members = self.fleet().members.read().unwrap_or_else(PoisonError::into_inner);
        let mut whole = Vec::new();
        for root in members.list.iter().filter(|m| m.view.root_id == m.view.id) {
            let go_on = match members.below.get(&root.view.id) {
                None => visit(std::slice::from_ref(&root.view)),
                Some(below) => {
                    whole.clear();
                    whole.push(Arc::clone(&root.view));
                    whole.extend(below.iter().filter_map(|at| members.list.get(*at)).map(|m| Arc::clone(&m.view)));
                    visit(&whole)
                }
            };
            if !go_on {
                break;
            }
        }
        Ok(())
    }

    /// These members of the fleet, those that are there.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub(crate) async fn fleet_get(&self, ids: &[ProviderId]) -> Result<Vec<Arc<Member>>, EngineError> {
        self.fleet_refresh().await?;
        let members = self.fleet().members.read().unwrap_or_else(PoisonError::into_inner);
        Ok(ids.iter().filter_map(|id| members.list.get(*members.at.get(id)?)).map(Arc::clone).collect())
    }
}
