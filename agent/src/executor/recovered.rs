//! What an earlier journal of this agent held: kept until the document is here that says which of its plans
//! go on, so that those keep their miners asleep and all others are woken.

use super::{Executor, GATHER, JOURNAL_DEADLINE};
use hashinsight_curtailment::Observation;
use hashinsight_protocol::recovery::HeldMinersV1;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// A document that has not come by then is not waited for: miners must not sleep on for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages that wait, and until when.
#[derive(Debug, Default)]
pub struct Recovered(Vec<(Instant, HeldMinersV1)>);

impl Recovered {
    pub fn add(&mut self, held: HeldMinersV1) {
        self.0.push((Instant::now() + PATIENCE, held));
    }

    pub fn until(&self) -> Option<Instant> {
        self.0.iter().map(|(until, _)| *until).min()
    }

    /// Takes what waits no longer.
    fn ripe(&mut self, document: u64, now: Instant) -> impl Iterator<Item = Observation> + use<> {
        let (ripe, waiting) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(until, held)| document >= held.document || now >= *until);
        self.0 = waiting;
        let ripe: Vec<(Instant, HeldMinersV1)> = ripe;
        ripe.into_iter().flat_map(|(_, held)| held.miners).map(Observation::HeldBefore)
    }
}

impl Executor {
    /// Tells the engine of what an earlier journal held, once it can know what goes on.
    pub(super) async fn recover(&mut self, held_before: &mut mpsc::Receiver<HeldMinersV1>) {
        while let Ok(held) = held_before.try_recv() {
            self.recovered.add(held);
        }
        if self.recovered.0.is_empty() {
            return;
        }
        let document = timeout(JOURNAL_DEADLINE, self.field.journal.document()).await;
        let document = document.ok().and_then(Result::ok).unwrap_or(0);
        let before = self.seen.len();
        self.seen.extend(self.recovered.ripe(document, Instant::now()));
        if self.seen.len() > before {
            // The plans of a document are shown just after it is stored.
            sleep(GATHER).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashinsight_protocol::device::{ModeV1, PreStateV1};
    use hashinsight_protocol::ids::{MinerId, PlanId};
    use hashinsight_protocol::recovery::HeldMinerV1;

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_its_document_but_not_for_ever() {
        let pre = PreStateV1 {
            mode: ModeV1::Normal,
            vendor_mode: None,
            limit: None,
            profile: None,
            config_hash: None,
        };
        let miner = HeldMinerV1 {
            miner: MinerId::from_random([1; 16]),
            plan: PlanId::from_random([2; 16]),
            interval: 1,
            pre,
            power_before: None,
        };
        let mut recovered = Recovered::default();
        let message = HeldMinersV1 { document: 3, miners: vec![miner] };
        recovered.add(message.clone());
        assert_eq!(recovered.ripe(2, Instant::now()).count(), 0);
        assert_eq!(recovered.ripe(3, Instant::now()).count(), 1);
        assert_eq!(recovered.ripe(3, Instant::now()).count(), 0);
        recovered.add(message);
        let late = recovered.until().expect("one waits");
        assert_eq!(recovered.ripe(0, late).count(), 1);
    }
}
