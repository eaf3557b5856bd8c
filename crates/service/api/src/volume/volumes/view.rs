//! A volume as each microversion shows it.

use crate::App;
use crate::microversion::Microversion;
use crate::volume::links;
use arcus_engine::volumes::VolumeView;
use arcus_store::VolumeAttachment;
use arcus_types::OpCtx;
use arcus_types::volumes::AttachmentStatus;
use serde_json::{Map, Value, json};

/// The pool of a node, as administrators see it.
pub fn pool(node: &str) -> String {
    format!("{node}@dir#dir")
}

/// A volume; `all` also shows what is left out of the answers to changes.
pub fn volume(app: &App, ctx: &OpCtx, found: &VolumeView, version: Microversion, all: bool) -> Value {
    let v = &found.volume;
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("id", json!(v.id));
    put("name", json!(v.name));
    put("description", json!(v.description));
    put("size", json!(v.size_gib));
    put("status", json!(v.status.as_str()));
    put("created_at", json!(v.created_at.iso_naive()));
    put("updated_at", json!(v.updated_at.map(|t| t.iso_naive())));
    put("availability_zone", json!(v.availability_zone));
    put("bootable", json!(if v.bootable { "true" } else { "false" }));
    put("encrypted", json!(false));
    put("multiattach", json!(v.multiattach));
    put("replication_status", Value::Null);
    put("consistencygroup_id", Value::Null);
    put("source_volid", json!(v.source_volume_id));
    put("snapshot_id", json!(v.source_snapshot_id));
    put("volume_type", json!(found.volume_type));
    put("user_id", json!(v.user_id));
    put("metadata", metadata(found));
    put("links", links::links(app, ctx, "volumes", v.id));
    let attached = |a: &&VolumeAttachment| match a.status {
        AttachmentStatus::Attached | AttachmentStatus::Detaching | AttachmentStatus::ErrorDetaching => true,
        AttachmentStatus::Reserved | AttachmentStatus::Attaching | AttachmentStatus::ErrorAttaching => false,
    };
    let attachments = found.attachments.iter().filter(attached).map(|a| attachment(a, found, ctx));
    put("attachments", Value::Array(attachments.collect()));
    put("migration_status", Value::Null);
    if all {
        put("os-vol-tenant-attr:tenant_id", json!(v.project_id));
        if let Some(image) = &v.image_metadata {
            put("volume_image_metadata", json!(image));
        }
        if ctx.is_admin() {
            put("os-vol-host-attr:host", json!(found.node.as_deref().map(pool)));
            put("os-vol-mig-status-attr:migstat", Value::Null);
            put("os-vol-mig-status-attr:name_id", Value::Null);
        }
    }
    versioned(&mut out, found, ctx, version);
    Value::Object(out)
}

/// What later microversions added.
fn versioned(out: &mut Map<String, Value>, found: &VolumeView, ctx: &OpCtx, version: Microversion) {
    let admin = ctx.is_admin();
    let mut put = |since: u16, key: &str, value: Value| {
        if version.at_least(since) {
            out.insert(key.to_owned(), value);
        }
    };
    put(13, "group_id", json!(found.volume.group_id));
    if admin {
        put(21, "provider_id", Value::Null);
        put(61, "cluster_name", Value::Null);
    }
    put(48, "service_uuid", json!(found.volume.node_id));
    put(48, "shared_targets", json!(false));
    put(63, "volume_type_id", json!(found.volume.volume_type_id));
    put(65, "consumes_quota", json!(true));
}

/// The owner's pairs, and those that tell of the read-only flag.
fn metadata(found: &VolumeView) -> Value {
    let v = &found.volume;
    let mut all = v.metadata.clone();
    if v.details.read_only_set {
        all.insert("readonly".into(), if v.read_only { "True" } else { "False" }.into());
    }
    let mode = found.attachments.iter().find(|a| a.status == AttachmentStatus::Attached).and_then(|a| a.read_only);
    if let Some(read_only) = mode {
        all.insert("attached_mode".into(), if read_only { "ro" } else { "rw" }.into());
    }
    json!(all)
}

fn attachment(a: &VolumeAttachment, found: &VolumeView, ctx: &OpCtx) -> Value {
    let node = if a.by_server && ctx.is_admin() { found.node.as_ref() } else { a.host_name.as_ref() };
    json!({
        "id": a.volume_id,
        "attachment_id": a.id,
        "volume_id": a.volume_id,
        "server_id": a.server_id,
        "host_name": node,
        "device": a.device,
        "attached_at": a.attached_at.map(|t| t.iso_naive()),
    })
}
