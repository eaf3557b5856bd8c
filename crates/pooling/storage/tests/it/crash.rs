//! Whatever a crash or a cancelled call leaves behind, the next call finishes or starts again.

use crate::rig::{MIB, Node, Origin, UID, spec};
use arcus_storage::{Storage, StorageError};
use arcus_types::ServerId;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

fn quiet(_: u64) {}

#[tokio::test]
async fn unfinished_files_are_swept_when_the_storage_is_opened() {
    let (node, origin, server) = (Node::new(), Origin::default(), ServerId::new());
    let image = origin.raw(1, 1);
    let storage = node.open();
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await.unwrap();
    drop(storage);
    let disks = format!("disks/{server}");
    let before = [node.names("images"), node.names(&disks), node.names("exports")];
    let other = "f".repeat(64);
    for left in [
        format!("images/{other}.77-1.part"),
        format!("images/{other}.json"),
        format!("{disks}/root-2.77-2.part"),
        format!("{disks}/root.77-3.part"),
        "exports/snapshot.77-4.part".to_owned(),
    ] {
        std::fs::write(node.path(&left), b"half").unwrap();
    }
    let storage = node.open();
    assert_eq!([node.names("images"), node.names(&disks), node.names("exports")], before);
    assert_eq!(storage.images().await.unwrap(), [image.sha256]);
}

#[tokio::test]
async fn an_image_without_its_note_or_with_another_length_is_fetched_again() {
    let (node, origin) = (Node::new(), Origin::default());
    let image = origin.raw(1, 1);
    let storage = node.open();
    let path = node.path("images").join(&image.sha256);
    std::fs::write(&path, b"not noted").unwrap();
    assert!(storage.images().await.unwrap().is_empty());
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), MIB);
    std::fs::File::options().write(true).open(&path).unwrap().set_len(MIB / 2).unwrap();
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    assert_eq!((std::fs::metadata(&path).unwrap().len(), origin.fetched()), (MIB, 2));
}

#[tokio::test]
async fn a_rebuild_that_a_crash_cut_short_counts_only_once_recorded() {
    let (node, origin, server) = (Node::new(), Origin::default(), ServerId::new());
    let image = origin.raw(1, 1);
    let storage = node.open();
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let first = storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await.unwrap();
    // The crash came after the new disk was in place and before its record was.
    let half = first.path.with_file_name("root-2.qcow2");
    std::fs::write(&half, b"made but not recorded").unwrap();
    let storage = {
        drop(storage);
        node.open()
    };
    assert_eq!(storage.root_disk(server).await.unwrap(), Some(first.clone()));
    let second = storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 2), UID).await.unwrap();
    assert_eq!((&second.path, second.incarnation), (&half, 2));
    // The crash came after the record and before the old disk was removed.
    std::fs::write(&first.path, b"old").unwrap();
    storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 2), UID).await.unwrap();
    assert!(!first.path.exists() && second.path.exists());
}

#[tokio::test]
async fn a_disk_that_is_gone_is_said_to_be_gone_and_never_made_anew() {
    let (node, origin, server) = (Node::new(), Origin::default(), ServerId::new());
    let image = origin.raw(1, 1);
    let storage = node.open();
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let disk = storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await.unwrap();
    std::fs::remove_file(&disk.path).unwrap();
    let error = storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await.unwrap_err();
    assert!(matches!(error, StorageError::DiskDamaged { .. }), "{error:?}");
    storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 2), UID).await.unwrap();
}

#[tokio::test]
async fn a_half_removed_server_is_still_listed_and_removed() {
    let (node, origin, server) = (Node::new(), Origin::default(), ServerId::new());
    let image = origin.raw(1, 1);
    let storage = node.open();
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await.unwrap();
    std::fs::remove_file(node.path(&format!("disks/{server}/root.json"))).unwrap();
    assert_eq!(storage.servers().await.unwrap(), [server]);
    assert_eq!(storage.root_disk(server).await.unwrap(), None);
    storage.server_remove(server).await.unwrap();
    assert!(node.names("disks").is_empty());
}

/// Waits until a folder of the state holds nothing unfinished.
async fn settled(node: &Node, folder: &str) -> BTreeSet<String> {
    for _ in 0..500 {
        let names = node.names(folder);
        if names.iter().all(|name| Path::new(name).extension().is_none_or(|ending| ending != "part")) {
            return names.into_iter().collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("unfinished files stay in {folder}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_dropped_at_any_moment_leave_nothing_unfinished() {
    let (node, origin) = (Node::new(), Origin::default());
    let storage = node.open();
    let image = origin.raw(8, 1);
    for wait_us in (0..12).map(|step| step * 1500) {
        let call = storage.image_ensure(&image, &origin, &quiet);
        let _ = tokio::time::timeout(Duration::from_micros(wait_us), call).await;
        settled(&node, "images").await;
    }
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let server = ServerId::new();
    storage.config_drive_ensure(server, &Default::default(), UID).await.unwrap();
    for wait_us in (0..12).map(|step| step * 2500) {
        let wanted = spec(&image, 16 * MIB, 1 + wait_us);
        let call = storage.root_disk_ensure(server, &wanted, UID);
        let _ = tokio::time::timeout(Duration::from_micros(wait_us), call).await;
        settled(&node, &format!("disks/{server}")).await;
        let disk = storage.root_disk_ensure(server, &wanted, UID).await.unwrap();
        assert_eq!(disk.incarnation, 1 + wait_us);
        let left = settled(&node, &format!("disks/{server}")).await;
        assert_eq!(left.len(), 3, "{left:?}");
    }
}
