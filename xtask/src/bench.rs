//! Benchmarks: runs them, shows a table and writes `target/bench.json`.
//!
//! A benchmark is a `[[bench]]` target without harness in any package. It prints one line for each of its measurements,
//! `bench: {"name": ..., "ours": ..., ...}`, and does only the one that `ARCUS_BENCH` names, if it is set. One benchmark
//! may give several measurements; those of the others stay in the file then.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::image;
use crate::process::{cargo, step, workspace_root};

/// What comes before the JSON of a measurement.
const MARK: &str = "bench: ";

/// The fields of a measurement, in the order of the table.
const FIELDS: &[&str] = &["name", "ours", "other", "other_name", "ratio", "goal", "unit", "holds"];

/// Runs all benchmarks, or the one called `name`.
///
/// # Errors
/// When a benchmark fails, does not reach its goal, or `name` is unknown.
pub fn bench(name: Option<&str>) -> Result<()> {
    image::build()?;
    step("bench: build and run, optimised");
    let mut command = cargo();
    command.args(["bench", "--quiet", "--workspace", "--bench", "*"]).stdout(Stdio::piped());
    if let Some(name) = name {
        command.env("ARCUS_BENCH", name);
    }
    let mut child = command.spawn().context("could not start cargo bench")?;
    let mut measurements = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            match line.strip_prefix(MARK) {
                Some(json) => measurements.push(parse(json)?),
                None => eprintln!("{line}"),
            }
        }
    }
    let status = child.wait()?;
    let file = workspace_root().join("target/bench.json");
    let earlier = if name.is_some() { read(&file)? } else { Vec::new() };
    fs::write(&file, serde_json::to_string_pretty(&joined(earlier, &measurements))? + "\n")?;
    print!("{}", table(&measurements));
    step(format!("bench: {}", file.display()));
    if !status.success() {
        bail!("a benchmark failed: {status}");
    }
    if measurements.is_empty() {
        bail!("no benchmark is called {}", name.unwrap_or("anything"));
    }
    let missed: Vec<&str> =
        measurements.iter().filter(|one| one["holds"] != true).filter_map(|one| one["name"].as_str()).collect();
    if !missed.is_empty() {
        bail!("goals are missed: {}", missed.join(", "));
    }
    Ok(())
}

/// What an earlier run left; nothing if there was none.
fn read(file: &Path) -> Result<Vec<Value>> {
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("could not read {}", file.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("could not read {}", file.display())),
    }
}

/// Earlier measurements with new ones in the place of those of the same name.
fn joined(mut earlier: Vec<Value>, new: &[Value]) -> Vec<Value> {
    for one in new {
        match earlier.iter_mut().find(|old| old["name"] == one["name"]) {
            Some(old) => *old = one.clone(),
            None => earlier.push(one.clone()),
        }
    }
    earlier
}

fn parse(json: &str) -> Result<Value> {
    let measurement: Value = serde_json::from_str(json).with_context(|| format!("not a measurement: {json}"))?;
    for field in FIELDS {
        if measurement.get(field).is_none() {
            bail!("a measurement without {field}: {json}");
        }
    }
    Ok(measurement)
}

/// One cell: text as it is, numbers with at most three digits behind the point.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(holds) => if *holds { "yes" } else { "NO" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:.3}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn table(measurements: &[Value]) -> String {
    let mut rows = vec![FIELDS.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>()];
    rows.extend(measurements.iter().map(|one| FIELDS.iter().map(|field| cell(&one[*field])).collect()));
    let widths: Vec<usize> =
        (0..FIELDS.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_aligned_columns() {
        let one = parse(
            r#"{"name":"upload","ours":1.25,"other":1.0,"other_name":"cp","ratio":1.25,"goal":1.3,"unit":"s","holds":true}"#,
        )
        .expect("complete");
        let text = table(&[one]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("ours"), lines[1].find("1.250"));
        assert!(lines[1].ends_with("yes"));
    }

    #[test]
    fn a_new_measurement_takes_the_place_of_its_earlier_one() {
        let one = |name: &str, ours: u32| serde_json::json!({ "name": name, "ours": ours });
        let joined = joined(vec![one("a", 1), one("b", 1)], &[one("b", 2), one("c", 2)]);
        assert_eq!(joined, [one("a", 1), one("b", 2), one("c", 2)]);
    }

    #[test]
    fn a_measurement_without_a_goal_is_refused() {
        assert!(parse(r#"{"name":"upload","ours":1}"#).is_err());
    }
}
