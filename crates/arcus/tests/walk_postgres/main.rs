//! A whole cloud with real guests on PostgreSQL.

#[path = "../rig/detached.rs"]
#[expect(dead_code, reason = "keeping data is for another test")]
mod detached;
#[path = "../rig/session.rs"]
#[expect(dead_code, reason = "images and nodes are for other tests")]
mod session;

use anyhow::{Context as _, Result, ensure};
use arcus_store::testing::Postgres;
use detached::Detached;
use reqwest::{Method, StatusCode};
use session::{Session, id};
use sqlx::Connection as _;
use std::time::{Duration, Instant};

/// Changes with every start of a guest.
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
/// How long a server may take to be gone.
const DELETE_MAX: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_cloud_on_postgresql_boots_a_server_and_deletes_it() -> Result<()> {
    let postgres = Postgres::start();
    let database = postgres.database();
    let mut cloud = Detached::new("pg", Some(database.clone()))?;
    let first = cloud.up()?;
    ensure!(first.run("hostname")? == "first");
    ensure!(!cloud.home.join("arcus.db").exists(), "there is an embedded database besides PostgreSQL");
    ensure!(servers(&database).await? == 1);

    // Killed and started again at once, with its guest running on; where the database is it knows by itself.
    let boot = first.run(BOOT_ID)?;
    cloud.kill()?;
    cloud.database = None;
    ensure!(cloud.up()? == first, "the first server is another");
    ensure!(first.run(BOOT_ID)? == boot, "the guest started anew");

    let session = Session::login(&cloud.home, &cloud.url, "arcus").await?;
    let listed = session.ok(Method::GET, "/compute/v2.1/servers", None).await?;
    let server = format!("/compute/v2.1/servers/{}", id(&listed["servers"][0])?);
    session.ok(Method::DELETE, &server, None).await?;
    let began = Instant::now();
    while session.call(Method::GET, &server, None).await?.0 != StatusCode::NOT_FOUND {
        ensure!(began.elapsed() < DELETE_MAX, "the server is not gone after {DELETE_MAX:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(servers(&database).await? == 0);
    cloud.down()?;

    // What stays in the database is of no use without the home folder, and that is said.
    let stranger = Detached::new("pg-new", Some(database))?;
    let refused = stranger.up().err().context("a cloud started with the database of another")?;
    ensure!(format!("{refused:#}").contains("the database holds a cloud that has another home folder"), "{refused:#}");
    stranger.down()
}

/// How many servers the database knows.
async fn servers(database: &str) -> Result<i64> {
    let mut connection = sqlx::PgConnection::connect(database).await.context("could not reach PostgreSQL")?;
    Ok(sqlx::query_scalar("SELECT count(*) FROM servers WHERE deleted_at IS NULL").fetch_one(&mut connection).await?)
}
