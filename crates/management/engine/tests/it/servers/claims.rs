//! Claims under load: a quota is never exceeded, on either database.

use super::{Cloud, again};
use arcus_engine::EngineError;
use arcus_engine::servers::Networks;
use arcus_engine::servers::ServerNew;
use arcus_store::testing::Postgres;
use std::sync::Arc;

const PARALLEL: usize = 1_000;

/// A thousand creations at once against a quota of ten.
async fn ten_of_a_thousand(cloud: Cloud) {
    let cloud = Arc::new(cloud);
    let tasks: Vec<_> = (0..PARALLEL)
        .map(|_| {
            let cloud = Arc::clone(&cloud);
            tokio::spawn(async move {
                let wish = ServerNew { networks: Networks::None, ..cloud.wish() };
                cloud.engine.server_create(&again(&cloud.member), wish).await
            })
        })
        .collect();
    let (mut made, mut refused) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(EngineError::OverQuota { message, .. }) => {
                assert_eq!(message, "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances");
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((made, refused), (10, PARALLEL - 10));
    assert_eq!(cloud.used().await[..3], [10, 10, 1920]);
    assert_eq!(cloud.node_used().await, (10, 1920, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_of_ten_yields_ten_on_sqlite() {
    ten_of_a_thousand(Cloud::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_of_ten_yields_ten_on_postgresql() {
    let postgres = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    ten_of_a_thousand(Cloud::over(postgres.store().await, folder).await).await;
}
