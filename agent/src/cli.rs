//! The command line. Every failure is one clear line on standard error and a non-zero exit.

use crate::config::Config;
use crate::{corpus, discover, enrol, install, inventory, probe, ready, status, supervisor};
use clap::{Args, Parser, Subcommand};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the configuration lies unless `--config` says otherwise.
pub const CONFIG_FILE: &str = "/etc/hashinsight-agent/agent.toml";

#[derive(Parser)]
#[command(name = "hashinsight-agent", version, about = "Polls miners and executes curtailment at a site")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent.
    Run(ConfigArg),
    /// Enrol this gateway with a control plane, by a one-time token.
    #[command(visible_alias = "enrol")]
    Enroll(enrol::EnrolArgs),
    /// The miners that this agent owns: their list, their locks, and what is changed of them by hand.
    #[command(subcommand, visible_alias = "miners")]
    Inventory(inventory::InventoryCommand),
    /// Look for miners in ranges of addresses, and propose the new ones.
    Discover(discover::DiscoverArgs),
    /// Prove that every miner could be stopped and woken now, without writing to any.
    Ready(ready::ReadyArgs),
    /// Ask one device what it is, and show what is understood of its answer.
    Probe(probe::ProbeArgs),
    /// Decode a folder of recorded replies.
    Corpus(corpus::CorpusArgs),
    /// Show what runs, which plans are held, and where each target stands.
    Status(status::StatusArgs),
    /// Set up folders and a systemd unit.
    Install(install::InstallArgs),
    /// Remove the systemd unit; the data stays unless --purge.
    Uninstall(install::UninstallArgs),
}

/// Where the configuration lies; shared by the subcommands that need it.
#[derive(Args, Clone, Debug)]
pub struct ConfigArg {
    /// Configuration file; built-in defaults apply where the default file is absent.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArg {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// A file that was named is absent, or the file is unreadable, malformed or out of bounds.
    pub fn load(&self) -> Result<Config, Failure> {
        match &self.config {
            Some(path) => Ok(Config::load(path)?),
            None if Path::new(CONFIG_FILE).exists() => Ok(Config::load(Path::new(CONFIG_FILE))?),
            None => Ok(Config::default()),
        }
    }
}

/// Why a command failed, in one line.
#[derive(Debug)]
pub struct Failure {
    line: String,
    code: u8,
}

impl Failure {
    pub fn new(line: impl fmt::Display) -> Self {
        let line = line.to_string().trim_end().to_owned();
        Self { line, code: 1 }
    }

    /// The same with an exit code of its own.
    #[must_use]
    pub fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    /// The error and all its sources that add something, in one line.
    fn from(error: E) -> Self {
        let mut line = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            source = cause.source();
        }
        Self::new(line)
    }
}

/// Runs what the arguments ask.
pub fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("hashinsight-agent: {}", failure.line);
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Install(args) => install::install(&args),
        Command::Uninstall(args) => install::uninstall(&args),
        command => runtime()?.block_on(dispatch_async(command)),
    }
}

/// The runtime of the agent. Two threads serve thousands of connections that wait; more would only cost
/// memory.
///
/// # Errors
/// The system has no threads left.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

async fn dispatch_async(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(config) => supervisor::run(config.load()?).await,
        Command::Enroll(args) => enrol::enrol(args).await,
        Command::Inventory(command) => inventory::run(command).await,
        Command::Discover(args) => discover::run(args).await,
        Command::Ready(args) => ready::run(args).await,
        Command::Probe(args) => probe::run(args).await,
        Command::Corpus(args) => corpus::run(args).await,
        Command::Status(args) => status::run(args).await,
        // Served before the runtime starts.
        Command::Install(_) | Command::Uninstall(_) => Ok(()),
    }
}
