//! Images made by `qemu-img`, the way that uploaders make them.

use arcus_formats::{Inspection, Inspector, Limits, Unsafe, inspect_file};
use arcus_types::agent::DiskFormat;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// A folder of images that goes away with the test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `qemu-img` in the folder; the words are split at spaces.
    pub fn qemu_img(&self, words: &str) {
        let output = Command::new("qemu-img").args(words.split(' ')).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "qemu-img {words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A qcow2 that is encrypted with LUKS. QEMU times the key's derivation and gives up on a machine that is too fast or
    /// too busy for a short one, so a longer one is tried then.
    pub fn luks(&self, name: &str) {
        let made = [10, 100, 500, 2000].iter().any(|time_ms| {
            let options = format!("encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time={time_ms}");
            let words = ["create", "-q", "--object", "secret,id=key,data=secret", "-f", "qcow2", "-o", &options];
            let output = Command::new("qemu-img").args(words).args([name, "1M"]).current_dir(self.0.path()).output();
            output.unwrap().status.success()
        });
        assert!(made, "qemu-img makes no encrypted image");
    }

    /// A raw file of `mib` MiB with data in the first and last half MiB.
    pub fn raw(&self, name: &str, mib: u64) {
        let mut file = File::create(self.path(name)).unwrap();
        let data: Vec<u8> = (0..512 << 10).map(|index: u32| (index % 251) as u8).collect();
        file.write_all(&data).unwrap();
        file.set_len((mib << 20) - data.len() as u64).unwrap();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
        file.write_all(&data).unwrap();
    }

    /// A disk of 16 MiB with data, converted with these words before the names.
    pub fn converted(&self, name: &str, words: &str) -> Vec<u8> {
        self.raw("data.raw", 16);
        self.qemu_img(&format!("convert -f raw {words} data.raw {name}"));
        self.bytes(name)
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Judges a stored file both ways; they must agree unless only the stored file shows the fault.
    pub fn judge(&self, name: &str, declared: DiskFormat) -> Result<Inspection, Unsafe> {
        let stored = inspect_file(&mut File::open(self.path(name)).unwrap(), declared, Limits::default());
        let streamed = stream(&self.bytes(name), declared, 1 << 20);
        match (&stored, &streamed) {
            (Ok(stored), Ok(streamed)) => assert_eq!(stored, streamed),
            (Err(stored), Err(streamed)) => assert_eq!(stored.to_string(), streamed.to_string()),
            (Err(Unsafe::Truncated { .. } | Unsafe::Refused { .. }), Ok(_)) => {}
            (stored, streamed) => panic!("stored {stored:?}, streamed {streamed:?}"),
        }
        stored
    }
}

/// Feeds `bytes` in pieces of `step`.
pub fn stream(bytes: &[u8], declared: DiskFormat, step: usize) -> Result<Inspection, Unsafe> {
    let mut inspector = Inspector::new(declared, Limits::default());
    for chunk in bytes.chunks(step) {
        inspector.feed(chunk)?;
    }
    inspector.finish()
}

/// The refusal's text; it must have the given words.
#[track_caller]
pub fn refused_for(result: Result<Inspection, Unsafe>, words: &str) {
    let text = result.expect_err("the image must be refused").to_string();
    assert!(text.contains(words), "'{text}' does not speak of '{words}'");
}
