//! The embedded database, called directly on the thread that asks: a point read costs some microseconds, where handing it
//! to a thread of the database would cost more than the read itself. Every statement is prepared once a connection.
//!
//! Readers each take a connection of their own for one statement; the write-ahead log lets them read while somebody
//! writes. Writers take turns, in the order in which they came, on one connection. What the transactions of a turn have
//! written is committed together: a commit waits for stable storage, and as many transactions as came meanwhile share the
//! next one.
//!
//! ```text
//! begin: wait for the turn -> BEGIN IMMEDIATE, or SAVEPOINT if transactions wait for the common commit
//! commit: RELEASE, queue for the common commit, pass the turn on -> the committer's turn: COMMIT -> all are told
//! dropped: ROLLBACK, of its own part only
//! ```

use crate::StoreError;
use rusqlite::types::{ToSqlOutput, Value as Cell};
use rusqlite::{Connection, OpenFlags, Statement};
use sea_orm::Value;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard, oneshot};

/// How long a statement waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 256;
/// Memory of a connection for pages, in KiB.
const CACHE_KIB: u32 = 4096;
/// Readers' connections that are kept for the next one.
const READERS_KEPT: usize = 8;

/// The embedded database.
pub(crate) struct Sqlite {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    writer: Arc<TurnMutex<Writer>>,
    commits: mpsc::Sender<()>,
}

/// The one connection that writes. Whoever holds it has the turn.
struct Writer {
    /// `None` once the database was closed.
    connection: Option<Connection>,
    /// Who waits for the common commit.
    waiting: Vec<oneshot::Sender<Result<(), CommitFailure>>>,
}

/// Why the common commit failed, for each of those who wait.
type CommitFailure = (rusqlite::ffi::Error, Option<String>);

/// Rows with the names of their columns.
pub(crate) type Rows = (Arc<[Box<str>]>, Vec<Vec<Cell>>);

/// A transaction: it has the turn.
pub(crate) struct Turn {
    /// `None` once it has ended.
    writer: Option<OwnedMutexGuard<Writer>>,
    commits: mpsc::Sender<()>,
    /// Whether it is one of several that share a commit.
    shares: bool,
    wrote: bool,
}

fn closed() -> rusqlite::Error {
    rusqlite::Error::InvalidQuery
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

impl Sqlite {
    /// Opens a database whose schema is up to date and whose journal is a write-ahead log.
    pub fn open(path: &Path) -> Result<Self, rusqlite::Error> {
        let writer = Arc::new(TurnMutex::new(Writer { connection: Some(connect(path)?), waiting: Vec::new() }));
        let (commits, asked) = mpsc::channel();
        let turns = Arc::downgrade(&writer);
        std::thread::Builder::new()
            .name("sqlite-commit".to_owned())
            .spawn(move || {
                while asked.recv().is_ok() {
                    let Some(writer) = turns.upgrade() else { return };
                    writer.blocking_lock().commit();
                }
            })
            .map_err(|_| closed())?;
        Ok(Self { path: path.to_owned(), readers: Mutex::default(), writer, commits })
    }

    /// Runs one statement that reads.
    pub fn read(&self, sql: &str, params: &[Value]) -> Result<Rows, StoreError> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        let rows = query(&connection, sql, params);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT {
            readers.push(connection);
        }
        rows
    }

    /// Waits for the turn and begins a transaction.
    pub async fn begin(&self) -> Result<Turn, StoreError> {
        let mut writer = Arc::clone(&self.writer).lock_owned().await;
        writer.ready();
        let shares = !writer.waiting.is_empty();
        let connection = writer.connection.as_ref().ok_or_else(closed)?;
        let begin = if shares { "SAVEPOINT turn" } else { "BEGIN IMMEDIATE" };
        connection.prepare_cached(begin)?.raw_execute()?;
        Ok(Turn { writer: Some(writer), commits: self.commits.clone(), shares, wrote: false })
    }

    /// Commits what waits and closes every connection.
    pub async fn close(&self) {
        let mut writer = self.writer.lock().await;
        writer.commit();
        writer.connection = None;
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Writer {
    /// Sees to it that the connection is in a transaction exactly if others wait for the common commit: after a full disk
    /// or the like the database ends it by itself, and then they are told that it has failed.
    fn ready(&mut self) {
        let within = self.connection.as_ref().is_some_and(|c| !c.is_autocommit());
        if within && self.waiting.is_empty() {
            if let Some(connection) = &self.connection {
                drop(connection.execute_batch("ROLLBACK"));
            }
        } else if !within {
            self.commit();
        }
    }

    /// Commits what transactions have left and tells them.
    fn commit(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let done = match &self.connection {
            Some(connection) => connection.prepare_cached("COMMIT").and_then(|mut s| s.raw_execute()).map(drop),
            None => Err(closed()),
        };
        let told = done.map_err(|error| {
            if let Some(connection) = self.connection.as_ref().filter(|c| !c.is_autocommit()) {
                drop(connection.execute_batch("ROLLBACK"));
            }
            match error {
                rusqlite::Error::SqliteFailure(code, text) => (code, text),
                other => (rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR), Some(other.to_string())),
            }
        });
        for one in self.waiting.drain(..) {
            drop(one.send(told.clone()));
        }
    }
}

impl Turn {
    /// The connection, in the transaction: never outside of it, where each statement would last by itself.
    fn connection(&self) -> Result<&Connection, rusqlite::Error> {
        let connection = self.writer.as_ref().and_then(|w| w.connection.as_ref());
        connection.filter(|c| !c.is_autocommit()).ok_or_else(closed)
    }

    /// Runs one statement that answers rows; it may write, too.
    pub fn query(&mut self, sql: &str, params: &[Value]) -> Result<Rows, StoreError> {
        self.wrote |= !sql.starts_with("SELECT");
        query(self.connection()?, sql, params)
    }

    /// Runs one statement that writes; how many rows it changed.
    pub fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, StoreError> {
        self.wrote = true;
        let connection = self.connection()?;
        let mut statement = connection.prepare_cached(&numbered(sql))?;
        bind(&mut statement, params)?;
        Ok(u64::try_from(statement.raw_execute()?).unwrap_or(0))
    }

    /// Makes what was written last; returns once it is on stable storage.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let connection = writer.connection.as_ref().ok_or_else(closed)?;
        if self.shares {
            connection.prepare_cached("RELEASE turn")?.raw_execute()?;
        } else if !self.wrote {
            connection.prepare_cached("COMMIT")?.raw_execute()?;
            return Ok(());
        }
        let (tell, told) = oneshot::channel();
        writer.waiting.push(tell);
        if writer.waiting.len() == 1 {
            self.commits.send(()).map_err(|_| closed())?;
        }
        drop(writer);
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err((code, text))) => Err(rusqlite::Error::SqliteFailure(code, text).into()),
            Err(_) => Err(closed().into()),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(connection) = self.writer.as_ref().and_then(|w| w.connection.as_ref()) else { return };
        if connection.is_autocommit() {
            return;
        }
        let undo = if self.shares { "ROLLBACK TO turn; RELEASE turn" } else { "ROLLBACK" };
        if let Err(error) = connection.execute_batch(undo) {
            tracing::error!(%error, "a transaction could not be undone");
        }
    }
}

fn query(connection: &Connection, sql: &str, params: &[Value]) -> Result<Rows, StoreError> {
    let mut statement = connection.prepare_cached(&numbered(sql))?;
    let names: Arc<[Box<str>]> = statement.column_names().into_iter().map(Box::from).collect();
    bind(&mut statement, params)?;
    let mut found = Vec::new();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        found.push((0..names.len()).map(|at| row.get(at)).collect::<Result<Vec<Cell>, _>>()?);
    }
    Ok((names, found))
}

/// A statement whose parameters are numbered, `?n`, instead of named, `$n`: SQLite looks for each name among all others.
fn numbered(sql: &str) -> String {
    let mut pieces = sql.split('$');
    let mut out = String::with_capacity(sql.len());
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        out.push(if piece.starts_with(|first: char| first.is_ascii_digit()) { '?' } else { '$' });
        out.push_str(piece);
    }
    out
}

fn bind(statement: &mut Statement<'_>, params: &[Value]) -> Result<(), rusqlite::Error> {
    for at in 1..=statement.parameter_count() {
        let missing = || rusqlite::Error::InvalidParameterCount(at, params.len());
        statement.raw_bind_parameter(at, cell(params.get(at - 1).ok_or_else(missing)?)?)?;
    }
    Ok(())
}

fn cell(value: &Value) -> Result<ToSqlOutput<'_>, rusqlite::Error> {
    use rusqlite::types::ValueRef;
    Ok(ToSqlOutput::Borrowed(match value {
        Value::Bool(value) => value.map_or(ValueRef::Null, |v| ValueRef::Integer(i64::from(v))),
        Value::Int(value) => value.map_or(ValueRef::Null, |v| ValueRef::Integer(i64::from(v))),
        Value::BigInt(value) => value.map_or(ValueRef::Null, ValueRef::Integer),
        Value::String(value) => value.as_ref().map_or(ValueRef::Null, |v| ValueRef::Text(v.as_bytes())),
        Value::Uuid(value) => value.as_ref().map_or(ValueRef::Null, |v| ValueRef::Blob(v.as_bytes())),
        _ => return Err(rusqlite::Error::InvalidParameterName("a parameter of a type that no table has".to_owned())),
    }))
}

/// A type that a cell is read as.
pub(crate) trait FromCell: Sized {
    /// The value; `None` if the cell holds something else.
    fn from_cell(cell: &Cell) -> Option<Self>;
}

impl FromCell for i64 {
    fn from_cell(cell: &Cell) -> Option<Self> {
        if let Cell::Integer(value) = cell { Some(*value) } else { None }
    }
}

impl FromCell for i32 {
    fn from_cell(cell: &Cell) -> Option<Self> {
        i64::from_cell(cell).and_then(|value| value.try_into().ok())
    }
}

impl FromCell for bool {
    fn from_cell(cell: &Cell) -> Option<Self> {
        i64::from_cell(cell).map(|value| value != 0)
    }
}

impl FromCell for String {
    fn from_cell(cell: &Cell) -> Option<Self> {
        if let Cell::Text(value) = cell { Some(value.clone()) } else { None }
    }
}

impl FromCell for uuid::Uuid {
    fn from_cell(cell: &Cell) -> Option<Self> {
        if let Cell::Blob(value) = cell { Self::from_slice(value).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers_and_nothing_else_does() {
        assert_eq!(numbered("SELECT 1"), "SELECT 1");
        assert_eq!(
            numbered("SET a = $3, b = json_extract(c, '$.d') WHERE e = $10"),
            "SET a = ?3, b = json_extract(c, '$.d') WHERE e = ?10"
        );
    }

    #[test]
    fn each_name_gets_its_parameter_however_often_and_in_whatever_order_it_comes() {
        let connection = Connection::open_in_memory().unwrap();
        let params: Vec<Value> = (1..=3).map(|n: i64| n.into()).collect();
        let (_, rows) = query(&connection, "SELECT $3, $1, $2, $3, $1", &params).unwrap();
        let cells: Vec<i64> = rows[0].iter().map(|cell| i64::from_cell(cell).unwrap()).collect();
        assert_eq!(cells, [3, 1, 2, 3, 1]);
        assert!(query(&connection, "SELECT $4", &params).is_err(), "a parameter that is missing");
    }
}
