//! Raw readings: the stored batches decoded again, for the few who ask.
//!
//! Lines are written while batches are read, a page at a time, so that any range costs the same
//! memory; a reader that is slow slows the reading, one that leaves ends it.

use super::keys::{KeyName, Keys};
use crate::App;
use crate::error::{Error, Result};
use crate::store::Db;
use crate::{args, row};
use axum::body::Body as HttpBody;
use bytes::Bytes;
use hashinsight_protocol::device::{ModeV1, PowerSourceV1};
use hashinsight_protocol::envelope::{Body as _, Envelope};
use hashinsight_protocol::ids::{AgentId, Epoch, MinerId, SiteId};
use hashinsight_protocol::telemetry::{PollV1, RosterV1, SampleV1, TelemetryV1};
use hashinsight_protocol::topics::{Stream, Topic};
use hashinsight_protocol::units::{BootMillis, Celsius, DurationMs, Hashrate, Millis, Watts};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Batches read at once.
const PAGE: u32 = 32;
/// Where one miner's readings are wanted, of which a batch has few.
const PAGE_OF_ONE: u32 = 256;
/// Pages of lines that wait for the reader.
const AHEAD: usize = 2;
/// A sample is taken this long after its batch's start at most.
const BURST: DurationMs = DurationMs::from_minutes(60);

/// Which readings.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Taken at this time or later, and before `to`, as the agents' clocks say.
    pub from: Millis,
    pub to: Millis,
    /// This miner alone.
    pub miner: Option<MinerId>,
}

/// One reading. Unknown values are null.
#[derive(Clone, Debug, Serialize)]
pub struct Reading {
    pub miner: MinerId,
    pub agent: AgentId,
    pub at: Millis,
    /// The same moment on the boot clock of the agent's machine, which no time service moves.
    pub boot_ms: BootMillis,
    pub received_at: Millis,
    pub cycle: u64,
    pub poll: PollV1,
    pub hashrate_hs: Option<Hashrate>,
    pub power_w: Option<Watts>,
    pub power_source: Option<PowerSourceV1>,
    pub hottest_c: Option<Celsius>,
    pub fan_max_rpm: Option<u32>,
    pub fan_min_rpm: Option<u32>,
    pub accepted: Option<u64>,
    pub rejected: Option<u64>,
    pub uptime_ms: Option<DurationMs>,
    pub is_mining: Option<bool>,
    pub mode: Option<ModeV1>,
    pub warnings: Option<u32>,
    /// The agent's clock was wrong: when this was can't be said.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub absurd_time: bool,
}

row! {
    struct BatchRow {
        epoch: Epoch,
        seq: u64,
        checksum: u32,
        at: Millis,
        received_at: Millis,
        absurd_time: bool,
        envelope: Vec<u8>,
    }
}

/// The readings of a site as lines of JSON, agent by agent, each in the order of time. What is stored
/// while this runs may or may not be in it.
pub fn ndjson(app: Arc<App>, site: SiteId, range: Range) -> HttpBody {
    let (lines, pages) = mpsc::channel::<std::io::Result<Bytes>>(AHEAD);
    tokio::spawn(async move {
        if let Err(error) = write(&app, site, range, &lines).await {
            tracing::error!(error = error.chain(), %site, "An export of readings ended early.");
            // The reader may be gone, then nobody needs to know.
            let _ =
                lines.send(Err(std::io::Error::other("the readings could not be read to their end"))).await;
        }
    });
    HttpBody::from_stream(futures_util::stream::unfold(pages, |mut pages| async {
        pages.recv().await.map(|page| (page, pages))
    }))
}

async fn write(
    app: &App,
    site: SiteId,
    range: Range,
    lines: &mpsc::Sender<std::io::Result<Bytes>>,
) -> Result<()> {
    let agents: Vec<(AgentId,)> = app
        .stores
        .business
        .fetch_all("select id from agents where site_id = $1 order by id", args![site])
        .await?;
    let mut keys = Keys::default();
    for (agent,) in agents {
        let mut pages = Pages::new(agent, range);
        while let Some(readings) = pages.next(&app.stores.telemetry, &mut keys).await? {
            let mut page = Vec::new();
            for reading in readings {
                serde_json::to_writer(&mut page, &reading)?;
                page.push(b'\n');
            }
            if !page.is_empty() && lines.send(Ok(page.into())).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// One agent's readings, page by page.
#[derive(Debug)]
pub struct Pages {
    agent: AgentId,
    range: Range,
    after: Option<(Millis, String, u64)>,
}

impl Pages {
    pub fn new(agent: AgentId, range: Range) -> Self {
        let from = Millis(range.from.0.saturating_sub(BURST.0 as i64));
        Self { agent, range, after: Some((from, String::new(), 0)) }
    }

    /// The next page; `None` at the end.
    ///
    /// # Errors
    /// The database fails.
    pub async fn next(&mut self, db: &Db, keys: &mut Keys) -> Result<Option<Vec<Reading>>> {
        let Some((at, epoch, seq)) = self.after.take() else { return Ok(None) };
        let page = if self.range.miner.is_some() { PAGE_OF_ONE } else { PAGE };
        let rows: Vec<BatchRow> = db
            .fetch_all(
                "select epoch, seq, checksum, at, received_at, absurd_time, envelope from batches
                 where agent_id = $1 and stream = 1 and (at, epoch, seq) > ($2, $3, $4) and at < $5
                 order by at, epoch, seq limit $6",
                args![self.agent, at, epoch, seq, self.range.to, page],
            )
            .await?;
        if rows.len() == page as usize {
            self.after = rows.last().map(|row| (row.at, row.epoch.to_string(), row.seq));
        }
        let mut readings = Vec::new();
        for row in rows {
            let (batch, samples) = samples(db, keys, self.agent, &row, self.range.miner).await?;
            let started = row.at;
            readings.extend(samples.iter().filter_map(|sample| {
                let at = started.plus(sample.after);
                let within = at >= self.range.from && at < self.range.to;
                within.then(|| reading(self.agent, at, &row, &batch, sample))
            }));
        }
        Ok(Some(readings))
    }
}

/// A batch and its samples, or `miner`'s alone.
async fn samples(
    db: &Db,
    keys: &mut Keys,
    agent: AgentId,
    row: &BatchRow,
    miner: Option<MinerId>,
) -> Result<(TelemetryV1, Vec<SampleV1>)> {
    let broken = |e| Error::internal(format!("stored batch {} of {agent}: {e}", row.seq));
    let envelope = Envelope::open(Topic::Up(agent, Stream::Telemetry), &row.envelope).map_err(broken)?;
    let batch = TelemetryV1::decode(envelope.body).map_err(broken)?;
    let is_key = matches!(batch.roster, RosterV1::Own(_));
    let key = match batch.roster {
        RosterV1::Own(_) => {
            let key = batch.as_key(row.seq, row.checksum).map_err(broken)?.map(Arc::new);
            if let Some(key) = &key {
                let name = KeyName { agent, epoch: row.epoch, seq: row.seq, checksum: row.checksum };
                keys.put(name, Arc::clone(key));
            }
            key
        }
        RosterV1::Key { seq, checksum } => {
            keys.find(db, KeyName { agent, epoch: row.epoch, seq, checksum }).await?
        }
    };
    let samples = match (miner, key.as_deref()) {
        (Some(miner), Some(key)) => match key.position(miner) {
            Some(at) if is_key => key.sample_at(at).map_err(broken)?.into_iter().collect(),
            Some(at) => batch.sample_at(key, at).map_err(broken)?.into_iter().collect(),
            None => Vec::new(),
        },
        (_, key) => batch.samples(if is_key { None } else { key }).map_err(broken)?,
    };
    Ok((batch, samples))
}

fn reading(agent: AgentId, at: Millis, row: &BatchRow, batch: &TelemetryV1, sample: &SampleV1) -> Reading {
    Reading {
        miner: sample.miner,
        agent,
        at,
        boot_ms: batch.started.boot.plus(sample.after),
        received_at: row.received_at,
        cycle: batch.cycle,
        poll: sample.poll,
        hashrate_hs: sample.hashrate,
        power_w: sample.power,
        power_source: sample.power_source,
        hottest_c: sample.hottest,
        fan_max_rpm: sample.fan_max,
        fan_min_rpm: sample.fan_min,
        accepted: sample.accepted,
        rejected: sample.rejected,
        uptime_ms: sample.uptime,
        is_mining: sample.is_mining,
        mode: sample.mode,
        warnings: sample.warnings,
        absurd_time: row.absurd_time,
    }
}
