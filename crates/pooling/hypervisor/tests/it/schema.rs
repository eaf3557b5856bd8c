//! Every command, argument, answer and event that the driver uses is one that this QEMU knows.

use crate::fixture::Node;
use arcus_hypervisor::Hypervisor;
use arcus_types::agent::DeviceModel;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Command, arguments that we send, members of the answer that we read.
const COMMANDS: &[(&str, &[&str], &[&str])] = &[
    ("add-fd", &["opaque"], &["fdset-id", "fd"]),
    ("add_client", &["protocol", "fdname", "skipauth"], &[]),
    ("block-export-add", &["type", "id", "node-name"], &[]),
    ("block-job-cancel", &["device", "force"], &[]),
    ("blockdev-add", &["driver", "node-name", "discard", "read-only"], &[]),
    ("blockdev-backup", &["job-id", "device", "target", "sync", "auto-dismiss"], &[]),
    ("blockdev-del", &["node-name"], &[]),
    ("blockdev-mirror", &["job-id", "device", "target", "sync", "copy-mode", "on-target-error"], &[]),
    (
        "block_set_io_throttle",
        &["id", "bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr", "bps_max", "iops_wr_max", "iops_size"],
        &[],
    ),
    ("block_resize", &["node-name", "size"], &[]),
    ("blockdev-snapshot-delete-internal-sync", &["device", "name"], &[]),
    ("blockdev-snapshot-internal-sync", &["device", "name"], &[]),
    ("calc-dirty-rate", &["calc-time"], &[]),
    ("cont", &[], &[]),
    ("device_del", &["id"], &[]),
    ("getfd", &["fdname"], &[]),
    ("job-cancel", &["id"], &[]),
    ("job-dismiss", &["id"], &[]),
    ("migrate", &["uri"], &[]),
    ("migrate-incoming", &["uri"], &[]),
    ("migrate-continue", &["state"], &[]),
    ("migrate-set-capabilities", &["capabilities"], &[]),
    ("migrate-set-parameters", &["max-bandwidth", "downtime-limit", "tls-creds"], &[]),
    ("migrate_cancel", &[], &[]),
    ("nbd-server-start", &["addr", "tls-creds"], &[]),
    ("nbd-server-stop", &[], &[]),
    ("netdev_add", &["type", "id"], &[]),
    ("netdev_del", &["id"], &[]),
    ("object-add", &["qom-type", "id"], &[]),
    ("object-del", &["id"], &[]),
    ("qmp_capabilities", &[], &[]),
    ("qom-list", &["path"], &["name"]),
    ("query-block-jobs", &[], &["device", "len", "offset", "ready"]),
    ("query-chardev", &[], &["label", "filename", "frontend-open"]),
    ("query-dirty-rate", &[], &["status", "dirty-rate"]),
    ("query-fdsets", &[], &["fdset-id", "fds"]),
    ("query-jobs", &[], &["id", "status", "error", "current-progress"]),
    ("query-migrate", &[], &["status", "error-desc", "ram", "socket-address", "cpu-throttle-percentage"]),
    ("query-named-block-nodes", &["flat"], &["node-name", "image"]),
    ("query-status", &[], &["status"]),
    ("quit", &[], &[]),
    ("remove-fd", &["fdset-id"], &[]),
    ("stop", &[], &[]),
    ("system_powerdown", &[], &[]),
    ("system_reset", &[], &[]),
];

/// Event and its members that we read.
const EVENTS: &[(&str, &[&str])] = &[
    ("BLOCK_IO_ERROR", &["reason"]),
    ("DEVICE_DELETED", &["device"]),
    ("GUEST_PANICKED", &[]),
    ("JOB_STATUS_CHANGE", &[]),
    ("RESET", &[]),
    ("RESUME", &[]),
    ("SHUTDOWN", &["guest", "reason"]),
    ("STOP", &[]),
];

/// Enumeration, found by a member that no other has, and its values that mean something to us.
const VALUES: &[(&str, &[&str])] = &[
    (
        "guest-panicked",
        &["running", "paused", "prelaunch", "io-error", "inmigrate", "postmigrate", "shutdown", "internal-error"],
    ),
    ("guest-shutdown", &["guest-panic"]),
    ("concluded", &["running"]),
    ("postcopy-active", &["completed", "failed", "cancelled", "cancelling", "pre-switchover", "device"]),
];

struct Schema(HashMap<String, Value>);

impl Schema {
    fn members(&self, name: &str) -> Vec<String> {
        let mut entity = &self.0[name];
        while entity["meta-type"] == "array" {
            entity = &self.0[entity["element-type"].as_str().unwrap()];
        }
        let members = entity["members"].as_array().into_iter().flatten();
        members.filter_map(|member| Some(member["name"].as_str()?.to_owned())).collect()
    }

    fn demand(&self, of: &str, part: &str, members: &[&str]) {
        if members.is_empty() {
            return;
        }
        let have = self.members(self.0[of][part].as_str().unwrap());
        for member in members {
            assert!(have.iter().any(|name| name == member), "{of} has no '{member}' in its {part}: {have:?}");
        }
    }
}

#[tokio::test]
async fn this_qemu_knows_every_command_event_and_value_that_we_use() {
    let node = Node::new();
    let driver = node.driver();
    let launch = node.empty(DeviceModel::Virtio);
    let server = launch.server;
    driver.start(launch).await.unwrap();
    let schema = driver.command(server, "query-qmp-schema", json!({})).await.unwrap();
    driver.kill(server).await.unwrap();
    let entities = schema.as_array().unwrap().iter();
    let schema = Schema(entities.map(|e| (e["name"].as_str().unwrap().to_owned(), e.clone())).collect());

    for (command, arguments, answers) in COMMANDS {
        assert!(schema.0.contains_key(*command), "QEMU has no command {command}");
        schema.demand(command, "arg-type", arguments);
        schema.demand(command, "ret-type", answers);
    }
    for (event, members) in EVENTS {
        assert!(schema.0.contains_key(*event), "QEMU has no event {event}");
        schema.demand(event, "arg-type", members);
    }
    for (known_by, values) in VALUES {
        let has = |e: &&Value, value: &str| e["values"].as_array().is_some_and(|all| all.iter().any(|v| v == value));
        let of_kind = schema.0.values().filter(|e| e["meta-type"] == "enum" && has(e, known_by));
        let fits = of_kind.into_iter().any(|e| values.iter().all(|value| has(&e, value)));
        assert!(fits, "no enumeration has {known_by} and all of {values:?}");
    }
}

/// The table above is of no use unless it holds what the code says.
#[test]
fn the_table_lists_every_command_in_the_code() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![folder.join("qemu.rs")];
    files.extend(std::fs::read_dir(folder.join("qemu")).unwrap().map(|entry| entry.unwrap().path()));
    let mut seen = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for call in [".run(\"", ".run_within(\"", ".run_with_fd(\""] {
            for rest in text.split(call).skip(1) {
                let command = rest.split('"').next().unwrap();
                seen += 1;
                let listed = command == "device_add" || COMMANDS.iter().any(|(name, ..)| *name == command);
                assert!(listed, "{command} of {} is not in the table", file.display());
            }
        }
    }
    assert!(seen >= COMMANDS.len(), "only {seen} commands were found in the code");
}
