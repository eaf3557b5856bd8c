//! The first run of a cloud.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use arcus_identity::{
    BootstrapPasswords, DomainRef, Endpoint, Identity, IdentityConfig, ProjectRef, Shown, UserRef, Wanted,
};
use arcus_store::testing::{Postgres, sqlite};
use arcus_store::{ProjectFilter, RoleFilter, Store, UserFilter};
use arcus_types::{DomainId, Role, Scope};

async fn identity(store: &Store, folder: &std::path::Path) -> Identity {
    let endpoint = Endpoint { url: "https://cloud.test".to_owned(), region: "RegionOne".to_owned() };
    Identity::open(store.clone(), folder, IdentityConfig::new(endpoint)).await.unwrap()
}

fn shown(name: &str, password: &str) -> Shown {
    Shown::Password(UserRef::Name(name.to_owned(), DomainRef::Id(DomainId::DEFAULT)), password.to_owned())
}

#[tokio::test]
async fn the_first_run_makes_what_a_log_in_needs_and_the_second_changes_nothing() {
    let (store, folder) = sqlite().await;
    let (first, second) = (BootstrapPasswords::random(), BootstrapPasswords::random());
    assert!(Identity::bootstrap(&store, &first).await.unwrap());
    assert!(!Identity::bootstrap(&store, &second).await.unwrap());
    let identity = identity(&store, &folder.path().join("keys")).await;
    let (text, _) = identity.authenticate(vec![shown("admin", &first.admin)], Wanted::System).await.unwrap();
    let ctx = identity.verify(&text).unwrap().ctx();
    assert_eq!(ctx.scope, Scope::System);
    assert!(ctx.is_admin());
    let demo = Wanted::Project(ProjectRef::Name("demo".to_owned(), DomainRef::Name("Default".to_owned())));
    let (text, view) = identity.authenticate(vec![shown("demo", &first.demo)], demo).await.unwrap();
    let ctx = identity.verify(&text).unwrap().ctx();
    assert!(ctx.roles.has(Role::Member) && !ctx.is_admin());
    assert_eq!(view.user_name.as_str(), "demo");
    assert!(identity.authenticate(vec![shown("admin", &second.admin)], Wanted::System).await.is_err());
}

#[tokio::test]
async fn replicas_that_start_together_make_one_cloud() {
    let postgres = Postgres::start();
    let store = postgres.store().await;
    let runs = (0..4).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { Identity::bootstrap(&store, &BootstrapPasswords::random()).await.unwrap() })
    });
    let mut made = 0;
    for run in runs.collect::<Vec<_>>() {
        made += usize::from(run.await.unwrap());
    }
    assert_eq!(made, 1);
    let users = UserFilter { limit: 10, ..UserFilter::default() };
    assert_eq!(store.user_list(&users).await.unwrap().len(), 2);
    let projects = ProjectFilter { limit: 10, ..ProjectFilter::default() };
    assert_eq!(store.project_list(&projects).await.unwrap().len(), 2);
    assert_eq!(store.role_list(&RoleFilter { limit: 10, ..RoleFilter::default() }).await.unwrap().len(), 5);
}
