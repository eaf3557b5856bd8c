//! The placement API: the numbers that servers are placed by, and what others keep books of.

use crate::compute::Nova;
use crate::harness::Answer;
use arcus_types::ProviderId;
use serde_json::{Value, json};

async fn ask(nova: &Nova, version: &str, method: &str, path: &str, body: Value) -> Answer {
    let version = format!("placement {version}");
    let headers = [("content-type", "application/json"), ("openstack-api-version", version.as_str())];
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
    nova.cloud.send(method, &format!("/placement{path}"), nova.cloud.admin().await, &headers, bytes).await
}

#[tokio::test]
async fn a_server_claims_what_the_placement_api_tells() {
    let nova = Nova::start().await;
    let node = format!("/resource_providers/{}", nova.node);
    let shown = ask(&nova, "1.39", "GET", &node, Value::Null).await;
    assert!(shown.header("last-modified").ends_with(" GMT"));
    assert_eq!(shown.header("openstack-api-version"), "placement 1.39");
    let shown = shown.expect(200);
    assert_eq!(shown["root_provider_uuid"], json!(nova.node));
    let before = ask(&nova, "1.0", "GET", &format!("{node}/usages"), Value::Null).await.expect(200);
    assert_eq!(before["usages"]["VCPU"], json!(0));
    let server = nova.running().await;
    let after = ask(&nova, "1.0", "GET", &format!("{node}/usages"), Value::Null).await.expect(200);
    assert_eq!(after["usages"]["VCPU"], json!(1));
    let claims = ask(&nova, "1.38", "GET", &format!("/allocations/{server}"), Value::Null).await.expect(200);
    assert_eq!(claims["consumer_type"], json!("INSTANCE"));
    assert_eq!(claims["allocations"][nova.node.to_string()]["resources"]["VCPU"], json!(1));
    let refused = ask(&nova, "1.38", "DELETE", &format!("/allocations/{server}"), Value::Null).await;
    let refused = refused.expect(409);
    assert_eq!(refused["errors"][0]["code"], json!("placement.undefined_code"));
    let by = ask(&nova, "1.38", "GET", &format!("{node}/allocations"), Value::Null).await.expect(200);
    assert!(by["allocations"][&server].is_object(), "{by}");
    let query = "/allocation_candidates?resources=VCPU:1,MEMORY_MB:64&required=COMPUTE_NODE,!COMPUTE_STATUS_DISABLED";
    let found = ask(&nova, "1.39", "GET", query, Value::Null).await.expect(200);
    let request = &found["allocation_requests"][0];
    assert_eq!(request["allocations"][nova.node.to_string()]["resources"], json!({ "MEMORY_MB": 64, "VCPU": 1 }));
    assert_eq!(request["mappings"], json!({ "": [nova.node] }));
    assert_eq!(found["provider_summaries"][nova.node.to_string()]["resources"]["VCPU"]["used"], json!(1));
    let none =
        ask(&nova, "1.39", "GET", "/allocation_candidates?resources=VCPU:1000000", Value::Null).await.expect(200);
    assert_eq!(none, json!({ "allocation_requests": [], "provider_summaries": {} }));
}

#[tokio::test]
async fn others_claim_by_generation_and_not_more_than_there_is() {
    let nova = Nova::start().await;
    let (id, consumer) = (ProviderId::random().to_string(), ProviderId::random().to_string());
    let made = ask(&nova, "1.19", "POST", "/resource_providers", json!({ "name": "pool", "uuid": id })).await;
    assert!(made.header("location").ends_with(&format!("/placement/resource_providers/{id}")));
    made.expect(201);
    let own = format!("/resource_providers/{id}");
    let again = ask(&nova, "1.23", "POST", "/resource_providers", json!({ "name": "pool" })).await.expect(409);
    assert_eq!(again["errors"][0]["code"], json!("placement.duplicate_name"));
    ask(&nova, "1.7", "PUT", "/resource_classes/CUSTOM_IRON", Value::Null).await.expect(201);
    ask(&nova, "1.7", "PUT", "/resource_classes/CUSTOM_IRON", Value::Null).await.expect(204);
    ask(&nova, "1.7", "PUT", "/resource_classes/IRON", Value::Null).await.expect(400);
    let stock = |generation: u64| {
        json!({ "resource_provider_generation": generation,
            "inventories": { "CUSTOM_IRON": { "total": 4, "allocation_ratio": 1.5, "max_unit": 4, "step_size": 2 } } })
    };
    let set = ask(&nova, "1.0", "PUT", &format!("{own}/inventories"), stock(0)).await.expect(200);
    assert_eq!(set["inventories"]["CUSTOM_IRON"]["allocation_ratio"], json!(1.5));
    let stale = ask(&nova, "1.23", "PUT", &format!("{own}/inventories"), stock(0)).await.expect(409);
    assert_eq!(stale["errors"][0]["code"], json!("placement.concurrent_update"));
    let claim = |amount: u64, generation: Value| {
        json!({ "allocations": { id.as_str(): { "resources": { "CUSTOM_IRON": amount } } }, "project_id": "p",
            "user_id": "u", "consumer_generation": generation, "consumer_type": "METAL" })
    };
    let path = format!("/allocations/{consumer}");
    ask(&nova, "1.38", "PUT", &path, claim(3, Value::Null)).await.expect(409);
    ask(&nova, "1.38", "PUT", &path, claim(4, Value::Null)).await.expect(204);
    let stale = ask(&nova, "1.38", "PUT", &path, claim(2, Value::Null)).await.expect(409);
    assert_eq!(stale["errors"][0]["code"], json!("placement.concurrent_update"));
    let other = format!("/allocations/{}", ProviderId::random());
    ask(&nova, "1.38", "PUT", &other, claim(4, Value::Null)).await.expect(409);
    ask(&nova, "1.38", "PUT", &other, claim(2, Value::Null)).await.expect(204);
    let held = ask(&nova, "1.39", "DELETE", &own, Value::Null).await.expect(409);
    assert_eq!(held["errors"][0]["code"], json!("placement.resource_provider.inuse"));
    let usages = ask(&nova, "1.38", "GET", "/usages?project_id=p", Value::Null).await.expect(200);
    assert_eq!(usages["usages"]["METAL"], json!({ "CUSTOM_IRON": 6, "consumer_count": 2 }));
    let usages = ask(&nova, "1.9", "GET", "/usages?project_id=p", Value::Null).await.expect(200);
    assert_eq!(usages["usages"], json!({ "CUSTOM_IRON": 6 }));
    ask(&nova, "1.38", "PUT", &path, claim(2, json!(1))).await.expect(204);
    ask(&nova, "1.0", "DELETE", &path, Value::Null).await.expect(204);
    ask(&nova, "1.0", "DELETE", &path, Value::Null).await.expect(404);
    ask(&nova, "1.0", "DELETE", &other, Value::Null).await.expect(204);
    ask(&nova, "1.0", "DELETE", &own, Value::Null).await.expect(204);
    ask(&nova, "1.0", "GET", &own, Value::Null).await.expect(404);
}

#[tokio::test]
async fn versions_are_honoured_and_a_foreign_one_is_told() {
    let nova = Nova::start().await;
    let no = ask(&nova, "1.99", "GET", "/resource_providers", Value::Null).await.expect(406);
    assert_eq!(no["errors"][0]["max_version"], json!("1.39"));
    ask(&nova, "1.9", "GET", "/allocation_candidates?resources=VCPU:1", Value::Null).await.expect(404);
    ask(&nova, "1.3", "GET", "/resource_providers?resources=VCPU:1", Value::Null).await.expect(400);
    ask(&nova, "1.4", "GET", "/resource_providers?resources=VCPU:1", Value::Null).await.expect(200);
    ask(&nova, "1.39", "GET", "/resource_providers?required=NO_SUCH_TRAIT", Value::Null).await.expect(400);
    let old = ask(&nova, "1.13", "GET", "/resource_providers", Value::Null).await.expect(200);
    assert!(old["resource_providers"][0].get("root_provider_uuid").is_none());
    let code = ask(&nova, "1.22", "GET", "/resource_providers/nonsense", Value::Null).await.expect(404);
    assert!(code["errors"][0].get("code").is_none() && code["errors"][0]["request_id"].is_string());
    let root = ask(&nova, "1.0", "GET", "", Value::Null).await.expect(200);
    assert_eq!(root["versions"][0]["max_version"], json!("1.39"));
}
