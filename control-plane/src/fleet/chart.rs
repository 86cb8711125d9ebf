//! A site's power and hashrate over the last hours, from five-minute sums.
//!
//! A bucket holds sums over polls, whose number a minute changes with the cycle. The mean of a poll
//! times the agent's miners is the site's value whatever the cycle was; miners that came or went since
//! are the error of it.

use super::view::View;
use crate::App;
use crate::args;
use crate::error::Result;
use crate::telemetry::rollups::{BUCKET, bucket};
use hashinsight_protocol::ids::AgentId;
use hashinsight_protocol::units::{DurationMs, Millis};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// The longest time a chart shows.
pub const LONGEST_HOURS: u32 = 7 * 24;
/// Points of a chart; longer times show the mean of several buckets.
const POINTS: u64 = 400;

/// Series of one length. A time without readings has `None`: unknown is not zero.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Chart {
    /// Seconds since 1970, the middle of each step.
    pub at: Vec<i64>,
    pub power_mw: Vec<Option<f64>>,
    pub hashrate_ph: Vec<Option<f64>>,
    /// Agents that reported in each step.
    pub agents: Vec<usize>,
}

/// The last `hours` up to `now`.
///
/// # Errors
/// The database fails.
pub async fn chart(app: &App, view: &View, hours: u32, now: Millis) -> Result<Chart> {
    let from = bucket(Millis(now.0 - i64::from(hours.clamp(1, LONGEST_HOURS)) * 3_600_000));
    let mut miners: HashMap<AgentId, u64> = HashMap::new();
    for miner in &view.miners {
        *miners.entry(miner.agent).or_default() += 1;
    }
    let mut rows = Vec::new();
    for (agent, miners) in miners {
        let sums: Vec<(Millis, i64, f64, f64)> = app
            .stores
            .telemetry
            .fetch_all(
                "select bucket, samples, hashrate_sum, power_sum from site_rollups \
                 where agent_id = $1 and bucket >= $2 and bucket <= $3",
                args![agent, from, now],
            )
            .await?;
        rows.extend(sums.into_iter().map(|(at, samples, hashrate, power)| Sums {
            agent,
            at,
            hashrate: hashrate / samples.max(1) as f64 * miners as f64,
            power: power / samples.max(1) as f64 * miners as f64,
        }));
    }
    Ok(series(&rows, from, now))
}

/// One agent's site-wide means in one bucket.
struct Sums {
    agent: AgentId,
    at: Millis,
    hashrate: f64,
    power: f64,
}

fn series(rows: &[Sums], from: Millis, to: Millis) -> Chart {
    let buckets = to.since(from).0 / BUCKET.0 + 1;
    let step = DurationMs(BUCKET.0 * buckets.div_ceil(POINTS).max(1));
    // By step and agent: the mean of the agent's buckets; then the agents are added up.
    let mut steps: BTreeMap<u64, HashMap<AgentId, (f64, f64, f64)>> = BTreeMap::new();
    for row in rows {
        let number = row.at.since(from).0 / step.0;
        let (n, hashrate, power) = steps.entry(number).or_default().entry(row.agent).or_default();
        *n += 1.0;
        *hashrate += row.hashrate;
        *power += row.power;
    }
    let mut chart = Chart::default();
    for number in 0..buckets.div_ceil(step.0 / BUCKET.0) {
        let agents = steps.get(&number);
        let sum = |f: fn(&(f64, f64, f64)) -> f64| agents.map(|a| a.values().map(f).sum::<f64>());
        chart.at.push((from.0 + (number * step.0 + step.0 / 2) as i64) / 1000);
        chart.hashrate_ph.push(sum(|(n, h, _)| h / n / 1e15));
        chart.power_mw.push(sum(|(n, _, p)| p / n / 1e6));
        chart.agents.push(agents.map_or(0, HashMap::len));
    }
    chart
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Millis = Millis(1_790_000_100_000);

    fn sums(agent: u8, bucket: u64, power: f64) -> Sums {
        let agent = AgentId::from_random([agent; 16]);
        Sums { agent, at: FROM.plus(DurationMs(BUCKET.0 * bucket)), hashrate: power * 1e10, power }
    }

    #[test]
    fn agents_add_up_and_silence_is_unknown() {
        let rows = [sums(1, 0, 1e6), sums(2, 0, 2e6), sums(1, 2, 1e6)];
        let chart = series(&rows, FROM, FROM.plus(DurationMs(BUCKET.0 * 3 - 1)));
        assert_eq!(chart.power_mw, [Some(3.0), None, Some(1.0)]);
        assert_eq!(chart.hashrate_ph, [Some(30.0), None, Some(10.0)]);
        assert_eq!(chart.agents, [2, 0, 1]);
        assert_eq!(chart.at[0], FROM.0 / 1000 + 150);
    }

    #[test]
    fn a_long_time_has_means_and_few_points() {
        let week = u64::from(LONGEST_HOURS) * 12;
        let rows: Vec<_> = (0..week).map(|n| sums(1, n, 2e6)).collect();
        let chart = series(&rows, FROM, FROM.plus(DurationMs(BUCKET.0 * week - 1)));
        assert!(chart.at.len() <= POINTS as usize, "{}", chart.at.len());
        assert!(chart.power_mw.iter().all(|p| p.is_some_and(|p| (p - 2.0).abs() < 1e-9)));
    }
}
