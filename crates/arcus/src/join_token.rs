//! `arcus join-token`: asks the running cloud for a token with which machines join it.

use crate::cli::JoinToken;
use crate::daemon::{logins, running_url};
use crate::home::Home;
use crate::session::Session;
use anyhow::{Context as _, Result};
use serde_json::json;

/// Runs the command: the token on a line of its own follows what to do with it.
pub fn join_token(options: JoinToken) -> Result<()> {
    let home = Home::open(&options.home.home, false)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let url = running_url(&home)
            .with_context(|| format!("no cloud runs with the home folder {}", home.path().display()))?;
        let admin = Session::login(&home, &url, "admin", &logins(&home)?.admin_password, "admin").await?;
        let wish = json!({ "join_token": { "uses": options.uses, "lifetime_s": options.minutes.saturating_mul(60) } });
        let made = admin.post("/arcus/v1/join-tokens", wish).await?;
        let token = made["join_token"]["token"].as_str().context("the answer has no token")?;
        println!("arcus agent --join {url} --token {token}");
        Ok(())
    })
}
