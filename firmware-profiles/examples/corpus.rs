//! Replays a folder of captures and prints a line of JSON for each.
//!
//! `cargo run -p hashinsight-firmware --example corpus -- DIR [--json]`

use hashinsight_firmware::{Profiles, replay};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args().nth(1).map(PathBuf::from).ok_or("usage: corpus DIR")?;
    let profiles = Profiles::builtin();
    for case in replay::captures(&root)? {
        println!("{}", replay::line(&profiles, &root, &case));
    }
    Ok(())
}
