//! QEMU's command line, made of a record by pure functions.
//!
//! Every device has a name and a fixed address, so that the machine stays the same over restarts, hot plugs of other
//! devices, moves between nodes and releases of QEMU. Values that contain text from outside go in as JSON, which needs no
//! escaping of commas.
//!
//! ```text
//! pcie.0  01 VGA     03..0a disks (virtio-blk)     0b guest agent   0c entropy   0d balloon   0e USB (emulated model)
//!         10.0 .. 13.7  root ports nic0 .. nic31: one virtio-net each, hot-pluggable
//!         14.0 .. 16.7  root ports volume0 .. volume23: one virtio-blk each, hot-pluggable
//!         10 .. 17      e1000 (emulated model), not hot-pluggable
//!         1f.2 AHCI: disks of the emulated model, CDs of both
//! ```

use super::record::{NicRecord, Record};
use crate::{DiskAttachment, VOLUME_SLOTS_MAX, VolumeAttachment};
use arcus_types::agent::{DeviceModel, DiskFormat, volume_serial};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

/// Disks of the virtio model, CDs apart.
const VIRTIO_DISKS_MAX: usize = 8;
/// Where the first disk of the virtio model is.
const ROOT_DISK_ADDRESS: usize = 3;
/// Disks and CDs on the AHCI controller.
const AHCI_DISKS_MAX: usize = 6;
/// Interfaces of the virtio model.
const VIRTIO_NICS_MAX: usize = 32;
/// Interfaces of the emulated model.
const EMULATED_NICS_MAX: usize = 8;
/// Virtual CPUs; more would need an interrupt remapper in the machine.
const VCPUS_MAX: u32 = 255;
/// Free slots for hot plug come in steps of this many: each slot costs the firmware and the guest some milliseconds.
const NIC_SLOTS_STEP: u32 = 4;
const VOLUME_SLOTS_STEP: u32 = 4;
/// The chassis number of the first slot for volumes: every slot needs one of its own.
const VOLUME_CHASSIS: u32 = 64;

/// Descriptors that QEMU inherits, by number.
#[derive(Debug, Clone)]
pub struct Fds {
    /// Listens on `qmp.sock`.
    pub qmp: RawFd,
    /// Listens on `serial.sock`.
    pub serial: RawFd,
    /// Listens on `agent.sock`.
    pub agent: RawFd,
    /// `console.log`, to append to.
    pub console_log: RawFd,
    /// The taps, in the order of the interfaces.
    pub taps: Vec<RawFd>,
}

/// How many slots for interfaces a machine with this many gets: always at least one free.
pub fn nic_slots(devices: DeviceModel, nics: usize) -> u32 {
    match devices {
        DeviceModel::Virtio => {
            let nics = u32::try_from(nics).unwrap_or(u32::MAX).min(VIRTIO_NICS_MAX as u32);
            ((nics / NIC_SLOTS_STEP + 1) * NIC_SLOTS_STEP).min(VIRTIO_NICS_MAX as u32)
        }
        DeviceModel::Emulated => EMULATED_NICS_MAX as u32,
    }
}

/// How many slots for volumes a machine with these gets: a few are always free, unless it is of the emulated model, which
/// has none.
pub fn volume_slots(devices: DeviceModel, volumes: &[VolumeAttachment]) -> u32 {
    let used = volumes.iter().filter_map(|volume| volume.slot).max().map_or(0, |slot| slot.saturating_add(1));
    match devices {
        DeviceModel::Virtio => (used / VOLUME_SLOTS_STEP + 1).saturating_mul(VOLUME_SLOTS_STEP).min(VOLUME_SLOTS_MAX),
        DeviceModel::Emulated => 0,
    }
}

/// Why no machine can be made of this record, if so.
pub fn refuse(record: &Record) -> Option<String> {
    let cds = record.disks.iter().filter(|disk| disk.format == DiskFormat::Iso).count();
    let writable = record.disks.iter().filter(|disk| !disk.read_only && disk.format != DiskFormat::Iso).count();
    let (nics_max, disks_fit) = match record.hardware.devices {
        DeviceModel::Virtio => (VIRTIO_NICS_MAX, record.disks.len() - cds <= VIRTIO_DISKS_MAX && cds <= AHCI_DISKS_MAX),
        DeviceModel::Emulated => {
            let volumes = record.volumes.iter().filter(|volume| !volume.read_only).count();
            (EMULATED_NICS_MAX, cds + writable + volumes <= AHCI_DISKS_MAX)
        }
    };
    if !(1..=VCPUS_MAX).contains(&record.hardware.vcpus) {
        return Some(format!("{} virtual CPUs, 1 to {VCPUS_MAX} are possible", record.hardware.vcpus));
    }
    if record.hardware.memory_mib < 16 {
        return Some(format!("{} MiB of memory, at least 16 are needed", record.hardware.memory_mib));
    }
    if record.nics.len() > nics_max {
        return Some(format!("{} interfaces, at most {nics_max} are possible", record.nics.len()));
    }
    if !disks_fit {
        return Some(format!("{} disks are too many", record.disks.len()));
    }
    let slots: Vec<Option<u32>> = record.volumes.iter().map(|volume| volume.slot).collect();
    let alone = slots.iter().enumerate().all(|(index, slot)| !slots.iter().take(index).any(|other| other == slot));
    if !alone || slots.iter().flatten().any(|slot| *slot >= VOLUME_SLOTS_MAX) {
        return Some(format!("{} volumes are too many, or two want the same place", record.volumes.len()));
    }
    let formats = record.disks.iter().map(|disk| disk.format).chain(record.volumes.iter().map(|volume| volume.format));
    formats.into_iter().find_map(|format| match format {
        DiskFormat::Raw | DiskFormat::Qcow2 | DiskFormat::Iso => None,
        DiskFormat::Vmdk | DiskFormat::Vhd => Some(format!("a disk in {format:?} must be converted first")),
    })
}

/// The size of the emulator's buffer for translated code, in MiB; 0 under KVM.
///
/// QEMU's own choice is an eighth of the machine's memory, up to 1 GiB for each guest. Half of the guest's memory is far
/// more than the code that it can hold in use at once.
pub fn translation_mib(record: &Record) -> u64 {
    if record.accel == "kvm" { 0 } else { (record.hardware.memory_mib / 2).clamp(64, 512) }
}

/// The whole command line, the program's name apart.
pub fn arguments(record: &Record, fds: &Fds, incoming: bool) -> Vec<OsString> {
    let mut line = Line(Vec::new());
    machine(&mut line, record);
    sockets(&mut line, fds);
    match record.hardware.devices {
        DeviceModel::Virtio => virtio_devices(&mut line, record),
        DeviceModel::Emulated => emulated_devices(&mut line),
    }
    for (index, disk) in record.disks.iter().enumerate() {
        disk_devices(&mut line, record, index, disk);
    }
    for volume in &record.volumes {
        line.json("-blockdev", &volume_node(volume));
        line.json("-device", &volume_device(record, volume));
    }
    for (nic, tap) in record.nics.iter().zip(&fds.taps) {
        // vhost would need /dev/vhost-net, which the guest's user may not open.
        line.add("-netdev", format!("tap,id=net-{},fd={tap},vhost=off", nic.port));
        line.json("-device", &nic_device(record.hardware.devices, nic));
    }
    if incoming {
        line.add("-incoming", "defer");
    }
    line.0
}

struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn add(&mut self, flag: &str, value: impl Into<OsString>) {
        self.flag(flag);
        self.0.push(value.into());
    }

    fn json(&mut self, flag: &str, value: &Value) {
        self.add(flag, value.to_string());
    }
}

fn machine(line: &mut Line, record: &Record) {
    let id = record.server;
    line.flag("-nodefaults");
    line.flag("-no-user-config");
    line.add("-name", format!("guest={id},debug-threads=on"));
    line.add("-uuid", id.to_string());
    // cloud-init and cloudbase-init look for the metadata service if the product has this name.
    line.add(
        "-smbios",
        format!("type=1,manufacturer=Arcus,product=OpenStack Compute,serial={id},uuid={id},family=Server"),
    );
    line.add(
        "-machine",
        format!("{},memory-backend=ram0,vmport=off,smm=off,dump-guest-core=off,suppress-vmdesc=on", record.machine),
    );
    line.add("-accel", accel(record));
    line.add("-cpu", record.cpu_model.clone());
    line.add("-smp", format!("cpus={0},sockets=1,cores={0},threads=1", record.hardware.vcpus));
    line.add("-m", format!("{}M", record.hardware.memory_mib));
    // Private anonymous memory: the kernel may merge equal pages of guests and use huge ones.
    line.add("-object", format!("memory-backend-ram,id=ram0,size={}M", record.hardware.memory_mib));
    line.add("-rtc", "base=utc");
    line.add("-boot", "strict=on");
    // The process stays when the guest powers off, so that an agent that was away learns how it ended.
    line.add("-action", "shutdown=pause,panic=pause,reboot=reset");
    // A guest that puts its machine to sleep could be woken by nobody.
    line.add("-global", "ICH9-LPC.disable_s3=1");
    line.add("-global", "ICH9-LPC.disable_s4=1");
    line.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    line.add("-msg", "timestamp=on");
    line.add("-display", "none");
    // Screens are handed over by descriptor.
    line.add("-vnc", "none");
    // The guest must not run before its record says so; one that comes from another node runs as soon as it is here.
    if record.moving.is_none() {
        line.flag("-S");
    }
}

fn accel(record: &Record) -> String {
    if record.accel == "kvm" {
        "kvm".to_owned()
    } else {
        format!("tcg,thread=multi,tb-size={}", translation_mib(record))
    }
}

fn sockets(line: &mut Line, fds: &Fds) {
    line.add("-chardev", format!("socket,id=qmp0,fd={},server=on,wait=off", fds.qmp));
    line.add("-mon", "chardev=qmp0,mode=control");
    line.add("-add-fd", format!("fd={},set=1,opaque=console", fds.console_log));
    let log = "logfile=/dev/fdset/1,logappend=on";
    line.add("-chardev", format!("socket,id=serial0,fd={},server=on,wait=off,{log}", fds.serial));
    line.add("-device", "isa-serial,id=serial-device0,chardev=serial0,index=0");
    line.add("-chardev", format!("socket,id=agent0,fd={},server=on,wait=off", fds.agent));
    line.add("-device", "VGA,id=vga0,bus=pcie.0,addr=0x1");
}

fn virtio_devices(line: &mut Line, record: &Record) {
    line.add("-device", "virtio-serial-pci,id=virtio-serial0,bus=pcie.0,addr=0xb,max_ports=4");
    line.add(
        "-device",
        "virtserialport,id=agent-port0,bus=virtio-serial0.0,nr=1,chardev=agent0,name=org.qemu.guest_agent.0",
    );
    line.add("-object", "rng-builtin,id=entropy0");
    line.add("-device", "virtio-rng-pci,id=rng0,rng=entropy0,bus=pcie.0,addr=0xc");
    line.add("-device", "virtio-balloon-pci,id=balloon0,bus=pcie.0,addr=0xd,free-page-reporting=on,deflate-on-oom=on");
    root_ports(line, "nic", 0x10, 1, record.nic_slots);
    root_ports(line, "volume", 0x14, VOLUME_CHASSIS, record.volume_slots);
}

/// Slots that a device can be plugged into later, eight of them at each address.
fn root_ports(line: &mut Line, name: &str, first: u32, chassis: u32, count: u32) {
    for slot in 0..count {
        let (device, function, chassis) = (first + slot / 8, slot % 8, chassis + slot);
        let place = format!("bus=pcie.0,addr={device:#x}.{function},multifunction=on");
        line.add("-device", format!("pcie-root-port,id={name}{slot},{place},port={slot},chassis={chassis}"));
    }
}

fn emulated_devices(line: &mut Line) {
    line.add("-device", "qemu-xhci,id=usb0,bus=pcie.0,addr=0xe");
    line.add("-device", "usb-tablet,id=tablet0,bus=usb0.0,port=1");
}

/// The node that a disk's device is on, for block commands.
pub fn disk_node(index: usize) -> String {
    format!("disk{index}")
}

fn disk_devices(line: &mut Line, record: &Record, index: usize, disk: &DiskAttachment) {
    let node = disk_node(index);
    let read_only = disk.read_only || disk.format == DiskFormat::Iso;
    line.json("-blockdev", &block_node(&node, &disk.path, disk.format, read_only, record.lease.is_some()));
    line.json("-device", &disk_device(record, index, disk, &node, read_only));
}

/// The node of a file, for the command line and for hot plug.
///
/// The page cache is used: it holds an image once for all guests made of it. What the guest flushes is on stable storage
/// before the guest is told so (`no-flush` off: fdatasync). A disk in a `shared` folder goes past the page cache: what a
/// dead guest's node still held there would be written over what another node's guest wrote since.
fn block_node(node: &str, path: &Path, format: DiskFormat, read_only: bool, shared: bool) -> Value {
    let driver = match format {
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Raw | DiskFormat::Iso | DiskFormat::Vmdk | DiskFormat::Vhd => "raw",
    };
    json!({
        "driver": driver,
        "node-name": node,
        "read-only": read_only,
        "discard": "unmap",
        "detect-zeroes": if read_only { "off" } else { "unmap" },
        "cache": { "direct": shared && !read_only, "no-flush": false },
        "file": {
            "driver": "file",
            "filename": path,
            "discard": "unmap",
            "aio": "threads",
        },
    })
}

/// The name of a volume's node: QEMU allows 31 characters, which a volume's id is too long for.
pub fn volume_node_name(volume: &VolumeAttachment) -> String {
    volume.slot.map_or_else(|| "volume-root".to_owned(), |slot| format!("volume-node{slot}"))
}

/// The name of a volume's device.
pub fn volume_device_name(volume: &VolumeAttachment) -> String {
    format!("volume-{}", volume.volume)
}

/// The node of a volume, for the command line and for hot plug.
pub fn volume_node(volume: &VolumeAttachment) -> Value {
    block_node(&volume_node_name(volume), &volume.path, volume.format, volume.read_only, false)
}

/// The device of a volume, for the command line and for hot plug.
pub fn volume_device(record: &Record, volume: &VolumeAttachment) -> Value {
    let mut device = json!({
        "id": volume_device_name(volume),
        "drive": volume_node_name(volume),
        "serial": volume_serial(volume.volume),
    });
    let place = match (record.hardware.devices, volume.slot) {
        (DeviceModel::Virtio, Some(slot)) => json!({ "driver": "virtio-blk-pci", "bus": format!("volume{slot}") }),
        (DeviceModel::Virtio, None) => {
            json!({ "driver": "virtio-blk-pci", "bus": "pcie.0", "addr": format!("{ROOT_DISK_ADDRESS:#x}") })
        }
        (DeviceModel::Emulated, _) if volume.read_only => json!({ "driver": "usb-storage", "bus": "usb0.0" }),
        (DeviceModel::Emulated, _) => {
            let disks = record.disks.iter().filter(|disk| disk.format == DiskFormat::Iso || !disk.read_only).count();
            let before = record.volumes.iter().take_while(|other| other.volume != volume.volume);
            let bus = disks + before.filter(|other| !other.read_only).count();
            json!({ "driver": "ide-hd", "bus": format!("ide.{bus}") })
        }
    };
    place_device(&mut device, place, volume.boot_index);
    device
}

fn place_device(device: &mut Value, place: Value, boot_index: Option<u32>) {
    if let (Some(device), Value::Object(place)) = (device.as_object_mut(), place) {
        device.extend(place);
        if let Some(boot_index) = boot_index {
            device.insert("bootindex".to_owned(), json!(boot_index));
        }
    }
}

fn disk_device(record: &Record, index: usize, disk: &DiskAttachment, node: &str, read_only: bool) -> Value {
    let before = &record.disks[..index];
    let is_cd = |disk: &DiskAttachment| disk.format == DiskFormat::Iso;
    let serial: String = disk.serial.chars().take(20).collect();
    let mut device = json!({ "id": format!("{node}-device"), "drive": node, "serial": serial });
    let place = match (record.hardware.devices, is_cd(disk)) {
        (DeviceModel::Virtio, false) => {
            let rootless = usize::from(record.volumes.iter().any(|volume| volume.slot.is_none()));
            let slot = ROOT_DISK_ADDRESS + rootless + before.iter().filter(|disk| !is_cd(disk)).count();
            json!({ "driver": "virtio-blk-pci", "bus": "pcie.0", "addr": format!("{slot:#x}") })
        }
        (DeviceModel::Virtio, true) => {
            json!({ "driver": "ide-cd", "bus": format!("ide.{}", before.iter().filter(|disk| is_cd(disk)).count()) })
        }
        // A hard disk on AHCI cannot be read-only; one on USB can, and every guest has a driver for it.
        (DeviceModel::Emulated, false) if read_only => json!({ "driver": "usb-storage", "bus": "usb0.0" }),
        (DeviceModel::Emulated, cd) => {
            let bus = before.iter().filter(|disk| is_cd(disk) || !disk.read_only).count();
            json!({ "driver": if cd { "ide-cd" } else { "ide-hd" }, "bus": format!("ide.{bus}") })
        }
    };
    place_device(&mut device, place, disk.boot_index);
    device
}

/// The device of an interface, for the command line and for hot plug.
pub fn nic_device(devices: DeviceModel, nic: &NicRecord) -> Value {
    let mut device = json!({
        "id": format!("nic-{}", nic.port),
        "netdev": format!("net-{}", nic.port),
        "mac": nic.mac,
        // No network boot, so no boot ROM to load.
        "romfile": "",
    });
    let place = match devices {
        DeviceModel::Virtio => {
            json!({ "driver": "virtio-net-pci", "bus": format!("nic{}", nic.slot), "host_mtu": nic.mtu })
        }
        DeviceModel::Emulated => {
            json!({ "driver": "e1000", "bus": "pcie.0", "addr": format!("{:#x}", 0x10 + nic.slot) })
        }
    };
    if let (Some(device), Value::Object(place)) = (device.as_object_mut(), place) {
        device.extend(place);
    }
    device
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_types::agent::{DiskQos, HardwareSpec};
    use arcus_types::ids::{PortId, ServerId, VolumeId};
    use arcus_types::text::MacAddr;
    use uuid::Uuid;

    fn record(devices: DeviceModel) -> Record {
        let disk = |path: &str, format, read_only, boot_index| DiskAttachment {
            path: path.into(),
            format,
            read_only,
            boot_index,
            serial: "root".into(),
        };
        Record {
            server: ServerId(Uuid::nil()),
            epoch: 1,
            version: 1,
            hardware: HardwareSpec { vcpus: 2, memory_mib: 512, devices, cpu_weight: 100, cpu_limit_millicores: None },
            uid: 1000,
            disks: vec![
                disk("/s/root,=x.qcow2", DiskFormat::Qcow2, false, Some(1)),
                disk("/s/config", DiskFormat::Raw, true, None),
                disk("/s/cd.iso", DiskFormat::Iso, true, Some(2)),
            ],
            volumes: vec![VolumeAttachment {
                volume: VolumeId(Uuid::nil()),
                slot: Some(5),
                path: "/v/disk.qcow2".into(),
                format: DiskFormat::Qcow2,
                read_only: false,
                boot_index: None,
                qos: DiskQos::default(),
            }],
            volume_slots: 8,
            nics: vec![NicRecord { port: PortId(Uuid::nil()), mac: MacAddr([2; 6]), mtu: 1450, slot: 0 }],
            nic_slots: nic_slots(devices, 1),
            machine: "pc-q35-7.2".into(),
            accel: "tcg".into(),
            cpu_model: "qemu64".into(),
            boot_id: String::new(),
            groups: Vec::new(),
            begun: false,
            movable: true,
            lease: None,
            moving: None,
        }
    }

    fn text(record: &Record) -> String {
        let fds = Fds { qmp: 10, serial: 11, agent: 12, console_log: 13, taps: vec![14] };
        let line = arguments(record, &fds, false);
        line.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_path_with_commas_stays_one_value() {
        let text = text(&record(DeviceModel::Virtio));
        assert!(text.contains(r#""filename":"/s/root,=x.qcow2""#), "{text}");
    }

    #[test]
    fn both_models_place_every_disk_and_never_write_to_a_read_only_one() {
        let virtio = text(&record(DeviceModel::Virtio));
        let volume = [r#""serial":"00000000-0000-0000-0""#, r#""bus":"volume5""#, "id=volume7,bus=pcie.0,addr=0x14.7"];
        let others = [r#""addr":"0x3""#, r#""addr":"0x4""#, r#""bus":"ide.0""#, r#""bus":"nic0""#, "fd=14"];
        for part in volume.into_iter().chain(others) {
            assert!(virtio.contains(part), "{part} in {virtio}");
        }
        let emulated = text(&record(DeviceModel::Emulated));
        for part in
            [r#""ide-hd""#, r#""usb-storage""#, r#""ide-cd""#, r#""bus":"ide.1""#, r#""bus":"ide.2""#, r#""e1000""#]
        {
            assert!(emulated.contains(part), "{part} in {emulated}");
        }
        assert!(!emulated.contains("virtio"), "{emulated}");
    }

    #[test]
    fn impossible_machines_are_refused_in_words() {
        let mut none = record(DeviceModel::Virtio);
        none.hardware.vcpus = 0;
        assert!(refuse(&none).unwrap().contains("virtual CPUs"));
        let mut foreign = record(DeviceModel::Virtio);
        foreign.disks[0].format = DiskFormat::Vmdk;
        assert!(refuse(&foreign).unwrap().contains("converted"));
        assert_eq!(refuse(&record(DeviceModel::Emulated)), None);
    }

    #[test]
    fn a_machine_that_boots_from_a_volume_has_it_where_the_root_disk_would_be() {
        let mut rootless = record(DeviceModel::Virtio);
        rootless.disks.remove(0);
        rootless.volumes[0].slot = None;
        rootless.volumes[0].boot_index = Some(1);
        let device = volume_device(&rootless, &rootless.volumes[0]);
        assert_eq!((&device["addr"], &device["bootindex"]), (&json!("0x3"), &json!(1)));
        let text = text(&rootless);
        assert!(text.contains(r#""addr":"0x4""#) && text.matches(r#""addr":"0x3""#).count() == 1, "{text}");
        rootless.volumes.push(rootless.volumes[0].clone());
        assert!(refuse(&rootless).unwrap().contains("same place"));
    }

    #[test]
    fn a_slot_for_hot_plug_is_always_free_until_all_are_used() {
        assert_eq!(nic_slots(DeviceModel::Virtio, 0), 4);
        assert_eq!(nic_slots(DeviceModel::Virtio, 3), 4);
        assert_eq!(nic_slots(DeviceModel::Virtio, 4), 8);
        assert_eq!(nic_slots(DeviceModel::Virtio, 32), 32);
        let mut volumes = record(DeviceModel::Virtio).volumes;
        assert_eq!(volume_slots(DeviceModel::Virtio, &[]), 4);
        assert_eq!(volume_slots(DeviceModel::Virtio, &volumes), 8);
        volumes[0].slot = Some(23);
        assert_eq!(volume_slots(DeviceModel::Virtio, &volumes), 24);
        assert_eq!(volume_slots(DeviceModel::Emulated, &volumes), 0);
    }
}
