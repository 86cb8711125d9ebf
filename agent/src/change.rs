//! `miners reboot|locate|pools|limit`: what a technician changes of a miner, done by the running agent, so that
//! it has the one connection and no plan is crossed.

use crate::cli::{ConfigArg, Failure};
use crate::inventory::{address_of, find};
use crate::local::{self, Answer, Question, Wanted, WantedPool};
use crate::store::{InventoryMiner, Journal};
use crate::supervisor;
use clap::Args;
use hashinsight_protocol::device::FactV1;
use std::io::Read as _;
use std::path::PathBuf;

/// Exit code when a change did not show on every miner, so that a script can tell.
const NOT_PROVEN: u8 = 2;
/// Bytes of a file of passwords.
const PASSWORDS: u64 = 16 * 1024;
/// What pools that ask for no password are given.
const NO_PASSWORD: &str = "x";

/// Which miners, and how it is told.
#[derive(Args, Debug)]
pub struct Miners {
    /// Miners, by id or address; at most 64.
    #[arg(required = true, value_name = "MINER|ADDRESS")]
    miners: Vec<String>,
    /// Don't wait until the effect shows.
    #[arg(long)]
    no_wait: bool,
    /// Print one JSON object a miner.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Args, Debug)]
pub struct LocateArgs {
    /// Put the light out again.
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    miners: Miners,
}

#[derive(Args, Debug)]
pub struct PoolsArgs {
    /// A pool's address and its worker, the first pool first; those that are not named are removed.
    #[arg(long = "pool", required = true, num_args = 2, value_names = ["URL", "WORKER"])]
    pools: Vec<String>,
    /// A file with the pools' passwords, one a line; - reads standard input. Without it they are "x".
    #[arg(long, value_name = "FILE")]
    passwords: Option<PathBuf>,
    #[command(flatten)]
    miners: Miners,
}

#[derive(Args, Debug)]
pub struct LimitArgs {
    /// The most that each may draw, in watts.
    #[arg(long, value_name = "W")]
    watts: f64,
    #[command(flatten)]
    miners: Miners,
}

/// # Errors
/// As [`change`].
pub async fn reboot(args: Miners) -> Result<(), Failure> {
    change(Wanted::Reboot, &args).await
}

/// # Errors
/// As [`change`].
pub async fn locate(args: LocateArgs) -> Result<(), Failure> {
    change(Wanted::Locate { on: !args.off }, &args.miners).await
}

/// # Errors
/// As [`change`].
pub async fn limit(args: LimitArgs) -> Result<(), Failure> {
    change(Wanted::PowerLimit { watts: args.watts }, &args.miners).await
}

/// # Errors
/// The file of passwords can't be read; and as [`change`].
pub async fn pools(args: PoolsArgs) -> Result<(), Failure> {
    let passwords = match &args.passwords {
        Some(file) => read_passwords(file)?,
        None => Vec::new(),
    };
    let mut passwords = passwords.into_iter();
    let each = |pair: &[String]| WantedPool {
        url: pair[0].clone(),
        worker: pair[1].clone(),
        password: passwords.next().unwrap_or_else(|| NO_PASSWORD.to_owned()),
    };
    let pools = args.pools.chunks_exact(2).map(each).collect();
    change(Wanted::Pools(pools), &args.miners).await
}

fn read_passwords(file: &PathBuf) -> Result<Vec<String>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", file.display()));
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().take(PASSWORDS).read_to_string(&mut text).map_err(failed)?;
    } else {
        std::fs::File::open(file)
            .map_err(failed)?
            .take(PASSWORDS)
            .read_to_string(&mut text)
            .map_err(failed)?;
    }
    Ok(text.lines().map(str::to_owned).collect())
}

/// Has the running agent change miners, and tells what came of each.
///
/// # Errors
/// No agent runs, a miner is not in the inventory, the change is refused as a whole, or it did not show on
/// every miner (exit code 2).
async fn change(wanted: Wanted, args: &Miners) -> Result<(), Failure> {
    let config = args.config.load()?;
    if !supervisor::is_running(&config.data_dir) {
        let dir = config.data_dir.display();
        return Err(Failure::new(format!(
            "no agent runs on {dir}; start it first: it has the miners' connections"
        )));
    }
    let inventory = Journal::open_tool(&config.data_dir)?.miners().await?;
    let mut chosen: Vec<&InventoryMiner> = Vec::new();
    for name in &args.miners {
        let miner = find(&inventory, name, config.api_port)?;
        if chosen.iter().all(|other| other.id != miner.id) {
            chosen.push(miner);
        }
    }
    let by = ["SUDO_USER", "USER"].into_iter().find_map(|name| std::env::var(name).ok());
    let question = Question::Change {
        by: by.unwrap_or_else(|| "unknown".to_owned()),
        miners: chosen.iter().map(|miner| miner.id).collect(),
        change: wanted,
        follow: !args.no_wait,
    };
    let mut proven = 0;
    let asked = local::ask(&config.data_dir, &question, |answer| {
        let address = chosen.iter().find(|m| m.id == answer.miner).map(|m| address_of(m).to_string());
        let address = address.unwrap_or_else(|| answer.miner.to_string());
        proven += usize::from(answer.is_proven() || (args.no_wait && was_taken(&answer)));
        if args.json {
            println!("{}", to_json(&address, &answer));
        } else {
            println!("{}", to_text(&address, &answer));
        }
    });
    asked.await.map_err(|error| Failure::new(format!("the agent did not do it: {error}")))?;
    match chosen.len() - proven {
        0 => Ok(()),
        n => {
            let words = format!("it did not show on {n} of {} miners", chosen.len());
            Err(Failure::new(words).with_code(NOT_PROVEN))
        }
    }
}

/// Whether the device took it, as far as is known without its effect.
fn was_taken(answer: &Answer) -> bool {
    answer.evidence.is_some_and(|e| e.accepted == FactV1::Yes && e.mode != FactV1::No)
}

fn to_json(address: &str, answer: &Answer) -> serde_json::Value {
    serde_json::json!({
        "miner": answer.miner,
        "address": address,
        "evidence": answer.evidence,
        "proven": answer.is_proven(),
        "detail": answer.detail,
    })
}

fn to_text(address: &str, answer: &Answer) -> String {
    let word = |fact| match fact {
        FactV1::Yes => "yes",
        FactV1::No => "NO",
        FactV1::Unknown => "unknown",
        FactV1::NotApplicable => "-",
    };
    let text = match answer.evidence {
        None => format!("{address:<16} NOT DONE: {}", answer.detail),
        Some(e) => format!(
            "{address:<16} accepted {}, read back {}, effect {}: {}",
            word(e.accepted),
            word(e.mode),
            word(e.effect),
            answer.detail
        ),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
