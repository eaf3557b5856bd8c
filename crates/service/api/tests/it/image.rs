//! The image API.

use crate::harness::{Answer, Cloud};
use futures_util::stream;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const IMAGES: &str = "/image/v2/images";
const V20: &str = "application/openstack-images-v2.0-json-patch";
const V21: &str = "application/openstack-images-v2.1-json-patch";

impl Cloud {
    /// Records an image of `demo`; its id.
    async fn image(&self, body: Value) -> String {
        let mut image = json!({ "disk_format": "raw", "container_format": "bare" });
        image.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        self.post(IMAGES, self.demo().await, image).await.expect(201)["id"].as_str().unwrap().to_owned()
    }

    async fn upload(&self, id: &str, bytes: Vec<u8>) -> Answer {
        let headers = [("content-type", "application/octet-stream")];
        self.send("PUT", &format!("{IMAGES}/{id}/file"), self.demo().await, &headers, bytes).await
    }

    async fn change(&self, id: &str, token: &str, body: Value) -> Answer {
        let body = serde_json::to_vec(&body).unwrap();
        self.send("PATCH", &format!("{IMAGES}/{id}"), token, &[("content-type", V21)], body).await
    }

    async fn shown(&self, id: &str) -> Value {
        self.get(&format!("{IMAGES}/{id}"), self.demo().await).await.expect(200)
    }

    /// The names of the images that a list shows.
    async fn names(&self, query: &str, token: &str) -> Vec<String> {
        let page = self.get(&format!("{IMAGES}{query}"), token).await.expect(200);
        page["images"].as_array().unwrap().iter().map(|image| image["name"].as_str().unwrap().to_owned()).collect()
    }

    fn image_files(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.app.engine.config().images_dir)
            .map(|dir| dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>());
        files.unwrap_or_default()
    }
}

/// Bytes that are no disk format's.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn qemu_img(folder: &Path, words: &str) {
    let done = Command::new("qemu-img").args(words.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "qemu-img {words}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn an_image_is_recorded_uploaded_and_downloaded() {
    let cloud = Cloud::start().await;
    let demo = cloud.demo().await;
    let chosen = "11111111-2222-4333-8444-555555555555";
    let body = json!({
        "id": chosen, "name": "debian", "disk_format": "raw", "container_format": "bare", "min_disk": 1, "min_ram": 128,
        "tags": ["b", "a", "b"], "os_distro": "debian", "owner_specified.openstack.md5": "",
    });
    let answer = cloud.post(IMAGES, demo, body.clone()).await;
    assert!(answer.header("location").ends_with(&format!("/image/v2/images/{chosen}")));
    let made = answer.expect(201);
    let project = cloud.id_of("projects", "demo").await;
    for (key, wanted) in [
        ("id", json!(chosen)),
        ("status", json!("queued")),
        ("visibility", json!("shared")),
        ("owner", json!(project)),
        ("tags", json!(["a", "b"])),
        ("os_distro", json!("debian")),
        ("size", Value::Null),
        ("min_ram", json!(128)),
        ("file", json!(format!("/v2/images/{chosen}/file"))),
        ("schema", json!("/v2/schemas/image")),
        ("protected", json!(false)),
        ("os_hidden", json!(false)),
        ("checksum", Value::Null),
    ] {
        assert_eq!(made[key], wanted, "{key}");
    }
    cloud.post(IMAGES, demo, body).await.expect(409);
    let file = format!("{IMAGES}/{chosen}/file");
    cloud.get(&file, demo).await.expect(204);

    let bytes = noise(3_000_000);
    cloud.upload(chosen, bytes.clone()).await.expect(204);
    let image = cloud.shown(chosen).await;
    assert_eq!((&image["status"], &image["size"]), (&json!("active"), &json!(3_000_000)));
    assert_eq!(image["virtual_size"], json!(3_000_320), "in whole sectors");
    assert_eq!(image["os_hash_algo"], "sha256");
    let sum = |program: &str| {
        let path = cloud.app.engine.config().images_dir.join(chosen);
        let out = Command::new(program).arg(path).output().unwrap().stdout;
        String::from_utf8(out).unwrap().split(' ').next().unwrap().to_owned()
    };
    assert_eq!(image["os_hash_value"], json!(sum("sha256sum")));
    assert_eq!(image["checksum"], json!(sum("md5sum")));
    let answer = cloud.get(&file, demo).await;
    assert_eq!(answer.header("content-md5"), image["checksum"]);
    assert_eq!(answer.header("content-length"), "3000000");
    assert!(answer.bytes == bytes);

    cloud.upload(chosen, bytes.clone()).await.expect(409);
    let part = cloud.send("GET", &file, demo, &[("range", "bytes=1000-1999")], "").await;
    assert_eq!((part.status.as_u16(), part.header("content-range")), (206, "bytes 1000-1999/3000000"));
    assert!(part.bytes == bytes[1000..2000]);
    cloud.send("GET", &file, demo, &[("range", "bytes=3000000-")], "").await.expect(416);

    cloud.delete(&format!("{IMAGES}/{chosen}"), demo).await.expect(204);
    cloud.get(&format!("{IMAGES}/{chosen}"), demo).await.expect(404);
    cloud.delete(&format!("{IMAGES}/{chosen}"), demo).await.expect(404);
    assert_eq!(cloud.image_files(), Vec::<String>::new());
}

#[tokio::test]
async fn hostile_and_wrong_bytes_are_refused_and_leave_nothing() {
    let cloud = Cloud::start().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    qemu_img(folder.path(), "create -q -f qcow2 good.qcow2 64M");
    std::fs::write(at("secret"), "root:x").unwrap();
    qemu_img(folder.path(), "create -q -f qcow2 -b secret -F raw backing.qcow2 64M");
    qemu_img(folder.path(), "create -q -f qcow2 -o data_file=data.raw data.qcow2 64M");
    let mut forged = std::fs::read(at("good.qcow2")).unwrap();
    forged[24..32].copy_from_slice(&(1_u64 << 60).to_be_bytes());
    std::fs::write(at("forged.qcow2"), forged).unwrap();
    let mut cut = std::fs::read(at("good.qcow2")).unwrap();
    cut.truncate(cut.len() / 2);
    std::fs::write(at("cut.qcow2"), cut).unwrap();
    let cases = [
        ("backing.qcow2", "qcow2"),
        ("data.qcow2", "qcow2"),
        ("forged.qcow2", "qcow2"),
        ("cut.qcow2", "qcow2"),
        ("good.qcow2", "raw"),
        ("secret", "qcow2"),
        ("secret", "vmdk"),
        ("secret", "vhd"),
        ("secret", "iso"),
    ];
    for (name, format) in cases {
        let id = cloud.image(json!({ "name": name, "disk_format": format })).await;
        let answer = cloud.upload(&id, std::fs::read(at(name)).unwrap()).await;
        let reason = answer.expect(400)["error"]["message"].as_str().unwrap().to_owned();
        assert!(reason.len() > 20, "{name} as {format}: {reason}");
        let image = cloud.shown(&id).await;
        assert_eq!((&image["status"], &image["size"]), (&json!("queued"), &Value::Null), "{name} as {format}");
        assert_eq!(cloud.image_files(), Vec::<String>::new(), "{name} as {format}");
    }
    let id = cloud.image(json!({ "disk_format": "qcow2" })).await;
    cloud.upload(&id, std::fs::read(at("secret")).unwrap()).await.expect(400);
    cloud.upload(&id, std::fs::read(at("good.qcow2")).unwrap()).await.expect(204);
    assert_eq!(cloud.shown(&id).await["virtual_size"], json!(64 << 20));
}

#[tokio::test]
async fn bytes_are_staged_and_then_imported_once() {
    let cloud = Cloud::start().await;
    let demo = cloud.demo().await;
    let body = json!({ "disk_format": "qcow2", "container_format": "bare" });
    let made = cloud.post(IMAGES, demo, body).await;
    assert_eq!(made.header("openstack-image-import-methods"), "glance-direct");
    let id = made.expect(201)["id"].as_str().unwrap().to_owned();
    let (stage, import) = (format!("{IMAGES}/{id}/stage"), format!("{IMAGES}/{id}/import"));
    let direct = json!({ "method": { "name": "glance-direct" }, "all_stores": true });
    let bytes = [("content-type", "application/octet-stream")];
    cloud.post(&import, demo, direct.clone()).await.expect(409);
    cloud.send("PUT", &stage, demo, &bytes, noise(1000)).await.expect(400);
    assert_eq!(cloud.shown(&id).await["status"], "queued", "what is refused is not kept");
    assert_eq!(cloud.image_files(), Vec::<String>::new());

    let folder = tempfile::tempdir().unwrap();
    qemu_img(folder.path(), "create -q -f qcow2 disk.qcow2 64M");
    let disk = std::fs::read(folder.path().join("disk.qcow2")).unwrap();
    cloud.send("PUT", &stage, demo, &bytes, disk.clone()).await.expect(204);
    let staged = cloud.shown(&id).await;
    assert_eq!(
        (&staged["status"], &staged["size"], &staged["checksum"]),
        (&json!("uploading"), &Value::Null, &Value::Null)
    );
    cloud.get(&format!("{IMAGES}/{id}/file"), demo).await.expect(204);
    cloud.send("PUT", &stage, demo, &bytes, disk.clone()).await.expect(409);
    cloud.upload(&id, disk.clone()).await.expect(409);
    let usage = cloud.get("/image/v2/info/usage", demo).await.expect(200)["usage"].clone();
    assert_eq!(usage["image_count_total"], json!({ "limit": 100, "usage": 1 }));
    assert_eq!(usage["image_count_uploading"]["usage"], 1);

    for refused in [
        json!({ "method": { "name": "web-download", "uri": "https://127.0.0.1/x" } }),
        json!({ "method": { "name": "glance-direct" }, "stores": ["elsewhere"] }),
        json!({ "method": { "name": "glance-direct" }, "stores": ["files"], "all_stores": true }),
        json!({ "method": "glance-direct" }),
        json!({}),
    ] {
        cloud.post(&import, demo, refused).await.expect(400);
    }
    cloud.post(&import, cloud.stranger().await, direct.clone()).await.expect(404);
    let done = cloud.post(&import, demo, direct.clone()).await;
    let request = done.header("x-openstack-request-id").to_owned();
    done.expect(202);
    let image = cloud.shown(&id).await;
    assert_eq!((&image["status"], &image["virtual_size"]), (&json!("active"), &json!(64 << 20)));
    assert_eq!(image["stores"], "files");
    assert!(cloud.get(&format!("{IMAGES}/{id}/file"), demo).await.bytes == disk);
    cloud.post(&import, demo, direct).await.expect(409);
    let tasks = cloud.get(&format!("{IMAGES}/{id}/tasks"), demo).await.expect(200)["tasks"].clone();
    assert_eq!(tasks.as_array().unwrap().len(), 1);
    assert_eq!((&tasks[0]["status"], &tasks[0]["request_id"]), (&json!("success"), &json!(request)));
    assert_eq!(tasks[0]["input"]["import_req"]["method"]["name"], "glance-direct");
    cloud.delete(&format!("{IMAGES}/{id}"), demo).await.expect(204);
    assert_eq!(cloud.image_files(), Vec::<String>::new());
}

#[tokio::test]
async fn each_format_is_taken_as_its_tools_write_it() {
    let cloud = Cloud::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk.raw"), noise(3 << 20)).unwrap();
    for (format, words) in [
        ("qcow2", "convert -c -O qcow2"),
        ("vmdk", "convert -O vmdk"),
        ("vmdk", "convert -O vmdk -o subformat=streamOptimized"),
        ("vhd", "convert -O vpc -o force_size=on"),
        ("vhd", "convert -O vpc -o subformat=fixed,force_size=on"),
    ] {
        qemu_img(folder.path(), &format!("{words} disk.raw disk.{format}"));
        let bytes = std::fs::read(folder.path().join(format!("disk.{format}"))).unwrap();
        let id = cloud.image(json!({ "name": words, "disk_format": format })).await;
        let headers = [("content-type", "application/octet-stream")];
        let stage = format!("{IMAGES}/{id}/stage");
        cloud.send("PUT", &stage, cloud.demo().await, &headers, bytes).await.expect(204);
        let direct = json!({ "method": { "name": "glance-direct" } });
        cloud.post(&format!("{IMAGES}/{id}/import"), cloud.demo().await, direct).await.expect(202);
        let image = cloud.shown(&id).await;
        assert_eq!((&image["status"], &image["virtual_size"]), (&json!("active"), &json!(3 << 20)), "{words}");
    }
    for (format, words) in [
        ("vmdk", "convert -O vmdk -o subformat=monolithicFlat disk.raw flat.vmdk"),
        ("vmdk", "convert -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw parts.vmdk"),
        ("vmdk", "convert -O vhdx disk.raw disk.vhdx"),
        ("vhd", "convert -O vdi disk.raw disk.vdi"),
    ] {
        qemu_img(folder.path(), words);
        let name = words.rsplit(' ').next().unwrap();
        let id = cloud.image(json!({ "name": name, "disk_format": format })).await;
        let answer = cloud.upload(&id, std::fs::read(folder.path().join(name)).unwrap()).await.expect(400);
        assert!(answer["error"]["message"].as_str().unwrap().len() > 20, "{name}: {answer}");
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_may_be_tried_again() {
    let cloud = Cloud::start().await;
    let demo = cloud.demo().await;
    let id = cloud.image(json!({})).await;
    let file = format!("{IMAGES}/{id}/file");
    let broken = stream::iter([Ok(noise(70_000)), Err(std::io::Error::other("the cable was cut"))]);
    cloud.send("PUT", &file, demo, &[], axum::body::Body::from_stream(broken)).await.expect(400);
    assert_eq!(cloud.shown(&id).await["status"], "queued");
    assert_eq!(cloud.image_files(), Vec::<String>::new());
    let short = [("content-type", "application/octet-stream"), ("x-openstack-image-size", "71000")];
    cloud.send("PUT", &file, demo, &short, noise(70_000)).await.expect(400);
    cloud.send("PUT", &file, demo, &[("content-type", "text/plain")], noise(10)).await.expect(415);
    let unset = cloud.post(IMAGES, demo, json!({})).await.expect(201)["id"].as_str().unwrap().to_owned();
    cloud.upload(&unset, noise(10)).await.expect(400);
    cloud.upload(&id, noise(70_000)).await.expect(204);
}

#[tokio::test]
async fn wrong_records_are_refused_with_the_status_that_clients_expect() {
    let cloud = Cloud::start().await;
    let demo = cloud.demo().await;
    for (body, status) in [
        (json!({ "container_format": "wrong", "disk_format": "vhd" }), 400),
        (json!({ "container_format": "bare", "disk_format": "wrong" }), 400),
        (json!({ "name": "x".repeat(256) }), 400),
        (json!({ "id": "not-an-id" }), 400),
        (json!({ "min_disk": -1 }), 400),
        (json!({ "min_ram": 1_u64 << 40 }), 400),
        (json!({ "protected": "yes" }), 400),
        (json!({ "tags": ["x".repeat(256)] }), 400),
        (json!({ "tags": (0..200).map(|at| at.to_string()).collect::<Vec<_>>() }), 413),
        (json!({ "property": 1 }), 400),
        (json!({ "visibility": "open" }), 400),
        (json!([]), 400),
        (json!({ "visibility": "public" }), 403),
        (json!({ "owner": "0b8c6c5ea1f24c1c8b4a3f2d1e0c9b8a" }), 403),
        (json!({ "status": "active" }), 403),
        (json!({ "checksum": "x" }), 403),
        (json!({ "locations": [] }), 403),
        (json!({ "deleted": "x" }), 403),
        (json!({ "os_glance_import_task": "x" }), 403),
    ] {
        let answer = cloud.post(IMAGES, demo, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.json);
    }
    cloud.post(IMAGES, cloud.reader().await, json!({ "name": "x" })).await.expect(403);
    cloud.get(&format!("{IMAGES}/"), demo).await.expect(404);
    cloud.delete(&format!("{IMAGES}/"), demo).await.expect(404);
    cloud.get(&format!("{IMAGES}/nonsense"), demo).await.expect(404);
}

#[tokio::test]
async fn changes_are_made_together_or_not_at_all() {
    let cloud = Cloud::start().await;
    let demo = cloud.demo().await;
    let id = cloud.image(json!({ "name": "old", "os_distro": "debian", "colour": "red", "tags": ["x"] })).await;
    let image = cloud
        .change(
            &id,
            demo,
            json!([
                { "op": "replace", "path": "/name", "value": "new" },
                { "op": "replace", "path": "/tags", "value": ["y", "z"] },
                { "op": "replace", "path": "/os_distro", "value": "alpine" },
                { "op": "add", "path": "/hw_machine_type", "value": "q35" },
                { "op": "remove", "path": "/colour" },
                { "op": "replace", "path": "/protected", "value": true },
                { "op": "add", "path": "/min_disk", "value": 2 },
            ]),
        )
        .await
        .expect(200);
    assert_eq!(image["name"], "new");
    assert_eq!(image["tags"], json!(["y", "z"]));
    assert_eq!((&image["os_distro"], &image["hw_machine_type"]), (&json!("alpine"), &json!("q35")));
    assert_eq!((image.get("colour"), &image["protected"], &image["min_disk"]), (None, &json!(true), &json!(2)));

    let refused =
        json!([{ "op": "replace", "path": "/name", "value": "x" }, { "op": "replace", "path": "/gone", "value": "x" }]);
    cloud.change(&id, demo, refused).await.expect(409);
    assert_eq!(cloud.shown(&id).await["name"], "new");
    for (change, status) in [
        (json!({ "op": "replace", "path": "/status", "value": "active" }), 403),
        (json!({ "op": "replace", "path": "/visibility", "value": "public" }), 403),
        (json!({ "op": "replace", "path": "/owner", "value": "0b8c6c5ea1f24c1c8b4a3f2d1e0c9b8a" }), 403),
        (json!({ "op": "remove", "path": "/name" }), 403),
        (json!({ "op": "remove", "path": "/gone" }), 409),
        (json!({ "op": "test", "path": "/name", "value": "x" }), 400),
    ] {
        let answer = cloud.change(&id, demo, json!([change])).await;
        assert_eq!(answer.status.as_u16(), status, "{change}: {}", answer.json);
    }
    let path = format!("{IMAGES}/{id}");
    let old = serde_json::to_vec(&json!([{ "replace": "/name", "value": "older" }])).unwrap();
    let answer = cloud.send("PATCH", &path, demo, &[("content-type", V20)], old.clone()).await;
    assert_eq!(answer.expect(200)["name"], "older");
    cloud.send("PATCH", &path, demo, &[("content-type", "application/json")], old).await.expect(415);

    cloud.delete(&path, demo).await.expect(403);
    cloud.change(&id, demo, json!([{ "op": "replace", "path": "/protected", "value": false }])).await.expect(200);
    cloud.upload(&id, noise(100)).await.expect(204);
    let format = json!([{ "op": "replace", "path": "/disk_format", "value": "qcow2" }]);
    cloud.change(&id, demo, format).await.expect(403);
    cloud.delete(&path, demo).await.expect(204);
}

#[tokio::test]
async fn lists_are_filtered_ordered_and_paged() {
    let cloud = Cloud::start().await;
    let demo = cloud.demo().await;
    for (name, size, body) in [
        ("a", 300, json!({ "tags": ["web", "blue"], "os_distro": "debian" })),
        ("b", 200, json!({ "tags": ["web"], "protected": true })),
        ("c", 100, json!({ "os_distro": "alpine", "visibility": "private" })),
    ] {
        let mut body = body;
        body["name"] = json!(name);
        let id = cloud.image(body).await;
        cloud.upload(&id, noise(size)).await.expect(204);
    }
    cloud.image(json!({ "name": "d", "disk_format": "qcow2" })).await;
    cloud.image(json!({ "name": "e", "os_hidden": true })).await;
    let project = cloud.id_of("projects", "demo").await;
    for (query, wanted) in [
        ("", "dcba"),
        ("?sort=name:asc", "abcd"),
        ("?sort_key=size&sort_dir=asc", "dcba"),
        ("?sort_key=name", "dcba"),
        ("?sort=status:asc,name:asc", "abcd"),
        ("?name=b", "b"),
        ("?name=in:a,c&sort=name:asc", "ac"),
        ("?status=queued", "d"),
        ("?status=in:queued,saving", "d"),
        ("?status=active,queued&sort=name", "dcba"),
        ("?status=killed", ""),
        ("?disk_format=qcow2", "d"),
        ("?disk_format=in:raw,qcow2", "dcba"),
        ("?container_format=bare", "dcba"),
        ("?container_format=ovf", ""),
        ("?size=200", "b"),
        ("?size_min=200", "ba"),
        ("?size_max=200", "cb"),
        ("?size_min=200&size_max=200", "b"),
        ("?tag=web", "ba"),
        ("?tag=web&tag=blue", "a"),
        ("?tag=none", ""),
        ("?os_hidden=true", "e"),
        ("?protected=true", "b"),
        ("?visibility=private", "c"),
        ("?visibility=shared", "dba"),
        ("?visibility=public", ""),
        ("?visibility=all", "dcba"),
        ("?os_distro=debian", "a"),
        ("?created_at=gt:2020-01-01T00:00:00Z", "dcba"),
        ("?updated_at=lt:2020-01-01T00:00:00Z", ""),
        ("?owner=nobody", ""),
        ("?limit=0", ""),
        ("?limit=2", "dc"),
        ("?member_status=all", "dcba"),
    ] {
        assert_eq!(cloud.names(query, demo).await.concat(), wanted, "{query}");
    }
    assert_eq!(cloud.names(&format!("?owner={project}"), demo).await.len(), 4);
    for bad in [
        "?limit=-1",
        "?limit=x",
        "?sort_key=colour",
        "?sort_dir=up",
        "?marker=x",
        "?visibility=x",
        "?size_min=x",
        "?created_at=then",
        "?marker=11111111-2222-4333-8444-555555555555",
        "?member_status=x",
    ] {
        cloud.get(&format!("{IMAGES}{bad}"), demo).await.expect(400);
    }
    for sort in ["name:asc", "size:desc", "status:asc,created_at:desc", "disk_format:asc"] {
        let whole = cloud.names(&format!("?sort={sort}"), demo).await;
        let mut paged = Vec::new();
        let mut next = Some(format!("/v2/images?limit=1&sort={sort}"));
        while let Some(path) = next {
            let page = cloud.get(&format!("/image{path}"), demo).await.expect(200);
            paged.push(page["images"][0]["name"].as_str().unwrap().to_owned());
            next = page.get("next").map(|next| next.as_str().unwrap().to_owned());
            assert_eq!(page["first"], format!("/v2/images?limit=1&sort={sort}"));
        }
        assert_eq!(paged, whole, "{sort}");
    }
}

#[tokio::test]
async fn a_page_costs_the_same_number_of_statements_however_long_it_is() {
    let cloud = Cloud::start().await;
    let demo = cloud.demo().await;
    let statements = async || {
        let before = cloud.store.queries();
        cloud.names("", demo).await;
        cloud.store.queries() - before
    };
    cloud.image(json!({ "name": "a", "tags": ["x"], "p": "v" })).await;
    let one = statements().await;
    for name in 0..5 {
        cloud.image(json!({ "name": format!("n{name}"), "tags": ["x"], "p": "v" })).await;
    }
    assert_eq!(statements().await, one);
}

#[tokio::test]
async fn who_sees_an_image_is_what_its_visibility_says() {
    let cloud = Cloud::start().await;
    let (demo, admin, reader, stranger) =
        (cloud.demo().await, cloud.admin().await, cloud.reader().await, cloud.stranger().await);
    let id = cloud.image(json!({ "name": "mine", "visibility": "private" })).await;
    let path = format!("{IMAGES}/{id}");
    let visible = |visibility: &str| json!([{ "op": "replace", "path": "/visibility", "value": visibility }]);
    let rename = json!([{ "op": "replace", "path": "/name", "value": "theirs" }]);
    cloud.get(&path, reader).await.expect(200);
    cloud.change(&id, reader, rename.clone()).await.expect(403);
    cloud.delete(&path, reader).await.expect(403);
    for refused in [cloud.get(&path, stranger).await, cloud.change(&id, stranger, rename.clone()).await] {
        refused.expect(404);
    }
    cloud.change(&id, admin, visible("public")).await.expect(200);
    cloud.get(&path, stranger).await.expect(200);
    assert_eq!(cloud.names("", stranger).await, ["mine"]);
    cloud.change(&id, stranger, rename).await.expect(403);
    cloud.delete(&path, stranger).await.expect(403);
    let headers = [("content-type", "application/octet-stream")];
    cloud.send("PUT", &format!("{path}/file"), stranger, &headers, "x").await.expect(403);

    cloud.change(&id, demo, visible("community")).await.expect(200);
    assert!(cloud.names("", stranger).await.is_empty());
    assert_eq!(cloud.names("?visibility=community", stranger).await, ["mine"]);
    cloud.get(&path, stranger).await.expect(200);
    cloud.change(&id, demo, visible("private")).await.expect(200);
    assert!(cloud.names("?visibility=community", stranger).await.is_empty());
    assert_eq!(cloud.names("", admin).await, ["mine"]);
}

#[tokio::test]
async fn a_shared_image_is_listed_once_it_was_accepted() {
    let cloud = Cloud::start().await;
    let (demo, stranger) = (cloud.demo().await, cloud.stranger().await);
    let theirs = cloud.id_of("projects", "elsewhere").await;
    let id = cloud.image(json!({ "name": "shared" })).await;
    let members = format!("{IMAGES}/{id}/members");
    let member = format!("{members}/{theirs}");
    cloud.get(&members, stranger).await.expect(404);
    let made = cloud.post(&members, demo, json!({ "member": theirs })).await.expect(200);
    assert_eq!((&made["status"], &made["member_id"]), (&json!("pending"), &json!(theirs)));
    cloud.post(&members, demo, json!({ "member": theirs })).await.expect(409);
    cloud.post(&members, stranger, json!({ "member": theirs })).await.expect(403);
    cloud.get(&format!("{IMAGES}/{id}"), stranger).await.expect(200);
    assert!(cloud.names("", stranger).await.is_empty());
    assert_eq!(cloud.names("?member_status=pending", stranger).await, ["shared"]);
    cloud.put(&member, demo, json!({ "status": "accepted" })).await.expect(403);
    cloud.put(&member, stranger, json!({ "status": "perhaps" })).await.expect(400);
    cloud.put(&member, stranger, json!({ "status": "accepted" })).await.expect(200);
    assert_eq!(cloud.names("", stranger).await, ["shared"]);
    assert_eq!(cloud.get(&members, demo).await.expect(200)["members"][0]["status"], "accepted");
    cloud.delete(&member, stranger).await.expect(403);
    cloud.delete(&member, demo).await.expect(204);
    cloud.delete(&member, demo).await.expect(404);
    cloud.get(&format!("{IMAGES}/{id}"), stranger).await.expect(404);
}

#[tokio::test]
async fn tags_and_closing_follow_glance() {
    let cloud = Cloud::start().await;
    let (demo, admin) = (cloud.demo().await, cloud.admin().await);
    let id = cloud.image(json!({ "name": "x" })).await;
    let path = format!("{IMAGES}/{id}");
    cloud.put(&format!("{path}/tags/blue%20sky"), demo, Value::Null).await.expect(204);
    cloud.put(&format!("{path}/tags/blue%20sky"), demo, Value::Null).await.expect(204);
    assert_eq!(cloud.shown(&id).await["tags"], json!(["blue sky"]));
    cloud.delete(&format!("{path}/tags/blue%20sky"), demo).await.expect(204);
    cloud.delete(&format!("{path}/tags/blue%20sky"), demo).await.expect(404);
    let unknown = "/image/v2/images/11111111-2222-4333-8444-555555555555/tags/x";
    cloud.put(unknown, demo, Value::Null).await.expect(404);

    let act = |action: &str| format!("{path}/actions/{action}");
    cloud.post(&act("deactivate"), demo, Value::Null).await.expect(403);
    cloud.upload(&id, noise(100)).await.expect(204);
    cloud.post(&act("deactivate"), demo, Value::Null).await.expect(204);
    assert_eq!(cloud.shown(&id).await["status"], "deactivated");
    cloud.get(&format!("{path}/file"), demo).await.expect(403);
    assert_eq!(cloud.get(&format!("{path}/file"), admin).await.status, 200);
    cloud.post(&act("reactivate"), demo, Value::Null).await.expect(204);
    assert_eq!(cloud.get(&format!("{path}/file"), demo).await.status, 200);
}

#[tokio::test]
async fn the_service_tells_of_its_versions_and_schemas() {
    let cloud = Cloud::start().await;
    let demo = cloud.demo().await;
    let choice = cloud.get("/image/", "").await.expect(300);
    assert_eq!(choice["versions"][0]["status"], "CURRENT");
    assert_eq!(cloud.get("/image/versions", "").await.expect(200), choice);
    let schema = cloud.get("/image/v2/schemas/image", demo).await.expect(200);
    assert_eq!(schema["name"], "image");
    assert_eq!(schema["properties"]["container_format"]["enum"], json!([null, "bare"]));
    assert_eq!(schema["properties"]["size"]["readOnly"], true);
    let images = cloud.get("/image/v2/schemas/images", demo).await.expect(200);
    assert_eq!((&images["name"], &images["properties"]["images"]["items"]), (&json!("images"), &schema));
    assert_eq!(cloud.get("/image/v2/schemas/member", demo).await.expect(200)["name"], "member");
    assert_eq!(cloud.get("/image/v2/schemas/members", demo).await.expect(200)["name"], "members");
    cloud.get("/image/v2/schemas/volume", demo).await.expect(404);
    assert_eq!(cloud.get("/image/v2/info/stores", demo).await.expect(200)["stores"][0]["default"], "true");
    let methods = cloud.get("/image/v2/info/import", demo).await.expect(200);
    assert_eq!(methods["import-methods"]["value"], json!(["glance-direct"]));
    let made = cloud.image(json!({})).await;
    let shown = cloud.shown(&made).await;
    for key in shown.as_object().unwrap().keys() {
        assert!(schema["properties"].get(key).is_some(), "{key} is in the schema");
    }
}
