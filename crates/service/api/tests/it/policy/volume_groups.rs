//! Groups of volumes and what operators of other clouds ask about backends.

use super::things::Thing::{Nothing, VolumeGroup, VolumeGroupFilled, VolumeGroupSnapshot, VolumeGroupType};
use super::{Case, case, walk};
use arcus_types::policy::volume as policy;

pub fn cases() -> Vec<Case> {
    let mut cases = group_types();
    cases.extend(groups());
    cases.extend(group_snapshots());
    cases.extend(backends());
    cases
}

fn group_types() -> Vec<Case> {
    vec![
        case("GET /volume/v3/group_types", VolumeGroupType, 200).at("3.11"),
        case("POST /volume/v3/group_types", Nothing, 202).at("3.11").body(r#"{"group_type":{"name":"{fresh}"}}"#),
        case("GET /volume/v3/group_types/{id}", VolumeGroupType, 200).at("3.11"),
        case("PUT /volume/v3/group_types/{id}", VolumeGroupType, 200)
            .at("3.11")
            .body(r#"{"group_type":{"description":"x"}}"#),
        case("DELETE /volume/v3/group_types/{id}", VolumeGroupType, 202).at("3.11"),
        case("GET /volume/v3/group_types/{id}/group_specs", VolumeGroupType, 200).at("3.11"),
        case("POST /volume/v3/group_types/{id}/group_specs", VolumeGroupType, 202)
            .at("3.11")
            .body(r#"{"group_specs":{"a":"1"}}"#),
        case("GET /volume/v3/group_types/{id}/group_specs/{key}", VolumeGroupType, 200)
            .at("3.11")
            .with("key", "colour"),
        case("PUT /volume/v3/group_types/{id}/group_specs/{key}", VolumeGroupType, 200)
            .at("3.11")
            .with("key", "colour")
            .body(r#"{"colour":"blue"}"#),
        case("DELETE /volume/v3/group_types/{id}/group_specs/{key}", VolumeGroupType, 202)
            .at("3.11")
            .with("key", "colour"),
    ]
}

fn groups() -> Vec<Case> {
    const GROUP: &str = r#"{"group":{"name":"{fresh}","group_type":"{id}","volume_types":["dir"]}}"#;
    let act = |thing, success, body| case("POST /volume/v3/groups/{id}/action", thing, success).at("3.38").body(body);
    vec![
        case("GET /volume/v3/groups", VolumeGroup, 200).at("3.13"),
        case("GET /volume/v3/groups/detail", VolumeGroupFilled, 200).at("3.58").query("list_volume=true"),
        case("POST /volume/v3/groups", VolumeGroupType, 202).at("3.13").body(GROUP),
        case("POST /volume/v3/groups/action", VolumeGroupFilled, 202)
            .at("3.14")
            .body(r#"{"create-from-src":{"name":"{fresh}","source_group_id":"{id}"}}"#),
        case("GET /volume/v3/groups/{id}", VolumeGroupFilled, 200).at("3.58").query("list_volume=true"),
        case("PUT /volume/v3/groups/{id}", VolumeGroup, 202)
            .at("3.13")
            .body(r#"{"group":{"add_volumes":"{free_volume}"}}"#),
        act(VolumeGroupFilled, 202, r#"{"delete":{"delete-volumes":true}}"#).rule(policy::GROUP_DELETE.rule),
        act(VolumeGroup, 202, r#"{"reset_status":{"status":"error"}}"#).rule(policy::GROUP_RESET_STATUS.rule),
        act(VolumeGroup, 400, r#"{"enable_replication":{}}"#).because("nothing is replicated here"),
    ]
}

fn group_snapshots() -> Vec<Case> {
    vec![
        case("GET /volume/v3/group_snapshots", VolumeGroupSnapshot, 200).at("3.29"),
        case("GET /volume/v3/group_snapshots/detail", VolumeGroupSnapshot, 200).at("3.58"),
        case("POST /volume/v3/group_snapshots", VolumeGroupFilled, 202)
            .at("3.14")
            .body(r#"{"group_snapshot":{"group_id":"{id}"}}"#),
        case("GET /volume/v3/group_snapshots/{id}", VolumeGroupSnapshot, 200).at("3.58"),
        case("DELETE /volume/v3/group_snapshots/{id}", VolumeGroupSnapshot, 202).at("3.14"),
        case("POST /volume/v3/group_snapshots/{id}/action", VolumeGroupSnapshot, 202)
            .at("3.19")
            .body(r#"{"reset_status":{"status":"error"}}"#),
    ]
}

fn backends() -> Vec<Case> {
    const HOST: &str = "host=node-1@dir";
    vec![
        case("GET /volume/v3/clusters", Nothing, 200).at("3.7"),
        case("GET /volume/v3/clusters/detail", Nothing, 200).at("3.7"),
        case("GET /volume/v3/clusters/{name}", Nothing, 404).at("3.7").with("name", "c").because("there is no cluster"),
        case("PUT /volume/v3/clusters/{name}", Nothing, 404)
            .at("3.7")
            .with("name", "disable")
            .body(r#"{"name":"c"}"#)
            .because("there is no cluster"),
        case("POST /volume/v3/workers/cleanup", Nothing, 202).at("3.24").body("{}"),
        case("GET /volume/v3/manageable_volumes", Nothing, 200).at("3.8").query(HOST),
        case("GET /volume/v3/manageable_volumes/detail", Nothing, 200).at("3.8").query(HOST),
        case("POST /volume/v3/manageable_volumes", Nothing, 400)
            .at("3.8")
            .body(r#"{"volume":{"host":"node-1@dir","ref":{"source-name":"x"}}}"#)
            .because("a pool holds nothing that the cloud does not know"),
        case("GET /volume/v3/manageable_snapshots", Nothing, 200).at("3.8").query(HOST),
        case("GET /volume/v3/manageable_snapshots/detail", Nothing, 200).at("3.8").query(HOST),
        case("POST /volume/v3/manageable_snapshots", Nothing, 400)
            .at("3.8")
            .body(r#"{"snapshot":{"volume_id":"{project}","ref":{"source-name":"x"}}}"#)
            .because("a pool holds nothing that the cloud does not know"),
    ]
}

#[tokio::test]
async fn groups_of_volumes_are_for_their_projects() {
    walk(cases()).await;
}
