//! Files that a server is given when it is made: its config drive and its metadata service have them, as the guest's own
//! programs expect it. Until 2.56 of the compute API.

use crate::{Engine, EngineError};
use arcus_store::{Db, QuotaResource};
use arcus_types::{OpCtx, ProjectId};
use base64::Engine as _;

/// A file for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFile {
    /// Where it shall be.
    pub path: String,
    /// What is in it, in base64.
    pub contents_base64: String,
}

fn over(what: &str, cap: u64) -> EngineError {
    EngineError::Forbidden(format!("Personality {what} limit exceeded: it is {cap}."))
}

impl Engine {
    /// The files as they are kept, if they are no more and no larger than the caller may give one server.
    pub(super) async fn files_admitted(
        &self,
        db: &Db,
        ctx: &OpCtx,
        project: ProjectId,
        files: &[GuestFile],
    ) -> Result<Vec<(String, String)>, EngineError> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let cap = |measure| self.measure_cap(db, Some(project), ctx.user_id(), measure);
        let (count, bytes) = (cap(QuotaResource::InjectedFiles).await?, cap(QuotaResource::InjectedFileBytes).await?);
        let path_bytes = cap(QuotaResource::InjectedFilePathBytes).await?;
        let beyond = |n: usize, cap: Option<u64>| cap.filter(|cap| u64::try_from(n).unwrap_or(u64::MAX) > *cap);
        if let Some(cap) = beyond(files.len(), count) {
            return Err(over("file", cap));
        }
        let mut kept = Vec::new();
        for file in files {
            let tight: String = file.contents_base64.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let read = base64::engine::general_purpose::STANDARD.decode(&tight);
            let read = read.map_err(|_| EngineError::invalid("The contents of a personality file are base64."))?;
            if let Some(cap) = beyond(read.len(), bytes) {
                return Err(over("file content", cap));
            }
            if let Some(cap) = beyond(file.path.len(), path_bytes) {
                return Err(over("file path", cap));
            }
            kept.push((file.path.clone(), tight));
        }
        Ok(kept)
    }
}
