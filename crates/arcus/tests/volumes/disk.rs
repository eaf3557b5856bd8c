//! A volume as a guest sees it: a disk, known by its serial number.

use crate::client::Ssh;

/// A disk in a guest.
pub struct Disk {
    name: String,
    serial: String,
}

impl Disk {
    /// Waits until the guest has a disk with the serial number of this volume.
    pub fn find(ssh: &Ssh, volume: &str) -> Self {
        let serial: String = volume.chars().take(20).collect();
        let look =
            format!("for d in /sys/block/vd*; do [ \"$(cat $d/serial)\" = {serial} ] && basename $d; done; true");
        ssh.wait_until(&look, |name| !name.is_empty());
        Self { name: ssh.run(&look), serial }
    }

    /// Makes a file system on it and mounts that.
    pub fn format(&self, ssh: &Ssh) {
        ssh.run(&format!(
            "sudo mke2fs -q -t ext4 -F /dev/{0} && sudo mkdir -p /mnt/{0} && sudo mount -t ext4 /dev/{0} /mnt/{0}",
            self.name
        ));
    }

    /// Writes a word into a file of it, down to stable storage.
    pub fn write(&self, ssh: &Ssh, word: &str) {
        ssh.run(&format!("echo {word} | sudo tee /mnt/{}/word >/dev/null && sync", self.name));
    }

    /// The word that is in its file; it is mounted only meanwhile.
    pub fn read(&self, ssh: &Ssh) -> String {
        let mount = format!("sudo mkdir -p /mnt/{0} && sudo mount -t ext4 /dev/{0} /mnt/{0}", self.name);
        ssh.run(&format!("{mount} && cat /mnt/{0}/word && sudo umount /mnt/{0}", self.name))
    }

    pub fn unmount(&self, ssh: &Ssh) {
        ssh.run(&format!("sudo umount /mnt/{}", self.name));
    }

    /// How large it is, in GiB.
    pub fn gib(&self, ssh: &Ssh) -> u64 {
        ssh.run(&format!("cat /sys/block/{}/size", self.name)).parse::<u64>().unwrap() >> 21
    }

    /// Waits until the guest sees this size.
    pub fn wait_for_gib(&self, ssh: &Ssh, gib: u64) {
        ssh.wait_for(&format!("cat /sys/block/{}/size", self.name), &(gib << 21).to_string());
    }

    /// How long it takes to write so many MiB of zeros to it, in milliseconds.
    pub fn write_ms(&self, ssh: &Ssh, mib: u64) -> u64 {
        let write = format!("sudo dd if=/dev/zero of=/dev/{} bs=1M count={mib} conv=fsync 2>/dev/null", self.name);
        let printed = ssh.run(&format!("cut -d. -f1,2 /proc/uptime; {write}; cut -d. -f1,2 /proc/uptime"));
        let at = |line: &str| {
            let seconds = line.split(' ').next().and_then(|word| word.parse::<f64>().ok());
            seconds.unwrap_or_else(|| panic!("no time: {printed}"))
        };
        let mut lines = printed.lines();
        let (began, ended) = (at(lines.next().unwrap_or_default()), at(lines.next().unwrap_or_default()));
        ((ended - began) * 1000.0).round() as u64
    }

    /// Whether the guest has no disk with its serial number.
    pub fn is_gone(&self, ssh: &Ssh) -> bool {
        ssh.run(&format!("cat /sys/block/vd*/serial | grep -c {} || true", self.serial)) == "0"
    }
}
