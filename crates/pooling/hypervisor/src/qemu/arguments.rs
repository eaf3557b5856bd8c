//! QEMU's command line, made of a record by pure functions.
//!
//! Every device has a name and a fixed address, so that the machine stays the same over restarts, hot plugs of other
//! devices, moves between nodes and releases of QEMU. Values that contain text from outside go in as JSON, which needs no
//! escaping of commas.
//!
//! ```text
//! pcie.0  01 VGA     03..0a disks (virtio-blk)     0b guest agent   0c entropy   0d balloon   0e USB (emulated model)
//!         10.0 .. 13.7  root ports nic0 .. nic31: one virtio-net each, hot-pluggable
//!         10 .. 17      e1000 (emulated model), not hot-pluggable
//!         1f.2 AHCI: disks of the emulated model, CDs of both
//! ```

use super::record::{NicRecord, Record};
use crate::DiskAttachment;
use arcus_types::agent::{DeviceModel, DiskFormat};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::os::fd::RawFd;

/// Disks of the virtio model, CDs apart.
const VIRTIO_DISKS_MAX: usize = 8;
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

/// Why no machine can be made of this record, if so.
pub fn refuse(record: &Record) -> Option<String> {
    let cds = record.disks.iter().filter(|disk| disk.format == DiskFormat::Iso).count();
    let writable = record.disks.iter().filter(|disk| !disk.read_only && disk.format != DiskFormat::Iso).count();
    let (nics_max, disks_fit) = match record.hardware.devices {
        DeviceModel::Virtio => (VIRTIO_NICS_MAX, record.disks.len() - cds <= VIRTIO_DISKS_MAX && cds <= AHCI_DISKS_MAX),
        DeviceModel::Emulated => (EMULATED_NICS_MAX, cds + writable <= AHCI_DISKS_MAX),
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
    record.disks.iter().find_map(|disk| match disk.format {
        DiskFormat::Raw | DiskFormat::Qcow2 | DiskFormat::Iso => None,
        DiskFormat::Vmdk | DiskFormat::Vhd => Some(format!("a disk in {:?} must be converted first", disk.format)),
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
    line.add("-machine", format!("{},memory-backend=ram0,vmport=off,smm=off,dump-guest-core=off", record.machine));
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
    // The guest must not run before its record says so.
    line.flag("-S");
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
    for slot in 0..record.nic_slots {
        let (device, function) = (0x10 + slot / 8, slot % 8);
        line.add(
            "-device",
            format!(
                "pcie-root-port,id=nic{slot},bus=pcie.0,addr={device:#x}.{function},multifunction=on,port={slot},chassis={}",
                slot + 1
            ),
        );
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
    let driver = match disk.format {
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Raw | DiskFormat::Iso | DiskFormat::Vmdk | DiskFormat::Vhd => "raw",
    };
    // The page cache is used: it holds an image once for all guests made of it. What the guest flushes is on stable
    // storage before the guest is told so (`no-flush` off: fdatasync).
    line.json(
        "-blockdev",
        &json!({
            "driver": driver,
            "node-name": node,
            "read-only": read_only,
            "discard": "unmap",
            "detect-zeroes": if read_only { "off" } else { "unmap" },
            "cache": { "direct": false, "no-flush": false },
            "file": {
                "driver": "file",
                "filename": disk.path,
                "discard": "unmap",
                "aio": "threads",
            },
        }),
    );
    line.json("-device", &disk_device(record, index, disk, &node, read_only));
}

fn disk_device(record: &Record, index: usize, disk: &DiskAttachment, node: &str, read_only: bool) -> Value {
    let before = &record.disks[..index];
    let is_cd = |disk: &DiskAttachment| disk.format == DiskFormat::Iso;
    let serial: String = disk.serial.chars().take(20).collect();
    let mut device = json!({ "id": format!("{node}-device"), "drive": node, "serial": serial });
    let place = match (record.hardware.devices, is_cd(disk)) {
        (DeviceModel::Virtio, false) => {
            let slot = 3 + before.iter().filter(|disk| !is_cd(disk)).count();
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
    if let (Some(device), Value::Object(place)) = (device.as_object_mut(), place) {
        device.extend(place);
        if let Some(boot_index) = disk.boot_index {
            device.insert("bootindex".to_owned(), json!(boot_index));
        }
    }
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
    use arcus_types::agent::HardwareSpec;
    use arcus_types::ids::{PortId, ServerId};
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
            nics: vec![NicRecord { port: PortId(Uuid::nil()), mac: MacAddr([2; 6]), mtu: 1450, slot: 0 }],
            nic_slots: nic_slots(devices, 1),
            machine: "pc-q35-7.2".into(),
            accel: "tcg".into(),
            cpu_model: "qemu64".into(),
            boot_id: String::new(),
            groups: Vec::new(),
            begun: false,
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
        for part in [r#""addr":"0x3""#, r#""addr":"0x4""#, r#""bus":"ide.0""#, r#""bus":"nic0""#, "fd=14"] {
            assert!(virtio.contains(part), "{part} in {virtio}");
        }
        let emulated = text(&record(DeviceModel::Emulated));
        for part in [r#""ide-hd""#, r#""usb-storage""#, r#""ide-cd""#, r#""bus":"ide.1""#, r#""e1000""#] {
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
    fn a_slot_for_hot_plug_is_always_free_until_all_are_used() {
        assert_eq!(nic_slots(DeviceModel::Virtio, 0), 4);
        assert_eq!(nic_slots(DeviceModel::Virtio, 3), 4);
        assert_eq!(nic_slots(DeviceModel::Virtio, 4), 8);
        assert_eq!(nic_slots(DeviceModel::Virtio, 32), 32);
    }
}
