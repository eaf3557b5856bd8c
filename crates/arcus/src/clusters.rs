//! `arcus cluster`: clusters of nodes, what may be claimed of them, and which nodes' guests can move to which others.

use crate::cli::{ClusterCommand, ClusterFigures, Clusters};
use crate::session::Session;
use crate::tasks::{print_json, text};
use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Runs the command.
pub fn clusters(options: Clusters) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let admin = Session::admin(&options.home.home).await?;
        let (told, shown) = asked(&admin, &options.command).await?;
        if options.json {
            return print_json(&told);
        }
        print!("{}", shown(&told));
        Ok(())
    })
}

type Shown = fn(&Value) -> String;

async fn asked(admin: &Session, command: &ClusterCommand) -> Result<(Value, Shown)> {
    let path = |id: &str| format!("/arcus/v1/clusters/{id}");
    Ok(match command {
        ClusterCommand::List => (admin.get("/arcus/v1/clusters?limit=1000").await?, list),
        ClusterCommand::Show { cluster } => (admin.get(&path(&id_of(admin, cluster).await?)).await?, whole),
        ClusterCommand::Create { name, figures } => {
            (admin.post("/arcus/v1/clusters", wish(Some(name), figures)).await?, whole)
        }
        ClusterCommand::Set { cluster, name, figures } => {
            let (id, body) = (id_of(admin, cluster).await?, wish(name.as_deref(), figures));
            (admin.call(Method::PATCH, &path(&id), Some(&body)).await?, whole)
        }
        ClusterCommand::Delete { cluster } => {
            let id = id_of(admin, cluster).await?;
            (admin.call(Method::DELETE, &path(&id), None).await?, |_| String::new())
        }
        ClusterCommand::AddNode { cluster, node, force } => {
            let path = format!("{}/nodes/{node}?force={force}", path(&id_of(admin, cluster).await?));
            (admin.call(Method::PUT, &path, None).await?, cost)
        }
        ClusterCommand::RemoveNode { cluster, node } => {
            let path = format!("{}/nodes/{node}", path(&id_of(admin, cluster).await?));
            (admin.call(Method::DELETE, &path, None).await?, |_| String::new())
        }
        ClusterCommand::Check { cluster, node } => {
            let path = format!("{}/candidates/{node}", path(&id_of(admin, cluster).await?));
            (admin.get(&path).await?, cost)
        }
        ClusterCommand::Pairs { cluster, limit, after } => {
            let mut path = format!("{}/pairs?limit={limit}", path(&id_of(admin, cluster).await?));
            if let [source, dest] = after.as_slice() {
                path.push_str(&format!("&after_source={source}&after_dest={dest}"));
            }
            (admin.get(&path).await?, pairs)
        }
    })
}

fn wish(name: Option<&str>, figures: &ClusterFigures) -> Value {
    let overcommit =
        [("vcpus_percent", figures.vcpus), ("memory_percent", figures.memory), ("disk_percent", figures.disk)];
    let overcommit: serde_json::Map<String, Value> =
        overcommit.into_iter().filter_map(|(key, percent)| Some((key.to_owned(), json!(percent?)))).collect();
    let mut wish = json!({ "overcommit": overcommit });
    let texts = [("name", name), ("zone", figures.zone.as_deref()), ("description", figures.description.as_deref())];
    for (key, value) in texts.into_iter().chain([("placement", figures.placement.as_deref())]) {
        if let Some(value) = value {
            wish[key] = json!(value);
        }
    }
    json!({ "cluster": wish })
}

/// The id of the cluster with this name or id.
pub async fn id_of(admin: &Session, cluster: &str) -> Result<String> {
    match admin.find("/arcus/v1/clusters", "clusters", cluster).await? {
        Some(found) => Ok(text(&found["id"])),
        None if cluster.len() == 36 => Ok(cluster.to_owned()),
        None => bail!("there is no cluster called {cluster}: see arcus cluster list"),
    }
}

fn ratio(percent: &Value) -> String {
    format!("{:.2}", percent.as_u64().unwrap_or(0) as f64 / 100.0)
}

fn list(told: &Value) -> String {
    let mut out = format!(
        "{:<20} {:<12} {:>5} {:>6} {:>7} {:>6} {:<7}\n",
        "cluster", "zone", "nodes", "vcpus", "memory", "disk", "placement"
    );
    for one in told["clusters"].as_array().into_iter().flatten() {
        let figures = &one["overcommit"];
        let line = format!(
            "{:<20} {:<12} {:>5} {:>6} {:>7} {:>6} {:<7}",
            text(&one["name"]),
            text(&one["zone"]),
            one["nodes"],
            ratio(&figures["vcpus_percent"]),
            ratio(&figures["memory_percent"]),
            ratio(&figures["disk_percent"]),
            text(&one["placement"])
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn words(list: &Value) -> String {
    let all: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(" ") }
}

fn whole(told: &Value) -> String {
    let one = &told["cluster"];
    let mut out = String::new();
    let mut put = |key: &str, value: String| {
        out.push_str(format!("{key:<14} {value}").trim_end());
        out.push('\n');
    };
    let claimed = |what: &str, unit: &str, percent: &str| {
        let figures = &one[what];
        let ratio = ratio(&one["overcommit"][percent]);
        format!("{} of {}{unit} claimed, overcommit {ratio}", figures["claimed"], figures["claimable"])
    };
    put("id", text(&one["id"]));
    put("name", text(&one["name"]));
    put("zone", text(&one["zone"]));
    put("description", text(&one["description"]));
    put("placement", text(&one["placement"]));
    put("nodes", one["nodes"].to_string());
    put("vcpus", claimed("vcpus", "", "vcpus_percent"));
    put("memory", claimed("memory_mib", " MiB", "memory_percent"));
    put("disk", claimed("disk_gib", " GiB", "disk_percent"));
    let moves = &one["live_migration"];
    put("moves", format!("between {} of {} pairs of nodes", moves["possible"], moves["pairs"]));
    for (reason, times) in moves["hindered_by"].as_object().into_iter().flatten() {
        put("", format!("{times} hindered by {reason}"));
    }
    let base = &one["baseline"];
    for key in ["architectures", "vendors", "models", "accelerators", "qemu_releases", "machines", "features"] {
        put(key, words(&base[key]));
    }
    put("some have", words(&base["features_of_some"]));
    out
}

fn cost(told: &Value) -> String {
    let one = &told["candidate"];
    let mut out = format!("{} with {} other nodes\n", text(&one["node"]), one["other_nodes"]);
    let nodes = |of: &Value| {
        let named: Vec<&str> = of["nodes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let more = of["nodes_count"].as_u64().unwrap_or(0).saturating_sub(named.len() as u64);
        format!("{}{}", named.join(", "), if more > 0 { format!(" and {more} more") } else { String::new() })
    };
    for hindrance in one["hindrances"].as_array().into_iter().flatten() {
        let force = if hindrance["forcible"] == true { "; --force takes it" } else { "" };
        out.push_str(&format!(
            "{}: {} ({}{force})\n",
            text(&hindrance["name"]),
            text(&hindrance["message"]),
            nodes(hindrance)
        ));
    }
    let mut lost_by: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for lost in one["features_lost"].as_array().into_iter().flatten() {
        lost_by.entry(nodes(lost)).or_default().push(lost["feature"].as_str().unwrap_or_default());
    }
    for (nodes, features) in lost_by {
        out.push_str(&format!("no longer common, though {nodes} have it: {}\n", features.join(" ")));
    }
    if one["features_unused"].as_array().is_some_and(|all| !all.is_empty()) {
        out.push_str(&format!("not all others have {}\n", words(&one["features_unused"])));
    }
    if one["fits"] == true {
        out.push_str("guests can move between it and all others\n");
    }
    out
}

fn pairs(told: &Value) -> String {
    let mut out = String::new();
    for pair in told["pairs"].as_array().into_iter().flatten() {
        let reasons = pair["reasons"].as_array().into_iter().flatten();
        let reasons: Vec<String> = reasons.map(|r| format!("{}: {}", text(&r["name"]), text(&r["message"]))).collect();
        let said = if reasons.is_empty() { "yes".to_owned() } else { format!("no, {}", reasons.join("; ")) };
        out.push_str(&format!("{} to {}: {said}\n", text(&pair["source"]), text(&pair["dest"])));
    }
    let next = &told["next"];
    if next.is_object() {
        out.push_str(&format!("more: --after {} {}\n", text(&next["after_source"]), text(&next["after_dest"])));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_told_by_name() {
        let reasons = json!([{ "name": "accelerator", "message": "it runs guests with tcg, the source with kvm" }]);
        let told = json!({ "pairs": [
            { "source": "n1", "dest": "n2", "possible": true, "reasons": [] },
            { "source": "n1", "dest": "n3", "possible": false, "reasons": reasons },
        ], "next": { "after_source": "n1", "after_dest": "n3" } });
        let text = pairs(&told);
        assert_eq!(
            text,
            "n1 to n2: yes\nn1 to n3: no, accelerator: it runs guests with tcg, the source with kvm\nmore: --after n1 n3\n"
        );
    }

    #[test]
    fn what_a_candidate_costs_is_told_once_for_all_nodes_that_lose_it() {
        let lost = |feature: &str| json!({ "feature": feature, "nodes": ["n1", "n2"], "nodes_count": 5 });
        let hindrance = json!({ "name": "qemu_release", "message": "it has QEMU 8.2, the source 7.2", "forcible": true,
            "nodes": ["n1"], "nodes_count": 1 });
        let told = json!({ "candidate": { "node": "n9", "other_nodes": 5, "fits": false, "hindrances": [hindrance],
            "features_lost": [lost("avx"), lost("avx2")], "features_unused": ["sha_ni"] } });
        assert_eq!(
            cost(&told),
            "n9 with 5 other nodes\nqemu_release: it has QEMU 8.2, the source 7.2 (n1; --force takes it)\n\
             no longer common, though n1, n2 and 3 more have it: avx avx2\nnot all others have sha_ni\n"
        );
    }

    #[test]
    fn a_wish_says_only_what_was_typed() {
        let figures = ClusterFigures { vcpus: Some(400), placement: Some("pack".into()), ..ClusterFigures::default() };
        let wished = json!({ "cluster": { "overcommit": { "vcpus_percent": 400 }, "placement": "pack" } });
        assert_eq!(wish(None, &figures), wished);
    }
}
