//! `conformance`: tempest, as it is, against a cloud with real guests that is started for it.
//!
//! What runs is all of tempest's API tests of the services that we serve, less `conformance/exclusions.txt`; or the tests of
//! one service; or a list of test ids. A test that did not report success has not passed, whatever the reason.

mod outcome;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{cargo, output, run, step, workspace_root};
use crate::{clients, image};
use outcome::Outcome;

/// Where the API tests of tempest are that concern us.
const SERVICES: &str = "compute|identity|image|network|volume";

/// After how many tests a line tells how far it is.
const TOLD_EVERY: usize = 20;

/// What narrows a run.
#[derive(Debug, Default)]
pub struct Choice {
    /// A service, or more of a test's name after `tempest.api.`.
    pub only: Option<String>,
    /// A file with a test id on each line.
    pub list: Option<PathBuf>,
}

/// Starts a cloud, runs the chosen tests, prints how many passed, failed and were skipped per service, stops the cloud.
///
/// # Errors
/// When a test fails; with a list, also when one of it does not pass.
pub fn conformance(choice: &Choice) -> Result<()> {
    let guest = image::build()?;
    let clients = clients::install()?;
    let tempest = clients::install_from("conformance/requirements.txt", "target/tempest")?;
    step("conformance: arcus");
    run(cargo().args(["build", "--quiet", "--package", "arcus"]))?;
    let folder = fresh_folder()?;
    let cloud = Cloud::start(&guest)?;
    step("conformance: a second image, and tempest's configuration");
    let script = workspace_root().join("conformance/prepare.py");
    let template = workspace_root().join("conformance/tempest.conf.in");
    output(
        Command::new(clients.join("python3"))
            .args([&script, &template, &guest, &folder])
            .env("OS_CLIENT_CONFIG_FILE", cloud.home.join("clouds.yaml")),
    )?;
    let suite = Suite::new(&tempest, &folder)?;
    let wanted = suite.wanted(choice)?;
    step(format!("conformance: {} tests", wanted.len()));
    let outcome = suite.run(&wanted)?;
    cloud.stop()?;
    print!("{}", outcome.table());
    step(format!("conformance: the whole log is {}", folder.join("run.log").display()));
    outcome.verdict(choice.list.is_some())
}

/// The folder for configuration and logs, empty.
fn fresh_folder() -> Result<PathBuf> {
    let folder = workspace_root().join("target/conformance");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(folder.join("locks"))?;
    Ok(folder)
}

/// The cloud under test. It is taken down when it is dropped.
struct Cloud {
    binary: PathBuf,
    home: PathBuf,
    running: bool,
}

impl Cloud {
    fn start(guest: &Path) -> Result<Self> {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from);
        let home = PathBuf::from(format!("/tmp/arcus-conf-{}", std::process::id()));
        ensure!(!home.exists(), "{} is left of an earlier run: arcus down --home {0}", home.display());
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        step(format!("conformance: a cloud on port {port}"));
        let cloud = Self { binary: target.join("debug/arcus"), home, running: true };
        let mut command = Command::new(&cloud.binary);
        command.args(["up", "--detach", "--port", &port.to_string(), "--home"]).arg(&cloud.home);
        command.arg("--image").arg(guest).envs(SETTINGS);
        command.env_remove("ARCUS_UPLINK").env_remove("ARCUS_DATABASE").stdin(Stdio::null());
        output(&mut command)?;
        Ok(cloud)
    }

    fn stop(mut self) -> Result<()> {
        self.running = false;
        output(Command::new(&self.binary).args(["down", "--home"]).arg(&self.home)).map(|_| ())
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if self.running {
            drop(output(Command::new(&self.binary).args(["down", "--home"]).arg(&self.home)));
        }
    }
}

/// The cloud's settings that the tests of password rules count on.
const SETTINGS: [(&str, &str); 3] =
    [("ARCUS_PASSWORD_HISTORY", "2"), ("ARCUS_LOCKOUT_FAILURES", "2"), ("ARCUS_LOCKOUT_S", "5")];

/// Tempest in its environment.
struct Suite {
    programs: PathBuf,
    folder: PathBuf,
}

impl Suite {
    fn new(programs: &Path, folder: &Path) -> Result<Self> {
        let ask = "import tempest, os; print(os.path.dirname(tempest.__file__))";
        let package = output(Command::new(programs.join("python3")).args(["-c", ask]))?;
        let package = package.trim();
        let top = Path::new(package).parent().context("tempest has no folder")?.display().to_string();
        fs::write(
            folder.join(".stestr.conf"),
            format!("[DEFAULT]\ntest_path={package}/test_discover\ntop_dir={top}\n"),
        )?;
        let suite = Self { programs: programs.to_owned(), folder: folder.to_owned() };
        output(&mut suite.command("stestr", &["init"]))?;
        Ok(suite)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        command.env("TEMPEST_CONFIG_DIR", &self.folder).env("TEMPEST_CONFIG", "tempest.conf");
        let path = env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.programs.display()));
        command
    }

    /// The ids of the tests that are to run.
    fn wanted(&self, choice: &Choice) -> Result<BTreeSet<String>> {
        let all = output(&mut self.command("stestr", &["list", &format!("^tempest\\.api\\.({SERVICES})\\.")]))?;
        let all: BTreeSet<&str> = all.lines().filter(|line| line.starts_with("tempest.")).collect();
        if let Some(list) = &choice.list {
            let text = fs::read_to_string(list).with_context(|| format!("could not read {}", list.display()))?;
            return listed(&text, &all);
        }
        let exclusions = exclusions()?;
        let only = format!("tempest.api.{}", choice.only.as_deref().unwrap_or_default());
        let wanted: BTreeSet<String> = all
            .into_iter()
            .filter(|id| id.starts_with(&only) && !exclusions.iter().any(|prefix| id.starts_with(prefix)))
            .map(str::to_owned)
            .collect();
        ensure!(!wanted.is_empty(), "no test of tempest begins with {only}");
        Ok(wanted)
    }

    /// Runs them and reads what tempest tells of each.
    fn run(&self, wanted: &BTreeSet<String>) -> Result<Outcome> {
        let list = self.folder.join("wanted.txt");
        fs::write(&list, wanted.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        let workers = env::var("CONCURRENCY").unwrap_or_else(|_| "2".to_owned());
        let file = self.folder.join("run.log");
        let mut log = fs::File::create(&file)?;
        let arguments = ["run", "--concurrency", &workers, "--load-list"];
        let mut command = self.command("tempest", &arguments);
        command.arg(&list).stdout(Stdio::piped()).stderr(log.try_clone()?);
        let mut child = command.spawn().context("could not start tempest")?;
        let mut done = 0;
        for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
            let line = line?;
            writeln!(log, "{line}")?;
            if line.starts_with('{') {
                done += 1;
                if done % TOLD_EVERY == 0 {
                    step(format!("conformance: {done} of {} tests", wanted.len()));
                }
            }
        }
        // Its exit status only says whether all is well, which the outcome tells better.
        child.wait()?;
        Ok(Outcome::of(wanted, &fs::read_to_string(file)?))
    }
}

/// The ids of a list. Its lines may be older than the tests' decorations: only the name before `[` tells tests apart.
fn listed(text: &str, all: &BTreeSet<&str>) -> Result<BTreeSet<String>> {
    let name = |id: &str| id.split('[').next().unwrap_or(id).trim().to_owned();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut found, mut unknown) = (BTreeSet::new(), Vec::new());
    for line in lines {
        match all.iter().find(|id| name(id) == name(line)) {
            Some(id) => drop(found.insert((*id).to_owned())),
            None => unknown.push(line),
        }
    }
    if !unknown.is_empty() {
        bail!("tempest has no such tests:\n  {}", unknown.join("\n  "));
    }
    Ok(found)
}

/// The beginnings of the ids that are left out; each line has its reason behind `#`.
fn exclusions() -> Result<Vec<String>> {
    let file = workspace_root().join("conformance/exclusions.txt");
    let text = fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| match line.split_once('#') {
            Some((prefix, reason)) if !reason.trim().is_empty() => Ok(prefix.trim().to_owned()),
            _ => bail!("{} has no reason in {}", line, file.display()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_tests_whatever_their_decorations() {
        let all = BTreeSet::from(["tempest.api.a.T.x[id-1]", "tempest.api.a.T.xy[id-2]"]);
        let found = listed("# ours\ntempest.api.a.T.x[id-1,smoke]\n\n", &all).expect("it is there");
        assert_eq!(found, BTreeSet::from(["tempest.api.a.T.x[id-1]".to_owned()]));
        let error = listed("tempest.api.a.T.gone", &all).expect_err("it is not there");
        assert!(error.to_string().contains("tempest.api.a.T.gone"));
    }

    #[test]
    fn every_exclusion_has_a_reason() {
        exclusions().expect("each line of the file has one");
    }
}
