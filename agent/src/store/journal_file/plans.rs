//! Plans, as documents bring them and orders change them.

use super::{JournalFile, Signals, unreadable};
use crate::store::StoreError;
use crate::store::document::{self, Opened, Taken, Verdict};
use hashinsight_curtailment::{HeldPlan, StopOrder};
use hashinsight_protocol::clock::MomentV1;
use hashinsight_protocol::envelope::Body;
use hashinsight_protocol::events::{DocumentHeldV1, EventV1, OrderResultV1};
use hashinsight_protocol::limits::bounded_text;
use hashinsight_protocol::order::OrderV1;
use hashinsight_protocol::plan::PlanV1;
use hashinsight_protocol::topics::Stream;
use rusqlite::{OptionalExtension, Transaction, params};
use std::sync::Arc;

/// Results of orders that are kept; those that expired first are forgotten first.
const ORDERS: u64 = 20_000;

impl JournalFile {
    /// The version of the document held; 0 for none.
    pub fn document(&self) -> Result<u64, StoreError> {
        Ok(self.conn.query_row("SELECT document FROM life", [], |row| row.get(0))?)
    }

    /// Stores a document whole, where it is newer.
    pub fn store_document(&mut self, opened: &Opened, at: MomentV1) -> Result<Verdict, StoreError> {
        if opened.version <= self.document()? {
            return Ok(Verdict::NotNewer);
        }
        let mut opened = opened.clone();
        let plans = document::merge(&self.plans, &mut opened, at);
        let held = plans.iter().map(|h| (h.plan.id, h.plan.revision)).collect();
        let mut events = vec![EventV1::Document(DocumentHeldV1 { version: opened.version, plans: held })];
        events.extend(opened.refused.into_iter().map(EventV1::Refused));
        self.write(|s| {
            s.tx.execute("DELETE FROM plans", [])?;
            for (place, held) in plans.iter().enumerate() {
                put_plan(s.tx, place, held)?;
            }
            s.tx.execute("UPDATE life SET document = ?1", [opened.version])?;
            s.append(Stream::Events, at, &events)
        })?;
        self.plans = plans;
        self.show_plans();
        Signals::bump(&self.signals.streams);
        Ok(Verdict::Stored)
    }

    /// Takes an order once; a repeat tells what became of it.
    pub fn take_order(&mut self, order: &OrderV1, at: MomentV1) -> Result<Taken, StoreError> {
        if !document::is_kept(order) {
            let outcome = document::apply(&mut self.plans, order, at);
            self.show_plans();
            return Ok(taken(outcome));
        }
        let place = self.plans.iter().position(|held| document::concerns(order) == Some(held.plan.id));
        // The one plan that it may change, and none where it's not held.
        let before: Vec<HeldPlan> = place.iter().map(|at| self.plans[*at].clone()).collect();
        let mut after = before.clone();
        let outcome = self.write(|s| {
            after.clone_from(&before);
            let sql = "SELECT taken, reason FROM orders WHERE id = ?1";
            let known = s.tx.query_row(sql, [order.id.as_bytes()], |row| {
                Ok(Taken { repeat: true, taken: row.get(0)?, reason: row.get(1)? })
            });
            let outcome = match known.optional()? {
                Some(known) => known,
                None => {
                    let outcome = taken(document::apply(&mut after, order, at));
                    let row = params![order.id.as_bytes(), order.expires.0, outcome.taken, outcome.reason];
                    s.tx.execute("INSERT INTO orders VALUES (?1, ?2, ?3, ?4)", row)?;
                    let surplus = "DELETE FROM orders WHERE id IN
                        (SELECT id FROM orders ORDER BY expires DESC LIMIT -1 OFFSET ?1)";
                    s.tx.execute(surplus, [ORDERS])?;
                    for (place, held) in place.iter().zip(&after) {
                        put_plan(s.tx, *place, held)?;
                    }
                    outcome
                }
            };
            let (taken, reason) = (outcome.taken, bounded_text(&outcome.reason));
            let event = EventV1::Order(OrderResultV1 { order: order.id, taken, reason });
            s.append(Stream::Events, at, &[event])?;
            Ok(outcome)
        })?;
        if outcome.taken
            && !outcome.repeat
            && let Some((place, held)) = place.zip(after.pop())
        {
            self.plans[place] = held;
            self.show_plans();
        }
        Signals::bump(&self.signals.streams);
        Ok(outcome)
    }

    /// The control plane has spoken: every lease runs anew.
    pub fn contact(&mut self, at: MomentV1) {
        for held in &mut self.plans {
            held.lease_from = Some(at.boot);
        }
        self.show_plans();
    }

    pub(super) fn show_plans(&self) {
        self.signals.plans.send_replace(Arc::new(self.plans.clone()));
    }

    pub(super) fn read_plans(&self) -> Result<Vec<HeldPlan>, StoreError> {
        type Raw = (Vec<u8>, Option<String>, bool, String);
        let sql = "SELECT body, stop, cancelled, released FROM plans ORDER BY place";
        let mut statement = self.conn.prepare(sql)?;
        let rows = statement
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?
            .collect::<Result<Vec<Raw>, _>>()?;
        rows.into_iter()
            .map(|(body, stop, cancelled, released)| {
                let stop = stop.map(|s| serde_json::from_str::<StopOrder>(&s)).transpose();
                Ok(HeldPlan {
                    stop: stop.map_err(unreadable("a stop"))?,
                    cancelled,
                    released: serde_json::from_str(&released).map_err(unreadable("a release"))?,
                    ..HeldPlan::new(PlanV1::decode(&body)?)
                })
            })
            .collect()
    }
}

fn taken(outcome: Result<(), String>) -> Taken {
    match outcome {
        Ok(()) => Taken { repeat: false, taken: true, reason: String::new() },
        Err(reason) => Taken { repeat: false, taken: false, reason },
    }
}

fn put_plan(tx: &Transaction<'_>, place: usize, held: &HeldPlan) -> Result<(), StoreError> {
    let stop = held.stop.as_ref().map(serde_json::to_string).transpose().map_err(unreadable("a stop"))?;
    let released = serde_json::to_string(&held.released).map_err(unreadable("a release"))?;
    let sql = "INSERT OR REPLACE INTO plans VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    tx.prepare_cached(sql)?.execute(params![
        held.plan.id.as_bytes(),
        place,
        held.plan.encode()?,
        stop,
        held.cancelled,
        released
    ])?;
    Ok(())
}
