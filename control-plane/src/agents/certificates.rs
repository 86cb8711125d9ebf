//! Which agents and certificates are admitted, in memory: the front door asks at every connect and
//! ingest at every message, and neither waits for a database.
//!
//! The database is the truth. The directory is read from it at the start, told of every enrolment of
//! this process, and brought in step every [`EVERY`], so that an agent that was revoked by the command
//! line is out within two of them.

use super::files;
use crate::error::Result;
use crate::store::{Db, Tx};
use crate::{App, args, audit, row};
use hashinsight_broker::{Admission, CertificateId, Gate};
use hashinsight_protocol::enrolment::from_hex;
use hashinsight_protocol::ids::{AgentId, SiteId};
use hashinsight_protocol::signing::VerifyingKey;
use hashinsight_protocol::units::{DurationMs, Millis};
use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

/// From one look at the database to the next.
pub const EVERY: DurationMs = DurationMs::from_secs(1);
/// A look reaches this far back: transactions take time to become visible, and replicas' clocks differ.
const OVERLAP: DurationMs = DurationMs::from_minutes(2);

/// An agent as the wire knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub site: SiteId,
    /// Signs its batches.
    pub key: VerifyingKey,
    pub revoked: bool,
}

/// All agents and their certificates.
#[derive(Debug, Default)]
pub struct Directory(RwLock<Inside>);

#[derive(Debug, Default)]
struct Inside {
    agents: HashMap<AgentId, Known>,
    certificates: HashMap<[u8; 32], (AgentId, bool)>,
    looked_at: Millis,
}

row! {
    struct AgentRow {
        id: AgentId,
        site: SiteId,
        batch_key: String,
        revoked_at: Option<Millis>,
    }
}

row! {
    struct CertificateRow {
        fingerprint: String,
        agent: AgentId,
        revoked_at: Option<Millis>,
    }
}

impl Directory {
    /// The directory as the database has it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn open(db: &Db, now: Millis) -> Result<Self> {
        let directory = Self::default();
        directory.refresh(db, now).await?;
        Ok(directory)
    }

    pub fn known(&self, agent: AgentId) -> Option<Known> {
        self.read().agents.get(&agent).copied()
    }

    /// An agent that has just enrolled.
    pub fn learn(&self, agent: AgentId, known: Known, fingerprint: [u8; 32]) {
        let mut inside = self.write();
        inside.agents.insert(agent, known);
        inside.certificates.insert(fingerprint, (agent, false));
    }

    /// A certificate that an agent has just got.
    pub fn learn_certificate(&self, agent: AgentId, fingerprint: [u8; 32]) {
        self.write().certificates.insert(fingerprint, (agent, false));
    }

    /// Takes over what changed in the database since the last look; the agents that lost their access,
    /// or a certificate, by it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn refresh(&self, db: &Db, now: Millis) -> Result<BTreeSet<AgentId>> {
        let since = Millis(self.read().looked_at.0.saturating_sub(OVERLAP.0 as i64));
        let agents: Vec<AgentRow> = db
            .fetch_all(
                "select id, site_id, batch_key, revoked_at from agents
                 where enrolled_at >= $1 or revoked_at >= $1",
                args![since],
            )
            .await?;
        let certificates: Vec<CertificateRow> = db
            .fetch_all(
                "select fingerprint, agent_id, revoked_at from agent_certificates
                 where issued_at >= $1 or revoked_at >= $1",
                args![since],
            )
            .await?;
        let mut out = BTreeSet::new();
        let mut inside = self.write();
        for row in agents {
            let Some(key) = from_hex(&row.batch_key).map(VerifyingKey) else { continue };
            let known = Known { site: row.site, key, revoked: row.revoked_at.is_some() };
            let before = inside.agents.insert(row.id, known);
            if known.revoked && !before.is_some_and(|b| b.revoked) {
                out.insert(row.id);
            }
        }
        for row in certificates {
            let Some(fingerprint) = from_hex(&row.fingerprint) else { continue };
            let revoked = row.revoked_at.is_some();
            let before = inside.certificates.insert(fingerprint, (row.agent, revoked));
            if revoked && !before.is_some_and(|(_, revoked)| revoked) {
                out.insert(row.agent);
            }
        }
        inside.looked_at = now;
        Ok(out)
    }

    // Every change under this lock is whole, so a poisoned one is as good as any.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inside> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inside> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for Directory {
    fn admit(&self, agent: AgentId, certificate: &CertificateId) -> Admission {
        let inside = self.read();
        let known = inside.agents.get(&agent);
        let held = inside.certificates.get(&certificate.fingerprint);
        match (known, held) {
            (Some(known), Some((of, revoked))) if *of == agent => {
                if known.revoked || *revoked {
                    Admission::Revoked
                } else {
                    Admission::Admit
                }
            }
            _ => Admission::Unknown,
        }
    }
}

/// Takes an agent's access away for ever; a running server cuts it off within two seconds. False when
/// there is no such agent, or it was revoked before.
///
/// # Errors
/// The database fails.
pub async fn revoke(db: &Db, agent: AgentId, by: &str, now: Millis) -> Result<bool> {
    let mut tx = db.begin().await?;
    let done = revoke_in(&mut tx, agent, now).await?;
    if done {
        audit::record(&mut tx, now, by, "agent.revoke", &agent.to_string(), "").await?;
    }
    tx.commit().await?;
    Ok(done)
}

/// Revokes an agent and its certificates within a transaction.
pub(super) async fn revoke_in(tx: &mut Tx, agent: AgentId, now: Millis) -> Result<bool> {
    let done = tx
        .execute("update agents set revoked_at = $2 where id = $1 and revoked_at is null", args![agent, now])
        .await?;
    tx.execute(
        "update agent_certificates set revoked_at = $2 where agent_id = $1 and revoked_at is null",
        args![agent, now],
    )
    .await?;
    Ok(done > 0)
}

/// The serial numbers of all that was revoked and has not expired yet, with when.
///
/// # Errors
/// The database fails.
pub async fn revoked_serials(db: &Db, now: Millis) -> Result<Vec<(String, Millis)>> {
    db.fetch_all(
        "select serial, revoked_at from agent_certificates
         where revoked_at is not null and not_after > $1 order by revoked_at, serial",
        args![now],
    )
    .await
}

/// The revocation list's file in the data folder, for brokers that can't ask us.
pub const CRL_FILE: &str = "crl.pem";

/// Writes the revocation list.
///
/// # Errors
/// The database fails, or the folder can't be written.
pub async fn write_crl(app: &App) -> Result<()> {
    let now = app.clock.now();
    let revoked = revoked_serials(&app.stores.business, now).await?;
    let pem = app.agents.held().authority.crl(&revoked, now)?;
    files::replace(&app.config.data, CRL_FILE, pem.as_bytes())
}

row! {
    /// An agent as an operator sees it.
    #[derive(Clone, Debug, serde::Serialize)]
    pub struct Listed {
        pub id: AgentId,
        pub site: SiteId,
        pub site_name: String,
        pub hostname: String,
        pub version: String,
        pub enrolled_at: Millis,
        pub revoked_at: Option<Millis>,
        pub online: Option<bool>,
        pub seen_at: Option<Millis>,
        pub clock_skew_ms: Option<i64>,
        pub document_held: Option<u64>,
    }
}

/// All agents, the newest first.
///
/// # Errors
/// The database fails.
pub async fn list(db: &Db) -> Result<Vec<Listed>> {
    db.fetch_all(
        "select a.id, a.site_id, s.name, a.hostname, a.version, a.enrolled_at, a.revoked_at,
                p.online, p.seen_at, p.clock_skew_ms, p.document_held
         from agents a join sites s on s.id = a.site_id left join agent_presence p on p.agent_id = a.id
         order by a.enrolled_at desc, a.id",
        args![],
    )
    .await
}
