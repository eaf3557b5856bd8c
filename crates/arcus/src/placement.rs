//! `arcus placement`: asks the running cloud why a server is where it is, why it is not elsewhere, and where one could go.

use crate::cli::{Placement, PlacementCommand, PlacementExplain, PlacementWhy};
use crate::session::Session;
use anyhow::{Result, bail};
use serde_json::{Value, json};

/// Runs the command.
pub fn placement(options: Placement) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let admin = Session::admin(&options.home.home).await?;
        let answer = match &options.command {
            PlacementCommand::Why(why) => ask_why(&admin, why).await?,
            PlacementCommand::Explain(wish) => ask_explain(&admin, wish).await?,
        };
        if options.json {
            println!("{}", serde_json::to_string_pretty(&answer)?);
        } else {
            print!("{}", told(&answer));
        }
        Ok(())
    })
}

/// The id of the server with this name or id.
pub async fn server_named(admin: &Session, name: &str) -> Result<String> {
    let found = admin.get(&format!("/compute/v2.1/servers?all_tenants=1&name={name}")).await?;
    let named: Vec<&Value> =
        found["servers"].as_array().into_iter().flatten().filter(|one| one["name"] == *name).collect();
    match named.as_slice() {
        [] => Ok(name.to_owned()),
        [one] => Ok(one["id"].as_str().unwrap_or_default().to_owned()),
        several => bail!("{} servers are called {name}: say which by its id", several.len()),
    }
}

async fn ask_why(admin: &Session, why: &PlacementWhy) -> Result<Value> {
    let id = server_named(admin, &why.server).await?;
    let query = why.node.as_ref().map_or_else(String::new, |node| format!("?node={node}"));
    Ok(admin.get(&format!("/arcus/v1/servers/{id}/placement{query}")).await?["placement"].take())
}

async fn ask_explain(admin: &Session, wish: &PlacementExplain) -> Result<Value> {
    let all = json!({
        "flavor": wish.flavor, "vcpus": wish.vcpus, "memory_mib": wish.memory, "disk_gib": wish.disk,
        "availability_zone": wish.zone, "group": wish.group, "image": wish.image, "node": wish.node,
    });
    Ok(admin.post("/arcus/v1/placement/explain", json!({ "placement": all })).await?["placement"].take())
}

/// An answer in words and a table.
fn told(answer: &Value) -> String {
    let mut out = String::new();
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    if answer.get("server_id").is_some() {
        out.push_str(&format!("server  {}\nnode    {}\n", word(&answer["server_id"]), word(&answer["node"])));
    }
    if let Some(occasion) = answer["occasion"].as_str() {
        out.push_str(&format!("placed  by {occasion}, {}\n", word(&answer["decided_at"])));
    }
    out.push_str(&format!("{}\n", word(&answer["text"])));
    if let Some(why_not) = answer["why_not"]["text"].as_str() {
        out.push_str(&format!("{why_not}\n"));
        if let Some(blocker) = answer["why_not"]["live_migration_blocker"].as_str() {
            out.push_str(&format!("It cannot go there while it runs: {blocker}.\n"));
        }
    }
    let lists = ["looked_at", "candidates", "refused_nodes"];
    let nodes: Vec<&Value> = lists.iter().filter_map(|list| answer[*list].as_array()).flatten().collect();
    if !nodes.is_empty() {
        out.push_str(&format!(
            "\n{:<20} {:>7} {:>7} {:>6} {:>6} {:>6}\n",
            "node", "points", "memory", "vcpus", "image", "group"
        ));
    }
    for node in nodes {
        let points = |part: &str| node["weights"][part].as_u64().unwrap_or(0);
        let refusals: Vec<&str> = node["refusals"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let name = word(&node["node"]);
        if refusals.is_empty() {
            out.push_str(&format!(
                "{name:<20} {:>7} {:>7} {:>6} {:>6} {:>6}\n",
                points("total"),
                points("memory"),
                points("vcpus"),
                points("image"),
                points("group")
            ));
        } else {
            out.push_str(&format!("{name:<20} {}\n", refusals.join("; ")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_words_and_a_table() {
        let weights = json!({ "memory": 900, "vcpus": 800, "image": 400, "group": 0, "total": 2100 });
        let answer = json!({
            "text": "Of 2 nodes 1 can take it: 1 is down.",
            "candidates": [{ "node": "n1", "weights": weights }],
            "refused_nodes": [{ "node": "n2", "refusals": ["it is down"] }],
        });
        let text = told(&answer);
        assert!(text.starts_with("Of 2 nodes 1 can take it: 1 is down.\n"), "{text}");
        assert!(text.contains("n1                      2100     900    800    400      0\n"), "{text}");
        assert!(text.ends_with("n2                   it is down\n"), "{text}");
    }
}
