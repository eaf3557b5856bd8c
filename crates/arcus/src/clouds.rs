//! `clouds.yaml`: how clients find this cloud and log in. It holds passwords, so only root reads it.

use crate::home::Home;
use anyhow::Result;

/// The region that the catalogue names.
pub const REGION: &str = "RegionOne";

/// What the two entries log in with.
pub struct Logins {
    /// The system administrator's password.
    pub admin_password: String,
    /// The project member's password.
    pub demo_password: String,
}

/// Writes the file.
pub fn write(home: &Home, url: &str, logins: &Logins) -> Result<()> {
    home.write_private("clouds.yaml", &text(url, &home.join("ca/ca.pem").display().to_string(), logins))
}

fn text(url: &str, ca: &str, logins: &Logins) -> String {
    let entry = |name: &str, user: &str, password: &str, project: &str| {
        format!(
            "  {name}:\n    auth_type: password\n    auth:\n      auth_url: {url}/identity/v3\n      username: {user}\n      \
             password: {password}\n      project_name: {project}\n      user_domain_name: Default\n      \
             project_domain_name: Default\n    region_name: {REGION}\n    interface: public\n    identity_api_version: 3\n    \
             cacert: {ca}\n"
        )
    };
    format!(
        "# Written by `arcus up`. It holds passwords: keep it to yourself.\nclouds:\n{}{}",
        entry("arcus", "demo", &logins.demo_password, "demo"),
        entry("arcus-admin", "admin", &logins.admin_password, "admin")
    )
}

/// The passwords in a file that an earlier run wrote.
pub fn read(home: &Home) -> Option<Logins> {
    let text = std::fs::read_to_string(home.join("clouds.yaml")).ok()?;
    let mut passwords = text.lines().filter_map(|line| line.trim().strip_prefix("password: ").map(str::to_owned));
    let demo_password = passwords.next()?;
    let admin_password = passwords.next()?;
    Some(Logins { admin_password, demo_password })
}
