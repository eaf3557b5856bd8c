//! `arcus up` or `arcus server` as a child process, on a home folder and a port of its own. Tests and benchmarks share it.

use anyhow::{Context as _, Result, bail, ensure};
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the process may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile: what is measured is not finer than that.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// A cloud that is taken down when it is dropped.
pub struct Arcus {
    /// Its home folder.
    pub home: PathBuf,
    /// Its endpoint.
    pub url: String,
    port: u16,
    /// The words that say what runs.
    words: &'static [&'static str],
    child: Option<Child>,
}

impl Arcus {
    /// One that has not been started yet. The name must be short: the home folder's path has a limit.
    pub fn new(name: &str, simulate: bool) -> Result<Self> {
        Self::with(name, if simulate { &["up", "--simulate"] } else { &["up"] })
    }

    /// One without a node, which has not been started yet.
    pub fn server(name: &str) -> Result<Self> {
        Self::with(name, &["server"])
    }

    fn with(name: &str, words: &'static [&'static str]) -> Result<Self> {
        let home = PathBuf::from(format!("/tmp/arcus-{name}-{}", std::process::id()));
        ensure!(!home.exists(), "{} is left of an earlier run: arcus down --home {0}", home.display());
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { home, url: format!("https://127.0.0.1:{port}"), port, words, child: None })
    }

    /// Starts the process; answers how long it took from there until it answered a request.
    pub async fn start(&mut self) -> Result<Duration> {
        std::fs::create_dir_all(&self.home)?;
        let log = OpenOptions::new().create(true).append(true).open(self.home.join("arcus.log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcus"));
        command.args(self.words).args(["--port", &self.port.to_string(), "--home"]).arg(&self.home);
        command.env("ARCUS_CRASH_FILE", self.crash_file());
        command.env_remove("ARCUS_UPLINK").env_remove("ARCUS_DATABASE");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/").process_group(0);
        // Whether the right cloud answers is shown by the log-in that follows.
        let http = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build()?;
        let began = Instant::now();
        let child = self.child.insert(command.spawn()?);
        loop {
            if let Ok(answer) = http.get(format!("{}/", self.url)).send().await {
                ensure!(answer.status().is_success(), "GET / was answered with {}", answer.status());
                return Ok(began.elapsed());
            }
            if let Some(status) = child.try_wait()? {
                bail!("arcus ended with {status}");
            }
            ensure!(began.elapsed() < ANSWER_DEADLINE, "arcus does not answer on {}", self.url);
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// The file that makes the process end itself: see the store's `crash.rs`.
    pub fn crash_file(&self) -> PathBuf {
        self.home.join("crash-at")
    }

    /// Whether the process has ended, by itself or because it was killed.
    pub fn ended(&mut self) -> Result<bool> {
        let child = self.child.as_mut().context("arcus does not run")?;
        let ended = child.try_wait()?.is_some();
        if ended {
            self.child = None;
        }
        Ok(ended)
    }

    /// The words of the command that `arcus join-token` prints, less `arcus agent`.
    pub fn join_words(&self, uses: u32) -> Result<Vec<String>> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcus"));
        let told = command.args(["join-token", "--uses", &uses.to_string(), "--home"]).arg(&self.home).output()?;
        ensure!(told.status.success(), "join-token: {}", String::from_utf8_lossy(&told.stderr));
        Ok(String::from_utf8(told.stdout)?.split_whitespace().skip(2).map(str::to_owned).collect())
    }

    /// The number of the running process.
    pub fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Child::id).context("arcus does not run")
    }

    /// Ends the process as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("arcus does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Takes the cloud down as its owner would: nothing is left.
    pub fn down(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        // Reaped by a thread of its own: a process that ended counts as running until somebody has waited for it.
        let child = self.child.take().map(|mut child| std::thread::spawn(move || child.wait()));
        let done = Command::new(env!("CARGO_BIN_EXE_arcus")).arg("down").arg("--home").arg(&self.home).output()?;
        drop(child.map(std::thread::JoinHandle::join));
        ensure!(done.status.success(), "arcus down: {}", String::from_utf8_lossy(&done.stderr));
        ensure!(!self.home.exists(), "{} is left", self.home.display());
        Ok(())
    }
}

impl Drop for Arcus {
    fn drop(&mut self) {
        if !self.home.exists() {
            return;
        }
        let log = std::fs::read_to_string(self.home.join("arcus.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        eprintln!("--- the end of the log of {} ---\n{end}", self.home.display());
        if let Err(error) = self.take_down() {
            eprintln!("{} was not taken down: {error:#}", self.home.display());
        }
    }
}
