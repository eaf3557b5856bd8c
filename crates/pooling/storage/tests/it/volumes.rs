//! What every driver promises of volumes, and that files keep what was written to them.

use crate::rig::{MIB, Node, Origin, UID, run};
use arcus_storage::{Storage, StorageError, UserError, VolumeContent, VolumeUser};
use arcus_types::agent::DiskFormat;
use arcus_types::{VolumeId, VolumeSnapshotId};
use async_trait::async_trait;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

macro_rules! contract {
    ($($claim:ident)*) => {
        mod files {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $claim() {
                let node = crate::rig::Node::new();
                super::$claim(&node.open()).await;
            })*
        }
        mod simulated {
            $(#[tokio::test] async fn $claim() {
                let node = crate::rig::Node::new();
                super::$claim(&node.simulated(Default::default())).await;
            })*
        }
    };
}

contract! {
    a_blank_volume_is_made_once_and_removed_with_its_snapshots
    a_volume_only_grows
    a_volume_of_an_image_needs_the_image_and_enough_room
    a_copy_needs_its_snapshot_and_enough_room
    a_volume_becomes_an_image
    a_guest_that_has_it_open_does_the_work
    a_refill_is_done_once_for_each_number
}

fn quiet(_: u8) {}

async fn a_blank_volume_is_made_once_and_removed_with_its_snapshots(storage: &dyn Storage) {
    let (id, snapshot) = (VolumeId::new(), VolumeSnapshotId::new());
    assert_eq!(storage.volume(id).await.unwrap(), None);
    for _ in 0..2 {
        let made = storage.volume_make(id, 8 * MIB, &VolumeContent::Blank, &quiet).await.unwrap();
        assert_eq!((made.size_bytes, made.snapshots.len()), (8 * MIB, 0));
    }
    for _ in 0..2 {
        storage.volume_snapshot_make(id, snapshot, None).await.unwrap();
        assert_eq!(storage.volume(id).await.unwrap().unwrap().snapshots, [snapshot].into());
    }
    assert_eq!(storage.volumes().await.unwrap(), [id]);
    for _ in 0..2 {
        storage.volume_snapshot_remove(id, snapshot, None).await.unwrap();
    }
    assert!(storage.volume(id).await.unwrap().unwrap().snapshots.is_empty());
    storage.volume_snapshot_make(id, snapshot, None).await.unwrap();
    for _ in 0..2 {
        storage.volume_remove(id).await.unwrap();
        storage.volume_snapshot_remove(id, snapshot, None).await.unwrap();
    }
    assert!(storage.volumes().await.unwrap().is_empty());
    let absent = storage.volume_snapshot_make(id, snapshot, None).await.unwrap_err();
    assert!(matches!(absent, StorageError::VolumeAbsent { .. }), "{absent:?}");
}

async fn a_volume_only_grows(storage: &dyn Storage) {
    let id = VolumeId::new();
    storage.volume_make(id, 8 * MIB, &VolumeContent::Blank, &quiet).await.unwrap();
    storage.volume_snapshot_make(id, VolumeSnapshotId::new(), None).await.unwrap();
    for (wanted, has) in [(2, 8), (8, 8), (64, 64), (9, 64)] {
        let grown = storage.volume_grow(id, wanted * MIB, None).await.unwrap();
        assert_eq!((grown.size_bytes, grown.snapshots.len()), (has * MIB, 1));
    }
    assert_eq!(storage.volume_hand_over(id, Some(UID)).await.unwrap().size_bytes, 64 * MIB);
    assert_eq!(storage.volume_grow(id, 70 * MIB, None).await.unwrap().size_bytes, 70 * MIB);
    storage.volume_hand_over(id, None).await.unwrap();
}

async fn a_volume_of_an_image_needs_the_image_and_enough_room(storage: &dyn Storage) {
    let origin = Origin::default();
    let (id, image) = (VolumeId::new(), origin.raw(3, 7));
    let content = VolumeContent::Image(image.clone());
    let absent = storage.volume_make(id, 8 * MIB, &content, &quiet).await.unwrap_err();
    assert!(matches!(absent, StorageError::ImageAbsent { .. }), "{absent:?}");
    storage.image_ensure(&image, &origin, &|_| {}).await.unwrap();
    let small = storage.volume_make(id, 2 * MIB, &content, &quiet).await.unwrap_err();
    assert!(matches!(small, StorageError::DiskTooSmall { .. }), "{small:?}");
    let told = Mutex::new(Vec::new());
    let made = storage.volume_make(id, 8 * MIB, &content, &|percent| told.lock().unwrap().push(percent)).await.unwrap();
    assert_eq!(made.size_bytes, 8 * MIB);
    assert_eq!(told.lock().unwrap().last(), Some(&100));
    // It stands by itself.
    assert_eq!(storage.image_evict(&Default::default(), 0).await.unwrap(), [image.sha256]);
}

async fn a_copy_needs_its_snapshot_and_enough_room(storage: &dyn Storage) {
    let (id, copy, snapshot) = (VolumeId::new(), VolumeId::new(), VolumeSnapshotId::new());
    let content = VolumeContent::Snapshot { volume: id, snapshot };
    let absent = storage.volume_make(copy, 8 * MIB, &content, &quiet).await.unwrap_err();
    assert!(matches!(absent, StorageError::VolumeAbsent { .. }) && absent.is_transient(), "{absent:?}");
    storage.volume_make(id, 8 * MIB, &VolumeContent::Blank, &quiet).await.unwrap();
    let absent = storage.volume_make(copy, 8 * MIB, &content, &quiet).await.unwrap_err();
    assert!(matches!(absent, StorageError::SnapshotAbsent { .. }) && absent.is_transient(), "{absent:?}");
    storage.volume_snapshot_make(id, snapshot, None).await.unwrap();
    storage.volume_grow(id, 32 * MIB, None).await.unwrap();
    let small = storage.volume_make(copy, 4 * MIB, &content, &quiet).await.unwrap_err();
    assert!(matches!(small, StorageError::VolumeTooSmall { .. }) && !small.is_transient(), "{small:?}");
    let made = storage.volume_make(copy, 8 * MIB, &content, &quiet).await.unwrap();
    assert_eq!((made.size_bytes, made.snapshots.len()), (8 * MIB, 0), "as large as asked for, not as what it is of");
}

async fn a_volume_becomes_an_image(storage: &dyn Storage) {
    let (id, snapshot) = (VolumeId::new(), VolumeSnapshotId::new());
    storage.volume_make(id, 8 * MIB, &VolumeContent::Blank, &quiet).await.unwrap();
    let absent = storage.volume_export(id, snapshot, "x", DiskFormat::Raw, &quiet).await.unwrap_err();
    assert!(matches!(absent, StorageError::SnapshotAbsent { .. }), "{absent:?}");
    storage.volume_snapshot_make(id, snapshot, None).await.unwrap();
    for (format, name) in [(DiskFormat::Raw, "raw"), (DiskFormat::Qcow2, "qcow2")] {
        let export = storage.volume_export(id, snapshot, name, format, &quiet).await.unwrap();
        assert_eq!((export.virtual_size_bytes, export.sha256.len()), (8 * MIB, 64));
        assert_eq!(export.size_bytes, std::fs::metadata(&export.path).unwrap().len());
        let info = run("qemu-img", &format!("info -f {name} --output=json"), &[&export.path]);
        assert!(info.contains(&format!("\"virtual-size\": {}", 8 * MIB)), "{info}");
    }
    assert_eq!(storage.exports().await.unwrap(), ["qcow2", "raw"]);
}

/// A machine that writes down what it is told and does none of it.
#[derive(Default)]
struct Machine(Mutex<Vec<String>>);

impl Machine {
    fn note(&self, what: String) -> Result<(), UserError> {
        self.0.lock().unwrap().push(what);
        Err(UserError { source: "it is on strike".into(), transient: true })
    }
}

#[async_trait]
impl VolumeUser for Machine {
    async fn grow(&self, size_bytes: u64) -> Result<(), UserError> {
        self.note(format!("grow to {size_bytes}"))
    }

    async fn snapshot_make(&self, name: &str) -> Result<(), UserError> {
        self.note(format!("make {name}"))
    }

    async fn snapshot_remove(&self, name: &str) -> Result<(), UserError> {
        self.note(format!("remove {name}"))
    }
}

async fn a_guest_that_has_it_open_does_the_work(storage: &dyn Storage) {
    let (id, old, new) = (VolumeId::new(), VolumeSnapshotId::new(), VolumeSnapshotId::new());
    storage.volume_make(id, 8 * MIB, &VolumeContent::Blank, &quiet).await.unwrap();
    storage.volume_snapshot_make(id, old, None).await.unwrap();
    let machine = Machine::default();
    let error = storage.volume_grow(id, 16 * MIB, Some(&machine)).await.unwrap_err();
    assert!(matches!(error, StorageError::User { .. }) && error.is_transient(), "{error:?}");
    storage.volume_grow(id, 8 * MIB, Some(&machine)).await.unwrap();
    assert!(storage.volume_snapshot_make(id, new, Some(&machine)).await.is_err());
    storage.volume_snapshot_make(id, old, Some(&machine)).await.unwrap();
    assert!(storage.volume_snapshot_remove(id, old, Some(&machine)).await.is_err());
    storage.volume_snapshot_remove(id, new, Some(&machine)).await.unwrap();
    let told = machine.0.lock().unwrap().clone();
    assert_eq!(told, [format!("grow to {}", 16 * MIB), format!("make {new}"), format!("remove {old}")]);
    let still = storage.volume(id).await.unwrap().unwrap();
    assert_eq!((still.size_bytes, still.snapshots), (8 * MIB, [old].into()));
}

async fn a_refill_is_done_once_for_each_number(storage: &dyn Storage) {
    let origin = Origin::default();
    let (id, snapshot, image) = (VolumeId::new(), VolumeSnapshotId::new(), origin.raw(3, 7));
    let back = VolumeContent::Snapshot { volume: id, snapshot };
    let absent = storage.volume_refill(id, 8 * MIB, &back, 4, &quiet).await.unwrap_err();
    assert!(matches!(absent, StorageError::VolumeAbsent { .. } | StorageError::SnapshotAbsent { .. }), "{absent:?}");
    let made = storage.volume_make(id, 8 * MIB, &VolumeContent::Blank, &quiet).await.unwrap();
    assert_eq!(made.refill, 0);
    let absent = storage.volume_refill(id, 8 * MIB, &back, 4, &quiet).await.unwrap_err();
    assert!(matches!(absent, StorageError::SnapshotAbsent { .. }), "{absent:?}");
    storage.volume_snapshot_make(id, snapshot, None).await.unwrap();
    let reverted = storage.volume_refill(id, 8 * MIB, &back, 4, &quiet).await.unwrap();
    assert_eq!((reverted.refill, reverted.snapshots), (4, [snapshot].into()), "it keeps its snapshots");
    let content = VolumeContent::Image(image.clone());
    let absent = storage.volume_refill(id, 8 * MIB, &content, 5, &quiet).await.unwrap_err();
    assert!(matches!(absent, StorageError::ImageAbsent { .. }), "{absent:?}");
    let same = storage.volume_refill(id, 8 * MIB, &content, 4, &quiet).await.unwrap();
    assert_eq!(same.snapshots.len(), 1, "the number was used before");
    storage.image_ensure(&image, &origin, &|_| {}).await.unwrap();
    let filled = storage.volume_refill(id, 8 * MIB, &content, 5, &quiet).await.unwrap();
    assert_eq!((filled.refill, filled.snapshots.len(), filled.size_bytes), (5, 0, 8 * MIB));
}

/// Runs one command of `qemu-io` on a disk.
#[track_caller]
fn qemu_io(command: &str, path: &Path) -> String {
    run("qemu-io", "-f qcow2 -c", &[Path::new(command), path])
}

#[track_caller]
fn write(pattern: u8, at_mib: u64, path: &Path) {
    qemu_io(&format!("write -P {pattern} {at_mib}M 1M"), path);
}

#[track_caller]
fn holds(pattern: u8, at_mib: u64, path: &Path) {
    let said = qemu_io(&format!("read -P {pattern} {at_mib}M 1M"), path);
    assert!(!said.contains("failed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_snapshot_has_what_was_there_then_and_volumes_belong_to_one_user_each() {
    let node = Node::new();
    let storage = node.open();
    let (id, copy, snapshot) = (VolumeId::new(), VolumeId::new(), VolumeSnapshotId::new());
    let volume = storage.volume_make(id, 8 * MIB, &VolumeContent::Blank, &quiet).await.unwrap();
    let owner = || std::fs::metadata(&volume.path).unwrap().uid();
    write(17, 1, &volume.path);
    storage.volume_snapshot_make(id, snapshot, None).await.unwrap();
    storage.volume_hand_over(id, Some(UID)).await.unwrap();
    assert_eq!(owner(), UID);
    storage.volume_grow(id, 16 * MIB, None).await.unwrap();
    write(34, 1, &volume.path);
    write(51, 12, &volume.path);

    let content = VolumeContent::Snapshot { volume: id, snapshot };
    let copied = storage.volume_make(copy, 20 * MIB, &content, &quiet).await.unwrap();
    holds(17, 1, &copied.path);
    holds(0, 12, &copied.path);
    holds(0, 19, &copied.path);
    holds(34, 1, &volume.path);
    let export = storage.volume_export(id, snapshot, "x", DiskFormat::Qcow2, &quiet).await.unwrap();
    holds(17, 1, &export.path);

    let copy_owner = std::fs::metadata(&copied.path).unwrap().uid();
    storage.volume_hand_over(id, None).await.unwrap();
    assert!(owner() != UID && copy_owner != UID && owner() != copy_owner, "{} {copy_owner}", owner());
    storage.volume_snapshot_remove(id, snapshot, None).await.unwrap();
    run("qemu-img", "check -q -f qcow2", &[&volume.path]);
    storage.volume_remove(id).await.unwrap();
    holds(17, 1, &copied.path);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_of_an_image_has_its_bytes() {
    let (node, origin, id) = (Node::new(), Origin::default(), VolumeId::new());
    let storage = node.open();
    let image = origin.offer(DiskFormat::Raw, vec![85; 3 << 20]);
    storage.image_ensure(&image, &origin, &|_| {}).await.unwrap();
    let volume = storage.volume_make(id, 5 * MIB, &VolumeContent::Image(image), &quiet).await.unwrap();
    holds(85, 2, &volume.path);
    holds(0, 4, &volume.path);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_goes_back_to_its_snapshot_and_takes_another_image() {
    let (node, origin, id, snapshot) = (Node::new(), Origin::default(), VolumeId::new(), VolumeSnapshotId::new());
    let storage = node.open();
    let volume = storage.volume_make(id, 8 * MIB, &VolumeContent::Blank, &quiet).await.unwrap();
    write(17, 1, &volume.path);
    storage.volume_snapshot_make(id, snapshot, None).await.unwrap();
    write(34, 1, &volume.path);
    write(34, 5, &volume.path);
    let back = VolumeContent::Snapshot { volume: id, snapshot };
    storage.volume_refill(id, 8 * MIB, &back, 1, &quiet).await.unwrap();
    holds(17, 1, &volume.path);
    holds(0, 5, &volume.path);
    write(51, 1, &volume.path);
    drop(storage);
    let storage = node.open();
    storage.volume_refill(id, 8 * MIB, &back, 1, &quiet).await.unwrap();
    holds(51, 1, &volume.path);

    let image = origin.offer(DiskFormat::Raw, vec![85; 3 << 20]);
    storage.image_ensure(&image, &origin, &|_| {}).await.unwrap();
    let content = VolumeContent::Image(image);
    storage.volume_refill(id, 8 * MIB, &content, 2, &quiet).await.unwrap();
    holds(85, 2, &volume.path);
    holds(0, 5, &volume.path);
    std::fs::remove_file(&volume.path).unwrap();
    storage.volume_refill(id, 8 * MIB, &content, 3, &quiet).await.unwrap();
    holds(85, 2, &volume.path);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_of_a_volume_is_swept_and_the_volume_made_again() {
    let (node, id) = (Node::new(), VolumeId::new());
    let storage = node.open();
    storage.volume_make(VolumeId::new(), MIB, &VolumeContent::Blank, &quiet).await.unwrap();
    let folder = node.path("volumes").join(id.to_string());
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("disk.1-2.part"), b"half").unwrap();
    drop(storage);
    let storage = node.open();
    assert!(std::fs::read_dir(&folder).unwrap().next().is_none());
    assert_eq!(storage.volumes().await.unwrap().len(), 2, "an unfinished one is listed, so that it can be removed");
    assert_eq!(storage.volume(id).await.unwrap(), None);
    storage.volume_make(id, MIB, &VolumeContent::Blank, &quiet).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_whose_guest_rewrote_its_header_is_not_opened() {
    let (node, id) = (Node::new(), VolumeId::new());
    let storage = node.open();
    let volume = storage.volume_make(id, MIB, &VolumeContent::Blank, &quiet).await.unwrap();
    std::fs::remove_file(&volume.path).unwrap();
    run("qemu-img", "create -q -f qcow2 -u -F raw -b /etc/shadow", &[&volume.path, Path::new("1M")]);
    let snapshot = VolumeSnapshotId::new();
    for error in [
        storage.volume(id).await.unwrap_err(),
        storage.volume_snapshot_make(id, snapshot, None).await.unwrap_err(),
        storage.volume_hand_over(id, Some(UID)).await.unwrap_err(),
        storage.volume_export(id, snapshot, "x", DiskFormat::Raw, &quiet).await.unwrap_err(),
    ] {
        assert!(matches!(error, StorageError::DiskDamaged { .. }), "{error:?}");
    }
    storage.volume_remove(id).await.unwrap();
}
