//! The body that creates a server, field by field and microversion by microversion.

use crate::ApiError;
use crate::compute::fields::{Fields, refused, required};
use crate::microversion::Microversion;
use arcus_engine::servers::{GuestFile, NetworkOrPort, NetworkWish, Networks, ServerNew, ZoneWish};
use arcus_types::{ImageId, ServerGroupId, ServerId};
use serde_json::{Value, json};

/// The most interfaces that one request asks for.
const NETWORKS_MAX: usize = 16;
/// The most files for a guest that are looked at; the quota says less.
const FILES_MAX: usize = 100;
/// The longest path and contents of one, in characters; the quota says less.
const FILE_CHARS_MAX: usize = 65_535;
const HINTS: [&str; 2] = ["os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"];

/// What is asked for, and whether only the reservation's id is wanted.
pub fn parse(body: &Value, version: Microversion) -> Result<(ServerNew, bool), ApiError> {
    let (server_group_id, scheduler_hints) = hints(body)?;
    let mut fields = Fields::of(body, "server", &HINTS)?;
    let name = fields.parsed("name")?.ok_or_else(|| required("server", "name"))?;
    let flavor_id = flavor(&mut fields)?.ok_or_else(|| required("server", "flavorRef"))?;
    let super::block_devices::Boots { image_id, disks, local_disks } =
        super::block_devices::boots(&mut fields, version)?;
    let (count_min, count_max) = counts(&mut fields)?;
    let networks = networks(&mut fields, version)?;
    let mut zone = zone(&mut fields)?;
    if version.at_least(74) {
        let host = fields.text("host", 1, 255)?;
        let node = fields.text("hypervisor_hostname", 1, 255)?;
        if let Some(name) = host.or(node) {
            if zone.node.is_some() {
                return Err(ApiError::bad_request("A node is named twice: in availability_zone and in host."));
            }
            zone.node = Some(name.to_owned());
        }
    }
    if version.at_least(63) && fields.list("trusted_image_certificates", 50)?.is_some() {
        return Err(ApiError::bad_request(
            "trusted_image_certificates is not available in this cloud: images are not signed.",
        ));
    }
    let files = personality(&mut fields, version)?;
    let new = ServerNew {
        name,
        hostname: if version.at_least(90) { hostname(&mut fields, version)? } else { None },
        description: if version.at_least(19) { fields.text("description", 0, 255)?.map(str::to_owned) } else { None },
        image_id,
        disks,
        local_disks,
        flavor_id,
        networks,
        key_name: fields.text("key_name", 1, 255)?.map(str::to_owned),
        security_groups: groups(&mut fields)?,
        user_data: fields.text("user_data", 0, 65_535)?.map(str::to_owned),
        files,
        metadata: fields.texts("metadata")?.unwrap_or_default(),
        config_drive: fields.boolean("config_drive")?.unwrap_or(false),
        zone,
        count_min,
        count_max,
        admin_password: fields.text("adminPass", 0, 255)?.map(str::to_owned),
        access_ip_v4: fields.address("accessIPv4", false)?.flatten(),
        access_ip_v6: fields.address("accessIPv6", true)?.flatten(),
        disk_config_manual: disk_config(&mut fields)?.unwrap_or(false),
        tags: if version.at_least(52) { tags(&mut fields)? } else { Vec::new() },
        server_group_id,
        scheduler_hints,
    };
    let reservation_only = fields.boolean("return_reservation_id")?.unwrap_or(false);
    fields.end()?;
    if new.hostname.is_some() && count_max > 1 {
        return Err(ApiError::bad_request("A hostname can only be given to one server."));
    }
    Ok((new, reservation_only))
}

/// The flavor's id, also written as a number.
pub fn flavor(fields: &mut Fields<'_>) -> Result<Option<arcus_types::flavors::FlavorId>, ApiError> {
    let text = match fields.raw("flavorRef") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(n)) => n.to_string(),
        Some(other @ (Value::Bool(_) | Value::Array(_) | Value::Object(_))) => {
            return Err(refused("flavorRef", other, "It is neither a string nor a number."));
        }
    };
    // Old clients send the flavor's address.
    let id = text.rsplit('/').next().unwrap_or(&text);
    id.parse().map(Some).map_err(|_| refused("flavorRef", &json!(text), "It is not a flavor's id."))
}

/// An image's id, or the address of an image that old clients send.
pub fn image(value: &str) -> Result<ImageId, ApiError> {
    let id = value.rsplit('/').next().unwrap_or(value);
    id.parse().map_err(|_| refused("imageRef", &json!(value), "It is not a UUID."))
}

fn counts(fields: &mut Fields<'_>) -> Result<(u32, u32), ApiError> {
    let least = fields.integer("min_count", 1, i64::from(i32::MAX))?;
    let most = fields.integer("max_count", 1, i64::from(i32::MAX))?;
    let number = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    let min = number(least.unwrap_or(1));
    let max = number(most.or(least).unwrap_or(1));
    if min > max {
        return Err(ApiError::bad_request("min_count must be <= max_count"));
    }
    Ok((min, max))
}

fn networks(fields: &mut Fields<'_>, version: Microversion) -> Result<Networks, ApiError> {
    let list = match fields.raw("networks") {
        None | Some(Value::Null) if version.at_least(37) => return Err(required("server", "networks")),
        None | Some(Value::Null) => return Ok(Networks::Implicit),
        Some(Value::String(text)) if version.at_least(37) && text == "auto" => return Ok(Networks::Auto),
        Some(Value::String(text)) if version.at_least(37) && text == "none" => return Ok(Networks::None),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(refused("networks", other, "It is not an array.")),
    };
    if list.is_empty() {
        return Ok(if version.at_least(37) { Networks::Auto } else { Networks::Implicit });
    }
    if list.len() > NETWORKS_MAX {
        return Err(ApiError::bad_request(format!("A server has at most {NETWORKS_MAX} interfaces.")));
    }
    let wishes: Vec<NetworkWish> = list.iter().map(|item| network(item, version)).collect::<Result<_, _>>()?;
    for (i, wish) in wishes.iter().enumerate() {
        if let NetworkOrPort::Port(port) = wish.what
            && wishes[..i].iter().any(|w| w.what == wish.what)
        {
            return Err(ApiError::bad_request(format!("Port ID {port} is named twice in networks.")));
        }
    }
    Ok(Networks::These(wishes))
}

fn network(item: &Value, version: Microversion) -> Result<NetworkWish, ApiError> {
    let mut one = Fields::object(item, "networks")?;
    let network = one.parsed("uuid")?;
    let port = one.parsed("port")?;
    let fixed_ip = one.parsed("fixed_ip")?;
    // From 2.37 to 2.41 there were no tags, by an oversight that is part of these versions.
    let tagged = version.at_least(42) || (version.at_least(32) && !version.at_least(37));
    let tag = if tagged { one.text("tag", 1, 60)? } else { None };
    one.end()?;
    let what = match (port, network) {
        (Some(port), _) => NetworkOrPort::Port(port),
        (None, Some(network)) => NetworkOrPort::Network(network),
        (None, None) => return Err(ApiError::bad_request("Each of networks needs a uuid or a port.")),
    };
    if port.is_some() && fixed_ip.is_some() {
        return Err(ApiError::bad_request("Specified Fixed IP cannot be used with port: the port has its own."));
    }
    Ok(NetworkWish { what, fixed_ip, tag: tag.map(str::to_owned) })
}

/// `zone`, `zone:node` or `:node`.
fn zone(fields: &mut Fields<'_>) -> Result<ZoneWish, ApiError> {
    let Some(text) = fields.text("availability_zone", 1, 255)? else { return Ok(ZoneWish::default()) };
    let parts: Vec<&str> = text.split(':').collect();
    let part = |i: usize| parts.get(i).filter(|p| !p.is_empty()).map(|p| (*p).to_owned());
    match parts.len() {
        1 => Ok(ZoneWish { zone: part(0), node: None }),
        2 => Ok(ZoneWish { zone: part(0), node: part(1) }),
        3 => Ok(ZoneWish { zone: part(0), node: part(1).or_else(|| part(2)) }),
        _ => Err(ApiError::bad_request("Unable to parse availability_zone: use zone or zone:node.")),
    }
}

fn groups(fields: &mut Fields<'_>) -> Result<Option<Vec<String>>, ApiError> {
    let Some(list) = fields.list("security_groups", 100)? else { return Ok(None) };
    if list.is_empty() {
        return Ok(None);
    }
    let name = |item: &Value| {
        let mut group = Fields::object(item, "security_groups")?;
        let name = group.text("name", 1, 255)?.unwrap_or("default").to_owned();
        group.end()?;
        Ok(name)
    };
    list.iter().map(name).collect::<Result<_, ApiError>>().map(Some)
}

fn tags(fields: &mut Fields<'_>) -> Result<Vec<String>, ApiError> {
    let list = fields.list("tags", arcus_engine::servers::TAGS_MAX)?.unwrap_or_default();
    let text = |v: &Value| v.as_str().map(str::to_owned).ok_or_else(|| refused("tags", v, "It is not a string."));
    let mut tags: Vec<String> = list.iter().map(text).collect::<Result<_, _>>()?;
    let all = tags.len();
    tags.sort();
    tags.dedup();
    if tags.len() == all {
        Ok(tags)
    } else {
        Err(ApiError::bad_request("Invalid input for tags: a tag is there twice."))
    }
}

/// `AUTO` or `MANUAL`.
pub fn disk_config(fields: &mut Fields<'_>) -> Result<Option<bool>, ApiError> {
    match fields.text("OS-DCF:diskConfig", 0, 16)? {
        None => Ok(None),
        Some("AUTO") => Ok(Some(false)),
        Some("MANUAL") => Ok(Some(true)),
        Some(other) => Err(refused("OS-DCF:diskConfig", &json!(other), "It is neither 'AUTO' nor 'MANUAL'.")),
    }
}

/// A host name: labels of letters, digits and dashes; from 2.94 on with dots between them.
pub fn hostname(fields: &mut Fields<'_>, version: Microversion) -> Result<Option<String>, ApiError> {
    let max = if version.at_least(94) { 255 } else { 63 };
    let Some(text) = fields.text("hostname", 2, max)? else { return Ok(None) };
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let fits = if version.at_least(94) { text.split('.').all(label) } else { label(text) };
    if fits { Ok(Some(text.to_owned())) } else { Err(refused("hostname", &json!(text), "It is not a host name.")) }
}

/// The hints beside the server, and the server group among them.
fn hints(body: &Value) -> Result<(Option<ServerGroupId>, Value), ApiError> {
    let Some(hints) = HINTS.iter().find_map(|key| body.get(key)) else { return Ok((None, Value::Null)) };
    let map = hints.as_object().ok_or_else(|| refused("scheduler_hints", hints, "It is not an object."))?;
    let group = match map.get("group") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let id = value.as_str().and_then(|text| text.parse().ok());
            Some(id.ok_or_else(|| refused("group", value, "It is not a UUID."))?)
        }
    };
    for hint in ["same_host", "different_host"] {
        let ids = match map.get(hint) {
            None => continue,
            Some(Value::Array(ids)) if ids.len() <= HINT_SERVERS_MAX => ids.as_slice(),
            Some(id) => std::slice::from_ref(id),
        };
        let is_id = |id: &Value| id.as_str().is_some_and(|text| text.parse::<ServerId>().is_ok());
        if let Some(other) = ids.iter().find(|id| !is_id(id)) {
            return Err(refused(hint, other, "It is not a server's UUID."));
        }
    }
    let unknown = map.keys().find(|k| !KNOWN_HINTS.contains(&k.as_str()));
    if let Some(hint) = unknown {
        let hint: String = hint.chars().take(64).collect();
        return Err(ApiError::bad_request(format!("The scheduler hint '{hint}' is not available in this cloud.")));
    }
    Ok((group, hints.clone()))
}

const KNOWN_HINTS: [&str; 3] = ["group", "same_host", "different_host"];
/// The most servers that one hint names.
const HINT_SERVERS_MAX: usize = 100;

/// Files for the guest, until 2.56.
pub fn personality(fields: &mut Fields<'_>, version: Microversion) -> Result<Vec<GuestFile>, ApiError> {
    if version.at_least(57) {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for item in fields.list("personality", FILES_MAX)?.unwrap_or_default() {
        let mut file = Fields::object(item, "personality")?;
        let path = file.text_required("path", 0, FILE_CHARS_MAX)?.to_owned();
        let contents_base64 = file.text_required("contents", 0, FILE_CHARS_MAX)?.to_owned();
        file.end()?;
        files.push(GuestFile { path, contents_base64 });
    }
    Ok(files)
}
