//! A cloud whose node pretends: what clients do with servers and images works there as on a real node.

#[path = "../rig/arcus.rs"]
#[expect(dead_code, reason = "killing the process is for other tests")]
mod arcus;
#[path = "../rig/session.rs"]
#[expect(dead_code, reason = "the project is for tests of quotas")]
mod session;

use anyhow::{Context as _, Result, bail, ensure};
use arcus::Arcus;
use reqwest::Method;
use serde_json::{Value, json};
use session::{Session, id};
use std::time::{Duration, Instant};

/// How long what a test waits for may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn simulated_servers_are_suspended_and_resumed_and_become_images_that_boot() -> Result<()> {
    let mut cloud = Arcus::new("sim", true)?;
    cloud.start().await?;
    Session::login(&cloud.home, &cloud.url, "arcus-admin").await?.node_ready().await?;
    let session = Session::login(&cloud.home, &cloud.url, "arcus").await?;
    let file = cloud.home.join("image.raw");
    std::fs::write(&file, vec![0_u8; 1 << 20])?;
    let image = session.image_upload("small", "raw", &file).await?;
    let server = boot(&session, &image).await?;

    act(&session, &server, json!({ "suspend": null })).await?;
    until(&session, &server, "SUSPENDED").await?;
    act(&session, &server, json!({ "resume": null })).await?;
    until(&session, &server, "ACTIVE").await?;

    for (name, state) in [("of-running", "ACTIVE"), ("of-stopped", "SHUTOFF")] {
        if state == "SHUTOFF" {
            act(&session, &server, json!({ "os-stop": null })).await?;
            until(&session, &server, state).await?;
        }
        act(&session, &server, json!({ "createImage": { "name": name } })).await?;
        let made = until_image(&session, name).await?;
        // The flavor's disk has 1 GiB, and so has the image of it.
        ensure!(made["disk_format"] == "qcow2" && made["virtual_size"] == 1_u64 << 30, "{made}");
        boot(&session, &id(&made)?).await?;
    }
    cloud.down()
}

/// A server of the image that runs.
async fn boot(session: &Session, image: &str) -> Result<String> {
    let wish = json!({ "server": { "name": "sim", "imageRef": image, "flavorRef": "1", "networks": "none" } });
    let server = id(&session.ok(Method::POST, "/compute/v2.1/servers", Some(&wish)).await?["server"])?;
    until(session, &server, "ACTIVE").await?;
    Ok(server)
}

async fn act(session: &Session, server: &str, action: Value) -> Result<()> {
    session.ok(Method::POST, &format!("/compute/v2.1/servers/{server}/action"), Some(&action)).await.map(drop)
}

async fn until(session: &Session, server: &str, status: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let told = session.ok(Method::GET, &format!("/compute/v2.1/servers/{server}"), None).await?;
        let now = told["server"]["status"].as_str().context("a server has no status")?;
        if now == status {
            return Ok(());
        }
        if now == "ERROR" || began.elapsed() > PATIENCE {
            bail!("the server is {now}, not {status}: {told}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_image(session: &Session, name: &str) -> Result<Value> {
    let began = Instant::now();
    loop {
        let told = session.ok(Method::GET, &format!("/image/v2/images?name={name}"), None).await?;
        let image = told["images"].as_array().and_then(|all| all.first());
        match image {
            Some(image) if image["status"] == "active" => return Ok(image.clone()),
            Some(image) if image["status"] == "queued" || image["status"] == "saving" => {}
            other => bail!("the image {name} is {other:?}"),
        }
        ensure!(began.elapsed() < PATIENCE, "the image {name} is not made: {told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
