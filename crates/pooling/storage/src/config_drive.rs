//! The bytes of a config drive: a small vfat volume that cloud-init and cloudbase-init find by its label.
//!
//! The same files make the same bytes: no clock and no randomness go in.

use crate::CONFIG_DRIVE_BYTES_MAX;
use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider, format_volume};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Write};

/// cloud-init looks for this label.
const LABEL: [u8; 11] = *b"config-2   ";
const SECTOR: u64 = 512;
const CLUSTER: u64 = 2048;
const DRIVE_BYTES_MIN: u64 = 1 << 20;
const FILES_MAX: usize = 512;
const NAME_CHARS_MAX: usize = 64;
/// What a folder's own entries may take for each file in it: 64 characters of a long name are six entries of 32 bytes.
const ENTRY_BYTES: u64 = 256;

/// The moment that every file is dated: the first that the format can say.
#[derive(Debug)]
struct Epoch;

impl TimeProvider for Epoch {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

static EPOCH: Epoch = Epoch;

/// The volume with these files, by path.
///
/// # Errors
/// What is wrong with the files, in words.
pub(crate) fn build(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, String> {
    let folders = folders_of(files)?;
    let bytes = drive_bytes(files, folders.len() as u64)?;
    let mut disk = Cursor::new(vec![0; usize::try_from(bytes).map_err(|error| error.to_string())?]);
    let sectors = u32::try_from(bytes / SECTOR).map_err(|error| error.to_string())?;
    let options = FormatVolumeOptions::new()
        .total_sectors(sectors)
        .bytes_per_cluster(CLUSTER as u32)
        .volume_id(0x4152_4355)
        .volume_label(LABEL);
    write(&mut disk, options, &folders, files).map_err(|error| format!("it could not be written: {error}"))?;
    Ok(disk.into_inner())
}

fn write(
    disk: &mut Cursor<Vec<u8>>,
    options: FormatVolumeOptions,
    folders: &BTreeSet<String>,
    files: &BTreeMap<String, Vec<u8>>,
) -> std::io::Result<()> {
    format_volume(&mut *disk, options)?;
    disk.set_position(0);
    let volume = FileSystem::new(disk, FsOptions::new().time_provider(&EPOCH))?;
    let root = volume.root_dir();
    for folder in folders {
        root.create_dir(folder)?;
    }
    for (path, content) in files {
        let mut file = root.create_file(path)?;
        file.write_all(content)?;
        file.flush()?;
    }
    drop(root);
    volume.unmount()
}

/// Every folder that the paths name, parents first. Names that differ only in case would be one file on this volume.
fn folders_of(files: &BTreeMap<String, Vec<u8>>) -> Result<BTreeSet<String>, String> {
    if files.len() > FILES_MAX {
        return Err(format!("it has {} files, more than {FILES_MAX}", files.len()));
    }
    let (mut folders, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for path in files.keys() {
        for name in path.split('/') {
            let plain = name.chars().all(|char| char.is_ascii_alphanumeric() || "._-".contains(char));
            if name.is_empty() || name.len() > NAME_CHARS_MAX || !plain || name.ends_with('.') {
                return Err(format!("'{path}' is not a path of plain names"));
            }
        }
        if !seen.insert(path.to_ascii_lowercase()) {
            return Err(format!("two paths differ from '{path}' only in case"));
        }
        folders.extend(path.match_indices('/').filter_map(|(at, _)| path.get(..at)).map(str::to_owned));
    }
    match folders.iter().find(|folder| seen.contains(&folder.to_ascii_lowercase())) {
        Some(folder) => Err(format!("'{folder}' is both a file and a folder")),
        None => Ok(folders),
    }
}

/// Room for the files in whole clusters, their folders, and the tables, in whole MiB.
fn drive_bytes(files: &BTreeMap<String, Vec<u8>>, folders: u64) -> Result<u64, String> {
    let content: u64 = files.values().map(|content| (content.len() as u64).next_multiple_of(CLUSTER)).sum();
    let entries = (files.len() as u64 + folders) * ENTRY_BYTES + folders * CLUSTER;
    let tables = content / 128 + (64 << 10);
    let bytes = (content + entries + tables).next_multiple_of(1 << 20).max(DRIVE_BYTES_MIN);
    if bytes > CONFIG_DRIVE_BYTES_MAX {
        return Err(format!("its files need {bytes} bytes, at most {CONFIG_DRIVE_BYTES_MAX} are allowed"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn files(pairs: &[(&str, usize)]) -> BTreeMap<String, Vec<u8>> {
        pairs.iter().map(|(path, length)| ((*path).to_owned(), vec![b'x'; *length])).collect()
    }

    #[test]
    fn the_same_files_make_the_same_bytes_and_can_be_read_back() {
        let files = files(&[
            ("openstack/latest/meta_data.json", 900),
            ("openstack/latest/user_data", 65_535),
            ("ec2/latest/meta-data.json", 3),
            ("empty", 0),
        ]);
        let bytes = build(&files).unwrap();
        assert_eq!(bytes.len(), 1 << 20);
        assert_eq!(bytes, build(&files).unwrap());
        let volume = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), "config-2");
        assert_eq!(volume.read_volume_label_from_root_dir().unwrap().unwrap(), "config-2");
        for (path, content) in &files {
            let mut read = Vec::new();
            volume.root_dir().open_file(path).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(&read, content, "{path}");
        }
    }

    #[test]
    fn it_grows_with_its_files_up_to_the_limit() {
        for mib in [1, 5, 20, 60] {
            let bytes = build(&files(&[("a/b/content", mib << 20), ("c", 1)])).unwrap();
            assert!(bytes.len() > mib << 20 && bytes.len() <= (mib + 2) << 20, "{mib} MiB in {}", bytes.len());
        }
        assert!(build(&files(&[("content", 64 << 20)])).unwrap_err().contains("at most 67108864"));
    }

    #[test]
    fn many_small_files_fit() {
        let many: BTreeMap<_, _> =
            (0..FILES_MAX).map(|n| (format!("openstack/content/{n:04}-{}", "n".repeat(50)), vec![7; 2049])).collect();
        build(&many).unwrap();
        let flat: BTreeMap<_, _> = (0..60).map(|n| (format!("{n:04}-{}", "n".repeat(50)), vec![7; 1])).collect();
        build(&flat).unwrap();
    }

    #[test]
    fn paths_that_are_none_are_refused() {
        for path in ["", "/a", "a//b", "../a", "a/..", "a\\b", "a:b", "ä", "a/", "a."] {
            assert!(build(&files(&[(path, 1)])).unwrap_err().contains("plain names"), "{path}");
        }
        assert!(build(&files(&[("A/b", 1), ("a/B", 1)])).unwrap_err().contains("only in case"));
        assert!(build(&files(&[("a", 1), ("a/b", 1)])).unwrap_err().contains("both a file and a folder"));
    }
}
