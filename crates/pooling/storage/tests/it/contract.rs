//! What every driver promises.

use crate::rig::{MIB, Node, Origin, UID, run, spec, text};
use arcus_storage::{SimOptions, Storage, StorageError};
use arcus_types::ServerId;
use arcus_types::agent::{DiskFormat, LocalDisk, LocalDiskContent, LocalDisksSpec};
use aws_lc_rs::digest;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

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
    an_image_is_fetched_once
    concurrent_calls_share_one_fetch
    a_broken_fetch_leaves_nothing_and_is_tried_again
    bytes_that_are_not_as_promised_are_damaged
    hostile_images_are_refused
    a_root_disk_needs_its_image_and_enough_room
    a_root_disk_is_kept_and_only_grows
    a_higher_incarnation_begins_anew_and_a_lower_one_is_stale
    a_server_from_a_cd_has_a_blank_disk_and_the_cd
    local_disks_are_made_grow_and_go
    images_under_disks_are_never_evicted
    the_longest_unused_image_goes_first
    config_drives_are_made_and_checked
    exports_come_and_go
    removing_a_server_takes_everything_and_can_be_repeated
    capacity_is_told
}

fn quiet(_: u64) {}

fn text_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn an_image_is_fetched_once(storage: &dyn Storage) {
    let origin = Origin::default();
    let image = origin.raw(3, 1);
    let told = Mutex::new(Vec::new());
    for _ in 0..3 {
        storage.image_ensure(&image, &origin, &|bytes| told.lock().unwrap().push(bytes)).await.unwrap();
    }
    assert_eq!(storage.images().await.unwrap(), std::slice::from_ref(&image.sha256));
    assert_eq!(origin.fetched(), 1);
    let told = told.lock().unwrap();
    assert!(told.len() > 3 && told[0] == 0 && told.is_sorted() && told.last() == Some(&(3 * MIB)), "{told:?}");
}

async fn concurrent_calls_share_one_fetch(storage: &dyn Storage) {
    let origin = Origin::default();
    let image = origin.raw(8, 2);
    let most = AtomicU64::new(0);
    let see = |bytes| {
        most.fetch_max(bytes, Ordering::Relaxed);
    };
    let (first, second, third, fourth) = tokio::join!(
        storage.image_ensure(&image, &origin, &quiet),
        storage.image_ensure(&image, &origin, &see),
        storage.image_ensure(&image, &origin, &quiet),
        storage.image_ensure(&image, &origin, &quiet),
    );
    for result in [first, second, third, fourth] {
        result.unwrap();
    }
    assert_eq!(origin.fetched(), 1);
    assert_eq!(most.load(Ordering::Relaxed), 8 * MIB);
}

async fn a_broken_fetch_leaves_nothing_and_is_tried_again(storage: &dyn Storage) {
    let origin = Origin::default();
    let image = origin.raw(2, 3);
    *origin.breaks_at.lock().unwrap() = Some(100_000);
    let error = storage.image_ensure(&image, &origin, &quiet).await.unwrap_err();
    assert!(matches!(error, StorageError::Fetch { .. }) && error.is_transient(), "{error:?}");
    assert!(storage.images().await.unwrap().is_empty());
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    assert_eq!(storage.images().await.unwrap().len(), 1);
}

async fn bytes_that_are_not_as_promised_are_damaged(storage: &dyn Storage) {
    let origin = Origin::default();
    let image = origin.raw(2, 4);
    let mut other = image.clone();
    other.sha256 = "0".repeat(64);
    assert!(text(storage.image_ensure(&other, &origin, &quiet).await).contains("SHA-256"));
    for size_bytes in [image.size_bytes - 1, image.size_bytes + 1] {
        let other = arcus_types::agent::ImageSource { size_bytes, ..image.clone() };
        let error = storage.image_ensure(&other, &origin, &quiet).await.unwrap_err();
        assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
    }
    for sha256 in ["", "../../../etc/passwd", "XYZ"] {
        let other = arcus_types::agent::ImageSource { sha256: sha256.into(), ..image.clone() };
        assert!(text(storage.image_ensure(&other, &origin, &quiet).await).contains("is not one"));
    }
    assert!(storage.images().await.unwrap().is_empty());
}

async fn hostile_images_are_refused(storage: &dyn Storage) {
    let origin = Origin::default();
    let mut bytes = vec![0; 200_000];
    bytes[..4].copy_from_slice(b"QFI\xfb");
    for (format, words) in [(DiskFormat::Raw, "its content is qcow2"), (DiskFormat::Qcow2, "unknown version 0")] {
        let image = origin.offer(format, bytes.clone());
        let result = storage.image_ensure(&image, &origin, &quiet).await;
        assert!(matches!(result, Err(StorageError::Refused { .. })), "{result:?}");
        assert!(!result.as_ref().unwrap_err().is_transient());
        assert!(text(result).contains(words));
    }
    assert!(storage.images().await.unwrap().is_empty());
}

async fn a_root_disk_needs_its_image_and_enough_room(storage: &dyn Storage) {
    let origin = Origin::default();
    let (image, server) = (origin.raw(4, 5), ServerId::new());
    let absent = storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await;
    assert!(matches!(absent, Err(StorageError::ImageAbsent { .. })), "{absent:?}");
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let small = text(storage.root_disk_ensure(server, &spec(&image, 3 * MIB, 1), UID).await);
    assert!(small.contains("3145728") && small.contains("4194304"), "{small}");
    assert_eq!(storage.root_disk(server).await.unwrap(), None);
    let disk = storage.root_disk_ensure(server, &spec(&image, 0, 1), UID).await.unwrap();
    assert_eq!(disk.size_bytes, 4 * MIB);
}

async fn a_root_disk_is_kept_and_only_grows(storage: &dyn Storage) {
    let origin = Origin::default();
    let (image, server) = (origin.raw(1, 6), ServerId::new());
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let first = storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await.unwrap();
    assert_eq!((first.size_bytes, first.incarnation, first.format), (8 * MIB, 1, DiskFormat::Qcow2));
    assert_eq!(first.cdrom, None);
    assert_eq!(storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await.unwrap(), first);
    assert_eq!(storage.root_disk_ensure(server, &spec(&image, 2 * MIB, 1), UID).await.unwrap(), first);
    let grown = storage.root_disk_ensure(server, &spec(&image, 3 << 30, 1), UID).await.unwrap();
    assert_eq!((grown.size_bytes, &grown.path), (3 << 30, &first.path));
    assert_eq!(storage.root_disk(server).await.unwrap(), Some(grown));
    assert_eq!(storage.servers().await.unwrap(), [server]);
}

async fn a_higher_incarnation_begins_anew_and_a_lower_one_is_stale(storage: &dyn Storage) {
    let origin = Origin::default();
    let (image, other, server) = (origin.raw(1, 7), origin.raw(2, 7), ServerId::new());
    for source in [&image, &other] {
        storage.image_ensure(source, &origin, &quiet).await.unwrap();
    }
    storage.root_disk_ensure(server, &spec(&image, 64 * MIB, 1), UID).await.unwrap();
    let again = storage.root_disk_ensure(server, &spec(&other, 8 * MIB, 4), UID).await.unwrap();
    assert_eq!((again.size_bytes, again.incarnation), (8 * MIB, 4));
    let stale = storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 3), UID).await.unwrap_err();
    assert!(matches!(stale, StorageError::Stale { have: 4, wanted: 3, .. }), "{stale:?}");
    assert_eq!(storage.root_disk(server).await.unwrap(), Some(again));
}

async fn a_server_from_a_cd_has_a_blank_disk_and_the_cd(storage: &dyn Storage) {
    let origin = Origin::default();
    let mut bytes = vec![0; 1 << 20];
    bytes[0x8001..0x8006].copy_from_slice(b"CD001");
    let (image, server) = (origin.offer(DiskFormat::Iso, bytes), ServerId::new());
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let disk = storage.root_disk_ensure(server, &spec(&image, 512 << 10, 1), UID).await.unwrap();
    assert_eq!(disk.size_bytes, 512 << 10);
    assert!(disk.cdrom.as_ref().unwrap().ends_with(&image.sha256));
    assert_eq!(storage.root_disk(server).await.unwrap(), Some(disk));
    assert!(storage.image_evict(&BTreeSet::new(), 0).await.unwrap().is_empty());
}

async fn local_disks_are_made_grow_and_go(storage: &dyn Storage) {
    use LocalDiskContent::{Blank, Ext4, Swap};
    let server = ServerId::random();
    let sizes = |disks: &[arcus_storage::Disk]| disks.iter().map(|disk| disk.size_bytes / MIB).collect::<Vec<_>>();
    let wish = |incarnation, disks: &[(LocalDiskContent, u64)]| LocalDisksSpec {
        incarnation,
        disks: disks.iter().map(|&(content, size_mib)| LocalDisk { content, size_mib }).collect(),
    };
    let first = wish(1, &[(Ext4, 8), (Blank, 3), (Swap, 2)]);
    let made = storage.local_disks_ensure(server, &first, UID, true).await.unwrap();
    assert_eq!(sizes(&made), [8, 3, 2]);
    assert!(made.iter().all(|disk| disk.format == DiskFormat::Raw && disk.incarnation == 1));
    assert_eq!(storage.local_disks_ensure(server, &first, UID, true).await.unwrap(), made);
    // Ephemeral disks grow and never shrink; swap space is as large as it shall be.
    let larger = wish(1, &[(Ext4, 16), (Blank, 1), (Swap, 1)]);
    let grown = storage.local_disks_ensure(server, &larger, UID, true).await.unwrap();
    assert_eq!(sizes(&grown), [16, 3, 1]);
    let fewer = storage.local_disks_ensure(server, &wish(1, &[(Ext4, 16)]), UID, true).await.unwrap();
    assert_eq!(fewer, grown[..1]);
    let anew = storage.local_disks_ensure(server, &wish(2, &[(Ext4, 8)]), UID, true).await.unwrap();
    assert_eq!((sizes(&anew), anew[0].incarnation), (vec![8], 2));
    storage.server_remove(server).await.unwrap();
    assert!(!anew[0].path.exists());
    assert!(storage.local_disks_ensure(server, &wish(2, &[]), UID, true).await.unwrap().is_empty());
}

async fn images_under_disks_are_never_evicted(storage: &dyn Storage) {
    let origin = Origin::default();
    let (used, kept, idle) = (origin.raw(1, 8), origin.raw(1, 9), origin.raw(1, 10));
    for image in [&used, &kept, &idle] {
        storage.image_ensure(image, &origin, &quiet).await.unwrap();
    }
    let server = ServerId::new();
    storage.root_disk_ensure(server, &spec(&used, 8 * MIB, 1), UID).await.unwrap();
    assert!(storage.image_evict(&BTreeSet::new(), 1 << 30).await.unwrap().is_empty());
    let keep = BTreeSet::from([kept.sha256.clone()]);
    assert_eq!(storage.image_evict(&keep, 0).await.unwrap(), [idle.sha256]);
    let left: BTreeSet<String> = storage.images().await.unwrap().into_iter().collect();
    assert_eq!(left, BTreeSet::from([used.sha256.clone(), kept.sha256]));
    storage.server_remove(server).await.unwrap();
    assert!(storage.image_evict(&BTreeSet::new(), 0).await.unwrap().contains(&used.sha256));
}

async fn the_longest_unused_image_goes_first(storage: &dyn Storage) {
    let origin = Origin::default();
    let images = [origin.raw(2, 11), origin.raw(2, 12), origin.raw(2, 13)];
    for image in &images {
        storage.image_ensure(image, &origin, &quiet).await.unwrap();
    }
    assert_eq!(storage.image_evict(&BTreeSet::new(), 5 * MIB).await.unwrap(), [images[0].sha256.clone()]);
    assert_eq!(storage.image_evict(&BTreeSet::new(), 5 * MIB).await.unwrap(), Vec::<String>::new());
}

async fn config_drives_are_made_and_checked(storage: &dyn Storage) {
    let server = ServerId::new();
    let mut files = BTreeMap::from([("openstack/latest/meta_data.json".to_owned(), b"{}".to_vec())]);
    let first = storage.config_drive_ensure(server, &files, UID).await.unwrap();
    assert_eq!((first.size_bytes, first.format), (MIB, DiskFormat::Raw));
    assert_eq!(storage.config_drive_ensure(server, &files, UID).await.unwrap(), first);
    files.insert("../escape".into(), Vec::new());
    let error = storage.config_drive_ensure(server, &files, UID).await;
    assert!(matches!(error, Err(StorageError::ConfigDrive { .. })), "{error:?}");
    assert_eq!(storage.servers().await.unwrap(), [server]);
}

async fn exports_come_and_go(storage: &dyn Storage) {
    let origin = Origin::default();
    let (image, server) = (origin.raw(2, 14), ServerId::new());
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let disk = storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await.unwrap();
    for _ in 0..2 {
        let export = storage.export(&disk.path, "0b8c-snapshot").await.unwrap();
        assert_eq!(export.virtual_size_bytes, 8 * MIB);
        let bytes = std::fs::read(&export.path).unwrap();
        assert_eq!(export.size_bytes, bytes.len() as u64);
        assert_eq!(export.sha256, text_of(digest::digest(&digest::SHA256, &bytes).as_ref()));
        run("qemu-img", "check -q -f qcow2", &[&export.path]);
        let info = run("qemu-img", "info -f qcow2 --output=json", &[&export.path]);
        assert!(info.contains(&format!("\"virtual-size\": {}", 8 * MIB)), "{info}");
    }
    let copy = storage.server_folder(server, UID).await.unwrap().join("snapshot.qcow2");
    run("qemu-img", "create -q -f qcow2", &[&copy, Path::new("8M")]);
    std::os::unix::fs::chown(&copy, Some(UID), Some(UID)).unwrap();
    assert_eq!(storage.export(&copy, "0b8c-snapshot").await.unwrap().virtual_size_bytes, 8 * MIB);
    assert_eq!(storage.exports().await.unwrap(), ["0b8c-snapshot"]);
    for _ in 0..2 {
        storage.export_remove("0b8c-snapshot").await.unwrap();
    }
    assert!(storage.exports().await.unwrap().is_empty());
    for name in ["", "../x", "a/b", "a.part", &"x".repeat(65)] {
        assert!(matches!(storage.export(&disk.path, name).await, Err(StorageError::ExportName { .. })), "{name}");
        assert!(storage.export_remove(name).await.is_err());
    }
    let outside = storage.export(Path::new("/etc/passwd"), "x").await;
    assert!(matches!(outside, Err(StorageError::DiskDamaged { .. })), "{outside:?}");
}

async fn removing_a_server_takes_everything_and_can_be_repeated(storage: &dyn Storage) {
    let origin = Origin::default();
    let (image, server, other) = (origin.raw(1, 15), ServerId::new(), ServerId::new());
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    for id in [server, other] {
        storage.root_disk_ensure(id, &spec(&image, 8 * MIB, 1), UID).await.unwrap();
        storage.config_drive_ensure(id, &BTreeMap::new(), UID).await.unwrap();
        let folder = storage.server_folder(id, UID).await.unwrap();
        assert_eq!(storage.server_folder(id, UID).await.unwrap(), folder);
    }
    assert_eq!(storage.servers().await.unwrap(), [server, other]);
    for _ in 0..2 {
        storage.server_remove(server).await.unwrap();
        assert_eq!(storage.servers().await.unwrap(), [other]);
        assert_eq!(storage.root_disk(server).await.unwrap(), None);
    }
    assert!(storage.root_disk(other).await.unwrap().is_some());
}

async fn capacity_is_told(storage: &dyn Storage) {
    let capacity = storage.capacity().await.unwrap();
    assert!(capacity.total_bytes >= capacity.free_bytes && capacity.free_bytes > 0, "{capacity:?}");
}

#[tokio::test(start_paused = true)]
async fn simulated_faults_and_delays_follow_the_seed() {
    let run = async |seed| {
        let options = SimOptions { seed, delay_ms_max: 2000, faults_per_mille: 300, ..SimOptions::default() };
        let node = Node::new();
        let (storage, begun) = (node.simulated(options), tokio::time::Instant::now());
        let mut story = Vec::new();
        for _ in 0..50 {
            let failed = storage.capacity().await.is_err_and(|error| error.is_transient());
            story.push((failed, begun.elapsed().as_millis()));
        }
        story
    };
    let story = run(1).await;
    assert_eq!(story, run(1).await);
    assert_ne!(story, run(2).await);
    assert!((5..30).contains(&story.iter().filter(|(failed, _)| *failed).count()), "{story:?}");
    let node = Node::new();
    let storage = node.simulated(SimOptions::default());
    storage.fail_next(1);
    assert!(storage.images().await.is_err());
    assert!(storage.images().await.is_ok());
}

#[tokio::test]
async fn simulated_disks_outlive_the_agent_if_they_shall() {
    let node = Node::new();
    let open = || node.simulated(SimOptions::default());
    let (origin, server) = (Origin::default(), ServerId::new());
    let image = origin.raw(1, 1);
    let storage = open();
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let disk = storage.root_disk_ensure(server, &spec(&image, 4 * MIB, 3), UID).await.unwrap();
    drop(storage);
    assert_eq!(open().root_disk(server).await.unwrap(), Some(disk));
    assert_eq!(open().images().await.unwrap(), [image.sha256]);
    open().server_remove(server).await.unwrap();
    assert_eq!(open().servers().await.unwrap(), []);
}

#[test]
fn drivers_can_be_held_as_objects() {
    let node = Node::new();
    let drivers: [std::sync::Arc<dyn Storage>; 2] =
        [std::sync::Arc::new(node.open()), std::sync::Arc::new(node.simulated(SimOptions::default()))];
    assert_eq!(drivers.len(), 2);
}
