//! What must be there before a route can be called: made through the API, by those who may.

mod network;
mod volume_groups;
mod volumes;

use super::Who;
use crate::compute::Nova;
use arcus_types::agent::NodeFacts;
use arcus_types::{OpCtx, PortId, ProjectId};
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

/// What a case needs. Each sets `{id}` to its own id, and the ids of what it stands on by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thing {
    Nothing,
    /// The task that makes a server.
    Task,
    Network,
    Subnet,
    SubnetPool,
    Port,
    Router,
    /// A router, and apart from it `{subnet}`.
    RouterAndSubnet,
    /// A router with an interface on `{subnet}`.
    RouterWithLeg,
    FloatingIp,
    SecurityGroup,
    SecurityGroupRule,
    AddressGroup,
    AddressScope,
    /// A network `{network}` that is shared with the project `{elsewhere}` by the policy `{id}`.
    RbacPolicy,
    /// A QoS policy with the rules `{limit}` and `{mark}`.
    QosPolicy,
    /// A floating IP, and `{port}` behind a router to its network.
    FloatingIpAndPort,
    /// The same with the forwarding `{forwarding}`.
    PortForwarding,
    DefaultRule,
    /// A default subnet pool, which the cloud has one of.
    DefaultPool,
    /// What the project `{project}` got that asked for any network.
    AutoTopology,
    /// A thing of this collection with the tag `t`.
    Tagged(&'static str),
    /// An image without bytes.
    ImageQueued,
    Image,
    /// An image whose bytes await their import.
    ImageStaged,
    ImageDeactivated,
    /// An image that is shared with the project `{admins}`.
    ImageShared,
    /// An image of the project `admin` that is offered to the project `demo`.
    ImageOffered,
    /// The image that a snapshot of a server will fill.
    Snapshot,
    /// A server that runs, with `{port}`, the metadata `k`, the tag `t`, and `{request_id}` of its creation.
    Server,
    /// The same after these actions.
    ServerAfter(&'static [&'static str]),
    /// A cluster without nodes.
    Cluster,
    /// A cluster that node-1 is in.
    ClusterWithNode,
    /// An aggregate of nodes, by its number.
    Aggregate,
    ServerGroup,
    Keypair,
    /// A flavor with the extra spec `colour`.
    Flavor,
    /// A flavor of the project `demo` alone.
    FlavorPrivate,
    /// A volume type with the extra spec `multiattach`.
    VolumeType,
    /// A volume type of the project `demo` alone, with the same extra spec.
    VolumeTypePrivate,
    /// A volume that is available, with the metadata `k`.
    Volume,
    /// A volume that no pool could take, with a message about that.
    VolumeRefused,
    /// An offer of a volume, with `{key}`.
    VolumeTransfer,
    /// QoS specs with the key `total_iops_sec`, and apart from them `{volume_type}`.
    QosSpecs,
    Domain,
    DomainDisabled,
    Project,
    /// A user of the domain `default`, with `{name}`, `{password}` and `{token}`.
    Person,
    /// A group of the domain `default`.
    Group,
    /// A group with the user `{user_id}` in it.
    GroupWithPerson,
    Role,
    /// A `user` or `group`, and a `project`, a `domain` or the `system`; whether the role `{role_id}` is held there.
    Assigned(&'static str, &'static str, bool),
    /// The same for a role that is inherited by the projects below.
    Inherited(&'static str, &'static str, bool),
    ApplicationCredential,
    /// A trust that the user `demo` gives to the user `admin`.
    Trust,
    /// A rule of the user `demo` that no application credential has.
    AccessRule,
    /// A secret of the user `demo`, whose text is `{blob}`.
    Credential,
    /// A project with the tag `t`.
    ProjectTagged,
    /// A role `{role_id}` that implies `{implied_id}`.
    Implication,
    Region,
    Service,
    Endpoint,
    /// A default for `{resource}` of the service `{service_id}`.
    RegisteredLimit,
    /// The same, and a limit of the project `demo`.
    Limit,
    /// A token of the user `demo`, as `{subject}`.
    Token,
    /// `{join_token}`.
    JoinToken,
    /// A resource provider with VGPUs, in its generation 1.
    Provider,
    /// The same, and `{consumer}` which claims one of them.
    Consumer,
    /// A trait and a class of resource, both called `{word}`.
    ProviderWord,
    /// A volume after these actions of the volume API.
    VolumeAfter(&'static [&'static str]),
    /// A snapshot `{snapshot}` with the metadata `k`, of `{volume}`.
    VolumeSnapshot,
    /// A group type with the spec `colour`.
    VolumeGroupType,
    /// An empty group, and apart from it `{free_volume}`.
    VolumeGroup,
    /// A group with `{volume}`.
    VolumeGroupFilled,
    /// A snapshot of such a group.
    VolumeGroupSnapshot,
    /// An attachment that is only noted, of `{volume}`.
    Attachment,
    /// A server that has `{volume}`, and apart from it `{free_volume}`.
    ServerWithVolume,
}

/// What stands for the `{words}` of a case.
#[derive(Debug, Clone, Default)]
pub struct Vars(BTreeMap<String, Var>);

#[derive(Debug, Clone)]
struct Var {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Belongs to the project, domain or user, and others must not see it.
    Secret,
    /// Belongs to them, and others may know of it.
    Known,
    /// Belongs to nobody in particular.
    Common,
}

impl Vars {
    pub fn set(&mut self, name: &str, kind: Kind, text: impl Into<String>) {
        self.0.insert(name.to_owned(), Var { text: text.into(), kind });
    }

    pub fn secret(&mut self, name: &str, text: impl Into<String>) {
        self.set(name, Kind::Secret, text);
    }

    /// The text that stands for a word.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|var| var.text.as_str())
    }

    /// A template with its words filled in.
    pub fn fill(&self, template: &str) -> String {
        let mut text = template.to_owned();
        for (name, var) in &self.0 {
            text = text.replace(&format!("{{{name}}}"), &var.text);
        }
        text
    }

    /// Whether templates name something that belongs to somebody.
    pub fn touched(&self, templates: &[&str]) -> bool {
        let owned = self.0.iter().filter(|(_, var)| var.kind != Kind::Common);
        owned.map(|(name, _)| format!("{{{name}}}")).any(|word| templates.iter().any(|t| t.contains(&word)))
    }

    /// What others must not see.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.0.values().filter(|var| var.kind == Kind::Secret).map(|var| var.text.as_str())
    }

    /// The same with ids that name nothing.
    pub fn absent(&self) -> Self {
        let mut absent = self.clone();
        for var in absent.0.values_mut().filter(|var| var.kind == Kind::Secret) {
            let id = PortId::new().to_string();
            var.text = if var.text.contains('-') { id } else { id.replace('-', "") };
        }
        absent
    }

    /// The same under names that begin with this, as something that need not be hidden.
    pub fn renamed(&self, prefix: &str) -> Self {
        let rename =
            |(name, var): (&String, &Var)| (format!("{prefix}{name}"), Var { kind: Kind::Common, ..var.clone() });
        Self(self.0.iter().map(rename).collect())
    }

    /// These, and others where these have none.
    pub fn merged(mut self, others: &Self) -> Self {
        for (name, var) in &others.0 {
            self.0.entry(name.clone()).or_insert_with(|| var.clone());
        }
        self
    }

    /// The same with a word for `{fresh}`.
    pub fn with_fresh(&self, word: String) -> Self {
        let mut fresh = self.clone();
        fresh.set("fresh", Kind::Common, word);
        fresh
    }
}

/// A cloud with everybody in it.
pub struct World {
    pub nova: Nova,
    tokens: BTreeMap<Who, String>,
    base: Vars,
    shown: HashMap<Thing, Vars>,
    words: Cell<u32>,
}

/// A node's request for a certificate, as it stands inside a JSON text.
const CSR: &str = concat!(
    r"-----BEGIN CERTIFICATE REQUEST-----\nMIHGMG4CAQAwDDEKMAgGA1UEAwwBbjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA\n",
    r"BPTl3KLp9IeE9IiVJ6dm2f1o6eMLMzxJPZUfVG5Zc9p7gkjbeOIQTvshqPBu8r7E\n",
    r"Y9aUcA1nBVZ46ZE+EBNIUnmgADAKBggqhkjOPQQDAgNIADBFAiEAmU7LOE3acO5M\n",
    r"U3CIFK+W18s56a6aEgXZrSLgab+47aICIAdRx7u/i71fe9hN7h4riFo93qDMGSum\n",
    r"5bEoEXm9GGrG\n-----END CERTIFICATE REQUEST-----\n",
);

pub fn id(thing: &Value) -> String {
    thing["id"].as_str().unwrap_or_else(|| panic!("no id in {thing}")).to_owned()
}

impl World {
    pub async fn start() -> Self {
        let nova = Nova::start().await;
        let (tokens, words) = (BTreeMap::new(), Cell::new(0));
        let mut world = Self { nova, tokens, base: Vars::default(), shown: HashMap::new(), words };
        world.people().await;
        world.places().await;
        world.room().await;
        world
    }

    /// A word that has not been used.
    pub fn word(&self) -> String {
        self.words.set(self.words.get() + 1);
        format!("word-{}", self.words.get())
    }

    /// The token of somebody who has one.
    pub fn token(&self, who: Who) -> Option<String> {
        self.tokens.get(&who).cloned()
    }

    /// Logs everybody in.
    async fn people(&mut self) {
        let cloud = &self.nova.cloud;
        let rivals = self.admin("POST", "/identity/v3/domains", json!({ "domain": { "name": "rivals" } })).await;
        let rivals = id(&rivals["domain"]);
        let mut tokens = BTreeMap::from([
            (Who::Garbage, "garbage".to_owned()),
            (Who::Stranger, cloud.stranger().await.to_owned()),
            (Who::Reader, cloud.reader().await.to_owned()),
            (Who::Member, cloud.demo().await.to_owned()),
            (Who::Admin, cloud.admin().await.to_owned()),
        ]);
        for (who, name, domain, role) in [
            (Who::Rival, "rival", rivals.as_str(), "manager"),
            (Who::Warden, "warden", "default", "reader"),
            (Who::Manager, "manager", "default", "manager"),
        ] {
            let user = json!({ "user": { "name": name, "domain_id": domain, "password": "a password" } });
            let user = id(&self.admin("POST", "/identity/v3/users", user).await["user"]);
            let role = cloud.id_of("roles", role).await;
            let path = format!("/identity/v3/domains/{domain}/users/{user}/roles/{role}");
            cloud.put(&path, cloud.admin().await, Value::Null).await.expect(204);
            let user = json!({ "name": name, "domain": { "id": domain }, "password": "a password" });
            tokens.insert(who, self.login(user, json!({ "domain": { "id": domain } })).await);
        }
        let demo = json!({ "name": "demo", "domain": { "id": "default" }, "password": cloud.demo_password() });
        tokens.insert(Who::Unscoped, self.login(demo, json!("unscoped")).await);
        // A project gets its default group when it is first seen; that must not look like a change later.
        for who in [Who::Stranger, Who::Member, Who::Admin] {
            cloud.get("/network/v2.0/security-groups", &tokens[&who]).await.expect(200);
        }
        self.tokens = tokens;
    }

    async fn login(&self, user: Value, scope: Value) -> String {
        let identity = json!({ "methods": ["password"], "password": { "user": user } });
        let body = json!({ "auth": { "identity": identity, "scope": scope } });
        let answer = self.nova.cloud.post("/identity/v3/auth/tokens", "", body).await;
        assert_eq!(answer.status.as_u16(), 201, "{}", answer.json);
        answer.header("x-subject-token").to_owned()
    }

    /// What every case may name.
    async fn places(&mut self) {
        let cloud = &self.nova.cloud;
        let owner: ProjectId = cloud.id_of("projects", "admin").await.parse().unwrap();
        let (cidr, gateway) = ("172.24.0.0/16".parse().unwrap(), "172.24.0.1".parse().unwrap());
        let public = cloud.app.engine.external_network_ensure(owner, "public", cidr, gateway).await.unwrap();
        let mut base = Vars::default();
        let catalog = self.by(Who::Member, "GET", "/identity/v3/auth/catalog", Value::Null).await;
        base.set("service_id", Kind::Common, id(&catalog["catalog"][0]));
        base.set("endpoint_id", Kind::Common, id(&catalog["catalog"][0]["endpoints"][0]));
        base.set("csr", Kind::Common, CSR);
        base.secret("project", cloud.id_of("projects", "demo").await);
        base.secret("user", cloud.id_of("users", "demo").await);
        let tag = format!("/identity/v3/projects/{}/tags/t", base.get("project").unwrap());
        self.by(Who::Admin, "PUT", &tag, Value::Null).await;
        base.set("admin_user", Kind::Common, cloud.id_of("users", "admin").await);
        base.secret("image", &self.nova.image);
        base.secret("lan", &self.nova.network);
        base.set("domain", Kind::Known, "default");
        base.set("public", Kind::Common, public.to_string());
        base.set("admins", Kind::Common, owner.to_string());
        base.set("elsewhere", Kind::Common, cloud.id_of("projects", "elsewhere").await);
        base.set("node", Kind::Common, self.nova.node.to_string());
        base.set("member_role", Kind::Common, cloud.id_of("roles", "member").await);
        base.set("reader_role", Kind::Common, cloud.id_of("roles", "reader").await);
        self.base = base;
    }

    /// Room for all that the cases make.
    async fn room(&self) {
        let project = self.base.get("project").unwrap();
        let quota = json!({ "quota_set": { "instances": -1, "cores": -1, "ram": -1, "server_groups": -1 } });
        self.admin("PUT", &format!("/compute/v2.1/os-quota-sets/{project}"), quota).await;
        let quota = json!({ "quota_set": { "volumes": -1, "snapshots": -1, "gigabytes": -1, "groups": -1 } });
        self.admin("PUT", &format!("/volume/v3/os-quota-sets/{project}"), quota).await;
        let all = ["network", "subnet", "port", "router", "floatingip", "security_group", "security_group_rule"];
        let quota: serde_json::Map<String, Value> = all.iter().map(|name| ((*name).to_owned(), json!(-1))).collect();
        self.admin("PUT", &format!("/network/v2.0/quotas/{project}"), json!({ "quota": quota })).await;
        let tx = self.nova.cloud.store.begin_unaudited().await.unwrap();
        let facts = NodeFacts { vcpus: 1000, memory_mib: 1 << 20, disk_gib: 10_000, ..NodeFacts::default() };
        tx.node_facts_set(self.nova.node, &facts).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A call that must succeed; what it answered.
    pub async fn by(&self, who: Who, method: &str, path: &str, body: Value) -> Value {
        let token = self.tokens.get(&who).map_or("", String::as_str);
        let token = if who == Who::Admin { self.nova.cloud.admin().await } else { token };
        let answer = self.nova.cloud.call(method, path, token, body).await;
        assert!(answer.status.is_success(), "{method} {path}: {} {}", answer.status, answer.json);
        answer.json
    }

    async fn admin(&self, method: &str, path: &str, body: Value) -> Value {
        self.by(Who::Admin, method, path, body).await
    }

    pub async fn demo(&self, method: &str, path: &str, body: Value) -> Value {
        self.by(Who::Member, method, path, body).await
    }

    /// A thing that is only looked at: one for all cases.
    pub async fn shown(&mut self, thing: Thing) -> Vars {
        if let Some(vars) = self.shown.get(&thing) {
            return vars.clone();
        }
        let vars = self.make(thing).await;
        self.shown.insert(thing, vars.clone());
        vars
    }

    /// A thing of its own.
    pub async fn make(&self, thing: Thing) -> Vars {
        let mut vars = self.base.clone();
        match thing {
            Thing::Nothing => {}
            Thing::Network
            | Thing::Subnet
            | Thing::SubnetPool
            | Thing::Port
            | Thing::Router
            | Thing::RouterAndSubnet
            | Thing::RouterWithLeg
            | Thing::FloatingIp
            | Thing::SecurityGroup
            | Thing::SecurityGroupRule => self.network_thing(thing, &mut vars).await,
            Thing::AddressGroup
            | Thing::AddressScope
            | Thing::RbacPolicy
            | Thing::QosPolicy
            | Thing::FloatingIpAndPort
            | Thing::PortForwarding
            | Thing::DefaultRule => self.network_extra(thing, &mut vars).await,
            Thing::DefaultPool => self.default_pool().await,
            Thing::AutoTopology => {
                self.default_pool().await;
                let path = format!("/network/v2.0/auto-allocated-topology/{}", vars.get("project").unwrap());
                self.demo("GET", &path, Value::Null).await;
            }
            Thing::Tagged(collection) => {
                match collection {
                    "networks" => self.network_thing(Thing::Network, &mut vars).await,
                    "subnets" => self.network_thing(Thing::Subnet, &mut vars).await,
                    "subnetpools" => self.network_thing(Thing::SubnetPool, &mut vars).await,
                    "ports" => self.network_thing(Thing::Port, &mut vars).await,
                    "routers" => self.network_thing(Thing::Router, &mut vars).await,
                    "floatingips" => self.network_thing(Thing::FloatingIp, &mut vars).await,
                    "security-groups" => self.network_thing(Thing::SecurityGroup, &mut vars).await,
                    _ => self.network_extra(Thing::QosPolicy, &mut vars).await,
                }
                let path = format!("/network/v2.0/{collection}/{}/tags/t", vars.get("id").unwrap());
                self.demo("PUT", &path, Value::Null).await;
            }
            Thing::ImageQueued
            | Thing::Image
            | Thing::ImageStaged
            | Thing::ImageDeactivated
            | Thing::ImageShared
            | Thing::ImageOffered => {
                self.image_thing(thing, &mut vars).await;
            }
            Thing::VolumeType
            | Thing::VolumeTypePrivate
            | Thing::QosSpecs
            | Thing::Volume
            | Thing::VolumeRefused
            | Thing::VolumeTransfer => {
                self.volume_thing(thing, &mut vars).await;
            }
            Thing::Snapshot => self.snapshot(&mut vars).await,
            Thing::Server => self.server(&mut vars).await,
            Thing::Task => {
                self.server(&mut vars).await;
                let resource_id = vars.get("id").and_then(|id| id.parse().ok());
                let filter = arcus_store::TaskFilter { resource_id, limit: 1, ..Default::default() };
                let tasks = self.nova.cloud.store.task_list(&filter).await.unwrap();
                vars.secret("id", tasks[0].id.to_string());
            }
            Thing::ServerAfter(actions) => {
                self.server(&mut vars).await;
                for action in actions {
                    self.act(vars.get("id").unwrap(), action).await;
                }
            }
            Thing::Cluster | Thing::ClusterWithNode => {
                let body = json!({ "cluster": { "name": self.word() } });
                let made = self.admin("POST", "/arcus/v1/clusters", body).await;
                let id = made["cluster"]["id"].as_str().unwrap();
                if matches!(thing, Thing::ClusterWithNode) {
                    self.admin("PUT", &format!("/arcus/v1/clusters/{id}/nodes/node-1"), json!(null)).await;
                }
                vars.set("id", Kind::Common, id);
            }
            Thing::Aggregate => {
                let body = json!({ "aggregate": { "name": self.word() } });
                let made = self.admin("POST", "/compute/v2.1/os-aggregates", body).await;
                vars.set("id", Kind::Common, made["aggregate"]["id"].to_string());
            }
            Thing::ServerGroup | Thing::Keypair | Thing::Flavor | Thing::FlavorPrivate => {
                self.compute_thing(thing, &mut vars).await;
            }
            Thing::Domain
            | Thing::DomainDisabled
            | Thing::Project
            | Thing::Person
            | Thing::Group
            | Thing::GroupWithPerson
            | Thing::Role
            | Thing::ApplicationCredential => self.identity_thing(thing, &mut vars).await,
            Thing::Trust
            | Thing::AccessRule
            | Thing::Credential
            | Thing::ProjectTagged
            | Thing::Implication
            | Thing::Region
            | Thing::Service
            | Thing::Endpoint
            | Thing::RegisteredLimit
            | Thing::Limit => self.identity_more(thing, &mut vars).await,
            Thing::Assigned(actor, target, held) => self.assigned(actor, target, held, false, &mut vars).await,
            Thing::Inherited(actor, target, held) => self.assigned(actor, target, held, true, &mut vars).await,
            Thing::Token => {
                let cloud = &self.nova.cloud;
                vars.set("subject", Kind::Known, cloud.login("demo", cloud.demo_password(), "demo").await);
            }
            Thing::VolumeGroupType | Thing::VolumeGroup | Thing::VolumeGroupFilled | Thing::VolumeGroupSnapshot => {
                self.volume_group_thing(thing, &mut vars).await;
            }
            Thing::VolumeAfter(_) | Thing::VolumeSnapshot | Thing::Attachment | Thing::ServerWithVolume => {
                self.volume_part(thing, &mut vars).await;
            }
            Thing::JoinToken => {
                let token = self.nova.cloud.app.engine.join_token_create(&OpCtx::system(), 1, 60).await;
                vars.set("join_token", Kind::Common, token.unwrap());
            }
            Thing::Provider | Thing::Consumer | Thing::ProviderWord => self.placement_thing(thing, &mut vars).await,
        }
        vars
    }

    async fn placement_thing(&self, thing: Thing, vars: &mut Vars) {
        let send = async |method: &str, path: String, body: Value| {
            let headers = [("content-type", "application/json"), ("openstack-api-version", "placement 1.39")];
            let token = self.nova.cloud.admin().await;
            let path = format!("/placement/{path}");
            let answer = self.nova.cloud.send(method, &path, token, &headers, body.to_string()).await;
            assert!(answer.status.is_success(), "{method} {path}: {} {}", answer.status, answer.json);
        };
        if thing == Thing::ProviderWord {
            let word = format!("CUSTOM_{}", self.word().replace('-', "_").to_uppercase());
            send("PUT", format!("traits/{word}"), json!({})).await;
            send("PUT", format!("resource_classes/{word}"), json!({})).await;
            vars.set("word", Kind::Common, word);
            return;
        }
        let (provider, consumer) = (PortId::random().to_string(), PortId::random().to_string());
        send("POST", "resource_providers".into(), json!({ "name": self.word(), "uuid": provider })).await;
        let inventories = json!({ "resource_provider_generation": 0, "inventories": { "VGPU": { "total": 4 } } });
        send("PUT", format!("resource_providers/{provider}/inventories"), inventories).await;
        if thing == Thing::Consumer {
            let claim = json!({ "allocations": { provider.as_str(): { "resources": { "VGPU": 1 } } }, "project_id": "p",
                "user_id": "u", "consumer_generation": null, "consumer_type": "TEST" });
            send("PUT", format!("allocations/{consumer}"), claim).await;
        }
        vars.secret("consumer", consumer);
        vars.secret("id", provider);
    }

    /// One of each thing that others could name, all of one project.
    pub async fn holdings(&self, who: Who) -> Vars {
        let mut vars = Vars::default();
        let net = async |kind, collection, attributes| self.net_of(who, kind, collection, attributes).await;
        let network = net("network", "networks", json!({ "name": "n" })).await;
        let on = async |cidr: &str| {
            let subnet = json!({ "network_id": network, "ip_version": 4, "cidr": cidr });
            self.net_of(who, "subnet", "subnets", subnet).await
        };
        let routed = on("10.20.0.0/24").await;
        vars.secret("subnet", on("10.21.0.0/24").await);
        let third = on("10.22.0.0/24").await;
        let port = async |subnet: &str| {
            let port = json!({ "network_id": network, "fixed_ips": [{ "subnet_id": subnet }] });
            self.net_of(who, "port", "ports", port).await
        };
        vars.secret("routed_port", port(&routed).await);
        vars.secret("port", port(&third).await);
        vars.secret("free_port", port(&routed).await);
        vars.secret("spare_port", port(&routed).await);
        let pool = json!({ "name": "p", "prefixes": ["10.80.0.0/16"], "default_prefixlen": 24 });
        vars.secret("pool", net("subnetpool", "subnetpools", pool).await);
        vars.secret("empty", net("network", "networks", json!({ "name": "without subnets" })).await);
        let public = self.base.get("public").unwrap();
        let gateway = json!({ "name": "r", "external_gateway_info": { "network_id": public } });
        let router = net("router", "routers", gateway).await;
        let path = format!("/network/v2.0/routers/{router}/add_router_interface");
        self.by(who, "PUT", &path, json!({ "subnet_id": routed })).await;
        vars.secret("router", router);
        vars.secret("group", net("security_group", "security-groups", json!({ "name": self.word() })).await);
        vars.secret("network", network);
        vars.set("public", Kind::Common, public);
        self.computing(who, &mut vars).await;
        vars
    }

    async fn computing(&self, who: Who, vars: &mut Vars) {
        let (word, nova) = (self.word(), "/compute/v2.1");
        let body = json!({ "name": word, "disk_format": "raw", "container_format": "bare", "visibility": "private" });
        let image = id(&self.by(who, "POST", "/image/v2/images", body).await);
        let headers = [("content-type", "application/octet-stream")];
        let path = format!("/image/v2/images/{image}/file");
        let sent = self.nova.cloud.send("PUT", &path, &self.tokens[&who], &headers, vec![7_u8; 512]).await;
        assert_eq!(sent.status.as_u16(), 204);
        self.by(who, "POST", &format!("{nova}/os-keypairs"), json!({ "keypair": { "name": word } })).await;
        vars.secret("keypair", word);
        let group = json!({ "server_group": { "name": "g", "policies": ["affinity"] } });
        let group = self.by(who, "POST", &format!("{nova}/os-server-groups"), group).await;
        vars.secret("server_group", id(&group["server_group"]));
        let network = vars.get("network").unwrap();
        let body = json!({ "server": { "name": "s", "imageRef": image, "flavorRef": "1",
            "networks": [{ "uuid": network }] } });
        let server = self.by(who, "POST", &format!("{nova}/servers"), body.clone()).await;
        let settled = self.by(who, "POST", &format!("{nova}/servers"), body).await;
        self.nova.play().await;
        vars.secret("server", id(&server["server"]));
        vars.secret("settled", id(&settled["server"]));
        vars.secret("image", image);
    }

    async fn image_thing(&self, thing: Thing, vars: &mut Vars) {
        let (owner, name) = (if thing == Thing::ImageOffered { Who::Admin } else { Who::Member }, self.word());
        let body = json!({ "name": name, "disk_format": "raw", "container_format": "bare", "tags": ["t"] });
        let image = id(&self.by(owner, "POST", "/image/v2/images", body).await);
        vars.secret("id", image.clone());
        let path = format!("/image/v2/images/{image}");
        if thing != Thing::ImageQueued {
            let headers = [("content-type", "application/octet-stream")];
            let (cloud, token) = (&self.nova.cloud, &self.tokens[&owner]);
            let end = if thing == Thing::ImageStaged { "stage" } else { "file" };
            let sent = cloud.send("PUT", &format!("{path}/{end}"), token, &headers, vec![7_u8; 512]).await;
            assert_eq!(sent.status.as_u16(), 204);
        }
        match thing {
            Thing::ImageDeactivated => {
                drop(self.demo("POST", &format!("{path}/actions/deactivate"), Value::Null).await)
            }
            Thing::ImageShared => {
                let member = json!({ "member": vars.get("admins").unwrap() });
                self.demo("POST", &format!("{path}/members"), member).await;
            }
            Thing::ImageOffered => {
                let member = json!({ "member": vars.get("project").unwrap() });
                self.admin("POST", &format!("{path}/members"), member).await;
            }
            _ => {}
        }
    }

    async fn server(&self, vars: &mut Vars) {
        let (image, lan) = (vars.get("image").unwrap(), vars.get("lan").unwrap());
        let body = json!({ "server": { "name": self.word(), "imageRef": image, "flavorRef": "1",
            "networks": [{ "uuid": lan }], "metadata": { "k": "v" } } });
        let server = id(&self.demo("POST", "/compute/v2.1/servers", body).await["server"]);
        self.nova.play().await;
        let path = format!("/compute/v2.1/servers/{server}");
        let (cloud, token) = (&self.nova.cloud, &self.tokens[&Who::Member]);
        let new = [("openstack-api-version", "compute 2.26")];
        cloud.send("PUT", &format!("{path}/tags/t"), token, &new, "").await;
        let ports = self.demo("GET", &format!("{path}/os-interface"), Value::Null).await;
        vars.secret("port", ports["interfaceAttachments"][0]["port_id"].as_str().unwrap());
        let actions = self.demo("GET", &format!("{path}/os-instance-actions"), Value::Null).await;
        vars.secret("request_id", actions["instanceActions"][0]["request_id"].as_str().unwrap());
        vars.secret("id", server);
    }

    /// An action on a server, and what its node does about it.
    async fn act(&self, server: &str, action: &str) {
        let body = match action {
            "resize" => json!({ "resize": { "flavorRef": "2" } }),
            "group" => json!({ "addSecurityGroup": { "name": "wide" } }),
            plain => json!({ plain: null }),
        };
        if action == "group" {
            let groups = self.demo("GET", "/network/v2.0/security-groups?name=wide", Value::Null).await;
            if groups["security_groups"] == json!([]) {
                self.net("security_group", "security-groups", json!({ "name": "wide" })).await;
            }
        }
        self.demo("POST", &format!("/compute/v2.1/servers/{server}/action"), body).await;
        self.nova.play().await;
    }

    async fn snapshot(&self, vars: &mut Vars) {
        self.server(vars).await;
        let path = format!("/compute/v2.1/servers/{}/action", vars.get("id").unwrap());
        let body = json!({ "createImage": { "name": self.word() } });
        let answer = self.nova.cloud.post(&path, &self.tokens[&Who::Member], body).await;
        let image = answer.header("location").rsplit('/').next().unwrap().to_owned();
        vars.secret("id", image);
    }

    async fn compute_thing(&self, thing: Thing, vars: &mut Vars) {
        let (word, nova) = (self.word(), "/compute/v2.1");
        match thing {
            Thing::ServerGroup => {
                let body = json!({ "server_group": { "name": word, "policies": ["affinity"] } });
                let made = self.demo("POST", &format!("{nova}/os-server-groups"), body).await;
                vars.secret("id", id(&made["server_group"]));
            }
            Thing::Keypair => {
                let name = format!("key-{}", PortId::new());
                self.demo("POST", &format!("{nova}/os-keypairs"), json!({ "keypair": { "name": name } })).await;
                vars.secret("id", name);
            }
            _ => {
                let (name, public) = (format!("flavor-{}", PortId::new()), thing == Thing::Flavor);
                let flavor = json!({ "id": name, "name": name, "ram": 64, "vcpus": 1, "disk": 1,
                    "os-flavor-access:is_public": public });
                self.admin("POST", &format!("{nova}/flavors"), json!({ "flavor": flavor })).await;
                let specs = json!({ "extra_specs": { "colour": "blue" } });
                self.admin("POST", &format!("{nova}/flavors/{name}/os-extra_specs"), specs).await;
                if !public {
                    let body = json!({ "addTenantAccess": { "tenant": vars.get("project").unwrap() } });
                    self.admin("POST", &format!("{nova}/flavors/{name}/action"), body).await;
                }
                vars.set("id", if public { Kind::Common } else { Kind::Secret }, name);
            }
        }
    }

    /// Makes one thing of the identity API; its id.
    async fn one(&self, kind: &str, more: Value) -> String {
        let mut body = json!({ "name": self.word() });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        id(&self.admin("POST", &format!("/identity/v3/{kind}s"), json!({ kind: body })).await[kind])
    }

    async fn identity_thing(&self, thing: Thing, vars: &mut Vars) {
        let made = match thing {
            Thing::Domain => self.one("domain", json!({})).await,
            Thing::DomainDisabled => self.one("domain", json!({ "enabled": false })).await,
            Thing::Project => self.one("project", json!({})).await,
            Thing::Person => self.person(vars).await,
            Thing::Group => self.one("group", json!({})).await,
            Thing::GroupWithPerson => {
                let (group, user) = (self.one("group", json!({})).await, self.one("user", json!({})).await);
                self.admin("PUT", &format!("/identity/v3/groups/{group}/users/{user}"), Value::Null).await;
                vars.secret("user_id", user);
                group
            }
            Thing::Role => {
                let role = self.one("role", json!({})).await;
                vars.set("role_id", Kind::Common, role.clone());
                return vars.set("id", Kind::Common, role);
            }
            _ => {
                let user = vars.get("user").unwrap().to_owned();
                let path = format!("/identity/v3/users/{user}/application_credentials");
                let body = json!({ "application_credential": { "name": self.word() } });
                vars.secret("user_id", user);
                id(&self.demo("POST", &path, body).await["application_credential"])
            }
        };
        let word = match thing {
            Thing::Domain | Thing::DomainDisabled => "domain_id",
            Thing::Project => "project_id",
            Thing::Person => "user_id",
            Thing::Group | Thing::GroupWithPerson => "group_id",
            _ => "application_credential_id",
        };
        vars.secret(word, made.clone());
        vars.secret("id", made);
    }

    /// A user with a role on the project `demo`, logged in without a scope.
    async fn person(&self, vars: &mut Vars) -> String {
        let (name, password) = (self.word(), "the password");
        let user = self.one("user", json!({ "name": name, "password": password })).await;
        let (project, role) = (vars.get("project").unwrap(), vars.get("reader_role").unwrap());
        let path = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
        self.admin("PUT", &path, Value::Null).await;
        let shown = json!({ "name": name, "domain": { "id": "default" }, "password": password });
        let token = self.login(shown, json!("unscoped")).await;
        vars.set("token", Kind::Known, token);
        vars.set("name", Kind::Known, name);
        vars.set("password", Kind::Known, password);
        user
    }

    async fn assigned(&self, actor: &str, target: &str, held: bool, inherited: bool, vars: &mut Vars) {
        let actor_id = self.one(actor, json!({})).await;
        let place = match target {
            "project" => {
                let project = self.one("project", json!({})).await;
                vars.secret("project_id", project.clone());
                format!("projects/{project}")
            }
            "domain" => {
                vars.set("domain_id", Kind::Known, "default");
                "domains/default".to_owned()
            }
            _ => "system".to_owned(),
        };
        let role = vars.get("member_role").unwrap().to_owned();
        if held {
            let path = if inherited {
                format!("/identity/v3/OS-INHERIT/{place}/{actor}s/{actor_id}/roles/{role}/inherited_to_projects")
            } else {
                format!("/identity/v3/{place}/{actor}s/{actor_id}/roles/{role}")
            };
            self.admin("PUT", &path, Value::Null).await;
        }
        vars.set("role_id", Kind::Common, role);
        vars.secret(if actor == "user" { "user_id" } else { "group_id" }, actor_id);
    }
}
