//! Identity's rows.

use arcus_store::testing::{Postgres, sqlite};
use arcus_store::{
    AccessRule, ApplicationCredential, ApplicationCredentialKey, AssignmentActor, AssignmentFilter, AssignmentTarget,
    AuditEntry, Domain, DomainChange, DomainFilter, DomainKey, Extra, Group, GroupFilter, Project, ProjectChange,
    ProjectFilter, ProjectKey, ProjectTags, RevocationKind, Revoked, RoleActor, RoleChange, RoleEntry, RoleFilter,
    RoleTarget, Store, StoreError, TextPlace, TextTest, Trust, TrustFilter, Tx, User, UserChange, UserFilter, UserKey,
};
use arcus_types::policy::identity as policy;
use arcus_types::{
    AccessRuleId, ApplicationCredentialId, DomainId, GroupId, Name, OpCtx, ProjectId, RoleId, Timestamp, TrustId,
    UserId,
};

#[tokio::test]
async fn identity_on_sqlite() {
    let (store, _folder) = sqlite().await;
    all(&store).await;
}

#[tokio::test]
async fn identity_on_postgres() {
    let postgres = Postgres::start();
    all(&postgres.store().await).await;
}

struct World {
    domain: DomainId,
    parent: ProjectId,
    child: ProjectId,
    user: UserId,
    group: GroupId,
    role: RoleId,
}

async fn all(store: &Store) {
    let world = make(store).await;
    keys_and_filters(store, &world).await;
    changes(store, &world).await;
    assignments(store, &world).await;
    inherited_and_implied(store).await;
    trusts(store, &world).await;
    application_credentials(store, &world).await;
    revocations(store, &world).await;
    deletion(store, &world).await;
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn begin(store: &Store) -> Tx {
    store.begin(&OpCtx::system()).await.unwrap()
}

async fn commit(tx: Tx) {
    let detail = serde_json::json!({});
    let entry =
        AuditEntry { action: policy::USER_CREATE, kind: "test", id: String::new(), project_id: None, detail: &detail };
    tx.audit(entry).await.unwrap();
    tx.commit().await.unwrap();
}

fn user(domain_id: DomainId, text: &str) -> User {
    User {
        id: UserId::new(),
        domain_id,
        name: name(text),
        description: None,
        email: Some("a@example.org".to_owned()),
        enabled: true,
        default_project_id: None,
        extra: Extra::new(),
        options: Extra::new(),
        password_set_at: Timestamp(0),
        token_epoch: 0,
        created_at: Timestamp(1),
    }
}

fn project(domain_id: DomainId, parent_id: Option<ProjectId>, text: &str) -> Project {
    Project {
        id: ProjectId::new(),
        domain_id,
        parent_id,
        name: name(text),
        description: String::new(),
        enabled: true,
        tags: Vec::new(),
        extra: Extra::new(),
        options: Extra::new(),
        token_epoch: 0,
        created_at: Timestamp(1),
    }
}

async fn make(store: &Store) -> World {
    let domain = DomainId::new();
    let tx = begin(store).await;
    for (id, text) in [(DomainId::DEFAULT, "Default"), (domain, "acme")] {
        tx.domain_insert(&Domain {
            id,
            name: name(text),
            description: String::new(),
            enabled: true,
            extra: Extra::new(),
            options: Extra::new(),
            token_epoch: 0,
            created_at: Timestamp(1),
        })
        .await
        .unwrap();
    }
    let parent = project(domain, None, "parent");
    let child = project(domain, Some(parent.id), "child");
    let ann = user(domain, "ann");
    let group = Group {
        id: GroupId::new(),
        domain_id: domain,
        name: name("staff"),
        description: String::new(),
        extra: Extra::new(),
        created_at: Timestamp(1),
    };
    let role = RoleEntry {
        id: RoleId::new(),
        domain_id: None,
        name: name("member"),
        description: None,
        builtin: false,
        options: Extra::new(),
        created_at: Timestamp(1),
    };
    tx.project_insert(&parent).await.unwrap();
    tx.project_insert(&child).await.unwrap();
    tx.user_insert(&ann, Some("hash1")).await.unwrap();
    tx.user_insert(&user(DomainId::DEFAULT, "ann"), None).await.unwrap();
    tx.group_insert(&group).await.unwrap();
    tx.role_insert(&role).await.unwrap();
    commit(tx).await;
    let tx = begin(store).await;
    let twice = tx.user_insert(&user(domain, "ann"), None).await;
    assert!(matches!(twice, Err(StoreError::Duplicate(_))), "{twice:?}");
    World { domain, parent: parent.id, child: child.id, user: ann.id, group: group.id, role: role.id }
}

async fn keys_and_filters(store: &Store, world: &World) {
    let by_name = DomainKey::Name("acme");
    assert_eq!(store.domain_get(by_name).await.unwrap().unwrap().id, world.domain);
    assert!(store.domain_get(DomainKey::Id(DomainId::new())).await.unwrap().is_none());
    let both = store.domain_list(&DomainFilter { limit: 10, ..DomainFilter::default() }).await.unwrap();
    assert_eq!(both.len(), 2);
    let rest = DomainFilter { marker: Some(both[0].id), limit: 10, enabled: Some(true), ..DomainFilter::default() };
    assert_eq!(store.domain_list(&rest).await.unwrap(), both[1..]);

    for domain in [DomainKey::Id(world.domain), by_name] {
        let found = store.project_get(ProjectKey::Name { domain, name: "child" }).await.unwrap().unwrap();
        assert_eq!((found.project.id, found.domain_name.as_str()), (world.child, "acme"));
        let login = store.user_login(UserKey::Name { domain, name: "ann" }).await.unwrap().unwrap();
        assert_eq!((login.user.id, login.password_hash.as_deref()), (world.user, Some("hash1")));
    }
    let top = ProjectFilter { parent_id: Some(None), limit: 10, ..ProjectFilter::default() };
    assert_eq!(store.project_list(&top).await.unwrap()[0].id, world.parent);
    let below = ProjectFilter { parent_id: Some(Some(world.parent)), limit: 10, ..ProjectFilter::default() };
    assert_eq!(store.project_list(&below).await.unwrap()[0].id, world.child);
    let users = UserFilter { names: vec![TextTest::is("ann")], limit: 10, ..UserFilter::default() };
    assert_eq!(store.user_list(&users).await.unwrap().len(), 2);
    let users = UserFilter { domain_id: Some(world.domain), ..users };
    assert_eq!(store.user_list(&users).await.unwrap()[0].id, world.user);
    let none = RoleFilter { ids: Some(vec![]), limit: 10, ..RoleFilter::default() };
    assert!(store.role_list(&none).await.unwrap().is_empty());
}

async fn changes(store: &Store, world: &World) {
    let tx = begin(store).await;
    let renamed = DomainChange { description: Some("a company".into()), ..DomainChange::default() };
    assert!(tx.domain_update(world.domain, &renamed).await.unwrap());
    assert!(!tx.domain_update(DomainId::new(), &renamed).await.unwrap());
    let off = ProjectChange { enabled: Some(false), ..ProjectChange::default() };
    assert!(tx.project_update(world.child, &off).await.unwrap());
    let cleared = UserChange {
        email: Some(None),
        description: Some(Some("an engineer".into())),
        default_project_id: Some(Some(world.parent)),
        ..UserChange::default()
    };
    assert!(tx.user_update(world.user, &cleared).await.unwrap());
    assert!(tx.group_update(world.group, Some(&name("crew")), None, None).await.unwrap());
    let does = RoleChange { description: Some(Some("does".to_owned())), ..RoleChange::default() };
    assert!(tx.role_update(world.role, &does).await.unwrap());
    assert!(!tx.user_password_set(world.user, Some("not it"), Some("x"), &[], Timestamp(2)).await.unwrap());
    let history = ["hash1".to_owned()];
    assert!(tx.user_password_set(world.user, Some("hash1"), Some("hash2"), &history, Timestamp(2)).await.unwrap());
    tx.user_failure_add(world.user, Timestamp(7)).await.unwrap();
    commit(tx).await;
    let login = store.user_login(UserKey::Id(world.user)).await.unwrap().unwrap();
    assert_eq!((login.failures, login.failed_at, login.password_hash.as_deref()), (1, Timestamp(7), Some("hash2")));
    assert_eq!(login.password_history, history);
    assert_eq!((login.user.email, login.user.default_project_id), (None, Some(world.parent)));
    assert_eq!(login.user.description.as_deref(), Some("an engineer"));
    assert_eq!(store.domain_get(DomainKey::Id(world.domain)).await.unwrap().unwrap().description, "a company");
    assert!(!store.project_get(ProjectKey::Id(world.child)).await.unwrap().unwrap().project.enabled);
}

async fn assignments(store: &Store, world: &World) {
    let (on_project, on_domain) = (RoleTarget::Project(world.child), RoleTarget::Domain(world.domain));
    let (person, group) = (RoleActor::User(world.user), RoleActor::Group(world.group));
    let tx = begin(store).await;
    assert!(tx.group_member_add(world.group, world.user).await.unwrap());
    assert!(!tx.group_member_add(world.group, world.user).await.unwrap());
    assert!(tx.assignment_insert(person, on_domain, world.role, false).await.unwrap());
    assert!(!tx.assignment_insert(person, on_domain, world.role, false).await.unwrap());
    assert!(tx.assignment_insert(group, on_project, world.role, false).await.unwrap());
    commit(tx).await;
    let tx = begin(store).await;
    let dangling = tx.assignment_insert(person, on_domain, RoleId::new(), false).await;
    assert!(matches!(dangling, Err(StoreError::Referenced(_))), "{dangling:?}");
    drop(tx);

    assert_eq!(store.roles_of_user(world.user, on_project).await.unwrap()[0].0, world.role);
    assert!(store.roles_of_user(world.user, RoleTarget::System).await.unwrap().is_empty());
    assert!(store.assignment_roles(person, on_project, false).await.unwrap().is_empty());
    assert_eq!(store.assignment_roles(group, on_project, false).await.unwrap().len(), 1);
    let mine = ProjectFilter { member: Some(world.user), limit: 10, ..ProjectFilter::default() };
    assert_eq!(store.project_list(&mine).await.unwrap()[0].id, world.child);
    let mine = DomainFilter { member: Some(world.user), limit: 10, ..DomainFilter::default() };
    assert_eq!(store.domain_list(&mine).await.unwrap()[0].id, world.domain);
    let groups = GroupFilter { user_id: Some(world.user), limit: 10, ..GroupFilter::default() };
    assert_eq!(store.group_list(&groups).await.unwrap()[0].name.as_str(), "crew");

    let filter = AssignmentFilter { limit: 10, ..AssignmentFilter::default() };
    assert_eq!(store.assignment_list(&filter).await.unwrap().len(), 2);
    let filter = AssignmentFilter { effective: true, user_id: Some(world.user), ..filter };
    let found = store.assignment_list(&filter).await.unwrap();
    let through = found.iter().find(|a| a.through == Some(world.group)).unwrap();
    assert!(matches!(&through.actor, AssignmentActor::User(u) if u.name == "ann" && u.domain.1 == "acme"));
    assert!(matches!(&through.target, AssignmentTarget::Project(p) if p.id == world.child && p.name == "child"));
    let filter =
        AssignmentFilter { within: Some(world.domain), group_id: Some(world.group), limit: 10, ..Default::default() };
    assert_eq!(store.assignment_list(&filter).await.unwrap().len(), 1);

    assert!(!store.actor_reaches_beyond(person, world.domain, &[RoleId::new()]).await.unwrap());
    assert!(store.actor_reaches_beyond(person, world.domain, &[world.role]).await.unwrap());
    assert!(store.actor_reaches_beyond(person, DomainId::DEFAULT, &[RoleId::new()]).await.unwrap());
    let tx = begin(store).await;
    tx.assignment_insert(group, RoleTarget::System, world.role, false).await.unwrap();
    commit(tx).await;
    assert!(store.actor_reaches_beyond(person, world.domain, &[RoleId::new()]).await.unwrap());
}

/// A domain with a project, one below it and one below that; a user who inherits from the first, and roles that imply.
async fn inherited_and_implied(store: &Store) {
    let domain = DomainId::new();
    let role = |text: &str, domain_id| RoleEntry {
        id: RoleId::new(),
        domain_id,
        name: name(text),
        description: None,
        builtin: false,
        options: Extra::new(),
        created_at: Timestamp(1),
    };
    let (top, ann) = (project(domain, None, "top"), user(domain, "ann"));
    let mut middle = project(domain, Some(top.id), "middle");
    middle.tags = vec!["a".to_owned(), "b c".to_owned()];
    let bottom = project(domain, Some(middle.id), "bottom");
    let (first, second, third) = (role("first", None), role("second", None), role("third", None));
    let own = role("first", Some(domain));
    let tx = begin(store).await;
    let extra = Extra::from_iter([("colour".to_owned(), serde_json::json!("blue"))]);
    let (enabled, created_at) = (true, Timestamp(1));
    let (description, options) = (String::new(), Extra::new());
    let new =
        Domain { id: domain, name: name("tree"), description, enabled, extra, options, token_epoch: 0, created_at };
    tx.domain_insert(&new).await.unwrap();
    for project in [&top, &middle, &bottom] {
        tx.project_insert(project).await.unwrap();
    }
    tx.user_insert(&ann, None).await.unwrap();
    for role in [&first, &second, &third, &own] {
        tx.role_insert(role).await.unwrap();
    }
    assert!(tx.implication_insert(own.id, first.id).await.unwrap());
    assert!(tx.implication_insert(first.id, second.id).await.unwrap());
    assert!(!tx.implication_insert(first.id, second.id).await.unwrap());
    let person = RoleActor::User(ann.id);
    tx.assignment_insert(person, RoleTarget::Project(top.id), own.id, true).await.unwrap();
    tx.assignment_insert(person, RoleTarget::Domain(domain), third.id, true).await.unwrap();
    commit(tx).await;

    assert_eq!(store.domain_get(DomainKey::Id(domain)).await.unwrap().unwrap(), new);
    let names = async |target| -> Vec<String> {
        let held = store.roles_of_user(ann.id, target).await.unwrap();
        held.iter().map(|(_, name)| name.to_string()).collect()
    };
    assert_eq!(names(RoleTarget::Project(top.id)).await, ["third"], "not where it was given");
    assert_eq!(names(RoleTarget::Project(middle.id)).await, ["first", "second", "third"]);
    assert_eq!(names(RoleTarget::Project(bottom.id)).await, ["first", "second", "third"]);
    assert!(names(RoleTarget::Domain(domain)).await.is_empty());
    assert!(store.role_leads_to(own.id, second.id).await.unwrap());
    assert!(!store.role_leads_to(second.id, own.id).await.unwrap());
    assert_eq!(store.implication_list(Some(first.id), 9).await.unwrap()[0].implied.0, second.id);
    assert_eq!(store.roles_closure(&[own.id]).await.unwrap().len(), 2);
    let mine = ProjectFilter { member: Some(ann.id), limit: 10, ..ProjectFilter::default() };
    assert_eq!(store.project_list(&mine).await.unwrap().len(), 3);
    let on_bottom = AssignmentFilter {
        target: Some(RoleTarget::Project(bottom.id)),
        effective: true,
        limit: 10,
        ..AssignmentFilter::default()
    };
    let mut from: Vec<_> = store.assignment_list(&on_bottom).await.unwrap();
    from.sort_by_key(|a| a.role_id != own.id);
    assert_eq!(from[0].inherited_from, Some(RoleTarget::Project(top.id)));
    assert_eq!(from[1].inherited_from, Some(RoleTarget::Domain(domain)));
    let subtree = AssignmentFilter {
        target: Some(RoleTarget::Project(top.id)),
        subtree: true,
        limit: 10,
        ..AssignmentFilter::default()
    };
    assert_eq!(store.assignment_list(&subtree).await.unwrap().len(), 1);
    let tx = begin(store).await;
    let voided = tx.revoke(Revoked::RoleHolders(second.id), Timestamp(1), Timestamp(1)).await.unwrap();
    assert_eq!(voided.len(), 1, "who holds what implies it");
    drop(tx);

    let ids = |found: Vec<Project>| found.into_iter().map(|p| p.id).collect::<Vec<_>>();
    assert_eq!(ids(store.project_parents(bottom.id).await.unwrap()), [middle.id, top.id]);
    assert_eq!(ids(store.project_subtree(top.id, 9).await.unwrap()), [middle.id, bottom.id]);
    for (tags, wanted) in [
        (ProjectTags { all: vec!["a".into(), "b c".into()], ..ProjectTags::default() }, 1),
        (ProjectTags { all: vec!["b".into()], ..ProjectTags::default() }, 0),
        (ProjectTags { any: vec!["x".into(), "a".into()], ..ProjectTags::default() }, 1),
        (ProjectTags { not_all: vec!["a".into(), "x".into()], ..ProjectTags::default() }, 3),
        (ProjectTags { not_any: vec!["a".into(), "x".into()], ..ProjectTags::default() }, 2),
    ] {
        let filter = ProjectFilter { domain_id: Some(domain), tags, limit: 10, ..ProjectFilter::default() };
        assert_eq!(store.project_list(&filter).await.unwrap().len(), wanted, "{filter:?}");
    }
    for (text, place, any_case, wanted) in [
        ("o", TextPlace::Inside, false, 2),
        ("O", TextPlace::Inside, false, 0),
        ("TO", TextPlace::Start, true, 1),
        ("m", TextPlace::End, false, 1),
        ("longer than a name", TextPlace::End, false, 0),
        ("%", TextPlace::Inside, false, 0),
    ] {
        let names = vec![TextTest { text: text.to_owned(), place, any_case }];
        let filter = ProjectFilter { domain_id: Some(domain), names, limit: 10, ..ProjectFilter::default() };
        assert_eq!(store.project_list(&filter).await.unwrap().len(), wanted, "{filter:?}");
    }
}

async fn trusts(store: &Store, world: &World) {
    let (trustee, now) = (user(DomainId::DEFAULT, "trustee"), Timestamp(1));
    let trust = Trust {
        id: TrustId::new(),
        trustor: world.user,
        trustee: trustee.id,
        project_id: Some(world.child),
        impersonation: true,
        roles: vec![world.role],
        expires_at: Some(Timestamp(9)),
        remaining_uses: Some(1),
        redelegation_count: 1,
        redelegated_from: None,
        created_at: now,
    };
    let next = Trust { id: TrustId::new(), redelegated_from: Some(trust.id), ..trust.clone() };
    let tx = begin(store).await;
    tx.user_insert(&trustee, None).await.unwrap();
    tx.trust_insert(&trust).await.unwrap();
    tx.trust_insert(&next).await.unwrap();
    assert!(tx.trust_use(trust.id).await.unwrap());
    assert!(!tx.trust_use(trust.id).await.unwrap(), "no use is left");
    commit(tx).await;
    let given = TrustFilter { trustor: Some(world.user), limit: 9, ..TrustFilter::default() };
    assert_eq!(store.trust_list(&given).await.unwrap().len(), 2);
    assert_eq!(store.trust_get(trust.id).await.unwrap(), Some(Trust { remaining_uses: Some(0), ..trust.clone() }));
    assert_eq!(store.trust_descendants(trust.id).await.unwrap().len(), 2);
    let tx = begin(store).await;
    assert!(tx.trust_delete(trust.id).await.unwrap());
    assert!(tx.user_delete(trustee.id).await.unwrap());
    commit(tx).await;
    assert_eq!(store.trust_get(next.id).await.unwrap(), None, "what was handed on goes with it");
}

async fn application_credentials(store: &Store, world: &World) {
    let new = ApplicationCredential {
        id: ApplicationCredentialId::new(),
        user_id: world.user,
        project_id: world.child,
        name: name("backup"),
        description: None,
        secret_hash: "hash".to_owned(),
        roles: vec![world.role],
        unrestricted: false,
        ruled: true,
        expires_at: Some(Timestamp(99)),
        created_at: Timestamp(1),
    };
    let tx = begin(store).await;
    tx.application_credential_insert(&new).await.unwrap();
    commit(tx).await;
    for key in
        [ApplicationCredentialKey::Id(new.id), ApplicationCredentialKey::Name { user_id: world.user, name: "backup" }]
    {
        assert_eq!(store.application_credential_get(key).await.unwrap().as_ref(), Some(&new));
    }
    let list = store.application_credential_list(world.user, Some("backup"), None, 5).await.unwrap();
    assert_eq!(list, std::slice::from_ref(&new));
    let rule = |path: &str| AccessRule {
        id: AccessRuleId::new(),
        service: "compute".to_owned(),
        method: "GET".to_owned(),
        path: path.to_owned(),
    };
    let tx = begin(store).await;
    let first = tx.application_credential_rule_add(world.user, new.id, &rule("/a")).await.unwrap();
    let same = tx.application_credential_rule_add(world.user, new.id, &rule("/a")).await.unwrap();
    assert_eq!(first, same, "one rule is kept once");
    commit(tx).await;
    let tx = begin(store).await;
    let used = tx.access_rule_delete(world.user, first.id).await;
    assert!(matches!(used, Err(StoreError::Referenced(_))), "{used:?}");
    drop(tx);
    assert_eq!(store.application_credential_rules(vec![new.id]).await.unwrap(), [(new.id, first)]);
}

async fn revocations(store: &Store, world: &World) {
    let (now, later) = (Timestamp(1_000), Timestamp(2_000));
    let tx = begin(store).await;
    let first = tx.revoke(Revoked::GroupMembers(world.group), now, later).await.unwrap();
    assert_eq!((first.len(), first[0].kind, first[0].subject_id), (1, RevocationKind::User, world.user.0));
    let second = tx.revoke(Revoked::RoleHolders(world.role), now, later).await.unwrap();
    assert_eq!((second.len(), second[0].epoch), (1, first[0].epoch + 1));
    assert_eq!(tx.revoke(Revoked::Project(world.child), now, later).await.unwrap()[0].epoch, 1);
    assert_eq!(tx.revoke(Revoked::Domain(DomainId::DEFAULT), now, later).await.unwrap()[0].epoch, 1);
    let (group, place) = (RoleActor::Group(world.group), RoleTarget::Project(world.child));
    let before = store.stay_of_user(world.user, place).await.unwrap();
    let stays = tx.revoke_stays(group, place, now, later).await.unwrap();
    assert_eq!((stays.len(), stays[0].subject_id, stays[0].epoch), (1, before.id, before.epoch + 1));
    let again = tx.revoke_stays(RoleActor::User(world.user), place, now, later).await.unwrap();
    assert_eq!((again[0].subject_id, again[0].epoch), (before.id, before.epoch + 2));
    assert_eq!(tx.stay_of_user(world.user, place).await.unwrap().epoch, before.epoch + 2);
    let audit_id = uuid::Uuid::new_v4();
    tx.revoke_token(audit_id, now, later).await.unwrap();
    tx.revoke_token(audit_id, now, later).await.unwrap();
    tx.revoke_application_credential(ApplicationCredentialId::new(), now, later).await.unwrap();
    commit(tx).await;
    assert_eq!(store.revocation_list(Timestamp(0)).await.unwrap().len(), 6);
    assert!(store.revocation_list(Timestamp(1_001)).await.unwrap().is_empty());
    assert_eq!(store.user_get(world.user).await.unwrap().unwrap().token_epoch, second[0].epoch);
    let tx = store.begin_unaudited().await.unwrap();
    assert_eq!(tx.revocations_prune(Timestamp(2_000)).await.unwrap(), 0);
    assert_eq!(tx.revocations_prune(Timestamp(2_001)).await.unwrap(), 6);
    tx.commit().await.unwrap();
}

async fn deletion(store: &Store, world: &World) {
    let tx = begin(store).await;
    let used = tx.project_delete(world.parent).await;
    assert!(matches!(used, Err(StoreError::Referenced(_))), "{used:?}");
    drop(tx);
    let tx = begin(store).await;
    assert!(tx.domain_delete(world.domain).await.unwrap());
    commit(tx).await;
    assert!(store.user_get(world.user).await.unwrap().is_none());
    assert!(store.group_get(world.group).await.unwrap().is_none());
    assert!(store.project_get(ProjectKey::Id(world.child)).await.unwrap().is_none());
    assert!(store.application_credential_list(world.user, None, None, 5).await.unwrap().is_empty());
    let filter = AssignmentFilter { limit: 10, role_id: Some(world.role), ..AssignmentFilter::default() };
    assert!(store.assignment_list(&filter).await.unwrap().is_empty());
    let tx = begin(store).await;
    assert!(tx.role_delete(world.role).await.unwrap());
    commit(tx).await;
}
