//! House rules over the source files that no lint knows. What they ask for is argued in CONTRIBUTING.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How long a Rust file may be, in lines, its tests apart.
const LINES_MAX: usize = 800;

/// Files that are longer, and how long they may be. This list only shrinks.
const LONGER: &[(&str, usize)] = &[];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];

/// Words that a finished source does not have, each with what is wrong about it.
const WORDS: &[(&str, &str)] = &[
    (concat!("to", "do!("), "is not finished"),
    (concat!("unimple", "mented!("), "is not finished"),
    (concat!("#[ig", "nore"), "has a test that nobody runs"),
    (concat!("TO", "DO"), "is not finished"),
    (concat!("FIX", "ME"), "is not finished"),
    (concat!("#[all", "ow("), "silences a lint; use #[expect(lint, reason = \"...\")]"),
];

/// One source file.
struct Source {
    /// Its path from the workspace root, with slashes.
    path: String,
    text: String,
}

/// Every broken rule as a line that names the file and says what is wrong.
///
/// # Errors
/// When the sources cannot be read.
pub fn broken_rules(root: &Path) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let sources = sources(root)?;
    for source in &sources {
        broken.extend(broken_in_file(source));
    }
    broken.extend(stale_exceptions(&sources));
    broken.extend(scattered_tests(&sources));
    broken.sort();
    Ok(broken)
}

fn broken_in_file(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let stem = name.trim_end_matches(".rs");
    if stem == "mod" {
        wrong.push("is a mod.rs; put it beside its folder, under the folder's name".to_owned());
    }
    if source.path.split('/').any(|part| EMPTY_NAMES.contains(&part.trim_end_matches(".rs"))) {
        wrong.push("has a name that says nothing".to_owned());
    }
    let lines = lines_without_tests(source);
    let lines_max = LONGER.iter().find(|(path, _)| *path == source.path).map_or(LINES_MAX, |(_, lines)| *lines);
    if lines > lines_max {
        wrong.push(format!("has {lines} lines, more than {lines_max}"));
    }
    if !source.text.is_empty() && !source.text.ends_with('\n') {
        wrong.push("does not end with a line break".to_owned());
    }
    for (at, line) in source.text.lines().enumerate() {
        let number = at + 1;
        if line.ends_with([' ', '\t']) {
            wrong.push(format!("has blanks at the end of line {number}"));
        }
        for (word, why) in WORDS {
            if line.contains(word) {
                wrong.push(format!("line {number}: {why}"));
            }
        }
    }
    wrong.into_iter().map(|what| format!("{} {what}", source.path)).collect()
}

/// The length of a file up to its unit tests; test files have none.
fn lines_without_tests(source: &Source) -> usize {
    if source.path.contains("/tests/") || source.path.ends_with("/tests.rs") {
        return 0;
    }
    source.text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

/// Exceptions that are no longer needed, or name no file.
fn stale_exceptions(sources: &[Source]) -> Vec<String> {
    let needed =
        |path: &str| sources.iter().any(|source| source.path == path && lines_without_tests(source) > LINES_MAX);
    LONGER
        .iter()
        .filter(|(path, _)| !needed(path))
        .map(|(path, _)| format!("{path} needs no exception for its length any more"))
        .collect()
}

/// Packages with more than one integration binary. The whole-system tests of the binary are exempt.
fn scattered_tests(sources: &[Source]) -> Vec<String> {
    let mut binaries: Vec<(&str, &str)> = sources
        .iter()
        .filter_map(|source| source.path.split_once("/tests/"))
        .filter(|(package, inside)| {
            *package != "crates/arcus"
                && !package.contains("/src")
                && (!inside.contains('/') || inside.ends_with("/main.rs"))
        })
        .collect();
    binaries.sort_unstable();
    let extra = binaries.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    extra.map(|pair| format!("{}/tests has more than one binary: {}, {}", pair[0].0, pair[0].1, pair[1].1)).collect()
}

/// All Rust files of the workspace.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut folders: Vec<PathBuf> = vec![root.join("crates"), root.join("xtask")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("could not list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
                sources.push(Source { path: path.strip_prefix(root)?.to_string_lossy().into_owned(), text });
            }
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::workspace_root;

    fn wrong(path: &str, text: &str) -> Vec<String> {
        broken_in_file(&Source { path: path.to_owned(), text: text.to_owned() })
    }

    #[test]
    fn the_workspace_keeps_the_house_rules() {
        let broken = broken_rules(&workspace_root()).expect("sources are readable");
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn a_long_file_is_told_but_not_its_tests() {
        let long = "x\n".repeat(LINES_MAX + 1);
        assert_eq!(wrong("crates/a/src/b.rs", &long).len(), 1);
        let tested = format!("x\n#[cfg(test)]\n{long}");
        assert!(wrong("crates/a/src/b.rs", &tested).is_empty());
        assert!(wrong("crates/a/tests/b.rs", &long).is_empty());
    }

    #[test]
    fn names_that_say_nothing_are_told() {
        for path in ["crates/a/src/util.rs", "crates/a/src/common/x.rs", "crates/a/src/x/mod.rs"] {
            assert_eq!(wrong(path, "x\n").len(), 1, "{path}");
        }
    }

    #[test]
    fn unfinished_work_is_told() {
        assert_eq!(wrong("crates/a/src/b.rs", concat!("to", "do!()\n")).len(), 1);
        assert_eq!(wrong("crates/a/src/b.rs", "x \n").len(), 1);
        assert_eq!(wrong("crates/a/src/b.rs", "x").len(), 1);
    }

    #[test]
    fn a_package_has_one_integration_binary() {
        let source = |path: &str| Source { path: path.to_owned(), text: String::new() };
        let two =
            [source("crates/a/tests/x.rs"), source("crates/a/tests/it/main.rs"), source("crates/a/tests/it/y.rs")];
        assert_eq!(scattered_tests(&two).len(), 1);
        assert!(scattered_tests(&two[1..]).is_empty());
    }
}
