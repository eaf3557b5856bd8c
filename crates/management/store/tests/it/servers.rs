//! Servers and what belongs to them, on both databases.

use arcus_store::testing::{Postgres, sqlite};
use arcus_store::{
    Flavor, FlavorFilter, GroupPolicy, Keypair, NodeNew, Server, ServerAction, ServerActionEvent, ServerActionFilter,
    ServerDetails, ServerFilter, ServerFlavor, ServerGroup, ServerSecrets, ServerSnapshot, ServerSort,
    ServerVisibility, Store, StoreError, Tx,
};
use arcus_types::agent::{DiskFormat, ImageSource, Power};
use arcus_types::servers::{PowerState, ServerState, ServerTask};
use arcus_types::{ImageId, NodeId, ProjectId, RequestId, ServerGroupId, ServerId, Timestamp, UserId};
use std::collections::BTreeMap;

fn server(project_id: ProjectId, name: &str, created: i64) -> Server {
    Server {
        id: ServerId::random(),
        project_id,
        user_id: UserId::new(),
        name: name.parse().unwrap(),
        state: ServerState::Building,
        task: Some(ServerTask::Spawning),
        task_deadline: Some(Timestamp(created + 10)),
        power_state: PowerState::NoState,
        progress: 0,
        power: Power::Running,
        version: 1,
        epoch: 1,
        restarts: 0,
        restart_hard: false,
        incarnation: 1,
        node_id: None,
        node_generation: 0,
        availability_zone: "nova".into(),
        vcpus: 1,
        memory_mib: 192,
        disk_gib: 1,
        flavor: ServerFlavor {
            id: "1".parse().unwrap(),
            name: "arcus.tiny".into(),
            vcpus: 1,
            memory_mib: 192,
            disk_gib: 1,
            ephemeral_gib: 0,
            swap_mib: 0,
            extra_specs: BTreeMap::new(),
        },
        image: ImageSource { id: ImageId::new(), sha256: "00".into(), size_bytes: 1, format: DiskFormat::Qcow2 },
        metadata: BTreeMap::from([("k".into(), "v".into())]),
        locked: false,
        server_group_id: None,
        request_id: Some(RequestId::new()),
        fault: None,
        details: ServerDetails { hostname: name.into(), ..ServerDetails::default() },
        generation: 1,
        created_at: Timestamp(created),
        updated_at: Timestamp(created),
        launched_at: None,
        deleted_at: None,
    }
}

/// A transaction whose audit record is not what is tested.
async fn tx(store: &Store) -> Tx {
    store.begin_unaudited().await.unwrap()
}

async fn both(test: impl AsyncFn(Store)) {
    let (store, _folder) = sqlite().await;
    test(store).await;
    let postgres = Postgres::start();
    test(postgres.store().await).await;
}

#[tokio::test]
async fn a_server_comes_back_as_it_went_in_and_a_stale_write_is_caught() {
    both(async |store| {
        let mut written = server(ProjectId::new(), "web", 100);
        let t = tx(&store).await;
        t.server_insert(&written).await.unwrap();
        t.commit().await.unwrap();
        assert_eq!(store.server_get(written.id).await.unwrap().unwrap(), written);
        let t = tx(&store).await;
        let mut first = t.server_lock(written.id).await.unwrap().unwrap();
        first.state = ServerState::Active;
        first.task = None;
        first.task_deadline = None;
        t.server_update(&mut first).await.unwrap();
        assert!(matches!(t.server_update(&mut written).await, Err(StoreError::Stale(_))));
        t.commit().await.unwrap();
        let read = store.server_get(written.id).await.unwrap().unwrap();
        assert_eq!((read.state, read.task, read.generation), (ServerState::Active, None, 2));
    })
    .await;
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    both(async |store| {
        let project = ProjectId::new();
        let t = tx(&store).await;
        let mut ids = Vec::new();
        for (i, name) in ["b", "a", "c", "a"].iter().enumerate() {
            let mut s = server(project, name, i64::try_from(i).unwrap());
            if i == 3 {
                s.state = ServerState::Deleted;
                s.task = None;
                s.deleted_at = Some(Timestamp(50));
            }
            t.server_insert(&s).await.unwrap();
            ids.push(s.id);
        }
        t.server_insert(&server(ProjectId::new(), "elsewhere", 9)).await.unwrap();
        t.server_tags_set(ids[0], &["x".into(), "y".into()]).await.unwrap();
        t.server_tags_set(ids[1], &["x".into()]).await.unwrap();
        t.commit().await.unwrap();
        let names = async |filter: ServerFilter| {
            let filter = ServerFilter { project_id: Some(project), limit: filter.limit.max(1), ..filter };
            let found = store.server_list(&filter).await.unwrap();
            found.iter().map(|s| s.name.to_string()).collect::<Vec<_>>()
        };
        let ten = || ServerFilter { limit: 10, ..ServerFilter::default() };
        assert_eq!(names(ten()).await, ["c", "a", "b"], "the newest first");
        let up = vec![(ServerSort::Name, false)];
        assert_eq!(names(ServerFilter { sort: up.clone(), ..ten() }).await, ["a", "b", "c"]);
        let page = ServerFilter { sort: up.clone(), marker: Some(ids[1]), ..ten() };
        assert_eq!(names(page).await, ["b", "c"]);
        let limited = ServerFilter { sort: up, limit: 1, ..ServerFilter::default() };
        assert_eq!(names(limited).await, ["a", "b"], "one more than asked for tells that more follow");
        assert_eq!(names(ServerFilter { visibility: ServerVisibility::Gone, ..ten() }).await, ["a"]);
        assert_eq!(names(ServerFilter { visibility: ServerVisibility::All, ..ten() }).await.len(), 4);
        assert_eq!(names(ServerFilter { tags: vec!["x".into(), "y".into()], ..ten() }).await, ["b"]);
        assert_eq!(names(ServerFilter { tags_any: vec!["x".into(), "y".into()], ..ten() }).await, ["a", "b"]);
        assert_eq!(names(ServerFilter { not_tags: vec!["x".into(), "y".into()], ..ten() }).await, ["c", "a"]);
        assert_eq!(names(ServerFilter { not_tags_any: vec!["x".into()], ..ten() }).await, ["c"]);
        let building = vec![(ServerState::Building, Some(ServerTask::Spawning))];
        assert_eq!(names(ServerFilter { at: Some(building), ..ten() }).await.len(), 3);
        assert_eq!(names(ServerFilter { at: Some(Vec::new()), ..ten() }).await.len(), 0);
        assert_eq!(names(ServerFilter { changes_since: Some(Timestamp(2)), ..ten() }).await, ["c"]);
        assert_eq!(store.server_list_overdue(Timestamp(12), 10).await.unwrap(), ids[..2]);
        let t = tx(&store).await;
        assert_eq!(t.server_purge(Timestamp(51)).await.unwrap(), 1);
        t.commit().await.unwrap();
        assert!(store.server_get(ids[3]).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn what_belongs_to_a_server_is_kept_apart() {
    both(async |store| {
        let node = NodeNew { id: NodeId::new(), name: "n1".parse().unwrap(), availability_zone: "nova".into() };
        let group = ServerGroup {
            id: ServerGroupId::new(),
            project_id: ProjectId::new(),
            user_id: UserId::new(),
            name: "g".into(),
            policy: GroupPolicy::AntiAffinity,
            servers_per_node_max: 2,
            created_at: Timestamp(1),
        };
        let mut s = server(group.project_id, "web", 1);
        s.node_id = Some(node.id);
        s.server_group_id = Some(group.id);
        let request = RequestId::new();
        let snapshot = ServerSnapshot {
            image_id: ImageId::new(),
            server_id: s.id,
            node_id: node.id,
            request_id: request,
            rotation: None,
        };
        let secrets = ServerSecrets { admin_password: Some("pw".into()), ..ServerSecrets::default() };
        let t = tx(&store).await;
        t.node_insert(&node).await.unwrap();
        t.server_group_insert(&group).await.unwrap();
        t.server_insert(&s).await.unwrap();
        t.server_secrets_set(s.id, &ServerSecrets::default()).await.unwrap();
        t.server_secrets_set(s.id, &secrets).await.unwrap();
        t.server_snapshot_insert(&snapshot).await.unwrap();
        let action = ServerAction {
            server_id: s.id,
            request_id: request,
            action: "create".into(),
            user_id: None,
            project_id: Some(s.project_id),
            message: None,
            event: Some(ServerActionEvent {
                event: "build".into(),
                node: Some("n1".into()),
                started_at: Timestamp(5),
                finished_at: None,
                result: None,
                details: None,
            }),
            steps_done: Vec::new(),
            started_at: Timestamp(5),
            updated_at: Timestamp(5),
        };
        t.server_action_insert(&action).await.unwrap();
        t.server_action_insert(&action).await.unwrap();
        t.server_action_step(s.id, request, "boot", Timestamp(7)).await.unwrap();
        t.server_action_finish(s.id, request, Timestamp(9), Some("no")).await.unwrap();
        t.server_action_step(s.id, request, "late", Timestamp(9)).await.unwrap();
        t.server_action_finish(s.id, request, Timestamp(10), None).await.unwrap();
        t.commit().await.unwrap();
        assert_eq!(store.server_secrets(&[s.id]).await.unwrap()[&s.id], secrets);
        assert_eq!(store.server_snapshots_by_node(node.id).await.unwrap(), std::slice::from_ref(&snapshot));
        assert_eq!(store.server_count_by_node().await.unwrap(), [(node.id, 1)]);
        assert_eq!(store.server_list_by_node(node.id).await.unwrap().len(), 1);
        let members = store.server_group_members(&[group.id]).await.unwrap();
        assert_eq!(members, [(group.id, s.id, Some(node.id))]);
        let filter = ServerActionFilter { limit: 5, ..ServerActionFilter::default() };
        let told = store.server_action_list(s.id, &filter).await.unwrap();
        assert_eq!(told.len(), 1);
        let event = told[0].event.as_ref().unwrap();
        assert_eq!((event.result.as_deref(), event.finished_at), (Some("Error"), Some(Timestamp(9))), "it ends once");
        let steps: Vec<_> = told[0].steps_done.iter().map(|s| (s.event.as_str(), s.finished_at)).collect();
        assert_eq!((event.event.as_str(), steps.as_slice()), ("boot", &[("build", Some(Timestamp(7)))][..]));
        let after = ServerActionFilter { marker: Some(request), ..filter };
        assert!(store.server_action_list(s.id, &after).await.unwrap().is_empty());
        let t = tx(&store).await;
        assert!(t.server_snapshot_delete(snapshot.image_id).await.unwrap());
        assert!(!t.server_snapshot_delete(snapshot.image_id).await.unwrap());
        assert!(t.server_group_delete(group.id).await.unwrap());
        t.commit().await.unwrap();
        assert_eq!(store.server_get(s.id).await.unwrap().unwrap().server_group_id, None);
    })
    .await;
}

#[tokio::test]
async fn flavors_and_key_pairs_are_unique_and_private_ones_stay_private() {
    both(async |store| {
        let (mine, theirs) = (ProjectId::new(), ProjectId::new());
        let flavor = Flavor {
            id: "big".parse().unwrap(),
            name: "big".into(),
            vcpus: 8,
            memory_mib: 16_384,
            disk_gib: 80,
            ephemeral_gib: 0,
            swap_mib: 0,
            rxtx_percent: 100,
            is_public: false,
            description: None,
            extra_specs: BTreeMap::new(),
            created_at: Timestamp(1),
            updated_at: Timestamp(1),
        };
        let key = Keypair {
            user_id: UserId::new(),
            name: "k".into(),
            kind: "ssh".into(),
            fingerprint: "00".into(),
            public_key: "ssh-ed25519 AAAA".into(),
            created_at: Timestamp(1),
        };
        let t = tx(&store).await;
        t.flavor_insert(&flavor).await.unwrap();
        t.flavor_access_insert(&flavor.id, mine).await.unwrap();
        t.keypair_insert(&key).await.unwrap();
        t.commit().await.unwrap();
        let t = tx(&store).await;
        assert!(matches!(t.flavor_insert(&flavor).await, Err(StoreError::Duplicate(_))));
        drop(t);
        let t = tx(&store).await;
        assert!(matches!(t.keypair_insert(&key).await, Err(StoreError::Duplicate(_))));
        drop(t);
        let seen = async |viewer, more: FlavorFilter| {
            let filter = FlavorFilter { viewer, limit: 10, ..more };
            let found = store.flavor_list(&filter).await.unwrap();
            found.iter().map(|f| f.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(seen(Some(mine), FlavorFilter::default()).await, ["1", "2", "3", "4", "big"]);
        assert_eq!(seen(Some(theirs), FlavorFilter::default()).await, ["1", "2", "3", "4"]);
        let after = FlavorFilter { marker: Some("3".parse().unwrap()), ..FlavorFilter::default() };
        assert_eq!(seen(None, after).await, ["4", "big"]);
        let large = FlavorFilter { memory_mib_min: 2048, ..FlavorFilter::default() };
        assert_eq!(seen(None, large).await, ["4", "big"]);
        assert_eq!(store.keypair_list(key.user_id, None, 5).await.unwrap(), std::slice::from_ref(&key));
        assert!(store.keypair_list(key.user_id, Some("k"), 5).await.unwrap().is_empty());
        assert_eq!(store.keypair_count(key.user_id).await.unwrap(), 1);
    })
    .await;
}
