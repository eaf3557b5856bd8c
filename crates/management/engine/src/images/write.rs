//! Takes an upload's bytes to disk: judged, hashed and written as they pass, on threads that may block.
//!
//! ```text
//! request -> bounded channel -> this thread: judge, SHA-256, write -> bounded channel -> second thread: MD5
//! ```

use super::files::Part;
use arcus_formats::{Inspector, Limits, Unsafe, inspect_file};
use arcus_store::ImageContent;
use arcus_types::agent::DiskFormat;
use aws_lc_rs::digest;
use bytes::Bytes;
use md5::Digest as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc as sync;
use tokio::sync::mpsc;

/// Pieces that wait for a thread, at most; with [`PIECE_BYTES_MAX`] this bounds an upload's memory.
pub(super) const PIECES_MAX: usize = 8;
/// Bytes of a piece, at most.
pub(super) const PIECE_BYTES_MAX: usize = 1 << 20;
/// Small pieces are gathered to so many bytes before they are written.
const WRITE_BYTES: usize = 1 << 20;
/// So many bytes after another the system is told to begin writing to disk, so that little is left to wait for at the end.
const FLUSH_BYTES: u64 = 64 << 20;

/// What comes through the channel. A channel that closes without `End` is an upload that broke off.
pub(super) enum Piece {
    Bytes(Bytes),
    End,
}

/// Why the bytes are not kept.
pub(super) enum Fault {
    /// They are no image of the declared kind, or a hostile one.
    Unsafe(Unsafe),
    /// There are more than are allowed.
    TooLarge,
    /// There are more or fewer than announced.
    NotAsAnnounced { size_bytes: u64 },
    /// They stopped coming.
    BrokenOff { size_bytes: u64 },
    /// The disk failed.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Unsafe> for Fault {
    fn from(refusal: Unsafe) -> Self {
        match refusal {
            Unsafe::Read(error) => Self::Io(error),
            other => Self::Unsafe(other),
        }
    }
}

/// What an upload must keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// What it is declared to be.
    pub format: DiskFormat,
    /// Bytes, at most.
    pub size_bytes_max: u64,
    /// Bytes, exactly, if it was announced.
    pub size_bytes: Option<u64>,
}

/// Writes all pieces to the file, makes them last and gives the file the image's name.
pub(super) fn receive(
    part: &mut Part,
    terms: Terms,
    pieces: &mut mpsc::Receiver<Piece>,
) -> Result<ImageContent, Fault> {
    let (to_md5, for_md5) = sync::sync_channel::<Bytes>(PIECES_MAX);
    let (to_flush, for_flush) = sync::sync_channel::<()>(1);
    let file = &part.file;
    let (received, md5) = std::thread::scope(|scope| {
        let md5 = scope.spawn(move || {
            let mut md5 = md5::Md5::new();
            for piece in for_md5 {
                md5.update(&piece);
            }
            hex::encode(md5.finalize())
        });
        // A failure shows again at the last sync, which is waited for.
        scope.spawn(move || {
            for () in for_flush {
                drop(file.sync_data());
            }
        });
        let received = copy(file, terms, pieces, &to_md5, &to_flush);
        drop((to_md5, to_flush));
        (received, md5.join())
    });
    let (size_bytes, virtual_size_bytes, sha256) = received?;
    let md5 = md5.map_err(|_| io::Error::other("the thread that computes MD5 ended"))?;
    if terms.format == DiskFormat::Qcow2 {
        // Now that all bytes are here, its tables can be followed.
        inspect_file(&mut &part.file, terms.format, Limits::default())?;
    }
    part.keep()?;
    Ok(ImageContent { size_bytes, virtual_size_bytes, md5, sha256 })
}

/// Judges, hashes and writes; answers the length, the virtual size and the SHA-256.
fn copy(
    file: &File,
    terms: Terms,
    pieces: &mut mpsc::Receiver<Piece>,
    to_md5: &sync::SyncSender<Bytes>,
    to_flush: &sync::SyncSender<()>,
) -> Result<(u64, u64, String), Fault> {
    let mut inspector = Inspector::new(terms.format, Limits::default());
    let mut sha256 = digest::Context::new(&digest::SHA256);
    let mut writer = BufWriter::with_capacity(WRITE_BYTES, file);
    let mut flushed_bytes = 0;
    loop {
        let bytes = match pieces.blocking_recv() {
            Some(Piece::Bytes(bytes)) => bytes,
            Some(Piece::End) => break,
            None => return Err(Fault::BrokenOff { size_bytes: inspector.total_bytes() }),
        };
        inspector.feed(&bytes)?;
        let size_bytes = inspector.total_bytes();
        if size_bytes > terms.size_bytes_max {
            return Err(Fault::TooLarge);
        }
        if to_md5.send(bytes.clone()).is_err() {
            return Err(Fault::Io(io::Error::other("the thread that computes MD5 ended")));
        }
        sha256.update(&bytes);
        writer.write_all(&bytes)?;
        if size_bytes - flushed_bytes >= FLUSH_BYTES {
            flushed_bytes = size_bytes;
            // One that is still at it will do for this one too.
            let _busy = to_flush.try_send(());
        }
    }
    writer.flush()?;
    let size_bytes = inspector.total_bytes();
    if terms.size_bytes.is_some_and(|announced| announced != size_bytes) {
        return Err(Fault::NotAsAnnounced { size_bytes });
    }
    let virtual_size_bytes = inspector.finish()?.virtual_size_bytes;
    Ok((size_bytes, virtual_size_bytes, hex::encode(sha256.finish())))
}
