//! What an operator may say about passwords and tokens.

use arcus_identity::{Endpoint, IdentityConfig};
use clap::Args;

/// Rules for users' passwords, and how long tokens live. Each can be given by its variable too.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Passwords and tokens")]
pub struct PasswordOptions {
    /// How long a token lives, in seconds; at most a day.
    #[arg(long, env = "ARCUS_TOKEN_LIFE_S", default_value_t = 3600, value_parser = clap::value_parser!(i64).range(1..=86_400))]
    pub token_life_s: i64,
    /// Users may not choose any of so many last passwords again, the present one included; 0: any.
    #[arg(long, env = "ARCUS_PASSWORD_HISTORY", default_value_t = 2)]
    pub password_history: u8,
    /// After so many wrong passwords in a row a user is locked for a while; 0: never.
    #[arg(long, env = "ARCUS_LOCKOUT_FAILURES", default_value_t = 10)]
    pub lockout_failures: u32,
    /// For how long, in seconds.
    #[arg(long, env = "ARCUS_LOCKOUT_S", default_value_t = 60)]
    pub lockout_s: u32,
    /// A password is good for so many days; 0: for ever.
    #[arg(long, env = "ARCUS_PASSWORD_EXPIRES_DAYS", default_value_t = 0)]
    pub password_expires_days: u16,
    /// Users may not change a password that is younger than so many days; 0: at any time.
    #[arg(long, env = "ARCUS_PASSWORD_MINIMUM_AGE_DAYS", default_value_t = 0)]
    pub password_minimum_age_days: u16,
    /// New passwords must match this regular expression, such as `^(?:.*\d.*).{8,}$`.
    #[arg(long, env = "ARCUS_PASSWORD_REGEX", requires = "password_regex_description")]
    pub password_regex: Option<String>,
    /// The same in words, for who is refused.
    #[arg(long, env = "ARCUS_PASSWORD_REGEX_DESCRIPTION")]
    pub password_regex_description: Option<String>,
}

impl PasswordOptions {
    /// The same as arguments of a command.
    pub fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("token-life-s", self.token_life_s),
            ("password-history", i64::from(self.password_history)),
            ("lockout-failures", i64::from(self.lockout_failures)),
            ("lockout-s", i64::from(self.lockout_s)),
            ("password-expires-days", i64::from(self.password_expires_days)),
            ("password-minimum-age-days", i64::from(self.password_minimum_age_days)),
        ];
        let texts = [
            ("password-regex", &self.password_regex),
            ("password-regex-description", &self.password_regex_description),
        ];
        let numbers = numbers.into_iter().map(|(name, number)| format!("--{name}={number}"));
        let texts = texts.into_iter().filter_map(|(name, text)| Some(format!("--{name}={}", text.as_ref()?)));
        numbers.chain(texts).collect()
    }

    /// The settings of a cloud at this endpoint.
    pub fn config(&self, endpoint: Endpoint) -> IdentityConfig {
        IdentityConfig {
            token_ttl_s: self.token_life_s,
            password_history: usize::from(self.password_history),
            lockout_failures: u64::from(self.lockout_failures),
            lockout_s: i64::from(self.lockout_s),
            password_expires_days: i64::from(self.password_expires_days),
            password_minimum_age_days: i64::from(self.password_minimum_age_days),
            password_pattern: self.password_regex.clone(),
            password_pattern_text: self.password_regex_description.clone().unwrap_or_default(),
            ..IdentityConfig::new(endpoint)
        }
    }
}
