//! What became of each test, read from what tempest prints.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    Skipped,
}

/// What became of each test that was wanted.
#[derive(Debug)]
pub struct Outcome {
    ends: BTreeMap<String, End>,
}

impl Outcome {
    /// Reads lines such as `{1} tempest.api.… [0.5s] ... ok`. A class that could not be set up (`setUpClass (…)`) takes
    /// all its tests with it; a test of which nothing is said has failed, for something kept it from running.
    pub fn of(wanted: &BTreeSet<String>, log: &str) -> Self {
        let mut tests = BTreeMap::new();
        let mut classes = BTreeMap::new();
        for line in log.lines().filter(|line| line.starts_with('{')) {
            let Some((head, end)) = line.rsplit_once(" ... ") else { continue };
            let end = match end.split([':', ' ']).next() {
                Some("ok") => End::Passed,
                Some("SKIPPED") => End::Skipped,
                _ => End::Failed,
            };
            let Some((_, head)) = head.split_once("} ") else { continue };
            if let Some((_, class)) = head.split_once("setUpClass (") {
                classes.insert(class.split(')').next().unwrap_or(class).to_owned(), end);
            } else {
                let id = head.rsplit_once(" [").filter(|(_, rest)| rest.ends_with("s]")).map_or(head, |(id, _)| id);
                tests.insert(name(id).to_owned(), end);
            }
        }
        let of_class = |id: &str| name(id).rsplit_once('.').and_then(|(class, _)| classes.get(class)).copied();
        let end = |id: &String| tests.get(name(id)).copied().or_else(|| of_class(id)).unwrap_or(End::Failed);
        Self { ends: wanted.iter().map(|id| (id.clone(), end(id))).collect() }
    }

    fn with(&self, wanted: End) -> Vec<&str> {
        self.ends.iter().filter(|(_, end)| **end == wanted).map(|(id, _)| id.as_str()).collect()
    }

    /// How many passed, failed and were skipped per service, then the names of those that failed.
    pub fn table(&self) -> String {
        let mut services: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for (id, end) in &self.ends {
            let counts = services.entry(id.split('.').nth(2).unwrap_or(id)).or_default();
            counts[*end as usize] += 1;
        }
        let mut total = [0; 3];
        let mut text = format!("{:<10}{:>8}{:>8}{:>8}\n", "service", "passed", "failed", "skipped");
        let mut row = |name: &str, counts: [usize; 3]| {
            text.push_str(&format!("{name:<10}{:>8}{:>8}{:>8}\n", counts[0], counts[1], counts[2]));
        };
        for (service, counts) in services {
            row(service, counts);
            total.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        row("all", total);
        for id in self.with(End::Failed) {
            text.push_str(&format!("failed: {id}\n"));
        }
        text
    }

    /// Whether all is well. If `strict`, a skipped test is not.
    pub fn verdict(&self, strict: bool) -> Result<()> {
        let (failed, skipped) = (self.with(End::Failed), self.with(End::Skipped));
        if strict && !skipped.is_empty() {
            bail!("{} tests failed and {} were skipped:\n  {}", failed.len(), skipped.len(), skipped.join("\n  "));
        }
        if !failed.is_empty() {
            bail!("{} tests failed", failed.len());
        }
        Ok(())
    }
}

/// A test's name: tempest leaves the decorations behind it out of some lines.
fn name(id: &str) -> &str {
    id.split('[').next().unwrap_or(id).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
{0} tempest.api.image.A.passes [0.118s] ... ok
{1} tempest.api.image.A.fails [0.2s] ... FAILED
{1} tempest.api.image.A.skips[id-2] ... SKIPPED: Not there
{0} setUpClass (tempest.api.volume.B) [0.000s] ... SKIPPED: No backup
{0} setUpClass (tempest.api.compute.C) [0.100s] ... FAILED
";

    #[test]
    fn what_a_class_meets_all_its_tests_meet_and_silence_is_failure() {
        let names = [
            "image.A.passes[id-1]",
            "image.A.fails",
            "image.A.skips[id-2]",
            "image.A.silent",
            "volume.B.x[id-3]",
            "compute.C.y",
        ];
        let wanted = names.iter().map(|name| format!("tempest.api.{name}")).collect();
        let outcome = Outcome::of(&wanted, LOG);
        assert_eq!(outcome.with(End::Passed), ["tempest.api.image.A.passes[id-1]"]);
        assert_eq!(
            outcome.with(End::Failed),
            ["tempest.api.compute.C.y", "tempest.api.image.A.fails", "tempest.api.image.A.silent"]
        );
        assert_eq!(outcome.with(End::Skipped), ["tempest.api.image.A.skips[id-2]", "tempest.api.volume.B.x[id-3]"]);
        assert!(outcome.table().contains("image            1       2       1\n"));
    }

    #[test]
    fn a_list_passes_only_if_nothing_is_skipped() {
        let wanted = BTreeSet::from(["tempest.api.image.A.skips[id-2]".to_owned()]);
        let outcome = Outcome::of(&wanted, LOG);
        assert!(outcome.verdict(false).is_ok());
        assert!(outcome.verdict(true).is_err());
    }
}
