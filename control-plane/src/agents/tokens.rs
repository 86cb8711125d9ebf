//! One-time enrolment tokens.
//!
//! A token opens one enrolment at one site within its time: of a new agent, or of one whose gateway was
//! replaced, which keeps its id, its miners and its plans, and whose old gateway is shut out by it. Its secret has 256 bits and is stored as
//! its SHA-256; it is spent by one conditional update in the transaction that makes the agent, so that
//! of two that come with it at the same moment one is refused. Failed tries are counted for each
//! address, in memory: what a guesser gains by a restart is [`FAILURES`] more tries at 256 bits.

use super::ca::Authority;
use crate::error::{Error, Kind, Result};
use crate::random::{bytes, sha256_hex};
use crate::store::{Db, Tx};
use crate::{args, audit};
use hashinsight_protocol::enrolment::EnrolmentToken;
use hashinsight_protocol::ids::{AgentId, SiteId};
use hashinsight_protocol::units::{DurationMs, Millis};
use std::collections::HashMap;
use std::net::IpAddr;

/// No token lives longer.
pub const LONGEST: DurationMs = DurationMs::from_minutes(30 * 24 * 60);
/// Failed tries of one address within [`WINDOW`].
pub const FAILURES: u32 = 10;
pub const WINDOW: DurationMs = DurationMs::from_minutes(10);
/// Addresses remembered; beyond it the oldest are forgotten.
const ADDRESSES: usize = 4096;

/// Makes a token. It is shown once; nobody can read it again.
///
/// # Errors
/// There is no such site, the time is not between a minute and 30 days, or the database fails.
pub async fn create(
    db: &Db,
    authority: &Authority,
    site: SiteId,
    by: &str,
    valid: DurationMs,
    now: Millis,
) -> Result<EnrolmentToken> {
    make(db, authority, site, None, by, valid, now).await
}

/// Makes a token that puts a new gateway in the place of an agent's old one.
///
/// # Errors
/// As [`create`]; there is no such agent.
pub async fn create_for(
    db: &Db,
    authority: &Authority,
    agent: AgentId,
    by: &str,
    valid: DurationMs,
    now: Millis,
) -> Result<EnrolmentToken> {
    let site: Option<(SiteId,)> =
        db.fetch_optional("select site_id from agents where id = $1", args![agent]).await?;
    let Some((site,)) = site else {
        return Err(Error::new(Kind::NotFound, format!("there is no agent {agent}")));
    };
    make(db, authority, site, Some(agent), by, valid, now).await
}

async fn make(
    db: &Db,
    authority: &Authority,
    site: SiteId,
    replaces: Option<AgentId>,
    by: &str,
    valid: DurationMs,
    now: Millis,
) -> Result<EnrolmentToken> {
    if valid < DurationMs::from_minutes(1) || valid > LONGEST {
        return Err(Error::invalid("a token is valid for at least a minute and at most 30 days"));
    }
    let token = EnrolmentToken::new(bytes(), authority.fingerprint());
    let mut tx = db.begin().await?;
    tx.execute(
        // Until the token is used, `used_by_agent` says for whom it is; null for a new agent.
        "insert into enrolment_tokens (secret_hash, site_id, created_by, created_at, expires_at, used_by_agent)
         values ($1, $2, $3, $4, $5, $6)",
        args![sha256_hex(token.secret().as_bytes()), site, by, now, now.plus(valid), replaces],
    )
    .await
    .map_err(|e| if e.is_constraint() { Error::not_found().because(e) } else { e })?;
    let detail = replaces.map(|agent| format!("replaces the gateway of {agent}")).unwrap_or_default();
    audit::record(&mut tx, now, by, "agent.token", &site.to_string(), &detail).await?;
    tx.commit().await?;
    Ok(token)
}

/// What a token opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    pub site: SiteId,
    pub agent: AgentId,
    /// The agent is not new.
    pub replaces: bool,
}

/// Spends a token, for `new` unless it is for an agent that is known.
///
/// # Errors
/// The token is unknown, used or expired (one text for all: a guesser learns nothing), or the database
/// fails.
pub async fn spend(tx: &mut Tx, secret: &str, new: AgentId, now: Millis) -> Result<Spent> {
    let spent: Option<(SiteId, AgentId)> = tx
        .fetch_optional(
            "update enrolment_tokens set used_at = $2, used_by_agent = coalesce(used_by_agent, $3)
             where secret_hash = $1 and used_at is null and expires_at > $2 returning site_id, used_by_agent",
            args![sha256_hex(secret.as_bytes()), now, new],
        )
        .await?;
    let refused = "this enrolment token is unknown, used or expired; ask for a new one in the console";
    let spent = spent.map(|(site, agent)| Spent { site, agent, replaces: agent != new });
    spent.ok_or_else(|| Error::new(Kind::Forbidden, refused))
}

/// Failed tries by address.
#[derive(Debug, Default)]
pub struct Failures(HashMap<IpAddr, (u32, Millis)>);

impl Failures {
    /// # Errors
    /// This address has failed too often; when it may try again.
    pub fn check(&self, address: IpAddr, now: Millis) -> Result<()> {
        match self.0.get(&network(address)) {
            Some((count, since)) if *count >= FAILURES && now.since(*since) < WINDOW => {
                let wait = WINDOW - now.since(*since);
                let text = format!(
                    "too many failed enrolments from this address; try again in {} minutes",
                    wait.0.div_ceil(60_000)
                );
                Err(Error::new(Kind::TooMany(wait), text))
            }
            _ => Ok(()),
        }
    }

    /// Counts a failed try.
    pub fn count(&mut self, address: IpAddr, now: Millis) {
        if self.0.len() >= ADDRESSES {
            self.0.retain(|_, (_, since)| now.since(*since) < WINDOW);
        }
        if self.0.len() >= ADDRESSES
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (_, since))| *since).map(|(a, _)| *a)
        {
            self.0.remove(&oldest);
        }
        let entry = self.0.entry(network(address)).or_insert((0, now));
        if now.since(entry.1) >= WINDOW {
            *entry = (0, now);
        }
        entry.0 += 1;
    }
}

/// One customer's whole IPv6 network is one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    const NOW: Millis = Millis(1_790_000_000_000);

    #[tokio::test]
    async fn a_token_is_spent_once_and_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let stores = testing::stores(folder.path()).await;
        let db = &stores.business;
        let authority = Authority::open(folder.path(), NOW).unwrap();
        let site = SiteId::from_random([1; 16]);
        let hour = DurationMs::from_minutes(60);
        assert!(create(db, &authority, site, "owner", hour, NOW).await.is_err(), "no such site");
        db.execute("insert into sites (id, name, created_at) values ($1, 'A', $2)", args![site, NOW])
            .await
            .unwrap();
        let token = create(db, &authority, site, "owner", hour, NOW).await.unwrap();
        assert!(create(db, &authority, site, "owner", DurationMs(LONGEST.0 + 1), NOW).await.is_err());
        let agent = AgentId::from_random([2; 16]);
        let tries = [
            ("guessed", NOW, false),
            (token.secret(), NOW.plus(hour), false),
            (token.secret(), NOW, true),
            (token.secret(), NOW, false),
        ];
        for (secret, at, opens) in tries {
            let mut tx = db.begin().await.unwrap();
            let spent = Spent { site, agent, replaces: false };
            assert_eq!(spend(&mut tx, secret, agent, at).await.ok(), opens.then_some(spent));
            tx.commit().await.unwrap();
        }
        let stored: Vec<(String,)> =
            db.fetch_all("select secret_hash from enrolment_tokens", args![]).await.unwrap();
        assert!(stored.iter().all(|(hash,)| !hash.contains(token.secret())));
    }

    #[test]
    fn a_guesser_is_slowed_and_others_are_not() {
        let mut failures = Failures::default();
        let guesser: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..FAILURES {
            failures.check(guesser, NOW).unwrap();
            failures.count(guesser, NOW);
        }
        assert!(failures.check(guesser, NOW).is_err());
        assert!(failures.check("192.0.2.2".parse().unwrap(), NOW).is_ok());
        assert!(failures.check(guesser, NOW.plus(WINDOW)).is_ok());
        for n in 0..2 * ADDRESSES as u32 {
            failures.count(IpAddr::V4(n.into()), NOW);
        }
        assert!(failures.0.len() <= ADDRESSES);
    }
}
