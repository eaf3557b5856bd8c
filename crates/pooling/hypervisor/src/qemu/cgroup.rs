//! Control groups: each guest's process in one of its own, so that no guest takes the others' CPU time or memory.
//!
//! Version 1 hierarchies are used where `cpu` and `memory` are mounted that way, else version 2. Groups of version 1 lie
//! below the agent's own, so that limits set on the agent's container hold for its guests. Version 2 forbids processes in
//! inner groups, so there they lie at the top of what the agent sees.

use arcus_types::agent::HardwareSpec;
use arcus_types::ids::ServerId;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What QEMU itself may hold besides the guest's memory, in MiB: its heap and stacks (some 60), 16 of video memory, the
/// caches of qcow2 tables (up to 32 a disk), the buffers of a running copy (up to 64). The page cache of the disks is
/// counted too, but given back under pressure.
pub const OVERHEAD_MIB: u64 = 320;

/// CPU time that QEMU's own threads may take on top of the virtual CPUs' when the guest has no limit of its own, in
/// thousandths of a core. Without it a busy guest would be halted for the time that its disk and network cost.
const EMULATOR_MILLICORES: u64 = 250;

/// Threads besides the virtual CPUs': a block pool of at most 64 and a dozen of others, doubled.
const THREADS_MAX: u64 = 160;

/// The period over which CPU time is counted, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// What a guest's process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Weight of its CPU time, 100 is normal.
    pub cpu_weight: u64,
    /// CPU time in thousandths of a core.
    pub cpu_millicores: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Threads.
    pub threads: u64,
}

impl Limits {
    /// What a guest of this shape may use; `translation_mib` is the size of the emulator's code buffer.
    pub fn of(hardware: &HardwareSpec, translation_mib: u64) -> Self {
        let whole_cores = u64::from(hardware.vcpus) * 1000 + EMULATOR_MILLICORES;
        Self {
            cpu_weight: u64::from(hardware.cpu_weight).clamp(1, 10_000),
            cpu_millicores: hardware.cpu_limit_millicores.map_or(whole_cores, |limit| u64::from(limit).max(10)),
            memory_bytes: (hardware.memory_mib + translation_mib + OVERHEAD_MIB) * 1024 * 1024,
            threads: u64::from(hardware.vcpus) + THREADS_MAX,
        }
    }
}

/// Where groups are made on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// Version 1: a folder for each controller, our groups' parent.
    V1(BTreeMap<&'static str, PathBuf>),
    /// Version 2: the one folder.
    V2(PathBuf),
    /// None that we could use, and why.
    Missing(String),
}

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

impl Hierarchy {
    /// Looks at this machine.
    pub fn detect() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let found = Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let Self::V2(folder) = &found else { return found };
        let offered = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        let lacks: Vec<_> = CONTROLLERS.iter().filter(|c| !offered.split_whitespace().any(|o| o == **c)).collect();
        if lacks.is_empty() { found } else { Self::Missing(format!("{} does not offer {lacks:?}", folder.display())) }
    }

    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
    fn parse(mounts: &str, own: &str) -> Self {
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(root), Some(point)) = (left.get(3), left.get(4)) else { continue };
            match right.first() {
                Some(&"cgroup2") => v2 = Some(PathBuf::from(point)),
                Some(&"cgroup") => {
                    for option in right.get(2).copied().unwrap_or_default().split(',') {
                        if let Some(controller) = CONTROLLERS.iter().find(|c| **c == option) {
                            v1.insert(*controller, own_folder(Path::new(point), root, controller, own));
                        }
                    }
                }
                _ => {}
            }
        }
        match v2 {
            _ if v1.contains_key("cpu") && v1.contains_key("memory") => Self::V1(v1),
            Some(folder) => Self::V2(folder),
            None => Self::Missing("no hierarchy with cpu and memory is mounted".to_owned()),
        }
    }

    /// Makes a guest's groups with their limits.
    ///
    /// # Errors
    /// The kernel's, such as `EROFS` where the hierarchy is mounted read-only.
    pub fn create(&self, tag: &str, server: ServerId, limits: &Limits) -> io::Result<Vec<PathBuf>> {
        let below = |parent: &Path| parent.join(format!("arcus-{tag}")).join(server.to_string());
        match self {
            Self::Missing(_) => Ok(Vec::new()),
            Self::V1(parents) => {
                let mut made = Vec::new();
                for (controller, parent) in parents {
                    let group = below(parent);
                    std::fs::create_dir_all(&group)?;
                    write_v1(controller, &group, limits)?;
                    made.push(group);
                }
                Ok(made)
            }
            Self::V2(top) => {
                let group = below(top);
                std::fs::create_dir_all(&group)?;
                for parent in group.ancestors().skip(1).take(2) {
                    std::fs::write(parent.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
                }
                write_v2(&group, limits)?;
                Ok(vec![group])
            }
        }
    }
}

/// The agent's own group's folder below a mount whose root may itself be inside the hierarchy, as in containers.
fn own_folder(point: &Path, root: &str, controller: &str, own: &str) -> PathBuf {
    let of_controller = |line: &&str| line.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == controller));
    let path = own.lines().find(of_controller).and_then(|line| line.splitn(3, ':').nth(2)).unwrap_or("/");
    let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("").trim_start_matches('/');
    // A path that leads out of what is mounted is no folder of ours.
    if below.split('/').any(|part| part == "..") { point.to_owned() } else { point.join(below) }
}

fn write_v1(controller: &str, group: &Path, limits: &Limits) -> io::Result<()> {
    let set = |file: &str, value: u64| std::fs::write(group.join(file), value.to_string());
    match controller {
        "cpu" => {
            set("cpu.shares", (limits.cpu_weight * 1024 / 100).max(2))?;
            set("cpu.cfs_period_us", CPU_PERIOD_US)?;
            set("cpu.cfs_quota_us", limits.cpu_millicores * CPU_PERIOD_US / 1000)
        }
        "memory" => set("memory.limit_in_bytes", limits.memory_bytes),
        _ => set("pids.max", limits.threads),
    }
}

fn write_v2(group: &Path, limits: &Limits) -> io::Result<()> {
    let set = |file: &str, value: String| std::fs::write(group.join(file), value);
    set("cpu.weight", limits.cpu_weight.to_string())?;
    set("cpu.max", format!("{} {CPU_PERIOD_US}", limits.cpu_millicores * CPU_PERIOD_US / 1000))?;
    set("memory.max", limits.memory_bytes.to_string())?;
    set("pids.max", limits.threads.to_string())
}

/// The files that a process joins the groups by.
///
/// # Errors
/// The kernel's.
pub fn joins(groups: &[PathBuf]) -> io::Result<Vec<File>> {
    groups.iter().map(|group| OpenOptions::new().write(true).open(group.join("cgroup.procs"))).collect()
}

/// Whether the kernel ended a process in the groups because their memory was used up.
pub fn ran_out_of_memory(groups: &[PathBuf]) -> bool {
    groups.iter().any(|group| {
        ["memory.oom_control", "memory.events"].iter().any(|file| {
            let text = std::fs::read_to_string(group.join(file)).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
        })
    })
}

/// Removes groups whose processes have ended, and the agent's group above them once it is empty.
pub async fn remove(groups: &[PathBuf]) {
    for group in groups {
        for attempt in 0.. {
            match std::fs::remove_dir(group) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                // The last thread may still be on its way out.
                Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) && attempt < 50 => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => {
                    tracing::warn!(group = %group.display(), %error, "a control group could not be removed");
                    break;
                }
            }
        }
        if let Some(parent) = group.parent() {
            // Fails while other guests are in it, as it should.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_types::agent::DeviceModel;

    const V1: &str = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn version_1_is_taken_below_the_agents_own_group() {
        let Hierarchy::V1(found) = Hierarchy::parse(V1, "2:cpu,cpuacct:/\n3:memory:/box/a\n0::/") else { panic!() };
        assert_eq!(found["cpu"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found["memory"], Path::new("/sys/fs/cgroup/memory/box/a"));
        assert!(!found.contains_key("pids"));
    }

    #[test]
    fn in_a_container_the_mounts_root_is_left_out_of_the_path() {
        let mounts = "\
31 30 0:27 /docker/x /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu
32 30 0:28 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        let Hierarchy::V1(found) = Hierarchy::parse(mounts, "2:cpu:/docker/x\n3:memory:/docker/x/y") else { panic!() };
        assert_eq!(found["cpu"], Path::new("/sys/fs/cgroup/cpu"));
        assert_eq!(found["memory"], Path::new("/sys/fs/cgroup/memory/y"));
    }

    #[test]
    fn version_2_is_taken_where_it_is_alone() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw";
        assert_eq!(Hierarchy::parse(mounts, "0::/system.slice/a"), Hierarchy::V2("/sys/fs/cgroup".into()));
        assert!(matches!(Hierarchy::parse("", ""), Hierarchy::Missing(_)));
    }

    #[test]
    fn a_guest_gets_its_cores_and_a_limit_is_kept_as_it_is() {
        let mut hardware = HardwareSpec {
            vcpus: 2,
            memory_mib: 512,
            devices: DeviceModel::Virtio,
            cpu_weight: 100,
            cpu_limit_millicores: None,
        };
        assert_eq!(Limits::of(&hardware, 64).cpu_millicores, 2250);
        assert_eq!(Limits::of(&hardware, 64).memory_bytes, (512 + 64 + OVERHEAD_MIB) << 20);
        hardware.cpu_limit_millicores = Some(300);
        assert_eq!(Limits::of(&hardware, 64).cpu_millicores, 300);
    }
}
