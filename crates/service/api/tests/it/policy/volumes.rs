//! Volumes, their snapshots and attachments.

use super::things::Thing::{Attachment, Nothing, Volume, VolumeAfter, VolumeGroup, VolumeSnapshot};
use super::{Case, case, walk};
use arcus_types::policy::volume as policy;

pub fn cases() -> Vec<Case> {
    let mut cases = volumes();
    cases.extend(volume_actions());
    cases.extend(volume_notes());
    cases.extend(snapshots());
    cases.extend(attachments());
    cases
}

fn volumes() -> Vec<Case> {
    vec![
        case("GET /volume/v3/volumes", Volume, 200),
        case("GET /volume/v3/volumes", Volume, 200).query("all_tenants=1&project_id={project}"),
        case("POST /volume/v3/volumes", Nothing, 202).body(r#"{"volume":{"size":1,"name":"{fresh}"}}"#),
        case("POST /volume/v3/volumes", Nothing, 202).body(r#"{"volume":{"size":1,"imageRef":"{image}"}}"#),
        case("POST /volume/v3/volumes", VolumeSnapshot, 202).body(r#"{"volume":{"snapshot_id":"{id}"}}"#),
        case("POST /volume/v3/volumes", Volume, 202).body(r#"{"volume":{"source_volid":"{id}"}}"#),
        case("POST /volume/v3/volumes", VolumeGroup, 202)
            .at("3.13")
            .body(r#"{"volume":{"size":1,"volume_type":"dir","group_id":"{id}"}}"#),
        case("GET /volume/v3/volumes/detail", Volume, 200),
        case("GET /volume/v3/volumes/summary", Nothing, 200).at("3.36"),
        case("GET /volume/v3/volumes/{id}", Volume, 200),
        case("PUT /volume/v3/volumes/{id}", Volume, 200).body(r#"{"volume":{"name":"{fresh}"}}"#),
        case("DELETE /volume/v3/volumes/{id}", Volume, 202),
        case("GET /volume/v3/volumes/{id}/metadata", Volume, 200),
        case("POST /volume/v3/volumes/{id}/metadata", Volume, 200).body(r#"{"metadata":{"a":"1"}}"#),
        case("PUT /volume/v3/volumes/{id}/metadata", Volume, 200).body(r#"{"metadata":{"a":"1"}}"#),
        case("GET /volume/v3/volumes/{id}/metadata/{key}", Volume, 200).with("key", "k"),
        case("PUT /volume/v3/volumes/{id}/metadata/{key}", Volume, 200).with("key", "k").body(r#"{"meta":{"k":"w"}}"#),
        case("DELETE /volume/v3/volumes/{id}/metadata/{key}", Volume, 200).with("key", "k"),
    ]
}

fn volume_actions() -> Vec<Case> {
    let act = |thing, success, body| case("POST /volume/v3/volumes/{id}/action", thing, success).body(body);
    vec![
        act(Volume, 202, r#"{"os-volume_upload_image":{"image_name":"{fresh}"}}"#).rule(policy::VOLUME_UPLOAD.rule),
        act(Volume, 202, r#"{"os-extend":{"new_size":2}}"#).rule(policy::VOLUME_EXTEND.rule),
        act(Volume, 202, r#"{"os-reset_status":{"status":"error"}}"#).rule(policy::VOLUME_RESET_STATUS.rule),
        act(Volume, 202, r#"{"os-force_delete":{}}"#).rule(policy::VOLUME_FORCE_DELETE.rule),
        act(Volume, 200, r#"{"os-set_bootable":{"bootable":true}}"#).rule(policy::VOLUME_UPDATE.rule),
        act(Volume, 202, r#"{"os-update_readonly_flag":{"readonly":true}}"#).rule(policy::VOLUME_UPDATE.rule),
        act(Volume, 200, r#"{"os-set_image_metadata":{"metadata":{"a":"b"}}}"#)
            .rule(policy::VOLUME_METADATA_WRITE.rule),
        act(VolumeAfter(&["image"]), 200, r#"{"os-unset_image_metadata":{"key":"k"}}"#)
            .rule(policy::VOLUME_METADATA_WRITE.rule),
        act(Volume, 200, r#"{"os-show_image_metadata":{}}"#).rule(policy::VOLUME_SHOW.rule),
        act(VolumeSnapshot, 202, r#"{"revert":{"snapshot_id":"{snapshot}"}}"#)
            .at("3.40")
            .with("id", "{volume}")
            .rule(policy::VOLUME_REVERT.rule),
        act(Volume, 202, r#"{"os-reimage":{"image_id":"{image}"}}"#).at("3.68").rule(policy::VOLUME_REIMAGE.rule),
        act(Volume, 400, r#"{"os-retype":{"new_type":"dir"}}"#)
            .rule(policy::VOLUME_UPDATE.rule)
            .because("it has this type already"),
    ]
}

fn volume_notes() -> Vec<Case> {
    const ATTACHED: super::Thing = VolumeAfter(&["os-attach"]);
    let act = |thing, success, body| case("POST /volume/v3/volumes/{id}/action", thing, success).body(body);
    vec![
        act(Volume, 202, r#"{"os-reserve":null}"#),
        act(VolumeAfter(&["os-reserve"]), 202, r#"{"os-unreserve":null}"#),
        act(Volume, 202, r#"{"os-attach":{"host_name":"h","mountpoint":"/dev/vdc"}}"#),
        act(ATTACHED, 202, r#"{"os-detach":{}}"#),
        act(ATTACHED, 202, r#"{"os-begin_detaching":null}"#),
        act(VolumeAfter(&["os-attach", "os-begin_detaching"]), 202, r#"{"os-roll_detaching":null}"#),
        act(ATTACHED, 202, r#"{"os-force_detach":{}}"#).rule(policy::VOLUME_DETACH_FORCED.rule),
        act(Volume, 200, r#"{"os-initialize_connection":{"connector":{}}}"#),
        act(Volume, 202, r#"{"os-terminate_connection":{"connector":{}}}"#),
    ]
}

fn snapshots() -> Vec<Case> {
    let act = |body| case("POST /volume/v3/snapshots/{id}/action", VolumeSnapshot, 202).body(body);
    vec![
        case("GET /volume/v3/snapshots", VolumeSnapshot, 200),
        case("GET /volume/v3/snapshots/detail", VolumeSnapshot, 200),
        case("POST /volume/v3/snapshots", Volume, 202).body(r#"{"snapshot":{"volume_id":"{id}"}}"#),
        case("GET /volume/v3/snapshots/{id}", VolumeSnapshot, 200),
        case("PUT /volume/v3/snapshots/{id}", VolumeSnapshot, 200).body(r#"{"snapshot":{"name":"{fresh}"}}"#),
        case("DELETE /volume/v3/snapshots/{id}", VolumeSnapshot, 202),
        act(r#"{"os-reset_status":{"status":"error"}}"#),
        act(r#"{"os-update_snapshot_status":{"status":"error","progress":"50%"}}"#),
        act(r#"{"os-force_delete":{}}"#),
        case("GET /volume/v3/snapshots/{id}/metadata", VolumeSnapshot, 200),
        case("POST /volume/v3/snapshots/{id}/metadata", VolumeSnapshot, 200).body(r#"{"metadata":{"a":"1"}}"#),
        case("PUT /volume/v3/snapshots/{id}/metadata", VolumeSnapshot, 200).body(r#"{"metadata":{"a":"1"}}"#),
        case("GET /volume/v3/snapshots/{id}/metadata/{key}", VolumeSnapshot, 200).with("key", "k"),
        case("PUT /volume/v3/snapshots/{id}/metadata/{key}", VolumeSnapshot, 200)
            .with("key", "k")
            .body(r#"{"meta":{"k":"w"}}"#),
        case("DELETE /volume/v3/snapshots/{id}/metadata/{key}", VolumeSnapshot, 200).with("key", "k"),
    ]
}

fn attachments() -> Vec<Case> {
    vec![
        case("GET /volume/v3/attachments", Attachment, 200).at("3.27"),
        case("GET /volume/v3/attachments/summary", Attachment, 200).at("3.27"),
        case("GET /volume/v3/attachments/detail", Attachment, 200).at("3.27"),
        case("POST /volume/v3/attachments", Volume, 200).at("3.27").body(r#"{"attachment":{"volume_uuid":"{id}"}}"#),
        case("GET /volume/v3/attachments/{id}", Attachment, 200).at("3.27"),
        case("PUT /volume/v3/attachments/{id}", Attachment, 200)
            .at("3.27")
            .body(r#"{"attachment":{"connector":{"host":"h","mountpoint":"/dev/vdb"}}}"#),
        case("DELETE /volume/v3/attachments/{id}", Attachment, 200).at("3.27"),
        case("POST /volume/v3/attachments/{id}/action", Attachment, 204).at("3.44").body(r#"{"os-complete":{}}"#),
    ]
}

#[tokio::test]
async fn volumes_snapshots_and_attachments_are_for_their_projects() {
    walk(cases()).await;
}
