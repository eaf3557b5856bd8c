//! What a benchmark found, in the form that `cargo xtask bench` reads.

use anyhow::{Context as _, Result};
use serde_json::json;
use std::time::Duration;

/// A figure of ours that must not be above a goal.
pub fn absolute(name: &str, ours: f64, goal: f64, unit: &str) {
    let line = json!({ "name": name, "ours": ours, "other": null, "other_name": null, "ratio": null, "goal": goal,
        "unit": unit, "holds": ours <= goal });
    println!("bench: {line}");
}

/// A figure of ours that must not be below a goal.
pub fn at_least(name: &str, ours: f64, goal: f64, unit: &str) {
    let line = json!({ "name": name, "ours": ours, "other": null, "other_name": null, "ratio": null, "goal": goal,
        "unit": unit, "holds": ours >= goal });
    println!("bench: {line}");
}

/// A duration of ours, in seconds, that must not be above `goal` times another one.
pub fn compared(name: &str, ours: f64, other: f64, other_name: &str, goal: f64) {
    let ratio = ours / other;
    let line = json!({ "name": name, "ours": ours, "other": other, "other_name": other_name, "ratio": ratio,
        "goal": goal, "unit": "s", "holds": ratio <= goal });
    println!("bench: {line}");
}

/// The middle one of several durations, in seconds. All of them are told on the way.
pub fn median_s(what: &str, durations: &[Duration]) -> Result<f64> {
    let mut sorted: Vec<f64> = durations.iter().map(Duration::as_secs_f64).collect();
    sorted.sort_by(f64::total_cmp);
    let told: Vec<String> = sorted.iter().map(|seconds| format!("{:.1}", seconds * 1e3)).collect();
    eprintln!("  {what}, in ms: {}", told.join(" "));
    let (low, high) = (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2));
    low.zip(high).map(|(low, high)| (low + high) / 2.0).context("nothing was measured")
}
