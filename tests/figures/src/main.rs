//! Figures: what the programs can do and what it costs them, measured on the machine this runs on.
//!
//! A figure is a number that is compared with something of the same run, or with a bound. Ratios are
//! of processes of their own that do the same work in alternating turns, by the CPU time that the
//! kernel counts for each, so that a busy machine spoils few of them. A figure outside its bound makes
//! the command fail.
//!
//! `cargo figures poll`: what polling miners costs the agent ([`poll`]).

mod child;
mod figure;
mod measure;
mod poll;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// What can go wrong is told in one line.
type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Measures what the programs can do, and what it costs them.
#[derive(Debug, Parser)]
#[command(name = "cargo figures", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Polling: miners per second and per CPU-second, beside a loop that only exchanges the bytes.
    Poll(poll::Args),
    /// One of the processes that a measurement is made of.
    #[command(subcommand, hide = true)]
    Part(poll::Part),
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Poll(args) => poll::run(&args),
        Command::Part(part) => part.run().map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("figures: {error}");
            ExitCode::FAILURE
        }
    }
}
