//! `discover RANGE…`: finds miners, says what they are to the inventory, and proposes the new ones.
//!
//! It asks politely ([`scan`]) and claims nothing: miners come into the inventory with a yes alone, at the
//! terminal or with `--add`. A known miner that is found at another address keeps its id. Miners that a
//! running agent is polling are left to it, so that no device has two connections.

pub mod compare;
pub mod range;
pub mod scan;

use crate::cli::{ConfigArg, Failure};
use crate::clock::Clock;
use crate::credentials::CredentialStore;
use crate::inventory::{self, Row};
use crate::poller::Summary;
use crate::store::{InventoryMiner, Journal, MinerEdit, StoreError};
use crate::supervisor;
use clap::Args;
use compare::{Standing, compare};
use hashinsight_firmware::{Device, Profiles};
use hashinsight_protocol::ids::MinerId;
use hashinsight_protocol::telemetry::PollV1;
use range::Range;
use ring::rand::{SecureRandom, SystemRandom};
use scan::{Found, Manner, Outcome, scan};
use serde_json::json;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Addresses named in the table where something answers that is no miner.
const OTHERS_SHOWN: usize = 20;

#[derive(Args, Debug)]
pub struct DiscoverArgs {
    /// Where to look: 10.0.0.0/20, 10.0.3.17 or 10.0.3.10-99; at most 65,536 addresses in all.
    #[arg(required = true, value_name = "RANGE")]
    ranges: Vec<Range>,
    #[command(flatten)]
    config: ConfigArg,
    /// Print one JSON object.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print the inventory as it would be with what was found, for `miners import`.
    #[arg(long)]
    csv: bool,
    /// Take the new miners into the inventory, and those that have moved to their new addresses.
    #[arg(long)]
    add: bool,
    /// The name of the sign-in to ask with, and to give to new miners; each family's factory default
    /// otherwise.
    #[arg(long, value_name = "NAME")]
    credentials: Option<String>,
    /// Ask the miners too that a running agent is polling.
    #[arg(long)]
    all: bool,
    /// Addresses knocked at in a second.
    #[arg(long, value_name = "N", default_value_t = Manner::default().per_second, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Addresses talked to at the same time.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// How long a connection may take, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(50..=10_000))]
    connect_ms: u32,
}

/// What was found, beside the inventory.
struct Findings {
    inventory: Vec<InventoryMiner>,
    found: Vec<(Found, Standing)>,
    others: Vec<(std::net::Ipv4Addr, String)>,
    /// Miners in the ranges that were not asked, because the running agent polls them.
    polled: Vec<InventoryMiner>,
    /// Miners in the ranges that nobody has seen.
    missing: Vec<InventoryMiner>,
    asked: usize,
}

/// # Errors
/// A range is too wide, the sign-in is not known, or the inventory can't be read or written.
pub async fn run(args: DiscoverArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    let addresses = range::addresses(&args.ranges)?;
    let store = CredentialStore::load(&config.data_dir)?;
    let credentials = match &args.credentials {
        None => None,
        Some(name) => Some(store.get(name).cloned().ok_or_else(|| {
            Failure::new(format!("credentials \"{name}\" are not in {}", crate::credentials::FILE))
        })?),
    };
    let profiles = Arc::new(match &config.profiles {
        Some(folder) => Profiles::with_folder(folder)?,
        None => Profiles::builtin(),
    });
    // A gateway that is not enrolled has no inventory, and can look all the same.
    let journal = match Journal::open_tool(&config.data_dir) {
        Ok(journal) => Some(journal),
        Err(StoreError::Identity(_)) if !args.add => None,
        Err(error) => return Err(error.into()),
    };
    let inventory = match &journal {
        Some(journal) => journal.miners().await?,
        None => Vec::new(),
    };
    let in_ranges = |miner: &&InventoryMiner| matches!(miner.ip, IpAddr::V4(ip) if args.ranges.iter().any(|range| range.contains(ip)));
    let polls = !args.all && supervisor::is_running(&config.data_dir);
    let sick: HashSet<MinerId> = Summary::read(&config.data_dir)?
        .map(|summary| summary.sick)
        .unwrap_or_default()
        .into_iter()
        .filter(|sick| sick.poll != PollV1::Busy)
        .map(|sick| sick.miner)
        .collect();
    let polled: Vec<InventoryMiner> = inventory
        .iter()
        .filter(in_ranges)
        .filter(|miner| polls && miner.learned.is_some() && !sick.contains(&miner.id))
        .cloned()
        .collect();
    let left_out: HashSet<IpAddr> = polled.iter().map(|miner| miner.ip).collect();
    let addresses: Vec<_> = addresses.into_iter().filter(|ip| !left_out.contains(&IpAddr::V4(*ip))).collect();
    let manner = Manner {
        per_second: args.rate,
        concurrency: usize::from(args.concurrency),
        connect: Duration::from_millis(u64::from(args.connect_ms)),
        deadline: config.deadline(),
    };
    let like = Device {
        ip: IpAddr::from([0, 0, 0, 0]),
        api_port: config.api_port,
        web_port: config.web_port,
        v3_port: config.v3_port,
        credentials,
        heard: None,
    };
    let outcome = look(profiles, like, addresses, manner).await;
    let findings = Findings::new(outcome, inventory, polled, config.api_port, in_ranges);
    print(&args, &findings);
    let wanted = findings.proposals();
    if wanted == 0 {
        return Ok(());
    }
    let Some(journal) = journal else {
        eprintln!("This gateway is not enrolled; enrol it to take the new miners into its inventory.");
        return Ok(());
    };
    if args.add || confirmed(&args, &findings) {
        take(&findings, &journal, args.credentials.as_deref()).await?;
    } else if !args.json && !args.csv {
        eprintln!("Nothing was changed. Run it with --add to take {wanted} over.");
    }
    Ok(())
}

/// Searches, and shows on a terminal how far it is.
async fn look(
    profiles: Arc<Profiles>,
    like: Device,
    addresses: Vec<std::net::Ipv4Addr>,
    manner: Manner,
) -> Outcome {
    let (all, shows) = (addresses.len(), std::io::stderr().is_terminal());
    if shows {
        let takes = manner.takes(all).as_secs() + 1;
        eprintln!("Looking at {all} addresses, {} a second: about {takes} s.", manner.per_second);
    }
    let step = (all / 50).max(1);
    let passed = move |done: usize| {
        if shows && (done.is_multiple_of(step) || done == all) {
            eprint!("\r{done} of {all}");
        }
    };
    let outcome = scan(profiles, like, addresses, manner, passed, CancellationToken::new()).await;
    if shows {
        eprintln!();
    }
    outcome
}

impl Findings {
    fn new(
        outcome: Outcome,
        inventory: Vec<InventoryMiner>,
        polled: Vec<InventoryMiner>,
        api_port: u16,
        in_ranges: impl Fn(&&InventoryMiner) -> bool,
    ) -> Self {
        let standings = compare(&outcome.found, &inventory, api_port);
        let found: Vec<_> = outcome.found.into_iter().zip(standings).collect();
        let seen: HashSet<MinerId> = found
            .iter()
            .filter_map(|(_, standing)| match standing {
                Standing::Known { miner } | Standing::Moved { miner, .. } | Standing::Ambiguous { miner } => {
                    Some(*miner)
                }
                Standing::New | Standing::Stranger { .. } => None,
            })
            .chain(polled.iter().map(|miner| miner.id))
            .collect();
        let missing =
            inventory.iter().filter(in_ranges).filter(|miner| !seen.contains(&miner.id)).cloned().collect();
        Self { found, others: outcome.others, polled, missing, asked: outcome.asked, inventory }
    }

    fn count(&self, is: impl Fn(&Standing) -> bool) -> usize {
        self.found.iter().filter(|(_, standing)| is(standing)).count()
    }

    fn new_miners(&self) -> usize {
        self.count(|standing| *standing == Standing::New)
    }

    fn moved(&self) -> usize {
        self.count(|standing| matches!(standing, Standing::Moved { .. }))
    }

    /// What there is to say yes to.
    fn proposals(&self) -> usize {
        self.new_miners() + self.moved()
    }

    /// The summary under a table, in one line.
    fn sums(&self) -> String {
        let mut parts = vec![
            format!("{} new", self.new_miners()),
            format!("{} known", self.count(|s| matches!(s, Standing::Known { .. })) + self.polled.len()),
            format!("{} moved", self.moved()),
        ];
        let more = [
            (self.count(|s| matches!(s, Standing::Stranger { .. })), "another device than expected"),
            (self.count(|s| matches!(s, Standing::Ambiguous { .. })), "ambiguous"),
            (self.missing.len(), "missing"),
            (self.others.len(), "no miner"),
        ];
        parts.extend(more.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")));
        format!("{} addresses asked: {}.", self.asked, parts.join(", "))
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |cells: [&str; 6]| {
            let [address, what, firmware, model, identity, note] = cells.map(plain);
            // Writing to a string can't fail.
            let _ = writeln!(
                out,
                "{}",
                format!("{address:<16} {what:<13} {firmware:<16} {model:<26} {identity:<36} {note}")
                    .trim_end()
            );
        };
        line(["ADDRESS", "STANDING", "FIRMWARE", "MODEL", "SERIAL OR MAC", ""]);
        for (found, standing) in &self.found {
            let it = &found.identified;
            let identity =
                it.serial.as_deref().or(it.mac.as_deref()).unwrap_or("none: known by address alone");
            let note = match standing {
                Standing::Moved { miner, from } => format!("miner {miner}, was {from}"),
                Standing::Stranger { miner } => format!("not miner {miner}, which is expected here"),
                Standing::Ambiguous { miner } => format!("says it is miner {miner}, and so does another"),
                Standing::New | Standing::Known { .. } => {
                    found.hashrate.map_or(String::new(), |rate| rate.to_string())
                }
            };
            let (ip, model) = (found.ip.to_string(), it.model.as_deref().unwrap_or("unknown"));
            line([&ip, standing.word(), &it.firmware, model, identity, &note]);
        }
        for (ip, why) in self.others.iter().take(OTHERS_SHOWN) {
            line([&ip.to_string(), "no miner", "", "", "", why]);
        }
        if let Some(more) = self.others.len().checked_sub(OTHERS_SHOWN).filter(|n| *n > 0) {
            line(["", "no miner", "", "", "", &format!("and {more} more; --json names them")]);
        }
        for miner in &self.missing {
            let address = inventory::address_of(miner).to_string();
            let learned = miner.learned.as_ref();
            let model = learned.and_then(|l| l.model.as_deref()).unwrap_or("unknown");
            line([
                &address,
                "missing",
                learned.map_or("", |l| &l.firmware),
                model,
                "",
                "nothing answers here",
            ]);
        }
        let _ = writeln!(out, "{}", self.sums());
        out
    }

    fn json(&self) -> serde_json::Value {
        let found: Vec<_> = self
            .found
            .iter()
            .map(|(found, standing)| {
                let it = &found.identified;
                let mut value = json!({
                    "address": found.ip,
                    "firmware": it.firmware,
                    "model": it.model,
                    "version": it.version,
                    "serial": it.serial,
                    "mac": it.mac,
                    "strong_identity": it.serial.is_some() || it.mac.is_some(),
                    "capabilities": it.capabilities,
                    "hashrate_hs": found.hashrate.map(|rate| rate.get()),
                });
                if let (Ok(serde_json::Value::Object(more)), Some(fields)) =
                    (serde_json::to_value(standing), value.as_object_mut())
                {
                    fields.extend(more);
                }
                value
            })
            .collect();
        let known = |miners: &[InventoryMiner]| -> Vec<_> {
            let one =
                |m: &InventoryMiner| json!({"miner": m.id, "address": inventory::address_of(m).to_string()});
            miners.iter().map(one).collect()
        };
        let others: Vec<_> =
            self.others.iter().map(|(ip, why)| json!({"address": ip, "error": why})).collect();
        json!({
            "asked": self.asked,
            "found": found,
            "polled_by_the_agent": known(&self.polled),
            "missing": known(&self.missing),
            "no_miner": others,
        })
    }

    /// The whole inventory with what was found: importing a file gives up what it does not list.
    fn csv(&self, credentials: Option<&str>) -> Vec<u8> {
        let mut miners = self.inventory.clone();
        for (found, standing) in &self.found {
            if let Standing::Moved { miner, .. } = standing
                && let Some(moved) = miners.iter_mut().find(|known| known.id == *miner)
            {
                (moved.ip, moved.api_port) = (IpAddr::V4(found.ip), None);
            }
        }
        let mut rows: Vec<Row> = miners.into_iter().map(inventory::row_of).collect();
        rows.extend(self.found.iter().filter(|(_, s)| *s == Standing::New).map(|(found, _)| Row {
            miner: None,
            address: inventory::Address { ip: IpAddr::V4(found.ip), api_port: None },
            rack: None,
            position: None,
            customer: None,
            credentials: credentials.map(str::to_owned),
        }));
        inventory::write(&rows)
    }
}

fn print(args: &DiscoverArgs, findings: &Findings) {
    let bytes = if args.json {
        format!("{:#}\n", findings.json()).into_bytes()
    } else if args.csv {
        findings.csv(args.credentials.as_deref())
    } else {
        findings.text().into_bytes()
    };
    // A reader that has closed its end has seen enough.
    let _ = std::io::stdout().write_all(&bytes);
}

/// Asks at the terminal; without one the answer is no.
fn confirmed(args: &DiscoverArgs, findings: &Findings) -> bool {
    if args.json || args.csv || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    let (new, moved) = (findings.new_miners(), findings.moved());
    eprint!("Take {new} new miners into the inventory, and {moved} to their new addresses? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

async fn take(findings: &Findings, journal: &Journal, credentials: Option<&str>) -> Result<(), Failure> {
    let random = SystemRandom::new();
    let (mut fresh, mut edits) = (Vec::new(), Vec::new());
    for (found, standing) in &findings.found {
        let ip = IpAddr::V4(found.ip);
        match standing {
            Standing::New => {
                let mut bytes = [0; 16];
                random
                    .fill(&mut bytes)
                    .map_err(|_| Failure::new("the system gives no random numbers for new ids"))?;
                fresh.push(InventoryMiner {
                    id: MinerId::from_random(bytes),
                    ip,
                    api_port: None,
                    rack: None,
                    position: None,
                    customer: None,
                    credentials: credentials.map(str::to_owned),
                    out_of_service: false,
                    protected: false,
                    // The agent recognises it by itself, with the sign-in of its own.
                    learned: None,
                });
            }
            Standing::Moved { miner, .. } => edits.push((*miner, MinerEdit::Move { ip, api_port: None })),
            Standing::Known { .. } | Standing::Stranger { .. } | Standing::Ambiguous { .. } => {}
        }
    }
    let now = Clock::system()?.now();
    let (added, moved) = (fresh.len(), edits.len());
    journal.add(fresh, now).await?;
    journal.edit(edits, now).await?;
    println!("{added} miners added to the inventory, {moved} followed to their new addresses.");
    Ok(())
}

/// A device's text without what would disturb a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
