//! Volumes from a user's first to the last: with the real `openstack` client, in real guests, down to the bytes.

#![cfg(test)]

#[path = "../walk/client.rs"]
#[expect(dead_code, reason = "scripts in the client's Python are for the main walk")]
mod client;
#[path = "../walk/cloud.rs"]
mod cloud;
#[path = "../walk/leftovers.rs"]
mod leftovers;

mod disk;

use client::{Client, Ssh};
use cloud::Cloud;
use disk::Disk;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a node may take to do something to a volume, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// The newest microversion of the volume API.
const NEWEST: [&str; 2] = ["--os-volume-api-version", "3.70"];

#[test]
fn bytes_stay_with_their_volume() {
    let cloud = Cloud::up();
    let (member, admin) = (Client::new(&cloud, "arcus"), Client::new(&cloud, "arcus-admin"));
    member.run(&["security", "group", "list"]);
    let before = leftovers::project_rows(&cloud);
    let image = member.show(&["image", "list", "--public"])[0]["ID"].as_str().unwrap().to_owned();
    let key = prepare(&member, &admin);

    // Both start while the other does.
    member.run(&create("one", &["--image", &image]));
    member.run(&["volume", "create", "--size", "1", "--image", &image, "--bootable", "root"]);
    member.run(&["volume", "create", "--size", "1", "data"]);
    wait(&member, "volume", "root", "available");
    member.run(&create("two", &["--volume", "root"]));
    let (one, two) = (reach(&member, "one", &key), reach(&member, "two", &key));

    attached(&member, &one);
    moved(&member, &two);
    reverted(&member, &two);
    limited(&member, &one);
    booted(&member, &two, &key);
    lost(&cloud, &member);

    remove(&member, &admin);
    leftovers::assert_guests_gone(&cloud);
    assert_eq!(leftovers::project_rows(&cloud), before, "rows of the project are left");
    assert_eq!(entries(&cloud.home().join("agent/volumes")), 0, "files of volumes are left");
    let traces = leftovers::Traces::of(&cloud);
    cloud.down();
    traces.assert_gone();
}

fn prepare(member: &Client, admin: &Client) -> std::path::PathBuf {
    member.run(&["network", "create", "vol"]);
    member.run(&["subnet", "create", "--network", "vol", "--subnet-range", "10.78.0.0/24", "vol"]);
    member.run(&["router", "create", "--external-gateway", "public", "vol"]);
    member.run(&["router", "add", "subnet", "vol", "vol"]);
    member.run(&["security", "group", "create", "vol"]);
    member.run(&["security", "group", "rule", "create", "--protocol", "tcp", "--dst-port", "22", "vol"]);
    let key = member.folder().join("vol.key");
    member.run(&["keypair", "create", "--private-key", &key.display().to_string(), "vol"]);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    admin.run(&["volume", "qos", "create", "--consumer", "front-end", "--property", "total_bytes_sec=1048576", "slow"]);
    admin.run(&["volume", "type", "create", "slow"]);
    admin.run(&["volume", "qos", "associate", "slow", "slow"]);
    key
}

fn create<'a>(name: &'a str, from: &[&'a str]) -> Vec<&'a str> {
    let rest = ["--network", "vol", "--security-group", "vol", "--key-name", "vol", name];
    [&["server", "create", "--flavor", "arcus.tiny"], from, &rest].concat()
}

/// Waits for a server, gives it a floating IP, and reaches it.
fn reach(member: &Client, name: &str, key: &Path) -> Ssh {
    member.wait_for_status(name, "ACTIVE");
    let floating = member.show(&["floating", "ip", "create", "public"]);
    let address = floating["floating_ip_address"].as_str().unwrap().to_owned();
    member.run(&["server", "add", "floating", "ip", name, &address]);
    Ssh::new(key, &address)
}

/// Waits until a volume, a snapshot or an image has a status.
fn wait(member: &Client, kind: &str, name: &str, wanted: &str) {
    let words: Vec<&str> = kind.split(' ').collect();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let shown = member.show(&[&words[..], &["show", name]].concat());
        if shown["status"] == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{kind} {name}: {shown}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn attach(member: &Client, ssh: &Ssh, server: &str, volume: &str) -> Disk {
    member.run(&["server", "add", "volume", server, volume]);
    wait(member, "volume", volume, "in-use");
    let id = member.show(&["volume", "show", volume])["id"].as_str().unwrap().to_owned();
    Disk::find(ssh, &id)
}

/// Takes a volume from a running server; a guest that answers lets go of it in a moment.
fn detach(member: &Client, server: &str, volume: &str) {
    let began = Instant::now();
    member.run(&["server", "remove", "volume", server, volume]);
    wait(member, "volume", volume, "available");
    eprintln!("{volume} was detached after {} ms", began.elapsed().as_millis());
}

/// An empty volume is filled, grown and kept as of one moment, all while the guest uses it.
fn attached(member: &Client, one: &Ssh) {
    let disk = attach(member, one, "one", "data");
    disk.format(one);
    disk.write(one, "before");
    member.run(&["--os-volume-api-version", "3.42", "volume", "set", "--size", "2", "data"]);
    disk.wait_for_gib(one, 2);
    wait(member, "volume", "data", "in-use");
    let history = member.run(&["server", "event", "list", "one"]);
    assert!(history.contains("extend_volume"), "the server's history: {history}");
    // Older microversions want `--force`, which this client does not send.
    member.run(&[&NEWEST[..], &["volume", "snapshot", "create", "--volume", "data", "then"]].concat());
    wait(member, "volume snapshot", "then", "available");
    disk.write(one, "after");
    disk.unmount(one);
    detach(member, "one", "data");
    assert!(disk.is_gone(one), "the guest still has the disk");
}

/// Another guest finds what was written, and in a volume of the snapshot what was there then.
fn moved(member: &Client, two: &Ssh) {
    member.run(&["volume", "create", "--snapshot", "then", "copy"]);
    let disk = attach(member, two, "two", "data");
    assert_eq!(disk.read(two), "after");
    wait(member, "volume", "copy", "available");
    let copy = attach(member, two, "two", "copy");
    assert_eq!(copy.read(two), "before");
    assert_eq!(copy.gib(two), 2);
    detach(member, "two", "copy");
    detach(member, "two", "data");
}

/// A volume goes back to its last snapshot.
fn reverted(member: &Client, two: &Ssh) {
    member.run(&[&NEWEST[..], &["volume", "revert", "then"]].concat());
    wait(member, "volume", "data", "available");
    let disk = attach(member, two, "two", "data");
    assert_eq!(disk.read(two), "before");
    detach(member, "two", "data");
}

/// A type's limit holds in the guest, and is lifted while it runs.
fn limited(member: &Client, one: &Ssh) {
    member.run(&["volume", "create", "--size", "1", "--type", "slow", "narrow"]);
    wait(member, "volume", "narrow", "available");
    let disk = attach(member, one, "one", "narrow");
    let slow = disk.write_ms(one, 4);
    assert!(slow >= 2_500, "4 MiB at 1 MiB/s took {slow} ms");
    member.run(&["volume", "set", "--type", "dir", "narrow"]);
    let deadline = Instant::now() + DEADLINE;
    while disk.write_ms(one, 4) >= 2_000 {
        assert!(Instant::now() < deadline, "the volume is as slow as before");
    }
    detach(member, "one", "narrow");
}

/// A server runs on a volume, and an image of that volume starts another.
fn booted(member: &Client, two: &Ssh, key: &Path) {
    two.run("echo kept > /home/arcus/mark && sync");
    member.run(&["server", "reboot", "--hard", "--wait", "two"]);
    two.wait_for("cat /home/arcus/mark", "kept");
    member.run(&["image", "create", "--volume", "root", "--force", "--disk-format", "qcow2", "of-root"]);
    wait(member, "image", "of-root", "active");
    wait(member, "volume", "root", "in-use");
    member.run(&create("three", &["--image", "of-root"]));
    let three = reach(member, "three", key);
    three.wait_for("cat /home/arcus/mark", "kept");
}

/// A volume whose file is gone says so, and no empty one takes its place.
fn lost(cloud: &Cloud, member: &Client) {
    let id = member.show(&["volume", "show", "copy"])["id"].as_str().unwrap().to_owned();
    let folder = cloud.home().join("agent/volumes").join(id);
    std::fs::remove_file(folder.join("disk.qcow2")).unwrap();
    member.run(&["volume", "snapshot", "create", "--volume", "copy", "never"]);
    wait(member, "volume", "copy", "error");
    let messages = member.show(&[&NEWEST[..], &["volume", "message", "list"]].concat());
    let said = messages[0]["User Message"].as_str().unwrap_or_default();
    assert!(said.contains("gone from its node"), "{messages}");
    assert!(!folder.join("disk.qcow2").exists(), "an empty volume took the place of the one that was lost");
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

fn remove(member: &Client, admin: &Client) {
    member.run(&["server", "delete", "--wait", "one", "two", "three"]);
    member.run(&["volume", "delete", "--purge", "copy"]);
    member.run(&["volume", "snapshot", "delete", "then"]);
    gone(member, &["volume", "snapshot", "list"]);
    member.run(&["volume", "delete", "data", "narrow", "root"]);
    gone(member, &["volume", "list"]);
    for address in member.show(&["floating", "ip", "list"]).as_array().unwrap() {
        member.run(&["floating", "ip", "delete", address["ID"].as_str().unwrap()]);
    }
    member.run(&["router", "remove", "subnet", "vol", "vol"]);
    member.run(&["router", "delete", "vol"]);
    member.run(&["network", "delete", "vol"]);
    member.run(&["security", "group", "delete", "vol"]);
    member.run(&["keypair", "delete", "vol"]);
    member.run(&["image", "delete", "of-root"]);
    admin.run(&["volume", "type", "delete", "slow"]);
    admin.run(&["volume", "qos", "delete", "slow"]);
}

/// Waits until a list is empty.
fn gone(member: &Client, list: &[&str]) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let left = member.show(list);
        if left == serde_json::json!([]) {
            return;
        }
        assert!(Instant::now() < deadline, "{list:?}: {left}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
