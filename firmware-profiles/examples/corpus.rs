//! Replays a folder of captures and prints a line of JSON for each.
//!
//! `cargo run -p hashinsight-firmware --example corpus -- DIR [PROFILES]`

use hashinsight_firmware::{Profiles, replay};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args().nth(1).map(PathBuf::from).ok_or("usage: corpus DIR [PROFILES]")?;
    let profiles = match std::env::args().nth(2) {
        Some(folder) => Profiles::with_folder(folder)?,
        None => Profiles::builtin(),
    };
    for case in replay::captures(&root)? {
        println!("{}", replay::line(&profiles, &root, &case));
    }
    Ok(())
}
