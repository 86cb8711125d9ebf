//! Readings that will never come, counted.

use super::ledger::StreamKey;
use super::once::Ledgers;
use crate::error::Result;
use crate::store::{Db, Tx};
use crate::{args, row};
use hashinsight_protocol::events::GapV1;
use hashinsight_protocol::ids::{AgentId, Epoch, SiteId};
use hashinsight_protocol::topics::Stream;
use hashinsight_protocol::units::Millis;

/// The agent deleted batches that this database does not hold: it was restored from a backup, or the
/// agent dropped them and its word of it is on the way.
const NOT_KEPT: &str = "not_kept";

/// Records gaps that an agent counted. Doing it again changes nothing, so it may come before the
/// transaction that takes the event.
///
/// # Errors
/// The database fails; so for all below.
pub async fn record(tx: &mut Tx, gaps: &[(AgentId, GapV1, Millis)], received_at: Millis) -> Result<()> {
    let mut ledgers = Ledgers::default();
    for (agent, gap, at) in gaps {
        let (first, last) = gap.seqs.unwrap_or((0, 0));
        let cause = super::latest::name(gap.cause);
        let cycles = (gap.first_cycle, gap.last_cycle);
        insert(tx, *agent, gap.epoch, &cause, cycles, (first, last), gap.polls, (*at, received_at)).await?;
        if first > 0 {
            let key = StreamKey { agent: *agent, epoch: gap.epoch, stream: Stream::Telemetry };
            ledgers.give_up(tx, key, first, last).await?;
        }
    }
    ledgers.save(tx).await?;
    Ok(())
}

/// Gives up the numbers below `lowest`, the lowest that the agent still keeps, that are not here.
/// True when there were some.
pub async fn give_up_below(
    tx: &mut Tx,
    agent: AgentId,
    epoch: Epoch,
    lowest: u64,
    now: Millis,
) -> Result<bool> {
    let key = StreamKey { agent, epoch, stream: Stream::Telemetry };
    let mut ledgers = Ledgers::default();
    let holes = ledgers.holes(tx, key, lowest).await?;
    for (first, last) in &holes {
        insert(tx, agent, epoch, NOT_KEPT, (0, 0), (*first, *last), 0, (now, now)).await?;
        ledgers.give_up(tx, key, *first, *last).await?;
    }
    ledgers.save(tx).await?;
    Ok(!holes.is_empty())
}

#[expect(clippy::too_many_arguments, reason = "the columns, in their order")]
async fn insert(
    tx: &mut Tx,
    agent: AgentId,
    epoch: Epoch,
    cause: &str,
    cycles: (u64, u64),
    seqs: (u64, u64),
    polls: u64,
    times: (Millis, Millis),
) -> Result<()> {
    tx.execute(
        "insert into gaps (agent_id, epoch, cause, first_cycle, last_cycle, first_seq, last_seq, polls, at,
                           received_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (agent_id, epoch, cause, first_cycle, first_seq) do nothing",
        args![agent, epoch, cause, cycles.0, cycles.1, seqs.0, seqs.1, polls, times.0, times.1],
    )
    .await?;
    Ok(())
}

row! {
    /// A gap, as the API shows it.
    #[derive(Clone, Debug, serde::Serialize)]
    pub struct Gap {
        pub agent: AgentId,
        pub epoch: Epoch,
        /// `burst_lost`, `quota`, `corrupt`, `disk_full`, or `not_kept`.
        pub cause: String,
        pub first_cycle: u64,
        pub last_cycle: u64,
        /// 0 for none.
        pub first_seq: u64,
        pub last_seq: u64,
        /// Polls that are missing, at most.
        pub polls: u64,
        pub at: Millis,
        pub received_at: Millis,
    }
}

/// The gaps of a site's agents, the newest first, at most `most` an agent.
pub async fn of_site(business: &Db, telemetry: &Db, site: SiteId, most: u32) -> Result<Vec<Gap>> {
    let agents: Vec<(AgentId,)> =
        business.fetch_all("select id from agents where site_id = $1 order by id", args![site]).await?;
    let mut gaps: Vec<Gap> = Vec::new();
    for (agent,) in agents {
        gaps.extend(
            telemetry
                .fetch_all::<Gap>(
                    "select agent_id, epoch, cause, first_cycle, last_cycle, first_seq, last_seq, polls, at, received_at
                     from gaps where agent_id = $1 order by at desc, epoch, cause, first_cycle limit $2",
                    args![agent, most],
                )
                .await?,
        );
    }
    gaps.sort_by_key(|gap| std::cmp::Reverse(gap.at));
    Ok(gaps)
}
