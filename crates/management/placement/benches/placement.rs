//! How many decisions a second one core makes over 10,000 nodes with 100,000 servers, and how long the slowest take.
//!
//! Nothing but the decision is measured: what it proposes is claimed at once in the same snapshot, and a server goes for
//! each that comes, so that the cloud stays as full as it is. `ARCUS_BENCH` names the one to run.
#![expect(clippy::print_stdout, reason = "a benchmark tells what it found")]

use arcus_placement::{Amounts, Around, Candidate, GroupRule, Needs, decide};
use arcus_types::placement::Filling;
use arcus_types::{NodeId, Timestamp};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NODES: usize = 10_000;
const SERVERS: usize = 100_000;
/// Members of the group, each on a node of its own.
const MEMBERS: usize = 100;
const DECISIONS: usize = 20_000;
const RATE_MIN: f64 = 5_000.0;
const P99_MS_MAX: f64 = 5.0;
const FLAVORS: [(u64, u64, u64); 4] = [(1, 1_024, 10), (2, 4_096, 20), (4, 8_192, 40), (8, 16_384, 80)];

/// A cloud and the servers in it, the oldest first.
struct Cloud {
    nodes: Vec<Candidate>,
    servers: VecDeque<(usize, Amounts)>,
    random: u64,
}

impl Cloud {
    fn new() -> Self {
        let images: Vec<Arc<[u64]>> = (0..10).map(|first| (first..first + 5).collect()).collect();
        let zones: Vec<Arc<str>> = ["north", "south", "west"].map(Arc::from).to_vec();
        let node = |at: usize| Candidate {
            node_id: NodeId::new(),
            cap: Amounts { vcpus: 4 * 64, memory_mib: 512 << 10, disk_gib: 8_000 },
            used: Amounts::default(),
            alive_until: Timestamp::now().plus_seconds(3_600),
            closed: None,
            zone: Arc::clone(&zones[at % zones.len()]),
            filling: Filling::Spread,
            images: Arc::clone(&images[at % images.len()]),
            name: format!("node-{at:05}").into(),
        };
        let mut cloud =
            Self { nodes: (0..NODES).map(node).collect(), servers: VecDeque::new(), random: 88_172_645_463 };
        for _ in 0..SERVERS {
            let (at, needs) = (cloud.next(NODES), cloud.needs());
            cloud.claim(at, &needs);
        }
        cloud
    }

    /// A number below `end`, the same ones in each run.
    fn next(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 11).unwrap_or(0) % end
    }

    fn needs(&mut self) -> Needs {
        let (vcpus, memory_mib, disk_gib) = FLAVORS[self.next(FLAVORS.len())];
        let image = u64::try_from(self.next(14)).ok();
        let zone = (self.next(4) == 0).then(|| "south".to_owned());
        Needs { vcpus, memory_mib, disk_gib, image, zone, ..Needs::default() }
    }

    fn claim(&mut self, at: usize, needs: &Needs) {
        let amounts = Amounts { vcpus: needs.vcpus, memory_mib: needs.memory_mib, disk_gib: needs.disk_gib };
        let used = &mut self.nodes[at].used;
        used.vcpus += amounts.vcpus;
        used.memory_mib += amounts.memory_mib;
        used.disk_gib += amounts.disk_gib;
        self.servers.push_back((at, amounts));
    }

    fn oldest_goes(&mut self) {
        let Some((at, amounts)) = self.servers.pop_front() else { return };
        let used = &mut self.nodes[at].used;
        used.vcpus -= amounts.vcpus;
        used.memory_mib -= amounts.memory_mib;
        used.disk_gib -= amounts.disk_gib;
    }
}

/// Decisions a second, and what 99 of 100 do not exceed, in milliseconds.
fn measured(grouped: bool) -> Result<(f64, f64), &'static str> {
    let mut cloud = Cloud::new();
    let mut around = Around::default();
    if grouped {
        around.group_members = cloud.nodes.iter().step_by(NODES / MEMBERS).map(|node| (node.node_id, 1)).collect();
    }
    let places: std::collections::HashMap<NodeId, usize> =
        cloud.nodes.iter().enumerate().map(|(at, node)| (node.node_id, at)).collect();
    let now = Timestamp::now();
    let mut took: Vec<Duration> = Vec::with_capacity(DECISIONS);
    for _ in 0..DECISIONS {
        let mut needs = cloud.needs();
        if grouped {
            needs.group = GroupRule::Apart { servers_per_node_max: 1 };
        }
        let began = Instant::now();
        let decision = decide(&needs, &around, now, &cloud.nodes);
        took.push(began.elapsed());
        let best = decision.ranked.first().map(|best| best.candidate.node_id);
        let at = best.and_then(|id| places.get(&id)).ok_or("no node has room")?;
        cloud.claim(*at, &needs);
        cloud.oldest_goes();
    }
    let all: Duration = took.iter().sum();
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    Ok((DECISIONS as f64 / all.as_secs_f64(), p99.as_secs_f64() * 1e3))
}

fn tell(name: &str, ours: f64, goal: f64, unit: &str, holds: bool) {
    let line = json!({ "name": name, "ours": ours, "other": null, "other_name": null, "ratio": null, "goal": goal,
        "unit": unit, "holds": holds });
    println!("bench: {line}");
}

fn main() -> Result<(), &'static str> {
    let only = std::env::var("ARCUS_BENCH").ok();
    for (name, grouped) in [("placement", false), ("placement_group", true)] {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let (rate, p99) = measured(grouped)?;
        tell(name, rate, RATE_MIN, "1/s", rate >= RATE_MIN);
        tell(&format!("{name}_p99"), p99, P99_MS_MAX, "ms", p99 <= P99_MS_MAX);
    }
    Ok(())
}
