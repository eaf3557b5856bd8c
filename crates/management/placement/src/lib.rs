//! Which node a server goes to: a pure decision over a snapshot of the nodes, explained node by node.
//!
//! The decision only proposes: what it read may be old by now. The caller claims the first proposed node that still has
//! room, by a conditional write, and takes the next one if it has not. No I/O, clock or randomness in here.

pub mod candidates;

use arcus_types::NodeId;
use std::fmt;

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

/// A node as the decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Whether new servers may be placed on it; if not, why.
    pub disabled: Option<String>,
    /// Whether it was heard of lately.
    pub alive: bool,
    /// What servers may claim of it.
    pub cap: Amounts,
    /// What servers have claimed.
    pub used: Amounts,
    /// Whether the image is in its cache.
    pub has_image: bool,
    /// How many servers of the group live there.
    pub group_members: u64,
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

/// Why a node is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// An administrator asked for another one.
    NotTheOneAskedFor,
    /// It is in another zone.
    OtherZone {
        /// Its zone.
        zone: String,
    },
    /// An administrator closed it.
    Disabled {
        /// Why.
        reason: String,
    },
    /// It has not been heard of lately.
    Down,
    /// It has too little of something.
    TooLittle {
        /// Of what, with the unit.
        what: &'static str,
        /// How much it has left.
        free: u64,
        /// How much is needed.
        wanted: u64,
    },
    /// The group's servers are elsewhere.
    GroupElsewhere,
    /// Too many of the group's servers are here.
    GroupHere {
        /// How many.
        members: u64,
    },
    /// The servers that it is to be beside are elsewhere.
    NotBeside,
    /// A server that it is to be away from is here.
    NotAway,
    /// It looked good, but somebody else took the room first.
    TakenMeanwhile,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTheOneAskedFor => f.write_str("another node was asked for"),
            Self::OtherZone { zone } => write!(f, "it is in zone {zone}"),
            Self::Disabled { reason } if reason.is_empty() => f.write_str("it is disabled"),
            Self::Disabled { reason } => write!(f, "it is disabled: {reason}"),
            Self::Down => f.write_str("it is down"),
            Self::TooLittle { what, free, wanted } => write!(f, "{free} {what} free, {wanted} wanted"),
            Self::GroupElsewhere => f.write_str("the servers of its group are on another node"),
            Self::GroupHere { members } => write!(f, "{members} servers of its group are here already"),
            Self::NotBeside => f.write_str("the servers of the hint same_host are on another node"),
            Self::NotAway => f.write_str("a server of the hint different_host is here"),
            Self::TakenMeanwhile => f.write_str("its room was taken meanwhile"),
        }
    }
}

impl Refusal {
    /// The filter that refused, as a word that is the same for all nodes: what an owner may be told.
    pub const fn filter(&self) -> &'static str {
        match self {
            Self::NotTheOneAskedFor => "not the node asked for",
            Self::OtherZone { .. } => "other availability zone",
            Self::Disabled { .. } => "disabled",
            Self::Down => "down",
            Self::TooLittle { what, .. } => match what.as_bytes() {
                b"virtual CPUs" => "not enough virtual CPUs",
                b"MiB of memory" => "not enough memory",
                _ => "not enough disk",
            },
            Self::GroupElsewhere => "server group affinity",
            Self::GroupHere { .. } => "server group anti-affinity",
            Self::NotBeside => "scheduler hint same_host",
            Self::NotAway => "scheduler hint different_host",
            Self::TakenMeanwhile => "room taken meanwhile",
        }
    }
}

/// What was decided about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// Why it is not taken; empty if it could be.
    pub refusals: Vec<Refusal>,
    /// How well it suits: more is better.
    pub score: u64,
}

/// What was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Every node: those that could be taken come first, the best one at the head.
    pub verdicts: Vec<Verdict>,
}

impl Decision {
    /// The nodes to try, best first.
    pub fn ranked(&self) -> impl Iterator<Item = NodeId> {
        self.verdicts.iter().filter(|v| v.refusals.is_empty()).map(|v| v.node_id)
    }

    /// Notes that a proposed node had no room left when it was claimed.
    pub fn taken(&mut self, node_id: NodeId) {
        if let Some(verdict) = self.verdicts.iter_mut().find(|v| v.node_id == node_id) {
            verdict.refusals.push(Refusal::TakenMeanwhile);
        }
    }

    /// For the owner: how many nodes each filter refused, without names or quantities of nodes.
    pub fn summary(&self) -> String {
        if self.verdicts.is_empty() {
            return "The cloud has no nodes.".to_owned();
        }
        let mut counts: Vec<(&'static str, usize)> = Vec::new();
        for refusal in self.verdicts.iter().filter_map(|v| v.refusals.first()) {
            match counts.iter_mut().find(|(filter, _)| *filter == refusal.filter()) {
                Some((_, count)) => *count += 1,
                None => counts.push((refusal.filter(), 1)),
            }
        }
        let parts: Vec<String> = counts.iter().map(|(filter, count)| format!("{filter}: {count}")).collect();
        format!("Of {} nodes none can take it ({}).", self.verdicts.len(), parts.join(", "))
    }

    /// For the operator: the nodes with all their reasons, the best `EXPLAINED_MAX` of them.
    pub fn explanation(&self) -> String {
        let line = |v: &Verdict| {
            let reasons: Vec<String> = v.refusals.iter().map(ToString::to_string).collect();
            format!("{}: {}", v.name, if reasons.is_empty() { "fits".to_owned() } else { reasons.join("; ") })
        };
        let mut lines: Vec<String> = self.verdicts.iter().take(EXPLAINED_MAX).map(line).collect();
        if let Some(more) = self.verdicts.len().checked_sub(EXPLAINED_MAX).filter(|more| *more > 0) {
            lines.push(format!("and {more} more nodes"));
        }
        lines.join("\n")
    }
}

/// So many nodes are explained one by one.
const EXPLAINED_MAX: usize = 32;

/// Weight of having the image in the cache, against a node that is wholly free (1,000 for each of memory and CPU).
const IMAGE_SCORE: u64 = 400;
/// Weight of a group's wish that is not binding: more than all others together.
const GROUP_SCORE: u64 = 10_000;

/// Decides about every candidate.
pub fn decide(needs: &Needs, candidates: &[Candidate]) -> Decision {
    let mut verdicts: Vec<Verdict> = candidates
        .iter()
        .map(|c| Verdict {
            node_id: c.node_id,
            name: c.name.clone(),
            refusals: refusals(needs, c),
            score: score(needs, c),
        })
        .collect();
    verdicts.sort_by(|a, b| {
        let key = |v: &Verdict| (!v.refusals.is_empty(), std::cmp::Reverse(v.score));
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    Decision { verdicts }
}

fn refusals(needs: &Needs, c: &Candidate) -> Vec<Refusal> {
    let mut found = Vec::new();
    if needs.node.as_ref().is_some_and(|name| *name != c.name) {
        found.push(Refusal::NotTheOneAskedFor);
    }
    if needs.beside.as_ref().is_some_and(|nodes| !nodes.contains(&c.node_id)) {
        found.push(Refusal::NotBeside);
    }
    if needs.away_from.contains(&c.node_id) {
        found.push(Refusal::NotAway);
    }
    if needs.zone.as_ref().is_some_and(|zone| *zone != c.zone) {
        found.push(Refusal::OtherZone { zone: c.zone.clone() });
    }
    if let Some(reason) = &c.disabled {
        found.push(Refusal::Disabled { reason: reason.clone() });
    }
    if !c.alive {
        found.push(Refusal::Down);
    }
    let mut enough = |what, cap: u64, used: u64, wanted: u64| {
        let free = cap.saturating_sub(used);
        if wanted > free {
            found.push(Refusal::TooLittle { what, free, wanted });
        }
    };
    enough("virtual CPUs", c.cap.vcpus, c.used.vcpus, needs.vcpus);
    enough("MiB of memory", c.cap.memory_mib, c.used.memory_mib, needs.memory_mib);
    enough("GiB of disk", c.cap.disk_gib, c.used.disk_gib, needs.disk_gib);
    match needs.group {
        GroupRule::Together if c.group_members == 0 => found.push(Refusal::GroupElsewhere),
        GroupRule::Apart { servers_per_node_max } if c.group_members >= servers_per_node_max => {
            found.push(Refusal::GroupHere { members: c.group_members });
        }
        GroupRule::None
        | GroupRule::Together
        | GroupRule::Apart { .. }
        | GroupRule::RatherTogether
        | GroupRule::RatherApart => {}
    }
    found
}

/// Spreads: the share of memory and CPU that stays free counts, in thousandths; an image that is there already counts.
fn score(needs: &Needs, c: &Candidate) -> u64 {
    let share = |cap: u64, used: u64, wanted: u64| {
        let left = cap.saturating_sub(used).saturating_sub(wanted);
        left.saturating_mul(1_000).checked_div(cap).unwrap_or(0)
    };
    let group = match needs.group {
        GroupRule::RatherTogether => c.group_members.saturating_mul(GROUP_SCORE),
        GroupRule::RatherApart => 1_000_u64.saturating_sub(c.group_members).saturating_mul(GROUP_SCORE),
        GroupRule::None | GroupRule::Together | GroupRule::Apart { .. } => 0,
    };
    share(c.cap.memory_mib, c.used.memory_mib, needs.memory_mib)
        + share(c.cap.vcpus, c.used.vcpus, needs.vcpus)
        + if c.has_image { IMAGE_SCORE } else { 0 }
        + group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, memory_used: u64) -> Candidate {
        Candidate {
            node_id: NodeId::random(),
            name: name.to_owned(),
            zone: "nova".to_owned(),
            disabled: None,
            alive: true,
            cap: Amounts { vcpus: 32, memory_mib: 4096, disk_gib: 100 },
            used: Amounts { memory_mib: memory_used, ..Amounts::default() },
            has_image: false,
            group_members: 0,
        }
    }

    fn small() -> Needs {
        Needs { vcpus: 1, memory_mib: 512, disk_gib: 1, ..Needs::default() }
    }

    fn first(decision: &Decision) -> String {
        let id = decision.ranked().next();
        decision.verdicts.iter().find(|v| Some(v.node_id) == id).map(|v| v.name.clone()).unwrap_or_default()
    }

    #[test]
    fn the_emptier_node_is_preferred() {
        assert_eq!(first(&decide(&small(), &[node("a", 2048), node("b", 0), node("c", 1024)])), "b");
    }

    #[test]
    fn a_node_with_the_image_is_preferred_unless_it_is_much_fuller() {
        let mut cached = node("b", 1024);
        cached.has_image = true;
        assert_eq!(first(&decide(&small(), &[node("a", 0), cached.clone()])), "b");
        cached.used.memory_mib = 3072;
        assert_eq!(first(&decide(&small(), &[node("a", 0), cached])), "a");
    }

    #[test]
    fn every_refusal_is_explained() {
        let mut down = node("down", 0);
        down.alive = false;
        let mut closed = node("closed", 0);
        closed.disabled = Some("new fans".into());
        let mut far = node("far", 0);
        far.zone = "other".into();
        let full = node("full", 4000);
        let needs = Needs { zone: Some("nova".into()), ..small() };
        let decision = decide(&needs, &[down, closed, far, full]);
        assert_eq!(decision.ranked().count(), 0);
        let text = decision.explanation();
        for part in ["down: it is down", "new fans", "it is in zone other", "96 MiB of memory free, 512 wanted"] {
            assert!(text.contains(part), "{text}");
        }
        let summary = decision.summary();
        assert!(summary.contains("Of 4 nodes") && summary.contains("not enough memory: 1"), "{summary}");
        assert!(!summary.contains("fans"), "owners are not told about nodes: {summary}");
    }

    #[test]
    fn groups_bind_or_pull() {
        let mut with = node("with", 3000);
        with.group_members = 1;
        let nodes = [with, node("without", 0)];
        let rule = |group| Needs { group, ..small() };
        assert_eq!(first(&decide(&rule(GroupRule::Together), &nodes)), "with");
        assert_eq!(first(&decide(&rule(GroupRule::RatherTogether), &nodes)), "with");
        assert_eq!(first(&decide(&rule(GroupRule::RatherApart), &nodes)), "without");
        let apart = decide(&rule(GroupRule::Apart { servers_per_node_max: 1 }), &nodes);
        assert_eq!(apart.ranked().count(), 1);
        assert_eq!(first(&apart), "without");
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
            if decide(&needs, std::slice::from_ref(&c)).ranked().next().is_some() {
                assert!(c.used.vcpus + needs.vcpus <= c.cap.vcpus);
                assert!(c.used.memory_mib + needs.memory_mib <= c.cap.memory_mib);
                assert!(c.used.disk_gib + needs.disk_gib <= c.cap.disk_gib);
            }
        }
    }
}
