//! Traits and classes of resource: the standard ones, and those that were made up, whose names begin with `CUSTOM_`.

use super::traits::{CLASSES, is_standard, standard};
use crate::{Engine, EngineError};
use arcus_placement::candidates::Group;
use arcus_store::{AuditEntry, ProviderWord};
use arcus_types::OpCtx;
use arcus_types::policy::{Action, Target, authorize, placement as policy};
use serde_json::json;

/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 255;

/// Whether a name is one that may be made up.
fn may_be_made_up(name: &str) -> bool {
    let rest = name.strip_prefix("CUSTOM_").unwrap_or_default();
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    !rest.is_empty() && name.len() <= NAME_CHARS_MAX && rest.chars().all(fits)
}

const fn actions(kind: ProviderWord) -> (Action, Action, &'static str) {
    match kind {
        ProviderWord::Trait => (policy::TRAIT_READ, policy::TRAIT_UPDATE, "trait"),
        ProviderWord::Class => (policy::CLASS_READ, policy::CLASS_UPDATE, "resource class"),
    }
}

impl Engine {
    /// Every trait or class there is.
    ///
    /// # Errors
    /// A refusal.
    pub async fn provider_word_list(&self, ctx: &OpCtx, kind: ProviderWord) -> Result<Vec<String>, EngineError> {
        authorize(ctx, actions(kind).0, &Target::default())?;
        let mut names: Vec<String> = match kind {
            ProviderWord::Trait => standard().collect(),
            ProviderWord::Class => CLASSES.iter().map(|c| (*c).to_owned()).collect(),
        };
        names.extend(self.store().provider_words(kind).await?);
        Ok(names)
    }

    /// Whether there is a trait or class of this name.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if there is not, or a refusal.
    pub async fn provider_word_get(&self, ctx: &OpCtx, kind: ProviderWord, name: &str) -> Result<(), EngineError> {
        authorize(ctx, actions(kind).0, &Target::default())?;
        if self.word_known(kind, name).await? { Ok(()) } else { Err(no_word(kind, name)) }
    }

    async fn word_known(&self, kind: ProviderWord, name: &str) -> Result<bool, EngineError> {
        let standard = match kind {
            ProviderWord::Trait => is_standard(name),
            ProviderWord::Class => CLASSES.contains(&name),
        };
        if standard || !name.starts_with("CUSTOM_") {
            return Ok(standard);
        }
        Ok(self.store().provider_words(kind).await?.iter().any(|known| known == name))
    }

    /// Makes a trait or class up; `false` if it was there already.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a name that may not be made up.
    pub async fn provider_word_create(&self, ctx: &OpCtx, kind: ProviderWord, name: &str) -> Result<bool, EngineError> {
        let (_, action, what) = actions(kind);
        authorize(ctx, action, &Target::default())?;
        if !may_be_made_up(name) {
            return Err(EngineError::invalid(format!(
                "The {what} is invalid. A valid {what} must be no longer than {NAME_CHARS_MAX} characters, start with the prefix \"CUSTOM_\" and use following characters: \"A\"-\"Z\", \"0\"-\"9\" and \"_\""
            )));
        }
        let tx = self.store().begin(ctx).await?;
        if !tx.provider_word_insert(kind, name).await? {
            return Ok(false);
        }
        let detail = json!({});
        tx.audit(AuditEntry { action, kind: what, id: name.to_owned(), project_id: None, detail: &detail }).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Forgets a trait or class that was made up.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] for a standard one, [`EngineError::Conflict`] for one in use.
    pub async fn provider_word_delete(&self, ctx: &OpCtx, kind: ProviderWord, name: &str) -> Result<(), EngineError> {
        let (_, action, what) = actions(kind);
        authorize(ctx, action, &Target::default())?;
        if !self.word_known(kind, name).await? {
            return Err(no_word(kind, name));
        }
        if !may_be_made_up(name) {
            return Err(EngineError::invalid(format!("Cannot delete standard {what} {name}.")));
        }
        let tx = self.store().begin(ctx).await?;
        if tx.provider_word_used(kind, name).await? {
            return Err(EngineError::conflict(format!("The {what} {name} is in use by a resource provider.")));
        }
        tx.provider_word_delete(kind, name).await?;
        let detail = json!({});
        tx.audit(AuditEntry { action, kind: what, id: name.to_owned(), project_id: None, detail: &detail }).await?;
        Ok(tx.commit().await?)
    }

    /// Gives a class that was made up another name: until 1.6.
    ///
    /// # Errors
    /// As making one up and forgetting the other.
    pub async fn resource_class_rename(&self, ctx: &OpCtx, name: &str, new: &str) -> Result<(), EngineError> {
        authorize(ctx, policy::CLASS_UPDATE, &Target::default())?;
        if !self.word_known(ProviderWord::Class, name).await? {
            return Err(no_word(ProviderWord::Class, name));
        }
        if !may_be_made_up(name) {
            return Err(EngineError::invalid(format!("Cannot update standard resource class {name}.")));
        }
        if !self.provider_word_create(ctx, ProviderWord::Class, new).await? {
            return Err(EngineError::conflict(format!("Resource class already exists: {new}")));
        }
        self.provider_word_delete(ctx, ProviderWord::Class, name).await
    }

    /// Refuses a class that there is not.
    pub(super) async fn class_checked(&self, class: &str) -> Result<(), EngineError> {
        if self.word_known(ProviderWord::Class, class).await? {
            return Ok(());
        }
        let shown: String = class.chars().take(NAME_CHARS_MAX).collect();
        Err(EngineError::invalid(format!("No such resource class {shown}.")))
    }

    /// Refuses traits that there are not.
    pub(super) async fn traits_checked<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<(), EngineError> {
        let mut odd: Vec<&str> = names.filter(|name| !is_standard(name)).collect();
        if odd.is_empty() {
            return Ok(());
        }
        let known = self.store().provider_words(ProviderWord::Trait).await?;
        odd.retain(|name| !known.iter().any(|k| k == name));
        if odd.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> = odd.iter().take(10).map(|name| name.chars().take(NAME_CHARS_MAX).collect()).collect();
        Err(EngineError::invalid(format!("No such trait(s): {}.", shown.join(", "))))
    }

    /// Refuses a group that names classes or traits that there are not.
    pub(super) async fn group_checked(&self, group: &Group) -> Result<(), EngineError> {
        for (class, _) in &group.resources {
            if self.class_checked(class).await.is_err() {
                let shown: String = class.chars().take(NAME_CHARS_MAX).collect();
                return Err(EngineError::invalid(format!(
                    "Invalid resource class in resources parameter: No such resource class {shown}."
                )));
            }
        }
        self.traits_checked(group.required.iter().flatten().chain(&group.forbidden).map(String::as_str)).await
    }
}

fn no_word(kind: ProviderWord, name: &str) -> EngineError {
    let kind = match kind {
        ProviderWord::Trait => "Trait",
        ProviderWord::Class => "Resource class",
    };
    EngineError::NotFound { code: "NotFound", kind, id: name.chars().take(NAME_CHARS_MAX).collect() }
}
