//! `arcus node`: the nodes of the cloud that runs here, and their maintenance.

use crate::cli::{Node, NodeCommand};
use crate::session::Session;
use crate::tasks::{print_json, text, watch};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// What nodes were measured to do, in the order in which it is shown.
const MEASURED: [(&str, &str); 6] = [
    ("cpu_thread_mib_s", "MiB/s"),
    ("cpu_all_mib_s", "MiB/s"),
    ("disk_write_mib_s", "MiB/s"),
    ("disk_flush_us", "us"),
    ("network_round_trip_us", "us"),
    ("network_mib_s", "MiB/s"),
];

/// Runs the command.
pub fn nodes(options: Node) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let admin = Session::admin(&options.home.home).await?;
        match &options.command {
            NodeCommand::List { cluster } => {
                let told = match cluster {
                    Some(cluster) => {
                        let id = crate::clusters::id_of(&admin, cluster).await?;
                        admin.get(&format!("/arcus/v1/nodes?cluster_id={id}")).await?
                    }
                    None => admin.get("/arcus/v1/nodes").await?,
                };
                if options.json {
                    return print_json(&told);
                }
                let measured = ["thread", "all", "write", "flush", "round trip", "network"];
                print!("{:<20} {:<8} {:<7}", "node", "state", "takes");
                for name in measured {
                    print!(" {name:>10}");
                }
                println!("  why");
                for node in told["nodes"].as_array().into_iter().flatten() {
                    let open = if node["enabled"] == true { "servers" } else { "none" };
                    let why = node["disabled_reason"].as_str().or(node["state_reason"].as_str()).unwrap_or_default();
                    let found = MEASURED.map(|(name, unit)| match node["measured"][name].as_u64() {
                        Some(figure) => format!(" {:>10}", format!("{figure} {unit}")),
                        None => format!(" {:>10}", "-"),
                    });
                    let (name, state) = (text(&node["name"]), text(&node["state"]));
                    let line = format!("{name:<20} {state:<8} {open:<7}{}  {why}", found.concat());
                    println!("{}", line.trim_end());
                }
                Ok(())
            }
            NodeCommand::Drain { node, plan_only, parallel, deadline, no_wait } => {
                let wish = json!({ "drain": { "parallel": parallel, "deadline_s": deadline, "plan_only": plan_only } });
                let told = admin.post(&format!("/arcus/v1/nodes/{node}/drain"), wish).await?;
                begun(&admin, &told, options.json, *plan_only || *no_wait).await
            }
            NodeCommand::Restore { node, parallel, no_wait } => {
                let wish = json!({ "restore": { "parallel": parallel } });
                let told = admin.post(&format!("/arcus/v1/nodes/{node}/restore"), wish).await?;
                begun(&admin, &told, options.json, *no_wait).await
            }
        }
    })
}

/// Shows the plan, and follows what was begun.
async fn begun(admin: &Session, told: &Value, json: bool, at_once: bool) -> Result<()> {
    if json {
        print_json(told)?;
    } else {
        servers(told);
    }
    if at_once {
        return Ok(());
    }
    let id = told["task"]["id"].as_str().context("the answer has no task")?;
    let ended = watch(admin, id, json).await;
    if !json {
        servers(&admin.get(&format!("/arcus/v1/tasks/{id}/servers")).await?);
    }
    ended
}

fn servers(told: &Value) {
    let ms = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    for server in told["servers"].as_array().into_iter().flatten() {
        let (how, time, blackout) = match server["measured_ms"].as_u64() {
            Some(_) => ("took", &server["measured_ms"], &server["measured_blackout_ms"]),
            None => ("may take", &server["predicted_ms"], &server["predicted_blackout_ms"]),
        };
        let target = server["target"].as_str().unwrap_or("-");
        print!("{:<24} {:<9} to {target:<12}", text(&server["name"]), text(&server["state"]));
        match server["reason"].as_str() {
            Some(why) => println!(" {why}"),
            None => println!(" {how} {}, still for {}", ms(time), ms(blackout)),
        }
    }
}
