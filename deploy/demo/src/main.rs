//! `cargo demo`: builds and starts the whole system on this machine.

use clap::Parser;
use hashinsight_demo::process::{end_on_signals, interrupted};
use hashinsight_demo::script;
use hashinsight_demo::world::{AgentPlan, Plan, World, build_programs};
use hashinsight_demo::{Failure, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A control plane, two agents at one site and a third at another, with simulated miners of every family.
#[derive(Parser)]
#[command(name = "cargo demo")]
struct Args {
    /// Run the demonstration unattended, print a report, and exit 0 only if all of it held
    #[arg(long)]
    script: bool,
    /// Simulated miners, in all
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(12..=10_000))]
    miners: u32,
    /// Port of the console; 0 for a free one [default: 8080, or a free one with --script]
    #[arg(long)]
    port: Option<u16>,
    /// Keep everything in this folder instead of a temporary one
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Families by weight, `antminer=3,luxos`; the common ones where none are given
    #[arg(long)]
    mix: Option<String>,
    /// The same seed gives the same sites
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

const BIG: &str = "Cedar Creek";
const SMALL: &str = "Fjord North";

fn main() -> ExitCode {
    let args = Args::parse();
    match end_on_signals().and_then(|()| run(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("cargo demo: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    println!("building the programs (minutes the first time, then seconds)");
    let programs = build_programs()?;
    let temporary = args.dir.is_none();
    let folder = match &args.dir {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("hashinsight-demo-{}", std::process::id())),
    };
    let agent = |name: &str, site: &str, part: u32| AgentPlan {
        name: name.to_owned(),
        site: site.to_owned(),
        miners: args.miners * part / 6,
    };
    let plan = Plan {
        folder: folder.clone(),
        programs,
        http_port: args.port.unwrap_or(if args.script { 0 } else { 8080 }),
        agents: vec![agent("gateway-a1", BIG, 3), agent("gateway-a2", BIG, 2), agent("gateway-b1", SMALL, 1)],
        cycle_s: 5,
        time_scale: 10.0,
        mix: args.mix.clone(),
        seed: args.seed,
        environment: Vec::new(),
    };
    let outcome = demonstrate(args, plan);
    // What failed is kept: its logs say why.
    let failed = !matches!(outcome, Ok(true));
    if temporary && failed {
        eprintln!("everything is kept in {}", folder.display());
    } else if temporary {
        std::fs::remove_dir_all(&folder).map_err(Failure::of(folder.display()))?;
    }
    outcome
}

fn demonstrate(args: &Args, plan: Plan) -> Result<bool> {
    let mut say = |text: &str| println!("  {text}");
    let mut world = World::start(plan, &mut say)?;
    if args.script {
        let report = script::run(&mut world, BIG, &mut say)?;
        println!();
        for line in &report.lines {
            println!("{line}");
        }
        for failure in &report.failures {
            println!("FAILED: {failure}");
        }
        println!("{}", if report.failures.is_empty() { "all held" } else { "the demonstration failed" });
        return Ok(report.failures.is_empty());
    }
    println!();
    println!("  open      http://{}/", world.http);
    println!("  user      owner");
    if let Some(password) = &world.owner_password {
        println!("  password  {password}   (once; the console asks for your own)");
    }
    println!();
    println!("  Two sites with {} simulated miners report every 5 s. Order a reduction under", args.miners);
    println!("  \"Curtailment\" of a site and watch it happen. Ctrl-C ends everything.");
    while !interrupted() {
        std::thread::sleep(Duration::from_millis(200));
        world.check()?;
    }
    println!("  ending everything");
    Ok(true)
}
