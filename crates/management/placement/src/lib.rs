//! Which node a server goes to: a pure decision over a snapshot of the nodes, explained filter by filter and, for one node,
//! reason by reason.
//!
//! The decision only proposes: what it read may be old by now. The caller claims the first proposed node that still has
//! room, by a conditional write, and takes the next one if it has not. No I/O, clock or randomness in here.
//!
//! It looks at every node of a cloud for each decision, so the loop allocates nothing: it counts, and keeps
//! the best [`RANKED_MAX`]. Words are made afterwards, for those who ask.

pub mod candidates;

use arcus_types::placement::{DecisionRecord, Filling, Filter, FilterCount, NodeLooked, Score};
use arcus_types::{NodeId, Timestamp};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// So many nodes are proposed at once.
pub const RANKED_MAX: usize = 16;
/// So many of the proposed nodes are kept in the record of a decision, and so many of the refused ones.
const RECORDED_MAX: usize = 4;
/// Of so many refused nodes the decision remembers which they are.
const REFUSED_KEPT_MAX: usize = 32;

/// What a server needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in GiB.
    pub disk_gib: u64,
    /// The zone that its owner asks for.
    pub zone: Option<String>,
    /// The one node, by name, that an administrator asks for.
    pub node: Option<String>,
    /// The rule of the group that it is in.
    pub group: GroupRule,
    /// Only these nodes, where the servers are that its owner wants it beside.
    pub beside: Option<Vec<NodeId>>,
    /// None of these nodes, where the servers are that its owner wants it away from.
    pub away_from: Vec<NodeId>,
    /// The image that it begins as; see [`image_mark`].
    pub image: Option<u64>,
}

/// The rule of a group of servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GroupRule {
    /// It is in no group, or the group has no members yet.
    #[default]
    None,
    /// Only where members are.
    Together,
    /// Only where fewer members are than this.
    Apart {
        /// So many members may share a node.
        servers_per_node_max: u64,
    },
    /// Rather where members are.
    RatherTogether,
    /// Rather where none are.
    RatherApart,
}

/// A node as the decision sees it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node_id: NodeId,
    /// What servers may claim of it.
    pub cap: Amounts,
    /// What servers have claimed.
    pub used: Amounts,
    /// It counts as alive until then, unless it is heard of again.
    pub alive_until: Timestamp,
    /// Whether new servers may be placed on it; if not, why.
    pub closed: Option<Arc<str>>,
    /// Its zone.
    pub zone: Arc<str>,
    /// How its cluster is filled.
    pub filling: Filling,
    /// The images in its cache; see [`image_mark`].
    pub images: Arc<[u64]>,
    /// Its name.
    pub name: Arc<str>,
}

/// What one request knows of single nodes, beyond what all requests know.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// How many servers of the group live where.
    pub group_members: HashMap<NodeId, u64>,
    /// What this transaction has claimed already.
    pub claimed: HashMap<NodeId, Amounts>,
    /// What this transaction has given back.
    pub freed: HashMap<NodeId, Amounts>,
    /// Which nodes this transaction has opened for new servers.
    pub opened: HashSet<NodeId>,
    /// Where this very server cannot run, and why.
    pub unsuited: HashMap<NodeId, String>,
    /// Where there was no room any more when it was to be claimed.
    pub taken: HashSet<NodeId>,
}

impl Around {
    /// Every node of which anything is known.
    fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        let sums = self.claimed.keys().chain(self.freed.keys()).chain(self.group_members.keys());
        sums.chain(self.unsuited.keys()).chain(&self.opened).chain(&self.taken)
    }

    /// Notes that the room for a server is claimed on a node.
    pub fn claim(&mut self, node: NodeId, needs: &Needs, grouped: bool) {
        let sum = self.claimed.entry(node).or_default();
        sum.vcpus += needs.vcpus;
        sum.memory_mib += needs.memory_mib;
        sum.disk_gib += needs.disk_gib;
        if grouped {
            *self.group_members.entry(node).or_default() += 1;
        }
    }
}

/// Quantities of what a node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in GiB.
    pub disk_gib: u64,
}

/// What stands for an image in a decision: the first quarter of its SHA-256. Two images that share it would only
/// make a node look a little better than it is.
pub fn image_mark(sha256: &str) -> Option<u64> {
    sha256.get(..16).and_then(|head| u64::from_str_radix(head, 16).ok())
}

/// Why a node is not taken, in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The filter.
    pub filter: Filter,
    /// In words for an administrator.
    pub words: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// What was decided about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub name: Arc<str>,
    /// Its zone.
    pub zone: Arc<str>,
    /// Why it is not taken; empty if it could be.
    pub refusals: Vec<Refusal>,
    /// How well it suits.
    pub score: Score,
}

impl Verdict {
    /// As it is kept.
    pub fn looked_at(&self) -> NodeLooked {
        let refusals = self.refusals.iter().map(ToString::to_string).collect();
        NodeLooked { node: self.name.to_string(), score: self.score, refusals }
    }
}

/// A node that could be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    /// The node.
    pub candidate: Candidate,
    /// How well it suits.
    pub score: Score,
}

/// What was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// How many nodes were looked at.
    pub nodes: u64,
    /// How many could be taken.
    pub fit: u64,
    /// The best of them, best first: at most [`RANKED_MAX`].
    pub ranked: Vec<Ranked>,
    /// How many each filter was the first to refuse; those that refused none are left out.
    pub refused: Vec<FilterCount>,
    /// The first of the refused nodes with all that speaks against them.
    pub verdicts: Vec<Verdict>,
}

impl Decision {
    /// Notes that a proposed node had no room left when it was to be claimed.
    pub fn taken(&mut self, node_id: NodeId) {
        self.ranked.retain(|ranked| ranked.candidate.node_id != node_id);
        self.fit = self.fit.saturating_sub(1);
        match self.refused.iter_mut().find(|count| count.filter == Filter::TakenMeanwhile) {
            Some(count) => count.nodes += 1,
            None => {
                self.refused.push(FilterCount { filter: Filter::TakenMeanwhile, nodes: 1, asked: None, free_max: None })
            }
        }
    }

    /// For the owner: how many nodes each filter refused, without names of nodes.
    pub fn summary(&self) -> String {
        DecisionRecord { nodes: self.nodes, fit: self.fit, refused: self.refused.clone(), ..DecisionRecord::default() }
            .words()
    }

    /// For the operator: the first nodes that could not be taken, with all their reasons.
    pub fn explanation(&self) -> String {
        let line = |v: &Verdict| {
            let reasons: Vec<String> = v.refusals.iter().map(ToString::to_string).collect();
            format!("{}: {}", v.name, reasons.join("; "))
        };
        let mut lines: Vec<String> = self.ranked.iter().map(|r| format!("{}: fits", r.candidate.name)).collect();
        lines.extend(self.verdicts.iter().map(line));
        let told = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if let Some(more) = self.nodes.checked_sub(told).filter(|more| *more > 0) {
            lines.push(format!("and {more} more nodes"));
        }
        lines.join("\n")
    }

    /// As it is kept: what was asked, the counts, and a few nodes. `chosen` is the node that was taken.
    pub fn record(&self, needs: &Needs, chosen: Option<NodeId>) -> DecisionRecord {
        let fitting = self.ranked.iter().take(RECORDED_MAX).map(|r| NodeLooked {
            node: r.candidate.name.to_string(),
            score: r.score,
            refusals: Vec::new(),
        });
        let score = self.ranked.iter().find(|r| Some(r.candidate.node_id) == chosen).map(|r| r.score);
        DecisionRecord {
            vcpus: needs.vcpus,
            memory_mib: needs.memory_mib,
            disk_gib: needs.disk_gib,
            zone: needs.zone.clone(),
            one_node: needs.node.is_some(),
            group: needs.group.words().map(str::to_owned),
            nodes: self.nodes,
            fit: self.fit,
            refused: self.refused.clone(),
            score,
            looked_at: fitting.chain(self.verdicts.iter().take(RECORDED_MAX).map(Verdict::looked_at)).collect(),
        }
    }
}

impl GroupRule {
    /// The group's policy as the compute API calls it.
    pub const fn words(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Together => Some("affinity"),
            Self::Apart { .. } => Some("anti-affinity"),
            Self::RatherTogether => Some("soft-affinity"),
            Self::RatherApart => Some("soft-anti-affinity"),
        }
    }
}

/// Weight of having the image in the cache, against a node that is wholly free (1,000 for each of memory and CPU).
pub const IMAGE_SCORE: u64 = 400;
/// Weight of a group's wish that is not binding: more than all others together.
pub const GROUP_SCORE: u64 = 10_000;

/// Marks of nodes: one that is not marked was never noted, and nothing needs to be looked up of it.
struct Mentioned([u64; 64]);

impl Mentioned {
    fn of<'a>(nodes: impl Iterator<Item = &'a NodeId>) -> Self {
        let mut marks = [0; 64];
        for node in nodes {
            let (word, bit) = Self::place(*node);
            if let Some(word) = marks.get_mut(word) {
                *word |= bit;
            }
        }
        Self(marks)
    }

    /// The last bits of an id are random.
    fn place(node: NodeId) -> (usize, u64) {
        let [.., high, low] = node.0.into_bytes();
        (usize::from(high & 63), 1 << (low & 63))
    }

    fn may_hold(&self, node: NodeId) -> bool {
        let (word, bit) = Self::place(node);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// Nodes as one request sees them.
struct Look<'a> {
    needs: &'a Needs,
    around: &'a Around,
    mentioned: Mentioned,
    /// Nothing is asked of the node but room; a group at most wants its members apart, of which an unmarked node has none.
    simple: bool,
    now: Timestamp,
}

/// What a filter found too little of: how much is asked, how much is free.
struct Short {
    asked: u64,
    free: u64,
}

impl<'a> Look<'a> {
    fn new(needs: &'a Needs, around: &'a Around, now: Timestamp) -> Self {
        let simple = needs.zone.is_none()
            && needs.node.is_none()
            && needs.beside.is_none()
            && needs.away_from.is_empty()
            && match needs.group {
                GroupRule::None | GroupRule::RatherTogether | GroupRule::RatherApart => true,
                GroupRule::Apart { servers_per_node_max } => servers_per_node_max > 0,
                GroupRule::Together => false,
            };
        Self { needs, around, mentioned: Mentioned::of(around.nodes()), simple, now }
    }

    /// Nothing in `around` speaks of the node.
    fn plain(&self, c: &Candidate) -> bool {
        !self.mentioned.may_hold(c.node_id)
    }

    /// Whether no filter refuses a node, as far as that can be told at once: most are like that.
    fn fits(&self, c: &Candidate, used: &Amounts) -> bool {
        let (needs, room) = (self.needs, |cap: u64, used: u64, asked: u64| asked <= cap.saturating_sub(used));
        self.simple
            && self.plain(c)
            && c.closed.is_none()
            && c.alive_until >= self.now
            && room(c.cap.vcpus, used.vcpus, needs.vcpus)
            && room(c.cap.memory_mib, used.memory_mib, needs.memory_mib)
            && room(c.cap.disk_gib, used.disk_gib, needs.disk_gib)
    }

    fn members(&self, c: &Candidate) -> u64 {
        if self.plain(c) { 0 } else { self.around.group_members.get(&c.node_id).copied().unwrap_or(0) }
    }

    fn used(&self, c: &Candidate) -> Amounts {
        let mut used = c.used;
        if self.plain(c) {
            return used;
        }
        if let Some(claimed) = self.around.claimed.get(&c.node_id) {
            used.vcpus += claimed.vcpus;
            used.memory_mib += claimed.memory_mib;
            used.disk_gib += claimed.disk_gib;
        }
        if let Some(freed) = self.around.freed.get(&c.node_id) {
            used.vcpus = used.vcpus.saturating_sub(freed.vcpus);
            used.memory_mib = used.memory_mib.saturating_sub(freed.memory_mib);
            used.disk_gib = used.disk_gib.saturating_sub(freed.disk_gib);
        }
        used
    }

    /// Whether a filter refuses a node, and how much it found too little.
    fn refuses(&self, filter: Filter, c: &Candidate, used: &Amounts) -> Option<Short> {
        let needs = self.needs;
        let none = Short { asked: 0, free: 0 };
        let when = |refused: bool| refused.then_some(Short { asked: 0, free: 0 });
        let short = |cap: u64, used: u64, asked: u64| {
            let free = cap.saturating_sub(used);
            (asked > free).then_some(Short { asked, free })
        };
        match filter {
            Filter::NotTheOneAskedFor => when(needs.node.as_ref().is_some_and(|name| **name != *c.name)),
            Filter::Zone => when(needs.zone.as_ref().is_some_and(|zone| **zone != *c.zone)),
            Filter::Closed => when(c.closed.is_some() && (self.plain(c) || !self.around.opened.contains(&c.node_id))),
            Filter::Down => when(c.alive_until < self.now),
            Filter::Unsuited => when(!self.plain(c) && self.around.unsuited.contains_key(&c.node_id)),
            Filter::Beside => when(needs.beside.as_ref().is_some_and(|nodes| !nodes.contains(&c.node_id))),
            Filter::AwayFrom => when(needs.away_from.contains(&c.node_id)),
            Filter::Together => when(needs.group == GroupRule::Together && self.members(c) == 0),
            Filter::Apart => match needs.group {
                GroupRule::Apart { servers_per_node_max } => when(self.members(c) >= servers_per_node_max),
                GroupRule::None | GroupRule::Together | GroupRule::RatherTogether | GroupRule::RatherApart => None,
            },
            Filter::Vcpus => short(c.cap.vcpus, used.vcpus, needs.vcpus),
            Filter::Memory => short(c.cap.memory_mib, used.memory_mib, needs.memory_mib),
            Filter::Disk => short(c.cap.disk_gib, used.disk_gib, needs.disk_gib),
            Filter::TakenMeanwhile if !self.plain(c) && self.around.taken.contains(&c.node_id) => Some(none),
            Filter::TakenMeanwhile => None,
        }
    }

    fn words(&self, filter: Filter, c: &Candidate, short: &Short) -> String {
        let quantity = |what: &str| format!("{} {what} free, {} wanted", short.free, short.asked);
        match filter {
            Filter::NotTheOneAskedFor => "another node was asked for".to_owned(),
            Filter::Zone => format!("it is in zone {}", c.zone),
            Filter::Closed => match c.closed.as_deref() {
                None | Some("") => "it is closed for new servers".to_owned(),
                Some(reason) => format!("it is closed for new servers: {reason}"),
            },
            Filter::Down => "it is down".to_owned(),
            Filter::Unsuited => self.around.unsuited.get(&c.node_id).cloned().unwrap_or_default(),
            Filter::Beside => "the servers of the hint same_host are on another node".to_owned(),
            Filter::AwayFrom => "a server of the hint different_host is here".to_owned(),
            Filter::Together => "the servers of its group are on another node".to_owned(),
            Filter::Apart => format!("{} servers of its group are here already", self.members(c)),
            Filter::Vcpus => quantity("virtual CPUs"),
            Filter::Memory => quantity("MiB of memory"),
            Filter::Disk => quantity("GiB of disk"),
            Filter::TakenMeanwhile => "its room was taken meanwhile".to_owned(),
        }
    }

    /// How well a node suits. Spread: the share of memory and CPU that stays free counts, in thousandths; packed: the share
    /// that is used. An image that is there already counts, too.
    fn score(&self, c: &Candidate, used: &Amounts) -> Score {
        let share = |cap: u64, used: u64, wanted: u64| {
            let left = cap.saturating_sub(used).saturating_sub(wanted);
            let free = left.saturating_mul(1_000).checked_div(cap).unwrap_or(0);
            match c.filling {
                Filling::Spread => free,
                Filling::Pack => 1_000_u64.saturating_sub(free),
            }
        };
        let group = match self.needs.group {
            GroupRule::RatherTogether => self.members(c).saturating_mul(GROUP_SCORE),
            GroupRule::RatherApart => 1_000_u64.saturating_sub(self.members(c)).saturating_mul(GROUP_SCORE),
            GroupRule::None | GroupRule::Together | GroupRule::Apart { .. } => 0,
        };
        let has_image = self.needs.image.is_some_and(|image| c.images.contains(&image));
        Score {
            memory: share(c.cap.memory_mib, used.memory_mib, self.needs.memory_mib),
            vcpus: share(c.cap.vcpus, used.vcpus, self.needs.vcpus),
            image: if has_image { IMAGE_SCORE } else { 0 },
            group,
        }
    }

    fn verdict(&self, c: &Candidate) -> Verdict {
        let used = self.used(c);
        let refusal = |filter| {
            let short = self.refuses(filter, c, &used)?;
            Some(Refusal { filter, words: self.words(filter, c, &short) })
        };
        Verdict {
            node_id: c.node_id,
            name: Arc::clone(&c.name),
            zone: Arc::clone(&c.zone),
            refusals: Filter::ALL.into_iter().filter_map(refusal).collect(),
            score: self.score(c, &used),
        }
    }
}

/// What is decided about one node, with everything that speaks against it.
pub fn judge(needs: &Needs, around: &Around, now: Timestamp, candidate: &Candidate) -> Verdict {
    Look::new(needs, around, now).verdict(candidate)
}

/// Decides about every candidate.
pub fn decide(needs: &Needs, around: &Around, now: Timestamp, candidates: &[Candidate]) -> Decision {
    let look = Look::new(needs, around, now);
    let mut counts =
        [const { FilterCount { filter: Filter::Zone, nodes: 0, asked: None, free_max: None } }; Filter::ALL.len()];
    let (mut fit, mut refused) = (0_u64, Vec::new());
    let mut best: Vec<(u64, Score, usize)> = Vec::with_capacity(RANKED_MAX + 1);
    for (at, c) in candidates.iter().enumerate() {
        let used = look.used(c);
        let first = match look.fits(c, &used) {
            true => None,
            false => Filter::ALL.into_iter().find_map(|filter| Some((filter, look.refuses(filter, c, &used)?))),
        };
        if let Some((filter, short)) = first {
            if let Some(count) = counts.get_mut(filter.place()) {
                count.nodes += 1;
                if filter.unit().is_some() {
                    (count.asked, count.free_max) = (Some(short.asked), count.free_max.max(Some(short.free)));
                }
            }
            if refused.len() < REFUSED_KEPT_MAX {
                refused.push(at);
            }
            continue;
        }
        fit += 1;
        let score = look.score(c, &used);
        let total = score.total();
        // Better first; nodes that are alike by name, so that the same cloud decides the same.
        let name = |at: usize| candidates.get(at).map(|c| &c.name);
        let after = |&(t, _, i): &(u64, Score, usize)| t > total || (t == total && name(i) <= Some(&c.name));
        if best.len() < RANKED_MAX || !best.last().is_some_and(after) {
            best.insert(best.partition_point(after), (total, score, at));
            best.truncate(RANKED_MAX);
        }
    }
    for (count, filter) in counts.iter_mut().zip(Filter::ALL) {
        count.filter = filter;
    }
    Decision {
        nodes: u64::try_from(candidates.len()).unwrap_or(u64::MAX),
        fit,
        ranked: best
            .into_iter()
            .filter_map(|(_, score, at)| Some(Ranked { candidate: candidates.get(at)?.clone(), score }))
            .collect(),
        refused: counts.into_iter().filter(|count| count.nodes > 0).collect(),
        verdicts: refused.into_iter().filter_map(|at| candidates.get(at)).map(|c| look.verdict(c)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn node(name: &str, memory_used: u64) -> Candidate {
        Candidate {
            node_id: NodeId::random(),
            name: name.into(),
            zone: "nova".into(),
            closed: None,
            alive_until: NOW,
            cap: Amounts { vcpus: 32, memory_mib: 4096, disk_gib: 100 },
            used: Amounts { memory_mib: memory_used, ..Amounts::default() },
            images: Arc::new([]),
            filling: Filling::Spread,
        }
    }

    fn small() -> Needs {
        Needs { vcpus: 1, memory_mib: 512, disk_gib: 1, ..Needs::default() }
    }

    fn plain(needs: &Needs, nodes: &[Candidate]) -> Decision {
        decide(needs, &Around::default(), NOW, nodes)
    }

    fn first(decision: &Decision) -> String {
        decision.ranked.first().map(|r| r.candidate.name.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_emptier_node_is_preferred_and_the_fuller_one_where_servers_are_packed() {
        let mut nodes = [node("a", 2048), node("b", 0), node("c", 1024), node("full", 4000)];
        assert_eq!(first(&plain(&small(), &nodes)), "b");
        nodes.iter_mut().for_each(|n| n.filling = Filling::Pack);
        assert_eq!(first(&plain(&small(), &nodes)), "a");
    }

    #[test]
    fn a_node_with_the_image_is_preferred_unless_it_is_much_fuller() {
        let sha256 = "00000000000000ff0000";
        let mut cached = node("b", 1024);
        cached.images = Arc::new([7, 255]);
        let needs = Needs { image: image_mark(sha256), ..small() };
        assert_eq!(first(&plain(&needs, &[node("a", 0), cached.clone()])), "b");
        cached.used.memory_mib = 3072;
        assert_eq!(first(&plain(&needs, &[node("a", 0), cached])), "a");
    }

    #[test]
    fn every_refusal_is_explained() {
        let mut down = node("down", 0);
        down.alive_until = Timestamp(999);
        let mut closed = node("closed", 0);
        closed.closed = Some("new fans".into());
        let mut far = node("far", 4000);
        far.zone = "other".into();
        let full = node("full", 4000);
        let needs = Needs { zone: Some("nova".into()), ..small() };
        let decision = plain(&needs, &[down, closed, far.clone(), full]);
        assert!(decision.ranked.is_empty());
        let text = decision.explanation();
        for part in ["down: it is down", "new fans", "far: it is in zone other; 96 MiB of memory free, 512 wanted"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(
            decision.summary(),
            "Of 4 nodes none can take it: 1 is in another zone, 1 is closed for new servers, 1 is down, 1 lacks memory \
             (512 MiB asked, at most 96 free)."
        );
        assert_eq!(judge(&needs, &Around::default(), NOW, &far).refusals.len(), 2);
    }

    #[test]
    fn groups_bind_or_pull() {
        let nodes = [node("with", 3000), node("without", 0)];
        let mut around = Around::default();
        around.group_members.insert(nodes[0].node_id, 1);
        let rule = |group| decide(&Needs { group, ..small() }, &around, NOW, &nodes);
        assert_eq!(first(&rule(GroupRule::Together)), "with");
        assert_eq!(first(&rule(GroupRule::RatherTogether)), "with");
        assert_eq!(first(&rule(GroupRule::RatherApart)), "without");
        let apart = rule(GroupRule::Apart { servers_per_node_max: 1 });
        assert_eq!((apart.fit, first(&apart).as_str()), (1, "without"));
    }

    #[test]
    fn what_one_request_knows_of_a_node_counts_for_it_alone() {
        let nodes = [node("a", 0), node("b", 0)];
        let mut around = Around::default();
        around.claim(nodes[0].node_id, &Needs { memory_mib: 3800, ..small() }, false);
        let decision = decide(&small(), &around, NOW, &nodes);
        assert_eq!((decision.fit, first(&decision).as_str()), (1, "b"));
        around.taken.insert(nodes[1].node_id);
        let decision = decide(&small(), &around, NOW, &nodes);
        assert_eq!(decision.fit, 0);
        assert!(decision.summary().contains("1 was filled by others meanwhile"), "{}", decision.summary());
    }

    #[test]
    fn the_best_are_ranked_and_alike_ones_go_by_name() {
        let nodes: Vec<Candidate> = (0..100).rev().map(|n| node(&format!("n{n:03}"), (n % 10) * 100)).collect();
        let decision = plain(&small(), &nodes);
        assert_eq!((decision.fit, decision.ranked.len()), (100, RANKED_MAX));
        let names: Vec<&str> = decision.ranked.iter().map(|r| &*r.candidate.name).collect();
        assert_eq!(names[..3], ["n000", "n010", "n020"]);
        assert_eq!(names[10..13], ["n001", "n011", "n021"]);
    }

    #[test]
    fn what_fits_at_a_glance_is_refused_by_no_filter() {
        const RULES: [GroupRule; 6] = [
            GroupRule::None,
            GroupRule::Together,
            GroupRule::Apart { servers_per_node_max: 0 },
            GroupRule::Apart { servers_per_node_max: 1 },
            GroupRule::RatherTogether,
            GroupRule::RatherApart,
        ];
        // Each bit is one thing that may speak for or against the node.
        for bits in 0_u32..1 << 14 {
            let is = |bit: u32| bits >> bit & 1 == 1;
            let mut c = node("n", if is(0) { 4_000 } else { 0 });
            c.closed = is(1).then(|| "".into());
            c.alive_until = if is(2) { NOW } else { Timestamp(1) };
            let mut around = Around::default();
            let id = c.node_id;
            around.opened.extend(is(3).then_some(id));
            around.taken.extend(is(4).then_some(id));
            around.unsuited.extend(is(5).then(|| (id, String::new())));
            around.group_members.extend(is(6).then_some((id, 1)));
            around.claimed.extend(is(7).then_some((id, Amounts { memory_mib: 4_000, ..Amounts::default() })));
            around.freed.extend(is(8).then_some((id, Amounts { memory_mib: 4_000, ..Amounts::default() })));
            for group in RULES {
                let needs = Needs {
                    group,
                    zone: is(9).then(|| if is(10) { "nova" } else { "other" }.to_owned()),
                    node: is(11).then(|| if is(10) { "n" } else { "other" }.to_owned()),
                    beside: is(12).then(|| if is(10) { vec![id] } else { vec![] }),
                    away_from: if is(13) { vec![id] } else { vec![] },
                    ..small()
                };
                let refusals = judge(&needs, &around, NOW, &c).refusals;
                let fit = decide(&needs, &around, NOW, std::slice::from_ref(&c)).fit;
                assert_eq!(fit == 1, refusals.is_empty(), "{needs:?} {around:?} {c:?} {refusals:?}");
            }
        }
    }

    #[test]
    fn a_proposed_node_always_has_the_room() {
        // A walk over many sizes, seeded by the numbers themselves.
        for seed in 0_u64..2_000 {
            let c = Candidate {
                cap: Amounts { vcpus: 5 + seed % 7, memory_mib: 997 + seed * 31 % 397, disk_gib: 53 + seed % 7 },
                used: Amounts { vcpus: seed % 5, memory_mib: seed * 13 % 997, disk_gib: seed * 5 % 53 },
                ..node("n", 0)
            };
            let needs = Needs { vcpus: seed % 3, memory_mib: seed % 401, disk_gib: seed % 11, ..Needs::default() };
            if plain(&needs, std::slice::from_ref(&c)).fit > 0 {
                assert!(c.used.vcpus + needs.vcpus <= c.cap.vcpus);
                assert!(c.used.memory_mib + needs.memory_mib <= c.cap.memory_mib);
                assert!(c.used.disk_gib + needs.disk_gib <= c.cap.disk_gib);
            }
        }
    }
}
