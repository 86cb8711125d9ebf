//! The command line.

use crate::config::{Config, Mix, Net, Pre, parse_fault, parse_faults};
use crate::faults::FaultOrder;
use crate::{Clock, Farm, FarmError, Running};
use clap::Parser;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

/// A simulated mining site: devices on loopback addresses that speak their firmware's protocols.
#[derive(Debug, Parser)]
#[command(name = "hashinsight-farm", version)]
pub struct Args {
    /// How many devices
    #[arg(long, default_value_t = 300)]
    pub miners: u32,
    /// The same seed gives the same site
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Loopback network that the devices live in
    #[arg(long, default_value = "127.10.0.0/16")]
    pub net: Net,
    /// Port of the CGMiner API, the same for all devices
    #[arg(long, default_value_t = 4028, value_parser = clap::value_parser!(u16).range(1..))]
    pub api_port: u16,
    /// Port of the web servers, the same for all devices
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    pub web_port: u16,
    /// Port of Whatsminers' API 3, where the mix has any
    #[arg(long, default_value_t = 4433, value_parser = clap::value_parser!(u16).range(1..))]
    pub v3_port: u16,
    /// Log of every answered poll and every write, JSON lines
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Families by weight, e.g. antminer-stock=3,whatsminer=2,avalon,braiins,luxos,cgminer [default: the
    /// common ones]
    #[arg(long)]
    pub mix: Option<Mix>,
    /// Shares not in their ordinary state, e.g. asleep=5%,limited=5%,hem=5%
    #[arg(long, default_value = "")]
    pub pre: Pre,
    /// A fault on a share of the devices, e.g. lie=5% or late=3%:120; may be repeated
    #[arg(long, value_parser = parse_fault)]
    pub fault: Vec<FaultOrder>,
    /// Faults, one JSON object a line
    #[arg(long)]
    pub faults: Option<PathBuf>,
    /// Control socket, on loopback
    #[arg(long)]
    pub control: Option<SocketAddr>,
    /// A listener of its own for every device, so that connections can truly be refused
    #[arg(long)]
    pub own_listeners: bool,
    /// Divides every ramp, boot and delay
    #[arg(long, default_value_t = 1.0)]
    pub time_scale: f64,
    /// Where to write the inventory that an agent imports
    #[arg(long)]
    pub inventory_out: Option<PathBuf>,
    /// Written when the farm serves; holds its addresses as JSON
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
}

impl Args {
    fn config(&self) -> Result<Config, FarmError> {
        let mut faults = self.fault.clone();
        if let Some(path) = &self.faults {
            let text = fs::read_to_string(path)
                .map_err(|e| FarmError::Config(format!("cannot read {}: {e}", path.display())))?;
            let read =
                parse_faults(&text).map_err(|e| FarmError::Config(format!("{}: {e}", path.display())))?;
            faults.extend(read);
        }
        Ok(Config {
            miners: self.miners,
            seed: self.seed,
            net: self.net,
            api_port: self.api_port,
            web_port: self.web_port,
            v3_port: self.v3_port,
            log: self.log.clone(),
            mix: self.mix.clone().unwrap_or_default(),
            pre: self.pre,
            faults,
            control: self.control,
            own_listeners: self.own_listeners,
            time_scale: self.time_scale,
            clock: Clock::System,
        })
    }
}

/// Runs a farm until a signal or the control socket ends it.
pub async fn run(args: Args) -> Result<(), FarmError> {
    let signals = |e: io::Error| FarmError::Config(format!("cannot wait for signals: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut running = Farm::start(args.config()?).await?;
    if let Err(error) = announce(&args, &running) {
        running.stop().await;
        return Err(error);
    }
    eprintln!(
        "hashinsight-farm: {} devices on {}, port {}, web port {}",
        args.miners, args.net, args.api_port, args.web_port
    );
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        () = running.asked_to_stop() => {}
    }
    running.stop().await;
    Ok(())
}

fn announce(args: &Args, running: &Running) -> Result<(), FarmError> {
    if let Some(path) = &args.inventory_out {
        write_whole(path, running.inventory())?;
    }
    if let Some(path) = &args.ready_file {
        let ready = serde_json::json!({
            "pid": std::process::id(),
            "miners": args.miners,
            "api_port": args.api_port,
            "web_port": args.web_port,
            "control": running.control().map(|c| c.to_string()),
        });
        write_whole(path, &format!("{ready}\n"))?;
    }
    Ok(())
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, text: &str) -> Result<(), FarmError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    fs::write(&part, text)
        .and_then(|()| fs::rename(&part, path))
        .map_err(|e| FarmError::File(path.to_owned(), e))
}
