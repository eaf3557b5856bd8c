//! Fresh databases for tests: SQLite in a temporary folder, and a private PostgreSQL.

use crate::{SealKey, Store};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A fresh SQLite database on disk, removed with the folder that is returned.
///
/// # Panics
/// If it cannot be made: the test cannot go on.
pub async fn sqlite() -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap_or_else(|e| fail(&e));
    let url = format!("sqlite://{}/arcus.db", folder.path().display());
    (sealing(Store::open(&url).await.unwrap_or_else(|e| fail(&e))), folder)
}

/// The store with a key that every test has.
fn sealing(store: Store) -> Store {
    store.seal_with(SealKey::new(&[7; SealKey::BYTES]).unwrap_or_else(|e| fail(&e)));
    store
}

#[expect(clippy::panic, reason = "a test that has no database cannot go on")]
fn fail(error: &dyn std::fmt::Display) -> ! {
    panic!("no database for this test: {error}")
}

/// How many audit records there are. Whatever changes a resource adds one, so a test sees by it that nothing was changed.
///
/// # Panics
/// If the database does not answer.
pub async fn audit_count(store: &Store) -> u64 {
    let row = store.one("SELECT COUNT(*) AS records FROM audit_events", Vec::new()).await;
    let row = row.and_then(|row| row.map_or(Ok(0), |row| row.get("records")));
    row.unwrap_or_else(|e| fail(&e))
}

/// A private PostgreSQL server, on a Unix socket in a temporary folder; ended when dropped.
pub struct Postgres {
    folder: tempfile::TempDir,
    bin: PathBuf,
}

impl Postgres {
    /// Starts one.
    ///
    /// # Panics
    /// If Debian's PostgreSQL server is not installed or does not start.
    pub fn start() -> Self {
        static BIN: OnceLock<PathBuf> = OnceLock::new();
        let bin = BIN
            .get_or_init(|| {
                let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
                    .map(|d| d.flatten().map(|e| e.path().join("bin")).collect())
                    .unwrap_or_default();
                found.sort();
                found.pop().unwrap_or_else(|| fail(&"PostgreSQL is not installed: apt-get install postgresql"))
            })
            .clone();
        let folder = tempfile::tempdir().unwrap_or_else(|e| fail(&e));
        let this = Self { folder, bin };
        run(Command::new("chown").arg("postgres").arg(this.folder.path()));
        let data = this.data();
        this.as_postgres("initdb", &["-D", &data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"]);
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off -c shared_buffers=16MB -c max_connections=100",
            this.folder.path().display()
        );
        this.as_postgres("pg_ctl", &["-D", &data, "-w", "-l", &format!("{data}.log"), "-o", &options, "start"]);
        this
    }

    /// A store on a fresh, empty database on it.
    ///
    /// # Panics
    /// If it cannot be made.
    pub async fn store(&self) -> Store {
        sealing(Store::open(&self.database()).await.unwrap_or_else(|e| fail(&e)))
    }

    /// The URL of a fresh, empty database on it.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn database(&self) -> String {
        let name = format!("t{}", uuid::Uuid::new_v4().as_simple());
        let socket = self.folder.path().display().to_string();
        self.as_postgres("createdb", &["-h", &socket, "-U", "postgres", &name]);
        format!("postgres://postgres@localhost/{name}?host={socket}")
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn as_postgres(&self, program: &str, args: &[&str]) {
        run(Command::new("runuser").args(["-u", "postgres", "--"]).arg(self.bin.join(program)).args(args));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let stop: &[&str] = &["-D", &self.data(), "-m", "immediate", "-w", "stop"];
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(self.bin.join("pg_ctl")).args(stop);
        drop(command.stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

fn run(command: &mut Command) {
    let out = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).output();
    match out {
        Ok(out) if out.status.success() => {}
        Ok(out) => fail(&format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr))),
        Err(error) => fail(&format!("{command:?}: {error}")),
    }
}
