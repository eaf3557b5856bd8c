//! The embedded database loses nothing that was acknowledged: `kill -9` of the whole cloud, a hundred times, while clients
//! create and delete servers, ports and networks.
//!
//! `ARCUS_SEED` repeats a run's choices (though not its timing), `ARCUS_ROUNDS` sets another number of rounds.

#[path = "../rig/arcus.rs"]
#[expect(dead_code, reason = "clouds without nodes and the number of the process are for others")]
mod arcus;
mod books;
#[path = "../rig/claims.rs"]
mod claims;
#[path = "../rig/session.rs"]
mod session;
mod worker;

use anyhow::{Context as _, Result, ensure};
use arcus::Arcus;
use books::Books;
use futures_util::future::try_join_all;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::Method;
use serde_json::json;
use session::{Session, id};
use std::time::{Duration, Instant};
use worker::Worker;

const ROUNDS: u64 = 100;
/// Clients that work at the same time.
const WORKERS: usize = 3;
/// The longest that they work until the cloud is killed, in milliseconds.
const ROUND_MS_MAX: u64 = 250;
/// One round in so many kills a cloud that is still starting.
const EARLY_KILLS: u32 = 12;
/// One round in so many ends with a wait until everything has come to rest.
const SETTLE_EVERY: u64 = 10;

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_cloud_is_killed_a_hundred_times() -> Result<()> {
    let seed: u64 = number("ARCUS_SEED")?.unwrap_or_else(rand::random);
    let rounds = number("ARCUS_ROUNDS")?.unwrap_or(ROUNDS);
    eprintln!("ARCUS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cloud = Arcus::new("crash", true)?;
    cloud.start().await?;
    let mut workers = prepare(&cloud, &mut random).await?;
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for round in 1..=rounds {
        let work = Duration::from_millis(random.random_range(0..ROUND_MS_MAX));
        let doings = try_join_all(workers.iter_mut().map(|worker| worker.work_until_killed(round)));
        let killer = async {
            tokio::time::sleep(work).await;
            cloud.kill()
        };
        let (done, killed) = tokio::join!(doings, killer);
        killed?;
        done.with_context(|| format!("round {round}"))?;
        slowest = slowest.max(restart(&mut cloud, &mut random).await?);
        let session = Session::login(&cloud.home, &cloud.url, "arcus").await?;
        for worker in &mut workers {
            worker.session = session.clone();
        }
        let mut books = Books::read(&cloud.home, &session).await?;
        books.claims.add_up().with_context(|| format!("after round {round}"))?;
        for worker in &mut workers {
            worker.compare(&mut books).with_context(|| format!("after round {round}"))?;
        }
        books.all_explained().with_context(|| format!("after round {round}"))?;
        if round % SETTLE_EVERY == 0 {
            settle(&cloud, &session, &workers).await.with_context(|| format!("after round {round}"))?;
        }
    }
    let acknowledged: u64 = workers.iter().map(|worker| worker.acknowledged).sum();
    eprintln!("{rounds} rounds in {:?}, {acknowledged} acknowledged calls, slowest start {slowest:?}", began.elapsed());
    empty(&cloud, &mut workers).await?;
    claims::database_is_sound(&cloud.home).await?;
    cloud.down()
}

fn number(variable: &str) -> Result<Option<u64>> {
    std::env::var(variable).ok().map(|text| text.parse().context("not a number")).transpose()
}

/// An image, and a network for each worker.
async fn prepare(cloud: &Arcus, random: &mut StdRng) -> Result<Vec<Worker>> {
    let admin = Session::login(&cloud.home, &cloud.url, "arcus-admin").await?;
    admin.node_ready().await?;
    let session = Session::login(&cloud.home, &cloud.url, "arcus").await?;
    // Servers that are still being removed count, and clients that delete and create at once run ahead of them.
    let quota = json!({ "quota_set": { "instances": 100, "cores": 100 } });
    admin.ok(Method::PUT, &format!("/compute/v2.1/os-quota-sets/{}", session.project), Some(&quota)).await?;
    let file = cloud.home.join("image.raw");
    std::fs::write(&file, vec![0_u8; 1 << 20])?;
    let image = session.image_upload("crash", "raw", &file).await?;
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let body = json!({ "network": { "name": format!("base-{number}") } });
        let network = id(&session.ok(Method::POST, "/network/v2.0/networks", Some(&body)).await?["network"])?;
        let body = json!({ "subnet": { "network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24" } });
        session.ok(Method::POST, "/network/v2.0/subnets", Some(&body)).await?;
        let random = StdRng::seed_from_u64(random.random());
        workers.push(Worker::new(number, session.clone(), random, image.clone(), network));
    }
    Ok(workers)
}

/// Starts the cloud again, now and then with a kill while it starts; answers how long the start took that was let be.
async fn restart(cloud: &mut Arcus, random: &mut StdRng) -> Result<Duration> {
    while random.random_ratio(1, EARLY_KILLS) {
        let early = Duration::from_millis(random.random_range(0..ROUND_MS_MAX));
        if let Ok(started) = tokio::time::timeout(early, cloud.start()).await {
            started?;
        }
        cloud.kill()?;
    }
    cloud.start().await
}

/// Waits until no server is busy and all that was deleted is gone.
async fn settle(cloud: &Arcus, session: &Session, workers: &[Worker]) -> Result<()> {
    const DEADLINE: Duration = Duration::from_secs(20);
    let began = Instant::now();
    loop {
        let books = Books::read(&cloud.home, session).await?;
        let restless = books.restless(workers);
        if restless.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < DEADLINE, "after {DEADLINE:?} there still are {restless:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Deletes everything; nothing is left, neither in the cloud nor on its node.
async fn empty(cloud: &Arcus, workers: &mut [Worker]) -> Result<()> {
    for worker in workers.iter_mut() {
        worker.delete_all().await?;
    }
    let session = Session::login(&cloud.home, &cloud.url, "arcus").await?;
    settle(cloud, &session, workers).await?;
    let mut books = Books::read(&cloud.home, &session).await?;
    books.claims.add_up()?;
    for worker in workers.iter_mut() {
        worker.compare(&mut books)?;
    }
    books.all_explained()?;
    ensure!(books.servers.is_empty() && books.ports.is_empty(), "left are {:?} {:?}", books.servers, books.ports);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let guests: Vec<_> = std::fs::read_dir(cloud.home.join("agent/simulated-guests"))?.flatten().collect();
        if guests.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "guests of deleted servers are left on the node: {guests:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
