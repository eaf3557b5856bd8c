//! The main walk: a whole cloud started as a newcomer would, used with the real `openstack` client by an ordinary project
//! member, until everything is deleted and nothing is left.

#![cfg(test)]

mod client;
mod cloud;
mod leftovers;

use client::Client;
use cloud::Cloud;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_member_walks_from_a_network_to_a_snapshot_and_leaves_nothing() {
    let cloud = Cloud::up();
    let member = Client::new(&cloud, "arcus");
    // A project gets its default security group when it first looks.
    member.run(&["security", "group", "list"]);
    let before = leftovers::project_rows(&cloud);

    network(&member);
    let key = member.folder().join("walk.key");
    member.run(&["keypair", "create", "--private-key", &key.display().to_string(), "walk"]);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let image = cloud.image().display().to_string();
    member.run(&["image", "create", "--disk-format", "qcow2", "--file", &image, "walk"]);

    let address = boot(&member, "web", "walk");
    let ssh = client::Ssh::new(&key, &address);
    inside(&ssh);
    consoles(&member);
    life(&member, &ssh);
    let snapshot_address = snapshot(&member, &ssh, &key);
    resize(&member, &ssh);

    remove(&member, &[&address, &snapshot_address]);
    leftovers::assert_guests_gone(&cloud);
    assert_eq!(leftovers::project_rows(&cloud), before, "rows of the project are left");
    let traces = leftovers::Traces::of(&cloud);
    cloud.down();
    traces.assert_gone();
}

fn network(member: &Client) {
    member.run(&["network", "create", "walk"]);
    member.run(&["subnet", "create", "--network", "walk", "--subnet-range", "10.77.0.0/24", "walk"]);
    member.run(&["router", "create", "walk"]);
    member.run(&["router", "set", "--external-gateway", "public", "walk"]);
    member.run(&["router", "add", "subnet", "walk", "walk"]);
    member.run(&["security", "group", "create", "walk"]);
    member.run(&["security", "group", "rule", "create", "--protocol", "tcp", "--dst-port", "22", "walk"]);
    member.run(&["security", "group", "rule", "create", "--protocol", "icmp", "walk"]);
}

/// Boots a server with a floating IP; answers that address.
fn boot(member: &Client, name: &str, image: &str) -> String {
    let user_data = member.folder().join("user-data");
    std::fs::write(&user_data, "#!/bin/sh\necho walked > /tmp/user-data-ran\n").unwrap();
    member.run(&[
        "server",
        "create",
        "--image",
        image,
        "--flavor",
        "arcus.tiny",
        "--network",
        "walk",
        "--security-group",
        "walk",
        "--key-name",
        "walk",
        "--user-data",
        &user_data.display().to_string(),
        "--property",
        "role=front",
        "--wait",
        name,
    ]);
    assert_eq!(member.show(&["server", "show", name])["status"], "ACTIVE");
    let floating = member.show(&["floating", "ip", "create", "public"]);
    let address = floating["floating_ip_address"].as_str().unwrap().to_owned();
    member.run(&["server", "add", "floating", "ip", name, &address]);
    address
}

fn inside(ssh: &client::Ssh) {
    ssh.wait_for("hostname", "web");
    let metadata = ssh.run("wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json");
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(metadata["name"], "web");
    assert_eq!(metadata["meta"]["role"], "front");
    ssh.wait_for("cat /tmp/user-data-ran", "walked");
}

fn consoles(member: &Client) {
    let log = member.run(&["console", "log", "show", "web"]);
    assert!(log.contains("arcus-tiny: ready"), "the console log is not that of a guest that has booted: {log}");
    let url = member.show(&["console", "url", "show", "--serial", "web"]);
    let screen = member.python("serial_console.py", &[url["url"].as_str().unwrap()]);
    assert!(screen.contains("web login:"), "the serial console shows no login: {screen}");
}

fn life(member: &Client, ssh: &client::Ssh) {
    for how in ["--soft", "--hard"] {
        let before = ssh.run("cat /proc/sys/kernel/random/boot_id");
        member.run(&["server", "reboot", how, "--wait", "web"]);
        ssh.wait_until("cat /proc/sys/kernel/random/boot_id", |after| !after.is_empty() && after != before);
    }
    member.run(&["server", "stop", "web"]);
    member.wait_for_status("web", "SHUTOFF");
    member.run(&["server", "start", "web"]);
    member.wait_for_status("web", "ACTIVE");
    ssh.wait_for("hostname", "web");

    ssh.run("echo gone-after-rebuild > /home/arcus/mark; sync");
    member.run(&["server", "rebuild", "--wait", "--image", "walk", "web"]);
    ssh.wait_for("ls /home/arcus/mark || echo absent", "absent");
}

fn snapshot(member: &Client, ssh: &client::Ssh, key: &std::path::Path) -> String {
    ssh.run("echo kept > /home/arcus/mark; sync");
    member.run(&["server", "image", "create", "--name", "walk-snapshot", "--wait", "web"]);
    let image = member.show(&["image", "show", "walk-snapshot"]);
    assert_eq!(image["status"], "active");
    let address = boot(member, "copy", "walk-snapshot");
    let copy = client::Ssh::new(key, &address);
    copy.wait_for("hostname", "copy");
    assert_eq!(copy.run("cat /home/arcus/mark"), "kept");
    address
}

fn resize(member: &Client, ssh: &client::Ssh) {
    let memory = || ssh.run("awk '/MemTotal/ {print $2}' /proc/meminfo").parse::<u64>().unwrap_or(0);
    let before = memory();
    member.run(&["server", "resize", "--flavor", "arcus.small", "--wait", "web"]);
    member.run(&["server", "resize", "confirm", "web"]);
    member.wait_for_status("web", "ACTIVE");
    ssh.wait_for("hostname", "web");
    assert!(memory() > before, "the guest has no more memory than before");
}

fn remove(member: &Client, addresses: &[&str]) {
    member.run(&["server", "delete", "--wait", "web", "copy"]);
    for address in addresses {
        member.run(&["floating", "ip", "delete", address]);
    }
    member.run(&["router", "remove", "subnet", "walk", "walk"]);
    member.run(&["router", "delete", "walk"]);
    member.run(&["subnet", "delete", "walk"]);
    member.run(&["network", "delete", "walk"]);
    member.run(&["security", "group", "delete", "walk"]);
    member.run(&["keypair", "delete", "walk"]);
    member.run(&["image", "delete", "walk", "walk-snapshot"]);
    for list in [&["server", "list"][..], &["port", "list"], &["router", "list"], &["floating", "ip", "list"]] {
        assert_eq!(member.show(list), serde_json::json!([]), "{list:?} is not empty");
    }
}
