//! `arcus live-migrate`: moves a server while it runs, and says before what it would take and afterwards what it took.

use crate::cli::LiveMigrate;
use crate::placement::server_named;
use crate::session::Session;
use crate::tasks::{print_json, text, watch};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// Runs the command.
pub fn live_migrate(options: LiveMigrate) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let admin = Session::admin(&options.home.home).await?;
        let path = format!("/arcus/v1/servers/{}/live-migration", server_named(&admin, &options.server).await?);
        let wish = json!({ "live_migration": {
            "node": options.node, "dry_run": options.dry_run,
            "max_blackout_ms": options.max_blackout, "deadline_s": options.deadline,
        } });
        let told = admin.post(&path, wish).await?;
        if options.dry_run {
            if options.json {
                print_json(&told)?;
            } else {
                print!("{}", planned(&told["live_migration"]));
            }
            if told["live_migration"]["possible"] == false {
                bail!("the server cannot move");
            }
            return Ok(());
        }
        let id = told["task"]["id"].as_str().context("the answer has no task")?.to_owned();
        if options.no_wait {
            if options.json {
                return print_json(&told);
            }
            println!("{id}");
            return Ok(());
        }
        watch(&admin, &id, options.json).await?;
        let over = admin.get(&format!("/arcus/v1/tasks/{id}")).await?;
        if options.json {
            return print_json(&over);
        }
        println!("{}", took(&over["task"]["detail"]));
        Ok(())
    })
}

/// Bytes in MiB, with one decimal.
fn mib(value: &Value) -> String {
    value
        .as_u64()
        .map_or_else(|| "-".to_owned(), |bytes| format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20))
}

fn planned(told: &Value) -> String {
    let mut out = format!("{} to {}\n", text(&told["source"]), text(&told["target"]));
    for blocker in told["blockers"].as_array().into_iter().flatten() {
        out.push_str(&format!("cannot: {} ({})\n", text(&blocker["text"]), text(&blocker["name"])));
    }
    let (guest, move_) = (&told["measured"], &told["prediction"]);
    if guest.is_object() {
        let dirty = mib(&guest["dirty_bytes_per_s"]);
        let (memory, disk) = (mib(&guest["memory_bytes"]), mib(&guest["disk_bytes"]));
        out.push_str(&format!(
            "the guest has {memory} of memory, of which it changes {dirty} a second, and {disk} on disks\n"
        ));
    }
    if move_.is_object() {
        out.push_str(&format!(
            "about {} ms for {}, standing still for {} ms ({}, {} a second, from {} moves)\n",
            text(&move_["total_ms"]),
            mib(&move_["bytes"]),
            text(&move_["blackout_ms"]),
            text(&move_["strategy"]),
            mib(&move_["bytes_per_s"]),
            text(&move_["moves_measured"]),
        ));
    }
    out
}

fn took(detail: &Value) -> String {
    let sent = detail["memory_bytes"].as_u64().unwrap_or(0).saturating_add(detail["disk_bytes"].as_u64().unwrap_or(0));
    format!(
        "{} to {}: {} ms, {} sent, stood still for {} ms ({})",
        text(&detail["source"]),
        text(&detail["target"]),
        text(&detail["total_ms"]),
        mib(&json!(sent)),
        text(&detail["blackout_ms"]),
        text(&detail["strategy"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_said_by_name() {
        let told = json!({ "source": "n1", "target": null, "measured": null, "prediction": null,
            "blockers": [{ "name": "volumes", "text": "It has volumes." }] });
        assert_eq!(planned(&told), "n1 to -\ncannot: It has volumes. (volumes)\n");
    }

    #[test]
    fn bytes_are_told_in_mib() {
        assert_eq!((mib(&json!(1_572_864)), mib(&Value::Null)), ("1.5 MiB".to_owned(), "-".to_owned()));
    }
}
