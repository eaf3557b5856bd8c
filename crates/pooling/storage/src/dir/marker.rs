//! What a shared folder says of itself: nodes that read the same have the same folder.

use super::durable::{Access, Part, failed, folder_sync, read};
use crate::{Path, StorageError};
use arcus_types::DiskPoolId;
use std::io::Write;

const NAME: &str = "disk-pool";

/// What the folder says; the first node that asks writes it, and it is whole or not there.
pub(super) fn ensure(folder: &Path) -> Result<DiskPoolId, StorageError> {
    let path = folder.join(NAME);
    if read(&path)?.is_none() {
        let mut part = Part::create(&path, Access { owner: nix::unistd::geteuid().as_raw(), mode: 0o644 })?;
        writeln!(part.file, "{}", DiskPoolId::new()).map_err(failed("write", &path))?;
        part.commit_new()?;
        folder_sync(folder)?;
    }
    let text = read(&path)?.unwrap_or_default();
    let id = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    let what = || format!("its file {NAME} does not hold an id");
    id.ok_or_else(|| StorageError::Unusable { path: folder.to_owned(), what: what() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_at_once_reads_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| ensure(folder.path()).unwrap())).collect();
            asking.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [NAME], "unfinished files stay");
    }
}
