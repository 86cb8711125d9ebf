//! One miner's sample of a batch, without unpacking the others': a day of one miner among a thousand is
//! read from 1,440 batches.

use super::{Columns, FIELDS, HASHRATE, KeyBatch, RosterV1, SampleV1, TelemetryV1, from_columns};
use crate::columns;
use crate::envelope::WireError;
use crate::ids::MinerId;

impl KeyBatch {
    /// Where a miner stands in the group's order.
    pub fn position(&self, miner: MinerId) -> Option<usize> {
        self.miners.iter().position(|m| *m == miner)
    }

    /// The key batch's own sample of the miner at this position.
    ///
    /// # Errors
    /// A value can't be.
    pub fn sample_at(&self, at: usize) -> Result<Option<SampleV1>, WireError> {
        let Some(miner) = self.miners.get(at) else { return Ok(None) };
        let columns: Columns = self.columns.iter().map(|column| vec![column[at]]).collect();
        Ok(from_columns(&[*miner], &columns)?.pop())
    }
}

impl TelemetryV1 {
    /// The sample at this position of a batch that leans on `key`; the same as in [`Self::samples`].
    ///
    /// # Errors
    /// The key is another one, or what is read is malformed. What is passed over is not looked at.
    pub fn sample_at(&self, key: &KeyBatch, at: usize) -> Result<Option<SampleV1>, WireError> {
        match self.roster {
            RosterV1::Key { seq, checksum } if (seq, checksum) == (key.seq, key.checksum) => {}
            _ => return Err(WireError::KeyMissing),
        }
        let Some(miner) = key.miners.get(at) else { return Ok(None) };
        let mut rest = &self.columns[..];
        let mut values = Columns::with_capacity(FIELDS);
        for (i, base) in key.columns.iter().enumerate() {
            let mut divisor = 1;
            if i == HASHRATE {
                let (scale, after) = rest.split_first().ok_or(WireError::Malformed("a telemetry batch"))?;
                rest = after;
                divisor =
                    10i64.checked_pow(u32::from(*scale)).ok_or(WireError::Malformed("a telemetry batch"))?;
            }
            let base = |i: usize| base[i].map(|v| v / divisor);
            let value = columns::read_at(&mut rest, key.miners.len(), at, base)?;
            values.push(vec![value.map(|v| v.wrapping_mul(divisor))]);
        }
        Ok(from_columns(&[*miner], &values)?.pop())
    }
}
