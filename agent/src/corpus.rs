//! `corpus DIR`: decodes a folder of recorded replies, for bug reports and for the conformance set.

use crate::cli::Failure;
use clap::Args;
use hashinsight_firmware::{Profiles, replay};
use serde_json::Value;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct CorpusArgs {
    /// A folder with captures below it, or one capture.
    dir: PathBuf,
    /// Print one JSON object a line for each capture.
    #[arg(long)]
    json: bool,
    /// Folder of firmware profiles that override the built-in ones.
    #[arg(long, value_name = "DIR")]
    profiles: Option<PathBuf>,
}

/// # Errors
/// The folder can't be read, or holds no capture.
pub async fn run(args: CorpusArgs) -> Result<(), Failure> {
    let profiles = match &args.profiles {
        Some(folder) => Profiles::with_folder(folder)?,
        None => Profiles::builtin(),
    };
    let mut captures = replay::captures(&args.dir)?;
    if args.dir.join("case.json").is_file() {
        captures.insert(0, args.dir.clone());
    }
    if captures.is_empty() {
        return Err(Failure::new(format!(
            "{} holds no capture (a folder with case.json)",
            args.dir.display()
        )));
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    for capture in captures {
        let line = replay::line(&profiles, &args.dir, &capture);
        let written = if args.json { writeln!(out, "{line}") } else { writeln!(out, "{}", to_text(&line)) };
        if written.is_err() {
            // The reader has seen enough.
            return Ok(());
        }
    }
    let _ = out.flush();
    Ok(())
}

fn to_text(line: &Value) -> String {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        value => value.to_string(),
    };
    let case = text(&line["case"]);
    if !line["error"].is_null() {
        return format!("{case}  {}", text(&line["error"]));
    }
    let reading = &line["reading"];
    format!(
        "{case}  {}  {}  {} H/s  {} W  mining {}",
        text(&line["firmware"]),
        text(&line["model"]),
        text(&reading["hashrate_hs"]),
        text(&reading["power_w"]),
        text(&reading["is_mining"]),
    )
}
