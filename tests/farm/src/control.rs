//! The control socket: one JSON object a line in, one JSON object a line out.
//!
//! | line | answer |
//! |---|---|
//! | `{"cmd":"state"}`, `{"cmd":"state","device":"127.10.0.5"}` | `devices`: what each is set to and does |
//! | `{"cmd":"totals"}` | power, hashrate and counters of the whole farm |
//! | `{"cmd":"fault","kind":"hang","device":"127.10.0.5"}` | `devices`: how many it was set on; fields as in a faults file |
//! | `{"cmd":"clear"}` | all faults are taken away |
//! | `{"cmd":"stop"}` | the farm stops |
//!
//! Every answer has `"ok"`; where it is false, `"error"` says why. A line holds at most 64 KiB.

use crate::faults::FaultOrder;
use crate::server::Shared;
use crate::{DeviceState, apply_order, state_of};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

const LINE: u64 = 64 << 10;
const CONNECTIONS: usize = 16;

#[derive(Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
enum Command {
    State {
        #[serde(default)]
        device: Option<Ipv4Addr>,
    },
    Totals,
    Fault(Value),
    Clear,
    Stop,
}

/// Serves the control socket until it is aborted.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, stop: watch::Sender<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        while open.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        open.spawn(async move {
            // An error only means that this connection is over.
            let _ = connection(&shared, stream, &stop).await;
            drop(permit);
        });
    }
}

async fn connection(shared: &Shared, stream: TcpStream, stop: &watch::Sender<bool>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    loop {
        let mut line = String::new();
        if (&mut reader).take(LINE).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let (mut answer, stops) = answer(shared, &line);
        answer.push('\n');
        write.write_all(answer.as_bytes()).await?;
        if stops {
            stop.send_replace(true);
            return Ok(());
        }
    }
}

fn answer(shared: &Shared, line: &str) -> (String, bool) {
    let fail = |error: String| (json!({"ok": false, "error": error}).to_string(), false);
    let command = match serde_json::from_str::<Command>(line) {
        Ok(command) => command,
        Err(error) => return fail(error.to_string()),
    };
    match command {
        Command::State { device } => {
            let all = (0..shared.slots.len() as u32)
                .filter(|i| device.is_none_or(|ip| shared.slots[*i as usize].ip == ip));
            let states: Vec<DeviceState> = all.map(|i| state_of(shared, i)).collect();
            if states.is_empty() {
                return fail("no device has this address".into());
            }
            match serde_json::to_string(&states) {
                Ok(text) => (format!(r#"{{"ok":true,"devices":{text}}}"#), false),
                Err(error) => fail(error.to_string()),
            }
        }
        Command::Totals => (totals(shared).to_string(), false),
        Command::Fault(order) => {
            let order = match serde_json::from_value::<FaultOrder>(order) {
                Ok(order) => order,
                Err(error) => return fail(error.to_string()),
            };
            match apply_order(shared, &order) {
                Ok(n) => (json!({"ok": true, "devices": n}).to_string(), false),
                Err(error) => fail(error),
            }
        }
        Command::Clear => {
            crate::clear_faults(shared);
            (json!({"ok": true}).to_string(), false)
        }
        Command::Stop => (json!({"ok": true}).to_string(), true),
    }
}

fn totals(shared: &Shared) -> Value {
    let (mut watts, mut rate, mut asleep) = (0.0, 0.0, 0u32);
    let (mut samples, mut reads, mut writes) = (0, 0, 0);
    for index in 0..shared.slots.len() as u32 {
        let s = state_of(shared, index);
        watts += s.power_w;
        rate += s.hashrate_hs;
        asleep += u32::from(s.phase == "asleep");
        samples += s.samples;
        reads += s.reads;
        writes += s.writes;
    }
    json!({
        "ok": true, "devices": shared.slots.len(), "asleep": asleep, "power_w": watts, "hashrate_hs": rate,
        "samples": samples, "reads": reads, "writes": writes,
    })
}
