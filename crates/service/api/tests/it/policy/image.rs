//! The image API.

use super::things::Thing::{Image, ImageDeactivated, ImageOffered, ImageQueued, ImageShared, ImageStaged, Nothing};
use super::{Case, case, walk};
use arcus_types::policy::Rule;

const PATCH: (&str, &str) = ("content-type", "application/openstack-images-v2.1-json-patch");
const BYTES: (&str, &str) = ("content-type", "application/octet-stream");
const CHOICE: &str = "the list of versions is a choice, which HTTP calls 300";

pub fn cases() -> Vec<Case> {
    vec![
        case("GET /image", Nothing, 300).because(CHOICE),
        case("GET /image/", Nothing, 300).because(CHOICE),
        case("GET /image/versions", Nothing, 200),
        case("GET /image/v2", Nothing, 200),
        case("GET /image/v2/", Nothing, 200),
        case("GET /image/v2/schemas/{name}", Nothing, 200).with("name", "image"),
        case("GET /image/v2/info/stores", Nothing, 200),
        case("GET /image/v2/info/import", Nothing, 200),
        case("GET /image/v2/info/usage", Nothing, 200),
        case("GET /image/v2/images", Image, 200),
        case("GET /image/v2/images", Image, 200).query("owner={project}&visibility=all"),
        case("POST /image/v2/images", Nothing, 201).body(r#"{"name":"{fresh}"}"#),
        case("POST /image/v2/images", Nothing, 201).body(r#"{"owner":"{project}"}"#),
        case("POST /image/v2/images", Nothing, 201).body(r#"{"owner":"{admins}"}"#).rule(Rule::Admin),
        case("POST /image/v2/images", Nothing, 201).body(r#"{"visibility":"public"}"#).rule(Rule::Admin),
        case("GET /image/v2/images/{id}", Image, 200),
        case("PATCH /image/v2/images/{id}", Image, 200)
            .header(PATCH.0, PATCH.1)
            .body(r#"[{"op":"replace","path":"/name","value":"{fresh}"}]"#),
        case("PATCH /image/v2/images/{id}", Image, 200)
            .header(PATCH.0, PATCH.1)
            .body(r#"[{"op":"replace","path":"/visibility","value":"public"}]"#)
            .rule(Rule::Admin),
        case("PATCH /image/v2/images/{id}", Image, 200)
            .header(PATCH.0, PATCH.1)
            .body(r#"[{"op":"replace","path":"/owner","value":"{admins}"}]"#)
            .rule(Rule::Admin),
        case("DELETE /image/v2/images/{id}", Image, 204),
        case("POST /image/v2/images/{id}/actions/deactivate", Image, 204),
        case("POST /image/v2/images/{id}/actions/reactivate", ImageDeactivated, 204),
        case("PUT /image/v2/images/{id}/file", ImageQueued, 204).header(BYTES.0, BYTES.1).body("the bytes of a disk"),
        case("PUT /image/v2/images/{id}/stage", ImageQueued, 204).header(BYTES.0, BYTES.1).body("the bytes of a disk"),
        case("POST /image/v2/images/{id}/import", ImageStaged, 202).body(r#"{"method":{"name":"glance-direct"}}"#),
        case("GET /image/v2/images/{id}/tasks", Image, 200),
        case("GET /image/v2/images/{id}/file", Image, 200),
        case("PUT /image/v2/images/{id}/tags/{tag}", Image, 204).with("tag", "new"),
        case("DELETE /image/v2/images/{id}/tags/{tag}", Image, 204).with("tag", "t"),
        case("GET /image/v2/images/{id}/members", Image, 200),
        case("POST /image/v2/images/{id}/members", Image, 200).body(r#"{"member":"{admins}"}"#),
        case("GET /image/v2/images/{id}/members/{member}", ImageOffered, 200).with("member", "{project}"),
        case("PUT /image/v2/images/{id}/members/{member}", ImageOffered, 200)
            .with("member", "{project}")
            .body(r#"{"status":"accepted"}"#),
        case("DELETE /image/v2/images/{id}/members/{member}", ImageShared, 204).with("member", "{admins}"),
    ]
}

#[tokio::test]
async fn images_are_for_their_projects() {
    walk(cases()).await;
}
