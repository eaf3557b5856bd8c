//! `docs/COMPATIBILITY.md` says what is served: its tables are made from the route table.

use arcus_api::microversion::{COMPUTE_MAX, COMPUTE_MIN, PLACEMENT_MAX, PLACEMENT_MIN, VOLUME_MAX, VOLUME_MIN};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Services by the first part of their path, in the document's order, with what stands above their table.
const SERVICES: &[(&str, &str, &str)] = &[
    ("identity", "Identity (Keystone v3)", include_str!("compatibility/identity.md")),
    ("image", "Image (Glance v2)", include_str!("compatibility/image.md")),
    ("compute", "Compute (Nova v2.1)", include_str!("compatibility/compute.md")),
    ("network", "Network (Neutron v2.0)", include_str!("compatibility/network.md")),
    ("volume", "Block storage (Cinder v3)", include_str!("compatibility/volume.md")),
    ("placement", "Placement", include_str!("compatibility/placement.md")),
    ("arcus", "Native API", ""),
];

fn document() -> String {
    let mut text = include_str!("compatibility/head.md").to_owned();
    let routes = arcus_api::routes();
    for (prefix, title, notes) in SERVICES {
        let mut paths: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for route in routes.iter().filter(|r| r.path.split('/').nth(1) == Some(*prefix)) {
            paths.entry(route.path).or_default().push(route.method.as_str());
        }
        if paths.is_empty() {
            continue;
        }
        let notes = notes.replace("{COMPUTE_MIN}", &COMPUTE_MIN.to_string());
        let notes = notes.replace("{COMPUTE_MAX}", &COMPUTE_MAX.to_string());
        let notes = notes.replace("{VOLUME_MIN}", &VOLUME_MIN.to_string());
        let notes = notes.replace("{VOLUME_MAX}", &VOLUME_MAX.to_string());
        let notes = notes.replace("{PLACEMENT_MIN}", &PLACEMENT_MIN.to_string());
        let notes = notes.replace("{PLACEMENT_MAX}", &PLACEMENT_MAX.to_string());
        write!(text, "\n## {title}\n\n{notes}").unwrap();
        if !notes.is_empty() {
            text.push('\n');
        }
        text.push_str("| Path | Methods |\n|---|---|\n");
        for (path, methods) in paths {
            writeln!(text, "| `{path}` | {} |", methods.join(" ")).unwrap();
        }
    }
    text
}

#[test]
fn the_compatibility_document_tells_what_the_route_table_serves() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/COMPATIBILITY.md");
    let wanted = document();
    if std::env::var_os("ARCUS_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/COMPATIBILITY.md is out of date: run this test with ARCUS_WRITE_DOCS=1");
}
