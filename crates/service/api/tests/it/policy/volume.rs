//! The volume API.

use super::things::Thing::{Nothing, QosSpecs, Volume, VolumeRefused, VolumeTransfer, VolumeType, VolumeTypePrivate};
use super::{Case, Who, case, walk};
use arcus_types::policy::Rule;

pub fn cases() -> Vec<Case> {
    let mut cases = versions();
    cases.extend(types());
    cases.extend(limits());
    cases.extend(quotas());
    cases.extend(pools());
    cases.extend(transfers());
    cases.extend(messages());
    cases
}

fn versions() -> Vec<Case> {
    vec![
        case("GET /volume", Nothing, 300).because("a choice of versions"),
        case("GET /volume/", Nothing, 300).because("a choice of versions"),
        case("GET /volume/v3", Nothing, 200),
        case("GET /volume/v3/", Nothing, 200),
        case("GET /volume/v3/extensions", Nothing, 200),
        case("GET /volume/v3/resource_filters", Nothing, 200).at("3.33"),
    ]
}

fn types() -> Vec<Case> {
    vec![
        case("GET /volume/v3/types", VolumeType, 200),
        case("GET /volume/v3/types", VolumeTypePrivate, 200).query("is_public=none").rule(Rule::ProjectReader),
        case("POST /volume/v3/types", Nothing, 200).body(r#"{"volume_type":{"name":"{fresh}"}}"#),
        case("GET /volume/v3/types/{id}", VolumeType, 200),
        case("GET /volume/v3/types/{id}", VolumeTypePrivate, 200).rule(Rule::ProjectReader),
        case("GET /volume/v3/types/{id}", Nothing, 200).with("id", "default"),
        case("PUT /volume/v3/types/{id}", VolumeType, 200).body(r#"{"volume_type":{"description":"x"}}"#),
        case("DELETE /volume/v3/types/{id}", VolumeType, 202),
        case("GET /volume/v3/types/{id}/extra_specs", VolumeType, 200),
        case("GET /volume/v3/types/{id}/extra_specs", VolumeTypePrivate, 200).rule(Rule::ProjectReader),
        case("POST /volume/v3/types/{id}/extra_specs", VolumeType, 200).body(r#"{"extra_specs":{"a":"1"}}"#),
        case("GET /volume/v3/types/{id}/extra_specs/{key}", VolumeType, 200).with("key", "multiattach"),
        case("PUT /volume/v3/types/{id}/extra_specs/{key}", VolumeType, 200)
            .with("key", "multiattach")
            .body(r#"{"multiattach":"<is> False"}"#),
        case("DELETE /volume/v3/types/{id}/extra_specs/{key}", VolumeType, 202).with("key", "multiattach"),
        case("GET /volume/v3/types/{id}/os-volume-type-access", VolumeTypePrivate, 200),
        case("POST /volume/v3/types/{id}/action", VolumeTypePrivate, 202)
            .body(r#"{"addProjectAccess":{"project":"{elsewhere}"}}"#),
        case("GET /volume/v3/default-types", Nothing, 200).at("3.62"),
        case("PUT /volume/v3/default-types/{project_id}", VolumeType, 200)
            .at("3.62")
            .with("project_id", "{project}")
            .body(r#"{"default_type":{"volume_type":"{id}"}}"#),
        case("GET /volume/v3/default-types/{project_id}", Nothing, 200).at("3.62").with("project_id", "{project}"),
        case("DELETE /volume/v3/default-types/{project_id}", Nothing, 204).at("3.62").with("project_id", "{project}"),
        case("GET /volume/v3/qos-specs", QosSpecs, 200),
        case("POST /volume/v3/qos-specs", Nothing, 200).body(r#"{"qos_specs":{"name":"{fresh}"}}"#),
        case("GET /volume/v3/qos-specs/{id}", QosSpecs, 200),
        case("PUT /volume/v3/qos-specs/{id}", QosSpecs, 200).body(r#"{"qos_specs":{"total_iops_sec":"5"}}"#),
        case("DELETE /volume/v3/qos-specs/{id}", QosSpecs, 202),
        case("PUT /volume/v3/qos-specs/{id}/delete_keys", QosSpecs, 202).body(r#"{"keys":["total_iops_sec"]}"#),
        case("GET /volume/v3/qos-specs/{id}/associations", QosSpecs, 200),
        case("GET /volume/v3/qos-specs/{id}/associate", QosSpecs, 202).query("vol_type_id={volume_type}"),
        case("GET /volume/v3/qos-specs/{id}/disassociate", QosSpecs, 202).query("vol_type_id={volume_type}"),
        case("GET /volume/v3/qos-specs/{id}/disassociate_all", QosSpecs, 202),
    ]
}

fn limits() -> Vec<Case> {
    vec![
        case("GET /volume/v3/limits", Nothing, 200),
        case("GET /volume/v3/limits", Nothing, 200).query("project_id={project}"),
    ]
}

fn quotas() -> Vec<Case> {
    const QUOTA: &str = r#"{"quota_set":{"volumes":-1}}"#;
    vec![
        case("GET /volume/v3/os-quota-sets/{project_id}", Nothing, 200).with("project_id", "{project}"),
        case("PUT /volume/v3/os-quota-sets/{project_id}", Nothing, 200).with("project_id", "{project}").body(QUOTA),
        case("DELETE /volume/v3/os-quota-sets/{project_id}", Nothing, 200).with("project_id", "{elsewhere}"),
        case("GET /volume/v3/os-quota-sets/{project_id}/defaults", Nothing, 200).with("project_id", "{project}"),
        case("GET /volume/v3/os-quota-class-sets/{class}", Nothing, 200).with("class", "default"),
        case("PUT /volume/v3/os-quota-class-sets/{class}", Nothing, 200)
            .with("class", "default")
            .body(r#"{"quota_class_set":{"volumes":50}}"#),
    ]
}

fn pools() -> Vec<Case> {
    const ENABLE: &str = r#"{"host":"node-1@dir","binary":"cinder-volume"}"#;
    vec![
        case("GET /volume/v3/os-availability-zone", Nothing, 200),
        case("GET /volume/v3/os-services", Nothing, 200),
        case("PUT /volume/v3/os-services/{verb}", Nothing, 200).with("verb", "enable").body(ENABLE),
        case("GET /volume/v3/scheduler-stats/get_pools", Nothing, 200).query("detail=true"),
        case("GET /volume/v3/capabilities/{host}", Nothing, 200).with("host", "node-1@dir"),
        case("GET /volume/v3/os-hosts", Nothing, 200),
        case("GET /volume/v3/os-hosts/{host}", Nothing, 200).with("host", "node-1@dir"),
    ]
}

fn transfers() -> Vec<Case> {
    // Whoever knows the key may accept: that is what it is for.
    const KEY: &str = r#"{"accept":{"auth_key":"{key}"}}"#;
    const OFFER: &str = r#"{"transfer":{"volume_id":"{id}"}}"#;
    vec![
        case("GET /volume/v3/os-volume-transfer", VolumeTransfer, 200),
        case("GET /volume/v3/os-volume-transfer", VolumeTransfer, 200).query("all_tenants=1").rule(Rule::ProjectReader),
        case("GET /volume/v3/os-volume-transfer/detail", VolumeTransfer, 200),
        case("GET /volume/v3/os-volume-transfer/{id}", VolumeTransfer, 200),
        case("POST /volume/v3/os-volume-transfer", Volume, 202).body(OFFER),
        case("DELETE /volume/v3/os-volume-transfer/{id}", VolumeTransfer, 202),
        case("POST /volume/v3/os-volume-transfer/{id}/accept", VolumeTransfer, 202).body(KEY).also(&[Who::Stranger]),
        case("GET /volume/v3/volume-transfers", VolumeTransfer, 200).at("3.55"),
        case("GET /volume/v3/volume-transfers/detail", VolumeTransfer, 200).at("3.57"),
        case("GET /volume/v3/volume-transfers/{id}", VolumeTransfer, 200).at("3.57"),
        case("POST /volume/v3/volume-transfers", Volume, 202).at("3.55").body(OFFER),
        case("DELETE /volume/v3/volume-transfers/{id}", VolumeTransfer, 202).at("3.55"),
        case("POST /volume/v3/volume-transfers/{id}/accept", VolumeTransfer, 202)
            .at("3.55")
            .body(KEY)
            .also(&[Who::Stranger]),
    ]
}

fn messages() -> Vec<Case> {
    vec![
        case("GET /volume/v3/messages", VolumeRefused, 200).at("3.3"),
        case("GET /volume/v3/messages/{id}", VolumeRefused, 200).at("3.3"),
        case("DELETE /volume/v3/messages/{id}", VolumeRefused, 204).at("3.3"),
    ]
}

#[tokio::test]
async fn volumes_are_for_their_projects() {
    walk(cases()).await;
}
