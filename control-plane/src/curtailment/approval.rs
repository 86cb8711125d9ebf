//! Who may approve which plan: how large a plan an operator may approve, and above what size it takes two
//! people.
//!
//! - The size of a plan is what it reduces: its target, or all that a preview would stop.
//! - Above the operators' limit an approver, an administrator or an owner has to approve.
//! - Above the limit for two, two different people do; who ordered the plan may be one of them. A program
//!   with an API key is nobody there: its owner could be both.

use super::store::Approval;
use crate::error::{Error, Kind, Result};
use crate::identity::{By, Caller, Role};
use crate::store::Db;
use crate::web::i18n::Message;
use crate::{args, audit};
use hashinsight_protocol::ids::SiteId;
use hashinsight_protocol::units::{Millis, Watts};
use serde::{Deserialize, Serialize};

/// A site's limits; without one, one person who may run plans approves any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalRule {
    /// The largest plan that an operator approves.
    pub operator_up_to: Option<Watts>,
    /// Larger plans take two people.
    pub two_above: Option<Watts>,
}

impl ApprovalRule {
    /// How many people a plan of this size takes.
    pub fn people(&self, size: Watts) -> usize {
        if self.two_above.is_some_and(|limit| size > limit) { 2 } else { 1 }
    }

    /// Whether the plan is approved with this caller's word, given who has approved it before; false when
    /// more people have to.
    ///
    /// # Errors
    /// The caller's word does not count, and why.
    pub fn judge(&self, size: Watts, caller: &Caller, before: &[Approval]) -> Result<bool> {
        if caller.role == Role::Operator && self.operator_up_to.is_some_and(|limit| size > limit) {
            return Err(Error::new(Kind::Forbidden, Message::key("error-approval-size")));
        }
        let people = self.people(size);
        if people > 1 {
            if matches!(caller.by, By::ApiKey) {
                return Err(Error::new(Kind::Forbidden, Message::key("error-approval-program")));
            }
            if before.iter().any(|approval| approval.user == caller.user) {
                return Err(Error::conflict(Message::key("error-approval-twice")));
            }
        }
        Ok(before.len() + 1 >= people)
    }
}

/// A site's limits.
///
/// # Errors
/// The database fails.
pub async fn rule(db: &Db, site: SiteId) -> Result<ApprovalRule> {
    let row: Option<(String,)> =
        db.fetch_optional("select body from site_approval where site_id = $1", args![site]).await?;
    Ok(row.map(|(body,)| serde_json::from_str(&body)).transpose()?.unwrap_or_default())
}

/// Sets a site's limits, for approvals to come.
///
/// # Errors
/// The database fails.
pub async fn set_rule(db: &Db, site: SiteId, rule: ApprovalRule, by: &str, now: Millis) -> Result<()> {
    let body = serde_json::to_string(&rule)?;
    let mut tx = db.begin().await?;
    tx.execute(
        "insert into site_approval (site_id, body) values ($1, $2)
         on conflict (site_id) do update set body = excluded.body",
        args![site, &body],
    )
    .await?;
    audit::record(&mut tx, now, by, "site.approval", &site.to_string(), &body).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::ids::UserId;

    const RULE: ApprovalRule = ApprovalRule { operator_up_to: None, two_above: None };

    fn watts(w: f64) -> Option<Watts> {
        Watts::new(w)
    }

    fn caller(id: u8, role: Role) -> Caller {
        let by = By::Session { id_hash: String::new(), csrf: String::new(), must_change_password: false };
        Caller { user: UserId::from_random([id; 16]), name: format!("u{id}"), role, by }
    }

    fn approved_by(id: u8) -> Vec<Approval> {
        vec![Approval { user: UserId::from_random([id; 16]), who: format!("u{id}"), at: Millis(1) }]
    }

    fn judged(rule: ApprovalRule, size: f64, caller: &Caller, before: &[Approval]) -> Result<bool, Kind> {
        rule.judge(watts(size).unwrap_or_default(), caller, before).map_err(|error| error.kind())
    }

    #[test]
    fn without_limits_one_person_approves() {
        assert_eq!(judged(RULE, 9e9, &caller(1, Role::Operator), &[]), Ok(true));
    }

    #[test]
    fn an_operator_approves_up_to_the_limit_only() {
        let rule = ApprovalRule { operator_up_to: watts(1e6), ..RULE };
        assert_eq!(judged(rule, 1e6, &caller(1, Role::Operator), &[]), Ok(true));
        assert_eq!(judged(rule, 1.1e6, &caller(1, Role::Operator), &[]), Err(Kind::Forbidden));
        for role in [Role::Approver, Role::Admin, Role::Owner] {
            assert_eq!(judged(rule, 1.1e6, &caller(1, role), &[]), Ok(true));
        }
    }

    #[test]
    fn two_people_are_two() {
        let rule = ApprovalRule { two_above: watts(1e6), ..RULE };
        let (one, two) = (caller(1, Role::Operator), caller(2, Role::Approver));
        assert_eq!(judged(rule, 1e6, &one, &[]), Ok(true), "it takes one up to the limit");
        assert_eq!(judged(rule, 2e6, &one, &[]), Ok(false));
        assert_eq!(judged(rule, 2e6, &one, &approved_by(1)), Err(Kind::Conflict));
        assert_eq!(judged(rule, 2e6, &two, &approved_by(1)), Ok(true));
        let program = Caller { by: By::ApiKey, ..two };
        assert_eq!(judged(rule, 2e6, &program, &approved_by(1)), Err(Kind::Forbidden));
        assert_eq!(judged(rule, 1e6, &program, &[]), Ok(true));
    }
}
