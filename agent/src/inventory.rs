//! The miners an agent owns, as a CSV file: read and written by a technician.
//!
//! Header `miner,address,rack,position,customer,credentials`; only `address` is required, columns may
//! stand in any order. `address` is `ip` or `ip:port` of the CGMiner API; `credentials` names a
//! section of `credentials.toml`. A file is the whole inventory: a miner that it does not list is
//! given up. A row without a `miner` keeps the id that is known at its address, or gets a new one.
//!
//! Limits: [`MAX_BYTES`], [`MAX_ROWS`], [`TEXT_BYTES`] a text. All or nothing: every faulty line is
//! named with its number and reason, and nothing is changed.

use crate::change;
use crate::cli::{ConfigArg, Failure};
use crate::clock::Clock;
use crate::credentials::{CredentialStore, is_name};
use crate::store::{InventoryMiner, Journal, MinerEdit};
use clap::{Args, Subcommand};
use hashinsight_protocol::ids::MinerId;
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// A file of [`MAX_ROWS`] rows is a tenth of it.
pub const MAX_BYTES: usize = 32 << 20;
/// More miners than the largest site has.
pub const MAX_ROWS: usize = 50_000;
/// Longest rack, position or customer.
pub const TEXT_BYTES: usize = 128;
/// Faulty lines that are named one by one.
const MAX_NAMED: usize = 50;

const COLUMNS: [&str; 6] = ["miner", "address", "rack", "position", "customer", "credentials"];

/// Where a miner is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub ip: IpAddr,
    /// Of the CGMiner API; `None` for the one in the agent's configuration.
    pub api_port: Option<u16>,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum NotAnAddress {
    #[error("\"{0}\" is not an address; expected an IP or IP:port, such as 10.0.3.17 or 10.0.3.17:4028")]
    Malformed(String),
    #[error("{0} is not the address of one device")]
    NotADevice(IpAddr),
}

impl FromStr for Address {
    type Err = NotAnAddress;
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let malformed =
            || NotAnAddress::Malformed(text.chars().filter(|c| !c.is_control()).take(64).collect());
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        let (ip, api_port) = match bare.parse::<IpAddr>() {
            Ok(ip) => (ip, None),
            Err(_) => {
                let address: SocketAddr = text.parse().map_err(|_| malformed())?;
                if address.port() == 0 {
                    return Err(malformed());
                }
                (address.ip(), Some(address.port()))
            }
        };
        let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        if ip.is_unspecified() || ip.is_multicast() || broadcast {
            return Err(NotAnAddress::NotADevice(ip));
        }
        Ok(Self { ip, api_port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.api_port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

/// One row of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub miner: Option<MinerId>,
    pub address: Address,
    pub rack: Option<String>,
    pub position: Option<String>,
    pub customer: Option<String>,
    /// A name in the [`CredentialStore`].
    pub credentials: Option<String>,
}

/// One line that can't be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    pub line: u64,
    pub reason: String,
}

/// Why a file was not taken. One line of text a faulty line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadFile {
    pub lines: Vec<BadLine>,
    /// Faulty lines beyond those named.
    pub more: usize,
}

impl std::error::Error for BadFile {}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, bad) in self.lines.iter().enumerate() {
            let end = if nth == 0 { "" } else { "\n" };
            write!(f, "{end}line {}: {}", bad.line, bad.reason)?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl BadFile {
    fn one(line: u64, reason: impl Into<String>) -> Self {
        Self { lines: vec![BadLine { line, reason: reason.into() }], more: 0 }
    }

    fn add(&mut self, line: u64, reason: String) {
        if self.lines.len() < MAX_NAMED {
            self.lines.push(BadLine { line, reason });
        } else {
            self.more += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// Reads a file. `default_port` is that of addresses without one: two rows may not mean one device.
///
/// # Errors
/// All faulty lines.
pub fn parse(bytes: &[u8], store: &CredentialStore, default_port: u16) -> Result<Vec<Row>, BadFile> {
    if bytes.len() > MAX_BYTES {
        return Err(BadFile::one(1, format!("the file is larger than {} MiB", MAX_BYTES >> 20)));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = Lines { bytes, at: 0, line: 1 };
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut records = reader.byte_records();
    let header = match records.next() {
        Some(Ok(header)) => header,
        _ => {
            return Err(BadFile::one(
                1,
                format!("the file is empty; expected the header {}", COLUMNS.join(",")),
            ));
        }
    };
    let places = places(&header)?;
    let mut rows = Vec::new();
    let mut bad = BadFile::default();
    let mut addresses = HashMap::new();
    let mut miners = HashMap::new();
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = lines.of(error.position());
                return Err(BadFile::one(line, "the line cannot be read"));
            }
        };
        let line = lines.of(record.position());
        if rows.len() >= MAX_ROWS {
            bad.add(line, format!("more than {MAX_ROWS} miners"));
            break;
        }
        if record.iter().all(|field| field.trim_ascii().is_empty()) {
            continue;
        }
        let row = match row(&record, &header, &places, store) {
            Ok(row) => row,
            Err(reason) => {
                bad.add(line, reason);
                continue;
            }
        };
        let device = (row.address.ip, row.address.api_port.unwrap_or(default_port));
        if let Some(before) = addresses.insert(device, line) {
            bad.add(line, format!("{} stands in line {before} already", row.address));
        } else if let Some(before) = row.miner.and_then(|miner| miners.insert(miner, line)) {
            bad.add(line, format!("the miner stands in line {before} already"));
        } else {
            rows.push(row);
        }
    }
    if bad.is_empty() { Ok(rows) } else { Err(bad) }
}

/// Counts lines as an editor does: the reader's own count goes by its state within a line end, and
/// knows no empty lines.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line that a record begins in. Records come in their order.
    fn of(&mut self, position: Option<&csv::Position>) -> u64 {
        let from = position.and_then(|p| usize::try_from(p.byte()).ok()).unwrap_or(self.at);
        let rest = self.bytes.get(from..).unwrap_or_default();
        let begins = from + rest.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let passed = self.bytes.get(self.at..begins).unwrap_or_default();
        self.line += passed.iter().filter(|b| **b == b'\n').count() as u64;
        self.at = self.at.max(begins);
        self.line
    }
}

/// The place of each column in the file, by [`COLUMNS`].
fn places(header: &csv::ByteRecord) -> Result<[Option<usize>; COLUMNS.len()], BadFile> {
    let mut places = [None; COLUMNS.len()];
    for (place, name) in header.iter().enumerate() {
        let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
        let Some(column) = COLUMNS.iter().position(|c| *c == name) else {
            let name: String = name.chars().filter(|c| !c.is_control()).take(32).collect();
            let known = COLUMNS.join(",");
            return Err(BadFile::one(1, format!("\"{name}\" is no column; the header is {known}")));
        };
        if places[column].replace(place).is_some() {
            return Err(BadFile::one(1, format!("column {name} stands twice")));
        }
    }
    if places[1].is_none() {
        return Err(BadFile::one(
            1,
            format!("column address is missing; the header is {}", COLUMNS.join(",")),
        ));
    }
    Ok(places)
}

fn row(
    record: &csv::ByteRecord,
    header: &csv::ByteRecord,
    places: &[Option<usize>; COLUMNS.len()],
    store: &CredentialStore,
) -> Result<Row, String> {
    if record.len() > header.len() {
        return Err(format!("{} fields where the header has {}", record.len(), header.len()));
    }
    let mut fields = [const { None }; COLUMNS.len()];
    for (column, name) in COLUMNS.iter().enumerate() {
        let bytes = places[column].and_then(|place| record.get(place)).unwrap_or_default();
        let text = str::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8"))?.trim();
        if text.len() > TEXT_BYTES {
            return Err(format!("{name} is longer than {TEXT_BYTES} bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(format!("{name} has control characters"));
        }
        fields[column] = (!text.is_empty()).then(|| text.to_owned());
    }
    let [miner, address, rack, position, customer, credentials] = fields;
    let miner = miner.map(|text| text.parse::<MinerId>()).transpose().map_err(|e| e.to_string())?;
    let address = address.ok_or("address is missing")?.parse::<Address>().map_err(|e| e.to_string())?;
    if let Some(name) = &credentials
        && store.get(name).is_none()
    {
        return Err(if is_name(name) {
            format!("credentials \"{name}\" are not in {}", crate::credentials::FILE)
        } else {
            "credentials must be the name of a sign-in, not the sign-in itself".to_owned()
        });
    }
    Ok(Row { miner, address, rack, position, customer, credentials })
}

/// Writes a file that [`parse`] reads back.
pub fn write(rows: &[Row]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory can't fail, and all records have the same length.
    let _ = writer.write_record(COLUMNS);
    for row in rows {
        let miner = row.miner.map(|miner| miner.to_string());
        let address = row.address.to_string();
        let fields = [&miner, &Some(address), &row.rack, &row.position, &row.customer, &row.credentials];
        let _ = writer.write_record(fields.map(|field| field.as_deref().unwrap_or_default()));
    }
    writer.into_inner().unwrap_or_default()
}

/// Gives each row its id: its own, the one known at its address, or a new one.
pub fn adopt(
    rows: &[Row],
    known: &HashMap<(IpAddr, u16), MinerId>,
    default_port: u16,
    mut new_id: impl FnMut() -> MinerId,
) -> Vec<MinerId> {
    let mut taken: HashSet<MinerId> = rows.iter().filter_map(|row| row.miner).collect();
    rows.iter()
        .map(|row| {
            let device = (row.address.ip, row.address.api_port.unwrap_or(default_port));
            // A miner that has moved, and is named at its new address, is not at its old one.
            let here = known.get(&device).copied().filter(|miner| !taken.contains(miner));
            let id = row.miner.or(here).unwrap_or_else(&mut new_id);
            taken.insert(id);
            id
        })
        .collect()
}

/// `inventory …`
#[derive(Subcommand, Debug)]
pub enum InventoryCommand {
    /// Take a CSV file for the whole inventory; - reads standard input.
    Import(FileArgs),
    /// Write the inventory as CSV, to standard output unless a file is named.
    Export(FileArgs),
    /// Lock miners: out of service, or protected from curtailment.
    Lock(LockArgs),
    /// Take a lock away again.
    Unlock(LockArgs),
    /// Restart miners' control boards.
    Reboot(change::Miners),
    /// Make miners blink, to find them in their racks.
    Locate(change::LocateArgs),
    /// Give miners other pools.
    Pools(change::PoolsArgs),
    /// Limit miners' power.
    Limit(change::LimitArgs),
}

/// Which miners, and which lock.
#[derive(Args, Debug)]
pub struct LockArgs {
    /// Miners, by id or address.
    #[arg(required = true, value_name = "MINER|ADDRESS")]
    miners: Vec<String>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Which {
    /// Nobody writes to it, nobody wakes it: a person works on it.
    #[arg(long)]
    out_of_service: bool,
    /// It's never curtailed.
    #[arg(long)]
    protected: bool,
}

#[derive(Args, Debug)]
pub struct FileArgs {
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    config: ConfigArg,
}

/// # Errors
/// The file is faulty, or the journal can't be used; nothing is changed then.
pub async fn run(command: InventoryCommand) -> Result<(), Failure> {
    match command {
        InventoryCommand::Import(args) => import(&args).await,
        InventoryCommand::Export(args) => export(&args).await,
        InventoryCommand::Lock(args) => lock(&args, true).await,
        InventoryCommand::Unlock(args) => lock(&args, false).await,
        InventoryCommand::Reboot(args) => change::reboot(args).await,
        InventoryCommand::Locate(args) => change::locate(args).await,
        InventoryCommand::Pools(args) => change::pools(args).await,
        InventoryCommand::Limit(args) => change::limit(args).await,
    }
}

async fn import(args: &FileArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    let bytes = read_bounded(args)?;
    let store = CredentialStore::load(&config.data_dir)?;
    let rows = parse(&bytes, &store, config.api_port).map_err(|bad| {
        let what =
            if args.file.as_os_str() == "-" { "the inventory".into() } else { args.file.to_string_lossy() };
        Failure::new(format!("{what} was not taken, nothing is changed:\n{bad}"))
    })?;
    let journal = Journal::open_tool(&config.data_dir)?;
    let before = journal.miners().await?;
    let known = before.iter().map(|m| ((m.ip, m.api_port.unwrap_or(config.api_port)), m.id)).collect();
    let random = SystemRandom::new();
    let mut failed = false;
    let ids = adopt(&rows, &known, config.api_port, || {
        let mut bytes = [0; 16];
        failed |= random.fill(&mut bytes).is_err();
        MinerId::from_random(bytes)
    });
    if failed {
        return Err(Failure::new("the system gives no random numbers for new ids"));
    }
    let mut old: HashMap<MinerId, InventoryMiner> =
        before.into_iter().map(|miner| (miner.id, miner)).collect();
    let miners: Vec<_> = rows.into_iter().zip(ids).map(|(row, id)| merge(row, id, old.remove(&id))).collect();
    let book = journal.book().await?;
    if let Some(held) = old.values().find(|miner| book.holds.contains_key(&miner.id)) {
        return Err(Failure::new(format!(
            "{} (miner {}) is held asleep by a plan and missing in the file; stop the plan first, or nobody would \
             wake it",
            address_of(held),
            held.id
        )));
    }
    let (count, gone) = (miners.len(), old.len());
    let fresh = miners.iter().filter(|miner| miner.learned.is_none()).count();
    journal.replace_miners(miners, Clock::system()?.now()).await?;
    println!("{count} miners in the inventory: {fresh} not recognised yet, {gone} given up.");
    Ok(())
}

async fn export(args: &FileArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    let mut miners = Journal::open_tool(&config.data_dir)?.miners().await?;
    miners.sort_by_key(|miner| (address_of(miner), miner.id));
    let rows: Vec<Row> = miners.into_iter().map(row_of).collect();
    let bytes = write(&rows);
    if args.file.as_os_str() == "-" {
        // A reader that has closed its end has seen enough.
        let _ = std::io::stdout().write_all(&bytes);
        return Ok(());
    }
    std::fs::write(&args.file, bytes)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", args.file.display())))
}

async fn lock(args: &LockArgs, locks: bool) -> Result<(), Failure> {
    let config = args.config.load()?;
    let journal = Journal::open_tool(&config.data_dir)?;
    let miners = journal.miners().await?;
    let mut edits = Vec::new();
    for name in &args.miners {
        let id = find(&miners, name, config.api_port)?.id;
        if args.which.out_of_service {
            edits.push((id, MinerEdit::OutOfService(locks)));
        }
        if args.which.protected {
            edits.push((id, MinerEdit::Protected(locks)));
        }
    }
    journal.edit(edits, Clock::system()?.now()).await?;
    println!("{} miners {}.", args.miners.len(), if locks { "locked" } else { "unlocked" });
    Ok(())
}

/// The miner of an id or an address.
///
/// # Errors
/// The text is neither, or there is no such miner.
pub fn find<'m>(
    miners: &'m [InventoryMiner],
    name: &str,
    default_port: u16,
) -> Result<&'m InventoryMiner, Failure> {
    let known = match (name.parse::<MinerId>(), name.parse::<Address>()) {
        (Ok(id), _) => miners.iter().find(|miner| miner.id == id),
        (_, Ok(address)) => {
            let port = address.api_port.unwrap_or(default_port);
            miners
                .iter()
                .find(|miner| (miner.ip, miner.api_port.unwrap_or(default_port)) == (address.ip, port))
        }
        _ => {
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(Failure::new(format!("\"{name}\" is neither the id of a miner nor an address")));
        }
    };
    known.ok_or_else(|| Failure::new(format!("{name} is not in the inventory")))
}

fn read_bounded(args: &FileArgs) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let most = MAX_BYTES as u64 + 1;
    let read = if args.file.as_os_str() == "-" {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        File::open(&args.file).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::new(format!("cannot read {}: {error}", args.file.display())))?;
    Ok(bytes)
}

/// A row of the file, with what is known of the miner beside it.
fn merge(row: Row, id: MinerId, before: Option<InventoryMiner>) -> InventoryMiner {
    InventoryMiner {
        id,
        ip: row.address.ip,
        api_port: row.address.api_port,
        rack: row.rack,
        position: row.position,
        customer: row.customer,
        credentials: row.credentials,
        out_of_service: before.as_ref().is_some_and(|b| b.out_of_service),
        protected: before.as_ref().is_some_and(|b| b.protected),
        learned: before.and_then(|b| b.learned),
    }
}

/// A miner as a row of the file.
pub(crate) fn row_of(miner: InventoryMiner) -> Row {
    Row {
        miner: Some(miner.id),
        address: address_of(&miner),
        rack: miner.rack,
        position: miner.position,
        customer: miner.customer,
        credentials: miner.credentials,
    }
}

/// Where a miner is reached.
pub fn address_of(miner: &InventoryMiner) -> Address {
    Address { ip: miner.ip, api_port: miner.api_port }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str) -> Result<Vec<Row>, String> {
        parse(text.as_bytes(), &CredentialStore::builtin(), 4028).map_err(|bad| bad.to_string())
    }

    #[test]
    fn every_faulty_line_is_named() {
        let text = "\u{feff}miner,address,rack,position,customer,credentials\r\n\
            ,10.0.0.1,A,1,,antminer-root\r\n\
            ,10.0.0.300,A,2,,\r\n\
            nonsense,10.0.0.2,A,2,,\r\n\
            ,10.0.0.3,A,3,,row-z\r\n\
            \r\n\
            ,10.0.0.1:4028,A,4,,\r\n\
            ,,A,5,,\r\n\
            ,224.0.0.1,,,,\r\n\
            ,10.0.0.9,,,,root:hunter2\r\n\
            ,10.0.0.10,,,,,surplus\r\n";
        let error = check(text).expect_err("faulty");
        for (line, part) in [
            (3, "not an address"),
            (4, "not a miner id"),
            (5, "\"row-z\" are not in credentials.toml"),
            (7, "stands in line 2"),
            (8, "address is missing"),
            (9, "not the address of one device"),
            (10, "not the sign-in itself"),
            (11, "7 fields"),
        ] {
            let named = error.lines().find(|l| l.starts_with(&format!("line {line}: ")));
            assert!(named.is_some_and(|l| l.contains(part)), "{line} {part}: {error}");
        }
        assert_eq!(error.lines().count(), 8, "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_header_is_required() {
        assert!(check("").expect_err("empty").contains("header"));
        assert!(check("10.0.0.1\n").expect_err("no header").contains("no column"));
        assert!(check("rack\n").expect_err("no address").contains("address is missing"));
        assert_eq!(check("address\n10.0.0.1\n").expect("enough").len(), 1);
    }

    #[test]
    fn the_number_of_named_lines_is_bounded() {
        let text = format!("address\n{}", "x\n".repeat(60));
        assert!(check(&text).expect_err("faulty").ends_with("and 10 more"));
    }

    #[test]
    fn a_miner_is_found_by_id_and_by_address() {
        let miners = [1, 2].map(crate::live::tests::miner);
        let by =
            |name: &str| find(&miners, name, 4028).map(|m| m.ip.to_string()).map_err(|e| format!("{e:?}"));
        assert_eq!(by("127.0.0.2").as_deref(), Ok("127.0.0.2"));
        assert_eq!(by("127.0.0.1:4028").as_deref(), Ok("127.0.0.1"));
        assert_eq!(by(&miners[1].id.to_string()).as_deref(), Ok("127.0.0.2"));
        assert!(by("127.0.0.2:4029").expect_err("another port").contains("not in the inventory"));
        assert!(by("row 3").expect_err("no name").contains("neither"));
    }

    #[test]
    fn a_known_address_keeps_its_miner() {
        let [a, b, c] = [1, 2, 3].map(|n| MinerId::from_random([n; 16]));
        let rows = check(&format!("miner,address\n,10.0.0.1\n{b},10.0.0.3\n,10.0.0.2\n")).expect("fine");
        let ip = |text: &str| text.parse::<IpAddr>().expect("an IP");
        let known = HashMap::from([((ip("10.0.0.1"), 4028), a), ((ip("10.0.0.2"), 4028), b)]);
        assert_eq!(adopt(&rows, &known, 4028, || c), [a, b, c]);
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of("[a-zA-Z0-9 ,\"';=äé楽-]{1,20}".prop_filter_map("blank", |t| {
            let t = t.trim().to_owned();
            (!t.is_empty()).then_some(t)
        }))
    }

    proptest! {
        #[test]
        fn a_file_reads_back(
            rows in proptest::collection::hash_map(any::<u32>(), (any::<bool>(), any::<Option<u16>>(), text(), text(), text()), 0..40)
        ) {
            let rows: Vec<Row> = rows
                .into_iter()
                .map(|(n, (named, port, rack, position, customer))| Row {
                    miner: named.then(|| MinerId::from_random(u128::from(n).to_be_bytes())),
                    address: Address { ip: IpAddr::from((n & 0x7fff_ffff | 1).to_be_bytes()), api_port: port.filter(|p| *p != 0) },
                    rack, position, customer,
                    credentials: named.then(|| "antminer-root".to_owned()),
                })
                .collect();
            let mut seen = HashSet::new();
            let rows: Vec<Row> = rows.into_iter().filter(|row| seen.insert(row.address.ip)).collect();
            let read = parse(&write(&rows), &CredentialStore::builtin(), 4028);
            prop_assert_eq!(read, Ok(rows));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes, &CredentialStore::builtin(), 4028);
            let mut with_header = b"address,rack\n".to_vec();
            with_header.extend_from_slice(&bytes);
            let _ = parse(&with_header, &CredentialStore::builtin(), 4028);
        }

        #[test]
        fn an_address_reads_back(n in 1u32..0x7fff_ffff, v6: bool, port: Option<u16>) {
            let ip = if v6 { IpAddr::from((1u128 << 125 | u128::from(n)).to_be_bytes()) } else { IpAddr::from(n.to_be_bytes()) };
            let address = Address { ip, api_port: port.filter(|p| *p != 0) };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}
