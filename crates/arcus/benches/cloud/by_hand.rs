//! The command line of one of our guests, started by hand: the same machine on a disk of its own.
//!
//! Only what cannot be shared differs: sockets and the console log are files instead of inherited descriptors, the network
//! interface leads to a hub without other members instead of a tap, and the guest runs at once (without `-S`).

use crate::guests::{Life, Seen};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// How to start the machine by hand.
pub struct ByHand {
    words: Vec<String>,
    folder: PathBuf,
    backing: String,
    size_bytes: u64,
}

impl ByHand {
    /// Made of the command line of a guest that runs; `folder` gets the files.
    pub fn like(command_line: &[OsString], folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let words = command_line.iter().map(|word| word.to_str().context("not UTF-8").map(str::to_owned));
        let mut words: Vec<String> = words.collect::<Result<_>>()?;
        ensure!(words.iter().any(|word| word == "-S"), "the guest's command line is not as expected: {words:?}");
        words.retain(|word| word != "-S");
        while let Some(at) = words.iter().position(|word| word == "-add-fd") {
            words.drain(at..at + 2);
        }
        let mut root = None;
        for word in &mut words {
            if word.starts_with('{') {
                let mut value: Value = serde_json::from_str(word)?;
                if value["driver"] == "qcow2" {
                    let overlay = Value::from(folder.join("root.qcow2").display().to_string());
                    root = Some(std::mem::replace(&mut value["file"]["filename"], overlay));
                    *word = value.to_string();
                }
            } else if word.starts_with("socket,id=") || word.starts_with("tap,id=") {
                *word = without_descriptor(word, folder);
            }
        }
        let root = root.context("the guest has no root disk")?;
        let root = root.as_str().context("the root disk has no path")?;
        let info = Command::new("qemu-img").args(["info", "--force-share", "--output=json", root]).output()?;
        let info: Value = serde_json::from_slice(&info.stdout).context("qemu-img info")?;
        let backing = info["full-backing-filename"].as_str().context("the root disk is no overlay")?.to_owned();
        let size_bytes = info["virtual-size"].as_u64().context("the root disk has no size")?;
        Ok(Self { words, folder: folder.to_owned(), backing, size_bytes })
    }

    /// The same as one end of a move: in a namespace, listening at this address.
    pub fn end(&self, namespace: &str, address: &str) -> Value {
        serde_json::json!({ "words": self.words, "folder": self.folder, "namespace": namespace, "address": address })
    }

    /// What its disk begins as: the image and its size in bytes.
    pub fn disk(&self) -> (&str, u64) {
        (&self.backing, self.size_bytes)
    }

    /// Starts it on a fresh disk and waits until it has come to life; then it is ended.
    pub async fn boot(&self) -> Result<(Instant, Life)> {
        let (disk, console) = (self.folder.join("root.qcow2"), self.folder.join("console.log"));
        drop(std::fs::remove_file(&console));
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &self.backing])
            .arg(&disk)
            .arg(self.size_bytes.to_string())
            .status()?;
        ensure!(made.success(), "qemu-img create failed");
        let mut command = Command::new(self.words.first().context("an empty command line")?);
        let log = std::fs::File::create(self.folder.join("qemu.log"))?;
        command.args(self.words.iter().skip(1)).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let began = Instant::now();
        let mut child = command.spawn()?;
        let life = Seen { pid: child.id(), at: began, console }.life().await;
        child.kill()?;
        child.wait()?;
        Ok((began, life?))
    }
}

/// A character device or an interface that needs nothing from the process that starts QEMU.
fn without_descriptor(word: &str, folder: &Path) -> String {
    let option = |name: &str| word.split(',').find_map(|part| part.strip_prefix(name)).unwrap_or_default();
    let id = option("id=");
    if word.starts_with("tap,") {
        return format!("hubport,id={id},hubid=0");
    }
    let log =
        if word.contains("logfile=") { format!(",logfile={}/console.log", folder.display()) } else { String::new() };
    format!("socket,id={id},path={}/{id}.sock,server=on,wait=off{log}", folder.display())
}
