//! Clusters: what may be claimed of their nodes, and which nodes' guests can run on which others.
//!
//! [`unlike`] is the one place that decides whether a guest of one node may go to another while it runs: the moves' checks ask
//! it and clusters do. Pure.

use crate::agent::NodeFacts;
use crate::ids::ClusterId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

impl ClusterId {
    /// The cluster of nodes that name none.
    pub const DEFAULT: Self = Self(Uuid::nil());
}

/// What may be claimed of what a node has, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overcommit {
    /// Of its threads.
    pub vcpus_percent: u64,
    /// Of its memory.
    pub memory_percent: u64,
    /// Of its disk.
    pub disk_percent: u64,
}

/// The most of anything that may be claimed, in percent of what there is.
pub const OVERCOMMIT_PERCENT_MAX: u64 = 100_000;

impl Default for Overcommit {
    /// Threads are shared, memory is not, and disks grow as they are written.
    fn default() -> Self {
        Self { vcpus_percent: 1_600, memory_percent: 100, disk_percent: 1_000 }
    }
}

/// A node's processor and machine as guests could see them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuFacts {
    /// The architecture, such as `x86_64`; empty: not told.
    pub architecture: String,
    /// The vendor, such as `AuthenticAMD`; empty: not told.
    pub vendor: String,
    /// Its features as the kernel names them, in order, with one space between them; empty: not told.
    pub features: String,
    /// The machine type that new guests get, such as `pc-q35-7.2`; empty: not told.
    pub machine: String,
}

impl CpuFacts {
    /// What `/proc/cpuinfo` tells of the first processor.
    pub fn of_cpuinfo(text: &str) -> Self {
        let field = |name: &str| {
            let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim()).unwrap_or_default()
        };
        let features: BTreeSet<&str> = field("flags").split_whitespace().collect();
        let features: Vec<&str> = features.into_iter().collect();
        Self {
            architecture: std::env::consts::ARCH.to_owned(),
            vendor: field("vendor_id").to_owned(),
            features: features.join(" "),
            machine: String::new(),
        }
    }

    fn set(&self) -> BTreeSet<&str> {
        self.features.split(' ').filter(|word| !word.is_empty()).collect()
    }
}

/// Something that keeps guests of one node from going to another while they run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unlike {
    /// What it is called; stays the same from release to release.
    pub name: &'static str,
    /// In words about the node that they would go to.
    pub message: String,
}

/// The node has no address on the network that joins the nodes: a setting, which no cluster minds.
pub const NO_UNDERLAY: &str = "no_underlay";
/// Another instruction set.
pub const ARCHITECTURE: &str = "architecture";
/// One emulates what the other's processor does.
pub const ACCELERATOR: &str = "accelerator";
/// A node has not told yet what it is.
pub const NOT_REPORTED: &str = "not_reported";
/// Processors of different makers, which guests see.
pub const CPU_VENDOR: &str = "cpu_vendor";
/// Processors of different models, which guests see.
pub const CPU_MODEL: &str = "cpu_model";
/// Features are missing that guests may be using.
pub const CPU_FEATURES: &str = "cpu_features";
/// Another release of QEMU.
pub const QEMU_RELEASE: &str = "qemu_release";

/// Whether a cluster may be told to take a node in spite of this: what goes by as nodes are upgraded or replaced may stand for a
/// while, and moves between such nodes are refused one by one.
pub fn is_forcible(name: &str) -> bool {
    [NOT_REPORTED, CPU_MODEL, CPU_FEATURES, QEMU_RELEASE].contains(&name)
}

fn release(facts: &NodeFacts) -> String {
    facts.hypervisor_version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

/// All that keeps guests of one node from running on another.
///
/// Emulated guests see a processor that QEMU makes up, the same everywhere. Under KVM they see their node's own, so it must be
/// the same model with at least the same features.
pub fn unlike(source: &NodeFacts, dest: &NodeFacts) -> Vec<Unlike> {
    let mut all = Vec::new();
    let mut found = |name, message| all.push(Unlike { name, message });
    let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    if dest.underlay.is_none() {
        found(NO_UNDERLAY, "it has no address on the network that joins the nodes".to_owned());
    }
    if source.accel.is_empty() != dest.accel.is_empty() {
        let which = if dest.accel.is_empty() { "it" } else { "the source" };
        found(NOT_REPORTED, format!("{which} has not told yet what it is"));
        return all;
    }
    let (from, to) = (&source.cpu, &dest.cpu);
    if differ(&from.architecture, &to.architecture) {
        found(ARCHITECTURE, format!("its processor is {}, the source's {}", to.architecture, from.architecture));
    }
    if source.accel != dest.accel {
        found(ACCELERATOR, format!("it runs guests with {}, the source with {}", dest.accel, source.accel));
    }
    if source.accel == "kvm" {
        if differ(&from.vendor, &to.vendor) {
            found(CPU_VENDOR, format!("its CPU is made by {}, the source's by {}", to.vendor, from.vendor));
        }
        if source.cpu_model != dest.cpu_model {
            found(CPU_MODEL, format!("its CPU is {}, the source's is {}", dest.cpu_model, source.cpu_model));
        }
        if differ(&from.features, &to.features) {
            let there = to.set();
            let lost: Vec<&str> = from.set().into_iter().filter(|word| !there.contains(word)).collect();
            if !lost.is_empty() {
                found(CPU_FEATURES, format!("its CPU lacks {}, which the source's guests see", some(&lost)));
            }
        }
    }
    let (release_here, release_there) = (release(source), release(dest));
    if release_here != release_there {
        found(QEMU_RELEASE, format!("it has QEMU {release_there}, the source {release_here}"));
    }
    all
}

/// So many words are told one by one.
const WORDS_MAX: usize = 8;

fn some(words: &[&str]) -> String {
    let told = words.get(..WORDS_MAX).unwrap_or(words).join(", ");
    match words.len().saturating_sub(WORDS_MAX) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}

/// What all nodes of a cluster have in common, and where they differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Baseline {
    /// How many nodes have told what they are.
    pub nodes: usize,
    /// Architectures: one, if the nodes are alike.
    pub architectures: BTreeSet<String>,
    /// Makers of processors.
    pub vendors: BTreeSet<String>,
    /// Models of processors.
    pub models: BTreeSet<String>,
    /// How guests run.
    pub accelerators: BTreeSet<String>,
    /// Releases of QEMU.
    pub qemu_releases: BTreeSet<String>,
    /// The machine types that new guests get.
    pub machines: BTreeSet<String>,
    /// The processors' features that every node has.
    pub features: BTreeSet<String>,
    /// Those that only some have.
    pub features_of_some: BTreeSet<String>,
}

/// Each of a baseline's sets tells at most so many.
const VARIETY_MAX: usize = 64;

/// What these nodes have in common.
pub fn baseline<'a>(nodes: impl IntoIterator<Item = &'a NodeFacts>) -> Baseline {
    let mut all = Baseline::default();
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shapes: BTreeMap<&str, usize> = BTreeMap::new();
    for facts in nodes {
        if facts.accel.is_empty() {
            continue;
        }
        all.nodes += 1;
        let note = |set: &mut BTreeSet<String>, word: &str| {
            if !word.is_empty() && set.len() < VARIETY_MAX && !set.contains(word) {
                set.insert(word.to_owned());
            }
        };
        note(&mut all.architectures, &facts.cpu.architecture);
        note(&mut all.vendors, &facts.cpu.vendor);
        note(&mut all.models, &facts.cpu_model);
        note(&mut all.accelerators, &facts.accel);
        note(&mut all.qemu_releases, &release(facts));
        note(&mut all.machines, &facts.cpu.machine);
        if !facts.cpu.features.is_empty() {
            *shapes.entry(&facts.cpu.features).or_default() += 1;
        }
    }
    for shape in shapes.keys() {
        for word in shape.split(' ') {
            *counted.entry(word).or_default() += 1;
        }
    }
    for (word, times) in counted {
        let set = if times == shapes.len() { &mut all.features } else { &mut all.features_of_some };
        set.insert(word.to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(accel: &str, model: &str, features: &str) -> NodeFacts {
        NodeFacts {
            accel: accel.into(),
            hypervisor_version: "7.2.22".into(),
            cpu_model: model.into(),
            underlay: Some([10, 0, 0, 1].into()),
            cpu: CpuFacts {
                architecture: "x86_64".into(),
                vendor: "GenuineIntel".into(),
                features: features.into(),
                machine: "pc-q35-7.2".into(),
            },
            ..NodeFacts::default()
        }
    }

    fn names(source: &NodeFacts, dest: &NodeFacts) -> Vec<&'static str> {
        unlike(source, dest).into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn a_guest_goes_where_all_that_it_sees_is() {
        let (rich, poor) = (node("kvm", "A", "avx avx2 sse"), node("kvm", "A", "avx sse"));
        assert_eq!(unlike(&poor, &rich), []);
        let lost = unlike(&rich, &poor);
        assert_eq!((lost.len(), lost[0].name), (1, CPU_FEATURES));
        assert!(lost[0].message.contains("lacks avx2, which"), "{}", lost[0].message);
    }

    #[test]
    fn emulated_guests_do_not_see_the_nodes_processor() {
        let (one, mut other) = (node("tcg", "A", "avx sse"), node("tcg", "B", "sse"));
        other.cpu.vendor = "AuthenticAMD".into();
        assert_eq!(unlike(&one, &other), []);
        assert_eq!(names(&one, &node("kvm", "A", "avx sse")), [ACCELERATOR]);
    }

    #[test]
    fn each_difference_has_its_name() {
        let one = node("kvm", "A", "avx sse");
        let mut other = node("kvm", "B", "sse");
        other.cpu.vendor = "AuthenticAMD".into();
        other.cpu.architecture = "aarch64".into();
        other.hypervisor_version = "8.2.1".into();
        other.underlay = None;
        let all = [NO_UNDERLAY, ARCHITECTURE, CPU_VENDOR, CPU_MODEL, CPU_FEATURES, QEMU_RELEASE];
        assert_eq!(names(&one, &other), all);
        assert!(!is_forcible(ARCHITECTURE) && !is_forcible(ACCELERATOR) && is_forcible(QEMU_RELEASE));
    }

    #[test]
    fn an_agent_of_before_that_tells_less_is_no_stranger() {
        let mut old = node("kvm", "A", "avx sse");
        old.cpu = CpuFacts::default();
        assert_eq!(unlike(&node("kvm", "A", "avx sse"), &old), []);
        let new = NodeFacts { underlay: old.underlay, ..NodeFacts::default() };
        assert_eq!((names(&old, &new), names(&new, &old)), (vec![NOT_REPORTED], vec![NOT_REPORTED]));
    }

    #[test]
    fn the_baseline_is_what_all_have() {
        let all = [node("kvm", "A", "avx avx2 sse"), node("kvm", "B", "avx sse"), NodeFacts::default()];
        let found = baseline(&all);
        assert_eq!(found.nodes, 2);
        assert_eq!(found.features.iter().map(String::as_str).collect::<Vec<_>>(), ["avx", "sse"]);
        assert_eq!(found.features_of_some.iter().map(String::as_str).collect::<Vec<_>>(), ["avx2"]);
        assert_eq!(found.models.len(), 2);
        assert_eq!(found.qemu_releases.iter().map(String::as_str).collect::<Vec<_>>(), ["7.2"]);
    }

    #[test]
    fn cpuinfo_is_read() {
        let read =
            CpuFacts::of_cpuinfo("processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: sse fpu sse\nvmx flags\t: x\n");
        assert_eq!((read.vendor.as_str(), read.features.as_str()), ("AuthenticAMD", "fpu sse"));
    }
}
