//! `cargo chaos --seconds 300 --seed N`.

use clap::Parser;
use hashinsight_chaos::run::{AGENTS, Setup, run};
use hashinsight_chaos::schedule::schedule;
use hashinsight_demo::process::end_on_signals;
use hashinsight_demo::world::build_programs;
use hashinsight_demo::{Failure, Result};
use std::process::ExitCode;
use std::time::Duration;

/// Mixes faults over the running system and checks its books against the devices' own logs.
#[derive(Parser)]
#[command(name = "cargo chaos")]
struct Args {
    /// How long faults go on
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// The same seed gives the same faults [default: drawn]
    #[arg(long)]
    seed: Option<u64>,
    /// Simulated miners, in all
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(4..=5_000))]
    miners: u32,
    /// Plants this fault in the product; the run must fail then
    #[arg(long, value_parser = ["ack-early", "drop", "double", "reuse-seq"])]
    sabotage: Option<String>,
    /// Print what this seed would do, and end
    #[arg(long)]
    list: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match end_on_signals().and_then(|()| chaos(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("cargo chaos: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn chaos(args: &Args) -> Result<bool> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let length = Duration::from_secs(args.seconds);
    if args.list {
        println!("seed {seed}");
        for (at, fault) in schedule(seed, length, AGENTS, true) {
            println!("{:>7.1} s  {fault:?}", at.as_secs_f64());
        }
        return Ok(true);
    }
    let programs = build_programs()?;
    let folder = tempfile::Builder::new()
        .prefix("hashinsight-chaos-")
        .tempdir()
        .map_err(Failure::of("a temporary folder"))?;
    let setup = Setup {
        seed,
        length,
        miners: args.miners,
        sabotage: args.sabotage.clone(),
        programs,
        folder: folder.path().to_owned(),
    };
    let mut say = |text: &str| eprintln!("  {text}");
    let report = run(&setup, &mut say)?;
    if args.json {
        println!("{:#}", report.to_json());
    } else {
        println!();
        for line in report.lines() {
            println!("{line}");
        }
        for failure in report.failures() {
            println!("FAILED: {failure}");
        }
        println!("{}", if report.failures().is_empty() { "all held" } else { "the run failed" });
    }
    let held = report.failures().is_empty();
    if !held && args.sabotage.is_none() {
        // What failed is kept: its logs say why.
        eprintln!("everything is kept in {}", folder.keep().display());
    }
    Ok(held)
}
