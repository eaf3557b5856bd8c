//! A server as each microversion shows it.

use crate::App;
use crate::compute::links;
use crate::microversion::Microversion;
use arcus_engine::servers::{AddressView, NodeStanding, ServerView};
use arcus_store::{Server, ServerFlavor, VolumeAttachment};
use arcus_types::ProjectId;
use arcus_types::nodes::NodeState;
use arcus_types::servers::{PowerState, ServerState};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// How an answer is to look.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The microversion.
    pub version: Microversion,
    /// Whether the caller is an administrator.
    pub admin: bool,
    /// Whether all attributes are shown, or only those of the first API.
    pub full: bool,
    /// Whether the server's groups are shown, from 2.71 on.
    pub groups: bool,
}

/// The word for who partitions the disk.
pub const fn disk_config(manual: bool) -> &'static str {
    if manual { "MANUAL" } else { "AUTO" }
}

/// A server.
pub fn server(app: &App, found: &ServerView, shape: Shape) -> Value {
    let mut out = core(app, found, shape);
    versioned(&mut out, found, shape);
    if shape.full {
        extended(&mut out, found, shape);
        if shape.admin {
            for_administrators(&mut out, found, shape);
        }
        if shape.version.at_least(90) {
            out.insert("OS-EXT-SRV-ATTR:hostname".into(), json!(found.server.details.hostname));
        }
    }
    Value::Object(out)
}

/// The attributes of the first API.
fn core(app: &App, found: &ServerView, shape: Shape) -> Map<String, Value> {
    let s = &found.server;
    let id = s.id.to_string();
    let status = s.state.status(s.task);
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("id", json!(id));
    put("name", json!(s.name));
    put("status", json!(status));
    put("tenant_id", json!(s.project_id));
    put("user_id", json!(s.user_id));
    put("metadata", json!(s.metadata));
    put("hostId", json!(found.node.as_ref().map_or_else(String::new, |node| host_id(s.project_id, &node.name))));
    put("image", image(app, s, shape.version));
    put("flavor", flavor(app, &s.flavor, shape.version));
    put("created", json!(s.created_at.iso_seconds()));
    put("updated", json!(s.updated_at.iso_seconds()));
    put("addresses", Value::Object(addresses(found, shape.full)));
    put("accessIPv4", json!(s.details.access_ip_v4.map_or_else(String::new, |a| a.to_string())));
    put("accessIPv6", json!(s.details.access_ip_v6.map_or_else(String::new, |a| a.to_string())));
    put("links", links::links(app, "servers", &id));
    put("OS-DCF:diskConfig", json!(disk_config(s.details.disk_config_manual)));
    if matches!(status, "ACTIVE" | "BUILD" | "REBUILD" | "RESIZE" | "VERIFY_RESIZE" | "MIGRATING") {
        put("progress", json!(s.progress));
    }
    if let Some(node) = down(found) {
        // Others learn that it is so, but not what its node is called.
        let name = if shape.admin { node.name.as_str() } else { "The server's node" };
        let what = match node.state {
            NodeState::Dead => "was declared dead",
            NodeState::Up | NodeState::Suspect | NodeState::Back | NodeState::Lost => "is not heard of",
        };
        let usual = "It goes on when its node is back, or is evacuated by an operator.";
        let then = s.details.recovery.as_deref().unwrap_or(usual);
        let message = format!("{name} {what}: the server cannot be reached. {then}");
        put("fault", json!({ "code": 503, "created": node.state_at.iso_seconds(), "message": message }));
    } else if let (Some(fault), true) = (&s.fault, matches!(s.state, ServerState::Error | ServerState::Deleted)) {
        let mut shown = json!({ "code": fault.code, "created": fault.at.iso_seconds(), "message": fault.message });
        if shape.admin && !fault.details.is_empty() {
            shown["details"] = json!(fault.details);
        }
        put("fault", shown);
    }
    out
}

/// The server's node, if it is down.
fn down(found: &ServerView) -> Option<&NodeStanding> {
    found.node.as_ref().filter(|node| !node.alive && found.server.deleted_at.is_none())
}

/// What later microversions added to every form of a server.
fn versioned(out: &mut Map<String, Value>, found: &ServerView, shape: Shape) {
    let s = &found.server;
    let v = shape.version;
    let mut put = |since: u16, key: &str, value: Value| {
        if v.at_least(since) {
            out.insert(key.to_owned(), value);
        }
    };
    put(9, "locked", json!(s.locked));
    put(19, "description", json!(s.details.description));
    put(26, "tags", json!(found.tags));
    put(63, "trusted_image_certificates", Value::Null);
    if shape.groups {
        put(71, "server_groups", json!(s.server_group_id.iter().collect::<Vec<_>>()));
    }
    put(73, "locked_reason", json!(s.details.locked_reason));
    put(96, "pinned_availability_zone", json!(s.details.zone_asked));
}

/// What extensions of old added, for everybody.
fn extended(out: &mut Map<String, Value>, found: &ServerView, shape: Shape) {
    let s = &found.server;
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("OS-EXT-AZ:availability_zone", json!(s.availability_zone));
    put("OS-EXT-STS:task_state", json!(s.task.map(|t| t.task_state())));
    put("OS-EXT-STS:vm_state", json!(s.state.text()));
    // What its guest does on a node that is down is not known.
    let power_state = if down(found).is_some() { PowerState::NoState } else { s.power_state };
    put("OS-EXT-STS:power_state", json!(power_state.number()));
    put("OS-SRV-USG:launched_at", json!(s.launched_at.map(links::naive)));
    put("OS-SRV-USG:terminated_at", json!(s.deleted_at.map(links::naive)));
    put("config_drive", json!(if s.details.config_drive { "True" } else { "" }));
    put("key_name", json!(s.details.key_name));
    let volume = |a: &VolumeAttachment| {
        let mut out = json!({ "id": a.volume_id });
        if shape.version.at_least(3) {
            out["delete_on_termination"] = json!(a.delete_on_termination);
        }
        out
    };
    put("os-extended-volumes:volumes_attached", found.volumes.iter().map(volume).collect());
    if !found.security_groups.is_empty() {
        let groups: Vec<Value> = found.security_groups.iter().map(|name| json!({ "name": name })).collect();
        put("security_groups", json!(groups));
    }
    if shape.version.at_least(16) && shape.admin {
        let status = match &found.node {
            Some(NodeStanding { state: NodeState::Dead, .. }) => "DOWN",
            Some(NodeStanding { enabled: false, .. }) => "MAINTENANCE",
            Some(NodeStanding { alive: true, .. }) => "UP",
            Some(NodeStanding { alive: false, .. }) => "UNKNOWN",
            None => "",
        };
        put("host_status", json!(status));
    }
}

/// What only administrators see.
fn for_administrators(out: &mut Map<String, Value>, found: &ServerView, shape: Shape) {
    let s = &found.server;
    let mut put = |key: &str, value: Value| out.insert(format!("OS-EXT-SRV-ATTR:{key}"), value);
    let node = found.node.as_ref().map(|n| n.name.as_str());
    put("host", json!(node));
    put("hypervisor_hostname", json!(node));
    put("instance_name", json!(format!("arcus-{}", s.id)));
    if shape.version.at_least(3) {
        put("reservation_id", json!(s.details.reservation_id));
        put("launch_index", json!(s.details.launch_index));
        put("hostname", json!(s.details.hostname));
        put("kernel_id", json!(""));
        put("ramdisk_id", json!(""));
        put("root_device_name", json!("/dev/vda"));
        put("user_data", json!(found.secrets.as_ref().and_then(|x| x.user_data_base64.clone())));
    }
}

fn image(app: &App, s: &Server, version: Microversion) -> Value {
    if s.details.volume_root {
        return json!("");
    }
    let id = s.image.id.to_string();
    let mut out = json!({ "id": id, "links": links::bookmark(app, "images", &id) });
    if version.at_least(98) {
        out["properties"] = json!(s.details.image_properties);
    }
    out
}

fn flavor(app: &App, flavor: &ServerFlavor, version: Microversion) -> Value {
    if !version.at_least(47) {
        let id = flavor.id.as_str();
        return json!({ "id": id, "links": links::bookmark(app, "flavors", id) });
    }
    json!({
        "vcpus": flavor.vcpus,
        "ram": flavor.memory_mib,
        "disk": flavor.disk_gib,
        "ephemeral": flavor.ephemeral_gib,
        "swap": flavor.swap_mib,
        "original_name": flavor.name,
        "extra_specs": flavor.extra_specs,
    })
}

/// The addresses by network name, with kind and Ethernet address if `extended`.
pub fn addresses(found: &ServerView, extended: bool) -> Map<String, Value> {
    let one = |a: &AddressView| {
        let mut out = json!({ "version": if a.address.is_ipv6() { 6 } else { 4 }, "addr": a.address });
        if extended {
            out["OS-EXT-IPS:type"] = json!(if a.floating { "floating" } else { "fixed" });
            out["OS-EXT-IPS-MAC:mac_addr"] = json!(a.mac.to_string());
        }
        out
    };
    found.addresses.iter().map(|(name, list)| (name.clone(), list.iter().map(one).collect())).collect()
}

/// A text that is the same for all of a project's servers on one node, and tells nothing about the node.
pub fn host_id(project: ProjectId, node: &str) -> String {
    let text = format!("{project}{node}");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA224, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut out, byte| {
        // Writing to a String does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}
