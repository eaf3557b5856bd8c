//! The quota of new servers: as many as there is room for, between the least and the most asked for.

use super::Plan;
use crate::{Engine, EngineError};
use arcus_store::{QuotaResource, Tx};

const QUOTAS: [QuotaResource; 3] = [QuotaResource::Instances, QuotaResource::Cores, QuotaResource::RamMib];

/// A quota that would be exceeded.
struct Over {
    name: &'static str,
    wanted: i64,
    used: i64,
    cap: i64,
}

impl Engine {
    /// As many servers as the project's quota admits, between the least and the most asked for.
    pub(super) async fn server_quota_claim(&self, tx: &Tx, plan: &Plan<'_>) -> Result<u32, EngineError> {
        let mut count = plan.new.count_max;
        while count >= plan.new.count_min && count > 0 {
            let wanted = amounts(plan, count);
            let mut claimed = Vec::new();
            for &(resource, amount) in &wanted {
                if !tx.quota_claim(plan.project_id, resource, amount).await? {
                    break;
                }
                claimed.push((resource, amount));
            }
            let whole = claimed.len() == wanted.len();
            let of_user =
                if whole { self.user_quota_over(tx, plan.project_id, plan.user_id, &wanted).await? } else { None };
            if whole && of_user.is_none() {
                return Ok(count);
            }
            for (resource, amount) in claimed {
                tx.quota_release(plan.project_id, resource, amount).await?;
            }
            match of_user {
                Some(over) if count == plan.new.count_min => {
                    let amount = wanted.iter().find(|(resource, _)| *resource == over.resource);
                    return Err(over.refusal(amount.map_or(0, |(_, amount)| *amount)));
                }
                Some(_) => count -= 1,
                None => count = self.quota_room(tx, plan, count).await?,
            }
        }
        Err(self.over_quota(tx, plan).await?)
    }

    /// How many servers the quota has room for, fewer than `tried`.
    async fn quota_room(&self, tx: &Tx, plan: &Plan<'_>, tried: u32) -> Result<u32, EngineError> {
        let quotas = tx.quota_list(plan.project_id, &QUOTAS).await?;
        let mut room = u64::from(tried) - 1;
        for (quota, (_, each)) in quotas.iter().zip(amounts(plan, 1)) {
            if let Ok(cap) = u64::try_from(quota.cap) {
                let free = cap.saturating_sub(u64::try_from(quota.used).unwrap_or(0));
                room = room.min(free.checked_div(each).unwrap_or(room));
            }
        }
        Ok(u32::try_from(room).unwrap_or(0))
    }

    /// The refusal, naming what is over.
    async fn over_quota(&self, tx: &Tx, plan: &Plan<'_>) -> Result<EngineError, EngineError> {
        let quotas = tx.quota_list(plan.project_id, &QUOTAS).await?;
        let mut over = Vec::new();
        for (quota, (_, amount)) in quotas.iter().zip(amounts(plan, plan.new.count_min.max(1))) {
            let amount = i64::try_from(amount).unwrap_or(i64::MAX);
            if quota.cap >= 0 && quota.used.saturating_add(amount) > quota.cap {
                let (name, used, cap) = (quota.resource.name(), quota.used, quota.cap);
                over.push(Over { name, wanted: amount, used, cap });
            }
        }
        if over.is_empty() {
            // Another request gave something back between the claim and this look: try again.
            return Ok(crate::servers::stale());
        }
        let list = |part: fn(&Over) -> String| over.iter().map(part).collect::<Vec<_>>().join(", ");
        let names = list(|o| o.name.to_owned());
        let message = format!(
            "Quota exceeded for {names}: Requested {}, but already used {} of {} {names}",
            list(|o| o.wanted.to_string()),
            list(|o| o.used.to_string()),
            list(|o| o.cap.to_string()),
        );
        Ok(EngineError::OverQuota { code: "TooManyInstances", message })
    }
}

fn amounts(plan: &Plan<'_>, count: u32) -> [(QuotaResource, u64); 3] {
    let count = u64::from(count);
    [
        (QuotaResource::Instances, count),
        (QuotaResource::Cores, u64::from(plan.flavor.vcpus) * count),
        (QuotaResource::RamMib, plan.flavor.memory_mib.saturating_mul(count)),
    ]
}
