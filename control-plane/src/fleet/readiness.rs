//! Whether miners could be stopped and woken now, as their agents have told.

use crate::args;
use crate::error::Result;
use crate::mqtt::apply::Origin;
use crate::row;
use crate::store::{Db, Tx};
use crate::telemetry::latest::name;
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::ids::{AgentId, MinerId};
use hashinsight_protocol::readiness::{AccessV1, BlockerV1, MinerReadyV1, ReadinessV1};
use hashinsight_protocol::units::Millis;
use serde::Serialize;

/// One miner's readiness.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    /// What stands against it.
    pub blockers: Vec<BlockerV1>,
    pub access: AccessV1,
    /// The last write that was proven by its effect, whether it woke the miner, and its form.
    pub proven_at: Option<Millis>,
    pub proven_wake: Option<bool>,
    pub proven_shape: Option<String>,
    /// When the agent said so.
    pub at: Millis,
}

impl Readiness {
    /// What stands against a write that a plan's own rules do not judge.
    pub fn blocker(&self) -> Option<BlockerV1> {
        self.blockers.iter().copied().find(|blocker| blocker.is_passing())
    }
}

row! {
    struct Stored {
        miner: MinerId,
        blockers: String,
        access: String,
        proven_at: Option<Millis>,
        proven_wake: Option<bool>,
        proven_shape: Option<String>,
        at: Millis,
        received_at: Millis,
    }
}

const OF_AGENT: &str = "select miner_id, blockers, access, proven_at, proven_wake, proven_shape, at, received_at \
     from readiness where agent_id = $1 and received_at >= $2";

/// What an agent has told of its miners since, and when the newest of it came.
///
/// # Errors
/// The database fails.
pub async fn of_agent(db: &Db, agent: AgentId, since: Millis) -> Result<Vec<(MinerId, Readiness, Millis)>> {
    let rows: Vec<Stored> = db.fetch_all(OF_AGENT, args![agent, since]).await?;
    Ok(rows.into_iter().map(Stored::read).collect())
}

impl Stored {
    fn read(self) -> (MinerId, Readiness, Millis) {
        let blockers: Vec<BlockerV1> =
            self.blockers.split(',').filter_map(crate::curtailment::fleet_view::named).collect();
        let readiness = Readiness {
            // A blocker that this version doesn't know stands against it all the same.
            ready: self.blockers.is_empty(),
            blockers,
            access: crate::curtailment::fleet_view::named(&self.access).unwrap_or_default(),
            proven_at: self.proven_at,
            proven_wake: self.proven_wake,
            proven_shape: self.proven_shape,
            at: self.at,
        };
        (self.miner, readiness, self.received_at)
    }
}

const STORE: &str =
    "insert into readiness (miner_id, agent_id, blockers, access, proven_at, proven_wake, proven_shape,
         at, received_at, epoch, place)
     select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
     where exists (select 1 from miners m where m.id = $1 and m.agent_id = $2)
     on conflict (miner_id) do update set agent_id = excluded.agent_id, blockers = excluded.blockers,
         access = excluded.access, proven_at = excluded.proven_at, proven_wake = excluded.proven_wake,
         proven_shape = excluded.proven_shape, at = excluded.at, received_at = excluded.received_at,
         epoch = excluded.epoch, place = excluded.place
     where readiness.agent_id <> excluded.agent_id
        or readiness.epoch = excluded.epoch and excluded.place > readiness.place
        or readiness.epoch <> excluded.epoch and excluded.at >= readiness.at";

/// Stores what an agent tells; of miners that are not its own, nothing.
///
/// # Errors
/// The database fails.
pub async fn store(tx: &mut Tx, origin: &Origin, at: MomentV1, told: &ReadinessV1) -> Result<()> {
    for MinerReadyV1 { miner, blockers, access, proven } in &told.miners {
        let blockers: Vec<String> = blockers.iter().map(|blocker| name(*blocker)).collect();
        tx.execute(
            STORE,
            args![
                *miner,
                origin.agent,
                blockers.join(","),
                name(*access),
                proven.as_ref().map(|proven| proven.at),
                proven.as_ref().map(|proven| proven.wake),
                proven.as_ref().and_then(|proven| proven.shape.as_deref()),
                at.wall,
                origin.received_at,
                origin.epoch,
                origin.place,
            ],
        )
        .await?;
    }
    Ok(())
}

/// The key of the words for what stands against a miner.
pub fn key(blocker: BlockerV1) -> &'static str {
    match blocker {
        BlockerV1::NotRecognised => "block-not-recognised",
        BlockerV1::Unreachable => "block-unreachable",
        BlockerV1::OtherDevice => "block-other-device",
        BlockerV1::WeakIdentity => "block-weak-identity",
        BlockerV1::NoCapability => "block-no-capability",
        BlockerV1::CredentialRefused => "block-credential-refused",
        BlockerV1::WritesOff => "block-writes-off",
        BlockerV1::SettingsUnreadable => "block-settings-unreadable",
        BlockerV1::OutOfService => "block-out-of-service",
        BlockerV1::Protected => "block-protected",
        BlockerV1::Journal => "block-journal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;
    use hashinsight_protocol::clock::ClockStateV1;
    use hashinsight_protocol::ids::{BootId, Epoch, SiteId};
    use hashinsight_protocol::readiness::ProvenWriteV1;
    use hashinsight_protocol::units::BootMillis;

    fn moment(wall: i64) -> MomentV1 {
        MomentV1 {
            wall: Millis(wall),
            boot: BootMillis(1),
            boot_id: BootId::from_random([1; 16]),
            state: ClockStateV1::Measured,
        }
    }

    #[tokio::test]
    async fn the_later_word_of_the_owner_stands() {
        let folder = tempfile::tempdir().unwrap();
        let db = testing::stores(folder.path()).await.business;
        let (site, agent, other) =
            (SiteId::from_random([1; 16]), AgentId::from_random([2; 16]), AgentId::from_random([3; 16]));
        let miner = MinerId::from_random([4; 16]);
        for sql in [
            format!("insert into sites (id, name, time_zone, created_at) values ('{site}', 'A', 'UTC', 0)"),
            format!(
                "insert into agents (id, site_id, hostname, version, batch_key, enrolled_at) values ('{agent}', '{site}', 'gw', '1', '', 0)"
            ),
            format!(
                "insert into miners (id, agent_id, site_id, seen_at) values ('{miner}', '{agent}', '{site}', 0)"
            ),
        ] {
            let mut tx = db.begin().await.unwrap();
            // Fixed texts of this test alone.
            tx.execute(Box::leak(sql.into_boxed_str()), args![]).await.unwrap();
            tx.commit().await.unwrap();
        }
        let origin = |agent, place| Origin {
            agent,
            site,
            epoch: Epoch::from_random([9; 16]),
            place,
            received_at: Millis(50),
        };
        let told = |blockers: Vec<BlockerV1>| ReadinessV1 {
            miners: vec![MinerReadyV1 {
                miner,
                blockers,
                access: AccessV1::Proven,
                proven: Some(ProvenWriteV1 { at: Millis(3), wake: true, shape: None }),
            }],
        };
        let refused = vec![BlockerV1::WeakIdentity, BlockerV1::CredentialRefused];
        let mut seen = Vec::new();
        for (origin, at, blockers) in [
            (origin(other, 9), 9, vec![]),
            (origin(agent, 5), 5, refused.clone()),
            (origin(agent, 4), 4, vec![]),
            (origin(agent, 6), 6, vec![]),
        ] {
            let mut tx = db.begin().await.unwrap();
            store(&mut tx, &origin, moment(at), &told(blockers)).await.unwrap();
            tx.commit().await.unwrap();
            let rows = of_agent(&db, agent, Millis(0)).await.unwrap();
            seen.push(rows.first().map(|(_, r, _)| (r.ready, r.blockers.clone(), r.blocker())));
        }
        let blocked = Some((false, refused, Some(BlockerV1::CredentialRefused)));
        assert_eq!(seen, [None, blocked.clone(), blocked, Some((true, vec![], None))]);
        assert!(of_agent(&db, agent, Millis(51)).await.unwrap().is_empty());
    }

    #[test]
    fn every_obstacle_has_its_words() {
        use crate::web::i18n::Language;
        use BlockerV1::*;
        for blocker in [
            NotRecognised,
            Unreachable,
            OtherDevice,
            WeakIdentity,
            NoCapability,
            CredentialRefused,
            WritesOff,
            SettingsUnreadable,
            OutOfService,
            Protected,
            Journal,
        ] {
            for language in Language::ALL {
                assert_ne!(language.t(key(blocker)), key(blocker));
            }
        }
    }
}
