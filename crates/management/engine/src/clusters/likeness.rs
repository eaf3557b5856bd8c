//! Which nodes are alike, and what a further one would cost. Nodes that are alike in all that counts are judged once, so that a
//! thousand nodes of three kinds need nine looks.

use arcus_store::Node;
use arcus_types::agent::NodeFacts;
use arcus_types::clusters::{NO_UNDERLAY, Unlike, is_forcible, unlike};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// So many nodes are told by name; of the rest, how many they are.
const NAMED_MAX: usize = 16;

/// Something that keeps guests from moving between a candidate and nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// What it is called; stays the same from release to release.
    pub name: &'static str,
    /// In words.
    pub message: String,
    /// Whether the cluster may be told to take the node in spite of it.
    pub forcible: bool,
    /// The first of the nodes between which and the candidate it stands.
    pub nodes: Vec<String>,
    /// How many they are in all.
    pub nodes_count: usize,
}

impl Hindrance {
    /// In a sentence, with what can be done.
    pub fn words(&self) -> String {
        let names = self.nodes.join(", ");
        let more = match self.nodes_count.saturating_sub(self.nodes.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let end = if self.forcible { " If that will pass, force it." } else { "" };
        format!("{}: {} ({names}{more}).{end}", self.name, self.message)
    }
}

/// A feature that nodes of a cluster have and a candidate lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureLost {
    /// As the kernel names it.
    pub feature: String,
    /// The first of the nodes that have it.
    pub nodes: Vec<String>,
    /// How many they are in all.
    pub nodes_count: usize,
}

/// What a node would cost a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterCandidate {
    /// The node.
    pub node: String,
    /// How many other nodes there are.
    pub others: usize,
    /// What keeps guests from moving between it and the others.
    pub hindrances: Vec<Hindrance>,
    /// The features that would no longer be common to all.
    pub features_lost: Vec<FeatureLost>,
    /// The features that it has and not all others have.
    pub features_unused: Vec<String>,
}

/// A way that guests could go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// From here.
    pub source: String,
    /// To there.
    pub dest: String,
    /// What is in the way; empty if they can.
    pub unlike: Vec<Unlike>,
}

/// Of how many ways guests can go how many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PairSums {
    /// Ways between two nodes, each direction by itself.
    pub all: usize,
    /// Those that guests can go.
    pub possible: usize,
    /// How often what is in the way.
    pub hindered: BTreeMap<&'static str, usize>,
}

/// All of a node by which it is judged.
#[derive(PartialEq, Eq, Hash)]
struct Shape<'a> {
    cpu: (&'a str, &'a str, &'a str),
    model: &'a str,
    accel: &'a str,
    release: &'a str,
    reachable: bool,
}

impl<'a> Shape<'a> {
    fn of(facts: &'a NodeFacts) -> Self {
        Self {
            cpu: (&facts.cpu.architecture, &facts.cpu.vendor, &facts.cpu.features),
            model: &facts.cpu_model,
            accel: &facts.accel,
            release: &facts.hypervisor_version,
            reachable: facts.underlay.is_some(),
        }
    }
}

/// Nodes by name, with which of them are alike.
pub(super) struct Shapes<'a> {
    nodes: Vec<(&'a Node, usize)>,
    /// One node of each kind, and how many there are.
    kinds: Vec<(&'a NodeFacts, usize)>,
}

impl<'a> Shapes<'a> {
    /// Of these nodes, which come by name.
    pub(super) fn of(nodes: impl Iterator<Item = &'a Node>) -> Self {
        let mut found = Self { nodes: Vec::new(), kinds: Vec::new() };
        let mut known: HashMap<Shape<'a>, usize> = HashMap::new();
        for node in nodes {
            let kind = *known.entry(Shape::of(&node.facts)).or_insert_with(|| {
                found.kinds.push((&node.facts, 0));
                found.kinds.len() - 1
            });
            if let Some((_, count)) = found.kinds.get_mut(kind) {
                *count += 1;
            }
            found.nodes.push((node, kind));
        }
        found
    }

    /// How many ways there are.
    pub(super) fn sums(&self) -> PairSums {
        let mut sums = PairSums::default();
        for (at, (source, from)) in self.kinds.iter().enumerate() {
            for (to, (dest, count)) in self.kinds.iter().enumerate() {
                let ways = from * (count - usize::from(at == to));
                let reasons = unlike(source, dest);
                sums.all += ways;
                sums.possible += if reasons.is_empty() { ways } else { 0 };
                for reason in reasons.iter().filter(|_| ways > 0) {
                    *sums.hindered.entry(reason.name).or_default() += ways;
                }
            }
        }
        sums
    }

    /// The ways after `marker` in order of the nodes' names, at most `limit`.
    pub(super) fn pairs(&self, marker: Option<(&str, &str)>, limit: usize) -> Vec<Pair> {
        let mut known: HashMap<(usize, usize), Vec<Unlike>> = HashMap::new();
        let mut found = Vec::new();
        let (after_source, after_dest) = marker.unwrap_or_default();
        for (source, from) in self.nodes.iter().skip_while(|(node, _)| node.name.as_str() < after_source) {
            let same = marker.is_some() && source.name.as_str() == after_source;
            for (dest, to) in &self.nodes {
                if source.id == dest.id || (same && dest.name.as_str() <= after_dest) {
                    continue;
                }
                if found.len() >= limit {
                    return found;
                }
                let reasons = known.entry((*from, *to)).or_insert_with(|| unlike(&source.facts, &dest.facts));
                found.push(Pair {
                    source: source.name.to_string(),
                    dest: dest.name.to_string(),
                    unlike: reasons.clone(),
                });
            }
        }
        found
    }

    /// What a further node would cost these.
    pub(super) fn candidate(&self, node: &Node) -> ClusterCandidate {
        let mut hindrances: BTreeMap<&'static str, (String, BTreeSet<usize>)> = BTreeMap::new();
        for (kind, (facts, _)) in self.kinds.iter().enumerate() {
            let to = unlike(facts, &node.facts).into_iter().map(|one| (one, "to it"));
            let back = unlike(&node.facts, facts).into_iter().map(|one| (one, "from it"));
            // An address is given to an agent, and takes nothing of a node's likeness.
            for (one, way) in to.chain(back).filter(|(one, _)| one.name != NO_UNDERLAY) {
                let words = || format!("guests could not move {way}, for {}", one.message);
                hindrances.entry(one.name).or_insert_with(|| (words(), BTreeSet::new())).1.insert(kind);
            }
        }
        let hindrances = hindrances.into_iter().map(|(name, (message, kinds))| {
            let (nodes, nodes_count) = self.named(|kind| kinds.contains(&kind));
            Hindrance { name, message, forcible: is_forcible(name), nodes, nodes_count }
        });
        let (features_lost, features_unused) = self.features(&node.facts);
        ClusterCandidate {
            node: node.name.to_string(),
            others: self.nodes.len(),
            hindrances: hindrances.collect(),
            features_lost,
            features_unused,
        }
    }

    /// The features that a candidate lacks, and those that only it has for all.
    fn features(&self, facts: &NodeFacts) -> (Vec<FeatureLost>, Vec<String>) {
        let words = |facts: &'a NodeFacts| facts.cpu.features.split_whitespace();
        let own: BTreeSet<&str> = facts.cpu.features.split_whitespace().collect();
        let mut with: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        let told: BTreeSet<usize> = (0..self.kinds.len())
            .filter(|at| self.kinds.get(*at).is_some_and(|k| !k.0.cpu.features.is_empty()))
            .collect();
        for (kind, (facts, _)) in self.kinds.iter().enumerate() {
            for word in words(facts) {
                with.entry(word).or_default().insert(kind);
            }
        }
        if own.is_empty() || told.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let unused = own.iter().filter(|word| with.get(*word) != Some(&told)).map(|word| (*word).to_owned()).collect();
        // What not all have is not the cluster's to lose.
        let lost = with.iter().filter(|(word, kinds)| !own.contains(*word) && **kinds == told).map(|(word, kinds)| {
            let (nodes, nodes_count) = self.named(|kind| kinds.contains(&kind));
            FeatureLost { feature: (*word).to_owned(), nodes, nodes_count }
        });
        (lost.collect(), unused)
    }

    fn named(&self, of: impl Fn(usize) -> bool) -> (Vec<String>, usize) {
        let mut all = self.nodes.iter().filter(|(_, kind)| of(*kind)).map(|(node, _)| node.name.to_string());
        let first: Vec<String> = all.by_ref().take(NAMED_MAX).collect();
        let count = first.len() + all.count();
        (first, count)
    }
}
