//! Logs of a guest that must not fill the disk: its serial console and QEMU's own.

use super::record::Folder;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The size at which a log is cut, in bytes. The console keeps as much again in `console.log.1`.
pub const LOG_BYTES_MAX: u64 = 1024 * 1024;

/// Opens a log to append to. Appending is what makes cutting it under QEMU's feet possible.
///
/// # Errors
/// The file system's.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Cuts the logs that have grown too long; cheap when there is nothing to do.
///
/// # Errors
/// The file system's.
pub fn bound(folder: &Folder) -> io::Result<()> {
    let console = folder.file("console.log");
    if length(&console) > LOG_BYTES_MAX {
        // What is written between the two calls is lost: bytes of a guest that floods its console.
        std::fs::write(folder.file("console.log.1"), tail(&console, LOG_BYTES_MAX)?)?;
        OpenOptions::new().write(true).open(&console)?.set_len(0)?;
    }
    let own = folder.file("qemu.log");
    if length(&own) > LOG_BYTES_MAX {
        OpenOptions::new().write(true).open(&own)?.set_len(0)?;
    }
    Ok(())
}

/// The end of the console's log, at most this many bytes, over the cut.
///
/// # Errors
/// The file system's.
pub fn read(folder: &Folder, bytes_max: u64) -> io::Result<Vec<u8>> {
    // No more is kept, so no more is read, whatever was asked for.
    let bytes_max = bytes_max.min(2 * LOG_BYTES_MAX);
    let newest = tail(&folder.file("console.log"), bytes_max)?;
    let mut bytes = tail(&folder.file("console.log.1"), bytes_max - newest.len() as u64)?;
    bytes.extend_from_slice(&newest);
    Ok(bytes)
}

/// The end of QEMU's own words, for the operator.
pub fn own_words(folder: &Folder) -> String {
    let bytes = tail(&folder.file("qemu.log"), 2048).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

fn tail(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_types::ids::ServerId;
    use std::io::Write;

    #[test]
    fn a_flooded_console_is_bounded_and_its_end_is_kept_while_the_writer_goes_on() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::of(parent.path(), ServerId::new());
        folder.prepare().unwrap();
        let mut writer = open(&folder.file("console.log")).unwrap();
        for round in 0..5 {
            writer.write_all(&vec![b'a' + round; LOG_BYTES_MAX as usize + 1]).unwrap();
            bound(&folder).unwrap();
        }
        writer.write_all(b"the end").unwrap();
        assert_eq!(read(&folder, 9).unwrap(), b"eethe end");
        assert_eq!(read(&folder, u64::MAX).unwrap().len() as u64, LOG_BYTES_MAX + 7);
        assert_eq!(read(&folder, 0).unwrap(), b"");
    }
}
