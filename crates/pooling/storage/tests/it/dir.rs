//! What the files are like: who may read them, what other programs see in them, and what hostile ones cannot do.

use crate::rig::{MIB, Node, Origin, UID, run, spec, text};
use arcus_storage::{DirOptions, DirStorage, Storage, StorageError};
use arcus_types::ServerId;
use arcus_types::agent::{DiskFormat, ImageSource};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

fn quiet(_: u64) {}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777)
}

/// Makes an image with `qemu-img` and offers it.
fn made(origin: &Origin, node: &Node, words: &str, format: DiskFormat) -> ImageSource {
    let (raw, image) = (node.path("made.raw"), node.path("made.image"));
    let mut bytes = vec![0; 16 << 20];
    bytes[..4 << 20].iter_mut().enumerate().for_each(|(index, byte)| *byte = (index % 249) as u8);
    std::fs::write(&raw, &bytes).unwrap();
    run("qemu-img", &format!("convert -f raw {words}"), &[&raw, &image]);
    origin.offer(format, std::fs::read(image).unwrap())
}

#[tokio::test]
async fn only_a_server_s_own_user_reads_its_files() {
    let (node, origin, server) = (Node::new(), Origin::default(), ServerId::new());
    let storage = node.open();
    let image = origin.raw(1, 1);
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let root = storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await.unwrap().path;
    let config = storage.config_drive_ensure(server, &BTreeMap::new(), UID).await.unwrap().path;
    let folder = storage.server_folder(server, UID).await.unwrap();
    assert_eq!(owner_and_mode(&root), (UID, UID, 0o600));
    assert_eq!(owner_and_mode(&config), (UID, UID, 0o400));
    assert_eq!(owner_and_mode(&folder), (UID, UID, 0o700));
    assert_eq!(owner_and_mode(root.parent().unwrap()), (0, UID, 0o710));
    assert_eq!(owner_and_mode(&node.path("images").join(&image.sha256)), (0, 0, 0o444));
    for parent in ["images", "disks", "servers", "exports"] {
        assert_eq!(owner_and_mode(&node.path(parent)), (0, 0, 0o711), "{parent}");
    }
    // The guest's user opens the whole chain, another one nothing.
    let uid = UID.to_string();
    let setpriv = format!("--reuid {uid} --regid {uid} --clear-groups qemu-img info --backing-chain");
    assert!(run("setpriv", &setpriv, &[&root]).contains("backing file format: raw"));
    let other = (UID + 1).to_string();
    let words = ["--reuid", &other, "--regid", &other, "--clear-groups", "qemu-img", "info"];
    assert!(!std::process::Command::new("setpriv").args(words).arg(&root).output().unwrap().status.success());
    // A server that got another number gets its files with it.
    storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID + 1).await.unwrap();
    storage.config_drive_ensure(server, &BTreeMap::new(), UID + 1).await.unwrap();
    assert_eq!((owner_and_mode(&root).0, owner_and_mode(&config).0), (UID + 1, UID + 1));
    assert_eq!(owner_and_mode(root.parent().unwrap()).1, UID + 1);
}

#[tokio::test]
async fn other_programs_find_the_config_drive_by_its_label() {
    let (node, server) = (Node::new(), ServerId::new());
    let storage = node.open();
    let files = BTreeMap::from([("openstack/latest/user_data".to_owned(), b"#!/bin/sh\n".to_vec())]);
    let drive = storage.config_drive_ensure(server, &files, UID).await.unwrap();
    let inode = std::fs::metadata(&drive.path).unwrap().ino();
    let found = run("blkid", "-p -o export", &[&drive.path]);
    assert!(found.contains("LABEL=config-2") && found.contains("TYPE=vfat"), "{found}");
    storage.config_drive_ensure(server, &files, UID).await.unwrap();
    assert_eq!(std::fs::metadata(&drive.path).unwrap().ino(), inode, "a drive that is right is left alone");
}

#[tokio::test]
async fn foreign_formats_become_qcow2_with_the_same_bytes() {
    let (node, origin) = (Node::new(), Origin::default());
    let storage = node.open();
    for (words, format) in [
        ("-O vmdk", DiskFormat::Vmdk),
        ("-O vmdk -o subformat=streamOptimized", DiskFormat::Vmdk),
        ("-O vpc -o force_size=on", DiskFormat::Vhd),
        ("-O vpc -o force_size=on,subformat=fixed", DiskFormat::Vhd),
    ] {
        let (image, server) = (made(&origin, &node, words, format), ServerId::new());
        storage.image_ensure(&image, &origin, &quiet).await.unwrap();
        let disk = storage.root_disk_ensure(server, &spec(&image, 0, 1), UID).await.unwrap();
        assert_eq!(disk.size_bytes, 16 * MIB, "{words}");
        run("qemu-img", "compare -f raw -F qcow2", &[&node.path("made.raw"), &disk.path]);
        assert_eq!(owner_and_mode(&node.path("images").join(&image.sha256)), (0, 0, 0o444));
    }
    assert!(node.names("images").iter().all(|name| !name.ends_with(".part")));
}

#[tokio::test]
async fn a_conversion_that_writes_too_much_is_ended() {
    let (node, origin) = (Node::new(), Origin::default());
    let options = DirOptions { conversion_bytes_max: MIB, ..DirOptions::default() };
    let storage = DirStorage::open(&node.path(""), options).unwrap();
    let image = made(&origin, &node, "-O vmdk -o subformat=streamOptimized", DiskFormat::Vmdk);
    let error = storage.image_ensure(&image, &origin, &quiet).await.unwrap_err();
    assert!(matches!(error, StorageError::Tool { transient: false, .. }), "{error:?}");
    assert!(node.names("images").is_empty());
}

#[tokio::test]
async fn a_hostile_qcow2_never_reaches_the_cache() {
    let (node, origin) = (Node::new(), Origin::default());
    let storage = node.open();
    let image = node.path("hostile");
    for (words, said) in [
        ("create -q -u -f qcow2 -F raw -b /etc/passwd", "backing file"),
        ("create -q -f qcow2 -o data_file=/tmp/arcus-storage-test-elsewhere", "external data file"),
    ] {
        run("qemu-img", words, &[&image, Path::new("1M")]);
        let source = origin.offer(DiskFormat::Qcow2, std::fs::read(&image).unwrap());
        assert!(text(storage.image_ensure(&source, &origin, &quiet).await).contains(said));
    }
    let _ = std::fs::remove_file("/tmp/arcus-storage-test-elsewhere");
    let mut cut = std::fs::read({
        made(&origin, &node, "-O qcow2", DiskFormat::Qcow2);
        node.path("made.image")
    })
    .unwrap();
    cut.truncate(2 << 20);
    let source = origin.offer(DiskFormat::Qcow2, cut);
    assert!(text(storage.image_ensure(&source, &origin, &quiet).await).contains("cut short"));
    assert!(node.names("images").is_empty());
}

#[tokio::test]
async fn a_guest_that_rewrites_its_disk_s_header_reaches_nothing_else() {
    let (node, origin, server) = (Node::new(), Origin::default(), ServerId::new());
    let storage = node.open();
    let image = origin.raw(1, 1);
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let disk = storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await.unwrap();
    run("qemu-img", "rebase -u -f qcow2 -F raw -b /etc/passwd", &[&disk.path]);
    for error in [
        storage.root_disk(server).await.map(|_| ()),
        storage.root_disk_ensure(server, &spec(&image, 16 * MIB, 1), UID).await.map(|_| ()),
        storage.export(&disk.path, "stolen").await.map(|_| ()),
    ] {
        assert!(matches!(error, Err(StorageError::DiskDamaged { .. })), "{error:?}");
    }
    // In its own folder it can put a link in the way; that is not followed.
    let folder = storage.server_folder(server, UID).await.unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("copy.qcow2")).unwrap();
    assert!(storage.export(&folder.join("copy.qcow2"), "stolen").await.is_err());
    assert!(storage.export(&folder.join("../../ledger.json"), "stolen").await.is_err());
    storage.server_remove(server).await.unwrap();
    assert!(Path::new("/etc/passwd").exists());
}

#[tokio::test]
async fn an_export_is_compressed_and_whole() {
    let (node, origin, server) = (Node::new(), Origin::default(), ServerId::new());
    let storage = node.open();
    let image = made(&origin, &node, "-O qcow2", DiskFormat::Qcow2);
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let disk = storage.root_disk_ensure(server, &spec(&image, 24 * MIB, 1), UID).await.unwrap();
    run("qemu-io", "-f qcow2 -c", &[Path::new("write -P 7 20M 64k"), &disk.path]);
    let export = storage.export(&disk.path, "snapshot-1").await.unwrap();
    run("qemu-img", "compare -f qcow2 -F qcow2", &[&disk.path, &export.path]);
    assert!(!run("qemu-img", "info", &[&export.path]).contains("backing file"));
    assert!(export.size_bytes < 2 * MIB, "{} bytes", export.size_bytes);
    let sums = run("sha256sum", "-b", &[&export.path]);
    assert!(sums.starts_with(&export.sha256));
    assert_eq!(owner_and_mode(&export.path), (0, 0, 0o600));
    // What was exported is taken as an image again.
    let again = origin.offer(DiskFormat::Qcow2, std::fs::read(&export.path).unwrap());
    storage.image_ensure(&again, &origin, &quiet).await.unwrap();
    // A copy that the emulator made in the guest's own folder is exported too.
    let folder = storage.server_folder(server, UID).await.unwrap();
    let copy = folder.join("copy.qcow2");
    run("qemu-img", "convert -O qcow2", &[&disk.path, &copy]);
    chown(&copy, Some(UID), Some(UID)).unwrap();
    let export = storage.export(&copy, "snapshot-2").await.unwrap();
    run("qemu-img", "compare -f qcow2 -F qcow2", &[&disk.path, &export.path]);
}

#[tokio::test]
async fn a_disk_that_a_guest_writes_to_is_not_exported() {
    let (node, origin, server) = (Node::new(), Origin::default(), ServerId::new());
    let storage = node.open();
    let image = origin.raw(1, 1);
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    let disk = storage.root_disk_ensure(server, &spec(&image, 8 * MIB, 1), UID).await.unwrap();
    let mut holder = std::process::Command::new("qemu-io")
        .args(["-f", "qcow2"])
        .arg(&disk.path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut prompt = [0; 7];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut prompt).unwrap();
    let error = storage.export(&disk.path, "live").await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("lock"), "{error}");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    storage.export(&disk.path, "live").await.unwrap();
}

#[tokio::test]
async fn an_image_larger_than_the_room_is_not_begun() {
    let (node, origin) = (Node::new(), Origin::default());
    let options = DirOptions { reserve_bytes: u64::MAX / 2, ..DirOptions::default() };
    let storage = DirStorage::open(&node.path(""), options).unwrap();
    let error = storage.image_ensure(&origin.raw(1, 1), &origin, &quiet).await.unwrap_err();
    assert!(matches!(error, StorageError::Full { .. }) && origin.fetched() == 0, "{error:?}");
}

#[test]
fn a_folder_that_guests_cannot_pass_is_refused() {
    let node = Node::new();
    let closed = node.path("closed");
    std::fs::create_dir_all(closed.join("agent")).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let said = text(DirStorage::open(&closed.join("agent"), DirOptions::default()));
    assert!(said.contains("closed: 'chmod o+x' it"), "{said}");
}

#[tokio::test]
async fn a_disk_of_sixteen_tebibytes_is_made_and_grown() {
    let (node, origin, server) = (Node::new(), Origin::default(), ServerId::new());
    let storage = node.open();
    let image = origin.raw(1, 1);
    storage.image_ensure(&image, &origin, &quiet).await.unwrap();
    storage.root_disk_ensure(server, &spec(&image, 1 << 40, 1), UID).await.unwrap();
    let disk = storage.root_disk_ensure(server, &spec(&image, 16 << 40, 1), UID).await.unwrap();
    assert_eq!(disk.size_bytes, 16 << 40);
    run("qemu-img", "check -f qcow2", &[&disk.path]);
}

#[tokio::test]
async fn local_disks_are_formatted_once_and_belong_to_the_guest() {
    use arcus_types::agent::{LocalDisk, LocalDiskContent, LocalDisksSpec};
    let node = Node::new();
    let storage = node.open();
    let server = ServerId::random();
    let disk = |content| LocalDisk { content, size_mib: 8 };
    let disks = [LocalDiskContent::Ext4, LocalDiskContent::Ext4, LocalDiskContent::Swap].map(disk).to_vec();
    let spec = LocalDisksSpec { incarnation: 3, disks };
    let made = storage.local_disks_ensure(server, &spec, UID, true).await.unwrap();
    let bytes = |at: usize| std::fs::read(&made[at].path).unwrap();
    // The label in ext4's superblock, and the mark at the end of swap space's first page.
    assert_eq!(&bytes(0)[1024 + 120..][..10], b"ephemeral0");
    assert_eq!(&bytes(1)[1024 + 120..][..10], b"ephemeral1");
    assert_eq!(&bytes(2)[4086..][..10], b"SWAPSPACE2");
    assert_eq!(owner_and_mode(&made[0].path), (UID, UID, 0o600));
    // What the guest wrote stays, and a disk whose making was cut short does not count.
    let mut written = bytes(0);
    written[5000] = 7;
    std::fs::write(&made[0].path, &written).unwrap();
    std::fs::remove_file(&made[1].path).unwrap();
    std::fs::write(made[1].path.with_extension("1-1.part"), b"half").unwrap();
    let storage = node.open();
    assert_eq!(storage.local_disks_ensure(server, &spec, UID, true).await.unwrap(), made);
    assert_eq!(bytes(0)[5000], 7);
    assert_eq!(&bytes(1)[1024 + 120..][..10], b"ephemeral1");
    assert_eq!(std::fs::read_dir(made[0].path.parent().unwrap()).unwrap().count(), 3);
    // Those of a guest that comes from elsewhere have the same names, and nothing on them yet.
    let comes = storage.local_disks_ensure(ServerId::random(), &spec, UID, false).await.unwrap();
    for (comes, made) in comes.iter().zip(&made) {
        assert_eq!(comes.path.file_name(), made.path.file_name());
        assert!(std::fs::read(&comes.path).unwrap().iter().all(|byte| *byte == 0));
    }
}
