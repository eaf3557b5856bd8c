//! All SQL of Arcus: schema, migrations and queries, the same for SQLite and PostgreSQL.
//!
//! [`Db`] reads; [`Tx`] also writes. A method is one statement, or says why it is more. Reads run on [`Store`] and inside a
//! transaction alike, because both are a [`Db`] underneath. A transaction that wrote something and left no audit record
//! does not commit.

mod access_rules;
mod address_groups;
mod address_scopes;
mod addresses;
mod aggregates;
mod application_credentials;
mod assignments;
mod audit;
mod auto_topologies;
mod catalog;
mod clusters;
mod consumers;
#[cfg(debug_assertions)]
mod crash;
mod credentials;
mod default_rules;
mod domains;
mod flavors;
mod floating_ips;
mod groups;
mod images;
mod keypairs;
mod limits;
mod listing;
mod live_migrations;
mod networks;
mod node_prefetches;
mod nodes;
mod placement_decisions;
mod port_forwardings;
mod ports;
mod presence;
mod projects;
mod providers;
mod qos;
mod quotas;
mod quotas_by_type;
mod rbac;
mod relocations;
mod revocations;
mod roles;
mod routers;
mod seal;
mod security_groups;
mod server_actions;
mod server_addresses;
mod server_groups;
mod server_migrations;
mod servers;
mod sql;
mod sqlite;
mod subnet_pools;
mod subnets;
mod tags;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod text_tests;
mod trusts;
mod user_quotas;
mod users;
mod volume_attachments;
mod volume_group_types;
mod volume_groups;
mod volume_qos;
mod volume_snapshots;
mod volume_transfers;
mod volume_types;
mod volumes;

pub use access_rules::AccessRule;
pub use address_groups::{ADDRESS_GROUP_FIELDS, AddressGroup};
pub use address_scopes::{ADDRESS_SCOPE_FIELDS, AddressScope};
pub use addresses::{SEGMENT_MAX, Stretch};
pub use aggregates::Aggregate;
pub use application_credentials::{ApplicationCredential, ApplicationCredentialKey};
pub use assignments::{
    Assignment, AssignmentActor, AssignmentFilter, AssignmentTarget, Named, RoleActor, RoleTarget, Stay,
};
pub use audit::{AuditEntry, UsageEntry};
pub use catalog::{EndpointEntry, EndpointFilter, RegionEntry, ServiceEntry};
pub use clusters::{Cluster, ClusterUse};
pub use consumers::{AllocationRow, Consumer, ConsumerUsage};
pub use credentials::{CredentialEntry, CredentialFilter};
pub use default_rules::{DEFAULT_RULE_FIELDS, DefaultRule};
pub use domains::{Domain, DomainChange, DomainFilter, DomainKey};
pub use flavors::{Flavor, FlavorFilter, FlavorSort};
pub use floating_ips::{FLOATING_IP_FIELDS, FloatingIp};
pub use groups::{Group, GroupFilter};
pub use images::{
    Image, ImageContent, ImageFilter, ImageImport, ImageMember, ImageSortKey, ImageTotals, ImageUpload, ImageVisible,
    TimeTest,
};
pub use keypairs::Keypair;
pub use limits::{LimitEntry, LimitFilter, LimitOwner, RegisteredLimit};
pub use listing::{Field, FieldKind, Listing, PAGE_ROWS_MAX, Page, TagFilter};
pub use live_migrations::{LiveMigration, LiveProgress, PortMoving};
pub use networks::{NETWORK_FIELDS, Network, PortElsewhere};
pub use nodes::{Node, NodeNew, NodeStateNew};
pub use placement_decisions::{PLACEMENT_DECISIONS_MAX, PlacementDecision};
pub use port_forwardings::{PORT_FORWARDING_FIELDS, PortForwarding};
pub use ports::{
    AllowedPair, DhcpOption, OWNER_FLOATING_IP, OWNER_ROUTER_GATEWAY, OWNER_ROUTER_INTERFACE, PORT_FIELDS, Port,
    PortFilter, PortStatus,
};
pub use presence::{Presence, SEEN_BATCH};
pub use projects::{Project, ProjectChange, ProjectFilter, ProjectInDomain, ProjectKey, ProjectTags};
pub use providers::{Inventory, Provider, ProviderChanges, ProviderWord};
pub use qos::{QOS_POLICY_FIELDS, QosPolicy, QosRule, QosRuleKind};
pub use quotas::{Quota, QuotaResource};
pub use quotas_by_type::{TypeQuota, TypeQuotaKind};
pub use rbac::{RBAC_FIELDS, RbacAction, RbacPolicy, RbacType};
pub use relocations::{MoveFigures, Relocation};
pub use revocations::{Revocation, RevocationKind, Revoked};
pub use roles::{Implication, RoleChange, RoleEntry, RoleFilter};
pub use routers::{ROUTER_FIELDS, Router};
pub use seal::SealKey;
pub use security_groups::{
    SECURITY_GROUP_FIELDS, SECURITY_GROUP_RULE_FIELDS, SecurityGroup, SecurityGroupRule, direction_text, ethertype_text,
};
pub use server_actions::{ServerAction, ServerActionEvent, ServerActionFilter};
pub use server_addresses::ServerAddress;
pub use server_groups::{GroupPolicy, ServerGroup};
pub use server_migrations::{ServerMigration, ServerMigrationFilter};
pub use servers::{
    Server, ServerDetails, ServerFault, ServerFilter, ServerFlavor, ServerPlace, ServerRebuild, ServerRescue,
    ServerResize, ServerSecrets, ServerShelve, ServerSnapshot, ServerSort, ServerVisibility,
};
pub use subnet_pools::{SUBNET_POOL_FIELDS, SubnetPool};
pub use subnets::{AllocationPool, HostRoute, Ipv6Mode, SUBNET_FIELDS, Subnet};
pub use tags::Tagged;
pub use tasks::{Task, TaskFilter, TaskStep};
pub use text_tests::{Extra, TextPlace, TextTest};
pub use trusts::{Trust, TrustFilter};
pub use user_quotas::UserUse;
pub use users::{Login, User, UserChange, UserFilter, UserKey};
pub use volume_attachments::{VolumeAttachment, VolumeAttachmentFilter, VolumeAttachmentSort};
pub use volume_group_types::{VolumeGroupType, VolumeGroupTypeFilter, VolumeGroupTypeSort};
pub use volume_groups::{VolumeGroup, VolumeGroupFilter, VolumeGroupSnapshot, VolumeGroupSort};
pub use volume_qos::QosSpecs;
pub use volume_snapshots::{VolumeSnapshot, VolumeSnapshotFilter, VolumeSnapshotSort};
pub use volume_transfers::{VolumeTransfer, VolumeTransferFilter, VolumeTransferSort};
pub use volume_types::{VOLUME_TYPE_DEFAULT, VolumeType, VolumeTypeFilter, VolumeTypeSort};
pub use volumes::{
    FaultyVolume, PoolShare, Volume, VolumeCounts, VolumeDetails, VolumeFault, VolumeFilter, VolumeOrigin,
    VolumeRefillWish, VolumeSort, VolumeUpload,
};

use arcus_types::{NodeId, OpCtx, ProviderId};
use sea_orm::{ConnectOptions, Database, DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait};
use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Connections to PostgreSQL that one process holds at most.
const CONNECTIONS_MAX: u32 = 16;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or opened.
    #[error("could not open the database at {url}")]
    Open {
        /// Where, without a password.
        url: String,
        /// What the database said.
        #[source]
        source: DbErr,
    },
    /// The schema could not be brought up to date.
    #[error("could not migrate the database")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A row with this key is there already.
    #[error("already exists: {0}")]
    Duplicate(String),
    /// A row that this one needs is missing, or others still need this one.
    #[error("a row that is needed is missing, or this one is still needed: {0}")]
    Referenced(String),
    /// The row changed since it was read; read it again.
    #[error("{0} changed meanwhile")]
    Stale(&'static str),
    /// A stored value does not have the form that it must have.
    #[error("column {column} holds {value:?}, which is not valid")]
    Corrupt {
        /// The column.
        column: String,
        /// The value, as far as it can be shown.
        value: String,
    },
    /// A transaction wrote something and nobody recorded who and why.
    #[error("a transaction that wrote without an audit record was not committed")]
    Unaudited,
    /// A secret cannot be sealed or opened.
    #[error("a secret is closed: {0}")]
    Seal(String),
    /// Any other answer of the embedded database.
    #[error("the embedded database did not do it")]
    Sqlite(#[source] rusqlite::Error),
    /// Any other answer of the database.
    #[error("the database did not do it")]
    Database(#[source] DbErr),
}

impl StoreError {
    /// Whether the same call may work if it is tried again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Stale(_) => true,
            Self::Database(error) => {
                let text = error.to_string();
                ["40001", "40P01", "database is locked", "deadlock"].iter().any(|mark| text.contains(mark))
            }
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            ),
            Self::Open { .. }
            | Self::Migrate(_)
            | Self::Duplicate(_)
            | Self::Referenced(_)
            | Self::Corrupt { .. }
            | Self::Seal(_)
            | Self::Unaudited => false,
        }
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match error.sql_err() {
            Some(sea_orm::SqlErr::UniqueConstraintViolation(what)) => Self::Duplicate(what),
            Some(sea_orm::SqlErr::ForeignKeyConstraintViolation(what)) => Self::Referenced(what),
            Some(_) | None => Self::Database(error),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ffi::{SQLITE_CONSTRAINT_FOREIGNKEY, SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
        let rusqlite::Error::SqliteFailure(code, text) = &error else { return Self::Sqlite(error) };
        let text = text.clone().unwrap_or_default();
        match code.extended_code {
            SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY => Self::Duplicate(text),
            SQLITE_CONSTRAINT_FOREIGNKEY => Self::Referenced(text),
            _ => Self::Sqlite(error),
        }
    }
}

enum Link {
    Sqlite(sqlite::Sqlite),
    /// A transaction on SQLite.
    Turn(Mutex<sqlite::Turn>),
    Postgres(DatabaseConnection),
    Transaction(DatabaseTransaction),
}

/// Something that queries can be run on.
pub struct Db {
    link: Link,
    queries: Arc<AtomicU64>,
    changes: Arc<ProviderChanges>,
    writes: Arc<AtomicU64>,
    presence: Arc<Presence>,
    tasks: Arc<watch::Sender<u64>>,
    seal: Arc<OnceLock<SealKey>>,
}

impl Db {
    /// The key that seals secrets.
    pub(crate) fn seal_key(&self) -> Result<&SealKey, StoreError> {
        self.seal.get().ok_or_else(|| StoreError::Seal("no key was given".to_owned()))
    }

    /// How many statements have been run through this store since it was opened: tests hold requests to a number.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// How many transactions that wrote something were committed through this store since it was opened.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// When nodes were last heard of.
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Which providers' figures committed transactions of this process have changed.
    pub fn provider_changes(&self) -> &ProviderChanges {
        &self.changes
    }

    /// Told of each committed transaction of this process that changed tasks. Subscribe before reading the database.
    pub fn task_changes(&self) -> watch::Receiver<u64> {
        self.tasks.subscribe()
    }

    /// Which engine this is.
    pub fn is_postgres(&self) -> bool {
        matches!(self.link, Link::Postgres(_) | Link::Transaction(_))
    }
}

/// The database.
#[derive(Clone)]
pub struct Store(Arc<Db>);

impl Deref for Store {
    type Target = Db;
    fn deref(&self) -> &Db {
        &self.0
    }
}

impl Store {
    /// Opens `sqlite:///path` or `postgres://…` and brings the schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Open`] or [`StoreError::Migrate`].
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let shown = url.split('@').next_back().unwrap_or(url).to_owned();
        let link = match url.strip_prefix("sqlite://") {
            Some(path) => Link::Sqlite(open_sqlite(path, &shown).await?),
            None => Link::Postgres(open_postgres(url, shown).await?),
        };
        let store = Self(Arc::new(Db {
            link,
            queries: Arc::default(),
            changes: Arc::default(),
            writes: Arc::default(),
            presence: Arc::default(),
            tasks: Arc::default(),
            seal: Arc::default(),
        }));
        store.cluster_default_ensure().await?;
        Ok(store)
    }

    /// Gives the key that seals secrets; the first one stays. Without one, secrets can be neither read nor written.
    pub fn seal_with(&self, key: SealKey) {
        drop(self.0.seal.set(key));
    }

    /// Begins a transaction on behalf of `ctx`. Dropped without [`Tx::commit`], it leaves nothing behind.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn begin(&self, ctx: &OpCtx) -> Result<Tx, StoreError> {
        let link = match &self.0.link {
            Link::Sqlite(db) => Link::Turn(Mutex::new(db.begin().await?)),
            Link::Postgres(db) => Link::Transaction(db.begin().await?),
            Link::Turn(_) | Link::Transaction(_) => return Err(StoreError::Unaudited),
        };
        let db = Db {
            link,
            queries: Arc::clone(&self.0.queries),
            changes: Arc::clone(&self.0.changes),
            writes: Arc::clone(&self.0.writes),
            presence: Arc::clone(&self.0.presence),
            tasks: Arc::clone(&self.0.tasks),
            seal: Arc::clone(&self.0.seal),
        };
        Ok(Tx {
            db,
            ctx: *ctx,
            wrote: AtomicBool::new(false),
            audited: AtomicBool::new(false),
            touched: Mutex::default(),
            providers: Mutex::default(),
            tasks_changed: AtomicBool::new(false),
        })
    }

    /// Begins a transaction whose writes change no resource of anybody's and so need no audit record: leases and
    /// observed figures.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn begin_unaudited(&self) -> Result<Tx, StoreError> {
        let tx = self.begin(&OpCtx::system()).await?;
        tx.audited.store(true, Ordering::Relaxed);
        Ok(tx)
    }

    /// Closes every connection; the files are complete afterwards.
    pub async fn close(&self) {
        match &self.0.link {
            Link::Sqlite(db) => db.close().await,
            Link::Postgres(db) => drop(db.close_by_ref().await),
            Link::Turn(_) | Link::Transaction(_) => {}
        }
    }
}

/// Brings the schema up to date and opens the file; makes it if it is not there.
async fn open_sqlite(path: &str, shown: &str) -> Result<sqlite::Sqlite, StoreError> {
    let failed = |source: DbErr| StoreError::Open { url: shown.to_owned(), source };
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(20));
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
    let pool = pool.map_err(|error| failed(DbErr::Custom(error.to_string())))?;
    let migrated = MIGRATIONS.run(&pool).await;
    pool.close().await;
    migrated?;
    sqlite::Sqlite::open(std::path::Path::new(path)).map_err(|error| failed(DbErr::Custom(error.to_string())))
}

async fn open_postgres(url: &str, shown: String) -> Result<DatabaseConnection, StoreError> {
    let mut options = ConnectOptions::new(url.to_owned());
    options
        .max_connections(CONNECTIONS_MAX)
        .min_connections(1)
        .idle_timeout(Duration::from_secs(60))
        .sqlx_logging(false);
    let db = Database::connect(options).await.map_err(|source| StoreError::Open { url: shown, source })?;
    MIGRATIONS.run(db.get_postgres_connection_pool()).await?;
    Ok(db)
}

/// A transaction, on behalf of somebody.
pub struct Tx {
    db: Db,
    ctx: OpCtx,
    wrote: AtomicBool,
    audited: AtomicBool,
    /// Nodes whose generation this transaction has raised.
    touched: Mutex<BTreeSet<NodeId>>,
    /// Providers whose figures this transaction has changed.
    providers: Mutex<BTreeSet<ProviderId>>,
    /// Whether this transaction has changed tasks.
    tasks_changed: AtomicBool,
}

impl Deref for Tx {
    type Target = Db;
    fn deref(&self) -> &Db {
        &self.db
    }
}

impl Tx {
    /// On whose behalf.
    pub fn ctx(&self) -> &OpCtx {
        &self.ctx
    }

    /// The nodes that this transaction has given something new to do: wake them after the commit.
    pub fn touched(&self) -> Vec<NodeId> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub(crate) fn provider_changed(&self, id: ProviderId) {
        self.providers.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    pub(crate) fn task_changed(&self) {
        self.tasks_changed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn touched_add(&self, nodes: &[NodeId]) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).extend(nodes);
    }

    /// Makes all that was written last.
    ///
    /// # Errors
    /// [`StoreError::Unaudited`] if something was written and [`Tx::audit`] was never called.
    pub async fn commit(self) -> Result<(), StoreError> {
        if self.wrote.load(Ordering::Relaxed) && !self.audited.load(Ordering::Relaxed) {
            debug_assert!(false, "a transaction wrote without an audit record");
            return Err(StoreError::Unaudited);
        }
        let tasks_changed = self.tasks_changed.load(Ordering::Relaxed);
        #[cfg(debug_assertions)]
        crash::before_commit(tasks_changed);
        match self.db.link {
            Link::Turn(turn) => turn.into_inner().unwrap_or_else(PoisonError::into_inner).commit().await?,
            Link::Transaction(tx) => tx.commit().await?,
            Link::Sqlite(_) | Link::Postgres(_) => {}
        }
        self.db.writes.fetch_add(u64::from(self.wrote.load(Ordering::Relaxed)), Ordering::Relaxed);
        self.db.changes.add(self.providers.into_inner().unwrap_or_else(PoisonError::into_inner));
        #[cfg(debug_assertions)]
        crash::after_commit(tasks_changed);
        if tasks_changed {
            self.db.tasks.send_modify(|n| *n += 1);
        }
        Ok(())
    }
}
