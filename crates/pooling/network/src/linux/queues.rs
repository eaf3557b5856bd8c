//! Limits of bandwidth, as queues of the kernel that `tc` makes.
//!
//! ```text
//! to a guest      its tap's own queue (TBF)
//! from a guest    tap --(ingress, mirred)--> detour (ifb) with a queue (TBF) --> on as if it had just come in
//! floating IPs    the router's external leg likewise, both ways: a class (HTB) for each, found by its address (u32)
//! ```
//! What arrives cannot be queued, and the kernel may have no policing: hence the detour. Without the kernel's modules
//! `tc` refuses; that is told as a fault, and traffic passes without a limit.

use super::plan::Queues;
use super::programs::{self, Program};
use crate::NetworkError;
use arcus_types::agent::{BandwidthLimit, QosSpec};
use serde::Deserialize;
use std::net::Ipv4Addr;

/// The smallest and the largest burst in bytes: below, no large packet would ever pass.
const BURST_BYTES: std::ops::RangeInclusive<u64> = 16_384..=268_435_456;

/// How much of a second's traffic may come at once unless said otherwise, in percent. Source: OpenStack's default.
const BURST_PERCENT: u64 = 80;

/// How long a packet may wait in a queue, in milliseconds.
const LATENCY_MS: u32 = 50;

/// The largest rate in thousands of bits per second: what the kernel counts with.
const RATE_KBIT_MAX: u64 = 1_000_000_000;

fn rate(limit: BandwidthLimit) -> String {
    let rate = limit.rate_kbit.clamp(1, RATE_KBIT_MAX);
    let burst_kbit = if limit.burst_kbit == 0 { rate * BURST_PERCENT / 100 } else { limit.burst_kbit };
    let burst = burst_kbit.saturating_mul(125).clamp(*BURST_BYTES.start(), *BURST_BYTES.end());
    format!("rate {rate}kbit burst {burst}")
}

/// The queues of a guest's tap. `detour` is the device for what comes from the guest.
pub fn of_tap(tap: &str, detour: &str, qos: &QosSpec, queues: &mut Queues) {
    let mut lines = Vec::new();
    if let Some(limit) = qos.ingress {
        lines.push(format!("qdisc add dev {tap} root handle 1: tbf {} latency {LATENCY_MS}ms", rate(limit)));
    }
    if let Some(limit) = qos.egress {
        let queue = format!("qdisc add dev {detour} root handle 1: tbf {} latency {LATENCY_MS}ms", rate(limit));
        queues.insert(detour.to_owned(), vec![queue]);
        lines.extend(by_detour(tap, detour));
    }
    if !lines.is_empty() {
        queues.insert(tap.to_owned(), lines);
    }
}

/// The queues of a router's external leg, from external addresses and their limits.
pub fn of_gateway(device: &str, detour: &str, limits: &[(Ipv4Addr, QosSpec)], queues: &mut Queues) {
    let outward = limits.iter().filter_map(|(address, qos)| Some((*address, qos.egress?)));
    let inward = limits.iter().filter_map(|(address, qos)| Some((*address, qos.ingress?)));
    let mut lines = classes(device, "src", outward);
    let arriving = classes(detour, "dst", inward);
    if !arriving.is_empty() {
        queues.insert(detour.to_owned(), arriving);
        lines.extend(by_detour(device, detour));
    }
    if !lines.is_empty() {
        queues.insert(device.to_owned(), lines);
    }
}

fn by_detour(device: &str, detour: &str) -> [String; 2] {
    [
        format!("qdisc add dev {device} handle ffff: ingress"),
        format!(
            "filter add dev {device} parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress redirect \
             dev {detour}"
        ),
    ]
}

/// A class for each address; what belongs to none passes by.
fn classes(device: &str, side: &str, limits: impl Iterator<Item = (Ipv4Addr, BandwidthLimit)>) -> Vec<String> {
    let mut lines = Vec::new();
    // Numbers are of 16 bits, and 0 is taken.
    for ((address, limit), number) in limits.zip(1..=0xfffe_u16) {
        if lines.is_empty() {
            lines.push(format!("qdisc add dev {device} root handle 1: htb default 0"));
        }
        let rate = rate(limit);
        lines.push(format!("class add dev {device} parent 1: classid 1:{number:x} htb {rate}"));
        lines.push(format!(
            "filter add dev {device} parent 1: protocol ip prio 1 u32 match ip {side} {address}/32 flowid 1:{number:x}"
        ));
    }
    lines
}

#[derive(Deserialize)]
struct QueueJson {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    dev: String,
}

/// The devices of the calling thread's namespace that have queues of our kinds; which exactly is not read.
pub fn present(place: &str) -> Result<Queues, NetworkError> {
    let shown = programs::ask(place, Program::Tc, &["-j", "qdisc", "show"], "")?;
    let rows: Vec<QueueJson> = serde_json::from_str(shown.trim()).unwrap_or_default();
    let ours = rows.into_iter().filter(|row| matches!(row.kind.as_str(), "tbf" | "htb" | "ingress"));
    Ok(ours.map(|row| (row.dev, Vec::new())).collect())
}

/// Removes the queues of devices and makes new ones.
pub fn replace(place: &str, gone: &[String], new: &[String]) -> Result<(), NetworkError> {
    let removals: Vec<String> = gone
        .iter()
        .flat_map(|device| [format!("qdisc del dev {device} root"), format!("qdisc del dev {device} ingress")])
        .collect();
    programs::batch_removals(place, Program::Tc, &removals)?;
    programs::batch(place, Program::Tc, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(rate_kbit: u64, burst_kbit: u64) -> Option<BandwidthLimit> {
        Some(BandwidthLimit { rate_kbit, burst_kbit })
    }

    #[test]
    fn rates_and_bursts_are_such_that_the_kernel_takes_them() {
        assert_eq!(rate(limit(10_000, 0).unwrap()), "rate 10000kbit burst 1000000");
        assert_eq!(rate(limit(0, 0).unwrap()), "rate 1kbit burst 16384");
        assert_eq!(rate(limit(u64::MAX, u64::MAX).unwrap()), "rate 1000000000kbit burst 268435456");
    }

    #[test]
    fn each_direction_has_its_device() {
        let mut queues = Queues::new();
        of_tap("p1", "q1", &QosSpec { ingress: limit(1, 1), egress: limit(2, 2), dscp_mark: None }, &mut queues);
        assert_eq!(queues["p1"].len(), 3);
        assert!(queues["q1"][0].contains("rate 2kbit"));
        let mut queues = Queues::new();
        of_tap("p1", "q1", &QosSpec::default(), &mut queues);
        assert!(queues.is_empty());
    }
}
