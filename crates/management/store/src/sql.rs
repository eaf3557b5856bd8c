//! How rows and parameters cross between Rust and SQL: ids, instants and JSON text have one form in every table.
//!
//! Ids are UUID columns, instants BIGINT microseconds, documents TEXT holding JSON, addresses TEXT, life cycles TEXT.

use crate::sqlite::FromCell;
use crate::{Db, Link, StoreError, Tx};
use arcus_types::{MacAddr, Name, Timestamp};
use rusqlite::types::Value as Cell;
use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement, TryGetable, Value};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use uuid::Uuid;

/// A value that can be bound to `$n`.
pub(crate) trait Param {
    fn value(self) -> Value;
}

macro_rules! plain_params { ($($t:ty),*) => {$(
    impl Param for $t { fn value(self) -> Value { self.into() } }
    impl Param for Option<$t> { fn value(self) -> Value { self.into() } }
)*}; }
plain_params!(i64, i32, bool, String, Uuid);

impl Param for &str {
    fn value(self) -> Value {
        self.to_owned().into()
    }
}
impl Param for Option<&str> {
    fn value(self) -> Value {
        self.map(str::to_owned).into()
    }
}
impl Param for &String {
    fn value(self) -> Value {
        self.clone().into()
    }
}
impl Param for &Option<String> {
    fn value(self) -> Value {
        self.clone().into()
    }
}

macro_rules! column_types { ($($t:ty => $sql:ty, |$v:ident| $to:expr, |$w:ident| $from:expr;)*) => {$(
    impl Param for $t { fn value(self) -> Value { let $v = self; Value::from($to) } }
    impl Param for &$t { fn value(self) -> Value { let $v = self.clone(); Value::from($to) } }
    impl Param for Option<$t> { fn value(self) -> Value { Value::from(self.map(|$v| $to)) } }
    impl Column for $t {
        type Sql = $sql;
        fn from_sql($w: $sql) -> Option<Self> { $from }
    }
)*}; }

/// A type that a column is read as.
pub(crate) trait Column: Sized {
    type Sql: TryGetable + FromCell + std::fmt::Debug + Clone;
    fn from_sql(value: Self::Sql) -> Option<Self>;
}

macro_rules! plain_columns { ($($t:ty),*) => {$(
    impl Column for $t { type Sql = $t; fn from_sql(value: $t) -> Option<$t> { Some(value) } }
)*}; }
plain_columns!(i64, i32, bool, String, Uuid);

macro_rules! id_columns { ($($t:ident),* $(,)?) => { column_types! { $(
    arcus_types::$t => Uuid, |v| v.0, |w| Some(arcus_types::$t(w));
)* } }; }
id_columns!(
    ServerId,
    NodeId,
    AggregateId,
    ClusterId,
    MigrationId,
    TaskId,
    ImageId,
    NetworkId,
    SubnetId,
    SubnetPoolId,
    PortId,
    RouterId,
    FloatingIpId,
    SecurityGroupId,
    SecurityGroupRuleId,
    DefaultRuleId,
    AddressGroupId,
    AddressScopeId,
    QosPolicyId,
    QosRuleId,
    PortForwardingId,
    RbacPolicyId,
    VolumeId,
    VolumeSnapshotId,
    VolumeGroupId,
    VolumeGroupSnapshotId,
    VolumeGroupTypeId,
    AttachmentId,
    VolumeTypeId,
    QosSpecsId,
    TransferId,
    DiskPoolId,
    ServerGroupId,
    ProviderId,
    ProviderAggregateId,
    ConsumerId,
    AuditId,
    UsageEventId,
    RequestId,
    UserId,
    GroupId,
    ProjectId,
    RoleId,
    ApplicationCredentialId,
    ServiceId,
    EndpointId,
    DomainId,
    TrustId,
    AccessRuleId,
    RegisteredLimitId,
    LimitId,
    CredentialId,
);

fn unsigned(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

column_types! {
    Timestamp => i64, |v| v.0, |w| Some(Timestamp(w));
    u64 => i64, |v| unsigned(v), |w| u64::try_from(w).ok();
    u32 => i64, |v| i64::from(v), |w| u32::try_from(w).ok();
    u16 => i64, |v| i64::from(v), |w| u16::try_from(w).ok();
    u8 => i64, |v| i64::from(v), |w| u8::try_from(w).ok();
    Name => String, |v| v.as_str().to_owned(), |w| w.parse().ok();
    MacAddr => String, |v| v.to_string(), |w| w.parse().ok();
    std::net::IpAddr => String, |v| v.to_string(), |w| w.parse().ok();
    ipnet::IpNet => String, |v| v.to_string(), |w| w.parse().ok();
}

/// A document in a TEXT column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Json<T>(pub T);

impl<T: serde::Serialize> Param for Json<&T> {
    fn value(self) -> Value {
        serde_json::to_string(self.0).unwrap_or_default().into()
    }
}

impl<T: serde::de::DeserializeOwned> Column for Json<T> {
    type Sql = String;
    fn from_sql(value: String) -> Option<Self> {
        serde_json::from_str(&value).ok().map(Json)
    }
}

/// The parameters of a statement, in the order of `$1`, `$2`, ….
macro_rules! params {
    ($($p:expr),* $(,)?) => { vec![$($crate::sql::Param::value($p)),*] };
}
pub(crate) use params;

/// One row of an answer.
pub(crate) struct Row(Cells);

enum Cells {
    Postgres(QueryResult),
    /// The names of the columns, and the values.
    Sqlite(Arc<[Box<str>]>, Vec<Cell>),
}

impl Row {
    /// What a column holds; `None` for NULL.
    fn cell<S>(&self, column: &str) -> Result<Option<S>, StoreError>
    where
        S: FromCell,
        Option<S>: TryGetable,
    {
        match &self.0 {
            Cells::Postgres(row) => Ok(row.try_get("", column)?),
            Cells::Sqlite(names, cells) => {
                let at = names.iter().position(|name| **name == *column);
                match at.and_then(|at| cells.get(at)) {
                    Some(Cell::Null) => Ok(None),
                    Some(cell) => S::from_cell(cell).map(Some).ok_or_else(|| corrupt(column, cell)),
                    None => Err(corrupt(column, &"no such column")),
                }
            }
        }
    }

    /// The value of a column that is never NULL.
    pub fn get<T: Column>(&self, column: &str) -> Result<T, StoreError>
    where
        Option<T::Sql>: TryGetable,
    {
        self.opt(column)?.ok_or_else(|| corrupt(column, &"NULL"))
    }

    /// The value of a column that may be NULL.
    pub fn opt<T: Column>(&self, column: &str) -> Result<Option<T>, StoreError>
    where
        Option<T::Sql>: TryGetable,
    {
        let value: Option<T::Sql> = self.cell(column)?;
        value.map(|v| T::from_sql(v.clone()).ok_or_else(|| corrupt(column, &v))).transpose()
    }

    /// The document in a TEXT column.
    pub fn json<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        Ok(self.get::<Json<T>>(column)?.0)
    }

    /// A value with a text form, such as a life cycle: read by `FromStr`.
    pub fn text<T: std::str::FromStr>(&self, column: &str) -> Result<T, StoreError> {
        let value: String = self.get(column)?;
        value.parse().map_err(|_| corrupt(column, &value))
    }
}

fn corrupt(column: &str, value: &impl std::fmt::Debug) -> StoreError {
    StoreError::Corrupt { column: column.to_owned(), value: format!("{value:?}").chars().take(80).collect() }
}

impl Db {
    fn count(&self) {
        self.queries.fetch_add(1, Ordering::Relaxed);
    }

    /// All rows of an answer.
    pub(crate) async fn all(&self, sql: impl Into<String>, params: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        self.count();
        let sql = sql.into();
        let (names, rows) = match &self.link {
            Link::Sqlite(db) => db.read(&sql, &params)?,
            Link::Turn(turn) => turn.lock().unwrap_or_else(PoisonError::into_inner).query(&sql, &params)?,
            Link::Postgres(db) => return Ok(postgres_rows(db.query_all_raw(postgres(sql, params)).await?)),
            Link::Transaction(tx) => return Ok(postgres_rows(tx.query_all_raw(postgres(sql, params)).await?)),
        };
        Ok(rows.into_iter().map(|cells| Row(Cells::Sqlite(Arc::clone(&names), cells))).collect())
    }

    /// The first row of an answer.
    pub(crate) async fn one(&self, sql: impl Into<String>, params: Vec<Value>) -> Result<Option<Row>, StoreError> {
        let row = match &self.link {
            Link::Sqlite(_) | Link::Turn(_) => return Ok(self.all(sql, params).await?.into_iter().next()),
            Link::Postgres(db) => db.query_one_raw(postgres(sql, params)).await?,
            Link::Transaction(tx) => tx.query_one_raw(postgres(sql, params)).await?,
        };
        self.count();
        Ok(row.map(|row| Row(Cells::Postgres(row))))
    }
}

fn postgres(sql: impl Into<String>, params: Vec<Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, sql, params)
}

fn postgres_rows(rows: Vec<QueryResult>) -> Vec<Row> {
    rows.into_iter().map(|row| Row(Cells::Postgres(row))).collect()
}

impl Tx {
    /// Runs a statement that writes; how many rows it changed.
    pub(crate) async fn exec(&self, sql: impl Into<String>, params: Vec<Value>) -> Result<u64, StoreError> {
        self.db.count();
        let changed = match &self.db.link {
            Link::Turn(turn) => turn.lock().unwrap_or_else(PoisonError::into_inner).execute(&sql.into(), &params)?,
            Link::Transaction(tx) => tx.execute_raw(postgres(sql, params)).await?.rows_affected(),
            Link::Sqlite(_) | Link::Postgres(_) => return Err(StoreError::Unaudited),
        };
        if changed > 0 {
            self.wrote.store(true, Ordering::Relaxed);
        }
        Ok(changed)
    }
}

/// Builds the variable part of a list query: conditions, each with its parameters, joined by AND.
#[derive(Default)]
pub(crate) struct Where {
    text: String,
    pub params: Vec<Value>,
}

impl Where {
    /// Adds a condition; each `?` in it becomes the next `$n` for the next parameter.
    pub fn and(&mut self, condition: &str, params: Vec<Value>) -> &mut Self {
        self.text.push_str(if self.text.is_empty() { " WHERE " } else { " AND " });
        let mut params = params.into_iter();
        for piece in condition.split_inclusive('?') {
            match piece.strip_suffix('?') {
                Some(before) => {
                    self.params.extend(params.next());
                    self.text.push_str(before);
                    self.text.push_str(&format!("${}", self.params.len()));
                }
                None => self.text.push_str(piece),
            }
        }
        self
    }

    /// Adds `column IN (…)` for a list of values; an empty list matches nothing.
    pub fn and_in<T: Param>(&mut self, column: &str, values: Vec<T>) -> &mut Self {
        if values.is_empty() {
            return self.and("1 = 0", vec![]);
        }
        let marks = vec!["?"; values.len()].join(", ");
        let params = values.into_iter().map(Param::value).collect();
        self.and(&format!("{column} IN ({marks})"), params)
    }

    /// The text, with ` WHERE ` before it unless there is no condition.
    pub fn sql(&self) -> &str {
        &self.text
    }
}
