//! Every kind of task, in an order in which each finds the server as it needs it.

use crate::world::World;
use reqwest::Method;
use serde_json::{Value, json};

/// A kind of task.
pub struct Kind {
    /// What the task is called.
    pub name: &'static str,
    /// How it is asked for.
    pub ask: fn(&World) -> (Method, String, Value),
    /// What the server's status is afterwards; before it is that of the kind before.
    pub status: &'static str,
}

const SERVERS: &str = "/compute/v2.1/servers";

macro_rules! actions {
    ($($ask:ident: $body:tt,)*) => {
        $(fn $ask(world: &World) -> (Method, String, Value) {
            (Method::POST, format!("{SERVERS}/{}/action", world.server), json!($body))
        })*
    };
}

actions! {
    start: { "os-start": null },
    stop: { "os-stop": null },
    reboot: { "reboot": { "type": "SOFT" } },
    reset: { "reboot": { "type": "HARD" } },
    pause: { "pause": null },
    unpause: { "unpause": null },
    suspend: { "suspend": null },
    resume: { "resume": null },
    rescue: { "rescue": {} },
    unrescue: { "unrescue": null },
    password: { "changePassword": { "adminPass": "Ocean-7-green" } },
    shelve: { "shelve": null },
    unshelve: { "unshelve": null },
    resize: { "resize": { "flavorRef": "2" } },
    revert_resize: { "revertResize": null },
    migrate: { "migrate": null },
    live_migrate: { "os-migrateLive": { "host": null, "block_migration": "auto" } },
    evacuate: { "evacuate": {} },
}

fn create(world: &World) -> (Method, String, Value) {
    (Method::POST, SERVERS.to_owned(), world.wish("extra"))
}

fn delete(world: &World) -> (Method, String, Value) {
    (Method::DELETE, format!("{SERVERS}/{}", world.extra), Value::Null)
}

fn volume_create(world: &World) -> (Method, String, Value) {
    let body = json!({ "volume": { "name": "tasks", "size": 1, "imageRef": world.image } });
    (Method::POST, world.volumes(), body)
}

fn volume_extend(world: &World) -> (Method, String, Value) {
    let body = json!({ "os-extend": { "new_size": 2 } });
    (Method::POST, format!("{}/{}/action", world.volumes(), world.volume), body)
}

fn volume_reimage(world: &World) -> (Method, String, Value) {
    let body = json!({ "os-reimage": { "image_id": world.image } });
    (Method::POST, format!("{}/{}/action", world.volumes(), world.volume), body)
}

fn volume_upload(world: &World) -> (Method, String, Value) {
    let body = json!({ "os-volume_upload_image": { "image_name": "snapshot", "disk_format": "raw" } });
    (Method::POST, format!("{}/{}/action", world.volumes(), world.volume), body)
}

fn volume_delete(world: &World) -> (Method, String, Value) {
    (Method::DELETE, format!("{}/{}", world.volumes(), world.volume), Value::Null)
}

fn rebuild(world: &World) -> (Method, String, Value) {
    let body = json!({ "rebuild": { "imageRef": world.image } });
    (Method::POST, format!("{SERVERS}/{}/action", world.server), body)
}

fn snapshot(world: &World) -> (Method, String, Value) {
    let body = json!({ "createImage": { "name": "snapshot" } });
    (Method::POST, format!("{SERVERS}/{}/action", world.server), body)
}

fn backup(world: &World) -> (Method, String, Value) {
    let body = json!({ "createBackup": { "name": "snapshot", "backup_type": "daily", "rotation": 1 } });
    (Method::POST, format!("{SERVERS}/{}/action", world.server), body)
}

fn drain(world: &World) -> (Method, String, Value) {
    (Method::POST, format!("/arcus/v1/nodes/{}/drain", world.node), json!({ "drain": {} }))
}

fn restore(world: &World) -> (Method, String, Value) {
    (Method::POST, format!("/arcus/v1/nodes/{}/restore", world.node), json!({ "restore": {} }))
}

const fn kind(name: &'static str, ask: fn(&World) -> (Method, String, Value), status: &'static str) -> Kind {
    Kind { name, ask, status }
}

/// All of them.
pub const KINDS: &[Kind] = &[
    kind("server-create", create, "ACTIVE"),
    kind("server-delete", delete, "ACTIVE"),
    kind("server-stop", stop, "SHUTOFF"),
    kind("server-start", start, "ACTIVE"),
    kind("server-reboot", reboot, "ACTIVE"),
    kind("server-reboot", reset, "ACTIVE"),
    kind("server-pause", pause, "PAUSED"),
    kind("server-unpause", unpause, "ACTIVE"),
    kind("server-suspend", suspend, "SUSPENDED"),
    kind("server-resume", resume, "ACTIVE"),
    kind("server-rescue", rescue, "RESCUE"),
    kind("server-unrescue", unrescue, "ACTIVE"),
    kind("server-rebuild", rebuild, "ACTIVE"),
    kind("server-password", password, "ACTIVE"),
    kind("server-snapshot", snapshot, "ACTIVE"),
    kind("server-backup", backup, "ACTIVE"),
    kind("server-shelve", shelve, "SHELVED_OFFLOADED"),
    kind("server-unshelve", unshelve, "ACTIVE"),
    kind("server-resize", resize, "VERIFY_RESIZE"),
    kind("server-revert-resize", revert_resize, "ACTIVE"),
    kind("migration", migrate, "VERIFY_RESIZE"),
    kind("server-revert-resize", revert_resize, "ACTIVE"),
    kind("live-migration", live_migrate, "ACTIVE"),
    kind("drain", drain, "ACTIVE"),
    kind("restore", restore, "ACTIVE"),
    kind("evacuation", evacuate, "ACTIVE"),
    kind("volume-create", volume_create, "ACTIVE"),
    kind("volume-extend", volume_extend, "ACTIVE"),
    kind("volume-reimage", volume_reimage, "ACTIVE"),
    kind("volume-upload", volume_upload, "ACTIVE"),
    kind("volume-delete", volume_delete, "ACTIVE"),
];
