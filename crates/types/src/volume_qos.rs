//! QoS specs: limits that a volume type puts on its volumes. What nodes enforce is read from them here.

use crate::agent::DiskQos;
use crate::images::words;
use crate::text::Rejected;
use std::collections::BTreeMap;

/// The most keys of one set of specs.
pub const QOS_KEYS_MAX: usize = 64;

words! {
    /// Who enforces a set of limits.
    QosConsumer, "consumer" {
        /// The node that runs the server.
        FrontEnd = "front-end",
        /// The storage; none that is served does.
        BackEnd = "back-end",
        /// Each of them what it can.
        Both = "both",
    }
}

impl QosConsumer {
    /// Whether nodes enforce it.
    pub const fn by_nodes(self) -> bool {
        match self {
            Self::FrontEnd | Self::Both => true,
            Self::BackEnd => false,
        }
    }
}

/// Where a key's number goes; `None` for keys that mean nothing to nodes.
///
/// Source: the compute service's front-end keys.
fn field<'a>(qos: &'a mut DiskQos, key: &str) -> Option<&'a mut u64> {
    Some(match key {
        "total_iops_sec" => &mut qos.total_iops_sec,
        "read_iops_sec" => &mut qos.read_iops_sec,
        "write_iops_sec" => &mut qos.write_iops_sec,
        "total_bytes_sec" => &mut qos.total_bytes_sec,
        "read_bytes_sec" => &mut qos.read_bytes_sec,
        "write_bytes_sec" => &mut qos.write_bytes_sec,
        "total_iops_sec_max" => &mut qos.total_iops_sec_max,
        "read_iops_sec_max" => &mut qos.read_iops_sec_max,
        "write_iops_sec_max" => &mut qos.write_iops_sec_max,
        "total_bytes_sec_max" => &mut qos.total_bytes_sec_max,
        "read_bytes_sec_max" => &mut qos.read_bytes_sec_max,
        "write_bytes_sec_max" => &mut qos.write_bytes_sec_max,
        "size_iops_sec" => &mut qos.size_iops_sec,
        _ => return None,
    })
}

/// The limits that nodes put on volumes with these specs.
///
/// # Errors
/// A limit that is no natural number, a total together with one of its parts, or a burst without what it bursts from.
pub fn disk_qos(consumer: QosConsumer, specs: &BTreeMap<String, String>) -> Result<DiskQos, Rejected> {
    let mut qos = DiskQos::default();
    if !consumer.by_nodes() {
        return Ok(qos);
    }
    for (key, value) in specs {
        if let Some(place) = field(&mut qos, key) {
            let number = value.parse::<u64>().ok().filter(|n| i64::try_from(*n).is_ok());
            *place = number.ok_or_else(|| Rejected(format!("'{key}' must be a natural number, not '{value}'.")))?;
        }
    }
    let pairs = [
        ("iops_sec", qos.total_iops_sec, qos.read_iops_sec, qos.write_iops_sec),
        ("bytes_sec", qos.total_bytes_sec, qos.read_bytes_sec, qos.write_bytes_sec),
        ("iops_sec_max", qos.total_iops_sec_max, qos.read_iops_sec_max, qos.write_iops_sec_max),
        ("bytes_sec_max", qos.total_bytes_sec_max, qos.read_bytes_sec_max, qos.write_bytes_sec_max),
    ];
    for (what, total, read, write) in pairs {
        if total > 0 && (read > 0 || write > 0) {
            return Err(Rejected(format!("'total_{what}' excludes 'read_{what}' and 'write_{what}'.")));
        }
    }
    let bursts = [
        ("total_iops_sec", qos.total_iops_sec, qos.total_iops_sec_max),
        ("read_iops_sec", qos.read_iops_sec, qos.read_iops_sec_max),
        ("write_iops_sec", qos.write_iops_sec, qos.write_iops_sec_max),
        ("total_bytes_sec", qos.total_bytes_sec, qos.total_bytes_sec_max),
        ("read_bytes_sec", qos.read_bytes_sec, qos.read_bytes_sec_max),
        ("write_bytes_sec", qos.write_bytes_sec, qos.write_bytes_sec_max),
    ];
    for (what, usual, most) in bursts {
        if most > 0 && (usual == 0 || most < usual) {
            return Err(Rejected(format!("'{what}_max' must be at least '{what}', which must be there too.")));
        }
    }
    Ok(qos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn only_nodes_limits_are_read_and_only_by_nodes() {
        let both = specs(&[("read_iops_sec", "200"), ("iops_bytes", "many")]);
        assert_eq!(disk_qos(QosConsumer::FrontEnd, &both).unwrap().read_iops_sec, 200);
        assert_eq!(disk_qos(QosConsumer::Both, &both).unwrap().read_iops_sec, 200);
        assert!(disk_qos(QosConsumer::BackEnd, &both).unwrap().is_unlimited());
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        for bad in [
            &[("read_iops_sec", "fast")][..],
            &[("read_iops_sec", "-1")],
            &[("total_iops_sec", "5"), ("write_iops_sec", "1")],
            &[("total_bytes_sec_max", "5")],
            &[("total_bytes_sec", "5"), ("total_bytes_sec_max", "4")],
        ] {
            assert!(disk_qos(QosConsumer::FrontEnd, &specs(bad)).is_err(), "{bad:?}");
        }
    }
}
