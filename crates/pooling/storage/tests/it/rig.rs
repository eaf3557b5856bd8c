//! Images to fetch, and a folder to keep them in.

use arcus_storage::{DirOptions, DirStorage, ImageBytes, ImageFetch, SimOptions, SimStorage, StorageError};
use arcus_types::ImageId;
use arcus_types::agent::{DiskFormat, ImageSource, RootDiskSpec};
use async_trait::async_trait;
use aws_lc_rs::digest;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::Mutex;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

pub const MIB: u64 = 1 << 20;
/// A guest's user, as the agent numbers them.
pub const UID: u32 = 0x6000_0007;

/// Serves images by id and counts how often each was asked for.
#[derive(Default)]
pub struct Origin {
    images: Mutex<HashMap<ImageId, Vec<u8>>>,
    pub fetches: Mutex<Vec<ImageId>>,
    /// Breaks off after this many bytes.
    pub breaks_at: Mutex<Option<usize>>,
}

impl Origin {
    /// Offers these bytes; the source tells the truth about their length and hash.
    pub fn offer(&self, format: DiskFormat, bytes: Vec<u8>) -> ImageSource {
        let sha256 =
            digest::digest(&digest::SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let source = ImageSource { id: ImageId::new(), sha256, size_bytes: bytes.len() as u64, format };
        self.images.lock().unwrap().insert(source.id, bytes);
        source
    }

    /// Offers a raw image of that many MiB, different for each `seed`.
    pub fn raw(&self, mib: u64, seed: u8) -> ImageSource {
        let bytes = (0..mib * MIB).map(|index| (index % 251) as u8 ^ seed).collect();
        self.offer(DiskFormat::Raw, bytes)
    }

    pub fn fetched(&self) -> usize {
        self.fetches.lock().unwrap().len()
    }
}

#[async_trait]
impl ImageFetch for Origin {
    async fn fetch(&self, source: &ImageSource) -> io::Result<ImageBytes> {
        self.fetches.lock().unwrap().push(source.id);
        let bytes = self.images.lock().unwrap().get(&source.id).cloned();
        let bytes = bytes.ok_or_else(|| io::Error::other("no such image"))?;
        let breaks_at = self.breaks_at.lock().unwrap().take();
        Ok(Box::pin(Dribble { bytes, at: 0, breaks_at }))
    }
}

/// Bytes in odd pieces, with a pause before each so that others get their turn.
struct Dribble {
    bytes: Vec<u8>,
    at: usize,
    breaks_at: Option<usize>,
}

impl AsyncRead for Dribble {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.breaks_at.is_some_and(|limit| self.at >= limit) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let end = self.bytes.len().min(self.at + buffer.remaining().min(70_001));
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

pub fn spec(image: &ImageSource, size_bytes: u64, incarnation: u64) -> RootDiskSpec {
    RootDiskSpec { image: image.clone(), size_bytes, incarnation }
}

/// A node's state folder that goes away with the test.
pub struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn open(&self) -> DirStorage {
        let options = DirOptions { reserve_bytes: 0, ..DirOptions::default() };
        DirStorage::open(self.folder.path(), options).unwrap()
    }

    pub fn simulated(&self, options: SimOptions) -> SimStorage {
        SimStorage::open(options, self.path("simulated")).unwrap()
    }

    /// The names in a folder of the state.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Runs a program and answers what it printed; its arguments are split at spaces.
#[track_caller]
pub fn run(program: &str, words: &str, paths: &[&Path]) -> String {
    let output = Command::new(program).args(words.split(' ')).args(paths).output().unwrap();
    assert!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub fn text<T: std::fmt::Debug>(result: Result<T, StorageError>) -> String {
    let error = result.expect_err("it must fail");
    let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}
