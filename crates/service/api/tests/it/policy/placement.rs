//! The placement API.

use super::things::Thing::{Consumer, Nothing, Provider, ProviderWord};
use super::{Case, case, walk};

const INVENTORY: &str = r#"{"total":8,"resource_provider_generation":1}"#;
const INVENTORIES: &str = r#"{"resource_provider_generation":1,"inventories":{"VGPU":{"total":8}}}"#;
const CLAIM: &str = r#"{"allocations":{"{id}":{"resources":{"VGPU":1}}},"project_id":"p","user_id":"u",
    "consumer_generation":null,"consumer_type":"TEST"}"#;
const CLAIMS: &str = r#"{"{consumer}":{"allocations":{"{id}":{"resources":{"VGPU":1}}},"project_id":"p","user_id":"u",
    "consumer_generation":1,"consumer_type":"TEST"}}"#;
const RESHAPE: &str = r#"{"inventories":{"{id}":{"resource_provider_generation":1,"inventories":{"VGPU":{"total":2}}}},
    "allocations":{}}"#;

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("GET /placement", Nothing, 200),
        case("GET /placement/", Nothing, 200),
        case("GET /placement/allocation_candidates", Provider, 200).query("resources=VGPU:1"),
        case("GET /placement/resource_providers", Provider, 200),
        case("POST /placement/resource_providers", Nothing, 200).body(r#"{"name":"{fresh}"}"#),
        case("GET /placement/resource_providers/{id}", Provider, 200),
        case("PUT /placement/resource_providers/{id}", Provider, 200).body(r#"{"name":"{fresh}"}"#),
        case("DELETE /placement/resource_providers/{id}", Provider, 204),
        case("GET /placement/resource_providers/{id}/usages", Provider, 200),
        case("GET /placement/resource_providers/{id}/aggregates", Provider, 200),
        case("PUT /placement/resource_providers/{id}/aggregates", Provider, 200)
            .body(r#"{"resource_provider_generation":1,"aggregates":[]}"#),
        case("GET /placement/resource_providers/{id}/traits", Provider, 200),
        case("PUT /placement/resource_providers/{id}/traits", Provider, 200)
            .body(r#"{"resource_provider_generation":1,"traits":["HW_CPU_X86_AVX2"]}"#),
        case("DELETE /placement/resource_providers/{id}/traits", Provider, 204),
        case("GET /placement/resource_providers/{id}/allocations", Consumer, 200),
        case("POST /placement/reshaper", Provider, 204).body(RESHAPE),
    ];
    cases.extend(inventories());
    cases.extend(words());
    cases.extend([
        case("POST /placement/allocations", Consumer, 204).body(CLAIMS),
        case("GET /placement/allocations/{consumer_id}", Consumer, 200).with("consumer_id", "{consumer}"),
        case("PUT /placement/allocations/{consumer_id}", Provider, 204)
            .with("consumer_id", "6b2e6d0c-6f8d-4d8c-9f3e-0d9a4f0a7c11")
            .body(CLAIM),
        case("DELETE /placement/allocations/{consumer_id}", Consumer, 204).with("consumer_id", "{consumer}"),
        case("GET /placement/usages", Nothing, 200).query("project_id={project}"),
    ]);
    cases
}

fn inventories() -> Vec<Case> {
    vec![
        case("GET /placement/resource_providers/{id}/inventories", Provider, 200),
        case("POST /placement/resource_providers/{id}/inventories", Provider, 201)
            .body(r#"{"resource_class":"SRIOV_NET_VF","total":4}"#),
        case("PUT /placement/resource_providers/{id}/inventories", Provider, 200).body(INVENTORIES),
        case("DELETE /placement/resource_providers/{id}/inventories", Provider, 204),
        case("GET /placement/resource_providers/{id}/inventories/{class}", Provider, 200).with("class", "VGPU"),
        case("PUT /placement/resource_providers/{id}/inventories/{class}", Provider, 200)
            .with("class", "VGPU")
            .body(INVENTORY),
        case("DELETE /placement/resource_providers/{id}/inventories/{class}", Provider, 204).with("class", "VGPU"),
    ]
}

fn words() -> Vec<Case> {
    vec![
        case("GET /placement/resource_classes", Nothing, 200),
        case("POST /placement/resource_classes", Nothing, 201).body(r#"{"name":"CUSTOM_FIRST"}"#),
        case("GET /placement/resource_classes/{name}", Nothing, 200).with("name", "VCPU"),
        case("PUT /placement/resource_classes/{name}", Nothing, 201).with("name", "CUSTOM_SECOND"),
        case("DELETE /placement/resource_classes/{name}", ProviderWord, 204).with("name", "{word}"),
        case("GET /placement/traits", Nothing, 200),
        case("GET /placement/traits/{name}", Nothing, 204).with("name", "HW_CPU_X86_AVX2"),
        case("PUT /placement/traits/{name}", Nothing, 201).with("name", "CUSTOM_THIRD"),
        case("DELETE /placement/traits/{name}", ProviderWord, 204).with("name", "{word}"),
    ]
}

#[tokio::test]
async fn providers_are_for_administrators() {
    walk(cases()).await;
}
