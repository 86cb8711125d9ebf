//! A small number for each miner of an agent, so that rollups need not repeat ids.
//!
//! Numbers are given once and never change, so what memory holds of them is right as far as it goes.

use crate::args;
use crate::error::Result;
use crate::store::{Bulk, Tx};
use hashinsight_protocol::ids::{AgentId, MinerId};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Miners of one agent that get a number; more than any gateway polls. What comes beyond is summed up
/// with its site alone, so that an agent that makes ids up does not fill the disk.
pub const MOST: usize = 50_000;
/// Miners held in memory, of all agents; beyond it all are forgotten and read again.
const HELD: usize = 1_000_000;

static INSERT: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new("miner_numbers", &["agent_id", "number", "miner_id"], "on conflict do nothing")
});

/// The numbers at hand.
#[derive(Debug, Default)]
pub struct Numbers(HashMap<AgentId, HashMap<MinerId, u32>>);

impl Numbers {
    /// The numbers of an agent, those of `miners` among them as far as there is room. Within a
    /// transaction of this agent; if that comes to nothing, call [`Self::clear`].
    ///
    /// # Errors
    /// The database fails.
    pub async fn of(
        &mut self,
        tx: &mut Tx,
        agent: AgentId,
        miners: impl Iterator<Item = MinerId> + Clone,
    ) -> Result<&HashMap<MinerId, u32>> {
        let knows_all = |known: &HashMap<MinerId, u32>| {
            known.len() >= MOST || miners.clone().all(|miner| known.contains_key(&miner))
        };
        if !self.0.get(&agent).is_some_and(knows_all) {
            if self.0.values().map(HashMap::len).sum::<usize>() > HELD {
                self.clear();
            }
            // Another server may have given some meanwhile.
            let rows: Vec<(MinerId, u32)> = tx
                .fetch_all("select miner_id, number from miner_numbers where agent_id = $1", args![agent])
                .await?;
            let mut known: HashMap<_, _> = rows.into_iter().collect();
            let mut next = known.values().max().map_or(0, |last| last + 1);
            let mut rows = Vec::new();
            for miner in miners.clone() {
                if known.len() >= MOST {
                    break;
                }
                known.entry(miner).or_insert_with(|| {
                    rows.push(args![agent, next, miner]);
                    next += 1;
                    next - 1
                });
            }
            INSERT.run(tx, rows).await?;
            self.0.insert(agent, known);
        }
        Ok(self.0.entry(agent).or_default())
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
