//! What an owner may change on an image: pure decisions.

use super::{MINIMUM_MAX, PROPERTIES_MAX, PROPERTY_BYTES_MAX, TAGS_MAX, WORD_CHARS_MAX};
use crate::EngineError;
use arcus_store::Image;
use arcus_types::agent::DiskFormat;
use arcus_types::images::{ContainerFormat, ImageStatus, Visibility};
use arcus_types::{Name, ProjectId};
use std::collections::BTreeSet;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageChange {
    /// Its name.
    Name(Option<Name>),
    /// Who sees it.
    Visibility(Visibility),
    /// Whether deletion is refused.
    Protected(bool),
    /// Whether lists leave it out.
    Hidden(bool),
    /// How its bytes will be laid out; only while they are awaited.
    DiskFormat(Option<DiskFormat>),
    /// What will surround them; only while they are awaited.
    ContainerFormat(Option<ContainerFormat>),
    /// The smallest disk that it may boot from, in GiB.
    MinDiskGib(u64),
    /// The least memory that it may boot with, in MiB.
    MinRamMib(u64),
    /// Whose it is.
    Owner(ProjectId),
    /// All its tags.
    Tags(BTreeSet<String>),
    /// A property, there before or not.
    PropertySet(String, String),
    /// A property that must not be there yet.
    PropertyAdd(String, String),
    /// A property that must be there.
    PropertyReplace(String, String),
    /// A property that must be there, gone.
    PropertyRemove(String),
}

impl ImageChange {
    /// What it changes, for the audit log.
    pub fn subject(&self) -> &str {
        match self {
            Self::Name(_) => "name",
            Self::Visibility(_) => "visibility",
            Self::Protected(_) => "protected",
            Self::Hidden(_) => "os_hidden",
            Self::DiskFormat(_) => "disk_format",
            Self::ContainerFormat(_) => "container_format",
            Self::MinDiskGib(_) => "min_disk",
            Self::MinRamMib(_) => "min_ram",
            Self::Owner(_) => "owner",
            Self::Tags(_) => "tags",
            Self::PropertySet(name, _)
            | Self::PropertyAdd(name, _)
            | Self::PropertyReplace(name, _)
            | Self::PropertyRemove(name) => name,
        }
    }
}

/// Makes one change.
pub(super) fn apply(image: &mut Image, change: &ImageChange) -> Result<(), EngineError> {
    match change {
        ImageChange::Name(name) => image.name.clone_from(name),
        ImageChange::Visibility(visibility) => image.visibility = *visibility,
        ImageChange::Protected(protected) => image.protected = *protected,
        ImageChange::Hidden(hidden) => image.hidden = *hidden,
        ImageChange::DiskFormat(format) => {
            while_queued(image, "disk_format", image.disk_format == *format)?;
            image.disk_format = *format;
        }
        ImageChange::ContainerFormat(format) => {
            while_queued(image, "container_format", image.container_format == *format)?;
            image.container_format = *format;
        }
        ImageChange::MinDiskGib(gib) => image.min_disk_gib = *gib,
        ImageChange::MinRamMib(mib) => image.min_ram_mib = *mib,
        ImageChange::Owner(project_id) => image.project_id = *project_id,
        ImageChange::Tags(tags) => image.tags.clone_from(tags),
        ImageChange::PropertySet(name, value) => {
            image.properties.insert(name.clone(), value.clone());
        }
        ImageChange::PropertyAdd(name, value) => {
            if image.properties.insert(name.clone(), value.clone()).is_some() {
                return Err(EngineError::conflict(format!("Property {name} already present.")));
            }
        }
        ImageChange::PropertyReplace(name, value) => match image.properties.get_mut(name) {
            Some(old) => old.clone_from(value),
            None => return Err(EngineError::conflict(format!("Property {name} does not exist."))),
        },
        ImageChange::PropertyRemove(name) => {
            if image.properties.remove(name).is_none() {
                return Err(EngineError::conflict(format!("Property {name} does not exist.")));
            }
        }
    }
    Ok(())
}

fn while_queued(image: &Image, what: &str, unchanged: bool) -> Result<(), EngineError> {
    if image.status == ImageStatus::Queued && image.snapshot_node_id.is_none() || unchanged {
        return Ok(());
    }
    Err(EngineError::Forbidden(format!("Attribute {what} can be only replaced for a queued image.")))
}

/// Whether an image keeps to the limits.
pub(super) fn check(image: &Image) -> Result<(), EngineError> {
    if image.tags.len() > TAGS_MAX {
        return Err(EngineError::TooLarge(format!("An image has at most {TAGS_MAX} tags.")));
    }
    if image.properties.len() > PROPERTIES_MAX {
        return Err(EngineError::TooLarge(format!("An image has at most {PROPERTIES_MAX} properties.")));
    }
    for word in image.tags.iter().chain(image.properties.keys()) {
        if word.is_empty() || word.chars().count() > WORD_CHARS_MAX || word.contains('\0') {
            let message = format!("A tag or property's name has 1 to {WORD_CHARS_MAX} characters.");
            return Err(EngineError::invalid(message));
        }
    }
    if image.properties.values().any(|value| value.len() > PROPERTY_BYTES_MAX || value.contains('\0')) {
        let message = format!("A property's value has at most {PROPERTY_BYTES_MAX} bytes and no NUL character.");
        return Err(EngineError::invalid(message));
    }
    if image.min_disk_gib > MINIMUM_MAX || image.min_ram_mib > MINIMUM_MAX {
        return Err(EngineError::invalid(format!("min_disk and min_ram are at most {MINIMUM_MAX}.")));
    }
    Ok(())
}
